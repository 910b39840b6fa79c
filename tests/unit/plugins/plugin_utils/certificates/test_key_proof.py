import datetime as dt
import hashlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import KeyExchange
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.key_proof import has_key
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

SIGNED = b"client random, server random, parameters"
KEYS = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ed448": ed448.Ed448PrivateKey.generate(),
    "dsa": dsa.generate_private_key(2048),
}


def leaf(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.example.com")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, dt.datetime(2026, 1, 1), dt.datetime(2036, 1, 1))
    issuer = KEYS["p256"]
    return builder.sign(issuer, hashes.SHA256()).public_bytes(Encoding.DER)


LEAVES = {kind: leaf(key) for kind, key in KEYS.items()}


def sign(kind, algorithm, signed=SIGNED):
    """A signature as a server makes it, with the tools of the other side."""
    key = KEYS[kind]
    if algorithm in ("ed25519", "ed448"):
        return key.sign(signed)
    if algorithm == "rsa_pkcs1_md5_sha1":
        return raw_pkcs1(hashlib.md5(signed).digest() + hashlib.sha1(signed).digest())
    digest = getattr(hashes, algorithm.rpartition("_")[2].upper())()
    if algorithm.startswith("rsa_pkcs1"):
        return key.sign(signed, padding.PKCS1v15(), digest)
    if algorithm.startswith("rsa_pss"):
        return key.sign(signed, padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH), digest)
    return key.sign(signed, digest if kind == "dsa" else ec.ECDSA(digest))


def raw_pkcs1(content):
    """RSA with the padding of PKCS 1 around bytes that do not say what hash they are."""
    key = KEYS["rsa"]
    numbers, size = key.private_numbers(), key.key_size // 8
    block = b"\x00\x01" + b"\xff" * (size - 3 - len(content)) + b"\x00" + content
    return pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n).to_bytes(size, "big")


CASES = [
    ("rsa", "rsa_pkcs1_sha256"), ("rsa", "rsa_pkcs1_sha512"), ("rsa", "rsa_pkcs1_sha1"), ("rsa", "rsa_pkcs1_md5_sha1"),
    ("rsa", "rsa_pss_rsae_sha256"), ("rsa", "rsa_pss_rsae_sha384"), ("rsa", "rsa_pss_pss_sha512"),
    ("p256", "ecdsa_sha256"), ("p384", "ecdsa_sha256"), ("p384", "ecdsa_sha384"), ("p256", "ecdsa_sha1"),
    ("ed25519", "ed25519"), ("ed448", "ed448"), ("dsa", "dsa_sha256"), ("dsa", "dsa_sha1"),
]  # fmt: skip


@pytest.mark.parametrize("kind, algorithm", CASES)
def test_the_key_is_proved(kind, algorithm):
    assert has_key(LEAVES[kind], KeyExchange(algorithm, SIGNED, sign(kind, algorithm))) is True


@pytest.mark.parametrize("kind, algorithm", CASES)
def test_the_parameters_are_not_what_was_signed(kind, algorithm):
    signature = sign(kind, algorithm)
    assert has_key(LEAVES[kind], KeyExchange(algorithm, SIGNED + b"!", signature)) is False


@pytest.mark.parametrize("kind, algorithm", CASES)
def test_the_signature_is_damaged(kind, algorithm):
    signature = bytearray(sign(kind, algorithm))
    signature[-1] ^= 1
    assert has_key(LEAVES[kind], KeyExchange(algorithm, SIGNED, bytes(signature))) is False
    assert has_key(LEAVES[kind], KeyExchange(algorithm, SIGNED, b"x")) is False


@pytest.mark.parametrize("kind, algorithm", CASES)
def test_the_certificate_is_another_ones(kind, algorithm):
    new = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "dsa": lambda: KEYS["rsa"],
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ed448": ed448.Ed448PrivateKey.generate,
    }.get(kind, lambda: ec.generate_private_key(KEYS[kind].curve))()
    assert has_key(leaf(new), KeyExchange(algorithm, SIGNED, sign(kind, algorithm))) is False


@pytest.mark.parametrize("algorithm", [algorithm for _kind, algorithm in CASES])
@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_a_key_of_another_kind_cannot_have_signed(kind, algorithm):
    able = {"rsa": "rsa", "p256": "ecdsa", "ed25519": "ed25519"}[kind]
    if not algorithm.startswith(able):
        assert has_key(LEAVES[kind], KeyExchange(algorithm, SIGNED, b"s" * 64)) is False


@pytest.mark.parametrize(
    "algorithm", ["", "0x0999", "rsa_sha256", "rsa_pkcs1_sha999", "ed25519ph", "sha256", "_sha256"]
)
def test_an_algorithm_that_is_not_known(algorithm):
    assert has_key(LEAVES["rsa"], KeyExchange(algorithm, SIGNED, b"signature")) is None


@pytest.mark.parametrize("exchange", [None, KeyExchange("ed25519", SIGNED, b"")])
def test_nothing_was_signed(exchange):
    assert has_key(LEAVES["ed25519"], exchange) is None


@pytest.mark.parametrize("certificate", [b"", b"\x30\x00", LEAVES["rsa"][:-200], b"x" * 1000])
def test_a_certificate_that_cannot_be_read(certificate):
    assert has_key(certificate, KeyExchange("ed25519", SIGNED, b"signature")) is None


def test_a_key_that_is_too_small_for_the_hash():
    small = leaf(rsa.generate_private_key(65537, 1024))
    assert has_key(small, KeyExchange("rsa_pss_rsae_sha512", SIGNED, b"s" * 128)) is not True


def test_an_algorithm_that_this_library_does_not_have(monkeypatch):
    def missing(*_args):
        raise UnsupportedAlgorithm("SHA1 is not supported by this build")

    monkeypatch.setattr(hashes, "SHA1", missing)
    assert has_key(LEAVES["p256"], KeyExchange("ecdsa_sha1", SIGNED, b"signature")) is None


def test_a_made_up_order_of_an_ecdsa_signature():
    assert has_key(LEAVES["p256"], KeyExchange("ecdsa_sha256", SIGNED, utils.encode_dss_signature(0, 0))) is False


@given(
    st.sampled_from([*LEAVES.values(), b""]),
    st.sampled_from([algorithm for _kind, algorithm in CASES] + ["", "x_y"]),
    st.binary(max_size=300),
)
def test_nothing_made_up_is_a_proof(certificate, algorithm, signature):
    assert has_key(certificate, KeyExchange(algorithm, SIGNED, signature)) is not True
