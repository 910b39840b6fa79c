"""The verdict on handshake tests with real certificates, and the table that people read."""

import dataclasses
import datetime as dt
import hashlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import Roots
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import dane, mta_sts
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import (
    CATALOGUE,
    SEVERITIES,
    UnknownFindingError,
    of_group,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import (
    Certificates,
    Evidence,
    Expectation,
    assess_handshake,
    render_table,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.pki import Authority, now, pem, self_signed

NAME = "mx.example.com"
NO_ISSUER = "unable to get local issuer certificate"


def fingerprint(issued):
    return hashlib.sha256(issued.certificate.public_bytes(Encoding.DER)).hexdigest()


class Seen(dict):
    """A result of the module, with the certificates that go with it."""

    certificates: dict


def seen(*certificates, **changes):
    """A result of a test that completed and saw these certificates, leaf first."""
    if len(certificates) == 1 and hasattr(certificates[0], "chain"):
        certificates = [certificates[0].certificate, *certificates[0].chain]
    pem_of = {one.fingerprint(hashes.SHA256()).hex(): pem(one).decode() for one in certificates}
    result = Seen({
        "host": "192.0.2.1", "port": 25, "protocol": "smtp", "mode": "full", "name": NAME, "stage": "ehlo_tls",
        "completed": True, "code": "", "message": "", "greeting": "220 mx", "capabilities": ["PIPELINING", "STARTTLS"],
        "capabilities_tls": ["PIPELINING", "AUTH PLAIN LOGIN"], "starttls_advertised": True, "starttls_reply": "220 go",
        "tls_version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "group": "x25519", "client_certificate": None,
        "fingerprint_sha256": next(iter(pem_of), ""), "chain_sha256": list(pem_of), "trusted": True if pem_of else None,
        "verify_error": "", "requires_tls": None, "seconds": 0.1, "timings": {}, "versions": {}, "injection": None,
        "resumption": None, **changes,
    })  # fmt: skip
    result.certificates = pem_of
    return result


def survey(*certificates, **changes):
    return seen(*certificates, **{
        "mode": "survey", "stage": "starttls_answered", "completed": False, "capabilities_tls": [], "trusted": None,
        "tls_version": "TLSv1.2", **changes,
    })  # fmt: skip


def incomplete(code, message="it went wrong", **changes):
    return seen(**{"stage": "connect", "completed": False, "code": code, "message": message, "tls_version": "",
                   "capabilities_tls": [], **changes})  # fmt: skip


def assess(facts, at=None, evidence=None, **expected):
    return assess_handshake(
        facts, Expectation(**expected), Certificates(facts.certificates, at), evidence or Evidence()
    )


def codes(result):
    return [finding["code"] for finding in result["findings"]]


def message(result, code):
    [text] = [finding["message"] for finding in result["findings"] if finding["code"] == code]
    return text


def roots(*certificates):
    return Roots.of_pem(pem(*certificates))


@pytest.fixture(scope="module")
def good(authority):
    return authority.issue([NAME])


@pytest.fixture(scope="module")
def rsa_authority(authority):
    return authority.with_intermediate(key="rsa")


class TestResult:
    def test_a_good_one_passes(self, good):
        result = assess(seen(good), fingerprint=fingerprint(good), min_days_left=300)
        assert (result["passed"], result["findings"]) == (True, [])
        assert result["certificate"]["subject"] == f"CN={NAME}"
        assert result["certificate"]["days_left"] == result["days_left"] == 364
        assert [one["common_name"] for one in result["chain"]] == [NAME, "Example intermediate CA"]
        assert (result["name_matches"], result["dane"], result["mta_sts"]) == (True, None, None)
        assert (result["host"], result["trusted"], result["verify_error"]) == ("192.0.2.1", True, "")

    def test_without_a_certificate(self):
        result = assess(incomplete("timeout"))
        assert (result["certificate"], result["chain"], result["name_matches"], result["days_left"]) == (
            None,
            [],
            None,
            None,
        )

    def test_the_worst_comes_first(self, authority):
        facts = seen(
            authority.issue(["a.example.com"]), versions={"TLSv1": True, "TLSv1.3": False}, resumption=False,
            capabilities=["AUTH PLAIN"], tls_version="TLSv1.2",
        )  # fmt: skip
        found = assess(facts)["findings"]
        assert [(one["code"], one["severity"]) for one in found] == [
            ("name_mismatch", "error"), ("auth_in_plaintext", "warning"), ("old_tls_offered", "warning"),
            ("no_tls13", "notice"), ("no_resumption", "notice"),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("changes", "least"),
        [({}, None), ({"resumption": False}, "notice"), ({"capabilities": ["AUTH PLAIN"]}, "warning"),
         ({"injection": True, "resumption": False}, "error")],
    )  # fmt: skip
    @pytest.mark.parametrize("fail_on", SEVERITIES)
    def test_fail_on(self, good, changes, least, fail_on):
        result = assess(seen(good, **changes), fail_on=fail_on)
        assert result["passed"] is (least is None or SEVERITIES.index(least) > SEVERITIES.index(fail_on))

    def test_every_message_says_what_to_do(self, authority):
        """All that can be found is found somewhere in this file; each says what is wrong; and what to do."""
        facts = seen(
            authority.expired(["a.example.com"]), injection=True, resumption=False, client_certificate="requested",
            versions={"TLSv1.1": True, "TLSv1.3": False}, capabilities=["AUTH LOGIN"], capabilities_tls=["STARTTLS"],
            tls_version="TLSv1.2",
        )  # fmt: skip
        found = assess(facts, fingerprint="0" * 64)["findings"]
        assert len(found) == 10 and all("; " in one["message"] for one in found)
        assert all(one["code"] in CATALOGUE and one["message"].isprintable() for one in found)


class TestDialogue:
    @pytest.mark.parametrize("code", ["bad_name", *(one.code for one in of_group("handshake"))])
    def test_a_test_that_did_not_complete_says_what_to_do(self, code):
        result = assess(incomplete(code))
        assert result["findings"] == [
            {"code": code, "severity": "error", "message": f"it went wrong; {CATALOGUE[code].advice}"}
        ]
        assert not result["passed"]

    def test_an_unknown_code_is_refused(self):
        with pytest.raises(UnknownFindingError, match="'new' is not in the catalogue"):
            assess(incomplete("new"))

    @pytest.mark.parametrize("make", [seen, survey])
    def test_one_that_stopped_without_a_reason_does_not_pass(self, make):
        result = assess(make(stage="starttls_answered", completed=False))
        assert codes(result) == ["connection_closed"]
        assert message(result, "connection_closed").startswith("the test ended after starttls_answered; ")

    def test_a_certificate_seen_before_the_end_is_judged_as_well(self, good):
        facts = seen(
            good, name="other.example.com", stage="tls", completed=False, code="ehlo_tls_rejected", message="no"
        )
        assert codes(assess(facts)) == ["ehlo_tls_rejected", "name_mismatch"]

    @pytest.mark.parametrize("code", ["tls_failed", "connection_closed", "", "client_certificate_required"])
    def test_a_client_certificate_is_required(self, good, code):
        facts = seen(good, client_certificate="required", completed=False, stage="tls", code=code, message="alert")
        assert codes(assess(facts)) == ["client_certificate_required"]

    def test_a_client_certificate_is_not_what_made_it_fail(self, good):
        facts = seen(good, client_certificate="required", completed=False, stage="tls", code="timeout", message="late")
        assert codes(assess(facts)) == ["timeout"]

    @pytest.mark.parametrize(
        ("state", "found"), [(None, []), ("not_requested", []), ("requested", ["client_certificate_requested"])]
    )
    def test_a_client_certificate_is_asked_for(self, good, state, found):
        result = assess(seen(good, client_certificate=state))
        assert (codes(result), result["passed"]) == (found, True)

    @pytest.mark.parametrize(
        ("capabilities", "offered"),
        [
            ([], ""), (["AUTH"], ""), (["AUTH PLAIN LOGIN"], "LOGIN and PLAIN"), (["auth plain"], "PLAIN"),
            (["AUTH=LOGIN"], "LOGIN"), (["AUTH=LOGIN PLAIN"], "LOGIN and PLAIN"), (["AUTH XOAUTH2"], "XOAUTH2"),
            (["AUTH GSSAPI NTLM SCRAM-SHA-256 CRAM-MD5 EXTERNAL"], ""), (["X-AUTH PLAIN", "AUTHOR LOGIN"], ""),
        ],
    )  # fmt: skip
    def test_passwords_in_plaintext(self, good, capabilities, offered):
        result = assess(seen(good, capabilities=capabilities))
        assert codes(result) == (["auth_in_plaintext"] if offered else [])
        if offered:
            assert message(result, "auth_in_plaintext").startswith(f"the server offers {offered} before TLS, ")

    @pytest.mark.parametrize(("listed", "again"), [("STARTTLS", True), ("starttls", True), ("XSTARTTLS", False)])
    def test_starttls_inside_tls(self, good, listed, again):
        result = assess(seen(good, capabilities_tls=["SIZE 1", listed]))
        assert (codes(result), result["passed"]) == (["starttls_offered_in_tls"] if again else [], True)


class TestIdentity:
    def test_it_is_not_the_one_that_was_installed(self, good, authority):
        other = fingerprint(authority.issue([NAME]))
        result = assess(seen(good), fingerprint=other)
        assert codes(result) == ["wrong_certificate"]
        assert message(result, "wrong_certificate") == (
            f"the certificate served (CN={NAME}, {fingerprint(good)[:16]}...) is not the one that was installed "
            f"({other[:16]}...); check which file the daemon reads, and reload the daemon"
        )

    @pytest.mark.parametrize(
        ("names", "host", "covered"),
        [
            ([NAME], NAME, True),
            ([NAME], "MX.example.COM", True),
            ([NAME], "mx.example.com.", True),
            (["a.example.com", NAME], NAME, True),
            (["*.example.com"], NAME, True),
            (["*.example.com"], "a.b.example.com", False),
            (["*.example.com"], "example.com", False),
            (["*.com"], "example.com", False),
            (["192.0.2.1"], "192.0.2.1", True),
            ([NAME], "192.0.2.1", False),
            (["2001:db8::1"], "2001:db8:0::1", True),
            (["other.example.com"], NAME, False),
            (["xn--mller-kva.example.com"], "m\u00fcller.example.com", True),
            (["xn--mller-kva.example.com"], "xn--mller-kva.example.com", True),
            (["muller.example.com"], "m\u00fcller.example.com", False),
        ],
    )
    def test_the_name(self, authority, names, host, covered):
        result = assess(seen(authority.issue(names), name=host))
        assert codes(result) == ([] if covered else ["name_mismatch"])
        assert result["name_matches"] is covered

    def test_a_wrong_name_says_which_names_there_are(self, authority):
        result = assess(seen(authority.issue(["a.example.com", "192.0.2.9"])))
        assert message(result, "name_mismatch") == (
            f"the certificate is for DNS:a.example.com, IP:192.0.2.9, not for {NAME}; get one with that name, or correct "
            "the name if the server is called differently"
        )

    def test_a_wrong_name_may_come_from_a_name_service_that_has_an_address_for_every_name(self, authority):
        other = authority.issue(["parked.example.net"])
        said = message(assess(seen(other, host="mistyped.example.com", name="mistyped.example.com")), "name_mismatch")
        assert said.startswith("the certificate is for DNS:parked.example.net, not for mistyped.example.com; ")
        assert (
            "look up the name on the host that made the test: a name service that has an address for every name" in said
        )

    def test_a_server_with_the_installed_certificate_is_the_right_one(self, authority):
        facts = seen(authority.issue(["a.example.com"]), host=NAME)
        said = message(assess(facts, fingerprint=facts["fingerprint_sha256"]), "name_mismatch")
        assert "name service" not in said
        assert "name service" in message(assess(facts), "name_mismatch")

    def test_a_long_list_of_names_is_cut(self, authority):
        result = assess(seen(authority.issue([f"mx{number}.example.net" for number in range(100)])))
        assert "DNS:mx9.example.net, 90 more, not for" in message(result, "name_mismatch")

    def test_a_common_name_is_named_for_want_of_others(self, authority):
        result = assess(seen(authority.issue([], common_name="old.example.com")))
        assert message(result, "name_mismatch").startswith(f"the certificate is for old.example.com, not for {NAME}; ")

    def test_a_name_in_the_common_name_only(self, authority):
        result = assess(seen(authority.issue([], common_name=NAME)))
        assert (codes(result), result["passed"], result["name_matches"]) == (["name_in_common_name_only"], True, True)

    def test_an_address_in_the_common_name_does_not_count(self, authority):
        assert codes(assess(seen(authority.issue([], common_name="192.0.2.1"), name="192.0.2.1"))) == ["name_mismatch"]

    def test_a_certificate_that_cannot_be_read(self):
        facts = seen(chain_sha256=["ab" * 32], fingerprint_sha256="ab" * 32)
        facts.certificates = {"ab" * 32: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}
        result = assess(facts)
        assert (codes(result), result["certificate"], result["passed"]) == (["bad_certificate"], None, False)
        assert message(result, "bad_certificate").startswith(
            "the certificate served cannot be read: it is not a readable X.509"
        )

    @pytest.mark.parametrize("handed_over", [{}, {"ab" * 32: "no PEM"}, {"ab" * 32: ""}])
    def test_a_certificate_that_was_lost_on_the_way(self, handed_over):
        facts = seen(chain_sha256=["ab" * 32])
        facts.certificates = handed_over
        assert codes(assess(facts)) == ["bad_certificate"]

    def test_tls_without_a_certificate_does_not_pass(self):
        result = assess(seen())
        assert (codes(result), result["passed"]) == (["bad_certificate"], False)

    def test_a_broken_one_behind_the_leaf(self, good):
        facts = seen(good.certificate)
        facts["chain_sha256"].append("ab" * 32)
        result = assess(facts)
        assert (codes(result), result["certificate"]["common_name"]) == (["bad_certificate"], NAME)
        assert "certificate number 2 that was served" in message(result, "bad_certificate")


class TestTrust:
    def test_signed_by_itself(self):
        facts = seen(self_signed([NAME]), trusted=False, verify_error="self-signed certificate")
        result = assess(facts)
        assert codes(result) == ["untrusted"]
        assert message(result, "untrusted") == (
            f"the chain of CN={NAME} is not trusted: self-signed certificate; the certificate is self-signed; get one from a "
            "certification authority, or set it as ca_file if partners trust it"
        )
        assert assess(facts, require_trusted=False)["passed"]

    def test_the_intermediate_is_missing(self, good):
        result = assess(seen(good.certificate, trusted=False, verify_error=NO_ISSUER))
        assert message(result, "untrusted") == (
            f"the chain of CN={NAME} is not trusted: {NO_ISSUER}; the intermediate is missing: CN=Example intermediate CA, "
            f"which signed CN={NAME}, is not served; append its certificate to the file with the server's, or set it as "
            "ca_file if it is a private root"
        )

    def test_the_root_is_unknown(self, good, authority):
        result = assess(seen(good, trusted=False, verify_error=NO_ISSUER))
        assert "CN=Example root CA, which signed CN=Example intermediate CA, is not served" in message(
            result, "untrusted"
        )
        facts = seen(
            good.certificate, *good.chain, authority.root.certificate,
            trusted=False, verify_error="self-signed certificate in certificate chain",
        )  # fmt: skip
        assert "its root CN=Example root CA is not in the trust store; " in message(assess(facts), "untrusted")

    def test_an_expired_intermediate(self, authority):
        old = authority.with_intermediate(
            not_before=now() - dt.timedelta(days=9), not_after=now() - dt.timedelta(days=1)
        )
        result = assess(seen(old.issue([NAME]), trusted=False, verify_error="certificate has expired"))
        assert codes(result) == ["untrusted"]
        assert "in the served chain is out of date; serve its successor" in message(result, "untrusted")

    def test_clocks_that_differ(self, good):
        result = assess(seen(good, trusted=False, verify_error="certificate has expired"))
        assert "check that the clocks are right" in message(result, "untrusted")

    def test_the_purpose(self, authority):
        issued = authority.issue([NAME], purposes=[x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
        result = assess(seen(issued, trusted=False, verify_error="unsuitable certificate purpose"))
        assert message(result, "untrusted").endswith("; have it issued again for a TLS server (serverAuth)")

    @pytest.mark.parametrize(
        ("reason", "said"),
        [("something new", "something new; have it issued again"), ("", "the reason is unknown; serve the")],
    )
    def test_any_other_reason(self, good, reason, said):
        result = assess(seen(good, trusted=False, verify_error=reason))
        assert f"is not trusted: {said}" in message(result, "untrusted")

    def test_trust_that_was_not_judged_is_no_finding(self, good):
        assert assess(seen(good, trusted=None))["passed"]

    def test_an_intermediate_that_only_the_own_store_has(self, good, authority):
        store = roots(authority.root.certificate, authority.intermediate.certificate)
        result = assess(seen(good.certificate), evidence=Evidence(roots=store))
        assert (codes(result), result["passed"]) == (["incomplete_chain"], True)
        assert message(result, "incomplete_chain").startswith(
            "the intermediate CN=Example intermediate CA is not served"
        )

    def test_a_chain_that_is_whole(self, good, authority):
        store = roots(authority.root.certificate, authority.intermediate.certificate)
        assert codes(assess(seen(good), evidence=Evidence(roots=store))) == []
        assert (
            codes(
                assess(seen(good.certificate, *good.chain, authority.root.certificate), evidence=Evidence(roots=store))
            )
            == []
        )

    def test_a_leaf_that_a_root_signed_needs_no_intermediate(self, authority):
        direct = Authority(authority.root, authority.root).issue([NAME]).certificate
        assert codes(assess(seen(direct), evidence=Evidence(roots=roots(authority.root.certificate)))) == []

    def test_where_the_store_is_not_known_nothing_is_guessed(self, good):
        assert codes(assess(seen(good.certificate))) == []


class TestStrength:
    @pytest.mark.parametrize(
        ("key", "weak"),
        [("rsa-1024", "RSA, 1024 bits"), ("rsa", ""), ("rsa-3072", ""), ("ec", ""), ("ec-384", "")],
    )
    def test_keys(self, authority, key, weak):
        result = assess(seen(authority.issue([NAME], key=key)))
        assert codes(result) == (["weak_key"] if weak else [])
        if weak:
            assert f"has a weak key ({weak})" in message(result, "weak_key")

    def test_a_key_that_schannel_lacks(self, authority):
        result = assess(seen(authority.issue([NAME], key="ed25519")))
        assert (codes(result), result["passed"]) == (["not_everywhere"], True)
        assert "Schannel" in message(result, "not_everywhere")

    def test_a_small_curve(self, authority):
        assert codes(assess(seen(authority.issue([NAME], key=ec.generate_private_key(ec.SECP224R1()))))) == ["weak_key"]

    def test_dsa(self, authority):
        issued = authority.issue([NAME])
        certificate = (
            x509.CertificateBuilder(issued.certificate.issuer, issued.certificate.subject, None, 7, now(),
                                    now() + dt.timedelta(days=90))
            .public_key(dsa.generate_private_key(2048).public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
            .sign(authority.intermediate.key, hashes.SHA256())
        )  # fmt: skip
        assert codes(assess(seen(certificate, *issued.chain))) == ["weak_key"]

    def test_a_weak_key_explains_why_it_is_not_trusted(self, authority):
        facts = seen(authority.issue([NAME], key="rsa-1024"), trusted=False, verify_error="EE certificate key too weak")
        assert codes(assess(facts)) == ["weak_key"]

    def test_but_not_that_the_root_is_unknown(self, authority):
        facts = seen(authority.issue([NAME], key="rsa-1024"), trusted=False, verify_error=NO_ISSUER)
        assert codes(assess(facts)) == ["untrusted", "weak_key"]

    def test_a_weak_intermediate(self, authority):
        result = assess(seen(authority.with_intermediate(key="rsa-1024").issue([NAME])))
        assert codes(result) == ["weak_key"]
        assert "intermediate CA (rsa-1024) has a weak key" in message(result, "weak_key")

    @pytest.mark.parametrize("weak", [hashes.SHA1(), hashes.MD5()])
    def test_signatures(self, rsa_authority, weak):
        result = assess(seen(rsa_authority.issue([NAME], signature_hash=weak)))
        assert codes(result) == ["weak_signature"]
        assert f"is signed with {weak.name.upper()}, which partners refuse" in message(result, "weak_signature")

    def test_a_good_signature(self, rsa_authority):
        assert codes(assess(seen(rsa_authority.issue([NAME], signature_hash=hashes.SHA384())))) == []

    def test_the_root_is_trusted_for_itself(self, good):
        """A root that is served with the chain, with a key that no partner would take from a server."""
        old = Authority.create("Old")
        weak_root = self_signed(["Old root"], key="rsa-1024")
        assert codes(assess(seen(good.certificate, *good.chain, weak_root.certificate, old.root.certificate))) == []


class TestDates:
    def test_an_expired_one(self, authority):
        result = assess(seen(authority.expired([NAME])), min_days_left=7)
        assert codes(result) == ["expired"]
        assert message(result, "expired").startswith(f"the certificate CN={NAME} expired on 20")
        assert message(result, "expired").endswith("; install a new one")

    def test_one_that_expired_a_minute_ago_is_expired(self, authority):
        issued = authority.issue(
            [NAME], not_before=now() - dt.timedelta(days=2), not_after=now() - dt.timedelta(minutes=1)
        )
        assert codes(assess(seen(issued))) == ["expired"]

    def test_one_on_its_last_day_is_not_expired(self, authority):
        issued = authority.issue([NAME], not_after=now() + dt.timedelta(hours=1))
        assert assess(seen(issued), warn_days_left=0)["findings"] == []  # it lives for two hours
        result = assess(seen(issued), min_days_left=1)
        assert message(result, "expiring").startswith(f"the certificate CN={NAME} has 0 days left (until 20")
        assert message(result, "expiring").endswith("), fewer than 1; renew it, or lower min_days_left")

    @pytest.mark.parametrize(("days", "found"), [(364, []), (365, ["expiring"])])
    def test_days_left(self, good, days, found):
        assert codes(assess(seen(good), min_days_left=days)) == found

    @pytest.mark.parametrize(
        ("days", "limits", "found"),
        [
            (31, {}, []), (29, {}, ["expires_soon"]), (10, {}, ["expires_soon"]), (8, {}, ["expiring"]),
            (29, {"warn_days_left": 0}, []), (29, {"warn_days_left": 29}, []), (28, {"warn_days_left": 29}, ["expires_soon"]),
            (8, {"min_days_left": 8}, ["expires_soon"]), (40, {"min_days_left": 41}, ["expiring"]),
            (40, {"warn_days_left": 60}, ["expires_soon"]),
        ],
    )  # fmt: skip
    def test_soon(self, authority, days, limits, found):
        end = now() + dt.timedelta(days=days, hours=1)
        issued = authority.issue([NAME], not_before=end - dt.timedelta(days=90), not_after=end)
        result = assess(seen(issued), **limits)
        assert (codes(result), result["passed"]) == (found, found != ["expiring"])

    def test_the_time_can_be_given(self, good):
        assert codes(assess(seen(good), at=now() + dt.timedelta(days=400))) == ["expired"]
        assert codes(assess(seen(good, trusted=False), at=now() - dt.timedelta(days=4000))) == ["not_yet_valid"]

    def test_one_that_is_not_yet_valid(self, authority):
        facts = seen(authority.not_yet_valid([NAME]), trusted=False, verify_error="certificate is not yet valid")
        for require_trusted in (True, False):
            result = assess(facts, require_trusted=require_trusted)
            assert codes(result) == ["not_yet_valid"]
            assert message(result, "not_yet_valid").startswith(f"the certificate CN={NAME} is not valid before 20")

    def test_the_advice_for_an_expired_one_does_not_lead_astray(self, authority):
        result = assess(seen(authority.expired([NAME]), trusted=False, verify_error="certificate has expired"))
        assert codes(result) == ["expired"]

    def test_that_it_expired_does_not_hide_another_reason(self, authority):
        result = assess(seen(authority.expired([NAME]), trusted=False, verify_error=NO_ISSUER))
        assert codes(result) == ["untrusted", "expired"]

    def test_a_chain_is_untrusted_whatever_the_days_left(self, authority):
        issued = authority.issue([NAME], not_after=now() + dt.timedelta(hours=1))
        result = assess(seen(issued, trusted=False, verify_error=NO_ISSUER), min_days_left=7)
        assert codes(result) == ["untrusted", "expiring"]


class TestVersions:
    @pytest.mark.parametrize(
        ("version", "minimum", "found"),
        [
            ("SSLv3", "TLSv1.2", ["old_tls"]),
            ("TLSv1", "TLSv1.2", ["old_tls"]),
            ("TLSv1.1", "TLSv1.2", ["old_tls"]),
            ("TLSv1.2", "TLSv1.2", []),
            ("TLSv1.3", "TLSv1.2", []),
            ("TLSv1.2", "TLSv1.3", ["old_tls"]),
            ("TLSv1.3", "TLSv1.3", []),
            ("0x7f1c", "TLSv1.3", []),
            ("", "TLSv1.3", []),
        ],
    )
    def test_the_one_that_was_agreed(self, good, version, minimum, found):
        result = assess(seen(good, tls_version=version), min_tls_version=minimum)
        assert codes(result) == found
        if found:
            assert message(result, "old_tls") == (
                f"{version} was agreed; the server should offer {minimum}: switch it on, or update it"
            )

    @pytest.mark.parametrize(
        ("offered", "found"),
        [
            ({}, []),
            ({"TLSv1": None, "TLSv1.1": None, "TLSv1.2": None, "TLSv1.3": None}, []),
            ({"TLSv1": False, "TLSv1.1": False, "TLSv1.2": True, "TLSv1.3": True}, []),
            ({"TLSv1": False, "TLSv1.1": True, "TLSv1.2": True, "TLSv1.3": True}, ["old_tls_offered"]),
            ({"TLSv1": True, "TLSv1.1": True, "TLSv1.3": None}, ["old_tls_offered"]),
            ({"TLSv1": False, "TLSv1.3": False}, ["no_tls13"]),
        ],
    )
    def test_those_that_are_offered(self, good, offered, found):
        result = assess(seen(good, tls_version="TLSv1.2", versions=offered))
        assert (codes(result), result["passed"]) == (found, True)

    def test_both_old_ones_are_named(self, good):
        result = assess(seen(good, versions={"TLSv1": True, "TLSv1.1": True}))
        assert message(result, "old_tls_offered").startswith("the server accepts TLSv1 and TLSv1.1 as well; ")

    def test_a_server_that_has_nothing_newer_is_not_told_to_switch_it_off(self, good):
        offered = {"TLSv1": True, "TLSv1.1": False, "TLSv1.2": False, "TLSv1.3": False}
        assert codes(assess(seen(good, tls_version="TLSv1", versions=offered))) == ["old_tls"]

    def test_old_versions_are_found_also_where_none_was_agreed(self):
        offered = {"TLSv1": True, "TLSv1.1": False, "TLSv1.2": False, "TLSv1.3": False}
        result = assess(incomplete("tls_failed", versions=offered))
        assert codes(result) == ["tls_failed", "old_tls_offered"]
        assert message(result, "old_tls_offered") == (
            "the server accepts TLSv1, and nothing newer; update it, or let it offer TLSv1.2"
        )


class TestChecks:
    @pytest.mark.parametrize(("injection", "found"), [(None, []), (False, []), (True, ["command_injection"])])
    def test_injection(self, good, injection, found):
        result = assess(seen(good, injection=injection))
        assert (codes(result), result["passed"]) == (found, not found)

    @pytest.mark.parametrize(("large", "found"), [(None, []), (True, []), (False, ["large_hello_lost"])])
    def test_a_large_hello(self, good, large, found):
        result = assess(seen(good, large_hello=large))
        assert (codes(result), result["passed"]) == (found, not found)

    @pytest.mark.parametrize(("resumption", "found"), [(None, []), (True, []), (False, ["no_resumption"])])
    def test_resumption(self, good, resumption, found):
        assert codes(assess(seen(good, resumption=resumption))) == found


def _whole(issued):
    return [issued.certificate, *issued.chain]


def _signed_by_a_leaf(authority):
    signer = authority.issue(["signer.example.com"])
    return [Authority(authority.root, signer).issue([NAME]).certificate, signer.certificate, *signer.chain]


class TestSurvey:
    def evidence(self, authority, has_key=True):
        return Evidence(roots=roots(authority.root.certificate), has_key=has_key)

    def test_a_good_one(self, good, authority):
        result = assess(survey(good), evidence=self.evidence(authority))
        assert (codes(result), result["passed"]) == ([], True)
        assert (result["trusted"], result["verify_error"], result["completed"]) == (True, "", False)

    def test_the_key_was_not_shown(self, good, authority):
        result = assess(survey(good), evidence=self.evidence(authority, None))
        assert (codes(result), result["passed"]) == (["not_proved"], True)

    def test_the_key_is_another_one(self, good, authority):
        result = assess(survey(good), evidence=self.evidence(authority, False))
        assert (codes(result), result["passed"]) == (["tls_failed"], False)
        assert "not signed with the key of the certificate" in message(result, "tls_failed")

    def test_a_full_test_proves_the_key_by_itself(self, good):
        assert codes(assess(seen(good), evidence=Evidence(has_key=None))) == []

    def test_the_minimum_cannot_be_judged_by_what_a_survey_agrees_on(self, good, authority):
        evidence = self.evidence(authority)
        assert codes(assess(survey(good), evidence=evidence, min_tls_version="TLSv1.3")) == []
        facts = survey(good, versions={"TLSv1.3": False})
        assert codes(assess(facts, evidence=evidence, min_tls_version="TLSv1.3")) == ["old_tls"]
        assert codes(assess(survey(good, tls_version="TLSv1"), evidence=evidence)) == ["old_tls"]

    def test_without_a_trust_store_trust_stays_open(self, good):
        result = assess(survey(good), evidence=Evidence(has_key=True))
        assert (result["trusted"], codes(result)) == (None, [])

    @pytest.mark.parametrize(
        ("make", "reason", "found"),
        [
            (lambda ca: [self_signed([NAME]).certificate], "self-signed certificate", ["untrusted"]),
            (lambda ca: [ca.issue([NAME]).certificate], NO_ISSUER, ["untrusted"]),
            (lambda ca: _whole(Authority.create("Other").issue([NAME])), NO_ISSUER, ["untrusted"]),
            (lambda ca: _whole(Authority.create("Example").issue([NAME])), NO_ISSUER, ["untrusted"]),
            (lambda ca: _whole(ca.expired([NAME])), "certificate has expired", ["expired"]),
            (lambda ca: _whole(ca.not_yet_valid([NAME])), "certificate is not yet valid", ["not_yet_valid"]),
            (lambda ca: _whole(ca.issue([NAME], key="rsa-1024")), "EE certificate key too weak", ["weak_key"]),
            (lambda ca: _whole(ca.with_intermediate(key="rsa-1024").issue([NAME])), "CA certificate key too weak", ["weak_key"]),
            (lambda ca: _whole(ca.with_intermediate(key="rsa").issue([NAME], signature_hash=hashes.SHA1())),
             "CA signature digest algorithm too weak", ["weak_signature"]),
            (lambda ca: _whole(ca.issue([NAME], purposes=[x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])),
             "unsuitable certificate purpose", ["untrusted"]),
            (lambda ca: _whole(ca.with_intermediate(not_before=now() - dt.timedelta(days=9), not_after=now() -
                                                    dt.timedelta(days=1)).issue([NAME])),
             "certificate has expired", ["untrusted"]),
            (_signed_by_a_leaf, "invalid CA certificate", ["untrusted"]),
        ],
    )  # fmt: skip
    def test_the_chain_is_judged_here(self, authority, make, reason, found):
        result = assess(survey(*make(authority)), evidence=self.evidence(authority))
        assert (result["trusted"], result["verify_error"], codes(result)) == (False, reason, found)

    def test_a_self_signed_one_that_was_named_is_trusted(self):
        mine = self_signed([NAME])
        evidence = Evidence(roots=roots(mine.certificate), has_key=True)
        assert assess(survey(mine), evidence=evidence)["trusted"]

    def test_a_chain_in_any_order_and_with_others_in_it(self, good, authority):
        other = Authority.create("Other")
        facts = survey(good.certificate, other.intermediate.certificate, authority.root.certificate, *good.chain)
        result = assess(facts, evidence=self.evidence(authority))
        assert (result["trusted"], codes(result)) == (True, [])


class TestDane:
    def tlsa(self, good, right=True, **changes):
        data = hashlib.sha256(good.certificate.public_bytes(Encoding.DER)).digest() if right else bytes(32)
        found = dane.TlsaLookup(NAME, (dane.Tlsa(3, 0, 1, data),), True)
        return Evidence(tlsa=dataclasses.replace(found, **changes))

    @pytest.mark.parametrize(
        ("right", "changes", "status", "found"),
        [
            (True, {}, "match", []),
            (False, {}, "mismatch", ["dane_mismatch"]),
            (True, {"secure": False}, "insecure", ["dane_insecure"]),
            (True, {"records": (dane.Tlsa(1, 0, 1, bytes(32)),)}, "unusable", ["dane_unusable"]),
            (True, {"records": (), "failure": "SERVFAIL"}, "failed", ["dane_failed"]),
            (True, {"records": ()}, "none", []),
            (True, {"records": (), "secure": False}, "none", []),
        ],
    )
    def test_findings(self, good, right, changes, status, found):
        result = assess(seen(good), evidence=self.tlsa(good, right, **changes))
        assert (result["dane"]["status"], codes(result)) == (status, found)
        assert result["passed"] is (status != "mismatch")
        assert all("; " in one["message"] for one in result["findings"])

    def test_without_a_certificate_the_test_itself_says_why(self, good):
        result = assess(incomplete("timeout"), evidence=self.tlsa(good))
        assert (result["dane"]["status"], codes(result)) == ("failed", ["timeout"])

    def test_the_recipient_domain_may_be_the_name_of_the_certificate(self, authority):
        issued = authority.issue(["example.com"])
        anchor = hashlib.sha256(issued.chain[0].public_bytes(Encoding.DER)).digest()
        tlsa = dane.TlsaLookup(NAME, (dane.Tlsa(2, 0, 1, anchor),), True)
        result = assess(seen(issued), evidence=Evidence(tlsa=tlsa, domain="example.com"))
        assert result["dane"]["status"] == "match"


class TestMtaSts:
    def policy(self, mode="enforce", mx=(NAME,), status="found", message=""):
        found = mta_sts.StsPolicy(mode, 86400, mx) if status == "found" else None
        return Evidence(policy=mta_sts.PolicyLookup(status, message, "1", found))

    @pytest.mark.parametrize(
        ("changes", "status", "found"),
        [
            ({}, "match", []),
            ({"mode": "testing"}, "match", []),
            ({"mode": "none", "mx": ()}, "none", []),
            ({"mx": ("mx.example.net",)}, "mismatch", ["mta_sts_mismatch"]),
            ({"mx": ("mx.example.net",), "mode": "testing"}, "testing_mismatch", ["mta_sts_testing"]),
            ({"status": "none"}, "none", []),
            ({"status": "invalid", "message": "the policy is junk"}, "invalid", ["mta_sts_invalid"]),
            ({"status": "failed", "message": "no answer"}, "failed", ["mta_sts_failed"]),
        ],
    )
    def test_findings(self, good, changes, status, found):
        result = assess(seen(good), evidence=self.policy(**changes))
        assert (result["mta_sts"]["status"], codes(result)) == (status, found)
        assert result["passed"] is (status != "mismatch")
        assert all("; " in one["message"] for one in result["findings"])

    def test_the_name_connected_to_counts_unless_the_policy_has_the_other(self, good):
        result = assess(seen(good, host="mx.internal.example"), evidence=self.policy())
        assert result["mta_sts"]["status"] == "match"
        result = assess(seen(good, host="mx1.example.net"), evidence=self.policy(mx=("mx1.example.net",)))
        assert result["mta_sts"]["message"].endswith("but its certificate is not for mx1.example.net")

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"trusted": False, "verify_error": NO_ISSUER}, "its certificate is not trusted"),
            ({"tls_version": "TLSv1.1"}, "it agrees on TLSv1.1 only"),
        ],
    )
    def test_faults_of_the_server(self, good, changes, fault):
        result = assess(seen(good, **changes), evidence=self.policy(), require_trusted=False)
        assert result["mta_sts"]["message"] == f"{NAME} is among the mx of the policy, but {fault}"

    def test_the_certificate_is_for_another_name(self, authority):
        result = assess(seen(authority.issue(["a.example.com"])), evidence=self.policy())
        assert codes(result) == ["name_mismatch", "mta_sts_mismatch"]

    def test_a_server_without_tls_under_a_policy_gets_no_mail(self):
        result = assess(incomplete("starttls_not_offered"), evidence=self.policy())
        assert codes(result) == ["starttls_not_offered", "mta_sts_mismatch"]

    def test_a_server_that_was_not_reached_cannot_be_compared(self):
        result = assess(incomplete("connect_failed"), evidence=self.policy())
        assert (codes(result), result["mta_sts"]["status"]) == (["connect_failed"], "failed")


def test_certificates_are_read_once(good):
    facts = seen(good)
    certificates = Certificates(facts.certificates)
    first, second = (assess_handshake(facts, Expectation(), certificates) for _ in range(2))
    assert first["certificate"] is second["certificate"]


class TestTable:
    def test_it_is_aligned(self):
        rows = [{"a": "x", "b": "long text"}, {"a": "longer", "b": ""}]
        assert render_table({"a": "HOST", "b": "VERDICT"}, rows) == (
            "HOST    VERDICT\n------  ---------\nx       long text\nlonger  -"
        )

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (True, "yes"), (False, "no"), (None, "-"), ("", "-"), (5, "5"), (-3, "-3"), (["a", "b"], "a, b"),
            (("a", 1), "a, 1"), ("a\nb", "a?b"), ("\x1b[31mred", "?[31mred"), ("a\u202eb", "a?b"), ("a\tb\x00", "a?b?"),
            (["a\nb"], "a?b"), ("ümlaut", "ümlaut"), ("x" * 10, "x" * 10), ("x" * 11, "x" * 7 + "..."),
            (["x" * 6, "y" * 6], "xxxxxx,..."),
        ],
    )  # fmt: skip
    def test_a_cell(self, value, shown):
        assert render_table({"a": "A"}, [{"a": value}], width=10).splitlines()[2] == shown

    def test_a_missing_cell(self):
        assert render_table({"a": "A"}, [{}]).splitlines()[2] == "-"

    def test_no_rows(self):
        assert render_table({"a": "HOST", "b": "X"}, []) == "HOST  X\n----  -"

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_number_is_no_boolean(self, number):
        assert render_table({"days_left": "DAYS LEFT"}, [{"days_left": number}]).splitlines()[2] == str(number)

    def test_an_empty_list_is_a_dash(self):
        assert render_table({"a": "A"}, [{"a": []}]).splitlines()[2] == "-"

    def test_a_mapping_is_shown_somehow(self):
        assert "x" in render_table({"a": "A"}, [{"a": {"x": 1}}])
