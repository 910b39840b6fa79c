"""A small certificate authority for the lab and the tests: root, intermediate, and any leaf a test needs.

As a program it writes the lab's files, and leaves alone what is still good:

    pki.py .lab/pki --ca-file .lab/ca.pem gw1=gw1.fleet.test pf12=pf12.fleet.test,mail.alpha.test
"""

from __future__ import annotations

import argparse
import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

Key = Union[ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey]
SignatureHash = Union[hashes.SHA224, hashes.SHA256, hashes.SHA384, hashes.SHA512]  # no more are left to sign with
WeakHash = Union[hashes.SHA1, hashes.MD5]  # only with an RSA issuer, and in a roundabout way

CURVES = {"": ec.SECP256R1, "256": ec.SECP256R1, "384": ec.SECP384R1, "521": ec.SECP521R1}
SERVER_AND_CLIENT = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

RENEW_BEFORE = dt.timedelta(days=30)


def now() -> dt.datetime:
    """The present, without the fraction of a second that certificates cannot hold."""
    return dt.datetime.now(dt.timezone.utc).replace(microsecond=0)


def new_key(kind: str = "ec") -> Key:
    """A private key: "ec" (P-256), "ec-BITS", "ed25519", "rsa" (2048 bits), "rsa-BITS" ("rsa-1024" is the weak one)."""
    family, _, bits = kind.partition("-")
    if family == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if family == "ec":
        return ec.generate_private_key(CURVES[bits]())
    return rsa.generate_private_key(public_exponent=65537, key_size=int(bits or 2048))


def key_pem(key: Key, password: Optional[str] = None) -> bytes:
    """The private key as PKCS#8 PEM, encrypted if a password is given."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def pem(*certificates: x509.Certificate) -> bytes:
    """Certificates as PEM, one after the other."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


@dataclass(frozen=True)
class Issued:
    """A certificate, its private key, and the chain up to, but without, the root."""

    certificate: x509.Certificate
    key: Key
    chain: list[x509.Certificate] = field(default_factory=list)

    @property
    def certificate_pem(self) -> bytes:
        """The leaf alone."""
        return pem(self.certificate)

    @property
    def chain_pem(self) -> bytes:
        """The intermediate certificates."""
        return pem(*self.chain)

    @property
    def fullchain_pem(self) -> bytes:
        """The leaf followed by the intermediate certificates."""
        return pem(self.certificate, *self.chain)

    @property
    def key_pem(self) -> bytes:
        """The private key without a password."""
        return key_pem(self.key)

    def encrypted_key_pem(self, password: str) -> bytes:
        """The private key under a password."""
        return key_pem(self.key, password)


@dataclass(frozen=True)
class Authority:
    """A root CA and the intermediate CA that issues the leaves."""

    root: Issued
    intermediate: Issued

    @classmethod
    def create(cls, name: str = "mailfleet lab", *, days: int = 3650) -> Authority:
        """A new root and intermediate with keys of their own."""
        start = now() - dt.timedelta(days=1)
        end = start + dt.timedelta(days=days)
        key = new_key()
        root = _sign(
            subject=_name(f"{name} root CA"), public_key=key, names=(), not_before=start, not_after=end,
            issuer=_name(f"{name} root CA"), issuer_key=key, path_length=1,
        )  # fmt: skip
        intermediate_key = new_key()
        intermediate = _sign(
            subject=_name(f"{name} intermediate CA"), public_key=intermediate_key, names=(),
            not_before=start, not_after=end, issuer=root.subject, issuer_key=key, path_length=0,
        )  # fmt: skip
        return cls(Issued(root, key), Issued(intermediate, intermediate_key))

    def with_intermediate(
        self,
        *,
        key: str = "ec",
        not_before: Optional[dt.datetime] = None,
        not_after: Optional[dt.datetime] = None,
    ) -> Authority:
        """The same root with another intermediate: an RSA one, an expired one."""
        private = new_key(key)
        root = self.root.certificate
        certificate = _sign(
            subject=_name(f"another intermediate CA ({key})"), public_key=private, names=(),
            not_before=not_before or root.not_valid_before_utc, not_after=not_after or root.not_valid_after_utc,
            issuer=root.subject, issuer_key=self.root.key, path_length=0,
        )  # fmt: skip
        return Authority(self.root, Issued(certificate, private))

    @property
    def root_pem(self) -> bytes:
        """What the other side has to trust."""
        return pem(self.root.certificate)

    def issue(
        self,
        names: Sequence[str],
        *,
        not_before: Optional[dt.datetime] = None,
        not_after: Optional[dt.datetime] = None,
        key: Union[Key, str] = "ec",
        common_name: Optional[str] = None,
        signature_hash: Optional[Union[SignatureHash, WeakHash]] = None,
        purposes: Sequence[ObjectIdentifier] = SERVER_AND_CLIENT,
    ) -> Issued:
        """A server certificate for DNS names and addresses; every default is a good one.

        Wrong names, a weak key ("rsa-1024"), times long past and the purposes of its extended key usage are all a
        matter of arguments. Without names the subject's common name is all there is; SHA-1 and MD5 need an
        intermediate with an RSA key.
        """
        private = new_key(key) if isinstance(key, str) else key
        start = not_before or now() - dt.timedelta(hours=1)
        certificate = _sign(
            subject=_name(common_name or names[0]), public_key=private, names=names, not_before=start,
            not_after=not_after or start + dt.timedelta(days=365),
            issuer=self.intermediate.certificate.subject, issuer_key=self.intermediate.key,
            signature_hash=signature_hash, purposes=purposes,
        )  # fmt: skip
        return Issued(certificate, private, [self.intermediate.certificate])

    def expired(self, names: Sequence[str]) -> Issued:
        """A certificate that ran out yesterday."""
        end = now() - dt.timedelta(days=1)
        return self.issue(names, not_before=end - dt.timedelta(days=90), not_after=end)

    def not_yet_valid(self, names: Sequence[str]) -> Issued:
        """A certificate that begins tomorrow."""
        return self.issue(names, not_before=now() + dt.timedelta(days=1))


def self_signed(names: Sequence[str], *, key: Union[Key, str] = "ec", days: int = 365) -> Issued:
    """A certificate that nobody vouches for."""
    private = new_key(key) if isinstance(key, str) else key
    start = now() - dt.timedelta(hours=1)
    certificate = _sign(
        subject=_name(names[0]), public_key=private, names=names, not_before=start,
        not_after=start + dt.timedelta(days=days), issuer=_name(names[0]), issuer_key=private,
    )  # fmt: skip
    return Issued(certificate, private)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sign(
    *,
    subject: x509.Name,
    public_key: Key,
    names: Sequence[str],
    not_before: dt.datetime,
    not_after: dt.datetime,
    issuer: x509.Name,
    issuer_key: Key,
    path_length: Optional[int] = None,
    signature_hash: Optional[Union[SignatureHash, WeakHash]] = None,
    purposes: Sequence[ObjectIdentifier] = SERVER_AND_CLIENT,
) -> x509.Certificate:
    authority = path_length is not None
    public = public_key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority, content_commitment=False,
                key_encipherment=not authority and isinstance(public, rsa.RSAPublicKey),
                data_encipherment=False, key_agreement=False, key_cert_sign=authority, crl_sign=authority,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        ).add_extension(
            x509.ExtendedKeyUsage(purposes),
            critical=False,
        )
    if isinstance(issuer_key, ed25519.Ed25519PrivateKey):
        return builder.sign(issuer_key, None)
    if isinstance(signature_hash, (hashes.SHA1, hashes.MD5)):
        return _sign_weakly(builder.sign(issuer_key, hashes.SHA256()), issuer_key, signature_hash)
    return builder.sign(issuer_key, signature_hash or hashes.SHA256())


def _sign_weakly(certificate: x509.Certificate, issuer_key: Key, weak: WeakHash) -> x509.Certificate:
    """The certificate with its RSA signature made again over SHA-1 or MD5, which the library does not offer."""
    assert isinstance(issuer_key, rsa.RSAPrivateKey), "only RSA's algorithm identifiers are all of one length"
    rsa_with = bytes.fromhex("06092a864886f70d0101")  # 0b: SHA-256, 05: SHA-1, 04: MD5
    before, after = rsa_with + b"\x0b", rsa_with + (b"\x05" if isinstance(weak, hashes.SHA1) else b"\x04")
    body = certificate.tbs_certificate_bytes
    head = certificate.public_bytes(serialization.Encoding.DER)[: -len(certificate.signature)]
    signature = issuer_key.sign(body.replace(before, after), padding.PKCS1v15(), weak)
    return x509.load_der_x509_certificate(head.replace(before, after) + signature)


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put the file in place in one step, never readable by others for a moment."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    aside.replace(path)


def _load(certificate: Path, key: Path) -> Optional[Issued]:
    """What an earlier run wrote, unless it is missing, damaged or about to run out."""
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(private, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey)):
        return None
    if private.public_key() != loaded.public_key() or loaded.not_valid_after_utc < now() + RENEW_BEFORE:
        return None
    return Issued(loaded, private)


def _names(certificate: x509.Certificate) -> list[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def lab_authority(directory: Path, ca_file: Path) -> Optional[Authority]:
    """The authority whose files write_lab has written; None if there is none yet."""
    root = _load(ca_file, directory / "root.key")
    intermediate = _load(directory / "chain.pem", directory / "intermediate.key")
    return Authority(root, intermediate) if root and intermediate else None


def write_lab(directory: Path, ca_file: Path, leaves: dict[str, list[str]]) -> list[str]:
    """Write the CA's and each host's files into the directory; return the names of those that were made anew."""
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    authority = lab_authority(directory, ca_file)
    if authority is None:
        authority = Authority.create()
        write(directory / "root.key", authority.root.key_pem, 0o600)
        write(ca_file, authority.root_pem)
        write(directory / "intermediate.key", authority.intermediate.key_pem, 0o600)
        write(directory / "chain.pem", authority.intermediate.certificate_pem)
        made.append("ca")
    for name, dns_names in leaves.items():
        old = _load(directory / f"{name}.pem", directory / f"{name}.key")
        if (
            old
            and _names(old.certificate) == dns_names
            and old.certificate.issuer == authority.intermediate.certificate.subject
            and "ca" not in made
        ):
            continue
        leaf = authority.issue(dns_names)
        write(directory / f"{name}.key", leaf.key_pem, 0o600)
        write(directory / f"{name}.pem", leaf.certificate_pem)
        made.append(name)
    return made


def main() -> None:
    """Write the lab's files and say which were made anew."""
    parser = argparse.ArgumentParser(description="Write the lab's certificates; keep those that are still good.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--ca-file", type=Path, required=True, help="where the root certificate goes")
    parser.add_argument("leaves", nargs="+", metavar="HOST=NAME[,NAME]")
    arguments = parser.parse_args()
    leaves = {}
    for leaf in arguments.leaves:
        host, _, names = leaf.partition("=")
        leaves[host] = names.split(",")
    made = write_lab(arguments.directory, arguments.ca_file, leaves)
    print("pki: issued " + " ".join(made) if made else "pki: unchanged")


if __name__ == "__main__":
    main()
