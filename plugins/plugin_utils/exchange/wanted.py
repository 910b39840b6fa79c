# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options of exchange_tls ask for, completed by what the inventory says of the hosts around an Exchange server."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer, peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import Room, controlled_kind
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import HostVars, peers_of_host, target_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peers import WantedPeer

CONTROLLER_HOST = "localhost"


@dataclass(frozen=True)
class Around:
    """The hosts around an Exchange server, as the inventory has them.

    clients: gateway -> the addresses from which it connects; none if they are not known. next_hops: names and addresses of the gateways.
    peers: those of C(starttls_peers), each with the addresses that are known of its hosts.
    """

    clients: Mapping[str, tuple[str, ...]]
    next_hops: tuple[str, ...]
    peers: tuple[tuple[Peer, tuple[str, ...]], ...] = ()

    @property
    def unknown(self) -> list[str]:
        """The gateways whose addresses are not known."""
        return [name for name, addresses in self.clients.items() if not addresses]

    @classmethod
    def of(cls, host: str, hostvars: HostVars, groups: Mapping[str, Sequence[str]]) -> Around:
        """Read the inventory. Raises EngineError for what is wrong with a gateway or a peer."""
        clients, hops = {}, []
        for gateway in groups.get("mail_gateways") or ():
            facts = hostvars[gateway]
            clients[gateway] = addresses_of(facts)
            hops += [target_of(gateway, {gateway: facts}).host, *clients[gateway]]
        wanted = peers_of_host(host, hostvars) if hostvars else ()
        peers = tuple((one.peer, _addresses_of_peer(one, hostvars)) for one in wanted)
        return cls(clients, tuple(dict.fromkeys(hops)), peers)


def _addresses_of_peer(wanted: WantedPeer, hostvars: HostVars) -> tuple[str, ...]:
    found = [one.host for one in wanted.peer.hosts if is_address(one.host)]
    return tuple(
        dict.fromkeys([*found, *(one for name in wanted.managed if name for one in addresses_of(hostvars[name]))])
    )


def addresses_of(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the IP addresses that the inventory has of a host; none if it has names only. facts: its variables."""
    found = (str(facts.get(name) or "") for name in ("starttls_address", "ansible_host"))
    return tuple(dict.fromkeys(one for one in found if is_address(one)))


def is_address(text: str) -> bool:
    """Return whether this is an IP address, and not one of the loopback."""
    try:
        return not ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def is_among(name: str, places: Sequence[str]) -> bool:
    """Return whether a smart host is one of these names and addresses. Case, brackets and a dot at the end do not matter."""
    return _bare(name) in {_bare(one) for one in places}


def _bare(name: str) -> str:
    return name.lower().strip("[] ").rstrip(".")


def proof_host(host: str, hostvars: HostVars, groups: Mapping[str, Sequence[str]]) -> str:
    """Return the host that makes the handshake test with an Exchange server.

    That is C(starttls_exchange_proof_host), or the first gateway, or a mail server that has it as a peer, or the controller. Raises
    EngineError.
    """
    named = str(hostvars[host].get("starttls_exchange_proof_host") or "")
    if named and named not in hostvars:
        raise EngineError(
            f"{host}: starttls_exchange_proof_host {named!r} is not in the inventory; add the host or correct the name"
        )
    if named:
        return named
    for gateway in groups.get("mail_gateways") or ():
        return str(gateway)
    mine = {host, target_of(host, hostvars).host}
    for other in groups.get("mail_servers") or ():
        for peer in (hostvars[other].get("starttls_peers") or ()) if other != host else ():
            if isinstance(peer, Mapping) and mine & {str(one) for one in peer.get("hosts") or ()}:
                return str(other)
    return CONTROLLER_HOST


def tester_of(host: str, hostvars: HostVars, groups: Mapping[str, Sequence[str]]) -> str:
    """Return the host that makes handshake tests in the place of another one; empty if that makes its own. Raises EngineError."""
    facts = hostvars[host]
    kind, connection = str(facts.get("starttls_kind") or "auto"), str(facts.get("ansible_connection") or "ssh")
    return proof_host(host, hostvars, groups) if controlled_kind(kind, connection) else ""


def wanted_of(
    room: Room,
    options: Mapping[str, Any],
    around: Around,
    certificate: Any = None,
    record: Mapping[str, Any] = {},
    of_peers: bool = False,
) -> Any:
    """Return the wanted state as a value of the room (WantedExchange).

    options: those of exchange_tls. certificate: the checked one to install (WantedCertificate), if any. record: what is kept of the state
    before the first change. of_peers: that of the peers alone, and nothing else. Raises EngineError.
    """
    made = room.wanted
    if of_peers:
        return _of_peers(room, options, record)
    clients = [made.NamedClient("starttls_exchange_clients", tuple(options["clients"]))] if options["clients"] else []
    if not clients and not around.unknown:
        clients = [made.NamedClient(name, addresses) for name, addresses in around.clients.items()]
    if clients and options["inbound"] == "required":  # a peer that sends may need a receive connector of its own then
        peers = [(one, addresses) for one, addresses in around.peers if one.receives_from_it and addresses]
        clients += [made.NamedClient(one.name, addresses, own_connector=True) for one, addresses in peers]
    return made.WantedExchange(
        inbound=options["inbound"],
        outbound=options["outbound"],
        check=options["check"],
        tls_domain=options["tls_domain"] or "",
        clients=tuple(clients),
        port=options["port"],
        next_hops=tuple(options["next_hops"] or around.next_hops),
        certificate=certificate,
        send_certificate=options["send_certificate"],
        others_with_certificate=tuple(options["certificate_on"]),
        internal_certificate=options["internal_certificate"],
        fqdn=options["fqdn"] or "",
        record=record,
        relax=options["relax"],
        remove_former=options["remove_former"],
    )


def _of_peers(room: Room, options: Mapping[str, Any], record: Mapping[str, Any]) -> Any:
    made, peers = room.wanted, peers_of(options["peers"] or ())
    if options["peers_state"] == "absent":
        return made.WantedExchange(absent=tuple(one.name for one in peers), port=options["port"], record=record)
    sending = [one for one in map(room.peers.sent_to, peers) if one]
    if options["peers_state"] != "present":
        sending = [replace(one, level="opportunistic", check="encryption_only") for one in sending]
    return made.WantedExchange(port=options["port"], peers=tuple(sending), fqdn=options["fqdn"] or "", record=record)
