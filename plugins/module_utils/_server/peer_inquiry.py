# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proofs with each peer of a mail server, and the public parts of the certificates that count there. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import seen_on_host
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_proof import prove_peers
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_one
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


def ask_peers(peers: Sequence[Peer], settings: Settings, own: Target) -> list[dict[str, Any]]:
    """Return for each peer its C(name), C(proofs), C(message), C(client_certificate) and C(served_pem). Nothing of a peer raises.

    proofs: of each of its hosts, as plain data of PeerProof. message: why no proof could be made; else empty. client_certificate: as of
    seen_on_host, None if the peer has none; the key stays here. served_pem: what the own address serves, for a peer that looks for a
    name there; None for others.
    """
    served: Optional[Handshake] = None
    results = []
    for peer in peers:
        looks = peer.receives_from_it and bool(peer.tls_domain)
        if looks and served is None:
            served = handshake_one(own, replace(settings, verify_trust=False))
        proofs, message = _proofs(peer, settings)
        has_certificate = bool(peer.client_certificate)
        results.append(
            {
                "name": peer.name,
                "proofs": proofs,
                "message": message,
                "client_certificate": seen_on_host(peer.client_certificate, peer.client_key)
                if has_certificate
                else None,
                "served_pem": served.to_dict()["chain_pem"] if looks and served else None,
            }
        )
    return results


def _proofs(peer: Peer, settings: Settings) -> tuple[list[dict[str, Any]], str]:
    if not peer.sends_to_it:
        return [], ""
    try:
        return [one.to_dict() for one in prove_peers([peer], settings)], ""
    except (EngineError, TargetError) as error:
        return [], str(error)
    except OSError as error:
        return [], f"{error.filename or 'the host'}: {error.strerror or error}"
