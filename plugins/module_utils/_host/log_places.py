# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a daemon's log is: files that it writes itself, files that rsyslog writes for it, the journal. Its settings are the product's.

Sources: rsyslog.conf(5), syslog(3), logrotate(8), systemd.journal-fields(7).
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RSYSLOG = ("/etc/rsyslog.conf", "/etc/rsyslog.d/*.conf")
_MOST_BYTES = 1 << 18
_MOST_FILES = 64
_NAMES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
FACILITIES = {**{name: at for at, name in enumerate(_NAMES)}, **{f"local{at}": 16 + at for at in range(8)}}
"""Facility -> its number."""
# Deliveries are logged with the priority info: a rule for warnings does not have them.
_WIDTH = {"*": 3, "debug": 2, "info": 1}
_RULE = re.compile(
    r"([a-z0-9*,]{1,200}\.[a-z0-9*!=]{1,16}(?:;[a-z0-9*,]{1,200}\.[a-z0-9*!=]{1,16}){0,50})\s+"
    r"(?:-?(/[^\s;]{1,1000})|action\((.{1,1000})\))",
    re.IGNORECASE,
)
_TO_FILE = re.compile(r'(?:^|\s)file="(/[^"]{1,1000})"', re.IGNORECASE)


@dataclass(frozen=True)
class LogPlaces:
    """The places of a daemon's log. A line stands in one of them only.

    patterns: of the files, with the rotated ones. files: the present ones. journal: the arguments of journalctl that select the daemon's
    entries. unread: sentences on logs that cannot be read.
    """

    patterns: tuple[str, ...]
    files: tuple[str, ...]
    journal: tuple[str, ...]
    unread: tuple[str, ...] = ()


def with_rotated(path: str) -> tuple[str, ...]:
    """Return the patterns of a log file and of the rotated ones: a number or a date behind the name. Not mail.log for /var/log/mail."""
    name = glob.escape(path)
    return name, f"{name}.[0-9]*", f"{name}-[0-9]*"


def syslog_file(facility: str) -> str:
    """Return the file in which rsyslog keeps a facility; empty if it keeps it in none, is not there, or says it in a way that is not read.

    A line may be kept in several files. The one for this facility alone is taken, and with all priorities if there is one.
    """
    best, found = (0, 0), ""
    for selector, path in _rules():
        width = _width(selector, facility)
        if width > best:
            best, found = width, path
    return found


def journal_match(facility: str) -> str:
    """Return what selects a facility in the journal. An unknown one is mail."""
    return f"SYSLOG_FACILITY={FACILITIES.get(facility, FACILITIES['mail'])}"


def _rules() -> list[tuple[str, str]]:
    """Return selector and path of each rule that writes a file."""
    found = []
    for pattern in RSYSLOG:
        for path in sorted(glob.glob(pattern))[:_MOST_FILES]:  # noqa: PTH207  (without pathlib: this runs on every host)
            for line in _text(path).splitlines():
                match = _RULE.match(line.strip())
                inside = _TO_FILE.search(match[3]) if match and match[3] else None
                if match and (target := match[2] or (inside[1] if inside else "")):
                    found.append((match[1].lower(), target))
    return found


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _width(selector: str, facility: str) -> tuple[int, int]:
    """Return how much of a facility a rule takes: whether it names it, and its priorities. Nothing is (0, 0)."""
    found = (0, 0)
    for part in selector.split(";"):
        names, _dot, priority = part.rpartition(".")
        listed = names.split(",")
        if facility in listed or "*" in listed:
            width = _WIDTH.get(priority, 0)
            found = (1 + (facility in listed), width) if width else (0, 0)
    return found


def joined(places: Sequence[LogPlaces]) -> LogPlaces:
    """Return the places of several daemons as those of one: each once."""

    def once(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word for one in places for word in getattr(one, name)))

    return LogPlaces(once("patterns"), once("files"), once("journal"), once("unread"))
