# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivery modes on gateways whose API stores a TLS policy for each next hop.

Such a gateway is a Postfix with a table of smtp_tls_policy_maps behind an API. The gateway has no email configs. Its
routes map the domains to next hops, and the mode belongs to the next hop. A next hop is looked up exactly as the route
spells it, with brackets and port. An email config that is removed loses its entries in the table; the routes are the
product's own and stay. Source: postconf(5), transport(5).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Call, Calls, CallTransaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import Answers, Fault
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    GatewayState,
    is_absent,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

POLICY_LEVELS = {"plaintext": "none", "opportunistic": "may", "required": "encrypt"}
# Postfix's TLS level -> delivery mode. A stricter level of the wanted mode is kept.
MODE_OF = {
    "none": "plaintext",
    "may": "opportunistic",
    "dane": "opportunistic",
    "encrypt": "required",
    "dane-only": "required",
    "fingerprint": "required",
    "verify": "required",
    "secure": "required",
}
MIXED = "mixed"  # the domains of an email config have different modes, and no mode is wanted yet
BY_NEXT_HOP = "it chooses TLS by next hop and does not know how a message arrived"
_SERVICES = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}
_NEXT_HOP = re.compile(r"(?:\[(?:ipv6:)?([^\[\]]+)\]|([^\[\]:]+))(?::(\w+))?", re.IGNORECASE)


@dataclass(frozen=True)
class TlsPolicy:
    """An entry of the table. level: Postfix's TLS level. active: whether it is in use. entry: the API's identifier of it."""

    level: str
    attributes: str = ""
    active: bool = True
    entry: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.level} {self.attributes}".strip() + ("" if self.active else " (not active)")


@dataclass(frozen=True)
class Route:
    """The next hops of a route, spelled as in the route. fixed: the reason if their mode cannot be changed, else empty."""

    next_hops: tuple[str, ...]
    fixed: str = ""


@dataclass(frozen=True)
class Holdings:
    """The configuration of the gateway.

    domains: relay domains. routes: domain, .domain or address -> route. policies: next hop -> entry of the table.
    default: the route of the other relay domains, None for the MX of each. elsewhere: description of other mail -> its
    route. off: the reason if the table has no effect and all mail goes in plaintext, else empty.
    """

    domains: tuple[str, ...]
    routes: Mapping[str, Route]
    policies: Mapping[str, TlsPolicy]
    default: Optional[Route] = None
    elsewhere: Mapping[str, Route] = field(default_factory=dict)
    off: str = ""

    def relays(self, domain: str) -> bool:
        """Whether the gateway accepts mail from the internet for the domain."""
        return any(name in self.domains for name in (domain, *_parents(domain)))

    def route(self, domain: str) -> Route:
        """Return the route of mail for a domain."""
        for name in (domain, *_parents(domain), "*"):
            if name in self.routes:
                return self.routes[name]
        return self.default or Route(() if domain.startswith(".") else (domain,))

    def mode(self, next_hop: str) -> str:
        """Return the delivery mode of a next hop."""
        if self.off:
            return "plaintext"
        key = next_hop.lower()
        for name in (key, *(_parents(key) if is_domain(key) else ())):
            policy = self.policies.get(name)
            if policy and policy.active:
                return MODE_OF[policy.level]
        return "opportunistic"

    def mode_of(self, domains: Iterable[str]) -> str:
        """Return the common mode of the domains, or MIXED if they have several."""
        modes = {self.mode(hop) for domain in domains for hop in self.route(domain).next_hops}
        return modes.pop() if len(modes) == 1 else MIXED

    def sharing(self, next_hop: str, domains: Iterable[str]) -> Iterator[str]:
        """Yield the other domains and descriptions of mail that use the next hop, besides these domains."""
        routes = {name: self.route(name) for name in self.domains}
        routes.update((name, route) for name, route in self.routes.items())
        routes.update(self.elsewhere)
        for name, route in routes.items():
            own = name.rpartition("@")[2] in domains
            if not own and next_hop.lower() in (hop.lower() for hop in route.next_hops):
                yield name


class NextHopGateway:
    """The common part of the adapters. Each adapter implements holdings(), policies() and write()."""

    title: str
    modes: Sequence[str] = tuple(POLICY_LEVELS)
    verifying_modes: Sequence[str] = ()
    own_port: Optional[Target] = None
    softens_refusals = False
    limits: Mapping[str, str]
    keeps_names = False
    writes_attributes = True

    def __init__(self) -> None:
        """Prepare only; no request is made."""
        self._told: dict[str, Optional[TlsPolicy]] = {}
        self._leaving: dict[
            str, EmailConfig
        ] = {}  # email configs with state absent that still have entries of their own

    def holdings(self) -> Holdings:
        """Return the present configuration of the gateway. Raises EngineError."""
        raise NotImplementedError

    def policies(self) -> Mapping[str, TlsPolicy]:
        """Return the present table: next hop in lower case -> entry. Raises EngineError."""
        raise NotImplementedError

    def queued(self, domains: Collection[str]) -> Sequence[Waiting]:
        """Return the messages that wait for recipients in these domains, as the API lists them. Raises EngineError."""
        raise NotImplementedError

    def write(self, next_hop: str, held: Optional[TlsPolicy], wanted: Optional[TlsPolicy]) -> None:
        """Write one entry of the table, or delete it if wanted is None. Raises EngineError."""
        raise NotImplementedError

    def transaction(self, store: str) -> CallTransaction:
        """Return a transaction of API calls; nothing is stored on this host."""
        return CallTransaction()

    def read(self, wanted: Sequence[Mapping[str, Any]] = ()) -> GatewayState:
        """Return the wanted email configs with their present modes, or one for each relay domain if none are wanted.

        One with the state absent is left out if there is nothing to remove.
        """
        seen = self.holdings()
        self._leaving = {}
        if wanted:
            configs = [self._as_held(item, seen) for item in wanted if not is_absent(item)]
            leaving = (self._as_leaving(item, seen) for item in wanted if is_absent(item))
            self._leaving = {one.name: one for one in leaving if one}
            configs += self._leaving.values()
        else:
            configs = [
                EmailConfig(name, (name,), tuple(self._servers([name], seen)[0]), seen.mode_of([name]))
                for name in seen.domains
                if is_domain(name)
            ]
        return GatewayState({one.name: one for one in configs})

    def prepare(self, state: GatewayState) -> Calls:
        """Return an empty change."""
        return Calls(f"TLS policies of {self.title}")

    def plan(self, state: GatewayState) -> Calls:
        """Return the calls that set the state. Raises EngineError if a next hop would need two modes."""
        seen = self.holdings()
        self._told = {}
        owners: dict[str, EmailConfig] = {}
        spelled: dict[str, str] = {}
        for config in state.email_configs.values():
            for domain in config.domains if config.delivery_mode != MIXED else ():
                route = self._route(config.name, domain, seen)
                for hop in route.next_hops:
                    reason = seen.off or route.fixed
                    if reason and config.delivery_mode != seen.mode(hop):
                        raise EngineError(
                            f"email config {config.name}: {config.delivery_mode} is refused, because {reason}"
                        )
                    other = owners.setdefault(hop.lower(), config)
                    spelled.setdefault(hop.lower(), hop)
                    if other.delivery_mode != config.delivery_mode:
                        raise EngineError(
                            f"{self.title} cannot tell the email configs {other.name} and {config.name} apart: both use "
                            f"{hop}, and it chooses TLS by next hop. Give both the same mode, or one a next hop of its own"
                        )
        domains = {
            one for config in state.email_configs.values() if config.delivery_mode != MIXED for one in config.domains
        }
        calls = [
            self._call(spelled[key], config, domains, seen)
            for key, config in owners.items()
            if seen.mode(key) != config.delivery_mode
        ]
        for name, config in self._leaving.items():
            if name not in state.email_configs:
                calls += [
                    self._removal(hop, config, seen)
                    for hop in self._own_hops(config.domains, seen)
                    if hop.lower() not in owners
                ]
        return Calls(f"TLS policies of {self.title}", tuple(calls))

    def next_hops(self, domain: str, state: GatewayState) -> Sequence[Target]:
        """Return none: only enforced domains need them, and these gateways have none."""
        return ()

    def roots(self, state: GatewayState) -> str:
        """Return an empty path: only enforced domains need one, and these gateways have none."""
        return ""

    def relay_hosts(self) -> Sequence[Target]:
        """Raise EngineError: the outbound side of these gateways cannot be set."""
        raise EngineError(f"{self.title} has no outbound side that can be set: {self.limits['outbound']}")

    def accepts(self, domains: Sequence[str]) -> Mapping[str, Optional[bool]]:
        """Return whether the gateway relays mail for these domains, read with one look at its configuration."""
        seen = self.holdings() if domains else None
        return {one: seen.relays(one) for one in domains} if seen else {}

    def delivers(self, domains: Sequence[str]) -> Mapping[str, Optional[str]]:
        """Return the mode of each domain's next hops, as the API has them; None if they have several."""
        seen = self.holdings() if domains else None
        modes = {one: seen.mode_of([one]) for one in domains} if seen else {}
        return {one: None if mode == MIXED else mode for one, mode in modes.items()}

    def in_force(self, state: GatewayState) -> Answers:
        """Return nothing: these gateways have no enforced domains and no outbound side."""
        return {}

    def faults(self, state: GatewayState) -> Sequence[Fault]:
        """Return none: delivers() reads the modes where they are kept."""
        return ()

    def files(self) -> Sequence[str]:
        """Return none: the API holds the configuration."""
        return []

    def serves(self) -> bool:
        """Return true: if the API answers, the gateway runs."""
        return True

    def prove(self) -> None:
        """Raise EngineError unless the API returns the policies that were written."""
        held = self.policies()
        for hop, policy in self._told.items():
            if held.get(hop.lower()) != policy:
                raise EngineError(
                    f"{self.title} holds the TLS policy {held.get(hop.lower()) or '(none)'} for {hop}, "
                    f"although {policy or '(none)'} was written"
                )

    def _call(self, hop: str, config: EmailConfig, domains: Iterable[str], seen: Holdings) -> Call:
        others = sorted(seen.sharing(hop, domains))
        if others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            raise EngineError(
                f"email config {config.name}: {self.title} cannot tell its mail apart from that of {', '.join(others[:3])}"
                f"{more}, because all of it uses {hop} and it chooses TLS by next hop. Name those domains in an email "
                "config as well, or give one side a next hop of its own"
            )
        old = seen.policies.get(hop.lower())
        self._refuse_attributes(config, hop, old)
        new = TlsPolicy(POLICY_LEVELS[config.delivery_mode])
        return Call(
            hop,
            str(old or "(none)"),
            str(new),
            lambda: self._swap(hop, (old,), new),
            lambda: self._swap(hop, (old, new), old, undo=True),
        )

    def _removal(self, hop: str, config: EmailConfig, seen: Holdings) -> Call:
        old = seen.policies[hop.lower()]
        self._refuse_attributes(config, hop, old)
        return Call(
            hop,
            str(old),
            "(none)",
            lambda: self._swap(hop, (old,), None),
            lambda: self._swap(hop, (old, None), old, undo=True),
        )

    def _refuse_attributes(self, config: EmailConfig, hop: str, old: Optional[TlsPolicy]) -> None:
        if old and old.attributes and not self.writes_attributes:
            raise EngineError(
                f"email config {config.name}: {self.title} holds the TLS policy {str(old)!r} for {hop}, which its API "
                "cannot write back if the change fails. Change it in its own interface"
            )

    @staticmethod
    def _own_hops(domains: Collection[str], seen: Holdings) -> list[str]:
        """Return the next hops with an entry in the table that no mail uses except that for these domains."""
        hops = dict.fromkeys(hop for domain in domains for hop in seen.route(domain).next_hops)
        return [hop for hop in hops if hop.lower() in seen.policies and not any(seen.sharing(hop, domains))]

    def _as_leaving(self, item: Mapping[str, Any], seen: Holdings) -> Optional[EmailConfig]:
        """Return an email config with the state absent as it is now; None if there is nothing to remove. Raises EngineError."""
        name = str(item.get("name") or "")
        domains = item.get("domains") or ([name] if name.lower() in seen.domains else [])
        if not domains:
            raise EngineError(
                f"email config {name!r}: {self.title} stores no names of email configs, so leave its domains beside state absent"
            )
        asked = EmailConfig.from_dict({"name": name, "domains": domains, "servers": domains[:1]})
        if not self._own_hops(asked.domains, seen):
            return None
        return EmailConfig(
            name, asked.domains, tuple(self._servers(asked.domains, seen)[0]), seen.mode_of(asked.domains)
        )

    def _swap(
        self, hop: str, known: Sequence[Optional[TlsPolicy]], wanted: Optional[TlsPolicy], undo: bool = False
    ) -> None:
        """Write an entry. Raises EngineError if somebody else has changed it since; their edit is kept."""
        held = self.policies().get(hop.lower())
        if held not in known:
            if undo and hop not in self._told:
                return
            raise EngineError(
                f"the TLS policy for {hop} on {self.title} has been changed to {held or '(none)'} by somebody else in the "
                "meantime; see which one is wanted, then run again"
            )
        if held != wanted:
            self.write(hop, held, wanted)
        self._told[hop] = wanted

    def _as_held(self, item: Mapping[str, Any], seen: Holdings) -> EmailConfig:
        """Return a wanted email config with the mode that it has on the gateway now. Raises EngineError."""
        name = str(item.get("name") or "")
        domains = item.get("domains") or ([name] if name.lower() in seen.domains else [])
        if not domains:
            raise EngineError(
                f"email config {name!r}: {self.title} stores no names of email configs. Give its domains as well, or name it "
                "after its one relay domain"
            )
        given = item.get("servers") or []
        asked = EmailConfig.from_dict({"name": name, "domains": domains, "servers": given or domains[:1]})
        for domain in asked.domains:
            if not seen.relays(domain):
                raise EngineError(
                    f"email config {name}: {domain} is not a relay domain of {self.title}, so the gateway accepts no mail "
                    "for it; add it there first"
                )
            self._route(name, domain, seen)
        found, unknown = self._servers(asked.domains, seen)
        if not given:
            if unknown:
                raise EngineError(
                    f"email config {name}: {self.title} hands mail for {', '.join(unknown)} to the MX of the domain. Name "
                    "those hosts in servers, so that they can be tested"
                )
            return EmailConfig(name, asked.domains, tuple(found), seen.mode_of(asked.domains))
        routed, wanted = {_sameness(one) for one in found}, {_sameness(one) for one in asked.servers}
        if not (routed < wanted if unknown else routed == wanted):
            raise EngineError(
                f"email config {name}: {self.title} hands its mail to {', '.join(map(str, found)) or 'the MX of its domains'}"
                f"{' and the MX of ' + ', '.join(unknown) if found and unknown else ''}, not to "
                f"{', '.join(map(str, asked.servers))}. Correct the route there, or the servers here"
            )
        return EmailConfig(name, asked.domains, asked.servers, seen.mode_of(asked.domains))

    def _route(self, name: str, domain: str, seen: Holdings) -> Route:
        route = seen.route(domain)
        if not route.next_hops:
            raise EngineError(
                f"email config {name}: the next hop of mail for {domain} is unknown, because {route.fixed or 'its route is empty'}"
            )
        return route

    def _servers(self, domains: Iterable[str], seen: Holdings) -> tuple[list[Target], list[str]]:
        """Return the hosts that receive mail for the domains, and the domains whose mail goes to their MX."""
        found: dict[Target, None] = {}
        unknown = []
        for domain in domains:
            for hop in seen.route(domain).next_hops:
                server = self._server(hop, domain)
                if server:
                    found[server] = None
                else:
                    unknown.append(domain)
        return list(found), unknown

    def _server(self, hop: str, domain: str) -> Optional[Target]:
        match = _NEXT_HOP.fullmatch(hop)
        exact, looked_up, port = match.groups() if match else ("", "", "")
        if looked_up and looked_up.lower() == domain:
            return None
        try:
            target = Target((exact or looked_up or "").lower(), _SERVICES.get(port or "smtp") or int(port))
            target.check()
        except (TargetError, ValueError):
            raise EngineError(
                f"the next hop {hop!r} of {domain} on {self.title} cannot be understood; write it there as [host]:port"
            ) from None
        return target


def _parents(domain: str) -> Iterator[str]:
    """Yield the .parent names that cover a domain in a Postfix table, the nearest first."""
    while "." in domain.lstrip("."):
        domain = domain.lstrip(".").partition(".")[2]
        yield f".{domain}"


def _sameness(server: Target) -> tuple[str, int]:
    try:
        return str(ipaddress.ip_address(server.host)), server.port
    except ValueError:
        return server.host.rstrip("."), server.port
