"""The one policy: what a certificate covers, and the same verdict for installing and for probing."""

import ipaddress
import string

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.policy import covers
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from tests.support.odd_certificates import (
    LEAF,
    NAME,
    build,
    der,
    dns,
)

LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)
HOST = st.lists(LABEL, min_size=3, max_size=5).map(lambda labels: ".".join(labels) + ".example")


def named(*names, common_name="cn.example.net"):
    return Certificate.load(der(build(common_name, *([dns(*names)] if names else []))))


@given(HOST, HOST)
def test_a_plain_name_covers_itself_and_nothing_else(name, other):
    certificate = named(name)
    assert covers(certificate, name)
    assert covers(certificate, name.upper() + ".")
    assert covers(certificate, other) == (name == other)
    assert not covers(certificate, "x." + name)


@given(HOST, LABEL, LABEL)
def test_a_wildcard_covers_exactly_one_label(parent, label, more):
    certificate = named("*." + parent)
    assert covers(certificate, f"{label}.{parent}")
    assert not covers(certificate, parent)
    assert not covers(certificate, f"{more}.{label}.{parent}")


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("MX1.Example.COM", "mx1.example.com", True),
        ("mx1.example.com.", "mx1.example.com", False),
        ("mx1.example.com", "mx1.example.com.", True),
        ("*.com", "example.com", False),
        ("*", "localhost", False),
        ("*.*.example.com", "a.b.example.com", False),
        ("mx*.example.com", "mx1.example.com", False),
        ("mx.*.example.com", "mx.a.example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "xn--bcher-kva.example.com", True),
        ("*.example.com", "*.example.com", True),
        ("mx1.example.com\0.evil.test", "mx1.example.com", False),
        ("mx_1.example.com", "mx_1.example.com", True),
        ("xn--bcher-kva.example", "bücher.example", True),
        ("xn--bcher-kva.example", "BÜCHER.example", True),
        ("xn--bcher-kva.example", "bu\u0308cher.example", True),
        ("strasse.example", "straße.example", False),
        ("xn--strae-oqa.example", "straße.example", False),
        ("192.0.2.1", "192.0.2.1", False),
        ("mx1.example.com", "", False),
        ("mx1.example.com", "mx1..example.com", False),
        ("mx1.example.com", "ü" * 70 + ".example.com", False),
        ("a" * 64 + ".example.com", "a" * 64 + ".example.com", False),
    ],
)
def test_names(pattern, name, covered):
    assert covers(named(pattern), name) is covered


def test_the_common_name_counts_only_without_alternative_names():
    assert covers(named(common_name=NAME), NAME)
    assert covers(named(common_name="*.example.com"), NAME)
    assert not covers(named("other.example.com", common_name=NAME), NAME)
    only_ip = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))])
    assert not covers(der(build(NAME, only_ip)), NAME)
    only_mail = x509.SubjectAlternativeName([x509.RFC822Name("postmaster@example.com")])
    assert covers(der(build(NAME, only_mail)), NAME)
    assert not covers(named(common_name="192.0.2.1"), "192.0.2.1")


def test_addresses():
    names = [x509.IPAddress(ipaddress.ip_address(a)) for a in ("192.0.2.1", "2001:db8::1")]
    certificate = der(build(NAME, x509.SubjectAlternativeName(names)))
    assert covers(certificate, "192.0.2.1")
    assert covers(certificate, "[2001:DB8:0:0::1]")
    assert not covers(certificate, "192.0.2.2")


def test_covers_refuses_what_is_no_certificate():
    with pytest.raises(CertificateError):
        covers(b"nonsense", NAME)


@given(st.text())
def test_any_name_is_answered(name):
    assert covers(LEAF_LOADED, name) in (True, False)


LEAF_LOADED = Certificate.load(der(LEAF))
