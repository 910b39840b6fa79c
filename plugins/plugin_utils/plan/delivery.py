# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the gateways deliver, as they were read, beside what the inventory wants. What could not be read is unknown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import of_config
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Delivery, Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.observation import (
    GatewayView,
    HeldConfig,
    Observation,
    Unread,
    bare,
    read_result,
)

NO_GATEWAY, NOT_KNOWN, OUTSIDE, ITSELF = "no gateway", "unknown", "not in this run", "gateway itself"
"""What stands in the place of a delivery mode."""
BY_HAND = " (by hand)"
"""Follows a mode that somebody has set and confirmed, at a gateway that is not in the inventory. Nothing was read there."""


def extra_configs(view: GatewayView, estate: Estate, hosts_of: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the email configs that a gateway routes and the inventory lacks: it was removed there, or its name is misspelt.

    hosts_of: C(host:port), in lower case and without a dot at its end -> inventory name.
    """
    names = {one.config.name for one in estate.deliveries} | {one.name for one in estate.removals}
    owners = {domain: one.config.name for one in estate.deliveries for domain in one.config.domains}
    for name, held in view.configs.items() if view.keeps_names else ():
        if name in names:
            continue
        where = ", ".join(held.domains)
        what = f"the gateway routes the email config {name} ({where}) in the mode '{held.mode}', and the inventory lacks it"
        others = list(dict.fromkeys(owners.get(domain, "") for domain in held.domains))
        if others and all(others):
            advice = (
                f"its domains are in the email config {', '.join(others)} of the inventory: correct the name there, or run enable_tls, "
                "which moves them"
            )
        else:
            advice = f"add it to email_configs, or remove it: run enable_tls with this line there: - {_lines(name, held, hosts_of)}"
        yield Finding.advised("email_config_extra", what, advice)


def _lines(name: str, held: HeldConfig, hosts_of: Mapping[str, str]) -> str:
    """Return the entry of email_configs that removes an email config. JSON in a line is YAML, whatever the names are."""
    servers = [hosts_of.get(bare(server), server) for server in held.servers]
    return json.dumps({"name": name, "domains": list(held.domains), "servers": servers, "state": "absent"})


def changed_by_hand(view: GatewayView) -> Iterator[Finding]:
    """Yield where the daemon does not do what the collection once set: as the gateway says, and by the modes that it shows."""
    yield from (finding for _what, finding in view.differences)
    for name, held in view.configs.items():
        if view.differs(of_config(name)):
            continue
        for mode, domains in _differing(view, held.domains, held.mode).items():
            where = ", ".join(domains)
            what = f"email config {name}: the mode '{held.mode}' was set, and the gateway delivers {where} in the mode '{mode}'"
            yield Finding.advised("delivery_mode_differs", what)


def _differing(view: GatewayView, domains: Sequence[str], wanted: str) -> dict[str, list[str]]:
    """Return mode -> the domains that are delivered in it, where it is known and another one. Enforced domains have their own level."""
    found: dict[str, list[str]] = {}
    for domain in domains:
        mode = view.delivered.get(domain)
        if mode and mode != wanted and domain not in view.enforced:
            found.setdefault(mode, []).append(domain)
    return found


@dataclass(frozen=True)
class Routing:
    """What the gateways of an inventory say of the delivery. seen: gateway -> its read; None if it is not in the run.

    confirmed: whether somebody has set the modes by hand, where there is no gateway.
    """

    estate: Estate
    seen: Mapping[str, Optional[Union[Observation, Unread]]]
    confirmed: bool = False

    @classmethod
    def of(
        cls, estate: Estate, results: Mapping[str, Any], gateways: Sequence[str], confirmed: bool = False
    ) -> Routing:
        """Read what each gateway of the inventory said. results: gateway -> the result of the newest read."""
        run = set(estate.hosts)
        return cls(
            estate,
            {
                one: None if run and one not in run and not results.get(one) else read_result(results.get(one))
                for one in gateways
            },
            confirmed,
        )

    @property
    def views(self) -> dict[str, GatewayView]:
        """Gateway -> its part, for those that could be read."""
        return {name: one.gateway for name, one in self.seen.items() if isinstance(one, Observation) and one.is_gateway}

    def modes(self, host: str, target: str) -> list[str]:
        """Return the delivery modes in which mail comes to a mail server, each once, or the reason why none is known.

        target: C(host:port) at which the gateways reach it. Empty if no email config names it.
        """
        mine = [one for one in self.estate.deliveries if host in one.hosts]
        if not self.seen:
            wished = self.estate.modes_of(host) if self.confirmed else []
            return [f"{one}{BY_HAND}" for one in wished] or [NO_GATEWAY]
        found: list[str] = []
        own = {domain for one in mine if not one.is_routed for domain in one.config.domains}
        for view in self.views.values():
            held = [one for one in view.configs.values() if bare(target) in map(bare, one.servers)]
            domains = [domain for one in mine for domain in one.config.domains]
            domains += [domain for one in held for domain in one.domains]
            found += [
                view.delivered.get(domain) or (ITSELF if domain in own else NOT_KNOWN)
                for domain in dict.fromkeys(domains)
            ]
        if mine and len(self.views) < len(self.seen):
            outside = [one for one in self.seen.values() if one is None]
            found += [OUTSIDE] * bool(outside) + [NOT_KNOWN] * (len(self.views) + len(outside) < len(self.seen))
        return list(dict.fromkeys(found))

    def of_host(self, host: str) -> list[Finding]:
        """Return what differs from the inventory in the delivery to a mail server."""
        found: list[Finding] = []
        for delivery in self.estate.deliveries:
            if host in delivery.hosts:
                for gateway, view in self.views.items():
                    found += self._on_gateway(delivery, gateway, view)
                found += self._unread(delivery)
        return found

    def of_gateway(self, gateway: str, hosts_of: Mapping[str, str], whole: bool = True) -> list[Finding]:
        """Return what is to be said of a gateway itself. whole: whether the estate has all email configs of the inventory.

        Email configs none of whose mail servers is in the run have no other row.
        """
        view = self.views.get(gateway)
        if view is None:
            return []
        run = set(self.estate.hosts)
        found = [finding for _what, finding in view.differences]
        found += extra_configs(view, self.estate, hosts_of) if whole else []
        for delivery in self.estate.deliveries:
            config = delivery.config
            refused = [domain for domain in config.domains if view.accepted.get(domain) is False]
            if refused:
                what = f"email config {config.name}: the gateway takes no mail for {', '.join(refused)}"
                found.append(Finding.advised("domain_not_accepted", what))
            if run and not run & set(delivery.hosts):
                found += self._on_gateway(delivery, gateway, view)
        return found

    def _unread(self, delivery: Delivery) -> Iterator[Finding]:
        for gateway, seen in self.seen.items():
            if seen is not None and gateway not in self.views:
                why = seen.message if isinstance(seen, Unread) else "its state cannot be read"
                what = (
                    f"email config {delivery.config.name}: the delivery mode on the gateway {gateway} is unknown: {why}"
                )
                yield Finding.advised("delivery_mode_unknown", what)

    @staticmethod
    def _on_gateway(delivery: Delivery, gateway: str, view: GatewayView) -> Iterator[Finding]:
        config = delivery.config
        wanted = config.delivery_mode
        for mode, domains in _differing(view, config.domains, wanted).items() if delivery.names_mode else ():
            what = (
                f"email config {config.name}: the inventory wants the mode '{wanted}', and the gateway {gateway} delivers "
                f"{', '.join(domains)} in the mode '{mode}'"
            )
            yield Finding.advised("delivery_mode_differs", what)
        unknown = [one for one in config.domains if not view.delivered.get(one) and one not in view.enforced]
        if unknown and delivery.is_routed and not view.differs(of_config(config.name)):
            what = f"email config {config.name}: the gateway {gateway} does not tell the mode in which it delivers {', '.join(unknown)}"
            yield Finding.advised("delivery_mode_unknown", what)

    def domains(self) -> dict[str, str]:
        """Return recipient domain -> delivery mode: that of a gateway, else the one that the inventory names."""
        found = dict(self.estate.domains)
        for view in self.views.values():
            found.update({domain: mode for domain, mode in view.delivered.items() if mode})
        return found


def known_modes(modes: Sequence[str], wished: Sequence[str]) -> list[str]:
    """Return the modes by which messages are judged: those of the gateways, or the wished ones as long as not all are known."""
    return list(modes) if modes and all(one in MODES for one in modes) else list(wished)
