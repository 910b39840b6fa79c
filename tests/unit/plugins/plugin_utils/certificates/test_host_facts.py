"""The facts that a host reads out of a certificate are those that the controller has from its library."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import der as reader
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.fitness import CAUTIONS
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import X509, UnreadableError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import of_group
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chains import Chains
from tests.support.odd_certificates import LEAF, ROOT, build, der, dn, dns

FACTS = (
    "subject", "common_name", "sans", "issuer", "not_before", "not_after", "key_type", "key_bits", "curve", "signature_hash",
    "signature_oid", "key_oid", "spki_sha256", "self_signed", "is_ca", "path_length", "purposes", "key_usage", "issuer_url", "damaged",
    "must_staple", "is_for_servers", "fingerprint_sha256",
)  # fmt: skip
_MADE = Chains()
TABLE = _MADE.table()
ONLY_OUTSIDE = "two algorithms of a signature"  # the library verifies by the one outside, OpenSSL by none


def facts(certificate):
    return {name: getattr(certificate, name) for name in FACTS}


def compare(data, but=()):
    try:
        theirs = Certificate.load(data)
    except CertificateError:
        return
    try:
        ours = X509.load(data)
    except UnreadableError:
        pytest.fail("a host cannot read what the controller reads")
    found, wanted = facts(ours), facts(theirs)
    for name in but:
        del found[name], wanted[name]
    assert found == wanted
    assert [ours.refuses_to_sign(depth) for depth in (0, 1, 5)] == [
        theirs.refuses_to_sign(depth) for depth in (0, 1, 5)
    ]


@pytest.mark.parametrize("name", TABLE)
def test_every_certificate_of_every_chain(name):
    made = TABLE[name]()
    for data in dict.fromkeys((*made.served, *made.roots)[:8]):
        compare(data)


NAMES = {
    "several parts": x509.Name([
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example, Inc. + Sons"),
        x509.NameAttribute(NameOID.COMMON_NAME, "mx1.example.com"),
    ]),
    "one part of two": x509.Name([x509.RelativeDistinguishedName([
        x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "b"),
    ])]),
    "to be escaped": dn(' #a"b\\c;d<e>f=g '),
    "outside ASCII": dn("b\u00fccher \u65e5\u672c"),
    "line breaks": dn("a\nb\tc"),
    "two common names": dn("first", "second"),
    "an unknown attribute": x509.Name([x509.NameAttribute(NameOID.TITLE, "x")]),
    "none": x509.Name([]),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_form_of_a_name(name):
    compare(der(build(NAMES[name], dns("mx1.example.com"))))


@given(st.data())
def test_damaged_ones_are_read_or_refused(data):
    good = bytearray(der(LEAF))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = X509.load(bytes(good))
    except UnreadableError as error:
        assert str(error).isprintable()
        return
    assert found.subject.isprintable() and found.issuer.isprintable() and all(one.isprintable() for one in found.sans)


@given(st.binary(max_size=64))
def test_any_bytes_are_no_certificate(data):
    with pytest.raises(UnreadableError):
        X509.load(data)
    try:
        list(reader.elements(data))
    except reader.DerError as error:
        assert str(error).isprintable()


def test_who_signed():
    leaf, root = X509.load(der(LEAF)), X509.load(der(ROOT))
    assert leaf.is_issued_by(root) and leaf.is_surely_issued_by(root) and not root.is_issued_by(leaf)
    assert root.self_signed and not leaf.self_signed
    forged = bytearray(der(LEAF))
    forged[-1] ^= 1
    assert not X509.load(bytes(forged)).is_issued_by(root)


def test_what_does_not_forbid_an_installation_is_what_the_catalogue_says():
    entries = [*of_group("certificate"), *of_group("installation")]
    weaker = {one.code for one in entries if one.severity != "error"}
    assert weaker >= CAUTIONS
    assert weaker - CAUTIONS == {
        "other_certificate_configured",
        "not_proved",
    }  # of tests and plans, not of a certificate
