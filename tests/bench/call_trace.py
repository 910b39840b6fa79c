# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each module call does on a host: the programs it starts, the files it loads, the connections it makes to a mail port.

    calls = counts_of_calls("mailfleet-test-pf12", lambda: play("enable_tls.yml"))

host_trace.py counts what a whole host does, its daemons too. This counts for the process that runs a module, and its descendants.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.host_trace import ARCHIVE, HostTrace
from tests.bench.measure import BenchError

COLLECTION = "ansible_collections.mailfleet.starttls.plugins."
MAIL_PORT = 25

OPTIONS = (
    *("-e", "trace=execve,execveat,openat,openat2,open,read,socket,connect,clone,clone3,fork,vfork"),
    # A connection that does not block "fails" with EINPROGRESS, so failures have to be seen too.
    *("-s", "200", "--decode-pids=pidns"),
)
"""200 characters of each string: a file's name stands at the beginning of what is read from the archive."""

_PAUSED = " <unfinished ...>"
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>")
_FORKED = re.compile(r"^(?:clone3?|v?fork)\(.*\) += (\d+)(?: /\* (\d+) in strace's PID NS \*/)?")
_STARTED = re.compile(r'^execve(?:at)?\((?:\w+, )?"([^"]*)".*\) += 0$')
_CREATED = re.compile(r'^open(?:at2?)?\((?:\w+, )?"([^"]*)", [^"]*O_CREAT[^"]*\) += \d+')
_LOADED = re.compile(r'^read\(\d+, +"PK\\3\\4.*?(ansible(?:_collections)?/[\w/.]*?)\.py')
_SOCKET = re.compile(r"^socket\(\w+, (\w+).*\) += (\d+)$")
_CONNECTED = re.compile(r"^connect\((\d+), .*sin6?_port=htons\((\d+)\).*\) += (?:0|-1 EINPROGRESS .*)$")


@dataclass
class CallCounts:
    """What one module call did.

    module: its full name. programs: those that were started by it or by its descendants, by name. files: the modules that it loaded
    out of its archive, those of the collection as "module_utils._host.observed", those of Ansible as "ansible.module_utils.basic".
    connects: TCP connections that were begun, by port; whether they came about is not known.
    """

    module: str
    programs: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)
    connects: Counter[int] = field(default_factory=Counter)

    @property
    def own_files(self) -> set[str]:
        """The files of the collection."""
        return {name for name in self.files if name.startswith(("modules.", "module_utils."))}

    @property
    def handshakes(self) -> int:
        """Connections to port 25. Each is one handshake, unless it fails or the test is more than the plain one."""
        return self.connects[MAIL_PORT]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "module": self.module,
            "programs": dict(self.programs.most_common()),
            "files": sorted(self.files),
            "connects": {str(port): count for port, count in sorted(self.connects.items())},
        }


def read_calls(lines: Iterable[str]) -> list[CallCounts]:
    """The module calls in what strace wrote, in their order.

    A module's process is the one that writes the archive, which it does once.
    """
    events = list(_events(lines))
    parents: dict[int, int] = {}
    calls: dict[int, CallCounts] = {}
    for process, event in events:
        # A parent that waits for its child's exec (vfork) is written down after it, hence before anything else is counted.
        if forked := _FORKED.match(event):
            parents[int(forked[2] or forked[1])] = process
        elif (created := _CREATED.match(event)) and (archive := ARCHIVE.search(created[1])):
            calls.setdefault(process, CallCounts(archive["module"]))

    sockets: dict[tuple[int, str], str] = {}
    for process, event in events:
        root = _root(process, parents, calls)
        if root is None:
            continue
        call = calls[root]
        if started := _STARTED.match(event):
            if process != root:  # the module's own start, before it wrote the archive
                call.programs[started[1].rpartition("/")[2]] += 1
        elif loaded := _LOADED.match(event):
            call.files.add(_name(loaded[1]))
        elif opened := _SOCKET.match(event):
            sockets[root, opened[2]] = opened[1]
        # To sort a name's addresses, the C library connects datagram sockets, which sends nothing.
        elif (connected := _CONNECTED.match(event)) and sockets.get((root, connected[1])) != "SOCK_DGRAM":
            call.connects[int(connected[2])] += 1
    return list(calls.values())


def _events(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Process and system call. A call that was interrupted by another process's line is put together again."""
    paused: dict[int, str] = {}
    for line in lines:
        number, _blank, event = line.rstrip("\n").partition(" ")
        event = event.lstrip()
        if not number.isdigit():
            continue
        process = int(number)
        if event.endswith(_PAUSED):
            paused[process] = event.removesuffix(_PAUSED)
        elif resumed := _RESUMED.match(event):
            yield process, paused.pop(process, "") + event[resumed.end() :]
        else:
            yield process, event


def _root(process: int, parents: dict[int, int], calls: dict[int, CallCounts]) -> int | None:
    """The module's process that this one is, or descends from."""
    seen = set()
    while process not in calls:
        if process in seen or process not in parents:
            return None
        seen.add(process)
        process = parents[process]
    return process


def _name(path: str) -> str:
    return path.removesuffix("/__init__").replace("/", ".").removeprefix(COLLECTION)


class CallTrace(HostTrace):
    """Watches a container from entry to exit of the block; calls is there afterwards."""

    OPTIONS = OPTIONS

    def __init__(self, init: int, output: Path) -> None:
        """The first process of the container, by its number here, and the file that strace writes."""
        super().__init__(init, output)
        self.calls: list[CallCounts] = []

    def _read(self, trace: Path) -> None:
        with trace.open(errors="replace") as lines:
            self.calls = read_calls(lines)


def counts_of_calls(container: str, work: Callable[[], object]) -> list[CallCounts]:
    """The module calls that Ansible makes on a host of the lab while work runs. As root; needs strace. Raises BenchError.

    container: as podman names it. Only one host is watched, whatever work does on others.
    """
    command = ["podman", "inspect", "--format", "{{.State.Pid}}", container]
    try:
        seen = subprocess.run(command, capture_output=True, text=True, check=False)
        if seen.returncode or not seen.stdout.strip().isdigit():
            raise BenchError(f"podman knows no container {container}: {seen.stderr.strip()[-300:]}")
        with tempfile.TemporaryDirectory(prefix="calls-") as directory:
            trace = CallTrace(int(seen.stdout), Path(directory, "trace"))
            with trace:
                work()
    except FileNotFoundError as error:
        raise BenchError(f"{error.filename} is missing") from error
    return trace.calls
