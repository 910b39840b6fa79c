# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a roll-out may cost: goals and limits as data, and the table that says whether they are met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

Data = Mapping[str, Any]
"""The figures, as rollout.schema.json describes them."""

NOT_ASKED = "not asked for"
SLACK = 0.2
"""A ratio over SSH that differs by more from the one over podman's connection changes goal and limit."""
GOAL_MET, WITHIN, MISSED, NOT_MEASURED = "goal met", "only within the limit", "missed", "not measured"


@dataclass(frozen=True)
class Goal:
    """What a figure has to be. At most goal is wanted; more than limit is a miss.

    measured: the figure of 31207a5 over podman's connection, by which goal and limit were set. over_ssh: what the bench measured over SSH
    before there were goals (docs/bench.md). find: the figure in the data, None if it is not there.
    """

    name: str
    text: str
    goal: float
    limit: float
    unit: str
    find: Callable[[Data], Optional[float]]
    measured: Optional[float] = None
    over_ssh: Optional[float] = None

    @property
    def factor(self) -> float:
        """What goal and limit are multiplied by, because they were set over another connection than is measured here."""
        if not self.measured or not self.over_ssh:
            return 1.0
        factor = self.over_ssh / self.measured
        return factor if abs(factor - 1) > SLACK else 1.0

    def verdict(self, figure: Optional[float]) -> str:
        """The figure beside goal and limit."""
        if figure is None:
            return NOT_MEASURED
        if figure <= self.goal * self.factor:
            return GOAL_MET
        return WITHIN if figure <= self.limit * self.factor else MISSED


def _size(data: Data, servers: int) -> Data:
    return next((one for one in data["sizes"] if one["mail_servers"] == servers), {})


def _ratio(servers: int, step: str, to: str) -> Callable[[Data], Optional[float]]:
    """The product's wall seconds relative to the rival's or to ping's."""

    def find(data: Data) -> Optional[float]:
        for run in _size(data, servers).get("runs", ()):
            if (run["contender"], run["step"]) == ("product", step) and f"ratio_to_{to}" in run:
                return float(run[f"ratio_to_{to}"]["wall_seconds"]["median"])
        return None

    return find


def _of_size(servers: int, name: str) -> Callable[[Data], Optional[float]]:
    def find(data: Data) -> Optional[float]:
        found = _size(data, servers).get(name)
        return float(found["median"]) if isinstance(found, dict) else found

    return find


def _of_plan(name: str) -> Callable[[Data], Optional[float]]:
    return lambda data: (data.get("plan") or {}).get(name)


GOALS = (
    Goal("first_4_rival", "first run, 4 servers / rival", 0.2, 0.35, "x", _ratio(4, "first", "rival"), 0.48, 0.74),
    Goal("first_4", "first run, 4 servers / ping", 4, 6.5, "x", _ratio(4, "first", "ping"), 9.1, 10.3),
    Goal("rerun_4", "rerun, 4 servers / ping", 2.5, 3.5, "x", _ratio(4, "rerun", "ping"), 7.8, 6.8),
    Goal("first_12", "first run, 12 servers / ping", 3.5, 4.5, "x", _ratio(12, "first", "ping"), 6.2, 6.9),
    Goal("rerun_12", "rerun, 12 servers / ping", 2.2, 3, "x", _ratio(12, "rerun", "ping"), 5.4, 5.4),
    Goal("first_40", "first run, 40 servers / ping", 3, 4, "x", _ratio(40, "first", "ping"), 4.8),
    Goal("rerun_40", "rerun, 40 servers / ping", 2, 3, "x", _ratio(40, "rerun", "ping"), 4.5),
    Goal("messages_4", "what test messages add to a rerun, 4 servers / ping", 1, 1.5, "x", _of_size(4, "messages_to_ping")),
    Goal("call", "a module call on a host, above ping", 0.15, 0.25, "s", _of_size(4, "call_above_ping_seconds"), 0.45),
    Goal("plan_seconds", "the plan of 1,000 hosts", 5, 10, "s", _of_plan("seconds")),
    Goal("plan_memory", "the plan of 1,000 hosts, peak of memory", 300, 500, "MB", _of_plan("megabytes")),
)  # fmt: skip


def judge(data: Data, reasons: Mapping[str, str]) -> list[dict[str, Any]]:
    """The goals as they go into the JSON. reasons: why something was asked for but not measured, by the name of a goal."""
    return [_judged(goal, goal.find(data), reasons.get(goal.name, NOT_ASKED)) for goal in GOALS]


def _judged(goal: Goal, figure: Optional[float], reason: str) -> dict[str, Any]:
    return {
        "name": goal.name,
        "text": goal.text,
        "unit": goal.unit,
        "figure": figure if figure is None else round(figure, 3),
        "goal": round(goal.goal * goal.factor, 3),
        "limit": round(goal.limit * goal.factor, 3),
        "set": {"goal": goal.goal, "limit": goal.limit, "measured": goal.measured, "over_ssh": goal.over_ssh},
        "factor": round(goal.factor, 3),
        "verdict": goal.verdict(figure),
        "reason": reason if figure is None else "",
    }


def passed(goals: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no limit is missed, and everything that was asked for was measured."""
    return not any(one["verdict"] == MISSED or one["reason"] not in ("", NOT_ASKED) for one in goals)


def render(goals: Sequence[Mapping[str, Any]]) -> str:
    """The table for people. Goals and limits that the connection changed have those that were set beside them."""
    lines = [f"{'':52} {'figure':>10} {'goal':>14} {'limit':>14}"]
    for one in goals:
        scaled = one["factor"] != 1
        figure = "-" if one["figure"] is None else f"{one['figure']:.2f} {one['unit']}"
        goal, limit = (_bound(one[name], one["set"][name], one["unit"], scaled) for name in ("goal", "limit"))
        why = f"  ({one['reason'].splitlines()[0][:100]})" if one["reason"] else ""
        lines.append(f"{one['text']:52} {figure:>10} {goal:>14} {limit:>14}  {one['verdict']}{why}")
    for one in goals:
        if one["factor"] != 1:
            was = one["set"]
            lines.append(
                f"In brackets as set: by {was['measured']:g} over podman's connection, where {was['over_ssh']:g} is what SSH came to."
            )
    return "\n".join(lines)


def _bound(value: float, as_set: float, unit: str, scaled: bool) -> str:
    return f"{value:.2f} ({as_set:g}) {unit}" if scaled else f"{value:g} {unit}"
