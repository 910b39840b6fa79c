# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a daemon's log: its files, or the journal if there are none."""

from __future__ import annotations

import contextlib
import re

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_files import end_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import RECENT_LOG_BYTES, RECENT_LOG_LINES

_MAX_WORDS = 300


def recent_log(run: Runner, places: LogPlaces) -> list[str]:
    """Return the last lines of a log. places: where the daemon logs to. Nothing if neither files nor journal can be read."""
    lines: list[str] = []
    for path in places.files:
        with contextlib.suppress(EngineError, OSError):
            if text := end_of(path, RECENT_LOG_BYTES):
                lines += text.split("\n")
    if lines or not places.journal:
        return lines
    status, out, _err = run(
        ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={RECENT_LOG_LINES}", *places.journal]
    )
    return out.split("\n") if status == 0 else []


def last_words(run: Runner, places: LogPlaces, pattern: re.Pattern[str]) -> str:
    """Return the first group of the last line that a pattern finds at the end of a log; empty if there is none.

    places: where the daemon logs to. Peers write a part of each line, so the pattern has to be of the daemon's.
    """
    for line in reversed(recent_log(run, places)):
        if found := pattern.search(line):
            return found[1].strip()[:_MAX_WORDS]
    return ""
