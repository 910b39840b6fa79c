"""No regular expression of the plugins needs more than linear time for what a stranger sends, whatever that is."""

from __future__ import annotations

import re

import pytest

from tests.support.patterns import Used, hostile, used_patterns

SIZE = 1500
SUSPICIOUS = 0.0015
"""CPU seconds for SIZE characters. A linear use needs some microseconds, a quadratic one milliseconds."""
GROWTH = 9.0
"""For four times the text: 4 is linear, 16 is quadratic."""
MOST = 0.25
"""CPU seconds after which a use is stopped: exponential ones never end."""


def growth(used: Used) -> tuple[float, str]:
    """How many times longer the worst hostile text of four times the size takes, and that text. 1 if none takes long."""
    for text in hostile(used.pattern, SIZE):
        if used.seconds(text, MOST) < SUSPICIOUS or (short := used.seconds(text, MOST)) < SUSPICIOUS:
            continue
        if short >= MOST:
            return GROWTH + 1, repr(text[:40])
        at = next(iter(k for k, one in enumerate(hostile(used.pattern, SIZE)) if one == text))
        longer = next(one for k, one in enumerate(hostile(used.pattern, 4 * SIZE)) if k == at)
        times = min(used.seconds(longer, MOST) for _ in range(3)) / min(used.seconds(text, MOST) for _ in range(3))
        if times > GROWTH:
            return times, repr(text[:40])
    return 1.0, ""


@pytest.mark.parametrize(
    ("pattern", "is_bad"),
    [
        (r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*(.*?)[ \t]*\Z", True),
        (r"a(b+)+c", True),
        (rb"x\d+[\w.]*/", True),
        (r"[ -~]+\Z", False),
        (r"(?:[^\s:]+:)?[^\s]+", False),
    ],
)
def test_the_search_finds_what_grows(pattern, is_bad):
    assert (growth(Used("", re.compile(pattern), "match"))[0] > GROWTH) == is_bad


def test_no_pattern_grows_faster_than_its_text():
    used = list(used_patterns())
    assert len(used) > 200
    assert len({one.where for one in used}) > 100
    bad = {f"{one.where}.{one.method}": found for one in used if (found := growth(one))[0] > GROWTH}
    assert bad == {}
