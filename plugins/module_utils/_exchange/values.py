# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of planning, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.calls import CmdletCall
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import Organisation
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import WantedExchange

OBSTACLE_CODES = (
    "edge_server",  # an Edge server, which is not supported
    "exchange_not_read",  # something that the change depends on could not be read
    "connector_shared",  # RequireTLS would concern clients that nobody named
    "connector_conflict",  # a new connector would get in the way of another one
    "connector_refused",  # a connector that must not be changed that way, or none that could be
    "certificate_missing",  # no certificate would be served
    "certificate_unfit",  # a certificate that Exchange would not serve
    "internal_certificate",  # the internal transport certificate could not be put back
)


@dataclass(frozen=True)
class Obstacle:
    """What stands in the way of a change. code: one of OBSTACLE_CODES. message: the fault, the place, the next thing to do."""

    code: str
    message: str


@dataclass(frozen=True)
class Planned:
    """The change of one Exchange server.

    calls: in order, to be undone if one fails or if the proof fails. last: calls that nothing undoes, for after the proof. reread:
    the number of calls after which to read and to plan again, because the issuer and subject that the others name were only
    predicted; 0 if nothing was. before, after: C(inbound) and C(outbound) in the words of WantedExchange, or C(custom) or C(unknown).
    diff: in Ansible's format, one entry for each object. changes: C(path) and C(lines) of a unified diff for each object. record: what to
    keep for a later change, with what was there before the first one. With obstacles nothing may be done: calls and last are empty.
    """

    calls: tuple[CmdletCall, ...] = ()
    last: tuple[CmdletCall, ...] = ()
    reread: int = 0
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    diff: tuple[Mapping[str, str], ...] = ()
    changes: tuple[Mapping[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.calls or self.last)


@dataclass
class ConnectorSide:
    """Plans the connectors of one direction, and collects what is to be said. pair: what they have to name; empty to leave that."""

    organisation: Organisation
    wanted: WantedExchange
    pair: str

    def __post_init__(self) -> None:
        """Prepare what is collected."""
        self.obstacles: list[Obstacle] = []
        self.warnings: list[str] = []

    def _refuse(self, code: str, message: str) -> None:
        if (one := Obstacle(code, message)) not in self.obstacles:
            self.obstacles.append(one)
