# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Exim keeps its main log, as C(exim4 -bP) says it. Source: the Exim specification, "Where the logs are written"."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Mapping

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import (
    LogPlaces,
    syslog_file,
    with_rotated,
)

LOG_OPTIONS = ("log_file_path", "syslog_facility", "syslog_processname")
"""What C(exim4 -bP) has to be asked."""
_DATE = {"%D": "%Y%m%d", "%M": "%Y%m"}


def log_places(values: Mapping[str, str], usual: tuple[str, ...]) -> LogPlaces:
    """Return the places of the main log. usual: patterns of the platform's package, for a path that Exim has built in.

    Exim may write to files and to syslog. A file of its own has every line, so syslog counts only if there is none.
    """
    name, facility = values.get("syslog_processname", ""), values.get("syslog_facility", "") or "mail"
    journal = tuple(f"SYSLOG_IDENTIFIER={one}" for one in dict.fromkeys((name, "exim4", "exim")) if one)
    words = _items(values.get("log_file_path", ""))
    if not [one for one in words if one != "syslog"] and "syslog" in words:
        path = syslog_file(facility)
        # Without a rule that is understood, the journal has what went to syslog.
        return LogPlaces(with_rotated(path) if path else (), (path,) if path else (), journal)
    path = next((one for one in words if one not in ("", "syslog")), "")
    if not path:
        return LogPlaces(usual, tuple(one.rstrip("*") for one in usual), journal)
    if not path.startswith("/"):
        said = f"Exim logs to {path} (log_file_path), which is no absolute path and is not read; name the file"
        return LogPlaces((), (), journal, (said,))
    path = path.replace("%s", "main")
    if "%" not in path:
        return LogPlaces(with_rotated(path), (path,), journal)
    today = path
    for sign, date in _DATE.items():
        today = today.replace(sign, time.strftime(date))
    return LogPlaces((re.sub(r"%[DM]", "[0-9]*", glob.escape(path)),), (today,), journal)


def _items(text: str) -> list[str]:
    """Return the items of a list of Exim, whose separator may stand at its beginning."""
    text = text.strip()
    separator = ":"
    if len(text) > 1 and text[0] == "<" and not text[1].isalnum():
        separator, text = text[1], text[2:]
    return [one.strip() for one in text.split(separator)]
