# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the routers of any Exim configuration lead mail, as C(exim -bP) gives them.

Source: the Exim specification, chapters on the manualroute and the accept router and on the smtp transport.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Transport, port_number
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError

_ITEM = re.compile(r"(?:\[([0-9A-Fa-f.:]+)\]|([A-Za-z0-9][A-Za-z0-9.-]*))(?:(?:::|:)(\w+))?\Z")
_HOST_OPTIONS = (
    "randomize", "no_randomize", "byname", "bydns", "bydns_a", "bydns_mx", "ipv4_only", "ipv4_prefer",
)  # fmt: skip


class Ways(NamedTuple):
    """The ways by which mail leaves. hops: transport -> its next hops. mx: the transports that look up the MX of each domain.

    unknown: router -> why its next hops cannot be told. used: the transports that a router leads to; None if that cannot be told.
    """

    hops: dict[str, list[tuple[str, int]]]
    mx: set[str]
    unknown: dict[str, str]
    used: Optional[set[str]]

    def is_local(self, transport: str) -> bool:
        """Whether a transport leads to this host itself only."""
        hops = self.hops.get(transport, [])
        own = [Transport("", transport, host, port, "").loopback for host, port in hops]
        return bool(own) and all(own) and transport not in self.mx


def ways(routers: Mapping[str, Mapping[str, str]], transports: Mapping[str, Mapping[str, str]]) -> Ways:
    """Return where the routers lead mail over SMTP. routers, transports: name -> options."""
    found = Ways({}, set(), {}, set())
    used: Optional[set[str]] = set()
    for name, options in routers.items():
        transport = options.get("transport", "")
        if "$" in transport:
            used = None
            found.unknown[name] = "its transport depends on the message"
            continue
        if used is not None and transport:
            used.add(transport)
        if transports.get(transport, {}).get("driver") != "smtp":
            continue
        settings = transports[transport]
        if options.get("driver") in ("dnslookup", "ipliteral"):
            found.mx.add(transport)
            continue
        hops = hops_of(options, settings)
        if hops is None:
            found.unknown[name] = "its hosts depend on the message, or cannot be read"
        else:
            found.hops.setdefault(transport, []).extend(one for one in hops if one not in found.hops[transport])
    return found._replace(used=used)


def hops_of(
    router: Mapping[str, str], transport: Mapping[str, str], data: Optional[Sequence[str]] = None
) -> Optional[list[tuple[str, int]]]:
    """Return the hosts and ports to which a router leads mail over a transport; None if they cannot be told. Both are options.

    data: what its route_data may become, if that is known, such as the values of a table.
    """
    port = port_number(transport.get("port", "") or "smtp")
    lists = [transport.get("hosts", "")]
    if router.get("driver") == "manualroute" and not (lists[0] and transport.get("hosts_override")):
        rules = _rules(router) if data is None else [_without_options(one) for one in data]
        lists = rules if rules is not None else [""]
    hops: list[tuple[str, int]] = []
    for text in lists:
        found = _hosts(text, port)
        if not found:
            return None
        hops += found
    return hops or None


def _rules(router: Mapping[str, str]) -> Optional[list[str]]:
    """Return the host list of each rule of a manualroute router; None if there is none that can be read."""
    if data := router.get("route_data", ""):
        return [_without_options(data)]
    text, separator = router.get("route_list", "").strip(), ";"
    if text.startswith("<") and len(text) > 1:
        separator, text = text[1], text[2:]
    rules = [one.strip() for one in text.split(separator) if one.strip()]
    lists = []
    for rule in rules:
        match = re.match(r"""(?:"[^"]*"|\S+)\s+(?:"([^"]*)"|(.*))""", rule)
        if not match:
            return None
        lists.append(match[1] if match[1] is not None else _without_options(match[2]))
    return lists or None


def _without_options(text: str) -> str:
    words = text.split()
    while words and words[-1] in _HOST_OPTIONS:
        words.pop()
    return " ".join(words)


def _hosts(text: str, port: Optional[int]) -> Optional[list[tuple[str, int]]]:
    """Return hosts and ports of a list; None if one cannot be told."""
    text = text.strip()
    if "$" in text or "/" in text:
        return None
    separator = ":"
    if text.startswith("<") and len(text) > 1:
        separator, text = text[1], text[2:]
    marked = text.replace(separator * 2, "\0")
    found: list[tuple[str, int]] = []
    for item in (one.strip().replace("\0", separator) for one in marked.split(separator)):
        match = _ITEM.match(item)
        if not match or (match[2] or "").isdigit():
            return None
        number = port_number(match[3]) if match[3] else port
        try:
            Target(match[1] or match[2], number or 0).check()
        except TargetError:
            return None
        found.append((match[1] or match[2], number or 0))
    return found


def only_hops(found: Ways) -> Sequence[tuple[str, int]]:
    """Return the hosts that receive all outgoing mail; none if a router looks up the MX. Raises ValueError if mail leaves elsewhere too."""
    outside = {name: hops for name, hops in found.hops.items() if not found.is_local(name)}
    for router, why in found.unknown.items():
        raise ValueError(f"the router {router} may lead mail to other hosts: {why}")
    if found.mx and outside:
        raise ValueError(
            f"mail leaves by the MX of each domain ({', '.join(sorted(found.mx))}) and by {', '.join(sorted(outside))}"
        )
    return list(dict.fromkeys(hop for hops in outside.values() for hop in hops))
