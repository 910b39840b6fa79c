"""The registry: what it lists is what the rooms fulfil, and what is asked for is found or refused by name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Tally
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import product as registry
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import CONTROLLERS, controlled_kind
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.gateway import GATEWAYS, Access
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.log import LOGS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.observed import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import (
    PRODUCTS,
    Product,
    kind_by_connection,
    kinds_with,
    permissions,
    product_of,
    resolve,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.server import SERVERS
from ansible_collections.mailfleet.starttls.plugins.modules.tls_certificate import ARGUMENT_SPEC as CERTIFICATE_SPEC

FACETS = {"server": {**SERVERS, **CONTROLLERS}, "gateway": GATEWAYS, "log": LOGS}


@pytest.mark.parametrize("facet", FACETS)
def test_each_facet_that_is_listed_has_its_adapter(facet):
    assert set(FACETS[facet]) == set(kinds_with(facet))


def test_there_are_no_other_facets():
    assert {facet for product in PRODUCTS.values() for facet in product.facets} == set(FACETS)


def gateway(kind):
    """The adapter of a kind; nothing is asked of it."""
    api = {"api_url": "https://gateway.example.com", "api_user": "root@pam", "api_password": "x", "api_key": "y"}
    access = Access(lambda _words: (0, "", ""), None, Target("127.0.0.1"), config_dir="/etc/haraka", **api)
    return GATEWAYS[kind](access, Settings())


@pytest.mark.parametrize("kind", GATEWAYS)
def test_the_capabilities_are_what_the_adapter_does(kind):
    limits = gateway(kind).limits
    capable = set(PRODUCTS[kind].capabilities)
    assert capable & {"enforced", "outbound"} == {"enforced", "outbound"} - set(limits)
    assert ("accept" in capable) is (kind in SERVERS)


def test_an_unknown_kind_lists_the_kinds():
    with pytest.raises(EngineError) as error:
        product_of("postfx", "server", "kind")
    assert (
        str(error.value)
        == "kind 'postfx' is not a known kind; choose one of: postfix, exim, exchange (in an inventory the variable is starttls_kind)"
    )


@pytest.mark.parametrize(
    ("facet", "message"),
    [
        ("server", "Haraka has its own way to accept TLS: install its certificate and switch TLS on there."),
        (
            "log",
            "the log of Haraka cannot be read yet; daemon can be: postfix, exim, proxmox (in an inventory the variable is starttls_kind)",
        ),
    ],
)
def test_a_kind_without_the_facet_says_so(facet, message):
    with pytest.raises(EngineError) as error:
        resolve("haraka", facet, "daemon")
    assert str(error.value).startswith(message)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Makes products on a host: host("one", "two"), each with program and configuration below a directory of its own."""

    def place(name):
        return Layout(
            "test",
            (f"{tmp_path}/{name}/bin",),
            f"{name}.service",
            f"{tmp_path}/{name}",
            f"{tmp_path}/{name}/conf",
            name,
            (name,),
            (),
        )

    monkeypatch.setattr(
        registry, "PRODUCTS", {name: Product(name.title(), ("server",), (place(name),)) for name in ("one", "two")}
    )

    def install(*names, files=("bin", "conf")):
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
            for file in files:
                Path(tmp_path, name, file).touch()

    return install


def test_the_one_that_is_there_is_found(host):
    host("two")
    host("one", files=["conf"])  # a package that was removed leaves its configuration
    assert resolve("auto", "server", "kind") == "two"


def test_of_two_none_is_chosen(host):
    host("one", "two")
    with pytest.raises(EngineError) as error:
        resolve("auto", "server", "starttls_kind")
    assert (
        str(error.value)
        == "One and Two are both on this host; set starttls_kind to one of: one, two (in an inventory the variable is starttls_kind)"
    )


def test_what_a_host_runs(host, tmp_path):
    host("two")
    found = describe("auto")
    assert (found["kind"], found["title"]) == ("two", "Two")
    assert (found["layout"]["platform"], found["layout"]["config_dir"]) == ("test", f"{tmp_path}/two")
    assert json.loads(json.dumps(found)) == {
        **found,
        "layout": {**found["layout"], "programs": [f"{tmp_path}/two/bin"], "daemons": ["two"], "logs": []},
    }
    assert describe("one") == {"kind": "one", "title": "One"}  # named, and not here
    host("one")
    assert describe("auto")["kind"] == ""
    assert describe("auto")["message"].startswith("One and Two are both on this host")
    with pytest.raises(EngineError, match="choose one of: one, two"):
        describe("three")


@pytest.mark.parametrize("kind", GATEWAYS)
def test_messages_of_a_gateway_have_the_title_of_the_registry(kind):
    assert PRODUCTS[kind].title in gateway(kind).title


def test_none_is_said(host):
    with pytest.raises(EngineError) as error:
        resolve("auto", "server", "kind")
    assert (
        str(error.value)
        == "no known mail server is on this host; set kind to one of: one, two (in an inventory the variable is starttls_kind)"
    )


def test_the_connection_tells_a_kind_whose_decisions_run_on_the_controller(monkeypatch):
    far = replace(PRODUCTS["postfix"], title="Far", layouts=(), connections=("psrp", "winrm"))
    monkeypatch.setattr(registry, "PRODUCTS", {"postfix": PRODUCTS["postfix"], "far": far})
    assert kind_by_connection("auto", "winrm") == "far"
    assert kind_by_connection("auto", "ansible.builtin.psrp") == "far"
    assert kind_by_connection("auto", "ssh") == "auto"
    assert kind_by_connection("far", "ssh") == "far"  # PowerShell over SSH
    assert kind_by_connection("postfix", "ssh") == "postfix"
    with pytest.raises(EngineError, match="kind 'faar' is not a known kind"):
        kind_by_connection("faar", "ssh")


@pytest.mark.parametrize(
    ("kind", "connection", "found"),
    [
        ("auto", "psrp", "exchange"),
        ("", "winrm", "exchange"),
        ("exchange", "ssh", "exchange"),
        ("auto", "ssh", ""),
        ("postfix", "psrp", ""),
        ("haraka", "ssh", ""),
    ],
)
def test_where_the_decisions_of_a_host_run(kind, connection, found):
    assert controlled_kind(kind, connection) == found


def test_another_platform_is_one_more_layout(monkeypatch, tmp_path):
    """Found, asked for its configuration, and where its logs and roots are: all of it comes from the layout."""
    layout = replace(
        PRODUCTS["postfix"].layouts[0], platform="Other", programs=(f"{tmp_path}/postfix",), config_dir=str(tmp_path),
        config_file=f"{tmp_path}/main.cf", logs=(f"{tmp_path}/maillog*",), ca_bundle=f"{tmp_path}/roots.pem",
    )  # fmt: skip
    monkeypatch.setattr(
        registry, "PRODUCTS", {"postfix": replace(PRODUCTS["postfix"], layouts=(*PRODUCTS["postfix"].layouts, layout))}
    )
    for file in ("postfix", "main.cf"):
        (tmp_path / file).touch()
    asked = []

    def run(words):
        asked.append(list(words))
        return 1, "", "not here"

    assert resolve("auto", "server", "kind") == "postfix"
    server = SERVERS["postfix"](run, Desired(inbound="offered"), Settings())
    with pytest.raises(EngineError):
        server.require_running()
    with pytest.raises(EngineError):
        server.state()
    assert [words[:3] for words in asked] == [["postconf", "-c", str(tmp_path)]] * 2
    assert LOGS["postfix"](Tally(1), 0, 1, run).globs == layout.logs
    assert registry.layout_for("auto", "kind") == layout


def test_platforms_with_the_same_paths_are_told_apart_by_a_sign(tmp_path):
    for file in ("bin", "conf"):
        (tmp_path / file).touch()
    usual = Layout("usual", (f"{tmp_path}/bin",), "x.service", str(tmp_path), f"{tmp_path}/conf", "x", ("x",), ())
    signed = replace(usual, platform="signed", sign=f"{tmp_path}/release")
    assert registry.layout_here((usual, signed)) == usual
    (tmp_path / "release").touch()
    assert registry.layout_here((usual, signed)) == signed


LAYOUT = Layout("Other", ("mta",), "mta", "/etc/mta", "/etc/mta/conf", "mta", ("mta",), (), "mta", 0o640)


def needed(**given):
    """Group and mode of a certificate file for these options of tls_certificate."""
    options = {name: spec.get("default") for name, spec in CERTIFICATE_SPEC.items()}
    return permissions({**options, **given})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"kind": "auto"}, ("mta", 0o640)),
        ({"kind": "auto", "group": "mail"}, ("mail", 0o640)),
        ({"kind": "auto", "mode": "0600"}, ("mta", "0600")),
        ({}, ("root", 0o600)),
        ({"kind": "auto", "state": "absent"}, ("root", 0o600)),
    ],
)
def test_what_is_not_given_is_what_the_mail_server_needs(monkeypatch, given, wanted):
    monkeypatch.setattr(registry, "layout_for", lambda kind, option: LAYOUT)
    assert needed(**given) == wanted


def test_without_a_mail_server_the_file_is_for_root_only(monkeypatch):
    monkeypatch.setattr(registry, "layout_for", lambda kind, option: None)
    assert needed(kind="auto") == ("root", 0o600)


def test_the_registry_is_not_asked_for_what_is_given():
    assert needed(kind="no-such-kind", group="mail", mode="0640") == ("mail", "0640")
    with pytest.raises(EngineError, match=f"choose among|one of|{', '.join(PRODUCTS)}"):
        needed(kind="no-such-kind", group="mail")
