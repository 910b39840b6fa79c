# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every gateway adapter offers, and the one way in which a gateway is changed.

The engines (mode, enforced, outbound) say what a gateway shall hold and what speaks against it; an adapter says which
files or calls make it so; this brings the two together in one transaction.
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


# A master that could not start a process waits a minute before it tries again, whatever the files say by then.
PATIENCE = 90.0


def _prove_patiently(gateway: Gateway) -> None:
    """Prove that the former state is back. Raises EngineError if it is not in time."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return gateway.prove()
        except EngineError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.5)


def describe(gateway: Gateway) -> dict[str, Any]:
    """What a gateway holds and can express, as inbound_tls_mode_info returns it. Raises EngineError; changes nothing."""
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
    """Bring the gateway to what compute makes of its state, in one transaction, or leave it as it was.

    What assess finds against it is refused, in check mode said. Raises EngineError (nothing was touched) or
    TransactionError (it was, and is put back).
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
            warnings.append(f"unless steps before it change that, a real run would refuse this: {message}")
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
