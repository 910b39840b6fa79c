# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Enforced domains: sender domains whose mail must arrive over TLS, recipient domains whose mail must be sent over TLS.

The engine behind enforced_tls_domain. Domains match exactly. Subdomains do not match. An enforced domain overrides
every delivery mode. Refusals are temporary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import roots_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import (
    Gateway,
    GatewayOutcome,
    GatewayVerdict,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import set_gateway, union
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.evidence import Handshakes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EnforcedDomain,
    is_absent,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import is_path
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, NotExpressibleError

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState


def merge(
    held: Sequence[EnforcedDomain], wanted: Sequence[Mapping[str, Any]], absent: bool = False
) -> tuple[EnforcedDomain, ...]:
    """Return the wanted enforced domains of a gateway: the held ones, plus those of this call or, if absent, without them.

    One of this call that has the state absent itself goes in any case. Raises EngineError.
    """
    result = {one.key: one for one in held}
    given = set()
    for item in wanted:
        one = EnforcedDomain.from_dict(item)
        if one.key in given:
            raise EngineError(f"the {one.direction} domain {one.domain} is given twice")
        given.add(one.key)
        if absent or is_absent(item):
            result.pop(one.key, None)
        else:
            result[one.key] = one
    return tuple(result[key] for key in sorted(result))


@dataclass(frozen=True)
class Enforced:
    """The enforced domains of a call, as a part of a change.

    absent: stop enforcing TLS for the wanted domains. all_inbound: stop it for every inbound domain before.
    ca_file: path on the gateway of the roots for certificate checks; None keeps the present setting.
    """

    wanted: Sequence[Mapping[str, Any]]
    absent: bool = False
    ca_file: Optional[str] = None
    all_inbound: bool = False
    email_configs: Sequence[Mapping[str, Any]] = ()

    def refuse(self, gateway: Gateway) -> None:
        """Raise NotExpressibleError if the gateway cannot enforce TLS by domain."""
        if "enforced" in gateway.limits:
            raise NotExpressibleError(f"{gateway.title} cannot enforce TLS by domain: {gateway.limits['enforced']}")

    def compute(self, gateway: Gateway, before: GatewayState) -> GatewayState:
        """Return the state with the wanted domains. Raises EngineError."""
        held = [one for one in before.enforced if not (self.all_inbound and one.direction == "inbound")]
        after = replace(before, enforced=merge(held, self.wanted, self.absent))
        if self.ca_file is None:
            return after
        if self.ca_file and not is_path(self.ca_file):
            raise EngineError(
                f"the path {self.ca_file!r} of ca_file (enforced_ca_file) has to be absolute and made of letters, digits and _./+@-"
            )
        return replace(after, ca_file=self.ca_file)

    def assess(
        self, gateway: Gateway, before: GatewayState, after: GatewayState, evidence: Handshakes, insisting: bool
    ) -> GatewayVerdict:
        """Return the objections, from handshakes with both sides of an inbound domain, and with the hosts of an outbound one."""
        if insisting:
            return GatewayVerdict()
        new = [
            one
            for one in after.enforced
            if one not in before.enforced
            or (after.ca_file != before.ca_file and one.certificate_check != "encryption_only")
        ]
        inbound = [_assess_inbound(gateway, after, evidence)] if any(one.direction == "inbound" for one in new) else []
        outbound = [_assess_outbound(gateway, one, after, evidence) for one in new if one.direction == "outbound"]
        return union([*inbound, *outbound])


def set_enforced(
    gateway: Gateway,
    wanted: Sequence[Mapping[str, Any]],
    settings: Settings,
    absent: bool = False,
    ca_file: Optional[str] = None,
    require_without_evidence: bool = False,
    check_mode: bool = False,
    store: str = STORE,
) -> GatewayOutcome:
    """Enforce TLS for the wanted domains in one transaction, or leave the gateway unchanged. absent: stop enforcing it.

    ca_file: path on the gateway of the roots for certificate checks; None keeps the present setting. Errors: see set_gateway.
    """
    part = Enforced(wanted, absent, ca_file)
    return set_gateway(gateway, [part], settings, require_without_evidence, check_mode, store)


def enforced_result(outcome: GatewayOutcome) -> dict[str, Any]:
    """Return the result of enforced_tls_domain: the enforced domains before and after."""
    return {
        **outcome.to_dict(),
        "before": [one.to_dict() for one in outcome.before.enforced],
        "enforced_domains": [one.to_dict() for one in outcome.after.enforced],
    }


def _assess_inbound(gateway: Gateway, state: GatewayState, evidence: Handshakes) -> GatewayVerdict:
    """Both hops need TLS: the gateway has to accept it, and so does every mail server behind the gateway."""
    own = [gateway.own_port] if gateway.own_port else []
    servers = list(dict.fromkeys(server for config in state.email_configs.values() for server in config.servers))
    seen = evidence.of([*own, *servers])
    failed = [one for one in seen if not one.completed]
    problems = [
        f"an inbound enforced domain is refused, because the gateway does not accept TLS itself: {one.message}. "
        "Mail of such a domain would never come in. Let the gateway accept TLS first (role gateway, accept)"
        for one in failed
        if one.target in own
    ]
    if behind := "; ".join(f"{one.target}: {one.message}" for one in failed if one.target not in own):
        problems.append(
            "an inbound enforced domain is refused, because its mail needs TLS on the way to the mail servers as well, and "
            f"would be deferred: {behind}. Switch STARTTLS on there first; to require TLS anyway, set require_without_evidence"
        )
    warnings: tuple[str, ...] = ()
    if not servers:
        warnings = (
            "this gateway holds no email config, so TLS is enforced on the way in only: the next hop uses TLS for the "
            "domains of email configs",
        )
    return GatewayVerdict(tuple(problems), (), tuple(seen), warnings)


def _assess_outbound(
    gateway: Gateway, one: EnforcedDomain, state: GatewayState, evidence: Handshakes
) -> GatewayVerdict:
    """At least one host of the domain has to pass the certificate check, seen from here. Warnings name hosts that fail."""
    hops = gateway.next_hops(one.domain, state)
    advice = "Ask the administrator of that domain; to require TLS anyway, set require_without_evidence"
    if not hops:
        return GatewayVerdict(
            (f"outbound enforced domain {one.domain} is refused, because its mail servers cannot be found. {advice}",)
        )
    checks = one.certificate_check != "encryption_only"
    wanted: dict[str, Any] = {"verify_trust": checks, "verify_name": one.certificate_check == "hostname"}
    if checks and (roots := gateway.roots(state)):
        wanted["ca_pem"] = roots_of(roots)
    seen = evidence.of(hops, **wanted)
    failures = [f"{look.target}: {_why_not(look, checks)}" for look in seen if not _passes(look, checks)]
    if len(failures) == len(seen):
        problem = (
            f"outbound enforced domain {one.domain} is refused, because mail to it would be deferred ({one.certificate_check}): "
            f"{'; '.join(failures)}. {advice}"
        )
        return GatewayVerdict((problem,), (), tuple(seen))
    return GatewayVerdict(
        (),
        (),
        tuple(seen),
        tuple(f"outbound enforced domain {one.domain}: no mail goes to {failure}" for failure in failures),
    )


def _passes(seen: Handshake, checks: bool) -> bool:
    return seen.completed and (seen.trusted is True or not checks)


def _why_not(seen: Handshake, checks: bool) -> str:
    if seen.completed and checks:
        return f"its certificate does not pass ({seen.verify_error})"
    return seen.message
