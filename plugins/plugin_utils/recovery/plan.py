# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What recover_deferred_mail does: from the queues of all hosts, and from handshake tests with the next hops. Pure.

The order is that of the document on TLS for outbound mail: TLS off on the server, on at the gateway, on at the server. While it is off,
mail may go in plaintext. So it goes off only where the inventory allows that; a server that is to require TLS (starttls_outbound) waits
for the gateway, which is enough. Inbound, the mail server is the side that accepts: it offers STARTTLS, and the gateway delivers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.deferred import THIS_HOST, WAIT_CAUSES
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import DEFAULT_GATEWAY, PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import HostVars, is_left_unchanged, target_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import failing, of_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood

RECOVERY_STEPS = ("off", "relax", "accept", "offer", "on")
"""The steps in their order. off, on: the outbound side of mail servers. relax, offer: their inbound side. accept: gateways."""
STEP_WORDS = {
    "off": "TLS off on {host} when it sends",
    "relax": "{host} offers STARTTLS and no longer requires it",
    "accept": "TLS on at the gateway {host}",
    "offer": "STARTTLS on at {host}",
    "on": "TLS on at {host} when it sends",
}
"""Step -> what it does, in words."""
RECOVERY_RESULTS = {
    "off": "mail_server_result", "relax": "mail_server_result", "accept": "gateway_accept_result", "offer": "mail_server_result",
    "on": "mail_server_result",
}  # fmt: skip
"""Step -> the variable that its role registers."""
REQUIRED, OPPORTUNISTIC = "required", "opportunistic"
RUN_AGAIN = "then run recover_deferred_mail again"


@dataclass(frozen=True)
class Group:
    """Messages that wait on one host, in one instance, for one next hop and one cause. count: recipients. reasons: the daemon's words.

    held: somebody holds them, or they are frozen. Those of an instance are one group, whatever they waited for.
    """

    host: str
    instance: str
    next_hop: str
    address: str
    port: int
    cause: str
    count: int
    held: bool
    next_try: str
    reasons: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells groups apart."""
        return (
            (self.host, self.instance, "", "held")
            if self.held
            else (self.host, self.instance, self.next_hop, self.cause)
        )

    @property
    def for_tls(self) -> bool:
        """Whether it waits for want of TLS, and for nothing else."""
        return WAIT_CAUSES[self.cause].tls and not self.held


@dataclass(frozen=True)
class Repair:
    """What one group needs. steps: (step, host). flush: try it again afterwards. by_hand: what only the user can do; empty if nothing.

    hint: what to do if it still waits afterwards.
    """

    group: Group
    steps: tuple[tuple[str, str], ...] = ()
    flush: bool = False
    by_hand: str = ""
    hint: str = ""


@dataclass
class Recovery:
    """The plan. levels: host -> the outbound word with which its TLS comes on again."""

    groups: list[Group]
    repairs: list[Repair]
    unknown: dict[str, str] = field(default_factory=dict)
    unreachable: tuple[str, ...] = ()
    levels: dict[str, str] = field(default_factory=dict)

    def hosts_of(self, step: str) -> list[str]:
        """Return the hosts of a step."""
        return list(dict.fromkeys(host for one in self.repairs for name, host in one.steps if name == step))

    def steps_of(self, group: Group) -> list[str]:
        """Return the steps for a group, in words."""
        repair = next((one for one in self.repairs if one.group is group), None)
        return [STEP_WORDS[step].format(host=host) for step, host in repair.steps] if repair else []

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the tasks: steps, what is tried again, and what waits."""
        flush: dict[str, list[str]] = {}
        for one in self.repairs:
            hops = flush.setdefault(one.group.host, []) if one.flush else []
            hops += [one.group.next_hop] if one.group.next_hop not in hops else []
        return {
            "steps": {step: self.hosts_of(step) for step in RECOVERY_STEPS},
            "levels": self.levels,
            "flush": flush,
            "affected": bool(self.repairs),
            "steps_of": [self.steps_of(one) for one in self.groups],
        }


def queue_groups(
    hosts: Sequence[str], hostvars: HostVars, variable: str
) -> tuple[list[Group], dict[str, str], list[str]]:
    """Return the groups of all hosts, why the queue of a host is not known, and the hosts whose read failed.

    variable: where the result of deferred_mail_info was registered.
    """
    found: list[Group] = []
    unknown: dict[str, str] = {}
    failed: list[str] = []
    for host in hosts:
        result = hostvars[host].get(variable) or {}
        if (
            not isinstance(result, Mapping)
            or result.get("failed")
            or result.get("unreachable")
            or "looked" not in result
        ):
            unknown[host] = (
                str(result.get("msg") or "it gave no result") if isinstance(result, Mapping) else "no mapping"
            )
            failed.append(host)
        elif not result["looked"]:
            unknown[host] = str(result.get("message") or "")
        else:
            with understood(f"the queue of {host}"):
                found += _groups(host, result)
    return found, unknown, failed


def _groups(host: str, result: Mapping[str, Any]) -> list[Group]:
    kinds: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for one in result["messages"]:
        cause = one["cause"] if one["cause"] in WAIT_CAUSES else "unknown"
        apart = ("held",) if one["held"] else (str(one["next_hop"]), cause)
        kinds.setdefault((str(one["instance"]), *apart), []).append(one)
    return [_group(host, mine) for mine in kinds.values()]


def _group(host: str, mine: Sequence[Mapping[str, Any]]) -> Group:
    first = mine[0]
    return Group(
        host=host,
        instance=str(first["instance"]),
        next_hop=str(first["next_hop"]),
        address=next((str(one["next_hop_address"]) for one in mine if one["next_hop_address"]), ""),
        port=int(first["next_hop_port"]),
        cause=first["cause"] if first["cause"] in WAIT_CAUSES else "unknown",
        count=len(mine),
        held=bool(first["held"]),
        next_try=min((str(one["next_try"]) for one in mine if one["next_try"]), default=""),
        reasons=tuple(dict.fromkeys(str(one["reason"]) for one in mine if one["reason"])),
    )


def waiting_hops(host: str, hostvars: HostVars, variable: str = "deferred_before") -> list[dict[str, Any]]:
    """Return the targets of starttls_probe on a host: the next hops of its mail that waits for want of TLS."""
    groups, _unknown, _failed = queue_groups([host], hostvars, variable)
    targets = {}
    for one in groups:
        if one.for_tls and (target := _target(one)):
            targets[target.host, target.port] = {"host": target.host, "port": target.port}
    return list(targets.values())


def _target(group: Group) -> Target | None:
    """Return the next hop as a target; None if it is no host name."""
    target = Target(group.next_hop, group.port)
    try:
        target.check()
    except TargetError:
        return None
    return target


def make_recovery(hosts: Sequence[str], hostvars: HostVars, groups: Mapping[str, Sequence[str]]) -> Recovery:
    """Return what brings both sides into an order that delivers. hosts: those of the run.

    Reads what the playbook registered on each host: deferred_before, verify_next_hops and mail_server_observed. Raises EngineError.
    """
    waiting, unknown, failed = queue_groups(hosts, hostvars, "deferred_before")
    gateways = [one for one in groups.get("mail_gateways") or () if one in hostvars]
    servers = [one for one in groups.get("mail_servers") or () if one in hostvars and one not in gateways]
    places = _Places(hosts, gateways, servers, hostvars)
    repairs = [places.repair(one) for one in waiting if one.for_tls]
    recovery = Recovery(waiting, repairs, unknown, tuple(failed))
    for host in recovery.hosts_of("on"):
        recovery.levels[host] = REQUIRED if host in recovery.hosts_of("off") else OPPORTUNISTIC
    return recovery


class _Places:
    """Who is who: the hosts of the run, and what of them the run can change."""

    def __init__(
        self, run: Collection[str], gateways: Sequence[str], servers: Sequence[str], hostvars: HostVars
    ) -> None:
        self._run = run
        self._gateways = gateways
        self._servers = servers
        self._hostvars = hostvars

    def repair(self, group: Group) -> Repair:
        """Return what a group needs."""
        test = self._test(group)
        if WAIT_CAUSES[group.cause].side == THIS_HOST:
            return self._of_sender(group, test)
        if test and _serves(test, group.cause):
            hint = ""
            if group.cause == "certificate":
                hint = f"the handshake test from {group.host} passes, so its mail server checks by other rules or roots"
            return Repair(group, flush=True, hint=hint)
        return self._of_acceptor(group, self._named(group))

    def _of_acceptor(self, group: Group, other: str) -> Repair:
        """The next hop has to accept TLS, or to serve another certificate."""
        what = "have it offer STARTTLS" if group.cause == "not_offered" else "give it a certificate and a key that pass"
        if not other:
            where = group.next_hop or "the next hop"
            return Repair(group, by_hand=f"{where} is no mail server or gateway of this inventory: {what}, {RUN_AGAIN}")
        if other not in self._run:
            return Repair(
                group, by_hand=f"{other} is not in this run: {what} by a run that has it, or by hand, {RUN_AGAIN}"
            )
        if other in self._servers:
            return self._by_server(group, "offer", other, what)
        kind = str(self._hostvars[other].get("starttls_kind") or DEFAULT_GATEWAY)
        if kind not in PRODUCTS or "accept" not in PRODUCTS[kind].capabilities:
            return Repair(
                group, by_hand=f"the gateway {other} accepts TLS in a way of its own: {what} there, {RUN_AGAIN}"
            )
        steps = [("accept", other)]
        if group.host in self._servers and group.cause == "not_offered" and self._goes_off(group.host):
            steps = [("off", group.host), *steps, ("on", group.host)]
        return Repair(group, tuple(steps), flush=True)

    def _of_sender(self, group: Group, test: Mapping[str, Any]) -> Repair:
        """This host has to use TLS, or the next hop must no longer require it."""
        other = self._named(group)
        if group.cause == "tls_unavailable":
            return Repair(group, by_hand=f"{group.host} cannot begin TLS: see its log, repair it, {RUN_AGAIN}")
        if test and test.get("requires_tls") is False and group.cause == "peer_requires":
            return Repair(group, flush=True)
        if group.host in self._servers:
            if test and test.get("completed"):
                return self._by_server(group, "on", group.host, "have it use TLS when it sends")
            return Repair(
                group, by_hand=f"{group.next_hop} requires TLS and completes no handshake: repair it there, {RUN_AGAIN}"
            )
        if other in self._servers and other in self._run and group.cause == "peer_requires":
            if self._hostvars[other].get("starttls_inbound") == REQUIRED:
                hint = f"{other} is to require TLS (starttls_inbound): run enable_tls, which has {group.host} deliver over TLS first"
                return Repair(group, flush=True, hint=hint)
            return self._by_server(group, "relax", other, "have it offer STARTTLS without requiring it")
        return Repair(
            group,
            by_hand=f"{group.next_hop} requires TLS, and {group.host} sends in plaintext: use a delivery mode or starttls_send "
            f"with TLS there, {RUN_AGAIN}",
        )

    def _by_server(self, group: Group, step: str, host: str, what: str) -> Repair:
        """Return the repair by a step on a mail server; by hand if that is not to be changed."""
        if is_left_unchanged(self._hostvars[host]):
            return Repair(
                group,
                by_hand=f"{host} is not to be changed (starttls_settings_only): {what} by the tool that writes its files, {RUN_AGAIN}",
            )
        return Repair(group, ((step, host),), flush=True)

    def _named(self, group: Group) -> str:
        """Return the inventory's name of the next hop; empty if it is none of its mail servers and gateways."""
        wanted = {group.next_hop.lower().rstrip("."), group.address.lower()} - {""}
        for host in (*self._gateways, *self._servers):
            facts = self._hostvars[host]
            names = {
                target_of(host, self._hostvars).host.lower(),
                host.lower(),
                str(facts.get("starttls_address") or "").lower(),
            }
            if wanted & names and host != group.host:
                return host
        return ""

    def _goes_off(self, host: str) -> bool:
        """Whether a mail server requires TLS when it sends, in the collection's words, and the inventory does not ask for that.

        One that is not to be changed keeps its level: its mail goes when the gateway accepts TLS.
        """
        if is_left_unchanged(self._hostvars[host]):
            return False
        observed = self._hostvars[host].get("mail_server_observed") or {}
        now = ((observed if isinstance(observed, Mapping) else {}).get("before") or {}).get("outbound")
        return now == REQUIRED and self._hostvars[host].get("starttls_outbound") != REQUIRED

    def _test(self, group: Group) -> Mapping[str, Any]:
        """Return the handshake test that this host made with the next hop; empty without one."""
        return next(iter(tests_with(self._hostvars[group.host].get("verify_next_hops"), group)), {})


def tests_with(probe: Any, group: Group) -> Iterator[Mapping[str, Any]]:
    """Yield the handshake tests of a registered result of starttls_probe with the next hop of a group."""
    results = probe.get("results") if isinstance(probe, Mapping) else None
    for one in results if isinstance(results, (list, tuple)) else ():
        if isinstance(one, Mapping) and (one.get("host"), one.get("port")) == (group.next_hop, group.port):
            yield one


def _serves(test: Mapping[str, Any], cause: str) -> bool:
    """Whether mail that waited for this cause goes now. A certificate check wants a certificate without an error."""
    if not test.get("completed"):
        return False
    findings = test.get("findings") or ()
    return cause != "certificate" or not failing([of_result(one) for one in findings], "error")


def ready_hops(host: str, hostvars: HostVars) -> list[str]:
    """Return the next hops of a host whose mail is tried again: those that complete a handshake now, after the steps."""
    plan = hostvars["localhost"].get("tls_recovery") or {}
    wanted = (plan.get("flush") or {}).get(host) or []
    facts = hostvars[host]
    groups, _unknown, _failed = queue_groups([host], hostvars, "deferred_before")
    probe = facts.get("verify_next_hops")
    served = {
        one.next_hop
        for one in groups
        for test in tests_with(probe, one)
        if _serves(test, one.cause) or WAIT_CAUSES[one.cause].side == THIS_HOST
    }
    return [one for one in wanted if one in served]


def step_failures(step: str, hostvars: HostVars) -> list[str]:
    """Return C(host: reason) of each host on which a step failed."""
    plan = hostvars["localhost"].get("tls_recovery") or {}
    found = []
    for host in (plan.get("steps") or {}).get(step) or ():
        result = hostvars[host].get(RECOVERY_RESULTS[step]) or {}
        if result.get("failed") or result.get("unreachable"):
            found.append(f"{host}: {result.get('msg') or 'it failed'}")
    return found
