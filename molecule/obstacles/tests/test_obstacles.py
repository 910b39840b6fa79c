"""One run meets every obstacle there is: one table names each, and nothing changes on any host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lab_testinfra import Fleet

from tests.support.obstacles import JOURNALS, Planned, differing, planned, state, unchanged

OBSTACLES = {
    "gw1": {"port_in_use", "certificate_missing", "domain_not_accepted"},
    "hk": {"mode_not_expressible", "change_refused"},  # Haraka's own STARTTLS is not ours to set
    "stopped": {"daemon_not_running"},
    "badmain": {"configuration_broken"},
    "badmacro": {"configuration_broken"},
    "full": {"no_disk_space", "certificate_unfit", "server_not_reachable"},
    "killed": {"certificate_unfit", "name_not_resolved"},
    "gone": {"unreachable"},
    "nopython": {"no_python"},
    "nosudo": {"no_privilege"},
    "noroot": {"no_privilege", "change_refused"},  # it is read as far as it lets itself be read
}
WARNINGS = {"gw1": {"email_config_extra"}, "killed": {"interrupted_run"}}
REASONS = {
    "gw1": ["127.0.0.1:10125", "/etc/mailfleet/starttls.pem", "takes no mail for stranger.test"],
    "hk": ["Haraka cannot express match_sender"],
    "stopped": ["Postfix is not running"],
    "badmain": ["main.cf", "this is no setting"],
    "badmacro": ["/etc/exim4 was edited", "malformed macro definition"],
    "full": ["0 KiB free", "[expired]", "the gateway gw1 cannot reach the mail server full.fleet.test:25"],
    "killed": ["missing.key", "the gateway gw1 cannot resolve the name of the mail server nowhere.fleet.test:25"],
    "gone": ["No route to host"],
    "nopython": ["/opt/nowhere/bin/python3"],
    "nosudo": ["password"],
    "noroot": ["become"],
}
"""Host -> what its messages say."""


Run = tuple[Planned, dict[str, list[str]]]


@pytest.fixture(scope="module")
def one_run(obstructed: Fleet, place: Path) -> Run:
    """The one run, which is not in check mode, and what differs on the machines after it."""
    before = state(obstructed)
    run = planned(obstructed, place, "enable_tls")
    return run, differing(before, state(obstructed))


@pytest.fixture
def run(one_run: Run) -> Planned:
    """What the one run showed."""
    return one_run[0]


def test_nothing_has_changed_and_no_daemon_was_started_anew(one_run: Run) -> None:
    assert one_run[1] == {}


def test_the_run_is_blocked_before_its_first_step(run: Planned) -> None:
    assert run.played.status != 0
    assert run.plan["result"] == "blocked"
    assert "the plan is blocked: 11 hosts" in run.played.output
    assert "nothing was changed" in run.played.output
    plays = re.findall(r"(?m)^PLAY \[(.*)\]", run.played.output)
    assert plays == ["Read the inventory", "Read all hosts", "Plan"]
    assert set(run.played.changed) == set(OBSTACLES)
    assert not any(run.played.changed.values())


def test_every_obstacle_is_known(run: Planned) -> None:
    assert run.codes("obstacles") == OBSTACLES
    assert run.codes("warnings") == WARNINGS


def test_one_table_names_each(run: Planned) -> None:
    rows = run.rows()
    assert {host: set(cells[-1].split(", ")) for host, cells in rows.items()} == OBSTACLES
    assert "undo the killed run" in rows["killed"][2]
    assert {host for host, cells in rows.items() if cells[1:3] == ["not read", "unknown"]} == {
        "gone", "nopython", "nosudo",
    }  # fmt: skip


@pytest.mark.parametrize("host", REASONS)
def test_the_reasons_stand_below_it(run: Planned, host: str) -> None:
    below = run.played.output.partition("\nIn the way\n")[2].partition("\n\n")[0].splitlines()
    mine = "\n".join(line for line in below if host in line.partition(":")[0])
    assert [text for text in REASONS[host] if text not in mine] == []


def test_a_host_that_could_not_be_read_is_unknown_and_none_is_left_out(run: Planned) -> None:
    states = {host: one["state"] for host, one in run.plan["hosts"].items()}
    unread = {"gone", "nopython", "nosudo"}
    assert states == {host: "unknown" if host in unread else "blocked" for host in OBSTACLES}


@pytest.mark.parametrize(("playbook", "arguments"), [("plan_tls", []), ("enable_tls", ["--check"])])
def test_a_killed_run_is_shown_and_not_undone(
    run: Planned, obstructed: Fleet, place: Path, playbook: str, arguments: list[str]
) -> None:
    with unchanged(obstructed):
        shown = planned(obstructed, place, playbook, *arguments, "--limit", "killed")
    assert shown.codes("warnings") == {"killed": {"interrupted_run"}}
    assert shown.plan["recover"] == ["killed"]
    assert "undo the killed run" in shown.rows()["killed"][2]
    assert obstructed.run("killed", JOURNALS).strip()


@pytest.mark.parametrize(
    ("limit", "fail_on", "result", "fails"),
    [
        ("stopped", "blocked", "blocked", True),
        ("stopped,nopython", "never", "blocked", False),
        ("nopython", "blocked", "unknown", True),
    ],
)
def test_the_exit_status_is_what_was_asked_for(
    obstructed: Fleet, place: Path, limit: str, fail_on: str, result: str, fails: bool
) -> None:
    shown = planned(obstructed, place, "plan_tls", "--limit", limit, starttls_plan_fail_on=fail_on)
    assert (shown.plan["result"], shown.played.status != 0) == (result, fails), shown.played.output
