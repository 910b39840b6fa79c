# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done on an Exchange server: the entry points of this room.

observe() (model.py) reads what exchange_cmdlets returned. plan() compares it with what is wanted. uninstall() plans the way back.
undo() gives what undoes calls that were done. Nothing here has input or output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.calls import Call
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import Organisation
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import WantedExchange


@dataclass(frozen=True)
class Obstacle:
    """What stands in the way of a change. code: see CODES. message: the fault, the place, the next thing to do."""

    code: str
    message: str


CODES = (
    "edge_server",  # an Edge server, which is not supported
    "exchange_not_read",  # something that the change depends on could not be read
    "connector_shared",  # RequireTLS would concern clients that nobody named
    "connector_conflict",  # a new connector would get in the way of another one
    "connector_refused",  # a connector that must not be changed that way
    "certificate_missing",  # no certificate would be served
    "certificate_unfit",  # a certificate that Exchange would not serve
    "internal_certificate",  # the internal transport certificate could not be put back
)


@dataclass(frozen=True)
class Planned:
    """The change of one Exchange server.

    calls: in order, to be undone if one fails or if the proof fails. last: calls that nothing undoes; only after the proof. reread:
    the number of calls after which to read and to plan again, because the issuer and subject that the others name were only
    predicted; 0 if nothing was. before, after: C(inbound) and C(outbound) in the words of WantedExchange, or C(custom) or C(unknown).
    diff: in Ansible's format, one entry for each object. changes: C(path) and C(lines) of a unified diff for each object. record: what to
    keep for a later change, with what was there before the first one. With obstacles, nothing may be done: calls and last are empty.
    """

    calls: tuple[Call, ...] = ()
    last: tuple[Call, ...] = ()
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


def plan(organisation: Organisation, wanted: WantedExchange) -> Planned:
    """Return what has to be done. Raises EngineError for a wanted state that makes no sense; all else is an obstacle."""
    raise NotImplementedError


def uninstall(organisation: Organisation, record: Mapping[str, Any]) -> Planned:
    """Return the way back to what was there before: own connectors removed, others as recorded, then own certificates removed."""
    raise NotImplementedError


def undo(planned: Planned, done: int) -> tuple[Call, ...]:
    """Return the calls that undo the first C(done) ones of planned.calls, in the order in which they run."""
    raise NotImplementedError


def retry(organisation: Organisation, connectors: tuple[str, ...] = ()) -> tuple[Call, ...]:
    """Return a Retry-Queue for each queue in Retry that belongs to one of these send connectors; to any, if none is named.

    Raises NotReadError if the queues could not be read.
    """
    raise NotImplementedError
