# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivery mode of recipient domains as Postfix's own tools show it: the tables of transport_maps, and master.cf.

Tables are asked in Postfix's order, first by a whole address, then by the domain and its parents. Sources: transport(5), postmap(1),
trivial-rewrite/transport.c of Postfix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf

KINDS = {"disabled": "plaintext", "opportunistic": "opportunistic", "required": "required"}
"""Kind of a TLS level -> the delivery mode of a transport that has it and does not look at how mail arrived."""
LOCAL_PART = "mailfleet-starttls"
"""A local part that no table should name."""

# A program answers for all keys, a line for each that it finds.
_ASK = 'table=$1; shift; printf "%s\\n" "$@" | postmap -q - "$table"'
_MOST = 1000  # keys of one call
_TABLE = re.compile(r"(?:[^\s,{}]|\{(?:[^{}]|\{[^{}]*\})*\})+")
_RESOLVER = "rewrite/unix"
"""The service of master.cf that chooses the transport of an address."""
_WHOLE = ("regexp", "pcre", "cidr")
"""Types of tables in which Postfix looks up the whole address only."""


@dataclass(frozen=True)
class TableRoute:
    """Where a table leads: its own name, the transport, and the next hop. All empty if no table has the domain."""

    table: str = ""
    transport: str = ""
    hop: str = ""


class Routes:
    """The transports that the tables of transport_maps choose. refusal: why a table could not be asked."""

    def __init__(self, run: Runner, postconf: Postconf) -> None:
        """Prepare only; nothing is read."""
        self._run = run
        self._postconf = postconf
        self.refusal = ""

    def tables(self) -> list[str]:
        """Return the tables of transport_maps, in their order. An option of the service that resolves addresses counts before main.cf."""
        own = self._postconf.overrides("transport_maps").get(_RESOLVER)
        return table_names(self._postconf.value_expanded("transport_maps") if own is None else own)

    def transports(self, domains: Sequence[str]) -> dict[str, Optional[str]]:
        """Return for each domain the name of its transport: empty if no table has it, None if a table cannot be asked."""
        return {one: found.transport if found else None for one, found in self.found(domains).items()}

    def found(self, domains: Sequence[str]) -> dict[str, Optional[TableRoute]]:
        """Return for each domain where the tables lead; None if one cannot be asked."""
        tables = self.tables()
        resolver = self._postconf.value_expanded("rewrite_service_name")
        if resolver not in ("", "rewrite"):
            self.refusal = f"another service, {resolver}, resolves addresses"
            return dict.fromkeys(domains)
        found: dict[str, Optional[TableRoute]] = {}
        for level in range(max((len(self._keys(one)) for one in domains), default=0)):
            for table in tables:
                left = [one for one in domains if one not in found and level < len(self._keys(one))]
                if not left or (level and _kind(table) in _WHOLE):
                    continue
                answers = self.ask(table, [self._keys(one)[level] for one in left])
                if answers is None:
                    return {one: found.get(one) for one in domains}
                for one in left:
                    if (answer := answers.get(self._keys(one)[level])) is not None:
                        transport, _colon, hop = answer.partition(":")
                        found[one] = TableRoute(table, transport, hop.strip())
        return {one: found.get(one, TableRoute()) for one in domains}

    def ask(self, table: str, keys: Sequence[str]) -> Optional[dict[str, str]]:
        """Return key -> value of the keys that a table has; None if it cannot be asked."""
        found: dict[str, str] = {}
        for start in range(0, len(keys), _MOST):
            some = keys[start : start + _MOST]
            _status, out, err = self._run(["sh", "-c", _ASK, "sh", table, *dict.fromkeys(some)])
            if err.strip():
                self.refusal = err.strip()
                return None
            pairs = (line.split(None, 1) for line in out.splitlines())
            found.update({pair[0]: pair[1] for pair in pairs if len(pair) == 2})
        return found

    def _keys(self, domain: str) -> list[str]:
        return [f"{LOCAL_PART}@{domain}", domain, *self._parents(domain), "*"]

    def _parents(self, domain: str) -> Iterator[str]:
        bare = "transport_maps" in re.split(
            r"[\s,]+", self._postconf.value_expanded("parent_domain_matches_subdomains")
        )
        while "." in domain:
            domain = domain.partition(".")[2]
            yield domain if bare else f".{domain}"


def table_names(setting: str) -> list[str]:
    """Return the tables of a setting, in their order."""
    return _TABLE.findall(setting)


def _kind(table: str) -> str:
    return table.removeprefix("proxy:").partition(":")[0]


def comes_first(setting: str, entry: str, ours: Sequence[str] = ()) -> Optional[bool]:
    """Return whether a list setting has an entry; None if something other than these of ours comes before it."""
    words = " ".join(re.split(r"[\s,]+", setting))
    before, there, _rest = f" {words} ".partition(f" {entry} ")
    for one in ours:
        before = f"{before} ".replace(f" {one} ", " ")
    return None if there and before.strip() else bool(there)


def delivered(
    routes: Routes,
    domains: Sequence[str],
    kind_of: Callable[[str], Optional[str]],
    expected: Mapping[str, tuple[str, str]],
    by_arrival: Callable[[str, Sequence[str]], Mapping[str, Optional[str]]],
    stays: Callable[[Sequence[str]], Mapping[str, Optional[bool]]],
) -> dict[str, Optional[str]]:
    """Return the delivery mode of each domain; None if it cannot be told.

    kind_of: transport, empty for the one of domains without a route -> kind of its TLS level (see KINDS); None if there is no such
    transport over SMTP. expected: the collection's transport -> its mode, and the kind of its level for mail in plaintext. by_arrival:
    returns the mode of domains whose transport is that of a mode that depends on how mail arrived. stays: returns whether the mail of
    domains without a route stays on this host, in no mode.
    """
    found: dict[str, Optional[str]] = {}
    depends: dict[str, list[str]] = {}
    transports = routes.transports(domains)
    local = stays([one for one, transport in transports.items() if transport == ""])
    for domain, transport in transports.items():
        kind = None if transport is None or local.get(domain) else kind_of(transport)
        mode, wanted = expected.get(transport or "", ("", ""))
        if mode and kind == wanted and mode not in KINDS.values():
            depends.setdefault(mode, []).append(domain)
        else:
            found[domain] = KINDS.get(kind or "")
    for mode, some in depends.items():
        found.update(by_arrival(mode, some))
    return {one: found.get(one) for one in domains}
