"""How the animals of the zoo behave. A Behaviour is given one connection and lives its life on it."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Optional

from tests.support.smtp_server import reply
from tests.zoo.certificates import Keeper, Tls

Behaviour = Callable[[socket.socket, Keeper], None]

GREETING = b"220 mx.example.com ESMTP\r\n"
READY = b"220 2.0.0 Ready to start TLS\r\n"
BYE = b"221 2.0.0 Bye\r\n"
PLAIN = ("PIPELINING", "8BITMIME")
OFFER = (*PLAIN, "STARTTLS")


@dataclass(frozen=True)
class Mta:
    """A mail server that does everything right; each field is a way to go wrong.

    delay: seconds before the greeting, pause: between its lines. verb: the greeting command it knows.
    offers, offers_inside: what it lists before and inside TLS; ehlo, ehlo_inside: the whole answer instead.
    greeting_inside: said once TLS stands, which no server should. unknown: the answer to what it does not know,
    bye: to QUIT.
    leftover: what becomes of plaintext that came along with STARTTLS: "forgotten", "kept" (and obeyed inside TLS),
    "tls" (taken for the start of TLS), "refused" (with a 503, and hung up on). implicit: TLS from the first byte.
    on_ehlo takes the place of the answer to EHLO and all after it, on_starttls of TLS after the 220, inside of what
    follows the handshake.
    """

    tls: Tls = Tls()  # noqa: RUF009  (it is frozen)
    greeting: bytes = GREETING
    delay: float = 0.0
    pause: float = 0.0
    verb: bytes = b"EHLO"
    offers: tuple[str, ...] = OFFER
    ehlo: Optional[bytes] = None
    on_ehlo: Optional[Behaviour] = None
    starttls: bytes = READY
    leftover: str = "forgotten"
    on_starttls: Optional[Behaviour] = None
    implicit: bool = False
    greeting_inside: bytes = b""
    offers_inside: tuple[str, ...] = (*PLAIN, "AUTH PLAIN LOGIN")
    ehlo_inside: Optional[bytes] = None
    inside: Optional[Behaviour] = None
    unknown: bytes = b"502 5.5.2 Error: command not recognized\r\n"
    bye: bytes = BYE

    def __call__(self, connection: socket.socket, keeper: Keeper) -> None:
        if self.implicit:
            self._start_tls(connection, keeper, b"")
            return
        time.sleep(self.delay)
        for line in self.greeting.splitlines(keepends=True) if self.pause else [self.greeting]:
            connection.sendall(line)
            time.sleep(self.pause)
        lines = Lines(connection)
        for line in lines:
            verb = line.split(b" ")[0].upper()
            if verb == self.verb and self.on_ehlo:
                self.on_ehlo(connection, keeper)
                return
            if verb == b"STARTTLS" and self._takes_starttls:
                if lines.rest and self.leftover == "refused":
                    connection.sendall(b"503 5.5.0 Pipelining is out of order here\r\n")
                    return
                connection.sendall(self.starttls)
                if self.on_starttls:
                    self.on_starttls(connection, keeper)
                    return
                if self.starttls.startswith(b"220"):
                    self._start_tls(connection, keeper, lines.rest)
                    return
            else:
                connection.sendall(self._answer(verb, inside=False))
                if verb == b"QUIT":
                    return

    @property
    def _takes_starttls(self) -> bool:
        return b"STARTTLS" in self._answer(self.verb, inside=False).upper()

    def _start_tls(self, connection: socket.socket, keeper: Keeper, leftover: bytes) -> None:
        if leftover and self.leftover == "tls":
            connection.sendall(bytes.fromhex("15 0301 0002 02 46"))  # fatal alert: protocol_version
            return
        with keeper.context(self.tls).wrap_socket(connection, server_side=True) as secure:
            if self.inside:
                self.inside(secure, keeper)
                return
            secure.sendall(self.greeting if self.implicit else self.greeting_inside)
            for line in Lines(secure, leftover if self.leftover == "kept" else b""):
                verb = line.split(b" ")[0].upper()
                secure.sendall(self._answer(verb, inside=True))
                if verb == b"QUIT":
                    return

    def _answer(self, verb: bytes, inside: bool) -> bytes:
        if verb == self.verb:
            whole = self.ehlo_inside if inside else self.ehlo
            return whole or reply(250, "mx.example.com", *(self.offers_inside if inside else self.offers))
        if verb == b"QUIT":
            return self.bye
        if verb in (b"MAIL", b"RSET", b"NOOP"):
            return b"250 2.0.0 Ok\r\n"
        return self.unknown


class Lines:
    """The command lines of a connection; rest is what arrived and is none yet."""

    def __init__(self, connection: socket.socket, rest: bytes = b"") -> None:
        self.rest = rest
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        while True:
            line, newline, rest = self.rest.partition(b"\n")
            if newline:
                self.rest = rest
                yield line.rstrip(b"\r")
            elif data := self._connection.recv(4096):
                self.rest += data
            else:
                return


# Behaviours of their own, and of a part of the dialogue


def says(data: bytes) -> Behaviour:
    """Says this and no more, and stays."""

    def behave(connection: socket.socket, keeper: Keeper) -> None:
        connection.sendall(data)
        silent(connection, keeper)

    return behave


def silent(connection: socket.socket, _keeper: Keeper) -> None:
    """Listens and says nothing."""
    while connection.recv(4096):
        pass


def nobody(_connection: socket.socket, _keeper: Keeper) -> None:
    """Is not there: nothing listens on its port."""


def waits_then_says(data: bytes) -> Behaviour:
    """Says this once the client has said something, then closes."""

    def behave(connection: socket.socket, _keeper: Keeper) -> None:
        connection.recv(4096)
        connection.sendall(data)

    return behave


def says_and_closes(data: bytes) -> Behaviour:
    """Says this and hangs up in good order."""

    def behave(connection: socket.socket, _keeper: Keeper) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    return behave


def closes(connection: socket.socket, _keeper: Keeper) -> None:
    """Hangs up."""
    connection.close()


def resets(connection: socket.socket, _keeper: Keeper) -> None:
    """Hangs up with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def repeats(data: bytes, pause: float = 0.0) -> Behaviour:
    """Says the same for ever, until the client has had enough."""

    def behave(connection: socket.socket, _keeper: Keeper) -> None:
        while True:
            connection.sendall(data)
            time.sleep(pause)

    return behave


def in_pieces(*pieces: bytes, pause: float = 0.2, then: Behaviour = silent) -> Behaviour:
    """Says the pieces one by one, then behaves on."""

    def behave(connection: socket.socket, keeper: Keeper) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        then(connection, keeper)

    return behave


def half_a_handshake(then: Behaviour) -> Behaviour:
    """Answers the ClientHello with the first half of what TLS asks for."""

    def behave(connection: socket.socket, keeper: Keeper) -> None:
        tls = Tls()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = keeper.context(tls).wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(connection.recv(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
        flight = outgoing.read()
        connection.sendall(flight[: len(flight) // 2])
        then(connection, keeper)

    return behave


def plaintext_in_tls(connection: socket.socket, _keeper: Keeper) -> None:
    """Falls out of TLS back into plaintext."""
    connection.recv(4096)
    os.write(connection.fileno(), b"250 mx.example.com\r\n")
    time.sleep(0.1)


def answers_once(data: bytes, then: Behaviour = closes) -> Behaviour:
    """Answers the first command, then behaves on without waiting for another."""

    def behave(connection: socket.socket, keeper: Keeper) -> None:
        connection.recv(4096)
        connection.sendall(data)
        then(connection, keeper)

    return behave


def without_close_notify(connection: socket.socket, keeper: Keeper) -> None:
    """The rest of a good dialogue, with TCP closed and TLS not."""
    for line in Lines(connection):
        connection.sendall(BYE if line == b"QUIT" else reply(250, "mx.example.com", *PLAIN))
        if line == b"QUIT":
            resets(connection, keeper)
            return


@dataclass(frozen=True)
class Middlebox:
    """Something between the probe and a good server that rewrites what is said in plaintext.

    replies and commands map what is to be replaced in either direction; TLS passes untouched.
    """

    server: Behaviour
    replies: tuple[tuple[bytes, bytes], ...] = ()
    commands: tuple[tuple[bytes, bytes], ...] = ()

    def __call__(self, connection: socket.socket, keeper: Keeper) -> None:
        near, far = socket.socketpair()
        far.settimeout(connection.gettimeout())
        threads = [
            threading.Thread(target=self._serve, args=(far, keeper), daemon=True),
            threading.Thread(target=self._relay, args=(near, connection, self.replies), daemon=True),
        ]
        for thread in threads:
            thread.start()
        self._relay(connection, near, self.commands)
        for thread in threads:
            thread.join(10)
        near.close()

    def _serve(self, connection: socket.socket, keeper: Keeper) -> None:
        with contextlib.suppress(OSError), connection:
            self.server(connection, keeper)

    @staticmethod
    def _relay(source: socket.socket, sink: socket.socket, changes: tuple[tuple[bytes, bytes], ...]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                for old, new in changes:
                    data = data.replace(old, new)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
