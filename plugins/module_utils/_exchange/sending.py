# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The send connectors: which ones are in question, what they have to become, and those of peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.calls import CmdletCall, simulate
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import (
    Organisation,
    SendConnector,
    ShownValue,
    bare_host,
    same_pair,
    shown,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.paths import SendTls, send_calls
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.receiving import recorded, still_there
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.values import ConnectorSide
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import (
    AUTH_LEVELS,
    OWN_PREFIX,
    ExchangePeer,
    WantedExchange,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import is_address
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

SEND_TLS = ("IgnoreSTARTTLS", "RequireTLS", "TlsAuthLevel", "TlsDomain", "TlsCertificateName")
"""The properties of a send connector that are kept before they are changed."""


def used_here(organisation: Organisation) -> tuple[SendConnector, ...]:
    """Return the enabled send connectors by which this server sends, without those of peers. Raises NotReadError."""
    server = organisation.name.lower()
    return tuple(
        one
        for one in organisation.send_connectors
        if not one.own and one.flag("Enabled") and server in one.source_servers
    )


def in_question(organisation: Organisation, wanted: WantedExchange) -> tuple[SendConnector, ...]:
    """Return the connectors that lead to the next hops; without these, all that this server uses. Raises NotReadError.

    A hybrid connector belongs to the hybrid wizard. It is in question only if it leads to a next hop.
    """
    hops = {bare_host(one) for one in wanted.next_hops}
    every = used_here(organisation)
    if hops:
        return tuple(one for one in every if hops & set(one.smart_hosts))
    return tuple(one for one in every if one.values.get("CloudServicesMailEnabled") is not True)


class Sending(ConnectorSide):
    """Plans the send connectors. They get the pair only if that was asked."""

    def settings(self) -> list[CmdletCall]:
        """Return the calls that bring the connectors in question to the wanted state. Raises NotReadError."""
        if self.wanted.outbound is None and not self.wanted.send_certificate:
            return []
        found = in_question(self.organisation, self.wanted)
        if not found and (self.wanted.next_hops or self.wanted.outbound == "required"):
            where = ", ".join(self.wanted.next_hops) or "another host"
            self._refuse(
                "connector_refused",
                f"no send connector that {self.organisation.name} uses leads to {where}; make one by New-SendConnector, correct "
                "starttls_exchange_next_hops, or name the host in starttls_peers",
            )
        calls: list[CmdletCall] = []
        for one in found:
            now = SendTls.of(one)
            target = self._target(one, now)
            if target is not None and target != now:
                self._shared(one)
                calls += send_calls(one, target)
        return calls

    def _target(self, one: SendConnector, now: SendTls) -> Optional[SendTls]:
        outbound = self.wanted.outbound
        certificate = self._certificate(one, now)
        former = recorded(self.wanted.record, "send", one.identity)
        if outbound == "disabled" and former and "RequireTLS" in former:
            target = former_send(self.organisation, one, former, self.warnings)
        elif outbound == "disabled":
            target = SendTls(True, False, None, None, now.certificate)
        elif outbound == "opportunistic":
            target = SendTls(False, False, None, None, certificate)
        elif outbound == "required":
            if (domain := self._domain(one)) is None:
                return None
            target = SendTls(False, True, AUTH_LEVELS[self.wanted.check], domain or None, certificate)
        else:
            target = replace(now, certificate=certificate)
        changes_level = replace(target, certificate=now.certificate) != now
        if changes_level and one.values.get("CloudServicesMailEnabled") is not False and self._hybrid(one):
            return None
        if target.ignore and one.flag("DomainSecureEnabled"):
            said = f"{one} has DomainSecureEnabled, which needs TLS; switch that off first, or leave outbound as it is"
            self._refuse("connector_refused", said)
            return None
        return target

    def _hybrid(self, one: SendConnector) -> bool:
        """Refuse a connector of the hybrid wizard."""
        if not one.flag("CloudServicesMailEnabled"):
            return False
        said = f"{one} belongs to the hybrid wizard (CloudServicesMailEnabled), which sets its TLS; leave it out, or run the wizard"
        self._refuse("connector_refused", said)
        return True

    def _domain(self, one: SendConnector) -> Optional[str]:
        """Return TlsDomain for outbound required; empty without one, None if the connector is refused."""
        if one.flag("DNSRoutingEnabled"):
            self._refuse(
                "connector_refused",
                f"{one} looks up the MX of each domain; with RequireTLS, mail to every host without TLS would wait and expire. Leave "
                "outbound opportunistic, or give the connector a smart host",
            )
            return None
        if self.wanted.check != "hostname":
            return ""
        domain = self.wanted.tls_domain or _one_name(one.smart_hosts)
        if not domain:
            self._refuse(
                "connector_refused",
                f"{one}: check hostname needs one name to compare, and its smart hosts are {shown(', '.join(one.smart_hosts))}; "
                "set the name that their certificate has",
            )
            return None
        return domain

    def _certificate(self, one: SendConnector, now: SendTls) -> Optional[str]:
        if not (self.wanted.send_certificate and self.pair) or same_pair(now.certificate, self.pair):
            return now.certificate
        having = {
            self.organisation.name.lower(),
            *(name.partition(".")[0].lower() for name in self.wanted.others_with_certificate),
        }
        if away := sorted(set(one.source_servers) - having):
            self._refuse(
                "certificate_missing",
                f"{one} would name a certificate that {', '.join(away)}, which sends by it, too, is not known to have; install it there "
                "in the same run",
            )
            return now.certificate
        return self.pair

    def _shared(self, one: SendConnector) -> None:
        if others := sorted(set(one.source_servers) - {self.organisation.name.lower()}):
            self.warnings.append(
                f"{one} is changed for {', '.join(others)}, too: a send connector belongs to the organisation"
            )

    def peers(self) -> list[CmdletCall]:
        """Return the calls that make or correct the send connectors of peers. Raises NotReadError."""
        return [call for peer in self.wanted.peers for call in self._peer(peer)]

    def _peer(self, peer: ExchangePeer) -> list[CmdletCall]:
        name = f"{OWN_PREFIX}{peer.name}"
        mine = self.organisation.send_connector(name)
        domain = peer.tls_domain or _one_name(tuple(map(bare_host, peer.hosts))) if peer.check == "hostname" else ""
        if peer.check == "hostname" and not domain:
            said = (
                f"peer {peer.name}: check hostname needs one name to compare; set tls_domain, or one host by its name"
            )
            self._refuse("connector_refused", said)
            return []
        if self._same_space(peer, name):
            return []
        calls = [self._made(peer, name)] if mine is None else self._corrected(mine, peer)
        after = simulate(self.organisation, calls).send_connector(name)
        if after is None:
            raise EngineError(f"the send connector {name} is not there after the call that makes it")
        required = peer.level == "required"
        level = AUTH_LEVELS[peer.check] if required else None
        now = SendTls.of(after)
        target = SendTls(False, required, level, domain if level == "DomainValidation" else None, now.certificate)
        return [*calls, *send_calls(after, target)]

    def _same_space(self, peer: ExchangePeer, name: str) -> bool:
        wanted = set(peer.domains)
        for other in self.organisation.send_connectors:
            if other.identity.lower() == name or not other.flag("Enabled"):
                continue
            if taken := sorted(wanted & {space_domain(one) for one in other.texts("AddressSpaces")}):
                self._refuse(
                    "connector_conflict",
                    f"peer {peer.name}: mail to {taken[0]} goes by {other} already, and Exchange would choose between the two; take the "
                    "address space out of that connector, or the peer out of starttls_peers and set next hops instead",
                )
                return True
        return False

    def _made(self, peer: ExchangePeer, name: str) -> CmdletCall:
        given: dict[str, Any] = {
            "Name": name,
            "Custom": True,
            "AddressSpaces": _spaces(peer),
            "SmartHosts": _smart_hosts(peer),
            "DNSRoutingEnabled": False,
            "Port": peer.port,
            "IgnoreSTARTTLS": False,
            "SourceTransportServers": (self.organisation.name,),
        }
        if self.wanted.fqdn:
            given["Fqdn"] = self.wanted.fqdn
        return CmdletCall("New-SendConnector", given, (CmdletCall("Remove-SendConnector", {"Identity": name}),))

    def _corrected(self, mine: SendConnector, peer: ExchangePeer) -> list[CmdletCall]:
        """Return the call that has a peer's connector lead where the peer is now, from this server, too."""
        new: dict[str, Any] = {}
        if {space_domain(one) for one in mine.texts("AddressSpaces")} != set(peer.domains):
            new["AddressSpaces"] = _spaces(peer)
        if set(mine.smart_hosts) != set(map(bare_host, peer.hosts)):
            new["SmartHosts"] = _smart_hosts(peer)
        if mine.value("Port") != peer.port:
            new["Port"] = peer.port
        if self.organisation.name.lower() not in mine.source_servers:
            new["SourceTransportServers"] = (*mine.texts("SourceTransportServers"), self.organisation.name)
        if self.wanted.fqdn and mine.text("Fqdn").lower() != self.wanted.fqdn.lower():
            new["Fqdn"] = self.wanted.fqdn
        if not new:
            return []
        back = {name: mine.value(name) for name in new}
        undo = (CmdletCall("Set-SendConnector", {"Identity": mine.identity, **back}),)
        return [CmdletCall("Set-SendConnector", {"Identity": mine.identity, **new}, undo)]

    def absent(self) -> list[CmdletCall]:
        """Return the calls that remove the send connectors of peers that are not to be there. Raises NotReadError."""
        calls = []
        for name in self.wanted.absent:
            mine = self.organisation.send_connector(f"{OWN_PREFIX}{name}")
            if mine is not None and not self._waiting(mine):
                calls.append(removal_of_own(mine))
        return calls

    def _waiting(self, mine: SendConnector) -> bool:
        if count := waiting(self.organisation, mine):
            said = f"{mine}: {count} messages wait in its queue; let them go out first (Get-Queue, Retry-Queue), then remove it"
            self._refuse("connector_refused", said)
        return bool(count)


def waiting(organisation: Organisation, connector: SendConnector) -> int:
    """Return how many messages wait for a connector. Raises NotReadError."""
    guid = connector.text("Guid").lower()
    counts = [one.value("MessageCount") for one in organisation.queues if one.text("NextHopConnector").lower() == guid]
    return sum(int(count) for count in counts if isinstance(count, (int, str)) and str(count).isdigit())


def removal_of_own(one: SendConnector) -> CmdletCall:
    """Return the call that removes a connector of the collection, with those that make it again. Raises NotReadError."""
    given: dict[str, Any] = {
        "Name": one.text("Name"),
        "Custom": True,
        "DNSRoutingEnabled": False,
        "IgnoreSTARTTLS": False,
    }
    for name in ("AddressSpaces", "SmartHosts", "SourceTransportServers"):
        given[name] = one.texts(name)
    for name in ("Port", "Fqdn", "TlsCertificateName"):
        value: ShownValue = one.value(name)
        if value not in (None, ""):
            given[name] = value
    now = SendTls.of(one)
    fresh = SendConnector(
        {**one.values, "IgnoreSTARTTLS": False, "RequireTLS": False, "TlsAuthLevel": None, "TlsDomain": None}
    )
    again = (CmdletCall("New-SendConnector", given), *(replace(call, undo=()) for call in send_calls(fresh, now)))
    return CmdletCall("Remove-SendConnector", {"Identity": one.identity}, again)


def former_send(
    organisation: Organisation, one: SendConnector, former: Mapping[str, Any], warnings: list[str]
) -> SendTls:
    """Return the state of a connector as recorded. A certificate that is gone is not named again. Raises NotReadError."""
    then = SendTls.of(SendConnector({**one.values, **{name: former[name] for name in SEND_TLS if name in former}}))
    return replace(
        then, certificate=still_there(organisation, one.certificate_name, then.certificate, str(one), warnings)
    )


def space_domain(text: str) -> str:
    """Return the domain of an address space, such as C(SMTP:example.com;1); with its type unless that is SMTP."""
    kind, colon, rest = text.partition(":")
    domain = (rest if colon else kind).partition(";")[0].strip().lower()
    return domain if not colon or kind.strip().lower() == "smtp" else f"{kind.strip().lower()}:{domain}"


def _spaces(peer: ExchangePeer) -> tuple[str, ...]:
    return tuple(f"SMTP:{one};1" for one in peer.domains)


def _smart_hosts(peer: ExchangePeer) -> tuple[str, ...]:
    return tuple(f"[{bare_host(one)}]" if is_address(bare_host(one)) else bare_host(one) for one in peer.hosts)


def _one_name(hosts: tuple[str, ...]) -> str:
    """Return the host if it is one name; empty for several, or for an address."""
    return hosts[0] if len(hosts) == 1 and not is_address(hosts[0]) else ""
