"""When a certificate is to be issued anew: by a share of its life, by fixed days, or because there is none. With real openssl."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import due, issuing
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import Issue, look
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.openssl import validity_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import numbered
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import renewal_files
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from cryptography.hazmat.primitives.serialization import Encoding

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
