# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the writers of Received headers say of TLS, and of a message that stayed on their host.

A header has text of the client: its EHLO name before C(by), addresses and certificate names around it. Between C(by) and
the first address behind it, only the writer has chosen the text. So what stands there proves TLS, whatever the protocol is
called. Before C(by), and behind an address, a version is only believed if the protocol says TLS; the few writers that tell
TLS nowhere else are known by their name.

A protocol without TLS proves plaintext only if the writer is known to write another one for TLS. Many are not: qmail, Amazon
SES and Domino write C(SMTP) for both.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Optional

POSTFIX_FORM, EXIM_FORM, EXCHANGE_FORM, HARAKA_FORM, SENDMAIL_FORM, JAMES_FORM, SERVICE_FORM, UNKNOWN_FORM = (
    "postfix", "exim", "exchange", "haraka", "sendmail", "james", "service", "unknown",
)  # fmt: skip
_FORM_OF_COMMENT = tuple(
    (form, re.compile(pattern))
    for form, pattern in (
        (POSTFIX_FORM, r" \(Postfix"),
        (HARAKA_FORM, r" \(Haraka"),
        (SENDMAIL_FORM, r" \(\d+\.\d[\w.]*/[^()]*\)\Z"),
        ("proofpoint", r" \(PPS\)\Z"),
        ("opensmtpd", r" \(OpenSMTPD\)\Z"),
        ("stalwart", r" \(Stalwart"),
        ("dovecot", r" \(Dovecot\)\Z"),
        ("cyrus", r" \(Cyrus "),
        ("communigate", r" \(CommuniGate Pro SMTP "),
        ("kerio", r" \(Kerio Connect "),
        ("axigen", r" \(Axigen"),
        (JAMES_FORM, r" \(JAMES SMTP Server"),
    )
)
"""The comment between C(by) and C(with) that only one product writes."""
_FORM_OF_ID = (
    ("courier", re.compile(r" id [0-9A-F]{16}\.[0-9A-F]{12,16}\.[0-9A-F]{8}(?![^\s;])")),
    ("gmail", re.compile(r" id [\w-]+\.\d+\.\d{4}(?:\.\d\d){5}(?![^\s;])")),
    ("dovecot", re.compile(r" id [\w+/=:-]+ \(envelope-from <")),
)
"""The ID that only one product writes, for products that do not give their name."""
_SILENT = (UNKNOWN_FORM, JAMES_FORM)
"""The forms whose plain protocol says nothing of TLS."""

_TLS_PROTOCOL = re.compile(
    r"(?:(?:E?SMTP|LMTP|UTF8E?SMTP|UTF8LMTP)SA?|HTTPS|E?SMTPA?-TLS|(?:IMAP4|POP3)-SSL)\Z", re.IGNORECASE
)
_PLAIN_PROTOCOL = re.compile(r"(?:E?SMTP|LMTP|UTF8E?SMTP|UTF8LMTP|ASMTP)A?\Z", re.IGNORECASE)
_NOT_A_NETWORK = ("local", "mapi", "spamassassin")

_COMMENT = r"\((?:[^()]|\([^()]*\))*\)"
# The receiving side, up to the protocol.
_RECEIVER = re.compile(
    r"by (?P<by>[^\s;()]+)(?P<comments>(?: " + _COMMENT + r"){0,3})(?: via [^\s;()]+)?(?: pod-id [^\s;()]+)?"
    r"(?P<channel> over TLS secured channel)?"
    r"(?: with (?:(?P<exchange>Microsoft SMTP Server)"
    r"(?: \((?:(?P<bare>TLS)|version=(?P<version>[^\s,()]+), cipher=(?P<cipher>[^\s,()]+))\))?"
    r"|(?P<iis>Microsoft SMTPSVC)(?:\([\d.]+\))?"
    r"|(?:MailEnable |\((?P<encrypted>[^\s()]+) encrypted\) )?(?P<protocol>[A-Za-z0-9_-]+)"
    r"(?:/TLS/(?P<suite>[A-Za-z0-9_-]+))?)(?![^\s;]))?",
    re.IGNORECASE,
)
# What follows the protocol, as far as its parts are known.
_PART = re.compile(
    r" (?:(?P<comment>" + _COMMENT + r")|id (?P<id>[^\s;()]+)|tls (?P<cipher>[^\s;()]+)|(?P<starttls>with STARTTLS)"
    r"|(?:for|envelope-from) (?:<[^\s<>()\";]*>|[^\s<>()\";]+))(?![^\s;])",
    re.IGNORECASE,
)
_EXIM = re.compile(r"\(Exim ", re.IGNORECASE)
_ADDRESS_COMMENT = re.compile(r"\((?:envelope-from <[^\s<>()\"]*>|authenticated bits=\d+)\)", re.IGNORECASE)
_NUMBER_COMMENT = re.compile(r"\((?:\[?(?:IPv6:)?[0-9a-f:.]+\]?|v\d[\d,.]*)\)", re.IGNORECASE)
_PRODUCT_COMMENT = re.compile(r"\((?!(?:HELO|EHLO|LHLO|envelope)\b)[^<>\"@=]*\)", re.IGNORECASE)
_CELLOPOINT = "(Cellopoint "  # writes TLS behind the sender's address
_V = r"((?:TLS|SSL)[\w.\\/]{0,15}\d[\w.\\/]{0,15})"
_TOLD = tuple(
    re.compile(rf"\({pattern}\)", re.IGNORECASE)
    for pattern in (
        rf"using {_V} with cipher ([^\s(),]+)(?: .{{0,500}})?",
        rf"using (?:TLS: )?{_V}(?:, ([^\s(),]+))?",
        rf"(?:AUTH: [^()]*, )?(?:TLS|SSL): {_V},\d+bits,([^\s(),]+)",
        rf"version={_V},? cipher=([^\s(),]+)(?:,? [^()]*)?",
        r"()cipher=([^\s(),]+) verify=[^()]*",
        rf"{_V}(?::([^\s():]+)(?::[^()]*)?)?",
        rf"Cellopoint [^()]* with {_V} ([^\s()]+) \d+/\d+",
    )
)
"""How comments name version and cipher: Postfix, MailMarshal, Courier, sendmail, old Haraka, Exim and OpenSMTPD, Cellopoint."""

# The sending side: a name, a comment about the connection, and comments about TLS and the login without an address.
_SENDER = re.compile(
    r"from \S+(?: " + _COMMENT + r")?"
    r"(?P<more>(?: \((?:using|TLS:|AUTH:|Client|No client certificate|Authenticated sender:)"
    r"(?:[^()\[\]]|\((?:[^()\[\]]|\([^()\[\]]*\))*\))*\)){0,3})\Z",
    re.IGNORECASE,
)
_SENDER_COMMENT = re.compile(r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")
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
# qmail and its kin write the client's own name in a comment, and the address in another one behind it.
_QMAIL_PEER = re.compile(
    r"from \S+ \([HEL]{2}LO [^()]*\) \((?:[^\s()@]*@)?\[?(?P<address>[0-9a-f:.]+)\]?\)\Z", re.IGNORECASE
)
_SOCKET = re.compile(r"from \S+ \((?:\S+ )?\[unix socket\]\)\Z", re.IGNORECASE)
_OWN_ADDRESS = re.compile(r"from \S+ \(\[?([0-9a-f:.%]+)\]?\)\Z", re.IGNORECASE)
_NAME = re.compile(r"from (\S+)", re.IGNORECASE)
_NAMELESS = re.compile(r"from \S+\Z", re.IGNORECASE)
_EXIM_USER = re.compile(r"from [^\s()\[\]]+\Z", re.IGNORECASE)
_BARE_ADDRESS = re.compile(r"from \S+ \([0-9a-f:.]+\)\Z", re.IGNORECASE)

# Services and servers that tell TLS before "by". Only their own text stands in that place.
_SERVICE_HOST = re.compile(r"exprod\w+\.", re.IGNORECASE)
_SERVICE_TLS = re.compile(r"from \S+ \(\[[0-9a-f:.]+\]\) \(using ((?:TLS|SSL)v?[\d.]+)\)\Z", re.IGNORECASE)
_MESSAGELABS_HOST = re.compile(r"server-\d+\.bemta-", re.IGNORECASE)
_MESSAGELABS_TLS = re.compile(r"from \[[0-9a-f:.]+\] (\(using [^()]+ \(\d+ bits\)\))\Z", re.IGNORECASE)
_JAMES_TLS = re.compile(r"\(\[[0-9a-f:.]+\]\) (\(using [^()]+\))\Z", re.IGNORECASE)
_VERSION = re.compile(r"(TLS|SSL)v?(\d)[._]?(\d)?(?![\w.])", re.IGNORECASE)


@dataclass(frozen=True)
class HeaderReading:
    """One possible reading of a header. It begins at one C(by). tls: None if it cannot be told."""

    by: str = ""
    protocol: str = ""
    tls: Optional[bool] = None
    version: str = ""
    cipher: str = ""
    writer: str = UNKNOWN_FORM
    before: str = ""
    """The sending side, up to C(by)."""
    local: bool = False
    """Whether the message came from the host itself: from a program, over the loopback, or through a socket."""


@dataclass
class _Told:
    """What the parts of a header say. proved: whether one of them stands where a client cannot write."""

    proved: bool = False
    version: str = ""
    cipher: str = ""
    exim: bool = False
    own: bool = True

    def comment(self, text: str) -> bool:
        """Read a comment. Return False if nothing behind it can be believed."""
        found = _told(text)
        if found:
            self.add(*found)
            self.proved |= text.startswith(_CELLOPOINT)
        elif _EXIM.match(text):
            self.exim = True
        elif _ADDRESS_COMMENT.fullmatch(text):
            self.own = False
        elif not _NUMBER_COMMENT.fullmatch(text):
            return False
        return True

    def add(self, version: str, cipher: str) -> None:
        self.proved |= self.own
        self.version, self.cipher = self.version or version, self.cipher or cipher


def read(text: str, start: int) -> HeaderReading:
    """Read a header whose C(by) stands at start. The text has single blanks only."""
    match = _RECEIVER.match(text, start)
    if not match:
        return HeaderReading()
    before = text[: match.start()].rstrip()
    behind = text[match.end() :]
    reading = _service(match, before) or _microsoft(match, before) or _server(match, before, behind)
    return replace(reading, local=_stays_on_the_host(reading, match["comments"]))


def _service(match: re.Match[str], before: str) -> Optional[HeaderReading]:
    """Read the header of a service that says in a comment of its own before C(by) whether TLS was used."""
    by, name = match["by"], match["protocol"] or ""
    if name.upper() not in ("", "SMTP", "ESMTP") or match["exchange"] or match["iis"]:
        return None
    if _SERVICE_HOST.match(by):
        used = _SERVICE_TLS.match(before)
        return HeaderReading(by, name, bool(used), used[1] if used else "", "", SERVICE_FORM, before)
    if _MESSAGELABS_HOST.match(by):
        used = _MESSAGELABS_TLS.match(before)
        told = _told(used[1]) if used else None
        return HeaderReading(by, name, True if told else None, *(told or ("", "")), UNKNOWN_FORM, before)
    return None


def _microsoft(match: re.Match[str], before: str) -> Optional[HeaderReading]:
    """Read the header of Exchange, and that of the SMTP service of Windows."""
    if not (match["exchange"] or match["iis"]):
        return None
    tls = bool(match["bare"] or match["version"] or match["channel"])
    name = "ESMTPS" if tls else "ESMTP"
    return HeaderReading(match["by"], name, tls, match["version"] or "", match["cipher"] or "", EXCHANGE_FORM, before)


def _server(match: re.Match[str], before: str, behind: str) -> HeaderReading:
    name, comments = match["protocol"] or "", match["comments"]
    told = _read_parts(comments, behind)
    if match["encrypted"] or match["suite"]:
        told.proved = True
        told.cipher = match["encrypted"] or match["suite"]
    writer = _form(match, before, behind, told)
    if writer == JAMES_FORM:
        used = _JAMES_TLS.search(before)
        found = _told(used[1]) if used else None
        if found:
            told.proved, (told.version, told.cipher) = True, found
    says_tls = bool(_TLS_PROTOCOL.match(name))
    sender = _SENDER.match(before)
    if says_tls and sender and not told.version:
        found_before = list(filter(None, map(_told, _SENDER_COMMENT.findall(sender["more"]))))
        if len(found_before) == 1:
            told.version, told.cipher = found_before[0]
    tls: Optional[bool] = None
    if says_tls or told.proved:
        tls = True
    elif writer not in _SILENT and _PLAIN_PROTOCOL.match(name):
        tls = False
    return HeaderReading(match["by"], name, tls, told.version, told.cipher, writer, before)


def _read_parts(comments: str, behind: str) -> _Told:
    """Read the comments between C(by) and the protocol, and the parts behind it, up to the first one that is not known."""
    told = _Told()
    for number, text in enumerate(re.findall(_COMMENT, comments)):
        if not told.comment(text) and (number or not _PRODUCT_COMMENT.fullmatch(text)):
            return told
    position = 0
    while part := _PART.match(behind, position):
        position = part.end()
        if part["comment"]:
            if not told.comment(part["comment"]):
                break
        elif part["starttls"]:
            told.add("", "")
        elif part["cipher"]:
            told.add("", part["cipher"])
        elif not part["id"]:
            told.own = False
    return told


def _form(match: re.Match[str], before: str, behind: str, told: _Told) -> str:
    name = match["protocol"] or ""
    if told.exim:
        return EXIM_FORM
    if name.lower() == "mapi" or (name.upper() == "HTTPS" and _BARE_ADDRESS.match(before)):
        return EXCHANGE_FORM
    known = (form for form, pattern in _FORM_OF_COMMENT if pattern.match(match["comments"]))
    by_id = (form for form, pattern in _FORM_OF_ID if name.isupper() and pattern.match(behind))
    return next(known, "") or next(by_id, UNKNOWN_FORM)


def _told(comment: str) -> Optional[tuple[str, str]]:
    """Return version and cipher if a comment is about TLS, else None."""
    found = next((match for match in (pattern.fullmatch(comment) for pattern in _TOLD) if match), None)
    return (found[1], found[2] or "") if found else None


def _stays_on_the_host(reading: HeaderReading, comments: str) -> bool:
    protocol, before = reading.protocol.lower(), reading.before
    if protocol in _NOT_A_NETWORK or _SOCKET.match(before):
        return True
    if reading.writer == EXIM_FORM and _EXIM_USER.match(before):
        return True
    if reading.writer == EXCHANGE_FORM:
        peer = _OWN_ADDRESS.match(before)
        if peer and peer[1] == comments.strip(" ()[]"):
            return True
    if "lmtp" in protocol and (_NAMELESS.match(before) or _calls_itself(before, reading.by)):
        return True
    qmail = _QMAIL_PEER.match(before)
    if qmail and reading.writer != EXIM_FORM:
        return is_loopback(qmail["address"])
    peer = (_EXIM_PEER if reading.writer == EXIM_FORM else _PEER).match(before)
    return bool(peer and is_loopback(peer["address"] or peer["bare"]) and _SENDER.match(before))


def _calls_itself(before: str, by: str) -> bool:
    """Whether the client has the name of the receiving host. Of LMTP, which no stranger can use, that means the host itself."""
    name = _NAME.match(before)
    return name is not None and name[1].lower() == by.lower()


def is_loopback(text: str) -> bool:
    """Whether the text is an address of the loopback, also as IPv4 in IPv6."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def version_of(text: str) -> str:
    """Return a version in OpenSSL's spelling: C(TLSv1.2), C(TLSv1), C(SSLv3); empty for other text."""
    match = _VERSION.match(text.rpartition("\\")[2])
    if not match:
        return ""
    minor = match[3] if match[3] not in (None, "0") else ""
    return f"{match[1].upper()}v{match[2]}{f'.{minor}' if minor else ''}"
