# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the way of an undo: hosts that would still insist on TLS towards one that goes back; and what it does not put back."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import Fleet
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import bare
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.text import names
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import (
    GATEWAY,
    MAIL_SERVER,
    SIDES,
    Located,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import WITHOUT_NAME


def obstacles(fleet: Fleet) -> Iterator[tuple[Located, bool]]:
    """Yield what stands in the way. Nobody waives it, hence the second value."""
    if fleet.action == "undo":
        for rule in (_senders_that_insist, _gateways_that_insist):
            yield from ((one, False) for one in rule(fleet))


def warnings(fleet: Fleet) -> Iterator[Located]:
    """Yield the hosts of the workflow that do not go back to their former state, and why."""
    for host, former in fleet.request.undo.hosts.items():
        seen = fleet.observation(host)
        if host not in fleet.seen:
            yield Located(host, Finding.advised("not_put_back", "it is not in this run, and stays as it is"))
        if not seen:
            continue
        now = (seen.after[0] or seen.before[0], seen.after[1] or seen.before[1])
        if fleet.role(host) == GATEWAY:  # its outbound side is a mode of its own
            now = (now[0], seen.gateway.send or former.outbound)
        for side, was, is_now in zip(SIDES, (former.inbound, former.outbound), now):
            if was in WITHOUT_NAME:
                what = f"its {side} side was {was} before the workflow, which has no name to put it back by; it stays as it is"
            elif side == SIDES[0] and is_now and was != is_now:
                what = f"its {side} side was {was} before the workflow, and stays {is_now}: an undo takes TLS away and never brings it"
            else:
                continue
            yield Located(host, Finding.advised("not_put_back", what))


def _senders_that_insist(fleet: Fleet) -> Iterator[Located]:
    """Yield the hosts of the run that still send over TLS only after it, to one that accepts no TLS any more."""
    for sender in fleet.of_run(MAIL_SERVER):
        seen = fleet.observation(sender)
        if not seen:
            continue
        places = seen.relay_places if (seen.after[1] or seen.before[1]) == "required" else ()
        hops = [fleet.host_at(*place) for place in places]
        kept = [one for one in fleet.estate.peers.get(sender, ()) if one not in fleet.peers(sender)]
        hops += [one for peer in kept if peer.peer.level == "required" for one in peer.acceptors]
        for acceptor in dict.fromkeys(one for one in hops if one in fleet.closing):
            what = f"it sends to {acceptor} over TLS only, and {acceptor} had no TLS before the workflow and goes back to that"
            advice = f"let {sender} send without insisting on TLS first, or take {acceptor} out of starttls_changes"
            yield Located(sender, Finding.advised("next_hop_without_starttls", what, advice))


def _gateways_that_insist(fleet: Fleet) -> Iterator[Located]:
    """Yield the gateways that would still insist on TLS after an undo: from senders, on the way to a host, or from the mail servers."""
    without = [host for host in fleet.of_run(MAIL_SERVER) if host in fleet.closing]
    for gateway in fleet.of_run(GATEWAY):
        seen = fleet.observation(gateway)
        if not seen:
            continue
        places = {bare(server) for one in seen.gateway.configs.values() for server in one.servers}
        behind = [host for host in without if bare(fleet.request.targets.get(host, host)) in places]
        former = fleet.request.undo.hosts.get(gateway)
        senders = [one for one in seen.gateway.senders if not former or (one, "inbound") not in former.enforced]
        if senders and (behind or gateway in fleet.closing):
            domains = names(senders)
            closing = names([*behind, *({gateway} & fleet.closing)])
            what = f"it requires TLS from {domains} on every hop, and {closing} would not accept it any more"
            advice = f"stop that first: enforced_tls_domain with state absent for {domains}"
            yield Located(gateway, Finding.advised("server_without_starttls", what, advice))
        if seen.gateway.accept == "tls_only" and (former is None or former.accept == "tls_only"):
            plain = [host for host in fleet.of_run(MAIL_SERVER) if _stops_using_tls(fleet, host)]
            if plain:
                what = f"it takes mail of the mail servers over TLS only, and {names(plain)} would send in plaintext"
                advice = "let it take both first: outbound_tls_mode with accept both"
                yield Located(gateway, Finding.advised("server_requires_tls", what, advice))


def _stops_using_tls(fleet: Fleet, host: str) -> bool:
    seen = fleet.observation(host)
    return bool(seen and "back" in fleet.steps(host) and seen.after[1] == "disabled" != seen.before[1])
