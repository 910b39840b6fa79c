# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program costs: CPU, time and memory of a whole process tree; and the servers it is measured against."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Optional

SAMPLE_EVERY = 0.02  # seconds between looks at the memory of a process tree


class BenchError(Exception):
    """A program could not be measured; the text says why."""


def say(text: str) -> None:
    """Tell whoever waits what is going on."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and extremes."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


@dataclass(frozen=True)
class Usage:
    """What one run cost. Seconds and bytes; cpu is user + system of the process and of all it waited for."""

    cpu: float
    wall: float
    peak_rss: int


def measure(
    command: Sequence[str],
    output: Path,
    *,
    stdin: Optional[Path] = None,
    env: Optional[Mapping[str, str]] = None,
    limit: float = 600.0,
    watch_memory: bool = True,
) -> Usage:
    """Run the command, its output into a file. Raises BenchError if it fails or takes longer than limit seconds.

    Watching the memory takes some CPU of this machine; without it, the peak is 0.
    """
    with (
        output.open("wb") as standard_output,
        output.with_suffix(".err").open("wb") as standard_error,
        (stdin or Path(os.devnull)).open("rb") as standard_input,
    ):
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=standard_input,
            stdout=standard_output,
            stderr=standard_error,
            env=dict(env) if env is not None else None,
            start_new_session=True,
        )
        memory = _MemoryWatch(process.pid) if watch_memory else None
        timer = threading.Timer(limit, _kill_all, [process.pid])
        timer.start()
        try:
            _pid, status, used = os.wait4(process.pid, 0)
        except BaseException:
            _kill_all(process.pid)
            raise
        finally:
            wall = time.monotonic() - started
            timer.cancel()
            if memory:
                memory.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = output.with_suffix(".err").read_text(errors="replace") + output.read_text(errors="replace")
        fatal = [line for line in said.splitlines() if line.startswith(("fatal:", "[ERROR]", "ERROR"))]
        said = " ".join("\n".join(fatal[:3] or [said[-500:]]).split())[:1500]
        raise BenchError(f"{Path(command[0]).name} ended with status {process.returncode}: {said}")
    # Not ru_maxrss: that counts what the process held before exec, which is this program.
    return Usage(used.ru_utime + used.ru_stime, wall, memory.peak if memory else 0)


def _kill_all(root: int) -> None:
    """End a process and its descendants. Ansible's workers have sessions of their own, so its group is not enough."""
    for process in _tree(root):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.killpg(root, signal.SIGKILL)


class _MemoryWatch(threading.Thread):
    """The peaks of memory of a process and its descendants, added up, as far as regular looks show them."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._root = root
        self._stopped = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(SAMPLE_EVERY):
            self.peak = max(self.peak, sum(map(_peak_rss, _tree(self._root))))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _tree(root: int) -> list[int]:
    found = [root]
    for process in found:
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _peak_rss(process: int) -> int:
    """Bytes; the kernel keeps the peak, so that what happens between two looks counts too."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True)
class Counters:
    """What a server saw so far. seconds: that the closed connections lasted; cpu: the server's own."""

    connections: int
    closed: int
    seconds: float
    handshakes: int
    ehlo_tls: int
    cpu: float

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters(
            self.connections - earlier.connections,
            self.closed - earlier.closed,
            self.seconds - earlier.seconds,
            self.handshakes - earlier.handshakes,
            self.ehlo_tls - earlier.ehlo_tls,
            self.cpu - earlier.cpu,
        )


class Server:
    """The bench's mail server, from entry to exit of the block; it ends with this process, whatever happens."""

    def __init__(self, program: Path, port: int, certificates: Path, *options: str) -> None:
        self._command = [str(program), "--port", str(port), "--certificates", str(certificates), "--control", *options]

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if not self._read_line().startswith("ready"):
            raise BenchError(f"the server does not start: {' '.join(self._command)}")
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._process.communicate(timeout=10)

    def counters(self) -> Counters:
        """What the server saw since it started."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Counters(**json.loads(self._read_line()))

    def settled(self, limit: float = 10.0) -> Counters:
        """What it saw once it knows that every connection is closed. Raises BenchError if that takes too long."""
        deadline = time.monotonic() + limit
        while (seen := self.counters()).closed != seen.connections:
            if time.monotonic() > deadline:
                raise BenchError(f"{seen.connections - seen.closed} connections stay open")
            time.sleep(0.01)
        return seen

    def _read_line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()
