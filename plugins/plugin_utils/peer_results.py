# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proofs of a host with its peers mean, and what stands against the certificates: of peer_tls_info, and of a read."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer, peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.envelope import EnvelopeProof
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
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


def with_read_peers(result: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of mail_server_info with what its wanted peers said, explained, and what stands against their certificates.

    options: those of the module. What refuses the change are obstacles, the rest are notes. Raises EngineError.
    """
    done = dict(result)
    seen = done.pop("peer_certificates", None) or ()
    if done.get("failed") or not (seen or done.get("peer_proofs")):
        return done
    wanted = {one.name: one for one in peers_of(options["peers"] or ())}
    with understood("what the host returned about its peers"):
        refusing = {str(one["message"]) for one in done["obstacles"]}
        obstacles, notes = list(done["obstacles"]), list(done["notes"])
        for one in seen:
            peer = wanted[one["peer"]]
            for finding in judge_client_certificate(peer.kind, one, _senders_domain(peer)):
                into = obstacles if finding.severity == "error" else notes
                into.append({"code": finding.code, "message": f"peer {peer.name}: {finding.message}"})
        for one in done["peer_proofs"]:
            peer = wanted[one["peer"]]
            into = obstacles if one["problem"] and one["problem"] in refusing else notes
            for finding in explain(peer.kind, one["proof"], bool(peer.client_certificate)):
                into.append({"code": finding.code, "message": f"peer {peer.name}: {finding.message}"})
        done |= {"obstacles": obstacles, "notes": notes}
    return done


def _senders_domain(peer: Peer) -> list[str]:
    domain = peer.proof_sender.rpartition("@")[2]
    return [domain] if domain else []


def _completed(peer: Peer, entry: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    proofs = [EnvelopeProof.from_dict(one["proof"]) for one in entry["proofs"]]
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
        "proofs": [{name: value for name, value in one.to_dict().items() if name != "trusted"} for one in proofs],
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
    seen, days = entry["client_certificate"], int(options["min_days_left"])
    if message and not (seen and seen.get("message")):
        yield Finding.advised(
            "certificate_not_read", f"no proof with the peer {peer.name}: {message}", "correct starttls_peers"
        )
    if peer.sends_to_it and not message and not (peer.proof_sender and peer.proof_recipient):
        yield not_tested(peer)
    for proof, test in zip(proofs, entry["proofs"]):
        found = explain(peer.kind, proof.to_dict(), bool(peer.client_certificate))
        yield from (one for one in found if one.code != "peer_not_tested")
        if test["unfit"]:
            where = f"the certificate of {proof.host}:{proof.port} does not pass"
            yield Finding.advised("peer_certificate_unfit", f"{where} {x509.printable_text(str(test['unfit']))}")
    if seen:
        domains = list(options["accepted_domains"] or ()) or _senders_domain(peer)
        yield from judge_client_certificate(peer.kind, seen, domains, min_days_left=days)
    if peer.receives_from_it and peer.tls_domain:
        chain = [ssl.PEM_cert_to_DER_cert(str(one)) for one in entry["served_pem"]]
        yield from judge_served_to_peer(chain, peer.tls_domain, min_days_left=days)


def _described(seen: Optional[Mapping[str, Any]]) -> Optional[dict[str, Any]]:
    """Return the facts of the certificate that a host presents; None if there is none that can be read."""
    with contextlib.suppress(pem.PemError, x509.CertificateError):
        for block in pem.certificates(pem.split(str(seen["pem"])))[:1] if seen else ():
            leaf = x509.Certificate.load(block.der)
            return {**leaf.describe(), "purposes": list(purposes_of(leaf))}
    return None
