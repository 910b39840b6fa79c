"""Nobody sits at the terminal of a job: no playbook and no role asks a question, or waits without an end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
FILES = sorted([*TOP.glob("playbooks/*.yml"), *TOP.glob("roles/*/tasks/*.yml")])
PAUSE = ("pause", "ansible.builtin.pause")


def mappings(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping at any depth: plays, blocks and tasks among them."""
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from mappings(one)


def waits(data: Any) -> list[str]:
    """What would wait for somebody."""
    found = []
    for one in mappings(data):
        found += ["vars_prompt"] if one.get("vars_prompt") else []
        for name in PAUSE:
            limits = one.get(name)
            if name in one and not (isinstance(limits, dict) and {"seconds", "minutes"} & limits.keys()):
                found.append(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_nobody_is_waited_for(path: Path) -> None:
    assert waits(yaml.safe_load(path.read_text())) == []


def test_a_question_would_be_found() -> None:
    play = {"hosts": "all", "vars_prompt": [{"name": "x"}], "tasks": [{"block": [{"ansible.builtin.pause": None}]}]}
    assert waits([play]) == ["vars_prompt", "ansible.builtin.pause"]
    assert waits([{"tasks": [{"ansible.builtin.pause": {"seconds": 3}}]}]) == []
