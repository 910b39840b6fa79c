# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of a certificate on a host, as the program openssl tells them. The controller's are those of its library.

A test compares both over all certificates of the tests. What openssl prints of a stranger's certificate may hold line breaks and
commas of his. So what is decided stands in answers that hold no text of his, or only escaped text, and a name counts only if OpenSSL
itself says that it matches.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.openssl import ask, moment
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.rules import (
    INVALID_CA,
    PATH_TOO_LONG,
    printable_text,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import make_context
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.verifier import Verifier

_X509 = ("x509", "-inform", "DER", "-noout")
_ESCAPED = ("-nameopt", "RFC2253,-esc_msb,utf8")
_DECIDED = ("-subject_hash", "-issuer_hash", "-subject", "-issuer", "-dates", "-purpose")
_FIXED = ("-ext", "basicConstraints,keyUsage,extendedKeyUsage,tlsfeature")
_SHOWN = (
    "-text", "-certopt", "no_header,no_serial,no_validity,no_subject,no_issuer,no_sigdump,no_aux,ext_error",
)  # fmt: skip
_ANSWER = re.compile(
    r"([0-9a-f]{8})\n([0-9a-f]{8})\nsubject=(.*)\nissuer=(.*)\nnotBefore=(.*)\nnotAfter=(.*)\n"
    r"((?:Certificate purposes:\n)?(?:[^:\n]* : .*\n)*)"
    r"(?:-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)-----END PUBLIC KEY-----\n)?([\s\S]*)"
)
"""What openssl answers to _DECIDED, -pubkey and _FIXED. It escapes line breaks in names."""
_EXTENSIONS = "\n        X509v3 extensions:\n"
_TITLE = re.compile(r"^ {12}(\S.*?):(?: critical| )?$", re.MULTILINE)
"""The name of an extension. Each may be there once."""
_ALTERNATIVE = re.compile(r"^ *X509v3 Subject Alternative Name:.*\n *(.*)$", re.MULTILINE)
_CA_ISSUERS = re.compile(r"^ *CA Issuers - URI:(.*)$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"(?:\A|[,+])([^=,+]*)=((?:\\.|[^\\,+])*)")
_ESCAPE = re.compile(rb"\\(?:([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_CONTROL = re.compile(r"(?<!\\)\\([01][0-9A-F]|7F)")
_HASH = re.compile(r"(?i)md[245]|sha(?:1|224|256|384|512)(?![0-9])")
_PSS = "rsassaPss"
_KEYS = {
    "rsaEncryption": "RSA", _PSS: "RSA", "id-ecPublicKey": "EC", "dsaEncryption": "DSA", "ED25519": "Ed25519", "ED448": "Ed448",
    "X25519": "X25519", "X448": "X448",
}  # fmt: skip
"""OpenSSL's word for an algorithm of keys -> that of the policy."""
_KEY_BITS = {"Ed25519": 256, "Ed448": 456}
_CURVES = {"prime192v1": "secp192r1", "prime256v1": "secp256r1"}
_USAGES = {
    "Digital Signature": "digital_signature", "Non Repudiation": "content_commitment", "Key Encipherment": "key_encipherment",
    "Data Encipherment": "data_encipherment", "Key Agreement": "key_agreement", "Certificate Sign": "key_cert_sign",
    "CRL Sign": "crl_sign",
}  # fmt: skip
_SERVERS = {"TLS Web Server Authentication", "Netscape Server Gated Crypto", "Microsoft Server Gated Crypto"}
"""OpenSSL's words for rules.SERVER_PURPOSES."""
_PARTIAL_CHAIN, _NO_CHECK_TIME, _CHECK_OWN_SIGNATURE = 0x80000, 0x200000, 0x4000
"""Flags of OpenSSL that Python 3.9 does not name (x509_vfy.h)."""


class UnreadableError(ValueError):
    """The bytes are not a certificate."""


class _Extensions(NamedTuple):
    is_ca: Optional[bool] = None
    path_length: Optional[int] = None
    key_usage: Optional[frozenset[str]] = None
    is_for_servers: bool = True
    must_staple: bool = False
    sans: tuple[str, ...] = ()
    issuer_url: Optional[str] = None


class _Key(NamedTuple):
    kind: str = "unknown"
    bits: Optional[int] = None
    curve: str = ""


@dataclass(frozen=True)
class X509:
    """The facts of a certificate, with the names and forms of plugin_utils.certificates.certificate.Certificate."""

    der: bytes = field(repr=False)
    subject: str
    common_name: Optional[str]
    issuer: str
    not_before: datetime
    not_after: datetime
    signature_hash: Optional[str]
    uses_pss: bool
    spki: bytes = field(repr=False)
    is_first_version: bool
    damaged: bool
    issuer_words: tuple[str, ...] = field(repr=False)
    _key: _Key = field(repr=False)
    _hashes: tuple[str, str] = field(repr=False)
    _extensions: _Extensions = field(repr=False)

    @classmethod
    def load(cls, der: bytes) -> X509:
        """Return the certificate that the bytes are. Raises UnreadableError and NoOpensslError."""
        try:
            return _loaded(der)
        except (ValueError, OverflowError) as error:
            why = f" ({error})" if isinstance(error, UnreadableError) else ""
            raise UnreadableError(f"it is not a readable X.509 certificate{why}") from None

    @property
    def key_type(self) -> str:
        """The kind of its key."""
        return self._key.kind

    @property
    def key_bits(self) -> Optional[int]:
        """The size of its key, where it has one."""
        return self._key.bits

    @property
    def curve(self) -> str:
        """The curve of its key; empty for another kind of key."""
        return self._key.curve

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
        return self._extensions.is_for_servers

    @functools.cached_property
    def self_signed(self) -> bool:
        """Whether it was signed with its own key."""
        return self.names_as_issuer(self) and is_self_signed(self.der)

    def confirms(self, host: str, is_address: bool) -> bool:
        """Whether OpenSSL finds this name or address in it. Raises NoOpensslError."""
        return _matches(self.der, "-checkip" if is_address else "-checkhost", host)

    def has_key(self, public: bytes) -> bool:
        """Whether a public key (DER) is its key. RSA and RSASSA-PSS have one kind of key. Raises NoOpensslError."""
        if self.spki == public or self.key_type != "RSA":
            return self.spki == public
        return bool(self.spki) and _bare(self.spki) == _bare(public)

    def days_left(self, now: datetime) -> int:
        """Return the whole days until its end, rounded down."""
        return (self.not_after - now) // timedelta(days=1)

    def names_as_issuer(self, other: X509) -> bool:
        """Whether the other certificate has the issuer's name."""
        return self._hashes[1] == other._hashes[0]

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


@functools.lru_cache(maxsize=256)
def _loaded(der: bytes) -> X509:
    said = ask([*_X509, *_ESCAPED, *_DECIDED, "-pubkey", *_FIXED], der, "the certificate")
    if said is None:  # a key that it cannot decode ends it
        said = ask([*_X509, *_ESCAPED, *_DECIDED, *_FIXED], der, "the certificate")
    shown = ask([*_X509, *_SHOWN], der, "the certificate") if said else None
    return of_answers(der, _text(said), _text(shown))


def of_answers(der: bytes, said: str, shown: str) -> X509:
    """Return the certificate of which openssl prints this. Raises ValueError and OverflowError."""
    found = _ANSWER.fullmatch(said)
    if not found or not shown:
        raise UnreadableError("openssl cannot read it")
    own, issuing, subject, issuer, begin, end, purposes, key, fixed = found.groups()
    head, _line, extensions = shown.partition(_EXTENSIONS)
    names = _alternative(extensions)
    titles = _TITLE.findall(extensions)
    damaged = len(titles) > len(set(titles)) or (
        "code=-1" in purposes or "<Parse Error>" in extensions or not names.isascii() or "IP Address:<invalid" in names
    )
    common = next((value for kind, value in _attributes(subject) if kind == "CN"), None)
    algorithm = _word("Signature Algorithm", head)
    digest = _HASH.search(_word("Hash Algorithm", head) if algorithm == _PSS else algorithm)
    return X509(
        der, _name(subject), printable_text(common) if common is not None else None, _name(issuer), moment(begin), moment(end),
        digest[0].lower() if digest else None, _PSS in (algorithm, _word("Public Key Algorithm", head)),
        base64.b64decode(key) if key else b"", "Version: 1 " in head, damaged,
        tuple(word for _kind, value in _attributes(issuer) for word in value.lower().split()), _key_of(head) if key else _Key(),
        (own, issuing), _Extensions() if damaged else _read(fixed, names, extensions),
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _matches(der: bytes, option: str, name: str) -> bool:
    # Before 3.5 the status is 0 in any case, and after that 1 if it does not match.
    said = ask([*_X509, option, name], der, "the certificate") or b""
    return said.endswith(b" does match certificate\n")


def _text(said: Optional[bytes]) -> str:
    return (said or b"").decode("utf-8", "replace")


def _word(title: str, head: str) -> str:
    """Return the first word that openssl prints behind a title; empty if there is none."""
    found = re.search(rf"^ *{title}: *(\S+)", head, re.MULTILINE)
    return found[1] if found else ""


def _name(text: str) -> str:
    """Return an escaped name for messages, with control characters as everywhere else."""
    return printable_text(_CONTROL.sub(lambda one: chr(int(one[1], 16)), text)) or "(no name)"


def _attributes(name: str) -> Iterator[tuple[str, str]]:
    """Yield kind and value of each part of an escaped name, the last one first."""
    for kind, value in _ATTRIBUTE.findall(name):
        plain = _ESCAPE.sub(lambda one: bytes.fromhex(one[1].decode()) if one[1] else one[2], value.encode())
        yield kind, plain.decode("utf-8", "replace")


def _key_of(head: str) -> _Key:
    kind = _KEYS.get(_word("Public Key Algorithm", head), "unknown")
    size = re.search(r"Public-Key: \((\d+) bit", head)
    curve = _word("ASN1 OID", head) if kind == "EC" else ""
    if kind == "EC" and not curve:  # the parameters of the curve instead of its name
        return _Key()
    return _Key(kind, _KEY_BITS.get(kind, int(size[1]) if size else None), _CURVES.get(curve, curve))


def _alternative(extensions: str) -> str:
    found = _ALTERNATIVE.search(extensions)
    return found[1] if found else ""


def _read(fixed: str, names: str, extensions: str) -> _Extensions:
    """Return the extensions. fixed: those that hold no text of a stranger."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in fixed.split("\n"):
        if line.startswith(" "):
            found[title] += line.strip().split(", ")
        else:
            title = line.partition(":")[0]
            found[title] = []
    basic, usage = found.get("X509v3 Basic Constraints"), found.get("X509v3 Key Usage")
    purposes = found.get("X509v3 Extended Key Usage")
    lengths = [int(one[8:]) for one in basic or () if one.startswith("pathlen:")]
    sans = []
    for one in names.split(", "):
        kind, _colon, value = one.partition(":")
        if kind == "DNS":
            sans.append(f"DNS:{printable_text(value)}")
        elif kind == "IP Address":
            sans.append(f"IP:{ipaddress.ip_address(value)}")
    url = _CA_ISSUERS.search(extensions)
    return _Extensions(
        None if basic is None else "CA:TRUE" in basic,
        lengths[0] if lengths else None,
        None if usage is None else frozenset(_USAGES[one] for one in usage if one in _USAGES),
        purposes is None or not _SERVERS.isdisjoint(purposes),
        "status_request" in found.get("TLS Feature", ()),
        tuple(sans),
        printable_text(url[1]) if url else None,
    )


def _bare(spki: bytes) -> Optional[bytes]:
    """Return an RSA key without its algorithm."""
    return ask(["rsa", "-pubin", "-inform", "DER", "-RSAPublicKey_out", "-outform", "DER"], spki, "the key")


def utc_now() -> datetime:
    """Return the current time, timezone-aware."""
    return datetime.now(timezone.utc)


def is_self_signed(der: bytes) -> bool:
    """Whether a certificate was signed with its own key. Starts no program."""
    return _signed(der, der, 0) is True


@functools.lru_cache(maxsize=256)
def _signed(der: bytes, issuer: bytes, flags: int = _PARTIAL_CHAIN) -> Optional[bool]:
    """Whether OpenSSL takes the signature of a certificate, with the issuer's certificate as the only trusted one.

    None if it finds that this is not the issuer, by other things than the signature.
    """
    context = make_context(None, verify=False)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= flags | _NO_CHECK_TIME | _CHECK_OWN_SIGNATURE
    try:
        context.set_ciphers("ALL:@SECLEVEL=0")  # a weak signature is a signature
        context.load_verify_locations(cadata=issuer)
    except (ssl.SSLError, ValueError):
        return False
    said = Verifier(context).verdict([der]) or ""
    return None if "issuer certificate" in said else "signature" not in said and "public key" not in said
