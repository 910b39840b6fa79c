# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the figures have to be, and the table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import jsonschema  # type: ignore[import-untyped]

from tests.bench import log_lines

SCHEMA = Path(__file__).with_name("bench.schema.json")
NOT_ASKED = "not asked for"
INJECTION_SLACK = 0.1  # round trips: the machine takes time as well


@dataclass(frozen=True)
class Goal:
    """A figure beside its limit. figure is None if it could not be measured, which is a miss."""

    name: str
    text: str
    figure: Optional[float]
    relation: str  # "<=", "<" or ">="
    limit: float
    unit: str
    needs: tuple[str, ...]  # contenders and figures
    reason: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of the limit."""
        if self.figure is None:
            return False
        if self.relation == ">=":
            return self.figure >= self.limit
        return self.figure < self.limit if self.relation == "<" else self.figure <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """As it goes into the JSON."""
        return {
            "name": self.name,
            "text": self.text,
            "figure": None if self.figure is None else round(self.figure, 3),
            "relation": self.relation,
            "limit": self.limit,
            "unit": self.unit,
            "met": self.met,
            "reason": self.reason,
        }


def quotient(above: Sequence[float], below: Sequence[float]) -> Optional[float]:
    """Median over the rounds of one ratio to the C client divided by another; None without both."""
    pairs = list(zip(above, below))
    return statistics.median(one / other for one, other in pairs) if pairs else None


def judge(
    ratios: Mapping[str, Sequence[float]], figures: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, str]
) -> list[Goal]:
    """The goals with what was measured, except those that need what was not asked for.

    ratios: CPU per target relative to C, by contender and round. reasons: why something was not measured, by its name.
    """

    def ratio(name: str) -> Optional[float]:
        return statistics.median(ratios[name]) if ratios.get(name) else None

    def against(name: str) -> Optional[float]:
        return quotient(ratios.get(name, ()), ratios.get("full", ()))

    def figure(name: str, *keys: str) -> Optional[float]:
        value: Any = figures.get(name)
        for key in keys:
            value = value[key] if value else None
        return float(value) if value is not None else None

    goals = [
        Goal("full", "full test, CPU of the C client's", ratio("full"), "<=", 1.5, "x", ("full",)),
        Goal("nmap", "nmap, CPU of the full test's", against("nmap"), ">=", 2.5, "x", ("nmap", "full")),
        Goal("sslyze", "sslyze, CPU of the full test's", against("sslyze"), ">=", 8, "x", ("sslyze", "full")),
        Goal("ansible", "a task per host through Ansible, CPU of the full test's", against("ansible"), ">=", 200, "x",
             ("ansible", "full")),
        Goal("survey", "survey, CPU of the C client's", ratio("survey"), "<=", 0.7, "x", ("survey",)),
        Goal("survey_go", "survey, CPU of the full handshakes in Go", quotient(ratios.get("survey", ()), ratios.get("go", ())),
             "<", 1, "x", ("survey", "go")),
        Goal("delay", "1,000 targets with 500 ms before the greeting", figure("delay", "wall_seconds", "full", "median"),
             "<", 3, "s", ("delay",)),
        Goal("memory", "10,000 targets, peak of memory", figure("memory", "peak_rss_mb"), "<", 100, "MB", ("memory",)),
        Goal("injection", "injection check, round trips beyond those of a handshake", figure("injection", "round_trips_more"),
             "<=", 1 + INJECTION_SLACK, "", ("injection",)),
        Goal("module_calls", "module calls on each host, role verify", figure("module_calls", "most_per_host"), "<=", 1, "",
             ("module_calls",)),
        Goal("logs_postfix", "lines of Postfix's log in a CPU second", figure("logs", "postfix", "lines_per_second"), ">=",
             log_lines.LIMIT, "", ("logs",)),
        Goal("logs_exim", "lines of Exim's log in a CPU second", figure("logs", "exim", "lines_per_second"), ">=",
             log_lines.LIMIT, "", ("logs",)),
    ]  # fmt: skip
    asked = [goal for goal in goals if not any(reasons.get(name) == NOT_ASKED for name in goal.needs)]
    return [
        replace(goal, reason="; ".join(f"{name}: {reasons[name]}" for name in goal.needs if reasons.get(name)))
        for goal in asked
    ]


def render(data: Mapping[str, Any]) -> str:
    """The table for people."""
    about = data["machine"]
    lines = [
        f"Python {about['python']}, {about['openssl']}, {about['cores']} cores, load {about['load_at_start']} before and "
        f"{about['load']} after; {data['rounds']} rounds{', a quick run' if data['quick'] else ''}",
        "",
        f"{'':32} {'targets':>7} {'CPU ms':>9} {'CPU / C':>9} {'(min-max)':>15} {'wall s':>8} {'wall / C':>8} {'per s':>6}",
    ]
    for one in data["contenders"]:
        if not one["measured"]:
            if one["reason"] == NOT_ASKED:
                continue
            lines.append(f"{one['label']:32} not measured: {one['reason'].splitlines()[0][:100]}")
            continue
        ratio = one["ratio_to_c"]
        extremes = f"{ratio['min']:.2f}-{ratio['max']:.2f}"
        lines.append(
            f"{one['label']:32} {one['targets']:>7} {one['cpu_ms_per_target']['median']:>9.3f} {ratio['median']:>9.2f} "
            f"{extremes:>15} {one['wall_seconds']['median']:>8.2f} "
            f"{one['wall_ratio_to_c']['median']:>8.2f} {one['targets_per_second']:>6.0f}"
        )
    others = len(lines)
    walls = data["figures"].get("delay", {}).get("wall_seconds", {})
    if walls:
        listed = ", ".join(f"{name} {wall['median']:.2f} s" for name, wall in walls.items())
        lines.append(f"1,000 targets with 500 ms before the greeting: {listed}")
    far = data["figures"].get("injection")
    if far:
        lines.append(
            f"a round trip of {far['round_trip_ms']} ms: handshake {far['handshake_seconds']:.2f} s, injection check "
            f"{far['check_seconds']:.2f} s"
        )
    many = data["figures"].get("memory")
    if many:
        lines.append(
            f"10,000 targets in one call: {many['cpu_ms_per_target']:.3f} ms CPU per target, {many['ratio_to_c']:.2f} of "
            f"the C client's, {many['wall_seconds']:.1f} s, {many['peak_rss_mb']:.0f} MB"
        )
    for daemon, one in data["figures"].get("logs", {}).items():
        lines.append(
            f"{one['lines']:,} lines of a log of {daemon}: {one['lines_per_second']:,} in a CPU second, {one['peak_rss_mb']:.0f} MB; "
            f"{one['peak_rss_mb_of_four']:.0f} MB for four times as many"
        )
    if len(lines) > others:
        lines.insert(others, "")
    lines += ["", f"{'goal':60} {'figure':>10} {'limit':>11}"]
    for goal in data["goals"]:
        figure = "-" if goal["figure"] is None else f"{goal['figure']:.2f} {goal['unit']}".rstrip()
        limit = f"{goal['relation']} {goal['limit']:g} {goal['unit']}".rstrip()
        verdict = "met" if goal["met"] else "MISSED"
        why = f"  ({goal['reason'].splitlines()[0][:100]})" if goal["reason"] else ""
        lines.append(f"{goal['text']:60} {figure:>10} {limit:>11}  {verdict}{why}")
    return "\n".join(lines)


def check_schema(data: Mapping[str, Any]) -> None:
    """Raise jsonschema.ValidationError unless the data are as the schema says."""
    jsonschema.validate(data, json.loads(SCHEMA.read_text()))
