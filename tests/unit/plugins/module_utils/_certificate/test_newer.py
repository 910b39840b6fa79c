"""A certificate on the host that ends later than the one to install: what the host says of it, and how the controller judges that."""

import datetime as dt
import json
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import openssl, pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import BundleFile
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.newer import end_of, keeps, newer_on_host
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import CheckedInputs
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.on_host import keep_newer
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.pki import Authority, now, self_signed

NAME = "mx.example"


@pytest.fixture(scope="module")
def pki():
    return Authority.create()


def issue(pki, days, names=(NAME,)):
    end = now() + dt.timedelta(days=days)
    return pki.issue(list(names), not_before=end - dt.timedelta(days=max(days, 0) + 1), not_after=end)


def der(issued):
    return issued.certificate.public_bytes(Encoding.DER)


def whole(issued):
    return issued.key_pem + issued.fullchain_pem


def wanted(path, issued, **changes):
    """The file to install, as a read gets it."""
    return BundleFile(str(path), fingerprints=(pem.fingerprint(der(issued)),), ends=end_of(der(issued)), **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "starttls.pem"


@pytest.mark.parametrize("days", [1, 364, 20_000, 100_000])
def test_the_end_is_the_one_that_the_library_reads(pki, days):
    issued = issue(pki, days)
    assert end_of(der(issued)) == x509.describe(der(issued))["not_after"]


@pytest.mark.parametrize("cut", range(0, 300, 7))
def test_a_damaged_certificate_has_no_end_and_breaks_nothing(pki, cut):
    whole_der = der(pki.issue([NAME]))
    assert end_of(whole_der[:cut]) == ""
    end_of(whole_der[:cut] + b"\xff" + whole_der[cut + 1 :])  # any text, no error


@pytest.mark.parametrize(
    "text", [b"", b"\x30", b"\x30\x80", b"\x30\x85\x01\x01\x01\x01\x01", b"\x30\x04\x30\x02\x30\x00"]
)
def test_what_is_no_certificate_has_no_end(text):
    assert end_of(text) == ""


def test_one_that_ends_later_is_told_with_its_chain_and_without_its_key(pki, path):
    there = issue(pki, 799)
    path.write_bytes(whole(there))
    found = newer_on_host(wanted(path, issue(pki, 364)))
    assert (found["path"], found["message"]) == (str(path), "")
    assert found["pem"].encode() == there.fullchain_pem


@pytest.mark.parametrize("days", [364, 363, -3])
def test_one_that_does_not_end_later_is_replaced(pki, path, days):
    wanted_one = issue(pki, 364)
    path.write_bytes(whole(wanted_one if days == 364 else issue(pki, days)))
    assert newer_on_host(wanted(path, wanted_one)) is None


def test_with_replace_it_is_replaced(pki, path):
    path.write_bytes(whole(issue(pki, 799)))
    assert newer_on_host(wanted(path, issue(pki, 364), replace=True)) is None


@pytest.mark.parametrize(
    "content", [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_a_certificate_that_can_be_read_is_replaced(pki, path, content):
    if content is not None:
        path.write_bytes(content)
    assert newer_on_host(wanted(path, issue(pki, 364))) is None


def test_the_content_tells_the_end_if_nobody_else_does(pki, path):
    path.write_bytes(whole(issue(pki, 799)))
    assert newer_on_host(BundleFile(str(path), content=whole(issue(pki, 364)).decode()))
    assert newer_on_host(BundleFile(str(path), content=whole(issue(pki, 900)).decode())) is None


@pytest.mark.parametrize("days", [1, 799])
def test_without_openssl_the_controller_is_asked(pki, path, monkeypatch, days):
    bundle = wanted(path, issue(pki, 364))
    there = issue(pki, days)
    path.write_bytes(whole(there))
    monkeypatch.setattr(openssl, "PROGRAM_PATH", "/nowhere")
    found = newer_on_host(bundle)
    assert found["pem"].encode() == there.fullchain_pem
    assert newer_on_host(replace(bundle, replaces=pem.fingerprint(der(there)))) is None
    assert newer_on_host(replace(bundle, fingerprints=(pem.fingerprint(der(there)),))) is None


def test_nothing_to_install_or_to_remove_is_no_question(pki, path):
    path.write_bytes(whole(issue(pki, 799)))
    assert newer_on_host(None) is None
    assert newer_on_host(BundleFile(str(path), present=False)) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda new, old: old.key_pem + new.fullchain_pem, "its private key belongs to another certificate"),
        (lambda new, old: new.fullchain_pem + new.key_pem, "it does not begin with a private key"),
        (lambda new, old: new.fullchain_pem, "it does not begin with a private key"),
        (lambda new, old: new.encrypted_key_pem("secret") + new.fullchain_pem, "its private key is encrypted"),
    ],
)
def test_a_file_that_no_daemon_can_use_is_told_as_that(pki, path, content, said):
    new, old = issue(pki, 799), issue(pki, 364)
    path.write_bytes(content(new, old))
    assert said in newer_on_host(wanted(path, old))["message"]


def test_only_the_one_that_was_judged_is_kept(pki, path):
    there, old = issue(pki, 799), issue(pki, 364)
    path.write_bytes(whole(there))
    bundle = replace(wanted(path, old), keep=pem.fingerprint(der(there)))
    assert keeps(bundle)
    path.write_bytes(whole(issue(pki, 800)))
    assert not keeps(bundle)
    path.unlink()
    assert not keeps(bundle) and not keeps(None) and not keeps(wanted(path, old))


# The controller


def judged(pki, there, message="", **install):
    old = issue(pki, 364)
    checked = CheckedInputs({"content": "", "path": "/etc/x.pem"}, {"certificate": x509.describe(der(old))})
    told = {"path": "/etc/x.pem", "pem": there.fullchain_pem.decode(), "message": message}
    options = {"names": [NAME], "ca_content": pki.root_pem.decode(), **install}
    return keep_newer([json.loads(json.dumps(told))], options, checked, lambda *_: b"")


def test_one_that_does_not_end_later_does_not_stay(pki):
    there = issue(pki, 100)
    kept = judged(pki, there)
    assert not kept.findings and not kept.caveats and "kept" not in kept.facts
    assert kept.facts["replaces"] == pem.fingerprint(der(there))


def test_one_that_passes_stays_with_a_warning_that_names_both_dates(pki):
    there = issue(pki, 799)
    kept = judged(pki, there)
    [warning] = kept.caveats
    ends = [(now() + dt.timedelta(days=days)).strftime("%Y-%m-%d") for days in (799, 364)]
    assert not kept.findings and warning.code == "certificate_newer_kept"
    assert all(end in warning.message for end in ends) and "starttls_certificate_replace: true" in warning.message
    assert kept.facts["fingerprint_sha256"] == pem.fingerprint(der(there)) and kept.facts["kept"] is True


@pytest.mark.parametrize(
    ("there", "message", "install", "said"),
    [
        (lambda pki: issue(pki, 799, ["other.example"]), "", {}, "[name_not_covered]"),
        (lambda pki: issue(Authority.create("another"), 799), "", {}, "another"),
        (lambda pki: self_signed([NAME], days=799), "", {}, "[self_signed]"),
        (lambda pki: issue(pki, 799), "its private key belongs to another certificate", {}, "belongs to another"),
        (lambda pki: issue(pki, 799), "", {"min_days_left": 2000}, "[expiring]"),
    ],
)
def test_one_that_does_not_pass_stands_in_the_way(pki, there, message, install, said):
    kept = judged(pki, there(pki), message, **install)
    [finding] = kept.findings
    assert finding.code == "certificate_newer_unfit" and said in finding.message
    assert "starttls_certificate_replace: true" in finding.message and "/etc/x.pem on the host" in finding.message
    assert "fingerprint_sha256" not in kept.facts
