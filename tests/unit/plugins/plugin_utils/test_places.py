"""From where a host was tested. A controller that cannot look says nothing of the host, and what nobody saw is not proved."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.messages import outbound_expectations
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import check_step
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import build, render_json
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.html import render_html
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.junit import render_junit
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.prometheus import render_prometheus
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.table import fleet_verdict
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import (
    failed_tests,
    namesakes_of,
    outcome_input,
    verdict_rows,
)

from tests.support.report_rows import failed_probe, probe

GROUPS = {"mail_gateways": ["gw1"], "mail_servers": ["mx"]}
TWO = {"mail_gateways": ["gw1"], "mail_servers": ["mx", "m2"]}
REASONS = {
    "name_not_resolved": "cannot connect to mx:25: Name or service not known",
    "no_route": "cannot connect to mx:25: Network is unreachable",
}


def results(*made: dict[str, Any]) -> dict[str, Any]:
    return {"results": [*made]}


def blind(code: str, **changes: Any) -> dict[str, Any]:
    """A test of the controller that did not get to the server."""
    message = REASONS.get(code, "no connection within 15 s")
    return failed_probe("mx", code, message, stage="connect", **changes)


def hostvars(controller: Any, own: Any = None, gateway: Any = None) -> dict[str, Any]:
    """What the roles registered: every test passed, but for those that are given."""
    common = {"verify_controller_probe": controller}
    return {
        "mx": {**common, "verify_probe": results(probe("mx")) if own is None else own},
        "gw1": {
            **common,
            "verify_probe": results(probe("gw1")),
            "verify_from_gateway": results(probe("mx"), probe("gw1")) if gateway is None else gateway,
        },
    }


def verdict(
    hostvars: dict[str, Any], groups: Any = GROUPS, host: str = "mx", expected: str = "offered"
) -> dict[str, Any]:
    """The row of a host in the table."""
    wanted = estate([], hostvars, list(hostvars))
    rows = verdict_rows([host], hostvars, groups, wanted, expected)
    result, _text = fleet_verdict(rows, "", "error")
    [row] = result["rows"]
    assert result["failed"] != row["verdict"].startswith("pass")
    return row


def codes(row: dict[str, Any]) -> list[str]:
    return [one["code"] for one in row["findings"]]


@pytest.mark.parametrize("code", REASONS)
@pytest.mark.parametrize("expected", ["offered", "either"])
def test_a_controller_that_cannot_look_is_no_failure_of_the_host(code: str, expected: str) -> None:
    row = verdict(hostvars(results(blind(code))), expected=expected)
    assert (row["verdict"], row["tested_from"]) == ("pass", "host, gw1; not controller")
    [finding] = row["findings"]
    assert (finding["code"], finding["severity"]) == ("could_not_look", "notice")
    assert finding["message"].startswith(f"the controller could not look: {REASONS[code]}; set starttls_address ")
    assert failed_tests("mx", hostvars(results(blind(code))), "error", ["gw1"]) == []


@pytest.mark.parametrize("failed", [{"failed": True, "msg": "no Python"}, {"unreachable": True, "msg": "gone"}])
def test_a_controller_whose_task_failed_could_not_look(failed: dict[str, Any]) -> None:
    row = verdict(hostvars(failed))
    assert (row["verdict"], codes(row), row["tested_from"]) == ("pass", ["could_not_look"], "host, gw1; not controller")
    assert failed["msg"] in row["findings"][0]["message"]


def test_each_row_says_who_tested_it() -> None:
    assert verdict(hostvars(results(probe("mx"))))["tested_from"] == "host, gw1, controller"
    assert verdict(hostvars({"skipped": True}))["tested_from"] == "host, gw1"
    assert verdict(hostvars({"skipped": True}, gateway=results()))["tested_from"] == "host; not gw1"
    assert verdict(hostvars({}, own={}, gateway={}))["tested_from"] == "nobody; not gw1"


def test_many_gateways_are_counted() -> None:
    gateways = [f"gw{number}" for number in range(5)]
    every = {
        "mx": {"verify_probe": results(probe("mx"))},
        **{one: {"verify_from_gateway": results(probe("mx"))} for one in gateways},
    }
    assert verdict(every, {"mail_gateways": gateways})["tested_from"] == "host, 5 gateways"


@pytest.mark.parametrize("code", REASONS)
@pytest.mark.parametrize("expected", ["offered", "disabled", "either"])
def test_what_nobody_saw_is_unproven_and_no_pass(code: str, expected: str) -> None:
    row = verdict(hostvars(results(blind(code)), own={}, gateway={}), {}, expected=expected)
    assert (row["verdict"], row["tested_from"]) == ("unproven", "nobody; not controller")
    assert codes(row) == ["unproven", "could_not_look"]
    assert failed_tests("mx", hostvars(results(blind(code)), own={}, gateway={})) == [
        "mx: nobody could look at mx; repair what keeps the others from looking, and run verify_tls again"
    ]


def test_a_host_that_only_itself_saw_passes_with_a_warning() -> None:
    row = verdict(hostvars(results(blind("no_route")), gateway={}), {})
    assert (row["verdict"], codes(row)) == ("pass, 1 warning", ["only_itself", "could_not_look"])


def test_a_gateway_that_the_controller_does_not_reach() -> None:
    controller = results({**blind("name_not_resolved"), "name": "gw1", "host": "gw1"})
    row = verdict(hostvars(controller), host="gw1")
    assert (row["verdict"], codes(row)) == ("pass", ["could_not_look"])


@pytest.mark.parametrize(
    ("gateway", "verdicts"),
    [
        (None, "pass"),
        (results(), "FAIL"),
        (results(failed_probe("mx", "timeout", "no connection", stage="connect")), "FAIL"),
    ],
)
def test_a_connection_that_times_out_is_the_controllers_fault_if_a_gateway_had_one(gateway: Any, verdicts: str) -> None:
    assert verdict(hostvars(results(blind("timeout")), gateway=gateway))["verdict"] == verdicts


@pytest.mark.parametrize(
    ("code", "stage"),
    [
        ("connect_failed", "connect"),
        ("timeout", "greeting"),
        ("starttls_not_offered", "ehlo"),
        ("tls_failed", "starttls_answered"),
    ],
)
def test_what_the_controller_saw_counts(code: str, stage: str) -> None:
    row = verdict(hostvars(results(failed_probe("mx", code, "it is bad", stage=stage))))
    assert (row["verdict"], codes(row), row["tested_from"]) == ("FAIL", [code], "host, gw1, controller")


@pytest.mark.parametrize("code", REASONS)
def test_a_gateway_that_does_not_get_to_the_server_is_a_failure_because_it_has_to(code: str) -> None:
    row = verdict(hostvars({}, gateway=results(blind(code))))
    assert (row["verdict"], codes(row)) == ("FAIL", [code])


def test_a_test_that_nobody_could_make_fills_no_cell_of_the_table() -> None:
    row = verdict(hostvars(results(probe("mx")), own={}, gateway={}), {})
    assert (row["starttls"], row["trusted"]) == ("offered", True)
    row = verdict(hostvars(results(blind("no_route")), own={}, gateway={}), {})
    assert (row["starttls"], row["tls_version"], row["certificate"]) == ("", None, None)


def report(*rows: dict[str, Any]) -> dict[str, Any]:
    document = build(rows, title="")
    assert json.loads(render_json(document))["hosts"][0]["verdict"] == document["hosts"][0]["verdict"]
    return document


def row_of(controller: Any, **changes: Any) -> dict[str, Any]:
    facts = hostvars(controller, **changes)
    return verdict_rows(["mx"], facts, {} if changes else GROUPS, estate([], facts, list(facts)))[0]


def test_every_report_says_that_the_controller_could_not_look() -> None:
    document = report(row_of(results(blind("no_route"))))
    [host] = document["hosts"]
    assert (host["verdict"], host["tested_from"], document["summary"]["passed"]) == (
        "pass",
        "host, gw1; not controller",
        1,
    )
    suites = ET.fromstring(render_junit(document))
    made = {one.get("name"): [child.tag for child in one] for one in suites.iter("testcase")}
    assert made == {"host": [], "handshake mx:25 seen from mx": [], "handshake mx:25 seen from gw1": [],
                    "handshake mx:25 seen from the controller": ["skipped"]}  # fmt: skip
    passed = [line for line in render_prometheus(document).splitlines() if "_test_passed{" in line]
    assert len(passed) == 2 and all(line.endswith(" 1") for line in passed)
    page = render_html(document)
    assert "host, gw1; not controller" in page and ">offered<" in page and " of 3" not in page


def test_no_report_calls_a_pass_what_nobody_saw() -> None:
    document = report(row_of(results(blind("no_route")), own={}, gateway={}))
    assert (document["hosts"][0]["verdict"], document["summary"]["failed"]) == ("unproven", 1)
    assert 'mailfleet_starttls_host_passed{host="mx",daemon="mail server"} 0' in render_prometheus(document)
    assert list(ET.fromstring(render_junit(document)).iter("failure"))
    assert ">unproven</span>" in render_html(document)


def test_the_reports_have_what_the_table_says_of_gateways_that_did_not_look() -> None:
    """It was in the table alone."""
    facts = hostvars({}, gateway={})
    [row] = verdict_rows(["mx"], facts, GROUPS, estate([], facts, ["mx", "gw1"]))
    assert [one["code"] for one in report(row)["hosts"][0]["findings"]] == ["not_tested_from_gateway"]


@pytest.mark.parametrize(
    ("health", "code", "said"),
    [
        (
            {"state": "broken", "running": True, "message": "line 3: what?"},
            "configuration_broken",
            "line 3: what?; the daemon runs",
        ),
        (
            {"state": "broken", "running": False, "message": "line 3"},
            "configuration_broken",
            "line 3; the daemon does not run",
        ),
        ({"state": "stopped", "running": False, "message": "start it"}, "daemon_not_running", "start it"),
    ],
)
def test_the_row_says_that_the_configuration_is_broken_in_the_daemons_words(health: Any, code: str, said: str) -> None:
    facts = hostvars({}, own=results(failed_probe("mx", "connect_failed", "refused", stage="connect")))
    facts["mx"]["mail_server_observed"] = {"kind": "postfix", "health": health}
    row = verdict(facts)
    assert codes(row) == [code, "connect_failed"]
    assert row["findings"][0]["message"] == said
    facts["mx"]["mail_server_result"] = {"changed": True, "probe": {"results": [probe("mx")]}}
    assert code not in codes(verdict(facts)), "what was read before a change is no longer so"


def test_hosts_outside_the_run_neither_pass_nor_fail() -> None:
    facts = {**hostvars({}), "m9": {}, "gw9": {"verify_from_gateway": {"unreachable": True, "msg": "down"}}}
    rows = verdict_rows(
        ["mx", "gw1"], facts, {**GROUPS, "mail_servers": ["mx", "m9"]}, estate([], facts, ["mx", "gw1"])
    )
    result, text = fleet_verdict(rows, "", "error", not_in_run=["m9"])
    assert (result["failed"], [one["host"] for one in result["rows"]]) == (False, ["mx", "gw1"])
    assert text.endswith("\nNot in this run, so nothing is said of them: m9")
    document = build(rows, title="", not_in_run=["m9"])
    assert (document["not_in_this_run"], document["summary"]["hosts"], document["summary"]["failed"]) == (["m9"], 2, 0)
    assert "Not in this run: m9." in render_html(document)


@pytest.mark.parametrize(("in_run", "state"), [(False, "done: offer"), (True, "failed the handshake test: offer")])
def test_a_gateway_outside_the_run_that_is_down_fails_no_step(in_run: bool, state: str) -> None:
    hosts = {
        "mx": {"role": "mail_server", "steps": ["offer"]},
        **({"gw1": {"role": "gateway", "steps": []}} if in_run else {}),
    }
    plan = {
        "hosts": hosts,
        "steps": {"offer": {"hosts": ["mx"], "batches": [1]}},
        "not_in_this_run": [] if in_run else ["gw1"],
    }
    facts = {
        "mx": {
            "mail_server_result": {"changed": True, "after": {"inbound": "offered"}},
            "verify_from_a_gateway": {"unreachable": True, "msg": "gw1 is down"},
        }
    }
    options = {"plan": plan, "step": "offer", "results": {}, "tests": []}
    result, text = check_step(**outcome_input(options, {"hostvars": facts, "ansible_play_batch": ["mx"]}))
    assert (result["failed"], bool(text)) == (in_run, in_run)
    assert state in (text if in_run else result["hosts"]["mx"]["state"])


class TestLoopbackOnly:
    """A mail server that no other host reaches has not passed, however good its TLS is."""

    SAID = (
        "port 25 listens on the loopback only, so no other host can deliver to it; let it listen where the gateways reach it (Postfix: "
        "inet_interfaces, Exim: local_interfaces); if the host is to send only, set starttls_inbound: none"
    )

    def facts(self, *hosts: str, **more: Any) -> dict[str, Any]:
        sockets = [{"host": one, "port": 25, "pid": 1, "program": "master"} for one in hosts]
        mine = {
            "starttls_hostname": "mx",
            "verify_probe": results(probe("mx")),
            "mail_server_observed": {"sockets": sockets},
        }
        return {"mx": {**mine, **more}}

    @pytest.mark.parametrize("changed", [False, True])
    def test_without_a_gateway_its_own_test_is_no_proof(self, changed: bool) -> None:
        """A change does not move the listener, so the read before it still counts."""
        row = verdict(
            self.facts("127.0.0.1", "::1", mail_server_result={"changed": changed}), groups={"mail_servers": ["mx"]}
        )
        assert [one["message"] for one in row["findings"]] == [self.SAID]
        assert row["verdict"] == "FAIL"

    def test_one_that_listens_elsewhere_too(self) -> None:
        assert verdict(self.facts("127.0.0.1", "192.0.2.1"), groups={"mail_servers": ["mx"]})["verdict"] == "pass"

    @pytest.mark.parametrize("expected", ["disabled", "either"])
    def test_it_is_about_tls_that_is_to_be_offered(self, expected: str) -> None:
        row = verdict(self.facts("127.0.0.1"), groups={"mail_servers": ["mx"]}, expected=expected)
        assert "loopback_only" not in [one["code"] for one in row["findings"]]

    def test_who_got_through_knows_better(self) -> None:
        """An address translation may lead to the loopback."""
        facts = self.facts("127.0.0.1", verify_controller_probe=results(probe("mx")))
        assert verdict(facts, groups={"mail_servers": ["mx"]})["verdict"] == "pass"


class TestOneNameForTwoHosts:
    """A gateway connects by name, to whichever of them answers."""

    @staticmethod
    def hosts(gateway: Any = None, **second: Any) -> dict[str, Any]:
        controller = results(probe("mx", host="192.0.2.1"), probe("mx", host="192.0.2.2"))
        facts = hostvars(controller, gateway=gateway or results(probe("mx"), probe("mx")))
        facts["mx"].update(starttls_hostname="mx", ansible_host="192.0.2.1")
        own = {"starttls_hostname": "mx", "ansible_host": "192.0.2.2", "verify_probe": results(probe("mx"))}
        facts["m2"] = {**facts["mx"], **own, **second}
        return facts

    def test_a_test_by_name_proves_nothing_of_either(self) -> None:
        facts = self.hosts()
        for host, other in (("mx", "m2"), ("m2", "mx")):
            row = verdict(facts, TWO, host)
            assert (row["verdict"], row["tested_from"]) == ("pass, 1 warning", "host; not gw1")
            assert codes(row) == ["not_tested_from_gateway"]
            assert row["findings"][0]["message"] == (
                f"{host} and {other} have one name and port for other hosts, so it is not known which of them a gateway tested; "
                "give each its own starttls_hostname, which leads to no other host"
            )

    def test_a_failure_by_name_counts_for_both(self) -> None:
        facts = self.hosts(results(failed_probe("mx", "starttls_not_offered", "no STARTTLS")))
        assert [verdict(facts, TWO, host)["verdict"] for host in ("mx", "m2")] == ["FAIL", "FAIL"]

    def test_the_controller_tests_each_by_its_own_address(self) -> None:
        facts = self.hosts()
        for number, host in enumerate(("mx", "m2"), 1):
            facts[host]["starttls_address"] = f"192.0.2.{number}"
        bad = failed_probe("mx", "starttls_not_offered", "no STARTTLS", host="192.0.2.2")
        for one in facts.values():
            one["verify_controller_probe"] = results(probe("mx", host="192.0.2.1"), bad)
        rows = [verdict(facts, TWO, host) for host in ("mx", "m2")]
        assert [row["verdict"] for row in rows] == ["pass, 1 warning", "FAIL"]
        assert rows[0]["tested_from"] == "host, controller; not gw1"

    @pytest.mark.parametrize("second", [{"ansible_host": "192.0.2.1"}, {"starttls_port": 2525}])
    def test_two_names_of_one_machine_and_other_ports_are_no_others(self, second: dict[str, Any]) -> None:
        row = verdict(self.hosts(**second), TWO)
        assert (row["verdict"], row["tested_from"]) == ("pass", "host, gw1, controller")

    def test_the_role_alone_counts_it_for_neither(self) -> None:
        facts = self.hosts()
        namesakes = namesakes_of(list(facts), facts)
        for host in ("mx", "m2"):
            [said] = failed_tests(host, facts, "warning", ["gw1"], namesakes)
            assert said.startswith(f"{host}: mx and m2 have" if host == "mx" else f"{host}: m2 and mx have")
            assert failed_tests(host, facts, "error", ["gw1"], namesakes) == []
            assert failed_tests(host, facts, "warning", ["gw1"]) == []
        assert failed_tests("gw1", facts, "warning", ["gw1"], namesakes) == []
        facts = self.hosts(results(failed_probe("mx", "starttls_not_offered", "no STARTTLS")))
        told = [failed_tests(host, facts, "error", ["gw1"], namesakes) for host in ("mx", "m2")]
        assert told == [["mx (mx:25, seen from gw1): no STARTTLS"], ["m2 (mx:25, seen from gw1): no STARTTLS"]]

    @pytest.mark.parametrize(("step", "outside"), [(["mx", "m2"], []), (["mx"], ["m2"])])
    def test_the_canary_is_not_proved_by_it(self, step: list[str], outside: list[str]) -> None:
        done = {"changed": True, "after": {"inbound": "offered"}}
        plan = {
            "hosts": {host: {"role": "mail_server", "steps": ["offer"]} for host in step},
            "steps": {"offer": {"hosts": step, "batches": [1]}},
            "not_in_this_run": outside,
        }
        facts = self.hosts()
        for host in step:
            facts[host].update(mail_server_result=done, verify_from_a_gateway=results(probe("mx")))
        made = outcome_input({"plan": plan, "step": "offer", "results": {}, "tests": []}, {"hostvars": facts})
        found = [(one["inventory_host"], [two["code"] for two in one["findings"]]) for one in made["tests"]]
        assert found == [(host, ["not_tested_from_gateway"]) for host in step]
        assert [check_step(**{**made, "fail_on": one})[0]["failed"] for one in ("error", "warning")] == [False, True]
        bad = failed_probe("mx", "starttls_not_offered", "no STARTTLS")
        facts["mx"]["verify_from_a_gateway"] = results(probe("mx"), bad)
        made = outcome_input({"plan": plan, "step": "offer", "results": {}, "tests": []}, {"hostvars": facts})
        assert [one["code"] for one in made["tests"][0]["findings"]] == ["starttls_not_offered"]


class TestAnotherServer:
    """Hosts that share a certificate: the name may lead a gateway to another one of them."""

    @staticmethod
    def row(own: str, seen: str) -> dict[str, Any]:
        facts = hostvars(
            results(probe("mx", greeting="220 elsewhere.example ESMTP")),
            own=results(probe("mx", greeting=own)),
            gateway=results(probe("mx", greeting=seen)),
        )
        return verdict(facts)

    @pytest.mark.parametrize(
        ("own", "seen"),
        [
            ("220 mx.example ESMTP Postfix", "220 old.example ESMTP Postfix"),
            ("220 mx.example", "220 teaser.example ESMTP / old.example. ESMTP"),
            ("220 mx.example ESMTP / No spam is accepted", "220 old.example ESMTP / No spam is accepted"),
        ],
    )
    def test_a_gateway_that_got_another_one(self, own: str, seen: str) -> None:
        row = self.row(own, seen)
        assert (row["verdict"], codes(row)) == ("pass, 1 warning", ["another_server"])
        said = "old.example answered gw1, and mx.example answered mx itself; "
        assert row["findings"][0]["message"].startswith(said)

    @pytest.mark.parametrize(
        ("own", "seen"),
        [
            ("220 mx.example ESMTP Postfix", "220 MX.example. ESMTP"),
            ("220 mx.example ESMTP", "220 teaser.example ESMTP / mx.example ESMTP"),  # postscreen
            ("220 mx.example ESMTP", "220 ESMTP ready"),
            ("220 ready", "220 old.example ESMTP"),
            ("220 mx.example ESMTP", ""),
            ("220 mx.example ESMTP", "220 1.5/2 ESMTP"),
        ],
    )
    def test_one_that_did_not_or_cannot_be_told(self, own: str, seen: str) -> None:
        assert codes(self.row(own, seen)) == []

    def test_only_completed_tests_of_the_same_port_are_compared(self) -> None:
        own, seen = "220 mx.example ESMTP", "220 old.example ESMTP"
        facts = hostvars(
            {}, own=results(probe("mx", greeting=own, port=26)), gateway=results(probe("mx", greeting=seen))
        )
        assert codes(verdict(facts)) == []
        bad = failed_probe("mx", "starttls_not_offered", "no STARTTLS", greeting=seen)
        facts = hostvars({}, own=results(probe("mx", greeting=own)), gateway=results(bad))
        assert codes(verdict(facts)) == ["starttls_not_offered"]

    def test_a_gateway_is_not_another_server_than_itself(self) -> None:
        facts = hostvars({}, gateway=results(probe("mx"), probe("gw1", greeting="220 b.example ESMTP")))
        facts["gw1"]["verify_probe"] = results(probe("gw1", greeting="220 a.example ESMTP"))
        assert codes(verdict(facts, host="gw1")) == []


class TestWhatTheInventoryInsistsOn:
    """The handshake passes all the same where plaintext is taken as well."""

    @staticmethod
    def gateway(held: Any = (), **wanted: Any) -> dict[str, Any]:
        facts = hostvars(results(probe("gw1")))
        found = {"enforced_domains": list(held), "outbound": {"accept": "both", "send": "opportunistic"}}
        facts["gw1"].update(gateway_now=found, **wanted)
        return verdict(facts, host="gw1")

    @pytest.mark.parametrize(
        ("wanted", "said"),
        [
            ({"starttls_accept": "tls_only"}, "starttls_accept is tls_only, and gw1 has both"),
            ({"starttls_send": "required"}, "starttls_send is required, and gw1 has opportunistic"),
            (
                {"starttls_enforced_domains": [{"domain": "A.example.", "direction": "inbound"}]},
                "gw1 does not enforce TLS for a.example (inbound)",
            ),
            (
                {"starttls_enforced_domains": [
                    {"domain": "b.example", "direction": "outbound", "certificate_check": "hostname"}
                ]},
                "gw1 does not enforce TLS for b.example (outbound, hostname)",
            ),
        ],
    )  # fmt: skip
    def test_a_gateway_that_does_not(self, wanted: dict[str, Any], said: str) -> None:
        row = self.gateway(
            [{"domain": "b.example", "direction": "outbound", "certificate_check": "encryption_only"}], **wanted
        )
        assert (row["verdict"], codes(row)) == ("FAIL", ["not_as_wanted"])
        assert row["findings"][0]["message"].startswith(f"{said}; ")

    def test_a_gateway_that_does(self) -> None:
        held = [
            {"domain": "a.example", "direction": "inbound"},
            {"domain": "b.example", "direction": "outbound", "certificate_check": "encryption_only", "servers": []},
        ]
        wanted = [{"domain": "A.example", "direction": "inbound"}, {"domain": "b.example", "direction": "outbound"}]
        row = self.gateway(
            held, starttls_accept="both", starttls_send="opportunistic",
            starttls_enforced_domains=[*wanted, {"domain": "gone.example", "direction": "inbound", "state": "absent"}],
        )  # fmt: skip
        assert (row["verdict"], codes(row)) == ("pass", [])

    DOMAINS = (
        {"domain": "a.example", "direction": "inbound"},
        {"domain": "b.example", "direction": "outbound", "certificate_check": "hostname"},
    )

    def noted(self, in_force: dict[str, Any]) -> dict[str, Any]:
        """A gateway whose note is as the inventory wants it."""
        facts = hostvars(results(probe("gw1")))
        outbound = {"accept": "tls_only", "send": "required"}
        facts["gw1"].update(
            gateway_now={"enforced_domains": self.DOMAINS, "outbound": outbound, "in_force": in_force},
            starttls_enforced_domains=self.DOMAINS, starttls_accept="tls_only", starttls_send="required",
        )  # fmt: skip
        return facts

    IN_FORCE = {  # noqa: RUF012
        "inbound": {"a.example": True},
        "outbound": {"b.example": True},
        "accept": {"tls_only": True},
        "send": {"required": True},
    }

    @pytest.mark.parametrize(("answer", "code"), [(False, "not_as_wanted"), (None, "in_force_unknown")])
    @pytest.mark.parametrize(
        ("what", "one", "title"),
        [
            ("inbound", "a.example", "TLS for a.example (inbound)"),
            ("outbound", "b.example", "TLS for b.example (outbound)"),
            ("accept", "tls_only", "starttls_accept: tls_only"),
            ("send", "required", "starttls_send: required"),
        ],
    )
    def test_a_daemon_that_was_edited_since(self, what: str, one: str, title: str, answer: Any, code: str) -> None:
        facts = self.noted({**self.IN_FORCE, what: {one: answer}})
        row = verdict(facts, host="gw1")
        assert codes(row) == [code]
        assert row["verdict"] == ("FAIL" if answer is False else "pass, 1 warning")
        assert row["findings"][0]["message"].startswith(f"gw1 has noted {title}, and its daemon's configuration ")
        assert codes(verdict(facts, host="gw1", expected="either")) == []
        [plain] = verdict_rows(["gw1"], facts, GROUPS, estate([], facts, list(facts)))
        gone = answer is False and one in ("a.example", "b.example")
        assert [held["domain"] for held in plain["enforced"]] == [
            name for name in ("a.example", "b.example") if not (gone and name == one)
        ]

    @pytest.mark.parametrize("in_force", [IN_FORCE, {}])
    def test_a_daemon_that_does_it_or_does_not_run(self, in_force: dict[str, Any]) -> None:
        assert codes(verdict(self.noted(in_force), host="gw1")) == []

    def test_what_cannot_be_told_is_said_once(self) -> None:
        facts = self.noted({**self.IN_FORCE, "inbound": {"a.example": None}})
        facts["gw1"]["gateway_now"]["differences"] = [
            {"what": "inbound a.example", "code": "gateway_unproved", "severity": "error", "message": "a cause"}
        ]
        assert codes(verdict(facts, host="gw1")) == ["gateway_unproved"]

    def test_the_report_calls_no_domain_enforced_that_is_not(self) -> None:
        held, other = ({"domain": name, "direction": "inbound"} for name in ("a.example", "b.example"))
        facts = hostvars(results(probe("gw1")))
        facts["gw1"]["starttls_enforced_domains"] = [held, other]
        wanted = estate([], facts, list(facts))
        [row] = verdict_rows(["gw1"], facts, GROUPS, wanted)
        assert row["enforced"] == [held, other], "nothing was read"
        facts["gw1"]["gateway_now"] = {"enforced_domains": [held]}
        [row] = verdict_rows(["gw1"], facts, GROUPS, wanted)
        assert row["enforced"] == [held]

    @pytest.mark.parametrize(
        ("tls", "wanted", "expected"),
        [
            ("offered", "required", ["not_as_wanted"]),
            ("none", "required", ["not_as_wanted"]),
            ("required", "required", []),
            ("unknown", "required", []),
            ("offered", "offered", []),
        ],
    )
    def test_a_mail_server_that_is_to_require_tls(self, tls: str, wanted: str, expected: list[str]) -> None:
        facts = hostvars(results(probe("mx")))
        facts["mx"]["starttls_inbound"] = wanted
        listener = {"service": "smtp/inet", "host": "", "port": 25, "tls": tls, "certificates": [], "overrides": {}}
        facts["mx"]["mail_server_observed"] = {"kind": "postfix", "listeners": [listener]}
        assert codes(verdict(facts)) == expected
        assert codes(verdict(facts, expected="either")) == []
        facts["mx"]["mail_server_result"] = {"changed": True}
        assert codes(verdict(facts)) == [], "what was read before a change is no longer so"

    @pytest.mark.parametrize(
        ("setting", "level", "wanted", "expected"),
        [
            ("relayhost", "may", "required", ["not_as_wanted"]),
            ("default_transport", "none", "required", ["not_as_wanted"]),
            ("relayhost", "encrypt", "required", []),
            ("relayhost", "may", "opportunistic", []),
            ("transport remote_smtp_smarthost", "opportunistic", "required", ["not_as_wanted"]),
            ("transport remote_smtp_smarthost", "required", "required", []),
            ("transport own", "opportunistic", "required", []),
        ],
    )
    def test_a_mail_server_that_is_to_send_over_tls_only(
        self, setting: str, level: str, wanted: str, expected: list[str]
    ) -> None:
        facts = hostvars(results(probe("mx")))
        facts["mx"]["starttls_outbound"] = wanted
        way = {"setting": setting, "transport": "smtp", "level": level}
        facts["mx"]["mail_server_observed"] = {"kind": "postfix", "transports": [way]}
        assert codes(verdict(facts)) == expected


@pytest.mark.parametrize(
    ("expected", "sends", "wanted"),
    [
        ("offered", ["required", "required"], [True, True]),
        ("offered", ["required", None], [True]),
        ("offered", ["opportunistic"], [True]),
        ("offered", [], [True]),
        ("disabled", ["required"], [False]),
        ("either", ["required"], [None]),
    ],
)
def test_a_gateway_that_sends_over_tls_only_has_to(expected: str, sends: list[Any], wanted: list[Any]) -> None:
    assert outbound_expectations(expected, sends) == wanted
