"""A new key where TLSA records are published: the record comes first, then the certificate. With a real DNS server."""

from __future__ import annotations

import hashlib
import re

import dns.rcode as dns_rcode
import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import Certificate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import check_install
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.dane import Tlsa, TlsaLookup
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.published_keys import (
    compared,
    tlsa_refusal,
    with_tlsa,
)
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.dns_server import serve

NAME = "mx.example.com"
TLSA = re.compile(r"(\d) (\d) (\d) ([0-9a-f]+)")
WHERE = f"_25._tcp.{NAME}"
PATH = "/etc/mailfleet/starttls.pem"


def loaded(issued):
    return Certificate.load(issued.certificate.public_bytes(Encoding.DER))


def record(issued, usage=3):
    return f"{usage} 1 1 {hashlib.sha256(loaded(issued).spki).hexdigest()}"


def given(authority, issued, *more):
    pairs = [
        {"private_key_content": one.key_pem.decode(), "certificate_content": one.fullchain_pem.decode()}
        for one in (issued, *more)
    ]
    return {"names": [NAME], "ca_content": authority.root_pem.decode(), **pairs[0], "more": pairs[1:]}


def refused(authority, dns, *certificates, **options):
    install = {**given(authority, *certificates), "check_tlsa": True, "resolver": [dns.address], **options}
    checked = check_install(install, PATH, lambda *_: b"")
    assert checked.findings == []
    return [one.message for one in tlsa_refusal(checked, {"install": install, "port": 25})]


@pytest.fixture(scope="module")
def old(authority):
    return authority.issue([NAME])


@pytest.fixture(scope="module")
def new(authority):
    return authority.issue([NAME])


@pytest.mark.parametrize("secure", [True, False])
def test_a_new_key_is_refused_with_the_record_to_publish_first(authority, old, new, secure):
    """Also where this resolver does not validate: that of a sender may."""
    with serve(secure=secure) as dns:
        dns.add(WHERE, "TLSA", record(old))
        [said] = refused(authority, dns, new)
        assert f"Publish '{WHERE}. IN TLSA {record(new)}' beside what is there ({record(old)})" in said
        assert refused(authority, dns, old) == []
        dns.add(WHERE, "TLSA", record(new))
        assert refused(authority, dns, new) == []


def test_each_algorithm_has_to_fit(authority, old):
    rsa = authority.issue([NAME], key="rsa")
    with serve(secure=True) as dns:
        dns.add(WHERE, "TLSA", record(old))
        [said] = refused(authority, dns, old, rsa)
        assert record(rsa) in said


def test_one_that_other_ports_serve_does_not_have_to_fit(authority, old, new):
    more = [{**one, "ports": [465]} for one in given(authority, old, new)["more"]]
    with serve(secure=True) as dns:
        dns.add(WHERE, "TLSA", record(old))
        assert refused(authority, dns, old, more=more) == []


def test_a_record_for_the_authority_fits_every_key(authority, old, new):
    issuer = Certificate.load(authority.intermediate.certificate.public_bytes(Encoding.DER))
    with serve(secure=True) as dns:
        dns.add(WHERE, "TLSA", f"2 1 1 {hashlib.sha256(issuer.spki).hexdigest()}")
        assert refused(authority, dns, new) == []


def test_without_records_and_without_the_option_nothing_is_refused(authority, new, old):
    with serve(secure=True) as dns:
        assert refused(authority, dns, new) == []
        dns.add(WHERE, "TLSA", record(old))
        dns.questions.clear()
        assert refused(authority, dns, new, check_tlsa=False) == []
        assert dns.questions == []


def read_of(authority, dns, issued, changes):
    install = {**given(authority, issued), "check_tlsa": True, "resolver": [dns.address]}
    checked = check_install(install, PATH, lambda *_: b"")
    result = {"obstacles": [], "notes": [], "changes": changes}
    return with_tlsa(result, {"install": install, "port": 25}, checked)


def test_the_plan_has_it_and_what_could_not_be_looked_up(authority, old, new):
    with serve(secure=True) as dns:
        dns.add(WHERE, "TLSA", record(old))
        changed = [{"path": PATH}]
        assert [one["code"] for one in read_of(authority, dns, new, changed)["obstacles"]] == ["tlsa_not_published"]
        dns.questions.clear()
        assert read_of(authority, dns, new, [{"path": "/etc/postfix/main.cf"}])["obstacles"] == []
        assert dns.questions == [], "a host whose certificate stays is not looked up"
        dns.failing[WHERE.lower()] = dns_rcode.SERVFAIL
        done = read_of(authority, dns, new, changed)
        assert (done["obstacles"], [one["code"] for one in done["notes"]]) == ([], ["tlsa_unknown"])


def read_here(authority, dns, *, on_host=None, checked=None, **options):
    install = {"names": [NAME], "ca_content": authority.root_pem.decode(), "resolver": [dns.address], **options}
    result = {"obstacles": [], "notes": [], "changes": []}
    return with_tlsa(result, {"install": install, "port": 25}, checked, True, on_host)


@pytest.mark.parametrize("check_tlsa", [True, False])
def test_the_renewal_hook_gets_the_records_whatever_this_run_checks(authority, old, check_tlsa):
    """The hook decides by them for weeks: a run of enable_tls must not take them away."""
    with serve(secure=True) as dns:
        assert read_here(authority, dns, check_tlsa=check_tlsa)["published_tlsa"] == []
        dns.add(WHERE, "TLSA", record(old))
        done = read_here(authority, dns, check_tlsa=check_tlsa)
        data = record(old).split()[-1]
        assert done["published_tlsa"] == [{"name": WHERE, "usage": 3, "selector": 1, "matching_type": 1, "data": data}]
        assert (done["notes"], done["obstacles"]) == ([], [])


def test_what_could_not_be_looked_up_is_not_said_to_be_no_records(authority):
    with serve(secure=True) as dns:
        dns.failing[WHERE.lower()] = dns_rcode.SERVFAIL
        done = read_here(authority, dns, check_tlsa=True)
        assert "published_tlsa" not in done and done["obstacles"] == []
        [note] = done["notes"]
        assert note["code"] == "tlsa_unknown" and WHERE in note["message"]
        assert "the renewal hook keeps the records that it has" in note["message"]
        assert "published_tlsa" not in read_here(authority, dns, resolver=["192.0.2.53:0"])


def test_a_certificate_that_the_daemon_reads_from_its_owner_has_to_fit_too(authority, old, new):
    seen = {"pem": new.fullchain_pem.decode()}
    with serve(secure=True) as dns:
        dns.add(WHERE, "TLSA", record(old))
        done = read_here(authority, dns, on_host=seen, check_tlsa=True)
        assert [one["code"] for one in done["obstacles"]] == ["tlsa_not_published"]
        assert f"Publish '{WHERE}. IN TLSA {record(new)}'" in done["obstacles"][0]["message"]
        done = read_here(authority, dns, on_host=seen)
        assert (done["obstacles"], [one["code"] for one in done["notes"]]) == ([], ["tlsa_not_published"])
        dns.add(WHERE, "TLSA", record(new))
        done = read_here(authority, dns, on_host=seen, check_tlsa=True)
        assert (done["obstacles"], done["notes"]) == ([], [])


def test_a_key_that_waits_on_the_host_is_enough(old, new):
    """So the plan knows it, before anything is issued."""
    key = loaded(new).spki

    def said(*records):
        read = [TLSA.fullmatch(one) for one in records]
        found = TlsaLookup(NAME, tuple(Tlsa(int(m[1]), int(m[2]), int(m[3]), bytes.fromhex(m[4])) for m in read))
        return [(one.code, one.message) for one in compared(found, 25, [[]], [key])]

    [(code, message)] = said(record(old))
    assert code == "tlsa_not_published" and f"IN TLSA {record(new)}" in message
    assert said(record(old), record(new)) == []
    assert [one[0] for one in said(record(old, usage=2))] == ["tlsa_unknown"]  # the authority decides
