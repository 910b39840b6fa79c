"""The module that enforces TLS for domains, run as Ansible runs it: its options, and the shape of its result."""

import contextlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.gateway import EximGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import GatewayOutcome
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import EnforcedDomain, GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.gateway import PostfixGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.modules import enforced_tls_domain as module

from tests.support.ansible_module import run_module

INBOUND = {"domain": "partner.example", "direction": "inbound"}
BANK = EnforcedDomain("bank.example", "outbound", "hostname", (Target("2001:db8::1", 26),))
OUTCOME = GatewayOutcome(
    True,
    GatewayState(),
    GatewayState(enforced=(EnforcedDomain("partner.example", "inbound"), BANK)),
    [{"before": "a", "after": "b"}],
    (Handshake(Target("mx.example"), Stage.EHLO_TLS),),
    True,
    ("one thing", "another thing"),
)


@pytest.fixture
def engine(monkeypatch):
    """What the engine is called with; its answer, or what it raises, is engine.answer."""

    class Engine:
        answer = OUTCOME
        calls = []  # noqa: RUF012

        def __call__(self, gateway, wanted, settings, **options):
            self.calls.append((gateway, wanted, settings, options))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    made = Engine()
    made.calls = []
    monkeypatch.setattr(module, "set_enforced", made)
    return made


def test_one_domain(engine):
    result = run_module(module.main, **INBOUND)
    assert "failed" not in result
    [(gateway, wanted, settings, options)] = engine.calls
    assert type(gateway) is PostfixGateway
    assert wanted == [{**INBOUND, "certificate_check": None, "servers": None}]
    assert options == {"absent": False, "ca_file": None, "require_without_evidence": False, "check_mode": False}
    assert (settings.timeout, settings.verify_trust) == (20.0, False)


def test_every_option(engine):
    run_module(
        module.main, check_mode=True, domain="bank.example", direction="outbound", certificate_check="hostname",
        servers=["mx.example:26"], ca_file="/etc/ca.pem", state="absent", gateway="exim", address="192.0.2.1", port=2525,
        timeout=7, require_without_evidence=True,
    )  # fmt: skip
    [(gateway, wanted, settings, options)] = engine.calls
    assert type(gateway) is EximGateway
    assert gateway.own_port == Target("192.0.2.1", 2525)
    assert wanted == [
        {
            "domain": "bank.example",
            "direction": "outbound",
            "certificate_check": "hostname",
            "servers": ["mx.example:26"],
        }
    ]
    assert options == {"absent": True, "ca_file": "/etc/ca.pem", "require_without_evidence": True, "check_mode": True}
    assert settings.timeout == 7.0


def test_several_domains(engine):
    run_module(
        module.main, enforced_domains=[INBOUND, {"domain": "b.example", "direction": "outbound", "servers": ["x"]}]
    )
    assert engine.calls[0][1] == [
        {**INBOUND, "certificate_check": None, "servers": None, "state": "present"},
        {
            "domain": "b.example",
            "direction": "outbound",
            "certificate_check": None,
            "servers": ["x"],
            "state": "present",
        },
    ]


def test_no_domain_of_several_is_none(engine):
    """A list that is computed may be empty: nothing is wanted then."""
    assert "failed" not in run_module(module.main, enforced_domains=[])
    assert engine.calls[0][1] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "one of the following is required: domain, enforced_domains"),
        ({"state": "absent"}, "one of the following is required: domain, enforced_domains"),
        ({"direction": "inbound"}, "one of the following is required: domain, enforced_domains"),
        ({"domain": "a.example"}, "missing parameter(s) required by 'domain': direction"),
        ({**INBOUND, "enforced_domains": []}, "parameters are mutually exclusive: enforced_domains|domain"),
        ({"certificate_check": "hostname", "enforced_domains": [INBOUND]}, "parameters are mutually exclusive"),
        ({"servers": ["x"], "enforced_domains": [INBOUND]}, "parameters are mutually exclusive"),
        ({"domain": "a.example", "direction": "both"}, "value of direction must be one of: inbound, outbound"),
        (
            {"domain": "a.example", "direction": "outbound", "certificate_check": "chain"},
            "value of certificate_check must be one of: encryption_only, trusted_chain, hostname",
        ),
        (
            {"enforced_domains": [{"domain": "a.example"}]},
            "missing required arguments: direction found in enforced_domains",
        ),
        (
            {"enforced_domains": [{"direction": "inbound"}]},
            "missing required arguments: domain found in enforced_domains",
        ),
        (
            {**INBOUND, "gateway": "sendmail"},
            "gateway 'sendmail' is not a known kind; choose one of: postfix, exim, haraka, proxmox, mailcow",
        ),
        ({**INBOUND, "state": "gone"}, "value of state must be one of: present, absent"),
        ({**INBOUND, "delivery_mode": "required"}, "Unsupported parameters"),
    ],
)
def test_options_that_do_not_go_together(engine, options, said):
    result = run_module(module.main, **options)
    assert result["failed"] is True
    assert said in result["msg"]
    assert engine.calls == []


def test_the_result(engine):
    result = run_module(module.main, diff=True, **INBOUND)
    assert set(result) - {"invocation"} == {
        "changed", "before", "enforced_domains", "evidence", "recovered", "diff", "warnings",
    }  # fmt: skip
    assert result["changed"] is True
    assert result["before"] == []
    assert result["enforced_domains"] == [
        INBOUND,
        {
            "domain": "bank.example",
            "direction": "outbound",
            "certificate_check": "hostname",
            "servers": ["[2001:db8::1]:26"],
        },
    ]
    assert [(one["host"], one["completed"]) for one in result["evidence"]] == [("mx.example", True)]
    assert result["recovered"] is True
    assert result["diff"] == [{"before": "a", "after": "b"}]
    assert result["warnings"] == ["one thing", "another thing"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineError("no evidence"), {"msg": "no evidence"}),
        (TransactionError("no good", restored=True), {"msg": "no good", "restored": True}),
        (TransactionError("worse", restored=False), {"msg": "worse", "restored": False}),
        (PermissionError(13, "Permission denied", "/etc/x"), {"msg": "/etc/x: Permission denied"}),
    ],
)
def test_what_goes_wrong_is_a_message(engine, error, expected):
    engine.answer = error
    result = run_module(module.main, **INBOUND)
    assert result["failed"] is True
    assert {key: result[key] for key in expected} == expected
    assert ("restored" in result) is ("restored" in expected)


@pytest.mark.parametrize("kind", ["haraka", "proxmox", "mailcow"])
@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_gateway_that_cannot_enforce_says_why(kind, state):
    api = {
        "api_url": "https://gateway.example.com",
        "api_user": "root@pam",
        "api_password": "secret-one",
        "api_key": "secret-two",
    }
    result = run_module(module.main, **INBOUND, gateway=kind, state=state, **(api if kind != "haraka" else {}))
    assert result["failed"] is True
    assert " cannot enforce TLS by domain: " in result["msg"]


@pytest.mark.parametrize("domain", ["*.example", "user@partner.example", "müller.example"])
def test_what_is_no_domain_is_said_by_the_engine(monkeypatch, tmp_path, domain):
    """The real engine, up to the point where it would look at the gateway."""

    class Quiet:
        @staticmethod
        @contextlib.contextmanager
        def opened(_check_mode, _prove):
            yield False, []

    monkeypatch.setattr(PostfixGateway, "transaction", lambda *_: Quiet)
    monkeypatch.setattr(PostfixGateway, "require_running", lambda _self: None)
    monkeypatch.setattr(PostfixGateway, "read", lambda *_: GatewayState())
    result = run_module(module.main, domain=domain, direction="inbound")
    assert result["failed"] is True
    assert result["msg"] == f"{domain!r} is not a domain that can be enforced (one exact name, in ASCII)"
