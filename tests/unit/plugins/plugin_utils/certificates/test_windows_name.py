"""Distinguished names as Windows writes them."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.windows_name import windows_name
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier


def name(*parts):
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def test_the_most_specific_part_comes_first():
    given = name(
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.STATE_OR_PROVINCE_NAME, "Berlin"),
        (NameOID.COMMON_NAME, "mx.example.com"),
    )
    assert windows_name(given) == "CN=mx.example.com, S=Berlin, C=DE"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Example, Inc.", '"Example, Inc."'),
        ('The "A"', '"The ""A"""'),
        ("a+b", '"a+b"'),
        (" a", '" a"'),
        ("#a", '"#a"'),
        ("a.b-c'd", "a.b-c'd"),
        ("Münster", "Münster"),
    ],
)
def test_quotes(value, text):
    assert windows_name(name((NameOID.ORGANIZATION_NAME, value))) == f"O={text}"


def test_mail_addresses_components_and_what_has_no_letters():
    given = name(
        (NameOID.DOMAIN_COMPONENT, "example"),
        (NameOID.EMAIL_ADDRESS, "a@example.com"),
        (ObjectIdentifier("1.2.3.4"), "x"),
    )
    assert windows_name(given) == "OID.1.2.3.4=x, E=a@example.com, DC=example"


def test_parts_of_several_values():
    pair = x509.RelativeDistinguishedName(
        [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.SERIAL_NUMBER, "1")]
    )
    assert windows_name(x509.Name([pair])) in ("CN=a + SERIALNUMBER=1", "SERIALNUMBER=1 + CN=a")


def test_an_empty_name():
    assert windows_name(x509.Name([])) == ""
