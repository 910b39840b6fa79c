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
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts, sockets
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import engine
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
    ) -> None:
        """Prepare only. desired: with neither direction set, nothing is computed and nothing stands in the way.

        keep: the paths that a removal of everything leaves as they are; None if nothing is to be removed.
        """
        self._server = server
        self._desired = desired
        self._settings = replace(settings, ask_plaintext=True)
        self._store = store
        self._keep = keep
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
        # A daemon with a broken configuration may accept connections and never answer.
        patience = (
            min(self._settings.timeout, BROKEN_SECONDS) if health["state"] == "broken" else self._settings.timeout
        )
        test = handshake.handshake_all if health["state"] == "broken" else handshake_all
        seen = test([self._desired.own_port, *targets], replace(self._settings, timeout=patience))
        own = seen[0]
        if health["state"] == "running" and own.stage < Stage.GREETING:
            self._stands("not_answering", f"no mail server answers on {self._desired.own_port}: {own.message}")
        return {
            "health": health,
            "listeners": observed["listeners"],
            "transports": observed["transports"],
            "sockets": self._sockets(observed, health["state"] == "running", programs, user),
            "certificates": self._certificates(observed["listeners"]),
            "disk": self._disk(),
            "journal": journal,
            "left": self._left(),
            "activity": {"sessions_an_hour": self._server.sessions_an_hour()},
            "version": self._server.version() if health["state"] not in ("broken", "missing") else "",
            **self._change(own if health["state"] == "running" else None),
            **self._on_host(),
            "tls_words": self._tls_words(own) if health["state"] == "running" else "",
            "probe": plain_results(seen),
            "obstacles": self.obstacles,
            "notes": self.notes,
        }

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
    ) -> Optional[list[dict[str, Any]]]:
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
        return None if found is None else [one.to_json() for one in found]

    def _certificates(self, listeners: Optional[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        served = [path for one in listeners or () for path in one["certificates"]]
        paths = [path for path in dict.fromkeys([*served, self._desired.certificate]) if path.startswith("/")]
        return certificate_files([path for path in paths if _is_there(path) or path in served])

    def _on_host(self) -> dict[str, Any]:
        """Return C(on_host), the certificate that is on the host, for the controller to judge; nothing if the change uses none."""
        if not (self._desired.on_host and self._desired.offers):
            return {}
        return {"on_host": seen_on_host(self._desired.certificate, self._desired.private_key)}

    def _disk(self) -> list[dict[str, Any]]:
        paths = [*self._server.files(), self._desired.certificate, self._store]
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
        certificate = () if self._desired.on_host else (self._desired.certificate,)
        ours = [path for path in (self._store, *certificate) if _is_there(path)]
        return list(dict.fromkeys([*ours, *self._server.left()]))

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
            digests = facts.digests([*self._server.files(), self._desired.certificate])
        except EngineError as error:
            self._stands("change_refused", str(error))
            return {**nothing, "before": self._state()}
        except OSError as error:
            self._stands("change_refused", _reason(error))
            return nothing
        look, fingerprint = computed.look, computed.fingerprint
        if fingerprint is None:
            self._stands(
                "certificate_missing",
                f"there is no certificate at {self._desired.certificate}; name one to install "
                "(starttls_private_key_file and starttls_certificate_file), or correct starttls_certificate_path",
            )
        installs = look is not None and look.differs
        if computed.change or installs:
            self._reverse()
        stale = (
            fingerprint is not None
            and not first.change
            and not installs
            and not engine.satisfies(first.desired, fingerprint, own)
        )
        changes = [{"path": path, "lines": lines} for path, lines in computed.change.lines()]
        if look is not None and installs:
            changes.insert(0, {"path": self._desired.certificate, **look.diff, "previous_certificate": look.previous})
        return {
            "before": computed.before,
            "after": computed.after,
            "changes": changes,
            "offer": bool(first.change) or installs or stale,
            "reload": stale or bool(computed.change and not changes),
            "digests": digests,
            "next_hops": self._next_hops(computed),
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
        off = replace(self._desired, inbound=inbound, outbound=outbound, bundle=None)
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
            return self._server.state()
        except (EngineError, OSError):
            return None

    def _next_hops(self, computed: engine.Computed) -> Optional[list[dict[str, Any]]]:
        if not engine.insists(computed.desired, computed.before):
            return None
        try:
            hops = engine.next_hops(self._server)
        except EngineError as error:
            self._stands("change_refused", engine.refusal(str(error)))
            return None
        return [
            {"host": one.target.host, "port": one.target.port, "completed": one.completed, "message": one.message}
            for one in handshake_all(hops, replace(self._settings, ask_plaintext=False))
        ]


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
