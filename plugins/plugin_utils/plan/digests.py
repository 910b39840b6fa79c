# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a host as this run last saw them: as the plan did, or as a former step left them. A change refuses others."""

from __future__ import annotations

from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import HostVars
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.fleet_lock import LOCK_FACT
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import STEP_RESULTS

CHANGE_RESULTS = ("mail_server_result", "gateway_accept_result", "gateway_result", "mail_server_peers_result")
"""The variables in which a former step of the run left the files as they are now."""

LEFT_OUT = {
    "tls_estate": "has not read the inventory",
    "tls_plan": "has no plan",
    LOCK_FACT: "has no lock of the fleet, so another run may change it at the same time",
    "tls_recovery": "has not read the queues",
    "tls_verdict": "has not judged what it tested",
    "tls_report": "has written no report",
    "tls_queues": "has not compared the queues before and after",
    "tls_lost_messages": "does not know which messages are lost",
}
"""Variable of localhost -> what a run without it has not done."""
FROM_THE_BEGINNING = (
    "an earlier play does that. Run the playbook from its beginning, without --start-at-task, and leave no task out"
)


def of_run(hostvars: HostVars, name: str, *told: Any) -> Any:
    """Return what an earlier play of the run has found out: a key of LEFT_OUT. Raises EngineError if it was left out.

    told: what an earlier task of the same play has found out, before it is kept; None if it was left out. Playbooks call this where they
    need it. They keep it in no variable of a play: ansible-core 2.16 turns its value into text and back at each use, for each host,
    which takes 0.4 s in a fleet of 3,000 hosts and loses the marks of text that must not run.
    """
    kept = hostvars["localhost"].get(name) if "localhost" in hostvars else None
    found = told[0] if told else kept
    if found is None or (name == LOCK_FACT and not found):
        raise EngineError(f"this run {LEFT_OUT[name]}: {FROM_THE_BEGINNING}")
    return found


def planned_digests(host: str, hostvars: HostVars, step: str = "") -> dict[str, str]:
    """Return path -> SHA-256 of the files of a host. The result of the newest step counts.

    step: the one that is about to run. Without it, no two steps before it have changed the same files in another order than that of
    CHANGE_RESULTS. Raises EngineError if there is no plan.
    """
    plan = hostvars["localhost"].get("tls_plan") or {}
    if host not in plan.get("hosts", {}):
        raise EngineError(
            f"this run has no plan for {host}: a run reads all hosts and plans before it changes anything. Start the playbook at its "
            "beginning, without --start-at-task"
        )
    if plan.get("lock") and not (hostvars["localhost"].get(LOCK_FACT) or {}).get("host"):
        raise EngineError(
            "this run has no lock of the fleet, so another run may change it at the same time: the task that takes it was left out. Run "
            "the playbook from its beginning, without --start-at-task, and answer yes there with --step"
        )
    facts = hostvars[host]
    found = dict(plan["hosts"][host].get("digests") or {})
    former = plan["hosts"][host].get("former") or {}
    for name in _in_order(plan["hosts"][host].get("steps") or (), step):
        made = dict((facts.get(name) or {}).get("digests") or {})
        if made != former.get(name):  # else it is that of an earlier plan, in the same call of ansible-playbook
            found.update(made)
    return found


def _in_order(steps: tuple[str, ...], step: str) -> list[str]:
    """Return the variables, that of the newest step last."""
    before = list(steps)[: list(steps).index(step)] if step in steps else ()
    last = {STEP_RESULTS[one][0]: number for number, one in enumerate(before) if one in STEP_RESULTS}
    return sorted(CHANGE_RESULTS, key=lambda name: last.get(name, -1))
