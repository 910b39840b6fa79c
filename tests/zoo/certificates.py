"""The certificates of the zoo by name, and how a server uses them.

All but those that say otherwise are issued by one authority, whose root the probe is given to trust.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Optional

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.pki import Authority, Issued, Key, new_key, now, pem, self_signed

NAME = "mx.example.com"
IDN = "xn--bcher-kva.example.com"
V1_0, V1_1, V1_2, V1_3 = (
    ssl.TLSVersion.TLSv1,
    ssl.TLSVersion.TLSv1_1,
    ssl.TLSVersion.TLSv1_2,
    ssl.TLSVersion.TLSv1_3,
)

# Each makes what a server's PEM file holds: key, leaf, chain.
CERTIFICATES: dict[str, Callable[[Authority], bytes]] = {
    "good": lambda ca: bundle(ca.issue([NAME])),
    "good rsa": lambda ca: bundle(ca.issue([NAME], key="rsa")),
    "ed25519": lambda ca: bundle(ca.issue([NAME], key="ed25519")),
    "p-521": lambda ca: bundle(ca.issue([NAME], key="ec-521")),
    "wildcard": lambda ca: bundle(ca.issue(["*.example.com"])),
    "wildcard of the parent": lambda ca: bundle(ca.issue(["*.com"])),
    "wildcard of a part": lambda ca: bundle(ca.issue(["m*.example.com"])),
    "address": lambda ca: bundle(ca.issue(["127.0.0.1"])),
    "address as a name": lambda ca: bundle(ca.issue([], common_name="127.0.0.1")),
    "idn": lambda ca: bundle(ca.issue([IDN])),
    "many names": lambda ca: bundle(ca.issue([*(f"host{at}.example.com" for at in range(900)), NAME])),
    "common name only": lambda ca: bundle(ca.issue([], common_name=NAME)),
    "common name beside other names": lambda ca: bundle(ca.issue(["mx.example.net"], common_name=NAME)),
    "for clients only": lambda ca: bundle(ca.issue([NAME], purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])),
    "another name": lambda ca: bundle(ca.issue(["mail.example.net"])),
    "a hostile name": lambda ca: bundle(ca.issue(["www.example.net"], common_name="\x1b[2J\r\n250 ok <script>\u202e")),
    "expired": lambda ca: bundle(ca.expired([NAME])),
    "expired, another name": lambda ca: bundle(ca.expired(["mail.example.net"])),
    "not yet valid": lambda ca: bundle(ca.not_yet_valid([NAME])),
    "five days left": lambda ca: bundle(ca.issue([NAME], not_after=now() + timedelta(days=5, hours=1))),
    "fifteen days left": lambda ca: bundle(
        ca.issue([NAME], not_before=now() - timedelta(days=75), not_after=now() + timedelta(days=15, hours=1))
    ),
    "self-signed": lambda _: bundle(self_signed([NAME])),
    "another authority": lambda _: bundle(Authority.create("Example Forger").issue([NAME])),
    "no intermediate": lambda ca: bundle(ca.issue([NAME]), chain=False),
    "another intermediate": lambda ca: bundle(ca.issue([NAME]), instead=ca.with_intermediate()),
    "expired intermediate": lambda ca: bundle(
        ca.with_intermediate(not_after=now() - timedelta(days=1)).issue([NAME]),
    ),
    "root in the chain": lambda ca: bundle(ca.issue([NAME])) + ca.root_pem,
    "another key": lambda ca: wrong_key(ca.issue([NAME])),
    "rsa-1024": lambda ca: bundle(ca.issue([NAME], key="rsa-1024")),
    "sha-1": lambda ca: bundle(ca.with_intermediate(key="rsa").issue([NAME], signature_hash=hashes.SHA1())),
    "md5": lambda ca: bundle(ca.with_intermediate(key="rsa").issue([NAME], signature_hash=hashes.MD5())),
}


def bundle(issued: Issued, chain: bool = True, instead: Optional[Authority] = None) -> bytes:
    """The PEM file of a server: all that belongs into it, or no chain, or the intermediate of another authority."""
    if instead:
        return issued.key_pem + pem(issued.certificate, instead.intermediate.certificate)
    return issued.key_pem + (issued.fullchain_pem if chain else issued.certificate_pem)


def wrong_key(issued: Issued) -> bytes:
    """A key that claims to be the certificate's and is not.

    An EC private key carries its public one along, and OpenSSL compares only that with the certificate; so a
    server starts with it, and signs what no client can verify.
    """

    def secret(key: Key) -> bytes:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key.private_numbers().private_value.to_bytes(32, "big")

    plain = serialization.NoEncryption()
    der = issued.key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain)
    forged = der.replace(secret(issued.key), secret(new_key()))
    assert forged != der
    armour = ssl.DER_cert_to_PEM_cert(forged).replace("CERTIFICATE", "PRIVATE KEY")
    return armour.encode() + issued.fullchain_pem


@dataclass(frozen=True)
class Tls:
    """A server's TLS: certificates by name, the oldest and the newest version, what is asked of clients.

    resumes: whether it takes up former sessions. ciphers: OpenSSL's string; whatever its level of security.
    """

    certificates: tuple[str, ...] = ("good",)
    oldest: ssl.TLSVersion = V1_2
    newest: ssl.TLSVersion = V1_3
    clients: ssl.VerifyMode = ssl.CERT_NONE
    resumes: bool = True
    ciphers: str = "DEFAULT"


class Keeper:
    """Makes certificates and TLS contexts when they are first asked for, and keeps them."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority.create("Example")
        self.authority_file = directory / "root.pem"
        self.authority_file.write_bytes(self.authority.root_pem)
        self._directory = directory
        self._files: dict[str, Path] = {}
        self._contexts: dict[Tls, ssl.SSLContext] = {}

    def prepare(self, tls: Tls) -> None:
        """Make all that the server needs before a client waits for it."""
        self._contexts[tls] = self._context(tls)

    def context(self, tls: Tls) -> ssl.SSLContext:
        """The context for the next connection. Sessions live in their context, so a new one knows none."""
        return self._contexts[tls] if tls.resumes else self._context(tls)

    def _context(self, tls: Tls) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(f"{tls.ciphers}:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that TLS 1.0 is old is the point
            context.minimum_version, context.maximum_version = tls.oldest, tls.newest
        context.verify_mode = tls.clients
        if tls.clients is not ssl.CERT_NONE:
            context.load_verify_locations(cadata=self.authority.root_pem.decode())
        for name in tls.certificates:
            context.load_cert_chain(self._file(name))
        return context

    def _file(self, name: str) -> Path:
        if name not in self._files:
            self._files[name] = self._directory / f"{name.replace(' ', '-')}.pem"
            self._files[name].write_bytes(CERTIFICATES[name](self.authority))
        return self._files[name]
