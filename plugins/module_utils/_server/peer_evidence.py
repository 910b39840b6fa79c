# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proofs that reach to RCPT, made from a mail server with each of its peers as its own transport would. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import seen_on_host
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, place_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import (
    EnvelopeError,
    EnvelopeProof,
    prove_envelope,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_one
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


def proof_settings(peer: Peer, settings: Settings) -> Settings:
    """Return the settings of a proof with this peer. Names and fingerprints are not compared. Raises EngineError.

    With a check of the chain, OpenSSL has to trust it: by the host's store, or by the peer's pin_issuer_file alone.
    """
    issuers = settings.ca_pem
    if peer.pin_issuer_file:
        try:
            with place_of(peer.pin_issuer_file, LOOK) as place, os.fdopen(place.open(), "rb") as file:
                issuers = pem.join(pem.certificates(pem.split(file.read(pem.MAX_BYTES + 1))))
        except (OSError, pem.PemError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            raise EngineError(f"pin_issuer_file {peer.pin_issuer_file} of the peer {peer.name}: {said}") from error
    verify = peer.check in ("trusted_chain", "hostname") or bool(peer.pin_issuer_file)
    return replace(settings, ca_pem=issuers, verify_trust=verify, verify_name=False)


def prove_peer(peer: Peer, settings: Settings) -> list[EnvelopeProof]:
    """Make the proof with each next hop of a peer, in their order. Raises EngineError, EnvelopeError.

    Without both addresses each proof ends before MAIL, as C(not_tested).
    """
    settings = proof_settings(peer, settings)
    both = bool(peer.proof_sender and peer.proof_recipient)
    return [
        prove_envelope(
            replace(host, name=peer.servername),
            settings,
            peer.proof_sender if both else "",
            peer.proof_recipient if both else "",
            peer.client_certificate,
            peer.client_key,
        )
        for host in (peer.hosts if peer.sends_to_it else ())
    ]


def prove_peers(peers: Sequence[Peer], settings: Settings, own: Target) -> list[dict[str, Any]]:
    """Return for each peer its C(name), C(proofs), C(message), C(client_certificate) and C(served_pem). Nothing of a peer raises.

    message: why no proof could be made; else empty. client_certificate: as of seen_on_host, None if the peer has none; the key stays
    here. served_pem: what the own address serves, for a peer that looks for a name there; None for others.
    """
    served: Optional[Handshake] = None
    results = []
    for peer in peers:
        proofs, message = [], ""
        try:
            proofs = prove_peer(peer, settings)
        except (EngineError, EnvelopeError) as error:
            message = str(error)
        looks = peer.receives_from_it and bool(peer.tls_domain)
        if looks and served is None:
            served = handshake_one(own, replace(settings, verify_trust=False))
        results.append(
            {
                "name": peer.name,
                "proofs": [one.to_dict() for one in proofs],
                "message": message,
                "client_certificate": seen_on_host(peer.client_certificate, peer.client_key)
                if peer.client_certificate
                else None,
                "served_pem": served.to_dict()["chain_pem"] if looks and served else None,
            }
        )
    return results
