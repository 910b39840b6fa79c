# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observed state of one host: values, and the names of ports. No file here knows a product."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

UNKNOWN = "unknown"
"""The TLS mode or level could not be told. It is neither plaintext nor TLS."""

_PORTS = {"smtp": 25, "submission": 587, "smtps": 465, "ssmtp": 465, "submissions": 465, "lmtp": 24}


@dataclass(frozen=True)
class Listener:
    """An address and port on which the host takes mail.

    service: its name in the daemon's configuration. host: the address, empty for all addresses. port: None if its name is not
    known on this host. tls: C(none), C(offered), C(required), C(implicit) or C(unknown). certificates: paths of the files that
    it serves. overrides: TLS settings of its own, which replace those of the whole daemon.
    """

    service: str
    host: str
    port: Optional[int]
    tls: str
    certificates: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the listener as plain data."""
        return {
            "service": self.service,
            "host": self.host,
            "port": self.port,
            "tls": self.tls,
            "certificates": list(self.certificates),
            "overrides": dict(self.overrides),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Listener:
        """Read the result of to_json."""
        return cls(**{**data, "certificates": tuple(data["certificates"])})


@dataclass(frozen=True)
class Transport:
    """One way by which mail leaves the host over SMTP or LMTP.

    setting: the setting that chooses it. transport: its name. next_hop: a host, a domain or a socket of this host (unix:...); None
    for the MX of each recipient domain, or if it is not known. port: None with next_hop None. level: in the daemon's own word.
    implicit_tls: whether TLS starts with the first byte. overrides: TLS settings of its own, which replace those of the whole daemon.
    """

    setting: str
    transport: str
    next_hop: Optional[str]
    port: Optional[int]
    level: str
    implicit_tls: bool = False
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def loopback(self) -> bool:
        """Whether the next hop is an address or name of this host itself."""
        if self.next_hop is None:
            return False
        if self.next_hop.startswith("unix:"):
            return True
        try:
            return ipaddress.ip_address(self.next_hop).is_loopback
        except ValueError:
            return self.next_hop == "localhost"

    def to_json(self) -> dict[str, Any]:
        """Return the transport as plain data."""
        return {
            "setting": self.setting,
            "transport": self.transport,
            "next_hop": self.next_hop,
            "port": self.port,
            "level": self.level,
            "implicit_tls": self.implicit_tls,
            "loopback": self.loopback,
            "overrides": dict(self.overrides),
        }


def is_loopback(host: str) -> bool:
    """Whether the address of a listener, or each of several, is one of the loopback. An empty one stands for all addresses."""
    words = [one for one in re.split(r"[\s,]+", host) if one]
    return bool(words) and all(map(_is_loopback_word, words))


def _is_loopback_word(word: str) -> bool:
    try:
        return ipaddress.ip_address(word.strip("[]")).is_loopback
    except ValueError:
        return word in ("localhost", "loopback-only")


_DIGITS = 5
"""Digits of a port."""


def port_number(name: str) -> Optional[int]:
    """Return the number of a port; None if this host does not know the name."""
    if name.isascii() and name.isdigit():
        return int(name) if len(name) <= _DIGITS else None
    try:
        return _PORTS.get(name) or socket.getservbyname(name, "tcp")
    except (OSError, ValueError):  # a name with a NUL character, or with bytes that are no text, is a ValueError
        return None
