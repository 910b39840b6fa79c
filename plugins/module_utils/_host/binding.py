# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a daemon could listen where its configuration says so, before a reload makes it try.

A daemon may end, or stop to listen, if it cannot. So each address is tried by bind(2), as the daemon would, and given back at
once. It is not tried if the daemon holds it, or another socket on the same port: its reload gives those back first.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host import sockets

BOTH = (socket.AF_INET, socket.AF_INET6)
_WITHOUT = (errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM)
"""This host has no such protocol, or this user may not try."""


@dataclass(frozen=True)
class Wish:
    """Where a configuration wants to listen. title: names the setting. port: None if this host does not know it by name.

    host: an address, a name, or words as in sockets: empty for all addresses. port_name: the port as it is written.
    families: the protocols that the daemon uses.
    """

    title: str
    host: str
    port: Optional[int]
    port_name: str = ""
    families: Sequence[socket.AddressFamily] = BOTH


def obstacles(wishes: Iterable[Wish], pid: Optional[int], programs: Collection[str] = ()) -> list[str]:
    """Return why the daemon could not listen somewhere, a text each. pid: its main process; None if it does not run.

    programs: names of its processes, for the owner of a port in the texts. Nothing changes, and nothing is raised.
    """
    held = sockets.held_by(pid) if pid else set()
    if held is None:  # what it holds cannot be seen, so nothing can be told
        return []
    known: dict[str, Optional[tuple[str, ...]]] = {}
    found: list[str] = []
    for wish in wishes:
        found += _against(wish, held, known, programs)
    return list(dict.fromkeys(found))


def _against(
    wish: Wish,
    held: Collection[tuple[str, int]],
    known: dict[str, Optional[tuple[str, ...]]],
    programs: Collection[str],
) -> Iterator[str]:
    if wish.port is None:
        yield f"{wish.title}: this host does not know the port {wish.port_name or '(none)'} by name"
        return
    for word, addresses in sockets.addresses_of(wish.host, known).items():
        if addresses is None:
            if not any(port == wish.port for _host, port in held):
                yield f"{wish.title}: this host does not resolve the name {word}"
            continue
        for address in addresses:
            if any(port == wish.port and (not host or not address or host == address) for host, port in held):
                continue
            number = _refusal(address, wish)
            where = sockets.place_text(address, wish.port)
            if number == errno.EADDRINUSE:
                yield f"{wish.title}: {_owner(address, wish.port, programs)} listens on {where}"
            elif number and address == word.strip("[]").partition("%")[0]:  # not one of several that a name has
                yield f"{wish.title}: nobody can listen on {where} ({os.strerror(number)})"


def _refusal(address: str, wish: Wish) -> int:
    """Return the number of the error with which the system refuses an address; 0 if it does not."""
    for family in wish.families:
        if address and (":" in address) != (family is socket.AF_INET6):
            continue
        try:
            with socket.socket(family, socket.SOCK_STREAM) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family is socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((address, wish.port))  # empty for all addresses
        except OSError as error:
            if error.errno not in _WITHOUT and not (not address and error.errno == errno.EADDRNOTAVAIL):
                return error.errno or errno.EINVAL
    return 0


def _owner(address: str, port: int, programs: Collection[str]) -> str:
    """Return the program that listens there, for a message."""
    there = [
        one
        for one in sockets.listening(programs, (port,)) or ()
        if one.port == port and (not one.host or not address or one.host == address)
    ]
    named = next((one for one in there if one.pid is not None), None)
    return f"{named.program} (process {named.pid})" if named else "another program"
