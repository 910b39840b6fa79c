# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipient domains for which a Postfix takes mail from the network, read with postconf(1) and postmap(1).

Each list is matched as Postfix matches it: the first pattern that matches decides. Sources: postconf(5)
(relay_domains, parent_domain_matches_subdomains), DATABASE_README, match_ops.c and match_list.c of Postfix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import DOMAIN_LIST_BYTES

DOMAIN_LISTS = ("relay_domains", "virtual_mailbox_domains", "virtual_alias_domains", "mydestination")
_LOCAL = ("virtual_mailbox_domains", "virtual_alias_domains", "mydestination")
_PARENTS = "parent_domain_matches_subdomains"
_RESTRICTIONS = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
# Restrictions that may take mail for further domains.
_WIDER = re.compile(
    r"permit_mx_backup|check_(recipient|ccert|client|sender|helo)_\w*access|permit\Z|check_policy_service"
)
_PATTERN = re.compile(r"(?:[^\s,{}]|\{(?:[^{}]|\{[^{}]*\})*\})+")
_DUMPED = ("hash", "btree", "lmdb", "dbm", "cdb")
"""Types of tables that postmap -s prints as a whole. With several domains that is one program in place of many."""
_WHOLE_NAME = ("regexp", "pcre", "cidr")
"""Types of tables in which Postfix looks up the whole name only."""


class AcceptedDomains:
    """The domains of one Postfix instance. A table is read once."""

    def __init__(self, run: Runner, postconf: Postconf) -> None:
        """Prepare only; nothing is read."""
        self._run = run
        self._postconf = postconf
        self._tables: dict[str, Optional[set[str]]] = {}

    def accepts(self, domains: Sequence[str]) -> dict[str, Optional[bool]]:
        """Return for each domain whether Postfix takes mail for it; None if a list of it cannot be read."""
        if not domains:
            return {}
        try:
            values = self._postconf.expanded(*DOMAIN_LISTS, _PARENTS, *_RESTRICTIONS)
        except EngineError:
            return dict.fromkeys(domains)
        parents = "relay_domains" in re.split(r"[\s,]+", values.get(_PARENTS, ""))
        lists = {name: list(_PATTERN.findall(values.get(name, ""))) for name in DOMAIN_LISTS}
        several = len(domains) > 1
        return {one: self._accepts(one, lists, parents, several, _is_wider(values)) for one in domains}

    def local(self, domains: Sequence[str]) -> dict[str, Optional[bool]]:
        """Return for each domain whether its mail stays on this host; None if a list of it cannot be read."""
        try:
            values = self._postconf.expanded(*_LOCAL)
        except EngineError:
            return dict.fromkeys(domains)
        patterns = {name: list(_PATTERN.findall(values.get(name, ""))) for name in _LOCAL}
        found: dict[str, Optional[bool]] = {}
        for domain in domains:
            answers = [self._matches(domain, some, "exact", len(domains) > 1) for some in patterns.values()]
            found[domain] = True if True in answers else None if None in answers else False
        return found

    def _accepts(
        self, domain: str, lists: dict[str, list[str]], parents: bool, several: bool, wider: bool
    ) -> Optional[bool]:
        found = []
        for name, patterns in lists.items():
            style = ("parent" if parents else "dotted") if name == "relay_domains" else "exact"
            found.append(self._matches(domain, patterns, style, several))
            if found[-1]:
                return True
        return None if wider or None in found else False

    def _matches(self, domain: str, patterns: Sequence[str], style: str, several: bool) -> Optional[bool]:
        """Return whether a list matches. style: exact, parent (a pattern matches subdomains) or dotted (.pattern does)."""
        for pattern in _with_files(patterns):
            if pattern is None:
                return None
            wanted = not pattern.startswith("!")
            bare = pattern.lstrip("!")
            matches = self._in_table(domain, bare, style, several) if ":" in bare else _is_name(domain, bare, style)
            if matches is None:
                return None
            if matches:
                return wanted
        return False

    def _in_table(self, domain: str, table: str, style: str, several: bool) -> Optional[bool]:
        kind = table.removeprefix("proxy:").partition(":")[0]
        keys = [domain] if style == "exact" or kind in _WHOLE_NAME else list(_keys(domain, style))
        if several and kind in _DUMPED:
            if table not in self._tables:
                status, out, _err = self._run(["postmap", "-s", table.removeprefix("proxy:")])
                self._tables[table] = {line.partition("\t")[0] for line in out.splitlines()} if status == 0 else None
            held = self._tables[table]
            return None if held is None else any(key in held for key in keys)
        for key in keys:
            status, out, err = self._run(["postmap", "-q", key, table])
            if status == 0 and out.strip():
                return True
            if err.strip():
                return None
        return False


def _is_wider(values: dict[str, str]) -> bool:
    """Whether a restriction may take mail for domains that are in no list."""
    relay, recipient = (values.get(name, "") for name in _RESTRICTIONS)
    words = re.split(r"[\s,]+", relay or recipient)
    return any(_WIDER.match(word) for word in words)


def _with_files(patterns: Sequence[str], depth: int = 0) -> Iterator[Optional[str]]:
    """Yield the patterns, with those of a file in the place of its path; None for a file that cannot be read."""
    for pattern in patterns:
        bare = pattern.lstrip("!")
        if not bare.startswith("/"):
            yield pattern
            continue
        try:
            content = FileImage.read(bare, max_bytes=DOMAIN_LIST_BYTES, trust=LOOK).content
        except (EngineError, OSError):
            content = None
        if content is None or depth >= 3:
            yield None
            return
        lines = [line for line in content.decode("utf-8", "replace").splitlines() if not line.lstrip().startswith("#")]
        mark = "!" if pattern.startswith("!") else ""
        yield from _with_files([mark + one for line in lines for one in _PATTERN.findall(line)], depth + 1)


def _is_name(domain: str, pattern: str, style: str) -> bool:
    pattern = pattern.lower()
    if domain == pattern:
        return True
    if style == "parent":
        return domain.endswith(f".{pattern}")
    return style == "dotted" and pattern.startswith(".") and domain.endswith(pattern)


def _keys(domain: str, style: str) -> Iterator[str]:
    """Yield the names under which Postfix looks up a domain in a table: itself, then its parents."""
    yield domain
    while "." in domain:
        domain = domain.partition(".")[2]
        yield domain if style == "parent" else f".{domain}"
