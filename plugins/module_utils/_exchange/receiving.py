# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The receive connectors: which ones are in question, and what they have to become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.calls import Argument, CmdletCall
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import (
    AUTH_MECHANISMS,
    Organisation,
    ReceiveConnector,
    same_pair,
    shown,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.paths import (
    ReceiveTls,
    auth_argument,
    receive_calls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.ranges import (
    Interval,
    inside,
    overlap,
    parse_range,
    without,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.serving import (
    bindings,
    covers,
    on_port,
    ranges,
    served,
    serving,
    strangers,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.values import ConnectorSide
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import (
    OWN_PREFIX,
    NamedClient,
    WantedExchange,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

RECEIVE_TLS = ("AuthMechanism", "RequireTLS", "TlsCertificateName")
"""The properties of a receive connector that are kept before they are changed."""


def addresses(client: NamedClient) -> tuple[Interval, ...]:
    """Return whence a client connects. Raises EngineError, which names it."""
    try:
        return tuple(map(parse_range, client.addresses))
    except ValueError as error:
        raise EngineError(
            f"{client.name}: {shown(str(error))}; an address has to be one like 192.0.2.1, 192.0.2.1-192.0.2.9 or 192.0.2.0/24"
        ) from error


def in_question(organisation: Organisation, wanted: WantedExchange) -> tuple[ReceiveConnector, ...]:
    """Return the connectors that may serve the clients; without clients, all on the port. Raises NotReadError."""
    if not wanted.clients:
        return on_port(organisation, wanted.port)
    found = {
        one.identity: one
        for client in wanted.clients
        for address in addresses(client)
        for one in serving(organisation, address, wanted.port)[0]
    }
    return tuple(found[identity] for identity in sorted(found))


class Receiving(ConnectorSide):
    """Plans the receive connectors of one server."""

    def __post_init__(self) -> None:
        """Look up whence the clients connect."""
        super().__post_init__()
        self.named = [address for client in self.wanted.clients for address in addresses(client)]

    def new_connectors(self) -> list[CmdletCall]:
        """Return the calls that make or correct the connectors of named peers. Raises NotReadError."""
        calls: list[CmdletCall] = []
        for client in self.wanted.clients:
            if not client.own_connector:
                continue
            mine = self.organisation.receive_connector(self._identity(client))
            if mine is not None:
                calls += self._corrected(mine, client)
            elif self.wanted.inbound == "required" and (shared := self._shared(client)):
                calls += self._made(client, shared)
        return calls

    def settings(self) -> list[CmdletCall]:
        """Return the calls that bring the connectors in question to the wanted state. Raises NotReadError."""
        self._unserved()
        calls: list[CmdletCall] = []
        for one in in_question(self.organisation, self.wanted):
            target = self._target(one)
            if not target.legal:
                self._refuse(
                    "connector_refused",
                    f"{one} has an AuthMechanism ({shown(one.text('AuthMechanism'))}) that goes with nothing",
                )
                continue
            if foreign := target.auth - set(AUTH_MECHANISMS):
                self._refuse(
                    "connector_refused",
                    f"{one} has {shown(', '.join(sorted(foreign)))} in AuthMechanism, which is not known here",
                )
                continue
            calls += receive_calls(one, target)
            if self.wanted.inbound in ("offered", "required"):
                self._certificate(one)
        return calls

    def _target(self, one: ReceiveConnector) -> ReceiveTls:
        now = ReceiveTls.of(one)
        inbound = self.wanted.inbound
        if inbound == "disabled":
            return self._switched_off(one, now)
        named = self.pair or now.certificate
        if same_pair(named, now.certificate):
            named = now.certificate
        if inbound is None:
            return ReceiveTls(now.auth, now.require, named if now.certificate else None)
        require = now.require and not self.wanted.relax
        if inbound == "required":
            require = True
            if not now.require:
                self._strangers(one)
        return ReceiveTls(now.auth | {"Tls"}, require, named)

    def _switched_off(self, one: ReceiveConnector, now: ReceiveTls) -> ReceiveTls:
        """Return what the connector was before the collection came; if that is not known, without Tls where nothing needs it."""
        former = recorded(self.wanted.record, "receive", one.identity)
        if former and "RequireTLS" in former:
            return former_receive(self.organisation, one, former, self.warnings)
        if one.own:
            return ReceiveTls(now.auth, False, now.certificate)
        if "Tls" in now.auth and (one.is_default(self.organisation.name) or now.auth & {"BasicAuth", "ExchangeServer"}):
            # Without Tls, passwords would cross the network in plaintext, and other Exchange servers may need it.
            self.warnings.append(
                f"{one} goes on offering STARTTLS, because logins need it or Exchange's setup has it so"
            )
            return ReceiveTls(now.auth, False, now.certificate)
        return ReceiveTls(now.auth - {"Tls"}, False, now.certificate)

    def _unserved(self) -> None:
        for client in self.wanted.clients:
            for address in addresses(client):
                if not serving(self.organisation, address, self.wanted.port)[1]:
                    self._refuse(
                        "connector_refused",
                        f"{self.organisation.name}: no enabled receive connector on port {self.wanted.port} takes mail from "
                        f"{client.name} ({address}); make one, or correct the address",
                    )

    def _strangers(self, one: ReceiveConnector) -> None:
        beside = strangers(self.organisation, one, self.named)
        if beside:
            more = " and others" if len(beside) > 1 else ""
            self._refuse(
                "connector_shared",
                f"{one} serves {beside[0]}{more}, too, and RequireTLS would turn away those of them that send without TLS; "
                "name the host that sends in starttls_peers with direction: inbound, and it gets a receive connector of its own",
            )

    def _certificate(self, one: ReceiveConnector) -> None:
        """Say what is wrong with the certificate that the connector will serve."""
        new = self.wanted.certificate
        fqdn = one.text("Fqdn") or self.organisation.fqdn
        if new and self.pair:
            if not any(covers(own, fqdn) for own in new.domains):
                self.warnings.append(
                    f"{one} greets as {shown(fqdn)}, which the certificate does not cover; clients that check may refuse"
                )
        elif not served(self.organisation, one):
            name = (
                f"the one it names ({shown(one.certificate_name)})"
                if one.certificate_name
                else f"one for {shown(fqdn)}"
            )
            self._refuse(
                "certificate_missing",
                f"{one} has no certificate to serve: {name} is not there, not valid, or not enabled for SMTP; "
                "set starttls_certificate_file and starttls_private_key_file",
            )

    def _identity(self, client: NamedClient) -> str:
        return f"{self.organisation.name}\\{OWN_PREFIX}{client.name}"

    def _shared(self, client: NamedClient) -> list[ReceiveConnector]:
        """Return the connectors that serve this client and strangers."""
        found = {
            one.identity: one
            for address in addresses(client)
            for one in serving(self.organisation, address, self.wanted.port)[0]
        }
        return [one for one in found.values() if strangers(self.organisation, one, self.named)]

    def _made(self, client: NamedClient, shared: list[ReceiveConnector]) -> list[CmdletCall]:
        name = f"{OWN_PREFIX}{client.name}"
        for one in shared:
            groups = {word.lower() for word in one.words("PermissionGroups")} - {"none"}
            if not one.is_default(self.organisation.name) and groups - {"anonymoususers"}:
                self._refuse(
                    "connector_refused",
                    f"{client.name} is served by {one}, which grants more than AnonymousUsers ({shown(one.text('PermissionGroups'))}), and "
                    f"serves others, too; make a receive connector for {client.name} by hand, with the rights that it needs",
                )
                return []
        wanted = addresses(client)
        versions = {one.version for one in wanted}
        places = sorted(
            {
                place
                for one in shared
                for place in bindings(one)
                if place.port == self.wanted.port and place.version in versions
            }
        )
        if self._conflicts(name, wanted, {str(one) for one in places}):
            return []
        given: dict[str, Any] = {
            "Name": name,
            "Server": self.organisation.name,
            "Custom": True,
            "TransportRole": shared[0].text("TransportRole") or "FrontendTransport",
            "Bindings": tuple(
                f"[{one.address}]:{one.port}" if one.version == 6 else f"{one.address}:{one.port}" for one in places
            ),
            "RemoteIPRanges": tuple(map(str, wanted)),
            "AuthMechanism": ("Tls",),
            "PermissionGroups": ("AnonymousUsers",),
        }
        if self.wanted.fqdn:
            given["Fqdn"] = self.wanted.fqdn
        name_of_certificate = self.pair or next((one.certificate_name for one in shared if one.certificate_name), None)
        if name_of_certificate:
            given["TlsCertificateName"] = name_of_certificate
        return [CmdletCall("New-ReceiveConnector", given, (removed(self._identity(client)),))]

    def _corrected(self, mine: ReceiveConnector, client: NamedClient) -> list[CmdletCall]:
        """Return the call that gives a peer's connector the addresses that the peer has now, and the wanted name."""
        wanted, there = addresses(client), ranges(mine)
        new: dict[str, Argument] = {}
        if without(wanted, there) or without(there, wanted):
            if self._conflicts(mine.name, wanted, {str(one) for one in bindings(mine)}):
                return []
            new["RemoteIPRanges"] = tuple(map(str, wanted))
        if self.wanted.fqdn and mine.text("Fqdn").lower() != self.wanted.fqdn.lower():
            new["Fqdn"] = self.wanted.fqdn
        if not new:
            return []
        back: dict[str, Argument] = {name: mine.value(name) for name in new}
        undo = (CmdletCall("Set-ReceiveConnector", {"Identity": mine.identity, **back}),)
        return [CmdletCall("Set-ReceiveConnector", {"Identity": mine.identity, **new}, undo)]

    def _conflicts(self, name: str, wanted: tuple[Interval, ...], places: set[str]) -> bool:
        """Refuse a connector whose ranges are those of another one, or overlap them in part."""
        for other in self.organisation.receive_connectors:
            if other.name.lower() == name.lower() or not places & {str(one) for one in bindings(other)}:
                continue
            for mine in wanted:
                for theirs in ranges(other):
                    nested = inside(mine, theirs) or inside(theirs, mine)
                    if mine == theirs or (overlap(mine, theirs) and not nested):
                        self._refuse(
                            "connector_conflict",
                            f"the receive connector {name} would serve {mine}, and {other} serves {theirs} at the same place; "
                            "Exchange takes two connectors only if one range lies wholly inside the other. Correct the addresses",
                        )
                        return True
        return False


def removed(identity: str) -> CmdletCall:
    """Return the call that removes a receive connector."""
    return CmdletCall("Remove-ReceiveConnector", {"Identity": identity})


_KEPT = ("TransportRole", "Bindings", "RemoteIPRanges", "PermissionGroups", "Fqdn", "TlsCertificateName")


def removal_of_own(organisation: Organisation, one: ReceiveConnector) -> CmdletCall:
    """Return the call that removes a connector of the collection, with the one that makes it again. Raises NotReadError."""
    tls = ReceiveTls.of(one)
    given: dict[str, Any] = {"Name": one.name, "Server": organisation.name, "Custom": True}
    for name in _KEPT:
        value = one.value(name)
        if name == "PermissionGroups":
            given[name] = tuple(sorted(one.words(name)))
        elif value not in (None, ()):
            given[name] = one.texts(name) if name in ("Bindings", "RemoteIPRanges") else value
    given["AuthMechanism"] = auth_argument(tls.auth)
    again = [CmdletCall("New-ReceiveConnector", given)]
    if tls.require:
        again.append(CmdletCall("Set-ReceiveConnector", {"Identity": one.identity, "RequireTLS": True}))
    return CmdletCall("Remove-ReceiveConnector", {"Identity": one.identity}, tuple(again))


def recorded(record: Mapping[str, Any], kind: str, identity: str) -> Optional[Mapping[str, Any]]:
    """Return the properties that an object had before the collection came; None if that is not known."""
    for known, values in ((record.get(kind) or {}) if isinstance(record, Mapping) else {}).items():
        if str(known).lower() == identity.lower() and isinstance(values, Mapping):
            return values
    return None


def former_receive(
    organisation: Organisation, one: ReceiveConnector, former: Mapping[str, Any], warnings: list[str]
) -> ReceiveTls:
    """Return the state of a connector as recorded. A certificate that is gone is not named again. Raises NotReadError."""
    then = ReceiveTls.of(
        ReceiveConnector({**one.values, **{name: former[name] for name in RECEIVE_TLS if name in former}})
    )
    return ReceiveTls(
        then.auth, then.require, still_there(organisation, one.certificate_name, then.certificate, str(one), warnings)
    )


def still_there(
    organisation: Organisation, now: Optional[str], then: Optional[str], what: str, warnings: list[str]
) -> Optional[str]:
    """Return the former name of a certificate; None, with a warning, if no certificate has it any more. Raises NotReadError."""
    if same_pair(now, then):
        return now
    if then and not any(same_pair(one.pair, then) for one in organisation.certificates):
        warnings.append(f"{what} named a certificate before that is gone ({shown(then)}), and names none now")
        return None
    return then


def old_pairs(organisation: Organisation, wanted: WantedExchange, pair: str) -> Iterator[str]:
    """Yield the names that the connectors in question have and lose. Raises NotReadError.

    The internal transport certificate's is not among them: Exchange's own connectors may name it.
    """
    internal = organisation.certificate(organisation.internal_thumbprint) if organisation.internal_thumbprint else None
    seen = {pair.lower(), internal.pair.lower() if internal else ""}
    for one in in_question(organisation, wanted):
        name = one.certificate_name
        if name and name.lower() not in seen:
            seen.add(name.lower())
            yield name
