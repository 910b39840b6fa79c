# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which listeners and ways of outgoing mail a change of Exim reaches.

All ports of the daemon share the main options. Of the transports, the macros reach Debian's two for SMTP; every other transport
keeps its own options. Sources: the Exim specification (the daemon, TLS, the manualroute router), Debian's packaged configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.config import Printed
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.observe import listeners, transports
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_routes import hops_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Transport
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import parse_settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import INSISTING, Sides, WayOut

_ROUTER = re.compile(r"^(\S+) router:$", re.MULTILINE)
_EXISTS = re.compile(r"exists\{(/[^{}]+)\}")
_LOOKUP = re.compile(r"\$\{lookup\{\$domain\}(?:partial-)?w?i?lsearch\{(/[^{}]+)\}\}\Z")


class Overlaid(Printed):
    """What Exim would print with other macros: the present configuration, with the options that Debian makes of them."""

    def __init__(
        self,
        printed: Printed,
        macros: Mapping[str, str],
        reached: Sequence[str],
        present: Optional[Mapping[str, str]] = None,
    ) -> None:
        """Prepare only. reached: the transports that take macros. present: the macros as they are now."""
        self._printed, self._macros, self._reached = printed, macros, reached
        self._present = present or {}

    @property
    def options(self) -> Mapping[str, str]:
        """Options of the main part. Without a certificate, Exim makes one of its own, which nobody knows before."""
        if "MAIN_TLS_ENABLE" in self._macros:
            hosts, certificate = self._macros.get("MAIN_TLS_ADVERTISE_HOSTS", "*"), _certificate(self._macros)
        elif "MAIN_TLS_ENABLE" in self._present:  # Debian sets none of the options any more
            hosts, certificate = "*", ""
        else:
            return self._printed.options
        return {**self._printed.options, "tls_advertise_hosts": hosts, "tls_certificate": certificate}

    @property
    def transports(self) -> dict[str, dict[str, str]]:
        """Transport -> its options."""
        found = dict(self._printed.transports)
        for name in self._reached:
            if name.lower() in found:
                own = {
                    option: self._macros.get(f"{name}_{option.upper()}", "")
                    for option in ("hosts_avoid_tls", "hosts_require_tls")
                }
                found[name.lower()] = {**found[name.lower()], **own}
        return found


def _certificate(macros: Mapping[str, str]) -> str:
    """Return what Debian's configuration makes of the macros: MAIN_TLS_CERTKEY counts before the other one, even if it is empty."""
    found = macros.get("MAIN_TLS_CERTKEY", macros.get("MAIN_TLS_CERTIFICATE", "CONFDIR/exim.crt"))
    return found.replace("CONFDIR", DEBIAN.config_dir)


def sides(
    run: Runner,
    printed: Printed,
    command_line: str,
    requires: bool,
    hops: Mapping[str, Sequence[tuple[str, int]]],
    reached: Sequence[str],
) -> Sides:
    """Return both sides. requires: whether mail in plaintext is refused. hops: transport -> the hosts and ports of a fixed list.

    reached: the transports that take their level from macros. Raises EngineError.
    """
    ways, unread = [], []
    for one in transports(printed, hops):
        demanded = one.level == INSISTING and one.transport in reached
        if demanded and one.next_hop is None:
            settings, has_smarthost = printed.transports.get(one.transport, {}), any(hops.values())
            found, left = _routes(run, one, settings, has_smarthost)
            ways += found
            unread += left
        else:
            ways.append(WayOut(one, one.level))
    names = [one for one in ways if not one.transport.transport.startswith("mailfleet")]
    return Sides(tuple(listeners(printed, command_line, requires)), tuple(names), unread=tuple(unread))


def _routes(
    run: Runner, transport: Transport, settings: Mapping[str, str], has_smarthost: bool
) -> tuple[list[WayOut], list[str]]:
    """Return the ways by which routers hand mail to a transport, and sentences on those that cannot be listed.

    settings: the options of the transport.
    """
    _status, out, _err = run(["exim4", "-bP", "routers"])
    parts = _ROUTER.split(out)
    ways, unread, seen = [], [], False
    for name, text in zip(parts[1::2], parts[2::2]):
        options = parse_settings(text)
        if options.get("transport") != transport.transport or _is_off(options):
            continue
        seen = True
        hosts = _hosts(options, settings)
        if options.get("driver") == "dnslookup":
            ways.append(WayOut(replace(transport, setting=f"router {name}"), INSISTING))
        elif hosts is None:
            written = options.get("route_data") or options.get("route_list") or options.get("driver", "")
            unread.append(f"mail also leaves by the router {name} ({written}), and its routes cannot all be tested")
        else:
            one = replace(transport, setting=f"router {name}")
            ways += [WayOut(replace(one, next_hop=host, port=port), INSISTING) for host, port in hosts]
    if not seen and not has_smarthost:
        ways.append(WayOut(transport, INSISTING))  # whoever uses it, it goes to the MX of each domain
    return ways, unread


def _is_off(options: Mapping[str, str]) -> bool:
    """Whether a router waits for a file that is not there."""
    found = _EXISTS.search(options.get("domains", ""))
    return found is not None and not Path(found[1]).exists()


def _hosts(options: Mapping[str, str], transport: Mapping[str, str]) -> Optional[list[tuple[str, int]]]:
    """Return the hosts of a router with a list of its own; None if they cannot be told. transport: its options."""
    lookup = _LOOKUP.match(options.get("route_data", ""))
    found = hops_of(options, transport, _values(lookup[1]) if lookup else None)
    return None if found is None else list(dict.fromkeys(found))


def _values(path: str) -> Optional[list[str]]:
    """Return the values of a file that Exim searches by line."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None
    lines = re.sub(r"\n[ \t]+", " ", text).splitlines()
    pairs = (
        re.split(r"[:\s]+", line.strip(), maxsplit=1) for line in lines if line.strip() and not line.startswith("#")
    )
    return [pair[1] for pair in pairs if len(pair) > 1]
