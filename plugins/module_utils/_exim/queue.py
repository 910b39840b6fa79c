# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue of an Exim, read with C(exim4 -bp) and the logs of its messages. Source: the Exim specification, the command line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import Waiting, domain_of, names_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

MESSAGE_LOGS = "/var/spool/exim4/msglog"
_MESSAGE = re.compile(r"\s*\S+\s+\S+\s+([0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4})\s+<")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TIME = re.compile(r"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?: [+-]\d{4})? ")


@dataclass(frozen=True)
class _Message:
    """A message of the list, and its recipients that are not delivered yet."""

    queue_id: str
    recipients: tuple[str, ...]


def waiting(run: Runner, domains: Optional[Collection[str]]) -> list[Waiting]:
    """Return the messages for recipients in these domains, None for all. Raises EngineError if the queue cannot be read.

    The list has the original recipients. An alias may have led to one of the domains: the log of a message shows that.
    """
    status, out, err = run(["exim4", "-bp"])
    if status != 0:
        raise EngineError(f"exim4 -bp cannot read the queue: {(err or out).strip()}")
    names = names_of(domains or ())
    messages = list(_messages(out))
    mentioned = _mentioned(run, names) if messages and names else frozenset()
    found = []
    for message in messages:
        own = [one for one in message.recipients if domains is None or domain_of(one) in names]
        log = _log(run, message.queue_id) if own or message.queue_id in mentioned else []
        others = [] if own else [one for one in _tried(log) if domain_of(one) in names]
        for one in dict.fromkeys((*own, *others)):
            found.append(Waiting(message.queue_id, one, _reason(log, one), arrived=_arrived(message.queue_id)))
    return found


def _messages(listed: str) -> Iterator[_Message]:
    """Yield the messages of C(exim4 -bp): a line with size and ID, then one for each recipient; D marks a delivered one."""
    queue_id = ""
    recipients: list[str] = []
    for line in [*listed.split("\n"), " 0m 0 000000-000000-00 <>"]:
        if begins := _MESSAGE.match(line):
            if queue_id:
                yield _Message(queue_id, tuple(recipients))
            queue_id = begins[1]
            recipients = []
        elif queue_id and line.strip() and not re.match(r"\s+D ", line):
            recipients.append(line.strip())


def _arrived(queue_id: str) -> float:
    """Return when a message arrived: its ID begins with that second, in base 62."""
    seconds = 0
    for digit in queue_id.partition("-")[0]:
        seconds = seconds * len(_DIGITS) + _DIGITS.index(digit)
    return float(seconds)


def _mentioned(run: Runner, names: Collection[str]) -> frozenset[str]:
    """Return the messages whose logs mention one of the domains."""
    patterns = [word for name in names for word in ("-e", f"@{name}")]
    _status, out, _err = run(["grep", "-rliF", *patterns, MESSAGE_LOGS])
    return frozenset(path.rpartition("/")[2] for path in out.split("\n"))


def _log(run: Runner, queue_id: str) -> list[str]:
    """Return what Exim has logged of the attempts to deliver a message; nothing before the first one."""
    return [_TIME.sub("", line) for line in run(["exim4", "-Mvl", queue_id])[1].split("\n") if line.strip()]


def _tried(log: list[str]) -> Iterator[str]:
    """Yield the recipients of attempts: C(address R=...), C(address <original> R=...)."""
    for line in log:
        if match := re.match(r"(\S+@\S+)(?: <[^>]*>)? (?:R=|\S+ R=)", line):
            yield match[1]


def _reason(log: list[str], recipient: str) -> str:
    """Return the last line about a recipient, else the last line at all."""
    about = [line for line in log if line.lower().startswith(recipient.lower())]
    return (about or log or [""])[-1]
