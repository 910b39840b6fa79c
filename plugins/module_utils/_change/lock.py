# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locks that every writer on a host takes, so that no two runs change the same files at the same time.

A change of a daemon holds the daemon's own lock, and the host's lock together with changes of other daemons. Who writes
files that any daemon may use holds the host's lock alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import (
    make_directory,
    missing_directories,
    place_of,
    remove_directory,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.room import nothing_changed
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

STORE = "/var/lib/mailfleet-starttls"
"""The directory of locks and journals."""

SECONDS = 60.0
"""How long a run waits for another one."""

_HOST = "host"


def lock_exists(name: str, store: str = STORE) -> bool:
    """Whether a run has already taken the lock of this daemon on this host, or any version of the collection before."""
    return os.path.lexists(f"{store}/{name}.lock")


@contextlib.contextmanager
def daemon_locked(name: str, store: str = STORE, seconds: float = SECONDS) -> Iterator[None]:
    """Hold the locks for a change of this daemon. Raises EngineError if another run holds one for longer than these seconds."""
    deadline = time.monotonic() + seconds
    with _held(_HOST, store, fcntl.LOCK_SH, deadline, seconds), _held(name, store, fcntl.LOCK_EX, deadline, seconds):
        yield


@contextlib.contextmanager
def host_locked(store: str = STORE, seconds: float = SECONDS) -> Iterator[None]:
    """Hold the lock for a change of files that any daemon may use. Raises EngineError as daemon_locked does."""
    with _held(_HOST, store, fcntl.LOCK_EX, time.monotonic() + seconds, seconds):
        yield


def leave_store(name: str, store: str = STORE, seconds: float = SECONDS) -> None:
    """Remove the lock of a daemon that has nothing in the store any more, and the store with the last one.

    Called without a lock. A daemon with a journal or a record keeps its lock, and the fleet's is kept while a run holds it.
    """
    if not os.path.lexists(store):
        return
    with host_locked(store, seconds):
        left = {path.name for path in Path(store).iterdir()}
        if not left & {f"{name}.journal", f"{name}.before", f"{name}.run"}:
            FileImage(f"{store}/{name}.lock", None).write()
            left.discard(f"{name}.lock")
        if left == {f"{_HOST}.lock"}:
            FileImage(f"{store}/{_HOST}.lock", None).write()
            remove_directory(store)


@contextlib.contextmanager
def _held(name: str, store: str, kind: int, deadline: float, seconds: float) -> Iterator[None]:
    path = f"{store}/{name}.lock"
    handle = _open(path)
    try:
        while True:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
                if _is_file(handle, path):
                    break
                os.close(handle)  # another run has removed it with the last thing in the store
                handle = _open(path)
                continue
            except BlockingIOError:
                if time.monotonic() > deadline:
                    what = "this host" if name == _HOST else f"{name} on this host"
                    raise EngineError(
                        f"another run has been changing {what} for more than {seconds:g} s; wait for it to end, then run again"
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def _is_file(handle: int, path: str) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _open(path: str) -> int:
    try:
        for directory in missing_directories(str(Path(path).parent)):
            with contextlib.suppress(FileExistsError):  # another run has just made it
                make_directory(directory, 0o700)
        with place_of(path) as place:
            return place.open(os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise nothing_changed(error) from error
