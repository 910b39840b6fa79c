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
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import fixed_days
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


def with_read_peers(
    result: Mapping[str, Any], options: Mapping[str, Any], served: Sequence[bytes] = ()
) -> dict[str, Any]:
    """Return the result of mail_server_info with what its wanted peers said, explained, and what stands against their certificates.

    options: those of the module. served: the chain that the host serves after the change (DER, leaf first), for a peer that looks for a
    name there. Each of C(peer_proofs) gets C(findings). C(peer_findings) are those on certificates, each with its C(peer). C(peer_tests)
    has the form of C(peers) of peer_tls_info. Raises EngineError.
    """
    done = dict(result)
    seen = done.pop("peer_certificates", None) or ()
    if (
        done.get("failed")
        or not options.get("peers")
        or options["peers_state"] != "present"
        or "peer_proofs" not in done
    ):
        return done
    peers = peers_of(options["peers"])
    with understood("what the host returned about its peers"):
        wanted, certificates = {one.name: one for one in peers}, {one["peer"]: one for one in seen}
        done["peer_proofs"] = [_with_meaning(wanted[one["peer"]], one) for one in done["peer_proofs"]]
        done["peer_findings"], done["peer_tests"] = [], []
        how: dict[str, Any] = {
            "accepted_domains": [],
            "min_days_left": fixed_days((options.get("handshake") or {}).get("min_days_left"), "min_days_left"),
        }
        for peer in peers:
            entry = {
                "proofs": [one for one in done["peer_proofs"] if one["peer"] == peer.name],
                "message": "",
                "client_certificate": certificates.get(peer.name),
                "served_pem": [ssl.DER_cert_to_PEM_cert(one) for one in served],
            }
            if peer.sends_to_it and not entry["proofs"]:
                entry["message"] = "the host could not test it"
            done["peer_tests"].append(_completed(peer, entry, how))
            judged = _of_certificates(peer, entry, how)
            done["peer_findings"] += [{"peer": peer.name, **one.as_dict()} for one in judged]
    return done


def _with_meaning(peer: Peer, test: Mapping[str, Any]) -> dict[str, Any]:
    return {**test, "findings": [one.as_dict() for one in _of_test(peer, test)]}


def _of_test(peer: Peer, test: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the test of one host of a peer means."""
    proof = EnvelopeProof.from_dict(test["proof"])
    found = explain(peer.kind, proof.to_dict(), bool(peer.client_certificate))
    yield from (one for one in found if one.code != "peer_not_tested")
    if test["unfit"]:
        where = f"the certificate of {proof.host}:{proof.port} does not pass"
        yield Finding.advised("peer_certificate_unfit", f"{where} {x509.printable_text(str(test['unfit']))}")


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
    found = list(_findings(peer, entry, message, options))
    return {
        "name": peer.name,
        "kind": peer.kind,
        "tested": not reason,
        "reason": reason,
        "proofs": [_public(peer, proof, test) for proof, test in zip(proofs, entry["proofs"])],
        "client_certificate": _described(entry["client_certificate"]),
        "findings": [one.as_dict() for one in found],
        "passed": all(one.severity != "error" for one in found),
    }


def _public(peer: Peer, proof: EnvelopeProof, test: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in proof.to_dict().items() if name != "trusted"}
    return {**shown, "findings": [one.as_dict() for one in _of_test(peer, test)]}


def _not_tested(peer: Peer, message: str) -> str:
    if not peer.sends_to_it:
        return "not tested to RCPT, because no mail goes to this peer"
    if message:
        return f"not tested to RCPT: {message}"
    lacking = [name for name in ("proof_sender", "proof_recipient") if not getattr(peer, name)]
    verb = "are" if len(lacking) > 1 else "is"
    return f"not tested to RCPT, because {' and '.join(lacking)} {verb} not set" if lacking else ""


def _findings(peer: Peer, entry: Mapping[str, Any], message: str, options: Mapping[str, Any]) -> Iterator[Finding]:
    seen = entry["client_certificate"]
    if message and not (seen and seen.get("message")):
        yield Finding.advised(
            "certificate_not_read", f"no proof with the peer {peer.name}: {message}", "correct starttls_peers"
        )
    if peer.sends_to_it and not message and not (peer.proof_sender and peer.proof_recipient):
        yield not_tested(peer)
    for test in entry["proofs"]:
        yield from _of_test(peer, test)
    yield from _of_certificates(peer, entry, options)


def _of_certificates(peer: Peer, entry: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what stands against the certificate that is presented to the peer, and against the one that is served to it."""
    seen, days = entry["client_certificate"], options["min_days_left"]
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
