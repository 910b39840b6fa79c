# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way through an after-queue content filter that keeps how mail arrived.

A FILTER answer of the policy service takes the place of content_filter, and a filter hands mail back in plaintext. So the answer
names another port of the same filter for each kind of arrival. What comes back from there comes in on a port of ours that has the
settings of the administrator's own hand-back port, and leads on to the instance for that arrival. Sources: FILTER_README,
postconf(5), access(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import port_number
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import amavis
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf, Service
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

LOOPBACK = "127.0.0.1"
_DESTINATION = re.compile(
    r"(?P<transport>[A-Za-z0-9_.-]+):(?:\[(?:127\.0\.0\.1|localhost)\]|127\.0\.0\.1|localhost):(?P<port>[0-9]{1,5})"
)
_CLIENTS = ("smtp", "lmtp")
_MARK = "mailfleet"
_BYPASS = "mail that arrived over TLS would bypass it, or count as mail in plaintext"
_OWN_RESTRICTIONS = "smtpd_recipient_restrictions"


class FilterError(EngineError):
    """A filter that a mode that depends on arrival cannot be combined with. flaw: the same without the next step."""

    def __init__(self, where: str, why: str, step: str = "") -> None:
        """where: what sets the filter, in words. step: what to do, besides another mode."""
        self.flaw = where
        super().__init__(
            f"{where}, which cannot be combined with a mode that depends on how mail arrived: {why}; {step}choose "
            "plaintext, opportunistic or required on this gateway"
        )


@dataclass(frozen=True)
class FilterWay:
    """The way of one kind of arrival: out to a port of the filter, and back to a port of ours.

    destination: the port of the filter as a FILTER answer names it.
    """

    destination: str
    port: Target
    back: Target


@dataclass(frozen=True)
class ContentFilter:
    """The content filter of a gateway. ways: arrival -> way. file: what configures the filter, None if the administrator does."""

    ways: Mapping[int, FilterWay]
    fields: str
    options: tuple[str, ...]
    usual: Target
    file: Optional[bytes] = field(default=None, repr=False)

    def entries(self, leads_to: Mapping[int, str]) -> dict[str, str]:
        """Return the entries of master.cf for the ports of ours. leads_to: arrival -> destination of what comes back."""
        return {
            f"{way.back}/inet": " ".join(
                [f"{way.back} inet {self.fields}", *self.options, f"-o content_filter={leads_to[arrival]}"]
            )
            for arrival, way in self.ways.items()
        }


def find(
    postconf: Postconf,
    receives: Callable[[str], bool],
    places: amavis.AmavisPlaces,
    named: str,
    arrivals: Collection[int],
) -> Optional[ContentFilter]:
    """Return the content filter with a way for each kind of arrival; None if there is no filter.

    receives: whether a service takes the mail of the internet. places: where amavis is, and our ports. named: the second port of
    another filter, as its user names it. Raises FilterError for one that cannot be combined with arrivals, and EngineError.
    """
    _refuse_overrides(postconf, receives)
    value = postconf.value_expanded("content_filter")
    if not value:
        return None
    where = f"main.cf sets content_filter={postconf.values('content_filter').get('content_filter', value)}"
    commands = {one.name: one.command for one in postconf.services()}
    usual = _destination(value, commands)
    if named:
        ways, file = _named(where, value, named, commands, places, arrivals), None
    elif usual is None or not amavis.listens(places.directory, usual[1].port):
        raise FilterError(where, _BYPASS, _next_step(places))
    else:
        if reason := amavis.obstacle(places.directory):
            raise FilterError(where, reason)
        transport = value.partition(":")[0]
        ways = {
            arrival: FilterWay(f"{transport}:[{LOOPBACK}]:{out.port}", out, back)
            for arrival, (back, out) in places.ports.items()
            if arrival in arrivals
        }
        file = amavis.configuration(usual[1].port, {way.port.port: way.back.port for way in ways.values()})
    back = _hand_back(where, postconf, receives)
    arguments = back.text.split(None, 8)
    usual_port = usual[1] if usual else Target(LOOPBACK, 0)
    return ContentFilter(
        ways,
        " ".join(back.fields[2:8]),
        tuple(_without_filter(arguments[8] if arguments[8:] else "")),
        usual_port,
        file,
    )


def _refuse_overrides(postconf: Postconf, receives: Callable[[str], bool]) -> None:
    main = postconf.values("content_filter").get("content_filter", "")
    for name in ("smtpd_proxy_filter", "content_filter"):
        filters = {"main.cf": postconf.values(name).get(name, "")} if name == "smtpd_proxy_filter" else {}
        filters.update({where: one for where, one in postconf.overrides(name).items() if receives(where)})
        for where, value in filters.items():
            if name == "smtpd_proxy_filter" and value:
                step = "make it a content_filter of main.cf or a milter, or "
            elif name == "content_filter" and value != main:
                step = f"set it in main.cf alone: postconf -PX '{where}/content_filter', or "
            else:
                continue
            raise FilterError(f"{where} sets {name}={value}", _BYPASS, step)


def _destination(value: str, commands: Mapping[str, str]) -> Optional[tuple[str, Target]]:
    """Return transport and port of a filter on this host that takes mail over SMTP or LMTP; None for another one."""
    found = _DESTINATION.fullmatch(value)
    if not found or commands.get(f"{found['transport']}/unix") not in _CLIENTS or not 0 < int(found["port"]) < 65536:
        return None
    return found["transport"], Target(LOOPBACK, int(found["port"]))


def _named(
    where: str,
    value: str,
    named: str,
    commands: Mapping[str, str],
    places: amavis.AmavisPlaces,
    arrivals: Collection[int],
) -> dict[int, FilterWay]:
    second = _destination(named, commands)
    if second is None:
        raise EngineError(
            f"tls_filter: {named[:200]!r} names no port of a filter on this host; write TRANSPORT:[127.0.0.1]:PORT with an smtp or lmtp "
            "transport of master.cf (starttls_tls_filter in an inventory)"
        )
    first = _destination(value, commands)
    if first and first[1] == second[1]:
        raise EngineError(
            f"tls_filter: {named} is the port of content_filter itself, so its mail would come back as mail that arrived in plaintext; "
            f"name another port of the filter, which hands mail back to {places.ports[1][0]}"
        )
    if 2 in arrivals:
        raise FilterError(
            where,
            "tls_filter names one port of the filter, and an inbound enforced domain needs one more",
            "take the inbound enforced domains out, or ",
        )
    return {1: FilterWay(f"{second[0]}:[{LOOPBACK}]:{second[1].port}", second[1], places.ports[1][0])}


def _next_step(places: amavis.AmavisPlaces) -> str:
    return (
        f"give the filter a second port on 127.0.0.1 that hands mail back to {places.ports[1][0]}, and name it in tls_filter "
        "(starttls_tls_filter in an inventory), or "
    )


def _hand_back(where: str, postconf: Postconf, receives: Callable[[str], bool]) -> Service:
    """Return the administrator's listener that takes the filter's mail back. Raises FilterError."""
    found = [*_without_content_filter(postconf, receives)]
    local = [one for one in found if one.fields[0].rpartition(":")[0] in (LOOPBACK, "localhost", "[::1]")]
    if len(local or found) != 1:
        names = ", ".join(one.name for one in local or found) or "none"
        raise FilterError(
            where,
            "master.cf has to have one listener on the loopback with an empty content_filter, which takes mail back from the filter "
            f"(found: {names})",
            "write it as Postfix's FILTER_README does, or ",
        )
    back = (local or found)[0]
    if not back.settings.get(_OWN_RESTRICTIONS) or _MARK in back.settings[_OWN_RESTRICTIONS]:
        raise FilterError(
            where,
            f"the listener {back.name}, which takes mail back from the filter, has the restrictions of main.cf",
            f"give it its own: postconf -P '{back.name}/{_OWN_RESTRICTIONS}=permit_mynetworks,reject', or ",
        )
    return back


def _without_content_filter(postconf: Postconf, receives: Callable[[str], bool]) -> Iterator[Service]:
    for one in postconf.services():
        of_filter = one.settings.get("content_filter") == "" and _MARK not in one.text
        listens = one.fields[1] == "inet" and one.command == "smtpd" and port_number(one.fields[0].rpartition(":")[2])
        if of_filter and listens and not receives(one.name):
            yield one


def _without_filter(arguments: str) -> Iterator[str]:
    """Yield the arguments of a service without its content_filter."""
    words = re.findall(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|\S+", arguments)
    while words:
        word = words.pop(0)
        if word == "-o" and words:
            option = words.pop(0)
            if re.match(r"\{?\s*content_filter\s*=", option) is None:
                yield f"-o {option}"
        else:
            yield word
