# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted and the present state of a gateway as values: delivery modes, enforced domains and the outbound side.

C(from_dict) reads and checks plain data. record.py stores the whole state on the gateway.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError, is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

# Mode -> TLS levels towards the mail server, in the words of a mail server's outbound side: for mail that arrived in plaintext,
# and for mail that arrived over TLS. Each product translates them.
LEVELS = {
    "plaintext": ("disabled", "disabled"),
    "match_sender": ("disabled", "opportunistic"),
    "match_sender_strict": ("disabled", "required"),
    "opportunistic": ("opportunistic", "opportunistic"),
    "required": ("required", "required"),
}
MODES = tuple(LEVELS)
DEFAULT_MODE = "plaintext"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.@-]{0,62}\Z")


def is_absent(item: Mapping[str, Any]) -> bool:
    """Whether an entry of email_configs or enforced_domains asks for its removal."""
    return item.get("state") == "absent"


@dataclass(frozen=True)
class EmailConfig:
    """Recipient domains, the mail servers that receive their mail in order of preference, and the delivery mode."""

    name: str
    domains: tuple[str, ...]
    servers: tuple[Target, ...]
    delivery_mode: str = DEFAULT_MODE

    @property
    def depends_on_arrival(self) -> bool:
        """Whether the TLS level depends on how a message arrived at the gateway."""
        plain, over_tls = LEVELS[self.delivery_mode]
        return plain != over_tls

    def to_dict(self) -> dict[str, Any]:
        """Return the email config as plain data for from_dict."""
        return {
            "name": self.name,
            "domains": list(self.domains),
            "servers": [str(server) for server in self.servers],
            "delivery_mode": self.delivery_mode,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EmailConfig:
        """Read and check plain data. Raises EngineError, which names the email config and the fault."""
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
                raise EngineError(f"email config {name}: domains: {domain!r} is not a domain name (write it in ASCII)")
        try:
            servers = tuple(Target.parse(str(server).lower()) for server in data.get("servers") or ())
        except TargetError as error:
            raise EngineError(f"email config {name}: servers: {error}") from error
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
    """A sender domain (inbound) or a recipient domain (outbound) that requires TLS.

    certificate_check and servers apply to outbound domains only. servers: next hops that replace the gateway's own routing.
    """

    domain: str
    direction: str
    certificate_check: str = "encryption_only"
    servers: tuple[Target, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """The key of an enforced domain: a gateway holds at most one for each direction and domain."""
        return self.direction, self.domain

    def to_dict(self) -> dict[str, Any]:
        """Return the enforced domain as plain data for from_dict."""
        data: dict[str, Any] = {"domain": self.domain, "direction": self.direction}
        if self.direction == "outbound":
            data["certificate_check"] = self.certificate_check
            data["servers"] = [str(server) for server in self.servers]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EnforcedDomain:
        """Read and check plain data. Raises EngineError, which names the domain and the fault."""
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
            raise EngineError(f"enforced domain {domain}: servers: {error}") from error
        if direction == "inbound" and (check or servers):
            raise EngineError(
                f"enforced domain {domain}: certificate_check and servers apply to the direction outbound only; inbound, "
                "the sender connects"
            )
        if check is not None and check not in CERTIFICATE_CHECKS:
            raise EngineError(
                f"enforced domain {domain}: the certificate check {check!r} is not one of {', '.join(CERTIFICATE_CHECKS)}"
            )
        return cls(domain, direction, str(check or CERTIFICATE_CHECKS[0]), servers)


def spellings(domain: str) -> tuple[str, ...]:
    """Return the spellings of a domain in an envelope: in ASCII and, if that differs, in Unicode (SMTPUTF8).

    The Unicode spelling is left out if it contains anything except letters, digits, marks, hyphens and underscores,
    because the spellings are written into tables.
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
    """Return every spelling of the enforced sender domains, in order."""
    return [text for one in enforced if one.direction == "inbound" for text in spellings(one.domain)]


TRANSPORT_FLOORS = ("TLSv1.2", "TLSv1.3")
"""The oldest TLS version that the gateway's own transports may permit."""
ACCEPTS = ("plaintext", "both", "tls_only")
SENDS = MODES


@dataclass(frozen=True)
class OutboundTls:
    """The settings of the outbound side.

    accept: one of ACCEPTS. send: one of SENDS. Each is None until somebody sets it.
    mail_servers: the networks from which the mail servers connect.
    """

    accept: Optional[str] = None
    send: Optional[str] = None
    mail_servers: tuple[str, ...] = ()

    @property
    def depends_on_arrival(self) -> bool:
        """Whether the TLS level of outgoing mail depends on how a message arrived at the gateway."""
        plain, over_tls = LEVELS[self.send or DEFAULT_MODE]
        return plain != over_tls

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data for from_dict."""
        return {**asdict(self), "mail_servers": list(self.mail_servers)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OutboundTls:
        """Read and check plain data. Raises EngineError, which names the fault."""
        for what, allowed in (("accept", ACCEPTS), ("send", SENDS)):
            if data.get(what) is not None and data[what] not in allowed:
                raise EngineError(f"{what} {data[what]!r} is not one of {', '.join(allowed)}")
        servers = data.get("mail_servers") or ()
        if isinstance(servers, str):
            raise EngineError("mail_servers has to be a list")
        networks = []
        for server in servers:
            try:
                if "%" in str(server):  # ipaddress accepts any text after it
                    raise ValueError("an address with a zone is valid on one host only")
                networks.append(str(ipaddress.ip_network(str(server).strip("[]"))))
            except ValueError as error:
                raise EngineError(
                    f"mail_servers: {server!r} is neither an IP address nor a network ({error})"
                ) from error
        outbound = cls(data.get("accept"), data.get("send"), tuple(dict.fromkeys(networks)))
        if outbound.accept in ("plaintext", "tls_only") and not networks:
            raise EngineError(
                f"accept {outbound.accept} applies to your own mail servers only: name their addresses or networks in mail_servers"
            )
        return outbound


@dataclass(frozen=True)
class GatewayState:
    """The whole state of a gateway.

    email_configs: name -> email config. enforced: in order of direction and domain. outbound: None until somebody sets it.
    ca_file: path on the gateway of the roots for certificate checks; empty for the gateway's default roots. min_tls: one of
    TRANSPORT_FLOORS, for the transports of modes and of outbound enforced domains; empty for none.
    """

    email_configs: Mapping[str, EmailConfig] = field(default_factory=dict)
    enforced: tuple[EnforcedDomain, ...] = ()
    outbound: Optional[OutboundTls] = None
    ca_file: str = ""
    min_tls: str = ""

    @property
    def levels(self) -> tuple[str, str]:
        """TLS levels towards the internet: for mail that arrived in plaintext and over TLS. Empty texts if send is not set."""
        return LEVELS[self.outbound.send] if self.outbound and self.outbound.send else ("", "")

    @property
    def senders_enforced(self) -> bool:
        """Whether at least one inbound domain is enforced."""
        return any(one.direction == "inbound" for one in self.enforced)

    @cached_property
    def recipients_enforced(self) -> dict[str, EnforcedDomain]:
        """The outbound enforced domains by their name."""
        return {one.domain: one for one in self.enforced if one.direction == "outbound"}

    @property
    def depends_on_arrival(self) -> bool:
        """Whether any TLS level depends on how a message arrived at the gateway."""
        outbound = self.outbound is not None and self.outbound.depends_on_arrival
        return outbound or any(one.depends_on_arrival for one in self.email_configs.values())

    def owner_of(self, domain: str) -> Optional[EmailConfig]:
        """Return the email config of a recipient domain, or None."""
        return self._owners.get(domain)

    @cached_property
    def _owners(self) -> dict[str, EmailConfig]:
        return {domain: one for one in self.email_configs.values() for domain in one.domains}


def changing(before: GatewayState, after: GatewayState) -> list[EmailConfig]:
    """Return the email configs that are new or differ."""
    return [one for one in after.email_configs.values() if before.email_configs.get(one.name) != one]
