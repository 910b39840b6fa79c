# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates: import and enable one, find every name that hangs on an old one, remove one that nothing uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.calls import Argument, CmdletCall, simulate
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import (
    ExchangeCertificate,
    NotReadError,
    Organisation,
    ReceiveConnector,
    SendConnector,
    pair_of,
    same_pair,
    shown,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.paths import (
    ReceiveTls,
    SendTls,
    receive_calls,
    send_calls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.serving import covers
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.values import Obstacle
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import WantedCertificate

SMTP = "SMTP"
FRIENDLY_NAME = "mailfleet.starttls"
DOUBTFUL = frozenset({"untrusted", "unknown"})
"""Values of Status, in lower case, with which it is served, but something is wrong."""

Connector = Union[ReceiveConnector, SendConnector]


class Provided(NamedTuple):
    """calls: that put the certificate in place. pair: what connectors have to name; empty with an obstacle."""

    calls: tuple[CmdletCall, ...]
    pair: str
    obstacles: tuple[Obstacle, ...] = ()
    warnings: tuple[str, ...] = ()


def provide(organisation: Organisation, wanted: WantedCertificate, as_internal: bool = False) -> Provided:
    """Return how the certificate gets there and is enabled for SMTP. Raises NotReadError.

    Enable-ExchangeCertificate asks whether it shall become the internal transport certificate, too, and -Force, without which nothing runs
    unattended, means yes. So the former one is enabled again afterwards, unless as_internal.
    """
    there = organisation.certificate(wanted.thumbprint)
    server = organisation.name
    calls: list[CmdletCall] = []
    if there is None:
        secrets = {name: {"Secret": name} for name in ("FileData", "Password")}
        given: dict[str, Argument] = {
            "Server": server,
            **secrets,
            "PrivateKeyExportable": False,
            "FriendlyName": FRIENDLY_NAME,
        }
        back = _removed(organisation, pair_of(wanted.issuer, wanted.subject), wanted.thumbprint)
        calls.append(CmdletCall("Import-ExchangeCertificate", given, back))
    elif problem := _unfit(there):
        return Provided((), "", (Obstacle("certificate_unfit", problem),))
    warnings = tuple(_doubts(there)) if there else ()
    pair = there.pair if there else pair_of(wanted.issuer, wanted.subject)
    enabled = there is not None and SMTP in there.services
    if enabled and not as_internal:
        return Provided((), pair, (), warnings)
    internal = organisation.internal_thumbprint
    if enabled and internal == wanted.thumbprint:
        return Provided((), pair, (), warnings)
    former = organisation.certificate(internal) if internal and internal != wanted.thumbprint else None
    if former is None and not as_internal and internal != wanted.thumbprint:
        said = f"{internal} is not there" if internal else "the server names none"
        problem = (
            f"{server}: enabling a certificate for SMTP replaces the internal transport certificate, and that could not be put back: "
            f"{said}; look at InternalTransportCertificateThumbprint of Get-TransportService, and make one by New-ExchangeCertificate"
        )
        return Provided((), "", (Obstacle("internal_certificate", problem),))
    back = (_enable(server, former.thumbprint),) if former else ()
    calls.append(_enable(server, wanted.thumbprint, back))
    if not as_internal:
        calls += back
    return Provided(tuple(calls), pair, (), warnings)


def _enable(server: str, thumbprint: str, undo: tuple[CmdletCall, ...] = ()) -> CmdletCall:
    given: dict[str, Argument] = {"Server": server, "Thumbprint": thumbprint, "Services": (SMTP,), "Force": True}
    return CmdletCall("Enable-ExchangeCertificate", given, undo)


def _remove(server: str, thumbprint: str) -> CmdletCall:
    return CmdletCall("Remove-ExchangeCertificate", {"Server": server, "Thumbprint": thumbprint})


def _unfit(one: ExchangeCertificate) -> str:
    if one.values.get("HasPrivateKey") is False:
        return f"{one} is there without its key, so it cannot be served; remove it, so that it is imported anew"
    if not one.usable:
        return (
            f"{one} has the status {shown(one.text('Status'))}, with which Exchange offers no STARTTLS; see whether the server "
            "trusts its authority and reaches its revocation list"
        )
    return ""


def _doubts(one: ExchangeCertificate) -> Iterable[str]:
    if (status := one.text("Status")).lower() in DOUBTFUL:
        yield f"{one} has the status {shown(status)}: the server does not know its authority"


def naming(organisation: Organisation, pair: str) -> tuple[list[ReceiveConnector], list[SendConnector]]:
    """Return the connectors whose TlsCertificateName is this pair. Raises NotReadError."""
    return (
        [one for one in organisation.receive_connectors if same_pair(one.certificate_name, pair)],
        [one for one in organisation.send_connectors if same_pair(one.certificate_name, pair)],
    )


class Moved(NamedTuple):
    """calls: that give connectors the new name. warnings: those that keep the old one, and why."""

    calls: tuple[CmdletCall, ...]
    warnings: tuple[str, ...]


def move(
    organisation: Organisation,
    old_pairs: Sequence[str],
    new: WantedCertificate,
    pair: str,
    others_with_certificate: Iterable[str],
) -> Moved:
    """Return the calls that give every connector with one of the old names the new one. Raises NotReadError.

    A connector keeps its name if the new certificate lacks a name of the old one, or if another server that sends by the connector is
    not known to have the new certificate.
    """
    calls: list[CmdletCall] = []
    warnings: list[str] = []
    having = {organisation.name.lower(), *(one.partition(".")[0].lower() for one in others_with_certificate)}
    for old in old_pairs:
        receive, send = naming(organisation, old)
        connectors: list[Connector] = [*receive, *send]
        for connector in connectors:
            lacking = _lacking(organisation, old, new)
            away = set(connector.source_servers) - having if isinstance(connector, SendConnector) else ()
            if away and not lacking:
                lacking = f"it is not known whether {', '.join(sorted(away))}, which sends by it, too, has the new certificate"
            if lacking:
                warnings.append(f"{connector} keeps naming the former certificate ({shown(old)}): {lacking}")
            else:
                calls += rename(connector, pair)
    return Moved(tuple(calls), tuple(warnings))


def rename(connector: Connector, pair: Optional[str]) -> list[CmdletCall]:
    """Return the call that has a connector name another certificate. Raises NotReadError."""
    if isinstance(connector, ReceiveConnector):
        receive = ReceiveTls.of(connector)
        return receive_calls(connector, ReceiveTls(receive.auth, receive.require, pair))
    send = SendTls.of(connector)
    return send_calls(connector, SendTls(send.ignore, send.require, send.level, send.domain, pair))


def _lacking(organisation: Organisation, old: str, new: WantedCertificate) -> str:
    """Return why the new certificate does not stand in for an old one; empty if it does."""
    former = [one for one in organisation.certificates if same_pair(one.pair, old)]
    if not former:
        return "no such certificate is there, so it is not known which names it had; set TlsCertificateName by hand"
    names = {name for one in former for name in one.domains}
    if lost := sorted(name for name in names if not any(covers(own, name) for own in new.domains)):
        return f"the new certificate lacks {shown(', '.join(lost))}"
    return ""


class CertificateRemoval(NamedTuple):
    """calls: that remove the certificate. reason: why it is not removed; empty if it is."""

    calls: tuple[CmdletCall, ...]
    reason: str


def removal(organisation: Organisation, thumbprint: str) -> CertificateRemoval:
    """Return how a certificate is removed, or why it is not. Nothing brings it back.

    Exchange refuses to remove one that a send connector names, also if a newer one has the same issuer and subject. Then the names
    are taken away and put back. It does not refuse one that only receive connectors name; then STARTTLS would be gone. So this
    looks first.
    """
    try:
        return _removal(organisation, thumbprint)
    except NotReadError as error:
        return CertificateRemoval((), f"the certificate {thumbprint} stays: {error}")


def _removal(organisation: Organisation, thumbprint: str) -> CertificateRemoval:
    found = organisation.certificate(thumbprint)
    if found is None:
        return CertificateRemoval((), "")
    stays = f"{found} stays: "
    if organisation.internal_thumbprint == found.thumbprint:
        return CertificateRemoval((), f"{stays}it is the internal transport certificate")
    if other := sorted(found.services - {SMTP}):
        return CertificateRemoval((), f"{stays}{', '.join(other)} may use it, too")
    rest = [one for one in organisation.certificates if one.thumbprint != found.thumbprint and one.usable]
    if not any(SMTP in one.services for one in rest):
        return CertificateRemoval((), f"{stays}no other certificate serves SMTP")
    receive, send = naming(organisation, found.pair)
    same = [one for one in rest if same_pair(one.pair, found.pair) and SMTP in one.services]
    if (receive or send) and not same:
        return CertificateRemoval((), f"{stays}{', '.join(map(str, (*receive, *send)))} still names it")
    return CertificateRemoval(_removed(organisation, found.pair, found.thumbprint), "")


def _removed(organisation: Organisation, pair: str, thumbprint: str) -> tuple[CmdletCall, ...]:
    """Return the calls that remove a certificate, although send connectors name one with this issuer and subject."""
    send = naming(organisation, pair)[1]
    cleared = [call for one in send for call in rename(one, None)]
    bare = simulate(organisation, cleared)
    again = [
        call
        for one in send
        if (now := bare.send_connector(one.identity)) is not None
        for call in rename(now, one.certificate_name)
    ]
    return (*cleared, _remove(organisation.name, thumbprint), *again)
