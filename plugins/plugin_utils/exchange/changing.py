# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of an Exchange server from the controller: plan, make the calls, prove it on the wire, or put the former state back.

The proof may come from another host, because the server itself makes no handshake test. Until then the change is pending, and its journal
says how it is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.journal import Pending, Store
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.proof import (
    WireProof,
    lacking_proof,
    served_in,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.server import CmdletServer

DIGEST = "exchange"
"""The name of the digest of an Exchange server, which stands in the place of a file's path."""


class ChangeFailed(EngineError):
    """A change failed after it had begun. restored: whether the former state is back."""

    def __init__(self, message: str, restored: bool) -> None:
        super().__init__(message)
        self.restored = restored


@dataclass(frozen=True)
class Work:
    """What a change is made of.

    wanted: Organisation -> the wanted state (WantedExchange), after a look at what is there. secrets: gives those of the certificate,
    for the calls that import it. fingerprint: SHA-256 of the certificate that has to be served. absent: everything goes back to what was
    there before. insists: whether inbound is to be required. hops: Organisation -> C(host) and C(port) of the smart hosts in question.
    namesakes: gives SHA-256 of the certificates that are there with the same issuer and subject. asked: inbound and outbound of the task.
    evidence: called with the hops before a change that insists on TLS towards them; raises EngineError if one does not accept it.
    """

    wanted: Callable[[Any], Any]
    secrets: Callable[[], Mapping[str, str]] = dict
    fingerprint: str = ""
    absent: bool = False
    insists: bool = False
    hops: Callable[[Any], list[dict[str, Any]]] = lambda _organisation: []
    namesakes: Callable[[], tuple[str, ...]] = tuple
    asked: Mapping[str, Any] = field(default_factory=dict)
    evidence: Callable[[list[dict[str, Any]]], None] = lambda _hops: None


class Changer:
    """Changes one server."""

    def __init__(self, server: CmdletServer, store: Store) -> None:
        self._server, self._store = server, store

    def recover(self) -> bool:
        """Undo a change that is not over. Return whether there was one. Raises ReadFailed, EngineError."""
        pending = self._store.pending()
        if pending is None:
            return False
        self._server.read()
        if fault := self._undo(pending):
            raise EngineError(f"a killed run has left a change, and it cannot be undone: {fault}")
        return True

    def planned(self, organisation: Any, work: Work) -> Any:
        """Return what a change would do on a server that was read, as a value of the room (Planned). Raises EngineError."""
        engine = self._server.room.engine
        if work.absent:
            return engine.uninstall(organisation, self._store.record())
        return engine.plan(organisation, work.wanted(organisation))

    def change(self, work: Work, digests: Mapping[str, str], check_mode: bool) -> dict[str, Any]:
        """Make a change as far as its proof. Return its result, with C(pending) if it is to be proved. Raises ReadFailed, EngineError.

        digests: as a plan saw the server; it is refused if that is not so any more.
        """
        recovered = False if check_mode else self.recover()
        organisation = self._server.read()
        digest = self._server.digest()
        if digests.get(DIGEST) not in (None, "", digest) and not recovered:
            raise EngineError(
                "the connectors or certificates of this server are not as the plan saw them, so somebody has changed them since; run again"
            )
        planned = self.planned(organisation, work)
        if planned.obstacles:
            said = "; ".join(one.message for one in planned.obstacles)
            raise EngineError(f"{said}. Nothing was changed")
        result = {
            "changed": planned.changed,
            "before": dict(planned.before),
            "after": {} if work.absent else dict(planned.after),
            "asked": dict(work.asked),
            "recovered": recovered,
            "diff": [dict(one) for one in planned.diff],
            "warnings": list(planned.warnings),
            "digests": {DIGEST: digest},
            "pending": False,
        }
        if check_mode or not planned.changed:
            if not check_mode and not planned.changed:
                self._store.keep(planned.record)
            return result
        if hops := self._new_requirement(planned, organisation, work):
            work.evidence(hops)
        wire = self._wire(planned, organisation, work)
        self._make(planned, work, result, wire)
        return {**result, "digests": {DIGEST: self._server.digest()}, "pending": True, "prove": wire.to_json()}

    @staticmethod
    def _new_requirement(planned: Any, organisation: Any, work: Work) -> list[dict[str, Any]]:
        """Return the smart hosts towards which the change insists on TLS, and the former state does not."""
        insists = planned.after.get("outbound") == "required" and planned.before.get("outbound") != "required"
        return work.hops(organisation) if insists else []

    def _wire(self, planned: Any, organisation: Any, work: Work) -> WireProof:
        """Return what other hosts have to see after the change."""
        if work.absent:
            return WireProof()
        hops = [f"{one['host']}:{one['port']}" for one in self._new_requirement(planned, organisation, work)]
        inbound = str(planned.after.get("inbound") or "")
        return WireProof(inbound, work.fingerprint, work.namesakes() if work.fingerprint else (), tuple(hops))

    def _make(self, planned: Any, work: Work, result: Mapping[str, Any], wire: WireProof) -> None:
        """Make the calls of a plan. Some can only be planned after others: what a certificate is called shows when it is there."""
        undo: tuple[Mapping[str, Any], ...] = ()
        record = planned.record  # of the first plan: a later one does not know what the calls before it have imported
        kept = {name: value for name, value in result.items() if name not in ("diff", "warnings")}
        while True:
            calls = planned.calls[: planned.reread] if planned.reread else planned.calls
            undoing = tuple(one.to_json() for one in self._server.room.engine.undo(planned, len(calls)))
            pending = Pending((*undoing, *undo), [one.to_json() for one in planned.last], record, kept, wire.to_json())
            self._store.begin(pending)
            done = self._server.apply(calls, work.secrets())
            if done.failed:
                self._failed(done.failed, done.undone, replace(pending, undo=undo))
            undo = (*undoing, *undo)
            if not planned.reread:
                kept["digests"] = {DIGEST: self._server.digest()}
                self._store.begin(replace(pending, result=kept))
                return
            planned = self.planned(self._server.organisation, work)
            if planned.obstacles:
                self._failed("; ".join(one.message for one in planned.obstacles), True, replace(pending, undo=undo))

    def _failed(self, why: str, undone: bool, pending: Pending) -> None:
        """Undo what earlier calls have done, and raise ChangeFailed. undone: whether nothing is left of the last ones."""
        if undone:
            fault = self._undo(pending)
            raise ChangeFailed(f"{why}{f' {fault}' if fault else ''}", restored=not fault)
        raise ChangeFailed(
            f"{why} What is left stands in the journal {self._store.journal} on the controller; the next run tries again to undo it",
            restored=False,
        )

    def _undo(self, pending: Pending) -> str:
        """Undo a change. Return what failed, in which case the journal stays."""
        fault = self._server.restore(pending.undo)
        if fault:
            return f"{fault} The journal is {self._store.journal} on the controller: the next run tries again"
        self._store.end()
        return ""

    def conclude(self, probe: Any, unproven: Optional[str] = None, served: str = "") -> dict[str, Any]:
        """Keep the pending change if the handshake test proves it, else put the former state back. Return its result.

        probe: a result of starttls_probe. unproven: why there is no proof, if that is known already; empty for a change that is proved.
        served: SHA-256 of the certificate that was seen, if the caller made the test. Raises ChangeFailed without a proof, ReadFailed,
        EngineError.
        """
        pending = self._store.pending()
        if pending is None:
            raise EngineError(
                "no change is pending for this host on this controller, so there is nothing to keep or to undo"
            )
        wire = WireProof.from_json(pending.wanted)
        why = lacking_proof(wire, probe) if unproven is None else unproven
        if why:
            self._server.read()
            fault = self._undo(pending)
            ending = fault or "the former state was put back"
            raise ChangeFailed(
                f"the change was made, and is not proved on the wire: {why}; {ending}", restored=not fault
            )
        warnings = []
        digests = pending.result.get("digests") or {}
        if (served or served_in(probe)) in wire.namesakes:
            warnings.append(
                "Exchange still serves an older certificate with the same issuer and subject, so the new one is not proved and the older "
                "one stays; look at Get-ExchangeCertificate, and remove the older one by hand once the new one is served"
            )
        elif pending.last:
            done = self._server.apply(pending.last)
            if done.failed:
                warnings.append(f"the change is proved; what comes after it failed: {done.failed}")
            else:
                digests = {DIGEST: self._server.digest()}
        self._store.keep(pending.record)
        self._store.end()
        return {
            **pending.result,
            "digests": digests,
            "warnings": warnings,
            "pending": False,
        }
