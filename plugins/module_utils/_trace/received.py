# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The path of a message, read from its Received headers (RFC 5321 section 4.4, RFC 3848).

A header is only as trustworthy as the host that wrote it. For proof, use the headers that your own hosts wrote. Even
such a header contains text of the client: its EHLO name before C(by), and addresses and certificate names around it.
So a hop counts as TLS only if a protocol with TLS follows every C(by) in the header. One C(by) is the writer's own, and
a client cannot remove it. A client therefore cannot forge a TLS hop. Versions and ciphers are read only from the places where
the known mail servers write them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, Optional

POSTFIX_FORM, EXIM_FORM, EXCHANGE_FORM, HARAKA_FORM, SENDMAIL_FORM, SERVICE_FORM, UNKNOWN_FORM = (
    "postfix", "exim", "exchange", "haraka", "sendmail", "service", "unknown",
)  # fmt: skip
PASS, PLAINTEXT, LOST, UNPROVEN = "pass", "plaintext", "lost", "unproven"

# Longer headers are cut. The rest could contain the writer's own "by", so such a header proves nothing.
_LONGEST = 4000
_MOST_READINGS = 8
_SHOWN = 255
_BY = re.compile(r"(?<![^\s(])by(?= )", re.IGNORECASE)
# The receiving side. Only the writer chooses this text: no client text comes between "by" and the protocol.
_RECEIVER = re.compile(
    r"by (?P<by>[^\s;()]+)(?P<comments>(?: \([^()]*\)){0,3})(?: via [^\s;()]+)?"
    r"(?: with (?:(?P<exchange>Microsoft SMTP Server)"
    r"(?: \((?:(?P<bare>TLS)|version=(?P<version>[^\s,()]+), cipher=(?P<cipher>[^\s,()]+))\))?"
    r"|(?P<protocol>[A-Za-z0-9]+)(?:/TLS/(?P<suite>[A-Za-z0-9_-]+))?)(?![^\s;]))?",
    re.IGNORECASE,
)
_FROM = re.compile(r"from ([^\s;()]+)", re.IGNORECASE)
# The sending side: a name, a comment about the connection, and comments about TLS without an address.
_SENDER = re.compile(
    r"from \S+(?: \((?:[^()]|\([^()]*\))*\))?"
    r"(?P<more>(?: \((?:using|Client|No client certificate)\b(?:[^()\[\]]|\((?:[^()\[\]]|\([^()\[\]]*\))*\))*\)){0,2})\Z",
    re.IGNORECASE,
)
# The client's address: alone in the comment, or after the host name of the address; Exchange writes it without brackets.
# The client's own name comes before the comment. Only Exim writes the address there if it has no name. Fields like helo=
# after the address have values that the client chooses.
_PEER = re.compile(
    r"from \S+ \((?:[^\s()\[\]=]+ )?(?:\[(?:IPv6:)?(?P<address>[0-9a-f:.]+)\](?: \(may be forged\))?|(?P<bare>[0-9a-f:.]+))\)",
    re.IGNORECASE,
)
_EXIM_PEER = re.compile(
    r"from \S+ \(\[(?P<address>[0-9a-f:.]+)\](?::\d+)?(?: (?:helo|ident)=[^()]*)?\)"
    r"|from \[(?P<bare>[0-9a-f:.]+)\](?::\d+)?(?:\Z| \((?:port|helo|ident)=)",
    re.IGNORECASE,
)
_NAMELESS = re.compile(r"from \S+\Z", re.IGNORECASE)
_NOT_A_NETWORK = ("local", "mapi")
_TLS_PROTOCOL = re.compile(r"(?:(?:E?SMTP|LMTP|UTF8E?SMTP|UTF8LMTP)SA?|HTTPS)\Z", re.IGNORECASE)
_VERSION = re.compile(r"(TLS|SSL)v?(\d)(?:[._](\d))?(?![\w.])", re.IGNORECASE)

# The places of version and cipher: Postfix writes them before "by", the other mail servers after the protocol.
_POSTFIX_TLS = re.compile(r" \(using ([^\s()]+) with cipher ([^\s()]+) ", re.IGNORECASE)
_EXIM = re.compile(
    r"(?: \((?P<version>TLS[^\s():]*)(?::(?P<old>[^\s():]+)(?:[\s:][^()]*)?)?\))?(?: tls (?P<cipher>[^\s()]+))?(?P<exim> \(Exim )?",
    re.IGNORECASE,
)
_BEHIND_ID = re.compile(
    r" id [^\s()]+(?: (?:for|envelope-from) <?[^\s<>()\"]*>?)?"
    r"(?: \(version=(?P<version>[^\s,()]+),? cipher=(?P<cipher>[^\s,()]+)| tls (?P<alone>[^\s;()]+))",
    re.IGNORECASE,
)
_SENDMAIL = re.compile(r" \(\d+\.\d[\w.]*/[^()]*\)\Z")
_BARE_ADDRESS = re.compile(r"from \S+ \([0-9a-f:.]+\)\Z", re.IGNORECASE)
# The header of the protection service: TLS is in a separate comment, and the protocol is missing or does not show TLS.
_SERVICE_HOST = re.compile(r"exprod\w+\.", re.IGNORECASE)
_SERVICE_TLS = re.compile(r"from \S+ \(\[[0-9a-f:.]+\]\) \(using ((?:TLS|SSL)v?[\d.]+)\)\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Hop:
    """One Received header: the two hosts of a hop, and its protocol and TLS.

    by: the receiving host. from_host: the name that the client gave itself. network: false if the message was created on
    the host or came over its loopback. date: ISO 8601 in UTC, or empty. writer: the mail server whose format the header
    has. clear: false if the header can be read in more than one way, for example because the client inserted words. Such
    a header counts as a network hop without TLS.
    """

    by: str
    from_host: str
    protocol: str
    tls: bool
    tls_version: str
    cipher: str
    network: bool
    date: str = ""
    writer: str = UNKNOWN_FORM
    clear: bool = True


@dataclass(frozen=True)
class _Reading:
    """One possible reading of a header. It begins at one C(by)."""

    by: str
    protocol: str
    tls: bool
    version: str
    cipher: str
    writer: str
    before: str
    """The sending side, up to C(by)."""


def parse_received(header: str) -> Hop:
    """Read one header. An unknown value is an empty text. Never raises."""
    text = " ".join(header.split())
    whole = len(text) <= _LONGEST and len(_BY.findall(text)) <= _MOST_READINGS
    text = text[:_LONGEST]
    sender = text[:5].lower() == "from "
    name = _FROM.match(text)
    readings = _readings(text)
    shown = readings[-1] if readings else _Reading("", "", False, "", "", UNKNOWN_FORM, "")
    # With several readings, the host's name is taken from the text outside of comments, if possible.
    bare = shown if len(readings) < 2 else (_readings(_without_comments(text)) or [shown])[-1]
    clear = whole and len({reading.tls for reading in readings}) == 1
    tls = clear and shown.tls
    certain = tls and len(readings) == 1
    return Hop(
        by=_printable(bare.by),
        from_host=_printable(name.group(1)) if name else "",
        protocol=_printable(bare.protocol.upper()),
        tls=tls,
        tls_version=_normal(shown.version) if certain else "",
        cipher=_printable(shown.cipher) if certain else "",
        network=sender and not (clear and len(readings) == 1 and _stays_on_the_host(shown)),
        date=_date(text) if whole else "",
        writer=shown.writer if clear and len(readings) == 1 else UNKNOWN_FORM,
        clear=clear,
    )


def _readings(text: str) -> list[_Reading]:
    """Return the possible readings of a header, in the order of their C(by)."""
    found = []
    for word in islice(_BY.finditer(text), _MOST_READINGS):
        match = _RECEIVER.match(text, word.start())
        found.append(_reading(text, match) if match else _Reading("", "", False, "", "", UNKNOWN_FORM, ""))
    return found


def _reading(text: str, match: re.Match[str]) -> _Reading:
    before = text[: match.start()].rstrip()
    behind = text[match.end() :]
    by, comments, name = match["by"], match["comments"], match["protocol"] or ""
    if _SERVICE_HOST.match(by) and name.upper() in ("", "SMTP", "ESMTP") and not match["exchange"]:
        used = _SERVICE_TLS.match(before)
        return _Reading(by, name, bool(used), used[1] if used else "", "", SERVICE_FORM, before)
    if match["exchange"]:
        tls = bool(match["bare"] or match["version"])
        name = "ESMTPS" if tls else "ESMTP"
        return _Reading(by, name, tls, match["version"] or "", match["cipher"] or "", EXCHANGE_FORM, before)
    writer, version, cipher = UNKNOWN_FORM, "", match["suite"] or ""
    exim, behind_id, sender = _EXIM.match(behind), _BEHIND_ID.match(behind), _SENDER.match(before)
    if exim and (exim["version"] or exim["cipher"] or exim["exim"]):
        writer = EXIM_FORM if exim["exim"] else UNKNOWN_FORM
        version, cipher = exim["version"] or "", exim["cipher"] or exim["old"] or ""
    elif behind_id:
        version, cipher = behind_id["version"] or "", behind_id["cipher"] or behind_id["alone"] or ""
    elif sender:
        told = _POSTFIX_TLS.findall(sender["more"])
        version, cipher = told[0] if len(told) == 1 else ("", cipher)
    if comments.startswith(" (Postfix"):
        writer = POSTFIX_FORM
    elif comments.startswith(" (Haraka"):
        writer = HARAKA_FORM
    elif _SENDMAIL.match(comments):
        writer = SENDMAIL_FORM
    elif name.lower() == "mapi" or (name.upper() == "HTTPS" and _BARE_ADDRESS.match(before)):
        writer = EXCHANGE_FORM
    tls = bool(_TLS_PROTOCOL.match(name)) or (bool(match["suite"]) and name.upper() in ("SMTP", "ESMTP"))
    return _Reading(by, name, tls, version, cipher, writer, before)


def _stays_on_the_host(reading: _Reading) -> bool:
    """Whether the message came from the host itself: from a program, over the loopback, or by LMTP through a socket."""
    if reading.protocol.lower() in _NOT_A_NETWORK:
        return True
    peer = (_EXIM_PEER if reading.writer == EXIM_FORM else _PEER).match(reading.before)
    if not peer:
        return "lmtp" in reading.protocol.lower() and bool(_NAMELESS.match(reading.before))
    try:
        address = ipaddress.ip_address(peer["address"] or peer["bare"])
    except ValueError:
        return False
    return address.is_loopback and bool(_SENDER.match(reading.before))


def _without_comments(text: str) -> str:
    for _ in range(3):  # comments may contain comments
        text = re.sub(r"\([^()]*\)", " ", text)
    return " ".join(text.split())


def _normal(version: str) -> str:
    """Return a version in OpenSSL's spelling: C(TLSv1.2), C(TLSv1), C(SSLv3); empty for other text."""
    match = _VERSION.match(version)
    if not match:
        return ""
    minor = match[3] if match[3] not in (None, "0") else ""
    return f"{match[1].upper()}v{match[2]}{f'.{minor}' if minor else ''}"


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
        """Whether there was at least one network hop and every network hop used TLS."""
        return bool(self.network_hops) and all(hop.tls for hop in self.network_hops)

    @property
    def verdict(self) -> tuple[str, str]:
        """C(pass), C(plaintext) or C(unproven), and the reason as text."""
        crossed = self.network_hops
        if not crossed:
            return UNPROVEN, "it arrived without crossing a network, so it proves nothing"
        plain = [hop for hop in crossed if hop.clear and not hop.tls]
        if plain:
            hops = "; ".join(f"from {hop.from_host or 'unknown'} to {hop.by} ({hop.protocol or '-'})" for hop in plain)
            return PLAINTEXT, f"in plaintext {hops}"
        unclear = [hop for hop in crossed if not hop.clear]
        if unclear:
            hops = "; ".join(f"from {hop.from_host or 'unknown'} to {hop.by or 'unknown'}" for hop in unclear)
            return UNPROVEN, f"the Received header can be read in more than one way, so it does not prove TLS: {hops}"
        return PASS, f"over TLS on every hop over a network, {len(crossed)} of {len(crossed)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the path as plain data. delay: the seconds since the hop before, or None."""
        verdict, message = self.verdict
        before = ("", *(hop.date for hop in self.hops))
        hops = [{**asdict(hop), "delay": _seconds_between(last, hop.date)} for last, hop in zip(before, self.hops)]
        return {"tls": self.tls, "verdict": verdict, "message": message, "hops": hops}


def path_of(headers: Iterable[str]) -> Path:
    """Return the path from a message's Received headers, in the order of the message: the last hop first."""
    hops: Sequence[Hop] = [parse_received(header) for header in headers]
    return Path(tuple(reversed(hops)))
