# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of peer_tls_info: what the proofs of a host mean, and what stands against the certificates."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import EnvelopeProof
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import policy
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.client import (
    judge_client_certificate,
    judge_served_to_peer,
    purposes_of,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_replies import explain, not_tested
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood


def with_findings(result: Mapping[str, Any], peers: Sequence[Peer], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the module's result in its public form. A failure is returned unchanged.

    options: those of the module. Raises EngineError if the host's result cannot be read, or is not about these peers.
    """
    done = dict(result)
    if done.get("failed"):
        return done
    with understood("what the host returned about its peers"):
        entries = done["peers"]
        if [one["name"] for one in entries] != [one.name for one in peers]:
            raise ValueError("it is about other peers")
        done["peers"] = [_completed(peer, entry, options) for peer, entry in zip(peers, entries)]
        done["passed"] = all(one["passed"] for one in done["peers"])
    return done


def complete_read(
    result: Mapping[str, Any], peers: Sequence[Peer], served: Sequence[bytes], min_days_left: int = 0
) -> dict[str, Any]:
    """Return a result of mail_server_info with what its tests of the wanted peers mean.

    served: the chain that the host serves after the change (DER, leaf first), for a peer that looks for a name there. Each of
    C(peer_proofs) gets C(findings). C(peer_tests) has the form of C(peers) of peer_tls_info. C(peer_findings) are those on
    certificates, each with its C(peer). Raises EngineError if the host's result cannot be read.
    """
    done = dict(result)
    seen = done.pop("peer_certificates", None) or {}
    if done.get("failed") or "peer_proofs" not in done:
        return done
    options = {"min_days_left": min_days_left, "accepted_domains": []}
    served_pem = [ssl.DER_cert_to_PEM_cert(one) for one in served]
    with understood("what the host returned about its peers"):
        given = {one.name: one for one in peers}
        done["peer_proofs"] = [
            {**one, "findings": [found.as_dict() for found in _explained(given[one["peer"]], one["proof"])]}
            for one in done["peer_proofs"]
        ]
        tests, found = [], []
        for peer in peers:
            mine = [one["proof"] for one in done["peer_proofs"] if one["peer"] == peer.name]
            entry = {
                "proofs": mine,
                "message": "" if mine or not peer.sends_to_it else "the host could not make it",
                "client_certificate": seen.get(peer.name),
                "served_pem": served_pem,
            }
            tests.append(_completed(peer, entry, options))
            found += [{"peer": peer.name, **one.as_dict()} for one in _of_certificates(peer, entry, options)]
        done["peer_tests"], done["peer_findings"] = tests, found
    return done


def _explained(peer: Peer, proof: Mapping[str, Any]) -> Iterator[Finding]:
    read = EnvelopeProof.from_dict(proof)
    yield from (
        one for one in explain(peer.kind, proof, bool(peer.client_certificate)) if one.code != "peer_not_tested"
    )
    yield from _of_the_peers_certificate(peer, read)


def _completed(peer: Peer, entry: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    proofs = [EnvelopeProof.from_dict(one) for one in entry["proofs"]]
    message = x509.printable_text(str(entry["message"]))
    if not message and [(one.host, one.port) for one in proofs] != [
        (one.host, one.port) for one in peer.hosts if peer.sends_to_it
    ]:
        raise ValueError("it is about other hosts")
    reason = _not_tested(peer, message)
    found = list(_findings(peer, entry, proofs, message, options))
    return {
        "name": peer.name,
        "kind": peer.kind,
        "tested": not reason,
        "reason": reason,
        "proofs": [
            {**one.to_dict(), "findings": [found.as_dict() for found in _explained(peer, one.to_dict())]}
            for one in proofs
        ],
        "client_certificate": _described(entry["client_certificate"]),
        "findings": [one.as_dict() for one in found],
        "passed": all(one.severity != "error" for one in found),
    }


def _not_tested(peer: Peer, message: str) -> str:
    if not peer.sends_to_it:
        return "not tested to RCPT, because no mail goes to this peer"
    if message:
        return f"not tested to RCPT: {message}"
    lacking = [name for name in ("proof_sender", "proof_recipient") if not getattr(peer, name)]
    verb = "are" if len(lacking) > 1 else "is"
    return f"not tested to RCPT, because {' and '.join(lacking)} {verb} not set" if lacking else ""


def _findings(
    peer: Peer, entry: Mapping[str, Any], proofs: Sequence[EnvelopeProof], message: str, options: Mapping[str, Any]
) -> Iterator[Finding]:
    seen = entry["client_certificate"]
    if message and not (seen and seen.get("message")):
        yield Finding.advised(
            "certificate_not_read", f"no proof with the peer {peer.name}: {message}", "correct starttls_peers"
        )
    if peer.sends_to_it and not message and not (peer.proof_sender and peer.proof_recipient):
        yield not_tested(peer)
    for proof in proofs:
        yield from _explained(peer, proof.to_dict())
    yield from _of_certificates(peer, entry, options)


def _of_certificates(peer: Peer, entry: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what stands against the certificate that is presented to the peer, and against the one that is served to it."""
    seen, days = entry["client_certificate"], int(options["min_days_left"])
    if seen:
        domains = list(options["accepted_domains"] or ()) or [peer.proof_sender.rpartition("@")[2]]
        yield from judge_client_certificate(peer.kind, seen, [one for one in domains if one], min_days_left=days)
    if peer.receives_from_it and peer.tls_domain:
        chain = [ssl.PEM_cert_to_DER_cert(str(one)) for one in entry["served_pem"]]
        yield from judge_served_to_peer(chain, peer.tls_domain, min_days_left=days)


def _of_the_peers_certificate(peer: Peer, proof: EnvelopeProof) -> Iterator[Finding]:
    """Compare the certificate that the peer served with the names or fingerprints of its entry."""
    if not proof.chain:
        return
    where = f"{proof.host}:{proof.port}"
    leaf = x509.Certificate.load(proof.chain[0])
    if peer.pin_fingerprints and leaf.fingerprint_sha256 not in peer.pin_fingerprints:
        yield Finding.advised(
            "wrong_certificate",
            f"{where} serves the certificate {leaf.fingerprint_sha256} ('{leaf.subject}'), which is not in pin_fingerprints",
            f"if the peer has renewed it, correct pin_fingerprints of the peer {peer.name}",
        )
    wanted = peer.names or (peer.servername or proof.host,)
    if peer.check == "hostname" and not any(_has_name(leaf, one) for one in wanted):
        yield Finding.advised(
            "name_mismatch",
            f"{where} serves a certificate for {policy.names_of(leaf)}, not for {' or '.join(wanted)}",
            f"correct names of the peer {peer.name} in starttls_peers, if these are names of the peer",
        )


def _has_name(leaf: x509.Certificate, wanted: str) -> bool:
    """Whether the certificate has this name. With a dot at its begin, it stands for every name below, also for a wildcard."""
    if wanted.startswith("."):
        return any(san[4:].lower().endswith(wanted) for san in leaf.sans if san.startswith("DNS:"))
    return policy.covers(leaf, wanted)


def _described(seen: Optional[Mapping[str, Any]]) -> Optional[dict[str, Any]]:
    """Return the facts of the certificate that a host presents; None if there is none that can be read."""
    with contextlib.suppress(pem.PemError, x509.CertificateError):
        for block in pem.certificates(pem.split(str(seen["pem"])))[:1] if seen else ():
            leaf = x509.Certificate.load(block.der)
            return {**leaf.describe(), "purposes": list(purposes_of(leaf))}
    return None
