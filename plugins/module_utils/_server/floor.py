# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A floor for TLS versions: what it does not hold for, what stands against it, and the proof that it holds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._server import evidence, permits, reach
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import (
    HoldsFloor,
    LeadsToPeers,
    Server,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import FLOORS, Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import Permits, older_than
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.version_tests import TESTED, versions_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

FLOOR_DIRECTIONS = ("inbound", "outbound")


class Floors(NamedTuple):
    """What a mail server permits before and after a change.

    peers: the next hops of peers that it concerns; see LeadsToPeers. plaintext_at_once: see HoldsFloor.
    """

    before: Permits
    after: Permits
    plaintext_at_once: bool
    peers: Sequence[tuple[Target, bool]] = ()

    def raised(self, desired: Desired, direction: str) -> bool:
        """Whether the change takes older versions from a direction."""
        if desired.floor_in(direction) not in FLOORS:
            return False
        return permits.raised(getattr(self.before, direction), getattr(self.after, direction), desired.min_tls)


def floors(server: Server, desired: Desired, change: Any) -> Optional[Floors]:
    """Return what the server permits before and after a change; None if no floor is wanted. Raises EngineError."""
    if not desired.has_floor or not (desired.floor_in("inbound") or desired.floor_in("outbound")):
        return None
    if not isinstance(server, HoldsFloor):
        raise EngineError(
            f"starttls_min_tls is {desired.min_tls}, and the collection cannot set that for this kind of mail server "
            f"({server.name}); take it away for this host"
        )
    before = server.permits(desired.min_tls)
    found = Floors(before, server.permits(desired.min_tls, change) if change else before, server.plaintext_at_once)
    if isinstance(server, LeadsToPeers) and found.raised(desired, "outbound"):
        return found._replace(peers=server.peer_hops())
    return found


def not_reached(desired: Desired, found: Floors) -> list[str]:
    """Return a sentence for each listener, transport and table that the floor does not hold for after the change."""
    said: list[str] = []
    for direction in FLOOR_DIRECTIONS:
        if getattr(desired, direction) != "disabled" and (direction == "outbound" or desired.listens):
            said += permits.below(getattr(found.after, direction), desired.min_tls)
    return [*said, *(found.after.notes if desired.outbound != "disabled" else ())]


def refusal(
    desired: Desired, sides: Optional[evidence.Both], found: Optional[Floors], settings: Settings
) -> tuple[str, list[str]]:
    """Return why mail would be deferred by a floor, and notes on what would go in plaintext; empty if nothing stands against it.

    Each known next hop completes a handshake with at least this version first. Raises EngineError.
    """
    if found is None or sides is None or not found.raised(desired, "outbound"):
        return "", []
    ways = [one for one in sides.after.ways if one.target and one.kind != "disabled" and not one.transport.loopback]
    targets = list(dict.fromkeys([*(one.target for one in ways if one.target), *(one for one, _hard in found.peers)]))
    if not targets:
        return "", []
    hard = {one.target for one in ways if one.kind == reach.INSISTING} | {
        one for one, required in found.peers if required
    }
    problems, weaker = [], []
    newest = TESTED[TESTED.index(desired.min_tls) :]
    for target, answers in zip(targets, versions_of(targets, newest, settings)):
        if any(answers.values()):
            continue
        unknown = None in answers.values()
        said = "it is not known whether it speaks" if unknown else "it does not speak"
        sentence = f"{target}: {said} {desired.min_tls}"
        if target in hard or not (unknown or found.plaintext_at_once):
            problems.append(sentence)
        elif found.plaintext_at_once:
            weaker.append(f"{sentence}, so mail would go there in plaintext")
        else:
            weaker.append(
                f"{sentence}; if it offers STARTTLS and does not, mail waits, and then goes there in plaintext"
            )
    return "; ".join(problems), weaker


def listeners(desired: Desired, found: Optional[Floors], sides: Optional[evidence.Both]) -> list[Target]:
    """Return the listeners besides the own port at which the floor has to hold after the change."""
    if found is None or sides is None or desired.floor_in("inbound") not in FLOORS:
        return []
    low = {one.name for one in found.after.inbound if one.is_below(desired.min_tls) or one.oldest is None}
    services = [
        one for one in sides.after.listeners if one.tls != "none" and one.service not in {*low, *sides.after.closed}
    ]
    targets = [reach.target_of(one, desired.own_port.host) for one in services]
    own = desired.own_port.host, desired.own_port.port
    return list(dict.fromkeys(one for one in targets if one and (one.host, one.port) != own))


class Proof:
    """The proof of a floor: no listener agrees on an older version, and each agrees on a newer one, if it did before."""

    def __init__(self, desired: Desired, targets: Sequence[Target], settings: Settings) -> None:
        """Ask the listeners as they are. Without a floor for the inbound side, nothing is proved."""
        self.warnings: list[str] = []
        self._settings = replace(settings, ask_plaintext=False)
        wanted = desired.floor_in("inbound")
        self._floor = wanted if wanted in FLOORS else ""
        self._targets = list(targets) if self._floor else []
        self._new = TESTED[TESTED.index(self._floor) :] if self._floor else ()
        before = versions_of(self._targets, self._new, self._settings) if self._targets else []
        self._agreed = {one for one, answers in zip(self._targets, before) if any(answers.values())}

    def prove(self) -> None:
        """Wait until the floor holds. Raises EngineError with the names of the listeners where it does not."""
        left = self._targets
        deadline = time.monotonic() + self._settings.timeout
        while left:
            old = [one for one in older_than(self._floor) if one in TESTED]
            answers = dict(zip(left, versions_of(left, [*old, *self._new], self._settings)))
            faults = {target: said for target, one in answers.items() if (said := self._fault(target, one))}
            self.warnings += [
                f"{target}: it is not tested whether it refuses TLS versions below {self._floor}, because it did not answer the hellos"
                for target, one in answers.items()
                if target not in faults and any(one[version] is None for version in old)
            ]
            left = list(faults)
            if faults and time.monotonic() >= deadline:
                raise EngineError("; ".join(faults.values()))
            if faults:
                time.sleep(0.1)

    def _fault(self, target: Target, answers: Mapping[str, Optional[bool]]) -> str:
        agreed = [one for one in older_than(self._floor) if answers.get(one)]
        if agreed:
            return f"{target} still agrees on {' and '.join(agreed)}, which is older than {self._floor}"
        if target in self._agreed and not any(answers[one] is not False for one in self._new):
            return f"{target} agrees on no TLS version from {self._floor} on any more"
        return ""
