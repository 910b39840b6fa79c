"""Another user of the host, who acts at moments that the test chooses. Only root can start one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import pytest

UID = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")

_OPENED = 0x20  # IN_OPEN of inotify(7)


@contextlib.contextmanager
def attacker(directory: Path, act: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Start a process of the user UID in this directory. Each call of what is yielded has it act once, and waits for the end.

    act: uses paths relative to the directory. Each call after the first changes nothing.
    """
    ask, tell = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            os.chdir(directory)
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            os.read(ask[0], 1)
            act()
            os.write(tell[1], b"done")
        finally:
            os._exit(0)
    os.close(tell[1])
    acted = False

    def strike() -> None:
        nonlocal acted
        if not acted:
            acted = True
            os.write(ask[1], b"x")
            assert os.read(tell[0], 4) == b"done", "the attack itself failed"

    try:
        yield strike
        assert acted, "the test never came to the moment of the attack"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        for end in (*ask, tell[0]):
            os.close(end)


@contextlib.contextmanager
def never_opened(path: Path) -> Iterator[None]:
    """Fail if anybody opens this file, this pipe or this device meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(path), _OPENED) >= 0
    try:
        yield
        with contextlib.suppress(BlockingIOError):
            assert os.read(watch, 4096) == b"", f"{path} was opened"
    finally:
        os.close(watch)


def give_away(*paths: Path) -> None:
    """Make these files and directories, with all that is in them, the attacker's."""
    for path in paths:
        for one in [path, *(path.rglob("*") if path.is_dir() else ())]:
            os.chown(one, UID, UID, follow_symlinks=False)


def await_words(pid: int, words: str) -> None:
    """Wait until the arguments of a new process begin so: Popen returns a moment before the program is exchanged."""
    deadline = time.monotonic() + 10
    while not Path(f"/proc/{pid}/cmdline").read_text().startswith(words):
        assert time.monotonic() < deadline, "the process did not start"
        time.sleep(0.001)


@contextlib.contextmanager
def sleeping(
    name: str = "sleep", uid: Optional[int] = None, holds: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that only sleeps, of a program with this name, of this user, and with these descriptors. SIGHUP and SIGTERM end it."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own directories are closed to other users
        Path(place).chmod(0o755)
        program = Path(place, name)
        shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
        process = subprocess.Popen([program, "60"], user=uid, group=uid, pass_fds=holds)
        try:
            await_words(process.pid, f"{program}\0")
            yield process
        finally:
            process.kill()
            process.wait()
