# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of certificates: says what a partner's mail server would find wrong with one, before it is used.

Private to this collection, and for the controller only: it needs the Python package ``cryptography``. It
judges as mail servers do, that is as OpenSSL does, not by the stricter rules of browsers. Revocation and name
constraints are not looked at. No message contains key material, and what a certificate says about itself is
escaped before it is repeated.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem

MINIMUM_CRYPTOGRAPHY = (42, 0)

try:
    import cryptography
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
    from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

    CRYPTOGRAPHY_VERSION: Optional[str] = cryptography.__version__
except ImportError:
    CRYPTOGRAPHY_VERSION = None

SOON = timedelta(days=30)
"""A certificate with less left than this and than a third of its life earns a warning: renewal is late."""

_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_CA_BUNDLE_BYTES = 16 << 20
_WEAK_HASHES = frozenset({"md2", "md4", "md5", "sha1"})
_MINIMUM_RSA_BITS, _MINIMUM_EC_BITS = 2048, 224
_MAX_CHAIN = 16
_INVALID_CA = "invalid CA certificate"  # this and the like are the words of OpenSSL
# Letters that IDNA 2003 (Python's codec) maps to others and IDNA 2008 keeps: with the codec's answer a
# certificate for strasse.example would cover straße.example, which is another domain.
_IDNA_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")


class CertificateError(ValueError):
    """A certificate cannot be read, or a bundle was asked for that must not be installed."""


class MissingLibraryError(RuntimeError):
    """The controller lacks a recent enough ``cryptography``; the message says how to install it."""


def require_cryptography() -> None:
    """Raise MissingLibraryError unless a recent enough ``cryptography`` can be used."""
    wanted = ".".join(map(str, MINIMUM_CRYPTOGRAPHY))
    if CRYPTOGRAPHY_VERSION is None:
        found = "is missing"
    elif tuple(int(part) for part in CRYPTOGRAPHY_VERSION.split(".")[:2]) < MINIMUM_CRYPTOGRAPHY:
        found = f"is too old ({CRYPTOGRAPHY_VERSION})"
    else:
        return
    raise MissingLibraryError(
        f"the Python package 'cryptography' (version {wanted} or newer) {found} on the controller, where "
        "certificates are judged. Install it for the Python that runs Ansible, for example with "
        f"'python3 -m pip install \"cryptography>={wanted}\"', or use an execution environment that has it. "
        "The managed hosts do not need it."
    )


@dataclass(frozen=True)
class Certificate:
    """What this collection wants to know about a certificate; texts are escaped and times are in UTC.

    ``sans`` are written ``DNS:name`` and ``IP:address``. ``key_bits``, ``signature_hash`` and ``spki_sha256``
    are None where they mean nothing or cannot be told. ``is_ca``, ``purposes`` (of the extended key usage)
    and ``key_usage`` are None if the certificate has no such extension; ``damaged`` says that its extensions
    cannot be decoded.
    """

    der: bytes = field(repr=False)
    parsed: x509.Certificate = field(repr=False, compare=False)
    subject: str
    common_name: Optional[str]
    sans: tuple[str, ...]
    issuer: str
    serial: str
    not_before: datetime
    not_after: datetime
    key_type: str
    key_bits: Optional[int]
    signature_hash: Optional[str]
    spki_sha256: Optional[str]
    self_signed: bool
    is_ca: Optional[bool]
    path_length: Optional[int]
    purposes: Optional[frozenset[str]]
    key_usage: Optional[frozenset[str]]
    issuer_url: Optional[str]
    damaged: bool

    @classmethod
    def load(cls, der: bytes) -> Certificate:
        """Return the certificate that ``der`` encodes. Raises CertificateError, and nothing else."""
        try:
            with warnings.catch_warnings():
                # The library warns about what old certificates get wrong; that is for this file to judge.
                warnings.simplefilter("ignore")
                return cls._load(der)
        except Exception as error:
            raise CertificateError(
                f"it is not an X.509 certificate that can be read ({type(error).__name__})"
            ) from None

    @classmethod
    def _load(cls, der: bytes) -> Certificate:
        parsed = x509.load_der_x509_certificate(der)
        key_type, key_bits, spki = _key_facts(parsed)
        basic: Any = _extension(parsed, x509.BasicConstraints)
        purposes: Any = _extension(parsed, x509.ExtendedKeyUsage)
        return cls(
            der=der,
            parsed=parsed,
            subject=_distinguished_name(parsed.subject),
            common_name=_common_name(parsed.subject),
            sans=_alternative_names(parsed),
            issuer=_distinguished_name(parsed.issuer),
            serial=format(parsed.serial_number, "x"),
            not_before=parsed.not_valid_before_utc,
            not_after=parsed.not_valid_after_utc,
            key_type=key_type,
            key_bits=key_bits,
            signature_hash=_signature_hash(parsed),
            spki_sha256=pem.fingerprint(spki) if spki else None,
            self_signed=_is_issued_by(parsed, parsed),
            is_ca=None if basic is None else basic.ca,
            path_length=None if basic is None else basic.path_length,
            purposes=None if purposes is None else frozenset(oid.dotted_string for oid in purposes),
            key_usage=_key_usage(parsed),
            issuer_url=_issuer_url(parsed),
            damaged=_extensions(parsed) is None,
        )

    @property
    def fingerprint_sha256(self) -> str:
        """The SHA-256 fingerprint: 64 lower-case hexadecimal digits."""
        return pem.fingerprint(self.der)

    @property
    def pem(self) -> str:
        """The certificate as a PEM block."""
        return pem.PemBlock("CERTIFICATE", self.der).text

    def days_left(self, now: datetime) -> int:
        """Return the whole days until the certificate expires, rounded down: negative once it has."""
        return (self.not_after - now) // timedelta(days=1)

    @property
    def is_for_servers(self) -> bool:
        """Whether the extended key usage, if there is one, allows a TLS server to use the certificate."""
        server = {ExtendedKeyUsageOID.SERVER_AUTH.dotted_string, _ANY_PURPOSE}
        return self.purposes is None or bool(self.purposes & server)

    @property
    def spki(self) -> Optional[bytes]:
        """The DER of the public key; None if it cannot be told."""
        return _key_facts(self.parsed)[2]

    def refuses_to_sign(self, authorities: int) -> str:
        """Why it may not be the issuer of one with so many authorities between them, in OpenSSL's words, or nothing."""
        may_sign = self.key_usage is None or "key_cert_sign" in self.key_usage
        # A root may be older than the extension that says CA; an intermediate has no such excuse.
        if not may_sign or not (self.is_ca or (self.is_ca is None and self.self_signed)):
            return _INVALID_CA
        if self.path_length is not None and self.path_length < authorities:
            return "path length constraint exceeded"
        return ""

    def is_issued_by(self, issuer: Certificate) -> bool:
        """Whether the issuer's name fits and its key made this certificate's signature."""
        return _is_issued_by(self.parsed, issuer.parsed)

    def describe(self, now: Optional[datetime] = None) -> dict[str, Any]:
        """Return the public facts as plain data; the keys are those that the module documents."""
        return {
            "subject": self.subject,
            "common_name": self.common_name,
            "sans": list(self.sans),
            "issuer": self.issuer,
            "serial": self.serial,
            "not_before": _iso(self.not_before),
            "not_after": _iso(self.not_after),
            "days_left": self.days_left(now or _now()),
            "key_type": self.key_type,
            "key_bits": self.key_bits,
            "signature_hash": self.signature_hash,
            "fingerprint_sha256": self.fingerprint_sha256,
            "spki_sha256": self.spki_sha256,
            "self_signed": self.self_signed,
        }


def describe(der: bytes, now: Optional[datetime] = None) -> dict[str, Any]:
    """Return the public facts about a certificate; see Certificate.describe. Raises CertificateError."""
    return Certificate.load(der).describe(now)


def covers(certificate: Union[bytes, Certificate], name: str) -> bool:
    """Whether the certificate is for the host ``name``, a domain name or an IP address, as RFC 9525 says.

    A wildcard stands for the whole left-most label and needs two labels behind it. The common name counts for
    a domain name if, and only if, there is no alternative name that is a domain name or an address, as mail
    servers do it. Letters that are not ASCII are compared by their A-label. Raises CertificateError if
    ``certificate`` is not one.
    """
    if isinstance(certificate, bytes):
        certificate = Certificate.load(certificate)
    address = _address(name)
    if address is not None:
        return any(san == f"IP:{address}" for san in certificate.sans)
    host = ascii_name(name)
    if not host:
        return False
    patterns = [san[4:] for san in certificate.sans if san.startswith("DNS:")]
    if not certificate.sans and not certificate.damaged and certificate.common_name:
        patterns = [certificate.common_name]
    return any(_matches(pattern, host) for pattern in patterns)


@dataclass(frozen=True)
class Finding:
    """One fault: a stable ``code`` for programs and a ``message`` that says what, where, and what to do."""

    code: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """Return the finding as plain data."""
        return {"code": self.code, "message": self.message}


@dataclass(frozen=True)
class Sources:
    """How messages call the four inputs; usually the paths that the user gave."""

    private_key: str = "the private key"
    certificate: str = "the certificate"
    chain: str = "the chain"
    ca: str = "the CA certificates"


@dataclass(frozen=True)
class Judgement:
    """The verdict: every fault that was found, and what would be installed if there is none."""

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    leaf: Optional[Certificate]
    chain: tuple[Certificate, ...]
    _key: Optional[pem.PemBlock] = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the certificate may be installed."""
        return not self.findings

    @property
    def bundle(self) -> str:
        """The one PEM text that a mail server is given: key, leaf, chain, in this order, without the root.

        The key keeps the format that it came in. Raises CertificateError while there are findings.
        """
        if self.findings or self.leaf is None or self._key is None:
            raise CertificateError("there are findings, so there is no bundle to install")
        return self._key.text + self.leaf.pem + "".join(certificate.pem for certificate in self.chain)


def judge(
    private_key_pem: Union[str, bytes],
    leaf_pem: Union[str, bytes],
    chain_pem: Union[str, bytes, None] = None,
    *,
    ca_pem: Union[str, bytes, None] = None,
    names: Sequence[str],
    min_days_left: int = 14,
    allow_self_signed: bool = False,
    now: Optional[datetime] = None,
    sources: Optional[Sources] = None,
) -> Judgement:
    """Judge a private key, its certificate and the chain that would be served together.

    The first certificate of ``leaf_pem`` is the leaf; what follows it there comes before ``chain_pem``. Trust
    starts at the self-signed certificates of ``ca_pem`` or, without it, at the controller's system store.
    ``now`` must know its time zone. Bad input of any kind becomes findings, never an exception.
    """
    court = _Court(now or _now(), min_days_left, sources or Sources())
    key = court.read_key(private_key_pem)
    presented = court.read_certificates(leaf_pem, court.sources.certificate)
    extra = court.read_certificates(chain_pem, court.sources.chain) if chain_pem else []
    trust = court.read_roots(ca_pem)
    if not presented:
        return Judgement(tuple(court.findings), (), None, ())
    leaf, others = court.find_leaf(key, _without_duplicates(presented + extra))
    court.judge_leaf(leaf, names)
    path = [leaf, *court.build_path(leaf, others)]
    court.judge_issuers(path)
    court.judge_trust(path, trust, allow_self_signed)
    return Judgement(
        findings=tuple(court.findings),
        warnings=tuple(court.warnings),
        leaf=leaf.certificate,
        chain=tuple(item.certificate for item in path[1:] if not item.certificate.self_signed),
        _key=key[0] if key else None,
    )


def printable(text: str, limit: int = 500) -> str:
    """Return the text with everything escaped that could confuse a terminal or a log, cut to ``limit``."""
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text[:limit]
    )
    return escaped if len(text) <= limit else escaped + "..."


@dataclass(frozen=True)
class _Item:
    """A certificate and the input it came from."""

    certificate: Certificate
    source: str

    def __str__(self) -> str:
        return f"certificate '{self.certificate.subject}' of {self.source}"


@dataclass(frozen=True)
class _Trust:
    """The roots to start from, and how to call them in a message."""

    roots: tuple[Certificate, ...]
    name: str

    def issuers_of(self, certificate: Certificate) -> list[Certificate]:
        name = certificate.parsed.issuer
        return [r for r in self.roots if r.parsed.subject == name and certificate.is_issued_by(r)]


@dataclass
class _Court:
    """The hearing of one case: collects what there is to say while the evidence is read."""

    now: datetime
    min_days_left: int
    sources: Sources
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def find(self, code: str, message: str) -> None:
        finding = Finding(code, message)
        if finding not in self.findings:
            self.findings.append(finding)

    def read_blocks(self, text: Union[str, bytes], source: str) -> list[pem.PemBlock]:
        """Return the PEM blocks, none after a finding; text without any block is a finding, too."""
        try:
            blocks = pem.split(text)
        except pem.PemError as error:
            self.find("not_pem", f"{source} cannot be read as PEM: {error}.")
            return []
        if not blocks:
            what = "it is empty" if not text.strip() else "there is no '-----BEGIN ...-----' line in it"
            self.find("not_pem", f"{source} is not PEM: {what}. Give the text form, which begins so.")
        return blocks

    def read_key(self, text: Union[str, bytes]) -> Optional[tuple[pem.PemBlock, bytes]]:
        """Return the private key's block and the DER of its public key."""
        source = self.sources.private_key
        blocks = self.read_blocks(text, source)
        keys = [block for block in blocks if block.is_private_key]
        if not keys:
            if blocks:
                labels = ", ".join(sorted({block.label for block in blocks}))
                self.find(
                    "not_pem",
                    f"{source} holds no private key but: {labels}. Give the file whose first line is "
                    "'-----BEGIN PRIVATE KEY-----' or alike; perhaps two files were swapped.",
                )
            return None
        if len(keys) > 1:
            self.find("key_ambiguous", f"{source} holds {len(keys)} private keys. Leave only the certificate's.")
            return None
        if keys[0].is_encrypted:
            self.find(
                "key_encrypted",
                f"{source} is protected by a passphrase, and a mail server that starts has nobody to ask. "
                "Remove the passphrase ('openssl pkey -in KEY -out NEW') and keep the result in Ansible "
                "Vault instead.",
            )
            return None
        try:
            key = serialization.load_pem_private_key(keys[0].text.encode("ascii"), password=None)
            public = _spki(key.public_key())
        except Exception:
            # The library's reason is left out on purpose: it is the one text here that might quote the key.
            self.find(
                "key_invalid",
                f"{source} is PEM, but there is no usable private key in it. 'openssl pkey -in KEY -noout "
                "-check' says more; make a new key and certificate if the file is damaged.",
            )
            return None
        return keys[0], public

    def read_certificates(self, text: Union[str, bytes], source: str) -> list[_Item]:
        blocks = self.read_blocks(text, source)
        found = pem.certificates(blocks)
        if blocks and not found:
            labels = ", ".join(sorted({block.label for block in blocks}))
            self.find(
                "not_pem",
                f"{source} holds no certificate but: {labels}. Give the file whose first line is "
                "'-----BEGIN CERTIFICATE-----'; perhaps two files were swapped.",
            )
        items = []
        for number, block in enumerate(found, start=1):
            try:
                items.append(_Item(Certificate.load(block.der), source))
            except CertificateError as error:
                self.find("malformed", f"certificate number {number} of {source} is damaged: {error}.")
        return items

    def read_roots(self, text: Union[str, bytes, None]) -> _Trust:
        if not text:
            roots, name = system_roots()
            return _Trust(roots, name)
        items = self.read_certificates(text, self.sources.ca)
        roots = tuple(item.certificate for item in items if item.certificate.self_signed)
        if items and not roots:
            self.find(
                "untrusted",
                f"{self.sources.ca} holds no root: none of its certificates is signed by itself. Give the "
                "root there; intermediate certificates belong into the chain.",
            )
        return _Trust(roots, self.sources.ca)

    def find_leaf(self, key: Optional[tuple[pem.PemBlock, bytes]], items: list[_Item]) -> tuple[_Item, list[_Item]]:
        """Return the certificate that belongs to the key, the first if there is none, and the others."""
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

    def judge_leaf(self, leaf: _Item, names: Iterable[str]) -> None:
        certificate = leaf.certificate
        self._judge_served(leaf)
        for name in names:
            if not covers(certificate, name):
                self.find(
                    "name_not_covered",
                    f"the {leaf} does not cover '{printable(name)}': it is for {_names_of(certificate)}. Get "
                    "a certificate with that name, or correct 'names' if the host is called differently.",
                )
        usage = certificate.key_usage
        if usage is not None and not usage & {"digital_signature", "key_encipherment", "key_agreement"}:
            self.find(
                "wrong_purpose",
                f"the {leaf} may not be used for TLS: its key usage is "
                f"{', '.join(sorted(usage)) or 'empty'}. Request a certificate for a TLS server.",
            )
        if certificate.is_ca and not certificate.self_signed:
            self.find(
                "ca_as_leaf",
                f"the {leaf} is a CA's certificate, not a server's. Put the server's own certificate first.",
            )
        days = certificate.days_left(self.now)
        soon = min(SOON, (certificate.not_after - certificate.not_before) / 3)
        if self.min_days_left <= days and certificate.not_after - self.now < soon:
            self.warnings.append(
                f"the {leaf} expires in {days} days ({_iso(certificate.not_after)}); its renewal seems to be late."
            )

    def build_path(self, leaf: _Item, others: list[_Item]) -> list[_Item]:
        """Return the issuers from the leaf upwards, as far as they were given, in the order to serve them."""
        path: list[_Item] = []
        current = leaf.certificate
        while not current.self_signed:
            issuers = [i for i in others if i not in path and current.is_issued_by(i.certificate)]
            if not issuers:
                break
            # Of two certificates for one issuer, an expired one is not the way up.
            path.append(min(issuers, key=lambda item: item.certificate.not_after <= self.now))
            current = path[-1].certificate
        positions = [others.index(item) for item in path]
        if positions != sorted(positions):
            order = ", then ".join(f"'{item.certificate.subject}'" for item in [leaf, *path])
            self.find(
                "chain_out_of_order",
                f"the chain of the {leaf} is in the wrong order. Each certificate has to follow the one that "
                f"it signed: {order}.",
            )
        known = {(item.certificate.subject, item.certificate.spki_sha256) for item in path}
        for item in others:
            if item in path:
                continue
            if (item.certificate.subject, item.certificate.spki_sha256) in known:
                self.warnings.append(f"the {item} is a second certificate of one issuer and is left out.")
            else:
                self.find(
                    "chain_unrelated",
                    f"the {item} has no part in the chain of the {leaf}: it signed neither that nor one of "
                    "its issuers. Remove it, or give the chain that came with the certificate.",
                )
        return path

    def judge_issuers(self, path: list[_Item]) -> None:
        for depth, item in enumerate(path[1:]):
            certificate = item.certificate
            if not certificate.self_signed:
                self._judge_served(item)
            self._judge_is_ca(item, depth)

    def judge_trust(self, path: list[_Item], trust: _Trust, allow_self_signed: bool) -> None:
        leaf, last = path[0], path[-1]
        anchors = [_Item(root, trust.name) for item in path for root in trust.issuers_of(item.certificate)]
        if leaf.certificate.self_signed:
            if not anchors and not allow_self_signed:
                self.find(
                    "self_signed",
                    f"the {leaf} is signed by itself, so nobody can tell it from a forgery. Get one from a "
                    "certification authority, or set 'allow_self_signed: true' if no partner checks it.",
                )
            return
        if anchors:
            valid = [item for item in anchors if self._is_valid(item.certificate)]
            if not valid:
                self._judge_dates(anchors[0])
            return
        issuer = last.certificate.issuer
        if last.certificate.self_signed:
            self.find(
                "untrusted",
                f"the chain of the {leaf} ends at the root '{issuer}', which is not in {trust.name}. If it "
                "is your own authority, give its root as 'ca_file' or 'ca_content'.",
            )
            return
        if any(root.subject == issuer for root in trust.roots):
            self.find(
                "untrusted",
                f"the {last} names '{issuer}' as its issuer, but the root of that name in {trust.name} did "
                "not sign it. Give the root that did, or a certificate that the known root signed.",
            )
            return
        url = last.certificate.issuer_url
        where = f" (its authority publishes it at {url})" if url else ""
        self.find(
            "chain_incomplete",
            f"the chain of the {leaf} stops too early: the certificate of '{issuer}', which signed "
            f"'{last.certificate.subject}', was not given and is no root of {trust.name}. Append it to the "
            f"chain{where}; if it is the root of your own authority, give it as 'ca_file' or 'ca_content'.",
        )

    def _judge_served(self, item: _Item) -> None:
        """What every certificate that goes over the wire has to satisfy, the leaf and intermediates alike."""
        certificate = item.certificate
        self._judge_dates(item)
        if certificate.damaged:
            self.find(
                "malformed",
                f"the {item} has extensions that cannot be decoded. Have it issued again.",
            )
        if _is_weak_key(certificate):
            self.find(
                "weak_key",
                f"the {item} has a weak key ({certificate.key_type}, {certificate.key_bits} bits) that "
                f"partners refuse. Use RSA with at least {_MINIMUM_RSA_BITS} bits, or ECDSA P-256.",
            )
        if certificate.signature_hash in _WEAK_HASHES and not certificate.self_signed:
            self.find(
                "weak_signature",
                f"the {item} is signed with {certificate.signature_hash.upper()}, which partners refuse. "
                "Have it issued again with SHA-256.",
            )
        if not certificate.is_for_servers:
            self.find(
                "wrong_purpose",
                f"the {item} is not meant for servers: its extended key usage lacks serverAuth. Request a "
                "certificate for a TLS server.",
            )

    def _judge_dates(self, item: _Item) -> None:
        certificate = item.certificate
        days = certificate.days_left(self.now)
        if certificate.not_after <= self.now:
            self.find(
                "expired",
                f"the {item} expired on {_iso(certificate.not_after)}. Renew it, or replace it by its successor.",
            )
        elif certificate.not_before > self.now:
            self.find(
                "not_yet_valid",
                f"the {item} is valid only from {_iso(certificate.not_before)}. Wait until then; if that "
                "time has passed, correct the controller's clock.",
            )
        elif days < self.min_days_left:
            self.find(
                "expiring",
                f"the {item} expires in {days} days ({_iso(certificate.not_after)}), and 'min_days_left' "
                f"asks for {self.min_days_left}. Renew it first, or lower 'min_days_left'.",
            )

    def _judge_is_ca(self, item: _Item, depth: int) -> None:
        certificate = item.certificate
        reason = certificate.refuses_to_sign(depth)
        if reason == _INVALID_CA:
            self.find(
                "issuer_not_ca",
                f"the {item} signed another certificate, but is not allowed to: it is no CA's. Have the "
                "certificate issued by an authority.",
            )
        elif reason:
            self.find(
                "issuer_not_ca",
                f"the {item} allows {certificate.path_length} authorities below it, and the chain has {depth}.",
            )

    def _is_valid(self, certificate: Certificate) -> bool:
        return certificate.not_before <= self.now < certificate.not_after


_ANY_PURPOSE = "2.5.29.37.0"


def system_roots() -> tuple[tuple[Certificate, ...], str]:
    """Return the roots that the controller's system trusts, and the name of that store for messages."""
    paths = ssl.get_default_verify_paths()
    for candidate in dict.fromkeys([paths.cafile, paths.openssl_cafile, *_CA_BUNDLES]):
        try:
            text = Path(candidate).read_bytes() if candidate else b""
            blocks = pem.certificates(pem.split(text, max_bytes=_CA_BUNDLE_BYTES))
        except (OSError, pem.PemError):
            continue
        roots = []
        for block in blocks:
            try:
                roots.append(Certificate.load(block.der))
            except CertificateError:
                continue
        if roots:
            return tuple(roots), f"the controller's system store ({candidate})"
    return (), "the controller's system store (none was found; is the package ca-certificates installed?)"


class Roots:
    """A trust store: self-signed certificates, and others that may stand between them and a leaf."""

    def __init__(self, certificates: Iterable[Certificate]) -> None:
        """Sort the certificates by their subjects."""
        self._by_subject: dict[str, list[Certificate]] = {}
        self._issuers: dict[bytes, tuple[Certificate, ...]] = {}
        for certificate in certificates:
            self._by_subject.setdefault(certificate.subject, []).append(certificate)

    @classmethod
    def of_pem(cls, text: Union[str, bytes]) -> Roots:
        """The certificates of a PEM text, without those that cannot be read. Raises PemError."""
        loaded = []
        for block in pem.certificates(pem.split(text, max_bytes=_CA_BUNDLE_BYTES)):
            with contextlib.suppress(CertificateError):
                loaded.append(Certificate.load(block.der))
        return cls(loaded)

    @classmethod
    def of_system(cls) -> Roots:
        """What the controller's system trusts."""
        return cls(system_roots()[0])

    def issuers_of(self, certificate: Certificate) -> tuple[Certificate, ...]:
        """Those of the store that signed the certificate."""
        if certificate.der not in self._issuers:
            named = self._by_subject.get(certificate.issuer, ())
            self._issuers[certificate.der] = tuple(one for one in named if certificate.is_issued_by(one))
        return self._issuers[certificate.der]

    def distrust(self, chain: Sequence[Certificate], now: datetime) -> str:
        """Why a mail server would not trust a served chain, leaf first; empty if it would.

        The words are OpenSSL's, whose judgement for the purpose "TLS server" and security level 2 this follows.
        Names are not looked at. Every certificate is tried once, so that a hostile chain costs no more.
        """
        leaf = chain[0]
        fault = "self-signed certificate" if leaf.self_signed else "unable to get local issuer certificate"
        waiting, tried = [(leaf, 0)], {leaf.der}
        for certificate, depth in waiting:
            known = self.issuers_of(certificate)
            served = [one for one in chain[1:_MAX_CHAIN] if certificate.is_issued_by(one)]
            for issuer in [*known, *served]:
                if issuer.self_signed and issuer not in known:
                    fault = "self-signed certificate in certificate chain"
                    continue
                why_not = "" if issuer is leaf or issuer.der == leaf.der else _no_issuer(issuer, depth)
                why_not = why_not or _out_of_date(issuer, now)
                if why_not:
                    fault = why_not
                elif issuer.self_signed:
                    return _unfit(leaf, now)
                elif issuer.der not in tried:
                    tried.add(issuer.der)
                    waiting.append((issuer, depth + 1))
        return fault


def served_path(chain: Sequence[Certificate]) -> list[Certificate]:
    """The leaf of a served chain and its issuers upwards, as far as they were served, whatever their order."""
    path = [chain[0]]
    while not path[-1].self_signed:
        above = next((one for one in chain[1:_MAX_CHAIN] if one not in path and path[-1].is_issued_by(one)), None)
        if above is None:
            break
        path.append(above)
    return path


def _no_issuer(certificate: Certificate, depth: int) -> str:
    """Why a certificate may not have signed one with so many authorities below it; OpenSSL's words."""
    reason = certificate.refuses_to_sign(depth)
    if reason:
        return reason
    if _is_weak_key(certificate):
        return "CA certificate key too weak"
    weak = certificate.signature_hash in _WEAK_HASHES and not certificate.self_signed
    return "CA signature digest algorithm too weak" if weak else ""


def _unfit(leaf: Certificate, now: datetime) -> str:
    """Why a leaf is none for a TLS server, whoever signed it; OpenSSL's words."""
    if leaf.damaged or not leaf.is_for_servers:
        return "unsuitable certificate purpose"
    if _is_weak_key(leaf):
        return "EE certificate key too weak"
    if leaf.signature_hash in _WEAK_HASHES and not leaf.self_signed:
        return "CA signature digest algorithm too weak"
    return _out_of_date(leaf, now)


def _out_of_date(certificate: Certificate, now: datetime) -> str:
    if certificate.not_after <= now:
        return "certificate has expired"
    return "certificate is not yet valid" if certificate.not_before > now else ""


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _without_duplicates(items: list[_Item]) -> list[_Item]:
    return list({item.certificate.der: item for item in reversed(items)}.values())[::-1]


def _names_of(certificate: Certificate) -> str:
    shown = [printable(san[san.index(":") + 1 :]) for san in certificate.sans[:10]]
    if len(certificate.sans) > len(shown):
        shown.append(f"{len(certificate.sans) - len(shown)} more")
    return ", ".join(shown) or (certificate.common_name and printable(certificate.common_name)) or "no name"


def _is_weak_key(certificate: Certificate) -> bool:
    bits = certificate.key_bits or 0
    return (
        certificate.key_type == "DSA"
        or (certificate.key_type == "RSA" and bits < _MINIMUM_RSA_BITS)
        or (certificate.key_type == "EC" and bits < _MINIMUM_EC_BITS)
    )


def _spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _key_facts(parsed: x509.Certificate) -> tuple[str, Optional[int], Optional[bytes]]:
    """Return kind, size in bits and DER of the public key, as far as they can be told."""
    try:
        key = parsed.public_key()
        spki = _spki(key)
    except Exception:
        return "unknown", None, None
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA", key.key_size, spki
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "EC", key.curve.key_size, spki
    if isinstance(key, dsa.DSAPublicKey):
        return "DSA", key.key_size, spki
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519", 256, spki
    if isinstance(key, ed448.Ed448PublicKey):
        return "Ed448", 456, spki
    return type(key).__name__.replace("PublicKey", ""), None, spki


def _signature_hash(parsed: x509.Certificate) -> Optional[str]:
    try:
        algorithm = parsed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return algorithm.name if algorithm else None


def _is_issued_by(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    if child.issuer != issuer.subject:
        return False
    try:
        if _signature_hash(child) in _WEAK_HASHES:
            _verify_weak_signature(child, issuer)
        else:
            child.verify_directly_issued_by(issuer)
    except Exception:
        return False
    return True


def _verify_weak_signature(child: x509.Certificate, issuer: x509.Certificate) -> None:
    """Verify a signature over SHA-1 or MD5, for which newer libraries refuse verify_directly_issued_by.

    It has to be followed nevertheless: many a private root is signed so, which does no harm, and an intermediate
    that is has to be reported as weak, not as missing. Raises an exception of any kind if it is not right.
    """
    key: Any = issuer.public_key()
    algorithm = child.signature_hash_algorithm
    if not algorithm:
        raise CertificateError("the signature has no hash")
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(child.signature, child.tbs_certificate_bytes, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(child.signature, child.tbs_certificate_bytes, ec.ECDSA(algorithm))
    else:
        raise CertificateError("no such signature is made with this kind of key")


def _extensions(parsed: x509.Certificate) -> Optional[x509.Extensions]:
    """Return the extensions, or None if they cannot be decoded: the library reads all of them or none."""
    try:
        return parsed.extensions
    except Exception:
        return None


def _extension(parsed: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    extensions = _extensions(parsed)
    try:
        return None if extensions is None else extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _alternative_names(parsed: x509.Certificate) -> tuple[str, ...]:
    names: Any = _extension(parsed, x509.SubjectAlternativeName)
    found = []
    for name in names or ():
        if isinstance(name, x509.DNSName):
            found.append("DNS:" + printable(name.value))
        elif isinstance(name, x509.IPAddress):
            found.append(f"IP:{name.value}")
    return tuple(found)


def _key_usage(parsed: x509.Certificate) -> Optional[frozenset[str]]:
    usage: Any = _extension(parsed, x509.KeyUsage)
    if usage is None:
        return None
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
    )
    return frozenset(name for name in names if getattr(usage, name))


def _issuer_url(parsed: x509.Certificate) -> Optional[str]:
    for access in _extension(parsed, x509.AuthorityInformationAccess) or ():
        if access.access_method == AuthorityInformationAccessOID.CA_ISSUERS and isinstance(
            access.access_location, x509.UniformResourceIdentifier
        ):
            return printable(access.access_location.value)
    return None


def _distinguished_name(name: x509.Name) -> str:
    try:
        text = name.rfc4514_string()
    except Exception:
        return "(a name that cannot be decoded)"
    return printable(text) or "(no name)"


def _common_name(name: x509.Name) -> Optional[str]:
    """Return the last common name, which is the most specific one."""
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not values:
        return None
    value = values[-1]
    return printable(value if isinstance(value, str) else value.decode("latin-1"))


def _address(name: str) -> Optional[str]:
    try:
        return str(ipaddress.ip_address(name.strip().strip("[]")))
    except ValueError:
        return None


def ascii_name(name: str) -> Optional[str]:
    """Return a domain name in lower-case A-labels without the final dot; None if it cannot be one."""
    labels = []
    for label in unicodedata.normalize("NFC", name.strip().lower()).removesuffix(".").split("."):
        try:
            if label.isascii():
                encoded = label
            elif _IDNA_DEVIATIONS & set(label):
                encoded = "xn--" + label.encode("punycode").decode("ascii")
            else:
                encoded = label.encode("idna").decode("ascii")
        except UnicodeError:
            return None
        if not 0 < len(encoded) <= 63 or "." in encoded:
            return None
        labels.append(encoded)
    return ".".join(labels)


def _matches(pattern: str, host: str) -> bool:
    """Whether the name in a certificate, perhaps with a wildcard, is the name of the host."""
    # A certificate's name is ASCII already; a U-label in a common name is not translated for anybody.
    pattern = pattern.lower().removesuffix(".")
    if not pattern.startswith("*."):
        return "*" not in pattern and pattern == host
    rest = pattern[2:]
    first, _dot, parent = host.partition(".")
    return bool(first) and "*" not in rest and "." in rest and parent == rest
