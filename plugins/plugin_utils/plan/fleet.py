# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as the plan sees it: what the inventory wants, what every host said, and which steps each host needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import DEFAULT_MODE, LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Delivery, Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peers import WantedPeer, host_at_target, targets_in
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.by_hand import by_hand
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.hops import DELIVERY, PEER, RELAY, FleetHop
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import (
    Observation,
    SeenServer,
    Unread,
    bare,
    read_result,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.order import DEFAULT_BATCHES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import (
    ALL_PLAINTEXT,
    GATEWAY,
    GATEWAY_STEPS,
    MAIL_SERVER,
    STEPS,
    SWITCHING_OFF,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.workflow import WorkflowChanges


@dataclass(frozen=True)
class PlanRequest:
    """What the run is to do, and what only the inventory knows.

    action: a key of STEPS. groups: mail_gateways and mail_servers with all names of the inventory. targets: host -> C(host:port) at
    which other hosts reach it. batches: starttls_batches. inbound, outbound: host -> what the inventory wants of a mail server.
    without_evidence: hosts with starttls_require_without_evidence. test_all: whether tests are wanted that a read does not make.
    outside_peers: mail server that is not in the run -> its peers. undo: what a workflow has changed, for the action of that name.
    enforced: gateway -> the enforced domains that the inventory wants, as C((domain, direction)). locks: host -> what its lock of the
    fleet means for this run, and whether it stops a run that changes something. confirmed: the steps that were made by hand, at a
    gateway that is not in the inventory.
    """

    action: str
    groups: Mapping[str, Sequence[str]]
    targets: Mapping[str, str] = field(default_factory=dict)
    batches: Sequence[Any] = DEFAULT_BATCHES
    inbound: Mapping[str, str] = field(default_factory=dict)
    outbound: Mapping[str, str] = field(default_factory=dict)
    without_evidence: frozenset[str] = frozenset()
    test_all: bool = False
    outside_peers: Mapping[str, Sequence[WantedPeer]] = field(default_factory=dict)
    undo: WorkflowChanges = field(default_factory=WorkflowChanges)
    enforced: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    locks: Mapping[str, tuple[Finding, bool]] = field(default_factory=dict)
    confirmed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fleet:
    """The input of the plan, looked up in the ways that its rules need. seen: every host of the run -> its result.

    asked: the estate as the inventory has it; estate is in plaintext for the actions after which no hop uses TLS.
    """

    estate: Estate
    request: PlanRequest
    seen: Mapping[str, Union[Observation, Unread]]
    asked: Estate = field(default_factory=Estate)

    @classmethod
    def of(cls, estate: Estate, observed: Mapping[str, Mapping[str, Any]], request: PlanRequest) -> Fleet:
        """Parse the result of every host once. Raises EngineError."""
        if request.action not in STEPS:
            raise EngineError(f"there is no plan for {request.action!r}; choose one of: {', '.join(STEPS)}")
        if not estate.hosts:
            raise EngineError(
                "there is no host to plan for; check the groups mail_gateways and mail_servers, and --limit"
            )
        wanted = estate.in_plaintext() if request.action in ALL_PLAINTEXT else estate
        return cls(wanted, request, {host: read_result(observed.get(host)) for host in estate.hosts}, estate)

    @property
    def action(self) -> str:
        """The action of the run."""
        return self.request.action

    @property
    def switches_off(self) -> bool:
        """Whether the run takes TLS away from hosts."""
        return self.action in SWITCHING_OFF

    @cached_property
    def gateways(self) -> tuple[str, ...]:
        """All gateways of the inventory."""
        return tuple(self.request.groups.get("mail_gateways") or ())

    @cached_property
    def by_hand(self) -> Mapping[str, tuple[str, ...]]:
        """Word -> what has to be set by hand at a gateway that is not in the inventory, whether or not that was confirmed."""
        return {} if self.gateways else by_hand(self.asked, self.action)

    @cached_property
    def pending(self) -> Mapping[str, tuple[str, ...]]:
        """The steps by hand that nobody has confirmed: the run ends before them."""
        return {step: lines for step, lines in self.by_hand.items() if step not in self.request.confirmed}

    @cached_property
    def _is_gateway(self) -> frozenset[str]:
        return frozenset(self.gateways)

    def role(self, host: str) -> str:
        """Return C(gateway) or C(mail_server): by the inventory's groups, or by what the host was read as."""
        seen = self.observation(host)
        return GATEWAY if host in self._is_gateway or (seen and seen.is_gateway) else MAIL_SERVER

    def of_run(self, role: str) -> list[str]:
        """Return the hosts of the run with a role, in the order of the inventory."""
        return [host for host in self.seen if self.role(host) == role]

    def observation(self, host: str) -> Optional[Observation]:
        """Return what a host said; None if it is not in the run or could not be read."""
        found = self.seen.get(host)
        return found if isinstance(found, Observation) else None

    def is_unread(self, host: str) -> bool:
        """Return whether a host of the run could not be read."""
        return isinstance(self.seen.get(host), Unread)

    def steps(self, host: str) -> tuple[str, ...]:
        """Return the steps that a host of the run needs, in the safe order."""
        return self._steps.get(host, ())

    @cached_property
    def _steps(self) -> dict[str, tuple[str, ...]]:
        return {
            host: tuple(step for step in STEPS[self.action] if self._needs(host, one, step))
            for host, one in self.seen.items()
            if isinstance(one, Observation)
        }

    def _needs(self, host: str, seen: Observation, step: str) -> bool:
        if step in ("peers", "peers_off"):
            return bool(seen.peers.changes and self.peers(host)) and self.role(host) == MAIL_SERVER
        if self.action == "uninstall" and step != "relax":  # whatever is there goes, one side after the other
            return seen.needs_change or (self.role(host) == GATEWAY and bool(seen.gateway.changes))
        if self.role(host) == GATEWAY:
            if step == "modes":
                return seen.gateway.changes_modes
            return step in ("accept", "stop_accepting") and seen.needs_change
        if seen.send_only and step in ("require", "relax"):
            return False
        if step == "require":
            return self.request.inbound.get(host) == "required" and seen.before[0] != "required"
        if step == "relax":
            return seen.before[0] == "required" and (self.action != "undo" or seen.after[0] in ("disabled", "offered"))
        if step == "back":
            return seen.needs_change and (seen.after[0] == "disabled" or seen.after[1] != seen.before[1])
        return (step == "offer" and seen.needs_offer) or (step == "off" and seen.needs_change)

    def changing(self) -> dict[str, list[str]]:
        """Return step -> the hosts that make it, in the order of the inventory."""
        roles = {step: GATEWAY if step in GATEWAY_STEPS else MAIL_SERVER for step in STEPS[self.action]}
        return {step: [host for host in self.of_run(role) if step in self.steps(host)] for step, role in roles.items()}

    def peers(self, host: str) -> tuple[WantedPeer, ...]:
        """Return the peers of a mail server of the run that mail goes to and that this action sets."""
        mine = (one for one in self.estate.peers.get(host, ()) if one.is_set_by(self.action))
        if self.action != "undo":
            return tuple(mine)
        new = self.request.undo.hosts[host].peers if host in self.request.undo.hosts else ()
        return tuple(one for one in mine if one.peer.name in new)

    @cached_property
    def closing(self) -> frozenset[str]:
        """The hosts of the run that accept no TLS any more after it."""
        steps = ("off", "back", "stop_accepting", "remove")
        made = {host for step in steps for host in self.changing().get(step, ()) if not self.is_send_only(host)}
        return frozenset(host for host in made if self.action != "undo" or self._ends_without(host))

    def is_send_only(self, host: str) -> bool:
        """Return whether a host of the run takes no mail from the network."""
        seen = self.observation(host)
        return bool(seen and seen.send_only)

    def _ends_without(self, host: str) -> bool:
        seen = self.observation(host)
        return bool(seen and seen.after[0] == "disabled")

    @cached_property
    def hops(self) -> tuple[FleetHop, ...]:
        """The hops between the hosts of the run in which the sender's change and the acceptor's may depend on each other.

        Of what carries all mail of a mail server, only a hop on which it insists on TLS: the other needs no order within a step.
        """
        found = []
        for host in self.seen:
            seen = self.observation(host)
            if self.role(host) == GATEWAY:
                found += [
                    FleetHop(host, one, DELIVERY)
                    for some in self.estate.deliveries
                    for one in some.hosts
                    if one != host
                ]
            elif seen and "required" in ((seen.before[1],) if self.switches_off else (seen.after[1],)):
                relays = (self.host_at(*place) for place in seen.relay_places)
                found += [FleetHop(host, one, RELAY) for one in relays if one and one != host]
            found += [FleetHop(host, one, PEER) for peer in self.peers(host) for one in peer.acceptors]
        return tuple(dict.fromkeys(found))

    @cached_property
    def _at_target(self) -> Callable[[Target], str]:
        return host_at_target(targets_in(self.request.targets))

    def host_at(self, host: str, port: int) -> str:
        """Return the inventory name of the gateway or mail server at an address; empty if there is none. The port counts."""
        return self._at_target(Target(host, port)) or self.gateway_names.get(host, "")

    @cached_property
    def configs(self) -> frozenset[str]:
        """The names of the email configs of the inventory, also of those that it wants to be removed."""
        return frozenset(
            (*(one.config.name for one in self.estate.deliveries), *(one.name for one in self.estate.removals))
        )

    def mode(self, delivery: Delivery, gateway: Observation) -> str:
        """Return the delivery mode that an email config has on a gateway after the change."""
        if delivery.names_mode:
            return delivery.config.delivery_mode
        view, name = gateway.gateway, delivery.config.name
        held = view.configs.get(name)
        mode = view.after.get(name) or (held.mode if held else DEFAULT_MODE)
        return mode if mode in LEVELS else DEFAULT_MODE

    def servers(self, delivery: Delivery, gateway: Observation) -> Iterator[tuple[Target, str, Optional[SeenServer]]]:
        """Yield the mail servers of an email config: address, inventory name, and what the gateway's handshake test saw."""
        for server, host in zip_longest(delivery.config.servers, delivery.hosts, fillvalue=""):
            if isinstance(server, Target):
                yield server, str(host), gateway.servers.get((bare(server.host), server.port))

    @cached_property
    def gateway_names(self) -> dict[str, str]:
        """Name or address at which other hosts reach a gateway of the inventory -> its inventory name."""
        return {_host_of(self.request.targets.get(host, host)): host for host in self.gateways}

    def sends_through_a_gateway(self, seen: Observation) -> bool:
        """Return whether a transport of a mail server leads to a gateway of the inventory."""
        return any(relay in self.gateway_names for relay in seen.relays or ())


def _host_of(target: str) -> str:
    try:
        return bare(Target.parse(target).host)
    except TargetError:
        return bare(target)
