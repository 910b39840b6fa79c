"""What exchange_cmdlets returns of a fresh Exchange server, and an interpreter of calls that is as strict as Exchange is documented to be.

The interpreter shares no code with the engine: it knows the rules that Microsoft's documentation has for the cmdlets.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

SERVER = "EX1"
FQDN = "ex1.example.com"
EVERYBODY = ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "0.0.0.0-255.255.255.255"]
INTERNAL = "A" * 40
PUBLIC = "B" * 40
NEW = "C" * 40
FULL = "Tls, Integrated, BasicAuth, BasicAuthRequireTLS, ExchangeServer"

Object = dict[str, Any]


def certificate(thumbprint: str, subject: str, issuer: str, domains: list[str], services: str = "SMTP") -> Object:
    """A certificate as it is observed."""
    return {
        "Thumbprint": thumbprint, "Subject": subject, "Issuer": issuer, "CertificateDomains": domains, "Services": services,
        "Status": "Valid", "IsSelfSigned": subject == issuer, "NotBefore": "2026-01-01T00:00:00Z",
        "NotAfter": "2027-01-01T00:00:00Z", "RawData": "AAAA", "HasPrivateKey": True, "RootCAType": "ThirdParty", "Unknown": [],
    }  # fmt: skip


def receive(name: str, port: int = 25, server: str = SERVER, **properties: Any) -> Object:
    """A receive connector as it is observed."""
    return {
        "Identity": f"{server}\\{name}", "Name": name, "Enabled": True, "Bindings": [f"[::]:{port}", f"0.0.0.0:{port}"],
        "RemoteIPRanges": EVERYBODY, "Fqdn": FQDN, "AuthMechanism": FULL,
        "PermissionGroups": "AnonymousUsers, ExchangeServers, ExchangeLegacyServers", "RequireTLS": False,
        "TlsCertificateName": None, "TransportRole": "FrontendTransport", "TlsDomainCapabilities": [],
        "SuppressXAnonymousTls": False, "ProtocolLoggingLevel": "None", "Guid": f"guid-{name}", **properties,
    }  # fmt: skip


def send(name: str = "To the internet", **properties: Any) -> Object:
    """A send connector as it is observed."""
    return {
        "Identity": name, "Name": name, "Enabled": True, "AddressSpaces": ["SMTP:*;1"], "SmartHosts": ["gw1.example.com"],
        "DNSRoutingEnabled": False, "Port": 25, "Fqdn": None, "RequireTLS": False, "IgnoreSTARTTLS": False, "TlsAuthLevel": None,
        "TlsDomain": None, "TlsCertificateName": None, "DomainSecureEnabled": False, "CloudServicesMailEnabled": False,
        "FrontendProxyEnabled": False, "SourceTransportServers": [SERVER], "Guid": f"guid-{name}", **properties,
    }  # fmt: skip


def queue(connector: str = "To the internet", **properties: Any) -> Object:
    """A queue of a send connector."""
    return {
        "Identity": f"{SERVER}\\3", "Status": "Retry", "DeliveryType": "SmartHostConnectorDelivery", "NextHopDomain": "gw1.example.com",
        "NextHopConnector": f"guid-{connector}", "MessageCount": 2, "LastError": "", "NextRetryTime": None, "RetryCount": 3, **properties,
    }  # fmt: skip


def organisation(**parts: Any) -> Object:
    """C(observed) of a server as setup leaves it, with one certificate of a public authority and a send connector."""
    return {
        "Server": {"Name": SERVER, "Fqdn": FQDN, "AdminDisplayVersion": "Version 15.2 (Build 2562.17)", "ServerRole": "Mailbox",
                   "IsEdgeServer": False},
        "Windows": {"Version": "10.0.20348"},
        "TransportService": {"InternalTransportCertificateThumbprint": INTERNAL},
        "ExchangeCertificates": [
            certificate(INTERNAL, "CN=EX1", "CN=EX1", ["EX1", FQDN], "IIS, SMTP"),
            certificate(PUBLIC, "CN=mail.example.com", "CN=Authority 1, O=Example", ["mail.example.com", FQDN], "IIS, SMTP"),
        ],
        "ReceiveConnectors": [
            receive("Default Frontend EX1"),
            receive("Client Frontend EX1", 587, PermissionGroups="ExchangeUsers",
                    AuthMechanism="Tls, Integrated, BasicAuth, BasicAuthRequireTLS"),
            receive("Outbound Proxy Frontend EX1", 717, PermissionGroups="ExchangeServers"),
            receive("Default EX1", 2525, TransportRole="HubTransport"),
            receive("Client Proxy EX1", 465, TransportRole="HubTransport", PermissionGroups="ExchangeServers, ExchangeUsers"),
        ],
        "SendConnectors": [send()],
        "Queues": [],
        "AcceptedDomains": ["example.com"],
        "Errors": {},
        **parts,
    }  # fmt: skip


class Refused(Exception):
    """What Exchange would refuse."""


class StrictExchange:
    """Runs calls on a copy of C(observed)."""

    def __init__(self, observed: Mapping[str, Any], imports: Mapping[str, Any] | None = None) -> None:
        self.state: Object = copy.deepcopy(dict(observed))
        self.imports = imports
        """What Import-ExchangeCertificate brings."""

    def run(self, calls: Iterable[Mapping[str, Any]]) -> None:
        """Run calls in the form of C(calls) of exchange_cmdlets."""
        for call in calls:
            assert "Confirm" not in call["Parameters"], "exchange_cmdlets gives it to each call"
            getattr(self, "_" + call["Cmdlet"].replace("-", "_").lower())(dict(call["Parameters"]))

    def look(self) -> Object:
        """What is there, comparable: lists without order."""
        found = copy.deepcopy(self.state)
        for kind in ("ReceiveConnectors", "SendConnectors", "ExchangeCertificates"):
            for one in found[kind]:
                for name in ("AuthMechanism", "PermissionGroups", "Services"):
                    if name in one:
                        one[name] = sorted(_words(one[name]))
                for name in ("RemoteIPRanges", "Bindings", "SourceTransportServers"):
                    if name in one:
                        one[name] = sorted(map(_canonical, one[name]))
                one.pop("Guid", None)
            found[kind] = sorted(found[kind], key=lambda one: str(one.get("Identity") or one.get("Thumbprint")))
        return found

    def _find(self, kind: str, key: str, name: str) -> Object:
        assert name, f"{kind} without a name"
        found = [one for one in self.state[kind] if str(one[key]).lower() == name.lower()]
        if len(found) != 1:
            raise Refused(f"{name} was not found in {kind}")
        return found[0]

    def _set_receiveconnector(self, given: Object) -> None:
        one = self._find("ReceiveConnectors", "Identity", given.pop("Identity"))
        changed = {**one, **self._receive(given)}
        self._check_receive(changed, one)
        one.update(changed)

    def _new_receiveconnector(self, given: Object) -> None:
        name, server = given.pop("Name"), given.pop("Server")
        assert given.pop("Custom") is True
        if len(name) > 64:
            raise Refused("the name is too long")
        if any(one["Identity"].lower() == f"{server}\\{name}".lower() for one in self.state["ReceiveConnectors"]):
            raise Refused(f"{name} is there already")
        made = receive(name, server=server, AuthMechanism="Tls", PermissionGroups="None", **{})
        made.update(self._receive(given))
        self._check_receive(made, None)
        self.state["ReceiveConnectors"].append(made)

    def _remove_receiveconnector(self, given: Object) -> None:
        self.state["ReceiveConnectors"].remove(self._find("ReceiveConnectors", "Identity", given.pop("Identity")))
        assert not given

    def _receive(self, given: Object) -> Object:
        known = set(receive("x")) - {"Identity", "Guid"}
        assert set(given) <= known, set(given) - known
        for name in ("AuthMechanism", "PermissionGroups"):
            if name in given:
                assert isinstance(given[name], list)
                given[name] = ", ".join(given[name])
        return given

    def _check_receive(self, one: Object, before: Object | None) -> None:
        auth = _words(one["AuthMechanism"])
        accepted = {
            "None",
            "Tls",
            "Integrated",
            "BasicAuth",
            "BasicAuthRequireTLS",
            "ExchangeServer",
            "ExternalAuthoritative",
        }
        if auth - accepted:
            raise Refused(f"AuthMechanism {auth - accepted}")
        if "None" in auth and len(auth) > 1:
            raise Refused("None stands alone")
        if "BasicAuthRequireTLS" in auth and not {"BasicAuth", "Tls"} <= auth:
            raise Refused("BasicAuthRequireTLS needs BasicAuth and Tls")
        if "ExternalAuthoritative" in auth and auth - {"Tls", "ExternalAuthoritative"}:
            raise Refused("ExternalAuthoritative goes only with Tls")
        if one["RequireTLS"] and "Tls" not in auth:
            raise Refused("RequireTLS needs Tls")
        for other in self.state["ReceiveConnectors"]:
            if other is before or not set(map(_canonical, other["Bindings"])) & set(map(_canonical, one["Bindings"])):
                continue
            for mine in map(_span, one["RemoteIPRanges"]):
                for theirs in map(_span, other["RemoteIPRanges"]):
                    apart = mine[0] != theirs[0] or mine[2] < theirs[1] or theirs[2] < mine[1]
                    nested = (mine[1] <= theirs[1] and theirs[2] <= mine[2]) or (
                        theirs[1] <= mine[1] and mine[2] <= theirs[2]
                    )
                    if not apart and (mine == theirs or not nested):
                        raise Refused(f"Bindings and RemoteIPRanges conflict with {other['Name']}")

    def _set_sendconnector(self, given: Object) -> None:
        one = self._find("SendConnectors", "Identity", given.pop("Identity"))
        self._change_send(one, given)

    def _new_sendconnector(self, given: Object) -> None:
        name = given.pop("Name")
        assert given.pop("Custom") is True
        if any(one["Name"].lower() == name.lower() for one in self.state["SendConnectors"]):
            raise Refused(f"{name} is there already")
        made = send(name, SmartHosts=[], AddressSpaces=[], DNSRoutingEnabled=True, SourceTransportServers=[])
        self._change_send(made, given)
        self.state["SendConnectors"].append(made)

    def _change_send(self, one: Object, given: Object) -> None:
        known = set(send()) - {"Identity", "Guid"}
        assert set(given) <= known, set(given) - known
        made = {**one, **given}
        if made["RequireTLS"] and made["IgnoreSTARTTLS"]:
            raise Refused("RequireTLS needs IgnoreSTARTTLS $false")
        if given.get("TlsAuthLevel") and (made["IgnoreSTARTTLS"] or not made["RequireTLS"]):
            raise Refused("TlsAuthLevel can't be set")
        if made["TlsAuthLevel"] and not made["RequireTLS"]:
            raise Refused("RequireTLS goes while TlsAuthLevel is set")
        if made["TlsDomain"] and made["TlsAuthLevel"] != "DomainValidation":
            raise Refused(
                "The TLSDomain parameter can only be set if the TLSAuthLevel parameter is set to DomainValidation."
            )
        if made["TlsAuthLevel"] == "DomainValidation" and not made["TlsDomain"] and not made["DNSRoutingEnabled"]:
            raise Refused("TlsDomain is mandatory")
        if bool(made["SmartHosts"]) == made["DNSRoutingEnabled"]:
            raise Refused("SmartHosts needs DNSRoutingEnabled $false")
        if made["DomainSecureEnabled"] and made["IgnoreSTARTTLS"]:
            raise Refused("DomainSecureEnabled needs IgnoreSTARTTLS $false")
        one.update(made)

    def _remove_sendconnector(self, given: Object) -> None:
        self.state["SendConnectors"].remove(self._find("SendConnectors", "Identity", given.pop("Identity")))
        assert not given

    def _import_exchangecertificate(self, given: Object) -> None:
        assert given["FileData"] == {"Secret": "FileData"} and given["Password"] == {"Secret": "Password"}
        assert given["Server"] == SERVER and self.imports is not None
        if any(one["Thumbprint"] == self.imports["Thumbprint"] for one in self.state["ExchangeCertificates"]):
            raise Refused("it is there already")
        self.state["ExchangeCertificates"].append({**copy.deepcopy(dict(self.imports)), "Services": "None"})

    def _enable_exchangecertificate(self, given: Object) -> None:
        one = self._find("ExchangeCertificates", "Thumbprint", given["Thumbprint"])
        assert given["Services"] == ["SMTP"] and given["Server"] == SERVER
        assert given.get("Force") is True, "it prompts"
        one["Services"] = ", ".join(sorted((_words(one["Services"]) - {"None"}) | {"SMTP"}))
        self.state["TransportService"]["InternalTransportCertificateThumbprint"] = one["Thumbprint"]

    def _remove_exchangecertificate(self, given: Object) -> None:
        one = self._find("ExchangeCertificates", "Thumbprint", given["Thumbprint"])
        if one["Thumbprint"] == self.state["TransportService"]["InternalTransportCertificateThumbprint"]:
            raise Refused("The internal transport certificate cannot be removed")
        pair = f"<I>{one['Issuer']}<S>{one['Subject']}".lower()
        if any((each["TlsCertificateName"] or "").lower() == pair for each in self.state["SendConnectors"]):
            raise Refused("These certificates are tagged with following Send Connectors")
        self.state["ExchangeCertificates"].remove(one)

    def _retry_queue(self, given: Object) -> None:
        self._find("Queues", "Identity", given["Identity"])["Status"] = "Active"


def _words(text: Any) -> set[str]:
    return {one.strip() for one in (text if isinstance(text, list) else str(text or "").split(",")) if one.strip()}


def _span(text: str) -> tuple[int, int, int]:
    low, dash, high = text.partition("-")
    if dash:
        first, last = ipaddress.ip_address(low), ipaddress.ip_address(high)
        return first.version, int(first), int(last)
    network = ipaddress.ip_network(text, strict=False)
    return network.version, int(network[0]), int(network[-1])


def _canonical(text: str) -> str:
    """A range, a binding or a name as it is compared."""
    try:
        return str(_span(text))
    except ValueError:
        return text.lower()
