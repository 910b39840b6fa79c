# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The legal order of calls from one state of a connector to another. Every state on the way is one that Exchange takes.

The opposite way undoes it, so the undo of each step is the way from its end to its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.calls import Argument, CmdletCall
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import (
    AUTH_MECHANISMS,
    ReceiveConnector,
    SendConnector,
)

Step = dict[str, Argument]
"""The parameters of one call of Set-, without Identity."""


@dataclass(frozen=True)
class ReceiveTls:
    """TLS of a receive connector. auth: AuthMechanism as a set; empty for None."""

    auth: frozenset[str]
    require: bool
    certificate: Optional[str]

    @classmethod
    def of(cls, connector: ReceiveConnector) -> ReceiveTls:
        """Raises NotReadError."""
        return cls(connector.auth, connector.require_tls, connector.certificate_name)

    @property
    def legal(self) -> bool:
        """Whether Exchange takes it."""
        if self.require and "Tls" not in self.auth:
            return False
        if "BasicAuthRequireTLS" in self.auth and not {"BasicAuth", "Tls"} <= self.auth:
            return False
        return "ExternalAuthoritative" not in self.auth or self.auth <= {"Tls", "ExternalAuthoritative"}

    def after(self, step: Step) -> ReceiveTls:
        """Return the state after a call."""
        given = step.get("AuthMechanism")
        auth = frozenset(given) - {"None"} if isinstance(given, tuple) else self.auth
        require = bool(step.get("RequireTLS", self.require))
        return ReceiveTls(auth, require, _text(step.get("TlsCertificateName", self.certificate)))


@dataclass(frozen=True)
class SendTls:
    """TLS of a send connector."""

    ignore: bool
    require: bool
    level: Optional[str]
    domain: Optional[str]
    certificate: Optional[str]

    @classmethod
    def of(cls, connector: SendConnector) -> SendTls:
        """Raises NotReadError."""
        return cls(
            connector.flag("IgnoreSTARTTLS"),
            connector.flag("RequireTLS"),
            connector.level,
            connector.text("TlsDomain") or None,
            connector.certificate_name,
        )

    @property
    def legal(self) -> bool:
        """Whether Exchange takes it, on a connector to smart hosts."""
        if self.ignore and (self.require or self.level):
            return False
        if self.level and not self.require:
            return False
        return (self.level == "DomainValidation") == bool(self.domain)

    def after(self, step: Step) -> SendTls:
        """Return the state after a call."""
        return SendTls(
            bool(step.get("IgnoreSTARTTLS", self.ignore)),
            bool(step.get("RequireTLS", self.require)),
            _text(step.get("TlsAuthLevel", self.level)),
            _text(step.get("TlsDomain", self.domain)),
            _text(step.get("TlsCertificateName", self.certificate)),
        )


def _text(value: Argument) -> Optional[str]:
    return str(value) if value else None


def auth_argument(auth: frozenset[str]) -> tuple[str, ...]:
    """Return AuthMechanism as the cmdlet takes it: it replaces the whole set."""
    known = tuple(one for one in AUTH_MECHANISMS if one in auth)
    return (*known, *sorted(auth - set(AUTH_MECHANISMS))) or ("None",)


def receive_steps(before: ReceiveTls, after: ReceiveTls) -> list[Step]:
    """Return the calls of Set-ReceiveConnector from one state to the other."""
    steps: list[Step] = []
    if before.require and not after.require:
        steps.append({"RequireTLS": False})
    widen: Step = {}
    if before.auth != after.auth:
        widen["AuthMechanism"] = auth_argument(after.auth)
    if before.certificate != after.certificate:
        widen["TlsCertificateName"] = after.certificate
    if widen:
        steps.append(widen)
    if after.require and not before.require:
        steps.append({"RequireTLS": True})
    return steps


def send_steps(before: SendTls, after: SendTls) -> list[Step]:
    """Return the calls of Set-SendConnector from one state to the other: first what relaxes, last what insists."""
    steps: list[Step] = []
    if before.certificate != after.certificate:
        steps.append({"TlsCertificateName": after.certificate})
    if before.level and not after.level:
        steps.append({"TlsAuthLevel": None, **({"TlsDomain": None} if before.domain else {})})
    if before.require and not after.require:
        steps.append({"RequireTLS": False})
    if before.ignore != after.ignore:
        steps.append({"IgnoreSTARTTLS": after.ignore})
    insist: Step = {}
    if after.require and not before.require:
        insist["RequireTLS"] = True
    if after.level and (after.level, after.domain) != (before.level, before.domain):
        insist["TlsAuthLevel"] = after.level
        if after.domain or before.domain:
            insist["TlsDomain"] = after.domain
    if insist:
        steps.append(insist)
    return steps


def receive_calls(connector: ReceiveConnector, after: ReceiveTls) -> list[CmdletCall]:
    """Return the calls that bring a receive connector to a state, each with its undo. Raises NotReadError."""
    now, calls = ReceiveTls.of(connector), []
    for step in receive_steps(now, after):
        then = now.after(step)
        undo = tuple(_receive(connector, back) for back in receive_steps(then, now))
        calls.append(_receive(connector, step, undo, insists=step.get("RequireTLS") is True))
        now = then
    return calls


def send_calls(connector: SendConnector, after: SendTls) -> list[CmdletCall]:
    """Return the calls that bring a send connector to a state, each with its undo. Raises NotReadError."""
    now, calls = SendTls.of(connector), []
    for step in send_steps(now, after):
        then = now.after(step)
        undo = tuple(_send(connector, back) for back in send_steps(then, now))
        insists = step.get("RequireTLS") is True or bool(step.get("TlsAuthLevel"))
        calls.append(_send(connector, step, undo, insists))
        now = then
    return calls


def _receive(
    connector: ReceiveConnector, step: Step, undo: tuple[CmdletCall, ...] = (), insists: bool = False
) -> CmdletCall:
    return CmdletCall("Set-ReceiveConnector", {"Identity": connector.identity, **step}, undo, insists)


def _send(connector: SendConnector, step: Step, undo: tuple[CmdletCall, ...] = (), insists: bool = False) -> CmdletCall:
    return CmdletCall("Set-SendConnector", {"Identity": connector.identity, **step}, undo, insists)
