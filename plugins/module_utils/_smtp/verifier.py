# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSSL's verdict on a chain, without a connection.

Standard library only, Python 3.9 or newer. Hosts and the controller use it, so both decide as a real handshake does.
"""

from __future__ import annotations

import functools
import hashlib
import ssl
from collections.abc import Sequence
from typing import Optional

MAX_KEPT = 20_000
"""The number of verdicts that a Verifier keeps."""


class Verifier:
    """Verifies chains with the trust store and the flags of one TLS context."""

    def __init__(self, context: ssl.SSLContext) -> None:
        """Take over the context: it must verify certificates (CERT_REQUIRED), and nothing else may use it.

        A TLS 1.2 client verifies the certificates before the server proves that it has the key. So OpenSSL gets a
        generated ServerHello followed by the certificates, and then gives its verdict.
        """
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._context = context
        self._verdicts: dict[tuple[bytes, Optional[str]], Optional[str]] = {}

    def verdict(self, chain: Sequence[bytes], name: Optional[str] = None) -> Optional[str]:
        """Return why OpenSSL refuses the chain (DER, leaf first): empty if it trusts the chain, None if there is no verdict.

        There is none if OpenSSL cannot read the chain; it then ends a real handshake, too. name: the server's name, if
        the context checks names.
        """
        listed = _certificates(chain)
        key = (hashlib.sha256(listed).digest(), name)  # it has the lengths: no chain is taken for another one
        if key not in self._verdicts:
            if len(self._verdicts) > MAX_KEPT:
                self._verdicts.clear()
            self._verdicts[key] = self._verify(listed, name)
        return self._verdicts[key]

    def _verify(self, listed: bytes, name: Optional[str]) -> Optional[str]:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            tls = self._context.wrap_bio(incoming, outgoing, server_hostname=name)
            for flight in (b"", self._hello + _records(listed)):
                incoming.write(flight)
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_message or "certificate verify failed"
        except ssl.SSLError as error:
            # OpenSSL accepts the chain first, then compares the key type with the cipher suite of the generated hello.
            return "" if error.reason in ("WRONG_CERTIFICATE_TYPE", "UNKNOWN_CERTIFICATE_TYPE") else None
        except ValueError:  # a name that no certificate can hold
            return None
        return ""

    @functools.cached_property
    def _hello(self) -> bytes:
        """A ServerHello with a suite that the context offers."""
        offered = self._context.get_ciphers()
        suite = next((one["id"] & 0xFFFF for one in offered if one["name"].startswith("ECDHE-")), 0xC02F)
        renegotiation = b"\x00\x05\xff\x01\x00\x01\x00"
        return _records(
            _message(2, b"\x03\x03" + bytes(32) + b"\x00" + suite.to_bytes(2, "big") + b"\x00" + renegotiation)
        )


def certificate_records(chain: Sequence[bytes]) -> bytes:
    """Return the chain (DER, leaf first) as one side of a TLS 1.2 handshake sends it, in plaintext."""
    return _records(_certificates(chain))


def _certificates(chain: Sequence[bytes]) -> bytes:
    listed = b"".join(len(der).to_bytes(3, "big") + der for der in chain)
    return _message(11, len(listed).to_bytes(3, "big") + listed)


def _message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


def _records(messages: bytes) -> bytes:
    cut = (messages[at : at + 16384] for at in range(0, len(messages), 16384))
    return b"".join(b"\x16\x03\x03" + len(piece).to_bytes(2, "big") + piece for piece in cut)
