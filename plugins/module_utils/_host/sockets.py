# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What really listens on this host, and how it differs from what the mail server's configuration says.

Sources: proc(5), and proc_net_tcp in the kernel's documentation. The owner of a socket shows in the links below /proc/PID/fd.
Root sees those of all processes, unless a container took the capability SYS_PTRACE away. An owner that cannot be seen is unknown.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import process_of

MAIL_PORTS = (24, 25, 465, 587, 2525)
"""Ports whose sockets are always of interest, whoever owns them."""

_CLAIMED = (25, 465, 587)
"""Ports on which another program than the mail server is worth a finding, whatever the configuration says."""

_LISTEN = "0A"
_MAPPED = b"\0" * 10 + b"\xff\xff"
_LINK = re.compile(r"socket:\[(\d+)\]\Z")
_ALL = ("", "all", "0.0.0.0", "::")  # noqa: S104  (what stands for all addresses)
_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Socket:
    """A TCP socket that listens.

    host: the address, empty for all addresses. pid: the process that owns it; of several, the one that started the others. None
    if the owner is unknown. program: the owner's name, empty if it is unknown. A process can choose its name, and every user can
    copy a program. So one of the mail server's programs is known by the name of its file and by its user; others with such a name
    are shown with a path.
    """

    host: str
    port: int
    pid: Optional[int] = None
    program: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the socket as plain data."""
        return {"host": self.host, "port": self.port, "pid": self.pid, "program": self.program}


def listening(
    programs: Collection[str],
    ports: Collection[int] = MAIL_PORTS,
    proc: str = "/proc",
    users: Optional[Collection[int]] = None,
) -> Optional[list[Socket]]:
    """Return all sockets of these programs, and those of any program on these ports; None if this host does not show its sockets.

    programs: names of files, without directories. users: numbers of the users whose processes these programs can be; None for all.
    Nothing is raised: what cannot be seen is unknown.
    """
    try:
        found = dict(_table(f"{proc}/net/tcp"))
    except (OSError, ValueError, IndexError):
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):  # IPv6 may be off
        found.update(_table(f"{proc}/net/tcp6"))
    processes = _Processes(proc)
    pids = processes.pids() if found else []
    ours = [pid for pid in pids if processes.file_name(pid) in programs and processes.is_of(pid, users)]
    owners = processes.owners(found.keys(), ours)
    others = {inode for inode, (_host, port) in found.items() if port in ports} - owners.keys()
    strangers = processes.owners(others, [pid for pid in pids if pid not in ours])
    sockets = {Socket(*found[inode], pid, processes.file_name(pid)) for inode, pid in owners.items()}
    sockets |= {Socket(*found[inode], pid, processes.name(pid, programs)) for inode, pid in strangers.items()}
    sockets |= {Socket(*found[inode]) for inode in others - strangers.keys()}
    return sorted(sockets, key=lambda one: (one.port, one.host, one.pid or 0))


def held_by(pid: int, proc: str = "/proc") -> Optional[set[tuple[str, int]]]:
    """Return address and port of each TCP socket on which a process listens, the address empty for all; None if that cannot be seen."""
    try:
        os.listdir(f"{proc}/{pid}/fd")  # noqa: PTH208
        found = dict(_table(f"{proc}/net/tcp"))
    except (OSError, ValueError, IndexError):
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):  # IPv6 may be off
        found.update(_table(f"{proc}/net/tcp6"))
    held = _Processes(proc).owners(found.keys(), [pid])
    return {found[inode] for inode in held}


def addresses_of(text: str, known: dict[str, Optional[tuple[str, ...]]]) -> dict[str, Optional[tuple[str, ...]]]:
    """Return each address, name or word of a listener's host with its addresses: "" for all, None if a name does not resolve.

    known: names that were resolved before.
    """
    return _items(text, known)


def _table(path: str) -> Iterator[tuple[int, tuple[str, int]]]:
    """Yield inode, address and port of the listening sockets. The kernel lists them before all connections."""
    with open(path, encoding="ascii") as lines:  # noqa: PTH123  (without pathlib: this runs on every host)
        next(lines, None)
        for line in lines:
            words = line.split()
            if words[3] != _LISTEN:
                return
            host, _, port = words[1].partition(":")
            yield int(words[9]), (_address(host), int.from_bytes(bytes.fromhex(port), "big"))


def _address(digits: str) -> str:
    """Return the address that the kernel writes as 32-bit numbers; empty for all addresses."""
    numbers = [bytes.fromhex(digits[at : at + 8]) for at in range(0, len(digits), 8)]
    return _unpacked(b"".join(number[::-1] if sys.byteorder == "little" else number for number in numbers))


def _unpacked(packed: bytes) -> str:
    if packed.startswith(_MAPPED) and len(packed) == 16:
        packed = packed[12:]
    if not any(packed):
        return ""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


@dataclass
class _Processes:
    """The processes of this host. What cannot be read, or has ended in the meantime, owns nothing and has no name."""

    proc: str
    _held: dict[int, frozenset[int]] = field(default_factory=dict)

    def pids(self) -> list[int]:
        """Return the processes that can be seen. The first process is the last: it may hold sockets for others."""
        try:
            found = [int(name) for name in os.listdir(self.proc) if name.isdigit()]  # noqa: PTH208
        except OSError:
            return []
        return sorted(found, key=lambda pid: (pid == 1, pid))

    def file_name(self, pid: int) -> str:
        """Return the name of the program's file; empty if it cannot be read, and then neither can the sockets."""
        return self._path(pid).rpartition("/")[2]

    def _path(self, pid: int) -> str:
        try:
            path = os.readlink(f"{self.proc}/{pid}/exe")  # noqa: PTH115
        except OSError:
            return ""
        # An update of the package replaces the file of the running program.
        return _shown(path.partition(" (deleted)")[0])

    def is_of(self, pid: int, users: Optional[Collection[int]]) -> bool:
        """Whether a process has the rights of these users only."""
        if users is None:
            return True
        process = process_of(pid, self.proc)
        return process is not None and process.uids <= set(users)

    def name(self, pid: int, programs: Collection[str]) -> str:
        """Return the name that a stranger goes by, which says more than the file of an interpreter; none of these programs."""
        name = _shown(self._read(pid, "comm"))
        names = [name, self.file_name(pid)]
        return next((one for one in names if one and one not in programs), self._path(pid))

    def owners(self, inodes: Collection[int], pids: Sequence[int]) -> dict[int, int]:
        """Return inode -> process, for those of the inodes that one of these processes holds. Stops when all are found."""
        wanted, found = set(inodes), {}  # type: set[int], dict[int, int]
        among = frozenset(pids)
        for pid in pids:
            if not wanted:
                break
            for inode in self._sockets(pid) & wanted:
                found[inode] = self._first(pid, inode, among)
                wanted.discard(inode)
        return found

    def _first(self, pid: int, inode: int, among: Collection[int]) -> int:
        """Return the process from which this one has the socket. Numbers of processes start again, so a child's may be lower."""
        seen = set()
        while pid not in seen:
            seen.add(pid)
            parent = self._parent(pid)
            if parent > 1 and parent in among and inode in self._sockets(parent):
                pid = parent
        return pid

    def _parent(self, pid: int) -> int:
        words = self._read(pid, "stat").rpartition(")")[2].split()
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0

    def _sockets(self, pid: int) -> frozenset[int]:
        if pid not in self._held:
            self._held[pid] = frozenset(self._links(f"{self.proc}/{pid}/fd"))
        return self._held[pid]

    @staticmethod
    def _links(directory: str) -> Iterator[int]:
        try:
            names = os.listdir(directory)  # noqa: PTH208
        except OSError:
            return
        for name in names:
            try:
                match = _LINK.match(os.readlink(f"{directory}/{name}"))  # noqa: PTH115
            except FileNotFoundError:
                continue  # it was closed in the meantime
            except OSError:
                return  # the others cannot be read either
            if match:
                yield int(match[1])

    def _read(self, pid: int, name: str) -> str:
        try:
            with open(f"{self.proc}/{pid}/{name}", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                return file.read()
        except OSError:
            return ""


def _shown(name: str) -> str:
    """Return a name that may stand in a message. Processes choose their own."""
    return "".join(char if char.isprintable() else "?" for char in name.strip())


def compare(
    listeners: Sequence[Listener],
    sockets: Sequence[Socket],
    programs: Collection[str],
    others: Sequence[tuple[str, Optional[int]]] = (),
) -> list[dict[str, str]]:
    """Return what differs, as C(code) and C(message).

    socket_not_configured: the mail server listens where its configuration says nothing. listener_not_listening: it does not listen
    where its configuration says so, or that cannot be told. stranger_on_mail_port: another program listens on a mail port, or where
    the configuration has a listener. A socket with an unknown owner is the mail server's or a stranger's: no finding comes from it.

    programs: as for listening(). others: addresses and ports at which the configuration has something else than a listener for
    mail, such as a policy service. Names of hosts are resolved, which may ask the DNS.
    """
    known: dict[str, Optional[tuple[str, ...]]] = {}
    places = [_Place(f"listener {one.service}", one.port, _items(one.host, known)) for one in listeners]
    extra = [_Place("", port, _items(host, known)) for host, port in others]
    ours = [one for one in sockets if one.pid is not None and one.program in programs]
    strangers = [one for one in sockets if one.pid is not None and one.program not in programs]
    possible = [one for one in sockets if one not in strangers]
    findings = [_finding("listener_not_listening", text) for text in _silent(places, possible, strangers)]
    findings += [_finding("socket_not_configured", text) for text in _unconfigured(ours, places, [*places, *extra])]
    findings += [_finding("stranger_on_mail_port", text) for text in _strange(strangers, places)]
    return findings


@dataclass(frozen=True)
class _Place:
    """Where the configuration wants to listen. items: text -> its addresses, "" for all; None for a name that does not resolve."""

    title: str
    port: Optional[int]
    items: Mapping[str, Optional[tuple[str, ...]]]

    def allows(self, one: Socket) -> bool:
        """Whether the configuration covers this socket. A name that does not resolve may be any address."""
        if self.port != one.port:
            return False
        return any(found is None or "" in found or one.host in found for found in self.items.values())

    def touches(self, one: Socket) -> bool:
        """Whether this socket is on one of the addresses, or on all."""
        return self.port == one.port and (not one.host or self.allows(one))


def _silent(places: Sequence[_Place], possible: Sequence[Socket], strangers: Sequence[Socket]) -> Iterator[str]:
    for place in places:
        if place.port is None:
            yield f"{place.title}: it cannot be compared, because this host does not know its port by name"
            continue
        there = [one for one in possible if one.port == place.port]
        taken = [one for one in strangers if one.port == place.port]
        for text, addresses in place.items.items():
            if addresses is None:
                if there:
                    yield f"{place.title}: it cannot be compared, because the name {text} does not resolve on this host"
                elif not taken:
                    yield f"{place.title}: nothing listens on port {place.port}; the name {text} does not resolve on this host"
            elif not _covered(addresses, there) and not _covered(addresses, taken):
                where = ", ".join(sorted({one.host for one in there if one.host}))
                instead = f", only on {where}" if where and "" in addresses else ""
                yield f"{place.title}: nothing listens on {place_text(text, place.port)}{instead}"


def _covered(addresses: Collection[str], sockets: Sequence[Socket]) -> bool:
    """Whether one of the addresses has a socket. A name may have addresses of a protocol that the mail server does not use."""
    return any(not one.host or one.host in addresses for one in sockets)


def _unconfigured(ours: Sequence[Socket], mail: Sequence[_Place], places: Sequence[_Place]) -> Iterator[str]:
    unknown = [place.title for place in mail if place.port is None]
    unless = f", unless it is {' or '.join(unknown)}" if unknown else ""
    for one in ours:
        if not any(place.allows(one) for place in places):
            narrower = [", ".join(place.items) for place in mail if place.port == one.port]
            only = f" (only {'; '.join(narrower)})" if narrower else ""
            yield f"{_owner(one)} listens on {place_text(one.host, one.port)}; its configuration does not have that{only}{unless}"


def _strange(strangers: Sequence[Socket], places: Sequence[_Place]) -> Iterator[str]:
    for one in strangers:
        titles = [place.title for place in places if place.touches(one)]
        if titles or one.port in _CLAIMED:
            why = f", where the configuration has {' and '.join(titles)}" if titles else ""
            yield f"{_owner(one)} is not the mail server and listens on {place_text(one.host, one.port)}{why}"


def _finding(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


def _owner(one: Socket) -> str:
    return f"{one.program} (process {one.pid})"


def place_text(host: str, port: int) -> str:
    """Return an address and port as text."""
    return f"port {port} of {'all addresses' if host in _ALL else host}"


def _items(text: str, known: dict[str, Optional[tuple[str, ...]]]) -> dict[str, Optional[tuple[str, ...]]]:
    """Return each address, name or word of a listener's host with its addresses. known: names that were resolved before."""
    words = [word for word in re.split(r"[,\s]+", text) if word] or [""]
    return {word: _addresses(word, known) for word in words}


def _addresses(word: str, known: dict[str, Optional[tuple[str, ...]]]) -> Optional[tuple[str, ...]]:
    if word in _ALL:
        return ("",)
    if word == "loopback-only":
        return _LOOPBACK
    name = word.strip("[]").partition("%")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return (_unpacked(socket.inet_pton(family, name)),)
        except OSError:
            continue
    if name not in known:
        known[name] = _resolved(name)
    return known[name]


def _resolved(name: str) -> Optional[tuple[str, ...]]:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return tuple(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in answers))
