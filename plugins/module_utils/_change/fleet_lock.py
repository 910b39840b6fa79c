# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of the fleet: a note on one host that says which run changes the fleet. Only one run at a time may.

The locks of a host (see lock) last as long as a change on it. This one lasts from the first change of a run to the end of its tests.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.formats import KEY, format_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE, daemon_locked, leave_store
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import MAX_FLEET_LOCK_BYTES

FLEET_LOCK_FORMAT = 1
"""The format of the note, see formats."""

HOLDER_WORDS = ("user", "controller", "playbook", "run", "process")
"""What a note says of the run that holds the lock, beside the time."""

UNREADABLE_LOCK = "unreadable"
"""The key that a note has instead, with the reason, if it cannot be read. Such a lock counts as held."""

_NAME = "fleet"
_MAX_WORD = 120
_SECONDS_TO_LEAVE = 5.0


@dataclass(frozen=True)
class Taken:
    """What became of a wish for the lock. former: the note that was there, of another run; empty if there was none."""

    held: bool
    changed: bool
    former: Mapping[str, Any]


def path_of(store: str = STORE) -> str:
    """Return the path of the note."""
    return f"{store}/{_NAME}.run"


def read_lock(now: float, store: str = STORE) -> dict[str, Any]:
    """Return the note that is there: HOLDER_WORDS, C(since) and C(age) in seconds; empty if nobody holds the lock. Never raises.

    What it says was written by somebody else: each text is one printable line. Who may not look into the store, because the host gives no
    privilege, is not told of a lock: the plan says what is missing, and nothing can be changed.
    """
    try:
        image = FileImage.read(path_of(store), max_bytes=MAX_FLEET_LOCK_BYTES)
        if image.content is None:
            return {}
        return _understood(image.content, now)
    except PermissionError:
        return {}
    except (EngineError, OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return {UNREADABLE_LOCK: _word(reason), "age": _age_of_file(now, store)}


def take_lock(
    holder: Mapping[str, str],
    now: float,
    hours: float,
    break_it: bool = False,
    over: str = "",
    check_mode: bool = False,
    store: str = STORE,
) -> Taken:
    """Take the lock for a run, unless another one has it. Raises EngineError.

    holder: HOLDER_WORDS of the run. hours: after that time a lock does not count any more. break_it: take it in any case. over: the run
    of a lock that does not count any more, because its process has ended.
    """
    if check_mode:
        former = read_lock(now, store)
        return Taken(False, not former, former)
    with daemon_locked(_NAME, store):
        former = read_lock(now, store)
        if former.get("run") == holder["run"] and UNREADABLE_LOCK not in former:
            return Taken(True, False, {})
        counts = former and former["age"] < hours * 3600 and not (over and former.get("run") == over)
        if counts and not break_it:
            return Taken(False, False, former)
        note = {KEY: FLEET_LOCK_FORMAT, **{name: holder[name] for name in HOLDER_WORDS}, "since": now}
        FileImage(path_of(store), json.dumps(note).encode(), 0o600).write()
    return Taken(True, True, former)


def release_lock(run: str, now: float, check_mode: bool = False, store: str = STORE) -> Taken:
    """Release the lock if this run holds it. Another run that has broken it keeps it. Raises EngineError."""
    found = read_lock(now, store)
    mine = found.get("run") == run and UNREADABLE_LOCK not in found
    if not mine or check_mode:
        return Taken(mine, mine, found if found and not mine else {})
    with daemon_locked(_NAME, store):
        found = read_lock(now, store)
        if found.get("run") != run:
            return Taken(False, False, found)
        FileImage(path_of(store), None).write()
    with suppress(EngineError, OSError):  # an empty file of a lock does no harm
        leave_store(_NAME, store, _SECONDS_TO_LEAVE)
    return Taken(False, True, {})


def _understood(content: bytes, now: float) -> dict[str, Any]:
    """Return what a note says. Raises ValueError and EngineError."""
    data = json.loads(content.decode("utf-8"))
    format_of(data, FLEET_LOCK_FORMAT, "the lock of the fleet")
    since = data.get("since")
    if isinstance(since, bool) or not isinstance(since, (int, float)) or not math.isfinite(since):
        raise ValueError("it has no time")
    # A clock that was put back makes a lock young, never old.
    return {
        **{name: _word(data.get(name)) for name in HOLDER_WORDS},
        "since": float(since),
        "age": max(0.0, now - since),
    }


def _word(value: Any) -> str:
    """Return a text as one printable line without what ends a message or begins a template."""
    text = value if isinstance(value, str) else ""
    return "".join(one if one.isprintable() else "?" for one in text)[:_MAX_WORD]


def _age_of_file(now: float, store: str) -> float:
    with suppress(OSError):
        return max(0.0, now - os.lstat(path_of(store)).st_mtime)
    return 0.0


def with_lock(result: dict[str, Any], store: str = STORE) -> dict[str, Any]:
    """Return the result of a read, with C(fleet_lock) if a run holds the lock on this host. Never raises."""
    found = read_lock(time.time(), store)
    return {**result, "fleet_lock": found} if found else result
