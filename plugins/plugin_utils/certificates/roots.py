# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trust stores, and the path from a certificate to a root.

Private to this collection. Runs on the controller only.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.policy import (
    is_weak_key,
    is_weakly_signed,
)

MAX_CHAIN = 16
"""The number of certificates of a served chain that are used. The rest is ignored."""

_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_CA_BUNDLE_BYTES = 16 << 20

# OpenSSL's security level 2, which Roots.distrust() follows, accepts P-224; the policy does not.
_OPENSSL_BITS: Mapping[str, int] = {"RSA": 2048, "EC": 224}

Issuers = Callable[[Certificate, int], Iterable[Certificate]]
"""(certificate, number of authorities below its issuer) -> its issuers."""


def climb(leaf: Certificate, issuers_of: Issuers) -> Iterator[tuple[Certificate, Certificate]]:
    """Yield every step from the leaf upwards, the nearest first, as (certificate, issuer).

    Each certificate is followed once, so certificates that sign each other cause no endless loop.
    """
    waiting, seen = [(leaf, 0)], {leaf.der}
    for certificate, depth in waiting:
        for issuer in issuers_of(certificate, depth):
            yield certificate, issuer
            if issuer.der not in seen:
                seen.add(issuer.der)
                waiting.append((issuer, depth + 1))


def build_path(leaf: Certificate, others: Sequence[Certificate], now: datetime) -> list[Certificate]:
    """Return the leaf and its issuers upwards, as far as the others contain them, in any order.

    If one issuer has two certificates, the one that has not expired is preferred.
    """

    def issuers_of(certificate: Certificate, _depth: int) -> list[Certificate]:
        if certificate.self_signed:
            return []
        found = [one for one in others if certificate.is_issued_by(one)]
        return sorted(found, key=lambda one: one.not_after <= now)

    path = [leaf]
    for certificate, issuer in climb(leaf, issuers_of):
        if certificate is path[-1] and issuer not in path:
            path.append(issuer)
    return path


def served_path(chain: Sequence[Certificate], now: datetime) -> list[Certificate]:
    """Return the path of a chain that a server sent, leaf first. Only the first MAX_CHAIN certificates are used."""
    return build_path(chain[0], chain[1:MAX_CHAIN], now)


def system_roots() -> tuple[tuple[Certificate, ...], str]:
    """Return the roots of the controller's system store, and the name of that store for messages."""
    paths = ssl.get_default_verify_paths()
    for candidate in dict.fromkeys([paths.cafile, paths.openssl_cafile, *_CA_BUNDLES]):
        try:
            roots = _load_all(Path(candidate).read_bytes() if candidate else b"")
        except (OSError, pem.PemError):
            continue
        if roots:
            return tuple(roots), f"the controller's system store ({candidate})"
    return (), "the controller's system store (none was found; is the package ca-certificates installed?)"


class Roots:
    """A trust store: self-signed certificates, and intermediate certificates."""

    def __init__(self, certificates: Iterable[Certificate]) -> None:
        """Index the certificates by their subjects."""
        self._by_subject: dict[str, list[Certificate]] = {}
        self._issuers: dict[bytes, tuple[Certificate, ...]] = {}
        for certificate in certificates:
            self._by_subject.setdefault(certificate.subject, []).append(certificate)

    @classmethod
    def of_pem(cls, text: Union[str, bytes]) -> Roots:
        """Return the certificates of a PEM text. Unreadable certificates are skipped. Raises PemError."""
        return cls(_load_all(text))

    @classmethod
    def of_system(cls) -> Roots:
        """Return the roots of the controller's system store."""
        return cls(system_roots()[0])

    def has_subject(self, subject: str) -> bool:
        """Return whether a certificate of the store has this subject."""
        return subject in self._by_subject

    def issuers_of(self, certificate: Certificate) -> tuple[Certificate, ...]:
        """Return the certificates of the store that signed this one."""
        if certificate.der not in self._issuers:
            named = self._by_subject.get(certificate.issuer, ())
            self._issuers[certificate.der] = tuple(one for one in named if certificate.is_issued_by(one))
        return self._issuers[certificate.der]

    def distrust(self, chain: Sequence[Certificate], now: datetime) -> str:
        """Return why a mail server would not trust a chain, leaf first; empty if it would.

        The messages and the decisions are those of OpenSSL for the purpose "TLS server" and security level 2. Names are
        not checked.
        """
        leaf, served = chain[0], chain[1:MAX_CHAIN]
        faults = ["self-signed certificate" if leaf.self_signed else "unable to get local issuer certificate"]

        def usable(certificate: Certificate, depth: int) -> Iterator[Certificate]:
            known = self.issuers_of(certificate)
            for issuer in [*known, *(one for one in served if certificate.is_issued_by(one))]:
                if issuer.self_signed and issuer not in known:
                    fault = "self-signed certificate in certificate chain"
                else:
                    fault = "" if issuer.der == leaf.der else _unfit_to_sign(issuer, depth)
                    fault = fault or _out_of_date(issuer, now)
                if fault:
                    faults.append(fault)
                else:
                    yield issuer

        for _certificate, issuer in climb(leaf, usable):
            if issuer.self_signed:
                return _unfit_to_serve(leaf, now)
        return faults[-1]


def _load_all(text: Union[str, bytes]) -> list[Certificate]:
    loaded = []
    for block in pem.certificates(pem.split(text, max_bytes=_CA_BUNDLE_BYTES)):
        with contextlib.suppress(CertificateError):
            loaded.append(Certificate.load(block.der))
    return loaded


def _unfit_to_sign(certificate: Certificate, depth: int) -> str:
    """Return OpenSSL's message why a certificate may not sign one with depth authorities below it; empty if it may."""
    reason = certificate.refuses_to_sign(depth)
    if reason:
        return reason
    if is_weak_key(certificate, _OPENSSL_BITS):
        return "CA certificate key too weak"
    return "CA signature digest algorithm too weak" if is_weakly_signed(certificate) else ""


def _unfit_to_serve(leaf: Certificate, now: datetime) -> str:
    """Return OpenSSL's message why a leaf is not suitable for a TLS server; empty if it is. The issuer is ignored."""
    if leaf.damaged or not leaf.is_for_servers:
        return "unsuitable certificate purpose"
    if is_weak_key(leaf, _OPENSSL_BITS):
        return "EE certificate key too weak"
    if is_weakly_signed(leaf):
        return "CA signature digest algorithm too weak"
    return _out_of_date(leaf, now)


def _out_of_date(certificate: Certificate, now: datetime) -> str:
    if certificate.not_after <= now:
        return "certificate has expired"
    return "certificate is not yet valid" if certificate.not_before > now else ""
