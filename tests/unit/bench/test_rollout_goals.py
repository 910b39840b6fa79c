"""Goals and limits of the roll-out, and what a figure means beside them."""

from __future__ import annotations

import pytest

from tests.bench import rollout_goals, rollout_table
from tests.bench.rollout_table import Cost

STEPS = ("ping", "first", "rerun", "rerun_messages", "messages", "ping_one", "read")
PLAN = {
    "hosts": 1000, "seconds": 4.0, "parse_seconds": 1.0, "plan_seconds": 2.0, "output_seconds": 1.0, "megabytes": 120.0,
    "recorded_bytes": 5_000_000,
}  # fmt: skip
GOALS = {goal.name: goal for goal in rollout_goals.GOALS}


def size(servers, rival=True, **walls):
    """A size of the figures in which each run took so many seconds in both rounds; ping took one."""
    walls = {
        "ping": 1.0,
        "first": 3.0,
        "rerun": 2.0,
        "rerun_messages": 2.9,
        "messages": 1.0,
        "ping_one": 0.8,
        "read": 0.9,
        **walls,
    }
    costs = {("product", step): [Cost(walls[step], 1.0, 1.0)] * 2 for step in STEPS}
    if rival:
        costs |= {
            ("rival", step): [Cost(one, 1.0, 1.0)] * 2 for step, one in (("ping", 1.0), ("first", 10.0), ("rerun", 9.0))
        }
    return rollout_table.size(servers, costs, {})


def data(*sizes, plan=PLAN, reasons=None):
    found = {
        "version": 2, "quick": False, "rounds": 2, "forks": 10, "minutes": 1.0, "sizes": list(sizes), "plan": plan,
        "machine": {
            "cores": 2, "machine": "x86_64", "kernel": "6.1", "python": "3.11", "ansible_core": "2.19", "load_at_start": 0.1,
            "load_at_end": 0.2,
        },
    }  # fmt: skip
    goals = rollout_goals.judge(found, reasons or {})
    return {**found, "goals": goals, "passed": rollout_goals.passed(goals)}


def verdicts(found):
    return {one["name"]: one["verdict"] for one in found["goals"]}


def test_only_what_differs_over_ssh_by_more_than_a_fifth_is_scaled():
    scaled = {name: goal.factor for name, goal in GOALS.items() if goal.factor != 1}
    assert scaled == {"first_4_rival": pytest.approx(0.74 / 0.48)}


def test_both_figures_of_a_scaled_goal_are_kept():
    (one,) = [one for one in data(size(4))["goals"] if one["name"] == "first_4_rival"]
    assert (one["goal"], one["limit"], one["factor"]) == (0.308, 0.54, 1.542)
    assert one["set"] == {"goal": 0.2, "limit": 0.35, "measured": 0.48, "over_ssh": 0.74}


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [(0.308, "goal met"), (0.31, "only within the limit"), (0.539, "only within the limit"), (0.54, "missed"), (None, "not measured")],
)  # fmt: skip
def test_verdicts(figure, verdict):
    assert GOALS["first_4_rival"].verdict(figure) == verdict


def test_each_goal_finds_its_figure():
    found = data(size(4), size(12, first=4.0), size(40, rerun=2.5, rival=False))
    assert {one["name"]: one["figure"] for one in found["goals"]} == {
        "first_4_rival": 0.3, "first_4": 3.0, "rerun_4": 2.0, "first_12": 4.0, "rerun_12": 2.0, "first_40": 3.0, "rerun_40": 2.5,
        "messages_4": 0.9, "call": 0.1, "plan_seconds": 4.0, "plan_memory": 120.0,
    }  # fmt: skip
    assert set(verdicts(found).values()) == {"goal met", "only within the limit"} and found["passed"]


def test_a_missed_limit_fails():
    found = data(size(4, rerun=3.6))
    assert verdicts(found)["rerun_4"] == "missed" and not found["passed"]


def test_what_was_not_asked_for_does_not_fail():
    found = data(size(4, rival=False))
    assert [name for name, verdict in verdicts(found).items() if verdict == "not measured"] == [
        "first_4_rival", "first_12", "rerun_12", "first_40", "rerun_40",
    ]  # fmt: skip
    assert found["passed"]


def test_what_could_not_be_measured_fails():
    reasons = dict.fromkeys(("plan_seconds", "plan_memory"), "plan_scale.py ended with status 1")
    found = data(size(4), plan=None, reasons=reasons)
    assert not found["passed"]
    assert "not measured  (plan_scale.py ended with status 1)" in rollout_table.render(found)


def test_the_data_are_as_the_schema_says_and_the_table_shows_all():
    found = data(size(4), size(12, rival=False))
    rollout_table.check_schema(found)
    lines = rollout_table.render(found).splitlines()
    rows = {
        goal.name: next(line for line in lines if line.startswith(goal.text + " ")).split() for goal in GOALS.values()
    }
    assert " ".join(rows["first_4_rival"]).endswith("0.30 x 0.31 (0.2) x 0.54 (0.35) x goal met")
    assert " ".join(rows["first_12"]).endswith("3.00 x 3.5 x 4.5 x goal met")
    assert " ".join(rows["first_40"]).endswith("- 3 x 4 x not measured (not asked for)")
    assert lines[-1] == "In brackets as set: by 0.48 over podman's connection, where 0.74 is what SSH came to."
    assert any(line.startswith("The plan of 1,000 hosts: 4.00 s") for line in lines)


def test_one_host_is_compared_with_ping_on_one_host():
    runs = {run["step"]: run for run in size(4)["runs"] if run["contender"] == "product"}
    assert runs["read"]["ratio_to_ping"]["wall_seconds"]["median"] == 1.125
    assert "ratio_to_ping" not in runs["ping_one"]


def test_a_size_without_messages_or_single_calls_says_so():
    found = rollout_table.size(4, {("product", "ping"): [Cost(1, 1, 1)], ("product", "first"): [Cost(2, 1, 1)]}, {})
    assert (found["messages_to_ping"], found["call_above_ping_seconds"]) == (None, None)
