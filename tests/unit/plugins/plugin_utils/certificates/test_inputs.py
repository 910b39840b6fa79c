"""What the options of tls_certificate come to on the controller, before the host and after it."""

import hashlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.modules.tls_certificate import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import MissingLibraryError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import (
    CheckedInputs,
    check_inputs,
    check_install,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding

NAME = "mx1.example.com"


@pytest.fixture
def files(authority):
    issued = authority.issue([NAME])
    return {"key": issued.key_pem, "certificate": issued.fullchain_pem, "root": authority.root_pem}


@pytest.fixture
def given(files):
    """The options of a certificate without a fault, two of them files."""
    defaults = {name: spec.get("default") for name, spec in ARGUMENT_SPEC.items()}
    return {
        **defaults,
        "private_key_file": "key",
        "certificate_file": "certificate",
        "ca_content": files["root"].decode(),
        "names": [f" {NAME} "],
    }


def check(given, files, **changes):
    def read(path, limit):
        if path not in files:
            raise EngineError("there is no such file\x1b")
        return files[path][:limit]

    return check_inputs({**given, **changes}, read)


def found(checked):
    return [one.code for one in checked.findings]


def test_a_good_certificate_is_sent_to_the_host(given, files):
    checked = check(given, files, kind="exim", mode=0o640)
    assert checked.findings == [] and checked.caveats == []
    assert checked.arguments == {
        "path": "/etc/mailfleet/starttls.pem", "state": "present", "kind": "exim", "owner": "root", "group": None,
        "mode": "0640", "content": (files["key"] + files["certificate"]).decode(), "replace": False,
    }  # fmt: skip
    assert checked.facts["fingerprint_sha256"] == checked.facts["certificate"]["fingerprint_sha256"]
    assert checked.facts["chain"] == ["CN=Example intermediate CA"]


def test_a_mode_that_is_not_given_is_left_to_the_host(given, files):
    assert "mode" not in check(given, files).arguments


def test_to_remove_the_file_nothing_is_read(given, files):
    checked = check(given, {}, state="absent", names=None)
    assert (checked.findings, checked.facts, "content" in checked.arguments) == ([], {}, False)


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"certificate_content": "x"}, ["bad_option"]),
        ({"private_key_file": "", "certificate_file": None, "names": None}, ["bad_option"] * 3),
        ({"names": ["", " "]}, ["bad_option"]),
        ({"path": "relative", "mode": "0644"}, ["bad_option"]),
        ({"mode": "0644"}, ["bad_option"]),
        ({"private_key_file": "none"}, ["unreadable"]),
        ({"chain_file": "none"}, ["unreadable"]),
        ({"names": ["mx2.example.com"]}, ["name_not_covered"]),
        ({"names": ["mx2.example.com"], "mode": "0644"}, ["bad_option", "name_not_covered"]),
    ],
)
def test_nothing_is_sent_while_there_is_a_finding(given, files, changes, codes):
    checked = check(given, files, **changes)
    assert found(checked) == codes
    assert "content" not in checked.arguments and "fingerprint_sha256" not in checked.facts


def test_a_refusal_says_what_is_wrong(given, files):
    refusal = check(given, files, private_key_file="none\n").refusal()
    [finding] = refusal["findings"]
    assert finding == {
        "code": "unreadable",
        "severity": "error",
        "message": "private_key_file 'none\\n' cannot be read on the controller: there is no such file\\x1b.",
    }
    assert refusal["msg"] == (
        f"The certificate was not installed and the host was not touched: [unreadable] {finding['message']}"
    )
    assert (refusal["failed"], refusal["changed"]) == (True, False)
    assert "certificate" in check(given, files, names=["mx2.example.com"]).refusal()


def test_the_library_is_needed_for_a_certificate_only(given, files, monkeypatch):
    monkeypatch.setattr(x509, "CRYPTOGRAPHY_VERSION", None)
    assert check(given, files, state="absent").findings == []
    with pytest.raises(MissingLibraryError):
        check(given, files)


def test_the_result_has_the_warnings_of_both_sides():
    checked = CheckedInputs({}, {"chain": []}, caveats=[Finding("expires_soon", "late")])
    assert checked.complete({"changed": True, "warnings": ["odd"]}) == {
        "changed": True,
        "chain": [],
        "warnings": ["late", "odd"],
    }
    assert "warnings" not in CheckedInputs({}).complete({"changed": True})


def test_the_diff_says_whose_certificates_these_are(given, files, authority):
    former = authority.issue(["old.example.com"], common_name="old").certificate_pem.decode()
    diff = {"before": "mode: 0600\n", "after": "mode: 0640\n"}
    result = check(given, files).complete({"diff": diff, "previous_certificate": former})
    assert "previous_certificate" not in result
    assert result["diff"]["before"].startswith("subject: CN=old\n") and result["diff"]["before"].endswith(
        "mode: 0600\n"
    )
    assert result["diff"]["after"].startswith(f"subject: CN={NAME}\n")


@pytest.mark.parametrize("text", [None, "", "junk", pem.PemBlock("CERTIFICATE", b"no certificate").text])
def test_a_former_file_that_cannot_be_read_is_left_out_of_the_diff(text):
    diff = {"before": "mode: 0600\n", "after": ""}
    assert CheckedInputs({}).complete({"diff": diff, "previous_certificate": text}) == {"diff": diff}


class TestInstall:
    def test_without_a_key_and_a_certificate_nothing_is_installed(self, files):
        for install in (None, {}, {"names": ["mx1.example.com"], "private_key_file": "", "certificate_content": ""}):
            assert check_install(install, "/etc/mailfleet/starttls.pem", lambda *_: b"") is None

    def test_a_read_gets_no_key(self, given, files):
        checked = check(given, files)
        read = checked.bundle()
        assert "PRIVATE KEY" not in str(read) and "PRIVATE KEY" in checked.content
        assert read["sha256"] == hashlib.sha256(checked.content.encode()).hexdigest()
        assert read["fingerprints"][0] == checked.facts["fingerprint_sha256"] and len(read["fingerprints"]) == 2

    def test_a_missing_key_is_a_finding(self, given, files):
        install = {name: value for name, value in given.items() if not name.startswith("private_key")}
        checked = check_install(install, "/etc/mailfleet/starttls.pem", lambda path, limit: files[path][:limit])
        assert "bad_option" in found(checked)
