# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says what a renewal did where monitoring looks: the system's log, and a file for the collector of node-exporter."""

from __future__ import annotations

import syslog
from collections.abc import Sequence
from datetime import datetime

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.rules import printable_text
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.renewal import DONE, Renewed
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.renewal_files import textfile_trust
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

PROGRAM_NAME = "mailfleet-starttls"
_PREFIX = "mailfleet_starttls"
_LINE = 900  # longer lines are cut by some log daemons


def line_of(done: Renewed) -> str:
    """Return one line on one certificate, in which a stranger's text cannot begin another one."""
    return printable_text(f"{done.name}: {done.state}: {done.message}", _LINE)


def log(done: Sequence[Renewed]) -> None:
    """Write one line to the system's log for each certificate that was changed or refused."""
    _log([(syslog.LOG_NOTICE if one.status == DONE else syslog.LOG_ERR, line_of(one)) for one in done if one.is_change])


def log_fault(said: str) -> None:
    """Write one line to the system's log on a renewal that did not begin, or did not end."""
    _log([(syslog.LOG_ERR, printable_text(said, _LINE))])


def _log(lines: Sequence[tuple[int, str]]) -> None:
    syslog.openlog(PROGRAM_NAME, syslog.LOG_PID, syslog.LOG_MAIL)
    for level, line in lines:
        syslog.syslog(level, line)
    syslog.closelog()


def write_textfile(path: str, done: Sequence[Renewed], now: datetime) -> str:
    """Write the file for the collector. Return why that was not possible; empty if it was."""
    lines = [
        f"# HELP {_PREFIX}_renewal_status Exit status of the last renewal: 0 good, 1 refused, 2 not served, 3 could not look.",
        f"# TYPE {_PREFIX}_renewal_status gauge",
        *(f'{_PREFIX}_renewal_status{{name="{one.name}"}} {one.status}' for one in done),
        f"# HELP {_PREFIX}_renewal_time_seconds When the last renewal ended.",
        f"# TYPE {_PREFIX}_renewal_time_seconds gauge",
        f"{_PREFIX}_renewal_time_seconds {int(now.timestamp())}",
        f"# HELP {_PREFIX}_certificate_not_after_seconds When the certificate that has to be served ends.",
        f"# TYPE {_PREFIX}_certificate_not_after_seconds gauge",
    ]
    for one in done:
        for leaf in one.leaves:
            labels = f'name="{one.name}",algorithm="{leaf.key_type}"'
            lines.append(f"{_PREFIX}_certificate_not_after_seconds{{{labels}}} {int(leaf.not_after.timestamp())}")
    try:
        FileImage(path, ("\n".join(lines) + "\n").encode("utf-8"), 0o644, trust=textfile_trust(path)).write()
    except OSError as error:
        return f"{path} cannot be written: {error.strerror or error}"
    except EngineError as error:
        return str(error)
    return ""
