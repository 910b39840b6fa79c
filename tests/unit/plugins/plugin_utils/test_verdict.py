"""Judging handshake tests by real certificates, and the table that people read."""

import datetime as dt
import hashlib

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import (
    ADVICE,
    Expectation,
    judge_handshake,
    render_table,
)
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.pki import now, self_signed

NAME = "mx.example.com"


def seen(issued=None, name=NAME, **changes):
    """The result of a test that completed and saw this certificate."""
    facts = {
        "target": Target("192.0.2.1", 25, name), "stage": Stage.EHLO_TLS, "tls_version": "TLSv1.3", "trusted": True,
        "chain": tuple(one.public_bytes(Encoding.DER) for one in [issued.certificate, *issued.chain]) if issued else (),
    }  # fmt: skip
    return Handshake(**{**facts, **changes}).to_dict()


def fingerprint(issued):
    return hashlib.sha256(issued.certificate.public_bytes(Encoding.DER)).hexdigest()


def codes(result):
    return [finding["code"] for finding in result["findings"]]


def message(result, code):
    [text] = [finding["message"] for finding in result["findings"] if finding["code"] == code]
    return text


@pytest.fixture(scope="module")
def good(authority):
    return authority.issue([NAME])


class TestJudgement:
    def test_a_good_one_passes(self, good):
        result = judge_handshake(seen(good), Expectation(fingerprint=fingerprint(good), min_days_left=300))
        assert (result["passed"], result["findings"]) == (True, [])
        assert result["certificate"]["subject"] == f"CN={NAME}"
        assert result["certificate"]["days_left"] == 364
        assert result["host"] == "192.0.2.1"

    @pytest.mark.parametrize("code", sorted(ADVICE))
    def test_a_test_that_did_not_complete_says_what_to_do(self, code):
        result = judge_handshake(
            seen(stage=Stage.CONNECT, code=code, message="it went wrong", trusted=None), Expectation()
        )
        assert result["findings"] == [{"code": code, "message": f"it went wrong; {ADVICE[code]}"}]
        assert (result["passed"], result["certificate"]) == (False, None)

    def test_an_unknown_code_has_advice_too(self):
        result = judge_handshake(
            seen(stage=Stage.TLS, code="new", message="it went wrong", trusted=None), Expectation()
        )
        assert message(result, "new") == "it went wrong; see the server's log"

    def test_a_certificate_seen_before_the_end_is_judged_as_well(self, good):
        broken = seen(good, name="other.example.com", stage=Stage.TLS, code="ehlo_tls_rejected", message="no")
        assert codes(judge_handshake(broken, Expectation())) == ["ehlo_tls_rejected", "name_mismatch"]

    def test_it_is_not_the_one_that_was_installed(self, good, authority):
        other = fingerprint(authority.issue([NAME]))
        result = judge_handshake(seen(good), Expectation(fingerprint=other))
        assert codes(result) == ["wrong_certificate"]
        assert message(result, "wrong_certificate") == (
            f"the certificate served (CN={NAME}, {fingerprint(good)[:16]}...) is not the one that was installed "
            f"({other[:16]}...); see which file the daemon reads, and reload it"
        )

    def test_an_untrusted_chain(self):
        mine = self_signed([NAME])
        facts = seen(mine, trusted=False, verify_error="self-signed certificate")
        result = judge_handshake(facts, Expectation())
        assert codes(result) == ["untrusted"]
        assert message(result, "untrusted") == (
            f"the chain of CN={NAME} is not trusted: self-signed certificate; serve the intermediates with it, or name "
            "its CA if it is a private one"
        )
        assert judge_handshake(facts, Expectation(require_trusted=False))["passed"]

    def test_trust_that_was_not_judged_is_no_finding(self, good):
        assert judge_handshake(seen(good, trusted=None), Expectation())["passed"]

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
            (["192.0.2.1"], "192.0.2.1", True),
            ([NAME], "192.0.2.1", False),
            (["2001:db8::1"], "2001:db8:0::1", True),
            (["other.example.com"], NAME, False),
        ],
    )
    def test_the_name(self, authority, names, host, covered):
        result = judge_handshake(seen(authority.issue(names), name=host), Expectation())
        assert codes(result) == ([] if covered else ["name_mismatch"])

    def test_a_wrong_name_says_which_names_there_are(self, authority):
        result = judge_handshake(seen(authority.issue(["a.example.com", "192.0.2.9"])), Expectation())
        assert message(result, "name_mismatch") == (
            f"the certificate is for DNS:a.example.com, IP:192.0.2.9, not for {NAME}"
        )

    def test_a_common_name_is_named_for_want_of_others(self, authority):
        result = judge_handshake(seen(authority.issue([], common_name="old.example.com")), Expectation())
        assert message(result, "name_mismatch") == f"the certificate is for old.example.com, not for {NAME}"

    def test_an_expired_one(self, authority):
        result = judge_handshake(seen(authority.expired([NAME])), Expectation(min_days_left=7))
        assert codes(result) == ["expired"]
        assert message(result, "expired").startswith(f"the certificate CN={NAME} expired on 20")
        assert message(result, "expired").endswith("; install a new one")

    def test_one_that_expired_a_minute_ago_is_expired(self, authority):
        issued = authority.issue(
            [NAME], not_before=now() - dt.timedelta(days=2), not_after=now() - dt.timedelta(minutes=1)
        )
        assert codes(judge_handshake(seen(issued), Expectation())) == ["expired"]

    def test_one_on_its_last_day_is_not_expired(self, authority):
        issued = authority.issue([NAME], not_after=now() + dt.timedelta(hours=1))
        assert judge_handshake(seen(issued), Expectation())["passed"]
        result = judge_handshake(seen(issued), Expectation(min_days_left=1))
        assert message(result, "expiring") == f"the certificate CN={NAME} has 0 days left, fewer than 1; renew it"

    @pytest.mark.parametrize(("days", "found"), [(364, []), (365, ["expiring"])])
    def test_days_left(self, good, days, found):
        assert codes(judge_handshake(seen(good), Expectation(min_days_left=days))) == found

    def test_the_time_can_be_given(self, good):
        later = now() + dt.timedelta(days=400)
        assert codes(judge_handshake(seen(good), Expectation(), later)) == ["expired"]

    @pytest.mark.parametrize(
        ("version", "minimum", "found"),
        [
            ("TLSv1", "TLSv1.2", ["old_tls"]),
            ("TLSv1.1", "TLSv1.2", ["old_tls"]),
            ("TLSv1.2", "TLSv1.2", []),
            ("TLSv1.3", "TLSv1.2", []),
            ("TLSv1.2", "TLSv1.3", ["old_tls"]),
            ("TLSv1.3", "TLSv1.3", []),
        ],
    )
    def test_the_tls_version(self, good, version, minimum, found):
        result = judge_handshake(seen(good, tls_version=version), Expectation(min_tls_version=minimum))
        assert codes(result) == found
        if found:
            assert message(result, "old_tls") == f"{version} was agreed; the server should offer {minimum}"

    def test_a_certificate_that_cannot_be_read(self):
        result = judge_handshake(seen(chain=(b"no certificate",)), Expectation())
        assert codes(result) == ["bad_certificate"]
        assert message(result, "bad_certificate").startswith("the served certificate cannot be read: ")

    def test_all_findings_are_said_at_once(self, authority):
        facts = seen(
            authority.expired(["a.example.com"]),
            tls_version="TLSv1",
            trusted=False,
            verify_error="certificate has expired",
        )
        result = judge_handshake(facts, Expectation(fingerprint="0" * 64))
        assert codes(result) == ["wrong_certificate", "name_mismatch", "expired", "old_tls"]

    def test_one_that_is_not_yet_valid(self, authority):
        facts = seen(authority.not_yet_valid([NAME]), trusted=False, verify_error="certificate is not yet valid")
        for expected in (Expectation(), Expectation(require_trusted=False)):
            result = judge_handshake(facts, expected)
            assert codes(result) == ["not_yet_valid"]
            assert message(result, "not_yet_valid").startswith(f"the certificate CN={NAME} is valid from 20")

    def test_the_time_that_is_given_counts_for_that_too(self, good):
        earlier = now() - dt.timedelta(days=4000)
        assert codes(judge_handshake(seen(good, trusted=False), Expectation(), earlier)) == ["not_yet_valid"]

    def test_a_chain_is_untrusted_whatever_the_days_left(self, authority):
        issued = authority.issue([NAME], not_after=now() + dt.timedelta(hours=1))
        facts = seen(issued, trusted=False, verify_error="unable to get local issuer certificate")
        assert codes(judge_handshake(facts, Expectation(min_days_left=7))) == ["untrusted", "expiring"]

    def test_the_advice_for_an_expired_one_does_not_lead_astray(self, authority):
        facts = seen(authority.expired([NAME]), trusted=False, verify_error="certificate has expired")
        result = judge_handshake(facts, Expectation())
        assert codes(result) == ["expired"]
        assert "intermediates" not in str(result["findings"])


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
