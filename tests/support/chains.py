"""Chains of certificates, good ones and one for every reason for which OpenSSL refuses a chain, made anew in each run."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.support.pki import new_key, now

NAME = "mx.example.com"
DAY = dt.timedelta(days=1)
START, END = now() - 100 * DAY, now() + 200 * DAY
SERVER, CLIENT, ANY = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)
Extension = tuple[x509.ExtensionType, bool]
"""An extension, and whether it is critical."""


@dataclass(frozen=True)
class Chain:
    """What a server serves (DER, leaf first), the leaf's key, and the roots (DER) that the client trusts.

    policy: the findings with which the installation refuses the chain although OpenSSL trusts it.
    """

    served: tuple[bytes, ...]
    key: Any
    roots: tuple[bytes, ...]
    policy: frozenset[str] = frozenset()


# Certificates


def dn(*parts: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, part) for part in parts])


def usage(*names: str) -> Extension:
    known = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in names for name in known}), True


def purposes(*oids: ObjectIdentifier) -> Extension:
    return x509.ExtendedKeyUsage(oids), False


def basic(ca: bool, path_length: Optional[int] = None) -> Extension:
    return x509.BasicConstraints(ca, path_length), True


def names(*given: str) -> Extension:
    return x509.SubjectAlternativeName([_general(one) for one in given]), False


def _general(name: str) -> x509.GeneralName:
    try:
        network = ipaddress.ip_network(name)
    except ValueError:
        return x509.DNSName(name)
    return x509.IPAddress(network if "/" in name else network.network_address)


def constraints(permitted: tuple[str, ...] = (), excluded: tuple[str, ...] = ()) -> Extension:
    listed = [[_general(one) for one in these] or None for these in (permitted, excluded)]
    return x509.NameConstraints(*listed), True


def unknown(critical: bool, oid: str = "1.3.6.1.4.1.55555.1", value: bytes = b"\x05\x00") -> Extension:
    return x509.UnrecognizedExtension(ObjectIdentifier(oid), value), critical


@dataclass(frozen=True)
class Party:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any = field(repr=False)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(
    subject: Any,
    issuer: Optional[Party] = None,
    *,
    key: Any = "ec",
    sign_with: Any = None,
    issuer_name: Optional[x509.Name] = None,
    start: dt.datetime = START,
    end: dt.datetime = END,
    serial: int = 0,
    digest: Any = None,
    pss: bool = False,
    **extensions: Optional[Extension],
) -> Party:
    """A certificate of the subject (text or Name). Signed by itself without an issuer. An extension that is None is left out."""
    key = new_key(key) if isinstance(key, str) else key
    subject = subject if isinstance(subject, x509.Name) else dn(subject)
    signer = sign_with or (issuer.key if issuer else key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name or (issuer.certificate.subject if issuer else subject))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    above = (issuer.key if issuer else key).public_key()
    defaults: dict[str, Optional[Extension]] = {
        "ski": (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        "aki": (x509.AuthorityKeyIdentifier.from_issuer_public_key(above), False),
    }
    for one in {**defaults, **extensions}.values():
        if one:
            builder = builder.add_extension(one[0], critical=one[1])
    if isinstance(signer, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
        return Party(builder.sign(signer, None), key)
    scheme = {"rsa_padding": padding.PSS(padding.MGF1(hashes.SHA256()), 32)} if pss else {}
    made = Party(builder.sign(signer, hashes.SHA256(), **scheme), key)
    if digest:
        made = rewritten(made, signer, lambda parts: parts, digest)
    return made


def leaf(issuer: Optional[Party], **changes: Any) -> Party:
    usual = {
        "basic": basic(False), "usage": usage("digital_signature"), "purposes": purposes(SERVER), "names": names(NAME),
    }  # fmt: skip
    return issue(changes.pop("subject", NAME), issuer, **{**usual, **changes})


def authority(subject: Any, issuer: Optional[Party] = None, **changes: Any) -> Party:
    usual = {"basic": basic(True), "usage": usage("key_cert_sign", "crl_sign")}
    return issue(subject, issuer, **{**usual, **changes})


# DER, for what the library does not write


def tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 128:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value


def split(data: bytes) -> list[bytes]:
    """The elements that follow each other in the bytes."""
    found, at = [], 0
    while at < len(data):
        size, start = data[at + 1], at + 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[at + 2 : start], "big")
        found.append(data[at : start + size])
        at = start + size
    return found


def inside(element: bytes) -> bytes:
    start = 2 + (element[1] & 0x7F if element[1] & 0x80 else 0)
    return element[start:]


RSA_WITH = {"sha1": "05", "md5": "04"}


def rewritten(party: Party, signer: Any, edit: Callable[[list[bytes]], list[bytes]], digest: Any = None) -> Party:
    """The certificate signed again with other parts: version, serial, algorithm, issuer, validity, subject, key, extensions."""
    parts = edit(split(inside(party.certificate.tbs_certificate_bytes)))
    algorithm = split(inside(party.der))[1]
    if digest:
        weak = tlv(0x30, bytes.fromhex("06092a864886f70d0101" + RSA_WITH[digest.name] + "0500"))
        parts[2], algorithm = weak, weak
    tbs = tlv(0x30, b"".join(parts))
    used = digest or hashes.SHA256()
    signature = (
        signer.sign(tbs, padding.PKCS1v15(), used)
        if isinstance(signer, rsa.RSAPrivateKey)
        else signer.sign(tbs, ec.ECDSA(used))
    )
    return Raw(tlv(0x30, tbs + algorithm + tlv(3, b"\0" + signature)), party)


class Raw(Party):
    """A certificate that the library may be unable to read. certificate is the one that it was made from."""

    def __init__(self, der: bytes, party: Party) -> None:
        super().__init__(party.certificate, party.key)
        object.__setattr__(self, "raw", der)

    @property
    def der(self) -> bytes:
        return self.raw  # type: ignore[attr-defined,no-any-return]


def with_part(number: int, value: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda parts: [*parts[:number], value, *parts[number + 1 :]]


def version_1(parts: list[bytes]) -> list[bytes]:
    return parts[1:7]


def validity(begin: bytes, end: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """begin, end: with the tag in front: C(0x17) is UTCTime, C(0x18) GeneralizedTime."""
    return with_part(4, tlv(0x30, b"".join(tlv(one[0], one[1:]) for one in (begin, end))))


def twice(extension: int) -> Callable[[list[bytes]], list[bytes]]:
    """The extension with this number comes twice."""

    def edit(parts: list[bytes]) -> list[bytes]:
        listed = split(inside(inside(parts[7])))
        return [*parts[:7], tlv(0xA3, tlv(0x30, b"".join([*listed, listed[extension]])))]

    return edit


def corrupted(der: bytes) -> bytes:
    return der[:-1] + bytes((der[-1] ^ 1,))


# The chains


class Chains:
    """Makes every chain. The methods that table() lists return what a server serves, leaf first, and perhaps other roots."""

    def __init__(self) -> None:
        self.root = authority("Example Root")
        self.middle = authority("Example Intermediate", self.root)
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.rsa_root = authority("RSA Root", key=self.rsa)
        self.small = rsa.generate_private_key(65537, 1024)

    def below(self, **changes: Any) -> Chain:
        """A leaf below an intermediate with these changes."""
        middle = authority(changes.pop("subject", "Odd Intermediate"), self.root, **changes)
        return self.chain(leaf(middle), middle)

    def below_root(self, **changes: Any) -> Chain:
        """A leaf and an intermediate below a root with these changes."""
        root = authority("Odd Root", **changes)
        middle = authority("Intermediate", root)
        return self.chain(leaf(middle), middle, roots=(root,))

    def served(self, policy: str = "", **changes: Any) -> Chain:
        """A leaf with these changes below a good intermediate."""
        return self.chain(leaf(self.middle, **changes), self.middle, policy=policy)

    def edited(self, edit: Callable[[list[bytes]], list[bytes]], policy: str = "", **changes: Any) -> Chain:
        """A leaf whose DER was edited."""
        return self.chain(rewritten(leaf(self.middle, **changes), self.middle.key, edit), self.middle, policy=policy)

    def edited_below(self, edit: Callable[[list[bytes]], list[bytes]], policy: str = "", **changes: Any) -> Chain:
        """A leaf below an intermediate whose DER was edited."""
        middle = rewritten(authority("Edited Intermediate", self.root, **changes), self.root.key, edit)
        return self.chain(leaf(middle), middle, policy=policy)

    def chain(self, first: Party, *others: Party, roots: Any = None, policy: str = "") -> Chain:
        trusted = (self.root,) if roots is None else roots
        return Chain(
            tuple(one.der for one in (first, *others)),
            first.key,
            tuple(one.der for one in trusted),
            frozenset(policy.split()),
        )

    def table(self) -> dict[str, Callable[[], Chain]]:
        """Name -> how to make it."""
        root, middle, sgc = self.root, self.middle, ObjectIdentifier("2.16.840.1.113730.4.1")
        past, future = {"start": START, "end": now() - DAY}, {"start": now() + DAY, "end": END}
        digits = b"%y%m%d%H%M%SZ"
        utc = [b"\x17" + one.strftime(digits.decode()).encode() for one in (START, END)]
        return {
            # Good ones, and odd ones that OpenSSL trusts
            "good": self.served,
            "with the root": lambda: self.chain(leaf(middle), middle, root),
            "wrong order": self.wrong_order,
            "an unrelated one in between": lambda: self.chain(
                leaf(middle), authority("Stranger"), middle, policy="chain_unrelated"
            ),
            "the intermediate twice": lambda: self.chain(leaf(middle), middle, middle),
            "signed by the root": lambda: self.chain(leaf(root)),
            "two intermediates": self.two_intermediates,
            "RSA leaf": lambda: self.served(key="rsa"),
            "RSA leaf for key encipherment": lambda: self.served(
                "wrong_key_usage", key=self.rsa, usage=usage("key_encipherment")
            ),
            "P-384 leaf": lambda: self.served(key="ec-384"),
            "Ed25519 leaf": lambda: self.served(key="ed25519"),
            "RSA intermediate": lambda: self.below(key=self.rsa),
            "P-521 intermediate": lambda: self.below(key="ec-521"),
            "Ed25519 intermediate": lambda: self.below(key="ed25519"),
            "RSA-PSS signature": self.pss,
            "root signed with SHA-1": lambda: self.below_root(key=self.rsa, digest=hashes.SHA1()),
            "intermediate in the store only": lambda: self.chain(
                leaf(middle), roots=(root, middle), policy="chain_incomplete"
            ),
            "no key identifiers": lambda: self.served(ski=None, aki=None),
            "no extensions but a name": lambda: self.served(basic=None, usage=None, purposes=None, ski=None, aki=None),
            "common name only": lambda: self.served(names=None),
            "key usage key agreement": lambda: self.served("wrong_key_usage", usage=usage("key_agreement")),
            "purposes server and any": lambda: self.served(purposes=purposes(SERVER, ANY)),
            "purpose server gated cryptography": lambda: self.served(purposes=purposes(sgc)),
            "CA as a leaf": self.ca_as_leaf,
            "unknown extension": lambda: self.served(odd=unknown(False)),
            "unknown extension of the intermediate": lambda: self.below(odd=unknown(False)),
            "root without basic constraints": lambda: self.below_root(basic=None),
            "root without any extension": lambda: self.below_root(basic=None, usage=None, ski=None, aki=None),
            "version 1 root": self.version_1_root,
            "version 1 leaf": lambda: self.edited(version_1),
            "critical policy constraints": lambda: self.below(odd=(x509.PolicyConstraints(0, None), True)),
            "critical inhibit any policy": lambda: self.below(odd=(x509.InhibitAnyPolicy(0), True)),
            "must staple": lambda: self.served(
                odd=(x509.TLSFeature([x509.TLSFeatureType.status_request]), False)
            ),
            "names permitted": lambda: self.below(names=constraints(("example.com",))),
            "names not excluded": lambda: self.below(names=constraints(excluded=("example.org",))),
            "addresses permitted, not names": lambda: self.below(names=constraints(("192.0.2.0/24",))),
            "path length that suffices": lambda: self.below(basic=basic(True, 0)),
            "self-issued intermediate below path length 0": self.self_issued,
            "issuer in capitals": lambda: self.served(issuer_name=dn("EXAMPLE INTERMEDIATE")),
            "issuer with blanks": lambda: self.served(issuer_name=dn(" Example  Intermediate ")),
            "negative serial": lambda: self.edited(with_part(1, b"\x02\x01\x80")),
            "long serial": lambda: self.edited(with_part(1, tlv(2, b"\x01" * 30))),
            "zero serial": lambda: self.edited(with_part(1, b"\x02\x01\x00")),
            "generalized time before 2050": lambda: self.edited(
                validity(b"\x18" + START.strftime("%Y%m%d%H%M%SZ").encode(), utc[1])
            ),
            "no end": lambda: self.served(end=dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.timezone.utc)),
            "cross-signed by an expired root": self.cross_signed_expired,
            "cross-signed by a stranger": self.cross_signed_stranger,
            "expired intermediate beside its successor": self.successor,
            "two issuers of the same name": lambda: self.same_name(first=True),
            "two issuers of the same name, the other order": lambda: self.same_name(first=False),
            "two roots of the same name": lambda: self.chain(
                leaf(middle), middle, roots=(authority("Example Root"), root)
            ),
            "self-signed and trusted": self.trusted_leaf,
            "P-224 leaf": lambda: self.chain(
                leaf(middle, key=ec.generate_private_key(ec.SECP224R1())), middle, policy="weak_key"
            ),
            "extensions twice: names": lambda: self.edited(twice(5), "bad_certificate name_not_covered"),
            # Dates
            "expired leaf": lambda: self.served(**past),
            "expired intermediate": lambda: self.below(**past),
            "expired root": lambda: self.below_root(**past),
            "leaf not yet valid": lambda: self.served(**future),
            "intermediate not yet valid": lambda: self.below(**future),
            "root not yet valid": lambda: self.below_root(**future),
            "time without seconds": lambda: self.edited(validity(utc[0], utc[1][:-3] + b"Z")),
            "time with an offset": lambda: self.edited(validity(utc[0], utc[1][:-1] + b"+0100")),
            "time of letters": lambda: self.edited(validity(utc[0], b"\x17ABCDEFGHIJKLZ")),
            "intermediate with a time of letters": lambda: self.edited_below(validity(b"\x17ABCDEFGHIJKLZ", utc[1])),
            # Purposes
            "leaf for clients": lambda: self.served(purposes=purposes(CLIENT)),
            "intermediate for clients": lambda: self.below(purposes=purposes(CLIENT)),
            "root for clients": lambda: self.below_root(purposes=purposes(CLIENT)),
            "leaf for any purpose": lambda: self.served(purposes=purposes(ANY)),
            "intermediate for any purpose": lambda: self.below(purposes=purposes(ANY)),
            "root for any purpose": lambda: self.below_root(purposes=purposes(ANY)),
            "leaf for signing code": lambda: self.served(purposes=purposes(ExtendedKeyUsageOID.CODE_SIGNING)),
            "key usage CRL": lambda: self.served(usage=usage("crl_sign")),
            "key usage content commitment": lambda: self.served(usage=usage("content_commitment")),
            "key usage certificates": lambda: self.served(usage=usage("key_cert_sign")),
            "key usage data encipherment": lambda: self.served(usage=usage("data_encipherment")),
            # Issuers
            "intermediate is no CA": lambda: self.below(basic=basic(False)),
            "intermediate without basic constraints": lambda: self.below(basic=None),
            "intermediate without any extension": lambda: self.below(basic=None, usage=None, ski=None, aki=None),
            "intermediate may not sign certificates": lambda: self.below(usage=usage("digital_signature")),
            "version 1 intermediate": lambda: self.edited_below(version_1),
            "root is no CA": lambda: self.below_root(basic=basic(False)),
            "root may not sign certificates": lambda: self.below_root(usage=usage("crl_sign")),
            "signed by a leaf": self.signed_by_a_leaf,
            "path length of the root": lambda: self.below_root(basic=basic(True, 0)),
            "path length of an intermediate": lambda: self.two_intermediates(basic=basic(True, 0)),
            "proxy certificate": lambda: self.served(
                names=None, odd=unknown(True, "1.3.6.1.5.5.7.1.14", bytes.fromhex("300c300a06082b06010505071501"))
            ),
            # Names
            "names not permitted": lambda: self.below(names=constraints(("example.org",))),
            "names excluded": lambda: self.below(names=constraints(excluded=("example.com",))),
            "names not permitted by the root": lambda: self.below_root(names=constraints(("example.org",))),
            "addresses not permitted": lambda: self.constrained(
                constraints(("198.51.100.0/24",)), names=names(NAME, "192.0.2.1")
            ),
            "addresses excluded": lambda: self.constrained(
                constraints(excluded=("192.0.2.0/24",)), names=names(NAME, "192.0.2.1")
            ),
            "common name not permitted": lambda: self.constrained(constraints(("example.org",)), names=None),
            "common name excluded": lambda: self.constrained(constraints(excluded=("example.com",)), names=None),
            "constraints of a kind that is not checked": lambda: self.constrained(
                (x509.NameConstraints([x509.RegisteredID(ObjectIdentifier("1.2.3"))], None), True),
                names=(x509.SubjectAlternativeName(
                    [x509.DNSName(NAME), x509.RegisteredID(ObjectIdentifier("1.2.3"))]
                ), False),
            ),
            # Extensions
            "unknown critical extension": lambda: self.served(odd=unknown(True)),
            "unknown critical extension of the intermediate": lambda: self.below(odd=unknown(True)),
            "unknown critical extension of the root": lambda: self.below_root(odd=unknown(True)),
            "extensions twice: key usage": lambda: self.edited(twice(3)),
            "extensions twice: basic constraints of the intermediate": lambda: self.edited_below(twice(2)),
            "basic constraints of the intermediate are garbage": lambda: self.below(
                basic=unknown(True, "2.5.29.19", b"\xff\xff")
            ),
            "key usage is garbage": lambda: self.served(usage=unknown(True, "2.5.29.15", b"\xff\xff")),
            "names are garbage": lambda: self.served(names=unknown(False, "2.5.29.17", b"\xff\xff")),
            # Issuers that are not the issuer
            "key identifier of another key": lambda: self.served(
                aki=(x509.AuthorityKeyIdentifier(b"x" * 20, None, None), False)
            ),
            "serial of another issuer": lambda: self.served(
                aki=(x509.AuthorityKeyIdentifier(
                    None, [x509.DirectoryName(root.certificate.subject)], 4711
                ), False)
            ),
            "key identifier of another key, intermediate": lambda: self.below(
                aki=(x509.AuthorityKeyIdentifier(b"x" * 20, None, None), False)
            ),
            "self-signed": lambda: self.chain(leaf(None)),
            "no intermediate": lambda: self.chain(leaf(middle)),
            "the upper intermediate is missing": lambda: self.two_intermediates(upper=False),
            "unknown root": self.unknown_root,
            "unknown root, served": lambda: self.unknown_root(served=True),
            "another root of the same name": lambda: self.chain(leaf(middle), middle, roots=(authority("Example Root"),)),
            "intermediate trusted, root not": lambda: self.chain(
                leaf(middle), middle, roots=(middle, authority("Other Root"))
            ),
            "two that sign each other": self.circle,
            "signed by itself with another key": lambda: self.chain(leaf(None, sign_with=new_key())),
            "an empty store but one": lambda: self.chain(leaf(middle), middle, root, roots=(authority("Other Root"),)),
            # Signatures and keys
            "signature of the leaf corrupted": self.corrupted_leaf,
            "signature of the intermediate corrupted": self.corrupted_intermediate,
            "two algorithms of a signature": self.two_algorithms,
            "RSA 1024 leaf": lambda: self.served(key=self.small),
            "RSA 1024 intermediate": lambda: self.below(key=self.small),
            "RSA 1024 root": lambda: self.below_root(key=self.small),
            "leaf signed with SHA-1": lambda: self.weakly_signed(hashes.SHA1()),
            "leaf signed with MD5": lambda: self.weakly_signed(hashes.MD5()),
            "intermediate signed with SHA-1": lambda: self.weakly_signed_intermediate(hashes.SHA1()),
            "intermediate signed with MD5": lambda: self.weakly_signed_intermediate(hashes.MD5()),
            "a chain of 110": self.long_chain,
        }  # fmt: skip

    def constrained(self, these: Extension, **changes: Any) -> Chain:
        middle = authority("Constrained Intermediate", self.root, names=these)
        return self.chain(leaf(middle, **changes), middle)

    def wrong_order(self) -> Chain:
        upper = authority("Upper", self.root)
        lower = authority("Lower", upper)
        return self.chain(leaf(lower), upper, lower, policy="chain_out_of_order")

    def two_intermediates(self, upper: bool = True, **changes: Any) -> Chain:
        first = authority("Upper", self.root, **changes)
        second = authority("Lower", first)
        return self.chain(leaf(second), second, *([first] if upper else []))

    def pss(self) -> Chain:
        return self.chain(leaf(self.rsa_root, pss=True), roots=(self.rsa_root,))

    def ca_as_leaf(self) -> Chain:
        return self.chain(leaf(self.middle, basic=basic(True)), self.middle, policy="ca_as_leaf")

    def version_1_root(self) -> Chain:
        plain = authority("Old Root")
        root = rewritten(plain, plain.key, version_1)
        return self.chain(leaf(root), roots=(root,))

    def self_issued(self) -> Chain:
        upper = authority("Renewed", self.root, basic=basic(True, 0))
        lower = authority("Renewed", upper)
        return self.chain(leaf(lower), lower, upper)

    def cross_signed_expired(self) -> Chain:
        """The new root is trusted; the server serves it as it was signed by an old root that has expired."""
        new = authority("New Root")
        old = authority("Old Root")
        crossed = authority("New Root", old, key=new.key, start=START, end=now() - DAY)
        middle = authority("Intermediate", new)
        return self.chain(leaf(middle), middle, crossed, roots=(new,), policy="expired")

    def cross_signed_stranger(self) -> Chain:
        new, stranger = authority("New Root"), authority("Stranger Root")
        crossed = authority("New Root", stranger, key=new.key)
        middle = authority("Intermediate", new)
        return self.chain(leaf(middle), middle, crossed, roots=(new,))

    def successor(self) -> Chain:
        key = new_key()
        old = authority("Renewed", self.root, key=key, start=START, end=now() - DAY)
        new = authority("Renewed", self.root, key=key)
        return self.chain(leaf(new), old, new)

    def same_name(self, first: bool) -> Chain:
        other = authority("Example Intermediate", self.root)
        both = (self.middle, other) if first else (other, self.middle)
        return self.chain(leaf(self.middle), *both, policy="chain_unrelated")

    def trusted_leaf(self) -> Chain:
        mine = leaf(None)
        return self.chain(mine, roots=(mine,))

    def signed_by_a_leaf(self) -> Chain:
        signer = leaf(self.middle, subject="signer.example.com", names=names("signer.example.com"))
        return self.chain(leaf(signer), signer, self.middle)

    def unknown_root(self, served: bool = False) -> Chain:
        other = authority("Other Root")
        middle = authority("Other Intermediate", other)
        return self.chain(leaf(middle), middle, *([other] if served else []))

    def circle(self) -> Chain:
        one, two = new_key(), new_key()
        first = authority("One", Party(authority("Two", key=two).certificate, two), key=one)
        second = authority("Two", first, key=two)
        return self.chain(leaf(first), first, second)

    def corrupted_leaf(self) -> Chain:
        good = leaf(self.middle)
        return self.chain(Raw(corrupted(good.der), good), self.middle)

    def corrupted_intermediate(self) -> Chain:
        return self.chain(leaf(self.middle), Raw(corrupted(self.middle.der), self.middle))

    def two_algorithms(self) -> Chain:
        other = bytes.fromhex("300a06082a8648ce3d040303")  # ECDSA with SHA-384 inside, with SHA-256 outside
        return self.edited(with_part(2, other))

    def weakly_signed(self, digest: Any) -> Chain:
        middle = authority("RSA Intermediate", self.rsa_root, key=self.rsa)
        return self.chain(leaf(middle, digest=digest), middle, roots=(self.rsa_root,))

    def weakly_signed_intermediate(self, digest: Any) -> Chain:
        middle = authority("Weak Intermediate", self.rsa_root, digest=digest)
        return self.chain(leaf(middle), middle, roots=(self.rsa_root,))

    def long_chain(self) -> Chain:
        key, above, path = new_key(), self.root, []
        for number in range(110):
            above = authority(f"Number {number}", above, key=key)
            path.insert(0, above)
        return self.chain(leaf(above), *path)
