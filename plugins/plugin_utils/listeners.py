# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listeners of a host, as its daemon says: those that differ from its main one, and those that no other host reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import is_loopback
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding

WORDS = {
    "none": "not offered",
    "offered": "offered",
    "required": "required",
    "implicit": "implicit TLS",
    "unknown": "unknown",
}
"""TLS mode of a listener -> its word in a table."""


def other_listeners(observed: Mapping[str, Any], port: int) -> list[dict[str, Any]]:
    """Return the listeners whose TLS mode or certificates are not those of the one on the port; all of them if there is none on it.

    Of several on the port, at addresses of their own, the first with TLS is that one: the handshake test is about it.
    observed: a result of mail_server_info. Each has C(address), C(tls), C(certificate), C(fingerprint_sha256) and C(days_left), the
    facts of its first certificate. Loopback listeners are left out: no other host connects to them.
    """
    facts = {one["path"]: one.get("certificate") or {} for one in observed.get("certificates") or ()}
    listeners = [one for one in observed.get("listeners") or () if not is_loopback(str(one["host"]))]
    tested = sorted((one for one in listeners if one["port"] == port), key=lambda one: str(one["tls"]) == "none")
    main = next((_way(one, facts) for one in tested), None)
    found = []
    for one in listeners:
        if _way(one, facts) == main:
            continue
        certificate = next((facts[path] for path in one["certificates"] if facts.get(path)), {})
        found.append(
            {
                "address": f"{one['host']}:{one['port'] or one['service']}",
                "tls": WORDS.get(str(one["tls"]), "unknown"),
                "certificate": certificate.get("subject"),
                "fingerprint_sha256": certificate.get("fingerprint_sha256"),
                "days_left": certificate.get("days_left"),
            }
        )
    return found


def not_as_configured(observed: Mapping[str, Any]) -> list[Finding]:
    """Return a finding for each listener whose test from its own host shows something else than its configuration says."""
    return [
        Finding.advised(
            "listener_without_tls",
            f"{one['service']} ({one['host']}:{one['port']}) is to have TLS ({WORDS.get(str(one['tls']), 'unknown')}): {one['message']}",
        )
        for one in observed.get("listener_tests") or ()
        if one["message"]
    ]


def loopback_ports(observed: Mapping[str, Any]) -> frozenset[int]:
    """Return the ports on which a host takes mail from itself only.

    observed: a result of mail_server_info. Its sockets tell it; where they could not be seen, the configuration does.
    """
    hosts: dict[int, list[str]] = {}
    for one in observed.get("sockets") or observed.get("listeners") or ():
        if one["port"]:
            hosts.setdefault(int(one["port"]), []).append(str(one["host"]))
    return frozenset(port for port, known in hosts.items() if all(map(is_loopback, known)))


def loopback_only(port: int) -> Finding:
    """Return the finding for a mail server that takes mail from its own host only."""
    return Finding.advised(
        "loopback_only", f"port {port} listens on the loopback only, so no other host can deliver to it"
    )


def _way(listener: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]) -> tuple[str, tuple[Any, ...]]:
    """Return what has to be alike: the TLS mode, and the certificates. A file that nobody could read counts by its path."""
    certificates = (facts.get(path, {}).get("fingerprint_sha256") or path for path in listener["certificates"])
    return str(listener["tls"]), tuple(certificates)
