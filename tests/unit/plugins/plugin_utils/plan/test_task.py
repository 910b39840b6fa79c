"""What the task makes of the variables of the hosts, and when it fails."""

import json
import os
import stat

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.modules.tls_plan import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import (
    FAIL_ON,
    observed_of,
    plan_of_run,
    plan_result,
    write_plan,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import STEPS

from tests.support.plan_states import States, config, gateway, plain, probe, server

FAILED, SKIPPED = {"failed": True, "msg": "no"}, {"skipped": True, "changed": False}
CLEAN = States(m1=server("m1"))
DRIFT = States(m1=server("m1", drift=True))
BLOCKED = States(m1=server("m1", drift=True, obstacles=[{"code": "port_in_use", "message": "port 25 is in use"}]))
UNKNOWN = States(m1={"unreachable": True, "msg": "no route"})
KILLED = States(
    config(),
    gw1=gateway(probes=[probe("m1.test")]),
    m1=server("m1", drift=True, journal={"path": "/var/lib/x.journal", "files": ["/etc/x"]}),
)


def options(wanted, **changes):
    return {
        "estate": json.loads(json.dumps(wanted.to_json())), "action": "enable", "observed": ["mail_server_observed", "gateway_observed"],
        "batches": None, "only_these_hosts": False, **changes,
    }  # fmt: skip


def test_the_options_are_what_the_plan_knows():
    assert ARGUMENT_SPEC["action"]["choices"] == list(STEPS)
    assert ARGUMENT_SPEC["fail_on"]["choices"] == list(FAIL_ON)


GROUPS = {"mail_gateways": ["gw1"], "mail_servers": ["m1", "m2"], "all": ["gw1", "m1", "m2", "other"]}


class TestVariables:
    def test_a_run(self):
        hostvars = {
            "gw1": {"mail_server_observed": SKIPPED, "gateway_observed": gateway(probes=[plain("m1.test")])},
            "m1": {"starttls_inbound": "required", "mail_server_observed": server("m1", drift=True)},
            "m2": {},
        }
        for host, facts in hostvars.items():
            facts["starttls_hostname"] = f"{host}.test"
        wanted = Estate.parse([config(mode="required")], hostvars, ["gw1", "m1", "m2"])
        plan = plan_of_run(options(wanted), hostvars, GROUPS)
        assert {host: (one.role, one.state, one.steps) for host, one in plan.hosts.items()} == {
            "gw1": ("gateway", "clean", ()),
            "m1": ("mail_server", "drift", ("offer", "require")),
            "m2": ("mail_server", "unknown", ()),
        }
        assert plan.cost.senders == ("m1",)

    @pytest.mark.parametrize(("plan_only", "broken", "result"), [(0, 0, "blocked"), (1, 0, "drift"), (0, 1, "drift")])
    def test_another_run_that_changes_the_fleet(self, plan_only, broken, result):
        lock = {
            "user": "alice",
            "controller": "c.example",
            "playbook": "disable_tls",
            "run": "a1",
            "since": 1.8e9,
            "age": 7,
        }
        hostvars = {
            "gw1": {
                "gateway_observed": {**gateway(), "fleet_lock": lock},
                **({"starttls_lock_break": True} if broken else {}),
            },
            "m1": {"mail_server_observed": server("m1", drift=True)},
        }
        wanted = options(Estate.parse([], hostvars, ["gw1", "m1"]), plan_only=bool(plan_only))
        plan = plan_of_run(wanted, hostvars, {**GROUPS, "mail_servers": ["m1"]})
        said = json.dumps(plan.to_json())
        assert plan.result == result
        assert "holds its lock on gw1: disable_tls, run by alice on c.example" in said or broken
        assert ("because starttls_lock_break is set" in said) is bool(broken)

    @pytest.mark.parametrize(
        ("given", "sizes"),
        [(None, [1, 1, 2]), ([2], [2, 2]), ("3, 100%", [3, 1]), (4, [4]), ("50%", [2, 2])],
    )
    def test_the_sizes_of_batches_are_those_of_the_mail_servers(self, given, sizes):
        """A group's variable counts, although the task that plans runs on the gateway."""
        names = ["m1", "m2", "m3", "m4"]
        hostvars = {"gw1": {"starttls_batches": [9], "gateway_observed": gateway()}}
        for host in names:
            hostvars[host] = {"starttls_batches": given, "mail_server_observed": server(host, drift=True)}
        wanted = Estate.parse([], hostvars, ["gw1", *names])
        plan = plan_of_run(options(wanted), hostvars, {"mail_gateways": ["gw1"], "mail_servers": names})
        assert list(plan.steps["offer"].batches) == sizes

    @pytest.mark.parametrize(
        ("waived", "result"), [(True, "clean"), ("yes", "clean"), ("false", "blocked"), (None, "blocked")]
    )
    def test_evidence_that_a_gateway_waives(self, waived, result):
        hostvars = {
            "gw1": {"starttls_require_without_evidence": waived, "gateway_observed": gateway(probes=[plain("m1")])},
            "m1": {"mail_server_observed": server("m1")},
        }
        wanted = Estate.parse([config(mode="required")], hostvars, ["gw1", "m1"])
        assert plan_of_run(options(wanted), hostvars, {**GROUPS, "mail_servers": ["m1"]}).result == result

    def test_the_enforced_domains_that_a_gateway_gets(self):
        wanted = [
            {"domain": "A.example.", "direction": "inbound"},
            {"domain": "b.example", "direction": "outbound", "state": "absent"},
            "x",
        ]
        hostvars = {"gw1": {"starttls_enforced_domains": wanted, "gateway_observed": gateway(drift=True)}}
        plan = plan_of_run(options(Estate(("gw1",))), hostvars, {"mail_gateways": ["gw1"], "mail_servers": []})
        assert plan.former.to_json()["hosts"]["gw1"]["enforced_domains"] == [
            {"domain": "a.example", "direction": "inbound"}
        ]

    def test_a_host_outside_the_run_may_have_nonsense_in_its_variables(self):
        hostvars = {"gw1": {"starttls_port": "x"}, "m1": {"mail_server_observed": server("m1")}, "m2": {}}
        assert list(plan_of_run(options(Estate(("m1",))), hostvars, GROUPS).hosts) == ["m1"]
        with pytest.raises(EngineError, match="starttls_hostname or starttls_port of gw1"):
            plan_of_run(options(Estate(("gw1", "m1"))), hostvars, GROUPS)

    def test_a_role_alone_plans_for_the_hosts_of_its_play(self):
        """The others of the inventory are no gateways or mail servers of its run, so nothing is wanted of them."""
        hostvars = {"gw1": {"starttls_port": "x"}, "m1": {"mail_server_observed": server("m1", drift=True)}, "m2": {}}
        alone = plan_of_run(options(Estate(("m1",)), only_these_hosts=True), hostvars, GROUPS)
        assert {host: (one.role, one.state) for host, one in alone.hosts.items()} == {"m1": ("mail_server", "drift")}
        # A gateway that is not in the play cannot be the one that it sends through.
        hostvars["gw1"] = {"starttls_hostname": "gw1.test"}
        assert plan_of_run(options(Estate(("m1",)), only_these_hosts=True), hostvars, GROUPS).cost.senders == ()
        assert plan_of_run(options(Estate(("m1",))), hostvars, GROUPS).cost.senders == ("m1",)

    @pytest.mark.parametrize(
        ("results", "expected"),
        [([], {}), ([None, SKIPPED, {}], {}), ([{"a": 1}, {"gateway": {"x": 1}}], {"gateway": {"x": 1}}), ([{"a": 1}, {"b": 1}], {"a": 1}),
         ([{"gateway": {"x": 1}}, FAILED], FAILED), ([FAILED, {"a": 1}], FAILED), (["text", {"a": 1}], {"a": 1})],
    )  # fmt: skip
    def test_the_result_that_counts(self, results, expected):
        assert observed_of(results) == expected


class TestResult:
    @pytest.mark.parametrize(
        ("states", "drift", "blocked", "never", "changing"),
        [
            (CLEAN, False, False, False, False),
            (DRIFT, True, False, False, False),
            (BLOCKED, True, True, False, True),
            (UNKNOWN, True, True, False, True),
        ],
    )
    def test_when_it_fails(self, states, drift, blocked, never, changing):
        plan = states.plan()
        assert [plan_result(plan, True, one)[0]["failed"] for one in ("drift", "blocked", "never")] == [
            drift,
            blocked,
            never,
        ]
        assert {plan_result(plan, False, one)[0]["failed"] for one in ("drift", "blocked", "never")} == {changing}

    def test_the_message_says_what_to_do_next(self):
        def message(states, plan_only=False, fail_on="blocked"):
            return plan_result(states.plan(), plan_only, fail_on)[0]["msg"]

        assert message(CLEAN) == "the plan is clean: 1 host"
        assert message(DRIFT) == "the plan is drift: 1 host, 1 to change"
        assert message(DRIFT, True, "drift") == (
            "the plan is drift: 1 host, 1 to change; make the changes with enable_tls.yml, or set starttls_plan_fail_on to 'blocked'"
        )
        assert message(BLOCKED) == (
            "the plan is blocked: 1 host, 1 blocked (m1); nothing was changed. Do what stands under 'In the way', and run again; "
            "plan_tls.yml shows the plan alone. m1: port 25 is in use"
        )
        assert message(UNKNOWN, True) == (
            "the plan is unknown: 1 host, 1 unknown (m1); nothing was changed. Do what stands under 'In the way', and run again. "
            "m1: no route; check that the host and its server run"
        )
        far = States(config(mode="required"), gw1=gateway(probes=[plain("m1.test")])).with_outside("m1")
        assert "something in the way outside this run (m1)" in message(far)

    @pytest.mark.parametrize(
        ("other", "undone"),
        [
            ({}, True),
            ({"m2": server("m2", drift=True)}, True),
            ({"m2": BLOCKED["m1"]}, False),
            ({"m2": UNKNOWN["m1"]}, False),
        ],
    )
    def test_a_killed_run_is_undone_first_unless_another_host_stops_this_run_in_any_case(self, other, undone):
        interrupted = {**BLOCKED["m1"], "journal": {"path": "/j", "files": []}}
        plan = States(m1=interrupted, **other).plan()
        result, text = plan_result(plan, False, "blocked")
        assert (result["failed"], result["run"]["recover"], not text) == (not undone, ["m1"] * undone, undone)
        result, text = plan_result(plan, True, "blocked")
        assert (result["failed"], result["run"]["recover"]) == (True, [])
        assert "undo the killed run" in text

    def test_what_a_killed_run_left_half_changed_does_not_keep_it_from_being_undone(self):
        states = States(
            config(mode="required"),
            gw1=gateway(probes=[plain("m1.test")]),
            m1=server("m1", journal={"path": "/j", "files": []}),
        )
        plan = states.plan()
        assert [one.finding.code for one in plan.obstacles] == ["server_without_starttls"]
        assert plan_result(plan, False, "blocked")[0]["run"]["recover"] == ["m1"]

    def test_the_result_is_plain_data(self):
        result, text = plan_result(DRIFT.plan(), True, "blocked")
        assert (result["changed"], result["plan"]["result"]) == (False, "drift")
        assert json.loads(json.dumps(result)) == result
        assert text.startswith(f"Plan: enable: drift\n\n{result['table']}\n")


class TestRun:
    """What the steps of a playbook read."""

    def test_every_step_is_there_also_without_hosts(self):
        states = States(config(), gw1=gateway(probes=[probe("m1.test")]), m1=server("m1", drift=True))
        plan = states.plan()
        run = plan.run(may_change=True)
        assert list(run["steps"]) == list(STEPS["enable"])
        assert run["steps"]["offer"] == {"hosts": ["m1"], "batches": [1]}
        assert run["steps"]["accept"] == run["steps"]["require"] == {"hosts": [], "batches": []}
        assert (run["action"], run["prove"], run["recover"]) == ("enable", list(plan.prove), [])
        assert run["prove"] != []
        assert run["hosts"]["m1"] == {
            "role": "mail_server", "title": plan.hosts["m1"].title, "steps": ["offer"], "digests": server("m1")["digests"],
            "after": {"inbound": "offered", "outbound": "opportunistic"},
        }  # fmt: skip
        assert json.loads(json.dumps(run)) == run

    @pytest.mark.parametrize("action", STEPS)
    def test_nothing_follows_a_plan_that_only_shows(self, action):
        plan = States(config(), gw1=gateway(probes=[probe("m1.test")]), m1=server("m1", drift=True)).plan(action)
        run = plan.run(may_change=False)
        assert run["steps"] == {step: {"hosts": [], "batches": []} for step in STEPS[action]}
        assert (run["prove"], run["recover"]) == ([], [])
        assert set(run["hosts"]) == {"gw1", "m1"}

    @pytest.mark.parametrize("plan_only", [False, True])
    def test_the_result_holds_it(self, plan_only):
        plan = DRIFT.plan()
        assert plan_result(plan, plan_only, "blocked")[0]["run"] == plan.run(may_change=not plan_only)


class TestKilledRun:
    """A run that changes undoes first what a killed run left, reads those hosts again, and plans again."""

    def test_the_first_plan_is_silent_and_changes_nothing(self):
        result, text = plan_result(KILLED.plan(), False, "blocked")
        assert text == ""
        assert set(result) == {"changed", "failed", "stops", "msg", "run"}
        assert (result["changed"], result["failed"]) == (False, False)
        assert result["msg"] == (
            "a killed run has left changes on m1; they are undone first, then the hosts are read again"
        )
        assert result["run"]["recover"] == ["m1"]
        assert all(step == {"hosts": [], "batches": []} for step in result["run"]["steps"].values())
        assert result["run"]["prove"] == []

    @pytest.mark.parametrize("fail_on", FAIL_ON)
    def test_not_even_what_stands_in_the_way_is_shown_before_that(self, fail_on):
        """A half-made change may be the reason."""
        broken = [{"code": "configuration_broken", "message": "main.cf, line 3"}]
        states = States(m1=server("m1", obstacles=broken, journal={"path": "/x", "files": []}))
        assert states.plan().result == "blocked"
        result, text = plan_result(states.plan(), False, fail_on)
        assert (result["failed"], text, result["run"]["recover"]) == (False, "", ["m1"])

    @pytest.mark.parametrize("fail_on", FAIL_ON)
    def test_if_another_host_stops_the_run_all_is_shown_and_nothing_undone(self, fail_on):
        states = States(m1=server("m1", journal={"path": "/x", "files": []}), m2=UNKNOWN["m1"])
        result, text = plan_result(states.plan(), False, fail_on)
        assert (result["failed"], result["run"]["recover"]) == (True, [])
        assert text.startswith("Plan: enable: unknown")

    def test_a_journal_that_is_there_again_stops_the_run(self):
        result, _text = plan_result(KILLED.plan(), False, "never", recovered=True)
        assert result["failed"] and "run" not in result
        assert "they are still there after they were undone" in result["msg"]

    def test_a_plan_alone_shows_it_and_undoes_nothing(self):
        result, text = plan_result(KILLED.plan(), True, "blocked")
        assert result["run"]["recover"] == []
        assert result["plan"]["recover"] == ["m1"]
        assert [one["code"] for one in result["plan"]["warnings"] if one["host"] == "m1"] == ["interrupted_run"]
        assert "m1" in text and "Plan: enable: drift" in text

    def test_a_role_alone_goes_on(self):
        """The module that it calls undoes that itself."""
        result, text = plan_result(KILLED.plan(), False, "blocked", alone=True)
        assert (result["failed"], result["run"]["recover"]) == (False, [])
        assert result["run"]["steps"]["offer"]["hosts"] == ["m1"]
        assert text.startswith("Plan: enable: drift")

    def test_the_files_that_it_undoes_are_not_compared_with_the_plan(self):
        """They were read as the killed run left them, so the module would refuse its own way back."""
        result, _text = plan_result(KILLED.plan(), False, "blocked", alone=True)
        assert {host: bool(one["digests"]) for host, one in result["run"]["hosts"].items()} == {
            "gw1": True,
            "m1": False,
        }


class TestFile:
    def test_it_is_written_for_everybody(self, tmp_path):
        path = tmp_path / "plan.json"
        plan = States(config(), gw1=gateway(probes=[probe("m1.test")]), m1=server("m1", drift=True)).plan()
        write_plan(str(path), DRIFT.plan())
        write_plan(str(path), plan)
        assert json.loads(path.read_text()) == plan.to_json()
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_a_link_of_somebody_else_is_refused(self, tmp_path):
        victim, place = tmp_path / "authorized_keys", tmp_path / "theirs"
        victim.write_text("mine")
        place.mkdir()
        (place / "plan.json").symlink_to(victim)
        os.chown(place, 65534, 65534)
        with pytest.raises(EngineError, match=rf"{place} belongs to .*or correct json_file \(starttls_plan_file\)"):
            write_plan(str(place / "plan.json"), DRIFT.plan())
        assert victim.read_text() == "mine"

    def test_a_place_that_is_none(self, tmp_path):
        with pytest.raises(
            EngineError, match=r"there is no directory for .*create it, or correct json_file .starttls_plan_file"
        ):
            write_plan(str(tmp_path / "no/plan.json"), DRIFT.plan())
        with pytest.raises(
            EngineError, match=r"cannot be written on the controller: .*correct json_file .starttls_plan_file"
        ):
            write_plan(str(tmp_path), DRIFT.plan())
