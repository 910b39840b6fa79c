# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room for a change and for its way back, kept before the first file changes.

Each new version of a file is written beside the file, and the former version gets a second name there. From then on the
change and its way back are renames and removals, which need no room. So a full disk is found while nothing has changed.
"""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import TEMPORARY_PREFIX
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

# Postfix waits until a changed main.cf is more than a second old, in case it is still being written. A renamed file is
# complete at once, so it gets an older time of modification, and Postfix does not wait.
SETTLED_SECONDS = 3.0

_ADVICE = {
    errno.ENOSPC: "free some space on its file system, then run again",
    errno.EDQUOT: "free some space on its file system, then run again",
    errno.EROFS: "make its file system writable, then run again",
}


@dataclass(frozen=True)
class Slot:
    """The room of one file.

    former: the file before the change. wanted: the file after it; None if only the daemon's own tools write it.
    new, old: the names in its directory under which the new and the former version wait; empty if there is none.
    held: whether the former version waits there already, from an earlier change of the same call.
    copied: whether the former version is to be written anew, because a second name of the file would not keep it.
    """

    former: FileImage
    wanted: Optional[FileImage] = None
    new: str = ""
    old: str = ""
    held: bool = False
    copied: bool = False

    def keep(self) -> None:
        """Keep the former version, and write the new one beside it. Raises OSError and UntrustedPathError."""
        if self.old and not self.held:
            if self.copied:
                self.former.stage(self.old)
            else:
                self.former.keep(self.old)
        if self.new and self.wanted:
            self.wanted.stage(self.new, mtime=time.time() - SETTLED_SECONDS)

    def put(self) -> None:
        """Put the new version in place. Raises OSError and EngineError."""
        if self.wanted and self.new:
            if not self.wanted.take(self.new):
                raise EngineError(
                    f"{self.wanted.path}: its new version, which was written beside it, is not there any more, so another "
                    "program or person writes there"
                )
        elif self.wanted and self.wanted.content is None:
            self.wanted.write()

    def put_back(self) -> None:
        """Put the former version back in place, if it is not there. Raises OSError and UntrustedPathError."""
        if FileImage.read(self.former.path, trust=self.former.trust) == self.former:
            return
        if not (self.old and self.former.content is not None and self.former.take(self.old)):
            self.former.write(mtime=time.time() - SETTLED_SECONDS)

    def give_up_new(self) -> None:
        """Remove the new version if it still waits beside the file. Nothing is raised."""
        if self.new:
            self.former.drop(self.new)

    def give_up(self) -> None:
        """Remove what still waits beside the file. Nothing is raised."""
        for name in filter(None, (self.new, self.old)):
            self.former.drop(name)


def slots_of(
    pairs: Sequence[tuple[FileImage, FileImage]], kept: Sequence[FileImage], held: Mapping[str, str]
) -> list[Slot]:
    """Return the room that a change needs. pairs: each file before and after. kept: files that the daemon's own tools write.

    held: path -> name of a former version that an earlier change of the same call has kept. Nothing is written.
    """
    token = secrets.token_hex(8)
    found = []
    every: list[tuple[FileImage, Optional[FileImage]]] = [*pairs, *((one, None) for one in kept)]
    for number, (former, wanted) in enumerate(every):
        name = f"{TEMPORARY_PREFIX}{token}-{number}"
        now = FileImage.read(former.path, trust=former.trust)
        old = held.get(former.path) or (f"{name}.old" if former.content is not None else "")
        new = f"{name}.new" if wanted and wanted.content is not None and now != wanted else ""
        # The daemon's own tools may write into a file. An earlier change of the call may have replaced it already.
        copied = wanted is None or now != former
        found.append(Slot(former, wanted, new, old, former.path in held, copied))
    return found


def nothing_changed(error: Exception) -> EngineError:
    """Return the error of a change that ended before it changed anything."""
    if not isinstance(error, OSError):
        return EngineError(f"{error}; nothing was changed")
    what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    advice = _ADVICE.get(error.errno or 0, "see why, then run again")
    return EngineError(f"{what}; nothing was changed; {advice}")
