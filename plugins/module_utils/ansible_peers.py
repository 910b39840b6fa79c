# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between AnsibleModule and the engine of the peers: the options of the modules, the read and the change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.on_host import seen_on_host
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import PEER_STATES, peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_engine import (
    PeerWish,
    plan_peers,
    set_peers,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_options import PEER_OPTIONS, no_peers
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_proof import prove_peers
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.peer import PEERS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, resolve

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner

PEER_SPEC: dict[str, dict[str, Any]] = {
    "kind": {"type": "str", "default": AUTO},
    "peers": {"type": "list", "elements": "dict", "default": [], "options": PEER_OPTIONS},
    "state": {"type": "str", "choices": list(PEER_STATES), "default": "present"},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 25},
    "timeout": {"type": "int", "default": 20},
    "require_without_evidence": {"type": "bool", "default": False},
    "queue_timeout": {"type": "int", "default": 300},
    "digests": {"type": "dict", "default": {}},
    "exim_split": {"type": "bool", "default": False},
}
"""The options of peer_tls."""


def wish_of(entries: Sequence[Mapping[str, Any]], state: str, insist: bool, queue_seconds: float) -> PeerWish:
    """Return what is wanted. With C(absent), an entry needs a name only. Raises EngineError."""
    if state == "absent":
        return PeerWish((), state, tuple(str(one.get("name") or "") for one in entries), insist, queue_seconds)
    return PeerWish(peers_of(entries), state, (), insist, queue_seconds)


def change_peers(module: AnsibleModule) -> dict[str, Any]:
    """Bring the peers of this host to the wanted state and return the result. Raises EngineError, TransactionError."""
    options = module.params
    kind = resolve(options["kind"], "server", "kind")
    insist, queue_seconds = options["require_without_evidence"], float(options["queue_timeout"])
    wish = wish_of(options["peers"], options["state"], insist, queue_seconds)
    own_port = Target(options["address"], options["port"])
    own_port.check()
    settings = Settings(timeout=float(options["timeout"]))
    server = PEERS[kind](runner(module), own_port, settings, options["exim_split"])
    outcome = set_peers(server, wish, settings, own_port, module.check_mode, digests=options["digests"])
    return {**outcome.to_dict(), "kind": kind, "diff": outcome.diff, "warnings": list(outcome.warnings)}


def read_peers(options: Mapping[str, Any], kind: str, run: Runner, settings: Settings) -> dict[str, Any]:
    """Return the peers of this host and, for wanted ones, what a change would do. Changes nothing. Raises EngineError.

    The keys: C(peers), None if they cannot be read; C(peer_changes); C(peer_proofs), each with C(refused), whether a change would be
    refused because of it, and C(waived), whether only require_without_evidence prevents that; C(peer_certificates), what the
    controller needs to judge the client certificates, without their keys; C(digests), C(obstacles) and C(notes) as those of
    mail_server_info. A proof that refuses a change is no obstacle here: the other side may accept TLS before the change is made.
    """
    own_port = Target(options["address"], options["port"])
    server = PEERS[kind](run, own_port, settings, bool(options.get("exim_split")))
    found = {**no_peers(), "peers": None, "digests": {}, "obstacles": [], "notes": []}
    state = options.get("peers_state") or "present"
    wanted = None
    if options.get("peers") or (options.get("peers") is not None and state == "absent"):
        wanted = wish_of(options["peers"], state, bool(options.get("require_without_evidence")), 0.0)
        found["peer_certificates"] = [
            {"peer": one.name, **seen_on_host(one.client_certificate, one.client_key)}
            for one in wanted.wanted
            if one.client_certificate
        ]
    try:
        found["peers"] = server.peers()
        if wanted is None:
            return found
        planned = plan_peers(server, wanted)
        found["peer_changes"] = [{"path": path, "lines": lines} for path, lines in planned.change.lines()]
        found["digests"] = facts.digests(server.files())
        found["obstacles"] = [{"code": "change_refused", "message": one} for one in planned.faults]
        new = {one.name for one in planned.changed}
        for one in prove_peers(wanted.wanted, settings, server.roots()):
            stands = bool(one.problem) and one.peer in new
            waived = stands and wanted.require_without_evidence and one.may_insist
            found["peer_proofs"].append({**one.to_dict(), "refused": stands and not waived, "waived": waived})
    except (EngineError, OSError) as error:
        reason = str(error) if isinstance(error, EngineError) else f"{error.filename}: {error.strerror}"
        if wanted is None:
            found["notes"].append({"code": "listeners_not_read", "message": f"the peers cannot be read: {reason}"})
        else:
            found["obstacles"].append({"code": "change_refused", "message": f"peers: {reason}"})
    return found
