# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outbound queue of Haraka: one file for each message and domain. Source: outbound/qfile.js, hmail.js of Haraka 3.3.4."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import PathTrust, entered, place_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import names_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_FILE_HEAD_BYTES, whole_number

_NAME = re.compile(r"(\d+)_\d+_(\d+)_\d+_\w+_\d+_.*", re.DOTALL)
"""When the message arrived, in milliseconds, and how many attempts have failed."""


def waiting(directory: str, domains: Collection[str], trust: PathTrust) -> list[Waiting]:
    """Return the messages for recipients in these domains. trust: whose directory it may be.

    Haraka keeps no reason beside a message, so the number of attempts stands for it. Raises EngineError if a file is not as this
    version knows it, and OSError.
    """
    try:
        with entered(directory, trust) as fd:
            names = sorted(one.name for one in Path(f"/proc/self/fd/{fd}").iterdir())
    except FileNotFoundError:
        return []
    wanted = names_of(domains)
    found: list[Waiting] = []
    for name in names:
        match = _NAME.fullmatch(name)
        envelope = _envelope(f"{directory}/{name}", trust) if match else None
        if match and envelope and str(envelope.get("domain")).lower() in wanted:
            tries = int(match[2])
            reason = f"failed attempts: {tries}; the log of Haraka has the reason" if tries else ""
            recipients: list[Any] = list(envelope.get("rcpt_to") or [{}])
            found += [Waiting(name, _address(one), reason, arrived=int(match[1]) / 1000) for one in recipients]
    return found


def _envelope(path: str, trust: PathTrust) -> Optional[dict[str, Any]]:
    """Return the envelope at the beginning of a queue file; None if the message has gone in the meantime."""
    try:
        with place_of(path, trust) as place, os.fdopen(place.open(), "rb") as file:
            size = int.from_bytes(file.read(4), "big")
            if size > QUEUE_FILE_HEAD_BYTES:
                raise ValueError(f"an envelope of {size} bytes")
            envelope = json.loads(file.read(size), parse_int=whole_number)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EngineError(f"the queue file {path} of Haraka cannot be read: {error}") from error
    if not isinstance(envelope, dict):
        raise EngineError(f"the queue file {path} of Haraka cannot be read: its envelope is no object")
    return envelope


def _address(recipient: Any) -> str:
    given = recipient if isinstance(recipient, dict) else {}
    return str(given.get("original") or f"{given.get('user', '')}@{given.get('host', '')}").strip("<>")
