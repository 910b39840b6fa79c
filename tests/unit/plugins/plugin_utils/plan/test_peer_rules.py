"""What stands in the way at the peers of mail servers: evidence, senders, hosts outside the run; and what is only said."""

import json
from pathlib import Path

import jsonschema
import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import Plan

from tests.support.plan_states import States, config, gateway, peer, plain, probe, proof, server

SCHEMA = json.loads((Path(__file__).resolve().parents[5] / "docs/schema/plan.schema.json").read_text())
WRITES = [{"path": "/etc/postfix/master.cf", "lines": "+mailfleet_peer_one unix - - y - - smtp\n"}]
NO_STARTTLS = "starttls_not_offered"
ONLINE = {"kind": "exchange_online", "client_certificate": "/etc/c.pem"}

WRONG = {"peer": "one", **Finding("client_name_not_accepted", "it is for other.test").as_dict()}
LACKS = {"peer": "one", **Finding("client_purpose_missing", "it lacks clientAuth").as_dict()}
REQUIRED = {"inbound": {"m2": "required"}}
BEHIND_A_GATEWAY = {"gw1": gateway(probes=[probe("m2.test")], view={"email_configs": [
    {"name": "main", "domains": ["main.example"], "servers": ["m2.test:25"], "delivery_mode": "required"}
]})}  # fmt: skip
STRICT = {"inbound": "offered", "outbound": "required"}
HELD = {"name": "one", "hosts": ["m2.test:25"], "domains": ["one.example"], "level": "required"}


def planned(states, action="enable", **request):
    plan = states.plan(action, **request)
    data = json.loads(json.dumps(plan.to_json()))
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    assert Plan.from_json(data) == plan
    return plan


def codes(plan):
    return [(one.finding.code, one.host) for one in plan.obstacles]


def warned(plan):
    return [(one.finding.code, one.host) for one in plan.warnings]


def relay(*tests, peers=None, **changes):
    """m1 with the peer "one", which it gets by this run."""
    said = {"peers": [], "peer_changes": WRITES, "peer_proofs": list(tests), **changes}
    own = {"starttls_peers": peers or [peer("one", "peer.test")]}
    return States(m1=server("m1", **said)).with_facts(m1=own)


def two(acceptor, *tests, level="required", mine=None, **others):
    """m1, whose peer "one" is m2."""
    states = States(m1=server("m1", peers=[], peer_changes=WRITES, peer_proofs=list(tests)), m2=acceptor, **others)
    return states.with_facts(m1={"starttls_peers": [peer("one", "m2", level=level)], **(mine or {})})


def test_a_peer_that_accepts_the_mail_is_set():
    plan = planned(relay(proof("one", "peer.test")))
    assert (plan.result, codes(plan), list(plan.steps), plan.prove_peers) == ("drift", [], ["peers"], ("m1",))
    assert plan.hosts["m1"].changes[0].path == "/etc/postfix/master.cf"
    assert plan.run(True)["prove_peers"] == ["m1"]
    assert plan.run(False)["prove_peers"] == []


def test_a_peer_that_is_as_wanted_needs_no_step():
    plan = planned(relay(proof("one", "peer.test"), peers=None, peer_changes=[]))
    assert (plan.result, dict(plan.steps), plan.prove_peers) == ("clean", {}, ())


def test_a_peer_without_starttls_stands_in_the_way():
    plan = planned(relay(proof("one", "peer.test", NO_STARTTLS)))
    assert (plan.result, codes(plan)) == ("blocked", [("peer_without_evidence", "m1")])
    assert "peer one, peer.test:25 does not accept it" in plan.obstacles[0].finding.message


def test_the_controllers_words_are_told_instead_of_those_of_the_host():
    meaning = [
        Finding("peer_not_attributed", "it says 550 5.7.64").as_dict(),
        Finding("peer_busy", "and is busy").as_dict(),
    ]
    plan = planned(relay(proof("one", "peer.test", "refused", findings=meaning)))
    assert [one.finding.message for one in plan.obstacles] == ["peer one: it says 550 5.7.64"]


def test_what_somebody_insists_on_is_a_warning():
    plan = planned(relay(proof("one", "peer.test", NO_STARTTLS, refused=False, waived=True)))
    assert (codes(plan), warned(plan)) == ([], [("peer_without_evidence", "m1")])


def test_what_no_proof_reached_is_said():
    meaning = [Finding.advised("peer_certificate_not_asked", "peer.test:25").as_dict()]
    plan = planned(relay(proof("one", "peer.test", findings=meaning)))
    assert warned(plan) == [("peer_certificate_not_asked", "m1")]


class TestCertificates:
    def test_one_that_cannot_do_stands_in_the_way(self):
        test = proof("one", "peer.test", proof={"stage": "mail", "fault": "not_tested"})
        plan = planned(relay(test, peer_findings=[WRONG, LACKS]))
        assert (codes(plan), warned(plan)) == ([("client_name_not_accepted", "m1")], [("client_purpose_missing", "m1")])

    def test_the_proof_knows_better(self):
        plan = planned(relay(proof("one", "peer.test"), peer_findings=[WRONG]))
        assert (codes(plan), warned(plan)) == ([], [("client_name_not_accepted", "m1")])

    def test_a_recipient_in_the_tenant_shows_nothing_of_the_sender(self):
        online = {
            **peer("one", "peer.test"),
            **ONLINE,
            "proof_sender": "a@one.example",
            "proof_recipient": "b@one.example",
        }
        test = proof("one", "peer.test")
        assert codes(planned(relay(test, peers=[online], peer_findings=[WRONG]))) == [
            ("client_name_not_accepted", "m1")
        ]
        online["proof_recipient"] = "you@elsewhere.example"
        assert codes(planned(relay(test, peers=[online], peer_findings=[WRONG]))) == []

    def test_where_nothing_changes_it_is_a_warning(self):
        plan = planned(relay(peer_changes=[], peer_findings=[WRONG]))
        assert (plan.result, warned(plan)) == ("clean", [("client_name_not_accepted", "m1")])


class TestBetweenHosts:
    """m2 is a peer of m1 and a mail server of the same run."""

    def test_it_gets_starttls_first(self):
        plan = planned(two(server("m2", drift=True), proof("one", "m2.test", NO_STARTTLS)))
        assert (plan.result, codes(plan), warned(plan), list(plan.steps)) == ("drift", [], [], ["offer", "peers"])

    def test_a_gateway_accepts_first(self):
        states = States(
            gw1=gateway(drift=True),
            m1=server("m1", peers=[], peer_changes=WRITES, peer_proofs=[proof("one", "gw1.test", NO_STARTTLS)]),
        ).with_facts(m1={"starttls_peers": [peer("one", "gw1")]})
        assert list(planned(states).steps) == ["accept", "peers"]

    def test_it_does_not_get_starttls(self):
        assert codes(planned(two(server("m2"), proof("one", "m2.test", NO_STARTTLS)))) == [
            ("peer_without_evidence", "m1")
        ]

    def test_what_starttls_does_not_repair_stands_in_the_way(self):
        test = proof("one", "m2.test", "connect_failed", proof={"stage": "connect"})
        assert codes(planned(two(server("m2", drift=True), test))) == [("peer_without_evidence", "m1")]

    def test_it_is_not_in_this_run(self):
        states = relay(proof("one", "m2.test", NO_STARTTLS), peers=[peer("one", "m2")]).with_outside("m2")
        plan = planned(states)
        assert codes(plan) == [("outside_limit", "m2")]
        assert "m1 is to send to it over TLS only (peer one)" in plan.obstacles[0].finding.message

    def test_of_one_that_could_not_be_read_its_own_reason_is_enough(self):
        assert codes(planned(two({"unreachable": True, "msg": "no route"}, proof("one", "m2.test", NO_STARTTLS)))) == [
            ("unreachable", "m2")
        ]


class TestRequiringServers:
    """m2 will take mail over TLS only."""

    def states(self, level="required", mine=None, **m2):
        states = two(server("m2"), proof("one", "m2.test"), level=level, mine=mine, **BEHIND_A_GATEWAY)
        states.configs = [config("main", "m2", mode="required")]
        states.facts["m2"] = m2
        return states

    def test_it_does_so_when_its_senders_are_changed(self):
        plan = planned(self.states(), **REQUIRED)
        assert (codes(plan), list(plan.steps)) == ([], ["peers", "require"])

    def test_a_sender_that_is_not_in_this_run(self):
        states = self.states()
        del states["m1"]
        there = outside_peers(states.facts["m1"], "m1", "m2")
        plan = planned(states.with_outside("m1"), outside_peers=there, **REQUIRED)
        assert codes(plan) == [("outside_limit", "m1")]
        plan = planned(states, outside_peers=there, without_evidence=frozenset({"m2"}), **REQUIRED)
        assert codes(plan) == []

    def test_a_sender_of_which_nothing_is_known(self):
        states = self.states(starttls_peers=[{"name": "exch", "kind": "exchange", "direction": "inbound"}])
        plan = planned(states, **REQUIRED)
        assert codes(plan) == [("peer_sends_unknown", "m2")]
        assert "RequireTLS" in plan.obstacles[0].finding.message
        assert codes(planned(states, without_evidence=frozenset({"m2"}), **REQUIRED)) == []

    def test_a_sender_that_uses_no_tls(self):
        states = self.states()
        states["m3"] = server("m3", relay="m2.test", after={"inbound": "offered", "outbound": "disabled"})
        assert codes(planned(states, **REQUIRED)) == [("server_requires_tls", "m3")]


def outside_peers(facts, sender, *others):

    groups = {"mail_gateways": ["gw1"], "mail_servers": [sender, *others]}
    hostvars = {host: {"starttls_hostname": f"{host}.test", "groups": groups} for host in ("gw1", sender, *others)}
    hostvars[sender] |= facts
    return Estate.parse([], hostvars, [sender]).peers


def hop(host, completed=True):
    return {"host": host, "port": 25, "completed": completed, "message": "" if completed else "it offers no STARTTLS"}


class TestChains:
    """What carries all mail of a mail server leads to another one."""

    def chain(self, **outer):
        states = States(
            m3=server("m3", drift=True, relay="m2.test", after=STRICT, next_hops=[hop("m2.test", completed=False)], **outer),
            m2=server("m2", drift=True, relay="m1.test", after=STRICT, next_hops=[hop("m1.test", completed=False)]),
            m1=server("m1", drift=True),
        )  # fmt: skip
        states["gw1"] = gateway(drift=True, probes=[plain("m1.test")])
        return states

    def test_the_order_is_not_that_of_the_inventory(self):
        plan = planned(self.chain())
        assert (codes(plan), plan.steps["offer"].hosts, plan.steps["offer"].batches) == (
            [],
            ("m1", "m2", "m3"),
            (1, 1, 1),
        )

    def test_off_is_the_way_back(self):
        states = self.chain()
        for host in ("m2", "m3"):
            states[host] = server(host, drift=True, before=STRICT, relay={"m2": "m1.test", "m3": "m2.test"}[host])
        states["m1"] = server("m1", drift=True, before={"inbound": "offered", "outbound": "opportunistic"})
        assert planned(states, "disable").steps["off"].hosts == ("m3", "m2", "m1")

    def test_a_circle_is_refused(self):
        states = self.chain()
        states["m1"] = server(
            "m1", drift=True, relay="m3.test", after=STRICT, next_hops=[hop("m3.test", completed=False)]
        )
        plan = planned(states)
        assert codes(plan) == [("hops_in_a_circle", "")]
        assert "m3, m2, m1 each send to another one of them over TLS only" in plan.obstacles[0].finding.message


class TestOff:
    @pytest.mark.parametrize("action", ["disable", "uninstall"])
    def test_a_sender_of_which_nothing_is_known_may_insist_on_tls(self, action):
        inbound = {"name": "exch", "kind": "exchange", "direction": "inbound"}
        states = States(m1=server("m1", drift=True))
        plan = planned(states.with_facts(m1={"starttls_peers": [inbound]}), action)
        assert ("peer_may_insist", "m1") in warned(plan)
        assert ("peer_may_insist", "m1") not in warned(planned(states, "enable"))

    def test_peers_before_listeners(self):
        states = two(server("m2", drift=True))
        states["m1"] = server("m1", drift=True, peers=[HELD], peer_changes=WRITES)
        assert list(planned(states, "disable").steps) == ["peers_off", "off"]
        assert list(planned(states, "uninstall").steps) == ["peers_off", "off", "put_back"]

    def test_a_peer_that_keeps_tls_is_said(self):
        own = {"starttls_peers": [peer("one", "peer.test", **ONLINE)]}
        states = States(m1=server("m1", peers=[{**HELD, "hosts": ["peer.test:25"]}])).with_facts(m1=own)
        plan = planned(states, "disable")
        assert (codes(plan), warned(plan)) == ([], [("peer_keeps_tls", "m1")])

    def test_a_sender_that_is_not_in_this_run(self):
        states = two(server("m2", drift=True))
        there = outside_peers(states.facts["m1"], "m1", "m2")
        del states["m1"]
        plan = planned(states.with_outside("m1"), "disable", outside_peers=there)
        assert codes(plan) == [("outside_limit", "m1")]

    def test_a_peer_that_the_inventory_lacks(self):
        states = two(server("m2", drift=True))
        states["m1"], states.facts = server("m1", drift=True, peers=[HELD]), {}
        plan = planned(states, "disable")
        assert (codes(plan), warned(plan)) == ([("next_hop_without_starttls", "m1")], [("peer_extra", "m1")])


@pytest.mark.parametrize("action", ["enable", "disable"])
def test_a_peer_that_the_inventory_lacks_is_said(action):
    held = {"name": "old", "hosts": ["old.test:25"], "domains": ["old.example"], "level": "required"}
    plan = planned(States(m1=server("m1", peers=[held])), action)
    assert (codes(plan), warned(plan)) == ([], [("peer_extra", "m1")])


def test_peers_that_could_not_be_read_are_unknown():
    assert warned(planned(States(m1=server("m1", peers=None)))) == []


@pytest.mark.parametrize(
    "odd", [{"peer_proofs": ["x"]}, {"peer_proofs": [{"peer": "one"}]}, {"peers": [1]}, {"peer_findings": [{}]}]
)
def test_a_host_that_lies_is_unknown(odd):
    assert codes(planned(States(m1=server("m1", **odd)))) == [("not_read", "m1")]
