# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A floor for the TLS versions of a gateway's own transports, those of delivery modes and of outbound enforced domains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import (
    Gateway,
    GatewayVerdict,
    HoldsOwnFloor,
    Part,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.evidence import Handshakes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    LEVELS,
    TRANSPORT_FLOORS,
    changing,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState


@dataclass(frozen=True)
class OwnFloor:
    """The floor of a gateway, as a part of a change.

    wanted: one of TRANSPORT_FLOORS; None for the one that is held, which counts for what is new; anything else takes it away.
    """

    wanted: Optional[str]
    email_configs: Sequence[Mapping[str, Any]] = ()

    def refuse(self, gateway: Gateway) -> None:
        """Do nothing: a gateway that holds no floor does not get this part."""

    def compute(self, gateway: Gateway, before: GatewayState) -> GatewayState:
        """Return the state with the floor."""
        del gateway
        if self.wanted is None:
            return before
        return replace(before, min_tls=self.wanted if self.wanted in TRANSPORT_FLOORS else "")

    def assess(
        self, gateway: Gateway, before: GatewayState, after: GatewayState, evidence: Handshakes, insisting: bool
    ) -> GatewayVerdict:
        """Return the objections: the servers that do not reach the floor, if mail for them would wait."""
        if insisting or not after.min_tls:
            return GatewayVerdict()
        hard, weak = _servers(before, after)
        for domain in _enforced(before, after):
            hard.update(dict.fromkeys(gateway.next_hops(domain, after)))
        weak = {target: None for target in weak if target not in hard}
        seen = {one.target: one for one in evidence.of([*hard, *weak])}
        problems, warnings = _verdict(
            gateway,
            self,
            after.min_tls,
            [said for target in hard if (said := _too_old(seen[target], after.min_tls))],
            [said for one in weak if seen[one].advertised and (said := _too_old(seen[one], after.min_tls))],
        )
        return GatewayVerdict(tuple(problems), (), tuple(seen.values()), tuple(warnings))


def foretold(
    gateway: Gateway, parts: Sequence[Part], tests: Iterable[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Return why the floor of these parts would be refused, and what would go in plaintext, from the tests of a read.

    tests: plain handshakes. A server without a completed one is not judged: the same run may switch TLS on there. Raises EngineError.
    """
    parts = with_floor(gateway, parts)
    floor = next((one for one in parts if isinstance(one, OwnFloor)), None)
    if floor is None:
        return [], []
    before = after = gateway.read([item for part in parts for item in part.email_configs])
    for part in parts:
        after = part.compute(gateway, after)
    if not after.min_tls:
        return [], []
    newer = TRANSPORT_FLOORS[TRANSPORT_FLOORS.index(after.min_tls) :]
    old = {
        str(Target(str(one["host"]), int(one["port"]))): str(one.get("tls_version"))
        for one in tests
        if one.get("completed") and one.get("tls_version") not in newer
    }
    hard, weak = (
        [f"{target}: it speaks {old[str(target)]} at most" for target in some if str(target) in old]
        for some in _servers(before, after)
    )
    return _verdict(gateway, floor, after.min_tls, hard, weak)


def with_floor(gateway: Gateway, parts: Sequence[Part]) -> Sequence[Part]:
    """Return the parts of a change with the floor that is held, if the gateway can hold one and no part says another."""
    if not parts or not isinstance(gateway, HoldsOwnFloor) or any(isinstance(one, OwnFloor) for one in parts):
        return parts
    return [*parts, OwnFloor(None)]


def without_use(parts: Sequence[Part], before: GatewayState, after: GatewayState) -> GatewayState:
    """Return the state without a floor that nobody asks for, once the last email config and outbound enforced domain has gone."""
    asked = any(isinstance(one, OwnFloor) and one.wanted is not None for one in parts)
    used, uses = (bool(one.email_configs or one.recipients_enforced) for one in (before, after))
    return replace(after, min_tls="") if after.min_tls and used and not uses and not asked else after


def _verdict(
    gateway: Gateway, part: OwnFloor, floor: str, hard: list[str], weak: list[str]
) -> tuple[list[str], list[str]]:
    """Return reasons to refuse the floor, and warnings. hard, weak: which servers do not reach it, those without need of TLS in weak."""
    if not (isinstance(gateway, HoldsOwnFloor) and gateway.plaintext_at_once):
        hard, weak = [*hard, *weak], []
    refusal = _refusal if part.wanted is not None else _refusal_of_held
    return [refusal(floor, one) for one in hard], [f"{one}, so mail would go there in plaintext" for one in weak]


def _servers(before: GatewayState, after: GatewayState) -> tuple[dict[Target, None], dict[Target, None]]:
    """Return the mail servers to which mail goes over TLS only, and the others to which it may, as far as the change matters."""
    hard: dict[Target, None] = {}
    weak: dict[Target, None] = {}
    raised = after.min_tls != before.min_tls
    for one in after.email_configs.values() if raised else changing(before, after):
        levels = LEVELS[one.delivery_mode]
        if "required" in levels or after.senders_enforced:
            hard.update(dict.fromkeys(one.servers))
        elif "opportunistic" in levels:
            weak.update(dict.fromkeys(one.servers))
    return hard, {target: None for target in weak if target not in hard}


def _enforced(before: GatewayState, after: GatewayState) -> Iterator[str]:
    """Yield the outbound enforced domains for which the change matters."""
    held, raised = before.recipients_enforced, after.min_tls != before.min_tls
    yield from (domain for domain, one in after.recipients_enforced.items() if raised or held.get(domain) != one)


def _refusal(floor: str, said: str) -> str:
    return (
        f"starttls_min_tls {floor} is refused, because mail would be deferred: {said}. Bring that server up to date first, or take "
        "starttls_min_tls away for this gateway; to set it anyway, set starttls_require_without_evidence"
    )


def _refusal_of_held(floor: str, said: str) -> str:
    return (
        f"the gateway holds the floor {floor} for TLS versions, and mail would be deferred: {said}. Bring that server up to date first, "
        "or set starttls_min_tls to none for this gateway; to go on anyway, set starttls_require_without_evidence"
    )


def _too_old(seen: Handshake, floor: str) -> str:
    """Return why it is not proved that a server reaches the floor; empty if it does. Both sides agree on the newest version they have."""
    if not seen.completed:
        return f"{seen.target}: it is not known whether it speaks {floor} ({seen.message})"
    reached = TRANSPORT_FLOORS[TRANSPORT_FLOORS.index(floor) :]
    return "" if seen.tls_version in reached else f"{seen.target}: it speaks {seen.tls_version} at most"
