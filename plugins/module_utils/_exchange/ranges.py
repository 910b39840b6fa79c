# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IP ranges and bindings of receive connectors, compared as numbers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple


class Interval(NamedTuple):
    """Addresses from low to high, both included. version: 4 or 6."""

    version: int
    low: int
    high: int

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return self.high - self.low + 1

    @property
    def loopback(self) -> bool:
        """Whether it holds loopback addresses alone."""
        return inside(self, Interval(4, 0x7F000000, 0x7FFFFFFF) if self.version == 4 else Interval(6, 1, 1))

    def __str__(self) -> str:
        """Return the address or the range as Exchange takes it."""
        make = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        low, high = str(make(self.low)), str(make(self.high))
        return low if low == high else f"{low}-{high}"


class Binding(NamedTuple):
    """Where a connector listens. address: in its shortest form."""

    address: str
    port: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4

    @property
    def everywhere(self) -> bool:
        """Whether it stands for every address of the server."""
        return self.address in ("0.0.0.0", "::")  # noqa: S104  (compared, nothing listens)

    @property
    def loopback(self) -> bool:
        """Whether no other host reaches it."""
        return ipaddress.ip_address(self.address).is_loopback


def parse_range(text: str) -> Interval:
    """Read a single address, C(a-b) or CIDR. Raises ValueError."""
    low, dash, high = text.strip().partition("-")
    if dash:
        first, last = ipaddress.ip_address(low.strip()), ipaddress.ip_address(high.strip())
        if first.version != last.version or int(first) > int(last):
            raise ValueError(f"{text!r} is not a range of addresses")
        return Interval(first.version, int(first), int(last))
    network = ipaddress.ip_network(text.strip(), strict=False)
    return Interval(network.version, int(network[0]), int(network[-1]))


def parse_binding(text: str) -> Binding:
    """Read C(192.0.2.1:25) or C([::]:25). Raises ValueError."""
    address, colon, port = text.strip().rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{text!r} is not an address with a port")
    return Binding(str(ipaddress.ip_address(address.strip("[]"))), int(port))


def without(intervals: Iterable[Interval], taken: Iterable[Interval]) -> list[Interval]:
    """Return what is left of the intervals."""
    left = list(intervals)
    for hole in taken:
        left = [piece for one in left for piece in _cut(one, hole)]
    return left


def common(one: Interval, others: Iterable[Interval]) -> list[Interval]:
    """Return the parts of an interval that the others have, too."""
    return [
        Interval(one.version, max(one.low, other.low), min(one.high, other.high))
        for other in others
        if overlap(one, other)
    ]


def overlap(one: Interval, other: Interval) -> bool:
    """Whether they share an address."""
    return one.version == other.version and one.low <= other.high and other.low <= one.high


def inside(one: Interval, other: Interval) -> bool:
    """Whether every address of one is in the other."""
    return one.version == other.version and other.low <= one.low and one.high <= other.high


def _cut(one: Interval, hole: Interval) -> list[Interval]:
    if not overlap(one, hole):
        return [one]
    pieces = [
        Interval(one.version, one.low, min(one.high, hole.low - 1)),
        Interval(one.version, max(one.low, hole.high + 1), one.high),
    ]
    return [piece for piece in pieces if piece.low <= piece.high]
