# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which receive connector serves a client, who else uses it, and which certificate it serves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import (
    ExchangeCertificate,
    NotReadError,
    Organisation,
    ReceiveConnector,
    same_pair,
    shown,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.ranges import (
    Binding,
    Interval,
    common,
    overlap,
    parse_binding,
    parse_range,
    without,
)


def bindings(connector: ReceiveConnector) -> tuple[Binding, ...]:
    """Return where a connector listens. Raises NotReadError for what is not understood."""
    try:
        return tuple(map(parse_binding, connector.texts("Bindings")))
    except ValueError as error:
        raise NotReadError(f"Bindings of {connector} are not understood: {shown(str(error))}") from error


def ranges(connector: ReceiveConnector) -> tuple[Interval, ...]:
    """Return whom a connector serves. Raises NotReadError for what is not understood."""
    try:
        return tuple(map(parse_range, connector.texts("RemoteIPRanges")))
    except ValueError as error:
        raise NotReadError(f"RemoteIPRanges of {connector} are not understood: {shown(str(error))}") from error


def on_port(organisation: Organisation, port: int) -> tuple[ReceiveConnector, ...]:
    """Return the enabled connectors that other hosts reach on a port. Raises NotReadError."""
    return tuple(
        one
        for one in organisation.receive_connectors
        if one.enabled and any(place.port == port and not place.loopback for place in bindings(one))
    )


def serving(organisation: Organisation, client: Interval, port: int) -> tuple[tuple[ReceiveConnector, ...], bool]:
    """Return the connectors that may serve the client's addresses, and whether they serve all of them. Raises NotReadError.

    Of the connectors that listen there, the one with the most specific range serves an address. There is more than one if the client is a
    range that several share, or if it depends on the address of the server to which the client connects.
    """
    candidates = [one for one in organisation.receive_connectors if one.enabled]
    places = {
        place
        for one in candidates
        for place in bindings(one)
        if place.port == port and place.version == client.version and (client.loopback or not place.loopback)
    }
    found: dict[str, ReceiveConnector] = {}
    whole = bool(places)
    for place in places:
        exact = [one for one in candidates if place in bindings(one)]
        groups = [exact]
        if (
            not place.everywhere
        ):  # what a connector for every address does beside one for this address is not documented
            groups.append([one for one in candidates if any(_covers(own, place) for own in bindings(one))])
        left = client.size
        for group in groups:
            winners, remaining = _most_specific(group, client)
            found.update((one.identity, one) for one in winners)
            left = min(left, sum(one.size for one in remaining))
        whole = whole and not left
    return tuple(found[identity] for identity in sorted(found)), whole


def _covers(own: Binding, place: Binding) -> bool:
    return own.port == place.port and own.version == place.version and (own.everywhere or own == place)


def _most_specific(
    connectors: Iterable[ReceiveConnector], client: Interval
) -> tuple[list[ReceiveConnector], list[Interval]]:
    """Return the connectors that win some of the addresses, and the addresses that nobody takes."""
    claims = sorted(
        ((one.size, one, connector) for connector in connectors for one in ranges(connector) if overlap(one, client)),
        key=lambda claim: claim[0],
    )
    left, winners = [client], []
    for _size, claim, connector in claims:
        if any(common(claim, left)):
            winners.append(connector)
            left = without(left, [claim])
    return winners, left


def strangers(organisation: Organisation, connector: ReceiveConnector, named: Sequence[Interval]) -> list[Interval]:
    """Return the addresses that the connector may serve beside the named ones. Raises NotReadError.

    Addresses that another connector takes everywhere where this one listens, by a more specific range, do not count.
    """
    own_places = set(bindings(connector))
    taken = [
        (one.size, one)
        for other in organisation.receive_connectors
        if other.enabled and other.identity != connector.identity and own_places <= set(bindings(other))
        for one in ranges(other)
    ]
    left = []
    for own in ranges(connector):
        left += without([own], [*named, *(one for size, one in taken if size < own.size)])
    return left


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate stands for a host name; C(*.example.com) does for one label."""
    pattern, name = pattern.lower(), name.lower().rstrip(".")
    return pattern == name or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:])


def served(organisation: Organisation, connector: ReceiveConnector) -> tuple[ExchangeCertificate, ...]:
    """Return the certificates from which the connector serves one; none if it has none to serve. Raises NotReadError."""
    name = connector.certificate_name
    found = []
    fqdn = "" if name else (connector.text("Fqdn") or organisation.fqdn)
    for one in organisation.certificates:
        fits = same_pair(one.pair, name) if name else any(covers(own, fqdn) for own in one.domains)
        if fits and one.usable and "SMTP" in one.services:
            found.append(one)
    return tuple(found)


def tls_mode(organisation: Organisation, connector: ReceiveConnector) -> str:
    """Return C(none), C(offered) or C(required). Raises NotReadError."""
    if not connector.enabled or not connector.offers_tls:
        return "none"
    if connector.require_tls:
        return "required"
    return "offered" if served(organisation, connector) else "none"
