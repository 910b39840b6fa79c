"""One option says where a certificate comes from, and several algorithms are checked together."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import NEXT
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import check_install

NAME = "mx.example.com"
PATH = "/etc/mailfleet/starttls.pem"


def nothing(_path, _limit):
    raise AssertionError("no file is read")


def texts(issued):
    return {"private_key_content": issued.key_pem.decode(), "certificate_content": issued.fullchain_pem.decode()}


@pytest.fixture(scope="module")
def rooted(authority):
    return {"names": [NAME], "ca_content": authority.root_pem.decode()}


@pytest.fixture(scope="module")
def ecdsa(authority):
    return authority.issue([NAME])


@pytest.fixture(scope="module")
def rsa(authority):
    return authority.issue([NAME], key="rsa")


def test_content_is_text_only(rooted, ecdsa):
    assert check_install({**rooted, **texts(ecdsa)}, PATH, nothing, "content").findings == []
    [fault] = check_install({**rooted, **texts(ecdsa), "chain_file": "x.pem"}, PATH, nothing, "content").findings
    assert "starttls_certificate_source is content, and starttls_chain_file is set as well" in fault.message


def test_a_source_without_its_input_names_the_variable(rooted):
    said = [one.message for one in check_install(rooted, PATH, nothing, "content").findings]
    assert any("Set starttls_private_key_content." in one for one in said)
    said = [one.message for one in check_install(rooted, PATH, nothing, "pkcs12").findings]
    assert any("Set starttls_pkcs12_file or starttls_pkcs12_content." in one for one in said)


def test_files_without_anything_named_install_nothing(rooted):
    assert check_install(rooted, PATH, nothing, "files") is None


def test_a_pkcs12_file_beside_files_is_refused(rooted, ecdsa):
    given = {**rooted, **texts(ecdsa), "pkcs12_file": "x.p12"}
    assert "starttls_pkcs12_file is set as well" in check_install(given, PATH, nothing, "files").findings[0].message


def test_two_algorithms_are_two_files(rooted, ecdsa, rsa):
    checked = check_install({**rooted, **texts(ecdsa), "more": [texts(rsa)]}, PATH, nothing)
    assert checked.findings == []
    bundle = checked.bundle()
    first, second = checked.content.split(NEXT)
    assert first == (ecdsa.key_pem + ecdsa.fullchain_pem).decode()
    assert second == (rsa.key_pem + rsa.fullchain_pem).decode()
    assert bundle["sha256"] == hashlib.sha256(first.encode()).hexdigest()
    assert [one["sha256"] for one in bundle["more"]] == [hashlib.sha256(second.encode()).hexdigest()]
    assert [one.arguments["path"] for one in checked.more] == ["/etc/mailfleet/starttls-2.pem"]
    assert len(checked.known()["fingerprints_sha256"]) == 2


def test_two_certificates_of_one_algorithm_are_refused(rooted, ecdsa, authority):
    other = authority.issue([NAME])
    [fault] = check_install({**rooted, **texts(ecdsa), "more": [texts(other)]}, PATH, nothing).findings
    assert "starttls_more_certificates, entry 1" in fault.message and "type EC" in fault.message


def test_a_fault_of_a_further_certificate_names_its_place(rooted, ecdsa, rsa, authority):
    wrong = authority.issue(["other.example.com"], key="rsa")
    found = check_install({**rooted, **texts(ecdsa), "more": [texts(wrong)]}, PATH, nothing).findings
    assert [one.code for one in found] == ["name_not_covered"]
    assert found[0].message.startswith("starttls_more_certificates, entry 1: ")


def test_a_few_further_certificates_are_enough(rooted, ecdsa, rsa):
    given = {**rooted, **texts(ecdsa), "more": [texts(rsa)] * 3}
    said = [one.message for one in check_install(given, PATH, nothing).findings]
    assert "starttls_more_certificates, entry 3: at most 2 further certificates are served." in said


def test_one_wildcard_is_for_many_hosts(authority):
    issued = authority.issue(["*.example.com"])
    root = authority.root_pem.decode()
    for host in ("mx1.example.com", "mx2.example.com"):
        given = {"names": [host], "ca_content": root, **texts(issued)}
        assert check_install(given, PATH, nothing, "content").findings == []
    deeper = {"names": ["a.b.example.com"], "ca_content": root, **texts(issued)}
    assert [one.code for one in check_install(deeper, PATH, nothing, "content").findings] == ["name_not_covered"]
