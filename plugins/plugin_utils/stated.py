# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of a host as a play has them. hostvars knows the inventory, but not the vars of a play, a role or a task.

A role that is used alone notes them first, for each host. What looks at other hosts then finds them there.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

STATED = ("certificate_stated", "gateway_stated", "mail_server_stated", "verify_stated")
"""The variables, one of each role, with the name of the play and the variables that it has for a host."""

_SECRET = re.compile(r"content|password|secret|token|_key\b|more_certificates|_command\b")


def told_to_others(names: Sequence[str]) -> list[str]:
    """Return the names of variables that other hosts may look at: those without a secret."""
    return [name for name in names if not _SECRET.search(name)]


class StatedVars(Mapping[str, Mapping[str, Any]]):
    """hostvars, in which the variables that this play has noted for a host come before those of the inventory."""

    def __init__(self, hostvars: Mapping[str, Any], play: str) -> None:
        self._hostvars, self._play = hostvars, play

    def __getitem__(self, host: str) -> Mapping[str, Any]:
        """Return the variables of a host."""
        facts = self._hostvars[host]
        noted = _noted(facts, self._play)
        return ChainMap(noted, facts) if noted else facts

    def __contains__(self, host: object) -> bool:
        """Return whether the inventory has a host."""
        return host in self._hostvars

    def __iter__(self) -> Iterator[str]:
        """Yield the hosts of the inventory."""
        return iter(self._hostvars)

    def __len__(self) -> int:
        """Return the number of hosts."""
        return len(self._hostvars)


def _noted(facts: Any, play: str) -> Optional[dict[str, Any]]:
    """Return what this play has noted. What another play of the same call noted does not count."""
    if not isinstance(facts, Mapping) or not play:
        return None
    found: dict[str, Any] = {}
    for given in map(facts.get, STATED):
        noted = given.get("variables") if isinstance(given, Mapping) and given.get("play") == play else None
        found |= dict(noted) if isinstance(noted, Mapping) else {}
    return found


def as_stated(value: Any, play: Any) -> Any:
    """Return hostvars with what the play has noted; any other value as it is."""
    return StatedVars(value, str(play or "")) if hasattr(type(value), "raw_get") else value
