"""No requirer before its acceptor, in the order in which the playbooks really run; off, the reverse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import STEP_RESULTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.hops import (
    DELIVERY,
    PEER,
    RELAY,
    FleetHop,
    Node,
    circle_in,
    ordered,
    positions,
    prerequisites,
    waves,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.order import in_batches
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import GATEWAY_STEPS, STEPS, PlanStep
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.support.playbooks import PLAYBOOKS


@dataclass
class Topology:
    """A fleet. insisting: the hops on which the sender wants TLS only. requiring: the hosts that are to take nothing else.

    ready: hosts that accept TLS before the run begins, and so need no step for that.
    """

    gateways: list[str]
    servers: list[str]
    hops: list[FleetHop]
    insisting: set[FleetHop]
    requiring: set[str]
    ready: set[str] = field(default_factory=set)
    batches: list[Any] = field(default_factory=lambda: [1, "25%", "100%"])

    @property
    def together(self) -> list[set[str]]:
        """The mail servers of each gateway's email config."""
        return [
            {hop.acceptor for hop in self.hops if hop.sender == gateway and hop.way == DELIVERY}
            for gateway in self.gateways
        ]

    def wanted(self, action: str) -> dict[str, list[str]]:
        """Step -> the hosts that need it."""
        of_peers = [host for host in self.servers if any(hop.sender == host and hop.way == PEER for hop in self.hops)]
        strict = [host for host in self.servers if host in self.requiring]
        if action == "enable":
            relays = {hop.sender for hop in self.insisting if hop.way == RELAY and hop.acceptor not in self.ready}
            offer = [host for host in self.servers if host not in self.ready or host in relays]
            accept = [host for host in self.gateways if host not in self.ready]
            return {"accept": accept, "offer": offer, "peers": of_peers, "modes": self.gateways, "require": strict}
        last = "remove" if action == "uninstall" else "stop_accepting"
        found = {
            "relax": strict,
            "modes": self.gateways,
            "peers_off": of_peers,
            "back" if action == "undo" else "off": self.servers,
            last: self.gateways,
        }
        return {**found, "put_back": self.servers} if action == "uninstall" else found


@some.composite
def topologies(draw) -> Topology:
    """Chains, hubs, one gateway or two, peers on both sides, in an inventory whose order is any."""
    gateways = [f"g{number}" for number in range(draw(some.integers(1, 2)))]
    servers = draw(some.permutations([f"m{number}" for number in range(draw(some.integers(1, 7)))]))
    chain = draw(some.permutations(servers))  # a relay leads to one that is later here, or to a gateway
    hops = set()
    for gateway in gateways:
        hops |= {FleetHop(gateway, host, DELIVERY) for host in draw(some.sets(some.sampled_from(servers)))}
    for place, host in enumerate(chain):
        acceptor = draw(some.sampled_from([*gateways, *chain[place + 1 :], None]))
        if acceptor:
            hops.add(FleetHop(host, acceptor, RELAY))
    for sender, acceptor in draw(
        some.sets(some.tuples(some.sampled_from(servers), some.sampled_from([*servers, *gateways])), max_size=8)
    ):
        if sender != acceptor:
            hops.add(FleetHop(sender, acceptor, PEER))
    every = sorted(hops)
    insisting = draw(some.sets(some.sampled_from(every))) if every else set()
    requiring = draw(some.sets(some.sampled_from([*servers, *gateways])))
    ready = draw(some.sets(some.sampled_from([*servers, *gateways])))
    sizes = draw(some.lists(some.sampled_from([1, 2, 5, "25%", "100%"]), min_size=1, max_size=3))
    return Topology(gateways, list(servers), every, insisting, requiring, ready, sizes)


def plan(fleet: Topology, action: str) -> dict[str, PlanStep]:
    """The steps; the plan knows of the hops what the read tells: of those that carry all mail, the ones that insist."""
    known = [hop for hop in fleet.hops if hop.way != RELAY or hop in fleet.insisting]
    return ordered(action, fleet.wanted(action), known, fleet.gateways, fleet.batches, fleet.together)


def run(steps: dict[str, PlanStep]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each batch, in the order in which Ansible takes the hosts of a play with these sizes of serial."""
    for step, planned in steps.items():
        left = list(planned.hosts)
        for size in planned.batches:
            batch, left = tuple(left[:size]), left[size:]
            assert batch, (step, planned)
            yield step, batch
        assert left == []


class World:
    """The mail hosts while a run changes them: what each accepts, and what is wanted on each hop. Nothing here knows the plan's rules."""

    def __init__(self, fleet: Topology, on: bool) -> None:
        """on: whether TLS is on before the run, which then switches it off."""
        self.fleet, self.on = fleet, not on
        hosts = [*fleet.gateways, *fleet.servers]
        self.accepts = {host: on or host in fleet.ready for host in hosts}
        self.refuses_plaintext = {host: on and host in fleet.requiring for host in hosts}
        # A mail server that is ready uses TLS towards what carries all its mail, and insists on it where that is ready, too.
        self.uses_tls = {hop: on or (hop.way == RELAY and hop.sender in fleet.ready) for hop in fleet.hops}
        self.insists = {
            hop: hop in fleet.insisting and (on or (self.uses_tls[hop] and self.accepts[hop.acceptor]))
            for hop in fleet.hops
        }

    def check(self) -> None:
        """Mail flows on every hop."""
        for hop in self.fleet.hops:
            assert self.accepts[hop.acceptor] or not self.insists[hop], (
                f"{hop} is insisted on, and {hop.acceptor} does not accept TLS"
            )
            assert self.uses_tls[hop] or not self.refuses_plaintext[hop.acceptor], (
                f"{hop} may be plaintext, which is refused"
            )

    def one(self, step: str, host: str) -> None:
        """The change of one host."""
        mine = {
            way: [hop for hop in self.fleet.hops if hop.sender == host and hop.way == way]
            for way in (DELIVERY, RELAY, PEER)
        }
        if step in ("accept", "offer"):
            self.accepts[host] = True
            self.switch(mine[RELAY], True)
        elif step == "peers":
            self.switch(mine[PEER], True)
        elif step == "peers_off":
            self.switch(mine[PEER], False)
        elif step == "require":
            self.refuses_plaintext[host] = True
        elif step == "relax":
            self.refuses_plaintext[host] = False
        elif step in ("off", "back"):
            self.accepts[host] = False
            self.switch(mine[RELAY], False)
        elif step in ("stop_accepting", "remove"):
            self.accepts[host] = False
        elif step == "modes":
            self.switch(mine[DELIVERY], self.on)
            self.refuses_plaintext[host] = self.on and host in self.fleet.requiring

    def switch(self, hops: list[FleetHop], on: bool) -> None:
        for hop in hops:
            self.uses_tls[hop] = on
            self.insists[hop] = on and hop in self.fleet.insisting


def play(fleet: Topology, action: str, reverse: bool) -> None:
    """Run the whole plan. The hosts of a batch change at the same time: each order of them has to be good."""
    world = World(fleet, action != "enable")
    for step, batch in run(plan(fleet, action)):
        for host in batch[::-1] if reverse else batch:
            world.one(step, host)
            world.check()
    assert all(accepts == world.on for accepts in world.accepts.values())


@settings(max_examples=100, deadline=None)
@given(topologies(), some.booleans(), some.sampled_from(["enable", "disable", "uninstall", "undo"]))
def test_mail_flows_on_every_hop_at_every_moment(fleet, reverse, action):
    play(fleet, action, reverse)


@pytest.mark.exhaustive
@settings(max_examples=3000, deadline=None)
@given(topologies(), some.booleans(), some.sampled_from(["enable", "disable", "uninstall", "undo"]))
def test_mail_flows_in_many_fleets(fleet, reverse, action):
    play(fleet, action, reverse)


@settings(max_examples=100, deadline=None)
@given(topologies(), some.sampled_from(["enable", "disable", "uninstall", "undo"]))
def test_each_prerequisite_is_over_before_a_step_begins(fleet, action):
    steps = plan(fleet, action)
    when = positions(steps)
    known = [hop for hop in fleet.hops if hop.way != RELAY or hop in fleet.insisting]
    for first, then in prerequisites(action, known, fleet.gateways):
        if first in when and then in when:
            assert when[first] < when[then]
    assert {step: sorted(one.hosts) for step, one in steps.items()} == {
        step: sorted(hosts) for step, hosts in fleet.wanted(action).items() if hosts
    }
    for _step, batch in run(steps):
        for config in fleet.together:
            assert len(config) < 2 or not config <= set(batch)


CHAIN = [FleetHop("m3", "m2", RELAY), FleetHop("m2", "m1", RELAY), FleetHop("m1", "gw", RELAY)]


def test_a_chain_that_the_inventory_has_the_wrong_way_round():
    hosts = ["m3", "m2", "m1"]
    on = ordered("enable", {"accept": ["gw"], "offer": hosts}, CHAIN, ["gw"], ["100%"], [])
    assert on == {"accept": PlanStep(("gw",), (1,)), "offer": PlanStep(("m1", "m2", "m3"), (1, 1, 1))}
    off = ordered("disable", {"off": ["m1", "m2", "m3"], "stop_accepting": ["gw"]}, CHAIN, ["gw"], ["100%"], [])
    assert off == {"off": PlanStep(("m3", "m2", "m1"), (1, 1, 1)), "stop_accepting": PlanStep(("gw",), (1,))}


def test_a_host_that_does_not_change_is_waited_for_by_nobody():
    steps = ordered("enable", {"offer": ["m3", "m1"]}, CHAIN, ["gw"], ["100%"], [])
    assert steps["offer"] == PlanStep(("m3", "m1"), (2,))


def test_without_hops_between_them_the_hosts_change_as_before():
    hosts = [f"m{number}" for number in range(10)]
    assert ordered("enable", {"offer": hosts}, [], [], [1, "25%", "100%"], []) == {
        "offer": in_batches(hosts, [1, "25%", "100%"], [])
    }


def test_waves():
    assert waves("abc", {("c", "a")}) == [["b", "c"], ["a"]]
    assert waves("abc", {("c", "b"), ("b", "a")}) == [["c"], ["b"], ["a"]]
    assert waves("ab", {("a", "b"), ("b", "a")}) == [["a", "b"]]
    assert waves("", set()) == []


def test_a_circle_is_found_and_named():
    circle = [FleetHop("m1", "m2", RELAY), FleetHop("m2", "m1", RELAY)]
    assert circle_in("enable", {"offer": ["m0", "m1", "m2"]}, circle, []) == ["m1", "m2"]
    assert circle_in("enable", {"offer": ["m1"]}, circle, []) == []
    assert (
        circle_in("enable", {"offer": ["m1", "m2"]}, [FleetHop("m1", "m2", PEER), FleetHop("m2", "m1", PEER)], []) == []
    )


def test_the_pairs_of_one_hop():
    assert prerequisites("enable", [FleetHop("m1", "m2", PEER)], []) == {
        (Node("offer", "m2"), Node("peers", "m1")), (Node("peers", "m1"), Node("require", "m2")),
    }  # fmt: skip
    assert prerequisites("disable", [FleetHop("m1", "gw", PEER)], ["gw"]) == {
        (Node("modes", "gw"), Node("peers_off", "m1")), (Node("peers_off", "m1"), Node("stop_accepting", "gw")),
    }  # fmt: skip
    assert prerequisites("enable", [FleetHop("g1", "g2", DELIVERY)], ["g1", "g2"]) == {
        (Node("accept", "g2"), Node("modes", "g1"))
    }


PLAYED = {
    "enable": "enable_tls",
    "disable": "disable_tls",
    "uninstall": "uninstall",
    "set_delivery_mode": "set_delivery_mode",
    "undo": "undo_workflow",
    "rotate": "rotate_certificate",
}


def flat(tasks):
    """Yield the tasks of a play, with those in blocks."""
    for task in tasks:
        yield task
        yield from flat(task.get("block", []))


@pytest.mark.parametrize(("action", "name"), PLAYED.items())
def test_a_playbook_makes_the_steps_of_its_action_in_their_order(action, name):
    plays = [one for one in yaml.safe_load((PLAYBOOKS / f"{name}.yml").read_text()) if "hosts" in one]
    steps = []
    for one in plays:
        step = re.search(r"steps\.(\w+)\.hosts", one["hosts"])
        if step:
            [asked] = [
                task["mailfleet.starttls.tls_outcome"]["step"]
                for task in flat(one["tasks"])
                if "mailfleet.starttls.tls_outcome" in task
            ]
            assert asked == step[1]
            assert (
                one["serial"] == 1
                if asked in GATEWAY_STEPS
                else asked == "relax" or f"steps.{asked}.batches" in str(one["serial"])
            )
            steps.append(asked)
    assert tuple(steps) == STEPS[action]
    assert set(steps) <= set(STEP_RESULTS)
