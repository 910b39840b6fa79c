"""A small SMTP server on the loopback whose every answer a test can set, and change while it runs.

It serves what a Face says. Odd peers (silent, garbage, half a handshake) are a Face with a callback
that gets the socket in place of the normal course of things.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional, Union

from tests.support.pki import Issued, pem

Callback = Callable[[socket.socket], None]
Answer = Union[bytes, Callable[[ssl.SSLSocket], bytes]]
ToHello = Union[bytes, Callable[[bytes], bytes]]
PATIENCE = 10.0


@dataclass(frozen=True)
class Face:
    """What the server shows to the next client.

    capabilities: the lines of the answer to EHLO after the first; STARTTLS is not added by itself.
    ehlo, ehlo_tls: the whole answer instead, or who gives it for a command line.
    implicit_tls: TLS comes first, and the greeting inside it.
    injectable: what came in plaintext behind STARTTLS is answered inside TLS.
    answers_tls: verb -> the answer inside TLS, or who gives it; an empty answer is none.
    on_connect: takes the place of everything; on_starttls: of the TLS handshake; in_tls: of what follows it.
    """

    greeting: bytes = b"220 mail.example.com ESMTP ready\r\n"
    delay: float = 0.0
    capabilities: tuple[str, ...] = ("PIPELINING", "STARTTLS", "8BITMIME")
    ehlo: Optional[ToHello] = None
    mail: bytes = b"250 2.1.0 Ok\r\n"
    rcpt: bytes = b"250 2.1.5 Ok\r\n"
    starttls: bytes = b"220 2.0.0 Ready to start TLS\r\n"
    context: Optional[ssl.SSLContext] = None
    capabilities_tls: tuple[str, ...] = ("PIPELINING", "AUTH PLAIN")
    ehlo_tls: Optional[ToHello] = None
    answers_tls: Mapping[bytes, Answer] = field(default_factory=dict)
    implicit_tls: bool = False
    injectable: bool = False
    on_connect: Optional[Callback] = None
    on_starttls: Optional[Callback] = None
    in_tls: Optional[Callback] = None


PLAIN = Face(capabilities=("PIPELINING", "8BITMIME"))
REQUIRES_TLS = b"530 5.7.0 Must issue a STARTTLS command first\r\n"


def server_context(
    directory: Path, issued: Issued, *, intermediate: bool = True, client_ca: Optional[bytes] = None, weak: bool = False
) -> ssl.SSLContext:
    """A server's TLS context for the certificate; with client_ca it insists on a client certificate, weak takes any key."""
    bundle = directory / f"{issued.certificate.serial_number:x}-{intermediate:d}.pem"
    bundle.write_bytes(issued.key_pem + pem(issued.certificate, *(issued.chain if intermediate else [])))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if weak:
        context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.load_cert_chain(bundle)
    if client_ca:
        context.load_verify_locations(cadata=client_ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def set_curve(context: ssl.SSLContext, curve: str) -> None:
    """Have the server agree on this group for the key exchange."""
    try:
        context.set_ecdh_curve(curve)
    except ssl.SSLError:
        assert curve == "X25519"  # unknown to Python 3.9, and what is agreed on anyway


def reply(code: int, *lines: str) -> bytes:
    """An SMTP reply of one or more lines."""
    last = len(lines) - 1
    return b"".join(f"{code}{' ' if at == last else '-'}{line}\r\n".encode() for at, line in enumerate(lines))


@dataclass
class SmtpServer:
    """Listens from construction to close(); address is what to connect to."""

    face: Face = field(default_factory=Face)
    host: str = "127.0.0.1"
    wanted_port: int = 0
    """0 is any free one."""

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.wanted_port), family=family, backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.commands: list[bytes] = []
        """Every command line that was received, of all connections."""
        self.connections = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening and cut every connection; may be called twice."""
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(PATIENCE)

    def heard(self, command: bytes, times: int = 1) -> int:
        """How often a command has come; waits until it is that often, since a client may be gone before it is read."""
        deadline = time.monotonic() + PATIENCE
        while self.commands.count(command) < times and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.commands.count(command)

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _peer = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, self.face), daemon=True).start()

    def _serve(self, connection: socket.socket, face: Face) -> None:
        connection.settimeout(PATIENCE)
        with self._lock:
            self._open.add(connection)
        with contextlib.suppress(OSError), connection:  # a client that goes away is no event
            try:
                if face.on_connect:
                    face.on_connect(connection)
                elif not self.closing.wait(face.delay):
                    if face.implicit_tls:
                        self._talk_tls(connection, face)
                    else:
                        connection.sendall(face.greeting)
                        self._talk(connection, face)
            finally:
                with self._lock:
                    self._open.discard(connection)

    def _talk(self, connection: socket.socket, face: Face) -> None:
        ehlo = face.ehlo or reply(250, "mail.example.com", *face.capabilities)
        buffer = bytearray()
        for command in self._commands(connection, buffer):
            verb = command.split(b" ")[0].upper()
            if verb in (b"EHLO", b"LHLO"):
                connection.sendall(ehlo if isinstance(ehlo, bytes) else ehlo(command))
            elif verb == b"MAIL":
                connection.sendall(face.mail)
            elif verb == b"RCPT":
                connection.sendall(face.rcpt)
            elif verb == b"RSET":
                connection.sendall(b"250 2.0.0 Ok\r\n")
            elif verb == b"STARTTLS":
                connection.sendall(face.starttls)
                if face.on_starttls:
                    face.on_starttls(connection)
                    return
                if face.starttls.startswith(b"220") and face.context:
                    self._talk_tls(connection, face, buffer if face.injectable else bytearray())
                    return
            elif verb == b"QUIT":
                connection.sendall(b"221 2.0.0 Bye\r\n")
                return
            else:
                connection.sendall(b"502 5.5.2 Error: command not recognized\r\n")

    def _talk_tls(self, connection: socket.socket, face: Face, buffer: Optional[bytearray] = None) -> None:
        assert face.context is not None
        with face.context.wrap_socket(connection, server_side=True) as secure:
            if face.in_tls:
                face.in_tls(secure)
                return
            if face.implicit_tls:
                secure.sendall(face.greeting)
            inside = face.ehlo_tls or reply(250, "mail.example.com", *face.capabilities_tls)
            for command in self._commands(secure, bytearray() if buffer is None else buffer):
                verb = command.split(b" ")[0].upper()
                unknown = b"502 5.5.2 Error: command not recognized\r\n"
                hello = inside if isinstance(inside, bytes) else inside(command)
                usual = {b"QUIT": b"221 2.0.0 Bye\r\n", b"EHLO": hello, b"LHLO": hello}.get(verb, unknown)
                answer = face.answers_tls.get(verb, usual)
                secure.sendall(answer if isinstance(answer, bytes) else answer(secure))

    def _commands(self, connection: socket.socket, buffer: bytearray) -> Iterator[bytes]:
        """The lines that come; buffer holds what came behind them already."""
        while True:
            while b"\r\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\r\n")
                buffer[:] = rest
                self.commands.append(line)
                yield line
            data = connection.recv(4096)
            if not data:
                return
            buffer += data


@contextlib.contextmanager
def serving(face: Optional[Face] = None, host: str = "127.0.0.1") -> Iterator[SmtpServer]:
    """A server for the length of a with block."""
    server = SmtpServer(face or Face(), host)
    try:
        yield server
    finally:
        server.close()


def refused_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
