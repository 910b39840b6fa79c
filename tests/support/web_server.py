"""An HTTPS server on a loopback port that answers every request with the bytes it was given."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Optional

from tests.support.pki import Issued


def answer(
    body: bytes, status: str = "200 OK", kind: str = "text/plain", head: str = "", length: Optional[int] = None
) -> bytes:
    """An HTTP answer; length is what it says of the body's, if that is not to be true."""
    fields = f"Content-Type: {kind}\r\n" if kind else ""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\n{fields}Content-Length: {size}\r\n{head}\r\n".encode() + body


class WebServer:
    """Answers every request with the same bytes, over TLS; may go on for ever, or not hang up."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.reply = b""
        self.stay = False
        self.requests: list[bytes] = []
        self.endless = b""
        self.closing = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10)
            with self.context.wrap_socket(connection, server_side=True) as inside:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += inside.recv(4096)
                self.requests.append(request)
                inside.sendall(self.reply)
                while self.endless and not self.closing.is_set():
                    inside.sendall(self.endless)
                if self.stay:
                    self.closing.wait(10)

    def close(self) -> None:
        """Stop, also what is under way."""
        self.closing.set()
        with contextlib.suppress(OSError):  # it wakes accept() up, so that the port is free at once
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def server_context(directory: Path, issued: Issued) -> ssl.SSLContext:
    """A server's TLS context for the certificate."""
    path = directory / f"{issued.certificate.serial_number:x}.pem"
    path.write_bytes(issued.key_pem + issued.fullchain_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
