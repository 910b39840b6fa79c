# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queues of the Postfix instances on a host, read with postqueue(1). Needs Postfix 3.1.

Sources: postqueue(1), postconf(5), transport(5), qmgr(8). The time of a file in the queue "deferred" is that of its next try.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.recent_log import recent_log
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Returned, Waiting, domain_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log_places import LOG_PARAMETERS, log_places
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import with_programs
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    QUEUE_MESSAGES,
    QUEUE_ROUTES,
    whole_number,
)

_MOST_INSTANCES = 32
_MESSAGE_ID = re.compile(r"(?:^|: )([0-9A-Za-z]{5,40}): message-id=<([^<>]{1,320})>")
_BOUNCED = re.compile(r"(?:^|: )([0-9A-Za-z]{5,40}): to=<([^<>]{1,320})>, .{1,1000}, status=bounced \((.*)\)$")
_ID = re.compile(r"[0-9A-Za-z]{5,40}\Z")
_HOLD = "hold"
_HOP = re.compile(
    r"(?:delivery temporarily suspended: )?[A-Za-z, ]{0,80}?(?<![A-Za-z])"
    r"(?:host|connect to|conversation with|connection with|greeting from) ([A-Za-z0-9_.-]{1,255})\[([0-9A-Fa-f.:]{2,45})\](?::(\d{1,5}))?"
)
"""The next hop at the beginning, in Postfix's own words. Those of a server, or of the command of a user, follow a colon."""
_LOCAL_TABLES = ("hash:", "btree:", "lmdb:", "cdb:", "texthash:", "regexp:", "pcre:")
"""Tables that are asked for a next hop: files on this host."""
_NEXT_HOP = re.compile(r"\[([^\[\]]+)\](?::(\d{1,5}))?\Z")


class PostfixQueue:
    """The queues of all instances (_host.waiting.Queue): the first one, and those of multi_instance_directories."""

    def __init__(self, run: Runner, layout: Layout = DEBIAN) -> None:
        """Prepare only."""
        self._run = with_programs(run, layout)
        self._layout = layout
        self._first = layout.config_dir
        self._directories: dict[str, str] = {"": self._first}

    def waiting(self) -> Sequence[Waiting]:
        """Return every message that waits, an entry for each recipient. Raises EngineError if a queue cannot be read."""
        listed = _values(self._run, self._first, "multi_instance_directories").get("multi_instance_directories", "")
        others = listed.replace(",", " ").split()[:_MOST_INSTANCES]
        self._directories = {"": self._first, **{Path(one).name: one for one in others}}
        return [
            message for place, directory in self._directories.items() for message in self._of_instance(directory, place)
        ]

    def _of_instance(self, directory: str, place: str) -> list[Waiting]:
        names = ("queue_directory", "relayhost", "transport_maps")
        values = _values(self._run, directory, *names)
        tries = _next_tries(values.get("queue_directory", ""))
        routes = _Routes(self._run, directory, values)
        found = []
        for one in waiting(self._run, directory, place):
            hop, address, port = _hop_in(one.reason)
            if one.reason and not port:
                configured = routes.of(domain_of(one.recipient))
                hop, port = hop or configured[0], configured[1] if hop in ("", configured[0]) else 25
            found.append(
                replace(
                    one,
                    next_hop=hop,
                    next_hop_address=address,
                    next_hop_port=port or 25,
                    next_try=tries.get(one.queue_id) if one.queue == "deferred" else None,
                )
            )
        return found

    def returned(self, message_ids: Sequence[str]) -> Sequence[Returned]:
        """Return which of these messages were returned to their senders, as far as the recent log tells it."""
        lines = recent_log(self._run, self._log())
        wanted = set(message_ids)
        ids = {match[1]: match[2] for line in lines if (match := _MESSAGE_ID.search(line)) and match[2] in wanted}
        found = (match for line in lines if (match := _BOUNCED.search(line)) and match[1] in ids)
        return [Returned(ids[one[1]], one[2], one[3]) for one in found]

    def _log(self) -> LogPlaces:
        """Where the instances log to."""
        settings: dict[str, dict[str, str]] = {one: {} for one in self._directories.values()}
        for directory in settings:
            with contextlib.suppress(EngineError):  # then it is where the platform's package has it
                settings[directory] = _values(self._run, directory, *LOG_PARAMETERS)
        return log_places(settings, self._layout.logs)

    def try_again(self, messages: Sequence[Waiting]) -> None:
        """Have the daemon try these messages now, and no others. Raises EngineError if it refuses."""
        for place, queue_id in dict.fromkeys((one.place, one.queue_id) for one in messages):
            if not _ID.match(queue_id) or place not in self._directories:
                raise EngineError(f"{queue_id!r} is no message of a Postfix queue that was read; run again")
            status, out, err = self._run(["postqueue", "-c", self._directories[place], "-i", queue_id])
            if status != 0:
                raise EngineError(f"postqueue -i {queue_id} failed: {(err or out).strip()}")


class _Routes:
    """Where an instance sends the mail of a domain, as far as its own files say it."""

    def __init__(self, run: Runner, directory: str, values: Mapping[str, str]) -> None:
        self._run = run
        self._directory = directory
        self._relayhost = values.get("relayhost", "")
        words = re.split(r"[\s,]+", values.get("transport_maps", ""))
        self._maps = [word for word in words if word.startswith(_LOCAL_TABLES)]
        self._known: dict[str, tuple[str, int]] = {}

    def of(self, domain: str) -> tuple[str, int]:
        """Return host and port; C(MX of) the domain without a host of its own; an empty text if it was not asked."""
        if domain not in self._known:
            if len(self._known) >= QUEUE_ROUTES or not domain or domain.startswith("-"):
                return "", 0
            self._known[domain] = self._ask(domain)
        return self._known[domain]

    def _ask(self, domain: str) -> tuple[str, int]:
        hop = ""
        for table in self._maps:
            status, out, _err = self._run(["postmap", "-c", self._directory, "-q", domain, table])
            if status == 0 and out.strip():
                hop = out.strip().partition(":")[2]
                break
        hop = hop or self._relayhost
        if match := _NEXT_HOP.match(hop):
            return match[1], int(match[2] or 25)
        return f"MX of {hop or domain}", 25


def waiting(run: Runner, config_dir: str, place: str = "") -> list[Waiting]:
    """Return every recipient of every message in the queue of an instance, also of one that does not run.

    place: the name of the instance in messages. Raises EngineError if the queue cannot be read.
    """
    status, out, err = run(["postqueue", "-c", config_dir, "-j"])
    if status != 0:
        raise EngineError(f"postqueue -c {config_dir} -j cannot read the queue: {(err or out).strip()}")
    try:
        messages = [json.loads(line, parse_int=whole_number) for line in out.split("\n") if line.strip()]
        return [one for message in messages for one in entries(message, place)]
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise EngineError(
            f"postqueue -c {config_dir} -j says what this version does not understand: {error}"
        ) from error


def entries(message: Any, place: str = "") -> Iterator[Waiting]:
    """Yield the recipients of a message as postqueue(1) shows it. Raises LookupError, TypeError, ValueError for another shape."""
    queue = str(message.get("queue_name") or "")
    size = message.get("message_size")
    for recipient in message["recipients"]:
        yield Waiting(
            str(message["queue_id"]),
            str(recipient["address"]),
            str(recipient.get("delay_reason") or ""),
            place,
            float(message["arrival_time"]),
            sender=str(message.get("sender") or ""),
            size=None if size is None else int(size),
            queue=queue,
            held=queue == _HOLD,
        )


def _values(run: Runner, directory: str, *names: str) -> dict[str, str]:
    """Return settings of an instance, expanded. Raises EngineError if postconf cannot read its files."""
    status, out, err = run(["postconf", "-c", directory, "-x", *names])
    if status != 0:
        raise EngineError(f"postconf cannot read {directory}: {(err or out).strip()}")
    pairs = (line.partition(" =") for line in out.splitlines())
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def _next_tries(queue_directory: str) -> dict[str, float]:
    """Return the time of the next try of each deferred message. Raises EngineError for a queue that is too long to list."""
    found: dict[str, float] = {}
    for root, _directories, names in os.walk(f"{queue_directory}/deferred"):
        for name in names:
            try:
                found[name] = os.lstat(f"{root}/{name}").st_mtime
            except OSError:  # delivered in the meantime
                continue
        if len(found) > QUEUE_MESSAGES:
            raise EngineError(
                f"{queue_directory} holds more than {QUEUE_MESSAGES:,} messages, too many to list; look with postqueue -p"
            )
    return found


def _hop_in(reason: str) -> tuple[str, str, Optional[int]]:
    """Return name, address and port of the next hop that a reason names; empty, and None without a port."""
    match = _HOP.match(reason)
    return (match[1], match[2], int(match[3]) if match[3] else None) if match else ("", "", None)
