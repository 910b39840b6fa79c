# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running daemon of Exim: which process it is, and how it reads its configuration again. The same on all platforms."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.readers import can_read
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import (
    Process,
    number_in,
    process_of,
    send_signal,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

SESSION = re.compile(r"\A[^<]* <= .* H=")
"""A message that came over the network. By default Exim logs no line for a session alone."""
TLS_WORDS = re.compile(
    r" TLS error on connection from (?:[^\s()]+ )?(?:\([^\s()]*\) )?\[[0-9a-fA-F.:]+\]\S* (?:I=\S+ )?\((cert/key setup\b.*)"
)
PROGRAMS = ("exim4", "exim")
# While Exim reads its configuration again, its pid file is away for a moment.
PID_FILE_SECONDS = 1.0
# It begins as root's, and if another process still has its port, it waits 30 s before it tries again (daemon_startup_sleep).
BEGIN_SECONDS = 45.0
# Exim 4.95 and newer watches the files of its certificates, and reads them some 5 s after a change; older ones read them for each
# session. At a HUP it starts anew: until it listens again, it refuses connections. Source: tls.c, tls_watch_trigger_time.
CERTIFICATE_SECONDS = 15.0


class EximDaemon(NamedTuple):
    """The daemon on this host. user: the name of the user that Exim runs as."""

    pid_file: str
    user: str

    def pid(self, told: Optional[int] = None) -> int:
        """Return the number of the daemon's process. Raises OSError, ValueError or EngineError if its pid file does not tell it.

        told: the process that was told to read its configuration again. While it begins anew, it is waited for.
        """
        begun = time.monotonic()
        while True:
            try:
                pid = number_in(self.pid_file)
                told = told or pid
                process = process_of(pid)
                if process is None or not is_daemon(process, self.user):
                    raise ValueError(f"process {pid} is not the daemon of Exim")
            except (OSError, ValueError, EngineError):
                if time.monotonic() - begun >= (BEGIN_SECONDS if begins(told) else PID_FILE_SECONDS):
                    raise
                time.sleep(0.05)
            else:
                return pid

    def runs(self) -> bool:
        """Return whether the process that the pid file names is Exim."""
        try:
            return bool(self.pid())
        except (OSError, ValueError, EngineError):
            return False

    def have_it_read(self, told: Optional[int] = None) -> int:
        """Have the daemon read its configuration again, and wait until it has begun anew. Return its process, which stays the same.

        told: see pid(). Raises EngineError.
        """
        try:
            pid = self.pid(told)
            written = modified(Path(self.pid_file))
            send_signal(pid, signal.SIGHUP, lambda process: is_daemon(process, self.user))
        except (OSError, ValueError, EngineError) as error:
            raise EngineError(
                f"Exim cannot be told to read its configuration again ({self.pid_file}): {error}"
            ) from error
        signalled = time.monotonic()
        while (process := process_of(pid)) and process.name in PROGRAMS:
            waited = time.monotonic() - signalled
            # It writes its pid file anew. It may have done so before the look, or leave it as it is.
            if is_daemon(process, self.user) and (
                modified(Path(self.pid_file)) != written or waited >= PID_FILE_SECONDS
            ):
                break
            if waited >= BEGIN_SECONDS:
                break
            time.sleep(0.02)
        return pid


def begins(pid: Optional[int]) -> bool:
    """Whether a process is an Exim that has not given up the rights of root yet."""
    process = process_of(pid) if pid else None
    return process is not None and process.name in PROGRAMS and 0 in process.uids


def is_gone(told: Optional[int]) -> bool:
    """Whether the process that was told to read its configuration again has ended."""
    # While it begins anew, it is root's and has no pid file. On a busy machine that takes seconds.
    process = process_of(told) if told else None
    return process is None or process.name not in PROGRAMS


def is_daemon(process: Process, user: str) -> bool:
    """Whether a process is Exim's, and has the rights of Exim's user only.

    The pid file may be in a directory of that user, who can write any number into it. So root signals only what that user could.
    """
    try:
        number = pwd.getpwnam(user).pw_uid
    except KeyError:
        return False
    return process.uids == {number} and process.name in PROGRAMS


def require_readable(path: str, user: str, otherwise: str) -> None:
    """Raise EngineError unless Exim's user can read the file. otherwise: the consequence, for the message."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise EngineError(f"there is no user {user} on this host, but Exim runs as that user here") from None
    if not Path(path).exists():
        raise EngineError(f"there is no file {path} on this host")
    if not can_read(path, found.pw_uid, os.getgrouplist(user, found.pw_gid)):
        raise EngineError(
            f"{path} cannot be read by {user}, so {otherwise}; make it root:{user} 0640 in a directory that user may enter"
        )


def would_fall_silent(found: Sequence[str]) -> str:
    """Return the message for places where Exim could not listen."""
    return (
        f"{'; '.join(found)}. At its next reload Exim would take no mail for minutes, and then end; correct that setting, or "
        "free the address, then run again"
    )


def modified(path: Path) -> int:
    """Return when a file was written last, in nanoseconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def end_daemon(pid_file: str, patience: float = 0.0) -> None:
    """End a daemon. Wait for its pid file first, for at most patience seconds, because Exim writes it a moment after the start."""
    deadline = time.monotonic() + patience
    while True:
        try:
            pid = int(Path(pid_file).read_text())
            break
        except (OSError, ValueError):
            if time.monotonic() >= deadline:
                return
        time.sleep(0.02)
    deadline = time.monotonic() + 5
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(0.02)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
