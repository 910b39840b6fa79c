# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted of one Exchange server, as values. The controller makes them from the options and the inventory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

RECEIVING = ("disabled", "offered", "required")
SENDING = ("disabled", "opportunistic", "required")
AUTH_LEVELS = {
    "encryption_only": "EncryptionOnly",
    "trusted_chain": "CertificateValidation",
    "hostname": "DomainValidation",
}
"""How the certificate of a smart host is checked -> TlsAuthLevel."""
OWN_PREFIX = "mailfleet_peer_"
"""How the names of the connectors begin that belong to the collection; a peer's name follows."""


@dataclass(frozen=True)
class WantedCertificate:
    """The certificate that Exchange is to serve: one that passed the policy on the controller.

    thumbprint: SHA-1 in upper-case hexadecimal. issuer, subject: as Windows writes them, a prediction until the server has shown
    them. domains: its names, in lower case. not_after: ISO 8601 in UTC.
    """

    thumbprint: str
    issuer: str
    subject: str
    domains: tuple[str, ...] = ()
    not_after: str = ""


@dataclass(frozen=True)
class NamedClient:
    """Who sends to this Exchange: a gateway, a relay, a peer.

    name: as the inventory has it; it names the connector. addresses: IP addresses or ranges (C(a-b), CIDR) from which it connects.
    own_connector: whether it may get a receive connector of its own, for a peer that the inventory names.
    """

    name: str
    addresses: tuple[str, ...]
    own_connector: bool = False


@dataclass(frozen=True)
class ExchangePeer:
    """A host to which Exchange sends by a send connector of its own.

    name: as in C(starttls_peers). hosts: smart hosts, names or addresses. domains: recipient domains, or C(*) alone. level:
    C(opportunistic) or C(required). check: a key of AUTH_LEVELS. tls_domain: the name for C(hostname); empty for the first smart host.
    """

    name: str
    hosts: tuple[str, ...]
    domains: tuple[str, ...]
    port: int = 25
    level: str = "required"
    check: str = "encryption_only"
    tls_domain: str = ""


@dataclass(frozen=True)
class WantedExchange:
    """The wanted state of one Exchange server. None keeps the present state of a direction.

    inbound: of the connectors that serve the clients; without clients, of those on port. outbound: of the send connectors that
    lead to next_hops; without these, of all that this server uses and that are not a peer's. check, tls_domain: of outbound
    C(required). port: on which the clients connect. certificate: what is to be served; None leaves it. send_certificate: whether the send
    connectors in question name the certificate, too. others_with_certificate: the other servers that are known to have it.
    internal_certificate: whether it may become the internal transport certificate. peers: those that are to be there. absent: names
    of peers that are not. fqdn: in the greeting of the collection's own connectors; empty for the server's own name. record: that of
    the Planned before. relax: whether inbound may go from required to offered. remove_former: whether the certificate that the
    connectors named before is removed after the proof.
    """

    inbound: Optional[str] = None
    outbound: Optional[str] = None
    check: str = "encryption_only"
    tls_domain: str = ""
    clients: tuple[NamedClient, ...] = ()
    port: int = 25
    next_hops: tuple[str, ...] = ()
    certificate: Optional[WantedCertificate] = None
    send_certificate: bool = False
    others_with_certificate: tuple[str, ...] = ()
    internal_certificate: bool = False
    peers: tuple[ExchangePeer, ...] = ()
    absent: tuple[str, ...] = ()
    fqdn: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    relax: bool = True
    remove_former: bool = False
