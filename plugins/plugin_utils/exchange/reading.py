# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What mail_server_info returns for an Exchange server: what is there, and what a change would do. Nothing is changed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.changing import DIGEST, Changer, Work
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.journal import Store
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.server import CmdletServer

KIND = "exchange"
NO_TEST = "Exchange makes no test of its own; see the mail that goes there, or Get-Queue"


def read_server(server: CmdletServer, store: Store, work: Optional[Work], peers: Optional[Work]) -> dict[str, Any]:
    """Return the result of mail_server_info, without certificates to install and without peers' tests. Raises ReadFailed, EngineError.

    work: the wanted change; None without one. peers: the wanted change of the peers; None without one.
    """
    organisation = server.read()
    observed = server.room.observed
    notes = [{"code": "listeners_not_read", "message": said} for said in _errors(server.raw)]
    found: dict[str, Any] = {
        "kind": KIND,
        "title": PRODUCTS[KIND].title,
        "version": _version(server.raw),
        "health": {"state": "unknown", "running": None, "message": "the services of Windows are not asked"},
        "listeners": _listed(observed.listeners(organisation)),
        "transports": _listed(observed.transports(organisation)),
        "sockets": None,
        "certificates": [_certificate(one) for one in server.raw.get("ExchangeCertificates") or ()],
        "disk": [],
        "journal": _journal(store),
        "left": store.left(),
        "activity": {"sessions_an_hour": None},
        "before": None,
        "after": None,
        "changes": [],
        "offer": False,
        "reload": False,
        "digests": {DIGEST: server.digest()},
        "next_hops": None,
        "peers": peers_there(server),
        "peer_changes": [],
        "obstacles": [],
        "notes": notes,
    }
    changer = Changer(server, store)
    if work:
        found |= _change(changer, organisation, work)
    if peers:
        planned = _planned(changer, organisation, peers, found["obstacles"])
        found["peer_changes"] = [dict(one) for one in planned.changes] if planned else []
    return found


def _change(changer: Changer, organisation: Any, work: Work) -> dict[str, Any]:
    obstacles: list[dict[str, str]] = []
    planned = _planned(changer, organisation, work, obstacles)
    if planned is None:
        return {"obstacles": obstacles}
    found = {
        "before": dict(planned.before),
        "after": None if work.absent else dict(planned.after),
        "changes": [dict(one) for one in planned.changes],
        "obstacles": obstacles,
        "offer": planned.changed,
    }
    before, after = planned.before.get("outbound"), planned.after.get("outbound")
    if after == "required" and before != "required":
        # Nobody can ask from there, so it is not known: the plan looks for a test by another host.
        found["next_hops"] = [{**one, "completed": None, "message": NO_TEST} for one in work.hops(organisation)]
    first = None if work.absent else replace(work, wanted=_offering(work.wanted))
    if first and work.insists:
        offered = _planned(changer, organisation, first, [])
        found["offer"] = bool(offered and offered.changed)
    return found


def _offering(wanted: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the wanted state of the first step: TLS is offered before it is required."""
    return lambda organisation: replace(wanted(organisation), inbound="offered", relax=False)


def _planned(changer: Changer, organisation: Any, work: Work, obstacles: list[dict[str, str]]) -> Any:
    """Return what a change would do; None if something stands in its way that has no code of its own. Adds what does to obstacles."""
    try:
        planned = changer.planned(organisation, work)
    except EngineError as error:
        obstacles.append({"code": "change_refused", "message": str(error)})
        return None
    obstacles += [{"code": one.code, "message": one.message} for one in planned.obstacles]
    return planned


def _certificate(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return a certificate of the server's store in the form of a certificate file. Its place there is named by the thumbprint."""
    found: dict[str, Any] = {"path": f"LocalMachine\\My\\{one.get('Thumbprint') or 'unknown'}", "readers": None}
    try:
        return {**found, "certificate": x509.describe(base64.b64decode(str(one.get("RawData") or "")))}
    except (x509.CertificateError, ValueError) as error:
        return {**found, "message": f"the certificate cannot be read: {error}"}


def _journal(store: Store) -> Optional[dict[str, Any]]:
    return None if store.pending() is None else {"path": str(store.journal), "files": []}


def _listed(values: Optional[Iterable[Any]]) -> Optional[list[dict[str, Any]]]:
    return None if values is None else [one.to_json() for one in values]


def _errors(raw: Mapping[str, Any]) -> list[str]:
    return [f"{cmdlet}: {' '.join(str(said).split())}" for cmdlet, said in (raw.get("Errors") or {}).items()]


def _version(raw: Mapping[str, Any]) -> str:
    return str((raw.get("Server") or {}).get("AdminDisplayVersion") or "")


def peers_there(server: CmdletServer) -> Optional[list[dict[str, Any]]]:
    """Return the peers that have a send connector of the collection, in the form of peer_tls; None if the connectors are not known."""
    prefix = server.room.wanted.OWN_PREFIX
    connectors = server.raw.get("SendConnectors")
    if connectors is None:
        return None
    return [_peer(one, prefix) for one in connectors if str(one.get("Name")).startswith(prefix)]


def _peer(connector: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    level = (
        "disabled"
        if connector.get("IgnoreSTARTTLS")
        else "required"
        if connector.get("RequireTLS")
        else "opportunistic"
    )
    hosts = [f"{str(one).strip('[] ')}:{connector.get('Port') or 25}" for one in connector.get("SmartHosts") or ()]
    spaces = [str(one).partition(":")[2].partition(";")[0].lower() for one in connector.get("AddressSpaces") or ()]
    return {"name": str(connector["Name"]).removeprefix(prefix), "hosts": hosts, "domains": spaces, "level": level}
