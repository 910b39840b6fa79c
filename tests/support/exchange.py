"""The stand-in for Exchange on the loopback, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.pki import Authority, Issued, self_signed
from tools.lab.exchange.first import first_state
from tools.lab.exchange.server import StandIn
from tools.lab.exchange.state import certificate, write

FQDN = {"on_premises": "exch.fleet.test", "online": "online.exchange.test"}
PATIENCE = 15.0


class Exchange:
    """A stand-in that runs; change() drives it as its file does."""

    def __init__(self, directory: Path, behaviour: str, smart_host_port: int = 0) -> None:
        self.directory = directory
        self.authority = Authority.create("public")
        self.ports = free_ports(3)
        self.port, self.clients, self.mailboxes = self.ports
        (directory / "root.pem").write_bytes(self.authority.root_pem)
        fqdn = FQDN[behaviour]
        own = self_signed([fqdn, fqdn.partition(".")[0].upper()])
        files = [self.bundle("own", own), self.bundle("public", self.authority.issue([fqdn]))]
        state = first_state(
            behaviour, fqdn, ["echo.test", "fleet.test"], files, [directory / "root.pem"],
            "127.0.0.1" if smart_host_port else "", certificate_name="*.fleet.test", address="127.0.0.1", ports=self.ports,
        )  # fmt: skip
        for kind in ("SendConnectors", "OutboundConnectors"):
            for one in state.get(kind, []):
                one["Port"] = smart_host_port
        write(directory / "state.json", state)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stand_in = StandIn(directory)
        self._call(self._stand_in.start())

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def restart(self) -> None:
        """End it and begin anew, as at a reboot."""
        self._call(self._stand_in.stop())
        self._stand_in = StandIn(self.directory)
        self._call(self._stand_in.start())

    def close(self) -> None:
        """End it."""
        self._call(self._stand_in.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)

    def bundle(self, name: str, issued: Issued, intermediates: bool = True) -> Path:
        """Write a PEM file with the key, and return its path."""
        path = self.directory / f"{name}.pem"
        path.write_bytes(issued.key_pem + (issued.fullchain_pem if intermediates else issued.certificate_pem))
        return path

    def state(self) -> dict[str, Any]:
        """The state."""
        return dict(json.loads((self.directory / "state.json").read_text()))

    def change(self, work: Callable[[dict[str, Any]], Any]) -> None:
        """Replace the state by what work makes of it."""
        state = self.state()
        work(state)
        write(self.directory / "state.json", state)

    def set(self, kind: str, **properties: Any) -> None:
        """Set properties of the first object of a kind."""
        self.change(lambda state: state[kind][0].update(properties))

    def serve(self, name: str, issued: Issued) -> dict[str, Any]:
        """Put a certificate first in the store; its object."""
        one = certificate(self.bundle(name, issued))
        self.change(lambda state: state["Certificates"].insert(0, one))
        return one

    def received(self) -> list[dict[str, Any]]:
        """What reached a mailbox."""
        return _lines(self.directory / "received.jsonl")

    def sent(self) -> list[dict[str, Any]]:
        """What another host took."""
        return _lines(self.directory / "sent.jsonl")

    def queues(self) -> list[dict[str, Any]]:
        """What waits."""
        return list(json.loads((self.directory / "queue.json").read_text())["Queues"])

    def failed(self) -> list[dict[str, Any]]:
        """What was refused for good."""
        return list(json.loads((self.directory / "queue.json").read_text())["Failed"])

    def flush(self) -> None:
        """Have the queues retried."""
        self.change(lambda state: state.update(RetryQueue=time.time_ns()))

    def submit(self, recipient: str, sender: str = "anna@echo.test") -> None:
        """A mailbox sends a message."""
        with smtplib.SMTP("127.0.0.1", self.mailboxes, timeout=PATIENCE) as client:
            client.sendmail(sender, recipient, "Subject: x\r\nMessage-ID: <one@echo.test>\r\n\r\nx\r\n")


class Client:
    """A client of the stand-in: each command gives code and text."""

    def __init__(self, exchange: Exchange, port: int = 0) -> None:
        self.smtp = smtplib.SMTP(local_hostname="relay.fleet.test", timeout=PATIENCE)
        code, text = self.smtp.connect("127.0.0.1", port or exchange.port)
        self.greeting = f"{code} {text.decode()}"

    def says(self, command: str) -> str:
        """Send a line; the reply with its lines joined by newlines."""
        code, text = self.smtp.docmd(command)
        return f"{code} {text.decode()}"

    def ehlo(self) -> list[str]:
        """What is offered, without the first line."""
        return self.says("EHLO relay.fleet.test").splitlines()[1:]

    def starttls(
        self, certificate: Path | None = None, context: ssl.SSLContext | None = None, session: Any = None
    ) -> Any:
        """Go inside TLS; the socket."""
        if context is None:
            context = client_context(certificate)
        assert self.says("STARTTLS") == "220 2.0.0 SMTP server ready"
        self.smtp.sock = context.wrap_socket(self.smtp.sock, session=session)
        self.smtp.file = None
        return self.smtp.sock

    def to_rcpt(self, recipient: str, sender: str = "anna@fleet.test") -> str:
        """The reply to RCPT after EHLO and MAIL, which have to succeed."""
        self.ehlo()
        assert self.says(f"MAIL FROM:<{sender}>").startswith("250 2.1.0 Sender OK")
        return self.says(f"RCPT TO:<{recipient}>")

    def send(self, recipient: str, sender: str = "anna@fleet.test", text: str = "Subject: x\r\n\r\nx\r\n") -> str:
        """The reply to the whole message."""
        assert self.to_rcpt(recipient, sender).startswith("250 2.1.5 Recipient OK")
        code, answer = self.smtp.data(text)
        return f"{code} {answer.decode()}"


def client_context(certificate: Path | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A context that takes any server, with a client certificate if there is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version:
        context.maximum_version = version
    if certificate:
        context.load_cert_chain(certificate)
    return context


@contextlib.contextmanager
def exchange(directory: Path, behaviour: str, smart_host_port: int = 0) -> Iterator[Exchange]:
    """A stand-in for the length of a with block."""
    made = Exchange(directory, behaviour, smart_host_port)
    try:
        yield made
    finally:
        made.close()


def wait_for(look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Look until there is something to see or the time is over; return what was seen last."""
    deadline = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return seen


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of the loopback on which nobody listens."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(one.getsockname()[1] for one in held)
    for one in held:
        one.close()
    return ports
