"""The plan: each obstacle and warning, hosts that are unknown, hosts outside the run, steps, and the result of the whole."""

import json
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import NOTES, OBSTACLES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import plan_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.text import plan_text
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import STEPS, Plan

from tests.support.plan_states import States, config, gateway, plain, probe, server

ROOT = Path(__file__).resolve().parents[5]
SCHEMA = json.loads((ROOT / "docs/schema/plan.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
LOST = {"unreachable": True, "msg": "Failed to connect to the host via ssh: no route"}
SEEN = probe("m1.test")
PLAIN = plain("m1.test")
DEAD = probe(
    "m1.test", code="connect_failed", stage="connect", message="cannot connect to m1.test:25: Connection refused"
)
NAMELESS = {**DEAD, "message": "cannot connect to m1.test:25: Name or service not known"}
BROKEN = probe(
    "m1.test", code="tls_failed", stage="starttls_answered", starttls_advertised=True, message="no shared cipher"
)
STRICT = {"inbound": "required", "outbound": "opportunistic"}


def held(name="main", mode="plaintext", *servers):
    return {
        "name": name,
        "domains": [f"{name}.example"],
        "servers": list(servers or ("m1.test:25",)),
        "delivery_mode": mode,
    }


def codes(plan):
    return [(one.finding.code, one.host) for one in plan.obstacles]


def warned(plan):
    return [(one.finding.code, one.host) for one in plan.warnings]


def one(mode="required", probes=(SEEN,), action="enable", view=None, **said):
    """The plan of one gateway and one mail server."""
    hosts = {"gw1": gateway(probes=probes, view=view), "m1": server("m1"), **said}
    return States(config(mode=mode), **hosts).plan(action)


def check(plan):
    """Every plan is as its schema says, and comes back as it was."""
    data = json.loads(json.dumps(plan.to_json()))
    VALIDATOR.validate(data)
    assert Plan.from_json(data) == plan
    assert Plan.from_json(data).to_json() == plan.to_json()
    return plan


def test_the_schema_is_one_and_knows_every_word():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["action"]["enum"] == list(STEPS)
    assert set(SCHEMA["properties"]["steps"]["propertyNames"]["enum"]) == {
        step for steps in STEPS.values() for step in steps
    }


class TestResult:
    def test_clean(self):
        plan = check(one())
        assert (plan.result, plan.obstacles, plan.warnings, dict(plan.steps)) == ("clean", (), (), {})
        assert [host.state for host in plan.hosts.values()] == ["clean", "clean"]
        assert plan.prove == ()  # the tests of the read are the proof

    def test_drift(self):
        plan = check(
            one(
                m1=server("m1", drift=True),
                probes=[PLAIN],
                gw1=gateway(probes=[PLAIN], drift=True, view={"after": {"main": "required"}}),
            )
        )
        assert plan.result == "drift"
        assert {host: one.steps for host, one in plan.hosts.items()} == {"gw1": ("accept", "modes"), "m1": ("offer",)}
        assert list(plan.steps) == ["accept", "offer", "modes"]
        assert plan.hosts["m1"].present == "Postfix 3.7.11: inbound disabled, outbound disabled"
        assert set(plan.hosts["m1"].digests) == {
            f"/etc/postfix/{name}" for name in ("main.cf", "master.cf", "transport")
        }

    def test_a_reload_alone_is_a_change(self):
        assert one(m1=server("m1", reload=True)).hosts["m1"].steps == ("offer",)

    def test_unknown(self):
        plan = check(one(m1=LOST))
        assert (plan.result, plan.hosts["m1"].state, plan.hosts["gw1"].state) == ("unknown", "unknown", "clean")
        assert codes(plan) == [("unreachable", "m1")]

    def test_a_host_without_a_result_is_not_dropped(self):
        plan = check(one(m1={}))
        assert (plan.result, codes(plan)) == ("unknown", [("not_read", "m1")])

    def test_blocked_is_more_than_unknown(self):
        trouble = [{"code": "port_in_use", "message": "port 25 is in use"}]
        plan = check(one(m1=LOST, gw1=gateway(probes=[SEEN], obstacles=trouble)))
        assert (plan.result, plan.hosts["gw1"].state, plan.hosts["m1"].state) == ("blocked", "blocked", "unknown")

    def test_nothing_is_said_of_servers_that_an_unread_gateway_would_have_tested(self):
        assert codes(one(gw1=LOST)) == [("unreachable", "gw1")]

    @pytest.mark.parametrize("code", sorted(OBSTACLES))
    def test_what_a_host_says_stands_in_the_way(self, code):
        plan = check(one(m1=server("m1", drift=True, obstacles=[{"code": code, "message": "it is so"}])))
        assert (plan.result, plan.hosts["m1"].state) == ("blocked", "blocked")
        assert codes(plan) == [(code, "m1")]

    @pytest.mark.parametrize("code", sorted(NOTES))
    def test_what_a_host_notes_does_not(self, code):
        plan = check(one(m1=server("m1", notes=[{"code": code, "message": "it is so"}])))
        assert (plan.result, warned(plan)) == ("clean", [(code, "m1")])

    def test_a_killed_run(self):
        plan = check(one(m1=server("m1", journal={"path": "/var/lib/x", "files": ["/etc/postfix/main.cf"]})))
        assert (plan.result, plan.recover, warned(plan)) == ("drift", ("m1",), [("interrupted_run", "m1")])
        noted = [{"code": "interrupted_run", "message": "a run was killed"}]
        assert warned(one(m1=server("m1", journal={"path": "x", "files": []}, notes=noted))) == [
            ("interrupted_run", "m1")
        ]

    def test_requests_that_make_no_sense(self):
        with pytest.raises(EngineError, match="no plan for 'explode'; choose one of: enable"):
            one(action="explode")
        with pytest.raises(EngineError, match="no host to plan for"):
            States().plan()
        with pytest.raises(EngineError, match="starttls_batches"):
            States(m1=server("m1")).plan(batches=["many"])


class TestServers:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("action", ["enable", "set_delivery_mode"])
    @pytest.mark.parametrize(
        ("test", "needing"),
        [(SEEN, ()), (PLAIN, ("required", "match_sender_strict")), (BROKEN, MODES[1:])],
    )  # fmt: skip
    def test_a_handshake_for_modes_that_need_it(self, mode, action, test, needing):
        plan = check(one(mode, [test], action))
        assert codes(plan) == ([("server_without_starttls", "m1")] if mode in needing else [])
        assert plan.result == ("blocked" if mode in needing else "clean")

    def test_a_server_gets_starttls_in_this_run(self):
        assert codes(one(probes=[PLAIN], m1=server("m1", drift=True))) == []
        assert codes(one(probes=[BROKEN], m1=server("m1", drift=True))) == []
        assert codes(one(probes=[PLAIN], action="set_delivery_mode", m1=server("m1", drift=True))) == [
            ("server_without_starttls", "m1")
        ]

    def test_without_a_test_its_own_words_count(self):
        assert codes(one(probes=[])) == []
        off = server("m1", before={"inbound": "disabled", "outbound": "disabled"})
        assert codes(one(probes=[], m1=off)) == [("server_without_starttls", "m1")]

    @pytest.mark.parametrize("mode", MODES)
    def test_not_reachable(self, mode):
        plan = check(one(mode, [DEAD]))
        assert codes(plan) == [("server_not_reachable", "m1")]
        assert "the gateway gw1 cannot reach the mail server m1.test:25: " in plan.obstacles[0].finding.message

    @pytest.mark.parametrize("mode", MODES)
    def test_a_name_that_does_not_resolve(self, mode):
        plan = check(one(mode, [NAMELESS]))
        assert codes(plan) == [("name_not_resolved", "m1")]
        assert "the gateway gw1 cannot resolve the name of" in plan.obstacles[0].finding.message

    def test_a_stopped_daemon_is_said_once(self):
        stopped = server(
            "m1",
            health={"state": "stopped", "message": ""},
            obstacles=[{"code": "daemon_not_running", "message": "it does not run"}],
        )
        assert codes(one(probes=[DEAD], m1=stopped)) == [("daemon_not_running", "m1")]

    def test_an_unknown_server_is_said_once(self):
        assert codes(one(probes=[DEAD], m1=LOST)) == [("unreachable", "m1")]

    @pytest.mark.parametrize("mode", MODES)
    def test_a_server_that_requires_tls(self, mode):
        """Behind opportunistic it gets TLS, because the handshake completes."""
        refused = mode in ("plaintext", "match_sender", "match_sender_strict")
        plan = check(one(mode, [{**SEEN, "requires_tls": True}]))
        assert codes(plan) == ([("server_requires_tls", "m1")] if refused else [])
        assert codes(one(mode, [SEEN], m1=server("m1", before=STRICT, after=STRICT))) == codes(plan)
        if refused:
            assert "would be bounced" in plan.obstacles[0].finding.message
            softer = one(mode, [{**SEEN, "requires_tls": True}], view={"softens_refusals": True})
            assert "would be deferred" in softer.obstacles[0].finding.message

    def test_a_server_that_is_relaxed_in_time(self):
        relaxed = server("m1", drift=True, before=STRICT)
        assert codes(one("match_sender", [{**SEEN, "requires_tls": True}], m1=relaxed)) == []

    def test_a_server_that_will_require_tls_where_the_inventory_names_no_mode(self):
        states = States(config(mode=None), gw1=gateway(probes=[SEEN]), m1=server("m1"))
        assert codes(states.plan(inbound={"m1": "required"})) == [("server_requires_tls", "m1")]
        states["gw1"]["gateway"]["email_configs"] = [held(mode="required")]
        plan = check(states.plan(inbound={"m1": "required"}))
        assert (codes(plan), plan.hosts["m1"].steps) == ([], ("require",))

    def test_each_gateway_is_named(self):
        plan = one(gw2=gateway("gw2", probes=[DEAD]))
        assert codes(plan) == [("server_not_reachable", "m1")] and "gw2" in plan.obstacles[0].finding.message

    @pytest.mark.parametrize("action", ["enable", "set_delivery_mode"])
    def test_evidence_may_be_waived(self, action):
        states = States(config(mode="required"), gw1=gateway(probes=[PLAIN]), m1=server("m1"))
        plan = check(states.plan(action, without_evidence=frozenset({"gw1"})))
        assert (plan.result, codes(plan), warned(plan)) == ("clean", [], [("server_without_starttls", "m1")])

    def test_a_floor_that_a_server_does_not_reach_may_be_waived_too(self):
        below = [{"code": "server_below_floor", "message": "m1:25: it speaks TLSv1.2 at most"}]
        states = States(config(mode="required"), gw1=gateway(probes=[SEEN], obstacles=below), m1=server("m1"))
        assert codes(states.plan()) == [("server_below_floor", "gw1")]
        plan = check(states.plan(without_evidence=frozenset({"gw1"})))
        assert (plan.result, codes(plan), warned(plan)) == ("clean", [], [("server_below_floor", "gw1")])

    def test_what_would_bounce_is_not_waived(self):
        states = States(config(), gw1=gateway(probes=[{**SEEN, "requires_tls": True}]), m1=server("m1"))
        assert states.plan(without_evidence=frozenset({"gw1"})).result == "blocked"


class TestGateways:
    @pytest.mark.parametrize("action", ["enable", "set_delivery_mode"])
    def test_a_mode_that_it_cannot_express(self, action):
        limited = {
            "delivery_modes": ["plaintext", "required"],
            "limits": {"match_sender": "it does not know how mail arrived"},
        }
        plan = check(one("match_sender", action=action, view=limited))
        assert codes(plan) == [("mode_not_expressible", "gw1")]
        message = plan.obstacles[0].finding.message
        assert "'match_sender': it does not know how mail arrived; choose one of: plaintext, required" in message
        assert codes(one("required", view=limited)) == []

    def test_a_mode_that_it_refuses_itself_is_said_once(self):
        said = gateway(
            probes=[SEEN], view={"delivery_modes": []}, obstacles=[{"code": "mode_not_expressible", "message": "no"}]
        )
        assert codes(one(gw1=said)) == [("mode_not_expressible", "gw1")]

    @pytest.mark.parametrize(("takes", "found"), [(True, []), (None, []), (False, [("domain_not_accepted", "gw1")])])
    def test_a_domain_that_it_does_not_accept(self, takes, found):
        assert codes(check(one(view={"accepted_domains": {"main.example": takes}}))) == found

    def test_an_email_config_that_the_inventory_lacks(self):
        plan = check(one(view={"email_configs": [held(mode="required"), held("old", "required")]}))
        assert (plan.result, warned(plan)) == ("clean", [("email_config_extra", "gw1")])
        assert "email config old" in plan.warnings[0].finding.message
        assert warned(one(action="set_delivery_mode", view={"email_configs": [held("old")]})) == []

    def removed(self, **view):
        states = States(
            config("main", "m1"),
            {"name": "old", "state": "absent"},
            gw1=gateway(probes=[SEEN], view=view),
            m1=server("m1"),
        )
        return check(states.plan())

    def test_one_that_is_removed_is_a_change_and_nothing_that_is_missing(self):
        changes = [{"path": "/etc/postfix/mailfleet-starttls/transport", "lines": "-old.example x\n"}]
        plan = self.removed(
            email_configs=[held(), held("old", "required")], after={"main": "match_sender"}, changes=changes
        )
        assert (plan.result, warned(plan), list(plan.steps)) == ("drift", [], ["modes"])

    def test_mail_that_waits_for_one_that_is_removed_is_named(self):
        states = States(
            config(), gw1=gateway(probes=[SEEN], notes=[{"code": "queue_not_empty", "message": "4X to you@old.example: refused"}]),
            m1=server("m1"),
        )  # fmt: skip
        plan = check(states.plan())
        assert (plan.result, warned(plan)) == ("clean", [("queue_not_empty", "gw1")])
        assert plan.warnings[0].finding.message == "4X to you@old.example: refused"

    @pytest.mark.parametrize(
        ("takes", "found"), [(True, [("removed_domain_accepted", "gw1")]), (False, []), (None, [])]
    )
    def test_a_gateway_that_still_takes_mail_for_one_that_is_removed(self, takes, found):
        old = {**held("old", "required"), "domains": ["old.example"]}
        assert warned(self.removed(email_configs=[held(), old], accepted_domains={"old.example": takes})) == found

    def test_gateways_change_one_at_a_time(self):
        plan = one(gw1=gateway(probes=[SEEN], drift=True), gw2=gateway("gw2", probes=[SEEN], drift=True))
        assert (plan.steps["accept"].hosts, plan.steps["accept"].batches) == (("gw1", "gw2"), (1, 1))


class TestGatewayThatIsItsOwnMailServer:
    LOOP = (
        "email config main: gw1 is this gateway itself, so mail in the mode '{}' would loop back and bounce; leave "
        "delivery_mode of main away in email_configs, then gw1 delivers its mail as before; or take gw1 out of servers of main"
    )

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("action", ["enable", "set_delivery_mode"])
    def test_a_mode_is_refused_before_the_change(self, mode, action):
        plan = check(States(config("main", "gw1", mode=mode), gw1=gateway()).plan(action))
        assert codes(plan) == [("mail_would_loop", "gw1")]
        assert plan.obstacles[0].finding.message == self.LOOP.format(mode)

    def test_beside_other_mail_servers_too(self):
        plan = States(config("main", "m1", "gw1"), gw1=gateway(probes=[SEEN]), m1=server("m1")).plan()
        assert codes(plan) == [("mail_would_loop", "gw1")]

    @pytest.mark.parametrize("action", ["enable", "disable", "uninstall"])
    def test_without_a_mode_nothing_stands_in_the_way(self, action):
        plan = check(States(config("main", "gw1", mode=None), gw1=gateway()).plan(action))
        assert (codes(plan), warned(plan)) == ([], [])

    def test_another_gateway_may_deliver_to_it(self):
        """It has no loop, so only the one that has is named."""
        states = States(config("main", "gw1"), gw1=gateway(), gw2=gateway("gw2", probes=[probe("gw1.test")]))
        assert codes(states.plan()) == [("mail_would_loop", "gw1")]

    def test_its_domains_have_to_be_accepted_all_the_same(self):
        view = {"accepted_domains": {"main.example": False}}
        plan = States(config("main", "gw1", mode=None), gw1=gateway(view=view)).plan()
        assert codes(plan) == [("domain_not_accepted", "gw1")]

    def test_a_route_that_it_still_has_is_named_with_the_way_out(self):
        view = {"email_configs": [held("main", "opportunistic", "gw1.test:25")]}
        plan = States(config("main", "gw1", mode=None), gw1=gateway(view=view)).plan()
        assert codes(plan) == [("mail_would_loop", "gw1")]
        assert plan.obstacles[0].finding.message.endswith(
            "gw1 still has that route: run enable_tls once with state: absent in the entry of main"
        )

    @pytest.mark.parametrize("action", ["disable", "uninstall"])
    def test_switching_off_is_never_in_its_own_way(self, action):
        assert codes(States(config("main", "gw1"), gw1=gateway()).plan(action)) == []


def test_a_mail_server_that_no_other_host_reaches_is_told_before_the_change():
    sockets = [{"host": "127.0.0.1", "port": 25, "pid": 1, "program": "master"}]
    states = States(m1=server("m1", sockets=sockets, drift=True))
    assert (warned(check(states.plan())), warned(states.plan("disable"))) == ([("loopback_only", "m1")], [])


class TestWithoutAGateway:
    STATES = States(config("main", "m1"), m1=server("m1", drift=True), m2=server("m2"))

    @pytest.mark.parametrize("action", ["enable", "disable", "uninstall"])
    def test_what_makes_sense_is_planned(self, action):
        plan = check(self.STATES.plan(action))
        assert (codes(plan), warned(plan), plan.result) == ([], [], "drift")

    def test_no_other_host_has_seen_them_so_all_are_tested(self):
        assert self.STATES.plan().prove == ("m1", "m2")
        assert States(m2=server("m2")).plan().prove == ("m2",)

    def test_a_delivery_mode_has_nobody_to_set_it(self):
        plan = check(self.STATES.plan("set_delivery_mode"))
        assert codes(plan) == [("no_gateway", "")]
        result, text = plan_result(plan, plan_only=False, fail_on="blocked")
        said = "there is no gateway in the inventory, so nothing sets the delivery mode of main; name the gateways in the group "
        said += "mail_gateways"
        assert said in text
        assert (result["failed"], result["msg"]) == (
            True,
            "the plan is blocked: 2 hosts; nothing was changed. Do what stands under 'In the way', and run again; plan_tls.yml shows the "
            f"plan alone. {said}",
        )


class TestOutsideTheRun:
    def test_a_mail_server_that_needs_starttls(self):
        states = States(config(mode="required"), gw1=gateway(probes=[PLAIN])).with_outside("m1")
        plan = check(states.plan())
        assert (plan.result, codes(plan), list(plan.hosts)) == ("blocked", [("outside_limit", "m1")], ["gw1"])
        assert "m1.test:25" in plan.obstacles[0].finding.message
        assert codes(states.plan("set_delivery_mode")) == [("server_without_starttls", "m1")]

    def test_one_that_has_it(self):
        assert States(config(mode="required"), gw1=gateway(probes=[SEEN])).with_outside("m1").plan().result == "clean"

    def test_a_gateway_before_which_a_mail_server_is_to_require_tls(self):
        states = States(config(mode="required"), gw1=gateway(probes=[SEEN]), m1=server("m1")).with_outside("gw2")
        plan = check(states.plan(inbound={"m1": "required"}))
        assert (codes(plan), plan.hosts["m1"].steps) == ([("outside_limit", "gw2")], ("require",))
        assert states.plan().result == "clean"
        states["m1"] = server("m1", before=STRICT, after=STRICT)
        assert states.plan(inbound={"m1": "required"}).result == "clean"

    def test_a_gateway_behind_which_tls_is_switched_off(self):
        states = States(config(mode="required"), gw1=gateway(probes=[SEEN]), m1=server("m1", drift=True)).with_outside(
            "gw2"
        )
        assert codes(check(states.plan("disable"))) == [("outside_limit", "gw2")]
        states.configs = []
        assert states.plan("disable").result == "drift"

    def test_a_mail_server_that_sends_over_tls_only_to_a_gateway_that_stops(self):
        states = States(gw1=gateway(drift=True)).with_outside("m1", "m2")
        assert codes(states.plan("disable", outbound={"m1": "required", "m2": "opportunistic"})) == [
            ("outside_limit", "m1")
        ]

    def test_a_gateway_that_is_the_next_hop(self):
        states = States(m1=to_require([hop("gw1.test", completed=False)])).with_outside("gw1")
        plan = check(states.plan())
        assert codes(plan) == [("outside_limit", "gw1")] and "m1" in plan.obstacles[0].finding.message


def hop(host, completed=True):
    return {"host": host, "port": 25, "completed": completed, "message": "" if completed else "no STARTTLS"}


def to_require(hops):
    return server("m1", drift=True, after={"inbound": "offered", "outbound": "required"}, next_hops=hops)


class TestNextHops:
    def test_one_that_completes(self):
        assert codes(one(m1=to_require([hop("relay.example")]))) == []

    def test_one_that_does_not(self):
        plan = check(one(m1=to_require([hop("relay.example"), hop("other.example", completed=False)])))
        assert codes(plan) == [("next_hop_without_starttls", "m1")]
        assert "other.example:25: no STARTTLS" in plan.obstacles[0].finding.message

    def test_a_gateway_that_accepts_in_this_run(self):
        hops = [hop("GW1.test.", completed=False)]
        assert codes(one(m1=to_require(hops), gw1=gateway(probes=[SEEN], drift=True))) == []
        assert codes(one(m1=to_require(hops), gw1=gateway(probes=[SEEN]))) == [("next_hop_without_starttls", "m1")]
        assert codes(one(m1=to_require(hops), gw1=LOST)) == [("unreachable", "gw1")]

    def test_one_that_a_host_without_tests_of_its_own_cannot_test(self):
        """Exchange: a handshake of another host of the run counts, and without any it is not known."""
        unknown = {**hop("m2.test", completed=False), "completed": None}
        seen = {"host": "m2.test", "port": 25, "name": "m2.test", "completed": True, "stage": "ehlo_tls"}
        assert codes(one(m1=to_require([unknown]), gw1=gateway(probes=[seen]))) == []
        lacking = {**seen, "completed": False, "stage": "ehlo", "message": "no STARTTLS"}
        assert codes(one(m1=to_require([unknown]), gw1=gateway(probes=[lacking]))) == [
            ("next_hop_without_starttls", "m1")
        ]
        assert codes(one(m1=to_require([unknown]))) == [("next_hop_without_starttls", "m1")]

    def test_it_may_be_waived(self):
        states = States(m1=to_require([hop("relay.example", completed=False)]))
        plan = states.plan(without_evidence=frozenset({"m1"}))
        assert (codes(plan), warned(plan)) == ([], [("next_hop_without_starttls", "m1")])

    def test_one_that_is_required_already(self):
        required = {"inbound": "offered", "outbound": "required"}
        assert codes(one(m1=server("m1", before=required, after=required, next_hops=[hop("x", completed=False)]))) == []


class TestSteps:
    def test_require_comes_after_the_modes(self):
        states = States(
            config(mode="required"),
            gw1=gateway(probes=[PLAIN], view={"after": {"main": "required"}}),
            m1=server("m1", drift=True),
        )
        plan = check(states.plan(inbound={"m1": "required"}))
        assert list(plan.steps) == ["offer", "modes", "require"]

    def test_off_is_the_way_back(self):
        view = {"email_configs": [held(mode="required")], "after": {"main": "plaintext"}}
        states = States(
            config(mode="required"),
            gw1=gateway(probes=[{**SEEN, "requires_tls": True}], drift=True, view=view),
            m1=server("m1", drift=True, before=STRICT, after={"inbound": "disabled", "outbound": "disabled"}),
        )  # fmt: skip
        plan = check(states.plan("disable"))
        assert (plan.result, list(plan.steps)) == ("drift", ["relax", "modes", "off", "stop_accepting"])
        plan = check(states.plan("uninstall"))
        assert (plan.result, list(plan.steps)) == ("drift", ["relax", "modes", "off", "remove", "put_back"])
        assert [plan.steps[step].hosts for step in plan.steps] == [("m1",), ("gw1",), ("m1",), ("gw1",), ("m1",)]

    def test_where_nothing_is_left_an_uninstallation_has_no_step(self):
        plan = check(States(config(), gw1=gateway(probes=[SEEN]), m1=server("m1")).plan("uninstall"))
        assert (plan.result, dict(plan.steps)) == ("clean", {})

    def test_what_is_left_of_a_gateway_alone_is_removed(self):
        view = {"changes": [{"path": "/var/spool/postfix-mailfleet", "lines": "(removed)\n"}]}
        plan = check(States(config(), gw1=gateway(probes=[SEEN], view=view), m1=server("m1")).plan("uninstall"))
        assert list(plan.steps) == ["modes", "remove"]

    def test_off_with_an_email_config_that_would_keep_its_mode(self):
        states = States(
            config(),
            gw1=gateway(probes=[SEEN], view={"email_configs": [held("old", "required", "M1.test:25")]}),
            m1=server("m1", drift=True),
        )
        plan = check(states.plan("disable"))
        assert codes(plan) == [("server_without_starttls", "gw1")]

    def test_a_mode_alone_changes_gateways_only(self):
        plan = check(
            one(
                "required",
                action="set_delivery_mode",
                m1=server("m1", drift=True),
                view={"after": {"main": "required"}},
            )
        )
        assert ({name: step.hosts for name, step in plan.steps.items()}, plan.hosts["m1"].changes) == (
            {"modes": ("gw1",)},
            (),
        )
        assert (plan.hosts["m1"].state, plan.prove) == ("clean", ("gw1",))

    def test_a_pair_of_mail_servers_is_split(self):
        names = [f"m{number}" for number in range(1, 5)]
        states = States(
            config("a", "m1", "m2"), config("b", "m3", "m4"), **{name: server(name, drift=True) for name in names}
        )
        planned = check(states.plan(batches=["100%"])).steps["offer"]
        assert (planned.hosts, planned.batches) == (("m1", "m3", "m2", "m4"), (2, 2))

    def test_only_hosts_that_change_are_in_a_batch(self):
        states = States(m1=server("m1"), m2=server("m2", drift=True))
        assert states.plan().steps["offer"].hosts == ("m2",)


class TestCost:
    def test_who_sends_through_the_gateway(self):
        plan = check(
            one(
                m2=server("m2", relay="elsewhere.example"),
                m3=server("m3", relay="[GW1.test]"),
                m4=server("m4", transports=None),
            )
        )
        assert plan.cost.senders == ("m1", "m3")

    def test_sessions_and_handshakes(self):
        plan = check(
            one(
                m1=server("m1", activity={"sessions_an_hour": 1200.5}),
                m2=server("m2", activity={"sessions_an_hour": None}),
            )
        )
        assert (dict(plan.cost.sessions), plan.cost.handshake_ms) == ({"m1": 1200.5, "m2": None}, 12.0)
        assert check(States(m1=server("m1", probe=None)).plan()).cost.handshake_ms is None

    @pytest.mark.parametrize(
        ("mode", "before", "sessions", "found"),
        [
            ("required", "plaintext", 400_000, True),
            ("opportunistic", "match_sender", 400_000, True),
            ("required", "plaintext", 300_000, False),
            ("required", "plaintext", None, False),
            ("required", "opportunistic", 400_000, False),
            ("match_sender", "plaintext", 400_000, False),
        ],
    )
    def test_a_busy_server(self, mode, before, sessions, found):
        busy = server("m1", activity={"sessions_an_hour": sessions})
        plan = check(one(mode, m1=busy, view={"email_configs": [held(mode=before)], "after": {"main": mode}}))
        assert warned(plan) == ([("busy_server", "m1")] if found else [])
        if found:
            assert (
                "400000 sessions an hour: at 2 ms of CPU each that is 22% of a core" in plan.warnings[0].finding.message
            )


@pytest.mark.parametrize(
    ("health", "said"),
    [({"state": "broken", "running": True}, "broken configuration, running"),
     ({"state": "broken", "running": False}, "broken configuration, not running"), ({"state": "broken"}, "broken configuration"),
     ({"state": "stopped", "running": False}, "stopped")],
)  # fmt: skip
def test_a_broken_configuration_and_whether_the_daemon_runs_are_two_facts(health, said):
    plan = States(m1=server(health={**health, "message": "x"})).plan()
    assert plan.hosts["m1"].present.startswith(f"Postfix 3.7.11: {said}, ")


class TestRotation:
    """A run that renews certificates: its steps are those of the certificates, and who uses TLS with whom is no matter of it."""

    NEW: ClassVar = {"path": "/etc/mailfleet/starttls.pem", "lines": "--- before\n+++ after\n-old\n+new\n"}

    def test_hosts_with_a_new_certificate_change_gateways_first(self) -> None:
        changed = {"changes": [self.NEW], "offer": True}
        states = States(
            config("main", "m1"), gw1=gateway(**changed), m1=server("m1", **changed), m2=server("m2", offer=False)
        )
        plan = states.plan("rotate")
        check(plan)
        assert {step: one.hosts for step, one in plan.steps.items()} == {"accept": ("gw1",), "offer": ("m1",)}
        assert (plan.result, plan.hosts["m2"].state) == ("drift", "clean")
        assert "the mail servers get their certificates, a canary first" in plan_text(plan)
        assert "offer STARTTLS" not in plan_text(plan)

    def test_a_mode_that_the_inventory_wants_is_no_matter_of_it(self) -> None:
        states = States(
            config("main", "m1", mode="required"), gw1=gateway(probes=[PLAIN]), m1=server("m1", offer=False)
        )
        plan = states.plan("rotate")
        check(plan)
        assert (plan.result, plan.obstacles, plan.steps) == ("clean", (), {})

    def test_what_stands_in_the_way_of_a_certificate_stops_it(self) -> None:
        said = {"code": "tlsa_not_published", "message": "publish it"}
        states = States(config("main", "m1"), m1=server("m1", changes=[self.NEW], offer=True, obstacles=[said]))
        plan = states.plan("rotate")
        check(plan)
        assert (plan.result, plan.hosts["m1"].state) == ("blocked", "blocked")
