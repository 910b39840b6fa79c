"""The module that reads a gateway, run as Ansible runs it."""

from types import SimpleNamespace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_gateway_host as host
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import EmailConfig, GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.gateway import PostfixGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.modules import gateway_info as module

from tests.support.ansible_module import run_module

VIEW = {
    "gateway": {"title": "x", "email_configs": []},
    "digests": {"/etc/gateway": "absent"},
    "obstacles": [{"code": "port_in_use", "message": "10125"}, {"code": "change_refused", "message": "both say this"}],
    "notes": [{"code": "queue_not_empty", "message": "one"}],
    "interrupted": False,
    "probe": {"results": ["from the gateway"], "certificates": {}},
}
SERVER = {
    "kind": "postfix",
    "digests": {"/etc/server": "absent"},
    "obstacles": [{"code": "configuration_broken", "message": "both say this"}],
    "notes": [{"code": "socket_not_configured", "message": "two"}],
    "journal": None,
    "probe": {"results": ["from the server"], "certificates": {}},
}


@pytest.fixture
def engine(monkeypatch):
    """The calls of the two readers: engine.gateway and engine.server."""

    made = SimpleNamespace(gateway=[], server=[], view=VIEW)

    def read_gateway(*arguments, probe, certificate):
        assert certificate
        made.gateway.append((*arguments, probe))
        return made.view

    def read_mail_server(options, run, targets):
        made.server.append((options, list(targets)))
        return SERVER

    monkeypatch.setattr(host, "read_gateway", read_gateway)
    monkeypatch.setattr(host, "read_mail_server", read_mail_server)
    return made


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("kind", ["postfix", "exim"])
def test_a_gateway_with_a_mail_server_is_read_with_it(engine, kind, check_mode):
    result = run_module(
        module.main, check_mode=check_mode, gateway=kind, send="required", domains=["a.example"], timeout=7,
        email_configs=[{"name": "main", "servers": ["mx.example", "127.0.0.1:25"], "delivery_mode": "required"}],
        inbound="offered", certificate="/etc/x.pem", bundle={"sha256": "ab", "fingerprints": ["cd"]},
    )  # fmt: skip
    [(_gateway, wanted, settings, domains, capabilities, probe)] = engine.gateway
    assert (wanted["send"], wanted["email_configs"][0]["name"], settings.timeout) == ("required", "main", 7.0)
    assert (domains, capabilities, probe) == (["a.example"], PRODUCTS[kind].capabilities, False)
    [(options, targets)] = engine.server
    # As a mail server it is wanted to accept TLS, and its outbound side is the gateway's.
    assert {name: options[name] for name in ("kind", "inbound", "outbound", "relax", "only_relax", "certificate")} == {
        "kind": kind, "inbound": "offered", "outbound": None, "relax": False, "only_relax": False, "certificate": "/etc/x.pem",
    }  # fmt: skip
    assert (options["bundle"]["sha256"], options["bundle_content"]) == ("ab", None)
    assert (options["address"], options["port"]) == ("127.0.0.1", 25)
    assert targets == [Target("mx.example")]  # not its own port, which the other reader tests
    assert {key: value for key, value in result.items() if key != "invocation"} == {
        **SERVER,
        "changed": False,
        "gateway": VIEW["gateway"],
        "digests": {"/etc/server": "absent", "/etc/gateway": "absent"},
        "obstacles": [*SERVER["obstacles"], VIEW["obstacles"][0]],
        "notes": [*SERVER["notes"], *VIEW["notes"]],
    }


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_gateway_whose_product_accepts_tls_itself_is_read_alone(engine, interrupted):
    engine.view = {**VIEW, "interrupted": interrupted}
    result = run_module(module.main, gateway="haraka", email_configs=[])
    assert engine.server == []
    [call] = engine.gateway
    assert call[-2:] == ((), True)
    assert {key: value for key, value in result.items() if key != "invocation"} == {
        "changed": False, "kind": "haraka", "title": "Haraka", "health": {"state": "unknown", "message": ""},
        "listeners": None, "transports": None, "changes": [], "notes": VIEW["notes"], "gateway": VIEW["gateway"],
        "journal": {"path": "", "files": []} if interrupted else None, "probe": VIEW["probe"],
        "digests": VIEW["digests"], "obstacles": VIEW["obstacles"],
    }  # fmt: skip


def test_to_accept_tls_is_refused_by_name_where_the_product_does_that(engine):
    result = run_module(module.main, gateway="haraka", inbound="offered")
    assert [one["code"] for one in result["obstacles"]] == ["change_refused", "port_in_use", "change_refused"]
    assert result["obstacles"][0]["message"].startswith("Haraka has its own way to accept TLS: install its certificate")


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("haraka", "Haraka, so it is not set here; set it in config/tls.ini (minVersion)"),
        (
            "proxmox",
            "Proxmox Mail Gateway, so it is not set here; set it in a template of your own, /etc/pmg/templates/main.cf.in",
        ),
        ("mailcow", "mailcow, so it is not set here; set it in data/conf/postfix/extra.cf"),
    ],
)
def test_a_gateway_that_holds_no_floor_says_where_to_set_it(engine, kind, place):
    result = run_module(module.main, gateway=kind, email_configs=[], min_tls="TLSv1.2")
    assert (engine.server, result["notes"][:-1]) == ([], VIEW["notes"])
    assert result["notes"][-1]["code"] == "tls_floor_by_hand"
    said = result["notes"][-1]["message"]
    assert said.startswith(f"starttls_min_tls is TLSv1.2, and the collection sets no TLS versions on {place}")
    assert said.endswith(", and take starttls_min_tls away for this host")


def test_a_floor_that_the_own_transports_do_not_get_in_this_run_is_said(engine, monkeypatch):
    held = GatewayState({"main": EmailConfig("main", ("a.example",), (Target("mx.example"),), "required")})
    monkeypatch.setattr(PostfixGateway, "read", lambda _self, _wanted=(): held)
    codes = []
    for more in ({}, {"send": "required"}, {"inbound": "renewed"}, {"min_tls": "none"}):
        result = run_module(module.main, **{"gateway": "postfix", "inbound": "offered", "min_tls": "TLSv1.2", **more})
        codes.append([one["code"] for one in result["notes"] if one["code"].startswith("tls_floor")])
    assert codes == [["tls_floor_not_reached"], [], [], []]


@pytest.mark.parametrize(
    ("mode", "at_once", "tested", "obstacles", "notes"),
    [
        ("required", True, {"completed": True, "tls_version": "TLSv1.1"}, 1, 0),
        ("opportunistic", True, {"completed": True, "tls_version": "TLSv1.1"}, 0, 1),
        ("opportunistic", False, {"completed": True, "tls_version": "TLSv1.1"}, 1, 0),
        ("plaintext", False, {"completed": True, "tls_version": "TLSv1.1"}, 0, 0),
        ("required", False, {"completed": True, "tls_version": "TLSv1.2"}, 0, 0),
        ("required", False, {"completed": False, "tls_version": ""}, 0, 0),  # the same run may switch TLS on there
    ],
)
def test_the_plan_knows_the_mail_servers_that_do_not_reach_the_floor(
    engine, monkeypatch, mode, at_once, tested, obstacles, notes
):
    monkeypatch.setattr(PostfixGateway, "read", lambda _self, _wanted=(): GatewayState())
    monkeypatch.setattr(PostfixGateway, "plaintext_at_once", at_once)
    tests = ["something else", {"host": "mx.example", "port": 25, **tested}]
    monkeypatch.setitem(SERVER, "probe", {"results": tests, "certificates": {}})
    one = {"name": "main", "domains": ["a.example"], "servers": ["mx.example"], "delivery_mode": mode}
    result = run_module(module.main, gateway="postfix", inbound="offered", min_tls="TLSv1.2", email_configs=[one])
    said = "mx.example:25: it speaks TLSv1.1 at most"
    assert len([one for one in result["obstacles"] if said in one["message"]]) == obstacles
    assert [one["message"] for one in result["notes"] if one["code"] == "tls_floor_not_reached"] == [
        f"{said}, so mail would go there in plaintext"
    ] * notes


@pytest.mark.parametrize("options", [{}, {"min_tls": "none"}, {"min_tls": "TLSv1.2", "state": "absent"}])
def test_where_no_floor_is_wanted_nothing_is_said_of_it(engine, options):
    assert run_module(module.main, gateway="haraka", **options)["notes"] == VIEW["notes"]


@pytest.mark.parametrize("option", ["require_without_evidence", "digests", "only_recover"])
def test_what_is_for_a_change_is_no_option(engine, option):
    result = run_module(module.main, **{option: "x"})
    assert (result["failed"], "Unsupported parameters" in result["msg"]) == (True, True)


def test_another_kind_is_refused(engine):
    result = run_module(module.main, gateway="sendmail")
    assert result["failed"] is True
    assert "postfix, exim, haraka, proxmox, mailcow" in result["msg"]
    assert (engine.gateway, engine.server) == ([], [])
