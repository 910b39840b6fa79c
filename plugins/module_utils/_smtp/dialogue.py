# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's half of an SMTP or LMTP dialogue up to and after STARTTLS, without any input or output.

A caller feeds the received bytes and sends the returned bytes. So the same code works on every
transport, and tests can reach every branch with literals. Sources: RFC 5321 section 4.2 (replies),
RFC 3207 (STARTTLS), RFC 2033 (LMTP), RFC 8314 section 7.3 (SMTP inside TLS from the start).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    MAX_ANSWERS,
    MAX_LINES,
    MAX_REPLY,
    MAX_REPLY_LINE,
)

PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}
"""The protocols, each with its default port."""

BOGUS_COMMAND = b"XPROBE"
"""A command that no server knows, so its answer differs from the answer to any real command."""


class Stage(IntEnum):
    """The last stage that a test reached. Each stage includes the stages before it. A handshake test ends at EHLO_TLS."""

    CONNECT = 0
    GREETING = 1
    EHLO = 2
    STARTTLS_ADVERTISED = 3
    STARTTLS_ANSWERED = 4
    TLS = 5
    EHLO_TLS = 6
    MAIL = 7
    RCPT = 8

    @property
    def label(self) -> str:
        """The name used in results, for example C(starttls_answered)."""
        return self.name.lower()


class DialogueError(Exception):
    """The dialogue cannot continue. C(code) is a stable word for programs, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def printable_bytes(data: bytes, limit: int = 500) -> str:
    """Return a peer's bytes as text that is safe to show: one line, no control characters, limited length."""
    shown = data[:limit]
    text = shown.decode("latin-1")
    if not (text.isascii() and text.isprintable()) or "\\" in text:
        text = "".join(chr(byte) if 32 <= byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in shown)
    return text + "..." if len(data) > limit else text


@dataclass(frozen=True)
class Reply:
    """One SMTP reply: the three-digit code and the printable text of each line."""

    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.code} {' / '.join(self.lines)}".rstrip()


class ReplyReader:
    """Splits a byte stream into replies. Refuses a stream that has no end or is not SMTP."""

    def __init__(self) -> None:
        self._buffer = b""
        self._code: Optional[int] = None
        self._lines: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Add the received bytes."""
        self._buffer += data

    @property
    def rest(self) -> bytes:
        """The received bytes that belong to no complete reply yet."""
        return self._buffer

    def next_reply(self) -> Optional[Reply]:
        """Return the next complete reply, or None if more bytes are needed.

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


BLANK_LINE = "a blank line, where every line of a reply has a code"


@lru_cache(maxsize=1024)
def _read_line(line: bytes) -> tuple[int, bool, str]:
    """Return the code, whether more lines follow, and the text. Cached, as servers of one kind send the same lines."""
    line = line.rstrip(b"\r")
    if not line:
        raise DialogueError("not_smtp", BLANK_LINE)
    digits, separator = line[:3], line[3:4]
    if not (digits.isdigit() and len(digits) == 3 and separator in (b" ", b"-", b"")):
        raise DialogueError("not_smtp", f"not an SMTP reply: {printable_bytes(line, 120)!r}")
    return int(digits), separator == b"-", printable_bytes(line[4:])


class Dialogue:
    """Greeting, EHLO, optionally MAIL in plaintext, STARTTLS; then, inside TLS, EHLO and QUIT.

    With the protocol C(smtps) the whole dialogue is inside TLS, without STARTTLS. C(lmtp) uses LHLO instead of EHLO.
    Call receive() with the received bytes and send the bytes that take_output() returns. Start TLS when
    wants_tls is true, then call tls_started() to continue inside TLS. done is true after the last command.
    Raises DialogueError: greeting_rejected, ehlo_rejected, starttls_not_offered,
    starttls_refused, plaintext_after_220, ehlo_tls_rejected, not_smtp.
    """

    def __init__(self, helo_name: str, ask_plaintext: bool = False, protocol: str = "smtp") -> None:
        """Use helo_name in EHLO; if it is empty, whoever connects sets it to an address literal.

        With ask_plaintext, also test whether the server accepts mail in plaintext.
        """
        self.stage = Stage.CONNECT
        self.greeting: Optional[Reply] = None
        self.capabilities: tuple[str, ...] = ()
        self.capabilities_tls: tuple[str, ...] = ()
        self.starttls_reply: Optional[Reply] = None
        self.last_reply: Optional[Reply] = None
        self.requires_tls: Optional[bool] = None
        self.wants_tls = protocol == "smtps"
        self.done = False
        self._verb = "LHLO" if protocol == "lmtp" else "EHLO"
        self.helo_name = helo_name
        self._ask_plaintext = ask_plaintext
        self._reader = ReplyReader()
        self._output = b""
        # Not a bound method: the reference cycle would keep the dialogue in memory until garbage collection.
        self._expect: Callable[[Any, Reply], None] = type(self)._on_greeting

    @property
    def _hello(self) -> bytes:
        said = re.sub(rb"[^\x21-\x7e]", b"?", (self.helo_name or "[127.0.0.1]").encode("ascii", "replace"))
        return self._verb.encode() + b" " + said

    def receive(self, data: bytes) -> None:
        """Process bytes from the peer: plaintext before TLS, decrypted bytes inside TLS."""
        self._reader.feed(data)
        while not (self.wants_tls or self.done):
            reply = self._reader.next_reply()
            if reply is None:
                return
            self.last_reply = reply
            self._expect(self, reply)

    def take_output(self) -> bytes:
        """Return the bytes to send now; empty if there are none."""
        output, self._output = self._output, b""
        return output

    def tls_started(self) -> None:
        """Continue inside TLS. Discard everything that the server sent in plaintext (RFC 3207, 4.2)."""
        self.stage = Stage.TLS
        self.wants_tls = False
        self._reader = ReplyReader()
        if self.starttls_reply:
            self._say(self._hello, type(self)._on_ehlo_tls)

    def _say(self, command: bytes, expect: Callable[[Any, Reply], None]) -> None:
        self._output += command + b"\r\n"
        self._expect = expect

    def _on_greeting(self, reply: Reply) -> None:
        self.greeting = reply
        if reply.code != 220:
            raise DialogueError("greeting_rejected", f"the server greets with {reply}")
        if self.stage is Stage.TLS:
            self._say(self._hello, type(self)._on_ehlo_tls)
        else:
            self.stage = Stage.GREETING
            self._say(self._hello, type(self)._on_ehlo)

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
    """Sends an unknown command in one packet with STARTTLS, then counts the answers inside TLS.

    A server that does not discard its plaintext buffer at STARTTLS answers that command first (CVE-2011-0411).
    The test needs no waiting time: EHLO and QUIT have one answer each, so any further answer belongs to
    the injected command.
    """

    def __init__(self, helo_name: str, protocol: str = "smtp") -> None:
        super().__init__(helo_name, protocol=protocol)
        self._asked = False
        self._answers: list[int] = []

    def injected(self, error: Optional[DialogueError], tls_works: bool = True) -> Optional[bool]:
        """Whether the server answered the injected command inside TLS. None if the test cannot decide.

        error: the error that ended the dialogue, if any. tls_works: whether a handshake without the injected
        command is known to succeed.
        """
        answers = self._answers
        # Three answers to two commands, or two answers of which the first does not belong to EHLO.
        if len(answers) > 2 or (len(answers) == 2 and answers[0] != 250 and answers[1] == 250):
            return True
        if answers[:1] == [250] or (self.done and len(answers) > 1):
            return False
        # The server ended the dialogue before TLS, so it has not executed the command inside TLS.
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
