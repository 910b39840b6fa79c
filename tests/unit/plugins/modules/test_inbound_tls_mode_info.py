"""What the module says about a gateway, run as Ansible runs it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import gateway as exim
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import dump
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import OwnPaths
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import gateway as registry
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import layout_of
from ansible_collections.mailfleet.starttls.plugins.modules import inbound_tls_mode_info as module

from tests.support.ansible_module import run_module

MODES = ["plaintext", "match_sender", "match_sender_strict", "opportunistic", "required"]
FACTS = {
    "changed", "email_configs", "delivery_modes", "limits", "enforced_domains", "outbound", "accepted_domains", "delivered_modes",
    "in_force", "differences", "keeps_names",
}  # fmt: skip


@pytest.fixture
def registries(monkeypatch, tmp_path):
    """Where each kind of gateway keeps its email configs."""
    paths = {"postfix": Path(OwnPaths(str(tmp_path)).registry), "exim": tmp_path / "exim.json"}
    paths["postfix"].parent.mkdir()
    monkeypatch.setattr(registry, "layout_of", lambda kind: replace(layout_of(kind), config_dir=str(tmp_path)))
    monkeypatch.setattr(exim, "REGISTRY", str(paths["exim"]))
    return paths


def config(name, mode):
    return EmailConfig(name, (f"{name}.example",), (Target("mx.example"), Target("2001:db8::1", 26)), mode)


def text_of(*configs, **more):
    return dump(GatewayState({one.name: one for one in configs}, **more))


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_a_gateway_without_email_configs(registries, kind, check_mode):
    result = run_module(module.main, check_mode=check_mode, gateway=kind)
    assert (result["changed"], result["email_configs"], result["delivery_modes"]) == (False, [], MODES)
    assert (result["limits"], result["enforced_domains"], result["outbound"]) == ({}, [], {})
    assert set(result) - {"invocation"} == FACTS
    assert not registries[kind].exists()


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_the_email_configs_in_order_of_their_names(registries, kind):
    text = text_of(config("zeta", "required"), config("alpha", "match_sender_strict"))
    registries[kind].write_text(text)
    result = run_module(module.main, gateway=kind)
    servers = ["mx.example:25", "[2001:db8::1]:26"]
    assert result["email_configs"] == [
        {"name": "alpha", "domains": ["alpha.example"], "servers": servers, "delivery_mode": "match_sender_strict"},
        {"name": "zeta", "domains": ["zeta.example"], "servers": servers, "delivery_mode": "required"},
    ]
    assert result["changed"] is False
    assert registries[kind].read_text() == text


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_enforced_domains_and_the_outbound_side(registries, kind):
    enforced = (
        EnforcedDomain("partner.example", "inbound"),
        EnforcedDomain("bank.example", "outbound", "hostname", (Target("mx.bank.example"),)),
    )
    registries[kind].write_text(
        text_of(enforced=enforced, outbound=OutboundTls("both", "match_sender", ("192.0.2.0/24",)))
    )
    result = run_module(module.main, gateway=kind)
    assert result["enforced_domains"] == [
        {"domain": "partner.example", "direction": "inbound"},
        {
            "domain": "bank.example",
            "direction": "outbound",
            "certificate_check": "hostname",
            "servers": ["mx.bank.example:25"],
        },
    ]
    assert result["outbound"] == {"accept": "both", "send": "match_sender", "mail_servers": ["192.0.2.0/24"]}
    assert result["email_configs"] == []


def test_the_order_is_not_that_of_the_file(registries):
    data = json.loads(text_of(config("a", "plaintext"), config("b", "plaintext")))
    data["email_configs"].reverse()
    registries["exim"].write_text(json.dumps(data))
    assert [one["name"] for one in run_module(module.main, gateway="exim")["email_configs"]] == ["a", "b"]


def test_without_a_word_it_is_postfix(registries):
    registries["postfix"].write_text(text_of(config("one", "plaintext")))
    assert [one["name"] for one in run_module(module.main)["email_configs"]] == ["one"]


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_a_file_that_cannot_be_read_is_said(registries, kind):
    registries[kind].write_text("{")
    result = run_module(module.main, gateway=kind)
    assert result["failed"] is True
    assert result["msg"].startswith(f"{registries[kind]} cannot be read (")


@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_a_directory_in_its_place_is_said(registries, kind):
    registries[kind].mkdir()
    result = run_module(module.main, gateway=kind)
    assert result["failed"] is True
    assert str(registries[kind]) in result["msg"]


def test_another_kind_is_refused(registries):
    result = run_module(module.main, gateway="sendmail")
    assert result["failed"] is True
    assert "postfix, exim, haraka, proxmox, mailcow" in result["msg"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "a b"}, "the host 'a b' is neither a host name nor an IP address"),
        ({"port": 0}, "the port 0 of 127.0.0.1 is not between 1 and 65535"),
    ],
)
def test_an_own_port_that_makes_no_sense_is_said(registries, options, said):
    result = run_module(module.main, **options)
    assert (result["failed"], result["msg"]) == (True, said)


@pytest.mark.parametrize("option", ["delivery_mode", "require_without_evidence", "email_configs"])
def test_what_changes_a_gateway_is_no_option(registries, option):
    result = run_module(module.main, **{option: "x"})
    assert result["failed"] is True
    assert "Unsupported parameters" in result["msg"]
