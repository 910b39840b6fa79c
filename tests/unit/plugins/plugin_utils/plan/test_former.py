"""What a plan keeps of the hosts that change, and the plan that puts it back."""

import json

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import handed_on, plan_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import WorkflowChanges

from tests.support.plan_states import States, config, gateway, peer, probe, server

OFF, ON = {"inbound": "disabled", "outbound": "disabled"}, {"inbound": "offered", "outbound": "opportunistic"}
SEEN = probe("m1.test")
DIFF = [{"path": "/x", "lines": "+y"}]


def held(mode, name="main", *servers):
    return {
        "name": name,
        "domains": [f"{name}.example"],
        "servers": list(servers or ("m1.test:25",)),
        "delivery_mode": mode,
    }


def off(name, **more):
    """A mail server with TLS that goes back to none."""
    return server(
        name, **{"before": ON, "after": OFF, "changes": [{"path": "/etc/postfix/main.cf", "lines": "-x\n"}], **more}
    )


def undo(states, hosts):
    return states.plan("undo", undo=WorkflowChanges.parse({"hosts": hosts}))


class TestKept:
    def test_only_what_changes(self):
        gw1 = gateway(
            drift=True,
            probes=[SEEN],
            view={"after": {"main": "required"}, "outbound": {"send": "match_sender", "accept": "both"}},
        )
        former = States(config(mode="required"), gw1=gw1, m1=server("m1", drift=True), m2=server("m2")).plan().former
        assert former.to_json() == {
            "hosts": {"gw1": {"inbound": "disabled", "outbound": "match_sender", "accept": "both"}, "m1": OFF},
            "email_configs": {"main": None},
        }

    def test_a_gateway_that_was_never_set_sends_as_its_daemon_does(self):
        plan = States(gw1=gateway(drift=True, before={"inbound": "offered", "outbound": "opportunistic"})).plan()
        assert plan.former.hosts["gw1"].to_json() == {"inbound": "offered", "outbound": "opportunistic"}

    @pytest.mark.parametrize(
        ("modes", "kept"),
        [((None, None), {"main": None}), (("required", None), {"main": "required"}), ((None, "plaintext"), {"main": "plaintext"}),
         (("required", "required"), {}), (("mixed", None), {})],
    )  # fmt: skip
    def test_of_several_gateways_one_that_has_the_email_config_counts(self, modes, kept):
        """Else an undo would remove the route of a gateway that this run does not change."""
        hosts = {
            f"gw{number}": gateway(
                f"gw{number}", probes=[SEEN],
                view={"after": {"main": "required"}, "email_configs": [held(mode)] if mode else [], "changes": DIFF},
            )
            for number, mode in enumerate(modes)
        }  # fmt: skip
        assert dict(States(config(mode="required"), **hosts, m1=server("m1")).plan().former.email_configs) == kept

    def test_enforced_domains_that_are_new(self):
        there = [{"domain": "old.example", "direction": "outbound"}, {"domain": "in.example", "direction": "inbound"}]
        wanted = [("old.example", "outbound"), ("new.example", "inbound")]
        gw1 = gateway(view={"enforced_domains": there, "changes": DIFF})
        assert States(gw1=gw1).plan(enforced={"gw1": wanted}).former.hosts["gw1"].enforced == (
            ("new.example", "inbound"),
        )

    def test_a_state_without_a_name(self):
        odd = server("m1", drift=True, before={"inbound": "custom", "outbound": "{{ 7 }}"})
        assert States(m1=odd).plan().former.hosts["m1"].to_json() == {"inbound": "custom", "outbound": "unknown"}

    def test_peers_that_are_new(self):
        there = [{"name": "old", "hosts": ["old.example:25"], "level": "may"}]
        states = States(m1=server("m1", peers=there, peer_changes=[{"path": "/etc/postfix/master.cf", "lines": "+x"}]))
        states.with_facts(m1={"starttls_peers": [peer("old", "old.example"), peer("new", "new.example")]})
        assert states.plan().former.hosts["m1"].peers == ("new",)


class TestHandedOn:
    DRIFT = States(m1=server("m1", drift=True))

    def handed(self, action="enable", may_change=True, **facts):
        plan = self.DRIFT.plan(action)
        hostvars = {"m1": facts, "localhost": {"tls_plan": {"changes": {"hosts": {"m8": ON}}}}}
        return handed_on(plan, plan.run(may_change), hostvars)["hosts"]

    def test_what_former_jobs_handed_on_and_what_this_one_changes(self):
        assert self.handed(starttls_changes={"hosts": {"m1": ON, "m9": OFF}}) == {"m1": ON, "m8": ON, "m9": OFF}
        assert self.handed() == {"m1": OFF, "m8": ON}

    def test_a_run_that_changes_nothing_and_an_undo_add_nothing(self):
        assert self.handed(may_change=False) == self.handed("undo") == {"m8": ON}

    def test_the_result_of_a_plan(self):
        result, _text = plan_result(self.DRIFT.plan(), True, "never")
        assert result["handed_on"]["summary"] == {
            "action": "enable", "plan": "drift", "hosts": 1, "clean": 0, "drift": 1, "blocked": 0, "unknown": 0,
        }  # fmt: skip


class TestUndo:
    def test_only_hosts_that_go_back_have_a_step(self):
        states = States(gw1=gateway(probes=[SEEN]), m1=off("m1"), m2=server("m2"))
        plan = undo(states, {"m1": OFF})
        assert {host: one.steps for host, one in plan.hosts.items()} == {"gw1": (), "m1": ("back",), "m2": ()}
        assert (plan.result, json.loads(json.dumps(plan.to_json()))["action"]) == ("drift", "undo")

    def test_one_that_requires_tls_relaxes_first(self):
        strict = {"inbound": "required", "outbound": "opportunistic"}
        assert undo(States(m1=off("m1", before=strict)), {"m1": OFF}).hosts["m1"].steps == ("relax", "back")
        assert undo(States(m1=off("m1", before=strict, after=ON)), {"m1": ON}).hosts["m1"].steps == ("relax",)
        assert undo(States(m1=server("m1", before=strict, after=strict)), {}).hosts["m1"].steps == ()

    def test_an_email_config_of_somebody_else_that_insists(self):
        gw1 = gateway(probes=[SEEN], view={"email_configs": [held("required", "theirs")]})
        plan = undo(States(gw1=gw1, m1=off("m1")), {"m1": OFF})
        [one] = plan.obstacles
        assert (one.host, one.finding.code) == ("gw1", "server_without_starttls")
        assert "theirs, which this workflow did not change" in one.finding.message
        assert (
            undo(
                States(gw1=gateway(probes=[SEEN], view={"email_configs": [held("match_sender")]}), m1=off("m1")),
                {"m1": OFF},
            ).obstacles
            == ()
        )

    def test_an_email_config_that_goes_back_to_a_mode_that_insists(self):
        gw1 = gateway(probes=[SEEN], view={"email_configs": [held("opportunistic")], "after": {"main": "required"}})
        [one] = undo(States(config(mode="required"), gw1=gw1, m1=off("m1")), {"m1": OFF}).obstacles
        assert "it had no TLS before the workflow" in one.finding.message

    def test_a_broken_server_stands_in_the_way_of_nobody_who_insisted_already(self):
        """It is why somebody undoes the workflow."""
        broken = probe("m1.test", code="tls_failed", stage="starttls_answered", starttls_advertised=True)
        gw1 = gateway(
            probes=[broken], view={"email_configs": [held("required")], "after": {"main": "match_sender_strict"}}
        )
        assert undo(States(config(mode="match_sender_strict"), gw1=gw1, m1=server("m1")), {}).obstacles == ()

    def test_a_gateway_that_is_not_in_the_run(self):
        plan = undo(States(m1=off("m1")).with_outside("gw1"), {"m1": OFF})
        assert [(one.host, one.finding.code) for one in plan.obstacles] == [("gw1", "outside_limit")]

    @pytest.mark.parametrize(("level", "obstacles"), [("required", ["m2"]), ("opportunistic", [])])
    def test_a_mail_server_that_still_sends_there_over_tls_only(self, level, obstacles):
        gw1 = gateway(before=ON, after=OFF, changes=[{"path": "/x", "lines": "-y"}])
        sides = {"inbound": "offered", "outbound": level}
        plan = undo(States(gw1=gw1, m2=server("m2", before=sides, after=sides)), {"gw1": OFF})
        assert plan.hosts["gw1"].steps == ("stop_accepting",)
        assert [one.host for one in plan.obstacles] == obstacles

    @pytest.mark.parametrize(
        ("servers", "sides", "stands"),
        [(["m1.test:25"], ON, True), (["m9.test:25"], ON, False), (["m9.test:25"], OFF, True)],
    )
    def test_a_gateway_that_enforces_tls_for_senders(self, servers, sides, stands):
        """The way to the mail servers is one of its hops, and so is that to itself."""
        view = {
            "email_configs": [held("match_sender", "main", *servers)],
            "enforced_domains": [{"domain": "p.example", "direction": "inbound"}],
        }
        gw1 = gateway(probes=[SEEN], view=view, before=ON, after=sides, changes=DIFF if sides is OFF else [])
        found = undo(States(gw1=gw1, m1=off("m1")), {"m1": OFF}).obstacles
        assert [(one.host, one.finding.code) for one in found] == [("gw1", "server_without_starttls")] * stands
        mine = {"gw1": {**ON, "enforced_domains": [{"domain": "p.example", "direction": "inbound"}]}}
        assert undo(States(gw1=gw1, m1=off("m1")), {"m1": OFF, **mine}).obstacles == ()

    @pytest.mark.parametrize(
        ("hosts", "stands"),
        [({}, True), ({"gw1": {**ON, "accept": "tls_only"}}, True), ({"gw1": {**ON, "accept": "both"}}, False)],
    )
    def test_a_gateway_that_takes_mail_of_the_mail_servers_over_tls_only(self, hosts, stands):
        gw1 = gateway(view={"outbound": {"accept": "tls_only"}}, before=ON, after=ON)
        found = undo(States(gw1=gw1, m1=off("m1")), {"m1": OFF, **hosts}).obstacles
        assert [(one.host, one.finding.code) for one in found] == [("gw1", "server_requires_tls")] * stands

    @pytest.mark.parametrize(
        ("former", "said"),
        [
            ({"inbound": "custom", "outbound": "disabled"}, "its inbound side was custom before the workflow"),
            ({"inbound": "required", "outbound": "disabled"}, "was required before the workflow, and stays offered"),
        ],
    )
    def test_what_stays_is_said(self, former, said):
        plan = undo(States(m1=off("m1", after={**ON, "outbound": "disabled"})), {"m1": former})
        [one] = [one.finding for one in plan.warnings if one.finding.code == "not_put_back"]
        assert said in one.message

    def test_a_host_that_is_not_in_the_run_is_said(self):
        plan = undo(States(m1=off("m1")).with_outside("m2"), {"m1": OFF, "m2": OFF})
        assert ("m2", "not_put_back") in [(one.host, one.finding.code) for one in plan.warnings]
