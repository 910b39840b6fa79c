# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a private key, its certificate and the chain by the policy, before they are installed.

Private to this collection. Runs on the controller only. No message contains key material.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import policy
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
    public_key_of,
    utc_now,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.refusal import REISSUE, explain_refusal
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import (
    Roots,
    build_path,
    system_roots,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding

# Words in OpenSSL's verdict -> the findings that already explain it.
_EXPLAINED: Mapping[str, frozenset[str]] = {
    "expired": frozenset({"expired"}),
    "not yet valid": frozenset({"not_yet_valid"}),
    "too weak": frozenset({"weak_key", "weak_signature"}),
    "purpose": frozenset({"wrong_purpose", "bad_certificate"}),
    "invalid CA": frozenset({"issuer_not_ca", "bad_certificate"}),
    "path length": frozenset({"issuer_not_ca"}),
    "issuer certificate": frozenset({"bad_certificate"}),
}


_INSTEAD: Mapping[str, str] = {
    "PKCS7": "It is PKCS#7: take the certificates out with 'openssl pkcs7 -print_certs -in FILE -out NEW', and give NEW",
    "CMS": "It is PKCS#7 (CMS): take the certificates out with 'openssl pkcs7 -print_certs -in FILE -out NEW', and give NEW",
    "CERTIFICATE REQUEST": "It is a request (CSR): send it to the certification authority, and give the certificate that it issues",
    "NEW CERTIFICATE REQUEST": "It is a request (CSR): send it to the certification authority, and give the certificate that it issues",
    "TRUSTED CERTIFICATE": "It is a certificate in OpenSSL's own form: convert it with 'openssl x509 -in FILE -out NEW', and give NEW",
    "PUBLIC KEY": "It is a public key: the private key, and the certificate, are other files",
    "RSA PUBLIC KEY": "It is a public key: the private key, and the certificate, are other files",
    "X509 CRL": "It is a list of revoked certificates: the certificate is another file",
    "DH PARAMETERS": "These are parameters of Diffie-Hellman: the key and the certificate are other files",
    "EC PARAMETERS": "These are the parameters of a curve only: the key follows them in the file that openssl wrote",
    "OPENSSH PRIVATE KEY": "It is an SSH key: give the key that the certificate was requested with",
}
"""Label of a block -> what it is, where a certificate or its key was asked for, and the next thing to do."""


@dataclass(frozen=True)
class Sources:
    """The names of the four inputs in messages. Usually they are the paths that the user gave."""

    private_key: str = "the private key"
    certificate: str = "the certificate"
    chain: str = "the chain"
    ca: str = "the CA certificates"


@dataclass(frozen=True)
class Assessment:
    """The result of the check: every fault, and the bundle to install if there is no fault.

    findings are errors. warnings are the less severe findings; they do not stop the installation.
    """

    findings: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    leaf: Optional[Certificate]
    chain: tuple[Certificate, ...]
    _key: Optional[pem.PemBlock] = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the certificate may be installed."""
        return not self.findings

    @property
    def bundle(self) -> str:
        """The PEM text for the mail server: key, leaf, chain, in this order, without the root.

        The key keeps its input format. Raises CertificateError while there are findings.
        """
        if self.findings or self.leaf is None or self._key is None:
            raise CertificateError("there are findings, so there is no bundle to install")
        return self._key.text + self.leaf.pem + "".join(certificate.pem for certificate in self.chain)


def check_certificate(
    private_key_pem: Union[str, bytes, None],
    leaf_pem: Union[str, bytes],
    chain_pem: Union[str, bytes, None] = None,
    *,
    ca_pem: Union[str, bytes, None] = None,
    names: Sequence[str],
    min_days_left: Optional[int] = None,
    allow_self_signed: bool = False,
    now: Optional[datetime] = None,
    public_key: Optional[bytes] = None,
    sources: Optional[Sources] = None,
    roots: type[Roots] = Roots,
) -> Assessment:
    """Check a private key, its certificate and the chain that the server would send.

    The first certificate of leaf_pem is the leaf. The other certificates of leaf_pem precede those of chain_pem. Trust
    anchors are the self-signed certificates of ca_pem or, without ca_pem, the controller's system store. The controller's
    OpenSSL says whether the chain is trusted, by the clock; now, timezone-aware, is for the policy. Invalid input of any
    kind becomes findings, never an exception. min_days_left: None for a share of its life. public_key: its DER,
    where the private key is on a host and stays there; then there is no bundle. roots: who decides whether
    the chain is trusted; by default it is that of a server.
    """
    check = _Check(now or utc_now(), min_days_left, sources or Sources(), roots)
    key = (None, public_key) if public_key is not None else check.read_key(private_key_pem or b"")
    presented = check.read_certificates(leaf_pem, check.sources.certificate)
    extra = check.read_certificates(chain_pem, check.sources.chain) if chain_pem else []
    anchors = check.read_anchors(ca_pem)
    if not presented:
        return Assessment(check.errors, (), None, ())
    leaf, others = check.find_leaf(key, _without_duplicates(presented + extra))
    check.check_leaf(leaf, names)
    path = [leaf, *check.issuers_of(leaf, others)]
    check.check_issuers(path)
    reason = check.check_trust(path, anchors)
    if reason:
        check.explain(path, anchors, reason, allow_self_signed)
    return Assessment(
        findings=check.errors,
        warnings=check.warnings,
        leaf=leaf.certificate,
        chain=tuple(item.certificate for item in path[1:] if not item.certificate.self_signed),
        _key=key[0] if key else None,
    )


@dataclass(frozen=True)
class _Item:
    """A certificate and the name of its input."""

    certificate: Certificate
    source: str

    def __str__(self) -> str:
        return f"certificate '{self.certificate.subject}' of {self.source}"


@dataclass(frozen=True)
class _Anchors:
    """The trust anchors, and their name in messages."""

    roots: Roots
    name: str


@dataclass
class _Check:
    """Collects the findings while the inputs are read and checked."""

    now: datetime
    min_days_left: Optional[int]
    sources: Sources
    roots: type[Roots] = Roots
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity != "error")

    def find(self, code: str, message: str) -> None:
        self.add([Finding(code, message)])

    def add(self, findings: Iterable[Finding]) -> None:
        """Collect the findings, each once."""
        self.findings += [one for one in findings if one not in self.findings]

    def read_blocks(self, text: Union[str, bytes], source: str) -> list[pem.PemBlock]:
        """Return the PEM blocks. Return none, and add a finding, if the text is not PEM or has no block."""
        try:
            blocks = pem.split(text)
        except pem.PemError as error:
            self.find("not_pem", f"{source} cannot be read as PEM: {error}.")
            return []
        if not blocks:
            what = "it is empty" if not text.strip() else "there is no '-----BEGIN ...-----' line in it"
            self.find("not_pem", f"{source} is not PEM: {what}. Give the text form, which begins so.")
        return blocks

    def _find_other(self, source: str, wanted: str, first_line: str, blocks: Sequence[pem.PemBlock]) -> None:
        """Add what a file holds instead of a key or a certificate."""
        labels = sorted({block.label for block in blocks})
        known = next((_INSTEAD[one] for one in labels if one in _INSTEAD), "")
        advice = known or f"Give the file whose first line is {first_line}; perhaps two files were swapped"
        self.find("not_pem", f"{source} holds no {wanted} but: {', '.join(labels)}. {advice}.")

    def read_key(self, text: Union[str, bytes]) -> Optional[tuple[pem.PemBlock, bytes]]:
        """Return the private key's block and the DER of its public key."""
        source = self.sources.private_key
        blocks = self.read_blocks(text, source)
        keys = [block for block in blocks if block.is_private_key]
        if not keys:
            if blocks:
                self._find_other(source, "private key", "'-----BEGIN PRIVATE KEY-----' or alike", blocks)
            return None
        if len(keys) > 1:
            self.find("key_ambiguous", f"{source} holds {len(keys)} private keys. Leave only the certificate's.")
            return None
        if keys[0].is_encrypted:
            self.find(
                "key_encrypted",
                f"{source} is protected by a passphrase, and a mail server cannot enter one when it starts. "
                "Remove the passphrase ('openssl pkey -in KEY -out NEW') and keep the result in Ansible "
                "Vault instead.",
            )
            return None
        try:
            public = public_key_of(keys[0])
        except CertificateError:
            self.find(
                "key_invalid",
                f"{source} is PEM, but it holds no usable private key. 'openssl pkey -in KEY -noout "
                "-check' shows details; make a new key and certificate if the file is damaged.",
            )
            return None
        return keys[0], public

    def read_certificates(self, text: Union[str, bytes], source: str) -> list[_Item]:
        blocks = self.read_blocks(text, source)
        found = pem.certificates(blocks)
        if blocks and not found:
            self._find_other(source, "certificate", "'-----BEGIN CERTIFICATE-----'", blocks)
        items = []
        for number, block in enumerate(found, start=1):
            try:
                items.append(_Item(Certificate.load(block.der), source))
            except CertificateError as error:
                self.find("bad_certificate", f"certificate number {number} of {source} is damaged: {error}.")
        return items

    def read_anchors(self, text: Union[str, bytes, None]) -> _Anchors:
        if not text:
            ders, name = system_roots()
            return _Anchors(self.roots(ders, system=True), name)
        items = self.read_certificates(text, self.sources.ca)
        roots = [item.certificate for item in items if item.certificate.self_signed]
        if items and not roots:
            self.find(
                "untrusted",
                f"{self.sources.ca} holds no root: none of its certificates is signed by itself. Give the "
                "root there; put intermediate certificates into the chain.",
            )
        return _Anchors(self.roots([root.der for root in roots]), self.sources.ca)

    def find_leaf(
        self, key: Optional[tuple[Optional[pem.PemBlock], bytes]], items: list[_Item]
    ) -> tuple[_Item, list[_Item]]:
        """Return the certificate that belongs to the key, and the other certificates.

        If none belongs to the key, the first one is returned and a finding is added.
        """
        first, others = items[0], items[1:]
        if key is None:
            return first, others
        wanted = pem.fingerprint(key[1])
        if first.certificate.spki_sha256 == wanted:
            return first, others
        for item in others:
            if item.certificate.spki_sha256 == wanted:
                self.find(
                    "chain_out_of_order",
                    f"the {item} belongs to the private key, but the {first} comes first. Put the server's "
                    "own certificate first, then the one that signed it, and so on.",
                )
                return item, [other for other in items if other is not item]
        self.find(
            "key_mismatch",
            f"{self.sources.private_key} does not belong to the {first}: their public keys differ. Give the "
            "key that the certificate was requested with; after a renewal both files change together.",
        )
        return first, others

    def check_leaf(self, leaf: _Item, names: Iterable[str]) -> None:
        certificate, label = leaf.certificate, str(leaf)
        self._check_served(leaf, None, policy.life_of(certificate))
        for name in names:
            self.add(policy.check_name(certificate, label, name, not_covered="name_not_covered"))
        self.add(policy.check_leaf(certificate, label))
        self.add(policy.check_key_usage(certificate, label))
        self.add(policy.check_acceptance(certificate, label))

    def issuers_of(self, leaf: _Item, others: list[_Item]) -> list[_Item]:
        """Return the given issuers of the leaf, from the leaf upwards: the order in which the server sends them."""
        item_of = {item.certificate.der: item for item in others}
        path = build_path(leaf.certificate, [item.certificate for item in others], self.now)
        issuers = [item_of[certificate.der] for certificate in path[1:]]
        self._check_order(leaf, issuers, others)
        self._check_unused(leaf, issuers, others)
        return issuers

    def _check_order(self, leaf: _Item, issuers: list[_Item], others: list[_Item]) -> None:
        positions = [others.index(item) for item in issuers]
        if positions != sorted(positions):
            order = ", then ".join(f"'{item.certificate.subject}'" for item in [leaf, *issuers])
            self.find(
                "chain_out_of_order",
                f"the chain of the {leaf} is in the wrong order. Each certificate has to follow the one that "
                f"it signed: {order}.",
            )

    def _check_unused(self, leaf: _Item, issuers: list[_Item], others: list[_Item]) -> None:
        known = {(item.certificate.subject, item.certificate.spki_sha256) for item in issuers}
        for item in others:
            if item in issuers:
                continue
            if (item.certificate.subject, item.certificate.spki_sha256) in known:
                self.find("duplicate_issuer", f"the {item} is a second certificate of one issuer and is left out.")
            else:
                self.find(
                    "chain_unrelated",
                    f"the {item} has no part in the chain of the {leaf}: it signed neither the leaf nor one of "
                    "its issuers. Remove it, or give the chain that came with the certificate.",
                )

    def check_issuers(self, path: list[_Item]) -> None:
        for item in path[1:]:
            if not item.certificate.self_signed:
                self._check_served(item, 0, policy.life_of(path[0].certificate))

    def check_trust(self, path: list[_Item], anchors: _Anchors) -> str:
        """Return why the controller's OpenSSL refuses what the server would send; empty if it trusts it."""
        issuers = [item.certificate for item in path[1:] if not item.certificate.self_signed]
        return anchors.roots.distrust([one.der for one in [path[0].certificate, *issuers]])

    def explain(self, path: list[_Item], anchors: _Anchors, reason: str, allow_self_signed: bool) -> None:
        """Add what is wrong with a chain that OpenSSL refuses for this reason."""
        leaf = path[0]
        for depth, item in enumerate(path):
            if anchors.roots.of_servers and (depth == 0 or not item.certificate.self_signed):
                self.add(policy.check_purpose(item.certificate, str(item)))
            if depth:
                self.add(policy.check_issuer(item.certificate, str(item), depth - 1))
        known = [root for item in path for root in anchors.roots.issuers_of(item.certificate)]
        said = f"the controller's {_openssl()} says: {reason}"
        if known:
            self._explain_known_root(path, known, anchors, reason, said)
        elif not leaf.certificate.self_signed:
            self._explain_missing_root(path, anchors, said)
        elif not allow_self_signed:
            self.find(
                "self_signed",
                f"the {leaf} is self-signed, so no partner can verify it. Get one from a "
                "certification authority, or set 'allow_self_signed: true' if no partner checks it.",
            )

    def _explain_known_root(
        self, path: list[_Item], known: Sequence[Certificate], anchors: _Anchors, reason: str, said: str
    ) -> None:
        """Explain why a chain that ends at a known root is not trusted, unless another finding already explains it."""
        if not any(policy.is_valid(root, self.now) for root in known):
            root = _Item(known[0], anchors.name)
            self._check_dates(root, 0, policy.life_of(path[0].certificate))
        codes = {one.code for one in self.findings}
        if any(words in reason and codes & known_as for words, known_as in _EXPLAINED.items()):
            return
        why = explain_refusal(reason, [*(item.certificate for item in path), known[0]])
        shown = f"{why} ({said})" if why else said
        self.add([Finding.advised("untrusted", f"the chain of the {path[0]} is not trusted: {shown}", REISSUE)])

    def _explain_missing_root(self, path: list[_Item], anchors: _Anchors, said: str) -> None:
        leaf, last = path[0], path[-1]
        issuer = last.certificate.issuer
        if last.certificate.self_signed:
            self.find(
                "untrusted",
                f"the chain of the {leaf} ends at the root '{issuer}', which is not in {anchors.name}. If it "
                f"is your own authority, give its root as 'ca_file' or 'ca_content' ({said}).",
            )
            return
        if anchors.roots.has_subject(issuer):
            self.find(
                "untrusted",
                f"the {last} names '{issuer}' as its issuer, but the root of that name in {anchors.name} did "
                f"not sign it. Give the root that did, or a certificate that the known root signed ({said}).",
            )
            return
        url = last.certificate.issuer_url
        where = f" (its authority publishes it at {url})" if url else ""
        self.find(
            "chain_incomplete",
            f"the chain of the {leaf} stops too early: the certificate of '{issuer}', which signed "
            f"'{last.certificate.subject}', was not given and is no root of {anchors.name}. Append it to the "
            f"chain{where}; if it is the root of your own authority, give it as 'ca_file' or 'ca_content' ({said}).",
        )

    def _check_dates(self, item: _Item, warn_days_left: Optional[int], life: timedelta) -> None:
        """Check the dates of a certificate of a chain whose leaf has this life."""
        days = self.min_days_left, warn_days_left
        self.add(policy.check_dates(item.certificate, str(item), self.now, *days, life=life))

    def _check_served(self, item: _Item, warn_days_left: Optional[int], life: timedelta) -> None:
        """Apply the rules for every certificate that the server sends: the leaf and the intermediates."""
        certificate, label = item.certificate, str(item)
        self._check_dates(item, warn_days_left, life)
        self.add(policy.check_extensions(certificate, label))
        self.add(policy.check_strength(certificate, label))


def _openssl() -> str:
    """Return name and version of the library, like C(OpenSSL 3.0.19)."""
    return " ".join(ssl.OPENSSL_VERSION.split()[:2])


def _without_duplicates(items: list[_Item]) -> list[_Item]:
    return list({item.certificate.der: item for item in reversed(items)}.values())[::-1]
