# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of cmdlets, as values, and what they do to an organisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import (
    THUMBPRINT,
    ExchangeCertificate,
    Organisation,
    ReceiveConnector,
    SendConnector,
    Shown,
    ShownValue,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import OWN_PREFIX, WantedCertificate
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

Argument = Union[str, bool, int, None, tuple[str, ...], Mapping[str, str]]
"""The value of a parameter; a mapping C({"Secret": NAME}) stands for a secret."""

_NEEDED = {
    "Set-ReceiveConnector": ("Identity",),
    "Set-SendConnector": ("Identity",),
    "New-ReceiveConnector": ("Name", "Server", "TransportRole", "Bindings", "RemoteIPRanges"),
    "New-SendConnector": ("Name", "AddressSpaces", "SourceTransportServers"),
    "Remove-ReceiveConnector": ("Identity",),
    "Remove-SendConnector": ("Identity",),
    "Import-ExchangeCertificate": ("Server", "FileData", "Password"),
    "Enable-ExchangeCertificate": ("Server", "Thumbprint", "Services"),
    "Remove-ExchangeCertificate": ("Server", "Thumbprint"),
    "Retry-Queue": ("Identity",),
}
"""Cmdlet -> the parameters that may not be empty: an empty identity means every object to some cmdlets."""
_OWN_ONLY = {"RemoteIPRanges", "PermissionGroups", "Bindings", "Fqdn", "AddressSpaces", "SmartHosts", "Enabled"}
"""Parameters of Set- that change whom a connector serves: never on one that the collection has not made."""


@dataclass(frozen=True)
class CmdletCall:
    """One call of a cmdlet. undo: the calls that undo it, in the order in which they run.

    insists: whether it makes this server insist on TLS, so that a handshake has to be completed first. Raises EngineError for a call
    that must never be made.
    """

    cmdlet: str
    parameters: Mapping[str, Argument]
    undo: tuple[CmdletCall, ...] = ()
    insists: bool = False

    def __post_init__(self) -> None:
        """Refuse a call that would reach more than one object, or that changes whom another's connector serves."""
        if self.cmdlet not in _NEEDED:
            raise EngineError(f"{self.cmdlet} is no cmdlet that the collection calls")
        for name in _NEEDED[self.cmdlet]:
            value = self.parameters.get(name)
            if not value or (isinstance(value, str) and not value.strip("\\ ")):
                raise EngineError(f"{self.cmdlet} without {name} could change every object, so it is not called")
        thumbprint = self.parameters.get("Thumbprint")
        if thumbprint is not None and not THUMBPRINT.match(str(thumbprint)):
            raise EngineError(f"{self.cmdlet}: {thumbprint!r} is no thumbprint, so it is not called")
        name = str(self.parameters.get("Identity")).rpartition("\\")[2].lower()
        foreign = self.cmdlet.startswith("Set-") and not name.startswith(OWN_PREFIX)
        if foreign and (touched := sorted(_OWN_ONLY & self.parameters.keys())):
            raise EngineError(f"{touched[0]} of the connector {name} is not the collection's, so it is not changed")

    def to_json(self) -> dict[str, Any]:
        """Return the call as exchange_cmdlets takes it: C(Cmdlet), C(Parameters), C(Undo)."""
        return {
            "Cmdlet": self.cmdlet,
            "Parameters": {
                name: list(value) if isinstance(value, tuple) else value for name, value in self.parameters.items()
            },
            "Undo": [one.to_json() for one in self.undo],
        }


def simulate(
    organisation: Organisation, calls: Iterable[CmdletCall], certificate: Optional[WantedCertificate] = None
) -> Organisation:
    """Return the organisation as it is after the calls. certificate: what an import brings. Raises NotReadError."""
    for call in calls:
        organisation = _after(organisation, call, certificate)
    return organisation


def _after(organisation: Organisation, call: CmdletCall, certificate: Optional[WantedCertificate]) -> Organisation:
    given = call.parameters
    identity = str(given.get("Identity"))
    verb, _, noun = call.cmdlet.partition("-")
    if noun == "ExchangeCertificate":
        return _certificates_after(organisation, verb, given, certificate)
    if verb == "New":
        return organisation.with_replaced(None, _created(organisation, noun, given))
    found: Optional[Shown] = None
    if noun == "ReceiveConnector":
        found = organisation.receive_connector(identity)
    elif noun == "SendConnector":
        found = organisation.send_connector(identity)
    if found is None:  # a queue that is retried, or a connector that is gone
        return organisation
    return organisation.with_replaced(found, None if verb == "Remove" else _changed(found, given))


def _changed(found: Shown, given: Mapping[str, Argument]) -> Shown:
    return replace(
        found, values={**found.values, **{name: _value(name, given[name]) for name in given if name != "Identity"}}
    )


def _value(name: str, argument: Argument) -> ShownValue:
    """Return how a cmdlet shows what was given to it."""
    if isinstance(argument, tuple) and name in ("AuthMechanism", "PermissionGroups"):
        return ", ".join(argument)
    return None if isinstance(argument, Mapping) else argument


def _created(organisation: Organisation, noun: str, given: Mapping[str, Argument]) -> Shown:
    values = {name: _value(name, given[name]) for name in given if name not in ("Server", "Custom")}
    if noun == "SendConnector":
        return SendConnector({**_NEW_SEND, **values, "Identity": values["Name"]})
    values.setdefault("Fqdn", organisation.server.values.get("Fqdn"))
    return ReceiveConnector({**_NEW_RECEIVE, **values, "Identity": f"{given['Server']}\\{given['Name']}"})


_NEW_RECEIVE: dict[str, ShownValue] = {"Enabled": True, "RequireTLS": False, "TlsCertificateName": None}
_NEW_SEND: dict[str, ShownValue] = {
    "Enabled": True, "Port": 25, "Fqdn": None, "RequireTLS": False, "IgnoreSTARTTLS": False, "TlsAuthLevel": None,
    "TlsDomain": None, "TlsCertificateName": None, "DomainSecureEnabled": False, "CloudServicesMailEnabled": False,
}  # fmt: skip


def _certificates_after(
    organisation: Organisation, verb: str, given: Mapping[str, Argument], certificate: Optional[WantedCertificate]
) -> Organisation:
    if verb == "Import":
        if certificate is None:
            raise EngineError("an import was planned without a certificate")
        return organisation.with_replaced(None, imported(certificate))
    found = organisation.certificate(str(given["Thumbprint"]))
    if found is None:
        return organisation
    if verb == "Remove":
        return organisation.with_replaced(found, None)
    services = ", ".join(sorted({*found.services, *(one.upper() for one in _texts(given["Services"]))}))
    organisation = organisation.with_replaced(found, replace(found, values={**found.values, "Services": services}))
    if "SMTP" in {one.upper() for one in _texts(given["Services"])}:
        service = replace(
            organisation.transport_service,
            values={
                **organisation.transport_service.values,
                "InternalTransportCertificateThumbprint": found.thumbprint,
            },
        )
        organisation = replace(organisation, transport_service=service)
    return organisation


def _texts(argument: Argument) -> tuple[str, ...]:
    return argument if isinstance(argument, tuple) else (str(argument),)


def imported(certificate: WantedCertificate) -> ExchangeCertificate:
    """Return the certificate as Get-ExchangeCertificate shows it after the import, as far as that can be told before."""
    return ExchangeCertificate(
        {
            "Thumbprint": certificate.thumbprint,
            "Subject": certificate.subject,
            "Issuer": certificate.issuer,
            "CertificateDomains": certificate.domains,
            "Services": "None",
            "Status": "Valid",
            "IsSelfSigned": certificate.subject == certificate.issuer,
            "NotAfter": certificate.not_after,
            "HasPrivateKey": True,
        }
    )
