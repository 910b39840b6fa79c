# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run does on a host: module calls, programs and Python files, counted by strace on all processes of its container."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Optional

from tests.bench.measure import BenchError

CALLS = "execve,execveat,open,openat,openat2"
OPTIONS = ("-z", "-e", f"trace={CALLS}")
OPENS_PER_IMPORT = 2
"""Python's zipimport opens the archive when it looks for a module's code and again when it runs it."""

_STARTED = re.compile(r'^\d+ +execve(?:at)?\((?:\w+, )?"([^"]*)"')
_OPENED = re.compile(r'^\d+ +open(?:at2?)?\((?:\w+, )?"([^"]*)", (?:\{flags=)?([A-Z_|0-9]+)')
ARCHIVE = re.compile(r"/ansible_(?P<module>[\w.]+)_payload_[^/]*/ansible_[\w.]+_payload\.zip$")
_PYTHON_FILE = re.compile(r"\.(?:pyc?|cpython-[\w-]+\.so)$")


@dataclass
class HostCounts:
    """What happened on one host. files_loaded counts those of the archives as well."""

    modules: Counter[str] = field(default_factory=Counter)
    programs: Counter[str] = field(default_factory=Counter)
    files_loaded: int = 0
    from_archive: int = 0

    @property
    def module_calls(self) -> int:
        """Times that Ansible ran a module, those that an action plugin asks for included."""
        return sum(self.modules.values())

    def to_dict(self) -> dict[str, Any]:
        """As it goes into the JSON."""
        return {
            "module_calls": self.module_calls,
            "modules": dict(sorted(self.modules.items())),
            "programs_started": sum(self.programs.values()),
            "programs": dict(self.programs.most_common()),
            "files_loaded": self.files_loaded,
            "files_from_archive": self.from_archive,
        }


def count(trace: Path) -> HostCounts:
    """Read what strace wrote: the calls that succeeded.

    A module call writes its archive once, and Python reads its modules out of that.
    """
    counts = HostCounts()
    reads = 0
    for line in trace.read_text(errors="replace").splitlines():
        if started := _STARTED.match(line):
            counts.programs[started[1].rpartition("/")[2]] += 1
            continue
        opened = _OPENED.match(line)
        if not opened:
            continue
        archive = ARCHIVE.search(opened[1])
        if archive and "O_CREAT" in opened[2] and "O_TRUNC" in opened[2]:
            counts.modules[archive["module"]] += 1
        elif archive and "O_RDONLY" in opened[2]:
            reads += 1
        elif not archive and _PYTHON_FILE.search(opened[1]):
            counts.files_loaded += 1
    counts.from_archive = reads // OPENS_PER_IMPORT
    counts.files_loaded += counts.from_archive
    return counts


class HostTrace:
    """Watches a container from entry to exit of the block; counts is there afterwards."""

    OPTIONS: ClassVar[tuple[str, ...]] = OPTIONS

    def __init__(self, init: int, output: Path) -> None:
        """The first process of the container, by its number here, and the file that strace writes."""
        self._init = init
        self._output = output
        self.counts = HostCounts()

    def __enter__(self) -> HostTrace:
        processes = container_processes(self._init)
        command = ["strace", "-f", "-q", *self.OPTIONS, "-e", "signal=none", "-o", str(self._output)]
        command += [word for process in processes for word in ("-p", str(process))]
        self._strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while not all(map(_is_traced, processes)):
            if self._strace.poll() is not None:
                said = self._strace.stderr.read() if self._strace.stderr else ""
                raise BenchError(f"strace cannot watch a host: {said.strip()[-300:]}")
            if time.monotonic() > deadline:
                self._stop()
                raise BenchError("strace does not get hold of a host's processes")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._stop()
        if kind is None:
            self._read(self._output)

    def _read(self, trace: Path) -> None:
        self.counts = count(trace)

    def _stop(self) -> None:
        self._strace.send_signal(signal.SIGTERM)  # it lets go of the processes, which go on
        try:
            self._strace.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._strace.kill()
            self._strace.communicate()


def container_processes(init: int) -> list[int]:
    """The processes that live in the container of this one."""
    space = Path(f"/proc/{init}/ns/pid").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "ns/pid").readlink() == space:
                found.append(int(process.name))
    return sorted(found)


def _is_traced(process: int) -> bool:
    """Whether somebody traces the process, or it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True
    return not re.search(r"^TracerPid:\s+0$", status, re.MULTILINE)
