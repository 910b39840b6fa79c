"""The filters as Ansible calls them: what they are called, and that what is wrong is a value that says so."""

import re
from functools import partial

import pytest
from ansible import context
from ansible_collections.mailfleet.starttls.plugins.filter.fleet import FilterModule
from ansible_collections.mailfleet.starttls.plugins.plugin_utils import (
    estate,
    findings,
    fleet_lock,
    messages,
    peers,
    renewal,
    rows,
    stated,
    steps,
    variables,
    waits,
    workflow,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange import proof, wanted
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.faults import fault_in
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan import by_hand, digests
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.recovery import plan

ENGINE = (
    by_hand,
    digests,
    estate,
    findings,
    fleet_lock,
    messages,
    peers,
    plan,
    proof,
    renewal,
    rows,
    stated,
    steps,
    variables,
    waits,
    wanted,
    workflow,
)
NAMED = FilterModule().filters()
CONTEXT = {"ansible_play_name": "a play"}
FILTERS = {
    name: partial(function, CONTEXT) if hasattr(function, "jinja_pass_arg") else function
    for name, function in NAMED.items()
}
"""Each filter as Jinja calls it: most get what a template knows."""
HOSTVARS = {"pf12": {"starttls_hostname": "pf12.example"}, "bad": {"starttls_hostname": "a b"}, "out": {}}
CONFIG = {"name": "main", "domains": ["a.example"], "servers": ["pf12"], "delivery_mode": "required"}


def test_each_filter_is_a_function_of_the_engine():
    assert set(NAMED) == {
        "renewing", "renewed_here", "past_renewing", "requesting", "waiting_hosts",
        "estate", "capabilities", "kind_on", "has_log", "localhost_of",
        "handshake_targets", "verdict_rows", "trace_messages", "trace_work", "own_target",
        "failed_tests", "with_delivery_mode", "report_outputs", "failing", "trace_landings",
        "planned_digests", "reachable_at", "lost_messages", "waiting_hops", "ready_hops", "step_failures", "wanted_peers", "namesakes_of",
        "configs_before", "state_before", "enforced_before", "with_report",
        "given", "listed", "proof_host", "proof_targets", "is_proof", "tester_of",
        "of_run", "lock_places", "told_to_others", "send_only", "what_by_hand", "unless_step",
    }  # fmt: skip
    for name, function in NAMED.items():
        assert function.__wrapped__ in [getattr(one, name, None) for one in ENGINE]


@pytest.mark.parametrize(("asks", "strategy"), [(False, "free"), (True, "ansible.builtin.linear")])
def test_a_run_that_asks_before_each_task_is_linear(monkeypatch, asks, strategy):
    monkeypatch.setattr(context, "CLIARGS", {"step": asks})
    assert FILTERS["unless_step"]("free") == strategy


def test_estate():
    assert FILTERS["estate"]([CONFIG], HOSTVARS)["email_configs"][0]["servers"] == ["pf12.example:25"]
    assert re.search(
        "the mail server 'nowhere' is not in the inventory",
        fault_in(FILTERS["estate"]([{**CONFIG, "servers": ["nowhere"]}], HOSTVARS)),
    )


def test_kind_on():
    assert FILTERS["kind_on"]("exim", ["mail_gateways"]) == "exim"
    assert [FILTERS["kind_on"](nothing, ["mail_gateways"]) for nothing in ("", None)] == ["postfix", "postfix"]
    assert FILTERS["kind_on"]("", ["mail_servers"]) == "auto"


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        ([], "localhost"), (["mx"], "localhost"), (["mx", "127.0.0.1"], "127.0.0.1"), (["::1", "127.0.0.1"], "::1"),
        (["127.0.0.1", "localhost"], "localhost"),
    ],
)  # fmt: skip
def test_localhost_of(hosts, name):
    assert FILTERS["localhost_of"](hosts) == name


def test_has_log():
    found = {kind: FILTERS["has_log"](kind) for kind in ("auto", "postfix", "proxmox", "haraka", "mailcow")}
    assert found == {"auto": True, "postfix": True, "proxmox": True, "haraka": False, "mailcow": False}


def test_capabilities():
    assert FILTERS["capabilities"]("postfix") == ["accept", "enforced", "outbound"]
    assert FILTERS["capabilities"]("haraka") == []
    [said] = FILTERS["capabilities"]("postfx")  # a text among texts; the module refuses the kind
    assert said.startswith("gateway_kind 'postfx' is not a known kind; choose one of: postfix, exim")


def test_handshake_targets():
    assert FILTERS["handshake_targets"](["pf12"], HOSTVARS)[0]["name"] == "pf12.example"
    assert re.search(
        "starttls_hostname or starttls_port of bad", fault_in(FILTERS["handshake_targets"](["bad"], HOSTVARS))
    )


def test_the_estate_of_the_hosts_of_a_play():
    hostvars = {**HOSTVARS, "strict": {"starttls_inbound": "required"}}
    assert FILTERS["estate"]([CONFIG], hostvars, ["pf12", "out"])["hosts"] == ["pf12", "out"]
    assert re.search(
        "strict is to require TLS",
        fault_in(FILTERS["estate"]([CONFIG], hostvars, ["pf12", "strict"], check_required=True)),
    )


def test_with_delivery_mode():
    assert FILTERS["with_delivery_mode"]([CONFIG], "main", "match_sender") == [
        {**CONFIG, "delivery_mode": "match_sender"}
    ]
    assert re.search(
        "there is no email config 'other' in the inventory; choose one of: main",
        fault_in(FILTERS["with_delivery_mode"]([CONFIG], "other", "match_sender")),
    )
    assert re.search(
        "'off' is not a delivery mode; choose one of: plaintext, ",
        fault_in(FILTERS["with_delivery_mode"]([CONFIG], "main", "off")),
    )


def test_own_target():
    [target] = FILTERS["own_target"]("pf12", HOSTVARS, "::1")
    assert (target["host"], target["name"]) == ("::1", "pf12.example")
    assert re.search("starttls_hostname or starttls_port of bad", fault_in(FILTERS["own_target"]("bad", HOSTVARS)))


def test_failed_tests():
    assert FILTERS["failed_tests"]("pf12", {"pf12": {}}, "warning") == []


def test_namesakes_of():
    facts = {"m1": {"starttls_hostname": "MX.example."}, "m2": {"starttls_hostname": "mx.example"}, **HOSTVARS}
    assert FILTERS["namesakes_of"](["m1", "m2", "m1", "pf12", "bad"], facts) == {"m1": ["m2"], "m2": ["m1"]}


def test_report_outputs():
    assert FILTERS["report_outputs"](["csv"], "out") == [{"format": "csv", "path": "out/report.csv"}]
    assert re.search("is not a format", fault_in(FILTERS["report_outputs"](["pdf"], "out")))


def test_verdict_rows():
    [row] = FILTERS["verdict_rows"](["pf12"], HOSTVARS, {}, estate.estate([CONFIG], HOSTVARS), expected="disabled")
    assert (row["expected"], row["delivery_modes"]) == ("disabled", ["no gateway"])


def test_trace_messages():
    assert FILTERS["trace_messages"](["pf12"], HOSTVARS, "out", "1") == []


def test_planned_digests():
    plan = {"tls_plan": {"hosts": {"pf12": {"digests": {"/etc/x": "absent"}}}}}
    assert FILTERS["planned_digests"]("pf12", {**HOSTVARS, "localhost": plan}) == {"/etc/x": "absent"}
    assert re.search(
        "this run has no plan for out: ", fault_in(FILTERS["planned_digests"]("out", {**HOSTVARS, "localhost": plan}))
    )


def test_trace_work():
    assert FILTERS["trace_work"]([], "pf12", HOSTVARS) == {"send": [], "receive": []}


def test_failing():
    alerts = [{"severity": "error"}, {"severity": "notice"}]
    assert FILTERS["failing"](alerts, "warning") == [{"severity": "error"}]
    assert re.search(
        "fail_on 'fatal' has to be one of error, warning, notice", fault_in(FILTERS["failing"](alerts, "fatal"))
    )


def test_trace_landings():
    assert re.search(
        "starttls_landing of h has to be a mapping",
        fault_in(FILTERS["trace_landings"]([], "inbound", "h", {"h": {"starttls_landing": "x"}})),
    )
