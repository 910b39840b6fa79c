# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an instance of Postfix runs, without starting a program. Source: master(8), "pid/master.pid"."""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path
from typing import Optional


def running(queue_directory: str) -> Optional[int]:
    """Return the process of the master of the instance with this queue directory; None if it does not run.

    The master holds an exclusive lock on its pid file for as long as it lives, so a pid that another process, or the master of
    another instance, has got since does not count. Raises OSError if this process may not read the file.
    """
    try:
        with Path(queue_directory, "pid/master.pid").open(encoding="ascii", errors="replace") as file:
            pid = file.read().strip()
            lives = _program(pid) in ("master", None) and _is_locked(file.fileno())
    except FileNotFoundError:
        return None
    return (int(pid) if pid.isdigit() else 0) if lives else None


def runs(queue_directory: str) -> bool:
    """Return whether that master runs. Raises OSError as running() does."""
    return running(queue_directory) is not None


def _is_locked(handle: int) -> bool:
    """Return whether another process holds the exclusive lock on a file. The own lock is shared, and gone at once."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def _program(pid: str) -> Optional[str]:
    """Return the name of a process; None if it cannot be told, for example because this system has no /proc."""
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{int(pid) if pid.isdigit() else 0}/comm").read_text(encoding="utf-8", errors="replace").strip()
        )
    return None
