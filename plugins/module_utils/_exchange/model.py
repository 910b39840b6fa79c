# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Exchange organisation as one server shows it: values that exchange_cmdlets read.

Objects and properties have the names that the cmdlets give them. What could not be read raises NotReadError where a decision
needs it, so that nothing is decided by a guess.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional, TypeVar, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import OWN_PREFIX
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

ShownValue = Union[str, bool, int, None, tuple[str, ...]]
THUMBPRINT = re.compile(r"[0-9A-F]{40}\Z")
UNUSABLE = frozenset({"dateinvalid", "invalid", "revoked", "revocationcheckfailure", "pendingrequest"})
"""Values of a certificate's Status, in lower case, with which Exchange does not serve it."""
AUTH_MECHANISMS = (
    "None", "Tls", "Integrated", "BasicAuth", "BasicAuthRequireTLS", "ExchangeServer", "ExternalAuthoritative",
)  # fmt: skip
_DEFAULT_NAMES = (
    "default frontend {}",
    "client frontend {}",
    "outbound proxy frontend {}",
    "default {}",
    "client proxy {}",
)
_MAX_SHOWN = 200
_NOTHING = ("", "none")


class NotReadError(EngineError):
    """What a decision depends on could not be read. The text says what, and why if that is known."""


def shown(text: str) -> str:
    """Return a text of the server for a message: one line, printable, not too long."""
    escaped = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
    return escaped if len(escaped) <= _MAX_SHOWN else f"{escaped[:_MAX_SHOWN]}..."


@dataclass(frozen=True)
class Shown:
    """One object that a cmdlet returned. values: property -> value; one that could not be read is not in it."""

    values: Mapping[str, ShownValue]
    kind = "object"

    def __str__(self) -> str:
        """Return the object for a message."""
        name = (
            self.values.get("Identity") or self.values.get("Name") or self.values.get("Thumbprint") or "without a name"
        )
        return f"{self.kind} {shown(str(name))}"

    def value(self, name: str) -> ShownValue:
        """Return a property. Raises NotReadError."""
        if name not in self.values:
            raise NotReadError(f"{name} of {self} could not be read")
        return self.values[name]

    def text(self, name: str) -> str:
        """Return a property as text; empty for $null. Raises NotReadError."""
        value = self.value(name)
        if isinstance(value, tuple):
            return ", ".join(value)
        return "" if value is None else str(value)

    def flag(self, name: str) -> bool:
        """Return a property that is true or false. Raises NotReadError, also for $null."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise NotReadError(f"{name} of {self} is {shown(str(value))}, which is neither true nor false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a property that is a list; empty for $null. Raises NotReadError."""
        value = self.value(name)
        if isinstance(value, tuple):
            return value
        return () if value in (None, "") else (str(value),)

    def words(self, name: str) -> frozenset[str]:
        """Return a property that Exchange shows as one text with commas. C(None) is a word. Raises NotReadError."""
        listed = ",".join(self.texts(name)).split(",")
        return frozenset(word.strip() for word in listed if word.strip())


@dataclass(frozen=True)
class ReceiveConnector(Shown):
    """A receive connector of this server."""

    kind = "receive connector"

    @property
    def identity(self) -> str:
        """The name of the server, a backslash, the name."""
        return self.text("Identity")

    @property
    def name(self) -> str:
        """The name without the server."""
        return self.text("Name") or self.identity.partition("\\")[2]

    @property
    def own(self) -> bool:
        """Whether the collection made it."""
        return self.name.lower().startswith(OWN_PREFIX)

    @property
    def enabled(self) -> bool:
        """Whether it takes mail."""
        return self.flag("Enabled")

    @property
    def auth(self) -> frozenset[str]:
        """AuthMechanism as a set, in the spelling of AUTH_MECHANISMS; empty for None."""
        known = {one.lower(): one for one in AUTH_MECHANISMS}
        return frozenset(known.get(one.lower(), one) for one in self.words("AuthMechanism")) - {"None"}

    @property
    def offers_tls(self) -> bool:
        """Whether Tls is in AuthMechanism; a certificate has to be there, too."""
        return "Tls" in self.auth

    @property
    def require_tls(self) -> bool:
        """RequireTLS."""
        return self.flag("RequireTLS")

    @property
    def certificate_name(self) -> Optional[str]:
        """TlsCertificateName; None without one."""
        return self.text("TlsCertificateName") or None

    def is_default(self, server: str) -> bool:
        """Whether Exchange's setup made it, as far as the name tells."""
        return self.name.lower() in {one.format(server.lower()) for one in _DEFAULT_NAMES}


@dataclass(frozen=True)
class SendConnector(Shown):
    """A send connector of the organisation."""

    kind = "send connector"

    @property
    def identity(self) -> str:
        """The name by which cmdlets know it."""
        return self.text("Identity") or self.text("Name")

    @property
    def own(self) -> bool:
        """Whether the collection made it."""
        return self.text("Name").lower().startswith(OWN_PREFIX)

    @property
    def certificate_name(self) -> Optional[str]:
        """TlsCertificateName; None without one."""
        return self.text("TlsCertificateName") or None

    @property
    def level(self) -> Optional[str]:
        """TlsAuthLevel; None if it is not set."""
        value = self.text("TlsAuthLevel")
        return None if value.lower() in _NOTHING else value

    @property
    def smart_hosts(self) -> tuple[str, ...]:
        """The smart hosts, as they are compared: lower case, without brackets and a dot at the end."""
        return tuple(bare_host(one) for one in self.texts("SmartHosts"))

    @property
    def source_servers(self) -> tuple[str, ...]:
        """Names of the servers that send by it, in lower case, without their domain."""
        return tuple(short_name(one) for one in self.texts("SourceTransportServers"))


@dataclass(frozen=True)
class ExchangeCertificate(Shown):
    """A certificate of this server."""

    kind = "certificate"

    @property
    def thumbprint(self) -> str:
        """SHA-1 in upper-case hexadecimal."""
        return self.text("Thumbprint").upper()

    @property
    def pair(self) -> str:
        """What a connector's TlsCertificateName has for it."""
        return pair_of(self.text("Issuer"), self.text("Subject"))

    @property
    def services(self) -> frozenset[str]:
        """Names of the services in upper case."""
        return frozenset(one.upper() for one in self.words("Services")) - {"NONE"}

    @property
    def usable(self) -> bool:
        """Whether Exchange would serve it, as far as Status and its key tell."""
        return self.text("Status").lower() not in UNUSABLE and self.values.get("HasPrivateKey") is not False

    @property
    def domains(self) -> tuple[str, ...]:
        """Its names, in lower case."""
        return tuple(one.lower() for one in self.texts("CertificateDomains"))


@dataclass(frozen=True)
class MailQueue(Shown):
    """A queue of this server."""

    kind = "queue"


_Object = TypeVar("_Object", bound=Shown)


@dataclass(frozen=True)
class Organisation:
    """What exchange_cmdlets read. A list is None if it could not be read. windows: C(10.0.17763), empty if not known.

    errors: cmdlet -> its words.
    """

    server: Shown
    windows: str
    transport_service: Shown
    listed_certificates: Optional[tuple[ExchangeCertificate, ...]]
    listed_receive: Optional[tuple[ReceiveConnector, ...]]
    listed_send: Optional[tuple[SendConnector, ...]]
    listed_queues: Optional[tuple[MailQueue, ...]]
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The short name of the server. Raises NotReadError, also if it is empty."""
        return self._needed("Name")

    @property
    def fqdn(self) -> str:
        """The server's name with its domain, in lower case. Raises NotReadError, also if it is empty."""
        return self._needed("Fqdn").lower()

    def _needed(self, name: str) -> str:
        if not (value := self.server.text(name).strip()):
            raise NotReadError(f"Get-ExchangeServer gave no {name}{self._why('Get-ExchangeServer')}")
        return value

    @property
    def is_edge(self) -> bool:
        """Whether it is an Edge server. Raises NotReadError if that could not be told."""
        edge = self.server.values.get("IsEdgeServer")
        if edge is True or "edge" in self.server.text("ServerRole").lower():
            return True
        if edge is None and not self.server.text("ServerRole"):
            raise NotReadError(
                f"Get-ExchangeServer did not say the role of the server{self._why('Get-ExchangeServer')}"
            )
        return False

    @property
    def certificates(self) -> tuple[ExchangeCertificate, ...]:
        """The certificates of this server. Raises NotReadError."""
        return self._list(self.listed_certificates, "Get-ExchangeCertificate")

    @property
    def receive_connectors(self) -> tuple[ReceiveConnector, ...]:
        """The receive connectors of this server. Raises NotReadError."""
        server = self.name.lower()
        every = self._list(self.listed_receive, "Get-ReceiveConnector")
        return tuple(one for one in every if one.identity.partition("\\")[0].lower() == server)

    @property
    def send_connectors(self) -> tuple[SendConnector, ...]:
        """The send connectors of the organisation. Raises NotReadError."""
        return self._list(self.listed_send, "Get-SendConnector")

    @property
    def queues(self) -> tuple[MailQueue, ...]:
        """The queues of this server. Raises NotReadError."""
        return self._list(self.listed_queues, "Get-Queue")

    @property
    def internal_thumbprint(self) -> str:
        """The internal transport certificate; empty if there is none. Raises NotReadError."""
        if "InternalTransportCertificateThumbprint" not in self.transport_service.values:
            why = self._why("Get-TransportService")
            raise NotReadError(f"which certificate is the internal transport certificate could not be read{why}")
        return self.transport_service.text("InternalTransportCertificateThumbprint").upper()

    def certificate(self, thumbprint: str) -> Optional[ExchangeCertificate]:
        """Return a certificate of this server; None if it has no such. Raises NotReadError."""
        return next((one for one in self.certificates if one.thumbprint == thumbprint.upper()), None)

    def receive_connector(self, identity: str) -> Optional[ReceiveConnector]:
        """Return the receive connector with this identity; None if there is none. Raises NotReadError."""
        return next((one for one in self.receive_connectors if one.identity.lower() == identity.lower()), None)

    def send_connector(self, identity: str) -> Optional[SendConnector]:
        """Return the send connector with this identity; None if there is none. Raises NotReadError."""
        return next((one for one in self.send_connectors if one.identity.lower() == identity.lower()), None)

    def with_replaced(self, before: Optional[Shown], after: Optional[Shown]) -> Organisation:
        """Return it with one object put in place of another; None before adds, None after removes."""
        place = _PLACES[type(before or after)]
        listed = list(getattr(self, place) or ())
        if before is None:
            listed.append(after)
        else:
            at = listed.index(before)
            listed[at : at + 1] = [] if after is None else [after]
        changed: dict[str, Any] = {place: tuple(listed)}
        return replace(self, **changed)

    def _list(self, listed: Optional[tuple[_Object, ...]], cmdlet: str) -> tuple[_Object, ...]:
        if listed is None:
            raise NotReadError(f"{cmdlet} could not be read{self._why(cmdlet)}")
        return listed

    def _why(self, cmdlet: str) -> str:
        return f": {shown(self.errors[cmdlet])}" if cmdlet in self.errors else ""


_PLACES: dict[type, str] = {
    ExchangeCertificate: "listed_certificates",
    ReceiveConnector: "listed_receive",
    SendConnector: "listed_send",
    MailQueue: "listed_queues",
}


def pair_of(issuer: str, subject: str) -> str:
    """Return what a connector's TlsCertificateName has for this issuer and subject."""
    return f"<I>{issuer}<S>{subject}"


def same_pair(one: Optional[str], other: Optional[str]) -> bool:
    """Whether two TlsCertificateNames are the same to Exchange: without case."""
    return (one or "").lower() == (other or "").lower()


def bare_host(text: str) -> str:
    """Return a smart host as it is compared: lower case, without brackets and a dot at the end."""
    return text.strip().lower().strip("[]").rstrip(".")


def short_name(text: str) -> str:
    """Return the name of a server in lower case, without its domain and the path or DN of its directory entry."""
    name = text.strip().lower().rpartition("/")[2]
    if name.startswith("cn="):
        name = name[3:].partition(",")[0]
    return name.partition(".")[0]


def observe(observed: Mapping[str, Any]) -> Organisation:
    """Parse C(observed) of exchange_cmdlets. Raises EngineError if it has another shape."""
    if not isinstance(observed, Mapping):
        raise _misshapen("it is no mapping")
    errors = observed.get("Errors") or {}
    if not isinstance(errors, Mapping):
        raise _misshapen("Errors is no mapping")
    return Organisation(
        server=Shown(_properties(observed.get("Server") or {}, "Server")),
        windows=str(_properties(observed.get("Windows") or {}, "Windows").get("Version") or ""),
        transport_service=Shown(_properties(observed.get("TransportService") or {}, "TransportService")),
        listed_certificates=_objects(observed, "ExchangeCertificates", _certificate),
        listed_receive=_objects(observed, "ReceiveConnectors", ReceiveConnector),
        listed_send=_objects(observed, "SendConnectors", SendConnector),
        listed_queues=_objects(observed, "Queues", MailQueue),
        errors={str(name): str(text) for name, text in errors.items()},
    )


def _objects(observed: Mapping[str, Any], name: str, make: Any) -> Any:
    given = observed.get(name)
    if given is None:
        return None
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise _misshapen(f"{name} is no list")
    return tuple(make(_properties(one, name)) for one in given)


def _properties(given: Any, where: str) -> dict[str, ShownValue]:
    if not isinstance(given, Mapping):
        raise _misshapen(f"an entry of {where} is no mapping")
    unknown = given.get("Unknown") or ()
    found: dict[str, ShownValue] = {}
    for name, value in given.items():
        if name == "Unknown" or name in unknown:
            continue
        if isinstance(value, (list, tuple)):
            found[str(name)] = tuple(str(one) for one in value)
        elif value is None or isinstance(value, (str, bool, int)):
            found[str(name)] = value
        else:
            raise _misshapen(f"{name} in {where} is a {type(value).__name__}")
    return found


def _certificate(values: dict[str, ShownValue]) -> ExchangeCertificate:
    """Return a certificate; its thumbprint comes from RawData where a remote session lost it."""
    raw = values.get("RawData")
    if "Thumbprint" not in values and isinstance(raw, str):
        try:
            der = base64.b64decode(raw, validate=True)
        except (binascii.Error, ValueError):
            return ExchangeCertificate(values)
        values["Thumbprint"] = hashlib.sha1(der, usedforsecurity=False).hexdigest().upper()
    return ExchangeCertificate(values)


def _misshapen(what: str) -> EngineError:
    return EngineError(
        f"the answer of exchange_cmdlets cannot be understood: {shown(what)}; run it with -vvv and see what the host prints"
    )
