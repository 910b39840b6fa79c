# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process is which, by what the kernel says of it, and signals to the right one.

A process chooses its name, its arguments and its environment, and a pid file is as true as its directory's owner. So neither
decides whom root signals. Sources: proc(5), pidfd_open(2).
"""

from __future__ import annotations

import os
import re
import signal
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, place_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import PID_FILE_BYTES

_FIELD = re.compile(r"^(Name|PPid|Uid):\t(.*)$", re.MULTILINE)
_LAST_PID = 1 << 22
"""The largest number that Linux gives to a process."""


@dataclass(frozen=True)
class Process:
    """A process that runs.

    uids: the real, effective, saved and file system user. program: the path of its file, empty if that cannot be seen. title: what
    it calls itself.
    """

    pid: int
    parent: int
    uids: frozenset[int]
    program: str
    title: str

    @property
    def name(self) -> str:
        """The name of its file; where that cannot be seen, what it calls itself."""
        return self.program.rpartition("/")[2] or self.title


def process_of(pid: int, proc: str = "/proc") -> Optional[Process]:
    """Return a process, or None if it has ended."""
    try:
        fields = dict(_FIELD.findall(Path(proc, str(pid), "status").read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return None
    try:
        program = os.readlink(f"{proc}/{pid}/exe")  # noqa: PTH115
    except OSError:  # in a container without the capability SYS_PTRACE
        program = ""
    return Process(
        pid,
        int(fields["PPid"]),
        frozenset(map(int, fields["Uid"].split())),
        program.partition(" (deleted)")[0],  # an update of the package replaces the file of the running program
        fields["Name"],
    )


def children(parent: int, proc: str = "/proc") -> list[Process]:
    """Return the processes that another one has started, if they still run or their end was not noticed yet."""
    try:
        found = Path(proc, str(parent), "task", str(parent), "children").read_text().split()
    except OSError:  # a kernel without this file
        found = [name for name in os.listdir(proc) if name.isdigit()]  # noqa: PTH208
    every = (process_of(int(one), proc) for one in found)
    return [one for one in every if one and one.parent == parent]


def started(pid: int, proc: str = "/proc") -> float:
    """Return the start time of a process, in seconds since the epoch. Raises OSError if it has ended."""
    boot, _gap = min((_boot_time() for _try in range(3)), key=lambda read: read[1])
    return boot + start_ticks(pid, proc) / os.sysconf("SC_CLK_TCK")


def start_ticks(pid: int, proc: str = "/proc") -> int:
    """Return the start time of a process in ticks since the boot, which order processes. Raises OSError if it has ended."""
    fields = Path(proc, str(pid), "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return int(fields[19])


def _boot_time() -> tuple[float, float]:
    """Return the time of the boot, in seconds since the epoch, and how wrong it may be: another process may run between two clocks."""
    before = time.time()
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return before - since_boot, time.time() - before


def number_in(pid_file: str) -> int:
    """Return the number in a pid file, whoever owns its directory: which process that is, the caller has to check.

    Raises OSError, EngineError, and ValueError if it is not the number of a process that a daemon can have.
    """
    with place_of(pid_file, LOOK) as place:
        handle = place.open()
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ValueError(f"{pid_file} is not a file")
            text = os.read(handle, PID_FILE_BYTES + 1)
        finally:
            os.close(handle)
    if len(text) > PID_FILE_BYTES or not text.strip().isdigit() or not 1 < int(text) <= _LAST_PID:
        raise ValueError(f"{pid_file} does not hold the number of a process")
    return int(text)


def send_signal(pid: int, number: int, is_right: Callable[[Process], bool]) -> None:
    """Send a signal to a process if it is the right one. Its number cannot become another process's in between.

    Raises ProcessLookupError if it is not, or has ended, and OSError.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # a kernel before 5.3, or a container that forbids it
        _require(pid, is_right)
        os.kill(pid, number)
        return
    try:
        _require(pid, is_right)
        signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def _require(pid: int, is_right: Callable[[Process], bool]) -> None:
    process = process_of(pid)
    if process is None or not is_right(process):
        raise ProcessLookupError(f"process {pid} is another one")
