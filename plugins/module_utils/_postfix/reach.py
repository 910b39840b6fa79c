# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which listeners and ways of outgoing mail a Postfix instance has, with the tables that add ways or undercut a TLS level.

A table is asked and listed by postmap(1). One that cannot be listed is named. Sources: postconf(5), transport(5), access(5),
TLS_README, smtp/smtp_tls_policy.c of Postfix (by which key a policy is looked up).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import UNKNOWN, Transport
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.delivered import Routes, table_names
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.former import CLIENT
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.observe import (
    BY_SENDER,
    CONTENT_CHECKS,
    PROXIED,
    RESTRICTIONS,
    Configuration,
    client_of,
    listeners,
    named_ways,
    ways_by,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import INSISTING, Sides, WayOut
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import is_address

OURS = "mailfleet"
"""How the names of the collection's own transports and tables begin. They have levels and proofs of their own."""
MOST_ROUTES = 500
"""Next hops of one table."""

_BY_PATTERN = ("regexp", "pcre", "cidr")
_RULE = re.compile(r"!?(?:([^\w\s]).*?(?<!\\)\1[A-Za-z]*|\S+)\s+(\S.*)\Z")
_FILTER = re.compile(r"\s*FILTER\s+(\S+)", re.IGNORECASE)
_ACCESS = re.compile(r"check_\w+_access\s+(\S+?)(?:[\s,]|\Z)")
_WEAK_SITES = ("NONE", "MAY")
_SIMPLE = re.compile(r"[A-Za-z0-9_.:\[\]-]+\Z")
"""What may stand in a command that somebody copies."""
_SAMPLE = 3
_LONGEST = 200
_SHOWN = 5
"""Entries of a table that one sentence shows."""


@dataclass(frozen=True)
class _Found:
    """One way: its next hop as it is written, and as a value."""

    written: str
    transport: Transport


class Reach:
    """The ways of one configuration. unread: sentences on ways that cannot be listed."""

    def __init__(self, run: Runner, postconf: Postconf, configuration: Configuration, kinds: Mapping[str, str]) -> None:
        """Prepare only. kinds: TLS level -> value of Desired.outbound."""
        self._run, self._postconf, self.configuration, self._kinds = run, postconf, configuration, kinds
        self.unread: list[str] = []
        self.notes: list[str] = []

    def sides(self) -> Sides:
        """Return everything. The tables are read only if they matter: if TLS is required of the mail that smtp sends."""
        configuration = self.configuration
        found = listeners(configuration)
        closed = {}
        for one in found:
            setting = PROXIED.get(configuration.commands[one.service], "")
            if value := configuration.value(one.service, setting):
                closed[one.service] = f"it wants a proxy's header before each session ({setting} = {value})"
            if OURS in configuration.value(one.service, "smtpd_tls_CAfile"):
                closed[one.service] = ""  # that of a gateway's other instances, which the gateway's own proof tests
        ways = tuple(self.ways())
        names = self._names() if any(one.certificates for one in found) else ()
        return Sides(tuple(found), ways, closed, names, tuple(self.unread), tuple(self.notes))

    def ways(self) -> list[WayOut]:
        """Return each way with what its level means, and what undercuts it."""
        found = [_Found(*one) for one in named_ways(self.configuration)]
        requires = self._kind(CLIENT, "smtp") == INSISTING
        if requires:
            found += [*self._relay(), *self._from_tables(), *self._filters()]
        found = [one for one in found if not one.transport.transport.startswith(OURS)]
        undercuts = self._undercuts([one for one in found if self._kind_of(one.transport) == INSISTING])
        return [
            WayOut(
                one.transport,
                self._kind_of(one.transport),
                undercuts.get((one.transport.transport, one.written), ""),
                self._is_domain(one),
                self._advice(one) if one.transport.loopback else "",
            )
            for one in {(one.written, one.transport.setting, one.transport.transport): one for one in found}.values()
        ]

    def _kind(self, service: str, client: str) -> str:
        return self._kinds.get(self.configuration.level(service, client), UNKNOWN)

    def _kind_of(self, transport: Transport) -> str:
        return self._kinds.get(transport.level, UNKNOWN)

    def _is_domain(self, one: _Found) -> bool:
        """Whether Postfix looks up the MX of a next hop: a name without brackets, for the client smtp."""
        named = bool(one.written) and not one.written.startswith(("[", "unix:", "inet:["))
        return (
            named
            and client_of(self.configuration, one.transport.transport) == "smtp"
            and not is_address(one.transport.next_hop or "")
        )

    def _advice(self, one: _Found) -> str:
        """Return the commands that give a hop on this host a transport of its own, with the level that it has without TLS."""
        transport = one.transport
        name = f"{transport.transport}-loopback"
        says = "it is on this host, so give it a transport of its own"
        if not _SIMPLE.match(f"{name}{one.written}"):
            return says
        setting, _of, service = transport.setting.partition(" of ")
        if "=" in setting:
            last = f"let {setting} say {name}:{one.written}"
        elif service:
            last = f"postconf -P '{service}/{setting}={name}:{one.written}'"
        else:
            last = f"postconf -e '{setting}={name}:{one.written}'"
        client = client_of(self.configuration, transport.transport)
        return (
            f"{says}: postconf -M '{name}/unix={name} unix - - n - - {client} -o smtp_tls_security_level=none'; {last}"
        )

    def _relay(self) -> Iterator[_Found]:
        """Yield the usual way of relay_domains, which Postfix has without a line in main.cf."""
        main = self.configuration.main
        if "relay_transport" in self.configuration.explicit or not main.get("relay_domains"):
            return
        for written, transport in ways_by(self.configuration, "relay_transport", "relay", main.get("relayhost", "")):
            yield _Found(written, transport)

    def _from_tables(self) -> Iterator[_Found]:
        """Yield the ways of transport_maps and of the tables by sender."""
        default = self.configuration.main.get("default_transport", "smtp").partition(":")[0] or "smtp"
        for setting in ("transport_maps", *BY_SENDER):
            for table in table_names(self.configuration.value("rewrite/unix", setting)):
                if OURS in table:
                    continue
                entries = self.entries(table)
                if entries is None:
                    self.unread.append(
                        f"mail also leaves by {setting} = {table}, and those routes cannot all be tested: the table cannot be listed"
                    )
                    continue
                hops = dict.fromkeys(value.strip() for _key, value in entries)
                if len(hops) > MOST_ROUTES:
                    self.unread.append(
                        f"mail also leaves by {setting} = {table}, and those routes cannot all be tested: it has {len(hops)} of them"
                    )
                    continue
                for hop in hops:
                    if hop.upper() != "DUNNO":
                        yield from self._way_of(f"{setting} = {table}", hop, default, setting == BY_SENDER[0])

    def _way_of(self, setting: str, value: str, default: str, is_hop: bool) -> Iterator[_Found]:
        name, _, hop = ("", "", value) if is_hop else value.partition(":")
        for written, transport in ways_by(self.configuration, setting, name or default, hop):
            yield _Found(written, transport)

    def _filters(self) -> Iterator[_Found]:
        """Yield the ways that FILTER actions name, in the tables of checks and restrictions."""
        main, places = self.configuration.main, []
        for name in CONTENT_CHECKS:
            places += [(name, table) for table in table_names(main.get(name, ""))]
        for name in RESTRICTIONS:
            values = [main.get(name, ""), *(own.get(name, "") for own in self.configuration.overrides.values())]
            places += [(name, table) for value in values for table in _ACCESS.findall(value)]
        for name, table in dict.fromkeys(places):
            if OURS in table:
                continue
            entries = self.entries(table)
            if entries is None:
                self.notes.append(
                    f"{name}: {table} cannot be listed, so it is not known whether it sends mail elsewhere by FILTER"
                )
            for value in dict.fromkeys(one for _key, one in entries or ()):
                if match := _FILTER.match(value):
                    transport, _, hop = match[1].partition(":")
                    yield from self._way_of(f"FILTER in {name} = {table}", f"{transport}:{hop}", "smtp", False)

    def _names(self) -> tuple[str, ...]:
        """Return some of the names that tls_server_sni_maps has: the first, the last, and one between. Their values may hold keys."""
        found: list[str] = []
        for table in table_names(self.configuration.main.get("tls_server_sni_maps", "")):
            entries = self.entries(table)
            if entries is None:
                self.notes.append(
                    f"tls_server_sni_maps: {table} cannot be listed, so its certificates by name are not proved"
                )
            found += sorted(key for key, _value in entries or () if not key.startswith("."))
        picked = found if len(found) <= _SAMPLE else [found[0], found[len(found) // 2], found[-1]]
        return tuple(dict.fromkeys(picked))

    def entries(self, table: str) -> Optional[list[tuple[str, str]]]:
        """Return the keys and values of a table; None if it cannot be listed."""
        table = table.removeprefix("proxy:")
        kind, _, path = table.partition(":")
        if kind == "static":
            return [("*", path.strip("{} "))]
        if kind in _BY_PATTERN:
            return _rules(path)
        status, out, err = self._run(["postmap", "-s", table])
        if status != 0 or err.strip():
            return None
        pairs = (line.split(None, 1) for line in out.splitlines() if line.strip())
        return [(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs]

    def _undercuts(self, found: Sequence[_Found]) -> dict[tuple[str, str], str]:
        """Return transport and written hop -> the sentence on what gives that hop another level than the transport's."""
        said: dict[tuple[str, str], str] = {}
        routes = Routes(self._run, self._postconf)
        for name in dict.fromkeys(one.transport.transport for one in found):
            service, client = f"{name}/unix", client_of(self.configuration, name)
            hops = [one.written for one in found if one.transport.transport == name]
            policies = self.configuration.value(service, f"{client}_tls_policy_maps")
            sites = "" if policies else self.configuration.value(service, f"{client}_tls_per_site")
            for setting, tables in ((f"{client}_tls_policy_maps", policies), (f"{client}_tls_per_site", sites)):
                for table in table_names(tables):
                    if OURS not in table:
                        self._ask(routes, setting, table, [hop for hop in hops if (name, hop) not in said], name, said)
            words = re.split(r"[,\s]+", self.configuration.value(service, f"{client}_discard_ehlo_keywords").lower())
            if "starttls" in words:
                hidden = f"{client}_discard_ehlo_keywords hides STARTTLS, so mail would wait; take starttls out of it"
                said.update({(name, hop): hidden for hop in hops})
        return said

    def _ask(
        self, routes: Routes, setting: str, table: str, hops: Sequence[str], name: str, said: dict[tuple[str, str], str]
    ) -> None:
        keys = {hop: list(_keys(hop, setting)) for hop in hops}
        wanted = list(dict.fromkeys(key for some in keys.values() for key in some))
        answers = routes.ask(table, wanted) if wanted else {}
        if answers is None:
            self.unread.append(
                f"{setting} = {table} cannot be asked, so the TLS level of the next hops is not known: {routes.refusal}"
            )
            return
        if "" in hops:
            self._note_weak(setting, table)
        for hop, some in keys.items():
            key = next((one for one in some if one in answers), None)
            if key is not None and self._is_weak(setting, answers[key]):
                said[name, hop] = (
                    f"{setting} = {table} has '{key} {answers[key][:_LONGEST]}', which counts instead of the transport's level; take that "
                    "entry out, or let it say encrypt"
                )

    def _note_weak(self, setting: str, table: str) -> None:
        """Note which domains a table exempts, where mail goes to the MX of each domain."""
        weak = [f"{key} {value}" for key, value in self.entries(table) or () if self._is_weak(setting, value)]
        if weak:
            more = f" and {len(weak) - _SHOWN} more" if len(weak) > _SHOWN else ""
            self.notes.append(f"{setting} = {table} keeps other TLS levels: {', '.join(weak[:_SHOWN])}{more}")

    def _is_weak(self, setting: str, value: str) -> bool:
        word = (value.split() or [""])[0]
        if setting.endswith("per_site"):
            return word.upper() in _WEAK_SITES
        return self._kinds.get(word.lower(), UNKNOWN) in ("disabled", "opportunistic")


def _keys(hop: str, setting: str) -> Iterator[str]:
    """Yield the keys under which Postfix looks for the policy of a next hop. Only a bare domain has its parents looked up."""
    hop = hop.lower()
    if not hop:
        return
    yield hop
    if setting.endswith("per_site"):
        yield hop.strip("[").partition("]")[0]
    elif re.fullmatch(r"[a-z0-9_.-]+", hop):
        while "." in hop.lstrip("."):
            hop = "." + hop.lstrip(".").partition(".")[2]
            yield hop


def _rules(path: str) -> Optional[list[tuple[str, str]]]:
    """Return the patterns and results of a regexp, pcre or cidr table; None if a result depends on what matched, or is not understood."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None
    found = []
    for line in re.sub(r"\n[ \t]+", " ", text).splitlines():
        if not line.strip() or line.startswith("#") or re.match(r"(?:if|endif)\b", line, re.IGNORECASE):
            continue
        match = _RULE.match(line)
        if not match or re.search(r"\$[\d({]", match[2]):
            return None
        found.append((line[: match.start(2)].strip(), match[2]))
    return found


def loopback_only(ways: Iterable[WayOut]) -> list[Transport]:
    """Return a way of each transport of the administrator that carries mail to hops on this host only. The usual client is none."""
    by_name: dict[str, list[WayOut]] = {}
    for one in ways:
        by_name.setdefault(one.transport.transport, []).append(one)
    return [
        some[0].transport
        for name, some in by_name.items()
        if f"{name}/unix" != CLIENT and all(one.transport.loopback for one in some)
    ]
