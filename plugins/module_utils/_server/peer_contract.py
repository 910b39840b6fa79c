# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract between the engine of the peers and the adapters of the mail server products."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Was
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import ServerTransaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer


class PeerServer(Protocol):
    """An adapter: the peers of one mail server product on this host.

    Every peer that mail goes to has a transport and a route of its own. A peer of the level C(disabled) keeps both, and uses no TLS.
    """

    name: str
    """Names the lock, the journal and the record. They are those of the product's mail server."""

    def transaction(self, store: str) -> ServerTransaction:
        """Return the transaction for changes. store: the directory of locks and journals."""

    def require_running(self) -> None:
        """Raise EngineError unless the daemon is installed, runs, and uses the configuration that the adapter changes."""

    def has_ended(self) -> bool:
        """Whether the daemon does not run. Raises EngineError."""

    def files(self) -> tuple[str, ...]:
        """Return the absolute paths of the files that plan() depends on; some may not exist."""

    def peers(self) -> list[dict[str, Any]]:
        """Return the peers that this host has, by name, as the daemon's configuration tells them. Raises EngineError.

        Each has the keys of SHOWN (see peer_engine). A route that is not in effect has no domains and no hosts.
        """

    def roots(self) -> str:
        """Return the path, on the host, of the roots by which the daemon judges a peer's certificate; empty for the system's."""

    def faults(self, peers: Sequence[Peer]) -> list[str]:
        """Return why these peers cannot be set on this host, a text for each fault. Nothing is raised for a fault of a peer."""

    def plan(self, wanted: Sequence[Peer], gone: Collection[str], was: Mapping[str, Was]) -> Change:
        """Return the change that sets the wanted peers and takes out those with a name in gone. Other peers stay as they are.

        was: what is known of files as they were before the collection came. Empty if nothing has to change. Raises EngineError.
        """

    def waiting(self, domains: Collection[str], others: Collection[str]) -> Sequence[Waiting]:
        """Return the messages in the queue for these domains. Raises EngineError.

        EVERYTHING stands for all mail that leaves the host, but for that to the domains in others.
        """

    def prove(self, wanted: Sequence[Peer]) -> None:
        """Raise EngineError unless the daemon's own routing leads the domains of these peers to their transports."""
