# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers of an Exim with one plain configuration file: there are none, and wanted ones are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Was
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain import PlainExim
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


class PlainPeers:
    """Adapter for the peers of an Exim whose configuration is a file written by hand."""

    name = "exim"

    def __init__(self, exim: PlainExim) -> None:
        """Prepare only. exim: the adapter of the mail server."""
        self._exim = exim

    def transaction(self, store: str) -> Transaction:
        """Return the transaction on the file of Exim."""
        return self._exim.transaction(store)

    def require_running(self) -> None:
        """Raise EngineError unless Exim reads the file and runs."""
        self._exim.require_running()

    def has_ended(self) -> bool:
        """Whether the daemon does not run."""
        return self._exim.has_ended()

    def files(self) -> tuple[str, ...]:
        """Return the files that plan() depends on."""
        return self._exim.files()

    def peers(self) -> list[dict[str, Any]]:
        """Return no peer."""
        return []

    def roots(self) -> str:
        """Return nothing: the roots are the system's."""
        return ""

    def faults(self, peers: Sequence[Peer]) -> list[str]:
        """Return why these peers cannot be set here."""
        return [f"peer {one.name}: {self._refusal()}" for one in peers]

    def _refusal(self) -> str:
        return (
            f"peers of an Exim with one plain configuration file ({self._exim.path}) are not supported yet; write their router and "
            "transport there by hand"
        )

    def plan(self, wanted: Sequence[Peer], gone: Collection[str], was: Mapping[str, Was]) -> Change:
        """Return an empty change. Raises EngineError if a peer is wanted."""
        del gone, was
        if wanted:
            raise EngineError(self._refusal())
        return Change.of([])

    def waiting(self, domains: Collection[str], others: Collection[str]) -> Sequence[Waiting]:
        """Return nothing: no message can wait for a peer."""
        del domains, others
        return ()

    def prove(self, wanted: Sequence[Peer]) -> None:
        """Do nothing: plan() has refused them."""
