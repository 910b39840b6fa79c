# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a message waits, and which side of the hop is at fault: read from the daemon's own words. Pure.

A daemon quotes what the other server said, and that server may say anything. So its words count only as a reply to our mail, never
as the daemon's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.replies import ENFORCED_SENDER
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_CAUSE_CHARS

THIS_HOST, NEXT_HOP = "this_host", "next_hop"
"""The side of the hop where the repair is."""


@dataclass(frozen=True)
class Cause:
    """Why a message waits. code: one of WAIT_CAUSES. said: in words. side: THIS_HOST, NEXT_HOP, or empty. tls: for want of TLS."""

    code: str
    said: str
    side: str = ""
    tls: bool = False


WAIT_CAUSES = {
    one.code: one
    for one in (
        Cause("not_offered", "this host requires TLS, and the next hop does not offer it: a requirer without an acceptor", NEXT_HOP, True),
        Cause("handshake_failed", "the next hop offers TLS, and no session comes about: an acceptor that fails", NEXT_HOP, True),
        Cause("certificate", "this host checks the certificate of the next hop, and it does not pass: an enforced check", NEXT_HOP, True),
        Cause("tls_unavailable", "this host requires TLS and cannot begin it itself", THIS_HOST, True),
        Cause("peer_requires", "the next hop requires TLS, and this host sends in plaintext", THIS_HOST, True),
        Cause("enforced_sender", "the gateway enforces TLS for the sender's domain, and this host sends in plaintext", THIS_HOST, True),
        Cause("greylisted", "greylisting: the next hop takes the message when it is tried again later"),
        Cause("not_relayed", "the next hop does not relay mail for this domain"),
        Cause("not_tried", "no attempt has failed yet"),
        Cause("unknown", "a reason that has nothing to do with TLS, or is not known here"),
    )
}  # fmt: skip
"""Code -> cause."""

_QUOTES = (" said: ", " refused to talk to me: ", "SMTP error from remote mail server after ")
"""What stands between the words of Postfix, of Exim, and those of the other server."""
_BEFORE = re.compile(
    r"delivery temporarily suspended: "
    r"|(?:[^\s|/]\S{0,639} )?(?:R=\S{1,64} )?(?:T=\S{1,64} )?defer \(-?\d{1,6}\)(?: H=\S{1,255} \[[0-9A-Fa-f.:]{2,45}\](?::\d{1,5})?)?: "
    r"|H=\S{1,255} \[[0-9A-Fa-f.:]{2,45}\](?::\d{1,5})?: "
)
"""What may stand before the daemon's own words. Any other text before them may be a user's: the output or the words of a command."""
_OWN = (
    ("not_offered", re.compile(
        r"TLS is required, but was not offered by host |[^:]{0,60}but the server did not offer TLS support")),
    ("certificate", re.compile(
        r"Server certificate not (?:trusted|verified)|TLS session: \(certificate verification failed"
        r"|TLS session: \(SSL_connect\): [^:]*:[^:]*:[^:]*certificate verify failed")),
    ("tls_unavailable", re.compile(r"TLS is required,? but (?:our TLS engine is )?unavailable")),
    ("handshake_failed", re.compile(
        r"TLS is required, but host \S+ refused to start TLS|Cannot start TLS: |TLS session: "
        r"|[^:]{0,60}but an attempt to start TLS failed")),
)  # fmt: skip
_REPLIES = (
    ("enforced_sender", re.compile(rf"4\d\d[ -](?:\d\.\d+\.\d+ )?(?:<[^<>]*>: )?(?:[^:;]{{1,60}}: )?{re.escape(ENFORCED_SENDER)}")),
    ("peer_requires", re.compile(
        r"[45]\d\d[ -](?:\d\.\d+\.\d+ )?(?:<[^<>]*>: [^:;]{1,60}: )?"
        r"(?:Must issue a STARTTLS|STARTTLS is required|Session encryption is required)", re.IGNORECASE)),
    ("greylisted", re.compile(r"4\d\d[ -].{0,500}gr[ae]y-?list", re.IGNORECASE)),
    ("not_relayed", re.compile(
        r"[45]\d\d[ -].{0,500}(?:relay not permitted|relay access denied|relaying denied|unable to relay)", re.IGNORECASE)),
)  # fmt: skip
_STARTTLS = re.compile(r"STARTTLS: [45]\d\d")
"""Exim: the other server refused the command itself."""


def cause_of(reason: str) -> Cause:
    """Return why a message waits. reason: the daemon's words; empty if it was not tried yet."""
    if not reason:
        return WAIT_CAUSES["not_tried"]
    own, reply = _apart(reason[:QUEUE_CAUSE_CHARS])
    before = _BEFORE.match(own)
    for code, pattern in _OWN if reply is None else ():
        if pattern.match(own, before.end() if before else 0):
            return WAIT_CAUSES[code]
    if reply is not None:
        if _STARTTLS.match(reply) or "refused to start TLS" in own:
            return WAIT_CAUSES["handshake_failed"]
        for code, pattern in _REPLIES:
            if pattern.search(reply):
                return WAIT_CAUSES[code]
    return WAIT_CAUSES["unknown"]


def _apart(reason: str) -> tuple[str, Optional[str]]:
    """Return the daemon's own words and those of the other server; None if it said nothing."""
    for quote in _QUOTES:
        own, there, reply = reason.partition(quote)
        if there:
            return own, reply
    return reason, None
