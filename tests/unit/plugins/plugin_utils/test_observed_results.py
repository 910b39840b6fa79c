"""What the controller adds to the read of a host: facts of certificates, names in the diff, verdicts on handshake tests."""

import copy
import datetime as dt
import hashlib
import ssl

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.pem import PemBlock
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.probe import record
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import HANDSHAKE_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import CheckedInputs, check_install
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.observed_results import complete_observed
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.fake_mail import FakeMail
from tests.support.pki import now

NAME = "mx.example.com"
EXPECTED = {name: option.get("default") for name, option in HANDSHAKE_SPEC["handshake"]["options"].items()}


def chain_of(issued):
    return tuple(one.public_bytes(Encoding.DER) for one in [issued.certificate, *issued.chain])


def probe(*seen):
    """The handshake tests of a host, as its module returns them: each a target and the certificates that it serves."""
    tests = [
        record(Handshake(target, Stage.EHLO_TLS, tls_version="TLSv1.3", trusted=True, chain=chain_of(issued)))
        for target, issued in seen
    ]
    every = {
        hashlib.sha256(der).hexdigest(): ssl.DER_cert_to_PEM_cert(der) for _t, one in seen for der in chain_of(one)
    }
    return {"results": tests, "certificates": every}


def result(issued, **changes):
    return {
        "changed": False, "kind": "postfix", "obstacles": [], "notes": [], "changes": [], "certificates": [],
        "probe": probe((Target("127.0.0.1"), issued)), **changes,
    }  # fmt: skip


def valid(authority, name, days):
    """A certificate that began 80 days ago, and ends in so many days."""
    start = now() - dt.timedelta(days=80)
    return authority.issue([name], not_before=start, not_after=now() + dt.timedelta(days=days, hours=1))


def install(authority, issued, **options):
    """The checked option install of a task for the host NAME."""
    given = {
        "ca_content": authority.root_pem.decode(),
        "private_key_content": issued.key_pem.decode(),
        "certificate_content": issued.fullchain_pem.decode(),
    }
    return check_install({**given, "names": [NAME], **options}, "/etc/x.pem", None)


def complete(given, checked=None, ca="", **expected):
    before = copy.deepcopy(given)
    done = complete_observed(given, {**EXPECTED, **expected}, checked, ca)
    assert given == before, "the result of the module was changed"
    return done


def codes(test):
    return [one["code"] for one in test["findings"]]


@pytest.mark.parametrize(
    "failed",
    [
        {"failed": True, "msg": "no"}, {"unreachable": True, "msg": "no route"}, {"failed": True, "obstacles": [], "changes": [{}]},
        {"skipped": True}, {},
    ],
)  # fmt: skip
def test_what_is_no_read_is_returned_unchanged(authority, failed):
    assert complete(failed, install(authority, authority.issue(["other.example.com"]))) == failed


def test_a_host_without_a_mail_server_has_its_obstacle_only():
    given = {"kind": "", "obstacles": [{"code": "no_product", "message": "x"}], "notes": []}
    assert complete(given) == {**given, "changes": [], "certificates": []}


# Handshake tests


def test_the_own_port_is_judged_by_the_name_of_the_host(authority):
    issued = authority.issue([NAME])
    [own] = complete(result(issued), name=NAME)["probe"]["results"]
    assert (own["name"], codes(own), own["passed"]) == (NAME, [], True)
    assert own["certificate"]["subject"] == f"CN={NAME}"
    [own] = complete(result(issued), name="another.example.com")["probe"]["results"]
    assert (codes(own), own["passed"]) == (["name_mismatch"], False)


def test_it_keeps_its_name_without_one(authority):
    [own] = complete(result(authority.issue([NAME])))["probe"]["results"]
    assert own["name"] == "127.0.0.1"


def test_other_hosts_are_judged_by_their_own_name(authority):
    one, other = authority.issue([NAME]), authority.issue(["b.example.com"])
    tests = probe((Target("127.0.0.1"), one), (Target("b.example.com"), other), (Target("c.example.com"), other))
    done = complete(result(one, probe=tests), name=NAME)["probe"]
    assert [(test["name"], codes(test)) for test in done["results"]] == [
        (NAME, []), ("b.example.com", []), ("c.example.com", ["name_mismatch"]),
    ]  # fmt: skip
    assert done["passed"] is False
    assert set(done) == {"results", "passed"}


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ({"min_days_left": 400}, ["expiring"]),
        ({"warn_days_left": 400}, ["expires_soon"]),
        ({"min_tls_version": "TLSv1.3"}, []),
        ({}, []),
    ],
)
def test_the_expectations_are_those_of_the_option(authority, expected, found):
    [own] = complete(result(valid(authority, NAME, 100)), name=NAME, **expected)["probe"]["results"]
    assert [code for code in codes(own) if code.startswith("expir")] == found
    assert own["passed"] is (found != ["expiring"])


def test_the_own_port_has_to_serve_the_certificate_that_is_to_be_installed(authority):
    served, wanted = authority.issue([NAME]), authority.issue([NAME])
    tests = probe((Target("127.0.0.1"), served), (Target("b.example.com"), authority.issue(["b.example.com"])))
    own, other = complete(result(served, probe=tests), install(authority, wanted), name=NAME)["probe"]["results"]
    assert (codes(own), codes(other)) == (["wrong_certificate"], [])
    own, _other = complete(result(served, probe=tests), install(authority, served), name=NAME)["probe"]["results"]
    assert codes(own) == []


def test_it_is_said_which_certificate_that_is(authority):
    wanted = authority.issue([NAME])
    checked = install(authority, wanted)
    done = complete(result(authority.issue([NAME])), checked)
    assert done["fingerprint_sha256"] == checked.facts["fingerprint_sha256"]
    assert not {"certificate", "chain", "content"} & set(done)
    assert "fingerprint_sha256" not in complete(result(wanted))


# The certificate to install


def test_findings_on_it_stand_in_the_way(authority):
    checked = install(authority, authority.issue(["other.example.com"]))
    there = [{"code": "port_in_use", "message": "x"}]
    done = complete(result(authority.issue([NAME]), obstacles=there), checked)
    assert done["obstacles"][0] == there[0]
    assert [one["code"] for one in done["obstacles"][1:]] == ["certificate_unfit"]
    assert done["obstacles"][1]["message"].startswith("[name_not_covered] ") and NAME in done["obstacles"][1]["message"]
    assert "fingerprint_sha256" not in done


def test_caveats_are_notes(authority):
    checked = install(authority, valid(authority, NAME, 16), min_days_left=14)
    done = complete(result(authority.issue([NAME])), checked)
    assert [one["code"] for one in done["notes"]] == ["expires_soon"] == [one.code for one in checked.caveats]
    assert done["obstacles"] == []


# Changes


@pytest.fixture
def change(tmp_path, authority, monkeypatch):
    """The change of a certificate file as the host shows it: from one, or from none, to another."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    mail = FakeMail(tmp_path, authority)

    def made(wanted, former=None):
        mail.install(former) if former else mail.certificate.unlink()
        look = mail.renewal(wanted, content=None).look()
        return {"path": str(mail.certificate), **look.diff, "previous_certificate": look.previous}

    yield made
    mail.port.close()


def test_a_change_of_a_certificate_has_the_names_in_it(authority, change):
    wanted, former = valid(authority, NAME, 90), valid(authority, "old.example.com", 30)
    given = change(wanted, former)
    settings = {"path": "/etc/main.cf", "lines": "+a\n"}
    done = complete(result(former, changes=[given, settings]), install(authority, wanted))
    [certificate, other] = done["changes"]
    assert other == settings
    assert set(certificate) == {"path", "lines"}
    head, *lines = certificate["lines"].splitlines()
    assert (head, lines[0]) == (f"--- before: {given['path']}", f"+++ after: {given['path']}")
    assert "-subject: CN=old.example.com" in lines and f"+subject: CN={NAME}" in lines
    assert [line for line in lines if line.startswith(("-certificate sha256: ", "+certificate sha256: "))] != []
    assert not [line for line in lines if "issuer" in line]  # what stays is left out
    assert "PRIVATE KEY" not in str(done) and "CERTIFICATE-----" not in certificate["lines"]
    key = wanted.key_pem.decode().splitlines()[1]
    assert key not in str(done)


def test_a_certificate_where_there_was_none(authority, change):
    wanted = authority.issue([NAME])
    [certificate] = complete(result(wanted, changes=[change(wanted)]), install(authority, wanted))["changes"]
    assert certificate["lines"].startswith(
        f"--- before: (absent)\n+++ after: {certificate['path']}\n+subject: CN={NAME}\n"
    )


def test_without_the_checked_certificate_the_diff_of_the_host_is_shown(authority, change):
    given = change(authority.issue([NAME]), authority.issue([NAME]))
    [certificate] = complete(result(authority.issue([NAME]), changes=[given]))["changes"]
    assert "+certificate sha256: " in certificate["lines"] and "subject" not in certificate["lines"]


# Certificate files


def test_a_certificate_file_has_facts_and_no_pem_text(authority):
    issued = valid(authority, NAME, 90)
    given = [
        {"path": "/a.pem", "readers": ["postfix"], "pem": issued.certificate_pem.decode(), "message": ""},
        {"path": "/b.pem", "readers": [], "pem": None, "message": "there is no such file"},
    ]
    one, other = complete(result(issued, certificates=given))["certificates"]
    assert other == {"path": "/b.pem", "readers": [], "message": "there is no such file"}
    assert (one["path"], one["readers"], one["message"], "pem" in one) == ("/a.pem", ["postfix"], "", False)
    assert one["certificate"]["subject"] == f"CN={NAME}"
    assert one["certificate"]["fingerprint_sha256"] == hashlib.sha256(chain_of(issued)[0]).hexdigest()


@pytest.mark.parametrize(
    "text", [PemBlock("CERTIFICATE", b"nonsense").text, "nonsense", "-----BEGIN CERTIFICATE-----\n", "\0", " "]
)
def test_a_certificate_that_is_none_is_said(authority, text):
    given = [{"path": "/a.pem", "readers": [], "pem": text, "message": ""}]
    [one] = complete(result(authority.issue([NAME]), certificates=given))["certificates"]
    assert one["message"].startswith("the certificate cannot be read: ")
    assert not {"pem", "certificate"} & set(one)


MISSING = {"code": "certificate_missing", "message": "there is no certificate; name one to install"}
FULL = {"code": "no_disk_space", "message": "full"}


@pytest.mark.parametrize(
    ("findings", "codes"),
    [
        ([], ["certificate_missing", "no_disk_space"]),
        ([Finding("expired", "it expired")], ["no_disk_space", "certificate_unfit"]),
    ],
)
def test_nobody_is_told_to_name_a_certificate_that_is_named_and_unfit(findings, codes):
    checked = CheckedInputs({}, findings=findings)
    done = complete_observed({"obstacles": [MISSING, FULL], "notes": []}, {}, checked, "")
    assert [one["code"] for one in done["obstacles"]] == codes


def test_without_a_certificate_to_install_it_is_missing():
    done = complete_observed({"obstacles": [MISSING], "notes": []}, {}, None, "")
    assert done["obstacles"] == [MISSING]
