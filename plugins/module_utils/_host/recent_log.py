# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a daemon's log: its files, or the journal if there are none."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_files import end_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import RECENT_LOG_BYTES, RECENT_LOG_LINES

MAIL = "SYSLOG_FACILITY=2"
"""The mail facility."""
_MAX_WORDS = 300


def recent_log(run: Runner, *paths: str, journal: Sequence[str] = (MAIL,)) -> list[str]:
    """Return the last lines of a log. paths: of the files, absolute. Nothing if neither they nor the journal can be read.

    journal: what selects the daemon's entries there; empty if it has none.
    """
    lines: list[str] = []
    for path in paths:
        with contextlib.suppress(EngineError, OSError):
            if text := end_of(path, RECENT_LOG_BYTES):
                lines += text.split("\n")
    if lines or not journal:
        return lines
    status, out, _err = run(
        ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={RECENT_LOG_LINES}", *journal]
    )
    return out.split("\n") if status == 0 else []


def last_words(run: Runner, places: LogPlaces, pattern: re.Pattern[str]) -> str:
    """Return the first group of the last line that a pattern finds at the end of a log; empty if there is none.

    places: where the daemon logs to. Peers write a part of each line, so the pattern has to be of the daemon's.
    """
    for line in reversed(recent_log(run, *places.files, journal=places.journal)):
        if found := pattern.search(line):
            return found[1].strip()[:_MAX_WORDS]
    return ""
