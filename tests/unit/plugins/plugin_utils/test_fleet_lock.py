"""The controller's side of the lock of the fleet."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils import fleet_lock
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.fleet_lock import (
    hours_of,
    is_over,
    lock_places,
    process_of,
    seen_lock,
    taken_over,
    this_run,
    who,
)

LOCK = {
    "user": "alice",
    "controller": "control.example.com",
    "playbook": "enable_tls",
    "run": "a1",
    "process": "",
    "since": 1_800_000_000.0,
    "age": 720.0,
}


def test_a_process_is_itself_and_not_over() -> None:
    assert process_of(os.getpid()) == process_of(os.getpid())
    assert not is_over(process_of(os.getpid()))


def test_a_process_that_ended_is_over_and_so_is_one_whose_number_is_used_again() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    named = process_of(ended.pid)
    assert not is_over(named)
    ended.communicate()
    assert is_over(named)
    boot, space, pid, started = process_of(os.getpid()).split("/")
    assert is_over(f"{boot}/{space}/{pid}/{int(started) - 1}")


def test_a_process_of_elsewhere_may_still_run() -> None:
    boot, space, _pid, started = process_of(os.getpid()).split("/")
    gone = 2**22 + 5
    assert not is_over(f"other-boot/{space}/{gone}/{started}")
    assert not is_over(f"{boot}/pid:[1]/{gone}/{started}")
    for hostile in (
        "",
        "1",
        "a/b/c/d",
        f"{boot}/{space}/-1/{started}",
        f"{boot}/{space}/\u0661/1",
        f"{boot}/{space}/{'9' * 40}/1",
    ):
        assert not is_over(hostile)


def test_all_tasks_of_a_run_have_one_name_and_another_run_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = this_run({}, "enable_tls")
    assert mine == this_run({}, "enable_tls")
    assert (len(mine["run"]), mine["playbook"]) == (12, "enable_tls")
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert this_run({}, "enable_tls")["run"] != mine["run"]


def test_in_awx_the_user_and_the_job_are_those_of_awx() -> None:
    assert this_run({"awx_job_id": 42, "awx_user_name": "bob"}, "x")["user"] == "bob (job 42 of AWX)"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(fleet_lock.getpass, "getuser", unknown)
    assert this_run({}, "x")["user"] == f"user {os.getuid()}"


@pytest.mark.parametrize(("given", "hours"), [(None, 6), ("", 6), ("0.5", 0.5), (12, 12)])
def test_hours(given: Any, hours: float) -> None:
    assert hours_of(given) == hours


@pytest.mark.parametrize("given", ["soon", 0, -1, "nan", "inf", True, [6], {"a": 1}, "1\n2x"])
def test_hours_that_are_none_name_the_variable(given: Any) -> None:
    with pytest.raises(EngineError, match=r"starttls_lock_hours .*set it to a number above 0, for example 6"):
        hours_of(given)


def test_the_refusal_says_who_since_when_where_and_how_to_go_on() -> None:
    finding, stops = seen_lock("gw1", LOCK, "b2", 6, breaks=False) or (None, None)
    assert stops
    assert finding.code == "another_run"
    assert finding.message == (
        "another run changes the fleet, and holds its lock on gw1: enable_tls, run by alice on control.example.com, since "
        "2027-01-15 08:00 UTC, 12 minutes ago (run a1). This run changed nothing. Wait until the other one has ended, then run again. If "
        "it was killed, run once with -e starttls_lock_break=true. After 6 hours its lock does not count any more"
    )


@pytest.mark.parametrize(
    ("lock", "breaks", "why"),
    [
        (LOCK, True, "because starttls_lock_break is set"),
        ({**LOCK, "age": 6 * 3600.0}, False, "because it is older than 6 hours (starttls_lock_hours)"),
    ],
)
def test_a_lock_that_does_not_count_is_a_warning(lock: dict[str, Any], breaks: bool, why: str) -> None:
    finding, stops = seen_lock("gw1", lock, "b2", 6, breaks) or (None, None)
    assert (finding.code, stops) == ("lock_left", False)
    assert why in finding.message
    assert taken_over("gw1", lock, 6, breaks) == finding.message


def test_the_lock_of_a_run_that_ended_here_is_a_warning() -> None:
    boot, space, pid, started = process_of(os.getpid()).split("/")
    finding, stops = seen_lock("gw1", {**LOCK, "process": f"{boot}/{space}/{pid}/{int(started) - 1}"}, "b2", 6, False)
    assert not stops
    assert "because that run has ended without releasing it" in finding.message


@pytest.mark.parametrize("lock", [None, {}, [], "text", 7, {**LOCK, "run": "b2"}])
def test_no_lock_or_our_own_says_nothing(lock: Any) -> None:
    assert seen_lock("gw1", lock, "b2", 6, breaks=False) is None


@pytest.mark.parametrize(
    "lock",
    [
        {"age": "x"},
        {"age": -5, "since": float("inf"), "user": ["\n"]},
        {"since": -1e99, "age": True},
        {"unreadable": "a\nb", "age": 1.0},
    ],
)
def test_a_hostile_lock_is_one_line(lock: dict[str, Any]) -> None:
    assert "\n" not in who(lock)
    finding, stops = seen_lock("gw1", lock, "b2", 6, breaks=False) or (None, None)
    assert stops
    assert "\n" not in finding.message


HERE: dict[str, Any] = {}
API = {"starttls_kind": "proxmox", "ansible_connection": "local"}
EXCHANGE = {"starttls_kind": "exchange"}
WINDOWS = {"ansible_connection": "psrp"}
HARAKA = {"starttls_kind": "haraka"}


@pytest.mark.parametrize(
    ("gateways", "servers", "run", "places"),
    [
        ({"gw2": HERE, "gw1": HERE}, {"a": HERE}, ["gw1", "gw2", "a"], ["gw1"]),
        ({"gw2": HERE, "gw1": HERE}, {"a": HERE}, ["gw2", "a"], ["gw1", "gw2"]),
        ({"gw1": HERE}, {"b": HERE, "a": HERE}, ["b"], ["gw1", "b"]),
        ({"gw1": API, "gw2": HARAKA}, {"a": HERE}, ["gw1", "gw2", "a"], ["gw2"]),
        ({"gw1": API}, {"b": HERE, "a": HERE}, ["gw1", "b", "a"], ["a"]),
        ({}, {"c": HERE, "b": EXCHANGE, "a": WINDOWS}, ["a", "b", "c"], ["c"]),
        ({"gw1": API}, {"a": WINDOWS}, ["gw1", "a"], []),
        ({"gw1": API}, {"a": WINDOWS, "b": HERE}, ["gw1", "a"], ["b"]),
    ],
)
def test_the_first_gateway_on_which_modules_run_holds_it(
    gateways: dict[str, Any], servers: dict[str, Any], run: list[str], places: list[str]
) -> None:
    groups = {"mail_gateways": list(gateways), "mail_servers": list(servers)}
    assert lock_places({**gateways, **servers}, groups, run) == places


def test_a_host_outside_the_run_whose_variables_are_broken_is_not_asked() -> None:
    class Broken(dict[str, Any]):
        def get(self, *_words: Any) -> Any:
            raise ValueError("undefined")

    groups = {"mail_gateways": ["gw1", "gw2"], "mail_servers": []}
    assert lock_places({"gw1": Broken(), "gw2": HERE}, groups, ["gw2"]) == ["gw2"]
