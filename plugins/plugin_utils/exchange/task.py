# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugins' work for an Exchange server: from the options of a task to its result."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import patience
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import CheckedInputs
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.pfx import Pfx, encryption_for, make_pfx
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.changing import (
    ChangeFailed,
    Changer,
    Work,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.journal import Store
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.options import ACCESS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.proof import OFFERED, WireProof
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.reading import (
    KIND,
    NO_TEST,
    peers_there,
    read_server,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.server import (
    CmdletServer,
    Execute,
    ReadFailed,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.wanted import Around, is_among, wanted_of


class ToInstall:
    """The certificate to install, made a PFX once the server has said which one its Windows reads."""

    def __init__(self, checked: Optional[CheckedInputs], ecc: bool) -> None:
        """checked: None, or with findings, if none is to be installed."""
        self._content = checked.served if checked and not checked.findings else ""
        self._ecc = ecc
        self._made: Optional[Pfx] = None
        self.fingerprint = str(checked.facts.get("fingerprint_sha256") or "") if checked and self._content else ""

    def of(self, raw: Mapping[str, Any]) -> Optional[Pfx]:
        """Return the PFX for the server; None if none is to be installed. raw: what the server said. Raises EngineError."""
        if self._content and self._made is None:
            version = str((raw.get("Windows") or {}).get("Version") or "")
            self._made = make_pfx(self._content, encryption_for(version), self._ecc)
        return self._made


class ExchangeTask:
    """One task on one Exchange server."""

    def __init__(self, execute: Execute, host: str, options: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
        """options: all of exchange_tls (see options.completed). variables: of the host."""
        self._options, self._variables = options, variables
        self.server = CmdletServer(execute, {name: options[name] for name in ACCESS})
        self.store = Store(options["journal"], host)
        self._changer = Changer(self.server, self.store)
        self._target = Target(str(options["address"] or _address(host, variables)), options["port"])
        self._around = Around.of(host, variables.get("hostvars") or {}, variables.get("groups") or {})

    def read(self, checked: Optional[CheckedInputs]) -> dict[str, Any]:
        """Return the result of mail_server_info. checked: the certificate to install. Raises EngineError."""
        options = self._options
        wants = options["state"] == "absent" or options["inbound"] or options["outbound"]
        try:
            found = read_server(
                self.server,
                self.store,
                self._work(ToInstall(checked, options["ecc"])) if wants else None,
                self._work_on_peers() if options["peers"] else None,
            )
        except ReadFailed as error:
            return error.result
        if options["peers"] and options["peers_state"] == "present":
            found |= {"peer_tests": [_untested(one) for one in options["peers"]], "peer_findings": []}
        if self._around.unknown and not options["clients"] and wants:
            names = ", ".join(self._around.unknown)
            said = (
                f"the inventory has no IP address of {names}, so the receive connectors at port {options['port']} are meant, whoever "
                "connects; set starttls_address there, or starttls_exchange_clients"
            )
            found["notes"].append({"code": "clients_unknown", "message": said})
        return {"changed": False, **found}

    def change(self, checked: Optional[CheckedInputs], check_mode: bool) -> dict[str, Any]:
        """Make the change, and prove it unless that is left to the caller. checked: the certificate to install. Raises EngineError."""
        options = self._options
        if options["peers"]:
            if options["inbound"] or options["outbound"] or options["state"] == "absent":
                raise EngineError(
                    "peers stand beside inbound, outbound or state: absent; give them in a task of their own"
                )
            return self.change_peers(check_mode)
        work = self._work(ToInstall(checked, options["ecc"]))
        return self._ended(lambda: self._made(work, check_mode))

    def _made(self, work: Work, check_mode: bool) -> dict[str, Any]:
        here = not (self._options["prove_later"] or work.absent)
        if here and not self._options["require_without_evidence"]:
            work = replace(work, evidence=self._require_evidence)
        result = self._changer.change(work, self._options["digests"] or {}, check_mode)
        if result["pending"] and work.absent:  # what was there before is no new risk
            result |= self._changer.conclude({}, unproven="")
        if result["pending"] and here:
            lacking, served = self._seen_here(result["prove"])
            result |= self._changer.conclude({}, lacking, served)
        return result

    def change_peers(self, check_mode: bool) -> dict[str, Any]:
        """Make the change of the peers, in the form of peer_tls. Raises EngineError.

        What is new serves the peers alone. Exchange cannot test them, so nothing proves it but the mail that goes there.
        """

        def work() -> dict[str, Any]:
            before: list[dict[str, Any]] = []

            def wanted(organisation: Any) -> Any:
                before[:] = peers_there(self.server) or []
                return peers.wanted(organisation)

            peers = self._work_on_peers()
            result = self._changer.change(replace(peers, wanted=wanted), self._options["digests"] or {}, check_mode)
            if result["pending"]:
                result |= self._changer.conclude({}, unproven="")
            return {**result, "before": before, "after": peers_there(self.server) or [], "proofs": []}

        return self._ended(work)

    def conclude(self, proof: Mapping[str, Any]) -> dict[str, Any]:
        """Keep or undo the pending change. proof: a result of starttls_probe. Raises EngineError."""
        return self._ended(lambda: self._changer.conclude(proof))

    def recover(self, check_mode: bool) -> dict[str, Any]:
        """Undo the change of a killed run. Raises EngineError."""

        def work() -> dict[str, Any]:
            recovered = False if check_mode else self._changer.recover()
            return {"changed": recovered, "recovered": recovered}

        return self._ended(work)

    def _ended(self, work: Any) -> dict[str, Any]:
        try:
            return {"kind": KIND, **work()}
        except ReadFailed as error:
            return error.result
        except ChangeFailed as error:
            return {"failed": True, "changed": not error.restored, "restored": error.restored, "msg": str(error)}

    def _work(self, certificate: ToInstall) -> Work:
        options = self._options

        def wanted(organisation: Any) -> Any:
            pfx = certificate.of(self.server.raw)
            made = wanted_of(
                self.server.room, options, self._around, pfx.certificate if pfx else None, self.store.record()
            )
            if options["only_relax"] and self.server.room.observed.state(organisation, made)["inbound"] != "required":
                return replace(made, inbound=None)
            return made

        def secrets() -> Mapping[str, str]:
            pfx = certificate.of(self.server.raw)
            return pfx.secrets if pfx else {}

        offers = options["inbound"] in OFFERED
        return Work(
            wanted,
            secrets,
            certificate.fingerprint if offers else "",
            absent=options["state"] == "absent",
            insists=options["inbound"] == "required",
            hops=self._hops,
            asked={side: options[side] for side in ("inbound", "outbound")},
            namesakes=lambda: self._namesakes(certificate),
        )

    def _work_on_peers(self) -> Work:
        room = self.server.room
        return Work(
            lambda _organisation: wanted_of(
                room, self._options, self._around, record=self.store.record(), of_peers=True
            )
        )

    def _hops(self, organisation: Any) -> list[dict[str, Any]]:
        """Return the smart hosts of the send connectors in question."""
        meant = self._options["next_hops"] or self._around.next_hops
        found = self.server.room.observed.transports(organisation) or ()
        return [
            {"host": one.next_hop, "port": one.port or 25}
            for one in found
            if one.next_hop and (not meant or is_among(one.next_hop, meant))
        ]

    def _namesakes(self, certificate: ToInstall) -> tuple[str, ...]:
        """Return SHA-256 of the certificates on the server that have the issuer and subject of the one to install."""
        pfx = certificate.of(self.server.raw)
        if pfx is None:
            return ()
        wanted = (pfx.certificate.issuer.lower(), pfx.certificate.subject.lower())
        found = [
            hashlib.sha256(base64.b64decode(str(one.get("RawData") or ""))).hexdigest()
            for one in self.server.raw.get("ExchangeCertificates") or ()
            if (str(one.get("Issuer")).lower(), str(one.get("Subject")).lower()) == wanted
        ]
        return tuple(one for one in found if one != certificate.fingerprint)

    def _require_evidence(self, hops: list[dict[str, Any]]) -> None:
        """Raise EngineError if a next hop completes no handshake with the controller."""
        for one in patience.handshake_all([Target(hop["host"], hop["port"]) for hop in hops], Settings()):
            if not one.completed:
                raise EngineError(
                    f"the next hop {one.target} completes no handshake with the controller ({one.message}), so mail would be deferred; "
                    "repair that, or set require_without_evidence. Nothing was changed"
                )

    def _seen_here(self, wanted: Mapping[str, Any]) -> tuple[str, str]:
        """Test the server from the controller until it shows what is wanted, or the time is over.

        Return what it lacks, and SHA-256 of the certificate that it served.
        """
        wire = WireProof.from_json(wanted)
        seen = patience.wait_until(
            lambda test: not wire.lacks(test.record()),
            self._target,
            Settings(ask_plaintext=True),
            float(self._options["wait"]),
        )
        return wire.lacks(seen.record()), seen.fingerprint


def _address(host: str, variables: Mapping[str, Any]) -> str:
    return str(variables.get("starttls_address") or variables.get("starttls_hostname") or host).rstrip(".")


def _untested(peer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": peer["name"], "kind": peer["kind"], "tested": False, "reason": NO_TEST, "proofs": [], "client_certificate": None,
        "findings": [], "passed": True,
    }  # fmt: skip
