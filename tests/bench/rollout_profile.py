# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the time of a run is spread over its tasks, from what the callback plugin task_times wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[1] / "support/callback_plugins"
BEGIN, END = "ansible-playbook starts", "ansible-playbook ends"


@dataclass
class Row:
    """A task of a play. hosts: those that it had a result for. A play that comes in batches has its tasks in one row: times counts them."""

    play: str
    task: str
    hosts: set[str] = field(default_factory=set)
    times: int = 0
    seconds: float = 0.0


def environment(output: Path) -> dict[str, str]:
    """What makes Ansible write the times of a run into this file."""
    return {
        "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS),
        "ANSIBLE_CALLBACKS_ENABLED": "task_times",
        "TASK_TIMES": str(output),
    }


def read_times(lines: Iterable[str], began: float, ended: float) -> list[Row]:
    """The rows in the order in which they first came. began, ended: of the whole program, in seconds since 1970.

    A task lasts until the next one begins, so all rows together make up the whole time. What Ansible does between two plays counts for the
    last task before it.
    """
    rows: dict[tuple[str, str], Row] = {}

    def row(play: str, task: str) -> Row:
        return rows.setdefault((play, task), Row(play, task))

    current, since, play = row("", BEGIN), began, ""
    current.times = 1
    for line in lines:
        event = json.loads(line)
        kind = event["event"]
        if kind == "result":
            current.hosts.add(event["name"])
        elif kind == "play":
            play = event["name"]
        else:
            current.seconds += event["at"] - since
            current, since = row(*((play, event["name"]) if kind == "task" else ("", END))), event["at"]
            current.times += 1
    current.seconds += ended - since
    return list(rows.values())


def render(title: str, rows: Sequence[Row]) -> str:
    """The table for people, a heading for each play with its sum."""
    lines = [f"{title:78} {'hosts':>5} {'times':>5} {'wall s':>7}"]
    shown = ""
    for one in rows:
        if one.play and one.play != shown:
            shown = one.play
            total = sum(other.seconds for other in rows if other.play == shown)
            lines.append(f"{shown[:78]:78} {'':>5} {'':>5} {total:>7.2f}")
        indent = "  " if one.play else ""
        lines.append(f"{(indent + one.task)[:78]:78} {len(one.hosts) or '':>5} {one.times:>5} {one.seconds:>7.2f}")
    lines.append(f"{'together':78} {'':>5} {'':>5} {sum(one.seconds for one in rows):>7.2f}")
    return "\n".join(lines)
