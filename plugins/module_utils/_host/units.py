# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd unit of a daemon: which one it is, and how to start it again if the daemon has ended by itself.

Sources: systemd(1), systemctl(1), cgroups(7). Somebody who stops a unit leaves it inactive. A unit whose daemon has ended by
itself, or does not start, is failed, or still counts as active.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, NotRunningError

SETTLE_SECONDS = 30.0
"""How long a unit may take to become what it is going to be."""

_SERVICE = re.compile(r"/([A-Za-z0-9:_.@\\-]+\.service)(?:/|$)")
_ON_THE_WAY = ("activating", "deactivating", "reloading")
UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]+\.service\Z")
PLACES = ("/etc/systemd/system", "/run/systemd/system")
"""Where systemctl masks units, for good and until the next boot."""


def unit_of(pid: Optional[int], proc: str = "/proc") -> str:
    """Return the service that a process belongs to; empty if it belongs to none, or if that cannot be told."""
    try:
        lines = Path(proc, str(pid), "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = [match for line in lines if (match := _SERVICE.findall(line))]
    return str(found[0][-1]) if found else ""


def not_running(title: str, units: Sequence[str], more: str = "") -> NotRunningError:
    """Return the error for a daemon that does not run. units: its units. title: the daemon in messages. more: how that was seen.

    A unit that is masked cannot be started: a link to nothing, or an empty file, is in its place.
    """
    for unit in units:
        for place in PLACES:
            try:
                is_masked = os.stat(f"{place}/{unit}").st_size == 0  # noqa: PTH116
            except OSError:
                continue
            if is_masked:
                todo = f"systemctl unmask {unit}; systemctl start {unit}"
                return NotRunningError(
                    f"{title} is not running: the unit {unit} is masked; allow it and start it: {todo}"
                )
    return NotRunningError(f"{title} is not running{more}; start it first, because a change is proved by its own port")


def start_again(run: Runner, unit: str, title: str) -> None:
    """Start the unit of a daemon that does not run, unless somebody has stopped it. title: the daemon in messages.

    Raises NotRunningError if somebody has stopped it, or if that cannot be told, and EngineError if it does not start.
    """
    advice = "start it, then run again"
    if not UNIT.match(unit):
        raise NotRunningError(f"{title} is not running, and no unit of systemd is known that started it; {advice}")
    state = _settled(run, unit)
    if state.get("ActiveState") == "inactive":
        raise NotRunningError(f"{title} is not running: somebody has stopped {unit}; {advice}")
    if state.get("LoadState") != "loaded" or state.get("ActiveState") not in ("active", "failed"):
        raise NotRunningError(f"{title} is not running, and systemd does not know {unit} any more; {advice}")
    run(["systemctl", "reset-failed", unit])
    # A unit that counts as active although its daemon has ended is not started by "start".
    verb = "restart" if state["ActiveState"] == "active" else "start"
    status, out, err = run(["systemctl", verb, unit])
    if status != 0:
        raise EngineError(
            f"{title} has ended and does not start again: systemctl {verb} {unit} failed: {(err or out).strip()}; see its log"
        )


def _settled(run: Runner, unit: str) -> dict[str, str]:
    """Return what systemd says of a unit, as soon as it is not on its way to another state. Raises NotRunningError without systemd."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            status, out, _err = run(["systemctl", "show", "--property=LoadState,ActiveState,SubState", unit])
        except OSError:
            status, out = 127, ""
        if status != 0:
            raise NotRunningError(
                f"{unit} is not running, and systemd cannot be asked about it; start it, then run again"
            )
        state = dict(line.partition("=")[::2] for line in out.splitlines())
        if state.get("ActiveState") not in _ON_THE_WAY or time.monotonic() >= deadline:
            return state
        time.sleep(0.1)
