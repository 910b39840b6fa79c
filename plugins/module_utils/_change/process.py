# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that a change starts, and the signals that tell this process to end."""

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
    """Why a change failed, in words."""
    return str(error) if isinstance(error, (EngineError, OSError, Stopped)) else repr(error)


class Stopped(BaseException):
    """A signal told this process to end. It is no Exception, so that nothing on the way handles it as an error."""


class Stop:
    """The signals that tell this process to end. They wait, except where what they cut off can be undone."""

    def __init__(self) -> None:
        """No signal is caught yet; see stoppable()."""
        self.came: Optional[int] = None
        self.obeys = False
        self._formers: dict[int, Any] = {}

    def catch(self) -> None:
        """Take the signals over. One that is ignored, as SIGHUP is under nohup, stays ignored."""
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            former = signal.getsignal(number)
            if former not in (signal.SIG_IGN, None):
                self._formers[number] = former
                signal.signal(number, self._take)

    def give_back(self) -> None:
        """Put the former handlers back."""
        for number, former in self._formers.items():
            signal.signal(number, former)

    def _take(self, number: int, _frame: Any) -> None:
        self.came = number
        if self.obeys:
            self.look()

    def look(self) -> None:
        """Raise for a signal that came: KeyboardInterrupt for SIGINT, Stopped for the others."""
        if self.came is not None:
            self.obeys = False  # the next one must not cut off what is done about this one
            if self.came == signal.SIGINT:
                raise KeyboardInterrupt
            raise Stopped(f"stopped by {signal.Signals(self.came).name}")

    @contextlib.contextmanager
    def obeyed(self) -> Iterator[None]:
        """Within, a signal raises at once, but only the first one."""
        self.obeys = True
        try:
            self.look()
            yield
        finally:
            self.obeys = False
        self.look()  # what is raised within a finalizer gets lost

    def end(self) -> None:
        """Obey no signal any more.

        Those that a terminal sends to all its programs, often twice, are ignored: so the programs that are
        started from now on ignore them as well.
        """
        self.obeys = False
        for number in self._formers.keys() - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)


_under_way: list[Stop] = []


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Hold the signals back that would end this process. Outside the main thread nothing can be done about them.

    One that came too late to be obeyed is sent again at the end, unless the work has failed and ends anyway.
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
    """Within, no signal raises, until the function that this gives is called."""
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
