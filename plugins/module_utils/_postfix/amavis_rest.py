# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A moment at which amavis works on no mail, for its reload.

A reload of amavis signals all its processes. One that is just handing a message back answers "451 ... Interrupted system call", and
Postfix keeps the message for minutes. Before each connection the processes take turns by the lock of a file. Whoever else holds
it keeps them from new connections: these wait in the queue of the socket, and none is refused. If the holder ends, however it ends,
the kernel takes the lock back. Sources: Net::Server::PreFork(3pm) (serialize), the package's Amavis/IO/RW.pm, flock(2), proc(5).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import children
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target

LOCK = "/run/amavis/amavisd.lock"
"""Where Debian's amavis has it."""
REST_SECONDS = 20.0
"""How long it is waited for. Postfix keeps a connection for five minutes while more mail waits, so a filter with a queue does not rest."""
_PAUSE = 0.05
_NUDGE_SECONDS = 0.3
"""So long nobody has taken a connection, so that the process whose turn it is gets one of ours."""
_MAX_NUDGES = 100


class Rest:
    """The moment, once it was reached. quiet: whether none of the processes works on mail."""

    def __init__(self, master: int, lock: Optional[int], end: float) -> None:
        """Look at the processes of amavis. lock: the open file; None if there is nothing to wait for. end: by time.monotonic()."""
        self._master, self._lock, self._end = master, lock, end
        self._nudges: list[socket.socket] = []
        self._taken = threading.Event()
        self._former: set[int] = set()
        self.quiet = False

    def reach(self, usual: Optional[Target]) -> None:
        """Take the lock, and wait until no process is at work any more."""
        if self._lock is None or usual is None:
            return
        # Only who waits for the lock in the kernel gets a turn among them. The file may be closed meanwhile: then the turn passes on.
        threading.Thread(target=self._take, args=(os.dup(self._lock),), daemon=True).start()
        while not self._taken.wait(_NUDGE_SECONDS):
            if time.monotonic() >= self._end or len(self._nudges) >= _MAX_NUDGES:
                return
            with contextlib.suppress(OSError):
                self._nudges.append(socket.create_connection((usual.host, usual.port), timeout=_NUDGE_SECONDS))
        for one in self._nudges:
            with contextlib.suppress(OSError):
                one.sendall(b"QUIT\r\n")
        self.quiet = self._until(lambda: bool(self._processes()) and self._processes() <= _waiting_for_a_lock())
        self._former = self._processes()

    def wait_for_new_ones(self) -> None:
        """Wait until the processes that were there have ended, as they do after a reload."""
        if self.quiet:
            self._end = time.monotonic() + REST_SECONDS
            self.quiet = self._until(lambda: self._former.isdisjoint(self._processes()))

    def leave(self) -> None:
        """Let the processes take their turns again."""
        for one in self._nudges:
            one.close()
        if self._lock is not None:
            os.close(self._lock)

    def _processes(self) -> set[int]:
        return {one.pid for one in children(self._master)}

    def _take(self, lock: int) -> None:
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._taken.set()
        finally:
            os.close(lock)

    def _until(self, condition: Callable[[], bool]) -> bool:
        while not condition():
            if time.monotonic() >= self._end:
                return False
            time.sleep(_PAUSE)
        return True


@contextlib.contextmanager
def at_rest(master: int, usual: Optional[Target], lock: str = LOCK, seconds: float = REST_SECONDS) -> Iterator[Rest]:
    """Keep amavis from taking mail, once it works on none. master: its main process. usual: where it serves. lock: its file.

    master: 0 if it does not run. Where it has no such file, or does not come to rest within the seconds, the moment is not quiet.
    """
    file: Optional[int] = None
    with contextlib.suppress(OSError):
        # Its directory is that of another user: a link or a device there is not followed.
        file = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC) if master else None
    rest = Rest(master, file, time.monotonic() + seconds)
    try:
        rest.reach(usual)
        yield rest
    finally:
        rest.leave()


def _waiting_for_a_lock(proc: str = "/proc") -> set[int]:
    """Return the processes that wait for the lock of a file; none if that cannot be seen."""
    try:
        lines = Path(proc, "locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    words = [line.split() for line in lines]
    return {int(one[5]) for one in words if one[1:3] == ["->", "FLOCK"] and one[5].isdigit()}
