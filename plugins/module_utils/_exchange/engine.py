# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done on an Exchange server: the entry points of this room. Nothing here has input or output.

observe() (model.py) reads what exchange_cmdlets returned. plan() compares it with what is wanted. uninstall() plans the way back.
undo() gives what undoes calls that were done. retry() has a queue tried again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange import observed, receiving, sending
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.calls import CmdletCall, simulate
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.certificates import (
    SMTP,
    move,
    provide,
    removal,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import (
    THUMBPRINT,
    NotReadError,
    Organisation,
    Shown,
    ShownValue,
    same_pair,
    shown,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.paths import receive_calls, send_calls
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.receiving import (
    RECEIVE_TLS,
    Receiving,
    old_pairs,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.sending import SEND_TLS, Sending
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.values import Obstacle, Planned
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import (
    AUTH_LEVELS,
    OWN_PREFIX,
    RECEIVING,
    SENDING,
    WantedExchange,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

FORMER_FORMAT = 1


def plan(organisation: Organisation, wanted: WantedExchange) -> Planned:
    """Return what has to be done. Raises EngineError for a wanted state that makes no sense; all else is an obstacle."""
    _check(wanted)
    making = _Making(organisation, wanted)
    try:
        making.make()
    except NotReadError as error:
        making.unread(error)
    return making.planned(making.record())


def uninstall(organisation: Organisation, record: Mapping[str, Any]) -> Planned:
    """Return the way back to what was there before: recorded connectors as they were, own ones removed, then own certificates."""
    making = _Making(organisation, WantedExchange(record=record))
    try:
        making.put_back()
    except NotReadError as error:
        making.unread(error)
    return making.planned({})


def undo(planned: Planned, done: int) -> tuple[CmdletCall, ...]:
    """Return the calls that undo the first C(done) ones of planned.calls, in the order in which they run."""
    return tuple(back for call in reversed(planned.calls[:done]) for back in call.undo)


def retry(organisation: Organisation, connectors: tuple[str, ...] = ()) -> tuple[CmdletCall, ...]:
    """Return a Retry-Queue for each queue in Retry that belongs to one of these send connectors; to any, if none is named.

    connectors: identities. Raises NotReadError if the queues could not be read.
    """
    names = {one.lower() for one in connectors}
    guids = {
        one.text("Guid").lower() for one in organisation.send_connectors if not names or one.identity.lower() in names
    }
    return tuple(
        CmdletCall("Retry-Queue", {"Identity": one.text("Identity")})
        for one in organisation.queues
        if one.text("Status").lower() == "retry" and one.text("NextHopConnector").lower() in guids
    )


class _Making:
    """Collects a change step by step. now: the organisation after the calls so far."""

    def __init__(self, organisation: Organisation, wanted: WantedExchange) -> None:
        if wanted.inbound == "disabled" and not wanted.send_certificate:
            wanted = replace(wanted, certificate=None)
        self.organisation, self.now, self.wanted = organisation, organisation, wanted
        self.calls: list[CmdletCall] = []
        self.last: list[CmdletCall] = []
        self.reread = 0
        self.warnings: list[str] = []
        self.obstacles: list[Obstacle] = []

    def unread(self, error: NotReadError) -> None:
        """Note what could not be read."""
        advice = "see whether the account may read it, and whether the cmdlets run in the management shell (starttls_exchange_reach)"
        self.obstacles.append(Obstacle("exchange_not_read", f"{error}; {advice}"))

    def _is_edge(self) -> bool:
        if not self.organisation.is_edge:
            return False
        name = shown(self.organisation.server.text("Name") or "this host")
        said = f"{name} is an Edge Transport server, which is not supported; take it out of mail_servers and set its TLS by hand"
        self.obstacles.append(Obstacle("edge_server", said))
        return True

    def _do(self, calls: Iterable[CmdletCall]) -> None:
        done = list(calls)
        self.now = simulate(self.now, done, self.wanted.certificate)
        self.calls += done

    def make(self) -> None:
        """Compute the change. Raises NotReadError."""
        if self._is_edge():
            return
        wanted = self.wanted
        pairs: list[str] = []
        pair = ""
        if wanted.certificate:
            provided = provide(self.now, wanted.certificate, wanted.internal_certificate)
            self.obstacles += provided.obstacles
            self.warnings += provided.warnings
            if provided.obstacles:
                return
            pair = provided.pair
            pairs = list(old_pairs(self.now, wanted, pair))
            self._do(provided.calls)
            if self.organisation.certificate(wanted.certificate.thumbprint) is None:
                self.reread = len(self.calls)
        receive = Receiving(self.now, wanted, pair)
        self._do(receive.new_connectors())
        receive.organisation = self.now
        self._do(receive.settings())
        self._do(self._absent())
        send = Sending(self.now, wanted, pair)
        for work in (send.settings, send.absent, send.peers):
            self._do(work())
            send.organisation = self.now
        self.obstacles += [*receive.obstacles, *send.obstacles]
        self.warnings += [*receive.warnings, *send.warnings]
        if wanted.certificate:
            moved = move(self.now, pairs, wanted.certificate, pair, wanted.others_with_certificate)
            self._do(moved.calls)
            self.warnings += moved.warnings
            if wanted.remove_former:
                self._remove_former(wanted.certificate.thumbprint, [*pairs, pair])

    def _absent(self) -> list[CmdletCall]:
        """Return the calls that remove the receive connectors of peers that are not to be there."""
        found = [self.now.receive_connector(f"{self.now.name}\\{OWN_PREFIX}{name}") for name in self.wanted.absent]
        return [receiving.removal_of_own(self.now, one) for one in found if one is not None]

    def _remove_former(self, new: str, pairs: list[str]) -> None:
        """Remove the certificates that had these names, and served SMTP alone, after the proof. new: thumbprint of the one that stays."""
        after = self.now
        for one in self.organisation.certificates:
            if (
                one.thumbprint == new
                or not any(same_pair(one.pair, pair) for pair in pairs)
                or SMTP not in one.services
            ):
                continue
            done = removal(after, one.thumbprint)
            self.last += done.calls
            after = simulate(after, done.calls)
            if done.reason:
                self.warnings.append(done.reason)

    def put_back(self) -> None:
        """Compute the way back. Raises NotReadError."""
        if self._is_edge():
            return
        record = self.wanted.record
        for receive in self.now.receive_connectors:
            if (values := receiving.recorded(record, "receive", receive.identity)) is not None:
                self._do(receive_calls(receive, receiving.former_receive(self.now, receive, values, self.warnings)))
        for send in self.now.send_connectors:
            if (values := receiving.recorded(record, "send", send.identity)) is not None:
                self._do(send_calls(send, sending.former_send(self.now, send, values, self.warnings)))
        own = [one.text("Name")[len(OWN_PREFIX) :] for one in self.now.send_connectors if one.own]
        sends = Sending(self.now, replace(self.wanted, absent=tuple(own)), "")
        self._do(sends.absent())
        self.obstacles += sends.obstacles
        self._do(receiving.removal_of_own(self.now, one) for one in self.now.receive_connectors if one.own)
        after = self.now
        for thumbprint in record.get("certificates") or ():
            if THUMBPRINT.match(str(thumbprint)):
                done = removal(after, str(thumbprint))
                self.last += done.calls
                after = simulate(after, done.calls)
                if done.reason:
                    self.warnings.append(done.reason)

    def record(self) -> dict[str, Any]:
        """Return what to keep: the state of the connectors in question before the first change, and what was imported."""
        old = self.wanted.record if self.wanted.record.get("format") == FORMER_FORMAT else {}
        touched: dict[str, set[str]] = {}
        for call in self.calls:
            touched.setdefault(str(call.parameters.get("Identity")).lower(), set()).update(call.parameters)
        found: dict[str, Any] = {"format": FORMER_FORMAT}
        for kind, names, every, asked, direction in (
            ("receive", RECEIVE_TLS, self.organisation.listed_receive, self._asked_receive(), self.wanted.inbound),
            ("send", SEND_TLS, self.organisation.listed_send, self._asked_send(), self.wanted.outbound),
        ):
            kept = {str(key): dict(values) for key, values in (old.get(kind) or {}).items()}
            for one in every or ():
                identity = str(one.values.get("Identity") or one.values.get("Name") or "")
                ours = identity.rpartition("\\")[2].lower().startswith(OWN_PREFIX)
                if ours or direction == "disabled":  # what it was with TLS is nothing to go back to
                    continue
                here = set(names) if identity.lower() in asked else touched.get(identity.lower(), set())
                if before := {name: one.values[name] for name in names if name in here and name in one.values}:
                    kept[identity] = {**before, **kept.get(identity, {})}
            found[kind] = kept
        imports = any(call.cmdlet == "Import-ExchangeCertificate" for call in self.calls)
        new = [self.wanted.certificate.thumbprint] if imports and self.wanted.certificate else []
        found["certificates"] = list(dict.fromkeys([*map(str, old.get("certificates") or ()), *new]))
        return found

    def _asked_receive(self) -> set[str]:
        if self.wanted.inbound not in ("offered", "required"):
            return set()
        return _identities(lambda: receiving.in_question(self.organisation, self.wanted))

    def _asked_send(self) -> set[str]:
        if self.wanted.outbound not in ("opportunistic", "required"):
            return set()
        return _identities(lambda: sending.in_question(self.organisation, self.wanted))

    def planned(self, record: Mapping[str, Any]) -> Planned:
        """Return the result."""
        before = observed.state(self.organisation, self.wanted)
        if self.obstacles:
            return Planned(
                before=before,
                after=before,
                warnings=tuple(dict.fromkeys(self.warnings)),
                obstacles=tuple(dict.fromkeys(self.obstacles)),
                record=self.wanted.record,
            )
        first, insisting = self.calls[: self.reread], self.calls[self.reread :]
        calls = (*first, *sorted(insisting, key=lambda call: call.insists))
        after = simulate(self.now, self.last)
        diffs = list(_diffs(self.organisation, after))
        return Planned(
            calls=calls,
            last=tuple(self.last),
            reread=self.reread,
            before=before,
            after=observed.state(after, self.wanted),
            diff=tuple(diffs),
            changes=tuple({"path": one["before_header"], "lines": _unified(one)} for one in diffs),
            warnings=tuple(dict.fromkeys(self.warnings)),
            record=record,
        )


def _identities(look: Any) -> set[str]:
    try:
        return {one.identity.lower() for one in look()}
    except NotReadError:
        return set()


def _check(wanted: WantedExchange) -> None:
    """Raise EngineError for a wanted state that makes no sense."""
    for value, allowed, what in ((wanted.inbound, RECEIVING, "inbound"), (wanted.outbound, SENDING, "outbound")):
        if value is not None and value not in allowed:
            raise EngineError(f"{what} {value!r} is not one of {', '.join(allowed)}")
    for name, check in (("the next hop", wanted.check), *((f"peer {one.name}", one.check) for one in wanted.peers)):
        if check not in AUTH_LEVELS:
            raise EngineError(
                f"{name}: an Exchange server cannot do the check {check!r}; choose one of: {', '.join(AUTH_LEVELS)}"
            )
    if wanted.certificate and not THUMBPRINT.match(wanted.certificate.thumbprint):
        raise EngineError(f"{wanted.certificate.thumbprint!r} is no thumbprint of a certificate")
    for client in wanted.clients:
        if not client.name or not receiving.addresses(client):
            raise EngineError(f"the sender {client.name or 'without a name'} has no address; name one in the inventory")
    for peer in wanted.peers:
        if not (peer.name and peer.hosts and peer.domains):
            raise EngineError(f"peer {peer.name or 'without a name'} needs hosts and domains")


def _diffs(before: Organisation, after: Organisation) -> Iterable[dict[str, str]]:
    """Yield Ansible's diff of each object that changes, with the properties that change."""
    for place in ("listed_certificates", "listed_receive", "listed_send"):
        old, new = _by_name(getattr(before, place)), _by_name(getattr(after, place))
        for name in (*old, *(one for one in new if one not in old)):
            was, becomes = old.get(name), new.get(name)
            if was == becomes:
                continue
            names = sorted({*(was.values if was else ()), *(becomes.values if becomes else ())} - {"RawData"})
            changed = [one for one in names if _lines(was, [one]) != _lines(becomes, [one])]
            header = str(was or becomes)
            yield {
                "before_header": header,
                "after_header": header,
                "before": _lines(was, changed),
                "after": _lines(becomes, changed),
            }


def _by_name(listed: Optional[tuple[Shown, ...]]) -> dict[str, Shown]:
    return {str(one).lower(): one for one in listed or ()}


def _lines(one: Optional[Shown], names: list[str]) -> str:
    return "".join(f"{name}: {_plain(one.values[name])}\n" for name in names if name in one.values) if one else ""


def _plain(value: ShownValue) -> str:
    if value is None or value == ():
        return "$null"
    if isinstance(value, bool):
        return f"${str(value).lower()}"
    return shown(", ".join(value) if isinstance(value, tuple) else str(value))


def _unified(one: Mapping[str, str]) -> str:
    lines = difflib.unified_diff(one["before"].splitlines(), one["after"].splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))
