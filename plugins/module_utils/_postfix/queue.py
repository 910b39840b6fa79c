# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue of a Postfix instance, read with postqueue(1). Needs Postfix 3.1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import whole_number


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
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise EngineError(
            f"postqueue -c {config_dir} -j says what this version does not understand: {error}"
        ) from error


def entries(message: Any, place: str = "") -> Iterator[Waiting]:
    """Yield the recipients of a message as postqueue(1) shows it. Raises LookupError, TypeError, ValueError for another shape."""
    for recipient in message["recipients"]:
        yield Waiting(
            str(message["queue_id"]),
            str(recipient["address"]),
            str(recipient.get("delay_reason") or ""),
            place,
            float(message["arrival_time"]),
        )
