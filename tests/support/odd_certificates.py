"""Certificates exactly as a test asks for them, however odd."""

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding
from cryptography.x509.oid import NameOID

from tests.support.pki import key_pem

NOW = dt.datetime.now(dt.timezone.utc).replace(microsecond=0)  # OpenSSL judges by the clock
DAY = dt.timedelta(days=1)
NAME = "mx1.example.com"
KEY = ec.generate_private_key(ec.SECP256R1())
CA_KEY = ec.generate_private_key(ec.SECP256R1())
SHA256 = hashes.SHA256()


def dn(*common_names):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])


def usage(*names):
    known = [
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ]
    return x509.KeyUsage(**{name: name in names for name in known})


def dns(*names):
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names])


def build(
    subject=NAME,
    *extensions,
    key=KEY,
    issuer=None,
    issuer_key=None,
    start=NOW - DAY,
    end=NOW + 200 * DAY,
    digest=SHA256,
):
    """A certificate exactly as asked for, however odd; signed by itself unless there is an issuer."""
    subject = subject if isinstance(subject, x509.Name) else dn(subject)
    signer = issuer_key or (CA_KEY if issuer else key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(0x1234ABCD)
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    if isinstance(signer, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
        digest = None
    if isinstance(digest, (hashes.SHA1, hashes.MD5)):
        return signed_weakly(builder.sign(signer, hashes.SHA256()), signer, digest)
    return builder.sign(signer, digest)


def signed_weakly(certificate, signer, digest):
    """The certificate signed again, in a way that the library does not offer any more; for RSA issuers."""
    rsa_with = bytes.fromhex("2a864886f70d0101")  # 0b: SHA-256, 05: SHA-1, 04: MD5
    strong, weak = rsa_with + b"\x0b", rsa_with + (b"\x05" if digest.name == "sha1" else b"\x04")
    tbs = certificate.tbs_certificate_bytes.replace(strong, weak)
    head = der(certificate)[: -len(certificate.signature)]
    head = head.replace(certificate.tbs_certificate_bytes, tbs).replace(strong, weak)
    return x509.load_der_x509_certificate(head + signer.sign(tbs, padding.PKCS1v15(), digest))


def der(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


def text(*certificates):
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)


CA = x509.BasicConstraints(ca=True, path_length=None)
ROOT = build("Example Root", CA, key=CA_KEY, end=NOW + 5000 * DAY)
LEAF = build(NAME, dns(NAME), issuer=ROOT)
KEY_PEM = key_pem(KEY).decode()
