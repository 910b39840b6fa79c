# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The change of a gateway in one transaction. Every change of a gateway uses this function.

The engines (modes, enforced, outbound) compute the wanted state and assess it. An adapter plans the files or calls
for it. This module combines the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import (
    Gateway,
    GatewayOutcome,
    GatewayVerdict,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState


# If Postfix's master could not start a process, it waits a minute before it tries again, even with correct files.
PATIENCE = 90.0


def _prove_patiently(gateway: Gateway) -> None:
    """Prove that the former state is back. Raises EngineError if it is not back within PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return gateway.prove()
        except EngineError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.5)


def describe(gateway: Gateway) -> dict[str, Any]:
    """Return the state and the supported modes of a gateway, for inbound_tls_mode_info. Changes nothing.

    Raises EngineError if the state cannot be read.
    """
    held = gateway.read()
    return {
        "email_configs": [held.email_configs[name].to_dict() for name in sorted(held.email_configs)],
        "delivery_modes": list(gateway.modes),
        "limits": dict(gateway.limits),
        "enforced_domains": [one.to_dict() for one in held.enforced],
        "outbound": held.outbound.to_dict() if held.outbound else {},
    }


def change_gateway(
    gateway: Gateway,
    compute: Callable[[GatewayState], GatewayState],
    assess: Callable[[GatewayState, GatewayState], GatewayVerdict],
    wanted: Sequence[Mapping[str, Any]] = (),
    require_without_evidence: bool = False,
    check_mode: bool = False,
    store: str = STORE,
) -> GatewayOutcome:
    """Change the gateway to the state that compute returns for its present state, or leave it unchanged.

    assess(before, after) returns the objections. A real run refuses them; check mode warns of them. wanted: passed to
    gateway.read. Raises EngineError (nothing was changed) or TransactionError (the change failed and was rolled back;
    see restored).
    """
    transaction = gateway.transaction(store)
    with transaction.opened(check_mode) as (recovered, warnings):
        gateway.require_running()
        before = gateway.read(wanted)
        after = compute(before)
        verdict = assess(before, after)
        warnings.extend(verdict.warnings)
        problems = [*verdict.losses, *(() if require_without_evidence else verdict.problems)]
        if problems:
            message = "; ".join(problems)
            if not check_mode:
                raise EngineError(message)
            warnings.append(f"unless an earlier step changes that, a real run would refuse this: {message}")
        change: Any = gateway.plan(after)
        diff = change.diff()
        if not change and not gateway.serves():
            change = replace(change, reload=True)
        if change and not check_mode:
            if first := gateway.prepare(after):
                transaction.apply(first, gateway.prove, lambda: _prove_patiently(gateway))
                change = gateway.plan(after)
            transaction.apply(change, gateway.prove, lambda: _prove_patiently(gateway))
        return GatewayOutcome(
            bool(change) or recovered,
            before,
            after,
            diff,
            verdict.evidence,
            recovered,
            tuple(warnings),
        )
