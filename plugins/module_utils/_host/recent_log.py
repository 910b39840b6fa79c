# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a daemon's log: its files, or the journal if there are none."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_files import end_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import RECENT_LOG_BYTES, RECENT_LOG_LINES

MAIL = "SYSLOG_FACILITY=2"
"""The mail facility."""


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
