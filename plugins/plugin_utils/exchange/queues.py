# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queues of an Exchange server in the form of deferred_mail_info, and Retry-Queue in that of deferred_mail.

Get-Queue counts the messages of a queue and does not name them. So each counts, and has no sender and no recipient here.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import shown
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.deferred import WAIT_CAUSES
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.waiting_mail import could_not_look
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_LISTED_MESSAGES
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.server import CmdletServer
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_replies import explain_queue
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood

BETWEEN_LOOKS = 3.0
"""Between two looks at the queues, each of which is a session with the server."""
_CAUSES = {"peer_met_no_starttls": "not_offered", "peer_connector_certificate": "tls_unavailable"}
"""Code of what LastError means -> cause of the wait."""
_WORDS = (
    ("certificate", re.compile(r"454 4\.7\.5 Certificate validation failure")),
    ("handshake_failed", re.compile(r"454 4\.7\.5 TLS negotiation failed")),
    ("peer_requires", re.compile(r"530 5\.7\.0 Must issue a STARTTLS", re.IGNORECASE)),
)
"""Further words of LastError. Those with 454 are what others have published; no real Exchange was asked."""
_REMOTE = ("SmartHostConnectorDelivery", "DnsConnectorDelivery")


def read_queues(server: CmdletServer, addresses: Collection[str] = ()) -> dict[str, Any]:
    """Return what waits, as deferred_mail_info does. addresses: recipients to look for. Raises ReadFailed, EngineError."""
    server.read()
    queues = server.raw.get("Queues")
    if queues is None:
        said = (server.raw.get("Errors") or {}).get("Get-Queue") or "it gave no reason"
        return could_not_look(shown(f"Get-Queue: {said}"))
    if addresses:
        return could_not_look("Get-Queue of Exchange does not tell for whom a message is; look with Get-Message")
    with understood("the queues that exchange_cmdlets returned"):
        return _listed(_waiting(server.raw))


def _listed(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ordered = sorted(found, key=lambda one: not one["for_tls"])
    return {
        "looked": True,
        "message": "",
        "waiting": len(found),
        "for_tls": sum(one["for_tls"] for one in found),
        "held": sum(one["held"] for one in found),
        "instances": [{"instance": "", "waiting": len(found)}] if found else [],
        "causes": dict(Counter(one["cause"] for one in found)),
        "messages": ordered[:QUEUE_LISTED_MESSAGES],
        "left_out": max(0, len(found) - QUEUE_LISTED_MESSAGES),
        "returned": [],
    }


def _waiting(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return an entry for each message of the queues that lead to other hosts."""
    ports = {str(one.get("Guid")).lower(): int(one.get("Port") or 25) for one in raw.get("SendConnectors") or ()}
    return [
        entry
        for one in raw["Queues"]
        if one.get("DeliveryType") in _REMOTE
        for entry in [_entry(one, ports.get(str(one.get("NextHopConnector")).lower(), 25))] * int(one["MessageCount"])
    ]


def _entry(queue: Mapping[str, Any], port: int) -> dict[str, Any]:
    reason = str(queue.get("LastError") or "")
    held = queue.get("Status") == "Suspended"
    code = _cause_of(reason)
    cause = WAIT_CAUSES[code]
    return {
        "queue_id": shown(str(queue["Identity"])), "instance": "", "queue": shown(str(queue.get("Status"))), "sender": "", "recipient": "",
        "size": None, "arrived": None, "reason": shown(reason), "next_hop": shown(_first_hop(queue)), "next_hop_address": "",
        "next_hop_port": port, "next_try": queue.get("NextRetryTime"), "held": held, "cause": code, "said": cause.said, "side": cause.side,
        "for_tls": cause.tls,
    }  # fmt: skip


def _cause_of(reason: str) -> str:
    if not reason:
        return "not_tried"
    further = (code for code, pattern in _WORDS if pattern.search(reason))
    return _CAUSES.get(explain_queue("exchange", reason).code) or next(further, "unknown")


def _first_hop(queue: Mapping[str, Any]) -> str:
    return str(queue.get("NextHopDomain") or "").partition(",")[0].strip("[] ").lower()


def try_queues(
    server: CmdletServer,
    next_hops: Optional[Collection[str]],
    timeout: float,
    check_mode: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Have Exchange try what waits for want of TLS, and wait until it is gone, as deferred_mail does.

    next_hops: those whose mail is meant; None for all. timeout: seconds. Raises ReadFailed, EngineError.
    """
    organisation = server.read()
    with understood("the queues that exchange_cmdlets returned"):
        if server.raw.get("Queues") is None:
            raise EngineError("the queues could not be read, so nothing can be tried; see Get-Queue on the server")
        waiting = [
            one
            for one in _waiting(server.raw)
            if one["for_tls"] and (next_hops is None or one["next_hop"] in next_hops)
        ]
    tried = [one for one in waiting if not one["held"]]
    left = list(tried)
    if tried and not check_mode:
        left = _tried(server, organisation, {one["queue_id"] for one in tried}, time.monotonic() + timeout, sleep)
    return {
        "changed": bool(tried),
        "tried": len(tried),
        "delivered": 0 if check_mode else len(tried) - len(left),
        "held": len(waiting) - len(tried),
        "messages": tried[:QUEUE_LISTED_MESSAGES],
        "left": [] if check_mode else left[:QUEUE_LISTED_MESSAGES],
    }


def _tried(
    server: CmdletServer, organisation: Any, queues: Collection[str], deadline: float, sleep: Callable[[float], None]
) -> list[dict[str, Any]]:
    calls = [one for one in server.room.engine.retry(organisation) if str(one.parameters.get("Identity")) in queues]
    done = server.apply(calls)
    if done.failed:
        raise EngineError(done.failed)
    while True:
        left = [one for one in _waiting(server.raw) if one["queue_id"] in queues and one["for_tls"]]
        if not left or time.monotonic() >= deadline:
            return left
        sleep(BETWEEN_LOOKS)
        server.read()
