# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a change of a mail server reaches: the listeners and transports before and after it, compared. Values only.

A setting of the whole daemon is inherited. So the evidence for a change has to be as wide as the change: each listener
is proved on its own port in its own TLS mode, and each next hop that TLS would be required of completes a handshake first.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import UNKNOWN, Listener, Transport
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target, TargetError

INSISTING = "required"
WANTS_CLIENT = "client_certificate_required"
"""The code of a handshake test that a server ended because the client showed no certificate: it uses TLS with clients of its own."""
_EVERYWHERE = ("", "all", "*")
_LOOPBACK = ("loopback-only", "localhost")


@dataclass(frozen=True)
class WayOut:
    """A way by which mail leaves: a transport, and what its level means.

    kind: a value of Desired.outbound, or C(unknown). undercut: a sentence that names the setting or table which gives its next hop
    another level than this; empty if none does. by_domain: whether the next hop is a domain
    whose MX the daemon looks up. advice: how an administrator gives it a level of its own.
    """

    transport: Transport
    kind: str
    undercut: str = ""
    by_domain: bool = False
    advice: str = ""

    @property
    def target(self) -> Optional[Target]:
        """What to test; None if it is not known, or no address and port. Implicit TLS is tested as that."""
        one = self.transport
        if one.next_hop is None or one.port is None or self.by_domain:
            return None
        target = Target(one.next_hop, one.port, protocol="smtps" if one.implicit_tls else "smtp")
        try:
            target.check()
        except TargetError:
            return None
        return target

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes it the same way before and after a change."""
        one = self.transport
        return one.setting, one.transport, one.next_hop, one.port

    def __str__(self) -> str:
        one = self.transport
        where = f"to {self.target or one.next_hop}" if one.next_hop else "to the MX of each recipient domain"
        by = f" by the transport {one.transport}" if one.transport else ""
        return f"{one.setting} ({where}{by})"


@dataclass(frozen=True)
class Sides:
    """The two sides of a mail server, as it is or as a change leaves it.

    closed: service of a listener -> why no test can be made with it from its own host; empty if somebody else proves it. names: some of
    the names for which it has certificates of their own (SNI). unread: sentences on ways that cannot be listed, with the name of the
    setting or table: TLS is not required while there are any. notes: sentences on what else cannot be told.
    """

    listeners: tuple[Listener, ...] = ()
    ways: tuple[WayOut, ...] = ()
    closed: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def demanding(before: Sides, after: Sides) -> list[WayOut]:
    """Return the ways of which a change requires TLS, and did not before."""
    already = {one.key for one in before.ways if one.kind == INSISTING and not one.undercut}
    return [one for one in after.ways if one.kind == INSISTING and one.key not in already]


def weaker(after: Sides) -> list[str]:
    """Return a sentence for each way that keeps a level of its own although TLS is required of the others. Loopback needs none."""
    found = [one for one in after.ways if one.kind != INSISTING and not one.transport.loopback]
    return [f"{one} keeps its own TLS level, {one.transport.level or 'none'}" for one in found]


def undercut(after: Sides) -> list[str]:
    """Return a sentence for each way on which something else counts than the level that is required."""
    return [*after.unread, *(f"{one}: {one.undercut}" for one in after.ways if one.undercut)]


def shut(before: Sides, after: Sides, own_port: Target) -> list[str]:
    """Return why a change would keep out what hands mail in on this host alone, such as a content filter: it may know no TLS.

    A sentence for each listener on the loopback, beside those on the own port, that would begin to require TLS.
    """
    already = {one.service for one in before.listeners if one.tls == INSISTING}
    return [
        f"{one.service} takes mail from this host only, and would begin to require TLS, which a content filter may not know; give it "
        "another port's settings, or choose inbound 'offered'"
        for one in after.listeners
        if one.tls == INSISTING
        and one.service not in already
        and one.port != own_port.port
        and all(map(is_loopback, one.host.split() or [""]))
    ]


def fewer(before: Sides, after: Sides) -> list[str]:
    """Return a sentence for each listener that serves fewer certificates after a change, so that one algorithm may be gone."""
    known = {one.service: one for one in before.listeners if one.tls != "none"}
    return [
        f"{one.service} has {len(known[one.service].certificates)} certificates now ({', '.join(known[one.service].certificates)}) and "
        f"{len(one.certificates)} after the change; a client that knows the algorithm of another one only gets no TLS"
        for one in after.listeners
        if one.service in known and one.certificates and len(known[one.service].certificates) > len(one.certificates)
    ]


def to_json(before: Sides, after: Sides) -> dict[str, list[dict[str, Any]]]:
    """Return the listeners and transports that a change reaches, as plain data: those that are other ones after it."""
    known, ways = {one.service: one for one in before.listeners}, {one.key: one.kind for one in before.ways}
    listeners = [
        {
            "service": one.service,
            "host": one.host,
            "port": one.port,
            "before": known[one.service].tls if one.service in known else None,
            "after": one.tls,
            "certificates": list(one.certificates),
        }
        for one in after.listeners
        if one.service not in known
        or (known[one.service].tls, known[one.service].certificates) != (one.tls, one.certificates)
    ]
    transports = [
        {
            "setting": one.transport.setting,
            "transport": one.transport.transport,
            "next_hop": one.transport.next_hop,
            "port": one.transport.port,
            "before": ways.get(one.key),
            "after": one.kind,
        }
        for one in after.ways
        if ways.get(one.key) != one.kind
    ]
    return {"listeners": listeners, "transports": transports}


class Reached(NamedTuple):
    """A listener that a change may reach, and where it is tested. before: None if it is not there before the change."""

    before: Optional[Listener]
    after: Listener
    target: Target

    @property
    def name(self) -> str:
        """How a message names it."""
        return f"{self.after.service} ({self.target})"

    @property
    def is_changed(self) -> bool:
        """Whether its own configuration is another one after the change."""
        if self.before is None:
            return True
        return (self.before.tls, self.before.certificates) != (self.after.tls, self.after.certificates)


def places(before: Sides, after: Sides, own_port: Target) -> list[Reached]:
    """Return every listener but the one on the own port that can be tested from its own host. Each target is there once."""
    known = {one.service: one for one in before.listeners}
    found: dict[tuple[str, int], Reached] = {
        (own_port.host, own_port.port): Reached(None, Listener("", "", 0, ""), own_port)
    }
    for one in after.listeners:
        target = target_of(one, own_port.host)
        if target and one.service not in after.closed:
            found.setdefault((target.host, target.port), Reached(known.get(one.service), one, target))
    return list(found.values())[1:]


def target_of(listener: Listener, usual: str) -> Optional[Target]:
    """Return where a listener is tested; None if its port or address is not known. usual: the address that most listeners have."""
    if listener.port is None:
        return None
    words = [one.strip("[]") for one in re.split(r"[\s,]+", listener.host) if one] or [""]
    if usual in words or any(one in _EVERYWHERE for one in words):
        host = usual
    else:
        host = next((one for one in words if is_loopback(one)), words[0])
        host = "127.0.0.1" if host in _LOOPBACK else host
    target = Target(host, listener.port, protocol="smtps" if listener.tls == "implicit" else "smtp")
    try:
        target.check()
    except TargetError:
        return None
    return target


def is_loopback(host: str) -> bool:
    """Whether the address of a listener is one of the loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK


def fault(
    place: Reached,
    old: Optional[Handshake],
    now: Handshake,
    installed: Callable[[Sequence[str]], Collection[str]],
    certificates: Collection[str],
) -> str:
    """Return why a listener does not show what it has to after a change; empty if it does.

    old: its test before the change. installed: returns the fingerprints of the certificates in files, none if they cannot be read.
    certificates: the files that the change installs or names.
    """
    after = place.after
    if old is not None and old.stage < Stage.EHLO:
        return ""  # it did not answer before, which was said
    ours = any(one in certificates for one in after.certificates)
    if not place.is_changed and not ours:
        return "" if old is None else unlike(old, now, lambda: installed(after.certificates))
    if after.tls == UNKNOWN:
        return "" if now.stage >= Stage.EHLO or (old is not None and same_face(old, now)) else now.message
    if after.tls == "none":
        if now.stage < Stage.EHLO:
            return now.message
        return "STARTTLS is offered, and it is to have none" if now.advertised else ""
    if not after.certificates:
        return ""  # as before the first change: Postfix closes the connection then, and Exim makes a certificate of its own
    wanted = installed(after.certificates)
    goes_on = after.tls == "implicit" or (after.tls == "offered" and now.stage >= Stage.EHLO)
    if goes_on and not wanted and not ours and not now.completed:
        return ""  # its own files cannot be read, as before the first change: it goes on without TLS, or cannot be used
    return _served(after, now, wanted)


def not_as_configured(listener: Listener, now: Handshake, installed: Callable[[Sequence[str]], Collection[str]]) -> str:
    """Return why a listener does not do what its configuration says of TLS; empty if it does, or if that says nothing.

    One that wants a certificate of its client serves clients of its own. installed: see fault().
    """
    if listener.tls in ("none", UNKNOWN):
        return ""
    return _served(listener, now, installed(listener.certificates))


def unlike(old: Handshake, now: Handshake, renewed: Callable[[], Collection[str]]) -> str:
    """Return why a listener does not show what it showed before; empty if it does.

    renewed: returns the fingerprints of the certificates in its files. If they were renewed, any reload takes that up.
    """
    if same_face(old, now) or (same_face(replace(old, chain=now.chain), now) and now.fingerprint in renewed()):
        return ""
    return _difference(old, now)


def _served(after: Listener, now: Handshake, wanted: Collection[str]) -> str:
    """Return why a listener that is to use TLS does not; empty if it does."""
    if now.code == WANTS_CLIENT:
        return ""
    if not now.completed:
        return now.message or now.stage.label
    if wanted and now.fingerprint not in wanted:
        return (
            f"the certificate served ({now.fingerprint[:16]}...) is none of {', '.join(after.certificates)}; another setting names "
            "another certificate"
        )
    if after.tls != "implicit" and bool(now.requires_tls) != (after.tls == INSISTING):
        return f"mail without TLS is {'refused' if now.requires_tls else 'not refused'}"
    return ""


def _difference(old: Handshake, now: Handshake) -> str:
    if old.fingerprint != now.fingerprint and now.completed:
        return f"it serves another certificate ({now.fingerprint[:16]}...) than before ({old.fingerprint[:16]}...)"
    if old.stage != now.stage:
        return now.message or f"the test ended at {now.stage.label}, and before the change at {old.stage.label}"
    return f"mail without TLS is {'refused' if now.requires_tls else 'not refused'}, which was different before"


def same_face(old: Handshake, new: Handshake) -> bool:
    """Whether two tests of a port show the same state to a client."""
    return (old.stage, old.code, old.fingerprint, bool(old.requires_tls)) == (
        new.stage,
        new.code,
        new.fingerprint,
        bool(new.requires_tls),
    )
