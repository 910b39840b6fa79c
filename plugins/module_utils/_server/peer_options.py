# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of an entry of C(starttls_peers) as suboptions of a module. The fragment peers.py documents them."""

from __future__ import annotations

from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import (
    PEER_CHECKS,
    PEER_DIRECTIONS,
    PEER_KINDS,
    PEER_LEVELS,
    PEER_STATES,
)

PEER_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": list(PEER_KINDS), "default": "smtp"},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "domains": {"type": "list", "elements": "str", "default": []},
    "direction": {"type": "str", "choices": list(PEER_DIRECTIONS), "default": "outbound"},
    "level": {"type": "str", "choices": list(PEER_LEVELS), "default": "required"},
    "check": {"type": "str", "choices": list(PEER_CHECKS), "default": "encryption_only"},
    "names": {"type": "list", "elements": "str", "default": []},
    "servername": {"type": "str"},
    "client_certificate": {"type": "path"},
    "client_key": {"type": "path"},
    "pin_fingerprints": {"type": "list", "elements": "str", "default": []},
    "pin_issuer_file": {"type": "path"},
    "proof_sender": {"type": "str"},
    "proof_recipient": {"type": "str"},
    "tls_domain": {"type": "str"},
}

READ_SPEC: dict[str, dict[str, Any]] = {
    "peers": {"type": "list", "elements": "dict", "options": PEER_OPTIONS},
    "peers_state": {"type": "str", "choices": list(PEER_STATES), "default": "present"},
}
"""The options of mail_server_info that are about peers."""


def no_peers() -> dict[str, Any]:
    """Return what mail_server_info says of a host without peers that wants none."""
    return {"peers": [], "peer_changes": [], "peer_proofs": [], "peer_certificates": []}
