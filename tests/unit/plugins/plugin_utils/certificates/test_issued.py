"""A certificate for a key that is made on the host: what goes to the authority, what comes back, and what is refused. With real openssl."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import stat
import sys
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import due, issuing
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import issue_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as facts
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import issued
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.issued import (
    NotIssuedError,
    issue,
    judged,
    planned,
    sign,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.support.pki import Authority, now, pem

NAME = "mx.example.com"
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="this needs the program openssl")
DEFAULTS = {
    "force": False, "requests": False, "renew_days": None, "acme_challenge": "", "acme_webroot": None, "acme_dns_credentials": None,
    "acme_email": None, "acme_server": None, "acme_ca_file": None, "acme_install": False,
}  # fmt: skip


def signed(authority: Authority, csr: str, days: float = 90, names: list[str] | None = None) -> str:
    """What an authority returns for a request."""
    request = x509.load_pem_x509_csr(csr.encode())
    asked = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if names:
        asked = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
    issuer = authority.intermediate
    made = (
        x509.CertificateBuilder().subject_name(request.subject).issuer_name(issuer.certificate.subject)
        .public_key(request.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now() - dt.timedelta(hours=1)).not_valid_after(now() + dt.timedelta(days=days))
        .add_extension(asked, False).sign(issuer.key, hashes.SHA256())
    )  # fmt: skip
    return pem(made, issuer.certificate).decode()


class Host:
    """A host whose store and files lie in a directory of the test."""

    def __init__(self, root: Path) -> None:
        self.root, self.store, self.path = root, root / "store", str(root / "starttls.pem")
        self.asked: list[dict[str, object]] = []
        self.check_mode = False

    def ask(self, arguments: dict[str, object]) -> dict[str, object]:
        self.asked.append(arguments)
        wanted = issue_of({**DEFAULTS, **arguments["issue"]}, arguments["path"])
        made = issuing.issue(wanted, lambda _words: (1, "", "no certbot"), self.check_mode, store=str(self.store))
        assert "PRIVATE KEY" not in json.dumps(made)
        return json.loads(json.dumps(made))

    def install(self, checked) -> None:
        """What the host does with the result."""
        key = Path(checked.private_key)
        key = self.store / key.name if key.name.startswith("pending") else key
        Path(self.path).write_text(key.read_text() + checked.served)
        if key.name.startswith("pending"):
            key.unlink()


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(issuing.os, "geteuid", lambda: 0)
    monkeypatch.setattr(issued, "STORE", str(tmp_path / "store"))
    return Host(tmp_path)


@pytest.fixture
def command(tmp_path, authority, monkeypatch):
    """A signer that this process is: its words choose what it does."""

    def run(command_, request, names, seconds=0.0):
        words = command_
        days = float(words[1]) if len(words) > 1 else 90
        return signed(authority, request, days, words[2:] or None)

    monkeypatch.setattr(issued, "sign", run)
    monkeypatch.setattr(issued, "_program", lambda word: word)
    return ["/sign"]


def install(authority, **given):
    return {"names": [NAME], "ca_content": authority.root_pem.decode(), **given}


def nothing(path, _limit):
    raise EngineError(f"there is no {path}")


def issue_here(host, given, source, read=nothing, **more):
    return issue(given, host.path, source, read, host.ask, host.check_mode, **more)


def test_the_command_of_an_authority(host, authority, command):
    given = install(authority, command=command)
    checked, ended = issue_here(host, given, "command")
    assert (ended, checked.findings) == (None, [])
    assert checked.served.count("BEGIN CERTIFICATE") == 2 and "PRIVATE" not in checked.content
    assert checked.bundle()["private_key"].startswith(str(host.store / "pending"))
    assert stat.S_IMODE(Path(checked.private_key).stat().st_mode) == 0o600
    host.install(checked)

    again, ended = issue_here(host, given, "command")
    assert again.facts["kept"] and again.facts["fingerprint_sha256"] == checked.facts["fingerprint_sha256"]
    assert again.bundle()["keep"] == checked.facts["fingerprint_sha256"]
    assert len(host.asked) == 2, "a certificate that is fine is not asked for twice"


@pytest.mark.parametrize("source", ["command", "csr", "acme"])
def test_one_certificate_is_issued_for_all_ports(host, authority, command, source):
    """What cannot be had is refused, and not left out without a word."""
    given = install(authority, command=command, more=[{"certificate_file": "x.pem", "ports": [465]}])
    [fault] = issued.planned(given, host.path, source, nothing).findings
    assert fault.code == "bad_option" and "starttls_more_certificates has ports or names" in fault.message
    assert f"starttls_certificate_source is {source}, which issues one certificate for all ports" in fault.message


def test_a_key_for_each_algorithm(host, authority, command, monkeypatch):
    quick = {**issuing._NEW_KEY, "rsa": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")}
    monkeypatch.setattr(issuing, "_NEW_KEY", quick)
    given = install(authority, command=command, key_types=["ecdsa", "rsa"])
    checked, _ended = issue_here(host, given, "command")
    kinds = [one.facts["certificate"]["key_type"] for one in (checked, *checked.more)]
    assert (kinds, checked.findings) == (["EC", "RSA"], [])
    assert checked.more[0].arguments["path"] == str(host.root / "starttls-2.pem")


def test_a_certificate_that_is_unfit_is_refused_and_the_key_waits(host, authority, command):
    given = install(authority, command=[*command, "90", "other.example.com"])
    checked, _ended = issue_here(host, given, "command")
    assert "name_not_covered" in [one.code for one in checked.findings]
    assert not checked.served
    [waits] = host.store.glob("pending*.key")
    before = waits.read_bytes()
    good, _ended = issue_here(host, install(authority, command=command), "command")
    assert good.findings == [] and waits.read_bytes() == before


def test_other_names_have_it_issued_anew(host, authority, command):
    checked, _ended = issue_here(host, install(authority, command=command), "command")
    host.install(checked)
    given = install(authority, command=command, names=[NAME, "mail.example.com"])
    anew, _ended = issue_here(host, given, "command")
    assert anew.findings == [] and not anew.facts["kept"] and anew.bundle()["replace"]
    assert set(anew.facts["certificate"]["sans"]) == {f"DNS:{NAME}", "DNS:mail.example.com"}


def test_a_fresh_certificate_of_six_days_stays(host, authority, command):
    given = install(authority, command=[*command, "6"])
    checked, _ended = issue_here(host, given, "command")
    host.install(checked)
    again, _ended = issue_here(host, given, "command")
    assert again.facts["kept"]
    by_days, _ended = issue_here(host, {**given, "renew_days": "7"}, "command")
    assert not by_days.facts["kept"]


def test_check_mode_makes_no_key_and_asks_nobody(host, authority, monkeypatch):
    host.check_mode = True
    monkeypatch.setattr(issued, "_program", lambda word: word)
    checked, ended = issue_here(host, install(authority, command=["/sign"]), "command")
    assert (ended, checked.findings, checked.served) == (None, [], "")
    assert checked.bundle()["issued_by"] == "starttls_certificate_command"
    assert not host.store.exists()


def test_a_request_is_written_and_the_certificate_comes_later(host, authority):
    csr = host.root / "mx.csr"
    given = install(authority, csr_file=str(csr))
    checked, ended = issue_here(host, given, "csr")
    assert checked is None and ended["waiting"] and ended["changed"] and "failed" not in ended
    assert str(csr) in ended["msg"] and "starttls_certificate_file" in ended["msg"]
    first = csr.read_text()
    _checked, again = issue_here(host, given, "csr")
    assert (again["changed"], csr.read_text()) == (False, first), "the request that was sent stays good"

    returned = signed(authority, first)
    done, ended = issue_here(host, {**given, "certificate_content": returned}, "csr")
    assert (ended, done.findings) == (None, [])
    host.install(done)
    later, ended = issue_here(host, {**given, "certificate_content": returned}, "csr")
    assert ended is None and later.facts["kept"]


def test_a_certificate_for_another_request_is_refused(host, authority):
    given = install(authority, csr_file=str(host.root / "mx.csr"))
    issue_here(host, given, "csr")
    other = authority.issue([NAME]).fullchain_pem.decode()
    checked, _ended = issue_here(host, {**given, "certificate_content": other}, "csr")
    assert any("key_mismatch" in one.message for one in checked.findings), checked.findings
    assert not checked.served


def test_a_renewal_by_a_request_keeps_the_old_one_until_the_new_one_is_there(host, authority):
    given = install(authority, csr_file=str(host.root / "mx.csr"))
    issue_here(host, given, "csr")
    returned = signed(authority, (host.root / "mx.csr").read_text(), days=6)
    done, _ended = issue_here(host, {**given, "certificate_content": returned}, "csr")
    host.install(done)
    old = {**given, "certificate_content": returned, "renew_days": "7"}
    _checked, ended = issue_here(host, old, "csr")
    assert ended["waiting"], "a run that rotates orders the next one"
    kept, ended = issue_here(host, old, "csr", orders=False)
    assert ended is None and kept.facts["kept"]
    assert [one.code for one in kept.caveats] == ["certificate_renewal_due"]
    renewed = signed(authority, (host.root / "mx.csr").read_text(), days=30)
    new, ended = issue_here(host, {**old, "certificate_content": renewed}, "csr")
    assert ended is None and new.findings == [] and not new.facts["kept"]


def test_a_file_with_something_else_is_not_replaced_by_a_request(host, authority):
    place = host.root / "mx.csr"
    place.write_text("my notes")
    with pytest.raises(EngineError, match="starttls_csr_file"):
        issue_here(host, install(authority, csr_file=str(place)), "csr")
    assert place.read_text() == "my notes"


def seen_by_a_read(host, given, source, orders=False):
    checked = planned(given, host.path, source, nothing, orders)
    assert checked.findings == []
    wanted = issue_of({**DEFAULTS, **checked.issue}, host.path)
    return judged(due.look(wanted, store=str(host.store)), checked, given, nothing)


def test_the_plan_says_who_will_issue_and_why(host, authority, command):
    given = install(authority, command=command)
    found = seen_by_a_read(host, given, "command")
    [note] = found.notes
    assert (found.obstacles, note.code) == ((), "certificate_issue")
    assert note.message == f"starttls_certificate_command issues {host.path} for {NAME}: there is none yet"
    assert not host.store.exists()


def test_the_plan_names_what_is_in_the_way(host, authority, monkeypatch):
    given = install(authority)
    assert [one.code for one in seen_by_a_read(host, given, "csr").obstacles] == ["certificate_to_request"]
    assert [one.code for one in seen_by_a_read(host, given, "csr", orders=True).notes] == ["certificate_issue"]
    monkeypatch.setattr(due, "program", lambda _name: "")
    acme = install(authority, acme_challenge="standalone")
    [obstacle] = seen_by_a_read(host, acme, "acme").obstacles
    assert "install the package certbot, or set starttls_acme_install: true" in obstacle.message
    assert seen_by_a_read(host, {**acme, "acme_install": True}, "acme").obstacles == ()


@pytest.mark.parametrize(
    ("source", "given", "said"),
    [
        ("command", {}, "starttls_certificate_command is needed"),
        ("command", {"command": ["/no/such/program"]}, "there is no program /no/such/program on the controller"),
        ("command", {"command": "'"}, "starttls_certificate_command is neither a text nor a list"),
        ("command", {"private_key_file": "x"}, "starttls_private_key_file is set"),
        ("acme", {}, "starttls_acme_challenge is needed"),
        ("acme", {"acme_challenge": "webroot"}, "needs starttls_acme_webroot"),
        ("acme", {"acme_challenge": "rfc2136"}, "needs starttls_acme_dns_credentials"),
        (
            "acme",
            {"acme_challenge": "standalone", "names": ["*.example.com"]},
            "set starttls_acme_challenge to rfc2136",
        ),
        ("acme", {"certificate_file": "x", "acme_challenge": "standalone"}, "starttls_certificate_file is set"),
        ("csr", {"names": []}, "set starttls_certificate_names"),
        ("csr", {"names": ["a b"]}, "starttls_certificate_names"),
        ("csr", {"renew_days": "soon"}, "starttls_renew_days"),
        ("csr", {"pkcs12_content": "x"}, "starttls_pkcs12_content is set"),
    ],
)
def test_a_wrong_option_is_said_in_the_users_words(host, authority, source, given, said):
    [fault] = planned(install(authority, **given), host.path, source, nothing).findings
    assert said in fault.message


def program(tmp_path, text):
    path = tmp_path / "sign"
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_command_gets_the_request_and_the_names(tmp_path, authority):
    chain = authority.issue([NAME]).fullchain_pem.decode()
    path = program(
        tmp_path,
        f"import os, sys\nassert sys.stdin.read() == 'REQUEST' and os.environ['MAILFLEET_NAMES'] == '{NAME},b.example.com'\n"
        f"assert sys.argv[1:] == ['--profile', 'a b'], sys.argv\nprint({chain!r})",
    )
    assert sign([path, "--profile", "a b"], "REQUEST", [NAME, "b.example.com"]) == chain
    assert sign(f"{path} --profile 'a b'", "REQUEST", [NAME, "b.example.com"]) == chain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys\nsys.exit('no profile')", "has ended with status 1: no profile"),
        ("print('-----BEGIN CERTIFICATE-----')", "returned no chain in PEM"),
        ("print('done')", "returned no certificate"),
        ("print('x' * 2000000)", "returned more than"),
        ("import time\ntime.sleep(60)", "has not ended in 0 seconds"),
        ("import sys\nsys.exit('refused: token=t0psecret --x\\x1b[31m')", r"refused: token=\*\*\* --x\\x1b\[31m"),
    ],
)
def test_a_command_that_fails_says_why(tmp_path, text, said):
    with pytest.raises(NotIssuedError, match=said) as caught:
        sign(
            [program(tmp_path, text), "--token=t0psecret"], "REQUEST", [NAME], seconds=0.3 if "sleep" in text else 10.0
        )
    assert "t0psecret" not in str(caught.value)


def test_a_host_gets_no_certificate_for_other_names_or_keys(host, authority):
    reply = host.ask({"path": host.path, "issue": {"source": "command", "names": [NAME], "key_types": ["ecdsa"]}})
    [part] = reply["issued"]
    assert issued._checked_request(part["csr"], part["pending"], [NAME]) == part["csr"]
    with pytest.raises(EngineError, match="other names"):
        issued._checked_request(part["csr"], part["pending"], ["bank.example.com"])
    with pytest.raises(EngineError, match="not for the key"):
        issued._checked_request(part["csr"], "AAAA", [NAME])
    with pytest.raises(EngineError, match="request"):
        issued._checked_request("-----BEGIN", part["pending"], [NAME])


def test_a_request_is_what_authorities_take(host):
    names = [NAME, "*.example.com", "192.0.2.1"]
    reply = host.ask({"path": host.path, "issue": {"source": "command", "names": names, "key_types": ["rsa"]}})
    request = x509.load_pem_x509_csr(reply["issued"][0]["csr"].encode())
    assert request.is_signature_valid and request.subject.rfc4514_string() == f"CN={NAME}"
    assert request.public_key().key_size == 3072
    key, asked = facts.request_facts(request.public_bytes(serialization.Encoding.PEM).decode())
    assert asked == names and key


@pytest.mark.parametrize(
    "name", ["a b", "a\nb", "a,DNS:bank.example.com", "", "a/b", "*.*.example.com", "x" * 300, "[x]", "$(x)"]
)
def test_no_name_means_anything_to_openssl(host, name):
    with pytest.raises(EngineError, match="starttls_certificate_names"):
        host.ask(
            {"path": host.path, "issue": {"source": "csr", "requests": True, "names": [name], "key_types": ["ecdsa"]}}
        )
    assert not list(host.root.glob("store/pending*"))


def test_a_request_that_is_void_is_said_in_the_plan_and_by_the_run(host, authority, tmp_path, monkeypatch):
    quick = {**issuing._NEW_KEY, "rsa": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")}
    monkeypatch.setattr(issuing, "_NEW_KEY", quick)
    given = install(authority, csr_file=str(tmp_path / "mx.csr"))
    _checked, first = issue_here(host, {**given, "key_types": ["ecdsa"]}, "csr")
    assert first["waiting"] and "is void" not in first["msg"]
    wanted = {**given, "key_types": ["rsa"]}
    checked = planned(wanted, host.path, "csr", nothing, True)
    host.check_mode = True
    parts = host.ask({"path": host.path, "issue": checked.issue})["issued"]
    assert "certificate_request_void" in [one.code for one in judged(parts, checked, wanted, nothing).notes]
    host.check_mode = False
    _checked, second = issue_here(host, wanted, "csr")
    assert "is of the kind ecdsa, and starttls_key_types says rsa" in second["msg"]
    assert "is void, so have the new one signed" in second["msg"]
    assert second["csr"] != first["csr"]
    _checked, third = issue_here(host, wanted, "csr")
    assert "is void" not in third["msg"] and not third["changed"]
