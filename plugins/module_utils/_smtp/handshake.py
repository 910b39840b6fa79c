# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The handshake test: SMTP dialogue, STARTTLS, TLS handshake, EHLO again inside TLS.

Standard library only, Python 3.9 or newer, any number of targets in one call. OpenSSL verifies the
trust of the served chain as a mail server would. The caller gets the whole served chain and checks
names, dates and keys.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import (
    Dialogue,
    DialogueError,
    Stage,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import HelloError, ServerFlight
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError, is_address
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.verifier import Verifier
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.wire import Limits, Task, drive, own_name
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    MAX_FIRST_FLIGHT,
    MAX_TLS_BYTES,
)

__all__ = [
    "DialogueError",
    "DialogueSession",
    "Handshake",
    "Settings",
    "Target",
    "TargetError",
    "Trust",
    "full_test",
    "handshake_all",
    "handshake_one",
    "is_address",
    "make_context",
    "plain_results",
    "served_chain",
    "wait_until",
    "with_trust",
]

NOT_TESTED = "not_tested"
"""The code of a test, or of a part of it, that could not be made: neither good nor bad."""
MANY = 200
"""Above this many targets, save CPU time, even if a few targets need a second connection."""

ALGORITHMS = {"rsa": "ECDHE+aRSA:DHE+aRSA", "ecdsa": "ECDHE+aECDSA"}
"""Kind of key -> the cipher suites of TLS 1.2 with which a server can only use a certificate of that kind."""

# Alerts that a server sends if it requested a client certificate and the client sent none.
_WANTS_CERTIFICATE = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "SSLV3_ALERT_NO_CERTIFICATE",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_ACCESS_DENIED",
    }
)


@dataclass(frozen=True)
class Settings:
    """The settings of a test. Times are seconds.

    helo_name: what EHLO says; empty for the address literal of the own address of the connection.
    ca_pem: PEM roots to trust; None means the store of the machine that runs the test.
    timeout: limit of each stage. total_timeout: limit of all connections to one target together.
    concurrency: the number of targets that are tested at the same time.
    verify_trust: whether the test verifies the served chain. Without it, Handshake.trusted is None.
    verify_name: whether the certificate must also cover the server's name.
    ask_plaintext: also test whether the server accepts mail without TLS. This takes two more commands.
    algorithm: C(rsa) or C(ecdsa) for a client that takes no certificate of another kind of key, in TLS 1.2.
    told: gets a sentence for each server that was busy (see patience). All settings of a call share it.
    """

    ca_pem: Optional[str] = None
    helo_name: str = field(default_factory=own_name)
    timeout: float = 15.0
    total_timeout: float = 60.0
    concurrency: int = 200
    verify_trust: bool = True
    verify_name: bool = False
    ask_plaintext: bool = False
    algorithm: str = ""
    told: list[str] = field(default_factory=list, compare=False, repr=False)

    @property
    def limits(self) -> Limits:
        """The settings that wire.drive() needs."""
        return Limits(self.timeout, self.total_timeout, self.concurrency)


@dataclass(frozen=True)
class Handshake:
    """The result of one handshake test. chain holds DER, leaf first.

    code and message: the error; empty if the test completed, which means that it reached C(ehlo_tls).
    trusted: None if the chain was not verified. group: empty if it is unknown. client_certificate: C(not_requested),
    C(requested), C(required), or None if it is unknown. timings: the seconds of each stage.
    versions, injection, resumption and large_hello: the results of the checks in probe.py; empty or None if a check did not run.
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
    mode: str = "full"
    group: str = ""
    client_certificate: Optional[str] = None
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, Optional[bool]] = field(default_factory=dict)
    injection: Optional[bool] = None
    resumption: Optional[bool] = None
    large_hello: Optional[bool] = None

    @property
    def completed(self) -> bool:
        """Whether the handshake succeeded and the server answered EHLO inside TLS."""
        return self.stage is Stage.EHLO_TLS

    @property
    def advertised(self) -> bool:
        """Whether the answer to EHLO listed STARTTLS."""
        return self.stage >= Stage.STARTTLS_ADVERTISED and self.target.protocol != "smtps"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the served leaf in lower-case hex; empty if the server sent no certificate."""
        return hashlib.sha256(self.chain[0]).hexdigest() if self.chain else ""

    def summary(self) -> dict[str, Any]:
        """Return the result as plain data, without the certificates."""
        return {
            "host": self.target.host,
            "port": self.target.port,
            "protocol": self.target.protocol,
            "mode": self.mode,
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
            "group": self.group,
            "client_certificate": self.client_certificate,
            "trusted": self.trusted,
            "verify_error": self.verify_error,
            "requires_tls": self.requires_tls,
            "seconds": round(self.seconds, 3),
            "timings": {name: round(seconds, 4) for name, seconds in self.timings.items()},
            "versions": self.versions,
            "injection": self.injection,
            "resumption": self.resumption,
            "large_hello": self.large_hello,
        }

    def record(self) -> dict[str, Any]:
        """Return the result as plain data, with the fingerprints of the certificates instead of the certificates."""
        chain = [hashlib.sha256(der).hexdigest() for der in self.chain]
        return {**self.summary(), "fingerprint_sha256": chain[0] if chain else "", "chain_sha256": chain}

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, with the certificates as PEM."""
        return {
            **self.summary(),
            "fingerprint_sha256": self.fingerprint,
            "chain_pem": [ssl.DER_cert_to_PEM_cert(der) for der in self.chain],
        }


def with_trust(seen: Handshake, settings: Settings) -> Handshake:
    """Return a test that did not verify its chain with OpenSSL's verdict on it. A new test is made only if OpenSSL has none."""
    if not seen.chain or seen.trusted is not None:
        return seen
    settings = replace(settings, verify_trust=True)
    error = Trust(settings).verdict(seen.chain, seen.target.server_name)
    if error is None:
        return handshake_one(seen.target, settings)
    return replace(seen, trusted=not error, verify_error=error)


def plain_results(seen: Sequence[Handshake]) -> dict[str, Any]:
    """Return the tests as C(results), and the certificates of all chains as C(certificates): fingerprint -> PEM."""
    records = [one.record() for one in seen]
    certificates = {
        name: ssl.DER_cert_to_PEM_cert(der)
        for one, record in zip(seen, records)
        for name, der in zip(record["chain_sha256"], one.chain)
    }
    return {"results": records, "certificates": certificates}


# The chain that was served


def make_context(ca_pem: Optional[str], verify: bool, name: bool = False, algorithm: str = "") -> ssl.SSLContext:
    """Return a client context that is equally strict on every Python version.

    Python 3.13 sets VERIFY_X509_STRICT by default, which is stricter than any mail server. So the flags
    are set here. name: also check the name. Most callers do not, because they report it separately from trust.
    algorithm: see Settings.
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
    if algorithm:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ALGORITHMS[algorithm])
    if not _tells_chain():
        context._msg_callback = _keep_certificates  # type: ignore[attr-defined]
        context.options |= _NO_COMPRESSED_CERTIFICATES
    return context


@functools.lru_cache(maxsize=1)
def _tells_chain() -> bool:
    """Whether this Python (3.10 or newer) can return the whole chain instead of the leaf only."""
    import _ssl  # noqa: PLC0415

    return hasattr(getattr(_ssl, "_SSLSocket", None), "get_unverified_chain")


def _keep_certificates(tls: Any, direction: str, version: Any, kind: Any, message: Any, data: bytes) -> None:
    """Store the server's Certificate message. OpenSSL calls this function with each decrypted handshake message.

    OpenSSL has not checked the message at this point, so it is parsed later. version is the negotiated one;
    the tls object does not return the version before the handshake is complete.
    """
    if direction == "read" and kind == _HANDSHAKE and message == _CERTIFICATE and data[:1] == b"\x0b":
        tls.certificate_message = data, version == ssl.TLSVersion.TLSv1_3


_HANDSHAKE, _CERTIFICATE = 22, 11
_NO_COMPRESSED_CERTIFICATES = 1 << 33  # an option of OpenSSL 3.2; older versions ignore it


def served_chain(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """Return the certificates that the server sent: DER, leaf first. Empty if there are none."""
    inner: Any = tls if hasattr(tls, "get_unverified_chain") else getattr(tls, "_sslobj", None)
    if hasattr(inner, "get_unverified_chain"):
        chain = inner.get_unverified_chain() or ()
        return tuple(one if isinstance(one, bytes) else one.public_bytes(2) for one in chain)
    message, has_extensions = getattr(tls, "certificate_message", (b"", False))
    if message:
        return tuple(_certificates_of(message, has_extensions))
    leaf = tls.getpeercert(binary_form=True)
    return (leaf,) if leaf else ()


def _certificates_of(message: bytes, has_extensions: bool) -> Iterator[bytes]:
    """Yield the DER certificates of a Certificate message that OpenSSL has accepted (RFC 8446, 4.4.2; RFC 5246, 7.4.2)."""
    at = 7
    if has_extensions:
        at += 1 + message[4]  # the request context
    while at + 3 <= len(message):
        start = at + 3
        at = start + int.from_bytes(message[at:start], "big")
        yield message[start:at]
        if has_extensions:
            at += 2 + int.from_bytes(message[at : at + 2], "big")


class Trust:
    """Verifies chains for all targets of a call. Each TLS context is created once, when it is first needed.

    There are two ways. OpenSSL can verify the chain during the handshake. It then ends a handshake whose chain
    it refuses, and the rest of the test needs a second connection. Or the handshake accepts every chain, and
    OpenSSL verifies the chain afterwards (verdict()). This always takes one connection, but decodes every
    certificate twice, which costs as much as half a handshake. So long lists are verified during the
    handshake, until a third of the chains were refused.
    """

    def __init__(self, settings: Settings, targets: int = 1) -> None:
        """Prepare for a call. targets: the number of targets to test."""
        self._settings = settings
        self._many = targets > MANY
        self._seen = self._refused = 0

    @property
    def verifies_in_handshake(self) -> bool:
        """Whether to verify the next chain during its handshake."""
        mostly_good = self._refused * 3 <= max(self._seen, MANY // 4)
        return self._settings.verify_trust and self._many and mostly_good

    def note(self, refused: bool) -> None:
        """Count a chain that was verified during its handshake, and whether it was refused."""
        self._seen += 1
        self._refused += refused

    @functools.cached_property
    def lax(self) -> ssl.SSLContext:
        """The context that accepts every chain."""
        return make_context(None, verify=False, algorithm=self._settings.algorithm)

    @functools.cached_property
    def strict(self) -> ssl.SSLContext:
        """The context that ends the handshake if it refuses the chain."""
        return make_context(self._settings.ca_pem, verify=True, name=self._settings.verify_name)

    @functools.cached_property
    def _verifier(self) -> Verifier:
        return Verifier(make_context(self._settings.ca_pem, verify=True, name=self._settings.verify_name))

    def verdict(self, chain: Sequence[bytes], name: str) -> Optional[str]:
        """Return why OpenSSL refuses the chain: empty if it trusts the chain, None if there is no result."""
        return self._verifier.verdict(chain, name if self._settings.verify_name else None)


def certificate_was_requested(flight: bytes, version: str) -> Optional[bool]:
    """Whether the server requested a client certificate, read from the client's own answer. None if it is unknown.

    A client without a certificate answers such a request with an empty Certificate message. In TLS 1.2 this is
    the first message, in plaintext. In TLS 1.3 it is a second encrypted record besides the record of Finished.
    """
    if version != "TLSv1.3":
        return {b"\x16\x0b": True, b"\x16\x10": False}.get(flight[:1] + flight[5:6])
    at = encrypted = 0
    while at + 5 <= len(flight):
        encrypted += flight[at] == 23
        at += 5 + int.from_bytes(flight[at + 3 : at + 5], "big")
    return encrypted > 1 if encrypted else None


# The test


def said_in(dialogue: Dialogue, error: Optional[DialogueError]) -> dict[str, Any]:
    """Return the results of a dialogue and its error as fields of Handshake."""
    return {
        "stage": dialogue.stage,
        "code": error.code if error else "",
        "message": str(error) if error else "",
        "greeting": str(dialogue.greeting or ""),
        "capabilities": dialogue.capabilities,
        "capabilities_tls": dialogue.capabilities_tls,
        "starttls_reply": str(dialogue.starttls_reply or ""),
        "requires_tls": dialogue.requires_tls,
    }


class DialogueSession:
    """One attempt: a Dialogue with a TLS layer, still without input or output."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        context: ssl.SSLContext,
        dialogue: Optional[Dialogue] = None,
        resume: Optional[ssl.SSLSession] = None,
    ) -> None:
        """Prepare the attempt. With STARTTLS, nothing is sent before the server's greeting.

        dialogue: replaces the usual dialogue. resume: a TLS session of the same context to resume.
        """
        self.dialogue = dialogue or Dialogue(settings.helo_name, settings.ask_plaintext, target.protocol)
        self.finished = False
        self.verify_failed = ""
        self.tls: Optional[ssl.SSLObject] = None
        self._target = target
        self.context = context
        self._resume = resume
        self._first = b""
        self._taken = 0
        self._requested: Optional[bool] = None
        self._seen: dict[str, Any] = {}

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire, return bytes to send. Raises DialogueError."""
        if self.tls is None:
            self.dialogue.receive(data)
            if not self.dialogue.wants_tls:
                return self.dialogue.take_output()
            self._open_tls()
        else:
            self._taken += len(data)
            if self._taken > MAX_TLS_BYTES:
                raise DialogueError("tls_failed", f"the TLS session does not end within {MAX_TLS_BYTES} bytes")
            self._incoming.write(data)
            if self.dialogue.wants_tls and len(self._first) < MAX_FIRST_FLIGHT:
                self._first += data
        return self._pump()

    def result(
        self, seconds: float, error: Optional[DialogueError] = None, timings: Optional[dict[str, float]] = None
    ) -> Handshake:
        """Return the result of the attempt so far."""
        certificate = None if self._requested is None else "requested" if self._requested else "not_requested"
        if error and error.code == "client_certificate_required":
            certificate = "required"
        return Handshake(
            target=self._target,
            **said_in(self.dialogue, error),
            client_certificate=certificate,
            seconds=seconds,
            timings=timings or {},
            **self._seen,
        )

    def take_session(self) -> Optional[ssl.SSLSession]:
        """Return the TLS session that a later connection may resume with the same context; None if the server offers none.

        Called when the attempt has ended: in TLS 1.3 the ticket comes after the handshake. The connection's memory is freed.
        """
        saved, self.tls = self.tls.session if self.tls else None, None
        # TLS 1.2 without tickets resumes by the session ID. In TLS 1.3 the library generates an ID of its own.
        return saved if saved is not None and (saved.has_ticket or saved.id) else None

    def _open_tls(self) -> None:
        name = self._target.server_name
        unasked = is_address(name) and not self.context.check_hostname
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self.tls = self.context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=None if unasked else name, session=self._resume
            )
        except ValueError as error:  # an impossible label; UnicodeError is one of these
            raise DialogueError("bad_name", f"{name!r} cannot be asked for by SNI: {error}") from error

    def _pump(self) -> bytes:
        tls = self.tls
        if tls is None:
            return b""
        output = b""
        try:
            if self.dialogue.wants_tls:
                try:
                    tls.do_handshake()
                finally:
                    output = self._outgoing.read()
                    if self._first and output:
                        self._requested = certificate_was_requested(output, tls.version() or "")
                self._note_tls(tls)
                self.dialogue.tls_started()
            while not self.dialogue.done:
                self._send(tls)
                if not self._incoming.pending:
                    break
                data = tls.read(16384)
                if not data:  # the server ended TLS
                    raise DialogueError("connection_closed", "the server closed TLS before its answer")
                self.dialogue.receive(data)
            else:
                self._send(tls)
                self.finished = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            self.verify_failed = error.verify_message or "certificate verify failed"
            self._seen = {"chain": served_chain(tls)}
            raise DialogueError("untrusted", self.verify_failed) from error
        except ssl.SSLError as error:
            raise self._failed(tls, error) from error
        return output + self._outgoing.read()

    def _failed(self, tls: ssl.SSLObject, error: ssl.SSLError) -> DialogueError:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if error.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED" or (
            self._requested and error.reason in _WANTS_CERTIFICATE
        ):
            if not self._seen:
                self._note_tls(tls)
            return DialogueError(
                "client_certificate_required", f"the server insists on a certificate of the client: {reason}"
            )
        return DialogueError("tls_failed", f"the TLS handshake failed: {reason}")

    def _send(self, tls: ssl.SSLObject) -> None:
        output = self.dialogue.take_output()
        if output:
            tls.write(output)

    def _note_tls(self, tls: ssl.SSLObject) -> None:
        flight = ServerFlight()
        with contextlib.suppress(HelloError):
            flight.feed(self._first)
        cipher = tls.cipher()
        self._seen = {
            "tls_version": tls.version() or flight.version,  # tls.version() is None before the handshake is complete
            "cipher": cipher[0] if cipher else flight.cipher,
            "group": flight.group,
            "chain": served_chain(tls),
            "trusted": True if self.context.verify_mode is ssl.CERT_REQUIRED else None,
        }
        self._first = b""


def full_test(target: Target, settings: Settings, trust: Trust) -> Task[tuple[Handshake, DialogueSession]]:
    """Run the full test of one target, as a task for wire.drive(). Returns the result and its session."""
    in_handshake = trust.verifies_in_handshake
    session = DialogueSession(target, settings, trust.strict if in_handshake else trust.lax)
    ended = yield session
    result = session.result(ended.seconds, ended.error, ended.timings)
    if not (in_handshake or (settings.verify_trust and result.chain)):
        return result, session
    if not in_handshake:
        error = trust.verdict(result.chain, target.server_name)
        if error is not None:
            return replace(result, trusted=not error, verify_error=error), session
        # This OpenSSL cannot verify a chain without a server, so a second connection verifies it.
        second = DialogueSession(target, settings, trust.strict)
        ended = yield second
        trusted, error = bool(second.result(0.0).trusted), second.verify_failed
        if not (trusted or error):  # a chain that was not verified must not count as trusted
            error = f"the chain could not be verified: {ended.error}"
        return replace(result, trusted=trusted, verify_error=error, seconds=result.seconds + ended.seconds), session
    if result.chain or session.verify_failed:
        trust.note(bool(session.verify_failed))
    if not session.verify_failed:
        return result, session
    second = DialogueSession(target, settings, trust.lax)
    ended = yield second
    seen = second.result(ended.seconds + result.seconds, ended.error, ended.timings)
    if seen.stage < result.stage:  # the second connection failed earlier: keep the results of the first
        message = f"the chain is not trusted, and a second connection that accepts every chain failed: {seen.message}"
        seen = replace(result, code=seen.code, message=message, seconds=seen.seconds)
    error = session.verify_failed
    if seen.chain and result.chain and seen.chain != result.chain:  # two servers behind one address
        error = trust.verdict(seen.chain, target.server_name)
        error = session.verify_failed if error is None else error
    return replace(seen, chain=seen.chain or result.chain, trusted=not error, verify_error=error), second


def _test(target: Target, settings: Settings, trust: Trust) -> Task[Handshake]:
    result, _session = yield from full_test(target, settings, trust)
    return result


def handshake_all(
    targets: Sequence[Target], settings: Settings, progress: Optional[Callable[[int], None]] = None
) -> list[Handshake]:
    """Test every target, at most settings.concurrency at a time. Returns the results in the order of the targets.

    progress: called with the number of finished targets. A fault of a peer never raises; it is in the result.
    """
    trust = Trust(settings, len(targets))
    results: dict[int, Handshake] = {}

    def deliver(index: int, result: Handshake) -> None:
        results[index] = result
        if progress:
            progress(len(results))

    drive(((target, _test(target, settings, trust)) for target in targets), settings.limits, deliver)
    return [results[index] for index in range(len(targets))]


def handshake_one(target: Target, settings: Settings) -> Handshake:
    """Test a single target."""
    return handshake_all([target], settings)[0]


def wait_until(
    condition: Callable[[Handshake], bool],
    target: Target,
    settings: Settings,
    seconds: float,
    ended: Callable[[], bool] = lambda: False,
) -> Handshake:
    """Repeat the test until the condition is true or the seconds are over. Return the last result.

    A daemon serves its old state for a moment after a reload, so one test is not enough. ended: whether the daemon does not
    run any more, so that nothing is to be waited for; asked when nobody answers.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = handshake_one(target, settings)
        if condition(seen) or time.monotonic() >= deadline:
            return seen
        if seen.code == "connect_failed" and ended():
            return replace(seen, message=f"{seen.message}; the daemon has ended")
        time.sleep(0.1)
