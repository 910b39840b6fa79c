# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every gateway product offers to the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target


class GatewayChange(Protocol):
    """What has to be done: true if there is anything. _change.files.Change is one, _change.api.Calls another."""

    def __bool__(self) -> bool:
        """Whether anything has to be done."""

    def diff(self) -> list[dict[str, str]]:
        """What changes, in Ansible's diff format."""


class GatewayTransaction(Protocol):
    """How a change is made or undone; see _change.files.Transaction."""

    def opened(self, check_mode: bool) -> contextlib.AbstractContextManager[tuple[bool, list[str]]]:
        """Lock the gateway and undo what a killed run left: whether there was anything, and warnings."""

    def apply(self, change: Any, prove: Callable[[], None], prove_old: Callable[[], None]) -> None:
        """Make the change, or undo it and raise TransactionError."""


class Gateway(Protocol):
    """An adapter: one gateway product."""

    @property
    def title(self) -> str:
        """Its name in messages, with an article if it has one."""

    @property
    def modes(self) -> Sequence[str]:
        """The delivery modes that it can express."""

    @property
    def verifying_modes(self) -> Sequence[str]:
        """The modes in which it also verifies the certificate of the mail server."""

    @property
    def own_port(self) -> Optional[Target]:
        """The port that takes the mail of the internet; None if it cannot be reached from here."""

    @property
    def softens_refusals(self) -> bool:
        """Whether mail waits, and does not bounce, at a server that accepts mail over TLS only."""

    @property
    def limits(self) -> Mapping[str, str]:
        """Mode -> the reason why the product cannot express it. C(enforced) and C(outbound): why it has no such setting."""

    def transaction(self, store: str) -> GatewayTransaction:
        """How changes are made."""

    def require_running(self) -> None:
        """Raise EngineError unless the gateway can be changed and proved."""

    def read(self, wanted: Sequence[Mapping[str, Any]] = ()) -> GatewayState:
        """What the gateway holds. One that keeps no names of email configs goes by the domains of the wanted ones."""

    def prepare(self, state: GatewayState) -> GatewayChange:
        """What has to be there, and does no harm, before the change to this state; it stays if that is undone."""

    def plan(self, state: GatewayState) -> GatewayChange:
        """What makes the gateway hold exactly this; false when it does already."""

    def next_hops(self, domain: str, state: GatewayState) -> Sequence[Target]:
        """The hosts that mail for a domain is handed to, as far as they can be known."""

    def roots(self, state: GatewayState) -> str:
        """Path of the authorities that certificate checks go by, empty for the system's. Raises EngineError if unusable."""

    def relay_hosts(self) -> Sequence[Target]:
        """The hosts that take all outgoing mail, none if each domain has its own; see _server.engine.Server.next_hops."""

    def serves(self) -> bool:
        """Whether the running gateway takes mail on every port it should, looked at once."""

    def prove(self) -> None:
        """Raise EngineError unless the running gateway serves what it was told."""


@dataclass(frozen=True)
class GatewayVerdict:
    """What speaks against a change, and the handshakes that say so; what would lose mail cannot be overridden."""

    problems: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    evidence: tuple[Handshake, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class GatewayOutcome:
    """What was done, and the evidence for it."""

    changed: bool
    before: GatewayState
    after: GatewayState
    diff: list[dict[str, str]]
    evidence: tuple[Handshake, ...] = ()
    recovered: bool = False
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The return values that all modules have which change a gateway; the states before and after are not in it."""
        return {
            "changed": self.changed,
            "evidence": [seen.to_dict() for seen in self.evidence],
            "recovered": self.recovered,
            "diff": self.diff,
            "warnings": self.warnings,
        }
