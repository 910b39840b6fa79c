"""The inventories of examples/: each is read as Ansible reads it, becomes an estate, and has a plan that nothing stands in the way of."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate, send_only
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import PlanRequest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.making import make_plan
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import Plan

from tests.support.plan_states import gateway, plain, server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/*/inventory.yml"))
GROUPS = ("mail_gateways", "mail_servers")


class Example:
    """An inventory, and the plan of its first enable: nothing has TLS yet."""

    def __init__(self, name: str) -> None:
        loader = DataLoader()
        inventory = InventoryManager(loader, [str(ROOT / "examples" / name / "inventory.yml")])
        manager = VariableManager(loader, inventory)
        there = [name for name in GROUPS if name in inventory.groups]
        self.groups = {name: [str(one) for one in inventory.groups[name].get_hosts()] for name in there}
        self.hosts = [host for some in self.groups.values() for host in some]
        self.hostvars = {
            host: {**manager.get_vars(host=inventory.get_host(host)), "groups": self.groups} for host in self.hosts
        }
        self.configs = self.hostvars[self.hosts[0]].get("email_configs") or []

    def estate(self) -> Estate:
        return Estate.parse(self.configs, self.hostvars, self.hosts, check_required=True)

    def plan(self, **request: Any) -> Plan:
        estate = self.estate()
        gateways = self.groups.get("mail_gateways", [])
        targets = [one for delivery in estate.deliveries for one in delivery.config.servers]
        after = {one.config.name: one.config.delivery_mode for one in estate.deliveries if one.names_mode}
        tests = [plain(one.host, one.port) for one in targets]
        said = {
            host: gateway(host, drift=True, probes=tests, view={"after": after}) if host in gateways else self.mail_server(host)
            for host in self.hosts
        }  # fmt: skip
        inbound = {host: str(facts.get("starttls_inbound") or "") for host, facts in self.hostvars.items()}
        return make_plan(estate, said, PlanRequest("enable", self.groups, inbound=inbound, **request))

    def mail_server(self, host: str) -> dict[str, Any]:
        relay = "gw1.example.com" if self.groups.get("mail_gateways") else "relay.example.net"
        inbound = self.hostvars[host].get("starttls_inbound") or "offered"
        if inbound == "none" or host.startswith("null"):
            sides = {
                "before": {"inbound": "none", "outbound": "disabled"},
                "after": {"inbound": "none", "outbound": "opportunistic"},
            }
            return {**server(host, drift=True, relay=relay), "send_only": True, "offer": True, **sides}
        after = {"inbound": inbound, "outbound": "opportunistic"}
        return {**server(host, drift=True, relay=relay), "offer": True, "after": after}


def step_hosts(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {name: one.hosts for name, one in plan.steps.items()}


WANTED: dict[str, Callable[[Example, Plan], bool]] = {
    "one_server": lambda _one, plan: step_hosts(plan) == {"offer": ("mail1",)} and plan.prove == ("mail1",),
    "no_gateway": lambda _one, plan: list(plan.steps) == ["offer"] and not plan.by_hand,
    "service_gateway": lambda _one, plan: len(plan.by_hand["modes"]) == 2 and step_hosts(plan)["require"] == ("mail2",),
    "send_only": lambda one, plan: (
        {host: send_only(host, one.hostvars, one.configs) for host in one.groups["mail_servers"]}
        == {"mail1": "never", "null1": "always", "null2": "find"}
        and step_hosts(plan)["offer"] == ("mail1", "null1", "null2")
    ),
    "gateway_and_server": lambda one, plan: (
        one.estate().deliveries[0].gateways == ("gw1",) and not one.estate().deliveries[0].is_routed and "modes" in plan.steps
    ),
    "server_in_several_configs": lambda one, _plan: one.estate().modes_of("mail1") == ["match_sender", "required", "plaintext"],
    "several_gateways": lambda one, plan: (
        step_hosts(plan)["modes"] == ("gw1", "gw2") and plan.steps["modes"].batches == (1, 1)
        and (one.hostvars["gw2"]["starttls_kind"], one.hostvars["gw2"]["starttls_exim_split"]) == ("exim", True)
    ),
    "multi_instance": lambda _one, plan: step_hosts(plan)["offer"] == ("mail1",),
    "ipv6_only": lambda one, _plan: {facts["starttls_own_address"] for facts in one.hostvars.values()} == {"::1"},
    "nat": lambda one, _plan: [str(two) for two in one.estate().deliveries[0].config.servers] == ["mx.example.com:25"],
    "odd_resolver": lambda one, _plan: [str(two) for two in one.estate().deliveries[0].config.servers] == ["192.0.2.26:25"],
    "behind_a_firewall": lambda _one, plan: plan.prove == ("gw1",),
    "postscreen": lambda one, _plan: one.hostvars["mail1"]["starttls_timeout"] > one.hostvars["mail1"]["starttls_probe_timeout"],
    "submission": lambda _one, plan: step_hosts(plan)["offer"] == ("mail1",),
}  # fmt: skip
"""Example -> what its estate and its plan have to show."""


def test_each_example_is_looked_at_and_stands_in_the_documentation() -> None:
    assert list(WANTED) and sorted(WANTED) == EXAMPLES
    table = (ROOT / "docs/estates.md").read_text()
    assert re.findall(r"\]\(\.\./examples/(\w+)/inventory\.yml\)", table) == sorted(
        EXAMPLES, key=lambda name: table.index(f"examples/{name}/")
    )
    assert all(f"examples/{name}/inventory.yml" in table for name in EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_a_plan_that_nothing_stands_in_the_way_of(name: str) -> None:
    example = Example(name)
    plan = example.plan()
    assert ([one.finding.message for one in plan.obstacles], plan.result) == ([], "drift")
    assert WANTED[name](example, plan), (step_hosts(plan), plan.by_hand)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_reserved_names_only(name: str) -> None:
    text = (ROOT / "examples" / name / "inventory.yml").read_text()
    for host in re.findall(r"\b[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}\b", text):
        assert re.search(r"(\.example\.(com|org|net)|^example\.com|\.(pem|key|yml))$", host) or host.startswith(
            "fullchain"
        ), host
    for address in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text):
        assert address.startswith(("192.0.2.", "127.")), address


def test_the_steps_by_hand_are_over_once_they_are_confirmed() -> None:
    plan = Example("service_gateway").plan(confirmed=frozenset({"modes"}))
    assert (plan.by_hand, plan.run(may_change=True)["steps"]["require"]["hosts"]) == ({}, ["mail2"])
