# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract between the engine and the adapters of the gateway products."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol, runtime_checkable

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.evidence import Handshakes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import Answers, Fault
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target


class GatewayChange(Protocol):
    """A change of a gateway. Examples: _change.files.Change, _change.api.Calls."""

    def __bool__(self) -> bool:
        """Whether the change changes anything."""

    def diff(self) -> list[dict[str, str]]:
        """Return the changed lines in Ansible's diff format."""

    def lines(self) -> list[tuple[str, str]]:
        """Return path, or another name of the place, and changed lines of each change that is not secret."""


class GatewayTransaction(Protocol):
    """Makes a change or undoes it. Examples: _change.files.Transaction, _change.api.CallTransaction."""

    @property
    def interrupted(self) -> bool:
        """Whether a killed run has left a change that the next run undoes."""

    def opened(
        self, check_mode: bool, prove: Optional[Callable[[], None]] = None
    ) -> contextlib.AbstractContextManager[tuple[bool, list[str]]]:
        """Lock the gateway and undo the change of a killed run, which prove then proves.

        Yields whether there was one, and warnings.
        """

    def apply(self, change: Any, prove: Callable[[], None], prove_old: Callable[[], None]) -> None:
        """Make the change, or undo it and raise TransactionError."""

    def take_back(self, prove_old: Callable[[], None], error: Exception) -> None:
        """Undo a change of this call that was made with C(hold), because of this error. Raises TransactionError."""

    def release(self) -> None:
        """Let a change of this call that was made with C(hold) stay."""


@runtime_checkable
class HoldsOwnFloor(Protocol):
    """A gateway whose own transports can hold a floor for TLS versions, GatewayState.min_tls."""

    holds_own_floor: bool
    plaintext_at_once: bool
    """As that of _server.contract.HoldsFloor."""


class Gateway(Protocol):
    """An adapter: one gateway product."""

    @property
    def title(self) -> str:
        """The product's name in messages, with an article if it has one."""

    @property
    def modes(self) -> Sequence[str]:
        """The delivery modes that the gateway supports."""

    @property
    def verifying_modes(self) -> Sequence[str]:
        """The modes in which the gateway also verifies the certificate of the mail server."""

    @property
    def own_port(self) -> Optional[Target]:
        """The port that receives mail from the internet; None if it cannot be reached from here."""

    @property
    def softens_refusals(self) -> bool:
        """Whether the gateway defers mail, and does not bounce it, if a server refuses plaintext (530)."""

    @property
    def keeps_names(self) -> bool:
        """Whether the gateway knows email configs by name. One that does not has no email config that the inventory lacks."""

    @property
    def limits(self) -> Mapping[str, str]:
        """Mode -> the reason why the product does not support it. Keys C(enforced) and C(outbound): the missing settings."""

    def transaction(self, store: str) -> GatewayTransaction:
        """Return the transaction for changes. store: the directory of locks and journals."""

    def require_running(self) -> None:
        """Raise EngineError unless the gateway can be changed and proved."""

    def read(self, wanted: Sequence[Mapping[str, Any]] = ()) -> GatewayState:
        """Return the present state. wanted: the email configs of the call, for gateways that do not store their names."""

    def prepare(self, state: GatewayState) -> GatewayChange:
        """Return a harmless change that has to be made before plan(state). It stays if the main change is undone."""

    def plan(self, state: GatewayState) -> GatewayChange:
        """Return the change that makes the gateway hold exactly this state; false if it holds it already."""

    def next_hops(self, domain: str, state: GatewayState) -> Sequence[Target]:
        """Return the known hosts that receive the mail for a domain."""

    def roots(self, state: GatewayState) -> str:
        """Return the path of the roots for certificate checks, empty for the system's. Raises EngineError if unusable."""

    def relay_hosts(self) -> Sequence[Target]:
        """Return the hosts that receive all outgoing mail; none if the gateway looks up the MX of each domain.

        Raises EngineError if mail leaves by other routes as well, or if the gateway has no such setting.
        """

    def accepts(self, domains: Sequence[str]) -> Mapping[str, Optional[bool]]:
        """Return whether the gateway takes mail for these recipient domains from the internet; None if that is not known.

        Read from the daemon's own tools, with as few programs as possible. domains: checked by is_domain.
        """

    def delivers(self, domains: Sequence[str]) -> Mapping[str, Optional[str]]:
        """Return the delivery mode in which the mail of these recipient domains is handed on now; None if that cannot be told.

        Read from the daemon's own tools, not from the record, with as few programs as possible. domains: checked by is_domain.
        """

    def in_force(self, state: GatewayState) -> Answers:
        """Return whether the daemon does what the state wants of enforced domains and of the outbound side; see in_force.py.

        Read from the daemon's own tools and files, with as few programs as possible.
        """

    def faults(self, state: GatewayState) -> Sequence[Fault]:
        """Return where the daemon does not do what the state says, each with its cause, and what cannot be told.

        Read as in_force() reads. Called after delivers() and in_force() of the same call: what those show to differ is added by the
        engine, without a cause, where no fault names it. So an adapter that knows no causes returns none.
        """

    def files(self) -> Sequence[str]:
        """Return the paths of the files on this host that plan() reads and writes; none for a gateway with an API."""

    def queued(self, domains: Collection[str]) -> Sequence[Waiting]:
        """Return the messages that wait for recipients in these domains, in the queues of all instances.

        Raises EngineError if a queue cannot be read.
        """

    def serves(self) -> bool:
        """Whether the running gateway accepts mail on every port it should. Tests once, without waiting."""

    def prove(self) -> None:
        """Raise EngineError unless the running gateway shows the state that was written."""


@runtime_checkable
class Reversible(Protocol):
    """A gateway whose product may have settings of the administrator that a change accepts, and the way back does not."""

    def refuse_one_way(self, state: GatewayState) -> None:
        """Raise EngineError, which names the setting, if TLS could not be switched off again in this state."""


@dataclass(frozen=True)
class GatewayVerdict:
    """The assessment of a change.

    problems: reasons to refuse it, unless require_without_evidence is set. losses: reasons that cannot be overridden,
    because mail would be lost. evidence: the handshakes behind them.
    """

    problems: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    evidence: tuple[Handshake, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class GatewayOutcome:
    """The result of a change, with its evidence. recovered: whether the change of a killed run was undone first.

    change: the GatewayChange that was made, or that check mode predicts; None if it is not known.
    """

    changed: bool
    before: GatewayState
    after: GatewayState
    diff: list[dict[str, str]]
    evidence: tuple[Handshake, ...] = ()
    recovered: bool = False
    warnings: tuple[str, ...] = ()
    change: Any = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the values that all modules for gateways return. The states before and after are left out."""
        return {
            "changed": self.changed,
            "evidence": [seen.to_dict() for seen in self.evidence],
            "recovered": self.recovered,
            "diff": self.diff,
            "warnings": self.warnings,
        }


class Part(Protocol):
    """One part of the wanted state: the modes, the outbound side or the enforced domains."""

    @property
    def email_configs(self) -> Sequence[Mapping[str, Any]]:
        """The wanted email configs, for gateways that do not store their names. Other parts have none."""

    def refuse(self, gateway: Gateway) -> None:
        """Raise EngineError if the gateway has no setting for this part."""

    def compute(self, gateway: Gateway, before: GatewayState) -> GatewayState:
        """Return the state with this part as wanted. Raises EngineError."""

    def assess(
        self, gateway: Gateway, before: GatewayState, after: GatewayState, evidence: Handshakes, insisting: bool
    ) -> GatewayVerdict:
        """Return the objections to this part of a change. after holds all parts. insisting: require_without_evidence."""
