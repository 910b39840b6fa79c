# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Enforced domains: senders whose mail has to come over TLS, recipients whose mail has to go over TLS.

The engine behind enforced_tls_domain. A domain is meant exactly, without its subdomains, and stands above
every delivery mode. Refusals are temporary.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import (
    Gateway,
    Judgement,
    Outcome,
    change_gateway,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import is_path
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    Target,
    TargetError,
    handshake_all,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.state import GatewayState

DIRECTIONS = ("inbound", "outbound")
CERTIFICATE_CHECKS = ("encryption_only", "trusted_chain", "hostname")
REPLY = "STARTTLS is required for this sender"


@dataclass(frozen=True)
class EnforcedDomain:
    """A sender domain (inbound) or a recipient domain (outbound) for which TLS is insisted on.

    certificate_check is of use outbound only; servers names the next hops there instead of the gateway's own routing.
    """

    domain: str
    direction: str
    certificate_check: str = "encryption_only"
    servers: tuple[Target, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """What there is one of."""
        return self.direction, self.domain

    def to_dict(self) -> dict[str, Any]:
        """The enforced domain as plain data; from_dict reads it."""
        data: dict[str, Any] = {"domain": self.domain, "direction": self.direction}
        if self.direction == "outbound":
            data["certificate_check"] = self.certificate_check
            data["servers"] = [str(server) for server in self.servers]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EnforcedDomain:
        """Read and judge plain data. Raises EngineError naming the domain and what is wrong."""
        domain = str(data.get("domain") or "").lower().rstrip(".")
        if not is_domain(domain):
            raise EngineError(f"{data.get('domain')!r} is not a domain that can be enforced (one exact name, in ASCII)")
        direction = str(data.get("direction") or "")
        if direction not in DIRECTIONS:
            raise EngineError(
                f"enforced domain {domain}: the direction {direction!r} is not one of {', '.join(DIRECTIONS)}"
            )
        check = data.get("certificate_check") or None
        if isinstance(data.get("servers"), str):
            raise EngineError(f"enforced domain {domain}: servers has to be a list")
        try:
            servers = tuple(Target.parse(str(server).lower()) for server in data.get("servers") or ())
        except TargetError as error:
            raise EngineError(f"enforced domain {domain}: {error}") from error
        if direction == "inbound" and (check or servers):
            raise EngineError(
                f"enforced domain {domain}: certificate_check and servers go with the direction outbound; inbound it is the "
                "sender who connects"
            )
        if check is not None and check not in CERTIFICATE_CHECKS:
            raise EngineError(
                f"enforced domain {domain}: the certificate check {check!r} is not one of {', '.join(CERTIFICATE_CHECKS)}"
            )
        return cls(domain, direction, str(check or CERTIFICATE_CHECKS[0]), servers)


def spellings(domain: str) -> tuple[str, ...]:
    """The domain as it may stand in an envelope: in ASCII and, where that differs, in Unicode (SMTPUTF8).

    Only letters, digits and marks come out of the ASCII form: it goes into tables.
    """
    try:
        labels = [
            label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") else label
            for label in domain.split(".")
        ]
    except UnicodeError:
        return (domain,)
    harmless = all(
        char in "-_" or char.isalnum() or unicodedata.category(char).startswith("M") for char in "".join(labels)
    )
    unicode = ".".join(labels).lower()
    return (domain, unicode) if harmless and unicode != domain else (domain,)


def inbound_senders(enforced: Iterable[EnforcedDomain]) -> list[str]:
    """Every spelling of the sender domains, in order."""
    return [text for one in enforced if one.direction == "inbound" for text in spellings(one.domain)]


def merge(
    held: Sequence[EnforcedDomain], wanted: Sequence[Mapping[str, Any]], absent: bool = False
) -> tuple[EnforcedDomain, ...]:
    """The enforced domains a gateway shall hold: those it has, with the wanted ones in place or, if absent, taken out.

    Raises EngineError.
    """
    result = {one.key: one for one in held}
    given = set()
    for item in wanted:
        one = EnforcedDomain.from_dict(item)
        if one.key in given:
            raise EngineError(f"the {one.direction} domain {one.domain} is given twice")
        given.add(one.key)
        if absent:
            result.pop(one.key, None)
        else:
            result[one.key] = one
    return tuple(result[key] for key in sorted(result))


def set_enforced(
    gateway: Gateway,
    wanted: Sequence[Mapping[str, Any]],
    settings: Settings,
    absent: bool = False,
    ca_file: Optional[str] = None,
    require_without_evidence: bool = False,
    check_mode: bool = False,
    store: str = STORE,
) -> Outcome:
    """Enforce TLS for the wanted domains, or no longer, in one transaction; or leave the gateway as it was.

    ca_file: path on the gateway of the roots for certificate checks; None leaves that as it is.
    Raises EngineError (nothing was touched) or TransactionError (it was, and is put back).
    """
    if "enforced" in gateway.limits:
        raise EngineError(f"{gateway.title} cannot enforce TLS by domain: {gateway.limits['enforced']}")

    def compute(before: GatewayState) -> GatewayState:
        after = replace(before, enforced=merge(before.enforced, wanted, absent))
        if ca_file is None:
            return after
        if ca_file and not is_path(ca_file):
            raise EngineError(
                f"the path {ca_file!r} of ca_file has to be absolute and made of letters, digits and _./+@-"
            )
        return replace(after, ca_file=ca_file)

    def judge(before: GatewayState, after: GatewayState) -> Judgement:
        if require_without_evidence:
            return Judgement()
        new = [
            one
            for one in after.enforced
            if one not in before.enforced
            or (after.ca_file != before.ca_file and one.certificate_check != "encryption_only")
        ]
        inbound = (
            _judge_inbound(gateway, after, settings) if any(one.direction == "inbound" for one in new) else Judgement()
        )
        outbound = [_judge_outbound(gateway, one, after, settings) for one in new if one.direction == "outbound"]
        every = [inbound, *outbound]
        return Judgement(
            tuple(problem for one in every for problem in one.problems),
            (),
            tuple(seen for one in every for seen in one.evidence),
            tuple(warning for one in every for warning in one.warnings),
        )

    return change_gateway(gateway, compute, judge, (), require_without_evidence, check_mode, store)


def _judge_inbound(gateway: Gateway, state: GatewayState, settings: Settings) -> Judgement:
    """Both hops need TLS: the gateway has to accept it, and every mail server behind it."""
    own = [gateway.own_port] if gateway.own_port else []
    servers = list(dict.fromkeys(server for config in state.email_configs.values() for server in config.servers))
    seen = handshake_all([*own, *servers], replace(settings, judge_trust=False))
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
            f"would be deferred: {behind}. Switch STARTTLS on there first; to insist all the same, set require_without_evidence"
        )
    warnings: tuple[str, ...] = ()
    if not servers:
        warnings = (
            "this gateway holds no email config, so TLS is enforced on the way in only: the onward hop is TLS for the "
            "domains of email configs",
        )
    return Judgement(tuple(problems), (), tuple(seen), warnings)


def _judge_outbound(gateway: Gateway, one: EnforcedDomain, state: GatewayState, settings: Settings) -> Judgement:
    """Some host of the domain has to pass the certificate check, seen from here; others that do not are said."""
    hops = gateway.next_hops(one.domain, state)
    advice = "Ask the administrator of that domain; to insist all the same, set require_without_evidence"
    if not hops:
        return Judgement(
            (f"outbound enforced domain {one.domain} is refused, because its mail servers cannot be found. {advice}",)
        )
    checks = one.certificate_check != "encryption_only"
    settings = replace(settings, judge_trust=checks, judge_name=one.certificate_check == "hostname")
    if checks and (roots := gateway.roots(state)):
        settings = replace(settings, ca_pem=Path(roots).read_text(encoding="ascii", errors="ignore"))
    seen = handshake_all(hops, settings)
    failures = [f"{look.target}: {_why_not(look, checks)}" for look in seen if not _passes(look, checks)]
    if len(failures) == len(seen):
        problem = (
            f"outbound enforced domain {one.domain} is refused, because mail to it would be deferred ({one.certificate_check}): "
            f"{'; '.join(failures)}. {advice}"
        )
        return Judgement((problem,), (), tuple(seen))
    return Judgement(
        (),
        (),
        tuple(seen),
        tuple(f"outbound enforced domain {one.domain}: not by way of {failure}" for failure in failures),
    )


def _passes(seen: Handshake, checks: bool) -> bool:
    return seen.completed and (seen.trusted is True or not checks)


def _why_not(seen: Handshake, checks: bool) -> str:
    if seen.completed and checks:
        return f"its certificate does not pass ({seen.verify_error})"
    return seen.message
