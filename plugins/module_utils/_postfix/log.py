# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS in the log of Postfix 3.4 or newer, for all instances.

Inbound, the C(disconnect) line of a session shows whether it used TLS, at every log level. TLS version and cipher need
smtpd_tls_loglevel = 1. Outbound, a separate line before the deliveries shows a TLS session, but only with
smtp_tls_loglevel = 1. Without this setting, the log does not show TLS. A peer can choose the text in quotes, in brackets
and at the end of a line, so nothing after such text is read.
Sources: postconf(5), TLS_README, smtpd(8), smtp(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.headings import (
    STAMP,
    Ending,
    Headings,
    Skipped,
    times_repeated,
    unpacked,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import (
    INBOUND_MAIL,
    MOST_TEXT,
    OTHER,
    OUTBOUND_MAIL,
    Clock,
    Note,
    Recent,
    Tally,
    detail_of,
    domain_of_address,
    domain_of_host,
    is_loopback,
    reason_of,
    refused_without_tls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces, journal_match
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log_places import LOG_PARAMETERS
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import ARRIVED, BACK
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.replies import ENFORCED_SENDER

# Instance and services from syslog_name, program, process ID.
_PROGRAM = rb"([^ /\[]{1,64})(/[^ \[]{1,64}?)??/(smtpd|smtp|lmtp|qmgr|nqmgr|oqmgr|error|tlsproxy|postscreen)"
_ENDINGS = (
    Ending(_PROGRAM + rb"\[(\d{1,10})\]: \[ID \d{1,10} [a-z0-9]{1,10}\.[a-z]{1,10}\] "),  # Solaris
    Ending(_PROGRAM + rb"\[(\d{1,10})\]: "),
    Ending(_PROGRAM + rb" (\d{1,10}) [^ ]{1,32} (?:-|\[[^\]]{0,400}\]) (?:\xef\xbb\xbf)?"),  # RFC 5424
)
_OURS = re.compile(rb"/(?:smtpd|smtp|lmtp|n?qmgr|oqmgr|error|tlsproxy|postscreen)(?:\[\d| \d{1,10} |\"|:)")
_QUEUE_ID = rb"([0-9A-Za-z]{6,20})"
# An address as Postfix 3.5 and newer write it: a local part with unusual characters is in quotes.
_ADDRESS = rb'((?:"(?:[^"\\]|\\.)*"@)?[^<>"\s]*)'
# With smtpd_client_port_logging, the port follows.
_CLIENT = rb"([^ \[\]]{1,255})\[([0-9A-Fa-f.:]{1,45}|unknown)\](?::\d{1,5})?"
# postscreen and tlsproxy know no name.
_BARE = rb"\[([0-9A-Fa-f.:]{1,45})\](:\d{1,5})"
_CLIENT_OF = re.compile(_QUEUE_ID + rb": client=" + _CLIENT)
_ESTABLISHED_FROM = re.compile(
    rb"(?:Anonymous|Trusted|Untrusted|Verified) TLS connection established from "
    + _CLIENT
    + rb"(?: to [^ :]{1,255})?: ((?:TLS|SSL)v[\d.]{1,4}) with cipher ([A-Za-z0-9_-]{1,64}) \("
)
_ESTABLISHED_BARE = re.compile(
    rb"(?:Anonymous|Trusted|Untrusted|Verified) TLS connection established from "
    + _BARE
    + rb"(?: to [^ :]{1,255})?: ((?:TLS|SSL)v[\d.]{1,4}) with cipher ([A-Za-z0-9_-]{1,64}) \("
)
_ERROR_BARE = re.compile(rb"SSL_accept error from " + _BARE + rb": (.*)")
_ESTABLISHED_TO = re.compile(
    rb"(?:Anonymous|Trusted|Untrusted|Verified) TLS connection (established|reused) to "
    rb"(\S{1,320}): ((?:TLS|SSL)v[\d.]{1,4}) with cipher ([A-Za-z0-9_-]{1,64}) \("
)
_DISCONNECT = re.compile(rb"disconnect from " + _CLIENT + rb"((?: [a-z_]{1,16}=\d{1,9}(?:/\d{1,9})?)*)\Z")
_COMMAND = re.compile(rb" ([a-z_]+)=(\d{1,9})(?:/(\d{1,9}))?")
_REJECT = re.compile(
    rb"[0-9A-Za-z]{6,20}: reject: [A-Z-]{1,20} from "
    + rb"([^ \[\]]{0,255})\[([0-9A-Fa-f.:]{1,45}|unknown)\](?::\d{1,5})?"
    + rb": ([45]\d\d) (?:\d\.\d{1,3}\.\d{1,3} )?(?:<"
    + _ADDRESS
    + rb">: )?([^;<>]{1,200});(?: from=<"
    + _ADDRESS
    + rb">,?)? "
)
_ABORTED = re.compile(rb"NOQUEUE: abort: TLS from " + _CLIENT + rb": (.*)")
_ERROR_TO = re.compile(rb"SSL_connect error to (\S{1,320}): (.*)")
_NOT_VERIFIED = re.compile(rb"(?:server )?certificate verification failed for (\S{1,320}): (.*)")
_FROM = re.compile(_QUEUE_ID + rb": from=<" + _ADDRESS + rb">, (?!status=)")
_TO = re.compile(
    _QUEUE_ID
    + rb": to=<"
    + _ADDRESS
    + rb">, (?:orig_to=<"
    + _ADDRESS
    + rb">, )?relay=([^ ,]{1,320}), ([a-z_]{1,32}=[^()<>]{1,600}), "
    rb"status=([a-z]{4,16}) \((.*)"
)
# Postfix 3.11 says the level that was wanted, ! if it was not reached, what was used in its place, ? if it is undecided.
_TLS_FIELD = re.compile(rb", tls=(!?)([a-z-]{1,16})(?::([a-z-]{1,16}))?(\??)")
_TLS_LEVELS = (b"may", b"encrypt", b"dane", b"dane-only", b"half-dane", b"fingerprint", b"verify", b"secure")
_NO_TLS_LEVELS = (b"none", b"nostarttls", b"notls")

_RELAY = re.compile(rb"[^\[\]]{1,255}\[([0-9A-Fa-f.:]{2,45})\]:\d{1,5}\Z")
_SUSPENDED = b"delivery temporarily suspended: "
# Postfix's own texts about a failed delivery. The server's own text follows "host ... said:".
_DEFERRED = tuple(
    (reason, re.compile(pattern))
    for reason, pattern in (
        ("no_starttls_offered", rb"TLS is required, but was not offered by host "),
        ("starttls_refused", rb"TLS is required, but host \S+ refused to start TLS"),
        ("tls_unavailable", rb"TLS is required,? but (?:our TLS engine is )?unavailable"),
        ("certificate_untrusted", rb"Server certificate not trusted"),
        ("certificate_not_verified", rb"Server certificate not verified"),
        ("handshake_failed", rb"Cannot start TLS: "),
        (
            "dane_failed",
            rb"(?:TLSA lookup error|no TLSA records|dane configuration|non DANE|non DNSSEC|TLSA records unusable|unusable TLSA)",
        ),
        ("tls_unavailable", rb"client TLS configuration problem|TLS policy lookup error|TLS policy lookup for "),
        ("timeout", rb"conversation with \S{1,320} timed out while receiving the STARTTLS response"),
        ("lost_connection", rb"lost connection with \S{1,320} while receiving the STARTTLS response"),
    )
)
_SAID = re.compile(rb"host \S{1,320} said: [45]\d\d[ -]")
_REFUSED = (
    ("enforced_sender", ENFORCED_SENDER.encode()),
    ("mail_server_in_plaintext", b"Session encryption is required"),
    ("inbound_required", b"Must issue a STARTTLS command first"),
)
_KEY_PROBLEMS = (
    b"warning: cannot get ",
    b"warning: error loading ",
    b"warning: key at index",
    b"warning: No server certs",
    b"warning: Wrapper-mode request dropped from ",
)
_IMPLICIT_TLS = (b"/smtps", b"/submissions")
_REPEATED_ENDS = (b" times", b" time")
_BRACKET = ord("]")
_MOST_SESSIONS = 20000
_MOST_MESSAGES = 50000
_MOST_WAITING = 1000
_MOST_INSTANCES = 32
_USUAL = LogPlaces(DEBIAN.logs, (), (journal_match("mail"),))


@dataclass(frozen=True)
class Visibility:
    """The log settings of an instance, and the time of their last change.

    outbound_level: the lowest smtp_tls_loglevel. sends_tls: whether any outbound session may use TLS. hides_inbound: whether
    a service may have TLS sessions that the log does not show: TLS from the first byte, no log level for TLS, and no
    service name that shows it. since: the last change of the configuration, in seconds since 1970.
    """

    outbound_level: int = 0
    sends_tls: bool = True
    hides_inbound: bool = False
    since: float = 0.0


_NOTHING_KNOWN = Visibility()
_BETWEEN = (f"{ARRIVED}/unix", f"{BACK}/unix")
"""These log nothing of TLS, and no mail leaves by them."""


@dataclass
class _Session:
    """An inbound session. One smtpd process serves one session at a time."""

    host: bytes = b""
    address: bytes = b""
    version: bytes = b""
    cipher: bytes = b""
    implicit: bool = False
    established: bool = False
    """Whether the log says that the session used TLS, in a line that may be unreadable otherwise."""
    reason: str = ""
    detail: bytes = b""
    when: float = 0.0
    tls: Optional[bool] = None
    ended: bool = False
    waiting: dict[str, int] = field(default_factory=dict)
    """Sender domain -> number of messages that are counted at the end of the session, when its TLS is known."""

    @property
    def domain(self) -> str:
        return domain_of_host(self.host, self.address)


@dataclass
class _Delivery:
    """The log lines of one smtp process since its last delivery."""

    established: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    unread: bool = False
    """Whether there were lines about TLS that could not be read, or too many. Then a delivery without one is unknown."""
    failures: list[tuple[str, bytes, float]] = field(default_factory=list)
    not_verified: str = ""
    queue_id: bytes = b""
    relay: bytes = b""
    tls: Optional[bool] = None
    sent: set[str] = field(default_factory=set)


class PostfixLog:
    """Adapter for Postfix."""

    name = "postfix"
    through_syslog = True
    stamp = STAMP

    def __init__(
        self,
        tally: Tally,
        since: float,
        until: float,
        visibility: Mapping[str, Visibility],
        places: LogPlaces = _USUAL,
        host: str = "",
    ) -> None:
        """visibility is by instance, the first word of its syslog_name. places: where the instances log to.

        host: the name of the host whose settings these are. Lines of another one are read without them. Empty: all are its own.
        """
        self.globs: Sequence[str] = places.patterns
        self.journal_matches: Sequence[str] = places.journal
        self.unread: Sequence[str] = places.unread
        self._tally = tally
        self._since = since
        self._until = until
        self._visibility = visibility
        self._sessions: Recent[_Session] = Recent(_MOST_SESSIONS)
        self._broken: Recent[bytes] = Recent(_MOST_SESSIONS)
        self._messages: Recent[_Session] = Recent(_MOST_MESSAGES)
        self._deliveries: Recent[_Delivery] = Recent(_MOST_SESSIONS)
        self._host = host.partition(".")[0].lower().encode()
        self._seen_outbound: set[bytes] = set()
        self._unknown: set[str] = set()
        self._without_version = False
        self._hidden = False
        self._proxies = False
        self._proxied: Recent[_Delivery] = Recent(_MOST_SESSIONS)
        """What tlsproxy says of TLS to a relay, for the next delivery there: it makes the connections that smtp uses again."""
        self._last_proxied: Optional[tuple[bytes, bytes]] = None
        self._last_bare: Optional[tuple[bytes, bytes]] = None
        self._bare: Recent[_Session] = Recent(_MOST_SESSIONS)
        self._services: Mapping[bytes, Callable[[bytes, bytes, bytes, bytes, float], None]] = {
            b"smtpd": self._smtpd,
            b"smtp": self._smtp,
            b"lmtp": self._smtp,
            b"qmgr": self._qmgr,
            b"nqmgr": self._qmgr,
            b"oqmgr": self._qmgr,
            b"error": self._error,
            b"tlsproxy": self._tlsproxy,
            b"postscreen": self._postscreen,
        }
        self._headings = Headings(_ENDINGS, _OURS)
        self.skipped = Skipped()
        self._timeless = False
        self.mail_lines = 0
        self.first: Optional[float] = None

    @property
    def skipped_lines(self) -> int:
        """The number of lines that could not be read."""
        return self.skipped.count

    def feed(self, lines: Sequence[bytes], clock: Clock) -> Optional[float]:
        """Count the lines. Return the time of the last line that has one, or None. Never raises."""
        headings, at, services, own = self._headings, clock.at, self._services, self._host
        header, ours = headings.current.pattern.match, headings.ours
        since, until = self._since, self._until
        second, when = b"", None
        others = 0
        before = b""
        own_hosts: dict[bytes, bool] = {}
        for line in lines:
            match = header(line)
            if not match:
                if not ours(line):
                    others += 1
                    if before and line.endswith(_REPEATED_ENDS):
                        self.feed([before] * times_repeated(line), clock)
                    before = b""
                    continue
                before = b""
                try:
                    line, match = headings.other(line, lines)  # noqa: PLW2901  (JSON is text from here on)
                except ValueError:
                    self.skipped.add(line)
                    continue
                header = headings.current.pattern.match
            stamp, host, instance, service, program, process = match.groups()
            if stamp[:20] != second:
                second, when = stamp[:20], at(stamp)
            elif not stamp:
                when = self._without_time(clock)
            if when is None:
                self.skipped.add(line)
                before = b""
                continue
            if self.first is None:
                self.first = when
            if own:
                is_own = own_hosts.get(host)
                if is_own is None:
                    is_own = own_hosts[host] = _is_host(host, own)
                if not is_own:
                    instance = host + b" " + instance
            before = line
            if since <= when <= until:
                text = line[match.end() :]
                if line[-1] == _BRACKET and text.startswith(b"message repeated "):
                    self.feed(unpacked(line, match.end()), clock)
                    continue
                services[program](text, instance, process, service or b"", when)
        self.mail_lines += len(lines) - others
        return when

    def _without_time(self, clock: Clock) -> float:
        self._timeless = True
        return clock.last_change

    def unread_lines(self) -> Sequence[Note]:
        """Return a note on the lines that could not be read, if they are many."""
        return self.skipped.notes(self.mail_lines)

    def finish(self) -> None:
        """Count the sessions without an end in the log, if they used TLS or have waiting messages."""
        for session in self._sessions.drain():
            self._forget(session)
        for session in self._bare.drain():
            self._end_bare(session)

    def notes(self) -> Sequence[Note]:
        """Return notes for the report: gaps in the log, and settings that hide TLS."""
        found = []
        if self._timeless:
            found.append(
                Note(
                    "times_not_logged",
                    "",
                    "lines of the log have no time, so they count as written when the file was last written; let what writes it "
                    "put the time in front",
                )
            )
        if self._unknown:
            found.append(
                Note(
                    "outbound_not_logged",
                    OUTBOUND_MAIL,
                    "the log does not show whether outbound sessions used TLS, because smtp_tls_loglevel is 0, or was 0 at that "
                    f"time, or because the log is of another host ({', '.join(sorted(self._unknown))}); set it with: postconf -e "
                    "smtp_tls_loglevel=1 && postfix reload",
                )
            )
        if self._hidden:
            found.append(
                Note(
                    "inbound_not_logged",
                    INBOUND_MAIL,
                    "the log does not distinguish sessions of a service with smtpd_tls_wrappermode from sessions in plaintext, because "
                    "smtpd_tls_loglevel is 0; set it with: postconf -e smtpd_tls_loglevel=1 && postfix reload",
                )
            )
        if self._without_version:
            found.append(
                Note(
                    "versions_not_logged",
                    INBOUND_MAIL,
                    "TLS versions and ciphers of some inbound sessions were not logged, because smtpd_tls_loglevel was 0; "
                    "set it with: postconf -e smtpd_tls_loglevel=1 && postfix reload",
                )
            )
        return found

    # Inbound

    def _smtpd(self, text: bytes, instance: bytes, process: bytes, service: bytes, when: float) -> None:
        if text.startswith(b"connect from "):
            self._abandon(process)
        elif text.startswith(b"disconnect from "):
            self._disconnect(text, instance, process, service, when)
        elif text.startswith(b"NOQUEUE: "):
            if text.startswith(b"NOQUEUE: reject: "):
                self._reject(text, when)
            elif aborted := _ABORTED.match(text):
                session = self._session(process, service)
                session.reason = reason_of(aborted.group(3), "certificate_not_verified")
                session.detail, session.when = text[:MOST_TEXT], when
        elif text.startswith(b"SSL_accept error from "):
            session = self._session(process, service)
            session.detail = text[:MOST_TEXT]
            session.reason = reason_of(text.rpartition(b": ")[2])
            session.when = when
        elif text.startswith(b"warning: "):
            self._warning(text, process, service, when)
        elif text.startswith(b"timeout after STARTTLS"):
            session = self._session(process, service)
            session.reason, session.detail, session.when = (
                session.reason or "timeout",
                session.detail or text[:MOST_TEXT],
                when,
            )
        elif b" TLS connection established from " in text[:45]:
            match = _ESTABLISHED_FROM.match(text)
            session = self._session(process, service)
            session.established = True
            if match:
                session.host, session.address, session.version, session.cipher = match.groups()
            else:
                self.skipped.add(text)
        else:
            match = _CLIENT_OF.match(text)
            if match and not is_loopback(match.group(3)):
                queue_id, host, address = match.groups()
                session = self._session(process, service)
                session.host, session.address = host, address
                self._messages.put((instance, queue_id), session)
            elif not match and b": reject: " in text[:32]:  # of a message that has its queue ID already
                self._reject(text, when)

    def _session(self, process: bytes, service: bytes) -> _Session:
        session = self._sessions.get(process)
        if session is None:
            session = _Session(implicit=service.startswith(_IMPLICIT_TLS))
            oldest = self._sessions.put(process, session)
            if oldest is not None:
                self._forget(oldest)
        return session

    def _abandon(self, process: bytes) -> None:
        """Count the former session of a process that begins another one. The log does not have the end of the former one."""
        session = self._sessions.pop(process)
        if session is not None:
            self._forget(session)

    def _forget(self, session: _Session) -> None:
        """Count a session whose end is unknown."""
        self._end(session, True if session.established else None, bool(session.established or session.waiting))

    def _warning(self, text: bytes, process: bytes, service: bytes, when: float) -> None:
        if text.startswith(b"warning: TLS library problem: "):
            session = self._session(process, service)
            # After the handshake, only an alert from the client means that the client refused the handshake.
            concerns = not session.version or b" alert " in text
            if concerns and session.reason in ("", "handshake_failed"):
                session.reason, session.detail, session.when = reason_of(text), text[9:MOST_TEXT], when
        elif text.startswith(_KEY_PROBLEMS):
            self._broken.put(process, text[9:MOST_TEXT])

    def _disconnect(self, text: bytes, instance: bytes, process: bytes, service: bytes, when: float) -> None:
        session = self._sessions.pop(process)
        match = _DISCONNECT.match(text)
        if not match:
            self.skipped.add(text)
            return
        host, address, summary = match.groups()
        if is_loopback(address):
            return
        session = session or _Session(implicit=service.startswith(_IMPLICIT_TLS))
        session.host, session.address = host, address
        if session.version and not session.reason:
            self._end(session, True, True)
            return
        done: dict[bytes, int] = {}
        tried: dict[bytes, int] = {}
        for name, count, of in _COMMAND.findall(summary):
            done[name] = int(count)
            tried[name] = int(of or count)
        mail = done.get(b"mail", 0) > 0
        broken = self._broken.get(process) if tried.get(b"starttls", 0) > done.get(b"starttls", 0) else None
        if broken is not None:
            session.reason, session.detail = "key_unusable", broken
        elif not session.reason and tried.get(b"starttls", 0) > done.get(b"starttls", 0):
            session.reason, session.detail = "tls_unavailable", text[:MOST_TEXT]
        tls: Optional[bool] = bool(session.established or done.get(b"starttls") or session.implicit)
        if not tls and not tried.get(b"starttls") and self._seen(instance).hides_inbound:
            tls = None
            self._hidden = True
        failed = bool(session.reason) and not (mail and tls)
        if failed:
            counts = self._tally.peer(INBOUND_MAIL, session.domain)
            counts.event("failures", session.reason, session.detail, session.when or when)
        said_hello = any(done.get(name) for name in (b"ehlo", b"helo", b"mail"))
        self._end(session, tls, mail or (said_hello and not failed))

    def _end(self, session: _Session, tls: Optional[bool], counts: bool) -> None:
        """Count a session at its end, and its waiting messages. tls: None if it is unknown. counts: whether to count the session."""
        session.tls, session.ended = tls, True
        if counts and session.host:
            self._without_version |= bool(tls and not session.version)
            self._tally.peer(INBOUND_MAIL, session.domain).session(tls, session.version, session.cipher)
        for domain, count in session.waiting.items():
            self._tally.peer(INBOUND_MAIL, domain).message(tls, count)
        session.waiting = {}

    def _qmgr(self, text: bytes, instance: bytes, process: bytes, service: bytes, when: float) -> None:
        match = _FROM.match(text)
        if not match:
            return
        session = self._messages.pop((instance, match.group(1)))
        if session is None:
            return
        sender = match.group(2)
        domain = (domain_of_address(sender) if sender else "") or session.domain
        if session.version or session.ended:
            self._tally.peer(INBOUND_MAIL, domain).message(True if session.version else session.tls)
        else:
            if domain not in session.waiting and len(session.waiting) >= _MOST_WAITING:
                domain = OTHER
            session.waiting[domain] = session.waiting.get(domain, 0) + 1

    def _reject(self, text: bytes, when: float) -> None:
        reason = next((word for word, said in _REFUSED if said in text), None)
        if reason is None:
            return
        match = _REJECT.match(text)
        if not match:
            self.skipped.add(text)
            return
        host, address, _code, _about, said, sender = match.groups()
        reason = next((word for word, reply in _REFUSED if said.endswith(reply)), None)
        if reason is None or is_loopback(address):
            return
        domain = domain_of_address(sender or b"") or domain_of_host(host, address)
        self._tally.peer(INBOUND_MAIL, domain).event("refusals", reason, text, when)

    # Outbound

    def _smtp(self, text: bytes, instance: bytes, process: bytes, service: bytes, when: float) -> None:
        match = _TO.match(text)
        if match:
            self._delivered(match, instance, process, when)
        elif b" TLS connection " in text[:28]:
            match = _ESTABLISHED_TO.match(text)
            delivery = self._delivery(process)
            if not match:
                self.skipped.add(text)
                delivery.unread = True
                return
            how, relay, version, cipher = match.groups()
            if len(delivery.established) < 16:
                delivery.established.append((relay, version if how == b"established" else b"", cipher))
            else:
                delivery.unread = True
            if len(self._seen_outbound) < _MOST_INSTANCES:
                self._seen_outbound.add(instance)
        elif text.startswith(b"SSL_connect error to "):
            match = _ERROR_TO.match(text)
            if match:
                self._failure(process, reason_of(match.group(2)), text, when)
        elif text.startswith(b"warning: TLS library problem: "):
            self._library_problem(process, text[9:], when)
        elif text.startswith((b"certificate verification failed for ", b"server certificate verification failed for ")):
            match = _NOT_VERIFIED.match(text)
            if match:
                self._delivery(process).not_verified = reason_of(match.group(2), "certificate_not_verified")
        elif b": to=<" in text[:27]:
            self.skipped.add(text)

    def _delivery(self, process: bytes) -> _Delivery:
        delivery = self._deliveries.get(process)
        if delivery is None:
            delivery = _Delivery()
            self._deliveries.put(process, delivery)
        return delivery

    def _failure(self, process: bytes, reason: str, detail: bytes, when: float) -> None:
        failures = self._delivery(process).failures
        if len(failures) < 16:
            failures.append((reason, detail[:MOST_TEXT], when))

    def _library_problem(self, process: bytes, text: bytes, when: float) -> None:
        """Store the TLS library's text as the reason of the error in the line before."""
        failures = self._delivery(process).failures
        if failures and failures[-1][0] == "handshake_failed":
            failures[-1] = (reason_of(text), text[:MOST_TEXT], when)

    def _delivered(self, match: re.Match[bytes], instance: bytes, process: bytes, when: float) -> None:
        queue_id, recipient, _original, relay, fields, status, said = match.groups()
        peer = _RELAY.match(relay)
        delivery = self._delivery(process)
        local = not peer and relay != b"none"  # a socket or another service on this host
        if local or (peer and is_loopback(peer.group(1))):
            # A filter on this host is no peer. But mail that waits because TLS with it failed is a fault, of this host.
            self._deliveries.pop(process)
            domain = domain_of_address(recipient)
            if domain and status != b"sent":
                seen = (delivery.failures[-1][0] if delivery.failures else "", delivery.not_verified)
                self._not_sent(domain, status, said, seen, when, "local")
            return
        domain = domain_of_address(recipient)
        if not domain:
            self.skipped.add(match.string)
            return
        counts = self._tally.peer(OUTBOUND_MAIL, domain)
        if queue_id != delivery.queue_id or relay != delivery.relay:
            delivery.queue_id, delivery.relay = queue_id, relay
            delivery.sent = set()
            proxied = self._proxied.pop((instance, relay)) if self._proxies else None
            if proxied is not None:
                delivery.established += proxied.established
                delivery.failures += proxied.failures
            delivery.tls = any(one[0] == relay for one in delivery.established)
            for _relay, version, cipher in delivery.established:
                if version:
                    counts.session(True, version, cipher)
            answered = status == b"sent" or b" said: " in said[:400]
            if peer and not delivery.tls:
                if b", tls=" in fields:
                    delivery.tls = _tls_told(fields)
                else:
                    delivery.tls = None if delivery.unread else self._without_tls(instance, when)
                if answered and b"conn_use=" not in fields:
                    counts.session(delivery.tls)
            delivery.established, delivery.unread = [], False
        failed = ""
        for reason, detail, at in delivery.failures:
            counts.event("failures", reason, detail, at)
            failed = reason
        delivery.failures = []
        if status == b"sent":
            if peer and domain not in delivery.sent and len(delivery.sent) < _MOST_WAITING:
                delivery.sent.add(domain)
                counts.message(delivery.tls)
        elif status in (b"deferred", b"bounced", b"undeliverable"):
            self._not_sent(domain, status, said, (failed, delivery.not_verified), when)
        delivery.not_verified = ""

    def _without_tls(self, instance: bytes, when: float) -> Optional[bool]:
        """Return False for a delivery without a TLS line before it, or None if the settings may have hidden that line."""
        seen = self._seen(instance)
        # The settings apply only since their last change. For earlier lines, a logged TLS session shows that TLS was logged.
        visible = when >= seen.since and (not seen.sends_tls or seen.outbound_level >= 1)
        if visible or instance in self._seen_outbound:
            return False
        if len(self._unknown) < _MOST_INSTANCES:
            self._unknown.add(detail_of(instance))
        return None

    def _seen(self, instance: bytes) -> Visibility:
        return self._visibility.get(instance.decode("ascii", "replace"), _NOTHING_KNOWN)

    def _not_sent(
        self, domain: str, status: bytes, said: bytes, seen: tuple[str, str], when: float, side: str = ""
    ) -> None:
        text = said[len(_SUSPENDED) :] if said.startswith(_SUSPENDED) else said
        reason = next((word for word, pattern in _DEFERRED if pattern.match(text)), None)
        if reason is None:
            reply = _SAID.match(text)
            if not reply or not refused_without_tls(text[reply.end() :]):
                return
            reason = "peer_requires_tls"
        failed, not_verified = seen
        if reason == "handshake_failed" and failed:
            reason = failed
        elif reason.startswith("certificate_") and not_verified:
            reason = not_verified
        kind = "deferrals" if status == b"deferred" else "failures"
        self._tally.peer(OUTBOUND_MAIL, domain).event(kind, reason, text.rstrip(b")"), when, side)

    def _error(self, text: bytes, instance: bytes, process: bytes, service: bytes, when: float) -> None:
        """Count mail that is deferred without an attempt, because an earlier attempt has failed."""
        match = _TO.match(text)
        if not match:
            return
        _queue_id, recipient, _original, _relay, _fields, status, said = match.groups()
        domain = domain_of_address(recipient)
        if domain and status == b"deferred":
            self._not_sent(domain, status, said, ("", ""), when)

    # Other processes

    def _tlsproxy(self, text: bytes, instance: bytes, process: bytes, service: bytes, when: float) -> None:
        """Count the TLS sessions of postscreen's clients; they end there. Keep those to relays for the delivery."""
        if text.startswith(b"SSL_accept error from "):
            error = _ERROR_BARE.match(text)
            if not error:
                self.skipped.add(text)
                return
            address, port, said = error.groups()
            if not is_loopback(address):
                session = _Session(b"", address, reason=reason_of(said), detail=text[:MOST_TEXT], when=when)
                self._last_bare = (process, address + port)
                self._put_bare(self._last_bare, session)
        elif text.startswith(b"DISCONNECT "):
            self._end_bare(self._bare.pop((process, text[11:].replace(b"[", b"").replace(b"]", b""))))
        elif text.startswith(b"warning: TLS library problem: "):
            bare = self._bare.get(self._last_bare)
            if bare is not None and bare.reason == "handshake_failed":
                bare.reason, bare.detail = reason_of(text), text[9:MOST_TEXT]
            proxied = self._proxied.get(self._last_proxied)
            if proxied is not None and proxied.failures and proxied.failures[-1][0] == "handshake_failed":
                proxied.failures[-1] = (reason_of(text), text[9:MOST_TEXT], when)
        elif b" TLS connection established from " in text[:45]:
            established = _ESTABLISHED_BARE.match(text)
            if not established:
                self.skipped.add(text)
                return
            address, port, version, cipher = established.groups()
            self._last_bare = None
            if not is_loopback(address):
                self._put_bare(
                    (process, address + port), _Session(b"", address, version, cipher, established=True, when=when)
                )
        elif b" TLS connection " in text[:28]:
            to = _ESTABLISHED_TO.match(text)
            if not to:
                self.skipped.add(text)
                return
            _how, relay, version, cipher = to.groups()
            self._last_proxied = None
            kept = self._kept(instance, relay)
            if len(kept.established) < 16:
                kept.established.append((relay, version, cipher))
            if len(self._seen_outbound) < _MOST_INSTANCES:
                self._seen_outbound.add(instance)
        elif text.startswith(b"SSL_connect error to "):
            failed = _ERROR_TO.match(text)
            if failed:
                kept = self._kept(instance, failed.group(1))
                self._last_proxied = (instance, failed.group(1))
                if len(kept.failures) < 16:
                    kept.failures.append((reason_of(failed.group(2)), text[:MOST_TEXT], when))

    def _kept(self, instance: bytes, relay: bytes) -> _Delivery:
        kept = self._proxied.get((instance, relay))
        if kept is None:
            self._proxies = True
            kept = _Delivery()
            self._proxied.put((instance, relay), kept)
        return kept

    def _put_bare(self, key: tuple[bytes, bytes], session: _Session) -> None:
        self._end_bare(self._bare.pop(key))
        self._end_bare(self._bare.put(key, session))

    def _end_bare(self, session: Optional[_Session]) -> None:
        if session is None:
            return
        counts = self._tally.peer(INBOUND_MAIL, session.domain)
        if session.reason:
            counts.event("failures", session.reason, session.detail, session.when)
        else:
            counts.session(True, session.version, session.cipher)

    def _postscreen(self, text: bytes, instance: bytes, process: bytes, service: bytes, when: float) -> None:
        if text.startswith(b"NOQUEUE: reject: "):
            self._reject(text, when)


def _tls_told(fields: bytes) -> Optional[bool]:
    """Whether the field of Postfix 3.11 says that a delivery used TLS; None if there is none, or it does not tell."""
    match = _TLS_FIELD.search(fields)
    if not match or match.group(1) or match.group(4):
        return None
    used = match.group(3) or match.group(2)
    return True if used in _TLS_LEVELS else False if used in _NO_TLS_LEVELS else None


def settings_of(run: Runner, config_dir: str = DEBIAN.config_dir) -> dict[str, dict[str, str]]:
    """Return what the instances on this host say of their logs: directory -> values. An instance that does not answer is left out.

    config_dir: that of the default instance.
    """
    names = (
        "syslog_name", "smtpd_tls_loglevel", "smtp_tls_loglevel", "smtp_tls_security_level", "smtp_tls_policy_maps",
        "smtp_use_tls", "smtp_enforce_tls", "multi_instance_directories", *LOG_PARAMETERS,
    )  # fmt: skip
    first = _values(run, config_dir, names)
    others = first.get("multi_instance_directories", "").replace(",", " ").split()[:_MOST_INSTANCES]
    found = {config_dir: first, **{directory: _values(run, directory, names) for directory in others}}
    return {directory: values for directory, values in found.items() if values}


def visibility(run: Runner, settings: Optional[Mapping[str, Mapping[str, str]]] = None) -> dict[str, Visibility]:
    """Return the log settings of the instances on this host: first part of the syslog_name -> settings.

    settings: what settings_of() returned, if it was called already.
    """
    found: dict[str, Visibility] = {}
    for directory, values in (settings_of(run) if settings is None else settings).items():
        overrides = _overrides(run, directory)
        logged = overrides.get("smtp_tls_loglevel", {})
        levels = [values.get("smtp_tls_loglevel", ""), *(logged[one] for one in logged if one not in _BETWEEN)]
        security = [values.get("smtp_tls_security_level", ""), *overrides.get("smtp_tls_security_level", {}).values()]
        others = [values.get(name, "") for name in ("smtp_tls_policy_maps", "smtp_use_tls", "smtp_enforce_tls")]
        others += overrides.get("smtp_tls_policy_maps", {}).values()
        files = [Path(directory, name) for name in ("main.cf", "master.cf")]
        found[values.get("syslog_name", "postfix").partition("/")[0]] = Visibility(
            min(map(_level, levels)),
            any(level not in ("", "none") for level in security) or any(value not in ("", "no") for value in others),
            _level(values.get("smtpd_tls_loglevel", "")) < 1 and _hides(overrides),
            max((path.stat().st_mtime for path in files if path.exists()), default=0.0),
        )
    return found


def _is_host(name: bytes, own: bytes) -> bool:
    return name.partition(b".")[0].lower() == own


def _hides(overrides: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a service has TLS from the first byte, but neither a log level nor a name that shows it."""
    return any(
        value == "yes"
        and _level(overrides.get("smtpd_tls_loglevel", {}).get(service, "")) < 1
        and not overrides.get("syslog_name", {}).get(service, "").endswith(tuple(map(bytes.decode, _IMPLICIT_TLS)))
        for service, value in overrides.get("smtpd_tls_wrappermode", {}).items()
    )


def _level(text: str) -> int:
    return int(text[:3]) if text.isdigit() else 0


def _values(run: Runner, directory: str, names: Sequence[str]) -> dict[str, str]:
    try:
        _status, out, _err = run(["postconf", "-c", directory, "-x", *names])
    except FileNotFoundError:  # the log of another host: its settings are not known
        return {}
    pairs = (line.partition(" =") for line in out.splitlines())
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def _overrides(run: Runner, directory: str) -> dict[str, dict[str, str]]:
    """Return the overrides in master.cf: parameter -> service -> value."""
    found: dict[str, dict[str, str]] = {}
    _status, out, _err = run(["postconf", "-c", directory, "-P"])
    for line in out.splitlines():
        key, sign, value = line.partition(" =")
        service, _slash, name = key.rpartition("/")
        if sign:
            found.setdefault(name, {})[service] = value.strip()
    return found
