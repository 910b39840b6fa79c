# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence for a change, as wide as the change: handshakes with the listeners and next hops that it reaches (see reach.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import reach
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import Server, TellsReach
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_all
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_BY_MX = "mail goes to the MX of each recipient domain, and those cannot all be tested"
NAMES_TESTED = 3
"""Names with certificates of their own that are tested on a listener."""


class ProvedHop(NamedTuple):
    """The handshake with a next hop that TLS would be required of, and the ways that lead there."""

    seen: Handshake
    ways: tuple[reach.WayOut, ...]

    @property
    def settings(self) -> str:
        """The settings that lead there."""
        return ", ".join(dict.fromkeys(one.transport.setting for one in self.ways if one.transport.setting))

    @property
    def fault(self) -> str:
        """Why TLS cannot be required of it; empty if it can."""
        if self.seen.completed:
            return ""
        advice = next((one.advice for one in self.ways if one.advice), "")
        return f"{self.seen.message}{f' ({self.settings})' if self.settings else ''}{f'; {advice}' if advice else ''}"


class Outgoing(NamedTuple):
    """What a change would require TLS of. problems: sentences on what no handshake can answer. notes: what keeps another level."""

    hops: tuple[ProvedHop, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def refusal(self) -> str:
        """Why the change would have mail deferred, or not do what it says; empty if nothing stands against it."""
        return "; ".join([*self.problems, *(f"{one.seen.target}: {one.fault}" for one in self.hops if one.fault)])


class Both(NamedTuple):
    """How a mail server is before and after a change."""

    before: reach.Sides
    after: reach.Sides


def both(server: Server, change: Any) -> Optional[Both]:
    """Return how the mail server is before and after a change; None if it does not tell. Raises EngineError."""
    if not isinstance(server, TellsReach):
        return None
    before = server.sides()
    return Both(before, server.sides(change) if change else before)


def outgoing(server: Server, sides: Optional[Both], settings: Settings) -> Outgoing:
    """Make a handshake with each next hop that the change would require TLS of, in its own mode. Raises EngineError."""
    settings = replace(settings, ask_plaintext=False)
    if sides is None:
        known = list(server.next_hops())
        if not known:
            return Outgoing(
                (), ("it hands its mail to the MX of each recipient domain, and those cannot all be tested",)
            )
        return Outgoing(tuple(ProvedHop(seen, ()) for seen in handshake_all(known, settings)), ())
    after = sides.after
    ways = reach.demanding(*sides)
    problems = [*after.unread, *(f"{one}: {one.undercut}" for one in ways if one.undercut)]
    return _tested(ways, problems, (*reach.weaker(after), *after.notes), settings)


def ways_out(server: Server, settings: Settings) -> Outgoing:
    """Make a handshake with each next hop of outgoing mail, whatever its TLS level, but for those on this host. Raises EngineError."""
    sides = both(server, None)
    if sides is None:
        return outgoing(server, None, settings)
    ways = [one for one in sides.before.ways if not one.transport.loopback]
    return _tested(ways, sides.before.unread, sides.before.notes, replace(settings, ask_plaintext=False))


def _tested(
    ways: Sequence[reach.WayOut], problems: Sequence[str], notes: Sequence[str], settings: Settings
) -> Outgoing:
    """Make one handshake with each next hop of these ways."""
    at: dict[Target, list[reach.WayOut]] = {}
    for one in ways:
        if one.target:
            at.setdefault(one.target, []).append(one)
    problems = [*problems, *(f"{one}: {_unknown(one)}" for one in ways if one.target is None)]
    seen = handshake_all(list(at), settings) if at else []
    hops = [ProvedHop(one, tuple(at[one.target])) for one in seen]
    return Outgoing(tuple(hops), tuple(dict.fromkeys(problems)), tuple(notes))


def _unknown(way: reach.WayOut) -> str:
    hop = way.transport.next_hop
    if hop is None:
        return _BY_MX
    if way.by_domain:
        return f"{hop} is a domain whose MX is looked up, and not the host itself in brackets"
    return f"{hop} is no host and port that could be tested"


class Listening:
    """The listeners besides the own port, before and after a change."""

    def __init__(self, sides: Optional[Both], desired: Desired, settings: Settings) -> None:
        """Test them as they are. sides: None if the server does not tell them."""
        self._settings, self._certificates = settings, desired.certificates
        self._bundles = {one.path: one.fingerprints[:1] for one in desired.bundles}
        self.warnings: list[str] = []
        self._places: list[reach.Reached] = []
        self._named: list[Target] = []
        if sides is None:
            return
        after = sides.after
        self._places = reach.places(*sides, desired.own_port)
        self.warnings += [*after.notes, *reach.fewer(*sides)]
        self.warnings += [f"{service} is not proved: {why}" for service, why in after.closed.items() if why]
        offering = [] if desired.inbound == "disabled" else [desired.own_port]
        offering += [one.target for one in self._places if "none" not in (one.after.tls, one.before and one.before.tls)]
        self._named = [replace(at, name=name) for name in after.names[:NAMES_TESTED] for at in offering]
        self._old = self._look([*(one.target for one in self._places), *self._named])
        self.warnings += [
            f"{one.name} does not answer, so it is not proved: {self._old[one.target].message}"
            for one in self._places
            if desired.listens and self._old[one.target].stage < Stage.EHLO  # a send-only host needs no daemon
        ]
        self.warnings += [
            f"{one.name} insists on a certificate of its client, so the certificate that it serves is not proved"
            for one in self._places
            if self._old[one.target].code == reach.WANTS_CLIENT
        ]

    def _look(self, targets: Sequence[Target]) -> Mapping[Target, Handshake]:
        return {seen.target: seen for seen in handshake_all(list(targets), self._settings)} if targets else {}

    def prove(self, seconds: float) -> None:
        """Wait until each listener shows what it has to after the change. Raises EngineError with the names of those that do not."""
        self._wait(self._fault, "does not show the wanted state", seconds)

    def prove_old(self, seconds: float) -> None:
        """Wait until each listener shows what it showed before. Raises EngineError."""

        def changed(place: reach.Reached, now: Handshake) -> str:
            old = self._old[place.target]
            return "" if old.stage < Stage.EHLO else reach.unlike(old, now, lambda: self._installed(_of(place)))

        self._wait(changed, "does not show its former state", seconds)

    def several(self, desired: Desired) -> list[tuple[Target, list[str]]]:
        """Return the listeners that serve several certificates of their port, for several algorithms, with their fingerprints."""
        found = []
        for one in self._places:
            of = desired.by_port.get(one.after.port or 0, ()) if desired.offers else ()
            if len(of) > 1 and self._old[one.target].stage >= Stage.EHLO:
                found.append((one.target, [each for at in of for each in fingerprints(at.certificate)[:1]]))
        return found

    def _fault(self, place: reach.Reached, now: Handshake) -> str:
        return reach.fault(place, self._old.get(place.target), now, self._installed, self._certificates)

    def _wait(self, fault: Callable[[reach.Reached, Handshake], str], what: str, seconds: float) -> None:
        places = {one.target: one for one in self._places}
        left = [*places, *self._named]
        deadline = time.monotonic() + seconds
        while left:
            faults = {}
            for target, now in self._look(left).items():
                said = fault(places[target], now) if target in places else self._other_name(now)
                if said:
                    faults[target] = f"{places[target].name if target in places else target} {what}: {said}"
            left = list(faults)
            if faults and time.monotonic() >= deadline:
                raise EngineError("; ".join(faults.values()))
            if faults:
                time.sleep(0.1)

    def _other_name(self, now: Handshake) -> str:
        """Return why a client that asks for a name is not served as before; empty if it is."""
        old = self._old[now.target]
        if not old.completed or now.fingerprint == old.fingerprint:
            return ""
        return (
            f"for the name {now.target.name} it serves another certificate than before"
            if now.completed
            else now.message
        )

    def _installed(self, paths: Sequence[str]) -> Collection[str]:
        """Return the fingerprints of the certificates in files; none if they cannot all be read."""
        found: set[str] = set()
        for path in paths:
            if self._bundles.get(path):
                found.update(self._bundles[path])
                continue
            prints = fingerprints(path)
            if not prints:
                return ()
            found.update(prints)
        return found


def stale_ports(server: Server, desired: Desired, settings: Settings) -> list[int]:
    """Return the ports that do not serve the certificates of their own yet, although the files say so. Raises EngineError.

    The daemon has to read its files again for them. A port that does not answer is no reason for that.
    """
    sides = both(server, None) if desired.offers and desired.of_ports else None
    if sides is None:
        return []
    at: dict[Target, int] = {}
    for one in sides.before.listeners:
        target = reach.target_of(one, desired.own_port.host)
        if target and one.port in desired.by_port and one.service not in sides.before.closed:
            at[target] = target.port
    wanted = {port: installed_in([one.certificate for one in of]) for port, of in desired.by_port.items()}
    seen = handshake_all(list(at), replace(settings, ask_plaintext=False, verify_trust=False)) if at else []
    served = {(at[one.target], one.fingerprint) for one in seen if one.completed}
    return sorted({port for port, fingerprint in served if wanted[port] and fingerprint not in wanted[port]})


def _of(place: reach.Reached) -> Sequence[str]:
    return (*(place.before.certificates if place.before else ()), *place.after.certificates)


def installed_in(paths: Sequence[str]) -> Collection[str]:
    """Return the fingerprints of the certificates in files; none if they cannot all be read."""
    found = [fingerprints(path) for path in paths]
    return {one for some in found for one in some} if all(found) else ()


def fingerprints(path: str) -> list[str]:
    """Return the fingerprints of the certificates in a file; none if it cannot be read."""
    try:
        image = FileImage.read(path, max_bytes=pem.MAX_BYTES, trust=LOOK)
        return [pem.fingerprint(block.der) for block in pem.certificates(pem.split(image.content or b""))]
    except (EngineError, OSError, ValueError):
        return []
