"""Several algorithms side by side, and renewals that change nothing else: a real TLS server that follows the files."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import numbered
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import prove_algorithms
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import ALGORITHMS, handshake_one
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import TransactionError

from tests.support.fake_mail import BRIEF, NAME, PATIENT, FakeMail
from tests.support.smtp_server import PLAIN, REQUIRES_TLS, Face


class Both(FakeMail):
    """A mail server that serves the certificates of both files, those that are there."""

    serves_second = True
    newest = ssl.TLSVersion.TLSv1_3
    oldest = ssl.TLSVersion.TLSv1_2

    def follow(self):
        inbound = self.settings["inbound"]
        if inbound == "disabled":
            self.port.face = PLAIN
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = self.oldest, self.newest
        for place in range(2 if self.serves_second else 1):
            path = Path(numbered(str(self.certificate), place))
            if path.exists():
                context.load_cert_chain(path)
        self.port.face = Face(context=context, mail=REQUIRES_TLS if inbound == "required" else b"250 ok\r\n")


@pytest.fixture
def mail(tmp_path, authority):
    server = Both(tmp_path, authority)
    yield server
    server.port.close()


@pytest.fixture(scope="module")
def rsa(authority):
    return authority.issue([NAME], key="rsa")


@pytest.fixture(scope="module")
def ecdsa(authority):
    return authority.issue([NAME])


def both(mail, ecdsa, rsa):
    second = replace(mail.renewal(rsa), path=numbered(str(mail.certificate), 1))
    return {"bundle": mail.renewal(ecdsa), "others": (second,), "more": (second.path,)}


def seen(mail, kind):
    target = mail.desired().own_port
    return handshake_one(target, replace(PATIENT, algorithm=kind, verify_trust=False))


@pytest.mark.parametrize("inbound", ["offered", "required"])
def test_each_algorithm_is_installed_served_and_proved(mail, ecdsa, rsa, inbound):
    mail.start("disabled")
    wanted = both(mail, ecdsa, rsa)
    outcome = mail.set(inbound, **wanted)
    prints = {"ecdsa": wanted["bundle"].fingerprints[0], "rsa": wanted["others"][0].fingerprints[0]}
    assert outcome.changed and outcome.warnings == ()
    assert {kind: seen(mail, kind).fingerprint for kind in ALGORITHMS} == prints
    assert outcome.handshake.fingerprint in prints.values()
    again = mail.set(inbound, **wanted)
    assert (again.changed, again.diff) == (False, [])


def test_both_are_renewed_side_by_side(mail, authority, ecdsa, rsa):
    mail.start("disabled")
    mail.set("offered", **both(mail, ecdsa, rsa))
    new = both(mail, authority.issue([NAME]), authority.issue([NAME], key="rsa"))
    assert mail.set("offered", **new).changed
    assert seen(mail, "rsa").fingerprint == new["others"][0].fingerprints[0]
    assert seen(mail, "ecdsa").fingerprint == new["bundle"].fingerprints[0]


def test_a_daemon_that_serves_one_of_them_only_gets_its_files_back(mail, ecdsa, rsa):
    mail.start("offered")
    former = mail.fingerprint
    mail.serves_second = False
    with pytest.raises(TransactionError, match="does not serve each certificate that is installed"):
        mail.set("offered", settings=BRIEF, **both(mail, ecdsa, rsa))
    assert mail.fingerprint == former
    assert not Path(numbered(str(mail.certificate), 1)).exists()


def test_tls_13_alone_is_said_not_to_be_proved(mail, ecdsa, rsa):
    mail.oldest = ssl.TLSVersion.TLSv1_3
    mail.start("disabled")
    outcome = mail.set("offered", **both(mail, ecdsa, rsa))
    assert outcome.changed
    assert any("speaks no TLS 1.2" in one for one in outcome.warnings)


def test_one_certificate_needs_no_further_handshake(mail):
    mail.start("offered")
    assert prove_algorithms(mail.desired("offered"), mail.desired().own_port, BRIEF) == []


@pytest.mark.parametrize(("inbound", "changes"), [("disabled", False), ("offered", True), ("required", True)])
def test_a_renewal_keeps_the_state_and_leaves_a_host_without_tls_alone(mail, ecdsa, inbound, changes):
    mail.start(inbound)
    outcome = mail.set("offered", bundle=mail.renewal(ecdsa), relax=False, only_renew=True)
    assert (outcome.changed, outcome.after["inbound"]) == (changes, inbound)
    assert mail.settings["inbound"] == inbound
    assert (mail.fingerprint == mail.renewal(ecdsa).fingerprints[0]) is changes


def test_a_plan_says_what_will_be_issued(mail, ecdsa):
    mail.start("offered")
    announced = replace(mail.renewal(ecdsa), content=None, sha256="", fingerprints=(), issued_by="certbot")
    seen_ = mail.read("offered", bundle=announced)
    [change] = seen_["changes"]
    assert seen_["offer"] and "certificate: issued by certbot" in change["after"]
    assert not seen_["obstacles"]


def test_a_key_of_the_host_is_put_before_its_certificates(mail, ecdsa, tmp_path):
    key = tmp_path / "waiting.key"
    key.write_bytes(ecdsa.key_pem)
    key.chmod(0o600)
    mail.start("offered")
    whole = mail.renewal(ecdsa)
    wanted = replace(whole, content=ecdsa.fullchain_pem.decode(), sha256="", private_key=str(key))
    assert mail.set("offered", bundle=wanted).changed
    assert mail.certificate.read_text() == whole.content
    assert not mail.set("offered", bundle=wanted).changed
