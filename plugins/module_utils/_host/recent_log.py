# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a daemon's log: a file, or the journal of the mail facility if there is no such file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_files import end_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import RECENT_LOG_BYTES, RECENT_LOG_LINES

_MAX_WORDS = 300


def recent_log(run: Runner, path: str) -> list[str]:
    """Return the last lines of a log. path: of the file, absolute. Nothing if neither can be read."""
    with contextlib.suppress(EngineError, OSError):
        if text := end_of(path, RECENT_LOG_BYTES):
            return text.split("\n")
    status, out, _err = run(
        ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={RECENT_LOG_LINES}", "--facility=mail"]
    )
    return out.split("\n") if status == 0 else []


def last_words(run: Runner, logs: Sequence[str], pattern: re.Pattern[str]) -> str:
    """Return the first group of the last line that a pattern finds at the end of a log; empty if there is none.

    logs: patterns of the log's files, as a layout has them. Peers write a part of each line, so the pattern has to be of the daemon's.
    """
    for line in reversed(recent_log(run, logs[0].rstrip("*")) if logs else []):
        if found := pattern.search(line):
            return found[1].strip()[:_MAX_WORDS]
    return ""
