# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a change of an Exchange server: what other hosts have to see on the wire, and whether a handshake test shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood

OFFERED = ("offered", "required")


@dataclass(frozen=True)
class WireProof:
    """What has to be seen.

    inbound: the planned state of the connectors; empty if it may be any. fingerprint: SHA-256 of the certificate; empty for any.
    namesakes: those of other certificates with its issuer and subject. Which of them Exchange serves nobody documents.
    next_hops: C(host:port) of those that have to complete a handshake as well, because mail goes there over TLS only from now on.
    """

    inbound: str = ""
    fingerprint: str = ""
    namesakes: tuple[str, ...] = ()
    next_hops: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "namesakes": list(self.namesakes), "next_hops": list(self.next_hops)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WireProof:
        """Read the result of to_json."""
        return cls(
            str(data["inbound"]),
            str(data["fingerprint"]),
            tuple(map(str, data["namesakes"])),
            tuple(map(str, data["next_hops"])),
        )

    def targets(self) -> list[dict[str, Any]]:
        """Return the next hops as targets of starttls_probe. Raises TargetError."""
        return [{"host": one.host, "port": one.port} for one in map(Target.parse, self.next_hops)]

    def lacks(self, test: Mapping[str, Any]) -> str:
        """Return what a test does not show; empty if it is the proof. test: a result of starttls_probe."""
        if self.inbound in OFFERED:
            if not test.get("completed"):
                return str(test.get("message") or "no handshake was completed")
            served = str(test.get("fingerprint_sha256") or "")
            if self.fingerprint and served not in (self.fingerprint, *self.namesakes):
                return f"the certificate served ({served[:16]}...) is not the one that was installed ({self.fingerprint[:16]}...)"
            if self.inbound == "required" and test.get("requires_tls") is False:
                return "it still takes mail in plaintext"
            return ""
        reached = str(test.get("stage") or "connect") not in ("connect", "greeting")
        if not reached:
            return str(test.get("message") or "it did not answer EHLO")
        return "it still offers STARTTLS" if self.inbound == "disabled" and test.get("starttls_advertised") else ""


def lacking_proof(wire: WireProof, probe: Any) -> str:
    """Return why the registered result of starttls_probe is no proof; empty if it is one. Raises EngineError."""
    if not isinstance(probe, Mapping) or not probe:
        return "no handshake test was made"
    results: Sequence[Mapping[str, Any]] = probe.get("results") or ()
    if not results or probe.get("unreachable"):
        return f"the handshake test could not be made: {probe.get('msg') or 'it gave no result'}"
    with understood("the handshake test"):
        if len(results) < 1 + len(wire.next_hops):
            return "not all next hops were tested"
        hops = {f"{one['host']}:{one['port']}": one for one in results[1:]}
        refused = [
            f"{name}: {one.get('message') or 'no handshake'}" for name, one in hops.items() if not one.get("completed")
        ]
        return wire.lacks(results[0]) or "; ".join(refused)


def is_proof(probe: Any, wanted: Mapping[str, Any]) -> bool:
    """Return whether a registered result of starttls_probe proves a change. wanted: C(prove) of the change."""
    return not lacking_proof(WireProof.from_json(wanted), probe)


def proof_targets(own: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the targets of starttls_probe that prove a change. own: that of the server. wanted: C(prove) of the change."""
    return [*map(dict, own), *WireProof.from_json(wanted).targets()]


def served_in(probe: Any) -> str:
    """Return SHA-256 of the certificate that a result of starttls_probe saw; empty if it saw none."""
    results = probe.get("results") if isinstance(probe, Mapping) else None
    first = results[0] if isinstance(results, (list, tuple)) and results else {}
    return str(first.get("fingerprint_sha256") or "") if isinstance(first, Mapping) else ""
