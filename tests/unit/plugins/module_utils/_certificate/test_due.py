"""When a certificate is to be issued anew: by a share of its life, by fixed days, or because there is none. With real openssl."""

from __future__ import annotations

import base64
import datetime as dt
import shutil
import subprocess

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import due, issuing
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import Issue, look
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.lineage import kind_of, names_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.openssl import validity_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import numbered
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import renewal_files
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_csr

from tests.support.pki import now

NAME = "mx.example.com"
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="this needs the program openssl")


def there(tmp_path, issued, name="starttls.pem"):
    path = tmp_path / name
    path.write_bytes(issued.key_pem + issued.fullchain_pem)
    return str(path)


def wanted(path, **more):
    return Issue(**{"source": "command", "path": path, "names": (NAME,), "key_types": ("ecdsa",), **more})


def seen(tmp_path, issue, hours=0.0):
    [part] = look(issue, now() + dt.timedelta(hours=hours), str(tmp_path / "store"), str(tmp_path / "live"))
    return part


@pytest.mark.parametrize(("days", "age", "is_due"), [
    (6, 0, False), (6, 4, False), (6, 4.1, True), (45, 0, False), (45, 29, False), (45, 31, True), (90, 59, False), (90, 61, True),
    (398, 307, False), (398, 309, True),
])  # fmt: skip
def test_a_third_of_its_life_and_at_most_90_days(tmp_path, authority, days, age, is_due):
    made = now()
    issued = authority.issue([NAME], not_before=made, not_after=made + dt.timedelta(days=days))
    part = seen(tmp_path, wanted(there(tmp_path, issued)), hours=age * 24)
    assert (bool(part["due"]), part["anew"]) == (is_due, is_due)
    assert "less than a third of its life is left" in part["due"] or not is_due


def test_fixed_days_are_an_option(tmp_path, authority):
    issued = authority.issue([NAME], not_before=now(), not_after=now() + dt.timedelta(days=6))
    path = there(tmp_path, issued)
    assert "fewer than 7 days are left" in seen(tmp_path, wanted(path, renew_days=7))["due"]
    assert seen(tmp_path, wanted(path, renew_days=1), hours=4 * 24)["due"] == ""
    assert seen(tmp_path, wanted(path, renew_days=0), hours=5.9 * 24)["due"] == ""


def test_what_cannot_be_used_is_due(tmp_path, authority):
    path = tmp_path / "starttls.pem"
    assert seen(tmp_path, wanted(str(path)))["due"] == "there is none yet"
    path.write_bytes(authority.issue([NAME]).fullchain_pem)  # no key
    assert "no private key" in seen(tmp_path, wanted(str(path)))["due"]
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert seen(tmp_path, wanted(str(path)))["due"]


def test_what_certbot_renewed_is_taken_over_and_not_issued_again(tmp_path, authority):
    path = there(tmp_path, authority.issue([NAME]))
    live = tmp_path / "live" / NAME
    live.mkdir(parents=True)
    new = authority.issue([NAME])
    (live / "fullchain.pem").write_bytes(new.fullchain_pem)
    (live / "privkey.pem").write_bytes(new.key_pem)
    part = seen(tmp_path, wanted(path, source="acme", challenge="standalone", installs=True))
    assert ("certbot has renewed it" in part["due"], part["anew"]) == (True, False)
    there(tmp_path, new)
    assert seen(tmp_path, wanted(path, source="acme", challenge="standalone", installs=True))["due"] == ""


def acme(path, **more):
    return wanted(path, source="acme", challenge="standalone", installs=True, **more)


def lineage(tmp_path, issued, authenticator="standalone", name=NAME, version=1):
    """What certbot leaves of a certificate, with each of its versions."""
    live, archive, renewal = (tmp_path / one for one in (f"live/{name}", f"archive/{name}", "renewal"))
    for one in (live, archive, renewal):
        one.mkdir(parents=True, exist_ok=True)
    (live / "fullchain.pem").write_bytes(issued.fullchain_pem)
    (live / "privkey.pem").write_bytes(issued.key_pem)
    (archive / f"cert{version}.pem").write_bytes(issued.certificate_pem)
    (renewal / f"{name}.conf").write_text(f"version = 2.1.0\n[renewalparams]\nauthenticator = {authenticator}\n")


def aged(authority, age, days=90, names=(NAME,), **more):
    start = now() - dt.timedelta(days=age)
    return authority.issue(list(names), not_before=start, not_after=start + dt.timedelta(days=days), **more)


@pytest.mark.parametrize("days", [90, 6])
def test_what_the_hook_refused_is_installed_next_and_no_other_key_is_made(tmp_path, authority, monkeypatch, days):
    """The hook asks for the TLSA record of this key. Another one would need another record, and so on every night."""
    certbot = Certbot(tmp_path, authority, monkeypatch)
    path = there(tmp_path, old := aged(authority, days * 0.7, days))
    lineage(tmp_path, old)
    lineage(tmp_path, new := aged(authority, 0, days), version=2)
    for _night in range(2):
        reply = certbot.issue(acme(path))
        [part] = reply["issued"]
        assert (part["anew"], part["message"], part["issued"]) == (False, "", new.fullchain_pem.decode())
        assert part["due"] == f"certbot has renewed it in {tmp_path}/live/{NAME}"
        assert part["key"] == f"{tmp_path}/live/{NAME}/privkey.pem"
        key = new.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert base64.b64decode(part["pending"]) == key, "so the plan knows the TLSA record to publish"
    assert certbot.words == []


def test_certbot_is_made_to_renew_only_what_is_too_old_itself(tmp_path, authority, monkeypatch):
    certbot = Certbot(tmp_path, authority, monkeypatch)
    path = there(tmp_path, old := aged(authority, 70))
    lineage(tmp_path, old)
    lineage(tmp_path, aged(authority, 65), version=2)
    certbot.issue(acme(path))
    lineage(tmp_path, aged(authority, 0), version=3)
    certbot.issue(acme(path, force=True))
    assert ["--force-renewal" in one for one in certbot.words] == [True, True]


@pytest.mark.parametrize("other", [{"names": (NAME, "more.example.com")}, {"key_types": ("rsa",)}])
def test_what_certbot_has_for_other_names_or_another_kind_of_key_is_issued_anew(
    tmp_path, authority, monkeypatch, other
):
    certbot = Certbot(tmp_path, authority, monkeypatch)
    path = there(tmp_path, old := aged(authority, 70))
    lineage(tmp_path, old)
    lineage(tmp_path, aged(authority, 0), version=2)
    certbot.issue(acme(path, **other))
    assert ["--force-renewal" in one for one in certbot.words] == [False]


@pytest.mark.parametrize(("names", "authenticator", "said"), [
    ((NAME, "webmail.example.com", "autoconfig.example.com"), "nginx", "which also covers autoconfig.example.com, webmail.example.com:"),
    ((NAME,), "nginx", "which is renewed by nginx, not by standalone:"), ((NAME,), "", "by a way that cannot be read, not by standalone:"),
    ((NAME,), "standalone", ""),
])  # fmt: skip
def test_a_certificate_of_somebody_else_is_not_taken_over(tmp_path, authority, monkeypatch, names, authenticator, said):
    """certbot asks nothing: the web server would lose its certificate, or its way to renew it."""
    certbot = Certbot(tmp_path, authority, monkeypatch)
    lineage(tmp_path, aged(authority, 10, names=names), authenticator)
    path = str(tmp_path / "starttls.pem")
    message = seen(tmp_path, acme(path))["message"]
    assert said in message and bool(message) == bool(said), "the plan shows it"
    if not said:
        assert certbot.issue(acme(path))["issued"][0]["issued"]
        return
    assert (
        f"Set starttls_certificate_source: host, with starttls_certificate_path: {tmp_path}/live/{NAME}/fullchain.pem"
        in message
    )
    with pytest.raises(EngineError, match=r"certificate mx\.example\.com here that the collection has not made"):
        certbot.issue(acme(path))
    assert certbot.words == []


def test_one_that_cannot_be_read_is_not_taken_over_either(tmp_path, authority):
    lineage(tmp_path, aged(authority, 10))
    (tmp_path / f"live/{NAME}/fullchain.pem").unlink()
    assert "which cannot be read" in seen(tmp_path, acme(str(tmp_path / "starttls.pem")))["message"]


def test_a_certificate_of_the_collection_may_get_other_names_and_another_challenge(tmp_path, authority, monkeypatch):
    """It is known by what is installed: that is one of its versions."""
    certbot = Certbot(tmp_path, authority, monkeypatch)
    path = there(tmp_path, old := aged(authority, 70, names=(NAME, "former.example.com")))
    lineage(tmp_path, old, "webroot")
    lineage(tmp_path, aged(authority, 0, names=(NAME, "former.example.com")), "webroot", version=2)
    assert seen(tmp_path, acme(path))["message"] == ""
    certbot.issue(acme(path))
    assert len(certbot.words) == 1 and "former.example.com" not in certbot.words[0]


def test_a_key_that_waits_is_made_anew_for_another_algorithm(tmp_path, monkeypatch):
    monkeypatch.setattr(issuing.os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        issuing, "_NEW_KEY", {**issuing._NEW_KEY, "rsa": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")}
    )
    path, store = str(tmp_path / "starttls.pem"), str(tmp_path / "store")

    def asked(kind):
        issue = wanted(path, source="csr", key_types=(kind,), orders=True)
        [part] = issuing.issue(issue, lambda _words: (1, "", ""), False, store=store)["issued"]
        return part["pending"], part["csr"], part["void"]

    first, again, other, last = (asked(kind) for kind in ("ecdsa", "ecdsa", "rsa", "rsa"))
    assert first[0] == again[0] and (first[2], again[2], last[2]) == ("", "", "") and other[0] == last[0]
    assert isinstance(load_pem_x509_csr(other[1].encode()).public_key(), rsa.RSAPublicKey)
    assert (
        f"the key that waits in {store}/pending" in other[2]
        and "of the kind ecdsa, and starttls_key_types says rsa" in other[2]
    )


def test_names_and_kinds_are_those_of_the_library(authority):
    names = [NAME, "*.Example.com", "192.0.2.1", "2001:db8::1"]
    for kind, word in (("ec", "ecdsa"), ("rsa", "rsa"), ("ed25519", "")):
        issued = authority.issue(names, key=kind)
        assert names_of(issued.certificate.public_bytes(Encoding.DER)) == {one.lower() for one in names}
        key = issued.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert kind_of(base64.b64encode(key).decode()) == word
    assert kind_of("AAAA") == kind_of("") == ""


class Certbot:
    """Notes what it is started with, and leaves a certificate as certbot does."""

    def __init__(self, tmp_path, authority, monkeypatch, status=0, said=""):
        self.live, self.authority, self.status, self.said = tmp_path / "live", authority, status, said
        self.words: list[list[str]] = []
        monkeypatch.setattr(issuing, "program", lambda name: f"/usr/bin/{name}" if name != "dnf" else "")
        monkeypatch.setattr(due, "program", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(due, "has_dns_plugin", lambda: True)
        monkeypatch.setattr(issuing, "has_dns_plugin", lambda: True)
        monkeypatch.setattr(issuing.os, "geteuid", lambda: 0)
        self.store = str(tmp_path / "store")

    def __call__(self, words):
        self.words.append(list(words))
        if self.status:
            return self.status, "Saving debug log to /var/log/x\n", self.said
        lineage = words[words.index("--cert-name") + 1]
        names = [words[at + 1] for at, word in enumerate(words) if word == "--domain"]
        kind = {"ecdsa": "ec", "rsa": "rsa"}[words[words.index("--key-type") + 1]]
        made = self.authority.issue(names, key=kind)
        (self.live / lineage).mkdir(parents=True, exist_ok=True)
        (self.live / lineage / "fullchain.pem").write_bytes(made.fullchain_pem)
        (self.live / lineage / "privkey.pem").write_bytes(made.key_pem)
        return 0, "", ""

    def issue(self, issue):
        return issuing.issue(issue, self, False, store=self.store, live=str(self.live))


@pytest.mark.parametrize(("challenge", "words"), [
    ({"challenge": "standalone"}, ["--standalone"]),
    ({"challenge": "webroot", "webroot": "/"}, ["--webroot", "--webroot-path", "/"]),
    ({"challenge": "rfc2136", "credentials": "/etc/hosts"}, ["--dns-rfc2136", "--dns-rfc2136-credentials", "/etc/hosts"]),
])  # fmt: skip
def test_certbot_is_told_once_for_each_algorithm(tmp_path, authority, monkeypatch, challenge, words):
    certbot = Certbot(tmp_path, authority, monkeypatch)
    issue = wanted(
        str(tmp_path / "starttls.pem"), source="acme", key_types=("ecdsa", "rsa"), ca_file="/etc/hosts", **challenge
    )
    reply = certbot.issue(issue)
    assert reply["changed"] and [bool(one["issued"]) for one in reply["issued"]] == [True, True]
    first, second = certbot.words
    assert first[:4] == ["env", "MAILFLEET_ISSUING=1", "REQUESTS_CA_BUNDLE=/etc/hosts", "certbot"]
    assert [one[one.index("--cert-name") + 1] for one in (first, second)] == [NAME, f"{NAME}-rsa"]
    at = first.index(words[0])
    assert first[at : at + len(words)] == words
    assert "--register-unsafely-without-email" in first and "--keep-until-expiring" in first
    assert reply["issued"][0]["key"] == f"{certbot.live}/{NAME}/privkey.pem"


def test_the_deploy_hook_leaves_a_certificate_to_the_run_that_has_it_issued():
    """The run holds the host's lock while it waits for certbot, and certbot waits for the hook."""
    words = issuing.certbot_words(wanted("/etc/x.pem", source="acme", challenge="standalone"), 0, True)
    hook = renewal_files.HOOK_TEXT.replace(renewal_files.PROGRAM, "echo")

    def said(*before):
        return subprocess.run([*before, "sh", "-c", hook], capture_output=True, text=True, check=True).stdout

    assert (said(), said(*words[: words.index("certbot")])) == ("renew\n", "")


def test_a_certbot_that_fails_says_why(tmp_path, authority, monkeypatch):
    certbot = Certbot(
        tmp_path, authority, monkeypatch, 1, "Detail: no A record for mx.example.com\nAsk for help or search"
    )
    with pytest.raises(EngineError, match=r"certificate mx\.example\.com: Detail: no A record for mx\.example\.com$"):
        certbot.issue(wanted(str(tmp_path / "x.pem"), source="acme", challenge="standalone"))


def test_a_package_is_installed_only_if_the_user_says_so(tmp_path, authority, monkeypatch):
    certbot = Certbot(tmp_path, authority, monkeypatch)
    monkeypatch.setattr(due, "program", lambda _name: "")
    monkeypatch.setattr(issuing, "program", lambda name: "/usr/bin/apt-get" if name == "apt-get" else "")
    issue = wanted(str(tmp_path / "x.pem"), source="acme", challenge="standalone")
    with pytest.raises(EngineError, match="install the package certbot, or set starttls_acme_install: true"):
        certbot.issue(issue)
    assert certbot.words == []
    certbot.status = 100
    with pytest.raises(EngineError, match="certbot cannot be installed"):
        certbot.issue(wanted(str(tmp_path / "x.pem"), source="acme", challenge="standalone", installs=True))
    assert certbot.words == [
        ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "--no-install-recommends", "install", "certbot"]
    ]


def test_dates_and_paths(authority):
    made = now()
    issued = authority.issue([NAME], not_before=made, not_after=made + dt.timedelta(days=6))
    der = issued.certificate.public_bytes(Encoding.DER)
    assert validity_of(der) == (made, made + dt.timedelta(days=6))
    assert validity_of(b"x") is None
    assert [numbered("/etc/mailfleet/starttls.pem", one) for one in range(3)] == [
        "/etc/mailfleet/starttls.pem", "/etc/mailfleet/starttls-2.pem", "/etc/mailfleet/starttls-3.pem",
    ]  # fmt: skip
