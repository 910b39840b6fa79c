# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole files as values. A write is atomic: a reader sees the old file or the new one, never a part.

Private to this collection; standard library only. Symbolic links of trusted users are followed (see paths): the link
stays and the file that it points to is replaced, as an administrator who linked ``main.cf`` expects.
A new version of a file keeps its access control list, its SELinux label and the user's attributes. A new file gets its
label and list from its directory, like any file that is created there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.attributes import attributes_of, dress, mode_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import (
    ROOT_AND_ME,
    PathTrust,
    Place,
    place_of,
    real_path,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

ABSENT = "absent"
"""The digest of a file that does not exist."""

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

    ``mode`` holds the permission bits (0o600) of the owner, the group and others, ``uid`` and ``gid`` are numeric. The
    content may be a private key, so it is left out of the representation. ``secret`` also leaves it out of diffs.
    ``attributes`` are those of _change.attributes, name -> value; None for those of the file that is replaced.
    ``trust`` says whose directories the path may lead through. ``seen`` is the digest of the content that was read, also in
    images that were made from that one; empty if nothing was read.
    """

    path: str
    content: Optional[bytes] = field(repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    secret: bool = field(default=False, compare=False, repr=False)
    attributes: Optional[Mapping[str, bytes]] = field(default=None, compare=False, repr=False)
    trust: PathTrust = field(default=ROOT_AND_ME, compare=False, repr=False)
    seen: str = field(default="", compare=False, repr=False)

    @classmethod
    def read(cls, path: str, *, max_bytes: Optional[int] = None, trust: PathTrust = ROOT_AND_ME) -> FileImage:
        """Return the file at ``path``; an image with content None if there is no file.

        Raises UntrustedPathError (see paths), UnsafeFileError if it is not a regular file or has more than ``max_bytes``
        bytes, and OSError for every other failure.
        """
        try:
            with place_of(path, trust) as place:
                return cls._in(place, path, max_bytes, trust)
        except FileNotFoundError:
            return cls(path, None, trust=trust, seen=ABSENT)

    @classmethod
    def _in(cls, place: Place, path: str, max_bytes: Optional[int], trust: PathTrust) -> FileImage:
        """Return the file at a place as an image with this path. Raises as read() does, and FileNotFoundError."""
        _refuse_unless_regular(place, path)
        fd = place.open()
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            _refuse_irregular(status, path)
            content = file.read() if max_bytes is None else file.read(max_bytes + 1)
            if max_bytes is not None and len(content) > max_bytes:
                raise UnsafeFileError(errno.EFBIG, f"is longer than {max_bytes} bytes", path)
            attributes = attributes_of(fd)
        mode = mode_of(stat.S_IMODE(status.st_mode), attributes)
        seen = hashlib.sha256(content).hexdigest()
        owner = (status.st_uid, status.st_gid)
        return cls(path, content, mode, *owner, attributes=attributes, trust=trust, seen=seen)

    def write(self, mtime: Optional[float] = None) -> None:
        """Write this image to its path. With content None, remove the file if it exists.

        The new file is written next to the old one, gets its owner, mode and attributes before it is visible, is flushed to
        the disk and renamed into place. ``mtime`` (seconds since the epoch) sets its time of modification.
        Raises OSError and UntrustedPathError. The old file is then unchanged, and no temporary file is left.
        """
        if self.content is None:
            with suppress(FileNotFoundError), place_of(self.path, self.trust) as place:
                _refuse_unless_regular(place, self.path)
                place.remove()
            return
        with place_of(self.path, self.trust) as place:
            _refuse_unless_regular(place, self.path)
            place.replace(self.content, self._dresser(place, mtime))

    def stage(self, name: str, mtime: Optional[float] = None) -> None:
        """Write this image under another name in the directory of its path, for take(). Raises as write() does.

        The image has a content.
        """
        with place_of(self.path, self.trust) as place:
            _refuse_unless_regular(place, self.path)
            place.beside(name).create(self.content or b"", self._dresser(place, mtime))

    def keep(self, name: str) -> None:
        """Keep the file, which is as this image, under a second name in its directory, for take(). Raises as write() does.

        What replaces the file later leaves the second name alone. A program that writes into the file does not.
        """
        with place_of(self.path, self.trust) as place:
            try:
                if place.lent or place.sticky:  # a second name counts as a trap there, see paths
                    raise PermissionError
                place.link_to(place.beside(name))
            except OSError as error:  # a file system without second names
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EEXIST):
                    raise
                place.beside(name).create(self.content or b"", self._dresser(place, None))

    def take(self, name: str) -> bool:
        """Put the file that stage() or keep() left under this name in place, which needs no room. Return whether it was there.

        A file that is not as this image is left where it is. Raises as write() does.
        """
        with place_of(self.path, self.trust) as place:
            _refuse_unless_regular(place, self.path)
            other = place.beside(name)
            try:
                if FileImage._in(other, self.path, None, self.trust) != self:
                    return False
            except FileNotFoundError:
                return False
            other.move_to(place)
        return True

    def drop(self, name: str) -> None:
        """Remove what stage() or keep() left under this name, if it is there and that is possible. Nothing is raised."""
        with suppress(OSError, EngineError), place_of(self.path, self.trust) as place:
            place.beside(name).drop()

    def _dresser(self, place: Place, mtime: Optional[float]) -> Callable[[int], None]:
        attributes = _present_attributes(place) if self.attributes is None else self.attributes
        return lambda fd: self._dress(fd, attributes, mtime)

    def _dress(self, fd: int, attributes: Mapping[str, bytes], mtime: Optional[float]) -> None:
        status = os.fstat(fd)
        if (status.st_uid, status.st_gid) != (self.uid, self.gid):
            os.fchown(fd, self.uid, self.gid)
        # After fchown, which clears set-id bits. The umask changes the mode of O_CREAT, but not this one.
        dress(fd, stat.S_IMODE(self.mode), attributes, exactly=self.attributes is not None)
        if mtime is not None:
            os.utime(fd, (mtime, mtime))


def _present_attributes(place: Place) -> Mapping[str, bytes]:
    try:
        fd = place.open()
    except (FileNotFoundError, PermissionError):  # a user who may replace a file need not be able to read it
        return {}
    try:
        return attributes_of(fd)
    finally:
        os.close(fd)


def resolve(path: str, trust: PathTrust = ROOT_AND_ME) -> str:
    """Return the absolute path of the file that ``path`` leads to, whether or not that file exists."""
    return real_path(path, trust)


def _refuse_unless_regular(place: Place, path: str) -> None:
    status = place.status()
    if status is not None:
        _refuse_irregular(status, path)


def _refuse_irregular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown type")
        raise UnsafeFileError(errno.EINVAL, f"is {kind}, not a regular file", path)
