# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's half of an SMTP or LMTP dialogue up to and after STARTTLS, without any input or output.

A caller feeds the bytes that arrived and sends the bytes that come back, so the same code serves
any transport and every branch can be tested with literals. Sources: RFC 5321 section 4.2 (replies),
RFC 3207 (STARTTLS), RFC 2033 (LMTP), RFC 8314 section 7.3 (SMTP inside TLS from the start).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Optional

MAX_REPLY_LINE = 4096
MAX_LINES = 256
MAX_REPLY = 65536

PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}
"""The protocols, and the port of each unless another one is named."""

BOGUS_COMMAND = b"XPROBE"
"""A command that no server knows, so that an answer to it cannot be taken for any other answer."""
MAX_ANSWERS = 8


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


def printable_bytes(data: bytes, limit: int = 500) -> str:
    """Peer's bytes as text that is safe to show: one line, no control characters, bounded length."""
    shown = data[:limit]
    text = shown.decode("latin-1")
    if not (text.isascii() and text.isprintable()) or "\\" in text:
        text = "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in shown)
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
        buffer, start = self._buffer, 0
        while True:
            end = buffer.find(b"\n", start)
            if (end if end >= 0 else len(buffer)) - start > MAX_REPLY_LINE:
                raise DialogueError("not_smtp", f"a reply line is longer than {MAX_REPLY_LINE} bytes")
            if end < 0:
                self._buffer = buffer[start:]
                return None
            self._size += end - start
            code, more, text = _read_line(buffer[start:end])
            start = end + 1
            if code != self._code and self._code is not None:
                raise DialogueError("not_smtp", f"a reply changes its code from {self._code} to {code}")
            self._code = code
            self._lines.append(text)
            if len(self._lines) > MAX_LINES or self._size > MAX_REPLY:
                raise DialogueError("not_smtp", "the reply does not end")
            if not more:
                self._buffer = buffer[start:]
                reply = Reply(code, tuple(self._lines))
                self._code, self._lines, self._size = None, [], 0
                return reply


@lru_cache(maxsize=1024)
def _read_line(line: bytes) -> tuple[int, bool, str]:
    """Code, whether more lines follow, and text. Servers of a kind say the same, so it is read and kept once."""
    line = line.rstrip(b"\r")
    digits, separator = line[:3], line[3:4]
    if not (digits.isdigit() and len(digits) == 3 and separator in (b" ", b"-", b"")):
        raise DialogueError("not_smtp", f"not an SMTP reply: {printable_bytes(line, 120)!r}")
    return int(digits), separator == b"-", printable_bytes(line[4:])


class Dialogue:
    """Greeting, EHLO, optionally MAIL in plaintext, STARTTLS; then, inside TLS, EHLO and QUIT.

    With the protocol C(smtps) all of it is inside TLS and STARTTLS is left out; C(lmtp) says LHLO for EHLO.
    Call receive() with what arrived, send what take_output() returns, and start TLS once
    wants_tls is true; tls_started() goes on inside it. done is true when all was said.
    Raises DialogueError: greeting_rejected, ehlo_rejected, starttls_not_offered,
    starttls_refused, plaintext_after_220, ehlo_tls_rejected, not_smtp.
    """

    def __init__(self, helo_name: str, ask_plaintext: bool = False, protocol: str = "smtp") -> None:
        """Say EHLO as helo_name; with ask_plaintext also find out whether plaintext mail is taken."""
        self.stage = Stage.CONNECT
        self.greeting: Optional[Reply] = None
        self.capabilities: tuple[str, ...] = ()
        self.capabilities_tls: tuple[str, ...] = ()
        self.starttls_reply: Optional[Reply] = None
        self.requires_tls: Optional[bool] = None
        self.wants_tls = protocol == "smtps"
        self.done = False
        self._verb = "LHLO" if protocol == "lmtp" else "EHLO"
        self._helo = self._verb.encode() + b" " + re.sub(rb"[^\x21-\x7e]", b"?", helo_name.encode("ascii", "replace"))
        self._ask_plaintext = ask_plaintext
        self._reader = ReplyReader()
        self._output = b""
        # Not a bound method, which would keep the dialogue alive until the garbage collector comes.
        self._expect: Callable[[Any, Reply], None] = type(self)._on_greeting

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer: plaintext before TLS, decrypted ones inside it."""
        self._reader.feed(data)
        while not (self.wants_tls or self.done):
            reply = self._reader.next_reply()
            if reply is None:
                return
            self._expect(self, reply)

    def take_output(self) -> bytes:
        """The bytes to send now; empty when there are none."""
        output, self._output = self._output, b""
        return output

    def tls_started(self) -> None:
        """The TLS handshake is complete: nothing said in plaintext counts any more (RFC 3207, 4.2)."""
        self.stage = Stage.TLS
        self.wants_tls = False
        self._reader = ReplyReader()
        if self.starttls_reply:
            self._say(self._helo, type(self)._on_ehlo_tls)

    def _say(self, command: bytes, expect: Callable[[Any, Reply], None]) -> None:
        self._output += command + b"\r\n"
        self._expect = expect

    def _on_greeting(self, reply: Reply) -> None:
        self.greeting = reply
        if reply.code != 220:
            raise DialogueError("greeting_rejected", f"the server greets with {reply}")
        if self.stage is Stage.TLS:
            self._say(self._helo, type(self)._on_ehlo_tls)
        else:
            self.stage = Stage.GREETING
            self._say(self._helo, type(self)._on_ehlo)

    def _on_ehlo(self, reply: Reply) -> None:
        if reply.code != 250:
            raise DialogueError("ehlo_rejected", f"{self._verb} is answered with {reply}")
        self.stage = Stage.EHLO
        self.capabilities = reply.lines[1:]
        if self._ask_plaintext:
            self._say(b"MAIL FROM:<>", type(self)._on_mail)
        else:
            self._start_tls()

    def _on_mail(self, reply: Reply) -> None:
        if reply.code == 530 or (reply.code >= 400 and "STARTTLS" in str(reply).upper()):
            self.requires_tls = True
        elif reply.code == 250:
            self.requires_tls = False
        self._say(b"RSET", type(self)._on_rset)

    def _on_rset(self, _reply: Reply) -> None:
        self._start_tls()

    def _start_tls(self) -> None:
        if not any(line.split(" ")[0].upper() == "STARTTLS" for line in self.capabilities):
            raise DialogueError("starttls_not_offered", "the server does not offer STARTTLS")
        self.stage = Stage.STARTTLS_ADVERTISED
        self._say(b"STARTTLS", type(self)._on_starttls)

    def _on_starttls(self, reply: Reply) -> None:
        self.starttls_reply = reply
        if reply.code != 220:
            raise DialogueError("starttls_refused", f"STARTTLS is offered, then answered with {reply}")
        if self._reader.rest:
            raise DialogueError(
                "plaintext_after_220",
                f"plaintext follows the answer to STARTTLS: {printable_bytes(self._reader.rest, 120)!r}",
            )
        self.stage = Stage.STARTTLS_ANSWERED
        self.wants_tls = True

    def _on_ehlo_tls(self, reply: Reply) -> None:
        if reply.code != 250:
            raise DialogueError("ehlo_tls_rejected", f"inside TLS, {self._verb} is answered with {reply}")
        self.stage = Stage.EHLO_TLS
        self.capabilities_tls = reply.lines[1:]
        self._output += b"QUIT\r\n"
        self.done = True


class InjectionDialogue(Dialogue):
    """Sends a command that no server knows in one piece with STARTTLS, then counts the answers inside TLS.

    A server that does not throw away what it read before TLS answers that command first (CVE-2011-0411).
    Nothing has to be waited for: EHLO and QUIT have one answer each, so any more of them are to the
    injected command.
    """

    def __init__(self, helo_name: str, protocol: str = "smtp") -> None:
        super().__init__(helo_name, protocol=protocol)
        self._asked = False
        self._answers: list[int] = []

    def injected(self, error: Optional[DialogueError], tls_works: bool = True) -> Optional[bool]:
        """Whether the command was answered inside TLS, given how the dialogue ended. None: no telling.

        tls_works: whether a handshake without the command behind STARTTLS is known to succeed.
        """
        answers = self._answers
        # Three answers to two commands; or two, the first of which is not the one to EHLO.
        if len(answers) > 2 or (len(answers) == 2 and answers[0] != 250 and answers[1] == 250):
            return True
        if answers[:1] == [250] or (self.done and len(answers) > 1):
            return False
        # Refused, cut off or taken for a broken handshake before TLS: not executed, in any case.
        limit = Stage.TLS if tls_works else Stage.STARTTLS_ANSWERED
        before_tls = self._asked and self.stage < limit
        return False if before_tls and error is not None and error.code != "timeout" else None

    def _start_tls(self) -> None:
        super()._start_tls()
        self._output += BOGUS_COMMAND + b"\r\n"
        self._asked = True

    def _on_ehlo_tls(self, reply: Reply) -> None:
        self._say(b"QUIT", type(self)._on_more)
        self._on_more(reply)

    def _on_more(self, reply: Reply) -> None:
        if self._answers or reply.code != 220:  # no answer to a command, but some servers greet again
            self._answers.append(reply.code)
        self.done = reply.code in (221, 421) or len(self._answers) >= MAX_ANSWERS
