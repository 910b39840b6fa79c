# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hops between the hosts of a fleet, and the order of steps that follows from them: acceptor before requirer, off backwards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.order import in_batches, one_by_one
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import (
    GATEWAY,
    GATEWAY_STEPS,
    MAIL_SERVER,
    STEPS,
    PlanStep,
)

DELIVERY, RELAY, PEER = "delivery", "relay", "peer"
"""How a hop is made: by an email config of a gateway, by what carries all mail of a mail server, by a peer's own transport."""


class FleetHop(NamedTuple):
    """One host of the fleet hands mail to another one. way: DELIVERY, RELAY or PEER."""

    sender: str
    acceptor: str
    way: str


class Node(NamedTuple):
    """A step on one host."""

    step: str
    host: str


class _Rules(NamedTuple):
    """The steps of an action on the two sides of a hop, in the order that is safe for it.

    first, last: role of the acceptor -> its step before and after that of the sender. between: way -> the step of the sender.
    """

    first: Mapping[str, str]
    between: Mapping[str, str]
    last: Mapping[str, str]


_ON = _Rules(  # it accepts TLS; then it is asked for it, or insisted on; then it takes nothing else
    {GATEWAY: "accept", MAIL_SERVER: "offer"},
    {DELIVERY: "modes", RELAY: "offer", PEER: "peers"},
    {GATEWAY: "modes", MAIL_SERVER: "require"},
)
_OFF = _Rules(  # it takes plaintext again; then nobody asks for TLS any more; then it stops accepting that
    {GATEWAY: "modes", MAIL_SERVER: "relax"},
    {DELIVERY: "modes", RELAY: "off", PEER: "peers_off"},
    {GATEWAY: "stop_accepting", MAIL_SERVER: "off"},
)
_RULES = {
    "enable": _ON,
    "set_delivery_mode": _ON,
    "rotate": _ON,
    "disable": _OFF,
    "uninstall": _OFF._replace(last={GATEWAY: "remove", MAIL_SERVER: "off"}),
    "undo": _Rules(_OFF.first, {**_OFF.between, RELAY: "back"}, {GATEWAY: "stop_accepting", MAIL_SERVER: "back"}),
}


def prerequisites(action: str, hops: Iterable[FleetHop], gateways: Collection[str]) -> set[tuple[Node, Node]]:
    """Return the pairs of a step that has to be over and the step that may only then begin, of all hops.

    The two sides of one host are one step only where a gateway hands mail to a gateway: nothing follows for it from such a hop.
    """
    rules = _RULES[action]
    pairs = set()
    for hop in hops:
        role = GATEWAY if hop.acceptor in gateways else MAIL_SERVER
        chain = (
            Node(rules.first[role], hop.acceptor),
            Node(rules.between[hop.way], hop.sender),
            Node(rules.last[role], hop.acceptor),
        )
        for first, then in zip(chain, chain[1:]):
            if not (role == GATEWAY and first.step == then.step):
                pairs.add((first, then))
    return pairs


def ordered(
    action: str,
    wanted: Mapping[str, Sequence[str]],
    hops: Iterable[FleetHop],
    gateways: Collection[str],
    batches: Sequence[Any],
    together: Sequence[Collection[str]],
) -> dict[str, PlanStep]:
    """Return the steps of an action in the order in which the playbook makes them. One without hosts is left out.

    wanted: step -> its hosts, in the order of the inventory. hops: those between hosts of the fleet. gateways: all of them. batches,
    together: see in_batches. The steps of an action come one after the other. Within a step the hosts change in waves: a batch has
    hosts of one wave only, and each prerequisite of a host is in an earlier one. Raises EngineError.
    """
    pairs = prerequisites(action, hops, gateways)
    made = {}
    in_batches((), batches, together)  # wrong sizes are a fault also if no host changes in batches
    for step in STEPS[action]:
        hosts = wanted.get(step) or ()
        if not hosts:
            continue
        parts = [
            one_by_one(wave) if step in GATEWAY_STEPS else in_batches(wave, batches, together)
            for wave in waves(hosts, _within(step, pairs))
        ]
        made[step] = PlanStep(
            tuple(host for part in parts for host in part.hosts), tuple(size for part in parts for size in part.batches)
        )
    return made


def _within(step: str, pairs: Iterable[tuple[Node, Node]]) -> set[tuple[str, str]]:
    return {(one.host, then.host) for one, then in pairs if one.step == then.step == step}


def waves(hosts: Sequence[str], pairs: Collection[tuple[str, str]]) -> list[list[str]]:
    """Return the hosts in waves: for each pair, the first host is in an earlier wave than the second. Their order is kept within one.

    Hosts in a circle, and those that wait for one, are the last wave: circle_in tells whether there is one.
    """
    left, found = list(hosts), []
    while left:
        waiting = {then for one, then in pairs if one in left and one != then}
        wave = [host for host in left if host not in waiting] or left
        found.append(wave)
        left = [host for host in left if host not in set(wave)]
    return found


def circle_in(
    action: str, wanted: Mapping[str, Sequence[str]], hops: Iterable[FleetHop], gateways: Collection[str]
) -> list[str]:
    """Return the hosts of a step that no order can be found for, because each has to wait for another of them; none if there is one."""
    pairs = prerequisites(action, hops, gateways)
    for step, hosts in wanted.items():
        mine = _within(step, pairs)
        left = waves(hosts, mine)[-1] if hosts else []
        if stuck := [host for host in left if any(one in left and then == host for one, then in mine)]:
            return stuck
    return []


def positions(steps: Mapping[str, PlanStep]) -> dict[Node, tuple[int, int]]:
    """Return when each host makes each step: the number of the step, and of the batch in it."""
    return dict(_positions(steps))


def _positions(steps: Mapping[str, PlanStep]) -> Iterator[tuple[Node, tuple[int, int]]]:
    for number, (step, planned) in enumerate(steps.items()):
        start = 0
        for batch, size in enumerate(planned.batches):
            for host in planned.hosts[start : start + size]:
                yield Node(step, host), (number, batch)
            start += size
