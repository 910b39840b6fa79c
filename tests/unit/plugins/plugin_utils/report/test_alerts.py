"""Alerts: who is to blame, and what is said about it."""

from datetime import datetime, timedelta

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import SEVERITIES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.alerts import CODES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import build
from hypothesis import given
from hypothesis import strategies as st

from tests.support.report_rows import NOW, activity, demo_rows, event, failed_probe, peer, previous_document, probe

WAITS = event("no_starttls_offered", 6, "TLS is required, but was not offered", "2026-03-05T10:00:00Z")


def alerts(*peers, previous=None, tls_reports=(), **row):
    rows = [{"host": "gw1", "probes": [probe("gw1.fleet.test")], "activity": activity("postfix", list(peers)), **row}]
    return build(rows, title="T", now=NOW, previous=previous, tls_reports=tls_reports)["alerts"]


def only(found):
    assert len(found) == 1, found
    return found[0]


class TestUnproven:
    NOTE = {  # noqa: RUF012
        "code": "outbound_not_logged",
        "direction": "outbound",
        "message": "smtp_tls_loglevel is 0",
    }

    def test_mail_whose_tls_the_log_does_not_tell(self):
        blind = {**peer("a.example", "outbound", 60, 10), "messages_unknown": 30}
        counted = {**activity("postfix", [blind]), "notes": [self.NOTE]}
        assert only(alerts(activity=counted)) == {
            "code": "mail_unproven", "severity": "warning", "host": "gw1", "domain": "", "direction": "outbound",
            "cause": "local", "count": 30, "last": None,
            "message": "The log of gw1 does not tell whether 30 of 100 outbound messages used TLS.",
            "action": "Cause: smtp_tls_loglevel is 0. Until then they are unproven, not plaintext.",
        }  # fmt: skip

    @pytest.mark.parametrize(("unknown", "found"), [(1, []), (2, ["mail_unproven"])])
    def test_a_session_that_goes_on_at_the_end_of_the_log_is_no_alert(self, unknown, found):
        blind = {**peer("a.example", "inbound", 99), "messages_unknown": unknown}
        assert [one["code"] for one in alerts(blind)] == found

    def test_sessions_without_messages(self):
        blind = {**peer("a.example", "inbound", 0), "sessions_unknown": 1}
        assert "1 of 1 inbound sessions used TLS" in only(alerts(blind))["message"]


class TestBlockedMail:
    def test_an_enforced_sender_came_in_plaintext(self):
        alert = only(
            alerts(
                peer(
                    "bank.example.net",
                    "inbound",
                    refusals=[event("enforced_sender", 17, "451 STARTTLS is required for this sender")],
                )
            )
        )
        assert alert == {
            "code": "enforced_inbound_remote", "severity": "error", "host": "gw1", "domain": "bank.example.net",
            "direction": "inbound", "cause": "remote", "count": 17, "last": "2026-03-08T21:14:03Z",
            "message": "gw1 deferred mail from bank.example.net: the domain must use TLS, but its mail server sent in plaintext. "
            "The log says: 451 STARTTLS is required for this sender",
            "action": "Ask the administrator of bank.example.net to switch on TLS for mail to you. The sender retries automatically; "
            "remove the domain from the enforced domains only if its mail may arrive in plaintext.",
        }  # fmt: skip

    def test_the_own_mail_server_would_not_take_mail_of_an_enforced_sender_over_tls(self):
        alert = only(
            alerts(peer("alpha.test", "outbound", deferrals=[WAITS]), own_domains={"alpha.test": "opportunistic"})
        )
        assert (alert["code"], alert["cause"], alert["count"]) == ("enforced_inbound_local", "local", 6)
        assert "your mail server did not use TLS" in alert["message"]
        assert "switch STARTTLS on there" in alert["action"]

    def test_an_own_mail_server_that_insists_on_tls_behind_a_mode_that_does_not(self):
        refused = event("peer_requires_tls", 2, "530 5.7.0 Must issue a STARTTLS command first")
        alert = only(
            alerts(peer("alpha.test", "outbound", deferrals=[refused]), own_domains={"alpha.test": "plaintext"})
        )
        assert (alert["code"], alert["cause"]) == ("tls_deferrals", "local")
        assert (
            "accepts mail over TLS only, but the mail was sent in plaintext (delivery mode plaintext)"
            in alert["message"]
        )
        assert "Set the delivery mode of its email config to 'required'" in alert["action"]

    def test_the_gateways_own_fault_is_not_put_down_to_the_mail_server(self):
        broken = event("tls_unavailable", 2, "TLS is unavailable")
        alert = only(
            alerts(peer("alpha.test", "outbound", deferrals=[broken]), own_domains={"alpha.test": "opportunistic"})
        )
        assert (alert["code"], alert["cause"]) == ("tls_deferrals", "local")
        assert "Run the handshake test against gw1 and repair TLS there" in alert["action"]

    @pytest.mark.parametrize("mode", ["required", "match_sender_strict"])
    def test_a_delivery_mode_that_insists_is_reason_enough_to_wait(self, mode):
        alert = only(alerts(peer("alpha.test", "outbound", deferrals=[WAITS]), own_domains={"alpha.test": mode}))
        assert (alert["code"], alert["severity"], alert["cause"]) == ("tls_deferrals", "warning", "local")
        assert "Run the handshake test against the mail servers of alpha.test" in alert["action"]

    @pytest.mark.parametrize(
        ("reason", "code", "says"),
        [
            ("no_starttls_offered", "enforced_outbound_remote", "Ask the administrator of partner.example.com"),
            ("certificate_untrusted", "enforced_outbound_remote", "lower certificate check"),
            ("key_unusable", "enforced_outbound_local", "Repair TLS on gw1"),
        ],
    )
    def test_an_enforced_recipient_domain(self, reason, code, says):
        alert = only(
            alerts(
                peer("partner.example.com", "outbound", deferrals=[event(reason, 2, "")]),
                enforced=[{"domain": "partner.example.com", "direction": "outbound"}],
            )
        )
        assert (alert["code"], alert["severity"], alert["cause"]) == (code, "error", code.rpartition("_")[2])
        assert says in alert["action"]

    def test_one_domain_both_sides_to_blame(self):
        found = alerts(
            peer("partner.example.com", "outbound", deferrals=[WAITS, event("key_unusable", 1, "x")]),
            enforced=[{"domain": "partner.example.com", "direction": "outbound"}],
        )
        assert [one["code"] for one in found] == ["enforced_outbound_remote", "enforced_outbound_local"]

    def test_mail_that_waits_for_a_filter_on_the_host_itself(self):
        waits = {**event("no_starttls_offered", 3, "x"), "side": "local"}
        alert = only(alerts(peer("b.example", "outbound", deferrals=[waits])))
        assert (alert["code"], alert["cause"], alert["domain"]) == ("tls_deferrals", "local", "b.example")
        assert "a service on gw1 itself" in alert["message"]

    def test_an_own_server_that_sends_in_plaintext(self):
        alert = only(
            alerts(peer("alpha.test", "inbound", refusals=[event("mail_server_in_plaintext", 3, "450 4.7.0")]))
        )
        assert (alert["code"], alert["cause"]) == ("enforced_outbound_local", "local")
        assert "outbound: offered or required" in alert["action"]

    def test_any_other_domain_that_mail_waits_for(self):
        alert = only(alerts(peer("partner.example.com", "outbound", deferrals=[WAITS])))
        assert (alert["code"], alert["severity"], alert["cause"]) == ("tls_deferrals", "warning", "remote")

    def test_the_rest_of_the_domains_has_no_name(self):
        alert = only(alerts(peer("other", "outbound", 5, 1, deferrals=[WAITS])))
        assert alert["message"].startswith("Mail to several other domains waits on gw1")

    def test_nothing_wrong_nothing_said(self):
        failures = [event("timeout", 4, "")]
        assert alerts(peer("partner.example.com", "inbound", 40, 2, failures=failures)) == []


class TestCertificates:
    @pytest.mark.parametrize(
        ("days", "code", "severity", "says"),
        [
            (-3, "certificate_expired", "error", "expired on 2026-03-06"),
            (0, "certificate_expiring", "error", "has 0 days left"),
            (1, "certificate_expiring", "error", "has 1 day left (until 2026-03-10)"),
            (7, "certificate_expiring", "warning", "has 7 days left"),
            (20, "certificate_expiring", "warning", "has 20 days left"),
        ],
    )
    def test_days(self, days, code, severity, says):
        alert = only(alerts(probes=[probe("gw1.fleet.test", days), probe("gw1.fleet.test", days, seen_from="pf12")]))
        assert (alert["code"], alert["severity"], alert["cause"]) == (code, severity, "local")
        assert says in alert["message"]
        assert "enable_tls.yml" in alert["action"]

    def test_time_enough(self):
        assert alerts(probes=[probe("gw1.fleet.test", 21)]) == []

    @pytest.mark.parametrize(
        ("life", "days", "fixed", "severity"),
        [
            (6, 5, None, ""), (6, 1, None, "warning"), (6, 0, None, "error"), (90, 31, None, ""), (90, 29, None, "warning"),
            (90, 8, None, "error"), (90, 29, 21, ""), (90, 20, 21, "warning"), (90, 6, 21, "error"), (90, 8, 0, ""),
        ],
    )  # fmt: skip
    def test_the_limits_are_shares_of_the_life_or_fixed_days(self, life, days, fixed, severity):
        test = probe("gw1.fleet.test", days)
        end = datetime.fromisoformat(test["certificate"]["not_after"])
        test["certificate"]["not_before"] = (end - timedelta(days=life)).isoformat()
        rows = [{"host": "gw1", "probes": [test]}]
        found = build(rows, title="T", now=NOW, certificate_days=fixed)["alerts"]
        assert [one["severity"] for one in found] == ([severity] if severity else [])

    def test_the_next_one_to_expire_comes_first(self):
        rows = [
            {"host": name, "probes": [probe(f"{name}.test", days)]} for name, days in (("a", 15), ("b", 9), ("c", 12))
        ]
        assert [one["host"] for one in build(rows, title="T", now=NOW)["alerts"]] == ["b", "c", "a"]


class TestLostTls:
    def test_a_server_that_offered_it_in_the_former_report(self):
        probes = [failed_probe("ex13.fleet.test", "starttls_not_offered", "x")]
        rows = [{"host": "ex13", "probes": probes}]
        first = build(rows, title="T", now=NOW, previous=previous_document())
        alert = only(first["alerts"])
        assert (alert["code"], alert["severity"], alert["cause"]) == ("starttls_lost", "error", "local")
        assert alert["message"].startswith("ex13 (ex13.fleet.test:25) no longer offers STARTTLS")
        again = build(rows, title="T", now=NOW, previous=first)
        assert again["alerts"] == first["alerts"], "it stays until STARTTLS is back"
        back = build([{"host": "ex13", "probes": [probe("ex13.fleet.test")]}], title="T", now=NOW, previous=again)
        assert back["alerts"] == []

    def test_off_on_purpose(self):
        probes = [failed_probe("ex13.fleet.test", "starttls_not_offered", "x")]
        rows = [{"host": "ex13", "probes": probes, "expected": "disabled"}]
        assert build(rows, title="T", now=NOW, previous=previous_document())["alerts"] == []

    def test_a_server_that_is_down_lost_nothing(self):
        probes = [failed_probe("ex13.fleet.test", "connect_failed", "x", stage="connect")]
        rows = [{"host": "ex13", "probes": probes}]
        assert build(rows, title="T", now=NOW, previous=previous_document())["alerts"] == []

    def test_a_peer_that_used_it_in_the_former_report(self):
        before = {"version": 1, "hosts": [{"host": "gw1", "activity": activity("", [peer("a.example", "inbound", 5)])}]}
        alert = only(alerts(peer("a.example", "inbound", 0, 3), previous=before))
        assert (alert["code"], alert["severity"], alert["cause"], alert["count"]) == (
            "starttls_lost",
            "warning",
            "remote",
            3,
        )
        assert alerts(peer("a.example", "inbound", 1, 3), previous=before) == []

    def test_nothing_is_lost_on_the_strength_of_a_log_with_holes(self):
        before = {"version": 1, "hosts": [{"host": "gw1", "activity": activity("", [peer("a.example", "inbound", 5)])}]}
        notes = [{"code": "lines_lost", "direction": "", "message": "x"}]
        rows = [{"host": "gw1", "activity": {**activity("", [peer("a.example", "inbound", 0, 3)]), "notes": notes}}]
        assert build(rows, title="T", now=NOW, previous=before)["alerts"] == []

    def test_nor_where_the_log_does_not_tell_of_all_mail(self):
        before = {"version": 1, "hosts": [{"host": "gw1", "activity": activity("", [peer("a.example", "inbound", 5)])}]}
        found = alerts({**peer("a.example", "inbound", 0, 3), "messages_unknown": 2}, previous=before)
        assert [one["code"] for one in found] == ["mail_unproven"]

    def test_a_peer_that_used_it_earlier_in_the_window(self):
        alert = only(alerts(peer("a.example", "outbound", 50, 3, failures=[WAITS])))
        assert (alert["code"], alert["last"]) == ("starttls_lost", "2026-03-05T10:00:00Z")

    def test_one_thing_is_told_once(self):
        assert only(alerts(peer("a.example", "outbound", 50, 0, deferrals=[WAITS])))["code"] == "tls_deferrals"

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["gw1", "starttls_lost"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["hosts", "host", "tests", "activity", "peers", "alerts", "code", "domain", "direction", "port"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    def test_a_former_report_may_hold_anything(self, value):
        alerts(peer("a.example", "inbound", 1, 3), previous={"version": 1, "hosts": value, "alerts": value})
        alerts(peer("a.example", "inbound", 1, 3), previous={"version": 1, "hosts": [value], "alerts": [value]})


REPORT = {
    "organization": "Example Mail", "report_id": "1", "start": "2026-03-07T00:00:00Z", "end": "2026-03-07T23:59:59Z",
    "domain": "alpha.test", "policy_type": "sts", "successful": 10, "failed": 4,
    "failures": [{"result_type": "certificate-expired", "sending_mta_ip": "", "receiving_mx": "", "count": 4, "reason": ""}],
}  # fmt: skip


class TestWhatOthersReport:
    def test_organizations_are_put_together(self):
        other = {**REPORT, "organization": "Another", "end": "2026-03-08T23:59:59Z"}
        alert = only(alerts(tls_reports=[REPORT, other]))
        assert (alert["code"], alert["count"], alert["domain"]) == ("tlsrpt_failures", 8, "alpha.test")
        assert alert["message"] == (
            "Another, Example Mail could not set up TLS with alpha.test: 8 sessions failed (certificate-expired)."
        )
        assert alert["action"].startswith("Renew the certificate")
        assert alert["last"] == "2026-03-08T23:59:59Z"

    def test_failures_without_details(self):
        assert only(alerts(tls_reports=[{**REPORT, "failures": []}]))["count"] == 4

    def test_many_kinds_of_failures_are_one_alert_a_domain_and_hide_none(self):
        """A stranger chooses the numbers, so no alert is dropped for having a smaller one."""
        kinds = [f"kind-{number}" for number in range(60)]
        many = [
            {**REPORT, "domain": domain, "failures": [{"result_type": kind, "count": 2**52} for kind in kinds]}
            for domain in ("alpha.test", "bravo.test")
        ]
        quiet = {**REPORT, "domain": "charlie.test", "failures": [{"result_type": "certificate-expired", "count": 1}]}
        found = alerts(tls_reports=[*many, quiet])
        assert [one["domain"] for one in found] == ["alpha.test", "bravo.test", "charlie.test"]
        assert found[0]["count"] == 2**53 - 1
        assert found[2]["message"].endswith("1 session failed (of several kinds).")
        assert len(alerts(tls_reports=many[:1])) == 60

    def test_a_good_report(self):
        assert alerts(tls_reports=[{**REPORT, "failed": 0, "failures": []}]) == []


def test_worst_first():
    found = build(demo_rows(), title="T", now=NOW, previous=previous_document())["alerts"]
    assert [one["code"] for one in found] == [
        "enforced_inbound_remote", "enforced_inbound_local", "enforced_outbound_remote", "certificate_expiring",
        "starttls_lost", "certificate_expiring",
    ]  # fmt: skip
    order = [(SEVERITIES.index(one["severity"]), CODES.index(one["code"])) for one in found]
    assert order == sorted(order)
