# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the way at the peers of the mail servers, and what should be known of them before the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peers import WantedPeer
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import Fleet
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.hops import circle_in
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import Observation, PeerTest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import (
    CERTIFICATES_ONLY,
    GATEWAY,
    MAIL_SERVER,
    Located,
)

_OF_STARTTLS = ("accept", "offer")


def obstacles(fleet: Fleet) -> Iterator[tuple[Located, bool]]:
    """Yield what stands in the way, each with whether the host that insists on TLS waives the evidence."""
    if fleet.action == "enable":
        for host in fleet.of_run(MAIL_SERVER):
            seen = fleet.observation(host)
            if seen:
                for one in (*_untested(fleet, host, seen), *_certificates(fleet, host, seen)):
                    yield one, False
            if "require" in fleet.steps(host):
                for one in _senders(fleet, host):
                    yield one, host in fleet.request.without_evidence
    elif fleet.switches_off:
        yield from ((one, False) for one in _left_behind(fleet))
    circle = circle_in(fleet.action, fleet.changing(), fleet.hops, fleet.of_run(GATEWAY))
    if circle:
        what = f"{', '.join(circle)} each send to another one of them over TLS only, so none of them can be the first to change"
        yield Located("", Finding.advised("hops_in_a_circle", what)), False


def warnings(fleet: Fleet) -> Iterator[Located]:
    """Yield what stops nothing."""
    if fleet.action != "set_delivery_mode" and fleet.action not in CERTIFICATES_ONLY:
        for host in fleet.of_run(MAIL_SERVER):
            seen = fleet.observation(host)
            if seen:
                yield from _of_host(fleet, host, seen)


def _of_host(fleet: Fleet, host: str, seen: Observation) -> Iterator[Located]:
    wanted = fleet.estate.peers.get(host, ())
    if fleet.action != "uninstall":
        for name in _extra(fleet, host, seen):
            what = f"{host} has the peer {name}, and starttls_peers lacks it"
            yield Located(host, Finding.advised("peer_extra", what))
    if fleet.action == "disable":
        for one in wanted:
            if one.keeps_tls and one.peer.name in (seen.peers.there or ()):
                yield Located(host, Finding.advised("peer_keeps_tls", f"the peer {one.peer.name} of {host} keeps TLS"))
    if host in fleet.closing:
        for one in wanted:
            if one.peer.receives_from_it and not one.senders:
                what = f"it is not known here whether the peer {one.peer.name}, which sends to {host}, insists on TLS"
                yield Located(host, Finding.advised("peer_may_insist", what))
    if fleet.action == "enable":
        for test in seen.peers.tests:
            if _is_to_come(fleet, test):
                continue
            if not test.refused:
                yield from (Located(host, one) for one in _said(test))
        refusing = {one.finding for one in _certificates(fleet, host, seen)}
        for name, finding in seen.peers.findings:
            found = _of_peer(name, finding)
            if found not in refusing:
                yield Located(host, found)


def _extra(fleet: Fleet, host: str, seen: Observation) -> list[str]:
    wanted = {one.peer.name for one in fleet.estate.peers.get(host, ())}
    return [name for name in seen.peers.there or () if name not in wanted]


def _untested(fleet: Fleet, host: str, seen: Observation) -> Iterator[Located]:
    """Yield the hosts of peers that do not accept what the change would send there, unless they do once their own turn is over."""
    for test in seen.peers.tests:
        if not test.refused or _is_to_come(fleet, test):
            continue
        acceptor = fleet.host_at(test.host, test.port)
        if acceptor and acceptor not in fleet.seen:
            what = (
                f"it is not in this run, and {host} is to send to it over TLS only (peer {test.peer}): {test.problem}"
            )
            yield Located(acceptor, Finding.advised("outside_limit", what))
        elif not fleet.is_unread(acceptor):
            yield from (Located(host, one) for one in _said(test))


def _is_to_come(fleet: Fleet, test: PeerTest) -> bool:
    """Whether the other side gets STARTTLS in this run, before this one insists on it. What else the test says is not known yet."""
    acceptor = fleet.host_at(test.host, test.port)
    there = fleet.observation(acceptor)
    return bool(
        there and not test.completed and not test.offers
        and there.gets_starttls and any(step in fleet.steps(acceptor) for step in _OF_STARTTLS)
    )  # fmt: skip


def _said(test: PeerTest) -> Sequence[Finding]:
    """Return what a test means, or what the host says of it where the controller has nothing to add."""
    known = [_of_peer(test.peer, one) for one in test.findings if test.problem == "" or one.severity == "error"]
    return known or ([Finding.advised("peer_without_evidence", test.problem)] if test.problem else [])


def _of_peer(name: str, finding: Finding) -> Finding:
    return Finding(finding.code, f"peer {name}: {finding.message}")


def _certificates(fleet: Fleet, host: str, seen: Observation) -> Iterator[Located]:
    """Yield what stands against a certificate, at a peer that is not proved to take the mail with it."""
    if "peers" not in fleet.steps(host) and "offer" not in fleet.steps(host):
        return
    telling = {one.peer.name for one in fleet.estate.peers.get(host, ()) if one.shows_who_sends}
    proved = {one.peer for one in seen.peers.tests if one.accepted and one.peer in telling}
    for name, one in seen.peers.findings:
        if one.severity == "error" and name not in proved and host not in fleet.request.without_evidence:
            yield Located(host, _of_peer(name, one))


def _senders(fleet: Fleet, host: str) -> Iterator[Located]:
    """Yield those who send to a mail server that will take mail over TLS only, if they may still send in plaintext."""
    for sender, peers in {**fleet.request.outside_peers, **fleet.estate.peers}.items():
        for one in peers:
            if host in one.acceptors and (why := _may_be_plain(fleet, sender, one)):
                what = (
                    f"{host} will take mail over TLS only, and {sender} sends to it as its peer {one.peer.name}: {why}"
                )
                code = "outside_limit" if sender not in fleet.seen else "server_requires_tls"
                yield Located(sender, Finding.advised(code, what))
    for sender in fleet.of_run(MAIL_SERVER):
        seen = fleet.observation(sender)
        relays = [fleet.host_at(*place) for place in seen.relay_places] if seen else []
        if seen and sender != host and host in relays and _outbound(seen) == "disabled":
            what = f"{host} will take mail over TLS only, and {sender} sends to it in plaintext"
            yield Located(sender, Finding.advised("server_requires_tls", what))
    for one in fleet.estate.peers.get(host, ()):
        if one.peer.receives_from_it and not one.senders:
            what = (
                f"it will take mail over TLS only, and it is not known here whether the peer {one.peer.name}, which sends to it, uses TLS "
                "always, so its mail may be deferred"
            )
            yield Located(host, Finding.advised("peer_sends_unknown", what))


def _may_be_plain(fleet: Fleet, sender: str, peer: WantedPeer) -> str:
    if sender not in fleet.seen:
        return "it is not in this run"
    return "" if peer.peer.level == "required" else f"level: {peer.peer.level} may deliver in plaintext"


def _outbound(seen: Observation) -> Optional[str]:
    return seen.after[1] or seen.before[1]


def _left_behind(fleet: Fleet) -> Iterator[Located]:
    """Yield the peers that would still insist on TLS towards a host that switches it off: outside the run, or not in the inventory."""
    for sender, peers in fleet.request.outside_peers.items():
        for one in peers:
            for acceptor in one.acceptors if one.peer.level == "required" else ():
                if acceptor in fleet.closing:
                    what = (
                        f"it is not in this run and sends to {acceptor} over TLS only (peer {one.peer.name}), and {acceptor} will not "
                        "accept TLS any more"
                    )
                    yield Located(sender, Finding.advised("outside_limit", what))
    for sender in fleet.of_run(MAIL_SERVER):
        seen = fleet.observation(sender)
        for name in _extra(fleet, sender, seen) if seen else ():
            for place in (seen.peers.there or {}).get(name, ()) if seen else ():
                if fleet.host_at(*place) in fleet.closing:
                    what = (
                        f"its peer {name}, which starttls_peers lacks, sends to {fleet.host_at(*place)} over TLS only, and that will not "
                        "accept TLS any more"
                    )
                    advice = "add the peer to starttls_peers, or take it out: the module peer_tls with its name and state: absent"
                    yield Located(sender, Finding.advised("next_hop_without_starttls", what, advice))
