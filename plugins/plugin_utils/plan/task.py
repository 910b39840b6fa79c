# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the task tls_plan and the plan: what the variables of the hosts hold, the result of the task, the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import is_absent
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import (
    Estate,
    HostVars,
    target_of,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.fleet_lock import (
    BREAK,
    HOURS,
    hours_of,
    is_true,
    lock_places,
    seen_lock,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.json_file import write_json_file
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peers import (
    WantedPeer,
    host_at_target,
    read_peers,
    targets_in,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.by_hand import confirmed_by
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.digests import CHANGE_RESULTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import PlanRequest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.making import make_plan
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import OBSTACLES, UNREAD
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.order import DEFAULT_BATCHES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.text import names, plan_table, plan_text
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import RESULTS, Plan
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import listed
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import CHANGES, WorkflowChanges, result_of

FAIL_ON = {"drift": ("drift", "blocked", "unknown"), "blocked": ("blocked", "unknown"), "never": ()}
"""What a plan may fail on -> the results with which it does."""
_PLAYBOOKS = {
    "enable": "enable_tls.yml",
    "disable": "disable_tls.yml",
    "set_delivery_mode": "set_delivery_mode.yml",
    "uninstall": "uninstall.yml",
    "undo": "undo_workflow.yml",
    "rotate": "rotate_certificate.yml",
}
OBSERVED = ("mail_server_observed", "gateway_observed")
"""The variables with what the roles read."""
MOST_OBSTACLES = 3
"""Most obstacles in the message of a plan."""
_GROUPS = ("mail_gateways", "mail_servers")
_TRUE = ("true", "yes", "on", "1")


def plan_of_run(
    options: Mapping[str, Any], hostvars: HostVars, groups: Mapping[str, Sequence[str]], own_run: str = ""
) -> Plan:
    """Return the plan of a run. options are those of tls_plan. own_run: names the run in its lock of the fleet. Raises EngineError."""
    wanted = Estate.from_json(options["estate"])
    if options["only_these_hosts"]:  # a host may leave the role out by "when"
        read = [one for one in wanted.hosts if observed_of([hostvars[one].get(name) for name in options["observed"]])]
        wanted = replace(wanted, hosts=tuple(read))
    only = set(wanted.hosts) if options["only_these_hosts"] else None
    members = {group: [host for host in groups.get(group) or () if only is None or host in only] for group in _GROUPS}
    observed: dict[str, Mapping[str, Any]] = {}
    sides: dict[str, dict[str, str]] = {"inbound": {}, "outbound": {}}
    targets, without_evidence = {}, set()
    run = set(wanted.hosts)
    test_all = False
    with_peers: dict[str, Mapping[str, Any]] = {}
    enforced: dict[str, list[tuple[str, str]]] = {}
    batches = options["batches"]
    for host in dict.fromkeys((*wanted.hosts, *members["mail_gateways"], *members["mail_servers"])):
        facts = hostvars[host]  # once a host: Ansible computes its variables anew each time
        try:
            targets[host] = str(target_of(host, {host: facts}))
        except EngineError:
            if host in run:
                raise
        for side, value in sides.items():
            value[host] = str(facts.get(f"starttls_{side}") or "")
        if str(facts.get("starttls_require_without_evidence")).lower() in _TRUE:
            without_evidence.add(host)
        test_all = test_all or bool(facts.get("starttls_checks"))
        if host in run and not batches and host not in members["mail_gateways"]:
            batches = facts.get("starttls_batches")  # of the mail servers: only those change in batches
        if host not in run and facts.get("starttls_peers") and host in members["mail_servers"]:
            with_peers[host] = facts
        if host in run and options["action"] == "enable" and host in members["mail_gateways"]:
            enforced[host] = list(_enforced(facts.get("starttls_enforced_domains")))
        if host in run:
            observed[host] = observed_of([facts.get(name) for name in options["observed"]])
    anyone = next(iter(wanted.hosts), None)
    request = PlanRequest(
        action=options["action"],
        groups=members,
        targets=targets,
        batches=listed(batches or None) or DEFAULT_BATCHES,
        inbound=sides["inbound"],
        outbound=sides["outbound"],
        without_evidence=frozenset(without_evidence),
        test_all=test_all,
        outside_peers=_outside_peers(with_peers, members["mail_gateways"], targets, hostvars),
        enforced=enforced,
        undo=_given(wanted.hosts, hostvars) if options["action"] == "undo" else WorkflowChanges(),
        confirmed=confirmed_by(hostvars[anyone]) if anyone is not None else frozenset(),
        locks=dict(_locks(observed, hostvars, own_run, bool(options.get("plan_only")))),
    )
    return make_plan(wanted, observed, request)


def _locks(
    observed: Mapping[str, Mapping[str, Any]], hostvars: HostVars, own_run: str, plan_only: bool
) -> Iterator[tuple[str, tuple[Finding, bool]]]:
    """Yield each host that showed a lock of another run, with what it means. Raises EngineError."""
    for host, result in observed.items():
        if lock := result.get("fleet_lock"):
            hours, breaks = hours_of(hostvars[host].get(HOURS)), is_true(hostvars[host].get(BREAK))
            if found := seen_lock(host, lock, own_run, hours, breaks):
                yield host, (found[0], found[1] and not plan_only)


def lock_of(
    plan: Plan, run: Mapping[str, Any], hostvars: HostVars, groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return C(lock), where the lock of the fleet may be held for the steps that a playbook reads, and C(playbook), who holds it.

    Steps without a host need no lock.
    """
    changes = any(one["hosts"] for one in run["steps"].values()) or run["recover"]
    places = lock_places(hostvars, groups, list(plan.hosts)) if changes else []
    return {"lock": places, "playbook": _PLAYBOOKS[plan.action].removesuffix(".yml")}


def _outside_peers(
    with_peers: Mapping[str, Mapping[str, Any]], gateways: Sequence[str], targets: Mapping[str, str], hostvars: HostVars
) -> dict[str, tuple[WantedPeer, ...]]:
    """Return the peers of mail servers that are not in the run. One with a fault is left out: the run that it is in says so."""
    found: dict[str, tuple[WantedPeer, ...]] = {}
    host_at = host_at_target(targets_in(targets))
    for host, facts in with_peers.items():
        with contextlib.suppress(EngineError):
            found[host] = read_peers(
                host,
                facts,
                host in gateways,
                lambda text: target_of(text, hostvars) if text in hostvars else None,
                host_at,
            )
    return found


def observed_of(results: Iterable[Any]) -> Mapping[str, Any]:
    """Return the result that counts of those that a host has: one that failed, or else the one of a gateway, or else the first."""
    given = [one for one in results if isinstance(one, Mapping) and one and not one.get("skipped")]
    failed = [one for one in given if one.get("failed") or one.get("unreachable")]
    return next(iter([*failed, *(one for one in given if one.get("gateway")), *given]), {})


def former_changes(hosts: Iterable[str], hostvars: HostVars) -> dict[str, dict[str, Any]]:
    """Return host -> variable -> digests of the changes that are older than the plan: those of another playbook of the same call."""
    return {
        host: {
            name: dict(made)
            for name in CHANGE_RESULTS
            if isinstance(made := (hostvars[host].get(name) or {}).get("digests"), Mapping) and made
        }
        for host in hosts
    }


def _enforced(given: Any) -> Iterator[tuple[str, str]]:
    """Yield domain and direction of the wanted enforced domains. One that is none is said by the gateway."""
    for one in given if isinstance(given, (list, tuple)) else ():
        if isinstance(one, Mapping) and not is_absent(one):
            yield str(one.get("domain") or "").lower().rstrip("."), str(one.get("direction") or "")


def _given(hosts: Iterable[str], hostvars: HostVars) -> WorkflowChanges:
    """Return what the jobs before this one have changed. It is an extra variable, so every host has the same. Raises EngineError."""
    return next((WorkflowChanges.parse(hostvars[host].get(CHANGES)) for host in hosts), WorkflowChanges())


def handed_on(plan: Plan, run: Mapping[str, Any], hostvars: HostVars) -> dict[str, Any]:
    """Return what the workflow has changed once this run is over, as plain data: C(starttls_changes) for the next job.

    It is known before the first change, so a run that stops hands it on as well. A host that was not reached is then in it, too: to put
    it back changes nothing. run: what the steps of the playbook read. What an undo puts back is handed on as it was. Raises EngineError.
    """
    local = hostvars.get("localhost") or {}
    earlier = (local.get("tls_plan") or {}).get("changes")  # of another playbook of the same call
    found = _given(plan.hosts, hostvars).followed_by(WorkflowChanges.parse(earlier))
    changes = plan.action != "undo" and any(one["hosts"] for one in run["steps"].values())
    return (found.followed_by(plan.former) if changes else found).to_json()


def plan_result(
    plan: Plan, plan_only: bool, fail_on: str, alone: bool = False, recovered: bool = False, fail: bool = True
) -> tuple[dict[str, Any], str]:
    """Return the result of tls_plan, and the text to show.

    plan_only: nothing follows, so C(fail_on) decides. Otherwise a plan that is blocked or unknown always fails. If a killed run
    has left changes, a run that changes undoes them first and plans again. Such a first plan shows nothing and does not fail.
    If another host stops the run in any case, nothing is undone, and the plan shows everything at once.
    recovered: this is the second plan, so a journal that is still there, or again, stops the run.
    alone: a role makes the change by itself, and its module undoes what a killed run left. fail: whether the task fails if the
    run has to stop.
    """
    if plan.recover and recovered and not plan_only:
        said = (
            f"a killed run has left changes on {names(plan.recover)}, and they are still there after they were undone"
        )
        return {
            "changed": False,
            "failed": fail,
            "stops": True,
            "msg": f"{said}; another run may change these hosts at this moment: run again",
        }, ""
    if plan.recover and not plan_only and not alone and not _stopped_by_others(plan):
        run = {**plan.run(may_change=False), "recover": list(plan.recover)}
        return {"changed": False, "failed": False, "stops": False, "msg": _recovering(plan), "run": run}, ""
    stops = plan.result in FAIL_ON[fail_on if plan_only else "blocked"]
    run = plan.run(may_change=not plan_only)
    if alone:
        for host in plan.recover:  # the module undoes that first, and then no file has the digest that was read
            run["hosts"][host]["digests"] = {}
    result = {
        "changed": False,
        "failed": stops and fail,
        "stops": stops,
        "msg": _message(plan, stops, plan_only),
        "plan": plan.to_json(),
        "run": run,
        "table": plan_table(plan),
        "handed_on": _handed_on(plan),
    }
    return result, f"{_title(plan)}\n\n{plan_text(plan)}"


def _handed_on(plan: Plan) -> dict[str, Any]:
    """Return the plan as C(starttls_result)."""
    states = [one.state for one in plan.hosts.values()]
    counts = {state: states.count(state) for state in RESULTS}
    found = [
        {"host": host, "severity": one.severity, "code": one.code, "message": one.message}
        for host, one in (*plan.obstacles, *plan.warnings)
    ]
    return result_of({"action": plan.action, "plan": plan.result, "hosts": len(states), **counts}, found)


def _stopped_by_others(plan: Plan) -> bool:
    """Return whether a host without a killed run says of itself what stops the run. What it says of others may be due to that run.

    A run that has the lock of the fleet is not killed: what looks like its journal is the change that it makes now.
    """
    own = OBSTACLES | UNREAD
    return any(
        one.finding.code == "another_run"
        or (one.finding.code in own and one.host in plan.hosts and one.host not in plan.recover)
        for one in plan.obstacles
    )


def _recovering(plan: Plan) -> str:
    return (
        f"a killed run has left changes on {names(plan.recover)}; they are undone first, then the hosts are read again"
    )


def _title(plan: Plan) -> str:
    return f"Plan: {plan.action.replace('_', ' ')}: {plan.result}"


def _message(plan: Plan, stops: bool, plan_only: bool) -> str:
    count = {
        state: [host for host, one in plan.hosts.items() if one.state == state] for state in ("blocked", "unknown")
    }
    changing = sum(1 for one in plan.hosts.values() if one.state == "drift")
    said = [f"{len(plan.hosts)} host{'s' if len(plan.hosts) > 1 else ''}"]
    said += [f"{changing} to change"] if changing else []
    said += [f"{len(hosts)} {state} ({names(hosts)})" for state, hosts in count.items() if hosts]
    elsewhere = [one.host for one in plan.obstacles if one.host and one.host not in plan.hosts]
    said += [f"something in the way outside this run ({names(dict.fromkeys(elsewhere))})"] if elsewhere else []
    text = f"the plan is {plan.result}: {', '.join(said)}"
    if stops and plan.result == "drift":
        text += f"; make the changes with {_PLAYBOOKS[plan.action]}, or set starttls_plan_fail_on to 'blocked'"
    elif stops or plan.result in ("blocked", "unknown"):
        text += "; nothing was changed. Do what stands under 'In the way', and run again"
        text += "" if plan_only else "; plan_tls.yml shows the plan alone"
        text += f". {_first_obstacles(plan)}"
    return one_line(text)


def _first_obstacles(plan: Plan) -> str:
    """Return the first things that stand in the way, for a line that has to say why without the table."""
    said = list(dict.fromkeys(f"{host}: {one.message}" if host else one.message for host, one in plan.obstacles))
    more = len(said) - MOST_OBSTACLES
    return "; ".join(said[:MOST_OBSTACLES]) + (f"; and {more} more" if more > 0 else "")


def write_plan(path: str, plan: Plan) -> None:
    """Write the plan as JSON, at once or not at all, for everybody to read. Raises EngineError."""
    write_json_file(path, plan.to_json(), "starttls_plan_file")
