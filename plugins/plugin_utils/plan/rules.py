# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the fleet shows: evidence that is missing between hosts, changes that are needed outside the run, and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Delivery
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.listeners import loopback_only
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.delivery import changed_by_hand, extra_configs
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.fleet import Fleet
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import (
    NextHop,
    Observation,
    SeenServer,
    bare,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import (
    CERTIFICATES_ONLY,
    GATEWAY,
    IN_PART,
    MAIL_SERVER,
    Located,
)

HANDSHAKE_CPU_MS = 2.0
"""Milliseconds of CPU that TLS adds to one session of a mail server: an upper estimate, because a busy server has to be warned of too
early rather than too late. Measured with OpenSSL 3: an RSA-2048 signature takes 0.3 ms on a current core (openssl speed rsa2048); the
client's side of a whole handshake test takes 1.1 ms (docs/bench.md). Older cores and 4096 bit keys take several times that.
"""
BUSY_SHARE = 0.2
"""The share of one core for TLS from which on a mail server counts as busy: with the estimate above, 100 sessions a second. A choice."""
BUSY_MODES = ("opportunistic", "required")
"""The delivery modes that use TLS for mail that arrived in plaintext, too. The others follow the sender."""


_EVIDENCE = ("server_without_starttls", "next_hop_without_starttls", "outside_limit", "server_below_floor")
"""What a host may do without by starttls_require_without_evidence."""


def between_hosts(fleet: Fleet) -> Iterator[tuple[Located, bool]]:
    """Yield what stands in the way between the hosts, each with whether the host that insists on TLS waives the evidence."""
    if fleet.action in CERTIFICATES_ONLY:
        return
    for gateway in fleet.of_run(GATEWAY):
        seen = fleet.observation(gateway)
        for delivery in fleet.estate.deliveries if seen else ():
            if seen:
                for one in _Route(fleet, gateway, seen, delivery).obstacles():
                    yield one, waives(fleet, gateway, one)
    if fleet.action == "set_delivery_mode":
        yield from ((one, False) for one in _gateways_that_keep_their_mode(fleet))
    if fleet.action == "enable":
        for host, one in _next_hops(fleet):
            yield one, waives(fleet, host, one)
        yield from ((one, False) for one in _required_behind_others(fleet))
    if fleet.switches_off:
        for rule in (_gateways_left_outside, _mail_servers_left_outside, _kept_modes):
            yield from ((one, False) for one in rule(fleet))


def waives(fleet: Fleet, host: str, one: Located) -> bool:
    """Whether starttls_require_without_evidence of the host turns an obstacle into a warning."""
    return not fleet.switches_off and one.finding.code in _EVIDENCE and host in fleet.request.without_evidence


class _Route:
    """One email config on one gateway."""

    def __init__(self, fleet: Fleet, gateway: str, seen: Observation, delivery: Delivery) -> None:
        self.fleet, self.gateway, self.seen, self.delivery = fleet, gateway, seen, delivery
        self.mode = fleet.mode(delivery, seen)
        self.levels = LEVELS[self.mode]
        self.what = f"email config {delivery.config.name}"

    def obstacles(self) -> Iterator[Located]:
        """Yield the obstacles on the gateway, then those of each mail server."""
        view = self.seen.gateway
        told = any(one.code == "mode_not_expressible" for one in self.seen.obstacles)
        if self.delivery.names_mode and view.modes is not None and self.mode not in view.modes and not told:
            reason = view.limits.get(self.mode)
            yield self._at(
                self.gateway,
                "mode_not_expressible",
                f"{self.what}: the gateway cannot express '{self.mode}'{f': {reason}' if reason else ''}",
                f"choose one of: {', '.join(view.modes)}",
            )
        if not self.fleet.switches_off:
            refused = [domain for domain in self.delivery.config.domains if view.accepted.get(domain) is False]
            if refused:
                yield self._at(
                    self.gateway,
                    "domain_not_accepted",
                    f"{self.what}: the gateway takes no mail for {', '.join(refused)}",
                )
        held = self.delivery.config.name in view.configs
        if self.gateway in self.delivery.gateways:
            told = any(one.code == "mail_would_loop" and f"{self.what}:" in one.message for one in self.seen.obstacles)
            if not self.fleet.switches_off and not told and (self.delivery.names_mode or held):
                yield self._loop()
        elif self.delivery.is_routed or held:
            for server, host, test in self.fleet.servers(self.delivery, self.seen):
                yield from self._server(server, host, test)

    def _loop(self) -> Located:
        name = self.delivery.config.name
        what = f"{self.what}: {self.gateway} is this gateway itself, so mail in the mode '{self.mode}' would loop back and bounce"
        if self.delivery.names_mode:
            advice = (
                f"leave delivery_mode of {name} away in email_configs, then {self.gateway} delivers its mail as before; or take "
                f"{self.gateway} out of servers of {name}"
            )
        else:
            advice = (
                f"{self.gateway} still has that route: run enable_tls once with state: absent in the entry of {name}"
            )
        return self._at(self.gateway, "mail_would_loop", what, advice)

    def _server(self, server: Target, host: str, test: Optional[SeenServer]) -> Iterator[Located]:
        there = self.fleet.observation(host)
        if self.fleet.is_unread(host) or (there and not there.answers):
            return  # the host itself says more than a test from elsewhere
        if test and not test.reached:
            code = "name_not_resolved" if test.unresolved else "server_not_reachable"
            what = "cannot resolve the name of" if test.unresolved else "cannot reach"
            yield self._at(host, code, f"the gateway {self.gateway} {what} the mail server {server}: {test.message}")
            return
        lacking = self._lacks_starttls(test, there, host)
        if lacking:
            if host not in self.fleet.seen and self.fleet.action == "enable" and host:
                what = f"it is not in this run, and {self.what} needs STARTTLS on {server} for '{self.mode}'"
                yield self._at(host, "outside_limit", f"{what}: seen from the gateway {self.gateway}, {lacking}")
            else:
                where = f"{server}, seen from the gateway {self.gateway}"
                what = f"{self.what}: '{self.mode}' needs a handshake with {where}"
                yield self._at(host, "server_without_starttls", f"{what}: {lacking}")
        elif self._refuses_plaintext(test, there, host):
            yield self._refusal(server, host)

    def _lacks_starttls(self, test: Optional[SeenServer], there: Optional[Observation], host: str) -> str:
        """Return why TLS would fail that the mode uses; empty if it would not, or if the mail server gets it in this run."""
        if host in self.fleet.closing:
            return "it had no TLS before the workflow, and goes back to that" if "required" in self.levels else ""
        held = self.seen.gateway.configs.get(self.delivery.config.name)
        if self.fleet.action == "undo" and held and "required" in LEVELS.get(held.mode, ()):
            return ""  # it insists already, so this is no new risk
        if (test and test.completed) or (there and there.gets_starttls and "offer" in self.fleet.steps(host)):
            return ""
        if "required" in self.levels:
            if test is None and there and there.before[0] in ("offered", "required"):
                return ""
            return test.message if test else "no handshake was tested"
        if "opportunistic" in self.levels and test and test.advertised:
            return f"it offers STARTTLS, and then {test.message}"
        return ""

    def _refuses_plaintext(self, test: Optional[SeenServer], there: Optional[Observation], host: str) -> bool:
        """Return whether the mode may deliver in plaintext to a mail server that takes mail over TLS only after this run."""
        if self.levels[0] == "required" or (self.levels[0] == "opportunistic" and test and test.completed):
            return False
        if there is None:
            return bool(test and test.requires_tls)
        steps = self.fleet.steps(host)
        if self.fleet.action == "enable" and (there.needs_change or "require" in steps):
            return "require" in steps or there.after[0] == "required"
        return "relax" not in steps and (there.before[0] == "required" or bool(test and test.requires_tls))

    def _refusal(self, server: Target, host: str) -> Located:
        lost = "deferred" if self.seen.gateway.softens else "bounced"
        what = f"{self.what}: {server} takes mail over TLS only, and '{self.mode}' may deliver to it in plaintext, so mail would be {lost}"
        if self.fleet.switches_off and host not in self.fleet.seen:
            return self._at(host, "outside_limit", f"{what}; it is not in this run")
        return self._at(host, "server_requires_tls", what)

    def _at(self, host: str, code: str, what: str, advice: str = "") -> Located:
        return Located(host, Finding.advised(code, what, advice))


def _next_hops(fleet: Fleet) -> Iterator[tuple[str, Located]]:
    """Yield the mail servers that are to send over TLS only, with what stands in the way at a next hop."""
    for host in fleet.of_run(MAIL_SERVER):
        seen = fleet.observation(host)
        if not seen or seen.after[1] != "required" or seen.before[1] == "required":
            continue
        for hop in seen.next_hops:
            gateway = fleet.host_at(hop.host, hop.port)
            there = fleet.observation(gateway)
            if hop.completed or fleet.is_unread(gateway) or (there and there.gets_starttls):
                continue
            if hop.completed is None and _seen_by_another(fleet, hop):
                continue
            said = hop.message or "no handshake is completed"
            if gateway and gateway not in fleet.seen:
                what = f"it is not in this run, and {host} is to send to it over TLS only: {said}"
                yield host, Located(gateway, Finding.advised("outside_limit", what))
            else:
                what = f"it is to send over TLS only to its next hop {hop.host}:{hop.port}: {said}"
                yield host, Located(host, Finding.advised("next_hop_without_starttls", what))


def _seen_by_another(fleet: Fleet, hop: NextHop) -> bool:
    """Return whether a host of the run completed a handshake with a next hop of one that makes no tests itself."""
    tests = (seen.servers.get((hop.host, hop.port)) for seen in fleet.seen.values() if isinstance(seen, Observation))
    return any(test.completed for test in tests if test)


def _gateways_that_keep_their_mode(fleet: Fleet) -> Iterator[Located]:
    """Yield the gateways outside the run, where the mode would stay as it is; or that there is no gateway at all."""
    names = ", ".join(one.config.name for one in fleet.estate.deliveries)
    yield from _outside(fleet, f"the delivery mode of {names} would stay as it is there")
    if not fleet.gateways:
        what = f"there is no gateway in the inventory, so nothing sets the delivery mode of {names}"
        yield Located("", Finding.advised("no_gateway", what))


def _required_behind_others(fleet: Fleet) -> Iterator[Located]:
    """Yield the gateways outside the run, from which mail servers would take mail over TLS only after it."""
    hosts = [host for host in fleet.of_run(MAIL_SERVER) if "require" in fleet.steps(host)]
    if hosts:
        yield from _outside(
            fleet, f"{_names(hosts)} will take mail over TLS only, and this gateway may still deliver in plaintext"
        )
        if not fleet.gateways and not fleet.by_hand:
            what = f"{_names(hosts)} will take mail over TLS only, and no gateway of the inventory delivers to them in the mode 'required'"
            for host in hosts:
                if host not in fleet.request.without_evidence:
                    yield Located(host, Finding.advised("no_gateway", what))


def _gateways_left_outside(fleet: Fleet) -> Iterator[Located]:
    """Yield the gateways outside the run, which may insist on TLS towards mail servers that switch it off."""
    served = {host for one in fleet.estate.deliveries for host in one.hosts}
    every = fleet.action in IN_PART  # its estate does not say whom the gateways deliver to
    hosts = [host for host in fleet.of_run(MAIL_SERVER) if (every or host in served) and host in fleet.closing]
    if hosts:
        yield from _outside(fleet, f"{_names(hosts)} switch TLS off, and this gateway may still insist on it")


def _mail_servers_left_outside(fleet: Fleet) -> Iterator[Located]:
    """Yield the mail servers outside the run that send over TLS only, to gateways that stop accepting it."""
    gateways = [host for host in fleet.of_run(GATEWAY) if {"stop_accepting", "remove"} & set(fleet.steps(host))]
    for host in fleet.request.groups.get("mail_servers") or () if gateways else ():
        if host not in fleet.seen and fleet.request.outbound.get(host) == "required":
            what = f"it is not in this run and sends over TLS only, and {_names(gateways)} will not accept TLS any more"
            yield Located(host, Finding.advised("outside_limit", what))


def _outside(fleet: Fleet, why: str) -> Iterator[Located]:
    for gateway in fleet.gateways:
        if gateway not in fleet.seen:
            yield Located(gateway, Finding.advised("outside_limit", f"it is not in this run: {why}"))


def _kept_modes(fleet: Fleet) -> Iterator[Located]:
    """Yield the email configs that the inventory lacks, whose mode insists on TLS towards a mail server that switches it off."""
    servers = [host for host in fleet.of_run(MAIL_SERVER) if host in fleet.closing]
    off = {bare(fleet.request.targets.get(host, host)): host for host in servers}
    for gateway in fleet.of_run(GATEWAY):
        seen = fleet.observation(gateway)
        for name, held in seen.gateway.configs.items() if seen else ():
            hosts = [off[bare(server)] for server in held.servers if bare(server) in off]
            if hosts and name not in fleet.configs and "required" in LEVELS.get(held.mode, ()):
                which = "which this workflow did not change" if fleet.action == "undo" else "which the inventory lacks"
                what = f"email config {name}, {which}, is delivered to {_names(hosts)} in the mode '{held.mode}'"
                advice = "add it to email_configs, so that this run takes its mode back first"
                if fleet.action == "undo":
                    advice = (
                        f"set another mode for {name} first (set_delivery_mode.yml), or let {_names(hosts)} keep TLS"
                    )
                yield Located(gateway, Finding.advised("server_without_starttls", what, advice))


def _names(hosts: list[str], most: int = 5) -> str:
    more = len(hosts) - most
    return ", ".join(hosts[:most]) + (f" and {more} more" if more > 0 else "")


def warnings(fleet: Fleet) -> Iterator[Located]:
    """Yield what stops nothing and should be known before the run."""
    for host in fleet.seen:
        seen = fleet.observation(host)
        if seen and seen.interrupted and all(one.code != "interrupted_run" for one in seen.notes):
            yield Located(host, Finding.advised("interrupted_run", "a run was killed during a change of this host"))
        port = _port(fleet.request.targets.get(host, host))
        if seen and not fleet.switches_off and port in seen.loopback_ports and not seen.send_only:
            yield Located(host, loopback_only(port))
    if fleet.action not in IN_PART:
        yield from _as_the_gateways_are(fleet)
    yield from _still_taken(fleet)
    if fleet.action == "enable":
        yield from _relays_in_plaintext(fleet)
    if not fleet.switches_off:
        yield from _busy(fleet)


def _relays_in_plaintext(fleet: Fleet) -> Iterator[Located]:
    """Yield the send-only hosts whose relay completes no handshake, and will not after this run. Those that insist are refused."""
    for host in fleet.of_run(MAIL_SERVER):
        seen = fleet.observation(host)
        if not seen or not seen.send_only or seen.after[1] != "opportunistic":
            continue
        for hop in seen.next_hops:
            there = fleet.observation(fleet.host_at(hop.host, hop.port))
            if not hop.completed and not (there and there.gets_starttls):
                what = f"its relay {hop.host}:{hop.port}: {hop.message or 'no handshake is completed'}"
                yield Located(host, Finding.advised("relay_without_tls", what))


def _port(target: str) -> int:
    try:
        return Target.parse(target).port
    except TargetError:
        return 25


def _as_the_gateways_are(fleet: Fleet) -> Iterator[Located]:
    """Yield where a gateway is another than the inventory, or than the collection left it."""
    hosts_of = {bare(target): host for host, target in fleet.request.targets.items()}
    for gateway in fleet.of_run(GATEWAY):
        seen = fleet.observation(gateway)
        if seen:
            yield from (Located(gateway, one) for one in extra_configs(seen.gateway, fleet.estate, hosts_of))
            yield from (Located(gateway, one) for one in changed_by_hand(seen.gateway))


def _still_taken(fleet: Fleet) -> Iterator[Located]:
    """Yield the domains of removed email configs that a gateway still takes mail for: it then takes the gateway's own routes."""
    for gateway in fleet.of_run(GATEWAY):
        seen = fleet.observation(gateway)
        for removal in fleet.estate.removals if seen else ():
            held = seen.gateway.configs.get(removal.name) if seen else None
            domains = held.domains if held else ()
            taken = [domain for domain in domains if seen and seen.gateway.accepted.get(domain)]
            if taken and not any(set(taken) & set(one.config.domains) for one in fleet.estate.deliveries):
                what = (
                    f"email config {removal.name} is removed, and the gateway still takes mail for {', '.join(taken)}: it then takes the "
                    "gateway's own routes, and bounces where they lead back to it"
                )
                yield Located(gateway, Finding.advised("removed_domain_accepted", what))


def _busy(fleet: Fleet) -> Iterator[Located]:
    """Yield the busy mail servers whose delivery mode becomes one that uses TLS for everything."""
    becoming: dict[str, str] = {}
    for gateway in fleet.of_run(GATEWAY):
        seen = fleet.observation(gateway)
        for delivery in fleet.estate.deliveries if seen else ():
            if seen and (mode := fleet.mode(delivery, seen)) in BUSY_MODES:
                held = seen.gateway.configs.get(delivery.config.name)
                if held is None or held.mode not in BUSY_MODES:
                    becoming.update(dict.fromkeys(delivery.hosts, mode))
    for host, mode in becoming.items():
        there = fleet.observation(host)
        sessions = there.sessions_an_hour if there else None
        share = (sessions or 0.0) * HANDSHAKE_CPU_MS / 3_600_000
        if sessions is not None and share > BUSY_SHARE:
            what = (
                f"'{mode}' uses TLS for all mail, and this mail server has {sessions:.0f} sessions an hour: at {HANDSHAKE_CPU_MS:g} ms of "
                f"CPU each that is {share:.0%} of a core (from {BUSY_SHARE:.0%} on this is a warning)"
            )
            yield Located(host, Finding.advised("busy_server", what))
