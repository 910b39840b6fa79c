# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers of the mail servers, read from the inventory (C(starttls_peers)), and which of them a playbook has to set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import EVERYTHING, Peer, peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import CONTROLLERS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.peer import PEERS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import former_host

VARIABLE = "starttls_peers"
_HYBRID = (
    "that is a hybrid organisation, and Microsoft supports nothing there that processes SMTP between Exchange and Exchange Online, an Edge "
    "server apart, because it would remove the headers by which the two trust each other. Let Exchange talk to Exchange Online itself, and "
    "take one of the two peers out of starttls_peers"
)


@dataclass(frozen=True)
class WantedPeer:
    """A peer of a mail server. managed: for each of its hosts the inventory name of the gateway or mail server there, or empty."""

    peer: Peer
    managed: tuple[str, ...] = ()

    @property
    def acceptors(self) -> tuple[str, ...]:
        """The hosts of the inventory that mail goes to; none if no mail does."""
        return tuple(dict.fromkeys(filter(None, self.managed))) if self.peer.sends_to_it else ()

    @property
    def senders(self) -> tuple[str, ...]:
        """The hosts of the inventory that mail comes from."""
        return tuple(dict.fromkeys(filter(None, self.managed))) if self.peer.receives_from_it else ()

    @property
    def keeps_tls(self) -> bool:
        """Whether it keeps TLS when TLS is switched off: it would refuse the mail for good without, and nobody here can change it."""
        knows = bool(self.peer.client_certificate) or self.peer.kind == "exchange_online"
        return knows and not self.acceptors

    @property
    def shows_who_sends(self) -> bool:
        """Whether an accepted recipient shows that the peer knew the sender.

        Exchange Online takes mail for its own domains from anybody.
        """
        sender, recipient = (
            one.rpartition("@")[2].lower() for one in (self.peer.proof_sender, self.peer.proof_recipient)
        )
        return self.peer.kind != "exchange_online" or sender != recipient

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"peer": self.peer.to_dict(), "managed": list(self.managed)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WantedPeer:
        """Read the result of to_json. Raises EngineError."""
        return cls(Peer.from_dict(data["peer"]), tuple(str(one) for one in data["managed"]))

    def is_set_by(self, action: str) -> bool:
        """Whether a playbook changes the transport of this peer. An uninstallation removes it, and only relaxes it where it has to."""
        if not self.peer.sends_to_it:
            return False
        sets = {
            "enable": True,
            "disable": not self.keeps_tls,
            "undo": not self.keeps_tls,
            "uninstall": bool(self.acceptors),
        }
        return sets.get(action, False)


def read_peers(
    host: str,
    facts: Mapping[str, Any],
    is_gateway: bool,
    target_of: Callable[[str], Optional[Target]],
    host_at: Callable[[Target], str],
) -> tuple[WantedPeer, ...]:
    """Read C(starttls_peers) of a host.

    facts: its variables. target_of: an inventory name -> where other hosts reach its mail server; None if there is no such host.
    host_at: such a target -> the inventory name of the gateway or mail server there; empty if it is none of them.

    Raises EngineError, which names host, variable and peer: a fault of an entry, a gateway, a kind that has no peers, a peer that is
    the host itself, a hybrid organisation.
    """
    given = facts.get(VARIABLE) or ()
    if not given:
        return ()
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise EngineError(f"{host}: {VARIABLE} has to be a list")
    if is_gateway:
        raise EngineError(
            f"{host} is a gateway and has {VARIABLE}, which is for mail servers; name its mail servers in email_configs, and the domains "
            "of others that need TLS in starttls_enforced_domains"
        )
    kind = str(facts.get("starttls_kind") or AUTO)
    if kind != AUTO and kind not in (*PEERS, *CONTROLLERS):
        raise EngineError(
            f"{host}: {VARIABLE} is for the kinds {', '.join((*PEERS, *CONTROLLERS))}, and starttls_kind is {kind}"
        )
    try:
        peers = peers_of(_with_addresses(one, target_of) for one in given)
    except EngineError as error:
        raise EngineError(f"{host}: {error}") from error
    found = tuple(WantedPeer(one, tuple(map(host_at, one.hosts))) for one in peers)
    for one in found:
        if host in one.managed:
            raise EngineError(
                f"{host}: {VARIABLE}: peer {one.peer.name} is {host} itself, so mail would loop; correct its hosts"
            )
    _refuse_hybrid(host, peers)
    return found


def _with_addresses(entry: Any, target_of: Callable[[str], Optional[Target]]) -> Any:
    """Return an entry in which the names of inventory hosts are addresses."""
    hosts = entry.get("hosts") if isinstance(entry, Mapping) else None
    if not isinstance(hosts, (list, tuple)):
        return entry
    found = ((one, target_of(one) if isinstance(one, str) else None) for one in hosts)
    return {**entry, "hosts": [str(target) if target else one for one, target in found]}


def _refuse_hybrid(host: str, peers: Sequence[Peer]) -> None:
    for exchange in (one for one in peers if one.kind == "exchange"):
        for online in (one for one in peers if one.kind == "exchange_online"):
            shared = sorted(_domains_of(exchange) & _domains_of(online))
            said = f"share the domain {shared[0]}" if shared else ""
            if not shared and exchange.receives_from_it and EVERYTHING in online.domains and online.sends_to_it:
                said = f"are joined: what comes from {exchange.name} goes on to {online.name}, which takes all mail"
            if said:
                raise EngineError(
                    f"{host}: {VARIABLE}: the peers {exchange.name} (Exchange) and {online.name} (Exchange Online) {said}: {_HYBRID}"
                )


def _domains_of(peer: Peer) -> set[str]:
    """Return the domains that a peer has as its own: those that go there, and the accepted domain by which Exchange Online knows us."""
    own = {one for one in peer.domains if one != EVERYTHING}
    sender = peer.proof_sender.rpartition("@")[2].lower()
    return own | ({sender} if sender and peer.kind == "exchange_online" else set())


def refuse_plaintext(peers: Mapping[str, Sequence[WantedPeer]], requiring: Collection[str]) -> None:
    """Raise EngineError if mail may go in plaintext to a mail server that is to require TLS. requiring: those mail servers."""
    for host, entries in peers.items():
        for one in entries:
            for acceptor in one.acceptors:
                if acceptor in requiring and one.peer.level != "required":
                    raise EngineError(
                        f"{host}: {VARIABLE}: peer {one.peer.name}: {acceptor} is to require TLS (starttls_inbound), and level: "
                        f"{one.peer.level} may deliver to it in plaintext, so mail would bounce; set level: required, or let {acceptor} "
                        "offer TLS"
                    )


def wanted_peers(
    estate: Mapping[str, Any], host: str, action: str = "enable", changes: Any = None
) -> list[dict[str, Any]]:
    """Return the option C(peers) of peer_tls and mail_server_info for a host: those that a playbook sets. Raises EngineError.

    estate: as plain data (Estate.to_json). With C(enable) and C(verify), those that only send are there, too: they are looked at.
    changes: what a workflow has changed; C(undo) sets only the peers that are new in it.
    """
    found = _peers_in(estate, host)
    if action not in ("enable", "verify"):
        found = [one for one in found if one.is_set_by(action)]
    if action == "undo":
        former = former_host(changes, host)
        found = [one for one in found if former and one.peer.name in former.peers]
    return [one.peer.to_dict() for one in found]


def _peers_in(estate: Mapping[str, Any], host: str) -> list[WantedPeer]:
    return [WantedPeer.from_json(one) for one in (estate.get("peers") or {}).get(host) or ()]


def host_at_target(targets: Mapping[str, Target]) -> Callable[[Target], str]:
    """Return the function that finds the host of the inventory at a target. targets: host -> where other hosts reach it."""
    names = {key_of(target): host for host, target in targets.items()}
    return lambda target: names.get(key_of(target), "")


def key_of(target: Target) -> tuple[str, int]:
    """Return what two targets have alike that lead to the same mail server."""
    return target.host.lower().strip("[]").rstrip("."), target.port


def targets_in(texts: Mapping[str, str]) -> dict[str, Target]:
    """Return host -> target, for C(host:port) texts that are targets."""
    return dict(_parsed(texts))


def _parsed(texts: Mapping[str, str]) -> Iterator[tuple[str, Target]]:
    for host, text in texts.items():
        try:
            yield host, Target.parse(text)
        except TargetError:
            continue
