# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every mail server product offers to the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target


class ServerChange(Protocol):
    """What has to be done: true if there is anything. _change.files.Change is one."""

    def __bool__(self) -> bool:
        """Whether anything has to be done."""

    def diff(self) -> list[dict[str, str]]:
        """The changed lines, in Ansible's diff format."""

    def mentioned_before(self, text: str) -> bool:
        """Whether the former state of what changes holds this text; true where nothing of it changes."""


class ServerTransaction(Protocol):
    """How a change is made or undone. _change.files.Transaction is one."""

    def opened(self, check_mode: bool) -> contextlib.AbstractContextManager[tuple[bool, list[str]]]:
        """Lock the mail server and undo what a killed run left: whether there was anything, and warnings."""

    def apply(self, change: Any, prove: Callable[[], None], prove_old: Callable[[], None]) -> None:
        """Make the change, or undo it and raise TransactionError."""


class Server(Protocol):
    """An adapter: one mail server product on this host."""

    def transaction(self, store: str) -> ServerTransaction:
        """How changes are made. store: the directory of locks and journals."""

    def require_running(self) -> None:
        """Raise EngineError unless the daemon is installed, running and configured where we look."""

    def plan(self, desired: Desired) -> ServerChange:
        """The files that make the wanted state; an empty change when they are there already."""

    def state(self) -> dict[str, str]:
        """C(inbound) and C(outbound) as configured now, in the words of Desired, or C(custom)."""

    def next_hops(self) -> Sequence[Target]:
        """Where the daemon hands all its outgoing mail; empty when it looks up the MX of each domain.

        Raises EngineError when mail leaves by other ways as well.
        """
