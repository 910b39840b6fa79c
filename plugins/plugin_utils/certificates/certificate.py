# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads one certificate and gives its facts.

Private to this collection. Runs on the controller only, because it needs the Python package ``cryptography``. The file
policy.py decides which facts are faults. No message contains key material. Text from a certificate is escaped before it
appears in a message.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem, rules
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import PSS, WEAK_HASHES

MINIMUM_CRYPTOGRAPHY = (42, 0)

try:
    import cryptography
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
    from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

    CRYPTOGRAPHY_VERSION: Optional[str] = cryptography.__version__
except ImportError:
    CRYPTOGRAPHY_VERSION = None


printable_text, iso_time = rules.printable_text, rules.iso_time


class CertificateError(ValueError):
    """A certificate cannot be read, or the caller asked for a bundle although there are findings."""


class MissingLibraryError(RuntimeError):
    """The controller lacks a recent enough ``cryptography``. The message explains how to install it."""


def require_cryptography() -> None:
    """Raise MissingLibraryError unless a recent enough ``cryptography`` is installed."""
    wanted = ".".join(map(str, MINIMUM_CRYPTOGRAPHY))
    if CRYPTOGRAPHY_VERSION is None:
        found = "is missing"
    elif tuple(int(part) for part in CRYPTOGRAPHY_VERSION.split(".")[:2]) < MINIMUM_CRYPTOGRAPHY:
        found = f"is too old ({CRYPTOGRAPHY_VERSION})"
    else:
        return
    raise MissingLibraryError(
        f"the Python package 'cryptography' (version {wanted} or newer) {found} on the controller, where "
        "certificates are checked. Install it for the Python that runs Ansible, for example with "
        f"'python3 -m pip install \"cryptography>={wanted}\"', or use an execution environment that has it. "
        "The managed hosts do not need it."
    )


@dataclass(frozen=True)
class Certificate:
    """The facts of a certificate. Texts are escaped; times are in UTC.

    Entries of ``sans`` have the form ``DNS:name`` or ``IP:address``. ``key_bits``, ``signature_hash`` and
    ``spki_sha256`` are None if they do not apply or are unknown. ``is_ca``, ``purposes`` (of the extended key usage)
    and ``key_usage`` are None if the certificate has no such extension. ``damaged`` is true if the extensions cannot be
    decoded.
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
        """Return the certificate that ``der`` encodes. Raises CertificateError and no other exception."""
        try:
            with warnings.catch_warnings():
                # The library warns about faults of old certificates, which policy.py reports.
                warnings.simplefilter("ignore")
                return cls._load(der)
        except Exception as error:
            raise CertificateError(f"it is not a readable X.509 certificate ({type(error).__name__})") from None

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
        """Return the whole days until the certificate expires, rounded down. The number is negative after the end."""
        return (self.not_after - now) // timedelta(days=1)

    @property
    def is_for_servers(self) -> bool:
        """Whether the extended key usage, if there is one, allows a TLS server to use the certificate."""
        return self.purposes is None or bool(self.purposes & rules.SERVER_PURPOSES)

    @property
    def curve(self) -> str:
        """The name of the elliptic curve of the public key, such as C(secp256r1); empty for another kind of key."""
        if self.key_type != "EC":
            return ""
        return str(self.parsed.public_key().curve.name)  # type: ignore[union-attr]

    @property
    def uses_pss(self) -> bool:
        """Whether its signature is one of RSASSA-PSS, or its key is for those only, as far as the library can tell."""
        found = self.parsed.signature_algorithm_oid, getattr(self.parsed, "public_key_algorithm_oid", None)
        return PSS in [one.dotted_string for one in found if one]

    @property
    def must_staple(self) -> bool:
        """Whether the certificate asks its server for a stapled OCSP response."""
        return bool(x509.TLSFeatureType.status_request in (_extension(self.parsed, x509.TLSFeature) or ()))

    @property
    def spki(self) -> Optional[bytes]:
        """The DER of the public key; None if the key cannot be read."""
        return _key_facts(self.parsed)[2]

    def confirms(self, host: str, is_address: bool) -> bool:
        """Whether a name that is among its names is: the library tells them apart, so there is nothing more to ask."""
        return True

    def refuses_to_sign(self, authorities: int) -> str:
        """Return OpenSSL's message why the certificate may not sign another one; empty if it may.

        authorities is the number of authorities between the two certificates.
        """
        may_sign = self.key_usage is None or "key_cert_sign" in self.key_usage
        # A root may be older than the basic constraints extension. An intermediate must have it.
        is_old = self.parsed.version is x509.Version.v1 or self.key_usage is not None
        if not may_sign or not (self.is_ca or (self.is_ca is None and self.self_signed and is_old)):
            return rules.INVALID_CA
        if self.path_length is not None and self.path_length < authorities:
            return rules.PATH_TOO_LONG
        return ""

    @property
    def critical(self) -> tuple[str, ...]:
        """The identifiers (OIDs) of the critical extensions, as far as the extensions can be decoded."""
        return tuple(one.oid.dotted_string for one in _extensions(self.parsed) or () if one.critical)

    def names_as_issuer(self, other: Certificate) -> bool:
        """Whether the other certificate has the issuer's name. The signature is not verified."""
        return _names_as_issuer(self.parsed, other.parsed)

    def is_issued_by(self, issuer: Certificate) -> bool:
        """Whether the issuer's name matches and the issuer's key made the signature of this certificate."""
        return _is_issued_by(self.parsed, issuer.parsed)

    def describe(self, now: Optional[datetime] = None) -> dict[str, Any]:
        """Return the public facts as plain data. The keys are those that the module documents."""
        return {
            "subject": self.subject,
            "common_name": self.common_name,
            "sans": list(self.sans),
            "issuer": self.issuer,
            "serial": self.serial,
            "not_before": iso_time(self.not_before),
            "not_after": iso_time(self.not_after),
            "days_left": self.days_left(now or utc_now()),
            "key_type": self.key_type,
            "key_bits": self.key_bits,
            "signature_hash": self.signature_hash,
            "fingerprint_sha256": self.fingerprint_sha256,
            "spki_sha256": self.spki_sha256,
            "self_signed": self.self_signed,
        }


def extension_of(certificate: Certificate, kind: type[x509.ExtensionType]) -> Any:
    """Return an extension of this kind; None if the certificate has none, or if the extensions cannot be decoded."""
    return _extension(certificate.parsed, kind)


def describe(der: bytes, now: Optional[datetime] = None) -> dict[str, Any]:
    """Return the public facts of a certificate, with the keys of Certificate.describe. Raises CertificateError."""
    return Certificate.load(der).describe(now)


def utc_now() -> datetime:
    """Return the current time, timezone-aware."""
    return datetime.now(timezone.utc)


def public_key_of(private_key: pem.PemBlock) -> bytes:
    """Return the DER of the public key of a private key. Raises CertificateError without a reason.

    The message of the library is left out on purpose, because it might quote the key.
    """
    try:
        key = serialization.load_pem_private_key(private_key.text.encode("ascii"), password=None)
        return _spki(key.public_key())
    except Exception:
        raise CertificateError("the private key cannot be decoded") from None


def request_facts(text: str) -> tuple[bytes, list[str]]:
    """Return the public key (DER) and the names of a request (CSR) whose signature is right. Raises CertificateError, a ValueError."""
    try:
        request = x509.load_pem_x509_csr(text.encode("ascii"))
        if not request.is_signature_valid:
            raise CertificateError("its signature is wrong")
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return _spki(request.public_key()), [str(one.value) for one in names]
    except CertificateError:
        raise
    except Exception as error:
        raise CertificateError(f"it is not a readable request ({type(error).__name__})") from None


def _spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _key_facts(parsed: x509.Certificate) -> tuple[str, Optional[int], Optional[bytes]]:
    """Return kind, size in bits and DER of the public key, as far as they are known."""
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


def folded_name(name: x509.Name) -> tuple[frozenset[tuple[str, str]], ...]:
    """Return a name so that two names are equal if they are equal to OpenSSL: letter case and extra blanks do not count."""
    return tuple(
        frozenset((one.oid.dotted_string, " ".join(str(one.value).split()).lower()) for one in part)
        for part in name.rdns
    )


def _names_as_issuer(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    return child.issuer == issuer.subject or folded_name(child.issuer) == folded_name(issuer.subject)


def _is_issued_by(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    if not _names_as_issuer(child, issuer):
        return False
    try:
        _verify_signature(child, issuer.public_key())
    except Exception:
        return False
    return True


def _verify_signature(child: x509.Certificate, key: Any) -> None:
    """Verify the signature with the issuer's key. Raises an exception of any type if it is wrong.

    verify_directly_issued_by() of the library would refuse weak hashes. But many private roots have such a signature,
    and there it is harmless; and an intermediate with one must be reported as weak, not as missing.
    """
    given: tuple[Any, ...] = ()
    if isinstance(key, rsa.RSAPublicKey):
        digest = child.signature_hash_algorithm
        is_weak = digest is not None and digest.name in WEAK_HASHES  # the library does not tell the parameters of MD5
        given = padding.PKCS1v15() if is_weak else child.signature_algorithm_parameters, digest
    elif isinstance(key, ec.EllipticCurvePublicKey):
        given = (ec.ECDSA(child.signature_hash_algorithm),)  # type: ignore[arg-type]
    elif isinstance(key, dsa.DSAPublicKey):
        given = (child.signature_hash_algorithm,)
    key.verify(child.signature, child.tbs_certificate_bytes, *given)


def _extensions(parsed: x509.Certificate) -> Optional[x509.Extensions]:
    """Return the extensions, or None if one of them cannot be decoded: the library reads all or none."""
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
            found.append("DNS:" + printable_text(name.value))
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
            return printable_text(access.access_location.value)
    return None


def _distinguished_name(name: x509.Name) -> str:
    try:
        text = name.rfc4514_string()
    except Exception:
        return "(a name that cannot be decoded)"
    return printable_text(text) or "(no name)"


def _common_name(name: x509.Name) -> Optional[str]:
    """Return the last common name, the most specific one."""
    values = [attribute.value for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not values:
        return None
    value = values[-1]
    return printable_text(value if isinstance(value, str) else value.decode("latin-1"))
