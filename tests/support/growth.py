"""CPU seconds of a call that may never end. The time of this thread, so that other load of the machine does not count."""

from __future__ import annotations

import signal
import time
from typing import Any, Callable


def cpu_seconds(call: Callable[[], Any], most: float) -> float:
    """CPU seconds of one call; the most if it takes longer, and then it is stopped. For the main thread."""
    started = time.thread_time()
    former = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, most)
    try:
        call()
    except TimeoutError:
        return most
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)
    return time.thread_time() - started


def _too_long(_number: int, _frame: Any) -> None:
    raise TimeoutError
