# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS in the main log of Exim 4.90 or newer.

Exim writes a line for each message and each delivery, with C(X=) if TLS was used. A session has no line of its own
unless log_selector enables it. Inbound messages belong to one session if they share port and process. If the log has
neither, each message counts as one session. Peers can choose the text of addresses, HELO, certificate names and
replies, and such text may look like fields. So fields are read from the left in Exim's order, and nothing after such text
is read. Source: the Exim specification, chapter on log files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
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
    OUTBOUND_MAIL,
    Clock,
    Counts,
    Note,
    Recent,
    Tally,
    domain_of_address,
    domain_of_host,
    is_loopback,
    reason_of,
    refused_without_tls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log_places import LOG_OPTIONS
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import parse_settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.replies import ENFORCED_SENDER

_ID = rb"([0-9A-Za-z]{6}-[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{6}-[0-9A-Za-z]{11}-[0-9A-Za-z]{4})"
_ANY_ID = rb"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4}) "
_BEGIN = rb"(?:\[(\d{1,10})\] )?(?:" + _ID + rb" )?"
# Through syslog, Exim's own time is there or not, and of a long line its first part has the fields.
_IN_SYSLOG = rb"(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{3})?(?: [+-]\d{4})? )?(?:\[1[/\\]\d{1,3}\] )?" + _BEGIN
_TEXT = rb"(?:TLS error |no MAIL in (?:TFO\*? )?SMTP |H=[^ ]{1,255} |[^ ]{1,255} temporarily rejected )"
_ENDINGS = (
    Ending(rb"exim[A-Za-z0-9_-]{0,30}(?:\[\d{1,10}\])?: " + _IN_SYSLOG),
    Ending(rb"exim[A-Za-z0-9_-]{0,30} (?:\d{1,10}|-) [^ ]{1,32} (?:-|\[[^\]]{0,400}\]) (?:\xef\xbb\xbf)?" + _IN_SYSLOG),
    Ending(
        _BEGIN,
        needs_time=True,
        ahead=rb"(?:\[\d{1,10}\] )?(?:" + _ANY_ID + rb"(?:[<=>*-][=>*] |[A-Z])|" + _TEXT + rb")",
    ),
)
_OURS = re.compile(
    rb"\bexim[A-Za-z0-9_-]{0,30}(?:\[\d{1,10}\])?: |\bexim[A-Za-z0-9_-]{0,30}[ \"](?!\d[\w.-]{0,30} daemon started)|\b"
    + _ANY_ID
    + rb"(?:[<=>*-][=>*] |[A-Z])"
    rb"| TLS error on connection | no MAIL in (?:TFO\*? )?SMTP | rejected (?:MAIL|RCPT|DATA)"
)
# A local part with unusual characters is in quotes. Exim has checked that.
_ADDRESS = rb'((?:"(?:[^"\\]|\\.)*"@)?[^<>"\s]*)'
_HOST = rb"H=(?:([^ ()\[\]]{1,255}) )?(?:\(([^ ()]{1,255})\) )?\[([0-9A-Fa-f.:]{2,45})\](?::(\d{1,5}))?"
_TLS = rb"X=((?:TLS|SSL)v?[\d.]{1,4}):([^ :]{1,100})(?::\d{1,4})?(?= |\Z)"
_ARRIVED = re.compile(
    rb"<= (?:<>|" + _ADDRESS + rb") " + _HOST + rb"(?: I=\[[0-9A-Fa-f.:]+\](?::\d+)?)?(?: TFO\*?)?(?: Ci=\d+)?"
    rb"(?: U=\S{1,255})? P=([a-z0-9-]{1,32})(?: L\.?)?(?: " + _TLS + rb")?(?= |\Z)"
)
_SENT = re.compile(
    rb"(=>|->|>>) " + _ADDRESS + rb"(?: \(" + _ADDRESS + rb"\))?(?: <" + _ADDRESS + rb">)?"
    rb"(?: F=<[^<>\s]*>)?(?: P=<[^<>\s]*>)? R=\S{1,255}(?: ST=\S{1,255})? T=\S{1,255}(?: S=\d+)? "
    rb"H=([^ \[\]]{1,255}) \[([0-9A-Fa-f.:]{2,45})\](?::\d{1,5})?(\*)?"
    rb"(?: (?:I=\[\S+|TFO\*?|PRX=\S+|DS|L\*?|PIPE))*(?: " + _TLS + rb")?(?= |\Z)"
)
_NOT_SENT = re.compile(
    rb"(==|\*\*) " + _ADDRESS + rb"(?: <" + _ADDRESS + rb">)?(?: F=<[^<>\s]*>)?(?: P=<[^<>\s]*>)?"
    rb"(?: R=\S{1,255})?(?: T=\S{1,255})?(?: defer \((-?\d{1,4})\))?"
    rb"(?: H=([^ \[\]]{1,255}) \[([0-9A-Fa-f.:]{2,45})\](?::\d{1,5})?)?(?: I=\[\S+)?(?: (?:DT|QT)=\S+)*"
    rb"(?: defer \((-?\d{1,4})\))?(?: " + _TLS + rb")?(?: CV=\w+)?(?: DN=\"[^\"]*\")? ?: (.*)"
)
_ERROR_FROM = re.compile(
    rb"TLS error on connection from (?:([^ ()\[\]]{1,255}) )?(?:\(([^ ()]{1,255})\) )?\[([0-9A-Fa-f.:]{2,45})\]"
    rb"(?::\d{1,5})?(?: I=\[\S+)?(?: U=\S+)? \(([^()]*(?:\([^()]*\)[^()]*)*)\)(.*)"
)
_ERROR_TO = re.compile(
    rb"(?:H=)?([^ \[\]]{1,255}) \[([0-9A-Fa-f.:]{2,45})\](?::\d{1,5})?(?: ?:)? TLS error on connection (?:to \S+ \[\S+ )?\((.*)"
)
_FALLEN_BACK = re.compile(rb"TLS session: (.{0,2000}): delivering unencrypted to H=([^ \[\]]{1,255}) \[")
_NO_MAIL = re.compile(
    rb"no MAIL in (?:TFO\*? )?SMTP connection from (?:([^ ()\[\]]{1,255}) )?(?:\(([^ ()]{1,255})\) )?\[([0-9A-Fa-f.:]{2,45})\]"
    rb"(?::\d{1,5})?(?: I=\[\S+)? D=\S+(?: " + _TLS + rb")?(.*)"
)
_REJECTED = re.compile(
    _HOST + rb"(?: I=\[\S+)?(?: U=\S+)?(?: " + _TLS + rb")?(?: CV=\w+)?(?: DN=\"[^\"]*\")?(?: F=<" + _ADDRESS + rb">)?"
    rb" (?:temporarily )?rejected (MAIL|RCPT|(?:after )?DATA|EHLO or HELO [^ <>:]{1,255}|connection)(?: in \S+)?(?: ?<"
    + _ADDRESS
    + rb">)?(?: SIZE=\d+)?: (?:[45]\d\d )?(?:[45]\.\d+\.\d+ )?(.*)"
)
_REFUSED = {
    ENFORCED_SENDER.encode(): "enforced_sender",
    b"Session encryption is required of this mail server": "mail_server_in_plaintext",
    b"Must issue a STARTTLS command first": "inbound_required",
}
_REFUSED_ENDS = tuple(_REFUSED)
# Steps after the handshake: errors at the end of an established session, or while it reads or writes.
_NO_HANDSHAKE = re.compile(
    rb"(?:recv|send|shutdown|SSL_shutdown|tls_close|SSL_read|SSL_write|gnutls_record|gnutls_bye|tls_write|tls_read)"
)
_ALERT = re.compile(rb"fatal alert has been received|SSL routines:[^:]{0,64}:[^:]{0,40} alert (?!close)")
# Exim's own words for how a message came. Others are an administrator's, and say nothing of TLS.
_TLS_PROTOCOLS = (b"esmtps", b"esmtpsa", b"smtps", b"utf8esmtps", b"utf8esmtpsa")
_PLAIN_PROTOCOLS = (b"smtp", b"esmtp", b"esmtpa", b"utf8esmtp", b"utf8esmtpa")
_TLS_FAILED, _TLS_NOT_OFFERED = b"-37", b"-38"
_STARTTLS_REFUSED = b"SMTP error from remote mail server after STARTTLS: "
_ANSWER = re.compile(rb"SMTP error from remote mail server after [^:]{1,40}(?::<[^<>]*>[^:]{0,40})?: [45]\d\d[ -]")
_REPEATED_ENDS = (b" times", b" time")
_DELIVERED = (b"=> ", b"-> ", b">> ")
_MOST_SESSIONS = 20000
_MOST_MESSAGES = 20000
_MOST_DOMAINS = 1000
_MOST_PROTOCOLS = 8
_USUAL = LogPlaces(DEBIAN.logs, (), ("SYSLOG_IDENTIFIER=exim4", "SYSLOG_IDENTIFIER=exim"))


class EximLog:
    """Adapter for Exim."""

    name = "exim"
    through_syslog = False
    stamp = STAMP

    def __init__(
        self,
        tally: Tally,
        since: float,
        until: float,
        shows_tls: Optional[bool] = True,
        places: LogPlaces = _USUAL,
    ) -> None:
        """shows_tls: whether log_selector has C(tls_cipher), without which deliveries do not say if they used TLS.

        None if that is not known: then a line that has it shows that it is logged. places: where Exim logs to.
        """
        self.globs: Sequence[str] = places.patterns
        self.journal_matches: Sequence[str] = places.journal
        self.unread: Sequence[str] = places.unread
        self._tally = tally
        self._since = since
        self._until = until
        self._shows_tls = shows_tls
        self._logged: Optional[bool] = None
        """Whether the latest line over TLS had the cipher. The log may be older than the settings, or of another host."""
        self._sessions: Recent[bool] = Recent(_MOST_SESSIONS)
        self._failures: Recent[tuple[str, bytes, float]] = Recent(_MOST_MESSAGES)
        self._delivered: Recent[set[str]] = Recent(_MOST_MESSAGES)
        self._by_message = False
        self._unknown = False
        self._unknown_protocols: set[str] = set()
        self._headings = Headings(_ENDINGS, _OURS)
        self.skipped = Skipped()
        self.mail_lines = 0
        self.first: Optional[float] = None

    @property
    def skipped_lines(self) -> int:
        """The number of lines that could not be read."""
        return self.skipped.count

    def feed(self, lines: Sequence[bytes], clock: Clock) -> Optional[float]:
        """Count the lines. Return the time of the last line that has one, or None. Never raises."""
        headings, at = self._headings, clock.at
        header, ours = headings.current.pattern.match, headings.ours
        since, until = self._since, self._until
        second, when = b"", None
        others = 0
        before = b""
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
            stamp, _host, process, message = match.groups()
            if stamp[:20] != second:
                second, when = stamp[:20], at(stamp)
            if when is None:
                self.skipped.add(line)
                before = b""
                continue
            if self.first is None:
                self.first = when
            if not since <= when <= until:
                before = b""
                continue
            before = line
            text = line[match.end() :]
            if message:
                mark = text[:3]
                if mark == b"<= ":
                    self._arrived(text, process)
                elif mark in _DELIVERED:
                    if b" H=" in text:
                        self._sent(text, message)
                elif text != b"Completed":
                    self._other(text, message, when)
            elif text.startswith(b"message repeated "):
                self.feed(unpacked(line, match.end()), clock)
            else:
                self._session_line(text, when)
        self.mail_lines += len(lines) - others
        return when

    def _other(self, text: bytes, message: bytes, when: float) -> None:
        """Count what is said of a message beside its arrival and its deliveries."""
        if text[:3] in (b"== ", b"** "):
            self._not_sent(text, message, when)
        elif b" rejected " in text and self._rejected(text, when):
            pass
        elif b"TLS" in text:
            self._failed(text, message, when)

    def unread_lines(self) -> Sequence[Note]:
        """Return a note on the lines that could not be read, if they are many."""
        return self.skipped.notes(self.mail_lines)

    def finish(self) -> None:
        """Do nothing: each line is counted at once."""

    def notes(self) -> Sequence[Note]:
        """Return notes for the report: gaps in the log."""
        found = []
        if self._by_message:
            found.append(
                Note(
                    "sessions_by_message",
                    INBOUND_MAIL,
                    "Exim does not log which messages share a session, so each inbound message counts as one; to tell them "
                    "apart add +incoming_port and +smtp_no_mail to log_selector",
                )
            )
        if self._unknown:
            found.append(
                Note(
                    "outbound_not_logged",
                    OUTBOUND_MAIL,
                    "the log does not show whether outbound sessions used TLS, because log_selector is without tls_cipher; add "
                    "+tls_cipher to it",
                )
            )
        if self._unknown_protocols:
            found.append(
                Note(
                    "inbound_not_logged",
                    INBOUND_MAIL,
                    "the log does not show whether inbound messages used TLS whose protocol is not one of Exim's own "
                    f"({', '.join(sorted(self._unknown_protocols))}); add +tls_cipher to log_selector",
                )
            )
        return found

    def _arrived(self, text: bytes, process: Optional[bytes]) -> None:
        if b" H=" not in text:
            return  # a message from this host
        match = _ARRIVED.match(text)
        if not match or text.count(b" P=") != 1:  # a HELO may look like the next fields, if Exim accepts every HELO
            self.skipped.add(text)
            return
        sender, host, _helo, address, port, protocol, version, cipher = match.groups()
        if is_loopback(address):
            return
        if version or protocol in _TLS_PROTOCOLS:
            tls: Optional[bool] = True
            if version or b" X=" not in text[match.end() :]:
                self._logged = bool(version)
        else:
            tls = False if protocol in _PLAIN_PROTOCOLS else None
        if tls is None and len(self._unknown_protocols) < _MOST_PROTOCOLS:
            self._unknown_protocols.add(protocol.decode("ascii", "replace"))
        peer = domain_of_host(host or b"", address)
        domain = (domain_of_address(sender) if sender else "") or peer
        self._tally.peer(INBOUND_MAIL, domain).message(tls)
        session = (process or b"", address, port or b"") if process or port else None
        if session is None:
            self._by_message = True
        elif self._sessions.get(session):
            return
        else:
            self._sessions.put(session, True)
        self._tally.peer(INBOUND_MAIL, peer).session(tls, _version(version), cipher or b"")

    def _sent(self, text: bytes, message: bytes) -> None:
        match = _SENT.match(text)
        domain = domain_of_address(match.group(2)) if match else ""
        if not match or not domain:
            self.skipped.add(text)
            return
        mark, _to, _of, _original, host, address, kept, version, cipher = match.groups()
        if is_loopback(address):
            return
        tls = self._used_tls(version, text[match.end() :])
        self._unknown |= tls is None
        counts = self._tally.peer(OUTBOUND_MAIL, domain)
        self._add_failure(counts, message, host)
        if mark != b"->":
            if not kept:
                counts.session(tls, _version(version), cipher or b"")
            counts.message(tls)
            self._delivered.put(message, {domain})
            return
        domains = self._delivered.get(message)  # further recipients of the former delivery
        if domains is None or (domain not in domains and len(domains) < _MOST_DOMAINS):
            counts.message(tls)
            if domains is not None:
                domains.add(domain)

    def _used_tls(self, version: Optional[bytes], behind: bytes) -> Optional[bool]:
        """Return whether a line shows TLS; None if it does not tell, because of log_selector or of a field that is not known.

        behind: the rest of the line. What the other side said follows C= in it.
        """
        if version:
            self._logged = True
            return True
        shown = self._shows_tls if self._logged is None else self._logged and self._shows_tls is not False
        return False if shown and b" X=" not in behind.partition(b" C=")[0] else None

    def _not_sent(self, text: bytes, message: bytes, when: float) -> None:
        match = _NOT_SENT.match(text)
        domain = domain_of_address(match.group(2)) if match else ""
        if not match or not domain:
            if b"TLS" in text:
                self.skipped.add(text)
            return
        mark, _to, _original, number, host, _address, number_behind, _tls, _cipher, said = match.groups()
        number = number or number_behind
        counts = self._tally.peer(OUTBOUND_MAIL, domain)
        self._add_failure(counts, message, host)
        if number == _TLS_NOT_OFFERED:
            reason = "no_starttls_offered" if b"did not offer" in said[:200] else "starttls_refused"
        elif said.startswith(b"DANE error"):
            reason = "dane_failed"
        elif number == _TLS_FAILED:
            reason = reason_of(said)
            counts.event("failures", reason, said, when)
        elif said.startswith(_STARTTLS_REFUSED):
            reason = "starttls_refused"
        else:
            answer = _ANSWER.match(said)
            if not answer or not refused_without_tls(said[answer.end() :]):
                return
            reason = "peer_requires_tls"
        if mark == b"==":
            counts.event("deferrals", reason, said, when)
        elif number != _TLS_FAILED:
            counts.event("failures", reason, said, when)

    def _failed(self, text: bytes, message: bytes, when: float) -> None:
        """Store a handshake that failed before a delivery. The next line of the message has the domain."""
        fallen_back = _FALLEN_BACK.match(text)
        if fallen_back:
            said, host = fallen_back.groups()
            self._failures.put((message, host), (reason_of(said), text[:MOST_TEXT], when))
            return
        match = _ERROR_TO.match(text)
        if match and _in_handshake(match.group(3)):
            host, _address, said = match.groups()
            self._failures.put((message, host), (reason_of(said), text[:MOST_TEXT], when))

    def _add_failure(self, counts: Counts, message: bytes, host: Optional[bytes]) -> None:
        failure = self._failures.pop((message, host)) if host else None
        if failure:
            counts.event("failures", *failure)

    def _session_line(self, text: bytes, when: float) -> None:
        if text.startswith(b"TLS error on connection from "):
            match = _ERROR_FROM.match(text)
            if not match:
                self.skipped.add(text)
                return
            host, _helo, address, step, said = match.groups()
            if not is_loopback(address) and _in_handshake(step, said):
                counts = self._tally.peer(INBOUND_MAIL, domain_of_host(host or b"", address))
                counts.event("failures", reason_of(step + said), step + said, when)
        elif b" rejected " in text:
            self._rejected(text, when)
        elif text.startswith(b"no MAIL in "):
            match = _NO_MAIL.match(text)
            if match and text.count(b" D=") == 1 and not is_loopback(match.group(3)):
                host, _helo, address, version, cipher, behind = match.groups()
                counts = self._tally.peer(INBOUND_MAIL, domain_of_host(host or b"", address))
                counts.session(self._used_tls(version, behind), _version(version), cipher or b"")

    def _rejected(self, text: bytes, when: float) -> bool:
        """Count mail that was refused in plaintext; return whether the line tells of a refusal. The words may be an administrator's."""
        match = _REJECTED.match(text)
        if not match:
            if text.endswith(_REFUSED_ENDS):
                self.skipped.add(text)
            return False
        host, _helo, address, _port, tls, _cipher, envelope_sender, verb, sender, said = match.groups()
        if tls:  # what it wants is another version, or a certificate
            return True
        reason = _REFUSED.get(said) or ("inbound_required" if refused_without_tls(said) else None)
        if reason is not None and not is_loopback(address):
            domain = domain_of_address(sender if verb == b"MAIL" else envelope_sender or b"")
            domain = domain or domain_of_host(host or b"", address)
            self._tally.peer(INBOUND_MAIL, domain).event("refusals", reason, text, when)
        return True


def _in_handshake(step: bytes, said: bytes = b"") -> bool:
    """Whether an error belongs to the handshake. In TLS 1.3, a client refuses the certificate when the server has ended its own."""
    return not _NO_HANDSHAKE.match(step) or _ALERT.search(step + said) is not None


def settings_of(run: Runner) -> Optional[dict[str, str]]:
    """Return what Exim says of its log; None if there is no Exim that tells."""
    try:
        status, out, _err = run(["exim4", "-bP", "log_selector", *LOG_OPTIONS])
    except FileNotFoundError:  # the log of another host: its settings are not known
        return None
    return parse_settings(out) if status == 0 else None


def shows_tls(settings: Optional[Mapping[str, str]]) -> Optional[bool]:
    """Whether Exim's log_selector has C(tls_cipher), which is its default; None if that is not known."""
    if settings is None:
        return None
    shown = True
    for sign, name in re.findall(r"([+-])(\w+)", settings.get("log_selector", "")):
        if name in ("tls_cipher", "all"):
            shown = sign == "+"
    return shown


@lru_cache(maxsize=64)
def _version(name: Optional[bytes]) -> bytes:
    """Return Exim's version name in OpenSSL's spelling: C(TLS1.3) becomes C(TLSv1.3)."""
    return re.sub(rb"\A(TLS|SSL)v?", rb"\1v", name) if name else b""
