# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivery modes of email configs on a gateway, and their safe change.

The engine behind inbound_tls_mode. The engine contains no product: the room of each product says which modes its
gateway supports and which files set them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import (
    Gateway,
    GatewayOutcome,
    GatewayVerdict,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import set_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.evidence import Handshakes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.loops import loops
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    DEFAULT_MODE,
    LEVELS,
    EmailConfig,
    changing,
    is_absent,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import lost_domains
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    Target,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, NotExpressibleError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_SECONDS

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState


def merge(
    held: Mapping[str, EmailConfig], wanted: Sequence[Mapping[str, Any]], plaintext: bool = False
) -> dict[str, EmailConfig]:
    """Return the wanted email configs of a gateway: the held ones, changed and completed by those of this call.

    An email config that is held already may leave out its domains and servers. One with the state absent is removed.
    plaintext sets the mode of the others that are held to the default, and keeps the route. Raises EngineError.
    """
    result = dict(held)
    names = [str(item.get("name")) for item in wanted]
    for name in names:
        if names.count(name) > 1:
            raise EngineError(f"the email config {name!r} is given twice")
    for item in wanted:
        if is_absent(item):
            result.pop(str(item.get("name")), None)
    for item in wanted:
        if is_absent(item):
            continue
        given = {key: value for key, value in item.items() if value not in (None, [], "")}
        name = str(given.get("name", ""))
        known = held[name].to_dict() if name in held else {}
        if plaintext:
            if name in held:
                result[name] = replace(held[name], delivery_mode=DEFAULT_MODE)
            continue
        if not known and not (given.get("domains") and given.get("servers")):
            raise EngineError(
                f"email config {name!r} is not known to this gateway: give its domains and servers as well"
            )
        if not known and not given.get("delivery_mode"):
            given["delivery_mode"] = DEFAULT_MODE
        config = EmailConfig.from_dict({**known, **given})
        result[config.name] = config
        _take_domains(result, config, names)
    owners: dict[str, str] = {}
    for config in result.values():
        for domain in config.domains:
            if domain in owners:
                raise EngineError(f"the domain {domain} is in two email configs, {owners[domain]} and {config.name}")
            owners[domain] = config.name
    return result


def _take_domains(configs: dict[str, EmailConfig], owner: EmailConfig, wanted: Sequence[str]) -> None:
    """Remove the owner's domains from held email configs that this call does not name. So a call can rename or split one."""
    for name, other in list(configs.items()):
        left = tuple(domain for domain in other.domains if domain not in owner.domains)
        if name not in (owner.name, *wanted) and left != other.domains:
            if left:
                configs[name] = replace(other, domains=left)
            else:
                del configs[name]


@dataclass(frozen=True)
class Modes:
    """The email configs of a call and their delivery modes, as a part of a change. plaintext: set the default mode."""

    email_configs: Sequence[Mapping[str, Any]]
    plaintext: bool = False

    def refuse(self, gateway: Gateway) -> None:
        """Do nothing: every gateway has delivery modes."""

    def compute(self, gateway: Gateway, before: GatewayState) -> GatewayState:
        """Return the state with the wanted modes. Raises EngineError, NotExpressibleError for a mode that is not supported."""
        after = replace(before, email_configs=merge(before.email_configs, self.email_configs, self.plaintext))
        for config in changing(before, after):
            if config.delivery_mode not in gateway.modes:
                reason = gateway.limits.get(config.delivery_mode)
                raise NotExpressibleError(
                    f"email config {config.name}: {gateway.title} cannot express {config.delivery_mode}"
                    f"{f', because {reason}' if reason else ''}; it can do {', '.join(gateway.modes)}"
                )
        return after

    def assess(
        self, gateway: Gateway, before: GatewayState, after: GatewayState, evidence: Handshakes, insisting: bool
    ) -> GatewayVerdict:
        """Return the objections, from a handshake with each server of the email configs that change."""
        configs = changing(before, after)
        looks = _looks(configs, evidence, gateway.verifying_modes)
        for loop in loops(gateway, [] if self.plaintext else configs, looks.values()):
            raise EngineError(loop)  # no option overrides what would bounce
        removed = {str(item.get("name")) for item in self.email_configs if is_absent(item)}
        warnings = tuple(_still_taken(gateway, before, after, removed))
        problems = [
            *_unrouted(before, after, removed),
            *_objections(configs, before.email_configs, looks),
            *_other_objections(configs, looks, gateway, before.senders_enforced and after.senders_enforced),
        ]
        bouncing = tuple(_bouncing(configs, looks))
        if gateway.softens_refusals:
            return GatewayVerdict((*problems, *bouncing), (), tuple(looks.values()), warnings)
        return GatewayVerdict(tuple(problems), bouncing, tuple(looks.values()), warnings)


def set_modes(
    gateway: Gateway,
    wanted: Sequence[Mapping[str, Any]],
    settings: Settings,
    require_without_evidence: bool = False,
    check_mode: bool = False,
    store: str = STORE,
    queue_seconds: float = QUEUE_SECONDS,
) -> GatewayOutcome:
    """Set the wanted modes on the gateway in one transaction, or leave it unchanged. Errors: see set_gateway."""
    return set_gateway(
        gateway, [Modes(wanted)], settings, require_without_evidence, check_mode, store, queue_seconds=queue_seconds
    )


def _looks(
    configs: Iterable[EmailConfig], evidence: Handshakes, verifying_modes: Sequence[str]
) -> dict[Target, Handshake]:
    """Return a handshake with each server. Verify the certificate if the gateway verifies it in the wanted mode."""
    verified = {server for one in configs if one.delivery_mode in verifying_modes for server in one.servers}
    targets = list(dict.fromkeys(server for config in configs for server in config.servers))
    seen = evidence.of([one for one in targets if one not in verified], ask_plaintext=True)
    seen += evidence.of(
        [one for one in targets if one in verified], ask_plaintext=True, verify_trust=True, verify_name=True
    )
    found = {one.target: one for one in seen}
    return {target: found[target] for target in targets}


def _objections(
    configs: Iterable[EmailConfig], held: Mapping[str, EmailConfig], evidence: Mapping[Target, Handshake]
) -> Iterable[str]:
    """Yield the reasons why mail would be lost or deferred, seen from the gateway."""
    routes = {domain: one.servers for one in held.values() for domain in one.domains}
    for config in configs:
        new_route = any(routes.get(domain) != config.servers for domain in config.domains)
        looks = [evidence[server] for server in config.servers]
        if new_route and all(seen.stage < Stage.EHLO for seen in looks):
            yield (
                f"email config {config.name}: its mail would go to {looks[0].target}, which does not answer this gateway: "
                f"{looks[0].message}. Correct the servers, or find the reason; to route there anyway, set "
                "require_without_evidence"
            )
            continue
        for seen in looks:
            if "required" in LEVELS[config.delivery_mode] and not seen.completed:
                yield (
                    f"email config {config.name}: '{config.delivery_mode}' is refused, because mail for it would be deferred: "
                    f"{seen.target}, seen from this gateway: {seen.message}. Switch STARTTLS on at that server first; "
                    "to require TLS anyway, set require_without_evidence"
                )
            elif "opportunistic" in LEVELS[config.delivery_mode] and seen.advertised and not seen.completed:
                yield (
                    f"email config {config.name}: '{config.delivery_mode}' is refused, because {seen.target} offers STARTTLS "
                    f"and then fails ({seen.message}), which defers mail; repair TLS at that server first, or set "
                    "require_without_evidence"
                )


def _other_objections(
    configs: Iterable[EmailConfig], evidence: Mapping[Target, Handshake], gateway: Gateway, senders_enforced: bool
) -> Iterable[str]:
    """Yield further objections: certificates that the gateway verifies, and inbound enforced domains."""
    for config in configs:
        for seen in (evidence[server] for server in config.servers):
            if config.delivery_mode in gateway.verifying_modes and seen.completed and not seen.trusted:
                yield (
                    f"email config {config.name}: '{config.delivery_mode}' is refused, because {gateway.title} verifies the "
                    f"certificate in this mode, and that of {seen.target} does not pass ({seen.verify_error}), so mail "
                    "would be deferred. Install one from a known authority for that name first, or set require_without_evidence"
                )
            elif senders_enforced and not seen.completed and "required" not in LEVELS[config.delivery_mode]:
                yield (
                    f"email config {config.name} is refused, because this gateway holds inbound enforced domains, whose mail "
                    f"needs TLS on the way to {seen.target} as well: {seen.message}. Switch STARTTLS on at that server first, "
                    "or set require_without_evidence"
                )


def _unrouted(before: GatewayState, after: GatewayState, removed: Collection[str]) -> Iterable[str]:
    """Yield the domains that would be in no email config any more, although nobody has asked for the removal of theirs."""
    lost_ones = lost_domains(before, after)
    for config in before.email_configs.values():
        lost = [domain for domain in config.domains if domain in lost_ones]
        if lost and config.name not in removed:
            yield (
                f"email config {config.name}: {', '.join(lost)} would be in no email config any more, and its mail would take "
                "the gateway's other routes. Add it to one, or check those routes and set require_without_evidence"
            )


def _still_taken(
    gateway: Gateway, before: GatewayState, after: GatewayState, removed: Collection[str]
) -> Iterable[str]:
    """Yield a warning for each removed email config for whose domains the gateway still takes mail."""
    lost_ones = lost_domains(before, after)
    for config in before.email_configs.values():
        lost = [domain for domain in config.domains if domain in lost_ones] if config.name in removed else []
        if taken := [domain for domain, takes in (gateway.accepts(lost) if lost else {}).items() if takes]:
            yield (
                f"email config {config.name} is removed, and the gateway still takes mail for {', '.join(taken)}: from now on its mail "
                "takes the gateway's own routes. If there is none, it goes to the MX of the domain, which may be this gateway: then it "
                "bounces. Take the domain out of the gateway's list of domains, or see to its route"
            )


def _bouncing(configs: Iterable[EmailConfig], evidence: Mapping[Target, Handshake]) -> Iterable[str]:
    """Yield the servers that accept mail over TLS only, although the mode may deliver in plaintext."""
    for config in configs:
        for seen in (evidence[server] for server in config.servers):
            if LEVELS[config.delivery_mode][0] != "required" and _bounces(config, seen):
                yield (
                    f"email config {config.name}: '{config.delivery_mode}' is refused, because it may deliver in plaintext "
                    f"and {seen.target} takes mail over TLS only, so mail would bounce. Choose 'required', or let the "
                    "server take plaintext first"
                )


def _bounces(config: EmailConfig, seen: Handshake) -> bool:
    if not seen.requires_tls:
        return False
    return not (config.delivery_mode == "opportunistic" and seen.completed)


def modes_result(outcome: GatewayOutcome) -> dict[str, Any]:
    """Return the result of inbound_tls_mode: name of the email config -> mode, before and after, and the email configs."""
    return {
        **outcome.to_dict(),
        "before": summary(outcome.before.email_configs),
        "after": summary(outcome.after.email_configs),
        "email_configs": [one.to_dict() for one in outcome.after.email_configs.values()],
    }


def summary(configs: Mapping[str, EmailConfig]) -> dict[str, Optional[str]]:
    """Return a mapping: name of the email config -> delivery mode."""
    return {name: one.delivery_mode for name, one in sorted(configs.items())}
