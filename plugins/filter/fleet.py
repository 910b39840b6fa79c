# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn the inventory into module options.

The functions are in plugin_utils: estate, exchange, findings, fleet_lock, messages, peers, plan.digests, recovery, renewal, rows, stated,
steps, variables, waits and workflow. Those that get hostvars see what a role has noted of its play, see stated.

The functions put results into new text. So nothing that a filter returns is a template. An error of the engine becomes a value, see
plugin_utils.faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils import (
    estate,
    fleet_lock,
    messages,
    peers,
    renewal,
    rows,
    steps,
    waits,
    workflow,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import MissingLibraryError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange import proof, wanted
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.faults import as_fault
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import failing
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan import by_hand, digests
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.recovery import plan as recovery
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.stated import as_stated, told_to_others
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.untrusted import untrusted
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import given, listed
from jinja2 import pass_context
from jinja2.runtime import Context


def _filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter whose errors are faults: in a list, as the value would be, if the function returns one; a text among texts."""
    returns = str(function.__annotations__["return"])

    @pass_context
    @wraps(function)
    def wrapped(context: Context, *args: Any, **kwargs: Any) -> Any:
        play = context.get("ansible_play_name")
        args = tuple(as_stated(one, play) for one in args)
        try:
            return untrusted(function(*args, **kwargs))
        except (EngineError, MissingLibraryError) as error:
            fault = str(error) if returns == "list[str]" else as_fault(error)
            return untrusted([fault] if returns.startswith("list[") else fault)

    return wrapped


@wraps(digests.of_run)
def _of_run(hostvars: Mapping[str, Mapping[str, Any]], name: str, *told: Any) -> Any:
    """Return what an earlier play of the run has found out. Without it the task ends with this error, not with an undefined variable."""
    try:
        return digests.of_run(hostvars, name, *told)
    except EngineError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """The filters of the collection."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by their names."""
        return {
            "capabilities": _filter(estate.capabilities),
            "reachable_at": _filter(estate.reachable_at),
            "of_run": _of_run,
            "planned_digests": _filter(digests.planned_digests),
            "localhost_of": _filter(estate.localhost_of),
            "kind_on": _filter(estate.kind_on),
            "has_log": _filter(estate.has_log),
            "estate": _filter(estate.estate),
            "send_only": _filter(estate.send_only),
            "what_by_hand": _filter(by_hand.what_by_hand),
            "wanted_peers": _filter(peers.wanted_peers),
            "handshake_targets": _filter(estate.handshake_targets),
            "verdict_rows": _filter(rows.verdict_rows),
            "own_target": _filter(estate.own_target),
            "failed_tests": _filter(rows.failed_tests),
            "namesakes_of": _filter(rows.namesakes_of),
            "trace_messages": _filter(messages.trace_messages),
            "trace_work": _filter(messages.trace_work),
            "lost_messages": _filter(waits.lost_messages),
            "trace_landings": _filter(messages.trace_landings),
            "with_delivery_mode": _filter(estate.with_delivery_mode),
            "report_outputs": _filter(rows.report_outputs),
            "unless_step": _filter(steps.unless_step),
            "failing": _filter(failing),
            "given": _filter(given),
            "listed": _filter(listed),
            "requesting": _filter(renewal.requesting),
            "waiting_hosts": _filter(renewal.waiting_hosts),
            "renewing": _filter(renewal.renewing),
            "past_renewing": _filter(renewal.past_renewing),
            "renewed_here": _filter(renewal.renewed_here),
            "waiting_hops": _filter(recovery.waiting_hops),
            "ready_hops": _filter(recovery.ready_hops),
            "step_failures": _filter(recovery.step_failures),
            "lock_places": _filter(fleet_lock.lock_places),
            "told_to_others": _filter(told_to_others),
            "configs_before": _filter(workflow.configs_before),
            "state_before": _filter(workflow.state_before),
            "enforced_before": _filter(workflow.enforced_before),
            "with_report": _filter(workflow.with_report),
            "proof_host": _filter(wanted.proof_host),
            "tester_of": _filter(wanted.tester_of),
            "proof_targets": _filter(proof.proof_targets),
            "is_proof": _filter(proof.is_proof),
        }
