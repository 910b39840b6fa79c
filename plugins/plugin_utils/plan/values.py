# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as a value: what every host is, what changes, in which order, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.by_hand import step_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import FileDiff
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import WorkflowChanges

PLAN_FORMAT = 1

STEPS = {
    "enable": ("accept", "offer", "peers", "modes", "require"),
    "disable": ("relax", "modes", "peers_off", "off", "stop_accepting"),
    "set_delivery_mode": ("modes",),
    "uninstall": ("relax", "modes", "peers_off", "off", "remove", "put_back"),
    "undo": ("relax", "modes", "peers_off", "back", "stop_accepting"),
    "rotate": ("accept", "offer"),
}
"""Action -> its steps in the safe order."""
GATEWAY_STEPS = frozenset({"accept", "modes", "stop_accepting", "remove"})
"""The steps that gateways make. The mail servers make the others."""
GATEWAY, MAIL_SERVER = "gateway", "mail_server"
SIDES = ("inbound", "outbound")
SWITCHING_OFF = frozenset({"disable", "uninstall", "undo"})
"""The actions that take TLS away from hosts."""
ALL_PLAINTEXT = frozenset({"disable", "uninstall"})
"""The actions after which no hop uses TLS."""
IN_PART = frozenset({"set_delivery_mode", "undo"})
"""The actions whose estate has only the email configs that they change."""
CERTIFICATES_ONLY = frozenset({"rotate"})
"""The actions that renew certificates, and leave who uses TLS with whom as it is."""
RESULTS = ("clean", "drift", "blocked", "unknown")


class Located(NamedTuple):
    """A finding and the host that it is about, which may be outside the run; empty if it is about no single host."""

    host: str
    finding: Finding

    def to_json(self) -> dict[str, str]:
        """Return plain data."""
        return {"code": self.finding.code, "host": self.host, "message": self.finding.message}


@dataclass(frozen=True)
class HostPlan:
    """One host of the run. present: what it is now, in words. state: one of RESULTS. after: C((inbound, outbound)) as planned.

    send_only: whether it takes no mail from the network.
    """

    role: str
    title: str
    present: str
    state: str
    changes: tuple[FileDiff, ...] = ()
    steps: tuple[str, ...] = ()
    obstacles: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, str] = ("", "")
    send_only: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "role": self.role,
            "title": self.title,
            "is": self.present,
            "state": self.state,
            "changes": [one.to_json() for one in self.changes],
            "steps": list(self.steps),
            "obstacles": [_plain(one) for one in self.obstacles],
            "warnings": [_plain(one) for one in self.warnings],
            "digests": dict(self.digests),
            "after": dict(zip(SIDES, self.after)),
            "send_only": self.send_only,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HostPlan:
        """Read the result of to_json."""
        return cls(
            role=data["role"],
            title=data["title"],
            present=data["is"],
            state=data["state"],
            changes=tuple(FileDiff(one["path"], one["lines"]) for one in data["changes"]),
            steps=tuple(data["steps"]),
            obstacles=_findings(data["obstacles"]),
            warnings=_findings(data["warnings"]),
            digests=dict(data["digests"]),
            after=(str(data["after"][SIDES[0]]), str(data["after"][SIDES[1]])),
            send_only=bool(data.get("send_only")),
        )


def _plain(finding: Finding) -> dict[str, str]:
    return {"code": finding.code, "message": finding.message}


def _findings(given: Iterable[Mapping[str, str]]) -> tuple[Finding, ...]:
    return tuple(Finding(one["code"], one["message"]) for one in given)


@dataclass(frozen=True)
class PlanStep:
    """The hosts of a step in the order in which they change, and the sizes of the batches, which add up to all of them."""

    hosts: tuple[str, ...]
    batches: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"hosts": list(self.hosts), "batches": list(self.batches)}


@dataclass(frozen=True)
class Cost:
    """What TLS costs.

    senders: mail servers that send through a gateway. sessions: mail server -> sessions an hour; None if that is not known.
    handshake_ms: milliseconds, the median of the handshake tests of this run; None without one.
    """

    senders: tuple[str, ...] = ()
    sessions: Mapping[str, Optional[float]] = field(default_factory=dict)
    handshake_ms: Optional[float] = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "mail_servers_sending_through_the_gateway": list(self.senders),
            "sessions_an_hour": dict(self.sessions),
            "handshake_ms": self.handshake_ms,
        }


@dataclass(frozen=True)
class Plan:
    """The plan of one run.

    outside: gateways and mail servers of the inventory that are not in the run.
    hosts: in the order of the inventory. obstacles and warnings: all of them, those of the hosts too. steps: in the safe order; one
    that no host needs is left out. recover: hosts with the journal of a killed run. prove: hosts to prove after the change.
    prove_peers: mail servers whose peers are proved after the change, because it is theirs.
    former: the hosts and email configs that change, as they are now. by_hand: step -> what has to be set by hand at a gateway that is not
    in the inventory, a line each. The run ends before such a step.
    """

    action: str
    result: str
    hosts: Mapping[str, HostPlan]
    obstacles: tuple[Located, ...] = ()
    warnings: tuple[Located, ...] = ()
    steps: Mapping[str, PlanStep] = field(default_factory=dict)
    recover: tuple[str, ...] = ()
    prove: tuple[str, ...] = ()
    prove_peers: tuple[str, ...] = ()
    cost: Cost = field(default_factory=Cost)
    outside: tuple[str, ...] = ()
    former: WorkflowChanges = field(default_factory=WorkflowChanges)
    by_hand: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, as docs/schema/plan.schema.json describes it."""
        return {
            "format": PLAN_FORMAT,
            "action": self.action,
            "result": self.result,
            "hosts": {name: one.to_json() for name, one in self.hosts.items()},
            "obstacles": [one.to_json() for one in self.obstacles],
            "warnings": [one.to_json() for one in self.warnings],
            "steps": {name: one.to_json() for name, one in self.steps.items()},
            "recover": list(self.recover),
            "prove": list(self.prove),
            "prove_peers": list(self.prove_peers),
            "cost": self.cost.to_json(),
            "not_in_this_run": list(self.outside),
            "former": self.former.to_json(),
            "by_hand": {step: list(lines) for step, lines in self.by_hand.items()},
        }

    def run(self, may_change: bool) -> dict[str, Any]:
        """Return what the steps of a playbook read: every step of the action, also one without hosts, and the part of each host.

        may_change: without it, no step has hosts and nothing is proved, so that a playbook ends after its plan.
        """
        nothing = PlanStep((), ())
        steps = {name: (self.steps.get(name, nothing) if may_change else nothing) for name in STEPS[self.action]}
        order = list(steps)
        for name in order[min((order.index(step_of(one)) for one in self.by_hand), default=len(order)) :]:
            steps[name] = nothing
        return {
            "action": self.action,
            "hosts": {
                name: {
                    "role": one.role,
                    "title": one.title,
                    "steps": list(one.steps),
                    "digests": dict(one.digests),
                    "after": dict(zip(SIDES, one.after)),
                }
                for name, one in self.hosts.items()
            },
            "steps": {name: one.to_json() for name, one in steps.items()},
            "recover": [],
            "prove": list(self.prove) if may_change else [],
            "prove_peers": list(self.prove_peers) if may_change else [],
            "not_in_this_run": list(self.outside),
            "by_hand": {step: list(lines) for step, lines in self.by_hand.items()} if may_change else {},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read the result of to_json."""
        cost = data["cost"]
        return cls(
            action=data["action"],
            result=data["result"],
            hosts={name: HostPlan.from_json(one) for name, one in data["hosts"].items()},
            obstacles=_located(data["obstacles"]),
            warnings=_located(data["warnings"]),
            steps={name: PlanStep(tuple(one["hosts"]), tuple(one["batches"])) for name, one in data["steps"].items()},
            recover=tuple(data["recover"]),
            prove=tuple(data["prove"]),
            prove_peers=tuple(data.get("prove_peers") or ()),
            cost=Cost(
                tuple(cost["mail_servers_sending_through_the_gateway"]),
                dict(cost["sessions_an_hour"]),
                cost["handshake_ms"],
            ),
            outside=tuple(data.get("not_in_this_run") or ()),
            former=WorkflowChanges.parse(data.get("former")),
            by_hand={step: tuple(lines) for step, lines in (data.get("by_hand") or {}).items()},
        )


def _located(given: Sequence[Mapping[str, str]]) -> tuple[Located, ...]:
    return tuple(Located(one["host"], Finding(one["code"], one["message"])) for one in given)
