# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions that say hello in TLS and read the answer, without a handshake and without a TLS library.

They are driven as handshake.DialogueSession is: receive() what arrived, send what it returns, until finished.
One finds out whether a server offers a protocol version, the other reads version, certificate and key
exchange in one round trip. Servers log such a visit as a lost connection.
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
"""Alerts that say no to what the hello offers. The others say that something else went wrong."""

# What OpenSSL 3 answers if its security level forbids the hashes that the version signs with.
_OLD = frozenset({"SSLv3", "TLSv1", "TLSv1.1"})
_REFUSALS_OF_OLD = REFUSALS | {"internal_error"}


class _RawSession:
    """The dialogue up to TLS, the hello, and the server's flight."""

    def __init__(self, target: Target, settings: Settings, versions: Sequence[str], want: str = "") -> None:
        self.dialogue = Dialogue(settings.helo_name, protocol=target.protocol)
        self.finished = False
        self.flight = ServerFlight()
        self._target = target
        self._versions = versions
        self._want = want
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
            hello = client_hello(self._versions, self._target.server_name, self._want)
        except HelloError as error:
            raise DialogueError("bad_name" if error.code == "bad_name" else "tls_failed", str(error)) from error
        self.flight = ServerFlight(random_of(hello))
        self._said_hello = True
        return hello

    def _conclude(self) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class VersionVerdict:
    """Whether a server offers one protocol version; offered is None if that could not be found out.

    reason says what the answer rests on, for people: an alert, a close, a choice, or why there is none.
    alert is the name of the alert, if one came.
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
    """Offers one protocol version, with every cipher suite that it might be spoken with."""

    def __init__(self, target: Target, settings: Settings, version: str) -> None:
        """version: as the ssl module names it, for example C(TLSv1.1)."""
        super().__init__(target, settings, (version,))
        self._version = version

    def _conclude(self) -> None:
        # Up to TLS 1.2 a server may agree and give up within the same flight, for want of a hash or a key
        # that it may use with the version; so the flight is read to its end.
        flight = self.flight
        self.finished = flight.ended or flight.version not in ("", self._version)

    def result(self, seconds: float, error: Optional[DialogueError] = None) -> VersionVerdict:
        """The verdict, also when the attempt ended with an error."""
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


@dataclass(frozen=True)
class Survey(Handshake):
    """What a survey saw: a Handshake that stopped at the server's first flight, so it is never completed.

    The server has shown a certificate; that it has the key as well is shown by key_exchange, once its
    signature is verified (plugin_utils/key_proof). client_certificate: whether one is required is not known.
    knows_tls13: it says that it offers TLS 1.3, too. needs_full_test: it has no TLS 1.2 or older, so that
    its certificate is encrypted. alert: the name of the alert with which it refused.
    """

    mode: str = "survey"
    signature_algorithm: str = ""
    key_exchange: Optional[KeyExchange] = None
    knows_tls13: bool = False
    needs_full_test: bool = False
    alert: str = ""


class SurveySession(_RawSession):
    """Offers TLS 1.2 and reads the certificate, which is in plaintext there.

    A server that has two certificates shows both to two surveys, one with want C(rsa), one with C(ecdsa).
    """

    def __init__(self, target: Target, settings: Settings, want: str = "") -> None:
        """want: C(rsa), C(ecdsa), or empty for the server's choice."""
        super().__init__(target, settings, ("TLSv1.2",), want)
        self.dialogue = Dialogue(settings.helo_name, settings.ask_plaintext, target.protocol)

    def _conclude(self) -> None:
        if self.flight.alert:
            raise DialogueError(
                "tls_failed", f"the server answers the TLS 1.2 hello with the alert {self.flight.alert}"
            )
        self.finished = self.flight.complete

    def result(self, seconds: float, error: Optional[DialogueError] = None) -> Survey:
        """What was seen so far, as a result."""
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
