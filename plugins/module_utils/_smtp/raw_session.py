# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions that send a ClientHello and read the answer, without a full handshake and without a TLS library.

A caller drives them like handshake.DialogueSession: pass the received bytes to receive() and send the bytes that
it returns, until finished is true. VersionSession tests whether a server offers one protocol version. SurveySession
reads version, certificate and key exchange in one round trip. Servers log such a connection as lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Dialogue, DialogueError
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, said_in
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import (
    HelloError,
    KeyExchange,
    ServerFlight,
    client_hello,
    random_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target

REFUSALS = frozenset({"protocol_version", "handshake_failure", "insufficient_security", "close_notify"})
"""Alerts that refuse the offered parameters. Other alerts report a different problem."""

_MISREAD = frozenset({"decode_error", "illegal_parameter", "unexpected_message", "record_overflow", "internal_error"})
_NO_ANSWER = ("connection_closed", "timeout")

# OpenSSL 3 sends internal_error if its security level forbids the hash that the version signs with.
_OLD = frozenset({"SSLv3", "TLSv1", "TLSv1.1"})
_REFUSALS_OF_OLD = REFUSALS | {"internal_error"}


class _RawSession:
    """The dialogue up to TLS, then the ClientHello and the server's first flight."""

    def __init__(
        self, target: Target, settings: Settings, versions: Sequence[str], want: str = "", size: int = 0
    ) -> None:
        self.dialogue = Dialogue(settings.helo_name, protocol=target.protocol)
        self.finished = False
        self.flight = ServerFlight()
        self._target = target
        self._versions = versions
        self._want = want
        self._size = size
        self._said_hello = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire, return bytes to send. Raises DialogueError."""
        try:
            if self._said_hello:
                self.flight.feed(data)
                self._conclude()
                return b""
            if not self.dialogue.wants_tls:
                self.dialogue.receive(data)
            if not self.dialogue.wants_tls:
                return self.dialogue.take_output()
            hello = client_hello(self._versions, self._target.server_name, self._want, self._size)
        except HelloError as error:
            raise DialogueError("bad_name" if error.code == "bad_name" else "tls_failed", str(error)) from error
        self.flight = ServerFlight(random_of(hello))
        self._said_hello = True
        return hello

    def _conclude(self) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class VersionVerdict:
    """The result for one protocol version. offered is None if the test could not decide.

    reason: the evidence as text for people, or the reason why there is no result.
    alert: the name of the alert, empty if the server sent none. seconds: the length of the attempt.
    """

    target: Target
    version: str
    offered: Optional[bool]
    reason: str
    alert: str = ""
    cipher: str = ""
    group: str = ""
    seconds: float = 0.0


class VersionSession(_RawSession):
    """Offers one protocol version with every cipher suite that the version can use."""

    def __init__(self, target: Target, settings: Settings, version: str) -> None:
        """Prepare the attempt. version: the ssl module's name of it, for example C(TLSv1.1)."""
        super().__init__(target, settings, (version,))
        self._version = version

    def _conclude(self) -> None:
        # Up to TLS 1.2 a server can agree to the version and still fail in the same flight, because it may not use
        # any hash or key with that version. So the flight is read to its end.
        flight = self.flight
        self.finished = flight.ended or flight.version not in ("", self._version)

    def result(self, seconds: float, error: Optional[DialogueError] = None) -> VersionVerdict:
        """Return the verdict, also if the attempt ended with an error."""
        offered, reason = self._verdict(error)
        flight = self.flight
        return VersionVerdict(
            self._target, self._version, offered, reason, flight.alert, flight.cipher, flight.group, seconds
        )

    def _verdict(self, error: Optional[DialogueError]) -> tuple[Optional[bool], str]:
        flight = self.flight
        if flight.version not in ("", self._version):
            return False, f"the server chooses {flight.version} instead"
        agreed = bool(flight.version)
        if flight.alert:
            if agreed:
                return False, f"the server agrees, then ends the handshake with the alert {flight.alert}"
            refusals = _REFUSALS_OF_OLD if self._version in _OLD else REFUSALS
            return (False if flight.alert in refusals else None), f"the server answers with the alert {flight.alert}"
        if flight.complete:
            return True, f"the server agrees on {flight.version}"
        if error and error.code == "connection_closed" and self._said_hello:
            return False, f"the server {'agrees, then ' if agreed else ''}closes the connection"
        if agreed and error and error.code == "timeout":
            return True, f"the server agrees on {flight.version}, but does not finish its answer"
        return None, str(error) if error else "the server has not answered yet"


class LargeHelloSession(_RawSession):
    """Offers what every client does, in a ClientHello as large as those with a key share for post-quantum key exchange.

    It does not fit into one segment, and is sent in two. Some devices and servers read the first one only.
    """

    SIZE, FIRST = 1500, 1000

    def __init__(self, target: Target, settings: Settings) -> None:
        super().__init__(target, settings, ("TLSv1.3", "TLSv1.2"), size=self.SIZE)
        self.second_segment = b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire, return bytes to send. Raises DialogueError."""
        before = self._said_hello
        output = super().receive(data)
        if self._said_hello and not before:
            output, self.second_segment = output[: self.FIRST], output[self.FIRST :]
        return output

    def _conclude(self) -> None:
        self.finished = self.flight.ended or bool(self.flight.version)

    def understood(self, error: Optional[DialogueError]) -> Optional[bool]:
        """Whether the server understood the hello; None if the test cannot tell."""
        if self.flight.version:
            return True
        lost = self.flight.alert in _MISREAD if self.flight.alert else bool(error and error.code in _NO_ANSWER)
        return False if self._said_hello and lost else None


@dataclass(frozen=True)
class Survey(Handshake):
    """The result of a survey: a Handshake that stopped at the server's first flight, so it is never completed.

    chain: the certificates that the server sent. key_exchange: proves that the server has the key, once its
    signature is verified (plugin_utils/certificates/key_proof). client_certificate: C(requested), C(not_requested)
    or None; a survey cannot find out whether the server requires one. knows_tls13: the server also offers TLS 1.3.
    needs_full_test: the server speaks neither TLS 1.2 nor older versions, so its certificate is encrypted.
    alert: the name of the alert with which the server refused.
    """

    mode: str = "survey"
    signature_algorithm: str = ""
    key_exchange: Optional[KeyExchange] = None
    knows_tls13: bool = False
    needs_full_test: bool = False
    alert: str = ""


class SurveySession(_RawSession):
    """Offers TLS 1.2 and reads the certificate, which TLS 1.2 sends in plaintext.

    Two surveys read both certificates of a server that has two: one with want C(rsa), one with want C(ecdsa).
    """

    def __init__(self, target: Target, settings: Settings, want: str = "") -> None:
        """Prepare the survey. want: C(rsa), C(ecdsa), or empty for the server's choice."""
        super().__init__(target, settings, ("TLSv1.2",), want)
        self.dialogue = Dialogue(settings.helo_name, settings.ask_plaintext, target.protocol)

    def _conclude(self) -> None:
        if self.flight.alert:
            raise DialogueError(
                "tls_failed", f"the server answers the TLS 1.2 hello with the alert {self.flight.alert}"
            )
        self.finished = self.flight.complete

    def result(self, seconds: float, error: Optional[DialogueError] = None) -> Survey:
        """Return the result of the attempt so far."""
        flight = self.flight
        refused = flight.alert in REFUSALS or (error is not None and error.code == "connection_closed")
        requested = flight.client_certificate_requested
        return Survey(
            target=self._target,
            **said_in(self.dialogue, error),
            tls_version=flight.version,
            cipher=flight.cipher,
            chain=flight.chain,
            seconds=seconds,
            group=flight.group,
            client_certificate=None if requested is None else "requested" if requested else "not_requested",
            signature_algorithm=flight.signature_algorithm,
            key_exchange=flight.key_exchange,
            knows_tls13=flight.knows_tls13,
            needs_full_test=self._said_hello and refused and not flight.version and not self._want,
            alert=flight.alert,
        )
