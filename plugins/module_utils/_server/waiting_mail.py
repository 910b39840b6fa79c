# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine of deferred_mail_info and deferred_mail: read the queues of a host, and have it try again what waited for want of TLS."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Queue, Returned, Waiting, shown
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.deferred import cause_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    QUEUE_ADDRESS_CHARS,
    QUEUE_LISTED_MESSAGES,
)

LOOK_SECONDS = 0.5
"""Between two looks at a queue."""
AGAIN_SECONDS = 8.0
"""After which the daemon is asked once more: one that was just reloaded may have missed it."""
_BUSY = ("active", "incoming")
"""Queues of Postfix whose messages are being tried."""


def read_waiting(queue: Queue, addresses: Collection[str] = (), message_ids: Sequence[str] = ()) -> dict[str, Any]:
    """Return what waits on this host, as deferred_mail_info returns it. addresses: these recipients only. Raises EngineError.

    message_ids: messages that are looked for among those that were returned to their senders.
    """
    found = _complete(queue.waiting())
    if addresses:
        wanted = {one.lower() for one in addresses}
        found = [one for one in found if one.recipient.lower() in wanted]
    affected = [one for one in found if cause_of(one.reason).tls]
    listed = [*affected, *(one for one in found if one not in affected)][:QUEUE_LISTED_MESSAGES]
    return {
        "looked": True,
        "message": "",
        "waiting": len(found),
        "for_tls": len(affected),
        "held": sum(one.held for one in found),
        "instances": [
            {"instance": place, "waiting": count} for place, count in Counter(one.place for one in found).items()
        ],
        "causes": dict(Counter(cause_of(one.reason).code for one in found)),
        "messages": [as_data(one) for one in listed],
        "left_out": len(found) - len(listed),
        "returned": [_returned(one) for one in queue.returned(message_ids)] if message_ids else [],
    }


def could_not_look(why: str) -> dict[str, Any]:
    """Return the same shape for queues that could not be read: nothing is known of them, and they are not empty."""
    return {
        "looked": False, "message": why, "waiting": None, "for_tls": None, "held": None, "instances": [], "causes": {}, "messages": [],
        "left_out": 0, "returned": [],
    }  # fmt: skip


def as_data(one: Waiting) -> dict[str, Any]:
    """Return a message with its cause, as plain data."""
    cause = cause_of(one.reason)
    return {**one.to_dict(), "cause": cause.code, "said": cause.said, "side": cause.side, "for_tls": cause.tls}


def _returned(one: Returned) -> dict[str, Any]:
    cause = cause_of(one.reason)
    return {
        "message_id": shown(one.message_id, QUEUE_ADDRESS_CHARS),
        "recipient": shown(one.recipient, QUEUE_ADDRESS_CHARS),
        "reason": shown(one.reason),
        "cause": cause.code,
        "said": cause.said,
    }


def try_again(
    queue: Queue, next_hops: Optional[Collection[str]], timeout: float, check_mode: bool = False
) -> dict[str, Any]:
    """Have the daemon try what waits for want of TLS, and wait until it is gone. Return the values of deferred_mail.

    next_hops: names of the next hops whose mail is meant; None for all. What somebody holds stays held, and so does a message of
    which one recipient is held. timeout: seconds. Raises EngineError.
    """
    before = _complete(queue.waiting())
    held = {(one.place, one.queue_id) for one in before if one.held}
    meant = [one for one in before if cause_of(one.reason).tls and (next_hops is None or one.next_hop in next_hops)]
    tried = [one for one in meant if (one.place, one.queue_id) not in held]
    left = list(tried) if check_mode else _tried_until(queue, tried, time.monotonic() + timeout)
    return {
        "changed": bool(tried),
        "tried": len(_messages(tried)),
        "delivered": 0 if check_mode else len(_messages(tried)) - len(_messages(left)),
        "held": len(_messages(meant) & held),
        "messages": [as_data(one) for one in tried[:QUEUE_LISTED_MESSAGES]],
        "left": [as_data(one) for one in left[:QUEUE_LISTED_MESSAGES]] if not check_mode else [],
    }


def _tried_until(queue: Queue, wanted: Sequence[Waiting], deadline: float) -> list[Waiting]:
    """Have these entries tried until they are gone, or have failed twice, or the time is over. Return what is left."""
    left = list(wanted)
    rounds = 0
    while left:
        former = {_key(one): (one.reason, one.next_try) for one in left}
        queue.try_again(left)
        rounds += 1
        ends = min(deadline, time.monotonic() + AGAIN_SECONDS)
        while True:
            left = _still(left, queue.waiting())
            failed = [one for one in left if one.queue not in _BUSY and former[_key(one)] != (one.reason, one.next_try)]
            if len(failed) == len(left) or time.monotonic() >= ends:
                break
            time.sleep(LOOK_SECONDS)
        # A daemon that was just reloaded may have missed it, or have tried with what it knew before.
        if time.monotonic() >= deadline or (rounds > 1 and len(failed) == len(left)):
            break
    return left


def _key(one: Waiting) -> tuple[str, str, str]:
    return one.place, one.queue_id, one.recipient


def _messages(found: Sequence[Waiting]) -> set[tuple[str, str]]:
    return {(one.place, one.queue_id) for one in found}


def _still(wanted: Sequence[Waiting], now: Sequence[Waiting]) -> list[Waiting]:
    """Return what still waits of the wanted entries, as it is now."""
    there = {_key(one): one for one in now}
    return [there[_key(one)] for one in wanted if _key(one) in there]


def _complete(found: Sequence[Waiting]) -> list[Waiting]:
    """Return the entries; one that a daemon did not try because its host failed just now has the reason of another for that host."""
    known = {one.next_hop: one for one in found if one.next_hop and cause_of(one.reason).tls}
    return [
        replace(one, reason=known[one.next_hop].reason)
        if "retry time not reached" in one.reason and one.next_hop in known
        else one
        for one in found
    ]
