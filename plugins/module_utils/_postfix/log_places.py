# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the instances of Postfix log to, as postconf(1) says it: a file of their own (postlogd), or syslog.

Sources: postconf(5), MAILLOG_README.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import (
    LogPlaces,
    joined,
    journal_match,
    syslog_file,
    with_rotated,
)

LOG_PARAMETERS = ("maillog_file", "syslog_facility")
"""What postconf has to be asked, with $references expanded."""


def log_places(instances: Mapping[str, Mapping[str, str]], usual: tuple[str, ...], since: float = 0.0) -> LogPlaces:
    """Return the places of the logs of all instances: directory -> values of LOG_PARAMETERS.

    usual: patterns of the platform's package, for a syslog whose files are not known. since: an instance whose configuration changed after
    that (seconds since 1970) may have logged to syslog before; 0 if only the present place matters.
    """
    instances = instances or {"": {}}  # no Postfix answers: where the package has it
    found = [_of(directory, values, usual, since) for directory, values in instances.items()]
    places = joined(found)
    hidden = tuple(
        f"Postfix in {directory} logs to the journal only, which is not read beside the files; read it with journal: 'true'"
        for directory, one in zip(instances, found)
        if not one.unread and not _exist(one) and _exist(places)
    )
    return LogPlaces(places.patterns, places.files, places.journal, (*places.unread, *hidden))


def _of(directory: str, values: Mapping[str, str], usual: tuple[str, ...], since: float) -> LogPlaces:
    file, facility = values.get("maillog_file", ""), values.get("syslog_facility", "mail") or "mail"
    path = syslog_file(facility)
    patterns = with_rotated(path) if path else usual if facility == "mail" else ()
    syslog = LogPlaces(
        patterns, (path,) if path else tuple(one.rstrip("*") for one in patterns), (journal_match(facility),)
    )
    if not file:
        return syslog
    if not file.startswith("/") or file.startswith("/dev/"):
        said = f"Postfix in {directory} logs to {file} (maillog_file), which cannot be read afterwards; name the file in which you keep it"
        return LogPlaces((), (), syslog.journal, (said,))
    own = LogPlaces(with_rotated(file), (file,), ())
    return (
        joined([own, LogPlaces(syslog.patterns, (), syslog.journal)]) if since and _changed(directory) > since else own
    )


def _changed(directory: str) -> float:
    try:
        return os.stat(f"{directory}/main.cf").st_mtime  # noqa: PTH116
    except OSError:
        return 0.0


def _exist(places: LogPlaces) -> bool:
    return any(map(os.path.exists, places.files))
