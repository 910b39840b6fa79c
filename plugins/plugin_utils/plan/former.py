# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run is about to change, as it is before: so that undo_workflow can put back that and no more."""

from __future__ import annotations

from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import Fleet
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import Observation
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import GATEWAY
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import FormerHost, WorkflowChanges

_SENDS = {"disabled": "plaintext", "opportunistic": "opportunistic", "required": "required"}
"""Outbound side of a gateway's daemon -> the delivery mode that is the same."""


def former_of(fleet: Fleet) -> WorkflowChanges:
    """Return the hosts that need a step, and the email configs whose mode changes, as they are now.

    An email config that gateways of the run hold in different modes gets the mode of the first one.
    """
    changing = {host: seen for host, seen in fleet.seen.items() if isinstance(seen, Observation) and fleet.steps(host)}
    return WorkflowChanges({host: _host(fleet, host, seen) for host, seen in changing.items()}, _modes(fleet))


def _host(fleet: Fleet, host: str, seen: Observation) -> FormerHost:
    inbound, outbound = seen.before
    if fleet.role(host) == GATEWAY:
        view = seen.gateway
        held = {*((one, "inbound") for one in view.senders), *((one, "outbound") for one in view.enforced)}
        new = [one for one in fleet.request.enforced.get(host, ()) if one not in held]
        return FormerHost.of(inbound, view.send or _SENDS.get(outbound, ""), view.accept, enforced=new)
    there = seen.peers.there
    added = () if there is None or "peers" not in fleet.steps(host) else fleet.peers(host)
    return FormerHost.of(
        inbound, outbound, peers=[one.peer.name for one in added if one.peer.name not in (there or ())]
    )


def _modes(fleet: Fleet) -> dict[str, Optional[str]]:
    views = [seen.gateway for host in fleet.of_run(GATEWAY) if (seen := fleet.observation(host))]
    found: dict[str, Optional[str]] = {}
    for name in (one.config.name for one in fleet.estate.deliveries):
        held = [view.configs[name].mode if name in view.configs else None for view in views]
        changes = any(name in view.after and view.after[name] != mode for view, mode in zip(views, held))
        before = next(filter(None, held), None)
        if changes and before in (None, *MODES):
            found[name] = before
    return found
