"""A PKCS#12 file as a source: what it holds comes out, and what is wrong with it is said without a secret."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import SOURCE_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import check_install
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.pkcs12 import decoded, unpacked
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

PASSWORD = "s3cret of the file"
NAME = "mx.example.com"


def packed(issued, password=PASSWORD, key=True):
    chain = x509.load_pem_x509_certificates(issued.fullchain_pem)
    how = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"mx", issued.key if key else None, chain[0], chain[1:], how)


@pytest.fixture(scope="module")
def issued(authority):
    return authority.issue([NAME])


def install(authority, **given):
    return {"names": [NAME], "ca_content": authority.root_pem.decode(), **given}


@pytest.mark.parametrize("password", [PASSWORD, "pässword", ""])
def test_what_is_in_it_comes_out(issued, password):
    key, chain = unpacked(packed(issued, password), password)
    assert key == issued.key_pem
    assert chain == issued.fullchain_pem


def test_a_file_or_a_text_is_a_source(issued, authority):
    data = packed(issued)
    lines = base64.encodebytes(data).decode()
    for given in ({"pkcs12_file": "mx.p12"}, {"pkcs12_content": lines}):
        options = install(authority, pkcs12_password=PASSWORD, **given)
        checked = check_install(options, "/etc/x.pem", lambda *_: data, "pkcs12")
        assert checked.findings == []
        assert checked.content == (issued.key_pem + issued.fullchain_pem).decode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is not PKCS#12"),
        (b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n", "set starttls_certificate_source to files"),
        (b"\x30\x82\x01\x01" + b"x" * 64, "correct starttls_pkcs12_password"),
        (b"\x30" * (1 << 21), "longer than"),
    ],
)
def test_another_file_is_said_to_be_one(data, said):
    with pytest.raises(EngineError, match=said):
        unpacked(data, "")


def test_a_wrong_password_is_said_by_the_name_of_its_variable(issued, authority):
    options = install(authority, pkcs12_file="mx.p12", pkcs12_password="wr0ng one")
    [fault] = check_install(options, "/etc/x.pem", lambda *_: packed(issued), "pkcs12").findings
    assert fault.code == "not_pkcs12" and "starttls_pkcs12_password" in fault.message
    assert "wr0ng" not in fault.message


def test_a_file_without_a_key_is_refused(issued):
    with pytest.raises(EngineError, match="no private key"):
        unpacked(packed(issued, key=False), PASSWORD)


@pytest.mark.parametrize("text", [b"not base64!", b"ab c", b""])
def test_what_is_no_base64_is_no_file(text):
    with pytest.raises(EngineError, match="base64"):
        unpacked(decoded(text), "")


def test_the_secrets_of_a_source_are_not_logged():
    assert all(SOURCE_SPEC[name]["no_log"] for name in ("pkcs12_content", "pkcs12_password", "private_key_content"))
    within = SOURCE_SPEC["more"]["options"]
    assert all(within[name]["no_log"] for name in ("pkcs12_content", "pkcs12_password", "private_key_content"))
