# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Exchange server in the form in which the plan and the report know every mail server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange import receiving, sending
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import (
    NotReadError,
    Organisation,
    ReceiveConnector,
    SendConnector,
    Shown,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.serving import bindings, tls_mode
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import WantedExchange
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import UNKNOWN, Listener, Transport

_WORD = {"none": "disabled", "opportunistic": "opportunistic"}
CUSTOM = "custom"


def listeners(organisation: Organisation) -> Optional[list[Listener]]:
    """Return a listener for each binding of each enabled receive connector; None if the connectors could not be read."""
    try:
        return [
            listener
            for one in organisation.receive_connectors
            if one.enabled
            for listener in _listeners(organisation, one)
        ]
    except NotReadError:
        return None


def _listeners(organisation: Organisation, one: ReceiveConnector) -> list[Listener]:
    try:
        tls = tls_mode(organisation, one)
    except NotReadError:
        tls = UNKNOWN
    overrides = {
        name: ", ".join(value) if isinstance(value, tuple) else str(value)
        for name, value in one.values.items()
        if name in ("RemoteIPRanges", "TlsCertificateName", "AuthMechanism") and value not in (None, "")
    }
    return [
        Listener(one.name, "" if place.everywhere else place.address, place.port, tls, (), overrides)
        for place in bindings(one)
    ]


def level(one: SendConnector) -> str:
    """Return none, opportunistic, or TlsAuthLevel (C(EncryptionOnly) if it is not set). Raises NotReadError."""
    if one.flag("IgnoreSTARTTLS"):
        return "none"
    if not one.flag("RequireTLS"):
        return "opportunistic"
    return one.level or "EncryptionOnly"


def transports(organisation: Organisation) -> Optional[list[Transport]]:
    """Return a transport for each smart host of each enabled send connector of this server; None if they could not be read."""
    try:
        server = organisation.name.lower()
        every = [one for one in organisation.send_connectors if one.flag("Enabled") and server in one.source_servers]
        return [transport for one in every for transport in _transports(one)]
    except NotReadError:
        return None


def _transports(one: SendConnector) -> list[Transport]:
    try:
        tls = level(one)
    except NotReadError:
        tls = UNKNOWN
    spaces = ", ".join(one.texts("AddressSpaces"))
    overrides = {
        name: str(value)
        for name, value in one.values.items()
        if name in ("TlsDomain", "TlsCertificateName", "FrontendProxyEnabled") and value not in (None, "", False)
    }
    if one.flag("DNSRoutingEnabled"):
        return [Transport(spaces, one.identity, None, None, tls, False, overrides)]
    port = one.text("Port")
    number = int(port) if port.isdigit() else 25
    return [Transport(spaces, one.identity, host, number, tls, False, overrides) for host in one.smart_hosts]


def state(organisation: Organisation, wanted: WantedExchange) -> dict[str, str]:
    """Return C(inbound) and C(outbound) of the connectors in question, with the words of WantedExchange, C(custom) or C(unknown)."""
    return {
        "inbound": _word(
            lambda: [tls_mode(organisation, one) for one in receiving.in_question(organisation, wanted)], "disabled"
        ),
        "outbound": _word(lambda: [level(one) for one in sending.in_question(organisation, wanted)], "opportunistic"),
    }


def _word(words: Callable[[], Iterable[str]], without: str) -> str:
    """Return the one word for all; without: the word if there is none."""
    try:
        found = {_WORD.get(one, one) for one in words()}
    except NotReadError:
        return UNKNOWN
    if not found:
        return without
    found = {"required" if one not in ("disabled", "offered", "opportunistic") else one for one in found}
    return found.pop() if len(found) == 1 else CUSTOM


def certificates(organisation: Organisation) -> Optional[list[dict[str, Any]]]:
    """Return thumbprint, subject, issuer, names, end, services and status of each certificate; None if they could not be read.

    What could not be read of one is None.
    """
    names = {
        "thumbprint": "Thumbprint",
        "subject": "Subject",
        "issuer": "Issuer",
        "names": "CertificateDomains",
        "not_after": "NotAfter",
        "services": "Services",
        "status": "Status",
    }
    try:
        every = organisation.certificates
    except NotReadError:
        return None
    return [
        {key: list(value) if isinstance(value := one.values.get(name), tuple) else value for key, name in names.items()}
        for one in every
    ]


def digest(organisation: Organisation) -> str:
    """Return a SHA-256 of all that a plan depends on, in hexadecimal. Queues are not in it."""

    def plain(listed: Optional[tuple[Shown, ...]]) -> Optional[list[str]]:
        return None if listed is None else sorted(json.dumps(dict(one.values), sort_keys=True) for one in listed)

    what = {
        "server": dict(organisation.server.values),
        "transport": dict(organisation.transport_service.values),
        "certificates": plain(organisation.listed_certificates),
        "receive": plain(organisation.listed_receive),
        "send": plain(organisation.listed_send),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
