"""Every way through the workflow, by AWX's rules: what runs, what is put back, and what a job knows of those before it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import awx

NODES = {one["identifier"]: one for one in awx.nodes()}
TEMPLATES = awx.templates()
CHANGES = [
    name
    for name, one in NODES.items()
    if "changes mail servers" in TEMPLATES.get(one.get("unified_job_template", ""), {}).get("labels", ())
    and one.get("job_type") != "check"
]
ROLL_OUT = ["plan", "approve", "canary", "verify-canary", "rest", "delivery-modes", "verify", "report"]
UNDO = ["undo-plan", "approve-undo", "undo"]


def walked(failed: Collection[str]) -> list[str]:
    """The nodes that AWX runs, in their order, if these fail. One parent that leads to a node is enough.

    An approval fails if somebody denies it, or nobody answers in time.
    """
    roots = set(NODES) - {name for one in NODES.values() for name in followers(one)}
    reached, ran = set(roots), []
    for name, one in NODES.items():  # later nodes stand below: see the first test
        if name in reached:
            ran.append(name)
            reached |= {*one.get("failure_nodes" if name in failed else "success_nodes", ())}
    return ran


def followers(node: Mapping[str, Any]) -> list[str]:
    return [*node.get("success_nodes", ()), *node.get("failure_nodes", ())]


def shown_as_failed(failed: set[str]) -> bool:
    """Whether AWX shows the workflow as failed: if one that failed has nothing that follows on a failure."""
    return any(not NODES[name].get("failure_nodes") for name in walked(failed) if name in failed)


def test_what_follows_stands_below_and_all_of_it_is_reached():
    order = list(NODES)
    for name, one in NODES.items():
        assert all(order.index(later) > order.index(name) for later in followers(one)), name
        assert "always_nodes" not in one and "all_parents_must_converge" not in one, name
    assert order == [*ROLL_OUT, *UNDO]


def test_without_a_failure():
    assert walked([]) == ROLL_OUT and not shown_as_failed(set())


@pytest.mark.parametrize("name", ["plan", "approve"])
def test_before_the_first_change_nothing_is_put_back(name):
    assert walked([name]) == ROLL_OUT[: ROLL_OUT.index(name) + 1]
    assert not {*walked([name])} & {*CHANGES} and shown_as_failed({name})


@pytest.mark.parametrize("name", ["canary", "verify-canary", "rest", "delivery-modes", "verify"])
def test_a_failure_is_put_back_if_a_person_says_so(name):
    until = ROLL_OUT[: ROLL_OUT.index(name) + 1]
    assert walked([name]) == [*until, *UNDO]
    assert walked([name, "undo-plan"]) == [*until, *UNDO]  # a person reads it, and decides
    assert walked([name, "approve-undo"]) == [*until, "undo-plan", "approve-undo"]
    assert shown_as_failed({name, "approve-undo"}) and shown_as_failed({name, "undo"})


def test_a_workflow_that_was_put_back_is_green_and_the_documentation_says_so():
    assert not shown_as_failed({"canary"})
    page = " ".join((awx.TOP / "docs/awx.md").read_text().split())
    assert "AWX shows the workflow as successful after an undo" in page


def test_a_report_that_fails_puts_nothing_back():
    assert walked(["report"]) == ROLL_OUT


def test_whatever_fails():
    """All 2048 outcomes. A failed verification alone never switches TLS off."""
    for outcome in itertools.product((False, True), repeat=len(NODES)):
        failed = {name for name, fails in zip(NODES, outcome, strict=True) if fails}
        ran = walked(failed)
        if {*CHANGES} & {*ran}:
            assert "approve" in ran and "approve" not in failed
        if "undo" in ran:
            assert "approve-undo" not in failed and failed & {*ran[: ran.index("approve-undo")]}
        first = next((number for number, name in enumerate(ran) if name in failed), len(ran))
        assert {*ran[first + 1 :]} <= {*UNDO}, f"{failed}: nothing goes on after a failure"


def test_who_decides_and_who_changes():
    approvals = {name for name, one in NODES.items() if "approval_node" in one}
    assert approvals == {"approve", "approve-undo"}
    assert all(NODES[name]["approval_node"]["timeout"] > 0 for name in approvals)
    assert [name for name, one in NODES.items() if "undo" in followers(one)] == ["approve-undo"]
    assert CHANGES == ["canary", "rest", "delivery-modes", "undo"]
    playbooks = {
        Path(TEMPLATES[one["unified_job_template"]]["playbook"]).stem
        for name, one in NODES.items()
        if name not in approvals
    }
    assert playbooks == {"plan_tls", "enable_tls", "verify_tls", "report_tls", "undo_workflow"}


def test_no_gateway_is_in_the_run_until_all_mail_servers_have_tls():
    """Until then no test message is sent: the gateways still deliver in the former mode, and it would count as a failure."""
    canary = awx.read("site")["mailfleet_canary"]
    limits = {name: one.get("limit", "") for name, one in NODES.items() if "unified_job_template" in one}
    assert limits.pop("canary") == limits.pop("verify-canary") == canary
    assert limits.pop("rest") == "mail_servers" and not any(limits.values())
    silent = [name for name, one in NODES.items() if one.get("extra_data", {}).get("starttls_send_messages") == "false"]
    assert silent == ["canary", "verify-canary", "rest"]


@pytest.mark.parametrize("failed", ["canary", "verify-canary", "rest", "delivery-modes", "verify"])
def test_the_undo_knows_all_that_has_changed(failed):
    """Each job adds its changes to those that it was given. AWX takes what is handed on from the parents in the order of their making."""
    known: dict[str, list[str]] = {}
    ran = walked([failed])
    for name in ran:
        parents = [one for one in NODES if one in ran and name in followers(NODES[one])]
        given = [known[one] for one in parents if known[one]]
        known[name] = [*(given[-1] if given else ()), *([name] if name in CHANGES else ())]
    assert known["undo"][:-1] == [name for name in ran if name in CHANGES and name != "undo"]
