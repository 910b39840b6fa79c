"""A DNS server on a loopback port: UDP and TCP, answers as given, the AD flag as wanted, and a few ways to misbehave."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class DnsServer:
    """Knows the records it was given; everything else is NXDOMAIN. Starts with the context manager serve()."""

    port: int = 0
    secure: bool = False
    """Whether answers have the AD flag, provided that the question asks for it."""
    insecure_names: set[str] = field(default_factory=set)
    failing: dict[str, dns.rcode.Rcode] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    garbled: set[str] = field(default_factory=set)
    questions: list[tuple[str, str, str]] = field(default_factory=list)
    """(transport, name, type) of everything that was asked."""
    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """What to give as resolver."""
        return f"127.0.0.1:{self.port}"

    def add(self, name: str, kind: str, *values: str) -> None:
        """Records in zone file syntax, without the dot behind the name."""
        self.records.setdefault((name.lower(), kind), []).extend(values)

    def answer(self, wire: bytes, transport: str) -> bytes:
        """The reply to a question; empty for none."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.questions.append((transport, name, kind))
        if name in self.silent:
            return b""
        if name in self.garbled:
            return wire[:2] + b"\x84\x00\x00\x01\x00\x09garbage"
        reply = dns.message.make_response(query, recursion_available=True)
        if name in self.failing:
            reply.set_rcode(self.failing[name])
            return reply.to_wire()
        secure = self._fill(reply, name, kind)
        if secure and query.flags & dns.flags.AD:
            reply.flags |= dns.flags.AD
        limit = 65535 if transport == "tcp" else max(query.payload, 512)
        wire = reply.to_wire(max_size=65535)
        if len(wire) > limit:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
            wire = reply.to_wire()
        return wire

    def _fill(self, reply: dns.message.Message, name: str, kind: str) -> bool:
        secure = self.secure
        for _ in range(9):
            secure = secure and name not in self.insecure_names
            alias = self.records.get((name, "CNAME"))
            if not alias or kind == "CNAME":
                break
            reply.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "CNAME", alias[0] + "."))
            name = alias[0].lower()
        values = self.records.get((name, kind))
        if values:
            reply.answer.append(dns.rrset.from_text_list(name + ".", 60, "IN", kind, values))
        elif not any(known == name for known, _kind in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return secure


@contextlib.contextmanager
def serve(**settings: object) -> Iterator[DnsServer]:
    """A running server; settings are DnsServer's."""
    server = DnsServer(**settings)  # type: ignore[arg-type]
    with _sockets() as (datagrams, streams):
        server.port = datagrams.getsockname()[1]
        stopping = threading.Event()
        threads = [
            threading.Thread(target=_udp, args=(server, datagrams, stopping), daemon=True),
            threading.Thread(target=_tcp, args=(server, streams, stopping), daemon=True),
        ]
        for thread in threads:
            thread.start()
        yield server
        stopping.set()
        for thread in threads:
            thread.join(5)


@contextlib.contextmanager
def _sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    for _ in range(50):
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", 0))
        try:
            streams = socket.create_server(datagrams.getsockname())
        except OSError:  # the port is taken over TCP
            datagrams.close()
            continue
        with datagrams, streams:
            datagrams.settimeout(0.2)
            streams.settimeout(0.2)
            yield datagrams, streams
        return
    raise OSError("no port is free for both UDP and TCP")


def _udp(server: DnsServer, sock: socket.socket, stopping: threading.Event) -> None:
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            wire, peer = sock.recvfrom(65535)
            reply = server.answer(wire, "udp")
            if reply:
                sock.sendto(reply, peer)


def _tcp(server: DnsServer, sock: socket.socket, stopping: threading.Event) -> None:
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            connection, _peer = sock.accept()
            with connection, connection.makefile("rb") as stream:
                connection.settimeout(5)
                (length,) = struct.unpack("!H", stream.read(2))
                reply = server.answer(stream.read(length), "tcp")
                if reply:
                    connection.sendall(struct.pack("!H", len(reply)) + reply)
