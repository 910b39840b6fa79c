# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's outbound side: what it accepts from the mail servers, and how it sends their mail on.

The engine behind outbound_tls_mode.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import (
    Gateway,
    Judgement,
    Outcome,
    change_gateway,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import LEVELS, MODES
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, handshake_all
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.state import GatewayState

ACCEPTS = ("plaintext", "both", "tls_only")
SENDS = MODES
DEFAULT = "plaintext"


@dataclass(frozen=True)
class OutboundTls:
    """accept and send, each None while nobody has set it, and the networks that the mail servers connect from."""

    accept: Optional[str] = None
    send: Optional[str] = None
    mail_servers: tuple[str, ...] = ()

    @property
    def depends_on_arrival(self) -> bool:
        """Whether it matters for what is sent how a message reached the gateway."""
        plain, over_tls = LEVELS[self.send or DEFAULT]
        return plain != over_tls

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data; from_dict reads it."""
        return {**asdict(self), "mail_servers": list(self.mail_servers)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OutboundTls:
        """Read and judge plain data. Raises EngineError naming what is wrong."""
        for what, allowed in (("accept", ACCEPTS), ("send", SENDS)):
            if data.get(what) is not None and data[what] not in allowed:
                raise EngineError(f"{what} {data[what]!r} is not one of {', '.join(allowed)}")
        servers = data.get("mail_servers") or ()
        if isinstance(servers, str):
            raise EngineError("mail_servers has to be a list")
        networks = []
        for server in servers:
            try:
                if "%" in str(server):  # behind which ipaddress takes any text
                    raise ValueError("an address with a zone is of one host only")
                networks.append(str(ipaddress.ip_network(str(server).strip("[]"))))
            except ValueError as error:
                raise EngineError(
                    f"mail_servers: {server!r} is neither an IP address nor a network ({error})"
                ) from error
        outbound = cls(data.get("accept"), data.get("send"), tuple(dict.fromkeys(networks)))
        if outbound.accept in ("plaintext", "tls_only") and not networks:
            raise EngineError(
                f"accept {outbound.accept} is about your own mail servers only: name their addresses or networks in mail_servers"
            )
        return outbound


def set_outbound(
    gateway: Gateway,
    wanted: Mapping[str, Any],
    settings: Settings,
    absent: bool = False,
    require_without_evidence: bool = False,
    check_mode: bool = False,
    store: str = STORE,
) -> Outcome:
    """Set what the gateway accepts from the mail servers and how it sends on, in one transaction, or leave it as it was.

    Raises EngineError (nothing was touched) or TransactionError (it was, and is put back).
    """
    if "outbound" in gateway.limits:
        raise EngineError(f"{gateway.title} has no outbound side that can be set: {gateway.limits['outbound']}")

    def compute(before: GatewayState) -> GatewayState:
        held = before.outbound.to_dict() if before.outbound else {}
        given = {key: value for key, value in wanted.items() if value not in (None, [], "")}
        if absent:
            servers = given.get("mail_servers") or held.get("mail_servers")
            given = {"send": DEFAULT, **({"accept": DEFAULT, "mail_servers": servers} if servers else {})}
        return replace(before, outbound=OutboundTls.from_dict({**held, **given}))

    def judge(before: GatewayState, after: GatewayState) -> Judgement:
        if require_without_evidence:
            return Judgement()
        return _judge(gateway, before.outbound or OutboundTls(), after.outbound or OutboundTls(), settings)

    return change_gateway(gateway, compute, judge, (), require_without_evidence, check_mode, store)


def _judge(gateway: Gateway, before: OutboundTls, after: OutboundTls, settings: Settings) -> Judgement:
    settings = replace(settings, judge_trust=False)
    problems, warnings = [], []
    evidence = []
    if after.accept in ("both", "tls_only") and after.accept != before.accept and gateway.own_port:
        evidence += handshake_all([gateway.own_port], settings)
        if not evidence[-1].completed:
            problems.append(
                f"accept {after.accept} is refused, because the gateway does not accept TLS itself: {evidence[-1].message}. "
                "Let it accept TLS first (role gateway, accept)"
            )
    if after.accept == "tls_only" and (after.accept, after.mail_servers) != (before.accept, before.mail_servers):
        warnings.append(
            "from now on mail of a mail server that does not use TLS towards this gateway is put off until it does"
        )
    if after.accept == "plaintext" and before.accept != "plaintext":
        warnings.append(
            "a mail server that insists on TLS towards this gateway keeps its mail from now on; let it relax first"
        )
    insists = "encrypt" in LEVELS[after.send or DEFAULT]
    if insists and "encrypt" not in LEVELS[before.send or DEFAULT]:
        reason = ""
        try:
            hops: Sequence[Any] = gateway.relay_hosts()
            if not hops:
                reason = "it hands its mail to the MX of each recipient domain, and those cannot all be tested"
        except EngineError as error:
            hops, reason = (), str(error)
        seen = handshake_all(list(hops), settings) if hops else []
        evidence += seen
        reason = reason or "; ".join(f"{one.target}: {one.message}" for one in seen if not one.completed)
        if reason:
            problems.append(
                f"send {after.send} is refused, because mail would be deferred: {reason}. Enforce single domains "
                "(enforced_tls_domain), or insist all the same by require_without_evidence"
            )
    return Judgement(tuple(problems), (), tuple(evidence), tuple(warnings))
