"""A certificate that is on the host: what the host shows of it, and how the controller judges that. With real openssl."""

import json
import os
import shutil

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import openssl
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import seen_on_host
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.on_host import with_host_certificate

from tests.support.pki import Authority, self_signed

NAME = "mx.example"
MISSING = {"code": "certificate_missing", "message": "there is none"}
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="this needs the program openssl")


@pytest.fixture(scope="module")
def pki():
    return Authority.create()


@pytest.fixture
def host(tmp_path, pki):
    """The files of a host, as certbot lays them out: names in live/ that lead to numbered files."""
    made = pki.issue([NAME])
    for name, content in (("privkey", made.key_pem), ("fullchain", made.fullchain_pem)):
        (tmp_path / "archive").mkdir(exist_ok=True)
        (tmp_path / "live").mkdir(exist_ok=True)
        (tmp_path / "archive" / f"{name}1.pem").write_bytes(content)
        (tmp_path / "live" / f"{name}.pem").symlink_to(f"../archive/{name}1.pem")
    return tmp_path


def look(host, chain="live/fullchain.pem", key="live/privkey.pem"):
    return seen_on_host(str(host / chain), str(host / key) if key else "")


def judged(seen, pki, entries=(), **install):
    options = {"names": [NAME], "ca_content": pki.root.certificate_pem.decode(), **install}
    result = {"obstacles": [MISSING], "notes": [], "on_host": json.loads(json.dumps(seen))}
    return with_host_certificate(result, options, lambda *_: b"", entries)


def codes(result):
    return [one["message"].partition("]")[0].strip("[") for one in result["obstacles"]]


def test_a_good_one_passes_and_its_key_stays_there(host, pki):
    seen = look(host)
    assert "PRIVATE KEY" not in json.dumps(seen)
    private = (host / "live/privkey.pem").read_text().splitlines()[1:-1]
    assert not any(line in json.dumps(seen) for line in private if len(line) > 20)  # the last line may be two letters
    result = judged(seen, pki)
    assert ("on_host" in result, len(result["fingerprint_sha256"])) == (False, 64)
    assert result["obstacles"] == [MISSING]  # what the host says itself stays


def test_key_and_certificates_in_one_file(host, pki):
    both = (host / "live/privkey.pem").read_bytes() + (host / "live/fullchain.pem").read_bytes()
    (host / "both.pem").write_bytes(both)
    seen = look(host, "both.pem", "")
    assert "PRIVATE KEY" not in seen["pem"]
    assert judged(seen, pki)["fingerprint_sha256"]


def test_every_rule_of_an_installation_counts(host, pki):
    other = pki.issue([NAME])
    (host / "other.key").write_bytes(other.key_pem)
    assert codes(judged(look(host, key="other.key"), pki)) == ["key_mismatch"]
    assert codes(judged(look(host), pki, names=["other.example"])) == ["name_not_covered"]
    assert codes(judged(look(host), pki, min_days_left=10_000)) == ["expiring"] * 2  # leaf and intermediate
    (host / "leaf.pem").write_bytes(pki.issue([NAME]).certificate_pem)
    assert "chain_incomplete" in codes(judged(look(host, "leaf.pem", "other.key"), pki))
    own = self_signed([NAME])
    (host / "own.pem").write_bytes(own.key_pem + own.certificate_pem)
    assert codes(judged(look(host, "own.pem", ""), pki)) == ["self_signed"]
    assert judged(look(host, "own.pem", ""), pki, allow_self_signed=True)["fingerprint_sha256"] != ""


def several(host, pki, key):
    """The first certificate, and another one beside it."""
    made = pki.issue([NAME], key=key)
    (host / "second.pem").write_bytes(made.key_pem + made.fullchain_pem)
    return {**look(host), "more": [look(host, "second.pem", "")]}


def test_one_of_each_algorithm_passes_and_all_are_expected(host, pki):
    result = judged(several(host, pki, "rsa"), pki)
    assert result["obstacles"] == [MISSING] and len(set(result["fingerprints_sha256"])) == 2
    assert result["fingerprints_sha256"][0] == result["fingerprint_sha256"]


def test_two_of_one_algorithm_are_refused_by_the_name_of_the_variable(host, pki):
    [obstacle] = judged(several(host, pki, "ec"), pki)["obstacles"]
    assert obstacle["code"] == "certificate_unfit"
    assert (
        "starttls_more_certificates" in obstacle["message"]
        and "second.pem has a key of the type EC" in obstacle["message"]
    )


def test_one_for_ports_is_judged_by_its_own_names_and_is_none_of_the_mail_ports(host, pki):
    made = pki.issue(["submission.example.com"])
    (host / "second.pem").write_bytes(made.key_pem + made.fullchain_pem)
    seen = {**look(host), "more": [look(host, "second.pem", "")]}
    path = seen["more"][0]["certificate"]
    entry = {"certificate_path": path, "ports": [465], "names": ["submission.example.com"]}
    result = judged(seen, pki, entries=[entry])
    assert result["obstacles"] == [MISSING] and "fingerprints_sha256" not in result
    [wrong] = judged(seen, pki, entries=[{**entry, "names": None}])["obstacles"]
    assert "[name_not_covered]" in wrong["message"]
    found = judged(seen, pki, entries=[{**entry, "ports": None}])["obstacles"]
    assert any("names counts together with ports only" in one["message"] for one in found)


@pytest.mark.parametrize(
    ("ports", "names", "told"),
    [
        ([465], ["a.example"], True),
        ([587, 465], ["a.example", "b.example"], True),
        ([587, 465], ["a.example"], False),
        ([2525], [], False),
    ],
)
def test_entries_that_the_hook_could_not_tell_apart_are_refused(host, pki, ports, names, told):
    """They share a port, and are not one certificate in two algorithms."""
    one = {"certificate_path": "/live/a.pem", "ports": [465, 587], "names": ["a.example"]}
    other = {"certificate_path": "/live/b.pem", "ports": ports, "names": names}
    found = [entry["message"] for entry in judged(look(host), pki, entries=[one, other]).get("obstacles", ())]
    assert any("/live/a.pem and /live/b.pem share port 465" in message for message in found) is told


def test_each_of_several_is_judged_and_the_unfit_one_is_named(host, pki):
    seen = several(host, pki, "rsa")
    own = self_signed([NAME])
    (host / "second.pem").write_bytes(own.key_pem + own.certificate_pem)
    seen["more"] = [look(host, "second.pem", "")]
    result = judged(seen, pki)
    assert any("[self_signed]" in one["message"] for one in result["obstacles"]) and "fingerprint_sha256" not in result
    (host / "second.pem").unlink()
    seen["more"] = [look(host, "second.pem", "")]
    [obstacle] = judged(seen, pki)["obstacles"]
    assert obstacle["code"] == "certificate_not_read" and "second.pem" in obstacle["message"]


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda host: (host / "live/privkey.pem").unlink(), "privkey.pem cannot be read: No such file or directory"),
        (
            lambda host: (host / "live/fullchain.pem").unlink(),
            "fullchain.pem cannot be read: No such file or directory",
        ),
        (lambda host: (host / "archive/privkey1.pem").write_text("nothing\n"), "openssl finds no private key"),
    ],
)
def test_what_cannot_be_looked_at_is_neither_good_nor_bad(host, pki, prepare, said):
    prepare(host)
    [obstacle] = judged(look(host), pki)["obstacles"]
    assert (obstacle["code"], said in obstacle["message"]) == ("certificate_not_read", True)
    assert "could not look at the certificate" in obstacle["message"]


def test_an_encrypted_key_asks_nobody(host, pki):
    (host / "archive/privkey1.pem").write_bytes(pki.issue([NAME]).encrypted_key_pem("secret"))
    assert "finds no private key without a passphrase" in look(host)["message"]


def test_without_openssl_nobody_could_look(host, pki, monkeypatch):
    monkeypatch.setattr(openssl, "PROGRAM_PATH", "/nowhere")
    [obstacle] = judged(look(host), pki)["obstacles"]
    assert "the program openssl is not on the host; install the package openssl" in obstacle["message"]


def test_another_result_is_left_as_it_is():
    failed = {"failed": True, "msg": "no"}
    assert with_host_certificate(failed, {}, lambda *_: b"") == failed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_link_that_somebody_else_made_is_not_followed(host, pki):
    os.chown(host / "live", 12345, 12345)
    os.chown(host / "live/privkey.pem", 12345, 12345, follow_symlinks=False)
    assert judged(look(host), pki)["obstacles"][0]["code"] == "certificate_not_read"
