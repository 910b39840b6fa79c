"""DANE: TLSA records of a real DNS server, compared with real certificates."""

import datetime as dt
import hashlib
import ssl
import subprocess

import dns.rcode
import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import Certificate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import dane
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.dane import (
    Tlsa,
    TlsaLookup,
    base_name,
    compare_records,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import Resolver, run_all
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.support import dns_server
from tests.support.chains import Chains
from tests.support.pki import Authority, key_pem, now, self_signed
from tests.support.smtp_server import Face, serving

NAME = "mx.example.com"
WHERE = f"_25._tcp.{NAME}"


def der(certificate):
    return certificate.public_bytes(Encoding.DER)


def spki(certificate):
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def record(usage, selector, matching_type, certificate):
    data = spki(certificate) if selector else der(certificate)
    hashed = {
        0: lambda raw: raw,
        1: lambda raw: hashlib.sha256(raw).digest(),
        2: lambda raw: hashlib.sha512(raw).digest(),
    }
    return Tlsa(usage, selector, matching_type, hashed[matching_type](data))


def served(*certificates):
    return [Certificate.load(der(one)) for one in certificates]


def verdict(records, chain, secure=True, names=(), at=None):
    return compare_records(TlsaLookup(NAME, tuple(records), secure), 25, chain, names, at or now())


@pytest.fixture(scope="module")
def leaf(authority):
    return authority.issue([NAME])


@pytest.fixture(scope="module")
def chain(leaf):
    return served(leaf.certificate, *leaf.chain)


@pytest.fixture(scope="module")
def other():
    return Authority.create("Other")


class TestEndEntity:
    @pytest.mark.parametrize("selector", [0, 1])
    @pytest.mark.parametrize("matching_type", [0, 1, 2])
    def test_match(self, leaf, chain, selector, matching_type):
        one = record(3, selector, matching_type, leaf.certificate)
        assert verdict([one], chain) == {
            "status": "match", "records": [str(one)],
            "message": f"the TLSA record 3 {selector} {matching_type} {one.data.hex()[:16]}... of {WHERE} matches",
        }  # fmt: skip

    @pytest.mark.parametrize("selector", [0, 1])
    @pytest.mark.parametrize("matching_type", [0, 1, 2])
    def test_mismatch(self, authority, chain, selector, matching_type):
        one = record(3, selector, matching_type, authority.issue([NAME]).certificate)
        result = verdict([one], chain)
        assert result["status"] == "mismatch"
        assert result["message"].startswith(f"no TLSA record of {WHERE} matches (3 {selector} {matching_type} ")
        assert result["message"].endswith("the served certificate is a different one)")

    def test_one_of_several_is_enough(self, authority, leaf, chain):
        records = [record(3, 1, 1, authority.issue([NAME]).certificate), record(3, 1, 1, leaf.certificate)]
        assert verdict(records, chain)["status"] == "match"

    def test_the_intermediate_is_not_the_leaf(self, leaf, chain):
        assert verdict([record(3, 1, 1, leaf.chain[0])], chain)["status"] == "mismatch"

    def test_names_and_dates_do_not_count(self):
        old = self_signed(["other.example.com"])
        assert verdict([record(3, 1, 1, old.certificate)], served(old.certificate),
                       at=now() + dt.timedelta(days=4000))["status"] == "match"  # fmt: skip


class TestTrustAnchor:
    @pytest.mark.parametrize("selector", [0, 1])
    @pytest.mark.parametrize("matching_type", [0, 1, 2])
    def test_the_intermediate(self, leaf, chain, selector, matching_type):
        assert verdict([record(2, selector, matching_type, leaf.chain[0])], chain)["status"] == "match"

    def test_the_root_if_it_is_served(self, authority, leaf):
        root = authority.root.certificate
        whole = served(leaf.certificate, *leaf.chain, root)
        assert verdict([record(2, 0, 1, root)], whole)["status"] == "match"

    def test_a_hash_of_a_root_that_is_not_served_proves_nothing(self, authority, chain):
        result = verdict([record(2, 0, 1, authority.root.certificate)], chain)
        assert result["status"] == "mismatch"
        assert "the served chain does not lead to it" in result["message"]

    def test_a_whole_root_need_not_be_served(self, authority, chain, other):
        assert verdict([record(2, 0, 0, authority.root.certificate)], chain)["status"] == "match"
        assert verdict([record(2, 0, 0, other.root.certificate)], chain)["status"] == "mismatch"

    def test_a_whole_root_that_is_none(self, chain):
        assert verdict([Tlsa(2, 0, 0, b"no certificate")], chain)["status"] == "mismatch"

    def test_the_leaf_is_no_trust_anchor(self, leaf, chain):
        assert verdict([record(2, 1, 1, leaf.certificate)], chain)["status"] == "mismatch"

    def test_a_foreign_anchor_in_the_chain_did_not_sign(self, leaf, other):
        chain = served(leaf.certificate, *leaf.chain, other.root.certificate)
        assert verdict([record(2, 1, 1, other.root.certificate)], chain)["status"] == "mismatch"

    def test_the_name_counts(self, authority):
        issued = authority.issue(["other.example.com"])
        chain, records = served(issued.certificate, *issued.chain), [record(2, 1, 1, issued.chain[0])]
        assert "is not for mx.example.com" in verdict(records, chain)["message"]
        assert verdict(records, chain, names=["", "other.example.com"])["status"] == "match"

    def test_the_dates_count(self, authority):
        issued = authority.expired([NAME])
        result = verdict([record(2, 1, 1, issued.chain[0])], served(issued.certificate, *issued.chain))
        assert "is out of date" in result["message"]

    def test_who_may_not_sign_is_no_anchor(self, authority):
        """A server's certificate that signs another one."""
        middle = authority.issue(["signer.example.com"])
        forged = Authority(authority.root, middle).issue([NAME])
        result = verdict([record(2, 1, 1, middle.certificate)], served(forged.certificate, middle.certificate))
        assert "may not sign others" in result["message"]

    def test_the_purpose_counts(self, authority):
        issued = authority.issue([NAME], purposes=[x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
        result = verdict([record(2, 1, 1, issued.chain[0])], served(issued.certificate, *issued.chain))
        assert "is not for servers" in result["message"]


CHAINS = Chains()
BELOW = {
    name: make
    for name, make in CHAINS.table().items()
    if "intermediate" in name and len(make().served) > 1 and "letters" not in name
}
# OpenSSL does not look at the dates of a trust anchor that is not self-signed. Other clients do, so they count here.
DATES_OF_THE_ANCHOR = {"expired intermediate", "intermediate not yet valid"}


@pytest.mark.parametrize("name", BELOW)
def test_openssl_decides_about_a_trust_anchor(tmp_path, name):
    """The verdict is that of the program openssl, which knows DANE, in a real handshake."""
    made = BELOW[name]()
    anchor = made.served[1]
    (tmp_path / "bundle").write_bytes(
        key_pem(made.key) + "".join(ssl.DER_cert_to_PEM_cert(one) for one in made.served).encode()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(tmp_path / "bundle")
    with serving(Face(context=context)) as server:
        asked = subprocess.run(
            ["openssl", "s_client", "-connect", f"{server.host}:{server.port}", "-starttls", "smtp", "-brief",
             "-verify_return_error", "-no-CApath", "-no-CAfile", "-no-CAstore", "-dane_tlsa_domain", NAME,
             "-dane_tlsa_rrdata", f"2 0 1 {hashlib.sha256(anchor).hexdigest()}"],
            input="QUIT\n", capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
    trusted = "Verification: OK" in asked.stderr
    assert trusted != ("verify error" in asked.stderr), asked.stderr
    if name in DATES_OF_THE_ANCHOR:
        assert trusted
        trusted = False
    loaded = [Certificate.load(one) for one in made.served]
    found = verdict([Tlsa(2, 0, 1, hashlib.sha256(anchor).digest())], loaded)
    assert (found["status"] == "match") == trusted, (found["message"], asked.stderr)


class TestOtherOutcomes:
    @pytest.mark.parametrize(
        "record",
        [
            Tlsa(0, 0, 1, bytes(32)), Tlsa(1, 1, 1, bytes(32)), Tlsa(4, 0, 1, bytes(32)), Tlsa(255, 1, 1, bytes(32)),
            Tlsa(3, 2, 1, bytes(32)), Tlsa(3, 1, 3, bytes(32)), Tlsa(3, 1, 1, bytes(31)), Tlsa(3, 1, 2, bytes(32)),
            Tlsa(3, 1, 0, b""),
        ],
    )  # fmt: skip
    def test_unusable(self, record, chain):
        result = verdict([record], chain)
        assert (result["status"], result["records"]) == ("unusable", [str(record)])
        assert result["message"] == f"SMTP uses none of the TLSA records of {WHERE}"

    def test_an_unusable_one_does_not_count_beside_others(self, leaf, chain):
        assert verdict([Tlsa(0, 0, 1, bytes(32)), record(3, 1, 1, leaf.certificate)], chain)["status"] == "match"

    def test_without_dnssec_they_do_not_count(self, leaf, chain):
        result = verdict([record(3, 1, 1, leaf.certificate)], chain, secure=False)
        assert result["status"] == "insecure"
        assert result["message"].endswith("the resolver does not report that DNSSEC validates them")

    @pytest.mark.parametrize("secure", [True, False])
    def test_none(self, chain, secure):
        assert verdict([], chain, secure=secure) == {
            "status": "none", "records": [], "message": f"{WHERE} has no TLSA records",
        }  # fmt: skip

    def test_failed(self, chain):
        result = compare_records(TlsaLookup(NAME, failure="the resolver answered: SERVFAIL"), 25, chain, [], now())
        assert result["status"] == "failed"
        assert result["message"] == f"the TLSA records of {WHERE} cannot be looked up: the resolver answered: SERVFAIL"

    def test_no_certificate_was_seen(self, leaf):
        assert verdict([record(3, 1, 1, leaf.certificate)], [])["status"] == "failed"

    @pytest.mark.parametrize("base", ["", "mx"])
    def test_a_server_without_a_domain_name_has_none(self, chain, base):
        assert compare_records(TlsaLookup(base), 25, chain, [], now())["status"] == "not_checked"

    def test_what_is_shown_is_bounded(self, chain):
        result = verdict([Tlsa(3, 0, 0, bytes([number]) * 5000) for number in range(100)], chain)
        assert (result["status"], len(result["records"])) == ("mismatch", 20)
        assert len(str(result)) < 6000


class TestLookup:
    @pytest.fixture
    def server(self):
        with dns_server.serve(secure=True) as running:
            running.add(NAME, "A", "192.0.2.1")
            running.add("alias.example.com", "CNAME", NAME)
            running.add(WHERE, "TLSA", f"3 1 1 {'ab' * 32}")
            yield running

    def ask(self, server, base=NAME, port=25):
        resolver = Resolver([server.address], lifetime=2)
        return run_all({1: lambda: dane.look_up(resolver, base, port)}, 1)[1]

    def test_records(self, server):
        assert self.ask(server) == TlsaLookup(NAME, (Tlsa(3, 1, 1, b"\xab" * 32),), True)

    def test_dnssec_does_not_vouch(self, server):
        server.secure = False
        found = self.ask(server)
        assert found == TlsaLookup(NAME, (Tlsa(3, 1, 1, b"\xab" * 32),), False, asked_for=False)
        assert compare_records(found, 25, [], [], now())["status"] == "insecure"

    def test_the_port_counts(self, server):
        assert self.ask(server, port=465) == TlsaLookup(NAME, (), True)
        assert ("udp", f"_465._tcp.{NAME}", "TLSA") in server.questions

    def test_behind_an_alias(self, server):
        assert self.ask(server, "alias.example.com").base == NAME

    def test_an_alias_that_has_records_of_its_own(self, server):
        server.records.pop((WHERE, "TLSA"))
        server.add("_25._tcp.alias.example.com", "TLSA", f"3 1 1 {'cd' * 32}")
        found = self.ask(server, "alias.example.com")
        assert (found.base, found.records) == ("alias.example.com", (Tlsa(3, 1, 1, b"\xcd" * 32),))

    def test_an_alias_that_nobody_vouches_for_is_not_followed(self, server):
        server.insecure_names.add("alias.example.com")
        found = self.ask(server, "alias.example.com")
        assert (found.base, found.records) == ("alias.example.com", ())

    def test_records_behind_an_alias_of_their_own(self, server):
        server.add("mx2.example.com", "A", "192.0.2.2")
        server.add("_25._tcp.mx2.example.com", "CNAME", WHERE)
        assert len(self.ask(server, "mx2.example.com").records) == 1

    def test_a_failure_is_no_absence(self, server):
        server.failing[WHERE] = dns.rcode.SERVFAIL
        assert self.ask(server).failure == "the resolver answered: SERVFAIL"

    def test_a_name_server_that_fails_is_no_fault_where_nobody_would_ask(self, server):
        server.failing[WHERE] = dns.rcode.SERVFAIL
        server.secure = False
        result = compare_records(self.ask(server), 25, [], [], now())
        assert result["status"] == "none"
        assert result["message"].startswith("DNSSEC does not validate the address of mx.example.com, ")

    def test_records_behind_an_alias_that_cannot_be_looked_up(self, server):
        server.failing[WHERE] = dns.rcode.SERVFAIL
        found = self.ask(server, "alias.example.com")
        assert (found.base, found.failure) == (NAME, "the resolver answered: SERVFAIL")

    def test_an_address_is_not_asked_for(self, server):
        assert self.ask(server, "") == TlsaLookup("")
        assert server.questions == []


@pytest.mark.parametrize(
    ("host", "name", "base"),
    [
        ("MX.example.com.", NAME, NAME), ("192.0.2.1", NAME, NAME), ("2001:db8::1", NAME, NAME),
        ("fe80::1%eth0", NAME, NAME), ("192.0.2.1", "192.0.2.1", ""),
    ],
)  # fmt: skip
def test_base_name(host, name, base):
    assert base_name(host, name) == base


@given(
    usage=st.integers(0, 255),
    selector=st.integers(0, 255),
    matching_type=st.integers(0, 255),
    data=st.binary(max_size=200),
)
def test_any_record(chain, usage, selector, matching_type, data):
    result = verdict([Tlsa(usage, selector, matching_type, data)], chain)
    assert result["status"] in ("mismatch", "unusable")
