"""What a row of the table says of a host, and what is shown below the table."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.table import fleet_verdict, summarize

from tests.support.table_rows import NOTICE, PLAIN, PROBE, TRACE, WARNING

NOT_TESTED = [Finding.advised("not_tested_from_gateway", "it was not tested from the gateway gw1").as_dict()]
DOWN = {"code": "connect_failed", "message": "it is down"}
DEAD = {**PLAIN, "stage": "connect", "message": "cannot connect", "findings": [DOWN]}


def messages(summary):
    return [one["message"] for one in summary["findings"]]


def row(**changes):
    return {"host": "mx", "daemon": "Postfix", "probes": [PROBE], "traces": [], "delivery_modes": [], **changes}


class TestRow:
    def test_a_host_that_passes(self):
        assert summarize(row(traces=[TRACE], delivery_modes=["required"])) == {
            "host": "mx", "daemon": "Postfix", "starttls": "offered", "tls_version": "TLSv1.3",
            "certificate": "CN=mx.example.com", "days_left": 90, "trusted": True, "delivery_mode": ["required"],
            "messages": "in 1/2 TLS", "tested_from": "host", "verdict": "pass", "findings": [], "fingerprint_sha256": None, "others": [],
            "peers": [],
        }  # fmt: skip

    def test_a_hop_that_is_unproven_is_neither_tls_nor_plaintext_and_a_warning(self):
        hops = [
            {"network": True, "tls": True},
            {"network": True, "tls": None, "by": "notes.example", "protocol": "ESMTP"},
        ]
        summary = summarize(row(traces=[{"arrived": True, "direction": "out", "findings": [], "hops": hops}]))
        assert (summary["messages"], summary["verdict"]) == ("out 1/2 TLS, 1 unproven", "pass, 1 warning")
        assert [(one["code"], one["severity"]) for one in summary["findings"]] == [("hop_unproven", "warning")]
        assert messages(summary)[0].startswith(
            "the Received header of notes.example for the message to the outside does not tell whether TLS was used (ESMTP); "
        )

    def test_a_header_that_can_be_read_in_two_ways_is_unproven_and_named_once(self):
        said = "the Received header of mx.example for the message from outside can be read in more than one way, so it proves nothing"
        unclear = {"network": True, "tls": False, "clear": False, "by": "mx.example", "protocol": "ESMTP"}
        trace = {"arrived": True, "direction": "in", "findings": [], "hops": [unclear]}
        assert summarize(row(traces=[trace]))["messages"] == "in 0/1 TLS, 1 unproven"
        assert [one["code"] for one in summarize(row(traces=[trace]))["findings"]] == ["hop_unproven"]
        assert messages(summarize(row(traces=[{**trace, "findings": [said]}]))) == [said]

    def test_a_message_without_a_hop_over_a_network_proves_nothing(self):
        trace = {"arrived": True, "direction": "in", "findings": [], "hops": [{"network": False, "tls": None}]}
        assert [one["code"] for one in summarize(row(traces=[trace]))["findings"]] == ["hop_unproven"]

    def test_the_least_that_can_be_given(self):
        summary = summarize({"host": "mx"})
        assert (summary["verdict"], messages(summary)) == ("FAIL", ["the handshake test was not made"])
        assert (summary["starttls"], summary["daemon"], summary["messages"]) == ("", "", "")

    @pytest.mark.parametrize("nothing", [None, []])
    def test_nothing_was_gathered(self, nothing):
        summary = summarize(row(probes=nothing, traces=nothing, delivery_modes=nothing))
        assert messages(summary) == ["the handshake test was not made"]
        assert summary["delivery_mode"] == []

    def test_what_several_places_saw_is_said_once(self):
        probes = [PLAIN, {**PLAIN, "seen_from": "gw1"}, {**PLAIN, "seen_from": "mx"}, {**DEAD, "seen_from": "gw2"}]
        assert messages(summarize(row(probes=probes))) == [
            "the server does not offer STARTTLS; switch it on (seen from gw1)",
            "it is down (seen from gw2)",
        ]

    def test_a_host_is_not_told_that_it_saw_itself(self):
        assert messages(summarize(row(probes=[{**PLAIN, "seen_from": "mx"}]))) == [
            "the server does not offer STARTTLS; switch it on"
        ]

    @pytest.mark.parametrize(
        ("fail_on", "verdict"), [("error", "pass, 1 warning"), ("warning", "FAIL"), ("notice", "FAIL")]
    )
    def test_a_warning(self, fail_on, verdict):
        summary = summarize(row(probes=[{**PROBE, "findings": [WARNING, NOTICE]}]), fail_on)
        assert summary["verdict"] == verdict
        assert [one["severity"] for one in summary["findings"]] == ["warning", "notice"]

    def test_warnings_are_counted(self):
        findings = [WARNING, {**WARNING, "code": "expires_soon", "message": "renew it"}]
        assert summarize(row(probes=[{**PROBE, "findings": findings}]))["verdict"] == "pass, 2 warnings"

    @pytest.mark.parametrize(("fail_on", "verdict"), [("warning", "pass"), ("notice", "FAIL")])
    def test_a_notice(self, fail_on, verdict):
        assert summarize(row(probes=[{**PROBE, "findings": [NOTICE]}]), fail_on)["verdict"] == verdict

    def test_a_finding_from_one_gateway_is_enough_to_fail(self):
        assert summarize(row(probes=[PROBE, {**DEAD, "seen_from": "gw1"}]))["verdict"] == "FAIL"

    def test_tls_off_passes_when_off_is_expected(self):
        assert summarize(row(expected="disabled", probes=[PLAIN]))["verdict"] == "pass"

    def test_tls_on_fails_when_off_is_expected(self):
        summary = summarize(row(expected="disabled", probes=[PROBE, {**PROBE, "seen_from": "gw1"}]))
        assert messages(summary) == ["STARTTLS is still offered (seen from gw1)"]

    def test_a_server_that_is_down_fails_in_any_case(self):
        assert messages(summarize(row(expected="disabled", probes=[DEAD]))) == ["cannot connect"]
        assert messages(summarize(row(probes=[DEAD]))) == ["it is down"]
        assert summarize(row(probes=[DEAD]))["starttls"] == "", "it did not say"

    def test_what_could_not_be_gathered_fails(self):
        summary = summarize(row(errors=["the handshake test could not be made on gw1: it is down"]))
        assert (summary["verdict"], messages(summary)) == (
            "FAIL",
            ["the handshake test could not be made on gw1: it is down"],
        )
        assert len(messages(summarize({"host": "mx", "errors": ["it is down"]}))) == 1

    def test_messages(self):
        lost = {"arrived": False, "direction": "out", "hops": [], "findings": ["lost, look there"]}
        summary = summarize(row(traces=[TRACE, lost]))
        assert summary["messages"] == "in 1/2 TLS, out lost"
        assert summary["findings"] == [{"code": "message", "severity": "error", "message": "lost, look there"}]


class TestFleet:
    def test_hosts_that_pass(self):
        result, text = fleet_verdict([row()], "TLS is on", "error")
        assert (result["failed"], result["changed"], result["msg"]) == (False, False, "1 of 1 hosts pass")
        assert text == f"TLS is on\n\n{result['table']}"

    def test_one_that_does_not(self):
        result, text = fleet_verdict([row(), row(host="ex\n13", probes=[PLAIN])], "x", "error")
        assert (result["failed"], result["stops"]) == (True, True)
        assert result["msg"] == "1 of 2 hosts pass; ex?13: the server does not offer STARTTLS"
        assert text.endswith("\n\nex?13: error: the server does not offer STARTTLS; switch it on")

    def test_a_listener_that_differs_has_a_row(self):
        other = {
            "address": ":587",
            "tls": "required",
            "certificate": "CN=mx.example.com",
            "fingerprint_sha256": "cd" * 32,
            "days_left": 3,
        }
        seen = {**row()["probes"][0], "fingerprint_sha256": "ab" * 32}
        result, _text = fleet_verdict([row(host="mx", probes=[seen], listeners=[other])], "x", "error")
        _heading, _line, main, second = result["table"].splitlines()
        assert main.startswith("mx ") and f"  {'cd' * 8}  " in second
        assert second.startswith("mx :587  -") and "  required  " in second and second.endswith("not tested")
        assert result["msg"] == "1 of 1 hosts pass"

    def test_fingerprints_are_shown_if_two_certificates_could_be_meant(self):
        def served(host, fingerprint, subject="CN=mx.example.com", **changes):
            certificate = {"subject": subject, "fingerprint_sha256": fingerprint, "days_left": 60}
            probe = {
                **row()["probes"][0],
                "certificate": certificate,
                "fingerprint_sha256": fingerprint,
                "seen_from": host,
                **changes,
            }
            return row(host=host, probes=[probe])

        def table(*rows):
            return fleet_verdict(rows, "x", "error")[0]["table"]

        one, two = "12" * 32, "34" * 32
        assert "FINGERPRINT" not in table(served("a", one), served("b", one))
        assert "FINGERPRINT" not in table(served("a", one), served("b", two, "CN=other"))
        shown = table(served("a", one), served("b", two))
        assert "FINGERPRINT" in shown and one[:16] in shown and two[:16] in shown and one not in shown
        wrong = [{"code": "wrong_certificate", "severity": "error", "message": "x"}]
        assert one[:16] in table(served("a", one, findings=wrong))
        seen = served("a", one)
        seen["probes"] += served("gw", two)["probes"]
        assert [line.split()[:3] for line in table(seen).splitlines()[3:]] == [["a", "from", "gw"]]

    def test_nothing_is_green_over_a_warning(self):
        warned = row(
            host="mx",
            errors=[],
            findings=NOT_TESTED,
        )
        result, text = fleet_verdict([row(), warned], "TLS is on", "error")
        assert (result["failed"], result["msg"]) == (False, "2 of 2 hosts pass, with 1 warning")
        assert text.startswith("TLS is on, with warnings\n")
        result, text = fleet_verdict([warned, row(host="ex", probes=[PLAIN])], "TLS is on", "error")
        assert text.startswith("NOT PROVED: TLS is on\n") and result["msg"].startswith(
            "1 of 2 hosts pass, with 1 warning; ex: "
        )

    def test_a_task_that_only_shows_says_that_the_run_stops(self):
        result, _text = fleet_verdict([row(host="mx", probes=[PLAIN])], "x", "error", fail=False)
        assert (result["failed"], result["stops"]) == (False, True)

    def test_the_reason_is_bounded(self):
        rows = [row(host=f"m{number}", errors=["it is down; start it", "x"], probes=[]) for number in range(9)]
        result, _text = fleet_verdict(rows, "x", "error")
        assert result["msg"].count("it is down (and 1 more)") == 3 and result["msg"].endswith("; 6 more hosts do not")

    @pytest.mark.parametrize(
        ("rows", "message"),
        [([], "there is no host to give a verdict on"), ([row(host=None)], "each of rows needs the name of its host")],
    )
    def test_rows_that_cannot_be_shown(self, rows, message):
        with pytest.raises(EngineError, match=message):
            fleet_verdict(rows, "x", "error")
