"""Reading one certificate."""

import datetime as dt
import ipaddress

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as certificate_module
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
    describe,
    iso_time,
)
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.support.odd_certificates import (
    CA_KEY,
    DAY,
    KEY,
    LEAF,
    NAME,
    NOW,
    ROOT,
    build,
    der,
    dn,
    dns,
)


def test_describe_says_everything():
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName(NAME),
            x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
            x509.RFC822Name("postmaster@example.com"),
        ]
    )
    certificate = build(dn("first", NAME), names, issuer=ROOT)
    assert describe(der(certificate), NOW) == {
        "subject": f"CN={NAME},CN=first",
        "common_name": NAME,
        "sans": [f"DNS:{NAME}", "IP:2001:db8::1"],
        "issuer": "CN=Example Root",
        "serial": "1234abcd",
        "not_before": iso_time(NOW - DAY),
        "not_after": iso_time(NOW + 200 * DAY),
        "days_left": 200,
        "key_type": "EC",
        "key_bits": 256,
        "signature_hash": "sha256",
        "fingerprint_sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "spki_sha256": pem.fingerprint(
            KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        ),
        "self_signed": False,
    }


@pytest.mark.parametrize(
    ("after", "days"), [(DAY, 1), (DAY - dt.timedelta(seconds=1), 0), (dt.timedelta(seconds=-1), -1)]
)
def test_days_are_rounded_down(after, days):
    certificate = Certificate.load(der(build(NAME, end=NOW + after)))
    assert certificate.days_left(NOW) == days


@pytest.mark.parametrize(
    ("key", "kind", "bits"),
    [
        (rsa.generate_private_key(65537, 2048), "RSA", 2048),
        (ec.generate_private_key(ec.SECP521R1()), "EC", 521),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519", 256),
        (ed448.Ed448PrivateKey.generate(), "Ed448", 456),
    ],
)
def test_kinds_of_keys(key, kind, bits):
    facts = describe(der(build(NAME, key=key)))
    assert (facts["key_type"], facts["key_bits"], facts["self_signed"]) == (kind, bits, True)
    assert (facts["signature_hash"] is None) == kind.startswith("Ed")


def test_control_characters_are_escaped_and_long_texts_cut():
    facts = describe(der(build("a\x1b[2J\u202eb\nc", dns("x\x1b.example.com"))))
    for value in (facts["subject"], facts["common_name"], facts["sans"][0]):
        assert value.isprintable()
    assert "\\x1b" in facts["subject"] and "\\u202e" in facts["common_name"]
    assert certificate_module.printable_text("x" * 501) == "x" * 500 + "..."
    assert certificate_module.printable_text("\udcff") == "\\udcff"


def test_a_certificate_without_a_name():
    facts = describe(der(build(x509.Name([]))))
    assert (facts["subject"], facts["common_name"], facts["sans"]) == ("(no name)", None, [])


@given(st.binary(max_size=300))
def test_garbage_is_a_certificate_error(data):
    with pytest.raises(CertificateError):
        describe(data)


def test_a_weak_signature_by_another_kind_of_key():
    # No library makes such a certificate any more, so this one is only as much of one as is looked at.
    class Sha1:
        signature_hash_algorithm = hashes.SHA1()
        tbs_certificate_bytes = b"signed"
        signature = CA_KEY.sign(b"signed", ec.ECDSA(hashes.SHA1()))

    certificate_module._verify_signature(Sha1, ROOT.public_key())
    for other in (LEAF, build("ed", key=ed25519.Ed25519PrivateKey.generate())):
        with pytest.raises(InvalidSignature):
            certificate_module._verify_signature(Sha1, other.public_key())


@pytest.mark.parametrize(
    ("version", "word"), [(None, "is missing"), ("41.0.7", "is too old (41.0.7)"), ("3.4", "is too old")]
)
def test_a_missing_library_is_explained(monkeypatch, version, word):
    monkeypatch.setattr(certificate_module, "CRYPTOGRAPHY_VERSION", version)
    with pytest.raises(certificate_module.MissingLibraryError) as caught:
        certificate_module.require_cryptography()
    assert word in str(caught.value) and "pip install" in str(caught.value)


def test_the_library_is_here():
    certificate_module.require_cryptography()
