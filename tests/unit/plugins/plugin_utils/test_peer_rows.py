"""A peer in the verdict and in every format of the report: proved to RCPT, not tested, failed, TLS off. None is taken for another."""

import csv
import io
import json
import re
from pathlib import Path

import jsonschema
import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_rows import peer_entries
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.csv_table import render_csv
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import build
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.html import render_html
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.junit import render_junit
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.prometheus import render_prometheus
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.table import fleet_verdict
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import verdict_rows

from tests.support.plan_states import server
from tests.support.table_rows import PROBE

SCHEMA = json.loads((Path(__file__).resolve().parents[4] / "docs/schema/report.schema.json").read_text())
ADDRESSES = {"proof_sender": "a@example.com", "proof_recipient": "b@example.com"}
EXCHANGE = {"name": "exchange", "kind": "exchange", "hosts": ["exch.test"], "domains": ["example.com"], **ADDRESSES}
HELD = {
    "name": "exchange",
    "hosts": ["exch.test:25"],
    "domains": ["example.com"],
    "level": "required",
    "check": "encryption_only",
}
DONE = {
    "host": "exch.test", "port": 25, "stage": "done", "fault": "", "message": "", "tls_version": "TLSv1.2", "chain_pem": [],
    "resumed": True, "second": {"stage": "done"}, "findings": [],
}  # fmt: skip
NO_TLS = {
    **DONE, "stage": "starttls", "fault": "starttls_not_offered", "tls_version": "", "resumed": None, "second": None,
    "message": "it offers no STARTTLS", "findings": [Finding("peer_starttls_gone", "exch.test:25: STARTTLS is gone").as_dict()],
}  # fmt: skip
NO_ADDRESSES = {**DONE, "stage": "mail", "fault": "not_tested", "resumed": None, "second": None}


def test_of(*proofs, reason="", findings=()):
    """A test of the peer, as a read or peer_tls_info returns it."""
    every = [*findings, *(one for proof in proofs for one in proof["findings"])]
    return {"name": "exchange", "kind": "exchange", "proofs": list(proofs), "reason": reason, "findings": every}


test_of.__test__ = False


def entries(*tests, entry=EXCHANGE, expected="offered", held=(HELD,), **facts):
    wanted = Estate.parse([], {"m1": {"starttls_peers": [entry]}}, ["m1"]).peers["m1"]
    observed = {"peers": None if held is None else list(held), "peer_tests": list(tests)}
    return peer_entries(wanted, facts, observed, expected)


def only(*args, **facts):
    [one] = entries(*args, **facts)
    return one["result"], one["reason"], [finding["code"] for finding in one["findings"]]


def test_what_reached_rcpt_is_proved():
    [one] = entries(test_of(DONE))
    assert (one["result"], one["server"], one["starttls"], one["tls_version"], one["findings"]) == (
        "proved", "exch.test:25", True, "TLSv1.2", [],
    )  # fmt: skip


def test_what_had_no_addresses_is_not_tested():
    note = Finding.advised("peer_not_tested", "the peer exchange is not tested to RCPT").as_dict()
    why = "not tested to RCPT, because proof_sender is not set"
    assert only(test_of(NO_ADDRESSES, reason=why, findings=[note])) == ("not tested", why, ["peer_not_tested"])


@pytest.mark.parametrize("tests", [(), ({"name": "another"},)])
def test_what_nobody_has_tested_is_not_tested(tests):
    assert only(*tests) == ("not tested", "nobody has tested it in this run", [])


def test_a_peer_without_tls_failed():
    assert only(test_of(NO_TLS)) == ("failed", "exch.test:25: STARTTLS is gone", ["peer_starttls_gone"])


def test_an_opportunistic_peer_without_tls_is_a_warning():
    result, _reason, codes = only(test_of(NO_TLS), entry={**EXCHANGE, "level": "opportunistic"}, held=None)
    assert (result, codes) == ("failed", ["peer_in_plaintext"])


def test_a_second_session_that_was_refused_is_no_proof():
    assert only(test_of({**DONE, "second": {"stage": "rcpt"}}))[0] == "failed"
    assert only(test_of({**DONE, "resumed": None, "second": {"stage": "connect"}}))[0] == "proved"
    assert only(test_of({**DONE, "resumed": False, "second": None}))[0] == "proved"  # the peer resumes no session
    presents = {**EXCHANGE, "client_certificate": "/etc/c.pem"}  # its transport resumes no session
    assert only(test_of({**DONE, "second": {"stage": "rcpt"}}), entry=presents, held=None)[0] == "proved"


@pytest.mark.parametrize(
    ("recipient", "proof", "severity"),
    [
        ("you@elsewhere.test", DONE, "warning"),
        ("b@example.com", DONE, "error"),  # Exchange Online takes mail for its own domains from anybody
        ("you@elsewhere.test", {**DONE, "stage": "rcpt"}, "error"),
    ],
)
def test_what_the_peer_answered_counts_more_than_a_rule(recipient, proof, severity):
    peer = {"kind": "exchange_online", "client_certificate": "/etc/c.pem", "proof_recipient": recipient}
    rule = Finding.advised(
        "client_not_public", "the chain of the client certificate: unable to get local issuer"
    ).as_dict()
    [one] = entries(test_of(proof, findings=[rule]), entry={**EXCHANGE, **peer}, held=None)
    assert [(two["code"], two["severity"]) for two in one["findings"]] == [("client_not_public", severity)]


def test_each_hop_has_an_entry_and_what_is_about_the_peer_is_told_once():
    note = Finding.advised("client_purpose_missing", "the client certificate lacks clientAuth").as_dict()
    found = entries(test_of(DONE, {**NO_TLS, "host": "exch2.test"}, findings=[note]))
    assert [(one["server"], one["result"], len(one["findings"])) for one in found] == [
        ("exch.test:25", "proved", 1), ("exch2.test:25", "failed", 1),
    ]  # fmt: skip


class TestAsItIs:
    """The daemon is the truth: what it does is compared with the inventory."""

    def test_a_peer_that_is_not_there(self):
        assert only(test_of(DONE), held=[]) == ("failed", "it lacks the peer exchange of starttls_peers, so that mail takes another way; "
            "run enable_tls, which sets the peers of the inventory", ["peer_differs"])  # fmt: skip

    def test_a_peer_with_another_level(self):
        result, reason, codes = only(test_of(DONE), held=[{**HELD, "level": "opportunistic", "hosts": ["old.test:25"]}])
        assert (result, codes) == (
            "failed",
            ["peer_differs"],
        ) and "differs from starttls_peers in hosts, level" in reason

    def test_what_could_not_be_read_is_not_said_to_differ(self):
        assert only(test_of(DONE), held=None)[0] == "proved"

    def test_after_a_change_what_it_left_counts(self):
        made = {"changed": True, "after": [HELD]}
        proofs = {"peers": [test_of(DONE)]}
        assert only(held=[], mail_server_peers_result=made, verify_peers_result=proofs)[0] == "proved"
        assert (
            only(test_of(DONE), held=[], mail_server_peers_result=made)[0] == "not tested"
        )  # the read is older than the change


def test_a_peer_that_only_sends():
    [one] = entries(test_of(reason="not tested to RCPT, because no mail goes to this peer"), entry={
        "name": "exchange", "kind": "exchange", "direction": "inbound",
    }, held=[])  # fmt: skip
    assert (one["direction"], one["server"], one["level"], one["result"], one["findings"]) == (
        "inbound",
        "",
        "",
        "not tested",
        [],
    )


class TestOff:
    def test_after_disable(self):
        assert only(expected="disabled", held=[{**HELD, "level": "disabled"}])[0] == "TLS off"
        assert only(expected="disabled")[0] == "keeps TLS"
        assert entries(expected="disabled", held=[]) == []
        made = {"changed": True, "after": [{**HELD, "level": "disabled"}]}
        assert only(expected="disabled", mail_server_peers_result=made)[0] == "TLS off"

    def test_where_only_messages_count_nothing_is_said(self):
        assert entries(test_of(NO_TLS), expected="either") == []


def rows(**facts):
    estate = Estate.parse([], {"m1": {"starttls_peers": [EXCHANGE]}}, ["m1"]).to_json()
    read = {
        **server("m1", probe={"results": [{**PROBE, "name": "m1", "host": "m1", "port": 25, "own": True}]}),
        "peers": [HELD],
    }
    return verdict_rows(["m1"], {"m1": {"mail_server_observed": {**read, **facts}}}, {"mail_servers": ["m1"]}, estate)


class TestShown:
    NOTE = (Finding.advised("peer_not_tested", "the peer exchange is not tested to RCPT").as_dict(),)

    def shown(self, *tests):
        made = rows(peer_tests=list(tests))
        result, text = fleet_verdict(made, "TLS is on", "error")
        document = build(made, title="T")
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(document)))
        return result, text, document

    def test_proved(self):
        result, text, document = self.shown(test_of(DONE))
        assert not result["failed"] and re.search(
            r"^m1 to exchange exch\.test:25 +exchange +offered +TLSv1\.2 .*to RCPT$", text, re.M
        )
        assert (
            'mailfleet_starttls_peer_proved{host="m1",peer="exchange",server="exch.test:25",level="required"} 1'
            in render_prometheus(document)
        )
        [row] = [one for one in csv.DictReader(io.StringIO(render_csv(document))) if one["peer"]]
        assert (row["peer_result"], row["server"], row["starttls"], row["direction"]) == (
            "proved",
            "exch.test:25",
            "offered",
            "outbound",
        )
        assert "to exchange exch.test:25: proved to RCPT" in render_html(document)
        assert re.search('name="peer to exchange exch.test:25" time="[0-9.]*" />', render_junit(document))

    def test_not_tested_is_green_nowhere(self):
        result, text, document = self.shown(
            test_of(NO_ADDRESSES, reason="not tested to RCPT, because there are none", findings=self.NOTE)
        )
        assert not result["failed"] and re.search("^m1 to exchange .* not tested to RCPT$", text, re.M)
        assert "m1: warning: the peer exchange is not tested to RCPT" in text
        assert "peer_proved{" not in render_prometheus(document)
        assert "to exchange exch.test:25: not tested to RCPT" in render_html(document)
        assert '<skipped message="not tested to RCPT, because there are none" />' in render_junit(document)

    def test_failed(self):
        result, text, document = self.shown(test_of(NO_TLS))
        assert result["failed"] and re.search("^m1 to exchange .* FAIL$", text, re.M)
        assert "peer_proved{" in render_prometheus(document) and '<failure type="peer_starttls_gone"' in render_junit(
            document
        )

    def test_a_certificate_of_a_peer_does_not_bring_a_column(self):
        assert "FINGERPRINT" not in self.shown(test_of(DONE))[1]


def test_a_host_that_lies_about_its_peers_fails_alone():
    [row] = rows(peers=5)
    assert row["errors"] and row["peers"] == []
