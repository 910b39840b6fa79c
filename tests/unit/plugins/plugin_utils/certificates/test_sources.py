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


OTHER = "submission.example.com"


@pytest.fixture(scope="module")
def submission(authority):
    return authority.issue([OTHER])


def test_one_for_ports_has_names_of_its_own_and_may_have_the_algorithm_of_the_first(rooted, ecdsa, rsa, submission):
    entry = {**texts(submission), "ports": [587, 465, 587], "names": [OTHER]}
    checked = check_install({**rooted, **texts(ecdsa), "more": [texts(rsa), entry]}, PATH, nothing)
    assert checked.findings == []
    assert [one.get("ports") for one in checked.bundle()["more"]] == [None, [587, 465]]
    prints = [one.facts["fingerprint_sha256"] for one in (checked, checked.more[0])]
    assert checked.known()["fingerprints_sha256"] == prints  # what the mail port may serve
    alone = check_install({**rooted, **texts(ecdsa), "more": [entry]}, PATH, nothing)
    assert "fingerprints_sha256" not in alone.known()


def test_without_names_one_for_ports_has_to_cover_those_of_the_host(rooted, ecdsa, submission):
    [fault] = check_install(
        {**rooted, **texts(ecdsa), "more": [{**texts(submission), "ports": [465]}]}, PATH, nothing
    ).findings
    assert fault.code == "name_not_covered" and fault.message.startswith("starttls_more_certificates, entry 1: ")


def test_two_of_one_algorithm_on_one_port_are_refused(rooted, ecdsa, submission, authority):
    one, other = (
        {**texts(issued), "ports": ports, "names": [OTHER]}
        for issued, ports in ((submission, [465]), (authority.issue([OTHER]), [465, 587]))
    )
    [fault] = check_install({**rooted, **texts(ecdsa), "more": [one, other]}, PATH, nothing).findings
    assert "entry 2: it has a key of the type EC, as another one of the same port" in fault.message
    apart = {**other, "ports": [587]}
    assert check_install({**rooted, **texts(ecdsa), "more": [one, apart]}, PATH, nothing).findings == []


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"names": [OTHER]}, "entry 1: names counts together with ports only"),
        ({"names": [OTHER], "ports": [0]}, "entry 1: 0 in ports is no port"),
        ({"names": [OTHER], "ports": [465, 65536]}, "entry 1: 65536 in ports is no port"),
    ],
)
def test_ports_and_names_that_mean_nothing_are_refused(rooted, ecdsa, authority, entry, said):
    more = {**texts(authority.issue([OTHER], key="rsa")), **entry}
    found = check_install({**rooted, **texts(ecdsa), "more": [more]}, PATH, nothing).findings
    assert any(f"starttls_more_certificates, {said}" in one.message for one in found)


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
