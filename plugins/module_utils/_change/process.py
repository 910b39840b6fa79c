# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that a change starts, and the signals that ask this process to end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

Runner = Callable[[Sequence[str]], "tuple[int, str, str]"]
"""Runs a program from an argument list; returns exit status, standard output and standard error."""


def reason_of(error: BaseException) -> str:
    """Return the reason why a change failed, as text."""
    return str(error) if isinstance(error, (EngineError, OSError, Stopped)) else repr(error)


class Stopped(BaseException):
    """A signal asked this process to end. A BaseException, so that no handler of Exception catches it."""


class Stop:
    """Holds back the signals that ask this process to end. They take effect only while the change can be undone."""

    def __init__(self) -> None:
        """Prepare only. catch() installs the handlers; stoppable() calls it."""
        self.came: Optional[int] = None
        self.obeys = False
        self._formers: dict[int, Any] = {}

    def catch(self) -> None:
        """Install the handlers. A signal that is ignored, for example SIGHUP under nohup, stays ignored."""
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            former = signal.getsignal(number)
            if former not in (signal.SIG_IGN, None):
                self._formers[number] = former
                signal.signal(number, self._take)

    def give_back(self) -> None:
        """Restore the former handlers."""
        for number, former in self._formers.items():
            signal.signal(number, former)

    def _take(self, number: int, _frame: Any) -> None:
        self.came = number
        if self.obeys:
            self.look()

    def look(self) -> None:
        """Raise if a signal has arrived: KeyboardInterrupt for SIGINT, Stopped for the others."""
        if self.came is not None:
            self.obeys = False  # the next signal must not interrupt the handling of this one
            if self.came == signal.SIGINT:
                raise KeyboardInterrupt
            raise Stopped(f"stopped by {signal.Signals(self.came).name}")

    @contextlib.contextmanager
    def obeyed(self) -> Iterator[None]:
        """In this context, the first signal raises at once."""
        self.obeys = True
        try:
            self.look()
            yield
        finally:
            self.obeys = False
        self.look()  # once more: Python drops an exception that a signal handler raises in a finalizer

    def end(self) -> None:
        """Hold back every signal from now on.

        SIGHUP and SIGINT, which a terminal sends to all its programs, often twice, are ignored. The programs
        that this process starts afterwards inherit that and ignore them as well.
        """
        self.obeys = False
        for number in self._formers.keys() - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)


_under_way: list[Stop] = []


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Hold back the signals that would end this process. Does nothing outside the main thread.

    A signal that arrived and did not raise is sent again at the end, unless the work has failed with an exception.
    """
    stop = Stop()
    if not _in_main_thread():
        yield stop
        return
    _under_way.append(stop)
    try:
        stop.catch()
        yield stop
    finally:
        stop.give_back()
        _under_way.remove(stop)
    if stop.came is not None:
        signal.raise_signal(stop.came)


@contextlib.contextmanager
def postponed() -> Iterator[Callable[[], None]]:
    """In this context, no signal raises before the caller calls the function that this yields."""
    stop = _under_way[-1] if _under_way and _in_main_thread() else Stop()
    obeyed, stop.obeys = stop.obeys, False

    def go_on() -> None:
        if obeyed:
            stop.obeys = True
            stop.look()

    try:
        yield go_on
    finally:
        go_on()
