# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trust stores, and the path from a certificate to a root.

Private to this collection. Runs on the controller only.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.fitness import CA_BUNDLE_BYTES, CA_BUNDLES
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import make_context
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.verifier import Verifier
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
    folded_name,
)

MAX_CHAIN = 16
"""The number of certificates of a served chain that explanations use. OpenSSL gets all."""

_CA_BUNDLES = CA_BUNDLES

UNREADABLE = "OpenSSL cannot read the chain"
"""The reason against a chain that has no verdict: a real handshake fails, too."""


def build_path(
    leaf: Certificate, others: Sequence[Certificate], now: datetime, *, is_trusted: bool = False
) -> list[Certificate]:
    """Return the leaf and its issuers upwards, as far as the others contain them, in any order.

    If one issuer has two certificates, the one that has not expired is preferred. Each certificate is used once, so
    certificates that sign each other cause no endless loop. is_trusted: OpenSSL trusts the chain, so a signature is
    verified again only where two certificates have the issuer's name.
    """
    path, left = [leaf], list(others)
    while not path[-1].self_signed:
        found = [one for one in left if path[-1].names_as_issuer(one)]
        if len(found) != 1 or not is_trusted:
            found = [one for one in found if path[-1].is_issued_by(one) and one not in path]
        if not found:
            break
        path.append(min(found, key=lambda one: one.not_after <= now))
        left.remove(path[-1])
    return path


def served_path(chain: Sequence[Certificate], now: datetime, *, is_trusted: bool = False) -> list[Certificate]:
    """Return the path of a chain that a server sent, leaf first. Only the first MAX_CHAIN certificates are used."""
    return build_path(chain[0], chain[1:MAX_CHAIN], now, is_trusted=is_trusted)


def system_roots() -> tuple[list[bytes], str]:
    """Return the roots (DER) of the controller's system store, and the name of that store for messages."""
    paths = ssl.get_default_verify_paths()
    for candidate in dict.fromkeys([paths.cafile, paths.openssl_cafile, *_CA_BUNDLES]):
        try:
            roots = _ders(Path(candidate).read_bytes() if candidate else b"")
        except (OSError, pem.PemError):
            continue
        if roots:
            return roots, f"the controller's system store ({candidate})"
    return [], "the controller's system store (none was found; is the package ca-certificates installed?)"


class Roots:
    """A trust store of the controller: self-signed certificates, and intermediate certificates.

    OpenSSL says whether a chain is trusted. The certificates themselves only help to explain why one is not.
    """

    of_servers = True
    """Whether a leaf has to have the purpose of a server."""

    def __init__(self, ders: Iterable[bytes], *, system: bool = False, partial: bool = False) -> None:
        """Take over the certificates (DER). Unreadable ones are skipped.

        system: they are those of the default store, and OpenSSL uses that store. partial: an intermediate is trusted
        without a root, too.
        """
        self._ders = tuple(ders)
        self._system = system
        self._partial = partial
        self._issuers: dict[bytes, tuple[Certificate, ...]] = {}

    @classmethod
    def of_pem(cls, text: Union[str, bytes]) -> Roots:
        """Return the certificates of a PEM text. Raises PemError."""
        return cls(_ders(text))

    @classmethod
    def of_system(cls) -> Roots:
        """Return the controller's system store."""
        return cls(system_roots()[0], system=True)

    def has_subject(self, subject: str) -> bool:
        """Return whether a certificate of the store has this subject."""
        return any(one.subject == subject for named in self._by_subject.values() for one in named)

    def issuers_of(self, certificate: Certificate) -> tuple[Certificate, ...]:
        """Return the certificates of the store that signed this one."""
        if certificate.der not in self._issuers:
            named = self._by_subject.get(folded_name(certificate.parsed.issuer), ())
            self._issuers[certificate.der] = tuple(one for one in named if certificate.is_issued_by(one))
        return self._issuers[certificate.der]

    def distrust(self, chain: Sequence[bytes]) -> str:
        """Return why the controller's OpenSSL refuses a chain that a server serves (DER, leaf first); empty if it trusts it.

        The verdict is that of a real handshake, now. Names are not checked.
        """
        reason = self._verifier.verdict(chain)
        return UNREADABLE if reason is None else reason

    @functools.cached_property
    def _by_subject(self) -> dict[Any, list[Certificate]]:
        named: dict[Any, list[Certificate]] = {}
        for der in self._ders:
            with contextlib.suppress(CertificateError):
                one = Certificate.load(der)
                named.setdefault(folded_name(one.parsed.subject), []).append(one)
        return named

    @functools.cached_property
    def _verifier(self) -> Verifier:
        context = make_context(None, verify=self._system)
        context.verify_mode = ssl.CERT_REQUIRED
        self._fill(context)
        if self._partial:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return Verifier(context)

    def _fill(self, context: ssl.SSLContext) -> None:
        """Load the certificates, unless the context has those of the system's store already."""
        if not (self._system and context.cert_store_stats()["x509_ca"]):
            for der in self._ders:
                with contextlib.suppress(ssl.SSLError, ValueError):
                    context.load_verify_locations(cadata=der)


def _ders(text: Union[str, bytes]) -> list[bytes]:
    return [block.der for block in pem.certificates(pem.split(text, max_bytes=CA_BUNDLE_BYTES))]
