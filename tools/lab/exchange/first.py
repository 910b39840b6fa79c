"""The state that a new installation has: TLS is offered with the server's own certificate, nothing insists on it.

As a program it writes a lab host's: python3 -m exchange.first DIRECTORY. Certificates lie in DIRECTORY/certificates, roots in
DIRECTORY/roots. Environment: LAB_BEHAVIOUR, LAB_FQDN, LAB_DOMAIN (its accepted domains, divided by blanks), LAB_SMARTHOST,
LAB_CERTIFICATE_NAME (TlsSenderCertificateName of the inbound connector).
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from .state import EVERYBODY, Object, certificate, write


def first_state(
    behaviour: str,
    fqdn: str,
    domains: Sequence[str],
    certificates: Sequence[Path],
    roots: Sequence[Path] = (),
    smart_host: str = "",
    *,
    certificate_name: str = "",
    address: str = "0.0.0.0",
    ports: tuple[int, int, int] = (25, 587, 2525),
) -> Object:
    """The state of a server. ports: for mail, for clients, and the one on the loopback that takes anything, as mailboxes hand it in."""
    name = fqdn.partition(".")[0].upper()
    mail, clients, mailboxes = ports
    online = behaviour == "online"
    state: Object = {
        "Behaviour": behaviour,
        "Server": {"Name": name, "Fqdn": fqdn},
        "Certificates": [certificate(file) for file in certificates],
        "TrustedRoots": [str(file) for file in roots],
        "AcceptedDomains": [{"Name": one, "DomainName": one, "DomainType": "Authoritative"} for one in domains],
        "ReceiveConnectors": [
            {
                **_receive(f"Default Frontend {name}", name, fqdn, f"{address}:{mail}"),
                "AuthMechanism": "Tls" if online else "Tls, Integrated, BasicAuth, BasicAuthRequireTLS, ExchangeServer",
                "PermissionGroups": "AnonymousUsers, ExchangeServers, ExchangeLegacyServers",
            },
            {
                **_receive(f"Client Frontend {name}", name, fqdn, f"{address}:{clients}"),
                "AuthMechanism": "Tls, BasicAuth, BasicAuthRequireTLS",
                "PermissionGroups": "ExchangeUsers",
                "RequireTLS": online,
            },
            {
                **_receive(f"Mailboxes {name}", name, fqdn, f"127.0.0.1:{mailboxes}"),
                "RemoteIPRanges": ["127.0.0.1"],
                "AuthMechanism": "Tls, ExternalAuthoritative",
                "PermissionGroups": "ExchangeServers",
                "TransportRole": "HubTransport",
            },
        ],
    }
    if online:
        state["InboundConnectors"] = [
            {
                "Name": "From the relay",
                "Enabled": True,
                "ConnectorType": "OnPremises",
                "SenderDomains": ["smtp:*;1"],
                "SenderIPAddresses": [],
                "RequireTls": True,
                "TlsSenderCertificateName": certificate_name or None,
            }
        ]
        state["OutboundConnectors"] = [
            {
                "Name": "To the relay",
                "Enabled": bool(smart_host),
                "ConnectorType": "OnPremises",
                "RecipientDomains": ["partner.test"],
                "UseMXRecord": False,
                "SmartHosts": [smart_host],
                "TlsSettings": None,
                "TlsDomain": None,
            }
        ]
    elif smart_host:
        state["SendConnectors"] = [
            {
                "Name": "To the internet",
                "Identity": "To the internet",
                "Guid": str(uuid.uuid5(uuid.NAMESPACE_DNS, fqdn)),
                "Enabled": True,
                "AddressSpaces": ["SMTP:*;1"],
                "SmartHosts": [f"[{smart_host}]"],
                "DNSRoutingEnabled": False,
                "Port": 25,
                "RequireTLS": False,
                "TlsAuthLevel": None,
                "TlsDomain": None,
                "IgnoreSTARTTLS": False,
                "Fqdn": None,
                "TlsCertificateName": None,
            }
        ]
    return state


def _receive(connector: str, server: str, fqdn: str, binding: str) -> Object:
    return {
        "Name": connector,
        "Identity": f"{server}\\{connector}",
        "Enabled": True,
        "Bindings": [binding],
        "RemoteIPRanges": [EVERYBODY],
        "Fqdn": fqdn,
        "RequireTLS": False,
        "TlsCertificateName": None,
        "TransportRole": "FrontendTransport",
    }


def main(directory: Path) -> None:
    """Write state.json for a lab host."""
    write(
        directory / "state.json",
        first_state(
            os.environ["LAB_BEHAVIOUR"],
            os.environ["LAB_FQDN"],
            os.environ["LAB_DOMAIN"].split(),
            sorted((directory / "certificates").glob("*.pem")),
            sorted((directory / "roots").glob("*.pem")),
            os.environ["LAB_SMARTHOST"],
            certificate_name=os.environ["LAB_CERTIFICATE_NAME"],
        ),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
