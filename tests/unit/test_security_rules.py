"""Ruff's security rules hold for all that runs at users, each exception says why it is one, and each promise has its test."""

from __future__ import annotations

import re
from pathlib import Path

import tomllib

from tests.support.named_tests import missing_tests

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
    assert missing_tests("docs/security.md", 30) == []


def test_each_test_of_a_fault_between_two_runs_is_there():
    assert missing_tests("tests/lifecycle.md", 30) == []
    text = (TOP / "tests/lifecycle.md").read_text()
    assert re.findall(r"(?m)^\| \*\*(L\d+)\*\*", text) == [f"L{number}" for number in range(1, 16) if number != 13]
