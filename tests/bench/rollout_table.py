# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured of roll-outs, as data and as tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]

from tests.bench import rollout_goals
from tests.bench.host_trace import HostCounts
from tests.bench.measure import spread

SCHEMA = Path(__file__).with_name("rollout.schema.json")
MEASURES = ("wall_seconds", "controller_cpu_seconds", "hosts_cpu_seconds")
LABELS = {
    "ping": "ping",
    "first": "first run",
    "rerun": "rerun",
    "rerun_messages": "rerun with messages",
    "messages": "test messages alone",
    "verify": "verify",
    "verify_2": "verify, 2 slices at once",
    "ping_one": "ping, one mail server",
    "read": "read, one mail server",
}
BASES = {
    "first": "ping",
    "rerun": "ping",
    "rerun_messages": "ping",
    "messages": "ping",
    "verify": "ping",
    "verify_2": "ping",
    "read": "ping_one",
}
"""Step -> the step that its ratio to ping is taken of: the same hosts."""
PLACES = {"gateway": "the gateway", "mail server": "a mail server", "host outside": "the host outside"}

Key = tuple[str, str]
"""Contender and step."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one run: by the clock, of the controller's CPU, and of the hosts' CPU; in the order of MEASURES."""

    wall: float
    controller: float
    hosts: float


def size(
    servers: int, costs: Mapping[Key, Sequence[Cost]], counts: Mapping[Key, Mapping[str, HostCounts]]
) -> dict[str, Any]:
    """Everything about one number of mail servers, for the JSON. The costs of two steps are compared round by round."""
    runs = []
    for (contender, step), mine in costs.items():
        run: dict[str, Any] = {"contender": contender, "step": step, **_spreads([astuple(cost) for cost in mine])}
        if step in BASES:
            run["ratio_to_ping"] = _ratios(mine, costs[contender, BASES[step]])
        if contender == "product" and ("rival", step) in costs:
            run["ratio_to_rival"] = _ratios(mine, costs["rival", step])
        runs.append(run)
    return {
        "mail_servers": servers,
        "runs": runs,
        "messages_to_ping": _messages(costs),
        "call_above_ping_seconds": _call(costs),
        "counts": [
            {"contender": contender, "step": step, "host": host, **one.to_dict()}
            for (contender, step), hosts in counts.items()
            for host, one in hosts.items()
            if one.module_calls
        ],
    }


def _messages(costs: Mapping[Key, Sequence[Cost]]) -> dict[str, float] | None:
    """What test messages add to a rerun, relative to ping, round by round. None if it was not measured."""
    ping, without, with_them = (costs.get(("product", step), ()) for step in ("ping", "rerun", "rerun_messages"))
    more = [(long.wall - short.wall) / one.wall for one, short, long in zip(ping, without, with_them)]
    return spread(more) if more else None


def _call(costs: Mapping[Key, Sequence[Cost]]) -> float | None:
    """What the call that reads a host takes longer than ping there: the difference of the medians, in seconds."""
    ping, read = ([cost.wall for cost in costs.get(("product", step), ())] for step in ("ping_one", "read"))
    return round(statistics.median(read) - statistics.median(ping), 4) if ping and read else None


def _ratios(above: Sequence[Cost], below: Sequence[Cost]) -> dict[str, dict[str, float]]:
    return _spreads([[x / y for x, y in zip(astuple(one), astuple(other))] for one, other in zip(above, below)])


def _spreads(rows: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
    return {name: spread(column) for name, column in zip(MEASURES, zip(*rows))}


def check_schema(data: Mapping[str, Any]) -> None:
    """Raise jsonschema.ValidationError unless the data are as the schema says."""
    jsonschema.validate(data, json.loads(SCHEMA.read_text()))


def render(data: Mapping[str, Any]) -> str:
    """The tables for people."""
    about = data["machine"]
    lines = [
        f"ansible-core {about['ansible_core']}, Python {about['python']}, {about['cores']} cores, load "
        f"{about['load_at_start']} before and {about['load_at_end']} after; {data['rounds']} rounds, {data['forks']} forks, "
        f"{data['minutes']:.0f} minutes{', a quick run' if data['quick'] else ''}"
    ]
    for one in data["sizes"]:
        lines += ["", *_costs(one), "", *_counts(one)]
    if plan := data["plan"]:
        lines += [
            "",
            f"The plan of {plan['hosts']:,} hosts: {plan['seconds']:.2f} s, of that {plan['parse_seconds']:.2f} to parse what "
            f"they said, {plan['plan_seconds']:.2f} to plan, {plan['output_seconds']:.2f} for text and JSON; "
            f"{plan['megabytes']:.0f} MB at the peak",
        ]
    return "\n".join([*lines, "", rollout_goals.render(data["goals"])])


def _costs(one: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{one['mail_servers']:>2} mail servers and a gateway",
        f"{'':30} {'wall s':>8} {'(min-max)':>15} {'/ ping':>7} {'controller CPU s':>17} {'hosts CPU s':>12}",
    ]
    runs = {(run["contender"], run["step"]): run for run in one["runs"]}
    for step, label in LABELS.items():
        for contender in ("product", "rival"):
            if run := runs.get((contender, step)):
                lines.append(_line(f"{label}, {contender}", run, run.get("ratio_to_ping")))
        ratio = runs.get(("product", step), {}).get("ratio_to_rival")
        if ratio and step != "ping":
            lines.append(_line("  product / rival", ratio))
    return lines


def _line(label: str, row: Mapping[str, Any], to_ping: Mapping[str, Any] | None = None) -> str:
    wall, controller, hosts = (row[name] for name in MEASURES)
    extremes = f"{wall['min']:.2f}-{wall['max']:.2f}"
    ping = f"{to_ping['wall_seconds']['median']:.1f}" if to_ping else ""
    costs = f"{ping:>7} {controller['median']:>17.2f} {hosts['median']:>12.2f}"
    return f"{label:30} {wall['median']:>8.2f} {extremes:>15} {costs}"


def _counts(one: Mapping[str, Any]) -> list[str]:
    lines = [f"{'':44} {'module calls':>12} {'programs started':>17} {'files loaded':>13} {'of the archive':>15}"]
    for counts in one["counts"]:
        label = f"{LABELS[counts['step']]}, {counts['contender']}, {PLACES[counts['host']]}"
        lines.append(
            f"{label:44} {counts['module_calls']:>12} {counts['programs_started']:>17} {counts['files_loaded']:>13} "
            f"{counts['files_from_archive']:>15}"
        )
    return lines
