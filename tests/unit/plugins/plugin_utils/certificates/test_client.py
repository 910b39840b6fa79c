"""The certificate that is presented to a peer, and the one that is served to it."""

import base64
import datetime as dt
import shutil

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import seen_on_host
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import Certificate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.client import (
    ClientRoots,
    judge_client_certificate,
    judge_served_to_peer,
    purposes_of,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import Roots
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.pki import Authority, now, pem, self_signed

SERVER, CLIENT = (ExtendedKeyUsageOID.SERVER_AUTH,), (ExtendedKeyUsageOID.CLIENT_AUTH,)
SIGNING = (ExtendedKeyUsageOID.CODE_SIGNING,)
DOMAIN = "example.com"


def seen(issued, *, chain=True, key=None):
    """What the host says of a file with this certificate."""
    public = (key or issued.key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "certificate": "/etc/ssl/relay.pem",
        "private_key": "/etc/ssl/relay.key",
        "pem": (issued.fullchain_pem if chain else issued.certificate_pem).decode(),
        "public_key": base64.b64encode(public).decode(),
        "message": "",
    }


def codes(authority, what, domains=(DOMAIN,), kind="exchange_online", **more):
    ca_pem = more.pop("ca_pem", authority.root_pem if authority else None)
    return [one.code for one in judge_client_certificate(kind, what, domains, ca_pem=ca_pem, **more)]


@pytest.mark.parametrize("names", [[DOMAIN], [f"*.{DOMAIN}"], ["other.test", DOMAIN], ["EXAMPLE.com"]])
def test_a_name_that_is_an_accepted_domain(names, authority):
    assert codes(authority, seen(authority.issue(names))) == []


def test_a_wildcard_covers_an_accepted_domain_below_it(authority):
    assert codes(authority, seen(authority.issue(["*.example.com"])), ["mail.example.com"]) == []


@pytest.mark.parametrize(
    ("names", "domains", "code"),
    [
        (["other.test"], [DOMAIN], "client_name_not_accepted"),
        (["badexample.com"], [DOMAIN], "client_name_not_accepted"),
        (["mail.example.com"], [DOMAIN], "client_name_below_domain"),
        (["*.mail.example.com"], [DOMAIN], "client_name_below_domain"),
        ([DOMAIN], [], "client_names_not_compared"),
    ],
)
def test_names_that_are_no_accepted_domain(names, domains, code, authority):
    assert codes(authority, seen(authority.issue(names)), domains) == [code]
    assert codes(authority, seen(authority.issue(names)), domains, kind="smtp") == []  # others do not go by names


@pytest.mark.parametrize(
    ("purposes", "expected", "words"),
    [
        (SERVER, ["client_purpose_missing"], ("serverAuth",)),
        (CLIENT, [], ("clientAuth",)),
        (SERVER + CLIENT, [], ("clientAuth", "serverAuth")),
        (SIGNING, ["client_not_public", "client_purpose_missing"], ("1.3.6.1.5.5.7.3.3",)),
    ],
)
def test_purposes_are_said(purposes, expected, words, authority):
    issued = authority.issue([DOMAIN], purposes=purposes)
    assert codes(authority, seen(issued)) == expected
    assert purposes_of(Certificate.load(issued.certificate.public_bytes(Encoding.DER))) == words


def test_the_fact_about_the_purpose_is_told_and_nothing_is_guessed(authority):
    (found,) = judge_client_certificate(
        "exchange_online", seen(authority.issue([DOMAIN], purposes=SERVER)), [DOMAIN], ca_pem=authority.root_pem
    )
    assert found.severity == "notice" and "2026" in found.message and "not known" in found.message
    assert "its purposes are: serverAuth" in found.message


def test_the_chain_has_to_be_in_the_file(authority):
    assert codes(authority, seen(authority.issue([DOMAIN]), chain=False)) == ["client_not_public"]
    assert codes(authority, seen(authority.issue([DOMAIN], purposes=CLIENT), chain=False)) == ["client_not_public"]
    assert codes(authority, seen(authority.issue([DOMAIN]), chain=False), kind="smtp") == ["client_root_unknown"]


def test_exchange_online_wants_a_public_root(authority):
    issued = authority.issue([DOMAIN])
    root_too = {**seen(issued), "pem": (issued.fullchain_pem + authority.root_pem).decode()}
    for what in (seen(issued), root_too, seen(self_signed([DOMAIN]))):
        assert codes(None, what) == ["client_not_public"]
        assert codes(None, what, kind="exchange") == ["client_root_unknown"]


def test_the_rest_of_the_policy_counts_too(authority):
    other = authority.issue([DOMAIN])
    assert "expired" in codes(authority, seen(authority.expired([DOMAIN])))
    assert "expiring" in codes(authority, seen(other), now=now() + dt.timedelta(days=360))
    assert "key_mismatch" in codes(authority, seen(other, key=authority.issue([DOMAIN]).key))
    assert "weak_key" in codes(authority, seen(authority.issue([DOMAIN], key="rsa-1024")))
    backwards = {**seen(other), "pem": (other.chain_pem + other.certificate_pem).decode()}
    assert "chain_out_of_order" in codes(authority, backwards)
    assert codes(authority, {**seen(other), "pem": ""})[0] == "not_pem"


def test_a_file_that_could_not_be_looked_at():
    (found,) = judge_client_certificate("smtp", {"certificate": "/x\x1b[1m", "message": "it is \x00 not there"})
    assert found.code == "certificate_not_read" and found.message.isprintable()
    assert "client_certificate" in found.message


@pytest.mark.skipif(not shutil.which("openssl"), reason="the program openssl is not here")
def test_the_file_is_read_on_the_host_and_the_key_stays_there(authority, tmp_path):
    issued = authority.issue([DOMAIN])
    whole, certificate, key = (tmp_path / name for name in ("whole.pem", "certificate.pem", "key.pem"))
    whole.write_bytes(issued.fullchain_pem + issued.key_pem)
    certificate.write_bytes(issued.fullchain_pem)
    key.write_bytes(issued.key_pem)
    for facts in (seen_on_host(str(whole), ""), seen_on_host(str(certificate), str(key))):
        assert facts["message"] == "" and "PRIVATE" not in str(facts)
        assert codes(authority, facts) == []


# OpenSSL's verdict on a client


def test_the_verdict_is_that_of_a_server(authority):
    other = Authority.create("another")
    roots = ClientRoots.of_pem(authority.root_pem)

    def ders(issued, *more):
        return [one.public_bytes(Encoding.DER) for one in (issued.certificate, *issued.chain, *more)]

    for purposes in (SERVER, CLIENT, SERVER + CLIENT):
        assert roots.distrust(ders(authority.issue([DOMAIN], purposes=purposes))) == ""
    assert "purpose" in Roots.of_pem(authority.root_pem).distrust(ders(authority.issue([DOMAIN], purposes=CLIENT)))
    assert "purpose" in roots.distrust(ders(authority.issue([DOMAIN], purposes=SIGNING)))
    assert "issuer" in roots.distrust(ders(other.issue([DOMAIN])))
    assert "issuer" in roots.distrust(ders(authority.issue([DOMAIN]))[:1])
    assert "expired" in roots.distrust(ders(authority.expired([DOMAIN])))
    assert "too weak" in roots.distrust(ders(authority.issue([DOMAIN], key="rsa-1024")))
    assert roots.distrust([b"no certificate"]) and roots.distrust([])
    many = ders(authority.issue([DOMAIN]), *[authority.intermediate.certificate] * 40)
    assert roots.distrust(many) == ""  # more than one record


# What is served to the peer


def served(authority, issued, tls_domain="mail.example.com", chain=True, **more):
    ders = [one.public_bytes(Encoding.DER) for one in (issued.certificate, *(issued.chain if chain else ()))]
    roots = Roots.of_pem(authority.root_pem) if authority else None
    return [one.code for one in judge_served_to_peer(ders, tls_domain, roots=roots, **more)]


def test_what_exchange_online_checks_of_a_served_certificate(authority):
    good = authority.issue(["mail.example.com"])
    assert served(authority, good) == []
    assert served(authority, authority.issue(["*.example.com"])) == []
    assert served(authority, good, "other.example.com") == ["name_mismatch"]
    assert served(authority, good, chain=False) == ["untrusted"]
    assert served(None, good) == ["untrusted"]  # a private authority
    assert "expired" in served(authority, authority.expired(["mail.example.com"]))
    assert [one.code for one in judge_served_to_peer([], "mail.example.com")] == ["bad_certificate"]
    assert [one.code for one in judge_served_to_peer([b"x"], "mail.example.com")] == ["bad_certificate"]


def test_the_advice_for_a_served_certificate_names_the_domain(authority):
    ders = [authority.issue(["mail.example.com"]).certificate.public_bytes(Encoding.DER)]
    (found,) = judge_served_to_peer(ders, "mail.example.com", roots=Roots.of_pem(pem(authority.root.certificate)))
    assert "covers mail.example.com, with its intermediates" in found.message
