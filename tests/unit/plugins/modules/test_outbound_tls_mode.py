"""The module that sets the outbound side of a gateway, run as Ansible runs it: its options, and the shape of its result."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.gateway import EximGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import GatewayOutcome
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    SENDS,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.gateway import PostfixGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.modules import outbound_tls_mode as module

from tests.support.ansible_module import run_module

BEFORE, AFTER = OutboundTls(None, "opportunistic"), OutboundTls("both", "match_sender", ("192.0.2.0/24",))


def outcome(before=BEFORE, after=AFTER):
    return GatewayOutcome(
        True,
        GatewayState(outbound=before),
        GatewayState(outbound=after),
        [{"before": "a", "after": "b"}],
        (Handshake(Target("relay.example"), Stage.EHLO_TLS),),
        warnings=("one thing",),
    )


@pytest.fixture
def engine(monkeypatch):
    """What the engine is called with; its answer, or what it raises, is engine.answer."""

    class Engine:
        def __init__(self):
            self.answer = outcome()
            self.calls = []

        def __call__(self, gateway, wanted, settings, **options):
            self.calls.append((gateway, wanted, settings, options))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    made = Engine()
    monkeypatch.setattr(module, "set_outbound", made)
    return made


@pytest.mark.parametrize("accept", [None, *ACCEPTS])
@pytest.mark.parametrize("send", [None, *SENDS])
def test_each_pair_of_words(engine, accept, send):
    given = {key: value for key, value in (("accept", accept), ("send", send)) if value}
    result = run_module(module.main, **given)
    if not given:
        assert result["failed"] is True
        assert "state is present but any of the following are missing: accept, send" in result["msg"]
        assert engine.calls == []
        return
    assert "failed" not in result
    [(gateway, wanted, settings, options)] = engine.calls
    assert type(gateway) is PostfixGateway
    assert wanted == {"accept": accept, "send": send, "mail_servers": None}
    assert options == {"absent": False, "require_without_evidence": False, "check_mode": False}
    assert (settings.timeout, settings.verify_trust) == (20.0, False)


def test_every_option(engine):
    run_module(
        module.main, check_mode=True, accept="tls_only", send="required", mail_servers=["192.0.2.1", "2001:db8::/32"],
        state="absent", gateway="exim", address="192.0.2.1", port=2525, timeout=7, require_without_evidence=True,
    )  # fmt: skip
    [(gateway, wanted, settings, options)] = engine.calls
    assert type(gateway) is EximGateway
    assert gateway.own_port == Target("192.0.2.1", 2525)
    assert wanted == {"accept": "tls_only", "send": "required", "mail_servers": ["192.0.2.1", "2001:db8::/32"]}
    assert options == {"absent": True, "require_without_evidence": True, "check_mode": True}
    assert settings.timeout == 7.0


def test_absent_needs_nothing_else(engine):
    assert "failed" not in run_module(module.main, state="absent")
    assert engine.calls[0][3]["absent"] is True


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mail_servers": ["192.0.2.1"]}, "state is present but any of the following are missing: accept, send"),
        ({"accept": "off"}, "value of accept must be one of: plaintext, both, tls_only"),
        ({"send": "match"}, f"value of send must be one of: {', '.join(SENDS)}"),
        ({"send": False}, "value of send must be one of"),
        (
            {"send": "required", "gateway": "sendmail"},
            "gateway 'sendmail' is not a known kind; choose one of: postfix, exim, haraka, proxmox, mailcow",
        ),
        ({"send": "required", "state": "gone"}, "value of state must be one of: present, absent"),
        ({"send": "required", "domain": "a.example"}, "Unsupported parameters"),
    ],
)
def test_options_that_make_no_sense(engine, options, said):
    result = run_module(module.main, **options)
    assert result["failed"] is True
    assert said in result["msg"]
    assert engine.calls == []


def test_the_result(engine):
    result = run_module(module.main, diff=True, send="match_sender")
    assert set(result) - {"invocation"} == {"changed", "before", "after", "evidence", "recovered", "diff", "warnings"}
    assert result["changed"] is True
    assert result["before"] == {"accept": None, "send": "opportunistic", "mail_servers": []}
    assert result["after"] == {"accept": "both", "send": "match_sender", "mail_servers": ["192.0.2.0/24"]}
    assert [(one["host"], one["completed"]) for one in result["evidence"]] == [("relay.example", True)]
    assert (result["recovered"], result["warnings"]) == (False, ["one thing"])
    assert result["diff"] == [{"before": "a", "after": "b"}]


def test_what_was_never_set_is_empty(engine):
    engine.answer = outcome(None, None)
    result = run_module(module.main, state="absent")
    assert (result["before"], result["after"]) == ({}, {})


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineError("no evidence"), {"msg": "no evidence"}),
        (TransactionError("no good", restored=True), {"msg": "no good", "restored": True}),
        (OSError("nothing more is known"), {"msg": "the host: nothing more is known"}),
    ],
)
def test_what_goes_wrong_is_a_message(engine, error, expected):
    engine.answer = error
    result = run_module(module.main, send="required")
    assert result["failed"] is True
    assert {key: result[key] for key in expected} == expected


@pytest.mark.parametrize("kind", ["haraka", "proxmox", "mailcow"])
@pytest.mark.parametrize("options", [{"send": "required"}, {"state": "absent"}])
def test_a_gateway_without_an_outbound_side_says_why(kind, options):
    api = {
        "api_url": "https://gateway.example.com",
        "api_user": "root@pam",
        "api_password": "secret-one",
        "api_key": "secret-two",
    }
    result = run_module(module.main, **options, gateway=kind, **(api if kind != "haraka" else {}))
    assert result["failed"] is True
    assert " has no outbound side that can be set: " in result["msg"]
