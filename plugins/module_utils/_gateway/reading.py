# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observed state of a gateway, and what a change would do there. Reads only, and knows no product.

A part that cannot be read becomes an obstacle; the others are read all the same. Reasons that need the evidence of
handshakes are left out: an earlier step of the run may change them, so the plan on the controller judges the tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway, Part, Reversible
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import NOTHING_SHOWN, shown
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.loops import loops
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    GatewayState,
    changing,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import summary
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.parts import parts_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import look_twice, lost_domains, told
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.uninstall import (
    Installed,
    Undoing,
    removed_configs,
    undoing,
    waiting,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.facts import digests
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    Target,
    TargetError,
    plain_results,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_all
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import ascii_name, is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    NotExpressibleError,
    NotRunningError,
    PortInUseError,
)

_CODES = {
    BrokenConfigurationError: "configuration_broken",
    NotExpressibleError: "mode_not_expressible",
    NotRunningError: "daemon_not_running",
    PortInUseError: "port_in_use",
}
"""The class of an error -> the code of the obstacle. For others, the place where they were raised decides."""


def read_gateway(
    gateway: Gateway,
    wanted: Mapping[str, Any],
    settings: Settings,
    domains: Sequence[str] = (),
    capabilities: Sequence[str] = (),
    probe: bool = True,
    store: str = STORE,
    certificate: str = CERTIFICATE,
) -> dict[str, Any]:
    """Return what the gateway holds, and what a change to the wanted state would do. Never raises EngineError.

    wanted: the options of gateway_tls (see parts_of); with none of them, nothing would change. domains: recipient domains
    to look up, besides those of the wanted email configs. capabilities: those of the product. probe: make a handshake with the
    own port and with each mail server; without it, probe_targets() returns the targets for the caller's own test.

    gateway: None if its state cannot be read, else a mapping (docs: module gateway_info). digests: path -> SHA-256 or
    C(absent) of each file that the change depends on. obstacles, notes: {code, message}. interrupted: whether a killed run has left a
    change. probe: results and certificates, or None.
    """
    reading = _Reading(gateway, wanted, store, certificate)
    seen = reading.gateway(list(domains), capabilities)
    tests = handshake_all(probe_targets(gateway, seen, wanted), replace(settings, ask_plaintext=True)) if probe else []
    reading.look_for_loops(tests)
    return {
        "gateway": seen,
        "digests": reading.digests,
        "obstacles": reading.obstacles,
        "notes": reading.notes,
        "interrupted": gateway.transaction(store).interrupted,
        "probe": {
            **plain_results(tests),
            "own": gateway.own_port is not None,
        }
        if probe
        else None,
    }


def probe_targets(gateway: Gateway, seen: Optional[Mapping[str, Any]], wanted: Mapping[str, Any]) -> list[Target]:
    """Return the own port, the given targets, then each mail server of the email configs that the gateway has or shall get."""
    found: dict[Target, None] = dict.fromkeys([gateway.own_port] if gateway.own_port else [])
    for one in wanted.get("targets") or ():
        with contextlib.suppress(TargetError):
            target = Target(ascii_name(str(one.get("host") or "")).lower(), int(one.get("port") or 25))
            target.check()
            found[target] = None
    for item in (*((seen or {}).get("email_configs") or ()), *(wanted.get("email_configs") or ())):
        for server in item.get("servers") or ():
            try:
                found[Target.parse(str(server).lower())] = None
            except TargetError:  # the change refuses it by name
                continue
    return list(found)


class _Reading:
    """Collects what one gateway shows."""

    def __init__(self, gateway: Gateway, wanted: Mapping[str, Any], store: str, certificate: str) -> None:
        self._gateway = gateway
        self._removes = wanted.get("state") == "absent"
        self._wanted = {**wanted, "email_configs": removed_configs(wanted)} if self._removes else wanted
        self._store, self._certificate = store, certificate
        self._parts = parts_of(gateway, self._wanted) if not self._removes or not isinstance(gateway, Installed) else []
        self._changing: list[EmailConfig] = []
        self.digests: dict[str, str] = {}
        self.reload = False
        self.obstacles: list[dict[str, str]] = []
        self.notes: list[dict[str, str]] = []

    def _stands(self, error: Exception, code: str) -> None:
        """Note an error as an obstacle, once."""
        found = next((one for kind, one in _CODES.items() if isinstance(error, kind)), code)
        message = str(error)
        if isinstance(error, OSError):
            message = f"{error.filename or 'the host'}: {error.strerror or error}"
        if message not in [one["message"] for one in self.obstacles]:
            self.obstacles.append({"code": found, "message": message})

    def _try(self, work: Callable[[], Any], code: str) -> Any:
        """Return the result of the work, or None with an obstacle."""
        try:
            return work()
        except (EngineError, OSError) as error:
            self._stands(error, code)
            return None

    def gateway(self, domains: Sequence[str], capabilities: Sequence[str]) -> Optional[dict[str, Any]]:
        """Return the part C(gateway) of the result; None if the state cannot be read."""
        running = self._try(self._running, "not_answering")
        held = self._try(self._held, "change_refused")
        if held is None:
            return None
        after, changes = self._after(held) if running else (held, [])
        self._changing = changing(held, after) if self._wanted.get("state") != "plaintext" else []
        if (
            changes
            and isinstance(self._gateway, Reversible)
            and self._wanted.get("state") not in ("plaintext", "absent")
        ):
            # What cannot be switched off again is not switched on.
            self._reverse(self._gateway, after)
        self._look_for_mail(held, after)
        asked = _domains_of(self._wanted.get("email_configs") or (), held, after, domains)
        return {
            "title": self._gateway.title,
            "email_configs": _listed(held.email_configs.values()),
            "delivery_modes": list(self._gateway.modes),
            "verifying_modes": list(self._gateway.verifying_modes),
            "softens_refusals": self._gateway.softens_refusals,
            "limits": dict(self._gateway.limits),
            "capabilities": list(capabilities),
            "enforced_domains": [one.to_dict() for one in held.enforced],
            "outbound": held.outbound.to_dict() if held.outbound else {},
            "accepted_domains": self._accepted(asked),
            **(shown(self._gateway, held, asked, self._store) if running else NOTHING_SHOWN),
            "keeps_names": self._gateway.keeps_names,
            "changes": changes,
            "reload": self.reload,
            "before": summary(held.email_configs),
            "after": summary(after.email_configs),
        }

    def _reverse(self, gateway: Reversible, after: GatewayState) -> None:
        try:
            gateway.refuse_one_way(after)
        except (EngineError, OSError) as error:
            self._stands(EngineError(f"TLS could not be switched off again here: {error}"), "not_reversible")

    def _running(self) -> bool:
        try:
            self._gateway.require_running()
        except PortInUseError as error:  # the rest can be read and planned
            self._stands(error, "port_in_use")
        return True

    def _held(self) -> GatewayState:
        """Return the present state. If it cannot be read for the wanted email configs, that is an obstacle, and all are read."""
        wanted = [item for part in self._parts for item in part.email_configs]
        try:
            return self._gateway.read(wanted)
        except EngineError as error:
            if not wanted:
                raise
            self._stands(error, "change_refused")
            return self._gateway.read()

    def _after(self, held: GatewayState) -> tuple[GatewayState, list[dict[str, str]]]:
        """Return the state after the change, and the changed lines. A part that is refused is left out."""
        if self._removes and isinstance(self._gateway, Installed):
            return self._removed(self._gateway, held)
        after = held
        for part in self._parts:
            after = self._try(_computing(part, self._gateway, after), "change_refused") or after
        if self._parts:
            self._try(lambda: self.digests.update(digests(self._gateway.files())), "change_refused")
        change: Any = self._try(lambda: self._gateway.plan(after), "change_refused") if self._parts else None
        if not change:
            self.reload = bool(self._parts) and not self._gateway.serves()
            return after, []
        return after, [{"path": path, "lines": lines} for path, lines in change.lines()]

    def _removed(self, gateway: Installed, held: GatewayState) -> tuple[GatewayState, list[dict[str, str]]]:
        """Return the empty state, and what an uninstallation would change."""
        todo: Optional[Undoing] = self._try(
            lambda: undoing(gateway, self._store, self._certificate, self._wanted.get("keep") or ()), "change_refused"
        )
        if not todo:
            return held, []
        self._try(lambda: self.digests.update(digests(self._gateway.files())), "change_refused")
        for one in todo.obstacles:
            self._stands(EngineError(one), "change_refused")
        self.notes += [{"code": "uninstall_incomplete", "message": one} for one in todo.notes]
        if found := self._try(lambda: look_twice(lambda: waiting(gateway, held)), "change_refused"):
            self._queued(f"mail waits that is delivered first: {told(found)}")
        return GatewayState(), [{"path": path, "lines": lines} for path, lines in todo.lines()]

    def _queued(self, message: str) -> None:
        self.notes.append({"code": "queue_not_empty", "message": message})

    def look_for_loops(self, tests: Sequence[Handshake]) -> None:
        """Note the email configs of the change whose mail would come back to this gateway."""
        for loop in loops(self._gateway, self._changing, tests):
            self._stands(EngineError(loop), "mail_would_loop")

    def _look_for_mail(self, held: GatewayState, after: GatewayState) -> None:
        """Note the mail that waits for recipient domains that lose their route: the change waits for it."""
        if self._removes and isinstance(self._gateway, Installed):
            return
        lost = lost_domains(held, after)
        found = self._try(lambda: look_twice(lambda: self._gateway.queued(lost)), "change_refused") if lost else ()
        if found:
            self._queued(f"mail waits for {', '.join(lost)}, which loses its route: {told(found)}")

    def _accepted(self, domains: Sequence[str]) -> dict[str, Optional[bool]]:
        known = [one for one in domains if is_domain(one)]
        answers = self._try(lambda: self._gateway.accepts(known), "change_refused") or {}
        return {one: answers.get(one) for one in domains}


def _computing(part: Part, gateway: Gateway, before: GatewayState) -> Callable[[], GatewayState]:
    def compute() -> GatewayState:
        part.refuse(gateway)
        return part.compute(gateway, before)

    return compute


def _domains_of(
    wanted: Iterable[Mapping[str, Any]], held: GatewayState, after: GatewayState, more: Iterable[str]
) -> list[str]:
    """Return the recipient domains of the wanted email configs, and the others that were asked for."""
    found: list[str] = []
    for item in wanted:
        name = str(item.get("name") or "")
        known = after.email_configs.get(name) or held.email_configs.get(name)
        found += item.get("domains") or (known.domains if known else ())
    return list(dict.fromkeys(str(one).lower().rstrip(".") for one in (*found, *more)))


def _listed(configs: Iterable[EmailConfig]) -> list[dict[str, Any]]:
    return [one.to_dict() for one in sorted(configs, key=lambda one: one.name)]
