"""A limit on the time of one step, for code under test that may hang instead of failing."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Optional


class HungError(BaseException):
    """The step did not end in time. A BaseException, so that no code under test takes it for its own."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise HungError where the main thread stands if the block takes longer; also if that was swallowed."""
    rung = False

    def ring(_signal: int, _frame: Optional[FrameType]) -> None:
        nonlocal rung
        rung = True
        raise HungError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if rung:
        raise HungError(f"not done after {seconds:g} s")
