# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observed state of one mail server, and what a change would do there. Reads only.

The engine contains no product: an adapter (contract.Server) reads the daemon. What only the fleet shows, the plan adds.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.facts import certificate_files
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import seen_on_host
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts, renewal_files, sockets
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener, is_loopback
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import engine, evidence, floor, forecast, reach
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import Server, TellsOfTls
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.uninstall import putting_back
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import handshake
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    Target,
    plain_results,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_all
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    NotRunningError,
    PortInUseError,
)

BROKEN_SECONDS = 2.0
"""How long a daemon may take to answer whose configuration is broken, in seconds."""


class Reading:
    """Collects what one host shows. A part that cannot be read becomes an obstacle; the other parts are read all the same."""

    def __init__(
        self,
        server: Server,
        desired: Desired,
        settings: Settings,
        store: str = STORE,
        keep: Optional[Collection[str]] = None,
        ports: Optional[Collection[int]] = None,
        find_send_only: bool = False,
    ) -> None:
        """Prepare only. desired: with neither direction set, nothing is computed and nothing stands in the way.

        keep: the paths that a removal of everything leaves as they are; None if nothing is to be removed. ports: those whose listeners
        are tested besides the own port; empty for all, None for none. find_send_only: whether a host that takes mail from itself only
        is read as a send-only host.
        """
        self._server = server
        self._desired = desired
        self._settings = replace(settings, ask_plaintext=True)
        self._store = store
        self._keep = keep
        self._ports = ports
        self._find_send_only = find_send_only
        self._relays: list[Handshake] = []
        self.obstacles: list[dict[str, str]] = []
        self.notes: list[dict[str, str]] = []

    @property
    def _wants_change(self) -> bool:
        return self._keep is not None or self._desired.inbound is not None or self._desired.outbound is not None

    def read(self, programs: Collection[str], targets: Sequence[Target] = (), user: str = "") -> dict[str, Any]:
        """Return the parts of the observed state that the host shows, as the module mail_server_info documents them.

        programs: names of the daemon's processes. targets: other hosts to make the handshake test with, after the own port. user: the
        daemon's own user, if it has one: its processes have that user or root.
        """
        self._desired.check()
        if os.geteuid():
            self._stands(
                "no_privilege",
                "the module does not run as root, so it cannot read and change everything; set become: true",
            )
        health = self._health()
        observed = self._observe() if health["state"] != "broken" else {"listeners": None, "transports": None}
        journal = self._journal()
        self._pending(observed, health["state"] == "running", bool(journal))
        found = self._sockets(observed, health["state"] == "running", programs, user)
        if self._find_send_only and takes_no_mail(observed["listeners"], found, self._desired.own_port.port):
            self._desired = replace(self._desired, inbound=None, listens=False, bundle=None, others=(), on_host=False)
        # A daemon with a broken configuration may accept connections and never answer.
        patience = (
            min(self._settings.timeout, BROKEN_SECONDS) if health["state"] == "broken" else self._settings.timeout
        )
        test = handshake.handshake_all if health["state"] == "broken" else handshake_all
        listening = self._others(observed) if health["state"] == "running" else {}
        patient = replace(self._settings, timeout=patience)
        if self._desired.listens:
            tested = test([self._desired.own_port, *targets, *listening], patient)
            seen, others = tested[: 1 + len(targets)], tested[1 + len(targets) :]
            own = seen[0]
            if health["state"] == "running" and own.stage < Stage.GREETING:
                self._stands("not_answering", f"no mail server answers on {self._desired.own_port}: {own.message}")
        else:
            seen = self._relay_tests(health["state"])
            others = test(list(listening), patient) if listening else []
            own = Handshake(self._desired.own_port)
        return {
            "send_only": not self._desired.listens,
            "health": health,
            "listeners": observed["listeners"],
            "transports": observed["transports"],
            "listener_tests": [_tested(listening[one.target], one) for one in others],
            "sockets": None if found is None else [one.to_json() for one in found],
            "certificates": self._certificates(observed["listeners"]),
            "disk": self._disk(),
            "journal": journal,
            "left": self._left(),
            "activity": {"sessions_an_hour": self._server.sessions_an_hour()},
            "version": self._server.version() if health["state"] not in ("broken", "missing") else "",
            **self._change(own if health["state"] == "running" else None),
            **self._on_host(),
            "tls_words": self._tls_words(own) if health["state"] == "running" else "",
            "probe": plain_results(seen) if self._desired.listens else {**plain_results(seen), "own": False},
            "obstacles": self.obstacles,
            "notes": self.notes,
        }

    def _others(self, observed: Mapping[str, Any]) -> dict[Target, Listener]:
        """Return the listeners to test besides the own port, each by its target."""
        if self._ports is None or not observed["listeners"]:
            return {}
        closed: Mapping[str, str] = {}
        with contextlib.suppress(EngineError, OSError):
            sides = evidence.both(self._server, None)
            closed = sides.before.closed if sides else {}
        found: dict[Target, Listener] = {}
        own = self._desired.own_port
        for one in map(Listener.from_json, observed["listeners"]):
            target = reach.target_of(one, own.host)
            if target is None or one.service in closed or (self._ports and one.port not in self._ports):
                continue
            if (target.host, target.port) != (own.host, own.port):
                found.setdefault(target, one)
        return found

    def _relay_tests(self, state: str) -> list[Handshake]:
        """Return the tests of the next hops, which are all that a send-only host talks to. A host without a relay has none."""
        if state not in ("running", "stopped"):
            return []
        self._relays, problem = engine.relays_of(self._server, self._settings)
        if problem:
            self.notes.append({"code": "relay_not_tested", "message": problem})
        return self._relays

    def _stands(self, code: str, message: str) -> None:
        if self._wants_change:
            self.obstacles.append({"code": code, "message": message})

    def _pending(self, observed: Mapping[str, Any], running: bool, interrupted: bool) -> None:
        """Note what the reload of a change would activate beside it. What a killed run has left is undone first."""
        if running and observed.get("not_read_yet") and not interrupted:
            names = " and ".join(map(str, observed["not_read_yet"]))
            self.notes.append(
                {
                    "code": "edits_not_read",
                    "message": f"{names} changed after the mail server has read it last; the reload of a change activates that, too",
                }
            )

    def _health(self) -> dict[str, Any]:
        try:
            self._server.require_running()
        except BrokenConfigurationError as error:
            self._stands("configuration_broken", str(error))
            return {"state": "broken", "running": self._runs(), "message": str(error)}
        except NotRunningError as error:
            self._stands("daemon_not_running", str(error))
            return {"state": "stopped", "running": False, "message": str(error)}
        except PortInUseError as error:  # it runs, and must not be reloaded
            self._stands("port_in_use", str(error))
        except EngineError as error:
            self._stands("change_refused", str(error))
            return {"state": "missing", "running": None, "message": str(error)}
        except OSError as error:
            self._stands("change_refused", _reason(error))
            return {"state": "unknown", "running": None, "message": _reason(error)}
        return {"state": "running", "running": True, "message": ""}

    def _runs(self) -> Optional[bool]:
        """Return whether a daemon with a broken configuration runs; None if that cannot be told."""
        try:
            return self._server.main_process() is not None
        except (EngineError, OSError):
            return None

    def _observe(self) -> dict[str, Any]:
        try:
            return dict(self._server.observe())
        except (EngineError, OSError) as error:
            self.notes.append({"code": "listeners_not_read", "message": _reason(error)})
            return {"listeners": None, "transports": None}

    def _sockets(
        self, observed: Mapping[str, Any], running: bool, programs: Collection[str], user: str
    ) -> Optional[list[sockets.Socket]]:
        listeners = observed["listeners"]
        known = [Listener.from_json(one) for one in listeners or ()]
        ports = {*sockets.MAIL_PORTS, *(one.port for one in known if one.port)}
        found = sockets.listening(programs, ports, users=_users(user))
        if found is not None and listeners is not None and running:
            # Another instance of the same product has a configuration of its own, so its sockets say nothing about this one.
            main = self._server.main_process()
            ours = [replace(one, pid=None) if one.program in programs and one.pid != main else one for one in found]
            others = [(str(host), port) for host, port in observed.get("other_places", ())]
            self.notes += sockets.compare(known, ours, programs, others)
        return found

    def _certificates(self, listeners: Optional[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        served = [path for one in listeners or () for path in one["certificates"]]
        paths = [path for path in dict.fromkeys([*served, *self._desired.certificates]) if path.startswith("/")]
        return certificate_files([path for path in paths if _is_there(path) or path in served])

    def _on_host(self) -> dict[str, Any]:
        """Return C(on_host), the certificate that is on the host, for the controller to judge; nothing if the change uses none."""
        if not (self._desired.on_host and self._desired.offers):
            return {}
        first, *more = (seen_on_host(*pair) for pair in self._desired.pairs)
        return {"on_host": {**first, "more": more} if more else first}

    def _disk(self) -> list[dict[str, Any]]:
        paths = [*self._server.files(), *self._desired.certificates, self._store]
        disk = facts.disk_space(paths)
        if problem := facts.too_full(disk):
            self._stands("no_disk_space", problem)
        return disk

    def _tls_words(self, own: Handshake) -> str:
        """Return why the daemon could not set up TLS, in its own words; empty if the test of the own port did not fail there."""
        if not own.advertised or own.completed or not isinstance(self._server, TellsOfTls):
            return ""
        return self._server.tls_words()

    def _journal(self) -> Optional[dict[str, Any]]:
        try:
            return self._server.transaction(self._store).journal_facts()
        except (EngineError, OSError) as error:
            self._stands("change_refused", _reason(error))
            return None

    def _left(self) -> list[str]:
        certificate = () if self._desired.on_host else self._desired.certificates
        ours = [path for path in (self._store, *certificate) if _is_there(path)]
        return list(dict.fromkeys([*ours, *self._server.left(), *renewal_files.there()]))

    def _change(self, own: Optional[Handshake]) -> dict[str, Any]:
        """Return what a change would do. own: the test of the own port; None if the daemon does not run."""
        nothing: dict[str, Any] = {
            "before": None,
            "after": None,
            "changes": [],
            "offer": False,
            "reload": False,
            "digests": {},
            "next_hops": None,
            "reach": None,
        }
        if own is None or not self._wants_change:
            return nothing
        if self._keep is not None:
            return {**nothing, **self._removed(self._keep)}
        try:
            offered = self._offered()
            computed = engine.compute(self._server, self._desired, True, [], self._store)
            first = (
                computed if offered is self._desired else engine.compute(self._server, offered, True, [], self._store)
            )
            digests = facts.digests([*self._server.files(), *self._desired.certificates])
        except EngineError as error:
            self._stands("change_refused", str(error))
            return {**nothing, "before": self._state()}
        except OSError as error:
            self._stands("change_refused", _reason(error))
            return nothing
        fingerprint = computed.fingerprint
        if fingerprint is None:
            self._stands(
                "certificate_missing",
                f"there is no certificate at {self._desired.certificate}; name one to install "
                "(starttls_private_key_file and starttls_certificate_file), or correct starttls_certificate_path",
            )
        installs = computed.installed()
        if computed.change or installs:
            self._reverse()
        stale = (
            self._desired.listens
            and fingerprint is not None
            and not first.change
            and not installs
            and engine.is_stale(self._server, first.desired, fingerprint, own, self._settings)
        )
        changes = [{"path": path, "lines": lines} for path, lines in computed.change.lines()]
        changes[:0] = [{"path": path, **look.diff, "previous_certificate": look.previous} for path, look in installs]
        sides = self._sides(computed)
        self._floor(computed, sides)
        return {
            "before": computed.before,
            "after": computed.after,
            "reach": reach.to_json(*sides) if sides else None,
            "changes": changes,
            "offer": bool(first.change) or bool(installs) or stale,
            "reload": stale or bool(computed.change and not changes),
            "digests": digests,
            "next_hops": self._next_hops(computed, sides),
        }

    def _removed(self, keep: Collection[str]) -> dict[str, Any]:
        """Return what a removal of everything would do."""
        try:
            todo = putting_back(self._server, self._desired, self._store, keep)
            digests = facts.digests(self._server.files())
        except (EngineError, OSError) as error:
            self._stands("change_refused", _reason(error))
            return {"before": self._state()}
        for one in todo.obstacles:
            self._stands("change_refused", one)
        self.notes += [{"code": "uninstall_incomplete", "message": one} for one in todo.notes]
        changes = [{"path": path, "lines": lines} for path, lines in todo.lines()]
        return {"before": self._state(), "changes": changes, "digests": digests}

    def _reverse(self) -> None:
        """Ask for the change that takes this one back: what cannot be switched off again is not switched on."""
        inbound = "disabled" if self._desired.offers else None
        outbound = "disabled" if self._desired.outbound in ("opportunistic", "required") else None
        if not inbound and not outbound:
            return
        off = replace(self._desired, inbound=inbound, outbound=outbound, bundle=None, others=())
        try:
            engine.compute(self._server, off, True, [], self._store)
        except (EngineError, OSError) as error:
            self._stands("not_reversible", f"TLS could not be switched off again here: {_reason(error)}")

    def _offered(self) -> Desired:
        """Return the state of the first step: TLS is offered before it is required."""
        if self._desired.inbound != "required":
            return self._desired
        return replace(self._desired, inbound="offered", relax=False)

    def _state(self) -> Optional[dict[str, str]]:
        try:
            return engine.state_of(self._server, self._desired)
        except (EngineError, OSError):
            return None

    def _sides(self, computed: engine.Computed) -> Optional[evidence.Both]:
        """Return how the mail server is before and after the change; None if it does not tell."""
        try:
            sides = evidence.both(self._server, computed.change)
        except (EngineError, OSError) as error:
            self._stands("change_refused", _reason(error))
            return None
        if sides:
            for one in reach.shut(*sides, self._desired.own_port):
                self._stands("change_refused", one)
            self.notes += [{"code": "certificates_fewer", "message": one} for one in reach.fewer(*sides)]
        return sides

    def _floor(self, computed: engine.Computed, sides: Optional[evidence.Both]) -> None:
        """Note whom a floor for TLS versions would shut out, and what it does not hold for."""
        desired = computed.desired
        try:
            floors = floor.floors(self._server, desired, computed.change)
            self.notes += forecast.notes(self._server, desired, floors)
            problem, weaker = floor.refusal(desired, sides, floors, self._settings)
        except (EngineError, OSError) as error:
            self._stands("change_refused", _reason(error))
            return
        self.notes += [{"code": forecast.NOT_REACHED, "message": one} for one in weaker]
        if problem and not desired.require_without_evidence:
            self._stands("change_refused", engine.floor_refusal(desired, problem))

    def _next_hops(self, computed: engine.Computed, sides: Optional[evidence.Both]) -> Optional[list[dict[str, Any]]]:
        """Return the tests of the next hops that the change needs as evidence; those of a send-only host in any case."""
        if not engine.insists(computed.desired, computed.before):
            if sides and computed.desired.outbound == "required":
                self.notes += [{"code": "weaker_way", "message": one} for one in reach.undercut(sides.after)]
            return [_hop(one, one.message) for one in self._relays] or None
        try:
            found = evidence.outgoing(self._server, sides, self._settings)
        except EngineError as error:
            self._stands("change_refused", engine.refusal(str(error)))
            return None
        if found.problems:
            self._stands("change_refused", engine.refusal("; ".join(found.problems)))
        self.notes += [{"code": "weaker_way", "message": one} for one in found.notes]
        if found.problems and not found.hops:
            return None
        return [
            {**_hop(one.seen, one.fault), **({"settings": one.settings} if one.settings else {})} for one in found.hops
        ]


def _hop(test: Handshake, fault: str) -> dict[str, Any]:
    return {"host": test.target.host, "port": test.target.port, "completed": test.completed, "message": fault}


def takes_no_mail(
    listeners: Optional[Sequence[Mapping[str, Any]]], found: Optional[Sequence[sockets.Socket]], port: int
) -> bool:
    """Whether a host takes mail from itself only, or from nobody: no other host can connect to a port for mail.

    listeners: of the configuration; found: the sockets of the host; None if they could not be read. What is not known counts as no.
    """
    if listeners is None:
        return False
    places = [str(one["host"]) for one in listeners]
    places += [one.host for one in found or () if one.port in (*sockets.MAIL_PORTS, port)]
    return all(map(is_loopback, places))


def _tested(listener: Listener, seen: Handshake) -> dict[str, Any]:
    """Return the test of a listener as plain data, with why it does not do what its configuration says."""
    return {
        "service": listener.service,
        "host": seen.target.host,
        "port": seen.target.port,
        "tls": listener.tls,
        "completed": seen.completed,
        "fingerprint_sha256": seen.fingerprint,
        "message": reach.not_as_configured(listener, seen, evidence.installed_in),
    }


def _is_there(path: str) -> bool:
    """Whether there is a file; false also if this user may not look."""
    return os.path.exists(path)  # noqa: PTH110  (Path.exists() raises PermissionError)


def _users(name: str) -> Optional[set[int]]:
    """Return the numbers of root and this user; None without a name."""
    if not name:
        return None
    with contextlib.suppress(KeyError):
        return {0, pwd.getpwnam(name).pw_uid}
    return {0}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the host'}: {error.strerror or error}"
    return str(error)
