# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of a certificate on a host, which has no library for certificates. The controller's are those of its library.

A test compares both over all certificates of the tests.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.der import (
    BOOLEAN,
    INTEGER,
    OCTETS,
    SEQUENCE,
    SET,
    DerError,
    Element,
    bits_of,
    elements,
    flag_of,
    named_bits,
    number_of,
    oid_of,
    only,
    text_of,
    time_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import PSS
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.rules import (
    INVALID_CA,
    PATH_TOO_LONG,
    SERVER_PURPOSES,
    printable_text,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import make_context
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.verifier import Verifier

_COMMON_NAME = "2.5.4.3"
_SHORT = {
    "2.5.4.3": "CN", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.6": "C", "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}  # fmt: skip
_CURVES = {
    "1.2.840.10045.3.1.1": ("secp192r1", 192), "1.3.132.0.33": ("secp224r1", 224), "1.2.840.10045.3.1.7": ("secp256r1", 256),
    "1.3.132.0.34": ("secp384r1", 384), "1.3.132.0.35": ("secp521r1", 521), "1.3.132.0.10": ("secp256k1", 256),
    "1.3.36.3.3.2.8.1.1.7": ("brainpoolP256r1", 256), "1.3.36.3.3.2.8.1.1.11": ("brainpoolP384r1", 384),
    "1.3.36.3.3.2.8.1.1.13": ("brainpoolP512r1", 512),
}  # fmt: skip
_HASHES = {
    "1.2.840.113549.1.1.2": "md2", "1.2.840.113549.1.1.4": "md5", "1.2.840.113549.1.1.5": "sha1", "1.2.840.113549.1.1.14": "sha224",
    "1.2.840.113549.1.1.11": "sha256", "1.2.840.113549.1.1.12": "sha384", "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.10045.4.1": "sha1", "1.2.840.10045.4.3.1": "sha224", "1.2.840.10045.4.3.2": "sha256", "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512", "1.2.840.10040.4.3": "sha1", "2.16.840.1.101.3.4.3.1": "sha224", "2.16.840.1.101.3.4.3.2": "sha256",
    "2.16.840.1.101.3.4.3.3": "sha384", "2.16.840.1.101.3.4.3.4": "sha512",
    "1.3.14.3.2.26": "sha1", "2.16.840.1.101.3.4.2.1": "sha256", "2.16.840.1.101.3.4.2.2": "sha384", "2.16.840.1.101.3.4.2.3": "sha512",
}  # fmt: skip
"""Identifier of a signature, or of a hash -> its hash."""
_RSA, _EC, _DSA = "1.2.840.113549.1.1.1", "1.2.840.10045.2.1", "1.2.840.10040.4.1"
_EDWARDS = {
    "1.3.101.112": ("Ed25519", 256), "1.3.101.113": ("Ed448", 456), "1.3.101.110": ("X25519", None), "1.3.101.111": ("X448", None),
}  # fmt: skip
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
)  # fmt: skip
_BASIC, _USAGE, _PURPOSES, _NAMES = "2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.17"
_OWN_KEY, _ISSUER_KEY, _ACCESS, _FEATURE = "2.5.29.14", "2.5.29.35", "1.3.6.1.5.5.7.1.1", "1.3.6.1.5.5.7.1.24"
_CA_ISSUERS, _STATUS_REQUEST = "1.3.6.1.5.5.7.48.2", 5
_PARTIAL_CHAIN, _NO_CHECK_TIME, _CHECK_OWN_SIGNATURE = 0x80000, 0x200000, 0x4000
"""Flags of OpenSSL that Python 3.9 does not name (x509_vfy.h)."""
_DNS, _URI, _IP = 0x82, 0x86, 0x87

FoldedName = tuple[frozenset[tuple[str, str]], ...]
"""A name as OpenSSL compares it."""


class UnreadableError(ValueError):
    """The bytes are not a certificate."""


class _Extensions(NamedTuple):
    is_ca: Optional[bool] = None
    path_length: Optional[int] = None
    key_usage: Optional[frozenset[str]] = None
    purposes: Optional[frozenset[str]] = None
    sans: tuple[str, ...] = ()
    issuer_url: Optional[str] = None
    must_staple: bool = False
    own_key: bytes = b""
    issuer_key: bytes = b""


@dataclass(frozen=True)
class X509:
    """The facts of a certificate, with the names and forms of plugin_utils.certificates.certificate.Certificate."""

    der: bytes = field(repr=False)
    subject: str
    common_name: Optional[str]
    issuer: str
    not_before: datetime
    not_after: datetime
    key_type: str
    key_bits: Optional[int]
    curve: str
    signature_hash: Optional[str]
    signature_oid: str
    key_oid: str
    spki: bytes = field(repr=False)
    is_first_version: bool
    damaged: bool
    _subject: FoldedName = field(repr=False)
    _issuer: FoldedName = field(repr=False)
    _extensions: _Extensions = field(repr=False)

    @classmethod
    def load(cls, der: bytes) -> X509:
        """Return the certificate that the bytes are. Raises UnreadableError."""
        try:
            return cls._load(der)
        except (DerError, IndexError, ValueError, OverflowError) as error:
            raise UnreadableError(f"it is not a readable X.509 certificate ({error})") from None

    @classmethod
    def _load(cls, der: bytes) -> X509:
        signed, algorithm, signature = only(der, SEQUENCE).parts()
        bits_of(signature)
        parts = signed.of(SEQUENCE).parts()
        version = number_of(only(parts.pop(0).content, INTEGER)) if parts[0].tag == 0xA0 else 0
        if version not in (0, 2):
            raise DerError("its version is not known")
        serial, inner, issuer, validity, subject, key = parts[:6]
        number_of(serial)
        inner.of(SEQUENCE)
        begin, end = validity.of(SEQUENCE).parts()
        extensions, damaged = _extensions(parts[6:])
        oid, kind, bits, curve = _key(key)
        names = _name(subject)
        common = [text for _rdn, name, text in names if name == _COMMON_NAME]
        return cls(
            der, _shown(names), printable_text(common[-1]) if common else None, _shown(_name(issuer)), time_of(begin),
            time_of(end), kind, bits, curve, _signature_hash(algorithm), oid_of(algorithm.of(SEQUENCE).parts()[0]), oid,
            key.whole, version == 0, damaged, _folded(names), _folded(_name(issuer)), extensions,
        )  # fmt: skip

    @property
    def sans(self) -> tuple[str, ...]:
        """The alternative names, as DNS:name or IP:address."""
        return self._extensions.sans

    @property
    def is_ca(self) -> Optional[bool]:
        """Whether it belongs to an authority; None if it does not say."""
        return self._extensions.is_ca

    @property
    def path_length(self) -> Optional[int]:
        """How many authorities may stand below it; None without a limit."""
        return self._extensions.path_length

    @property
    def key_usage(self) -> Optional[frozenset[str]]:
        """What its key may be used for; None if it does not say."""
        return self._extensions.key_usage

    @property
    def purposes(self) -> Optional[frozenset[str]]:
        """Its extended key usage; None if it does not say."""
        return self._extensions.purposes

    @property
    def issuer_url(self) -> Optional[str]:
        """Where its authority publishes its own certificate."""
        return self._extensions.issuer_url

    @property
    def must_staple(self) -> bool:
        """Whether it asks its server for a stapled OCSP response."""
        return self._extensions.must_staple

    @property
    def fingerprint_sha256(self) -> str:
        """SHA-256 of the certificate."""
        return pem.fingerprint(self.der)

    @property
    def spki_sha256(self) -> str:
        """SHA-256 of the public key, as in a TLSA record 3 1 1."""
        return hashlib.sha256(self.spki).hexdigest()

    @property
    def is_for_servers(self) -> bool:
        """Whether the extended key usage, if there is one, allows a TLS server to use it."""
        return self.purposes is None or bool(self.purposes & SERVER_PURPOSES)

    @property
    def self_signed(self) -> bool:
        """Whether it was signed with its own key."""
        named, own = self._extensions.issuer_key, self._extensions.own_key
        return (not named or not own or named == own) and self.is_issued_by(self)

    def days_left(self, now: datetime) -> int:
        """Return the whole days until its end, rounded down."""
        return (self.not_after - now) // timedelta(days=1)

    def names_as_issuer(self, other: X509) -> bool:
        """Whether the other certificate has the issuer's name."""
        return self._issuer == other._subject

    def is_issued_by(self, other: X509) -> bool:
        """Whether the other certificate has the issuer's name, and OpenSSL has nothing against the signature as one of its key."""
        return self.names_as_issuer(other) and _signed(self.der, other.der) is not False

    def is_surely_issued_by(self, other: X509) -> bool:
        """Whether OpenSSL takes the other certificate for that of the issuer. It compares identifiers of keys, too."""
        return self.names_as_issuer(other) and _signed(self.der, other.der) is True

    def refuses_to_sign(self, authorities: int) -> str:
        """Return OpenSSL's message why it may not sign another one with so many authorities in between; empty if it may."""
        may_sign = self.key_usage is None or "key_cert_sign" in self.key_usage
        # A root may be older than the basic constraints extension. An intermediate must have it.
        is_old = self.is_first_version or self.key_usage is not None
        if not may_sign or not (self.is_ca or (self.is_ca is None and self.self_signed and is_old)):
            return INVALID_CA
        return PATH_TOO_LONG if self.path_length is not None and self.path_length < authorities else ""


def utc_now() -> datetime:
    """Return the current time, timezone-aware."""
    return datetime.now(timezone.utc)


@functools.lru_cache(maxsize=256)
def _signed(der: bytes, issuer: bytes) -> Optional[bool]:
    """Whether OpenSSL takes the signature of a certificate, with the issuer's certificate as the only trusted one.

    None if it finds that this is not the issuer, by other things than the signature.
    """
    context = make_context(None, verify=False)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= _PARTIAL_CHAIN | _NO_CHECK_TIME | _CHECK_OWN_SIGNATURE
    try:
        context.set_ciphers("ALL:@SECLEVEL=0")  # a weak signature is a signature
        context.load_verify_locations(cadata=issuer)
    except (ssl.SSLError, ValueError):
        return False
    said = Verifier(context).verdict([der]) or ""
    return None if "issuer certificate" in said else "signature" not in said


def _name(element: Element) -> list[tuple[int, str, str]]:
    """Return number of the part, identifier and text of each attribute of a name."""
    found = []
    for number, part in enumerate(element.of(SEQUENCE).parts()):
        for attribute in part.of(SET).parts():
            kind, value = attribute.of(SEQUENCE).parts()
            text = value.content.hex() if value.tag == 0x03 else text_of(value)
            found.append((number, oid_of(kind), text))
    return found


def _shown(names: list[tuple[int, str, str]]) -> str:
    """Return a name by RFC 4514: the last part first."""
    parts: dict[int, list[str]] = {}
    for number, oid, text in names:
        parts.setdefault(number, []).append(f"{_SHORT.get(oid, oid)}={_escaped(text)}")
    return printable_text(",".join("+".join(parts[number]) for number in sorted(parts, reverse=True))) or "(no name)"


def _escaped(text: str) -> str:
    done = "".join("\\" + char if char in '\\"+,;<>' else "\\00" if char == "\0" else char for char in text)
    if done[:1] in ("#", " "):
        done = "\\" + done
    return done[:-1] + "\\ " if done.endswith(" ") else done


def _folded(names: list[tuple[int, str, str]]) -> FoldedName:
    parts: dict[int, set[tuple[str, str]]] = {}
    for number, oid, text in names:
        parts.setdefault(number, set()).add((oid, " ".join(text.split()).lower()))
    return tuple(frozenset(parts[number]) for number in sorted(parts))


def _key(element: Element) -> tuple[str, str, Optional[int], str]:
    """Return identifier, kind, size in bits and curve of a public key, as far as they are known."""
    algorithm, key = element.of(SEQUENCE).parts()
    oid, *given = algorithm.of(SEQUENCE).parts()
    name = oid_of(oid)
    try:
        if name in (_RSA, PSS):
            modulus, _exponent = only(bits_of(key), SEQUENCE).parts()
            return name, "RSA", number_of(modulus).bit_length(), ""
        if name == _EC:
            curve, bits = _CURVES[oid_of(given[0])]
            return name, "EC", bits, curve
        if name == _DSA:
            return name, "DSA", number_of(given[0].of(SEQUENCE).parts()[0]).bit_length(), ""
    except (DerError, KeyError, IndexError, ValueError):
        return name, "unknown", None, ""
    kind, size = _EDWARDS.get(name, ("unknown", None))
    return name, kind, size, ""


def _signature_hash(algorithm: Element) -> Optional[str]:
    oid, *given = algorithm.of(SEQUENCE).parts()
    name = oid_of(oid)
    if name != PSS:
        return _HASHES.get(name)
    for one in given[0].parts() if given else ():
        if one.tag == 0xA0:
            return _HASHES.get(oid_of(only(one.content, SEQUENCE).parts()[0]))
    return "sha1"


def _extensions(parts: list[Element]) -> tuple[_Extensions, bool]:
    """Return the extensions, and whether they cannot be decoded: then there are none, as in the library of the controller."""
    found: dict[str, Any] = {}
    try:
        listed = [one for part in parts if part.tag == 0xA3 for one in only(part.content, SEQUENCE).parts()]
        seen = set()
        for one in listed:
            oid, *critical, value = one.of(SEQUENCE).parts()
            if critical:
                flag_of(critical[0])
            name, content = oid_of(oid), value.of(OCTETS).content
            if name in seen:
                raise DerError("an extension is there twice")
            seen.add(name)
            if name in _READERS:
                found.update(_READERS[name](content))
    except (DerError, IndexError, ValueError):
        return _Extensions(), True
    return _Extensions(**found), False


def _basic(content: bytes) -> dict[str, Any]:
    parts = only(content, SEQUENCE).parts()
    is_ca = bool(parts and parts[0].tag == BOOLEAN and flag_of(parts.pop(0)))
    return {"is_ca": is_ca, "path_length": number_of(parts[0]) if parts else None}


def _key_usage(content: bytes) -> dict[str, Any]:
    there = named_bits(next(elements(content)))
    return {"key_usage": frozenset(name for bit, name in enumerate(_USAGES) if bit in there)}


def _purposes(content: bytes) -> dict[str, Any]:
    return {"purposes": frozenset(oid_of(one) for one in only(content, SEQUENCE).parts())}


def _alternative_names(content: bytes) -> dict[str, Any]:
    found = []
    for one in only(content, SEQUENCE).parts():
        if one.tag == _DNS:
            found.append("DNS:" + printable_text(one.content.decode("ascii")))
        elif one.tag == _IP:
            found.append(f"IP:{ipaddress.ip_address(one.content)}")
        elif one.tag == _URI:
            one.content.decode("ascii")
    return {"sans": tuple(found)}


def _own_key(content: bytes) -> dict[str, Any]:
    return {"own_key": only(content, OCTETS).content}


def _issuer_key(content: bytes) -> dict[str, Any]:
    return {"issuer_key": next((one.content for one in only(content, SEQUENCE).parts() if one.tag == 0x80), b"")}


def _access(content: bytes) -> dict[str, Any]:
    for one in only(content, SEQUENCE).parts():
        method, place = one.of(SEQUENCE).parts()
        if oid_of(method) == _CA_ISSUERS and place.tag == _URI:
            return {"issuer_url": printable_text(place.content.decode("ascii"))}
    return {}


def _feature(content: bytes) -> dict[str, Any]:
    return {"must_staple": _STATUS_REQUEST in [number_of(one) for one in only(content, SEQUENCE).parts()]}


_READERS: Mapping[str, Callable[[bytes], dict[str, Any]]] = {
    _BASIC: _basic,
    _USAGE: _key_usage,
    _PURPOSES: _purposes,
    _NAMES: _alternative_names,
    _OWN_KEY: _own_key,
    _ISSUER_KEY: _issuer_key,
    _ACCESS: _access,
    _FEATURE: _feature,
}
"""Identifier of an extension -> what reads it."""
