# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peer domains in a report: the TLS use of mail from a domain and of mail to it.

The words are those of the message logs of mail services: C(pe_tls), TLS that is enforced for the domain; C(tls);
C(smtp), plaintext; C(unproven), the log does not tell. A domain with several kinds of mail has several words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import EVENTS


class Side(NamedTuple):
    """One direction of a peer domain: its messages, and its words. unknown: those whose TLS the log does not tell."""

    tls: int
    plaintext: int
    unknown: int
    level: str

    @property
    def messages(self) -> int:
        """The number of messages."""
        return self.tls + self.plaintext + self.unknown


class Peer(NamedTuple):
    """A peer domain over all hosts. troubles is the number of failures, refusals and deferrals."""

    domain: str
    sender: Side
    recipient: Side
    troubles: int
    reasons: tuple[str, ...]

    @property
    def messages(self) -> int:
        """The number of messages from the domain and to it."""
        return self.sender.messages + self.recipient.messages


def levels(host: Mapping[str, Any], peer: Mapping[str, Any]) -> tuple[str, str]:
    """Return C(sender_tls) and C(recipient_tls) of one entry of activity; C('') for the other direction."""
    level = _level(_is_enforced(host, peer), *_used(peer))
    return (level, "") if peer["direction"] == "inbound" else ("", level)


def merged(hosts: Iterable[Mapping[str, Any]]) -> list[Peer]:
    """Return the peer domains of all hosts, sorted by messages, then by troubles, the largest first, then by name."""
    found: dict[str, dict[str, Any]] = {}
    for host in hosts:
        for peer in host["activity"]["peers"] if host["activity"] else ():
            one = found.setdefault(
                peer["domain"], {"troubles": 0, "reasons": {}, "inbound": [0, 0, 0, 0], "outbound": [0, 0, 0, 0]}
            )
            side = one[peer["direction"]]
            for number, count in enumerate(_used(peer)):
                side[number] += count
            side[3] |= _is_enforced(host, peer)
            for kind in EVENTS:
                one["troubles"] += sum(event["count"] for event in peer[kind])
                one["reasons"].update(dict.fromkeys(event["reason"] for event in peer[kind]))
    peers = [
        Peer(domain, _side(one["inbound"]), _side(one["outbound"]), one["troubles"], tuple(one["reasons"]))
        for domain, one in found.items()
    ]
    return sorted(peers, key=lambda one: (-one.messages, -one.troubles, one.domain))


def _side(counts: list[int]) -> Side:
    tls, plaintext, unknown, enforced = counts
    return Side(tls, plaintext, unknown, _level(bool(enforced), tls, plaintext, unknown))


def _used(peer: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the number of messages over TLS, in plaintext, and of those whose TLS the log does not tell."""
    return peer["messages_tls"], peer["messages_plaintext"], peer["messages_unknown"]


def _level(enforced: bool, tls: int, plaintext: int, unknown: int) -> str:
    words = ["pe_tls" if enforced else "tls"] if tls or enforced else []
    return " ".join([*words, *(["smtp"] if plaintext else []), *(["unproven"] if unknown else [])])


def _is_enforced(host: Mapping[str, Any], peer: Mapping[str, Any]) -> bool:
    named = {"domain": peer["domain"], "direction": peer["direction"]} in host["enforced"]
    return named or any(one["reason"] == "enforced_sender" for one in peer["refusals"])
