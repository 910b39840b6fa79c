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
        short = min(used.seconds(text, MOST) for _ in range(3))
        most = max(MOST, 2 * GROWTH * short)  # or a quadratic use would be stopped before it shows
        times = min(used.seconds(longer, most) for _ in range(3)) / short
        if times > GROWTH:
            return times, repr(text[:40])
    return 1.0, ""


@pytest.mark.parametrize(
    ("pattern", "method", "is_bad"),
    [
        (r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*(.*?)[ \t]*\Z", "match", True),
        (r"a(b+)+c", "match", True),
        (rb"x\d+[\w.]*/", "match", True),
        (r"(?i)[\w.-]*(?:pass|token)[\w.-]*=", "sub", True),
        (r"[ -~]+\Z", "match", False),
        (r"(?:[^\s:]+:)?[^\s]+", "match", False),
    ],
)
def test_the_search_finds_what_grows(pattern, method, is_bad):
    assert (growth(Used("", re.compile(pattern), method))[0] > GROWTH) == is_bad


def test_no_pattern_grows_faster_than_its_text():
    used = list(used_patterns())
    assert len(used) > 200
    assert len({one.where for one in used}) > 100
    used = list({(one.pattern, one.method): one for one in used}.values())  # some stand in two modules
    bad = {f"{one.where}.{one.method}": found for one in used if (found := growth(one))[0] > GROWTH}
    assert bad == {}
