# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a message, read from its Received headers (RFC 5321 section 4.4, RFC 3848).

A header is believed only as far as the host that wrote it: whoever wants proof looks at those that
hosts of their own wrote.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_BY = re.compile(r"(?:^|\s)by\s+([^\s;()]+)", re.IGNORECASE)
_FROM = re.compile(r"^from\s+([^\s;()]+)", re.IGNORECASE)
_WITH = re.compile(r"\swith\s+([A-Za-z0-9]+)", re.IGNORECASE)
# The address that the connection came from: first in the comment, behind the name found for it if there is one, and
# without brackets with Exchange. Only Exim has it in front of the comment, where others put what the client called
# itself; the comment then has helo= and the like, whose values are the client's too.
_PEER = re.compile(
    r"from \S+ \((?:[^\s()\[\]=]+ )?(?:\[(?:IPv6:)?([0-9a-f:.]+)\]|([0-9a-f:.]+)\))"
    r"|from \[([0-9a-f:.]+)\](?:\Z| \((?:port|helo|ident)=)",
    re.IGNORECASE,
)
_EXCHANGE = re.compile(r"\swith\s+Microsoft SMTP Server\b", re.IGNORECASE)
_NOT_A_NETWORK = ("local", "mapi")
_VERSION = re.compile(r"\b(?:TLSv?|SSLv?)(\d(?:[._]\d)?)\b", re.IGNORECASE)
_CIPHER = re.compile(r"\bcipher[ =]([A-Z0-9_-]+)|\btls\s+([A-Z0-9_-]+)", re.IGNORECASE)
_TLS_PROTOCOL = re.compile(r"(?:E?SMTP|LMTP|UTF8E?SMTP|UTF8LMTP)SA?\Z", re.IGNORECASE)
_COMMENT = re.compile(r"\([^()]*\)")


@dataclass(frozen=True)
class Hop:
    """One Received header: who took the message from whom, and how.

    network is false for a message that was made on the host itself or came over its loopback.
    """

    by: str
    from_host: str
    protocol: str
    tls: bool
    tls_version: str
    cipher: str
    network: bool


def parse_received(header: str) -> Hop:
    """Read one header; anything unknown stays an empty string. Never raises."""
    text = " ".join(header.split())[:2000]
    bare = text
    for _ in range(3):  # comments may hold comments
        bare = _COMMENT.sub(" ", bare)
    sender = _FROM.search(bare)
    receiver = _BY.search(bare)
    protocol = _WITH.search(bare)
    version = _VERSION.search(text)
    cipher = _CIPHER.search(text)
    name = protocol.group(1) if protocol else ""
    if _EXCHANGE.search(text):
        name = "ESMTPS" if version else "ESMTP"
    tls = bool(_TLS_PROTOCOL.match(name))
    before_by = text.partition(" by ")[0] if sender else ""
    return Hop(
        by=receiver.group(1) if receiver else "",
        from_host=sender.group(1) if sender else "",
        protocol=name.upper(),
        tls=tls,
        tls_version=f"TLSv{version.group(1).replace('_', '.')}" if tls and version else "",
        cipher=next((one for one in cipher.groups() if one), "") if tls and cipher else "",
        network=bool(sender) and name.lower() not in _NOT_A_NETWORK and not _is_local(before_by, name),
    )


def _is_local(text: str, protocol: str) -> bool:
    """Whether the part of a header before C(by) names the loopback, or none where LMTP came through a local socket."""
    match = _PEER.match(text)
    if not match:
        return "lmtp" in protocol.lower()
    try:
        return ipaddress.ip_address(next(one for one in match.groups() if one)).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Path:
    """The hops of a message, the first one first."""

    hops: tuple[Hop, ...]

    @property
    def network_hops(self) -> tuple[Hop, ...]:
        """The hops that crossed a network."""
        return tuple(hop for hop in self.hops if hop.network)

    @property
    def tls(self) -> bool:
        """Whether there was a network hop and every one used TLS."""
        return bool(self.network_hops) and all(hop.tls for hop in self.network_hops)

    def to_dict(self) -> dict[str, Any]:
        """The path as plain data, for a module to return."""
        return {"tls": self.tls, "hops": [asdict(hop) for hop in self.hops]}


def path_of(headers: Iterable[str]) -> Path:
    """The path from a message's Received headers in the order in which they stand in it."""
    hops: Sequence[Hop] = [parse_received(header) for header in headers]
    return Path(tuple(reversed(hops)))
