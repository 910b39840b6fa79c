# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The change of a host's peers, all in one transaction, with evidence before TLS is insisted on.

The engine contains no product: an adapter (peer_contract.PeerServer) plans the files and reloads the daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import load, texts
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import MailOfARoute
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import require_greeting
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import EVERYTHING, Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_contract import PeerServer
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_proof import (
    PeerProof,
    prove_peers,
    unusable,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_one, wait_until
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_SECONDS

SHOWN = (
    "name", "hosts", "domains", "level", "check", "names", "servername", "client_certificate", "client_key", "pin_fingerprints",
    "pin_issuer_file",
)  # fmt: skip
"""What a host's configuration tells of a peer."""
_PROVED = tuple(one for one in SHOWN if one not in ("name", "names", "servername"))


@dataclass(frozen=True)
class PeerWish:
    """What is wanted of a host's peers.

    state: C(present) sets the peers, and leaves others as they are. C(disabled) keeps their transports and routes, without TLS.
    C(absent) takes them out when nothing waits for them. names: of the peers to take out; none for all that are there.
    queue_seconds: how long to wait for that. require_without_evidence: go on without evidence that the peers accept it.
    """

    peers: tuple[Peer, ...] = ()
    state: str = "present"
    names: tuple[str, ...] = ()
    require_without_evidence: bool = False
    queue_seconds: float = QUEUE_SECONDS

    @property
    def wanted(self) -> tuple[Peer, ...]:
        """The peers to set: those that mail goes to. What comes from a peer needs the listener only."""
        sending = tuple(one for one in self.peers if one.sends_to_it)
        if self.state == "absent":
            return ()
        return sending if self.state == "present" else tuple(map(without_tls, sending))


@dataclass(frozen=True)
class PeerPlan:
    """A change of the peers before it is made. before and after: see PeerServer.peers.

    changed: the peers whose settings change, gone: the names of those that go. faults: why it cannot be made.
    """

    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    change: Change
    changed: tuple[Peer, ...] = ()
    gone: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class PeerOutcome:
    """The result of a change. digests: path -> SHA-256 of the files after it; empty if nothing was changed."""

    changed: bool
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    proofs: tuple[PeerProof, ...]
    diff: list[dict[str, str]]
    recovered: bool = False
    warnings: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, without diff and warnings."""
        return {
            "changed": self.changed,
            "before": self.before,
            "after": self.after,
            "proofs": [one.to_dict() for one in self.proofs],
            "recovered": self.recovered,
            "digests": dict(self.digests),
        }


def without_tls(peer: Peer) -> Peer:
    """Return the peer with the level C(disabled), which only this engine gives."""
    return replace(
        peer, level="disabled", check="encryption_only", names=(), servername="", client_certificate="", client_key="",
        pin_fingerprints=(), pin_issuer_file="",
    )  # fmt: skip


def shown(peer: Peer) -> dict[str, Any]:
    """Return what a host's configuration tells of this peer once it is set."""
    data = peer.to_dict()
    return {name: data[name] for name in SHOWN}


def plan_peers(server: PeerServer, wish: PeerWish, store: str = STORE) -> PeerPlan:
    """Return the change that the wish needs. Changes nothing. Raises EngineError and OSError."""
    before = server.peers()
    there = {str(one["name"]): one for one in before}
    gone: tuple[str, ...] = ()
    wanted = wish.wanted
    if wish.state == "absent":
        gone = tuple(name for name in (wish.names or there) if name in there)
    elif wish.state == "disabled":  # a peer without a transport sends nothing there
        wanted = tuple(one for one in wanted if one.name in there)
    was, _edited = texts(load(store, server.name), server.files())
    change = server.plan(wanted, gone, was)
    changed = tuple(one for one in wanted if change and server.plan([one], (), was))
    faults = [
        *_taken(wanted, there),
        *server.faults(wanted),
        *_certificates(changed),
        *([] if wish.require_without_evidence else _untested(wish, changed)),
    ]
    after = {
        **{name: one for name, one in there.items() if name not in gone},
        **{one.name: shown(one) for one in wanted},
    }
    return PeerPlan(before, [after[name] for name in sorted(after)], change, changed, gone, tuple(faults))


def _taken(wanted: Sequence[Peer], there: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return which domains already go to another peer of the host, a text for each."""
    names = {one.name for one in wanted}
    owners = {domain: name for name, one in there.items() if name not in names for domain in one["domains"]}
    return [
        f"peer {one.name}: {domain} goes to the peer {owners[domain]} of this host; name both in one call, or take that one out first"
        for one in wanted
        for domain in one.domains
        if domain in owners
    ]


def _certificates(peers: Sequence[Peer]) -> list[str]:
    """Return why a client certificate cannot be presented, a text for each."""
    found = ((one.name, unusable(one.client_certificate, one.client_key)) for one in peers if one.client_certificate)
    return [f"peer {name}: {why}" for name, why in found if why]


def _untested(wish: PeerWish, changed: Sequence[Peer]) -> list[str]:
    """Return what no test from this host could show, so that only require_without_evidence allows it."""
    if wish.state == "disabled":
        given = {one.name: one for one in wish.peers}
        return [
            f"peer {one.name}: without TLS it does not get the client certificate by which it knows this host, and may refuse mail for "
            "good; take the peer out (state: absent), or leave it as it is; to go on anyway, set require_without_evidence"
            for one in changed
            if given[one.name].client_certificate or one.kind == "exchange_online"
        ]
    return [
        f"peer {one.name} is not tested to RCPT: Exchange Online refuses after a good handshake, so level: required needs proof_sender "
        "(an address of an accepted domain) and proof_recipient; to go on without, set require_without_evidence"
        for one in changed
        if one.kind == "exchange_online" and one.level == "required" and not (one.proof_sender and one.proof_recipient)
    ]


def set_peers(
    server: PeerServer,
    wish: PeerWish,
    settings: Settings,
    own_port: Target,
    check_mode: bool = False,
    store: str = STORE,
    digests: Optional[Mapping[str, str]] = None,
) -> PeerOutcome:
    """Bring the host's peers to the wanted state in one transaction, or leave them unchanged.

    own_port: of the mail server, which has to answer before and after. digests: path -> SHA-256 or C(absent), as the plan saw the
    files. Raises EngineError (nothing was changed) or TransactionError (the change failed and was rolled back; see restored).
    """
    transaction = server.transaction(store)
    quiet = replace(settings, verify_trust=False)
    answers = _answers(server, own_port, quiet)
    with transaction.opened(check_mode, answers) as (recovered, warnings):
        facts.refuse_changed(digests or {})
        server.require_running()
        require_greeting(own_port, handshake_one(own_port, quiet))
        planned = plan_peers(server, wish, store)
        problems = list(planned.faults)
        proofs = () if problems else prove_peers(planned.changed, settings, server.roots())
        problems += [
            one.problem for one in proofs if one.problem and not (wish.require_without_evidence and one.may_insist)
        ]
        warnings.extend(one.warning for one in proofs if one.warning)
        leaving = Leaving(server, planned.before, planned.after)
        if problems and not check_mode:
            raise EngineError("; ".join(problems))
        warnings.extend(f"a real run would refuse this: {one}" for one in problems)
        if check_mode:
            warnings.extend(leaving.warnings(wish.queue_seconds))
        elif planned.change:
            leaving.wait(wish.queue_seconds)
            planned = plan_peers(server, wish, store)  # the wait may have been long
            _make(transaction, server, planned, leaving, answers)
        made = bool(planned.change) and not check_mode
        return PeerOutcome(
            bool(planned.change) or recovered,
            planned.before,
            server.peers() if made else planned.after,
            tuple(proofs),
            planned.change.diff(),
            recovered,
            (*warnings, *settings.told),
            facts.known_digests(server.files()) if made else {},
        )


def _make(
    transaction: Any, server: PeerServer, planned: PeerPlan, leaving: Leaving, answers: Callable[[], None]
) -> None:
    def prove() -> None:
        moment = time.time()
        answers()
        now = {str(one["name"]): one for one in server.peers()}
        for one in planned.changed:
            differing = [key for key in _PROVED if _plain(key, now.get(one.name, {})) != _plain(key, shown(one))]
            if differing:
                raise EngineError(
                    f"the daemon's configuration does not show the peer {one.name} as wanted: {', '.join(differing)}"
                )
        if left := [name for name in planned.gone if name in now]:
            raise EngineError(f"the daemon's configuration still has the peers {', '.join(left)}")
        server.prove(planned.changed)
        leaving.refuse_earlier(moment)

    transaction.apply(planned.change, prove, answers)


def _plain(key: str, peer: Mapping[str, Any]) -> Any:
    """Return what a peer has there, to compare. The domains have no order."""
    return sorted(peer.get(key, ())) if key == "domains" else peer.get(key)


class Leaving(MailOfARoute):
    """The domains that no peer has any more."""

    def __init__(
        self, server: PeerServer, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Keep what goes to them now: after the change, the configuration does not say it any more.

        before and after: the peers of the host, see PeerServer.peers.
        """
        held, kept = _domains_of(before), _domains_of(after)
        domains = set() if EVERYTHING in kept else held - kept
        names = [str(one["name"]) for one in before if domains & {*one["domains"]}]
        super().__init__(
            lambda: server.waiting(domains, held - domains) if domains else (),
            f"the way to the peer {', '.join(names)} ({', '.join(sorted(domains))})",
        )


def _domains_of(peers: Sequence[Mapping[str, Any]]) -> set[str]:
    return {str(domain) for one in peers for domain in one["domains"]}


def _answers(server: PeerServer, own_port: Target, settings: Settings) -> Callable[[], None]:
    """Return the proof that the mail server answers on its own port. It raises EngineError."""

    def prove() -> None:
        seen = wait_until(lambda now: now.stage >= Stage.EHLO, own_port, settings, settings.timeout, server.has_ended)
        if seen.stage < Stage.EHLO:
            raise EngineError(f"no mail server answers on {own_port} ({seen.message})")

    return prove
