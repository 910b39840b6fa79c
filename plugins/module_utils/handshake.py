# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The handshake test: SMTP dialogue, STARTTLS, TLS handshake, EHLO again inside TLS.

Standard library only, Python 3.9 or newer, any number of targets in one call. The trust of the
served chain is judged by OpenSSL as a mail server would judge it; names, dates and keys are judged
by the caller, who gets the served chain whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.dialogue import (
    Dialogue,
    DialogueError,
    Stage,
)

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?\Z")


class TargetError(ValueError):
    """A target cannot be understood; the text says why."""


@dataclass(frozen=True)
class Target:
    """Where to connect, and the name the certificate is asked for (SNI)."""

    host: str
    port: int = 25
    name: str = ""

    @classmethod
    def parse(cls, text: str, name: str = "", default_port: int = 25) -> Target:
        """Read C(host), C(host:port), C([address]) or C([address]:port).

        Raises TargetError on anything else, so that no newline or option ever reaches a socket,
        a log or a configuration file.
        """
        match = re.fullmatch(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?", text)
        if not match and not is_address(text):
            match = re.fullmatch(r"([^:\[\]]*)(?::([0-9]{1,5}))?", text)
        host, port = (match.group(1), match.group(2)) if match else (text, None)
        target = cls(host, int(port) if port else default_port, name)
        target.check()
        return target

    def check(self) -> None:
        """Raise TargetError unless host, port and name are well formed."""
        for what, value in (("host", self.host), ("name", self.name)):
            if value and not (is_address(value) or _HOST.match(value)):
                raise TargetError(f"the {what} {value!r} is neither a host name nor an IP address")
        if not self.host:
            raise TargetError("a target needs a host")
        if not 0 < self.port < 65536:
            raise TargetError(f"the port {self.port} of {self.host} is not between 1 and 65535")

    @property
    def server_name(self) -> str:
        """The name the certificate has to cover: the one asked for, or else the host."""
        return (self.name or self.host).rstrip(".")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_address(text: str) -> bool:
    """Whether the text is an IP address literal; an IPv6 zone has to be a plain word."""
    address, percent, zone = text.partition("%")
    if percent and not re.fullmatch(r"[A-Za-z0-9_.-]+", zone):
        return False
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return not percent or ":" in address


@dataclass(frozen=True)
class Settings:
    """How the test is made. Times are seconds.

    ca_pem: PEM roots to trust; None means the store of the machine the test runs on.
    judge_trust: whether the served chain is judged at all; a refused chain costs a second handshake.
    judge_name: whether a trusted chain has to cover the server's name as well.
    ask_plaintext: also find out whether the server takes mail without TLS (costs one command).
    """

    ca_pem: Optional[str] = None
    helo_name: str = field(default_factory=socket.gethostname)
    timeout: float = 15.0
    total_timeout: float = 60.0
    concurrency: int = 200
    judge_trust: bool = True
    judge_name: bool = False
    ask_plaintext: bool = False


@dataclass(frozen=True)
class Handshake:
    """What one handshake test saw. chain holds DER, leaf first (only the leaf on Python 3.9).

    code and message are empty when the test completed, that is reached C(ehlo_tls); trusted is None
    when no chain was seen.
    """

    target: Target
    stage: Stage = Stage.CONNECT
    code: str = ""
    message: str = ""
    greeting: str = ""
    capabilities: tuple[str, ...] = ()
    capabilities_tls: tuple[str, ...] = ()
    starttls_reply: str = ""
    tls_version: str = ""
    cipher: str = ""
    chain: tuple[bytes, ...] = ()
    trusted: Optional[bool] = None
    verify_error: str = ""
    requires_tls: Optional[bool] = None
    seconds: float = 0.0

    @property
    def completed(self) -> bool:
        """Whether TLS was agreed and EHLO answered inside it."""
        return self.stage is Stage.EHLO_TLS

    @property
    def advertised(self) -> bool:
        """Whether STARTTLS stood in the answer to EHLO."""
        return self.stage >= Stage.STARTTLS_ADVERTISED

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the served leaf, lower-case hex; empty when none was seen."""
        return hashlib.sha256(self.chain[0]).hexdigest() if self.chain else ""

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, for a module to return."""
        return {
            "host": self.target.host,
            "port": self.target.port,
            "name": self.target.server_name,
            "stage": self.stage.label,
            "completed": self.completed,
            "code": self.code,
            "message": self.message,
            "greeting": self.greeting,
            "capabilities": list(self.capabilities),
            "capabilities_tls": list(self.capabilities_tls),
            "starttls_advertised": self.advertised,
            "starttls_reply": self.starttls_reply,
            "tls_version": self.tls_version,
            "cipher": self.cipher,
            "fingerprint_sha256": self.fingerprint,
            "chain_pem": [ssl.DER_cert_to_PEM_cert(der) for der in self.chain],
            "trusted": self.trusted,
            "verify_error": self.verify_error,
            "requires_tls": self.requires_tls,
            "seconds": round(self.seconds, 3),
        }


def make_context(ca_pem: Optional[str], verify: bool, name: bool = False) -> ssl.SSLContext:
    """A client context with the same strictness on every Python.

    Python 3.13 made its default stricter than any mail server is (VERIFY_X509_STRICT), so the flags
    are set here. The name is checked only if asked for: most callers report it apart from trust.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    context.check_hostname = verify and name
    context.verify_flags = ssl.VERIFY_DEFAULT | ssl.VERIFY_X509_TRUSTED_FIRST
    if ca_pem is not None:
        context.load_verify_locations(cadata=ca_pem)
    elif verify:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def served_chain(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """The certificates the server sent, DER, leaf first; as many of them as this Python can tell."""
    inner: Any = tls if hasattr(tls, "get_unverified_chain") else getattr(tls, "_sslobj", None)
    if hasattr(inner, "get_unverified_chain"):
        chain = inner.get_unverified_chain() or ()
        return tuple(one if isinstance(one, bytes) else one.public_bytes(2) for one in chain)
    leaf = tls.getpeercert(binary_form=True)
    return (leaf,) if leaf else ()


class Session:
    """One attempt: a Dialogue with a TLS layer under it, still without input or output."""

    def __init__(self, target: Target, settings: Settings, context: ssl.SSLContext) -> None:
        """Prepare the attempt; nothing is sent until the peer greets."""
        self.dialogue = Dialogue(settings.helo_name, settings.ask_plaintext)
        self.finished = False
        self.verify_failed = ""
        self._target = target
        self._context = context
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: Optional[ssl.SSLObject] = None
        self._seen: dict[str, Any] = {}

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire, return bytes to send. Raises DialogueError."""
        if self._tls is None:
            self.dialogue.receive(data)
            if not self.dialogue.wants_tls:
                return self.dialogue.take_output()
            self._open_tls()
        else:
            self._incoming.write(data)
        self._pump()
        return self._outgoing.read()

    def result(self, seconds: float, error: Optional[DialogueError] = None) -> Handshake:
        """What was seen so far, as a result."""
        talk = self.dialogue
        return Handshake(
            target=self._target,
            stage=talk.stage,
            code=error.code if error else "",
            message=str(error) if error else "",
            greeting=str(talk.greeting or ""),
            capabilities=talk.capabilities,
            capabilities_tls=talk.capabilities_tls,
            starttls_reply=str(talk.starttls_reply or ""),
            requires_tls=talk.requires_tls,
            seconds=seconds,
            **self._seen,
        )

    def _open_tls(self) -> None:
        name = self._target.server_name
        unasked = is_address(name) and not self._context.check_hostname
        try:
            self._tls = self._context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=None if unasked else name
            )
        except ValueError as error:  # an impossible label; UnicodeError is one of these
            raise DialogueError("bad_name", f"{name!r} cannot be asked for by SNI: {error}") from error

    def _pump(self) -> None:
        tls = self._tls
        if tls is None:
            return
        try:
            if self.dialogue.wants_tls:
                tls.do_handshake()
                self._note_tls(tls)
                self.dialogue.tls_started()
            while not self.dialogue.done:
                self._send(tls)
                data = tls.read(16384)
                if not data:  # the other side ended TLS
                    raise DialogueError("connection_closed", "the server closed TLS before its answer")
                self.dialogue.receive(data)
            self._send(tls)
            self.finished = True
        except ssl.SSLWantReadError:
            return
        except ssl.SSLCertVerificationError as error:
            self.verify_failed = error.verify_message or "certificate verify failed"
            raise DialogueError("untrusted", self.verify_failed) from error
        except ssl.SSLError as error:
            reason = (error.reason or str(error)).replace("_", " ").lower()
            raise DialogueError("tls_failed", f"the TLS handshake failed: {reason}") from error

    def _send(self, tls: ssl.SSLObject) -> None:
        output = self.dialogue.take_output()
        if output:
            tls.write(output)

    def _note_tls(self, tls: ssl.SSLObject) -> None:
        cipher = tls.cipher()
        self._seen = {
            "tls_version": tls.version() or "",
            "cipher": cipher[0] if cipher else "",
            "chain": served_chain(tls),
            "trusted": True if self._context.verify_mode is ssl.CERT_REQUIRED else None,
        }


class _Wire(asyncio.Protocol):
    """Joins a Session to a socket and ends it when it is over, stuck or closed."""

    def __init__(self, session: Session, timeout: float, ended: asyncio.Future[None]) -> None:
        self._session = session
        self._timeout = timeout
        self._ended = ended
        self._transport: Optional[asyncio.Transport] = None
        self._stage = Stage.CONNECT
        self._timer: Optional[asyncio.TimerHandle] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._restart_timer()

    def data_received(self, data: bytes) -> None:
        if self._ended.done() or self._transport is None:
            return
        try:
            output = self._session.receive(data)
        except DialogueError as error:
            if error.code in ("starttls_not_offered", "starttls_refused"):
                self._transport.write(b"QUIT\r\n")
            self._end(error)
            return
        if output:
            self._transport.write(output)
        if self._session.finished:
            self._end(None)
        elif self._session.dialogue.stage is not self._stage:
            self._stage = self._session.dialogue.stage
            self._restart_timer()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        where = self._session.dialogue.stage.label
        why = f": {exc}" if exc else ""
        self._end(DialogueError("connection_closed", f"the server closed the connection after {where}{why}"))

    def _restart_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout, self._too_late)

    def _too_late(self) -> None:
        where = self._session.dialogue.stage.label
        self._end(DialogueError("timeout", f"no progress for {self._timeout:g} s after {where}"))

    def _end(self, error: Optional[DialogueError]) -> None:
        if self._timer:
            self._timer.cancel()
        if not self._ended.done():
            if error:
                self._ended.set_exception(error)
            else:
                self._ended.set_result(None)
        if self._transport:
            self._transport.close()


async def _attempt(target: Target, settings: Settings, context: ssl.SSLContext) -> tuple[Session, Handshake]:
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    session = Session(target, settings, context)
    ended: asyncio.Future[None] = loop.create_future()
    transport: Optional[asyncio.BaseTransport] = None
    error: Optional[DialogueError] = None
    try:
        transport, _wire = await asyncio.wait_for(
            loop.create_connection(
                lambda: _Wire(session, settings.timeout, ended), target.host.rstrip("."), target.port
            ),
            settings.timeout,
        )
        await asyncio.wait_for(ended, settings.total_timeout)
    except DialogueError as caught:
        error = caught
    except (asyncio.TimeoutError, TimeoutError):
        limit = settings.total_timeout if transport else settings.timeout
        error = DialogueError("timeout", f"{'no end' if transport else 'no connection'} within {limit:g} s")
    except (OSError, UnicodeError) as caught:
        error = DialogueError("connect_failed", f"cannot connect to {target}: {caught}")
    finally:
        if transport:
            transport.close()
    return session, session.result(time.monotonic() - started, error)


async def _test(target: Target, settings: Settings, judge: ssl.SSLContext, lax: ssl.SSLContext) -> Handshake:
    session, result = await _attempt(target, settings, judge)
    if not session.verify_failed:
        return result
    # OpenSSL ends a handshake whose chain it refuses, so what is behind it takes a second one.
    _session, seen = await _attempt(target, settings, lax)
    return replace(
        seen,
        trusted=False,
        verify_error=session.verify_failed,
        seconds=seen.seconds + result.seconds,
    )


async def _test_all(
    targets: Sequence[Target], settings: Settings, progress: Optional[Callable[[int], None]]
) -> list[Handshake]:
    lax = make_context(None, verify=False)
    judge = make_context(settings.ca_pem, verify=True, name=settings.judge_name) if settings.judge_trust else lax
    results: list[Optional[Handshake]] = [None] * len(targets)
    waiting = iter(enumerate(targets))
    finished = 0

    async def work() -> None:
        nonlocal finished
        for index, target in waiting:
            results[index] = await _test(target, settings, judge, lax)
            finished += 1
            if progress:
                progress(finished)

    await asyncio.gather(*(work() for _ in range(min(max(1, settings.concurrency), len(targets)))))
    return [result for result in results if result is not None]


def handshake_all(
    targets: Sequence[Target], settings: Settings, progress: Optional[Callable[[int], None]] = None
) -> list[Handshake]:
    """Test every target, at most settings.concurrency at a time; results in the order of the targets.

    progress is called with the number of finished targets. Never raises for what a peer does.
    """
    return asyncio.run(_test_all(targets, settings, progress))


def handshake_one(target: Target, settings: Settings) -> Handshake:
    """Test a single target."""
    return handshake_all([target], settings)[0]


def wait_until(
    condition: Callable[[Handshake], bool],
    target: Target,
    settings: Settings,
    seconds: float,
) -> Handshake:
    """Repeat the test until the condition holds or the time is over; return the last result.

    A reloaded daemon serves its old state for a moment, so one look proves nothing.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = handshake_one(target, settings)
        if condition(seen) or time.monotonic() >= deadline:
            return seen
        time.sleep(0.1)
