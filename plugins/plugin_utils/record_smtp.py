# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record what a mail server answers, without names, addresses and tokens, for those who write tests: a program of one file.

    python3 record_smtp.py HOST[:PORT]... [--sender ADDRESS --recipient ADDRESS...] [--certificate FILE [--key FILE]]

It talks to each server three times: in plaintext, inside TLS, and in a TLS session that is resumed. It sends EHLO, STARTTLS, MAIL,
RCPT, RSET and QUIT, and no message. Nothing of the collection is needed, nor anything else but Python 3.9: it can be copied to a host
that reaches the server. Read what it prints before you hand it on.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Optional

_PATIENCE = 30.0
"""Seconds for a connection, a handshake and each reply."""
_MAX_LINES, _MAX_LINE = 100, 2000
"""Of a reply; what is longer is cut, and the connection given up."""

VERBS = ("EHLO", "STARTTLS", "MAIL", "RCPT", "RSET", "QUIT")

_ADDRESS = re.compile(r"[!-;=?-~]{1,200}@[A-Za-z0-9.-]{1,200}\Z")
_HELO = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}\Z")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_STATUS = re.compile(r"(\d{3}[ -])?([245]\.\d{1,3}\.\d{1,3} )?")
_KNOWN_GREETING = re.compile(
    r"(Microsoft ESMTP MAIL Service(, Version: [\d.]+)?( ready at .*)?|ESMTP( Postfix| Exim)?)\Z"
)
_DATE = re.compile(r"\b(\w{3}, )?\d{1,2} \w{3} \d{4} [\d:]{5,8}( [+-]\d{4})?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z?\Z")
_BETWEEN = re.compile(r"([\s\[\](){}<>,;\"']+)")
_KEPT = re.compile(r"(8BITMIME|SMTPUTF8|TLSv?1[._]?\d?|CRAM-MD5|XOAUTH2)\Z")
"""Words of letters and digits that are no tokens."""
_MAX_WORD = 60
_LABEL_ENDS = re.compile(r"[^A-Za-z0-9]")
_COMMON = frozenset(
    (
        "mail", "smtp", "mx", "relay", "server", "host", "exchange", "online", "outlook", "protection", "office", "local", "internal",
        "test", "example", "in", "is", "it", "no", "not", "of", "on", "or", "to", "at", "by", "be", "a", "an", "the", "for", "from",
        "hello", "ok", "service", "send", "sender", "recipient", "access", "denied", "tls", "starttls",
    )
)  # fmt: skip
"""Labels of host names that are words as well: they stay where they stand alone."""


class RecordError(Exception):
    """What was asked for cannot be done; the text says why."""


class Mask:
    """Takes out of a line what must not get into a record."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._labels: set[str] = set()
        for name in names:
            self.learn(name)

    def learn(self, name: str) -> None:
        """Have a host's or domain's name, and its labels, masked from now on. The last label, as .com, says nothing."""
        labels = [label for label in name.lower().split(".") if label]
        words = {
            word
            for label in (labels[:-1] if len(labels) > 1 else labels)
            for word in (label, *_LABEL_ENDS.split(label))
        }
        self._labels |= words - _COMMON - {""}

    def line(self, text: str) -> str:
        """The line without names, addresses, times and tokens; its codes and words stay."""
        status = _STATUS.match(text)
        head = status[0] if status else ""
        pieces = _BETWEEN.split(_DATE.sub("<time>", text[len(head) :]))
        words = [
            self._word(one, index > 1 and pieces[index - 2] == "SIZE")
            for index, one in enumerate(pieces)
            if index % 2 == 0
        ]
        pieces[::2] = words
        masked = "".join(pieces).replace("<<", "<").replace(">>", ">")
        return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", head + masked)

    def _word(self, word: str, is_size: bool) -> str:
        """A word, or what stands for it. It has no blanks, brackets or quotes."""
        bare = word.rstrip(".:")
        end = word[len(bare) :]
        if len(bare) > _MAX_WORD:
            return "<token>"
        if "://" in bare:
            return f"<url>{end}"
        if "@" in bare:
            return f"<address>{end}"
        if _TIME.match(bare):
            return f"<time>{end}"
        if _is_ip(bare):
            return f"<ip>{end}"
        for between in ("=", ":"):
            if between in bare:
                return between.join(self._word(one, False) for one in bare.split(between)) + end
        return self._simple(bare, is_size) + end

    def _simple(self, bare: str, is_size: bool) -> str:
        if _KEPT.match(bare) or (is_size and bare.isdigit()):
            return bare
        if "." in bare and any(one.isalpha() for one in bare.rpartition(".")[2]):
            return "<name>"
        if any(part.lower() in self._labels for part in _LABEL_ENDS.split(bare)):
            return "<name>"
        if bare.isdigit():
            return bare if len(bare) < 5 else "<number>"
        letters, digits = (any(test(one) for one in bare) for test in (str.isalpha, str.isdigit))
        return "<token>" if letters and digits and len(bare) > 2 else bare

    def greeting(self, text: str) -> str:
        """A greeting or the first line of an answer to EHLO: its first word is the server's name. A text of its own goes as a whole."""
        head, word, rest = text[:4], *text[4:].partition(" ")[::2]
        if head[:3] not in ("220", "250"):
            return self.line(text)
        self.learn(word)
        if rest and not (_KNOWN_GREETING.match(rest) or rest.startswith("Hello [")):
            return f"{head}<name> <a text of its own, {len(rest)} characters>"
        return self.line(f"{head}<name>{' ' + rest if rest else ''}")


@dataclass
class Wire:
    """One connection: sends commands, reads replies within their limits. Raises OSError."""

    connection: socket.socket
    buffer: bytearray = field(default_factory=bytearray)

    def reply(self) -> list[str]:
        """The lines of the next reply. Raises OSError if it does not come in time, is no reply or too long."""
        deadline = time.monotonic() + _PATIENCE
        lines: list[str] = []
        while len(lines) < _MAX_LINES:
            line = self._line(deadline)
            lines.append(line)
            if not re.match(r"\d{3}-", line):
                return lines
        raise OSError(f"the reply has more than {_MAX_LINES} lines")

    def _line(self, deadline: float) -> str:
        while b"\n" not in self.buffer:
            if len(self.buffer) > _MAX_LINE:
                raise OSError(f"a line has more than {_MAX_LINE} characters")
            self.connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.connection.recv(4096) if time.monotonic() < deadline else None
            except socket.timeout:
                data = None
            if data is None:
                raise OSError(f"no whole reply within {_PATIENCE:.0f} seconds")
            if not data:
                raise OSError("the server closed the connection")
            self.buffer += data
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer[:] = rest
        return line[:_MAX_LINE].rstrip(b"\r").decode("latin-1")

    def send(self, command: str) -> None:
        """Send a command, one of VERBS."""
        if command.split(" ", maxsplit=1)[0] not in VERBS or re.search(r"[\r\n]", command):
            raise RecordError(f"{command!r} is no command of this program")
        self.connection.settimeout(_PATIENCE)
        self.connection.sendall(f"{command}\r\n".encode("ascii"))


@dataclass(frozen=True)
class Wishes:
    """What is asked besides: the envelope, and the client certificate. helo: our name."""

    helo: str
    sender: str = ""
    recipients: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        if not _HELO.match(self.helo):
            raise RecordError(f"--helo: {self.helo!r} is not a host name")
        for one in filter(None, (self.sender, *self.recipients)):
            if not _ADDRESS.match(one):
                raise RecordError(f"{one!r} is not an e-mail address (write it in ASCII)")
        if self.recipients and not self.sender:
            raise RecordError("--recipient goes with --sender")


class Recorder:
    """Records one server; say gets each line of the record, masked."""

    def __init__(self, host: str, port: int, wishes: Wishes, say: Callable[[str], None]) -> None:
        self._place, self._wishes, self._say = (host, port), wishes, say
        domains = [one.partition("@")[2] for one in (wishes.sender, *wishes.recipients)]
        self.mask = Mask([host, wishes.helo, *domains])
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # its answers are wanted, whatever its certificate is
        if wishes.certificate:
            try:
                self._context.load_cert_chain(wishes.certificate, wishes.key or None)
            except (OSError, ValueError) as error:
                raise RecordError(
                    f"{wishes.certificate}: the certificate or its key cannot be read: {error}"
                ) from error

    def run(self) -> bool:
        """Record all three connections; whether each came to its end."""
        session: Optional[ssl.SSLSession] = None
        complete = True
        for title in ("plaintext", "TLS", "TLS, resumed"):
            if title == "TLS, resumed" and session is None:
                self._say("-- no session to resume")
                break
            self._say(f"== {title}")
            try:
                session = self._talk(title != "plaintext", session)
            except (OSError, UnicodeError) as error:
                self._say(f"-- ended: {_fault(error)}")
                complete = False
        return complete

    def _talk(self, tls: bool, session: Optional[ssl.SSLSession]) -> Optional[ssl.SSLSession]:
        with socket.create_connection(self._place, _PATIENCE) as connection:
            wire = Wire(connection)
            if not self._hear(wire, first=True).startswith("2"):
                return None
            if not tls:
                self._ask(wire, f"MAIL FROM:<{self._wishes.sender}>")  # before EHLO: how does it refuse?
            offered = self._ask(wire, f"EHLO {self._wishes.helo}", first=True)
            if not tls:
                self._envelope(wire, recipients=())
                return None
            if "STARTTLS" not in offered.upper() or not self._ask(wire, "STARTTLS").startswith("220"):
                self._ask(wire, "QUIT")
                return None
            connection.settimeout(_PATIENCE)
            with self._context.wrap_socket(connection, server_hostname=self._sni(), session=session) as secure:
                cipher = secure.cipher()
                session_is = "resumed" if secure.session_reused else "new session"
                self._say(f"-- {secure.version()}, {cipher[0] if cipher else 'no cipher'}, {session_is}")
                inside = Wire(secure)
                self._ask(inside, f"EHLO {self._wishes.helo}", first=True)
                self._envelope(inside, self._wishes.recipients)
                return secure.session

    def _sni(self) -> Optional[str]:
        return None if _is_ip(self._place[0]) else self._place[0]

    def _envelope(self, wire: Wire, recipients: Sequence[str]) -> None:
        if self._wishes.sender:
            accepted = self._ask(wire, f"MAIL FROM:<{self._wishes.sender}>").startswith("2")
            for number, recipient in enumerate(recipients if accepted else (), 1):
                self._ask(wire, f"RCPT TO:<{recipient}>", shown=f"RCPT TO:<recipient {number}>")
            self._ask(wire, "RSET")
        self._ask(wire, "QUIT")

    def _ask(self, wire: Wire, command: str, first: bool = False, shown: str = "") -> str:
        self._say(f"C: {shown or self._shown(command)}")
        wire.send(command)
        return self._hear(wire, first)

    def _hear(self, wire: Wire, first: bool = False) -> str:
        lines = wire.reply()
        masked = [
            self.mask.greeting(line) if first and not number else self.mask.line(line)
            for number, line in enumerate(lines)
        ]
        for line in masked:
            self._say(f"S: {line}")
        return "\n".join(lines)

    def _shown(self, command: str) -> str:
        return (
            re.sub(r"<[^<>]*>", "<sender>", command)
            if command.startswith("MAIL")
            else command.replace(self._wishes.helo, "<name>")
        )


def _is_ip(word: str) -> bool:
    """Whether it is an address, or looks like one of IPv6."""
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return word.count(":") > 1 and all(one in "0123456789abcdefABCDEF:.%" for one in word.removeprefix("IPv6:"))
    return True


def _fault(error: Exception) -> str:
    """What went wrong, without what the server or the system said of itself."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "the name cannot be resolved"
    if isinstance(error, socket.timeout):
        return f"nothing came within {_PATIENCE:.0f} seconds"
    return str(getattr(error, "strerror", None) or error)


def _places(given: Sequence[str]) -> Iterator[tuple[str, int]]:
    for one in given:
        found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::(\d{1,5}))?", one)
        if not found or not 0 < int(found[3] or 25) < 65536:
            raise RecordError(f"{one!r} is not HOST or HOST:PORT (an IPv6 address in brackets)")
        yield found[1] or found[2], int(found[3] or 25)


def main(words: Sequence[str]) -> int:
    """Record what was asked for; the status: 0 all of it, 1 not all, 2 wrong words."""
    parser = argparse.ArgumentParser(
        description="Record what a mail server answers: no message is sent, names are masked."
    )
    parser.add_argument("servers", nargs="+", metavar="HOST[:PORT]")
    parser.add_argument("--sender", default="", help="an address for MAIL FROM")
    parser.add_argument(
        "--recipient", action="append", default=[], help="an address for RCPT TO; may be given several times"
    )
    parser.add_argument("--certificate", default="", help="PEM file of a client certificate, with its intermediates")
    parser.add_argument("--key", default="", help="its private key, if that has a file of its own")
    parser.add_argument("--helo", default=socket.getfqdn(), help="the name to say in EHLO (default: this host's)")
    given = parser.parse_args(words)
    complete = True
    try:
        wishes = Wishes(given.helo, given.sender, tuple(given.recipient), given.certificate, given.key)
        for number, (host, port) in enumerate(_places(given.servers), 1):
            print(f"=== server {number}, port {port}; client certificate: {'yes' if given.certificate else 'no'}")
            complete &= Recorder(host, port, wishes, print).run()
    except RecordError as error:
        print(f"record_smtp: {error}", file=sys.stderr)
        return 2
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
