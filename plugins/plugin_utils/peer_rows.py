# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers of a mail server in its row of the verdict: one entry for each hop, with the proof or the reason why there is none."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    CertificateError,
    describe,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding, of_result
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peers import WantedPeer

PROVED, UNTESTED, FAILED, WITHOUT_TLS, KEEPS_TLS = "proved", "not tested", "failed", "TLS off", "keeps TLS"
"""What an entry says of its hop. Only the first one is a proof: the peer has accepted a recipient over TLS."""

_COMPARED = ("hosts", "domains", "level", "check", "client_certificate")
_BEFORE_TLS = ("starttls", "handshake")
_FORECASTS = frozenset({"client_not_public", "client_name_not_accepted"})
"""What is expected of a client certificate before anybody asks the peer. What the peer answered counts more."""


def peer_entries(
    peers: Sequence[WantedPeer], facts: Mapping[str, Any], observed: Mapping[str, Any], expected: str
) -> list[dict[str, Any]]:
    """Return the entries of a mail server.

    facts: what the roles registered on it. observed: its read. expected: that of its row. Each has C(name), C(kind), C(direction)
    (C(outbound) or C(inbound)), C(server) (C(host:port), empty without one), C(level), C(result) (one of the words above), C(reason)
    (why it is not proved), C(starttls) (None if unknown), C(tls_version), C(certificate) (facts of the one that the peer served),
    C(trusted) and C(findings).
    """
    if expected == "disabled":
        return [entry for one in peers for entry in _switched_off(one, _there(facts, observed))]
    if expected != "offered":
        return []
    tests = {str(one.get("name")): one for one in _tests(facts, observed)}
    there = _there(facts, observed)
    found = []
    for one in peers:
        entries = list(_tested(one, tests.get(one.peer.name)))
        differs = _differs(one, there)
        entries[0]["findings"] = [*(two.as_dict() for two in differs), *entries[0]["findings"]]
        if differs and entries[0]["result"] == PROVED:
            entries[0] |= {"result": FAILED, "reason": differs[0].message}
        found += entries
    return found


def _tests(facts: Mapping[str, Any], observed: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the tests with the peers: those made for the verdict, else those of the read, if no change is newer."""
    made = facts.get("verify_peers_result") or {}
    if made and not made.get("skipped"):
        return list(made.get("peers") or ())
    changed = (facts.get("mail_server_peers_result") or {}).get("changed")
    return [] if changed else list(observed.get("peer_tests") or ())


def _there(facts: Mapping[str, Any], observed: Mapping[str, Any]) -> Optional[dict[str, Mapping[str, Any]]]:
    """Return name -> the peer as the daemon's configuration tells it now; None if that is not known."""
    made = facts.get("mail_server_peers_result") or {}
    found = made.get("after") if made.get("changed") else observed.get("peers")
    return None if found is None else {str(one["name"]): one for one in found}


def _differs(wanted: WantedPeer, there: Optional[Mapping[str, Mapping[str, Any]]]) -> list[Finding]:
    peer = wanted.peer
    if there is None or not peer.sends_to_it:
        return []
    held = there.get(peer.name)
    if held is None:
        return [
            Finding.advised(
                "peer_differs", f"it lacks the peer {peer.name} of starttls_peers, so that mail takes another way"
            )
        ]
    mine = peer.to_dict()
    differing = [key for key in _COMPARED if key in held and _plain(held[key]) != _plain(mine[key])]
    what = f"its peer {peer.name} differs from starttls_peers in {', '.join(differing)}"
    return [Finding.advised("peer_differs", what)] if differing else []


def _plain(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else str(value or "")


def _entry(wanted: WantedPeer, **changes: Any) -> dict[str, Any]:
    peer = wanted.peer
    return {
        "name": peer.name, "kind": peer.kind, "direction": "outbound" if peer.sends_to_it else "inbound", "server": "",
        "level": peer.level if peer.sends_to_it else "", "result": UNTESTED, "reason": "", "starttls": None, "tls_version": "",
        "certificate": None, "trusted": None, "findings": [], **changes,
    }  # fmt: skip


def _tested(wanted: WantedPeer, test: Optional[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield an entry for each hop of a peer, one at least. What is about the peer as a whole is told with the first one."""
    proofs = list((test or {}).get("proofs") or ())
    said = [one for one in (test or {}).get("findings") or () if isinstance(one, Mapping)]
    of_proofs = [str(one.get("message")) for proof in proofs for one in proof.get("findings") or ()]
    whole = [of_result(one) for one in said if str(one.get("message")) not in of_proofs]
    if proofs and wanted.shows_who_sends and not any(_refused(wanted, proof) for proof in proofs):
        whole = [{**one, "severity": "warning"} if one["code"] in _FORECASTS else one for one in whole]
    reason = "nobody has tested it in this run" if test is None else str(test.get("reason") or "")
    if not proofs:
        yield _entry(wanted, reason=reason, findings=whole)
    for place, proof in enumerate(proofs):
        findings = [_as_the_level_says(wanted, proof, of_result(one)) for one in proof.get("findings") or ()]
        refused = _refused(wanted, proof)
        result = UNTESTED if proof.get("fault") == "not_tested" else FAILED if refused else PROVED
        errors = [one["message"] for one in findings if one["severity"] == "error"]
        if errors and result != UNTESTED:
            result = FAILED
        yield _entry(
            wanted,
            server=f"{proof['host']}:{proof['port']}",
            result=result,
            reason=reason
            if result == UNTESTED
            else next(iter(errors), str(proof.get("message") or ""))
            if result == FAILED
            else "",
            starttls=_offers(proof),
            tls_version=str(proof.get("tls_version") or ""),
            certificate=_served(proof),
            trusted=proof.get("trusted"),
            findings=[*(whole if place == 0 else ()), *findings],
        )


def _refused(wanted: WantedPeer, proof: Mapping[str, Any]) -> bool:
    return proof.get("stage") != "done" or _refused_again(wanted, proof)


def _refused_again(wanted: WantedPeer, proof: Mapping[str, Any]) -> bool:
    """Whether a second session was refused. A transport with a client certificate resumes none, so that is a warning there."""
    second = proof.get("second") or {}
    return (
        bool(second)
        and second.get("stage") != "done"
        and proof.get("resumed") is not None
        and not wanted.peer.client_certificate
    )


def _as_the_level_says(wanted: WantedPeer, proof: Mapping[str, Any], finding: dict[str, Any]) -> dict[str, Any]:
    """Return a finding, or a warning instead of it if there is no TLS and none is required."""
    if wanted.peer.level == "required" or proof.get("stage") not in _BEFORE_TLS or finding["severity"] != "error":
        return finding
    return Finding.advised("peer_in_plaintext", f"peer {wanted.peer.name}: {finding['message']}").as_dict()


def _offers(proof: Mapping[str, Any]) -> Optional[bool]:
    if proof.get("tls_version"):
        return True
    return False if proof.get("fault") == "starttls_not_offered" else None


def _served(proof: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    with contextlib.suppress(CertificateError, ValueError):
        for text in list(proof.get("chain_pem") or ())[:1]:
            return describe(ssl.PEM_cert_to_DER_cert(str(text)))
    return None


def _switched_off(wanted: WantedPeer, there: Optional[Mapping[str, Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
    peer = wanted.peer
    held = (there or {}).get(peer.name)
    if held is None or not peer.sends_to_it:
        return
    level = str(held.get("level") or "")
    result = WITHOUT_TLS if level == "disabled" else KEEPS_TLS
    for server in held.get("hosts") or ("",):
        yield _entry(wanted, server=str(server), level=level, result=result)
