# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many sessions an hour a mail server has, from the end of its log file. An estimate for a plan; tls_activity_info counts exactly."""

from __future__ import annotations

import calendar
import contextlib
import glob
import re
import time
from collections.abc import Iterable
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_files import end_of, status_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

TAIL_BYTES = 1 << 18
"""The end of the log that is read: 256 KiB, some 2,000 lines."""
SHORTEST = 60.0
"""Seconds that the lines have to cover. A shorter time says nothing about an hour."""

_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?")
_BSD = re.compile(r"([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) ")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def sessions_an_hour(patterns: Iterable[str], session: re.Pattern[str], now: Optional[float] = None) -> Optional[float]:
    """Return the sessions an hour on average, up to now; None if no log file tells it.

    patterns: of the log files; the newest uncompressed one is read. session: matches a line that stands for a session. now: seconds
    since 1970.
    """
    end = time.time() if now is None else now
    try:
        lines = end_of(_newest(patterns), TAIL_BYTES).split("\n")
    except (OSError, EngineError, ValueError):  # max() of no file is a ValueError
        return None
    begin = next((at for line in lines if (at := _time_of(line, end)) is not None), None)
    if begin is None or end - begin < SHORTEST:
        return None
    return round(sum(bool(session.search(line)) for line in lines) * 3600 / (end - begin), 1)


def _newest(patterns: Iterable[str]) -> str:
    """Return the path of the newest uncompressed file. Raises ValueError if there is none."""
    found = []
    for one in patterns:
        for path in glob.glob(one):  # noqa: PTH207  (without pathlib: this runs on every host)
            if not path.endswith((".gz", ".xz", ".bz2", ".zst")):
                with contextlib.suppress(OSError, EngineError):
                    if status := status_of(path):
                        found.append((status.st_mtime, path))
    return max(found)[1]


def _time_of(line: str, now: float) -> Optional[float]:
    """Return when a line was written, in seconds since 1970; None if its beginning is not understood."""
    match = _ISO.match(line)
    try:
        if match:
            year, month, day, hour, minute, second = map(int, match.groups()[:6])
            zone = match[7]
            if zone is None:
                return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
            digits = zone.replace(":", "")
            offset = 0 if zone == "Z" else int(digits[:3]) * 3600 + int(digits[0] + digits[3:]) * 60
            return float(calendar.timegm((year, month, day, hour, minute, second)) - offset)
        match = _BSD.match(line)
        if not match:
            return None
        month, day = _MONTHS.index(match[1]) + 1, int(match[2])
        hour, minute, second = int(match[3]), int(match[4]), int(match[5])
        year = time.localtime(now).tm_year
        at = time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
        return at if at <= now + 86400 else time.mktime((year - 1, month, day, hour, minute, second, 0, 0, -1))
    except (ValueError, OverflowError):
        return None
