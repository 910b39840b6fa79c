"""Where a run stands when a step failed."""

from __future__ import annotations

import re

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import check_step, standings

OFFERED, REQUIRED = {"after": {"inbound": "offered"}}, {"after": {"inbound": "required"}}
PLAN = {
    "hosts": {
        "gw": {"role": "gateway"},
        "a": {"role": "mail_server"},
        "b": {"role": "mail_server"},
        "c": {"role": "mail_server"},
        "d": {"role": "mail_server"},
    },
    "steps": {
        "accept": {"hosts": ["gw"], "batches": [1]},
        "offer": {"hosts": ["a", "b", "c"], "batches": [1, 2]},
        "modes": {"hosts": ["gw"], "batches": [1]},
        "require": {"hosts": ["a"], "batches": [1]},
    },
}


def stands(step, results, tests=()):
    return {one.host: (one.state, one.reason) for one in standings(PLAN, step, results, tests)}


def test_every_host_of_the_plan_is_in_the_table():
    failed = {"failed": True, "restored": True, "msg": "no handshake"}
    assert stands("offer", {"a": OFFERED, "b": failed}) == {
        "gw": ("done: accept; not started: modes", ""),
        "a": ("done: offer; not started: require", ""),
        "b": ("failed, restored: offer", "no handshake"),
        "c": ("not started: offer", ""),
        "d": ("no change", ""),
    }


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"failed": True, "restored": False, "msg": "x"}, "failed, NOT restored: offer"),
        ({"failed": True, "msg": "x"}, "failed, nothing changed: offer"),
        ({"failed": True, "msg": "x", "restored": None}, "failed, nothing changed: offer"),
        (
            {"failed": True, "msg": "x", "module_stdout": "", "module_stderr": "Killed", "rc": 137},
            "failed, its state is unknown: offer",
        ),
        ({"unreachable": True, "msg": "x"}, "unreachable, its state is unknown: offer"),
    ],
)
def test_what_a_failure_left_is_said(result, state):
    assert stands("offer", {"a": result})["a"] == (state, "x")


def test_the_result_of_an_earlier_step_is_not_that_of_this_one():
    assert stands("require", {"a": OFFERED})["a"] == ("not started: require", "")
    assert stands("require", {"a": REQUIRED})["a"] == ("done: require", "")


def test_a_handshake_test_from_a_gateway_stops_the_run():
    findings = [{"severity": "error", "code": "expired", "message": "the certificate has expired"}]
    tests = [{"inventory_host": "a", "findings": findings}, {"inventory_host": "b", "findings": []}]
    result, text = check_step(PLAN, "offer", {"a": OFFERED, "b": OFFERED, "c": OFFERED}, tests)
    assert (
        result["failed"]
        and "because of a: failed the handshake test: offer: the certificate has expired. " in result["msg"]
    )
    assert "hosts" not in result  # the table has them
    assert "a: the certificate has expired" in text and "THE RUN STOPPED" in text


def test_nothing_is_shown_as_long_as_all_is_well():
    result, text = check_step(PLAN, "accept", {"gw": OFFERED})
    assert (result["failed"], text) == (False, "")


def test_what_a_host_says_stays_on_its_line():
    _result, text = check_step(PLAN, "accept", {"gw": {"failed": True, "msg": "first\n\x1b[31msecond"}})
    assert "first??[31msecond" in text


def test_an_unknown_step():
    with pytest.raises(EngineError, match="'off' is not one of the plan"):
        check_step(PLAN, "off", {})


@pytest.mark.parametrize("result", [{}, {"skipped": True}, {"after": {"inbound": "custom"}}])
def test_a_host_of_the_batch_without_the_planned_result_has_failed(result):
    shown, text = check_step(PLAN, "offer", {"a": result}, batch=["a"])
    assert shown["failed"] and "THE RUN STOPPED" in text
    assert "because of a: failed, its state is unknown: offer: the step gave no result" in shown["msg"]
    assert re.search(r"^a +\w+ +failed, its state is unknown: offer", text, re.M)
    assert re.search(r"^b +\w+ +not started: offer", text, re.M)


def test_a_timeout_of_the_task_leaves_an_unknown_state():
    result = {"failed": True, "msg": "timed out", "timedout": {"period": 5}}
    assert stands("offer", {"a": result})["a"][0].startswith("failed, its state is unknown: offer")


def test_a_warning_stops_the_run_if_that_is_wanted():
    tests = [{"inventory_host": "a", "findings": [{"severity": "warning", "code": "expiring", "message": "soon"}]}]
    results = {"a": OFFERED, "b": OFFERED, "c": OFFERED}
    assert not check_step(PLAN, "offer", results, tests)[0]["failed"]
    assert check_step(PLAN, "offer", results, tests, fail_on="warning")[0]["failed"]


def test_a_host_that_goes_on_offering_tls_when_it_is_switched_off_says_what_was_asked_for():
    """Exchange: its logins need STARTTLS."""
    plan = {
        "hosts": {"x": {"role": "mail_server"}},
        "steps": {"relax": {"hosts": [], "batches": []}, "off": {"hosts": ["x"], "batches": [1]}},
    }
    result = {**OFFERED, "asked": {"inbound": "disabled", "outbound": "disabled"}}
    assert [one.state for one in standings(plan, "off", {"x": result})] == ["done: off"]
    earlier = {**OFFERED, "asked": {"inbound": "offered", "outbound": None}}
    assert [one.state for one in standings(plan, "off", {"x": earlier})] == ["not started: off"]
