"""The delivery mode is what the gateways say, not what the inventory wants. What differs is a finding."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import build
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.table import fleet_verdict
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import verdict_rows

from tests.support.plan_states import States, config, gateway, server
from tests.support.report_rows import probe

GROUPS = {"mail_gateways": ["gw1"], "mail_servers": ["m1", "m2"]}


def held(name: str = "main", mode: str = "match_sender", *servers: str, domains: Any = ()) -> dict[str, Any]:
    return {
        "name": name, "domains": [*domains] or [f"{name}.example"], "servers": [*servers] or ["m1.test:25"], "delivery_mode": mode,
    }  # fmt: skip


def now(*configs: dict[str, Any], delivered: Any = None, **more: Any) -> dict[str, Any]:
    """What inbound_tls_mode_info says. delivered: where the daemon does something else than was set."""
    modes = {domain: one["delivery_mode"] for one in configs for domain in one["domains"]}
    return {
        "changed": False, "email_configs": [*configs], "delivery_modes": [], "limits": {}, "enforced_domains": [], "outbound": {},
        "accepted_domains": {}, "delivered_modes": {**modes, **(delivered or {})}, "keeps_names": True, **more,
    }  # fmt: skip


def hostvars(read: Any = None, **gateways: Any) -> dict[str, Any]:
    servers = {
        name: {"starttls_hostname": f"{name}.test", "verify_probe": {"results": [probe(f"{name}.test")]}}
        for name in ("m1", "m2")
    }
    every = {"gw1": read, **gateways}
    seen = {"results": [probe(f"{name}.test") for name in servers]}
    own = {"results": [probe("gw.test")]}
    return {
        **servers,
        **{
            name: {"starttls_hostname": "gw.test", "verify_probe": own, "verify_from_gateway": seen, "gateway_now": one}
            for name, one in every.items()
        },
    }


def rows(
    facts: dict[str, Any], *configs: dict[str, Any], groups: Any = GROUPS, expected: str = "offered", run: Any = ()
) -> Any:
    """Host -> its row of the table."""
    hosts = [*run] or [*facts]
    found = verdict_rows(hosts, facts, groups, estate(list(configs), facts, hosts), expected)
    table, _text = fleet_verdict(found, "", "error")
    document = build(found, title="")
    for row, host in zip(table["rows"], document["hosts"]):
        assert row["delivery_mode"] == host["delivery_modes"]
        assert [one["code"] for one in row["findings"]] == [one["code"] for one in host["findings"]]
    return {row["host"]: row for row in table["rows"]}


def codes(row: dict[str, Any]) -> list[str]:
    return [one["code"] for one in row["findings"]]


class TestMode:
    def test_it_is_that_of_the_gateway(self) -> None:
        row = rows(hostvars(now(held())), config())["m1"]
        assert (row["delivery_mode"], row["verdict"]) == (["match_sender"], "pass")

    def test_after_set_delivery_mode_the_report_shows_the_mode_that_was_set_and_what_the_inventory_wants(self) -> None:
        row = rows(hostvars(now(held(mode="plaintext"))), config(mode="match_sender"))["m1"]
        assert (row["delivery_mode"], row["verdict"]) == (["plaintext"], "FAIL")
        [finding] = row["findings"]
        assert (finding["code"], finding["severity"]) == ("delivery_mode_differs", "error")
        assert finding["message"] == (
            "email config main: the inventory wants the mode 'match_sender', and the gateway gw1 delivers main.example in the mode "
            "'plaintext'; correct delivery_mode in email_configs, or run enable_tls, which sets the mode of the inventory"
        )

    def test_after_uninstall_the_inventory_wishes_nothing_of_the_gateway(self) -> None:
        row = rows(hostvars(now(delivered={"main.example": "plaintext"})), config(mode="required"), expected="removed")[
            "m1"
        ]
        assert (row["delivery_mode"], row["verdict"], row["findings"]) == (["plaintext"], "pass", [])

    def test_it_is_that_of_the_daemon_whatever_was_noted(self) -> None:
        row = rows(hostvars(now(held(), delivered={"main.example": "plaintext"})), config())["m1"]
        assert (row["delivery_mode"], codes(row)) == (["plaintext"], ["delivery_mode_differs"])

    def test_a_mode_that_the_inventory_does_not_name_differs_from_none(self) -> None:
        row = rows(hostvars(now(held(mode="required"))), config(mode=None))["m1"]
        assert (row["delivery_mode"], row["verdict"]) == (["required"], "pass")

    def test_a_gateway_that_was_never_told_of_the_email_config(self) -> None:
        row = rows(hostvars(now(delivered={"main.example": "opportunistic"})), config())["m1"]
        assert (row["delivery_mode"], codes(row)) == (["opportunistic"], ["delivery_mode_differs"])

    def test_a_gateway_that_keeps_the_mail_itself_under_another_name(self) -> None:
        facts = hostvars(now())
        facts["m1"] = {**facts["m1"], "starttls_address": "192.0.2.1", "groups": GROUPS}
        facts["gw1"] |= {"starttls_address": "192.0.2.1"}
        row = rows(facts, config(mode=None))["m1"]
        assert (row["delivery_mode"], codes(row), row["verdict"]) == (["gateway itself"], [], "pass")

    def test_without_a_gateway_the_column_says_so(self) -> None:
        facts = {name: one for name, one in hostvars().items() if name != "gw1"}
        row = rows(facts, config(), groups={"mail_servers": ["m1", "m2"]})["m1"]
        assert (row["delivery_mode"], row["verdict"]) == (["no gateway"], "pass")
        found = rows(facts, groups={"mail_servers": ["m1", "m2"]})
        assert [one["delivery_mode"] for one in found.values()] == [["no gateway"]] * 2, "also without an email config"

    @pytest.mark.parametrize("read", [{"failed": True, "msg": "no sudo"}, {"unreachable": True, "msg": "gone"}])
    def test_a_gateway_that_could_not_be_read(self, read: dict[str, Any]) -> None:
        found = rows(hostvars(read), config())
        assert (found["m1"]["delivery_mode"], codes(found["m1"])) == (["unknown"], ["delivery_mode_unknown"])
        assert read["msg"] in found["m1"]["findings"][0]["message"]
        assert (found["gw1"]["verdict"], codes(found["gw1"])) == ("FAIL", ["not_gathered"])

    @pytest.mark.parametrize("told", [None, "as we like", {}])
    def test_a_gateway_that_does_not_tell(self, told: Any) -> None:
        row = rows(hostvars(now(held(), delivered={"main.example": told})), config())["m1"]
        assert (row["delivery_mode"], row["verdict"]) == (["unknown"], "pass, 1 warning")
        assert codes(row) == ["delivery_mode_unknown"]

    def test_a_gateway_outside_the_run(self) -> None:
        facts = hostvars()
        facts["gw1"] = {}
        row = rows(facts, config(), run=["m1"])["m1"]
        assert (row["delivery_mode"], codes(row)) == (["not in this run"], ["not_tested_from_gateway"])
        assert "which is not in this run" in row["findings"][0]["message"]

    def test_two_gateways_that_differ(self) -> None:
        groups = {**GROUPS, "mail_gateways": ["gw1", "gw2"]}
        found = rows(hostvars(now(held()), gw2=now(held(mode="required"))), config(), groups=groups)["m1"]
        assert (found["delivery_mode"], codes(found)) == (["match_sender", "required"], ["delivery_mode_differs"])
        found = rows(hostvars(now(held()), gw2={"failed": True, "msg": "x"}), config(), groups=groups)["m1"]
        assert (found["delivery_mode"], codes(found)) == (["match_sender", "unknown"], ["delivery_mode_unknown"])

    def test_an_enforced_domain_has_a_level_of_its_own(self) -> None:
        enforced = [{"domain": "main.example", "direction": "outbound", "certificate_check": "hostname", "servers": []}]
        read = now(held(), delivered={"main.example": "required"}, enforced_domains=enforced)
        row = rows(hostvars(read), config())["m1"]
        assert (row["delivery_mode"], row["verdict"]) == (["required"], "pass")

    def test_with_tls_off_everything_is_plaintext(self) -> None:
        row = rows(hostvars(now(held(mode="match_sender"))), config(), expected="disabled")["m1"]
        assert "delivery_mode_differs" in codes(row)
        row = rows(hostvars(now(held(mode="plaintext"))), config(), expected="disabled")["m1"]
        assert "delivery_mode_differs" not in codes(row)

    def test_mail_that_comes_by_an_email_config_that_the_inventory_lacks(self) -> None:
        found = rows(hostvars(now(held(), held("old", "required", "M1.test:25", "m2.test:25"))), config())
        assert found["m1"]["delivery_mode"] == ["match_sender", "required"]
        assert found["m2"]["delivery_mode"] == ["required"]

    def test_the_read_of_the_plan_counts_until_something_changes(self) -> None:
        facts = hostvars()
        facts["gw1"] = {**facts["gw1"], "gateway_observed": gateway("gw1", view=now(held(mode="required")))}
        del facts["gw1"]["gateway_now"]
        assert rows(facts, config(mode="required"))["m1"]["delivery_mode"] == ["required"]
        facts["gw1"]["gateway_result"] = {"changed": True}
        assert rows(facts, config(mode="required"))["m1"]["delivery_mode"] == ["unknown"]

    def test_messages_are_judged_by_the_mode_that_is(self) -> None:
        facts = hostvars(now(held(mode="plaintext")))
        hops = [{"network": True, "tls": tls, "by": "m1.test", "protocol": "ESMTP"} for tls in (True, False)]
        facts["m1"]["verify_trace"] = {"received": [{"marker": "in", "arrived": True, "hops": hops}]}
        assert codes(rows(facts, config())["m1"]) == ["delivery_mode_differs"]
        facts["gw1"]["gateway_now"] = {"failed": True, "msg": "x"}
        assert codes(rows(facts, config())["m1"]) == ["delivery_mode_unknown", "message"]

    def test_an_email_config_none_of_whose_servers_is_in_the_run_has_the_row_of_the_gateway(self) -> None:
        facts = hostvars(now(held(mode="plaintext")))
        found = rows(facts, config(), run=["gw1", "m2"])
        assert (codes(found["gw1"]), codes(found["m2"])) == (["delivery_mode_differs"], [])


EXTRA = held("old", "required", "m2.test:25", "far.test:26", domains=["old.example", "old.test"])


class TestEmailConfigs:
    def test_one_that_the_inventory_lacks_is_told_with_the_line_that_removes_it(self) -> None:
        row = rows(hostvars(now(held(), EXTRA)), config())["gw1"]
        assert (row["verdict"], codes(row)) == ("pass, 1 warning", ["email_config_extra"])
        told, _, line = row["findings"][0]["message"].partition(" with this line there: ")
        assert told.startswith(
            "the gateway routes the email config old (old.example, old.test) in the mode 'required', and the inventory lacks it; "
        )
        [entry] = yaml.safe_load(line)
        assert entry == {
            "name": "old", "domains": ["old.example", "old.test"], "servers": ["m2", "far.test:26"], "state": "absent",
        }  # fmt: skip

    def test_one_whose_name_is_misspelt(self) -> None:
        misspelt = {**config("mian"), "domains": ["main.example"]}
        row = rows(hostvars(now(held())), misspelt)["gw1"]
        assert codes(row) == ["email_config_extra"]
        assert row["findings"][0]["message"].endswith(
            "; its domains are in the email config mian of the inventory: correct the name there, or run enable_tls, which moves them"
        )
        assert "absent" not in row["findings"][0]["message"]

    def test_a_gateway_without_names_has_none_too_many(self) -> None:
        row = rows(hostvars(now(held("main.example"), held("other.example"), keeps_names=False)), config())["gw1"]
        assert codes(row) == []

    def test_a_run_for_one_email_config_says_nothing_of_others(self) -> None:
        assert codes(rows(hostvars(now(held(), EXTRA)), config(), expected="either")["gw1"]) == []

    def test_a_domain_that_the_gateway_does_not_accept(self) -> None:
        read = now(held(), accepted_domains={"main.example": False, "x.example": False})
        row = rows(hostvars(read), config())["gw1"]
        assert (row["verdict"], codes(row)) == ("FAIL", ["domain_not_accepted"])
        assert row["findings"][0]["message"].startswith(
            "email config main: the gateway takes no mail for main.example; "
        )
        read = now(held(), accepted_domains={"main.example": None})
        assert codes(rows(hostvars(read), config())["gw1"]) == []


DIFFERS = {"what": "email config main", "code": "gateway_differs", "severity": "error", "message": "the table is empty"}


class TestDifferences:
    """What the gateway itself says: its daemon does not do what was set there."""

    @pytest.mark.parametrize("expected", ["offered", "disabled", "either"])
    @pytest.mark.parametrize("configs", [[], [config(mode=None)]])
    def test_the_gateway_fails_whatever_the_inventory_names(self, expected: str, configs: Any) -> None:
        read = now(held(), delivered={"main.example": "plaintext"}, differences=[DIFFERS])
        row = rows(hostvars(read), *configs, expected=expected)["gw1"]
        [finding] = [one for one in row["findings"] if one["code"] == "gateway_differs"]
        assert row["verdict"] == "FAIL"
        assert finding["message"].startswith("email config main: the table is empty; see who changed it")

    def test_what_is_unknown_is_not_said_twice(self) -> None:
        unproved = {**DIFFERS, "code": "gateway_unproved", "message": "the second instance does not run"}
        found = rows(hostvars(now(held(), delivered={"main.example": None}, differences=[unproved])), config())
        assert (codes(found["m1"]), codes(found["gw1"])) == ([], ["gateway_unproved"])

    def test_what_the_gateway_has_not_read_is_said_once(self) -> None:
        note = {
            "code": "edits_not_read",
            "message": "/x changed after the mail server has read it last; the reload activates it",
        }
        facts = hostvars(now(held(), differences=[]))
        facts["gw1"]["gateway_observed"] = gateway(notes=[note])
        assert codes(rows(facts, config())["gw1"]) == ["edits_not_read"]
        told = {**DIFFERS, "what": "gateway", "code": "edits_not_read", "severity": "warning", "message": "/x changed"}
        facts["gw1"]["gateway_now"]["differences"] = [told]
        assert codes(rows(facts, config())["gw1"]) == ["edits_not_read"]

    def test_another_version_has_other_codes(self) -> None:
        odd = {**DIFFERS, "what": "gateway", "code": "something_new"}
        row = rows(hostvars(now(held(), differences=[odd, {}])), config())["gw1"]
        assert codes(row) == ["unknown_finding", "unknown_finding"]

    def test_the_plan_warns_once_and_goes_on(self) -> None:
        view = {
            "email_configs": [held()], "delivered_modes": {"main.example": "plaintext"}, "differences": [DIFFERS],
        }  # fmt: skip
        plan = States(config(), gw1=gateway(view=view), m1=server(), m2=server("m2")).plan()
        assert [(one.host, one.finding.code) for one in plan.warnings] == [("gw1", "gateway_differs")]
        assert not plan.obstacles


class TestPlan:
    def test_the_plan_says_it_too(self) -> None:
        view = {
            "email_configs": [held(), EXTRA],
            "delivered_modes": {"main.example": "plaintext", "old.test": "required"},
        }
        plan = States(config(), gw1=gateway(view=view), m1=server(), m2=server("m2")).plan()
        found = {one.finding.code: one for one in plan.warnings}
        assert set(found) == {"email_config_extra", "delivery_mode_differs"}
        assert {one.host for one in found.values()} == {"gw1"}
        line = found["email_config_extra"].finding.message.partition(" with this line there: ")[2]
        assert yaml.safe_load(line)[0]["servers"] == ["m2", "far.test:26"]
        assert found["delivery_mode_differs"].finding.message.startswith(
            "email config main: the mode 'match_sender' was set, and the gateway delivers main.example in the mode 'plaintext'; "
        )

    def test_a_hostile_name_stays_in_its_line(self) -> None:
        odd = {**EXTRA, "name": 'x", state: present}\n- {"a": "\x1b[2J'}
        plan = States(config(), gw1=gateway(view={"email_configs": [held(), odd]}), m1=server()).plan()
        [one] = [one for one in plan.warnings if one.finding.code == "email_config_extra"]
        line = one.finding.message.partition(" with this line there: ")[2]
        assert "\n" not in one.finding.message and "\x1b" not in one.finding.message
        assert yaml.safe_load(line)[0]["state"] == "absent"
        assert json.loads(line.removeprefix("- "))["domains"] == EXTRA["domains"]
