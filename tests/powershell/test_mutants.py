"""Whether the Pester tests would notice: the module, changed in one place at a time."""

from __future__ import annotations

import pytest

from tests.powershell import mutants
from tests.support import powershell

SAMPLE = 12
"""How many make test tries; make test-faults tries all."""
WANTED = 0.9


def test_mutants_are_made_of_all_kinds_and_a_sample_is_killed(capsys: pytest.CaptureFixture[str]):
    powershell.required()
    every = mutants.every()
    words = (
        "without -",
        "the opposite of",
        "the other way round",
        "-or in",
        "$false for $true",
        "without:",
        "another text for",
    )
    assert {word for word in words if any(one.what.startswith(word) for one in every)} == set(words)
    guard = [
        number
        for number, one in enumerate(every)
        if one.what.startswith(("the opposite of: $module.CheckMode", "without: if ($module.CheckMode)"))
    ]
    assert guard
    results = mutants.tried([*guard, *range(7, len(every), len(every) // SAMPLE)], every)
    killed = sum(one.killed is not None for one in results)
    with capsys.disabled():
        print(f"\nmutants: {killed} of {len(results)} killed, a sample of {len(every)}")
    assert all(one.killed for one in results[: len(guard)]), results[: len(guard)]
    assert killed >= len(results) * 0.75, [one for one in results if one.killed is None]


@pytest.mark.exhaustive
def test_nearly_all_mutants_are_killed(capsys: pytest.CaptureFixture[str]):
    powershell.required()
    every = mutants.every()
    results = mutants.tried(range(len(every)), every)
    survivors = [one for one in results if one.killed is None]
    with capsys.disabled():
        print(f"\nmutants: {len(results) - len(survivors)} of {len(results)} killed")
        for one in survivors:
            print(f"survived: line {one.line}: {one.what}")
    assert len(survivors) <= len(results) * (1 - WANTED)
