# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a test message did not arrive, from the queues of all hosts that it may wait on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import HostVars
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import GREYLISTED, spoken_message

CLOCKS = timedelta(minutes=5)
"""By which the clocks of two hosts may differ."""
_RUN = re.compile(r"-(\d{8}T\d{6})-\d+\Z")


def lost_messages(hosts: Sequence[str], hostvars: HostVars) -> list[dict[str, str]]:
    """Return the test messages of this run that did not arrive: C(marker), C(sender), C(recipient), C(message_id), each once."""
    arrived: dict[str, bool] = {}
    sent: dict[str, Mapping[str, Any]] = {}
    for host in hosts:
        facts = hostvars[host]
        for name in ("verify_trace", "verify_outside"):
            result = facts.get(name)
            found = result.get("received") if isinstance(result, Mapping) else None
            for one in found if isinstance(found, (list, tuple)) else ():
                if isinstance(one, Mapping):
                    arrived[str(one.get("marker"))] = bool(one.get("arrived"))
        for one in facts.get("verify_messages") or ():
            sent.update({one[way]["marker"]: one[way] for way in ("inbound", "outbound") if way in one})
    return [
        {
            "marker": marker,
            "sender": str(one["sender"]),
            "recipient": str(one["recipient"]),
            "message_id": f"{marker}@{str(one['sender']).partition('@')[2]}",
        }
        for marker, one in sent.items()
        if arrived.get(marker) is False
    ]


def why_it_waits(marker: str, hosts: Sequence[str], hostvars: HostVars) -> dict[str, Any]:
    """Return where a test message is, with the daemon's reason; empty if no queue that was read has it.

    C(on), C(reason), C(cause), C(said), C(next_hop), C(next_try), and C(returned): whether it was returned to its sender.
    """
    lost = next((one for one in lost_messages(hosts, hostvars) if one["marker"] == marker), None)
    if lost is None:
        return {}
    found: list[tuple[str, dict[str, Any]]] = []
    for host in hosts:
        for one in _entries(hostvars[host].get("verify_queue"), "returned"):
            if one.get("message_id") == lost["message_id"]:
                return {"on": host, **_told(one), "returned": True}
        for one in _entries(hostvars[host].get("verify_queue"), "messages"):
            if (one.get("sender"), one.get("recipient")) == (lost["sender"], lost["recipient"]) and _is_of(one, marker):
                found.append((str(one.get("arrived")), {"on": host, **_told(one), "returned": False}))
    return max(found, key=lambda one: one[0])[1] if found else {}


def _entries(result: Any, name: str) -> Iterator[Mapping[str, Any]]:
    listed = result.get(name) if isinstance(result, Mapping) else None
    yield from (one for one in (listed if isinstance(listed, (list, tuple)) else ()) if isinstance(one, Mapping))


def _told(one: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(one.get(name) or "") for name in ("reason", "cause", "said", "next_hop", "next_try")}


def _is_of(one: Mapping[str, Any], marker: str) -> bool:
    """Whether a message can be that of this run: the marker has the time at which the run chose its messages."""
    match = _RUN.search(marker)
    try:
        began = datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc) if match else None
        arrived = datetime.strptime(str(one.get("arrived")), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return True
    return began is None or arrived >= began - CLOCKS


def said_of(direction: str, waits: Mapping[str, Any], places: Sequence[str]) -> str:
    """Return in words where a message is that did not arrive. places: the hosts whose queues were read."""
    what = spoken_message(direction)
    if not waits:
        seen = f"; it is not in the queue of {', '.join(places)}" if places else "; no queue was read"
        return f"{what} did not arrive in time{seen}"
    hop = f" for {waits['next_hop']}" if waits["next_hop"] else ""
    known = waits["cause"] in ("not_relayed", GREYLISTED)
    why = f"{waits['said']} ({waits['reason']})" if known else waits["reason"] or "it was not tried yet"
    if waits["returned"]:
        return f"{what} was returned to its sender by {waits['on']}{hop}: {why}"
    when = f"; next try at {waits['next_try']}" if waits["next_try"] else ""
    return f"{what} waits on {waits['on']}{hop}: {why}{when}"
