# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The format of data that stays on a host between two runs. Another version of the collection may make the next run.

Each kind of such data has its own format, a number that is written into the data. The number increases by one when an older
version would misread the new data, or would remove a part that it does not know. Every version reads the older formats.
docs/on_hosts.md lists the places.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

KEY = "format"
"""The key of the number in a JSON object."""


class NewerFormatError(EngineError):
    """A newer version of the collection wrote the data."""


def format_of(data: Any, known: int, where: str) -> int:
    """Return the format of data that was read as JSON from a place on the host; 0 if the data has no number.

    known: the newest format that this version reads. where: names the place in the message. Raises NewerFormatError if
    the data has a newer format, and ValueError if the data is not an object or its format is not an integer from 0 up.
    """
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    found = data.get(KEY, 0)
    if type(found) is not int or found < 0:
        raise ValueError(f"its format {found!r} is not a number")
    if found > known:
        raise NewerFormatError(
            f"{where} was written by a newer mailfleet.starttls (format {found}; this one knows up to {known}). "
            "Update the collection on the controller, then run again; this run changed nothing"
        )
    return found
