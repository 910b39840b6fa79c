# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts of mail with and without TLS, by peer domain and direction. The memory does not grow with the log.

The adapters in _postfix/log.py and _exim/log.py read the lines of their daemons. This module has the counters and the
reasons of failures. Peers can choose text in log lines, so all text is limited in length and made printable.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Generic, Optional, Protocol, TypeVar

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import printable_bytes
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

INBOUND_MAIL, OUTBOUND_MAIL = "inbound", "outbound"
ACTIVITY_VERSION = 1
OTHER = "other"
DETAIL_LENGTH = 297  # without the "..." of a text that is cut
MOST_TEXT = 600
"""Bytes of a text in a log that are kept and looked at."""
NUMBERS = (
    "sessions_tls",
    "sessions_plaintext",
    "sessions_unknown",
    "messages_tls",
    "messages_plaintext",
    "messages_unknown",
)
EVENTS = ("failures", "refusals", "deferrals")
REASONS = {
    "handshake_failed": "the TLS handshake failed, and the log says no more",
    "no_shared_cipher": "no cipher is accepted by both sides",
    "protocol_version": "no TLS version is accepted by both sides",
    "certificate_untrusted": "the certificate is self-signed, or its chain leads to no authority that is trusted",
    "certificate_expired": "the certificate has expired",
    "certificate_not_yet_valid": "the certificate is not valid yet, or a clock is wrong",
    "certificate_name_mismatch": "the certificate is for another name",
    "certificate_not_verified": "the certificate does not pass, and the log says no more",
    "certificate_unknown": "the other side does not accept the certificate and gives no reason",
    "certificate_required": "one side requires a client certificate and got none",
    "not_tls": "one side sent something other than TLS",
    "lost_connection": "the connection ended during the handshake",
    "timeout": "the handshake took too long",
    "certificate_purpose": "the certificate is not allowed to be used for this",
    "no_shared_signature": "no signature algorithm is accepted by both sides",
    "too_weak": "a key, a signature or a parameter is too weak for one side",
    "alpn_mismatch": "the two sides agree on no application protocol (ALPN)",
    "signature_refused": "one side could not verify a signature of the other one: its key may not belong to its certificate",
    "internal_error": "one side has a fault of its own, and its log says more",
    "access_denied": "one side does not accept the client certificate of the other one",
    "server_name_unknown": "the server does not know the name that it was asked for (SNI)",
    "key_unusable": "the server's own key or certificate cannot be used",
    "tls_unavailable": "TLS is offered or asked for, but the server itself cannot do it",
    "no_starttls_offered": "the other side does not offer STARTTLS",
    "starttls_refused": "the other side offers STARTTLS and then refuses it",
    "dane_failed": "the TLSA records of the other side cannot be used",
    "peer_requires_tls": "the other side takes mail over TLS only, and this one sent in plaintext",
    "enforced_sender": "mail of an enforced domain came in plaintext",
    "mail_server_in_plaintext": "a mail server that has to use TLS sent in plaintext",
    "inbound_required": "this server takes mail over TLS only, and it came in plaintext",
}
"""Stable word -> its meaning."""

# Texts of OpenSSL, GnuTLS and the daemons. The first match counts.
_REASON_OF_TEXT = tuple(
    (reason, re.compile(pattern, re.IGNORECASE))
    for reason, pattern in (
        ("alpn_mismatch", rb"\bALPN\b|application protocol"),
        (
            "certificate_purpose",
            rb"key usage violation|certificate purpose|not designated for use|(?:cert not for|signature for non) signing",
        ),
        (
            "no_shared_signature",
            rb"no suitable signature algorithm|no shared signature algorithms|signature algorithm is not supported"
            rb"|missing sigalgs extension|wrong signature type",
        ),
        (
            "too_weak",
            rb"dh key too small|ee key too small|ca key too small|ca md too weak|key too weak|not long enough|insufficient security"
            rb"|legacy sigalg|unsafe legacy renegotiation|safe renegotiation failed|unsafe renegotiation denied|digest algorithm too weak",
        ),
        (
            "no_shared_cipher",
            rb"no shared cipher|no supported cipher suites|no ciphers? available|supported cipher suite|no suitable key share"
            rb"|no common key share|no shared group|no suitable groups|unsupported elliptic curve|no cipher match|wrong curve"
            rb"|curve is unsupported|no supported ECC curves",
        ),
        (
            "protocol_version",
            rb"unsupported protocol|protocol version|version too low|version too high|unsupported version|no protocols available"
            rb"|(?:wrong|unsupported|unknown) ssl version"
            rb"|inappropriate fallback",
        ),
        ("certificate_expired", rb"expired"),
        ("certificate_not_yet_valid", rb"not yet (?:valid|activated)"),
        (
            "server_name_unknown",
            rb"unrecognized.name|(?:SNI|server) (?:host )?name.{0,24} not recognized|name not recognised|disallowed SNI server name",
        ),
        (
            "certificate_name_mismatch",
            rb"host ?name mismatch|name does not match|does not match hostname|cert(?:ificate)? name mismatch",
        ),
        (
            "certificate_untrusted",
            rb"unknown ca\b|CA is unknown|self.signed|untrusted|unable to (?:get|verify)|not trusted|certificate invalid",
        ),
        (
            "certificate_required",
            rb"did not return a certificate|no certificate was found|certificate (?:is )?required"
            rb"|did not send any certificate|no client certificate",
        ),
        (
            "key_unusable",
            rb"key setup|private key|error while reading file|key values mismatch|given key do not match|no certificate assigned",
        ),
        (
            "certificate_unknown",
            rb"bad certificate|certificate unknown|unknown certificate|unsupported certificate|certificate revoked|certificate is bad"
            rb"|certificate was revoked|certificate is not supported|certificate type is not supported|error in the certificate",
        ),
        ("certificate_not_verified", rb"certificate verif"),
        (
            "not_tls",
            rb"wrong version number|http request|https proxy request|unknown protocol|unexpected TLS packet|non-?TLS|packet length too long"
            rb"|bad record type",
        ),
        ("signature_refused", rb"alert decrypt error"),
        ("internal_error", rb"alert internal error"),
        ("access_denied", rb"alert access denied|Access was denied"),
        ("timeout", rb"timed out|time-?out"),
        (
            "lost_connection",
            rb"lost connection|non-properly terminated|unexpected eof|reset by peer|broken pipe|disconnected cleanly"
            rb"|in the (?:push|pull) function",
        ),
    )
)
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")
_SECOND = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_ZONE = re.compile(rb"(?:Z| UTC| GMT|([+-])(\d\d):?(\d\d))\Z")
_RELATIVE = re.compile(r"(\d{1,6})\s*([smhdw])\Z")

Value = TypeVar("Value")


def reason_of(text: bytes, otherwise: str = "handshake_failed") -> str:
    """Return the stable word for a text of a TLS library or a daemon."""
    said = text[:MOST_TEXT]
    return next((reason for reason, pattern in _REASON_OF_TEXT if pattern.search(said)), otherwise)


WANTS_TLS = re.compile(
    rb"(?i:(?:<[^<>]{0,320}>:? )?[^<>();]{0,80}?\b(?:(?:STARTTLS|TLS|SSL|encryption|encrypted connection|secure connection)"
    rb"(?: [a-z]{1,12}){0,3}? (?:required|needed|mandatory)\b(?!,)|(?:requires?|must (?:issue|use|send)|needs?) (?:[a-z]{1,12} ){0,3}?"
    rb"(?:STARTTLS|TLS|SSL|encrypt)))"
)
"""What servers say, behind the code of a reply, to who sends in plaintext where they take mail over TLS only."""
ENCRYPTION_NEEDED = re.compile(rb"[45]\.7\.(?:10|29|30) ")
"""The enhanced codes for that: RFC 5248's registry, and Google's."""


def refused_without_tls(text: bytes) -> bool:
    """Whether a reply says that mail is taken over TLS only. text: behind the three digits."""
    if ENCRYPTION_NEEDED.match(text):
        return True
    return bool(WANTS_TLS.match(_ENHANCED.sub(b"", text[:MOST_TEXT], count=1)))


_ENHANCED = re.compile(rb"\A[45]\.\d{1,3}\.\d{1,3} ")


def detail_of(text: bytes) -> str:
    """Return a sample of a log text for people: one printable line of at most 300 characters."""
    shown = printable_bytes(text.strip(), DETAIL_LENGTH)
    return shown if len(shown) <= DETAIL_LENGTH + 3 else shown[:DETAIL_LENGTH] + "..."


def domain_of_address(address: bytes) -> str:
    """Return the domain of an envelope address in lower case, or an address literal in brackets; empty if there is none."""
    name = address.rpartition(b"@")[2] if b"@" in address else b""
    return _domain(name)


@lru_cache(maxsize=4096)
def domain_of_host(host: bytes, address: bytes) -> str:
    """Return the domain of a client: its verified host name without the first label, or its address in brackets."""
    name = _domain(host)
    if not name or name == "unknown" or "." not in name:
        return f"[{detail_of(address)[:64]}]"
    rest = name.partition(".")[2]
    return rest if "." in rest else name


@lru_cache(maxsize=4096)
def _domain(name: bytes) -> str:
    if name.startswith(b"[") and name.endswith(b"]"):
        literal = name[1:-1].decode("ascii", "replace").lower()
        literal = literal[5:] if literal.startswith("ipv6:") else literal
        try:
            return f"[{ipaddress.ip_address(literal)}]"
        except ValueError:
            return ""
    text = name.decode("utf-8", "replace").rstrip(".").lower()
    if not text.isascii():
        try:
            text = text.encode("idna").decode("ascii")
        except UnicodeError:
            return ""
    return text if len(text) <= 253 and _NAME.match(text) else ""


def is_loopback(address: bytes) -> bool:
    """Whether an address is the loopback. Sessions over the loopback are not counted, because the log shows that mail twice."""
    return address.startswith((b"127.", b"::ffff:127.")) or address in (b"::1", b"localhost")


def moment(text: str, now: float) -> float:
    """Return seconds since 1970 for C(24h) or C(7d) before now, for C(now), or for ISO 8601.

    ISO 8601 without a zone is the host's own time. Raises EngineError for other text.
    """
    given = text.strip()
    relative = _RELATIVE.match(given)
    if relative:
        return now - int(relative.group(1)) * _SECOND[relative.group(2)]
    if given == "now":
        return now
    try:
        return datetime.fromisoformat(re.sub(r"[zZ]\Z", "+00:00", given)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise EngineError(
            f"{text!r} is not a time; give one like 24h, 7d, 2026-01-31 or 2026-01-31T08:00:00+01:00"
        ) from None


_FIRST_TIME, _LAST_TIME = -62135596800, 253402300799
"""The years 1 and 9999. A time in a log, less its zone, may lie before or behind them."""


def iso(when: float) -> str:
    """Return a time as ISO 8601 in UTC, to the second; the nearest that there is. when: seconds since 1970."""
    when = min(max(when, _FIRST_TIME), _LAST_TIME)
    return datetime.fromtimestamp(int(when), timezone.utc).replace(tzinfo=None).isoformat() + "Z"


class Event:
    """A kind of fault: its count, a sample, and the times of the first and the last one."""

    __slots__ = ("count", "detail", "first", "last")

    def __init__(self, detail: str, count: int, first: float, last: float) -> None:
        self.detail = detail
        self.count = count
        self.first = first
        self.last = last

    def add(self, other: Event) -> None:
        """Add the count of another event of the same kind. The sample is the latest one."""
        self.count += other.count
        self.first = min(self.first, other.first)
        if other.last >= self.last:
            self.last = other.last
            self.detail = other.detail

    def to_dict(self, reason: str, side: str) -> dict[str, Any]:
        """Return EVENT of the module's documentation as plain data."""
        return {
            "reason": reason, "detail": self.detail, "count": self.count,
            "first": iso(self.first), "last": iso(self.last), **({"side": side} if side else {}),
        }  # fmt: skip


@lru_cache(maxsize=256)
def _text(name: bytes) -> str:
    return name.decode("ascii", "replace")[:80]


class Counts:
    """The counts of one peer domain in one direction."""

    __slots__ = (*NUMBERS, *EVENTS, "ciphers", "versions")
    _MOST_NAMES = 64

    def __init__(self) -> None:
        self.sessions_tls = self.sessions_plaintext = self.sessions_unknown = 0
        self.messages_tls = self.messages_plaintext = self.messages_unknown = 0
        self.versions: dict[str, int] = {}
        self.ciphers: dict[str, int] = {}
        self.failures: dict[tuple[str, str], Event] = {}
        self.refusals: dict[tuple[str, str], Event] = {}
        self.deferrals: dict[tuple[str, str], Event] = {}

    @property
    def messages(self) -> int:
        """The number of all messages."""
        return self.messages_tls + self.messages_plaintext + self.messages_unknown

    @property
    def weight(self) -> tuple[bool, int, int]:
        """The rank for keeping a peer: peers with refusals or deferrals first, then peers with most messages, then sessions."""
        return bool(self.refusals or self.deferrals), self.messages, self.sessions_tls + self.sessions_plaintext

    def session(self, tls: Optional[bool], version: bytes = b"", cipher: bytes = b"") -> None:
        """Count a session. tls: None if the log does not show it."""
        if tls:
            self.sessions_tls += 1
            if version:
                self._name(self.versions, _text(version), 1)
                self._name(self.ciphers, _text(cipher), 1)
        elif tls is None:
            self.sessions_unknown += 1
        else:
            self.sessions_plaintext += 1

    def message(self, tls: Optional[bool], count: int = 1) -> None:
        """Count messages. tls: None if the log does not show it."""
        if tls:
            self.messages_tls += count
        elif tls is None:
            self.messages_unknown += count
        else:
            self.messages_plaintext += count

    def event(self, kind: str, reason: str, detail: bytes, when: float, side: str = "") -> None:
        """Count a failure, refusal or deferral. side: C(local) if this host is on both sides of the connection."""
        self._event(kind, (reason, side), Event(detail_of(detail), 1, when, when))

    def add(self, other: Counts) -> None:
        """Add all counts of another one."""
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for table, more in ((self.versions, other.versions), (self.ciphers, other.ciphers)):
            for name, count in more.items():
                self._name(table, name, count)
        for kind in EVENTS:
            for what, event in getattr(other, kind).items():
                self._event(kind, what, Event(event.detail, event.count, event.first, event.last))

    def to_dict(self) -> dict[str, Any]:
        """Return COUNTS of the module's documentation as plain data, the most frequent entries first."""
        events = {
            kind: [
                event.to_dict(*what)
                for what, event in sorted(getattr(self, kind).items(), key=lambda item: (-item[1].count, item[0]))
            ]
            for kind in EVENTS
        }
        return {
            **{name: getattr(self, name) for name in NUMBERS},
            "versions": _sorted(self.versions),
            "ciphers": _sorted(self.ciphers),
            **events,
        }

    def _name(self, table: dict[str, int], name: str, count: int) -> None:
        if name not in table and len(table) >= self._MOST_NAMES:
            name = OTHER
        table[name] = table.get(name, 0) + count

    def _event(self, kind: str, what: tuple[str, str], event: Event) -> None:
        events: dict[tuple[str, str], Event] = getattr(self, kind)
        if what in events:
            events[what].add(event)
        else:
            events[what] = event


class Tally:
    """The counts of all peers: the important ones by name, and the rest together.

    While it counts, it keeps more peers than max_peers by name. So a peer with much mail keeps its name, even if its first
    mail comes late in the log.
    """

    _SPARE = 4

    def __init__(self, max_peers: int) -> None:
        self._max_peers = max_peers
        self._most = max(max_peers * self._SPARE, 1000)
        self._peers: dict[tuple[str, str], Counts] = {}
        self._rest = {INBOUND_MAIL: Counts(), OUTBOUND_MAIL: Counts()}
        self._in_rest = False

    def peer(self, direction: str, domain: str) -> Counts:
        """Return the counts of a domain in one direction, for the caller to add to."""
        counts = self._peers.get((domain, direction))
        if counts is None:
            if len(self._peers) >= self._most:
                self._drop(self._most // 2)
            counts = self._peers[domain, direction] = Counts()
        return counts

    def result(self) -> dict[str, Any]:
        """Return C(totals), C(peers) and C(truncated) as plain data."""
        if len(self._peers) > self._max_peers:
            self._drop(self._max_peers)
        totals = {}
        for direction, rest in self._rest.items():
            total = Counts()
            for counts in (rest, *(one for (_name, of), one in self._peers.items() if of == direction)):
                total.add(counts)
            totals[direction] = total.to_dict()
        ranked = sorted(self._peers.items(), key=lambda item: (-item[1].messages, item[0]))
        peers = [{"domain": name, "direction": of, **counts.to_dict()} for (name, of), counts in ranked]
        if self._in_rest:
            empty = Counts().to_dict()
            for direction, rest in self._rest.items():
                if rest.to_dict() != empty:
                    peers.append({"domain": OTHER, "direction": direction, **rest.to_dict()})
        return {"totals": totals, "peers": peers, "truncated": self._in_rest}

    def _drop(self, keep: int) -> None:
        """Keep the most important peers by name, and add the others to the rest."""
        ranked = sorted(self._peers.items(), key=lambda item: item[1].weight, reverse=True)
        for (_name, direction), counts in ranked[keep:]:
            self._rest[direction].add(counts)
        self._peers = dict(ranked[:keep])
        self._in_rest = True


class Recent(Generic[Value]):
    """A table with a limited number of entries. A full table evicts its oldest entry."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: OrderedDict[Any, Value] = OrderedDict()

    def get(self, key: Any) -> Optional[Value]:
        """Return the value of a key, or None."""
        return self._items.get(key)

    def put(self, key: Any, value: Value) -> Optional[Value]:
        """Set a value. Returns the entry that was evicted, or None."""
        self._items[key] = value
        if len(self._items) > self._most:
            return self._items.popitem(last=False)[1]
        return None

    def pop(self, key: Any) -> Optional[Value]:
        """Remove a key and return its value, or None."""
        return self._items.pop(key, None)

    def drain(self) -> Iterable[Value]:
        """Remove and yield all values, the oldest first."""
        while self._items:
            yield self._items.popitem(last=False)[1]


class Clock:
    """Reads the time stamps of one log: RFC 3339, syslog's with and without a year, Exim's, seconds since 1970, TAI64N.

    Many lines of a log have the same time stamp, so the last one is cached. A time stamp without a zone is the host's own time.
    """

    _MONTHS: Mapping[bytes, int] = {
        name: number
        for number, name in enumerate(
            (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
        )
    }
    _DAY = 86400.0

    def __init__(self, last_change: float) -> None:
        """Prepare only. last_change: the time of the last write to the log. A date without a year is the latest one before it."""
        self.last_change = last_change
        self._key = b""
        self._when: Optional[float] = None

    def at(self, stamp: bytes) -> Optional[float]:
        """Return whole seconds since 1970, or None if the text is not a time."""
        key = stamp[:20]
        if key != self._key:
            self._key = key
            try:
                self._when = self._parse(stamp)
            except (ValueError, OverflowError, OSError, LookupError):
                self._when = None
        return self._when

    def _parse(self, stamp: bytes) -> Optional[float]:
        if stamp[4:5] in (b"-", b"/"):
            year, month, day = int(stamp[:4]), int(stamp[5:7]), int(stamp[8:10])
            hour, minute, second = int(stamp[11:13]), int(stamp[14:16]), int(stamp[17:19])
            leap = 1 if second == 60 else 0
            moment_named = datetime(year, month, day, hour, minute, second - leap, tzinfo=timezone.utc)
            zone = _ZONE.search(stamp, 19)
            if not zone:
                return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
            offset = int(zone.group(2)) * 3600 + int(zone.group(3)) * 60 if zone.group(1) else 0
            return moment_named.timestamp() + leap + (offset if zone.group(1) == b"-" else -offset)
        if stamp[:1] == b"@":
            return float(int(stamp[1:17], 16) - (1 << 62) - 10)
        words = stamp.split()
        if len(words) == 1:
            return float(stamp.partition(b".")[0])
        # A year may stand before the month, behind the day or at the end.
        given = next((one for one in words if len(one) == 4 and one.isdigit()), None)
        if given is not None:
            words.remove(given)
        return self._with_month(self._MONTHS[words[0]], int(words[1]), words[2], given)

    def _with_month(self, month: int, day: int, of_day: bytes, given: Optional[bytes]) -> Optional[float]:
        hour, minute, second = (int(part) for part in of_day.split(b":"))
        if given is not None:
            datetime(int(given), month, day, hour, minute, min(second, 59))
            return time.mktime((int(given), month, day, hour, minute, second, 0, 0, -1))
        latest = self.last_change + self._DAY  # a day of tolerance for a changed clock or another zone
        year = time.localtime(latest).tm_year
        for candidate in range(
            year, year - 9, -1
        ):  # 29 February exists every four years, at some centuries every eight
            try:
                datetime(candidate, month, day, hour, minute, min(second, 59))
            except ValueError:
                continue
            when = time.mktime((candidate, month, day, hour, minute, second, 0, 0, -1))
            if when <= latest:
                return when
        return None


class Note:
    """A note about missing information in the log: its cause, and the next thing to do."""

    def __init__(self, code: str, direction: str, message: str) -> None:
        self.code = code
        self.direction = direction
        self.message = message

    def to_dict(self) -> dict[str, str]:
        """Return the note as plain data."""
        return {"code": self.code, "direction": self.direction, "message": self.message}


class Adapter(Protocol):
    """The contract between the engine and a daemon's log reader."""

    name: str
    globs: Sequence[str]
    """The patterns of the log files that the daemon says it has."""
    unread: Sequence[str]
    """Sentences on logs of the daemon that cannot be read. They do not count if the user names the files."""
    journal_matches: Sequence[str]
    """The arguments of journalctl that select the daemon's entries."""
    through_syslog: bool
    """Whether a syslog daemon writes those files, from lines that it gets from the journal."""
    stamp: re.Pattern[bytes]
    """Matches the beginning of a line. The first group is the time stamp."""

    def feed(self, lines: Sequence[bytes], clock: Clock) -> Optional[float]:
        """Count the lines. Return the time of the last line that has one, or None. Never raises, whatever the lines contain."""

    def finish(self) -> None:
        """Count the sessions that have not ended at the end of the log."""

    @property
    def skipped_lines(self) -> int:
        """The number of lines about TLS or mail that could not be read. Nothing is counted from them."""

    def unread_lines(self) -> Sequence[Note]:
        """Return a note on those lines, if they are many."""

    @property
    def first(self) -> Optional[float]:
        """The time of the first line, before the window or in it."""

    def notes(self) -> Sequence[Note]:
        """Return notes about information that the log does not have."""


def _sorted(table: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(table.items(), key=lambda item: (-item[1], item[0])))
