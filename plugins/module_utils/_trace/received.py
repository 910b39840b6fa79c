# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The path of a message, read from its Received headers (RFC 5321 section 4.4, RFC 3848).

A header is only as trustworthy as the host that wrote it. For proof, use the headers that your own hosts wrote. Even
such a header contains text of the client: its EHLO name before C(by), and addresses and certificate names around it.
So a hop counts as TLS only if the text behind every C(by) in the header proves it (writers.py). One C(by) is the writer's own,
and a client cannot remove it. A client therefore cannot forge a TLS hop.

TLS has three values: yes, no, and unproven. Unproven is what the writer does not tell, and what can be read in more than one way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.writers import (
    UNKNOWN_FORM,
    HeaderReading,
    read,
    version_of,
)

PASS, PLAINTEXT, LOST, UNPROVEN = "pass", "plaintext", "lost", "unproven"

# Longer headers are cut. The rest could contain the writer's own "by", so such a header proves nothing.
_LONGEST = 4000
_USING = re.compile(r"\busing (?:TLS|SSL)", re.IGNORECASE)
_MOST_READINGS = 8
_SHOWN = 255
_BY = re.compile(r"(?<![^\s(])by(?= )", re.IGNORECASE)
_FROM = re.compile(r"from ([^\s;()]+)", re.IGNORECASE)
# What qmail adds for its own processes. It names a user or nothing, and no host.
_INVOKED = re.compile(r"\(qmail \d+ invoked ", re.IGNORECASE)


@dataclass(frozen=True)
class Hop:
    """One Received header: the two hosts of a hop, and its protocol and TLS.

    by: the receiving host. from_host: the name that the client gave itself. network: false if the message was created on
    the host or came over its loopback. tls: None if the header does not prove TLS and does not prove plaintext either. date:
    ISO 8601 in UTC, or empty. writer: the mail server whose format the header has. clear: false if the header can be read in
    more than one way, for example because the client inserted words. Such a header proves nothing: tls is None.
    """

    by: str
    from_host: str
    protocol: str
    tls: Optional[bool]
    tls_version: str
    cipher: str
    network: bool
    date: str = ""
    writer: str = UNKNOWN_FORM
    clear: bool = True


def parse_received(header: str) -> Hop:
    """Read one header. An unknown value is an empty text. Never raises."""
    text = " ".join(header.split())
    whole = len(text) <= _LONGEST and len(_BY.findall(text)) <= _MOST_READINGS
    text = text[:_LONGEST]
    sender = text[:5].lower() == "from "
    name = _FROM.match(text)
    readings = [] if _INVOKED.match(text) else _readings(text)
    shown = readings[-1] if readings else HeaderReading()
    # With several readings, the host's name is taken from the text outside of comments, if possible.
    bare = shown if len(readings) < 2 else (_readings(_without_comments(text)) or [shown])[-1]
    clear = whole and len({reading.tls for reading in readings}) == 1
    one_reading = clear and len(readings) == 1
    # A recipient may be spelt like the words about TLS. Which are the server's is not certain then.
    certain = one_reading and shown.tls and len(_USING.findall(text)) < 2
    return Hop(
        by=_printable(bare.by),
        from_host=_printable(name.group(1)) if name else "",
        protocol=_printable(bare.protocol.upper()),
        tls=shown.tls if clear else None,
        tls_version=version_of(shown.version) if certain else "",
        cipher=_printable(shown.cipher) if certain else "",
        network=sender and not (one_reading and shown.local),
        date=_date(text) if whole else "",
        writer=shown.writer if one_reading else UNKNOWN_FORM,
        clear=clear,
    )


def _readings(text: str) -> list[HeaderReading]:
    """Return the possible readings of a header, in the order of their C(by)."""
    return [read(text, word.start()) for word in islice(_BY.finditer(text), _MOST_READINGS)]


def _without_comments(text: str) -> str:
    for _ in range(3):  # comments may contain comments
        text = re.sub(r"\([^()]*\)", " ", text)
    return " ".join(text.split())


def _date(text: str) -> str:
    """Return the time at the end of a header as ISO 8601 in UTC, or an empty text."""
    _, found, tail = text.rpartition(";")
    if not found or len(tail) > 80:
        return ""
    try:
        time = parsedate_to_datetime(tail.strip())
        if time.tzinfo is None:  # -0000: UTC, with an unknown zone of the host
            time = time.replace(tzinfo=timezone.utc)
        return time.astimezone(timezone.utc).replace(tzinfo=None).isoformat() + "Z"
    except (TypeError, ValueError, IndexError, OverflowError):
        return ""


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text[:_SHOWN])


def _seconds_between(first: str, second: str) -> Optional[int]:
    if not first or not second:
        return None
    start, end = (datetime.fromisoformat(date[:-1]) for date in (first, second))
    return int((end - start).total_seconds())


@dataclass(frozen=True)
class Path:
    """The hops of a message, in the order of time."""

    hops: tuple[Hop, ...]

    @property
    def network_hops(self) -> tuple[Hop, ...]:
        """The hops that crossed a network."""
        return tuple(hop for hop in self.hops if hop.network)

    @property
    def tls(self) -> bool:
        """Whether there was at least one network hop and every network hop is proved to have used TLS."""
        return bool(self.network_hops) and all(hop.tls for hop in self.network_hops)

    @property
    def verdict(self) -> tuple[str, str]:
        """C(pass), C(plaintext) or C(unproven), and the reason as text."""
        crossed = self.network_hops
        if not crossed:
            return UNPROVEN, "it arrived without crossing a network, so it proves nothing"
        plain = [hop for hop in crossed if hop.tls is False]
        if plain:
            return PLAINTEXT, f"in plaintext {_named(plain)}"
        unclear = [hop for hop in crossed if not hop.clear]
        if unclear:
            reason = "the Received header can be read in more than one way, so it does not prove TLS"
            return UNPROVEN, f"{reason}: {_named(unclear, False)}"
        silent = [hop for hop in crossed if hop.tls is None]
        if silent:
            return UNPROVEN, f"the Received header does not tell whether TLS was used: {_named(silent)}"
        return PASS, f"over TLS on every hop over a network, {len(crossed)} of {len(crossed)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the path as plain data. delay: the seconds since the hop before, or None."""
        verdict, message = self.verdict
        before = ("", *(hop.date for hop in self.hops))
        hops = [{**asdict(hop), "delay": _seconds_between(last, hop.date)} for last, hop in zip(before, self.hops)]
        return {"tls": self.tls, "verdict": verdict, "message": message, "hops": hops}


def _named(hops: Iterable[Hop], with_protocol: bool = True) -> str:
    return "; ".join(
        f"from {hop.from_host or 'unknown'} to {hop.by or 'unknown'}"
        + (f" ({hop.protocol or '-'})" if with_protocol else "")
        for hop in hops
    )


def path_of(headers: Iterable[str]) -> Path:
    """Return the path from a message's Received headers, in the order of the message: the last hop first."""
    hops: Sequence[Hop] = [parse_received(header) for header in headers]
    return Path(tuple(reversed(hops)))
