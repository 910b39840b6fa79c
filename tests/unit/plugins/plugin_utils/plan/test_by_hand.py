"""Steps that somebody makes by hand, because the gateway is not in the inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.by_hand import (
    by_hand,
    confirmed_by,
    what_by_hand,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.text import plan_text
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import Plan

from tests.support.plan_states import States, config, gateway, probe, server

SCHEMA = json.loads((Path(__file__).resolve().parents[5] / "docs/schema/plan.schema.json").read_text())
ON = {"inbound": "offered", "outbound": "opportunistic"}
STRICT = {"inbound": "required", "outbound": "opportunistic"}
DONE = frozenset({"modes"})


def one(action: str = "enable", mode: Any = "required", confirmed: frozenset[str] = frozenset(), **said: Any) -> Plan:
    inbound = {"m1": "required"} if mode == "required" else {}
    m1 = server("m1", drift=True, **{"after": STRICT if inbound else ON, "offer": True, **said})
    return States(config(mode=mode), m1=m1).plan(action, inbound=inbound, confirmed=confirmed)


def steps(plan: Plan) -> list[str]:
    return [name for name, step in plan.run(may_change=True)["steps"].items() if step["hosts"]]


def test_a_run_ends_before_the_step_and_says_what_to_do() -> None:
    plan = one()
    assert (plan.obstacles, steps(plan)) == ((), ["offer"])
    assert plan.by_hand == {"modes": ("set the delivery mode of the email config main (main.example) to 'required'",)}
    text = plan_text(plan)
    assert "By hand\n  modes: set the delivery mode of the email config main (main.example) to 'required'\n" in text
    assert """run again with -e '{"starttls_confirmed": ["modes"]}'""" in text
    data = json.loads(json.dumps(plan.to_json()))
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    assert Plan.from_json(data) == plan
    assert plan.run(may_change=False)["by_hand"] == {}


def test_it_goes_on_once_that_is_confirmed() -> None:
    plan = one(confirmed=DONE)
    assert (plan.obstacles, plan.by_hand, steps(plan)) == ((), {}, ["offer", "require"])


def test_with_a_gateway_in_the_inventory_nothing_is_by_hand() -> None:
    states = States(config(mode="required"), gw1=gateway(probes=[probe("m1.test")]), m1=server("m1"))
    assert states.plan().by_hand == {}
    assert States(config(mode="required"), m1=server("m1")).with_outside("gw1").plan().by_hand == {}


@pytest.mark.parametrize("mode", [None, "plaintext"])
def test_without_a_mode_there_is_nothing_to_set(mode: Any) -> None:
    assert one(mode=mode).by_hand == {}


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [("required", True), ("match_sender_strict", True), ("match_sender", False), ("opportunistic", False)],
)
def test_only_a_mode_that_insists_has_to_go_before_tls_does(mode: str, wanted: bool) -> None:
    plan = one("disable", mode, before=ON, after={"inbound": "disabled", "outbound": "disabled"})
    assert bool(plan.by_hand) is wanted
    assert steps(plan) == ([] if wanted else ["off"])
    assert steps(one("disable", mode, frozenset({"modes_off"}), before=ON)) == ["off"]
    assert steps(one("disable", mode, DONE, before=ON)) == ([] if wanted else ["off"])
    if wanted:
        assert "to 'plaintext'" in plan_text(plan)
        assert """run again with -e '{"starttls_confirmed": ["modes_off"]}'""" in plan_text(plan)


def test_a_server_takes_plaintext_again_before_that() -> None:
    plan = one("disable", "required", before=STRICT, after={"inbound": "disabled", "outbound": "disabled"})
    assert steps(plan) == ["relax"]


def test_other_actions_have_none() -> None:
    asked = States(config(mode="required"), m1=server("m1"))
    for action in ("uninstall", "undo", "set_delivery_mode"):
        assert asked.plan(action).by_hand == {}


def test_the_words_at_the_end() -> None:
    said = what_by_hand({"modes": ["set a", "set b"]})
    assert said.startswith(
        "Now set a; set b, at the gateway that is not in the inventory. Then run this again with -e "
    )
    assert by_hand.__module__ in what_by_hand.__module__


@pytest.mark.parametrize("given", ["modes", ["modes"], "modes,\n", ["modes", "modes"]])
def test_what_can_be_confirmed(given: Any) -> None:
    assert confirmed_by({"starttls_confirmed": given}) == DONE


@pytest.mark.parametrize("given", [None, "", []])
def test_nothing_is_confirmed(given: Any) -> None:
    assert confirmed_by({"starttls_confirmed": given}) == frozenset()


@pytest.mark.parametrize("given", ["offer", ["modes", "x\ny"], 5])
def test_what_cannot(given: Any) -> None:
    with pytest.raises(EngineError, match=r"starttls_confirmed: .* is no step that is made by hand; there is: modes"):
        confirmed_by({"starttls_confirmed": given})
