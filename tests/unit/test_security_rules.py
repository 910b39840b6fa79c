"""Ruff's security rules hold for all that runs at users, each exception says why it is one, and each promise has its test."""

from __future__ import annotations

import re
from pathlib import Path

import tomllib

TOP = Path(__file__).resolve().parents[2]
LINT = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
SECURITY = re.compile(r"S\d*")


def test_the_rules_are_on_without_blanket_exceptions():
    assert "S" in LINT["select"]
    assert [rule for rule in LINT["ignore"] if SECURITY.fullmatch(rule)] == []
    assert [
        place for place in LINT["per-file-ignores"] if not place.startswith(("tests/", "molecule/", "tools/"))
    ] == []


def test_each_exception_has_a_reason():
    found = []
    for path in sorted((TOP / "plugins").rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            without = re.search(r"# (?:ruff: )?noqa\b(?!: )", line)
            if without or re.search(r"noqa: .*\bS\d+(?!.*\(\w.*\w\.?\))", line):
                found.append(f"{path.name}:{number}: {line.strip()}")
    assert found == []


def test_each_test_that_shows_a_promise_is_there():
    """docs/security.md names tests by file, and by a part of their name where it is one of many."""
    text = (TOP / "docs/security.md").read_text()
    named = re.findall(r"`((?:tests|molecule|\w+)/[\w/]+(?:\.py)?|test_\w+\.py)`(?: \(([^)]*)\))?", text)
    assert len(named) > 30
    missing = []
    for place, parts in named:
        path = TOP / place if place.startswith(("tests/", "molecule/")) else TOP / "tests/unit/plugins" / place
        if not path.exists():
            missing.append(place)
            continue
        there = "".join(one.read_text() for one in ([path] if path.is_file() else path.rglob("*.py")))
        missing += [f"{place}: {word}" for part in parts.split(",") if (word := part.strip(" .")) not in there]
    assert missing == []
