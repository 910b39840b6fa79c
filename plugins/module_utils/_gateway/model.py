# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted of a gateway, and what it holds: delivery modes, enforced domains and the outbound side, as values.

A value reads and checks plain data by C(from_dict). record.py keeps the whole on the gateway.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

# Mode -> what the gateway does on the way to the mail server with mail that arrived in plaintext, over TLS.
LEVELS = {
    "plaintext": ("none", "none"),
    "match_sender": ("none", "may"),
    "match_sender_strict": ("none", "encrypt"),
    "opportunistic": ("may", "may"),
    "required": ("encrypt", "encrypt"),
}
MODES = tuple(LEVELS)
# A level in the words of a mail server's outbound side.
SERVER_OUTBOUND = {"none": "disabled", "may": "opportunistic", "encrypt": "required"}
DEFAULT_MODE = "plaintext"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.@-]{0,62}\Z")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


def is_domain(text: str) -> bool:
    """Whether the text is a domain name in lower-case ASCII, without a dot at its end."""
    return bool(_DOMAIN.match(text))


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
        """Read and check plain data. Raises EngineError naming the email config and what is wrong."""
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
            if not is_domain(domain):
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


DIRECTIONS = ("inbound", "outbound")
CERTIFICATE_CHECKS = ("encryption_only", "trusted_chain", "hostname")


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
        """Read and check plain data. Raises EngineError naming the domain and what is wrong."""
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


ACCEPTS = ("plaintext", "both", "tls_only")
SENDS = MODES


@dataclass(frozen=True)
class OutboundTls:
    """accept and send, each None while nobody has set it, and the networks that the mail servers connect from."""

    accept: Optional[str] = None
    send: Optional[str] = None
    mail_servers: tuple[str, ...] = ()

    @property
    def depends_on_arrival(self) -> bool:
        """Whether it matters for what is sent how a message reached the gateway."""
        plain, over_tls = LEVELS[self.send or DEFAULT_MODE]
        return plain != over_tls

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data; from_dict reads it."""
        return {**asdict(self), "mail_servers": list(self.mail_servers)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OutboundTls:
        """Read and check plain data. Raises EngineError naming what is wrong."""
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


@dataclass(frozen=True)
class GatewayState:
    """email_configs by name; enforced in order of direction and domain; outbound None while nobody has set it.

    ca_file: path on the gateway of the roots for certificate checks; empty for those the gateway uses anyway.
    """

    email_configs: Mapping[str, EmailConfig] = field(default_factory=dict)
    enforced: tuple[EnforcedDomain, ...] = ()
    outbound: Optional[OutboundTls] = None
    ca_file: str = ""

    @property
    def levels(self) -> tuple[str, str]:
        """What is done towards the internet with mail that arrived in plaintext, over TLS; empty if nobody said."""
        return LEVELS[self.outbound.send] if self.outbound and self.outbound.send else ("", "")

    @property
    def senders_enforced(self) -> bool:
        """Whether there is an inbound enforced domain."""
        return any(one.direction == "inbound" for one in self.enforced)

    @cached_property
    def recipients_enforced(self) -> dict[str, EnforcedDomain]:
        """The outbound enforced domains by their name."""
        return {one.domain: one for one in self.enforced if one.direction == "outbound"}

    @property
    def depends_on_arrival(self) -> bool:
        """Whether it matters for any mode how a message reached the gateway."""
        outbound = self.outbound is not None and self.outbound.depends_on_arrival
        return outbound or any(one.depends_on_arrival for one in self.email_configs.values())

    def owner_of(self, domain: str) -> Optional[EmailConfig]:
        """The email config that a recipient domain belongs to."""
        return self._owners.get(domain)

    @cached_property
    def _owners(self) -> dict[str, EmailConfig]:
        return {domain: one for one in self.email_configs.values() for domain in one.domains}
