"""The module that sets a gateway as a whole, run as Ansible runs it: its options, and the shape of its result."""

from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_gateway_host as host
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.gateway import EximGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import GatewayOutcome
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.enforced import Enforced
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import Modes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.outbound import Outbound
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.own_floor import OwnFloor
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.gateway import PostfixGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.modules import gateway_tls as module

from tests.support.ansible_module import run_module

CONFIG = EmailConfig("main", ("a.example",), (Target("mx.example"),), "required")
CONFIGS = [{"name": "main", "domains": ["a.example"], "servers": ["mx.example"], "delivery_mode": "required"}]
PARTNER = {"domain": "partner.example", "direction": "inbound"}


@pytest.fixture
def engine(monkeypatch):
    """What the engine is called with; its answer, or what it raises, is engine.answer."""

    class Engine:
        def __init__(self):
            after = GatewayState({"main": CONFIG}, (), OutboundTls("both"))
            seen = (Handshake(Target("mx.example"), Stage.EHLO_TLS),)
            self.answer = GatewayOutcome(
                True, GatewayState(), after, [{"prepared": "x"}], seen, warnings=("one thing",)
            )
            self.calls = []

        def __call__(self, gateway, parts, settings, *options, **more):
            self.calls.append((gateway, parts, settings, options, more))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    made = Engine()
    monkeypatch.setattr(host, "set_gateway", made)
    monkeypatch.setattr(host, "known_digests", lambda paths: dict.fromkeys(paths, "now"))
    return made


def test_without_a_word_nothing_is_a_part(engine):
    assert "failed" not in run_module(module.main)
    [(gateway, parts, settings, options, more)] = engine.calls
    assert (type(gateway), parts, options, more) == (
        PostfixGateway,
        [],
        (False, False),
        {"digests": None, "queue_seconds": 300},
    )
    assert (settings.timeout, settings.verify_trust) == (20.0, False)


def test_every_option(engine):
    run_module(
        module.main, check_mode=True, email_configs=CONFIGS, accept="both", send="required", mail_servers=["192.0.2.1"],
        enforced_domains=[PARTNER], enforced_ca_file="/etc/ca.pem", digests={"/etc/x": "absent"}, gateway="exim",
        address="192.0.2.9", port=2525, timeout=7, require_without_evidence=True, queue_timeout=5,
    )  # fmt: skip
    [(gateway, parts, settings, options, more)] = engine.calls
    assert (type(gateway), gateway.own_port) == (EximGateway, Target("192.0.2.9", 2525))
    assert parts == [
        Modes([{**CONFIGS[0], "state": "present"}]),
        Outbound({"accept": "both", "send": "required", "mail_servers": ["192.0.2.1"]}),
        Enforced([{**PARTNER, "certificate_check": None, "servers": None, "state": "present"}], ca_file="/etc/ca.pem"),
    ]
    assert (settings.timeout, options, more) == (
        7.0,
        (True, True),
        {"digests": {"/etc/x": "absent"}, "queue_seconds": 5},
    )


def test_plaintext(engine):
    run_module(module.main, email_configs=[{"name": "main"}], state="plaintext", send="plaintext")
    [removed, modes, outbound, floor] = engine.calls[0][1]
    assert (removed, modes.plaintext) == (Enforced((), absent=True, all_inbound=True), True)
    assert outbound == Outbound({"accept": None, "send": "plaintext", "mail_servers": None}, relax=True)
    assert floor == OwnFloor("none")  # with TLS, its floor goes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"accept": "off"}, "value of accept must be one of: plaintext, both, tls_only"),
        ({"email_configs": [{"domains": ["a.example"]}]}, "missing required arguments: name found in email_configs"),
        ({"enforced_domains": [{"domain": "a.example"}]}, "missing required arguments: direction"),
        ({"gateway": "sendmail"}, "gateway 'sendmail' is not a known kind"),
        ({"name": "main"}, "Unsupported parameters"),
    ],
)
def test_options_that_make_no_sense(engine, options, said):
    result = run_module(module.main, **options)
    assert result["failed"] is True
    assert said in result["msg"]
    assert engine.calls == []


def test_a_diff_is_in_the_result_in_diff_mode_only(engine):
    """A result is kept in variables and in the events of jobs, where nobody looks for a diff."""
    assert "diff" not in run_module(module.main, email_configs=CONFIGS)
    assert "diff" not in run_module(module.main, check_mode=True, email_configs=CONFIGS)
    assert "diff" in run_module(module.main, check_mode=True, diff=True, email_configs=CONFIGS)


def test_the_result(engine):
    result = run_module(module.main, diff=True, email_configs=CONFIGS)
    assert set(result) - {"invocation"} == {
        "changed", "before", "after", "email_configs", "outbound", "enforced_domains", "evidence", "recovered", "diff", "warnings",
        "digests",
    }  # fmt: skip
    assert (result["changed"], result["before"], result["after"]) == (True, {}, {"main": "required"})
    assert result["email_configs"] == [CONFIG.to_dict()]
    assert result["outbound"]["after"]["accept"] == "both"
    assert (result["diff"], result["warnings"]) == ([{"prepared": "x"}], ["one thing"])
    # For the next change of the same run.
    assert result["digests"] == dict.fromkeys(engine.calls[0][0].files(), "now") != {}


@pytest.mark.parametrize(("changed", "check_mode"), [(False, False), (True, True)])
def test_without_a_change_there_are_no_new_digests(engine, changed, check_mode):
    engine.answer = replace(engine.answer, changed=changed)
    assert run_module(module.main, check_mode=check_mode, email_configs=CONFIGS)["digests"] == {}


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_only_the_change_of_a_killed_run_is_undone(engine, monkeypatch, check_mode, there):
    asked = []
    monkeypatch.setattr(
        host, "undo_killed_run", lambda _gateway, mode: asked.append(mode) or (there, ["left"] if mode else [])
    )
    result = run_module(module.main, check_mode=check_mode, only_recover=True, email_configs=CONFIGS)
    assert (result["changed"], result["recovered"], result.get("warnings")) == (
        there, there, ["left"] if check_mode else None,
    )  # fmt: skip
    assert (asked, engine.calls) == ([check_mode], [])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineError("no evidence"), {"msg": "no evidence"}),
        (TransactionError("no good", restored=True), {"msg": "no good", "restored": True}),
    ],
)
def test_what_goes_wrong_is_a_message(engine, error, expected):
    engine.answer = error
    result = run_module(module.main, email_configs=CONFIGS)
    assert result["failed"] is True
    assert {key: result[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"send": "required"}, "Haraka has no outbound side that can be set"),
        ({"enforced_domains": [PARTNER]}, "Haraka cannot enforce TLS by domain"),
        ({"enforced_domains": [PARTNER], "state": "plaintext"}, "Haraka cannot enforce TLS by domain"),
    ],
)
def test_a_gateway_refuses_what_it_has_no_setting_for(options, said):
    result = run_module(module.main, gateway="haraka", **options)
    assert (result["failed"], said in result["msg"]) == (True, True)


def test_a_gateway_that_holds_no_floor_warns(engine):
    result = run_module(module.main, gateway="haraka", min_tls="TLSv1.2")
    assert result["warnings"][0] == "one thing"
    assert result["warnings"][-1].startswith(
        "starttls_min_tls is TLSv1.2, and the collection sets no TLS versions on Haraka"
    )
