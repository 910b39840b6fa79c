"""Runs over the same fleet with nothing in the way: what is refused, what a stop leaves, and what a killed run does to the next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_testinfra import Fleet

from tests.support.obstacles import (
    JOURNALS,
    MACHINES,
    OTHER,
    OVERRIDE,
    differing,
    kill_a_run,
    lab_inventory,
    planned,
    serve_another,
    state,
    unchanged,
)

SERVERS = ("stopped", "badmain", "badmacro", "full", "killed")
"""The mail servers, in the order in which they change. Here they are nothing but names."""


@pytest.fixture(scope="module")
def free(fleet: Fleet, place: Path) -> Iterator[Fleet]:
    """The fleet with the gateway that can do everything, and an email config for each mail server."""
    lab = lab_inventory(fleet)
    del lab["all"]["children"]["mail_gateways"]["hosts"]["hk"]
    lab["all"]["vars"]["email_configs"] = [
        {"name": host, "domains": [f"{host}.test"], "servers": [host], "delivery_mode": "match_sender"}
        for host in SERVERS
    ]
    lab["all"]["vars"]["starttls_timeout"] = 5
    there = Fleet()
    there.inventory = place / "free.yml"
    there.inventory.write_text(yaml.safe_dump(lab, sort_keys=False))
    yield there
    there.end()


def configs(**modes: str) -> list[dict[str, Any]]:
    return [
        {"name": host, "domains": [f"{host}.test"], "servers": [host], "delivery_mode": mode}
        for host, mode in modes.items()
    ]


@pytest.mark.parametrize(
    ("playbook", "variables", "result"),
    [
        ("enable_tls", {}, "drift"),
        ("disable_tls", {}, "drift"),
        ("set_delivery_mode", {"starttls_email_config": "killed", "starttls_delivery_mode": "opportunistic"}, "drift"),
    ],
)
def test_check_mode_ends_with_the_plan(
    free: Fleet, place: Path, playbook: str, variables: dict[str, Any], result: str
) -> None:
    with unchanged(free):
        shown = planned(free, place, playbook, "--check", **variables)
    assert (shown.played.status, shown.plan["result"]) == (0, result), shown.played.output
    assert set(shown.rows()) == {"gw1", *SERVERS}
    assert not any(shown.played.changed.values())
    later = shown.played.output.partition("\nCost\n")[2]
    tasks = re.findall(r"(?m)^TASK \[(.*)\]", later)
    last = tasks.index("Keep the plan for the steps")
    assert [one.partition(" ")[0] for one in tasks[:last]] == ["Hand", "Release", "Stop", "Hand"]
    later = later.partition(f"TASK [{tasks[last]}]")[2].partition("PLAY [Fail if nothing was tested]")[0]
    assert not re.search(r"(?m)^(changed|fatal|skipping): \[", later), "something follows the plan"


def test_drift_fails_if_that_is_asked_for(free: Fleet, place: Path) -> None:
    shown = planned(free, place, "plan_tls", "--limit", "killed", starttls_plan_fail_on="drift")
    assert (shown.plan["result"], shown.played.status != 0) == ("drift", True)


def test_a_change_that_is_needed_outside_the_limit_stops_the_run_by_name(free: Fleet, place: Path) -> None:
    with unchanged(free):
        shown = planned(free, place, "enable_tls", "--limit", "gw1", email_configs=configs(full="required"))
    assert shown.played.status != 0
    assert shown.codes("obstacles") == {"full": {"outside_limit"}}
    assert shown.rows()["full"] == ["-", "not in this run", "-", "outside_limit"]
    assert "something in the way outside this run (full)" in shown.played.output


@pytest.mark.parametrize(
    "task",
    [
        "Set whether the gateway accepts TLS, with its certificate, in one transaction",
        "Change the mail server in one transaction, and prove it",
        "Set the delivery modes, the outbound side and the enforced domains in one transaction",
    ],
)
def test_a_start_behind_the_plan_is_refused(free: Fleet, task: str) -> None:
    with unchanged(free):
        played = free.play("playbooks/enable_tls.yml", "--start-at-task", f"*{task}")
    assert played.status != 0
    assert "start the playbook at its beginning, without --start-at-task" in played.output.lower()


@pytest.mark.parametrize(("host", "module"), [("killed", "mail_server_tls"), ("gw1", "gateway_tls")])
def test_a_change_in_the_background_is_refused(free: Fleet, host: str, module: str) -> None:
    with unchanged(free):
        played = free.module(host, module, {"inbound": "disabled"}, "--background", "60")
    assert played.status != 0
    assert "async is refused for a change" in played.output


def test_a_run_that_changes_undoes_a_killed_run_first(free: Fleet) -> None:
    kill_a_run(free, "killed")
    assert free.run("killed", JOURNALS).strip()
    played = free.play("playbooks/enable_tls.yml", "--limit", "killed")
    assert played.status == 0, played.output
    assert re.search(r"(?m)^TASK \[.*Undo what a killed run left", played.output)
    assert played.output.count("\nPlan: ") == 1, "a plan of the half-done state was shown"
    assert not free.run("killed", JOURNALS, check=False).strip()
    assert free.s_client("killed", "-CAfile", str(free.ca), "-verify_return_error").status == 0


def test_no_later_host_is_touched_after_a_failure_whatever_the_strategy(free: Fleet) -> None:
    """Last, because the gateway and the canary change. The second host serves another certificate than the installed one."""
    serve_another(free, "badmain")
    try:
        before = state(free)
        hosts = "gw1,stopped,badmain,badmacro,full"
        played = free.play("playbooks/enable_tls.yml", "--limit", hosts, environment={"ANSIBLE_STRATEGY": "free"})
        changed = differing(before, state(free))
    finally:
        free.run("badmain", f"postconf -PX {OVERRIDE}; rm -f {OTHER}; postfix reload 2>&1")
    assert played.status != 0
    standing = played.output.partition("THE RUN STOPPED")[2]
    rows = {line.split()[0]: re.split(r"  +", line)[2] for line in standing.splitlines()[4 : 4 + 5]}
    assert rows == {
        "gw1": "done: accept; not started: modes",
        "stopped": "done: offer",
        "badmain": "failed, restored: offer",
        "badmacro": "not started: offer",
        "full": "not started: offer",
    }, played.output
    assert "the run stops at the step offer, because of badmain" in played.output
    assert {host for host in MACHINES if host in changed} <= {"gw1", "stopped", "badmain"}, changed
    assert not free.run("badmain", "postconf -n | grep mailfleet", check=False), "the change was not undone"
    plays = re.findall(r"(?m)^PLAY \[(\d)", played.output)
    assert set(plays) == {"1", "2"}
