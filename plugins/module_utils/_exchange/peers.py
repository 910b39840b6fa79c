# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries of C(starttls_peers) of an Exchange server to which it sends: each gets a send connector."""

from __future__ import annotations

from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import AUTH_LEVELS, ExchangePeer
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


def sent_to(peer: Peer) -> Optional[ExchangePeer]:
    """Return the peer to which Exchange sends; None if it only receives from it. Raises EngineError for what Exchange cannot do."""
    _check(peer)
    if not peer.sends_to_it:
        return None
    ports = {one.port for one in peer.hosts}
    if len(ports) != 1:
        raise EngineError(
            _said(peer, "its hosts have different ports, and a send connector has one", "give all the same port")
        )
    if len(peer.names) > 1 or any(one.startswith(".") for one in peer.names[:1]):
        what = "names has more than one name, and TlsDomain is one"
        raise EngineError(_said(peer, what, "leave one, without a dot at its beginning"))
    return ExchangePeer(
        name=peer.name,
        hosts=tuple(one.host for one in peer.hosts),
        domains=peer.domains,
        port=ports.pop(),
        level=peer.level,
        check=peer.check,
        tls_domain=peer.names[0] if peer.names else "",
    )


def _check(peer: Peer) -> None:
    if peer.kind == "exchange_online":
        what = "Exchange and Exchange Online are a hybrid organisation, whose connectors belong to the hybrid wizard"
        raise EngineError(_said(peer, what, "take it out"))
    if peer.check not in AUTH_LEVELS:
        raise EngineError(
            _said(peer, f"an Exchange server cannot check by {peer.check}", f"choose one of: {', '.join(AUTH_LEVELS)}")
        )
    for option in ("client_certificate", "client_key", "servername", "pin_issuer_file"):
        if getattr(peer, option):
            raise EngineError(_said(peer, f"{option} has no counterpart in a send connector", "leave it out"))


def _said(peer: Peer, fault: str, advice: str) -> str:
    return f"starttls_peers: peer {peer.name}: {fault}; {advice}"
