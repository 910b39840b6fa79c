"""Several algorithms side by side, and renewals that change nothing else: a real TLS server that follows the files."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import numbered
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.pem import leaf_fingerprint
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import algorithm
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


def test_to_relax_only_needs_no_word_on_certificates(mail, ecdsa, rsa):
    """The client gets the second one, which the call does not name."""
    mail.start("disabled")
    mail.set("required", **both(mail, rsa, ecdsa))
    served = {kind: seen(mail, kind).fingerprint for kind in ALGORITHMS}
    outcome = mail.set("offered", only_relax=True)
    assert outcome.changed and outcome.handshake.requires_tls is False
    assert outcome.handshake.fingerprint == served["ecdsa"] != mail.fingerprint
    assert {kind: seen(mail, kind).fingerprint for kind in ALGORITHMS} == served
    assert not mail.set("offered", only_relax=True).changed


def test_a_daemon_that_serves_one_of_them_only_gets_its_files_back(mail, ecdsa, rsa):
    mail.start("offered")
    former = mail.fingerprint
    mail.serves_second = False
    with pytest.raises(TransactionError, match="does not serve each certificate that is installed"):
        mail.set("offered", settings=BRIEF, **both(mail, ecdsa, rsa))
    assert mail.fingerprint == former
    assert not Path(numbered(str(mail.certificate), 1)).exists()


def test_in_tls_13_alone_each_algorithm_is_proved_by_its_signature(mail, authority, ecdsa, rsa):
    mail.oldest = ssl.TLSVersion.TLSv1_3
    mail.start("disabled")
    outcome = mail.set("offered", **both(mail, ecdsa, rsa))
    assert outcome.changed and outcome.warnings == ()
    mail.serves_second = False
    with pytest.raises(TransactionError, match="does not serve each certificate that is installed"):
        mail.set("offered", settings=BRIEF, **both(mail, authority.issue([NAME]), rsa))


def test_where_no_such_client_is_served_it_is_said(mail, ecdsa, rsa, monkeypatch):
    """GnuTLS that speaks TLS 1.3 alone answers with another alert than OpenSSL."""
    monkeypatch.setattr(algorithm, "_ONLY_NEWER", "words of no alert")
    monkeypatch.setattr(algorithm.shutil, "which", lambda *_args, **_named: None)
    mail.oldest = ssl.TLSVersion.TLSv1_3
    mail.start("disabled")
    [warning] = mail.set("offered", **both(mail, ecdsa, rsa)).warnings
    assert "it is not proved" in warning and "no handshake of such a client succeeds" in warning


def test_without_openssl_tls_13_alone_is_not_tested_and_said(mail, ecdsa, rsa, monkeypatch):
    monkeypatch.setattr(algorithm.shutil, "which", lambda *_args, **_named: None)
    mail.oldest = ssl.TLSVersion.TLSv1_3
    mail.start("disabled")
    [warning] = mail.set("offered", **both(mail, ecdsa, rsa)).warnings
    assert (
        "it is not proved that each of its 2 certificates is served" in warning
        and "not tested: it speaks TLS 1.3 alone" in warning
    )


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


def on_host(mail, ecdsa, rsa):
    """Files of somebody else: each key in a file of its own for one of them, in the same file for the other."""
    second, key = (mail.directory / name for name in ("starttls-2.pem", "rsa.key"))
    mail.install(ecdsa)
    second.write_bytes(rsa.key_pem + rsa.fullchain_pem)
    key.write_bytes(rsa.key_pem)
    return {"on_host": True, "more": (str(second),), "more_keys": (str(key),)}


def test_files_that_are_on_the_host_are_served_side_by_side_and_renewed_one_by_one(mail, authority, ecdsa, rsa):
    wanted = on_host(mail, ecdsa, rsa)
    mail.start("disabled")
    assert mail.set("offered", **wanted).changed
    assert mail.set("offered", **wanted).changed is False
    new = authority.issue([NAME], key="rsa")
    on_host(mail, ecdsa, new)
    assert mail.read("offered", **wanted)["reload"] is True
    assert mail.set("offered", **wanted).changed
    assert seen(mail, "rsa").fingerprint == leaf_fingerprint(new.fullchain_pem)
    assert mail.read("offered", **wanted)["reload"] is False


def test_a_read_tells_the_controller_all_of_them(mail, ecdsa, rsa):
    found = mail.start("offered").read("offered", **on_host(mail, ecdsa, rsa))["on_host"]
    assert [one["message"] for one in (found, *found["more"])] == ["", ""]
    assert [leaf_fingerprint(one["pem"].encode()) for one in (found, *found["more"])] == [
        leaf_fingerprint(ecdsa.fullchain_pem),
        leaf_fingerprint(rsa.fullchain_pem),
    ]


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
