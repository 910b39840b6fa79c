# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivery mode of email configs on a gateway: what the modes mean and how one is changed safely.

The engine behind inbound_tls_mode. It knows no product: an adapter (gateway/*) says which modes its
gateway can express and which files make them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import (
    Handshake,
    Settings,
    Target,
    TargetError,
    handshake_all,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.transaction import (
    STORE,
    Change,
    EngineError,
    Transaction,
)

# Mode -> what the gateway does on the way to the mail server with mail that arrived in plaintext, over TLS.
LEVELS = {
    "plaintext": ("none", "none"),
    "match_sender": ("none", "may"),
    "match_sender_strict": ("none", "encrypt"),
    "opportunistic": ("may", "may"),
    "required": ("encrypt", "encrypt"),
}
MODES = tuple(LEVELS)
DEFAULT_MODE = "plaintext"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.@-]{0,62}\Z")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


@dataclass(frozen=True)
class EmailConfig:
    """Recipient domains, the mail servers they are delivered to in order of preference, and the mode."""

    name: str
    domains: tuple[str, ...]
    servers: tuple[Target, ...]
    delivery_mode: str = DEFAULT_MODE

    @property
    def depends_on_arrival(self) -> bool:
        """Whether it matters how a message reached the gateway."""
        plain, over_tls = LEVELS[self.delivery_mode]
        return plain != over_tls

    def to_dict(self) -> dict[str, Any]:
        """The email config as plain data; from_dict reads it."""
        return {
            "name": self.name,
            "domains": list(self.domains),
            "servers": [str(server) for server in self.servers],
            "delivery_mode": self.delivery_mode,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EmailConfig:
        """Read and judge plain data. Raises EngineError naming the email config and what is wrong."""
        name = str(data.get("name") or "")
        if not _NAME.match(name):
            raise EngineError(
                f"the email config name {name!r} has to be 1 to 63 letters, digits, spaces or _.@-, a letter or digit first"
            )
        given = data.get("delivery_mode")
        mode = DEFAULT_MODE if given is None else str(given)
        if mode not in LEVELS:
            raise EngineError(f"email config {name}: {mode!r} is not a delivery mode; choose one of {', '.join(MODES)}")
        for what in ("domains", "servers"):
            if isinstance(data.get(what), str):
                raise EngineError(f"email config {name}: {what} has to be a list")
        domains = tuple(str(domain).lower().rstrip(".") for domain in data.get("domains") or ())
        for domain in domains:
            if not _DOMAIN.match(domain):
                raise EngineError(f"email config {name}: {domain!r} is not a domain name (write it in ASCII)")
        try:
            servers = tuple(Target.parse(str(server).lower()) for server in data.get("servers") or ())
        except TargetError as error:
            raise EngineError(f"email config {name}: {error}") from error
        for what, values in (("domains", domains), ("servers", servers)):
            if not values:
                raise EngineError(f"email config {name} has no {what}")
            if len(set(values)) != len(values):
                raise EngineError(f"email config {name} names one of its {what} twice")
        return cls(name, domains, servers, mode)


def dump(configs: Iterable[EmailConfig]) -> str:
    """Email configs as JSON text, in order of their names; load reads it."""
    return json.dumps([one.to_dict() for one in sorted(configs, key=lambda one: one.name)], indent=2) + "\n"


def load(text: str, where: str) -> dict[str, EmailConfig]:
    """Email configs by name from JSON text; EngineError names the place if it cannot be read."""
    try:
        entries = json.loads(text or "[]")
        configs = [EmailConfig.from_dict(entry) for entry in entries]
    except (ValueError, AttributeError, TypeError, EngineError) as error:
        raise EngineError(f"{where} cannot be read ({error}); it is written by this module only") from error
    return {one.name: one for one in configs}


class Gateway(Protocol):
    """An adapter: one gateway product."""

    name: str
    reads_files_unasked: bool

    @property
    def modes(self) -> Sequence[str]:
        """The delivery modes this gateway can express."""

    def check(self) -> None:
        """See transaction.Daemon."""

    def reload(self) -> None:
        """See transaction.Daemon."""

    def resume(self) -> None:
        """See transaction.Daemon."""

    def require_running(self) -> None:
        """Raise EngineError unless the gateway can be changed and proved."""

    def read(self) -> dict[str, EmailConfig]:
        """The email configs this gateway holds, by name."""

    def plan(self, configs: Mapping[str, EmailConfig]) -> Change:
        """The files that make the gateway hold exactly these; empty when they are there already."""

    def serves(self) -> bool:
        """Whether the running gateway takes mail on every port it should, looked at once."""

    def prove(self) -> None:
        """Raise EngineError unless the running gateway serves what the files say."""


@dataclass(frozen=True)
class Outcome:
    """What was done. evidence holds the handshakes with the servers of the email configs that changed."""

    changed: bool
    before: dict[str, EmailConfig]
    after: dict[str, EmailConfig]
    diff: list[dict[str, str]]
    evidence: tuple[Handshake, ...] = ()
    recovered: bool = False
    warnings: tuple[str, ...] = ()


def merge(
    held: Mapping[str, EmailConfig], wanted: Sequence[Mapping[str, Any]], absent: bool = False
) -> dict[str, EmailConfig]:
    """The email configs a gateway shall hold: those it has, with the wanted ones in place.

    A wanted one that is held already may leave out its domains and servers. absent takes the mode back to
    the default and keeps the route, so that its mail goes on. Raises EngineError.
    """
    result = dict(held)
    names = [str(item.get("name")) for item in wanted]
    for name in names:
        if names.count(name) > 1:
            raise EngineError(f"the email config {name!r} is given twice")
    for item in wanted:
        given = {key: value for key, value in item.items() if value not in (None, [], "")}
        name = str(given.get("name", ""))
        known = held[name].to_dict() if name in held else {}
        if absent:
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
    """Take the owner's domains from held email configs that this call does not name; so one is renamed or split."""
    for name, other in list(configs.items()):
        left = tuple(domain for domain in other.domains if domain not in owner.domains)
        if name not in (owner.name, *wanted) and left != other.domains:
            if left:
                configs[name] = replace(other, domains=left)
            else:
                del configs[name]


def set_modes(
    gateway: Gateway,
    wanted: Sequence[Mapping[str, Any]],
    settings: Settings,
    absent: bool = False,
    require_without_evidence: bool = False,
    check_mode: bool = False,
    store: str = STORE,
) -> Outcome:
    """Bring the gateway to the wanted modes in one transaction, or leave it as it was.

    Raises EngineError (nothing was touched) or TransactionError (it was, and is put back).
    """
    transaction = Transaction(gateway, store)
    with transaction.opened(check_mode) as (recovered, warnings):
        gateway.require_running()
        before = gateway.read()
        after = merge(before, wanted, absent)
        changing = [one for one in after.values() if before.get(one.name) != one]
        for config in changing:
            if config.delivery_mode not in gateway.modes:
                raise EngineError(
                    f"email config {config.name}: this gateway cannot express {config.delivery_mode}; "
                    f"it can do {', '.join(gateway.modes)}"
                )
        evidence = _evidence(changing, settings)
        problems = [] if require_without_evidence else list(_objections(changing, before, evidence))
        if problems:
            message = "; ".join(problems)
            if not check_mode:
                raise EngineError(message)
            warnings.append(f"unless steps before it change that, a real run would refuse this: {message}")
        change = gateway.plan(after)
        if not change and not gateway.serves():
            change = replace(change, reload=True)
        if change and not check_mode:
            transaction.apply(change, gateway.prove, gateway.prove)
        return Outcome(
            bool(change) or recovered,
            before,
            after,
            change.diff(),
            tuple(evidence.values()),
            recovered,
            tuple(warnings),
        )


def _evidence(configs: Iterable[EmailConfig], settings: Settings) -> dict[Target, Handshake]:
    targets = list(dict.fromkeys(server for config in configs for server in config.servers))
    settings = replace(settings, ask_plaintext=True, judge_trust=False)
    return {seen.target: seen for seen in handshake_all(targets, settings)} if targets else {}


def _objections(
    configs: Iterable[EmailConfig], held: Mapping[str, EmailConfig], evidence: Mapping[Target, Handshake]
) -> Iterable[str]:
    """What would lose or defer mail, seen from the gateway."""
    routes = {domain: one.servers for one in held.values() for domain in one.domains}
    for config in configs:
        new_route = any(routes.get(domain) != config.servers for domain in config.domains)
        looks = [evidence[server] for server in config.servers]
        if new_route and all(seen.stage < Stage.EHLO for seen in looks):
            yield (
                f"email config {config.name}: its mail would go to {looks[0].target}, which does not answer this gateway: "
                f"{looks[0].message}. Correct the servers, or see why; to route there all the same, set "
                "require_without_evidence"
            )
            continue
        for seen in looks:
            if "encrypt" in LEVELS[config.delivery_mode] and not seen.completed:
                yield (
                    f"email config {config.name}: '{config.delivery_mode}' is refused, because mail for it would be deferred: "
                    f"{seen.target}, seen from this gateway: {seen.message}. Switch STARTTLS on at that server first; "
                    "to insist all the same, set require_without_evidence"
                )
            elif "may" in LEVELS[config.delivery_mode] and seen.advertised and not seen.completed:
                yield (
                    f"email config {config.name}: '{config.delivery_mode}' is refused, because {seen.target} offers STARTTLS "
                    f"and then fails ({seen.message}), which defers mail; repair TLS at that server first, or set "
                    "require_without_evidence"
                )
            elif LEVELS[config.delivery_mode][0] != "encrypt" and _bounces(config, seen):
                yield (
                    f"email config {config.name}: '{config.delivery_mode}' is refused, because it may deliver in plaintext "
                    f"and {seen.target} takes mail over TLS only, so mail would bounce. Choose 'required', or let the "
                    "server take plaintext first"
                )


def _bounces(config: EmailConfig, seen: Handshake) -> bool:
    if not seen.requires_tls:
        return False
    return not (config.delivery_mode == "opportunistic" and seen.completed)


def summary(configs: Mapping[str, EmailConfig]) -> dict[str, Optional[str]]:
    """Name -> delivery mode."""
    return {name: one.delivery_mode for name, one in sorted(configs.items())}
