# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail that waits on a host: the value, and what a product's queue promises. The words are those of a daemon, of servers and of senders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Optional, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    QUEUE_ADDRESS_CHARS,
    QUEUE_REASON_CHARS,
)


@dataclass(frozen=True)
class Waiting:
    """A message that waits for one recipient. reason: the daemon's own words, empty if it was not tried yet.

    place: the instance whose queue holds it, empty if the host has one queue only. queue: the daemon's name of the queue, such as
    C(deferred). arrived, next_try: seconds since the epoch; None if that is not known. size: bytes. held: somebody holds it by hand,
    or the daemon gave it up until somebody looks (Exim: frozen). next_hop, next_hop_address, next_hop_port: where it has to go
    next, as far as the daemon tells it: a host name, or C(MX of) a domain.
    """

    queue_id: str
    recipient: str
    reason: str = ""
    place: str = ""
    arrived: Optional[float] = None
    sender: str = ""
    size: Optional[int] = None
    queue: str = ""
    next_hop: str = ""
    next_hop_address: str = ""
    next_hop_port: int = 25
    next_try: Optional[float] = None
    held: bool = False

    def __str__(self) -> str:
        where = f" ({self.place})" if self.place else ""
        return shown(f"{self.queue_id} to {self.recipient}{where}: {self.reason or 'no attempt has failed yet'}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: texts of one printable line, times as ISO 8601 in UTC."""
        return {
            "queue_id": shown(self.queue_id),
            "instance": shown(self.place),
            "queue": shown(self.queue),
            "sender": shown(self.sender, QUEUE_ADDRESS_CHARS),
            "recipient": shown(self.recipient, QUEUE_ADDRESS_CHARS),
            "size": self.size,
            "arrived": _utc(self.arrived),
            "reason": shown(self.reason),
            "next_hop": shown(self.next_hop, QUEUE_ADDRESS_CHARS),
            "next_hop_address": shown(self.next_hop_address, QUEUE_ADDRESS_CHARS),
            "next_hop_port": self.next_hop_port,
            "next_try": _utc(self.next_try),
            "held": self.held,
        }


@dataclass(frozen=True)
class Returned:
    """A message that was returned to its sender. message_id: its header, without the angle brackets. reason: the daemon's words."""

    message_id: str
    recipient: str
    reason: str


class Queue(Protocol):
    """The queues of one product on this host, those of all its instances."""

    def waiting(self) -> Sequence[Waiting]:
        """Return every message that waits, an entry for each recipient. Raises EngineError if a queue cannot be read."""

    def returned(self, message_ids: Sequence[str]) -> Sequence[Returned]:
        """Return which of these messages the daemon gave up and returned to their senders, as far as its recent log tells it."""

    def try_again(self, messages: Sequence[Waiting]) -> None:
        """Have the daemon try these messages now, and no others. Raises EngineError if it refuses."""


def shown(text: str, most: int = QUEUE_REASON_CHARS) -> str:
    """Return one printable line of at most so many characters."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= most else line[:most] + "..."


def domain_of(address: str) -> str:
    """Return the domain of an address in lower case; empty without one."""
    return address.rpartition("@")[2].strip("<>[] ").rstrip(".").lower() if "@" in address else ""


def _utc(moment: Optional[float]) -> Optional[str]:
    """Return ISO 8601; None for no time, and for one that no calendar has."""
    try:
        return None if moment is None else datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return None
