"""Tests that a document names: by their file, and by a part of their name where it is one of many."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
_NAMED = re.compile(r"`((?:tests|molecule|\w+)/[\w/]+(?:\.py)?|test_\w+\.py)`(?: \(([^)]*)\))?")


def missing_tests(document: str, least: int) -> list[str]:
    """Return what a document of the checkout names and nobody finds. It has to name more than that many files."""
    named = _NAMED.findall((TOP / document).read_text())
    assert len(named) > least
    missing = []
    for place, parts in named:
        path = TOP / place if place.startswith(("tests/", "molecule/")) else TOP / "tests/unit/plugins" / place
        if not path.exists():
            missing.append(place)
            continue
        there = "".join(one.read_text() for one in ([path] if path.is_file() else path.rglob("*.py")))
        missing += [f"{place}: {word}" for part in parts.split(",") if (word := part.strip(" .")) not in there]
    return missing
