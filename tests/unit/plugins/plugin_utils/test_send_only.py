"""Hosts that take no mail from the network, as the controller sees them: inventory, plan, messages, verdict, report."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import (
    Estate,
    handshake_targets,
    own_target,
    reachable_at,
    send_only,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.messages import trace_messages, trace_work
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import check_step
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.text import plan_text
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import build
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.table import fleet_verdict
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import failed_tests, verdict_rows

from tests.support.plan_states import States, config, gateway, plain, probe, server

GROUPS = {"mail_gateways": ["gw1"], "mail_servers": ["m1", "n1"]}
RELAY = probe(
    "gw1.test",
    findings=[{"code": "name_mismatch", "message": "it is for another"}, {"code": "untrusted", "message": "no"}],
)


def null(**changes: Any) -> dict[str, Any]:
    """What a null client says."""
    made = {
        "send_only": True, "listeners": [], "sockets": [], "probe": {"results": [RELAY], "own": False},
        "before": {"inbound": "none", "outbound": "disabled"}, "after": {"inbound": "none", "outbound": "opportunistic"},
        "next_hops": [{"host": "gw1.test", "port": 25, "completed": True, "message": ""}],
    }  # fmt: skip
    return {**server("n1", drift=True), **made, **changes}


def hop(completed: bool, host: str = "gw1.test") -> dict[str, Any]:
    said = "" if completed else "the server does not offer STARTTLS"
    return {"next_hops": [{"host": host, "port": 25, "completed": completed, "message": said}]}


class TestInventory:
    def hostvars(self, **facts: Any) -> dict[str, dict[str, Any]]:
        return {"m1": {"groups": GROUPS}, "gw1": {"groups": GROUPS}, "n1": {"groups": GROUPS, **facts}}

    def test_what_it_says_decides(self) -> None:
        assert send_only("n1", self.hostvars(starttls_inbound="none")) == "always"
        assert send_only("n1", self.hostvars(starttls_inbound="offered")) == "never"
        assert send_only("n1", self.hostvars()) == "find"
        assert send_only("n1", self.hostvars(starttls_inbound="")) == "find"

    def test_a_host_that_mail_is_delivered_to_takes_mail(self) -> None:
        assert send_only("m1", self.hostvars(), [config()]) == "never"
        assert send_only("gw1", self.hostvars()) == "never"
        assert send_only("n1", self.hostvars(starttls_peers=[{"name": "x"}])) == "never"
        known = {**self.hostvars(), "localhost": {"tls_estate": {"deliveries": [{"hosts": ["m1"]}]}}}
        assert send_only("m1", known) == "never"
        for odd in (None, "main", [None, "x"], [{**config(), "state": "absent"}]):
            assert send_only("m1", self.hostvars(), odd) == "find"

    def test_a_host_cannot_be_both(self) -> None:
        with pytest.raises(
            EngineError, match=r"n1 takes no mail \(starttls_inbound: none\), and the email config main is delivered"
        ):
            Estate.parse([config("main", "n1")], self.hostvars(starttls_inbound="none"), ["n1"])
        hosts = {"gw1": {"groups": GROUPS, "starttls_inbound": "none"}}
        with pytest.raises(EngineError, match="gw1 is a gateway and takes mail"):
            Estate.parse([], hosts, ["gw1"])
        exchange = self.hostvars(starttls_inbound="none", starttls_kind="exchange")
        with pytest.raises(EngineError, match="n1 is an Exchange server"):
            Estate.parse([], exchange, ["n1"])

    def test_nobody_tests_it_from_elsewhere(self) -> None:
        known = self.hostvars(starttls_inbound="none")
        assert [one["host"] for one in handshake_targets(["m1", "n1"], known)] == ["m1"]
        assert [one["host"] for one in reachable_at(["m1", "n1"], known)] == ["m1"]
        found = self.hostvars(mail_server_observed={"send_only": True, "probe": {"results": [RELAY]}})
        assert handshake_targets(["n1"], found) == []
        assert own_target("n1", found) == [{"host": "gw1.test", "port": 25, "name": "gw1.test"}]
        implicit = {**RELAY, "port": 465, "protocol": "smtps"}
        found = self.hostvars(mail_server_observed={"send_only": True, "probe": {"results": [implicit]}})
        assert own_target("n1", found)[0] == {"host": "gw1.test", "port": 465, "name": "gw1.test", "protocol": "smtps"}


class TestPlan:
    def test_it_is_shown_as_what_it_is(self) -> None:
        plan = States(config(), gw1=gateway(probes=[probe("m1.test")]), m1=server("m1"), n1=null()).plan()
        assert (plan.obstacles, plan.warnings) == ((), ())
        assert plan.hosts["n1"].send_only is True
        assert plan.hosts["n1"].present == "Postfix 3.7.11: send only, outbound disabled"
        text = plan_text(plan)
        assert "send over TLS (1 file)" in text
        assert "offer: send-only hosts send over TLS: n1" in text

    def test_a_listener_on_the_loopback_is_no_warning(self) -> None:
        loopback = [{"host": "127.0.0.1", "port": 25, "pid": 1, "program": "master"}]
        assert States(n1=null(sockets=loopback)).plan().warnings == ()

    def test_one_that_is_to_insist_waits_for_its_relay(self) -> None:
        insists = {"after": {"inbound": "none", "outbound": "required"}}
        bad = States(gw1=gateway(), n1=null(**hop(False), **insists)).plan()
        assert [(one.host, one.finding.code) for one in bad.obstacles] == [("n1", "next_hop_without_starttls")]
        good = States(gw1=gateway(drift=True), n1=null(**hop(False), **insists)).plan()
        assert (good.obstacles, list(good.steps)) == ((), ["accept", "offer"])

    def test_a_relay_that_stays_without_tls_is_a_warning(self) -> None:
        plan = States(n1=null(**hop(False, "relay.example"))).plan()
        [warning] = plan.warnings
        assert (warning.host, warning.finding.code) == ("n1", "relay_without_tls")
        assert "relay.example:25: the server does not offer STARTTLS" in warning.finding.message
        assert States(gw1=gateway(drift=True), n1=null(**hop(False))).plan().warnings == ()
        assert States(n1=null(**hop(True, "relay.example"))).plan().warnings == ()

    def test_off_is_one_step_and_no_gateway_has_to_know(self) -> None:
        states = {
            "before": {"inbound": "none", "outbound": "required"},
            "after": {"inbound": "none", "outbound": "disabled"},
        }
        plan = States(n1=null(**states)).with_outside("gw1").plan("disable")
        assert (plan.obstacles, {name: one.hosts for name, one in plan.steps.items()}) == ((), {"off": ("n1",)})
        assert "off: send-only hosts send in plaintext: n1" in plan_text(plan)

    def test_its_result_is_that_of_its_step(self) -> None:
        plan = States(n1=null()).plan()
        done = {"changed": True, "send_only": True, "after": {"inbound": "none", "outbound": "opportunistic"}}
        result, text = check_step(plan.to_json(), "offer", {"n1": done}, batch=["n1"])
        assert (result["failed"], text, result["hosts"]["n1"]["state"]) == (False, "", "done: offer")


class TestMessages:
    HOSTS: ClassVar[dict[str, dict[str, Any]]] = {
        "out": {"starttls_trace_address": "t@out.example"},
        "m1": {"starttls_trace_address": "t@m1.example"},
        "n1": {"starttls_trace_address": "root@n1.example", "starttls_inbound": "none"},
    }

    def test_it_only_sends(self) -> None:
        messages = trace_messages(["m1", "n1"], self.HOSTS, "out", "1")
        assert [("inbound" in one, "outbound" in one) for one in messages] == [(True, True), (False, True)]
        work = trace_work(messages, "n1", self.HOSTS)
        assert ([one["recipient"] for one in work["send"]], work["receive"]) == (["t@out.example"], [])


class TestVerdict:
    def facts(self, **changes: Any) -> dict[str, dict[str, Any]]:
        facts = {"groups": GROUPS, "starttls_hostname": "n1.test", "mail_server_observed": {**null(), **changes}}
        return {"gw1": {"groups": GROUPS, "starttls_hostname": "gw1.test"}, "n1": facts}

    def row(self, expected: str = "offered", **changes: Any) -> dict[str, Any]:
        [row] = verdict_rows(["n1"], self.facts(**changes), GROUPS, Estate(("gw1", "n1")).to_json(), expected)
        return row

    def test_the_tests_of_its_relay_count_and_nobody_elses(self) -> None:
        row = self.row()
        assert (row["send_only"], row["not_seen_from"], row["findings"]) == (True, [], [])
        assert [(one["host"], one["seen_from"], one["findings"]) for one in row["probes"]] == [("gw1.test", "n1", [])]
        result, text = fleet_verdict([row], "TLS is on", "error")
        assert result["failed"] is False
        [shown] = result["rows"]
        assert (shown["starttls"], shown["tls_version"], shown["certificate"], shown["delivery_mode"]) == (
            "send only", "TLSv1.3", None, ["to gw1.test"],
        )  # fmt: skip
        assert "send only" in text
        assert failed_tests("n1", self.facts(), gateways=["gw1"]) == []

    def test_a_relay_without_tls_fails_it(self) -> None:
        bad = {**plain("gw1.test"), "findings": [{"code": "starttls_not_offered", "message": "no STARTTLS"}]}
        changed = {"probe": {"results": [bad], "own": False}}
        assert fleet_verdict([self.row(**changed)], "TLS is on", "error")[0]["rows"][0]["verdict"] == "FAIL"
        assert len(failed_tests("n1", self.facts(**changed), gateways=["gw1"])) == 1

    def test_what_its_relay_offers_is_no_fault_once_it_is_switched_off(self) -> None:
        assert fleet_verdict([self.row("disabled")], "TLS is off", "error")[0]["rows"][0]["verdict"] == "pass"

    def test_without_a_relay_that_is_a_warning(self) -> None:
        note = {"code": "relay_not_tested", "message": "it hands its mail to the MX of each recipient domain"}
        row = self.row(probe={"results": [], "own": False}, notes=[note])
        shown = fleet_verdict([row], "TLS is on", "error")[0]["rows"][0]
        assert (shown["verdict"], [one["code"] for one in shown["findings"]]) == (
            "pass, 1 warning",
            ["relay_not_tested"],
        )

    def test_the_role_verify_alone_reads_the_way_itself(self) -> None:
        facts = {"n1": {"starttls_inbound": "none", "verify_read": null()}}
        assert own_target("n1", facts)[0]["host"] == "gw1.test"
        assert failed_tests("n1", facts) == []
        assert failed_tests("n1", {"n1": {"starttls_inbound": "none"}}) == [
            "n1: the handshake test with its relay was not made; run the test on the host"
        ]
        note = {"code": "relay_not_tested", "message": "no relay"}
        alone = {"n1": {"starttls_inbound": "none", "verify_read": {"notes": [note], "send_only": True}}}
        assert failed_tests("n1", alone) == []

    def test_nothing_known_is_no_pass(self) -> None:
        assert fleet_verdict([self.row(probe={"results": []})], "x", "error")[0]["rows"][0]["verdict"] == "FAIL"

    def test_a_report_has_no_certificate_of_its_relay(self) -> None:
        certificate = {"subject": "CN=gw1.test", "days_left": 3}
        [host] = build([self.row(probe={"results": [{**RELAY, "certificate": certificate}], "own": False})], title="x")[
            "hosts"
        ]
        assert (host["send_only"], host["verdict"], host["tests"][0]["certificate"]) == (True, "pass", None)
