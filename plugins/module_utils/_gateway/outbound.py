# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's outbound side: TLS from the mail servers to the gateway, and TLS from the gateway to the internet.

The engine behind outbound_tls_mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import (
    Gateway,
    GatewayOutcome,
    GatewayVerdict,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import set_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.evidence import Handshakes
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    DEFAULT_MODE,
    LEVELS,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, NotExpressibleError

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState


@dataclass(frozen=True)
class Outbound:
    """The outbound side of a call, as a part of a change.

    wanted: accept, send, mail_servers. absent: set the defaults. relax: take back that the mail servers have to use TLS.
    """

    wanted: Mapping[str, Any]
    absent: bool = False
    relax: bool = False
    email_configs: Sequence[Mapping[str, Any]] = ()

    def refuse(self, gateway: Gateway) -> None:
        """Raise NotExpressibleError if the gateway has no outbound side."""
        if "outbound" in gateway.limits:
            raise NotExpressibleError(
                f"{gateway.title} has no outbound side that can be set: {gateway.limits['outbound']}"
            )

    def compute(self, gateway: Gateway, before: GatewayState) -> GatewayState:
        """Return the state with the wanted outbound side. What is not given stays. Raises EngineError."""
        held = before.outbound.to_dict() if before.outbound else {}
        given = {key: value for key, value in self.wanted.items() if value not in (None, [], "")}
        if self.absent:
            servers = given.get("mail_servers") or held.get("mail_servers")
            given = {"send": DEFAULT_MODE, **({"accept": ACCEPTS[0], "mail_servers": servers} if servers else {})}
        if self.relax and held.get("accept") == "tls_only":
            given.setdefault("accept", "both")
        return replace(before, outbound=OutboundTls.from_dict({**held, **given}))

    def assess(
        self, gateway: Gateway, before: GatewayState, after: GatewayState, evidence: Handshakes, insisting: bool
    ) -> GatewayVerdict:
        """Return the objections, from handshakes with the gateway itself and with the relay hosts."""
        if insisting:
            return GatewayVerdict()
        return _assess(gateway, before.outbound or OutboundTls(), after.outbound or OutboundTls(), evidence)


def set_outbound(
    gateway: Gateway,
    wanted: Mapping[str, Any],
    settings: Settings,
    absent: bool = False,
    require_without_evidence: bool = False,
    check_mode: bool = False,
    store: str = STORE,
) -> GatewayOutcome:
    """Set accept and send of the gateway in one transaction, or leave it unchanged. Errors: see set_gateway."""
    return set_gateway(gateway, [Outbound(wanted, absent)], settings, require_without_evidence, check_mode, store)


def outbound_result(outcome: GatewayOutcome) -> dict[str, Any]:
    """Return the result of outbound_tls_mode: the settings before and after, empty if they are not set."""
    before, after = (one.outbound for one in (outcome.before, outcome.after))
    return {
        **outcome.to_dict(),
        "before": before.to_dict() if before else {},
        "after": after.to_dict() if after else {},
    }


def _assess(gateway: Gateway, before: OutboundTls, after: OutboundTls, evidence: Handshakes) -> GatewayVerdict:
    problems, warnings = [], []
    looks = []
    if after.accept in ("both", "tls_only") and after.accept != before.accept and gateway.own_port:
        looks += evidence.of([gateway.own_port])
        if not looks[-1].completed:
            problems.append(
                f"accept {after.accept} is refused, because the gateway does not accept TLS itself: {looks[-1].message}. "
                "Let it accept TLS first (role gateway, accept)"
            )
    if after.accept == "tls_only" and (after.accept, after.mail_servers) != (before.accept, before.mail_servers):
        warnings.append(
            "from now on mail of a mail server that does not use TLS towards this gateway is deferred until it does"
        )
    if after.accept == "plaintext" and before.accept != "plaintext":
        warnings.append(
            "a mail server that requires TLS towards this gateway defers its mail from now on; stop requiring TLS there first"
        )
    insists = "required" in LEVELS[after.send or DEFAULT_MODE]
    if insists and "required" not in LEVELS[before.send or DEFAULT_MODE]:
        reason = ""
        try:
            hops: Sequence[Any] = gateway.relay_hosts()
            if not hops:
                reason = "it hands its mail to the MX of each recipient domain, and those cannot all be tested"
        except EngineError as error:
            hops, reason = (), str(error)
        seen = evidence.of(hops)
        looks += seen
        reason = reason or "; ".join(f"{one.target}: {one.message}" for one in seen if not one.completed)
        if reason:
            problems.append(
                f"send {after.send} is refused, because mail would be deferred: {reason}. Enforce single domains "
                "(enforced_tls_domain), or require TLS anyway with require_without_evidence"
            )
    return GatewayVerdict(tuple(problems), (), tuple(looks), tuple(warnings))
