# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listeners of a host that differ from its main one, as its daemon says. Nobody tests them, so nothing is proved of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

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

    observed: a result of mail_server_info. Each has C(address), C(tls), C(certificate), C(fingerprint_sha256) and C(days_left), the
    facts of its first certificate. Loopback listeners are left out: no other host connects to them.
    """
    facts = {one["path"]: one.get("certificate") or {} for one in observed.get("certificates") or ()}
    listeners = [one for one in observed.get("listeners") or () if not _is_loopback(str(one["host"]))]
    main = next((_way(one, facts) for one in listeners if one["port"] == port), None)
    found = []
    for one in listeners:
        if one["port"] == port or _way(one, facts) == main:
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


def _way(listener: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]) -> tuple[str, tuple[Any, ...]]:
    """Return what has to be alike: the TLS mode, and the certificates. A file that nobody could read counts by its path."""
    certificates = (facts.get(path, {}).get("fingerprint_sha256") or path for path in listener["certificates"])
    return str(listener["tls"]), tuple(certificates)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
