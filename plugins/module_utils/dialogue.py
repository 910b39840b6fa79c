# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's half of an SMTP dialogue up to and after STARTTLS, without any input or output.

A caller feeds the bytes that arrived and sends the bytes that come back, so the same code serves
any transport and every branch can be tested with literals. Sources: RFC 5321 section 4.2 (replies),
RFC 3207 (STARTTLS).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Optional

MAX_LINE = 4096
MAX_LINES = 256
MAX_REPLY = 65536


class Stage(IntEnum):
    """How far a handshake test came; each stage includes those before it."""

    CONNECT = 0
    GREETING = 1
    EHLO = 2
    STARTTLS_ADVERTISED = 3
    STARTTLS_ANSWERED = 4
    TLS = 5
    EHLO_TLS = 6

    @property
    def label(self) -> str:
        """The name used in results, for example C(starttls_answered)."""
        return self.name.lower()


class DialogueError(Exception):
    """The dialogue cannot go on; C(code) is a stable word for programs, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def printable(data: bytes, limit: int = 500) -> str:
    """Peer's bytes as text that is safe to show: one line, no control characters, bounded length."""
    text = "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in data[:limit])
    return text + "..." if len(data) > limit else text


@dataclass(frozen=True)
class Reply:
    """One SMTP reply: the three-digit code and the text of each line, made printable."""

    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.code} {' / '.join(self.lines)}".rstrip()


class ReplyReader:
    """Cuts a byte stream into replies and refuses a stream that is endless or not SMTP."""

    def __init__(self) -> None:
        self._buffer = b""
        self._code: Optional[int] = None
        self._lines: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self._buffer += data

    @property
    def rest(self) -> bytes:
        """What arrived and belongs to no reply yet."""
        return self._buffer

    def next_reply(self) -> Optional[Reply]:
        """The next whole reply, or None when more bytes are needed.

        Raises DialogueError(not_smtp) on anything that is not a reply or exceeds the limits.
        """
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if len(line) > MAX_LINE:
                raise DialogueError("not_smtp", f"a reply line is longer than {MAX_LINE} bytes")
            if not newline:
                return None
            self._buffer = rest
            self._size += len(line)
            last = self._take_line(line.rstrip(b"\r"))
            if len(self._lines) > MAX_LINES or self._size > MAX_REPLY:
                raise DialogueError("not_smtp", "the reply does not end")
            if last:
                reply = Reply(int(self._code or 0), tuple(self._lines))
                self._code, self._lines, self._size = None, [], 0
                return reply

    def _take_line(self, line: bytes) -> bool:
        digits, separator = line[:3], line[3:4]
        if not (digits.isdigit() and len(digits) == 3 and separator in (b" ", b"-", b"")):
            raise DialogueError("not_smtp", f"not an SMTP reply: {printable(line, 120)!r}")
        code = int(digits)
        if self._code is not None and code != self._code:
            raise DialogueError("not_smtp", f"a reply changes its code from {self._code} to {code}")
        self._code = code
        self._lines.append(printable(line[4:]))
        return separator != b"-"


class Dialogue:
    """Greeting, EHLO, optionally MAIL in plaintext, STARTTLS; then, inside TLS, EHLO and QUIT.

    Call receive() with what arrived, send what take_output() returns, and start TLS once
    wants_tls is true; tls_started() goes on inside it. done is true when all was said.
    Raises DialogueError: greeting_rejected, ehlo_rejected, starttls_not_offered,
    starttls_refused, plaintext_after_220, ehlo_tls_rejected, not_smtp.
    """

    def __init__(self, helo_name: str, ask_plaintext: bool = False) -> None:
        """Say EHLO as helo_name; with ask_plaintext also find out whether plaintext mail is taken."""
        self.stage = Stage.CONNECT
        self.greeting: Optional[Reply] = None
        self.capabilities: tuple[str, ...] = ()
        self.capabilities_tls: tuple[str, ...] = ()
        self.starttls_reply: Optional[Reply] = None
        self.requires_tls: Optional[bool] = None
        self.wants_tls = False
        self.done = False
        self._helo = re.sub(rb"[^\x21-\x7e]", b"?", helo_name.encode("ascii", "replace"))
        self._ask_plaintext = ask_plaintext
        self._reader = ReplyReader()
        self._output = b""
        self._expect = self._on_greeting

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer: plaintext before TLS, decrypted ones inside it."""
        self._reader.feed(data)
        while not (self.wants_tls or self.done):
            reply = self._reader.next_reply()
            if reply is None:
                return
            self._expect(reply)

    def take_output(self) -> bytes:
        """The bytes to send now; empty when there are none."""
        output, self._output = self._output, b""
        return output

    def tls_started(self) -> None:
        """The TLS handshake is complete: nothing said in plaintext counts any more (RFC 3207, 4.2)."""
        self.stage = Stage.TLS
        self.wants_tls = False
        self._reader = ReplyReader()
        self._say(b"EHLO " + self._helo, self._on_ehlo_tls)

    def _say(self, command: bytes, expect: object) -> None:
        self._output += command + b"\r\n"
        self._expect = expect  # type: ignore[assignment]

    def _on_greeting(self, reply: Reply) -> None:
        self.greeting = reply
        if reply.code != 220:
            raise DialogueError("greeting_rejected", f"the server greets with {reply}")
        self.stage = Stage.GREETING
        self._say(b"EHLO " + self._helo, self._on_ehlo)

    def _on_ehlo(self, reply: Reply) -> None:
        if reply.code != 250:
            raise DialogueError("ehlo_rejected", f"EHLO is answered with {reply}")
        self.stage = Stage.EHLO
        self.capabilities = reply.lines[1:]
        if self._ask_plaintext:
            self._say(b"MAIL FROM:<>", self._on_mail)
        else:
            self._start_tls()

    def _on_mail(self, reply: Reply) -> None:
        if reply.code == 530 or (reply.code >= 400 and "STARTTLS" in str(reply).upper()):
            self.requires_tls = True
        elif reply.code == 250:
            self.requires_tls = False
        self._say(b"RSET", lambda _reply: self._start_tls())

    def _start_tls(self) -> None:
        if not any(line.split(" ")[0].upper() == "STARTTLS" for line in self.capabilities):
            raise DialogueError("starttls_not_offered", "the server does not offer STARTTLS")
        self.stage = Stage.STARTTLS_ADVERTISED
        self._say(b"STARTTLS", self._on_starttls)

    def _on_starttls(self, reply: Reply) -> None:
        self.starttls_reply = reply
        if reply.code != 220:
            raise DialogueError("starttls_refused", f"STARTTLS is offered, then answered with {reply}")
        if self._reader.rest:
            raise DialogueError(
                "plaintext_after_220",
                f"plaintext follows the answer to STARTTLS: {printable(self._reader.rest, 120)!r}",
            )
        self.stage = Stage.STARTTLS_ANSWERED
        self.wants_tls = True

    def _on_ehlo_tls(self, reply: Reply) -> None:
        if reply.code != 250:
            raise DialogueError("ehlo_tls_rejected", f"inside TLS, EHLO is answered with {reply}")
        self.stage = Stage.EHLO_TLS
        self.capabilities_tls = reply.lines[1:]
        self._output += b"QUIT\r\n"
        self.done = True
