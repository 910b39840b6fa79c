# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole files as values. A write is atomic: a reader sees the old file or the new one, never a part.

Private to this collection; standard library only. Symbolic links are followed: the link stays and the file that it
points to is replaced, as an administrator who linked ``main.cf`` expects.
A new file gets its SELinux label and default ACL from its directory, like any file that is created there.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

TEMPORARY_PREFIX = ".mailfleet-"
"""The prefix of temporary file names. A killed run may leave such a file. Its mode is 0600, and it may be removed."""

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link that leads nowhere",
}


class UnsafeFileError(OSError):
    """The path leads to something other than a regular file, or to a file that is longer than the caller allows."""


@dataclass(frozen=True)
class FileImage:
    """A file's present or wanted state. ``content`` None means that the file does not exist.

    ``mode`` holds the permission bits (0o600), ``uid`` and ``gid`` are numeric. The content may be a private
    key, so it is left out of the representation. ``secret`` also leaves it out of diffs.
    """

    path: str
    content: Optional[bytes] = field(repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    secret: bool = field(default=False, compare=False, repr=False)

    @classmethod
    def read(cls, path: str, *, max_bytes: Optional[int] = None) -> FileImage:
        """Return the file at ``path``, following symbolic links; an image with content None if there is no file.

        Raises UnsafeFileError if it is not a regular file or has more than ``max_bytes`` bytes, and OSError for
        every other failure.
        """
        target = resolve(path)
        try:
            _refuse_unless_regular(Path(target).lstat(), path)
            # Something else may have replaced the file since: O_NONBLOCK does not wait for the writer of a named pipe.
            fd = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return cls(path, None)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            _refuse_unless_regular(status, path)
            content = file.read() if max_bytes is None else file.read(max_bytes + 1)
        if max_bytes is not None and len(content) > max_bytes:
            raise UnsafeFileError(errno.EFBIG, f"is longer than {max_bytes} bytes", path)
        return cls(path, content, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)

    def write(self, mtime: Optional[float] = None) -> None:
        """Write this image to its path. With content None, remove the file if it exists.

        The new file is written next to the old one, gets its owner and mode before it is visible, is flushed to
        the disk and renamed into place. ``mtime`` (seconds since the epoch) sets its time of modification.
        Raises OSError. The old file is then unchanged, and no temporary file is left.
        """
        target = Path(resolve(self.path))
        with suppress(FileNotFoundError):
            _refuse_unless_regular(target.lstat(), self.path)
        if self.content is None:
            target.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                _flush_directory(target.parent)
            return
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(self.content)
                file.flush()
                self._dress(fd, mtime)
                os.fsync(fd)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_directory(target.parent)

    def _dress(self, fd: int, mtime: Optional[float]) -> None:
        status = os.fstat(fd)
        if (status.st_uid, status.st_gid) != (self.uid, self.gid):
            os.fchown(fd, self.uid, self.gid)
        # After fchown, which clears set-id bits. The umask changes the mode of O_CREAT, but not this one.
        os.fchmod(fd, stat.S_IMODE(self.mode))
        if mtime is not None:
            os.utime(fd, (mtime, mtime))


def resolve(path: str) -> str:
    """Return the absolute path of the file that ``path`` leads to, whether or not that file exists."""
    return os.path.realpath(path)


def _refuse_unless_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown type")
        raise UnsafeFileError(errno.EINVAL, f"is {kind}, not a regular file", path)


def _flush_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
