"""A PFX for Exchange: what Windows reads, in memory, with a password that nobody has to know."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.pfx import (
    AES,
    TRIPLE_DES,
    encryption_for,
    make_pfx,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.support.pki import Authority


@pytest.fixture(scope="module")
def issued():
    return Authority.create("Example, Inc.").issue(["mail.example.com", "EX1.example.com"], key="rsa")


def bundle(one):
    return (one.key_pem + one.fullchain_pem).decode()


@pytest.mark.parametrize("encryption", [AES, TRIPLE_DES])
def test_key_leaf_and_chain_are_in_it(issued, encryption):
    made = make_pfx(bundle(issued), encryption)
    key, leaf, others = pkcs12.load_key_and_certificates(
        base64.b64decode(made.secrets["FileData"]), made.secrets["Password"].encode()
    )
    chain = x509.load_pem_x509_certificates(issued.fullchain_pem)
    assert leaf == chain[0] and list(others) == chain[1:]
    assert key.public_key() == leaf.public_key()


AES_256_CBC = bytes.fromhex("060960864801650304012a")
SHA_256 = bytes.fromhex("0609608648016503040201")
SHA_AND_3DES = bytes.fromhex("060a2a864886f70d010c0103")
SHA_1 = bytes.fromhex("06052b0e03021a")


@pytest.mark.parametrize(
    ("encryption", "has", "lacks"),
    [(AES, (AES_256_CBC, SHA_256), (SHA_AND_3DES, SHA_1)), (TRIPLE_DES, (SHA_AND_3DES, SHA_1), (AES_256_CBC, SHA_256))],
)
def test_the_encryption_is_the_one_that_was_asked_for(issued, encryption, has, lacks):
    data = base64.b64decode(make_pfx(bundle(issued), encryption).secrets["FileData"])
    assert [one in data for one in (*has, *lacks)] == [True, True, False, False]


def test_the_certificate_is_described_as_exchange_shows_it(issued):
    leaf = x509.load_pem_x509_certificates(issued.fullchain_pem)[0]
    made = make_pfx(bundle(issued))
    assert made.certificate.thumbprint == leaf.fingerprint(hashes.SHA1()).hex().upper()
    assert made.certificate.subject == "CN=mail.example.com"
    assert made.certificate.issuer.startswith('CN="Example, Inc.')
    assert made.certificate.domains == ("mail.example.com", "ex1.example.com")
    assert made.certificate.not_after.endswith("Z")


def test_nothing_secret_shows(issued):
    one, other = make_pfx(bundle(issued)), make_pfx(bundle(issued))
    assert one.secrets["Password"] != other.secrets["Password"] and len(one.secrets["Password"]) >= 32
    assert one.secrets["Password"] not in repr(one) and one.secrets["FileData"] not in repr(one)


def test_rsa_is_needed_unless_it_was_asked_otherwise():
    ec = bundle(Authority.create("Example").issue(["mail.example.com"], key="ec"))
    with pytest.raises(EngineError, match=r"type EC.*--key-type rsa.*EnableEccCertificateSupport"):
        make_pfx(ec)
    assert make_pfx(ec, allow_ecc=True).certificate.subject == "CN=mail.example.com"


def test_other_keys_are_never_taken():
    strange = bundle(Authority.create("Example").issue(["mail.example.com"], key="ed25519"))
    with pytest.raises(EngineError, match="type Ed25519"):
        make_pfx(strange, allow_ecc=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "starttls_certificate_file"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
    ],
)
def test_what_is_no_certificate(text, words):
    with pytest.raises(EngineError, match=words):
        make_pfx(text)


def test_a_certificate_without_its_key(issued):
    with pytest.raises(EngineError, match="starttls_private_key_file"):
        make_pfx(issued.fullchain_pem.decode())


def test_a_key_that_cannot_be_used_is_not_quoted(issued):
    block = issued.key_pem.decode().splitlines()
    damaged = "\n".join([block[0], *block[2:]]) + "\n"
    with pytest.raises(EngineError) as caught:
        make_pfx(damaged + issued.fullchain_pem.decode())
    assert block[2][:20] not in str(caught.value) and caught.value.__cause__ is None


def test_another_encryption_is_refused(issued):
    with pytest.raises(EngineError, match="'rc2' of a PFX is none of"):
        make_pfx(bundle(issued), "rc2")


@pytest.mark.parametrize(
    ("windows", "encryption"),
    [
        ("10.0.14393", TRIPLE_DES),
        ("10.0.17763", AES),
        ("10.0.20348", AES),
        ("10.0.26100", AES),
        ("6.3.9600", TRIPLE_DES),
        ("11.0.1", AES),
    ],
)
def test_windows_server_2016_reads_the_old_encryption_only(windows, encryption):
    assert encryption_for(windows) == encryption


@pytest.mark.parametrize("windows", ["", "2019", "ten.0.1"])
def test_an_unknown_windows_is_not_guessed(windows):
    with pytest.raises(EngineError, match="version of Windows could not be read"):
        encryption_for(windows)
