# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log files, which are in directories of the daemons' users. Such a user may put links, pipes and devices there."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, place_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


def status_of(path: str) -> Optional[os.stat_result]:
    """Return the status of a log file, or None if it is not a regular file. Nothing is opened.

    Root's links are followed. Raises EngineError for a link of somebody else, and OSError.
    """
    with place_of(path, LOOK) as place:
        status = place.status()
    return status if status is not None and stat.S_ISREG(status.st_mode) else None


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a log file. Raises EngineError if it is not a regular file, or a link of somebody else leads to it, and OSError."""
    with place_of(path, LOOK) as place:
        fd = place.open()
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise EngineError(f"{path} is not a file")
        yield file


def end_of(path: str, most: int) -> str:
    """Return the last lines of a log file, at most so many bytes; a line that is cut is left out. Raises EngineError and OSError."""
    with opened(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        text = file.read(most).decode("utf-8", "replace")
    return text.partition("\n")[2] if size > most else text
