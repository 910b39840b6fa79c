# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan has to know of a host beside its mail server: free space, and the digests of the files that it depends on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

NEEDED_BYTES = 1 << 20
"""What a change may write on one file system, with its journal and temporary files: 1 MiB."""

NEEDED_FILES = 32
"""How many files a change may create on one file system."""


def disk_space(paths: Iterable[str]) -> list[dict[str, Any]]:
    """Return C(path), C(free_bytes) and C(free_inodes), one entry a file system, with the first path that lies on it.

    A path that does not exist lies where its nearest existing parent does. Both counts leave out what is reserved for root, so that
    mail still arrives after a change. free_inodes is None on a file system that does not count files. A path that cannot be looked
    at is left out.
    """
    found: dict[int, dict[str, Any]] = {}
    for path in paths:
        try:
            place = _existing(os.path.realpath(path))
            device = os.stat(place).st_dev  # noqa: PTH116  (without pathlib: this runs on every host)
            space = os.statvfs(place)
        except OSError:
            continue
        inodes = space.f_favail if space.f_files else None
        found.setdefault(device, {"path": path, "free_bytes": space.f_bavail * space.f_frsize, "free_inodes": inodes})
    return list(found.values())


def _existing(path: str) -> str:
    while not os.path.exists(path):  # noqa: PTH110
        path = os.path.dirname(path)  # noqa: PTH120
    return path


def too_full(
    entries: Sequence[Mapping[str, Any]], need_bytes: int = NEEDED_BYTES, need_files: int = NEEDED_FILES
) -> str:
    """Return what is too full for a change, with its paths; empty if nothing is. entries: what disk_space() returned."""
    faults = []
    for one in entries:
        if one["free_bytes"] < need_bytes:
            faults.append(
                f"{one['path']} has {one['free_bytes'] >> 10} KiB free, and a change may need {need_bytes >> 10} KiB"
            )
        elif one["free_inodes"] is not None and one["free_inodes"] < need_files:
            faults.append(
                f"{one['path']} has room for {one['free_inodes']} files more, and a change may need {need_files}"
            )
    return f"the file system of {'; that of '.join(faults)}; free some space, then run again" if faults else ""


def digests(paths: Iterable[str]) -> dict[str, str]:
    """Return path -> SHA-256 of the file's content in hexadecimal digits, or C(absent). Links are followed.

    Raises OSError if a file cannot be read, or is not a regular file, and EngineError if somebody else could have led the path there.
    """
    return {path: FileImage.read(path, trust=LOOK).seen for path in paths}


def known_digests(paths: Iterable[str]) -> dict[str, str]:
    """Return what digests() does, without the files that cannot be read. After a change nothing may fail any more."""
    found: dict[str, str] = {}
    for path in paths:
        with contextlib.suppress(OSError, EngineError):
            found.update(digests([path]))
    return found


def differing(expected: Mapping[str, str]) -> list[str]:
    """Return the paths whose digest is another one now. expected: what digests() returned before. Raises as it does."""
    return [path for path, digest in digests(expected).items() if digest != expected[path]]


def refuse_changed(expected: Mapping[str, str]) -> None:
    """Raise EngineError if one of the files no longer has the digest that a plan saw. expected: what digests() returned."""
    changed = differing(expected)
    if changed:
        raise EngineError(
            f"{', '.join(changed)} changed since the plan, so the plan is no longer true; nothing was changed; run again"
        )
