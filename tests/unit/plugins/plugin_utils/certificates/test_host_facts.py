"""The facts that a host reads out of a certificate are those that the controller has from its library."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import openssl, pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.fitness import (
    CAUTIONS,
    HostRoots,
    host_store,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import X509, UnreadableError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import of_group
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import odd_certificates
from tests.support.both_sides import check_certificate, codes, of_host
from tests.support.chains import NAME, Chains
from tests.support.odd_certificates import KEY_PEM, LEAF, ROOT, build, der, dn, dns, text
from tests.support.pki import key_pem

FACTS = (
    "subject", "common_name", "sans", "issuer", "not_before", "not_after", "key_type", "key_bits", "curve", "signature_hash",
    "uses_pss", "spki_sha256", "self_signed", "is_ca", "path_length", "key_usage", "issuer_url", "damaged",
    "must_staple", "is_for_servers", "fingerprint_sha256",
)  # fmt: skip
_MADE = Chains()
TABLE = _MADE.table()
BUT = {
    # The library tells the algorithm outside, openssl the one inside. OpenSSL itself takes neither.
    "two algorithms of a signature": ["signature_hash"],
    # openssl writes the parts that belong together the other way round, and has a word for what the library knows by number only.
    "one part of two": ["subject", "issuer"],
    "an unknown attribute": ["subject", "issuer"],
}
"""What the words differ in, and nothing is decided by."""


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


@pytest.mark.parametrize(
    "name",
    [
        one if not at % 8 or one in BUT else pytest.param(one, marks=pytest.mark.exhaustive)
        for at, one in enumerate(TABLE)
    ],
)
def test_every_certificate_of_every_chain(name):
    made = TABLE[name]()
    for data in dict.fromkeys((*made.served, *made.roots)[:8]):
        compare(data, BUT.get(name, ()))


@pytest.mark.exhaustive
def test_a_chain_of_many():
    made = TABLE["a chain of 110"]()
    served, roots = (
        "".join(pem.PemBlock("CERTIFICATE", one).text for one in some) for some in (made.served, made.roots)
    )
    check_certificate(key_pem(made.key), served, ca_pem=roots, names=[NAME], slowly=True)


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
    compare(der(build(NAMES[name], dns("mx1.example.com"))), BUT.get(name, ()))


@settings(max_examples=3)
@given(st.data())
def test_damaged_ones_are_read_or_refused(data):
    read_or_refuse(data)


@pytest.mark.exhaustive
@settings(max_examples=1000)
@given(st.data())
def test_many_damaged_ones_are_read_or_refused(data):
    read_or_refuse(data)


def read_or_refuse(data):
    good = bytearray(der(LEAF))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = pem.PemBlock("CERTIFICATE", bytes(good)).text
    check_certificate(KEY_PEM, damaged, ca_pem=text(ROOT), names=["mx1.example.com"], alike=False)
    try:
        found = X509.load(bytes(good))
    except UnreadableError as error:
        assert str(error).isprintable()
        return
    assert found.subject.isprintable() and found.issuer.isprintable() and all(one.isprintable() for one in found.sans)


@settings(max_examples=3)
@given(st.binary(max_size=64))
def test_any_bytes_are_no_certificate(data):
    with pytest.raises(UnreadableError):
        X509.load(data)


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


NASTY = {
    "a line break": "evil.example\nX509v3 Subject Alternative Name:\n    DNS:mx1.example.com",
    "another name": "evil.example, DNS:mx1.example.com",
    "another address": "evil.example, IP Address:192.0.2.1",
    "a whole answer": "evil.example\n        Signature Algorithm: sha256WithRSAEncryption\n            Public-Key: (4096 bit)\n"
    "X509v3 Basic Constraints: \n    CA:TRUE\nX509v3 Extended Key Usage: \n    TLS Web Client Authentication",
    "a public key": "x\n-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\nX509v3 Key Usage: \n    CRL Sign",
}


@pytest.mark.parametrize("where", ["name", "subject", "place"])
@pytest.mark.parametrize("kind", NASTY)
def test_text_of_a_stranger_forges_nothing(kind, where):
    nasty = NASTY[kind]
    parts = [dns(nasty if where == "name" else "evil.example")]
    if where == "place":
        access = x509.AccessDescription(
            x509.AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(nasty)
        )
        parts.append(x509.AuthorityInformationAccess([access]))
    subject = dn("evil.example")
    if where == "subject":
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, nasty[:64]), x509.NameAttribute(NameOID.ORGANIZATION_NAME, nasty)]
        )
    made = build(subject, *parts, issuer=ROOT, end=odd_certificates.NOW + 30 * odd_certificates.DAY)
    # The names may be shown in other words; no more. What looks like a damaged certificate is refused.
    ours, theirs = X509.load(der(made)), Certificate.load(der(made))
    if not ours.damaged:
        shown = {"sans", "common_name", "issuer_url", "subject"}
        found, wanted = facts(ours), facts(theirs)
        assert [name for name in FACTS if found[name] != wanted[name] and name not in shown] == []
    assert all(one.isprintable() for one in (ours.subject, ours.common_name or "", *ours.sans, ours.issuer_url or ""))
    for name in ("mx1.example.com", "192.0.2.1"):
        answer = of_host(KEY_PEM, text(made), names=[name], ca_pem=text(ROOT))
        assert "name_not_covered" in codes(answer.faults) and not answer.bundle


def test_a_damaged_extension_forges_nothing():
    forged = b"x\nX509v3 Basic Constraints:\n    CA:TRUE\nX509v3 Extended Key Usage:\n    TLS Web Server Authentication"
    for oid in ("2.5.29.15", "2.5.29.37", "1.3.6.1.5.5.7.1.24"):
        compare(
            der(build("mx1.example.com", x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), forged), issuer=ROOT))
        )


def test_without_openssl_nobody_could_look(monkeypatch):
    monkeypatch.setattr(openssl, "PROGRAM_PATH", "/nowhere")
    another = der(build("mx1.example.com", dns("mx1.example.com"), issuer=ROOT))
    with pytest.raises(openssl.NoOpensslError, match="install the package openssl"):
        X509.load(another)


def test_of_the_hosts_own_roots_only_those_are_read_that_may_be_the_issuer(monkeypatch):
    roots = HostRoots()
    store = host_store()[0]
    one = X509.load(store[-1])
    read = []
    monkeypatch.setattr(X509, "load", lambda der: read.append(der) or one)
    assert roots.named_by(one)
    assert store[-1] in read and len(read) < 10 < len(store)
