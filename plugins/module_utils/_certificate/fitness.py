# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a key, its certificate and the chain on a host, by the rules that the controller uses before it installs one.

The rules are the same functions. OpenSSL says whether the chain is trusted. What is written here a second time, because a host has no
library for certificates, is the order of the questions: a test compares both sides over all certificates of the tests.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem, rules
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import public_key_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.openssl import NoOpensslError
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import (
    ERROR_SHARE,
    MINIMUM_BITS,
    RENEWAL_SHARE,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import (
    X509,
    UnreadableError,
    is_self_signed,
    utc_now,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import make_context
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.verifier import Verifier
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

CAUTIONS = frozenset(
    {"name_in_common_name_only", "expires_soon", "not_everywhere", "incomplete_chain", "duplicate_issuer"}
)
"""The codes that do not forbid an installation. A test compares them with the catalogue of the controller."""

CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
CA_BUNDLE_BYTES = 16 << 20
_CODES = ("utf-8", "utf-16-be", "utf-32-be")
"""How certificates encode words of names; ASCII and most of Latin-1 are among them."""

_EXPLAINED = {
    "expired": {"expired"},
    "not yet valid": {"not_yet_valid"},
    "too weak": {"weak_key", "weak_signature"},
    "purpose": {"wrong_purpose", "bad_certificate"},
    "invalid CA": {"issuer_not_ca", "bad_certificate"},
    "path length": {"issuer_not_ca"},
    "issuer certificate": {"bad_certificate"},
}
"""Words of OpenSSL -> the faults that explain them already."""


@dataclass(frozen=True)
class Policy:
    """What a certificate has to fulfil, as data. Days are None where a share of its life is the limit."""

    allow_self_signed: bool = False
    min_days_left: Optional[int] = None
    warn_days_left: Optional[int] = None
    error_share: int = ERROR_SHARE
    renewal_share: int = RENEWAL_SHARE
    minimum_bits: dict[str, int] = field(default_factory=lambda: dict(MINIMUM_BITS))


@dataclass(frozen=True)
class Fitness:
    """The result. leaf is None if there is no certificate. bundle: the PEM text to install, with the key; empty if there are faults."""

    faults: tuple[rules.Unfit, ...]
    cautions: tuple[rules.Unfit, ...]
    leaf: Optional[X509]
    chain: tuple[X509, ...]
    bundle: str = field(default="", repr=False)

    @property
    def said(self) -> str:
        """The faults as one line, without secrets."""
        return "; ".join(f"[{one.code}] {one.what}" for one in self.faults)


def host_store() -> tuple[list[bytes], str]:
    """Return the roots (DER) of the host's own store, and its file; none if it has none that can be read."""
    paths = ssl.get_default_verify_paths()
    for candidate in dict.fromkeys([paths.cafile, paths.openssl_cafile, *CA_BUNDLES]):
        with contextlib.suppress(OSError, pem.PemError):
            text = Path(candidate).read_bytes() if candidate else b""
            if roots := [one.der for one in pem.certificates(pem.split(text, max_bytes=CA_BUNDLE_BYTES))]:
                return roots, candidate
    return [], "none was found; is the package ca-certificates installed?"


class HostRoots:
    """The roots that a host trusts: those of a PEM text, or its own store. fault: why the text holds none."""

    def __init__(self, text: str = "") -> None:
        """Read them. Raises PemError. text: empty for the host's own store."""
        blocks = pem.split(text, max_bytes=CA_BUNDLE_BYTES) if text else []
        ders = [block.der for block in pem.certificates(blocks)]
        context = make_context(None, verify=not text)
        context.verify_mode = ssl.CERT_REQUIRED
        self.name = "the given roots"
        if not text:
            ders, where = host_store()
            self.name = f"the host's own store ({where})"
        self._roots = [der for der in ders if not text or is_self_signed(der)]
        self.fault: Optional[rules.Unfit] = None
        if text and not self._roots:
            code = "untrusted" if blocks else "not_pem"
            self.fault = rules.Unfit(
                code, f"{self.name} hold no root: there is no certificate that is signed by itself"
            )
        if text or not context.cert_store_stats()["x509_ca"]:
            for der in self._roots:
                with contextlib.suppress(ssl.SSLError, ValueError):
                    context.load_verify_locations(cadata=der)
        self._verifier = Verifier(context)

    def distrust(self, chain: Sequence[bytes]) -> str:
        """Return why OpenSSL refuses a chain (DER, leaf first); empty if it trusts it."""
        reason = self._verifier.verdict(chain)
        return "OpenSSL cannot read the chain" if reason is None else reason

    def issuers_of(self, certificate: X509) -> list[X509]:
        """Return the roots that may have signed a certificate."""
        return [one for one in self.named_by(certificate) if certificate.is_issued_by(one)]

    def named_by(self, certificate: X509) -> list[X509]:
        """Return the roots whose name is that of a certificate's issuer. Only those that hold all its words are read."""
        forms = [{word.encode(code) for code in _CODES} for word in certificate.issuer_words]
        found = []
        for der in self._roots:
            lowered = der.lower()
            if all(any(form in lowered for form in each) for each in forms):
                with contextlib.suppress(UnreadableError):
                    found.append(X509.load(der))
        return [one for one in found if certificate.names_as_issuer(one)]


def assess(
    key: Optional[bytes],
    certificate: bytes,
    chain: bytes,
    names: Iterable[str],
    roots: HostRoots,
    policy: Optional[Policy] = None,
    now: Optional[datetime] = None,
) -> Fitness:
    """Judge PEM texts. key: None if there is none to judge, as of a chain that somebody serves. Raises NoOpensslError."""
    check = _Check(policy or Policy(), now or utc_now(), roots)
    private = check.read_key(key) if key is not None else None
    presented = check.read_certificates(certificate, "the certificate")
    extra = check.read_certificates(chain, "the chain") if chain else []
    check.add([roots.fault] if roots.fault else [])
    if not presented:
        return check.result(None, [])
    leaf, others = check.find_leaf(private[1] if private else None, list(dict.fromkeys(presented + extra)))
    check.check_leaf(leaf, names)
    path = check.path_of(leaf, others)
    check.check_issuers(path)
    if reason := roots.distrust([one.der for one in _served(path)]):
        check.explain(path, reason)
    return check.result(private[0] if private else None, path)


def _served(path: Sequence[X509]) -> list[X509]:
    """Return what a server serves of a path: the leaf, and no root."""
    return [one for number, one in enumerate(path) if not number or not one.self_signed]


def _label(one: X509) -> str:
    return f"certificate '{one.subject}'"


@dataclass
class _Check:
    policy: Policy
    now: datetime
    roots: HostRoots
    found: list[rules.Unfit] = field(default_factory=list)

    def find(self, code: str, what: str) -> None:
        self.add([rules.Unfit(code, what)])

    def add(self, faults: Iterable[rules.Unfit]) -> None:
        self.found += [one for one in faults if one not in self.found]

    def result(self, key: Optional[pem.PemBlock], path: Sequence[X509]) -> Fitness:
        faults = tuple(one for one in self.found if one.code not in CAUTIONS)
        cautions = tuple(one for one in self.found if one.code in CAUTIONS)
        served = _served(path)
        text = key.text + pem.join(pem.PemBlock("CERTIFICATE", one.der) for one in served) if key else ""
        return Fitness(
            faults, cautions, served[0] if served else None, tuple(served[1:]), "" if faults or not served else text
        )

    def read_blocks(self, text: bytes, source: str) -> list[pem.PemBlock]:
        try:
            blocks = pem.split(text)
        except pem.PemError as error:
            self.find("not_pem", f"{source} cannot be read as PEM: {error}")
            return []
        if not blocks:
            self.find("not_pem", f"{source} is not PEM: there is no '-----BEGIN ...-----' line in it")
        return blocks

    def read_key(self, text: bytes) -> Optional[tuple[pem.PemBlock, bytes]]:
        blocks = self.read_blocks(text, "the private key")
        keys = [block for block in blocks if block.is_private_key]
        if blocks and not keys:
            labels = ", ".join(sorted({block.label for block in blocks}))
            self.find("not_pem", f"the file of the private key holds no private key but: {labels}")
        if len(keys) > 1:
            self.find("key_ambiguous", f"the file of the private key holds {len(keys)} private keys")
        if len(keys) != 1:
            return None
        if keys[0].is_encrypted:
            self.find("key_encrypted", "the private key is protected by a passphrase, which a mail server cannot enter")
            return None
        try:
            return keys[0], public_key_of(keys[0].text.encode("ascii"), "the file")
        except NoOpensslError:
            raise
        except EngineError:
            self.find("key_invalid", "the file of the private key is PEM, but it holds no usable private key")
            return None

    def read_certificates(self, text: bytes, source: str) -> list[X509]:
        blocks = self.read_blocks(text, source)
        found = pem.certificates(blocks)
        if blocks and not found:
            labels = ", ".join(sorted({block.label for block in blocks}))
            self.find("not_pem", f"{source} holds no certificate but: {labels}")
        items = []
        for number, block in enumerate(found, start=1):
            try:
                items.append(X509.load(block.der))
            except UnreadableError as error:
                self.find("bad_certificate", f"certificate number {number} of {source} is damaged: {error}")
        return items

    def find_leaf(self, public: Optional[bytes], items: list[X509]) -> tuple[X509, list[X509]]:
        first = items[0]
        if public is None or first.has_key(public):
            return first, items[1:]
        for one in items[1:]:
            if one.has_key(public):
                self.find(
                    "chain_out_of_order",
                    f"the {_label(one)} belongs to the private key, but the {_label(first)} comes first",
                )
                return one, [other for other in items if other is not one]
        self.find("key_mismatch", f"the private key does not belong to the {_label(first)}: their public keys differ")
        return first, items[1:]

    def check_leaf(self, leaf: X509, names: Iterable[str]) -> None:
        label = _label(leaf)
        self._check_served(leaf, self.policy.warn_days_left, rules.life_of(leaf))
        for name in names:
            self.add(rules.check_name(leaf, label, name, not_covered="name_not_covered"))
        self.add(rules.check_leaf(leaf, label))
        self.add(rules.check_key_usage(leaf, label))
        self.add(rules.check_acceptance(leaf, label, self.policy.minimum_bits))

    def path_of(self, leaf: X509, others: list[X509]) -> list[X509]:
        """Return the leaf and its issuers upwards, as far as the others hold them."""
        path, left = [leaf], list(others)
        while not path[-1].self_signed:
            named = [one for one in left if path[-1].is_issued_by(one) and one not in path]
            named = [one for one in named if path[-1].is_surely_issued_by(one)] or named
            if not named:
                break
            path.append(min(named, key=lambda one: one.not_after <= self.now))
            left.remove(path[-1])
        places = [others.index(one) for one in path[1:]]
        if places != sorted(places):
            order = ", then ".join(f"'{one.subject}'" for one in path)
            self.find(
                "chain_out_of_order", f"the chain of the {_label(leaf)} is in the wrong order; it has to be: {order}"
            )
        self._check_unused(leaf, path[1:], others)
        return path

    def _check_unused(self, leaf: X509, issuers: list[X509], others: list[X509]) -> None:
        known = {(one.subject, one.spki_sha256) for one in issuers}
        for one in others:
            if one in issuers:
                continue
            if (one.subject, one.spki_sha256) in known:
                self.find(
                    "duplicate_issuer", f"the {_label(one)} is a second certificate of one issuer and is left out"
                )
            else:
                self.find("chain_unrelated", f"the {_label(one)} has no part in the chain of the {_label(leaf)}")

    def check_issuers(self, path: Sequence[X509]) -> None:
        for one in path[1:]:
            if not one.self_signed:
                self._check_served(one, 0, rules.life_of(path[0]))

    def explain(self, path: Sequence[X509], reason: str) -> None:
        """Add what is wrong with a chain that OpenSSL refuses for this reason."""
        for depth, one in enumerate(path):
            if depth == 0 or not one.self_signed:
                self.add(rules.check_purpose(one, _label(one)))
            if depth:
                self.add(rules.check_issuer(one, _label(one), depth - 1))
        leaf, said = path[0], f"OpenSSL says: {reason}"
        known = [root for one in path for root in self.roots.issuers_of(one)]
        if known:
            self._explain_known(path, known, reason, said)
        elif leaf.self_signed:
            if not self.policy.allow_self_signed:
                self.find("self_signed", f"the {_label(leaf)} is self-signed, so no partner can verify it")
        else:
            self._explain_missing(path, said)

    def _explain_known(self, path: Sequence[X509], known: Sequence[X509], reason: str, said: str) -> None:
        if not any(rules.is_valid(root, self.now) for root in known):
            self._check_dates(known[0], 0, rules.life_of(path[0]))
        codes = {one.code for one in self.found}
        if not any(words in reason and codes & explained for words, explained in _EXPLAINED.items()):
            self.find("untrusted", f"the chain of the {_label(path[0])} is not trusted: {said}")

    def _explain_missing(self, path: Sequence[X509], said: str) -> None:
        last = path[-1]
        if last.self_signed:
            what = f"ends at the root '{last.issuer}', which is not in {self.roots.name} ({said})"
            self.find("untrusted", f"the chain of the {_label(path[0])} {what}")
        elif self.roots.named_by(last):
            what = (
                f"names '{last.issuer}' as its issuer, but the root of that name in {self.roots.name} did not sign it"
            )
            self.find("untrusted", f"the {_label(last)} {what} ({said})")
        else:
            where = f" (its authority publishes it at {last.issuer_url})" if last.issuer_url else ""
            self.find(
                "chain_incomplete",
                f"the chain of the {_label(path[0])} stops too early: the certificate of '{last.issuer}', which signed "
                f"'{last.subject}', is missing{where} ({said})",
            )

    def _check_dates(self, one: X509, warn: Optional[int], life: timedelta) -> None:
        shares = (self.policy.error_share, self.policy.renewal_share)
        limits = (self.policy.min_days_left, warn)
        self.add(rules.check_dates(one, _label(one), self.now, *limits, life=life, shares=shares))

    def _check_served(self, one: X509, warn: Optional[int], life: timedelta) -> None:
        self._check_dates(one, warn, life)
        self.add(rules.check_extensions(one, _label(one)))
        self.add(rules.check_strength(one, _label(one), self.policy.minimum_bits))
