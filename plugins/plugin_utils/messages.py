# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test messages: which ones a run sends, where they land, and what each hop of their way has to be."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import (
    HostVars,
    check_outside_host,
    is_send_only,
    landing_of,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.faults import as_fault
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import (
    NO_NETWORK,
    UNCLEAR,
    spoken_message,
    tls_of,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.waits import said_of

NOWHERE: Mapping[str, Any] = {}


def inbound_expectations(trace: Mapping[str, Any], modes: Sequence[str], possible: bool = True) -> list[Any]:
    """Return whether each network hop of an inbound message must use TLS; None if TLS and plaintext are both allowed.

    possible: whether the mail server completes a handshake, for the modes that use TLS if possible. The outside sender
    decides about the first hop. The delivery mode decides about the last hop, some modes by how the message arrived. If that
    is unproven, both are allowed.
    """
    hops = [hop for hop in trace["hops"] if hop["network"]]
    if len(hops) < 2 or len(modes) != 1:
        return [None] * len(hops)
    arrived = tls_of(hops[0])
    levels = {LEVELS[modes[0]][used] for used in ((False, True) if arrived is None else (arrived,))}
    wanted = {level == "required" or (level == "opportunistic" and possible) for level in levels}
    return [None] * (len(hops) - 1) + [wanted.pop() if len(wanted) == 1 else None]


def outbound_expectations(expected: str, sends: Sequence[Any]) -> list[Any]:
    """Return whether the network hops of an outbound message must use TLS: the one to the gateway, and the next.

    sends: C(starttls_send) of each gateway. Only C(required) of all decides about the hop behind the gateway.
    """
    first = None if expected == "either" else expected == "offered"
    return [first, True] if first and sends and all(one == "required" for one in sends) else [first]


def check_trace(
    trace: Mapping[str, Any],
    direction: str,
    wanted: Sequence[Any],
    waits: Mapping[str, Any] = NOWHERE,
    places: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a result of message_trace with C(direction) and C(findings). wanted has one entry for each network hop, in order.

    waits: where the message is if it did not arrive (waits.why_it_waits). places: the hosts whose queues were read.

    A hop whose TLS is unproven is neither as wanted nor the opposite: verdict.unproven_hops() has the finding.
    """
    findings = []
    hops = [hop for hop in trace["hops"] if hop["network"]]
    what = spoken_message(direction)
    if not trace["arrived"]:
        findings.append(said_of(direction, waits, places))
    elif not hops:
        findings.append(NO_NETWORK.format(what=what))
    for hop, tls in zip(hops, wanted):
        if not hop.get("clear", True):
            findings.append(UNCLEAR.format(by=hop["by"], what=what))
        elif tls is not None and hop["tls"] is not None and hop["tls"] != tls:
            findings.append(f"{what} reached {hop['by']} {'in plaintext' if tls else 'over TLS'} ({hop['protocol']})")
    more = {"waits": dict(waits)} if waits else {}
    return {**trace, "direction": direction, "findings": findings, **more}


def mark_of(direction: str, host: str) -> str:
    """Return the prefix of a host's markers: readable, unique for the host, of characters that message_trace accepts."""
    readable = re.sub(r"[^A-Za-z0-9-]", "-", host)[:20]
    return f"{direction}-{readable}-{hashlib.sha256(host.encode()).hexdigest()[:8]}-"


def trace_messages(hosts: Sequence[str], hostvars: HostVars, outside: str, run: str) -> list[dict[str, Any]]:
    """Return the test messages of a run: for each host one from outside (C(inbound)) and one to the outside (C(outbound)).

    Hosts without C(starttls_trace_address) are left out. A send-only host gets none from outside. Without an outside host there are no
    messages. run makes the markers unique.
    """
    if not outside:
        return []
    check_outside_host(outside, hostvars)
    if "starttls_trace_address" not in hostvars[outside]:
        return []
    there = str(hostvars[outside]["starttls_trace_address"])
    messages = []
    for host in hosts:
        if host == outside or "starttls_trace_address" not in hostvars[host]:
            continue
        here = str(hostvars[host]["starttls_trace_address"])
        into, out = mark_of("in", host) + run, mark_of("out", host) + run
        inbound = {"inbound": {"marker": into, "sender": there, "recipient": here}}
        messages.append(
            {
                "host": host,
                **({} if is_send_only(hostvars[host]) else inbound),
                "outbound": {"marker": out, "sender": here, "recipient": there},
            }
        )
    return messages


def trace_work(messages: Sequence[Mapping[str, Any]], host: str, hostvars: HostVars) -> dict[str, list[dict[str, Any]]]:
    """Return what message_trace has to C(send) and to C(receive) on a mail server. Both are empty without messages of it.

    C(receive) is a fault if the host's landing is none.
    """
    mine = [one for one in messages if one["host"] == host]
    try:
        landings: list[dict[str, Any]] = trace_landings(mine, "inbound", host, hostvars) if mine else []
    except EngineError as error:  # the task looks at C(send) first
        landings = [as_fault(error)]
    return {"send": [dict(one["outbound"]) for one in mine], "receive": landings}


def trace_landings(
    messages: Sequence[Mapping[str, Any]], direction: str, host: str, hostvars: HostVars
) -> list[dict[str, Any]]:
    """Return the landings for message_trace on a host: the messages of one direction, and their place on that host.

    The place is C(starttls_landing) of the host (mailbox, imap or command, as in message_trace), or its
    C(starttls_mailbox). The result may hold a password, so playbooks compute it when needed and do not store it. Raises
    EngineError.
    """
    place = landing_of(host, hostvars[host])
    return [{"marker": one[direction]["marker"], **place} for one in messages if direction in one]
