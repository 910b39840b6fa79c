# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: a pure function of the estate, of what every host said, and of the run. Everything knowable is known here."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Union

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan import peer_rules, rules, undo_rules
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import Fleet, PlanRequest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.former import former_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.hops import ordered
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import FileDiff, Observation, Unread
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import (
    GATEWAY,
    MAIL_SERVER,
    Cost,
    HostPlan,
    Located,
    Plan,
    PlanStep,
)


def make_plan(estate: Estate, observed: Mapping[str, Mapping[str, Any]], request: PlanRequest) -> Plan:
    """Return the plan of a run over C(estate.hosts). Every one of them is in it: a host that could not be read is unknown.

    observed: host -> what the task that read it registered, also if it failed. The delivery modes of estate are those that the
    inventory wants; for C(disable) they count as plaintext. Raises EngineError for a request that makes no sense: an unknown action,
    no host, sizes of batches that are none.
    """
    fleet = Fleet.of(estate, observed, request)
    between_hosts = dict.fromkeys(
        (*_locks(fleet), *rules.between_hosts(fleet), *peer_rules.obstacles(fleet), *undo_rules.obstacles(fleet))
    )
    between = [one for one, waived in between_hosts if not waived]
    reported = {one: rules.waives(fleet, one.host, one) for one in _of_hosts(fleet, "obstacles")}
    found = [*(one for one, waived in reported.items() if not waived), *between]
    without_evidence = [one for one, waived in (*reported.items(), *between_hosts) if waived]
    warned = [*_of_hosts(fleet, "notes"), *without_evidence, *_warned(fleet)]
    obstacles_of, warnings_of = _by_host(found), _by_host(warned)
    hosts = {
        host: _host(fleet, host, seen, obstacles_of.get(host, ()), warnings_of.get(host, ()))
        for host, seen in fleet.seen.items()
    }
    unread = {host for host in hosts if fleet.is_unread(host)}
    if between or any(one.state == "blocked" for one in hosts.values()):
        result = "blocked"
    else:
        result = "unknown" if unread else "drift" if any(one.state == "drift" for one in hosts.values()) else "clean"
    return Plan(
        action=fleet.action,
        result=result,
        hosts=hosts,
        obstacles=tuple(found),
        warnings=tuple(warned),
        steps=_steps(fleet),
        recover=tuple(host for host in hosts if _is_interrupted(fleet.seen[host])),
        prove=tuple(_to_prove(fleet)),
        prove_peers=tuple(host for host in hosts if "peers" in fleet.steps(host)),
        cost=_cost(fleet),
        outside=tuple(
            dict.fromkeys(host for some in request.groups.values() for host in some if host not in fleet.seen)
        ),
        former=former_of(fleet),
        by_hand=fleet.pending,
    )


def _locks(fleet: Fleet) -> Iterable[tuple[Located, bool]]:
    """Yield the lock of another run. It stops only a run that changes something."""
    changes = any(_is_interrupted(one) or fleet.steps(host) for host, one in fleet.seen.items())
    for host, (finding, stops) in fleet.request.locks.items():
        yield Located(host, finding), not (stops and changes)


def _warned(fleet: Fleet) -> Iterable[Located]:
    yield from rules.warnings(fleet)
    yield from peer_rules.warnings(fleet)
    yield from undo_rules.warnings(fleet)


def _of_hosts(fleet: Fleet, what: str) -> Iterable[Located]:
    """Yield the obstacles or notes that the hosts reported, or why a host could not be read."""
    for host, seen in fleet.seen.items():
        if isinstance(seen, Observation):
            yield from (Located(host, one) for one in getattr(seen, what))
        elif what == "obstacles":
            yield Located(host, Finding.advised(seen.code, seen.message))


def _by_host(located: Iterable[Located]) -> dict[str, tuple[Finding, ...]]:
    found: dict[str, list[Finding]] = {}
    for one in located:
        found.setdefault(one.host, []).append(one.finding)
    return {host: tuple(findings) for host, findings in found.items()}


def _host(
    fleet: Fleet,
    host: str,
    seen: Union[Observation, Unread],
    obstacles: tuple[Finding, ...],
    warnings: tuple[Finding, ...],
) -> HostPlan:
    role = fleet.role(host)
    if isinstance(seen, Unread):
        return HostPlan(role, "", "not read", "unknown", obstacles=obstacles, warnings=warnings)
    steps, changes = fleet.steps(host), _changes(fleet, seen, role)
    drift = bool(steps or changes or seen.interrupted)
    return HostPlan(
        role=role,
        title=seen.title,
        present=_present(seen, role),
        state="blocked" if obstacles else "drift" if drift else "clean",
        changes=changes,
        steps=steps,
        obstacles=obstacles,
        warnings=warnings,
        digests=seen.digests,
        after=seen.after,
        send_only=seen.send_only,
    )


def _changes(fleet: Fleet, seen: Observation, role: str) -> tuple[FileDiff, ...]:
    own = () if fleet.action == "set_delivery_mode" else seen.changes
    return (*own, *(seen.gateway.changes if role == GATEWAY else seen.peers.changes))


def _present(seen: Observation, role: str) -> str:
    """Return what a host is now, in words."""
    sides = ("inbound",) if role == GATEWAY else ("inbound", "outbound")
    words = [f"{side} {state}" for side, state in zip(sides, seen.before) if state]
    if seen.send_only:
        words[:1] = ["send only"] if seen.before[0] else ["send only", *words[:1]]
    if seen.state == "broken":
        runs = {True: ", running", False: ", not running", None: ""}[seen.running]
        words.insert(0, f"broken configuration{runs}")
    elif seen.state in ("stopped", "missing"):
        words.insert(0, seen.state)
    modes = dict.fromkeys(one.mode for one in seen.gateway.configs.values())
    if role == GATEWAY and modes:
        words.append(f"modes {'/'.join(modes)}")
    return ": ".join(one for one in (seen.title, ", ".join(words)) if one) or "nothing known"


def _steps(fleet: Fleet) -> dict[str, PlanStep]:
    together = [one.hosts for one in fleet.estate.deliveries]
    gateways = fleet.of_run(GATEWAY)
    return ordered(fleet.action, fleet.changing(), fleet.hops, gateways, fleet.request.batches, together)


def _is_interrupted(seen: Union[Observation, Unread]) -> bool:
    return isinstance(seen, Observation) and seen.interrupted


def _to_prove(fleet: Fleet) -> Iterable[str]:
    """Return the hosts that make tests after the changes: the gateways, which see all others.

    A mail server is tested by its own change, or when it was read. If nothing changes, that is the proof. With starttls_checks
    all hosts make tests: neither a read nor a change makes these. Without a gateway the controller tests them all, because no other
    host has seen them.
    """
    if fleet.request.test_all or not fleet.gateways:
        return fleet.seen
    changes = any(fleet.steps(host) for host in fleet.seen)
    return [host for host in fleet.seen if fleet.role(host) == GATEWAY] if changes else ()


def _cost(fleet: Fleet) -> Cost:
    senders, sessions, times = [], {}, []
    for host, seen in fleet.seen.items():
        if isinstance(seen, Observation):
            times += [one.tls_ms for one in seen.servers.values() if one.tls_ms is not None]
        if fleet.role(host) == MAIL_SERVER:
            sessions[host] = seen.sessions_an_hour if isinstance(seen, Observation) else None
            if isinstance(seen, Observation) and fleet.sends_through_a_gateway(seen):
                senders.append(host)
    return Cost(tuple(senders), sessions, round(statistics.median(times), 1) if times else None)
