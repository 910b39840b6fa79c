"""state.json: what the stand-in is told. Objects and properties have the names that the Exchange cmdlets give them, where there is one.

Behaviour                       on_premises | online
Server                          Name, Fqdn, Version
ServerComponentState            FrontendTransport: Active | Inactive
Certificates                    each: File (PEM: key, certificate, intermediates), Thumbprint, Subject, Issuer, CertificateDomains,
                                Services, Status
TrustedRoots                    PEM files; on premises the machine's store, online the public authorities
ReceiveConnectors               online too, for the front ends, though nobody can see them there
SendConnectors                  on premises
AcceptedDomains                 DomainName
InboundConnectors               online
OutboundConnectors              online
ResumedSessionKeepsAttribution  online: false forgets the client certificate in a resumed TLS session
ClientAuthPurposeRequired       online: true refuses a client certificate without that purpose; nobody knows what the real one does
Replies                         replies that are not in the tables, see reply()
TransportService                RetryIntervals: pairs of a number and seconds; the last one goes on for ever
RetryQueue                      any new value has the queues retried at once, as Retry-Queue does
"""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes

EVERYBODY = "0.0.0.0-255.255.255.255"
SIZES = {"on_premises": 37748736, "online": 157286400}

Object = dict[str, Any]
"""A connector, a certificate, a domain: property -> value."""

RECEIVE_CONNECTOR: Object = {
    "Enabled": True, "Bindings": ["0.0.0.0:25"], "RemoteIPRanges": [EVERYBODY], "Fqdn": None,
    "AuthMechanism": "Tls, Integrated, BasicAuth, BasicAuthRequireTLS, ExchangeServer",
    "PermissionGroups": "AnonymousUsers, ExchangeServers, ExchangeLegacyServers", "RequireTLS": False,
    "TlsCertificateName": None, "TransportRole": "FrontendTransport",
}  # fmt: skip
SEND_CONNECTOR: Object = {
    "Enabled": True, "AddressSpaces": ["SMTP:*;1"], "SmartHosts": [], "DNSRoutingEnabled": False, "Port": 25,
    "RequireTLS": False, "TlsAuthLevel": None, "TlsDomain": None, "IgnoreSTARTTLS": False, "Fqdn": None,
    "TlsCertificateName": None, "Identity": None,
}  # fmt: skip
INBOUND_CONNECTOR: Object = {
    "Enabled": True, "ConnectorType": "OnPremises", "SenderDomains": ["smtp:*;1"], "SenderIPAddresses": [],
    "RequireTls": True, "TlsSenderCertificateName": None,
}  # fmt: skip
OUTBOUND_CONNECTOR: Object = {
    "Enabled": True, "RecipientDomains": ["*"], "UseMXRecord": False, "SmartHosts": [], "TlsSettings": None,
    "TlsDomain": None, "AllAcceptedDomains": False,
}  # fmt: skip
RETRY_INTERVALS = [[4, 60], [6, 300], [1, 600]]


class StateError(Exception):
    """The state cannot be read."""


@dataclass(frozen=True)
class Route:
    """How mail leaves: the name of a connector, its smart hosts, and its TLS as on premises and online alike."""

    connector: str
    guid: str
    hosts: tuple[str, ...]
    port: int
    fqdn: str
    ignore_tls: bool
    require_tls: bool
    level: Optional[str]
    domain: Optional[str]
    certificate: Optional[str]


class State:
    """The file as it was when it was read."""

    def __init__(self, data: Object) -> None:
        self.data = data
        self.behaviour = data.get("Behaviour")
        if self.behaviour not in SIZES:
            raise StateError(f"Behaviour has to be one of {', '.join(SIZES)}, not {self.behaviour!r}")
        server = data.get("Server") or {}
        self.fqdn: str = server.get("Fqdn") or "exchange.example.test"
        self.name: str = server.get("Name") or self.fqdn.partition(".")[0].upper()
        self.version: str = server.get("Version") or {"online": "15.20.9388.10"}.get(self.behaviour, "15.2.2562.17")

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the file. Raises StateError."""
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StateError(f"{path}: {error}") from error
        if not isinstance(data, dict):
            raise StateError(f"{path} holds no object")
        return cls(data)

    @property
    def online(self) -> bool:
        """Whether it behaves as Exchange Online."""
        return self.behaviour == "online"

    def objects(self, kind: str, defaults: Object) -> list[Object]:
        """The enabled objects of a list, with the defaults of properties that they lack."""
        return [one for one in ({**defaults, **given} for given in self.data.get(kind) or []) if one["Enabled"]]

    def bindings(self) -> set[tuple[str, int]]:
        """Where it listens: address and port."""
        found = [text for one in self.objects("ReceiveConnectors", RECEIVE_CONNECTOR) for text in one["Bindings"]]
        return {_binding(text) for text in found}

    def receive_connector(self, port: int, client: str) -> Optional[Object]:
        """The connector that answers a client on a port: the one with the narrowest range that holds the client."""
        address = ipaddress.ip_address(client)
        best: Optional[Object] = None
        smallest = 0
        for one in self.objects("ReceiveConnectors", RECEIVE_CONNECTOR):
            if all(_binding(text)[1] != port for text in one["Bindings"]):
                continue
            for low, high in map(_range, one["RemoteIPRanges"]):
                size = int(high) - int(low) + 1
                if low.version == address.version and low <= address <= high and (best is None or size < smallest):
                    best, smallest = one, size
        return best

    def available(self) -> bool:
        """Whether the transport service is in service."""
        return (self.data.get("ServerComponentState") or {}).get("FrontendTransport", "Active") == "Active"

    def certificate(self, name: Optional[str], fqdn: str) -> Optional[Object]:
        """The certificate with this <I>issuer<S>subject; without a name, one that covers the host name. None: there is none.

        Which of several with that name is served is not documented. Here it is the one that ends last.
        """
        named = []
        for one in self.data.get("Certificates") or []:
            usable = "SMTP" in words(one.get("Services")) and one.get("Status", "Valid") == "Valid"
            if not usable or not Path(one["File"]).is_file():
                continue
            if name is not None and name.lower() == certificate_name(one).lower():
                named.append(one)
            if name is None and any(covers(domain, fqdn) for domain in one.get("CertificateDomains") or []):
                return one
        return max(named, key=lambda one: str(one.get("NotAfter"))[:19], default=None)

    def accepts(self, domain: str) -> bool:
        """Whether it is an accepted domain, or lies below one that is said with a star."""
        every = [str(one["DomainName"]).lower() for one in self.data.get("AcceptedDomains") or []]
        return any(domain == one or (one.startswith("*.") and domain.endswith(one[1:])) for one in every)

    def vouches_for(self, name: str) -> bool:
        """Whether a certificate's name is an accepted domain or lies below one."""
        every = [str(one["DomainName"]).lower().removeprefix("*.") for one in self.data.get("AcceptedDomains") or []]
        bare = name.lower().removeprefix("*.")
        return any(bare == one or bare.endswith(f".{one}") for one in every)

    def route(self, domain: str) -> Optional[Route]:
        """How mail to a domain leaves: the connector with the most exact address space."""
        best: Optional[Route] = None
        rank = -1
        for one in self.objects("OutboundConnectors", OUTBOUND_CONNECTOR) if self.online else []:
            for space in one["RecipientDomains"]:
                if (length := _space(str(space), domain)) > rank:
                    best, rank = self._outbound(one), length
        for one in self.objects("SendConnectors", SEND_CONNECTOR) if not self.online else []:
            for space in one["AddressSpaces"]:
                if (length := _space(str(space).partition(":")[2].partition(";")[0], domain)) > rank:
                    best, rank = self._send(one), length
        return best

    def _send(self, one: Object) -> Route:
        return Route(
            one["Name"], str(one.get("Guid") or one["Name"]), tuple(map(_host, one["SmartHosts"])), int(one["Port"]),
            one["Fqdn"] or self.fqdn, bool(one["IgnoreSTARTTLS"]), bool(one["RequireTLS"]), one["TlsAuthLevel"],
            one["TlsDomain"], one["TlsCertificateName"],
        )  # fmt: skip

    def _outbound(self, one: Object) -> Route:
        hosts = tuple(map(_host, one["SmartHosts"]))
        port = int(one.get("Port") or 25)  # the real one has 25 only
        return Route(
            one["Name"], str(one.get("Guid") or one["Name"]), hosts, port, self.fqdn, False,
            one["TlsSettings"] is not None, one["TlsSettings"], one["TlsDomain"], None,
        )  # fmt: skip

    def reply(self, at: str, **facts: Any) -> Optional[Object]:
        """The entry of Replies for this moment, if there is one.

        At: connect, ehlo, starttls, mail, rcpt, data (the end of it). Reply: the line; none with Silence: true, which answers nothing
        any more. Close: true ends the connection after it. Address, Resumed, TLS: it holds only where they are the same.
        """
        for one in self.data.get("Replies") or []:
            if one.get("At") == at and all(
                one[key] == facts.get(key) for key in ("Address", "Resumed", "TLS") if key in one
            ):
                return dict(one)
        return None

    def retry_after(self, failures: int) -> float:
        """Seconds until the next attempt after so many that failed."""
        intervals = (self.data.get("TransportService") or {}).get("RetryIntervals") or RETRY_INTERVALS
        for count, seconds in intervals:
            if failures <= count:
                return float(seconds)
            failures -= count
        return float(intervals[-1][1])


def words(text: Any) -> list[str]:
    """The values of a property that Exchange shows as one text."""
    return [word.strip() for word in (text if isinstance(text, list) else str(text or "").split(","))]


def certificate_name(one: Object) -> str:
    """What a connector's TlsCertificateName has for a certificate."""
    return f"<I>{one['Issuer']}<S>{one['Subject']}"


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate stands for a host name; *.example.com does for one label."""
    pattern, name = pattern.lower(), name.lower()
    return pattern == name or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:])


def certificate(file: Path, services: str = "SMTP") -> Object:
    """An object for Certificates from a PEM file that holds key, certificate and intermediates."""
    loaded = x509.load_pem_x509_certificates(file.read_bytes())[0]
    return {
        "File": str(file),
        "Thumbprint": loaded.fingerprint(hashes.SHA1()).hex().upper(),
        "Subject": _distinguished(loaded.subject),
        "Issuer": _distinguished(loaded.issuer),
        "CertificateDomains": names_of(loaded),
        "Services": services,
        "Status": "Valid",
        "NotAfter": loaded.not_valid_after_utc.isoformat(),
    }


def names_of(loaded: x509.Certificate) -> list[str]:
    """The names in a certificate: subjectAltName, or the common name if there is none."""
    try:
        names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        found = []
    return found or [str(one.value) for one in loaded.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]


def write(path: Path, data: Any) -> None:
    """Put a JSON file in place in one step."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(data, indent=2) + "\n")
    aside.replace(path)


def _distinguished(name: x509.Name) -> str:
    return ", ".join(part.rfc4514_string() for part in reversed(name.rdns))


def _host(smart_host: str) -> str:
    return smart_host.strip("[] ")


def _binding(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


def _range(text: str) -> tuple[Any, Any]:
    low, dash, high = text.partition("-")
    if dash:
        return ipaddress.ip_address(low), ipaddress.ip_address(high)
    network = ipaddress.ip_network(text, strict=False)
    return network[0], network[-1]


def _space(space: str, domain: str) -> int:
    """How exactly an address space stands for a domain; -1 if it does not."""
    space = space.lower()
    if space == domain:
        return 1000
    if space == "*" or (space.startswith("*.") and domain.endswith(space[1:])):
        return len(space)
    return -1
