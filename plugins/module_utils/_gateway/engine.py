# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The change of a gateway in one transaction. Every change of a gateway uses these functions.

The parts (modes, outbound, enforced) compute the wanted state and assess it. An adapter plans the files or calls
for it. This module combines them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import (
    Gateway,
    GatewayOutcome,
    GatewayTransaction,
    GatewayVerdict,
    Part,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.differences import differences, unreadable
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.evidence import Handshakes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import Answers
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.own_floor import with_floor, without_use
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import MailOfARoute, lost_domains
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.facts import refuse_changed
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    PortInUseError,
    TransactionError,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_SECONDS

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState
    from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings


# If Postfix's master could not start a process, it waits a minute before it tries again, even with correct files.
PATIENCE = 90.0


def prove_patiently(gateway: Gateway) -> None:
    """Prove that the former state is back. Raises EngineError if it is not back within PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return gateway.prove()
        except EngineError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.5)


def delivered_modes(gateway: Gateway, held: GatewayState, domains: Iterable[str] = ()) -> dict[str, Optional[str]]:
    """Return the mode in which the daemon delivers the held email configs' domains and these; None if it does not tell it."""
    every = dict.fromkeys([*domains, *(one for config in held.email_configs.values() for one in config.domains)])
    found: Mapping[str, Optional[str]] = {}
    with contextlib.suppress(EngineError, OSError):
        found = gateway.delivers([one for one in every if is_domain(one)])
    return {one: found.get(one) for one in every}


def in_force(gateway: Gateway, held: GatewayState) -> dict[str, dict[str, Optional[bool]]]:
    """Return the answers for what the record holds: C(inbound) and C(outbound) by domain, C(accept) and C(send) by their value."""
    noted: dict[str, list[str]] = {}
    for one in held.enforced:
        noted.setdefault(one.direction, []).append(one.domain)
    for option in ("accept", "send"):
        if value := getattr(held.outbound, option, None):
            noted[option] = [value]
    found: Answers = {}
    if noted:
        with contextlib.suppress(EngineError, OSError):
            found = gateway.in_force(held)
    return {what: {one: found.get(what, {}).get(one) for one in values} for what, values in noted.items()}


def shown(gateway: Gateway, held: GatewayState, domains: Iterable[str] = (), store: str = STORE) -> dict[str, Any]:
    """Return what the daemon does: C(delivered_modes), C(in_force) and C(differences), for a gateway that runs."""
    modes = delivered_modes(gateway, held, domains)
    answers = in_force(gateway, held)
    return {
        "delivered_modes": modes,
        "in_force": answers,
        "differences": differences(gateway, held, modes, answers, store),
    }


NOTHING_SHOWN: Mapping[str, Any] = {"delivered_modes": {}, "in_force": {}, "differences": []}
"""What a gateway shows that does not run."""


def describe(gateway: Gateway, domains: Sequence[str] = (), store: str = STORE) -> dict[str, Any]:
    """Return the state and the supported modes of a gateway, for inbound_tls_mode_info. Changes nothing.

    domains: recipient domains to look up, besides those of its email configs. A gateway that does not run delivers in no mode,
    has nothing in force, and nothing that differs.
    Raises EngineError if the state cannot be read.
    """
    held = gateway.read()
    asked = [one for one in dict.fromkeys(str(one).lower().rstrip(".") for one in domains) if is_domain(one)]
    seen: Mapping[str, Any] = NOTHING_SHOWN
    try:
        with contextlib.suppress(PortInUseError):
            gateway.require_running()
        seen = shown(gateway, held, asked, store)
    except BrokenConfigurationError as error:  # the daemon may well run, with what it read before
        seen = {**NOTHING_SHOWN, "differences": unreadable(held, error)}
    except (EngineError, OSError):
        pass
    return {
        "email_configs": [held.email_configs[name].to_dict() for name in sorted(held.email_configs)],
        "delivery_modes": list(gateway.modes),
        "limits": dict(gateway.limits),
        "enforced_domains": [one.to_dict() for one in held.enforced],
        "outbound": held.outbound.to_dict() if held.outbound else {},
        "accepted_domains": dict(gateway.accepts(asked)) if asked else {},
        **seen,
        "keeps_names": gateway.keeps_names,
    }


@dataclass(frozen=True)
class Opening:
    """A change of the same daemon's files that this call has made and proved before, to the side that accepts TLS.

    It is undone as well if what follows fails. prove and prove_old: raise EngineError unless the daemon shows the state
    after it and before it.
    """

    change: Change
    prove: Callable[[], None]
    prove_old: Callable[[], None]


def set_gateway(
    gateway: Gateway,
    parts: Sequence[Part],
    settings: Settings,
    require_without_evidence: bool = False,
    check_mode: bool = False,
    store: str = STORE,
    digests: Optional[Mapping[str, str]] = None,
    opening: Optional[Callable[[], Optional[Opening]]] = None,
    queue_seconds: float = QUEUE_SECONDS,
) -> GatewayOutcome:
    """Set all parts on the gateway in one transaction, or leave it unchanged. The later parts build on the earlier ones.

    Each part is assessed by the state before and the final state. A handshake with the same target is made once.
    Without a part and an opening, the gateway is read and left alone.
    digests: path -> SHA-256 or C(absent), as the plan saw the files. The change is refused if one of them differs now.
    opening, queue_seconds: see change_within. Raises EngineError (nothing was changed) or TransactionError (the change failed
    and was rolled back; see restored).
    """
    if not parts and not opening:
        with gateway.transaction(store).opened(check_mode, lambda: prove_patiently(gateway)) as (recovered, warnings):
            held = gateway.read()
            return GatewayOutcome(recovered, held, held, [], (), recovered, (*warnings, *settings.told))
    compute, assess, wanted = combined(gateway, parts, settings, require_without_evidence)
    outcome = change_gateway(
        gateway, compute, assess, wanted, require_without_evidence, check_mode, store, digests, opening, queue_seconds
    )
    return replace(outcome, warnings=(*outcome.warnings, *settings.told))


def combined(
    gateway: Gateway, parts: Sequence[Part], settings: Settings, require_without_evidence: bool = False
) -> tuple[
    Callable[[GatewayState], GatewayState],
    Callable[[GatewayState, GatewayState], GatewayVerdict],
    list[Mapping[str, Any]],
]:
    """Return the parts as compute, assess and wanted of change_gateway. Raises EngineError for a part without a setting."""
    parts = with_floor(gateway, parts)
    for part in parts:
        part.refuse(gateway)
    evidence = Handshakes(settings)

    def compute(before: GatewayState) -> GatewayState:
        after = before
        for part in parts:
            after = part.compute(gateway, after)
        return without_use(parts, before, after)

    def assess(before: GatewayState, after: GatewayState) -> GatewayVerdict:
        return union(part.assess(gateway, before, after, evidence, require_without_evidence) for part in parts)

    return compute, assess, [item for part in parts for item in part.email_configs]


def union(verdicts: Iterable[GatewayVerdict]) -> GatewayVerdict:
    """Return all objections as one verdict. A handshake that several have used is in it once."""
    every = list(verdicts)
    evidence = {id(seen): seen for one in every for seen in one.evidence}
    return GatewayVerdict(
        tuple(dict.fromkeys(problem for one in every for problem in one.problems)),
        tuple(dict.fromkeys(loss for one in every for loss in one.losses)),
        tuple(evidence.values()),
        tuple(dict.fromkeys(warning for one in every for warning in one.warnings)),
    )


def refuse_to_stop_accepting(state: GatewayState) -> None:
    """Raise EngineError if the gateway requires TLS from a sender, so that it may not stop to offer STARTTLS.

    state: the state after the change of the call. For the caller that switches STARTTLS off.
    """
    if state.senders_enforced or (state.outbound and state.outbound.accept == "tls_only"):
        raise EngineError(
            "the gateway requires TLS from enforced domains or from the mail servers, so it would never accept their mail; "
            "remove that requirement first (enforced_tls_domain with state absent, outbound_tls_mode with accept both)"
        )


def undo_killed_run(gateway: Gateway, check_mode: bool = False, store: str = STORE) -> tuple[bool, list[str]]:
    """Undo the change of a killed run. Return whether there was one, and warnings. Raises EngineError."""
    with gateway.transaction(store).opened(check_mode, lambda: prove_patiently(gateway)) as (recovered, warnings):
        return recovered, warnings


def change_gateway(
    gateway: Gateway,
    compute: Callable[[GatewayState], GatewayState],
    assess: Callable[[GatewayState, GatewayState], GatewayVerdict],
    wanted: Sequence[Mapping[str, Any]] = (),
    require_without_evidence: bool = False,
    check_mode: bool = False,
    store: str = STORE,
    digests: Optional[Mapping[str, str]] = None,
    opening: Optional[Callable[[], Optional[Opening]]] = None,
    queue_seconds: float = QUEUE_SECONDS,
) -> GatewayOutcome:
    """Change the gateway to the state that compute returns for its present state, or leave it unchanged.

    assess(before, after) returns the objections. A real run refuses them; check mode warns of them. wanted: passed to
    gateway.read. digests: see set_gateway. Raises EngineError (nothing was changed) or TransactionError (the change
    failed and was rolled back; see restored).
    """
    transaction = gateway.transaction(store)
    with transaction.opened(check_mode, lambda: prove_patiently(gateway)) as (recovered, warnings):
        refuse_changed(digests or {})
        outcome = change_within(
            transaction, gateway, compute, assess, wanted, require_without_evidence, check_mode, opening, queue_seconds
        )
        return replace(
            outcome,
            changed=outcome.changed or recovered,
            recovered=recovered,
            warnings=(*warnings, *outcome.warnings),
        )


def change_within(
    transaction: GatewayTransaction,
    gateway: Gateway,
    compute: Callable[[GatewayState], GatewayState],
    assess: Callable[[GatewayState, GatewayState], GatewayVerdict],
    wanted: Sequence[Mapping[str, Any]] = (),
    require_without_evidence: bool = False,
    check_mode: bool = False,
    opening: Optional[Callable[[], Optional[Opening]]] = None,
    queue_seconds: float = QUEUE_SECONDS,
) -> GatewayOutcome:
    """Make the change in an open transaction. The errors are those of change_gateway.

    opening: called in a real run before the evidence is taken. It may widen the side that accepts TLS by a change of the
    same files, in the same transaction, and returns that change, or None if it made none. If what follows is refused or
    fails, that change is undone as well, so the call changes all or nothing. What gateway.prepare asks for comes before it,
    because that stays.
    queue_seconds: how long to wait for the queue of recipient domains that lose their route. It is looked at again directly
    before the change, and after it: mail that came in between makes the change fail.
    """
    gateway.require_running()
    before = gateway.read(wanted)
    after = compute(before)
    leaving = _Leaving(gateway, before, after)
    if not check_mode:
        leaving.wait(queue_seconds)
    opened = None
    if opening and not check_mode:
        if gateway.plan(after):
            _prepare(transaction, gateway, after)
        opened = opening()
    warnings: list[str] = leaving.warnings(queue_seconds) if check_mode else []
    try:
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
        if change and not check_mode and not opened and _prepare(transaction, gateway, after):
            change = gateway.plan(after)
        if change and not check_mode:

            def prove_old() -> None:
                if opened:
                    opened.prove_old()
                prove_patiently(gateway)

            made = change.following(opened.change) if opened else change
            leaving.wait(0)
            transaction.apply(made, leaving.prove, prove_old)
    except TransactionError:  # it has undone both
        raise
    except (EngineError, OSError) as error:
        if opened:
            _take_back(transaction, opened, error)
        raise
    if opened:
        transaction.release()
    return GatewayOutcome(bool(change), before, after, diff, verdict.evidence, False, tuple(warnings), change)


class _Leaving(MailOfARoute):
    """The recipient domains that lose their route in a change."""

    def __init__(self, gateway: Gateway, before: GatewayState, after: GatewayState) -> None:
        domains = lost_domains(before, after)
        lost = set(domains)
        names = [one.name for one in before.email_configs.values() if lost & set(one.domains)]
        super().__init__(
            lambda: gateway.queued(domains) if domains else (),
            f"the route of {', '.join(domains)} (email config {', '.join(names)})",
        )
        self._gateway = gateway

    def prove(self) -> None:
        """Prove the new state. Raises EngineError, also if mail for the domains came in before the gateway had it."""
        moment = time.time()  # the gateway has been reloaded
        self._gateway.prove()
        self.refuse_earlier(moment)


def _prepare(transaction: GatewayTransaction, gateway: Gateway, after: GatewayState) -> bool:
    """Make the change that has to come before the main one, if there is one. It stays. Return whether there was one."""
    first = gateway.prepare(after)
    if first:
        transaction.apply(first, gateway.prove, lambda: prove_patiently(gateway))
    return bool(first)


def _take_back(transaction: GatewayTransaction, opened: Opening, error: Exception) -> None:
    """Undo the opening after a refusal. Raises TransactionError."""
    transaction.take_back(opened.prove_old, error)
    raise TransactionError(f"{error}. The former state is restored and proved", restored=True) from error
