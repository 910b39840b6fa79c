# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way to files whose directories may belong to others.

A path is walked component by component, and each directory stays open on the way. So nobody can exchange a directory
between two looks at it, and every file is opened, written and removed relative to its open directory.

Whom the walk trusts is a PathTrust. Three kinds of directories are entered:

- one that only trusted users can write. Links of trusted users are followed in it.
- one such as /tmp: others may write, but its sticky bit protects the names of trusted users. A link of somebody else
  is refused.
- a lent one: a user of PathTrust.owners owns it or may write to it. No link is followed in it.

In the last two, a file of a third user is refused, and a trusted user's file that has a second name elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import secrets
import stat
import struct
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Callable, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

TEMPORARY_PREFIX = ".mailfleet-"
"""The prefix of temporary file names. A killed run may leave such a file. Its mode is 0600, and it may be removed."""

ACL = "system.posix_acl_access"
"""The extended attribute with the access control list of a file."""

# O_PATH needs no right to list the directory. Systems without it, such as macOS, need that right.
_ENTER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40
_effective_user = os.geteuid
_FIRST_GROUP_OF_USERS = 1000
_USER, _GROUP_OBJ, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_WRITE = 2
_ALL = "everybody"


class UntrustedPathError(EngineError):
    """Somebody who is not trusted could lead the path elsewhere. The text names the place, its owner and the remedy."""


@dataclass(frozen=True)
class PathTrust:
    """Whom a walk trusts.

    users: numbers of the users whose directories are entered and whose links are followed. None stands for root and
    the user of this process.
    owners: numbers of further users, for example the one a daemon runs as. Their directories are entered, but no link
    is followed there. ANYBODY for a look at files of others; nothing that is found so may decide where to write.
    option: the user's own option or variable that gave the path, for messages.
    """

    users: Optional[frozenset[int]] = None
    owners: Collection[int] = frozenset()
    option: str = ""

    @property
    def trusted(self) -> frozenset[int]:
        """The numbers of the trusted users."""
        return frozenset({0, _effective_user()}) if self.users is None else self.users


class _Anybody(Collection[int]):
    def __contains__(self, _uid: object) -> bool:
        return True

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


ANYBODY: Collection[int] = _Anybody()
"""All users, for PathTrust.owners."""

ROOT_AND_ME = PathTrust()

LOOK = PathTrust(owners=ANYBODY)
"""For a look that decides nothing: directories of everybody are entered, and no link of theirs is followed."""


@dataclass(frozen=True)
class Place:
    """A name in an open directory. The name is not a link, or does not exist.

    directory: the descriptor, usable as dir_fd only. path: the path without links. lent: see the module.
    """

    directory: int
    name: str
    path: str
    given: str = field(repr=False, default="")
    trust: PathTrust = field(repr=False, default=ROOT_AND_ME)
    lent: bool = False
    sticky: bool = False

    def status(self) -> Optional[os.stat_result]:
        """Return the status of the file itself, or None if it does not exist. Raises UntrustedPathError."""
        status = _lstat(self.name, self.directory)
        if status is not None:
            self._refuse(status)
        return status

    def open(self, flags: int = os.O_RDONLY) -> int:
        """Open the existing file and return its descriptor. Links are not followed, pipes do not block.

        Raises UntrustedPathError and OSError; FileNotFoundError if there is no file.
        """
        with _naming(self.given):
            fd = os.open(self.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=self.directory)
        try:
            self._refuse(os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def replace(self, content: bytes, dress: Callable[[int], None]) -> None:
        """Put a new file with this content here, in one step. dress gives its descriptor owner, mode and the rest.

        Nobody else can open the file before it is dressed. It is flushed to the disk. Raises OSError and
        UntrustedPathError. The old file is then unchanged, and no temporary file is left.
        """
        self.status()
        temporary = self.beside(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp")
        temporary.create(content, dress)
        try:
            temporary.move_to(self)
        except BaseException:
            temporary.drop()
            raise

    def beside(self, name: str) -> Place:
        """Return another name in the same directory. Errors still name the path that was given."""
        return replace(self, name=name, path=f"{self.path.rpartition('/')[0]}/{name}")

    def create(self, content: bytes, dress: Callable[[int], None]) -> None:
        """Make a new file with this content here, flushed to the disk. Raises OSError; then there is no file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _naming(self.given):
            fd = os.open(self.name, flags, 0o600, dir_fd=self.directory)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(content)
                    file.flush()
                    dress(fd)
                    os.fsync(fd)
            except BaseException:
                self.drop()
                raise

    def link_to(self, other: Place) -> None:
        """Give this file a second name in the same directory. Raises OSError."""
        with _naming(self.given):
            os.link(self.name, other.name, src_dir_fd=self.directory, dst_dir_fd=self.directory, follow_symlinks=False)

    def move_to(self, other: Place) -> None:
        """Rename this file to the other name in the same directory, whose file is replaced. It needs no room. Raises OSError."""
        with _naming(self.given):
            os.rename(self.name, other.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
            self._flush()

    def drop(self) -> None:
        """Remove the file if that is possible. Nothing is raised."""
        with contextlib.suppress(OSError):
            os.unlink(self.name, dir_fd=self.directory)

    def remove(self) -> None:
        """Remove the file if it exists. Raises OSError and UntrustedPathError."""
        if self.status() is None:
            return
        with _naming(self.given):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.name, dir_fd=self.directory)
            self._flush()

    def _flush(self) -> None:
        try:
            fd = os.open(".", _LIST, dir_fd=self.directory)
        except PermissionError:  # a directory that this user may write and not list
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _refuse(self, status: os.stat_result) -> None:
        known = status.st_uid in self.trust.trusted or status.st_uid in self.trust.owners
        if (self.lent or self.sticky) and not known:
            why = f"belongs to {_user(status.st_uid)}, who could have put it there"
            raise UntrustedPathError(_text(self.given, self.path, why, "remove it", self.trust))
        linked = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
        if (self.lent or self.sticky) and linked and status.st_uid in self.trust.trusted:
            why = f"belongs to {_user(status.st_uid)} and has another name elsewhere, so others could have put it there"
            raise UntrustedPathError(_text(self.given, self.path, why, "remove it", self.trust))


@contextlib.contextmanager
def place_of(path: str, trust: PathTrust = ROOT_AND_ME) -> Iterator[Place]:
    """Yield the place that a path leads to, through the links of trusted users. The file itself need not exist.

    Raises UntrustedPathError if somebody else could lead the path elsewhere, FileNotFoundError if a directory on the
    way does not exist, and OSError. The error's filename is the path.
    """
    walk = _Walk(path, trust)
    try:
        yield walk.go()
    finally:
        walk.close()


@contextlib.contextmanager
def entered(path: str, trust: PathTrust = ROOT_AND_ME) -> Iterator[int]:
    """Yield the descriptor of a directory, for os.listdir and as dir_fd. Raises as place_of does."""
    walk = _Walk(path, trust)
    try:
        walk.go(into=True)
        with _naming(path):
            fd = os.open(".", _LIST, dir_fd=walk.directory)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        walk.close()


def real_path(path: str, trust: PathTrust = ROOT_AND_ME) -> str:
    """Return the path of the file without links, as far as its directories exist. Raises UntrustedPathError and OSError."""
    walk = _Walk(path, trust)
    try:
        return walk.go().path
    except IsADirectoryError:  # the path ends at / or with ..
        return walk.go(into=True).path
    except FileNotFoundError:
        above, name = os.path.split(path.rstrip("/"))
        return os.path.normpath(f"{real_path(above, trust)}/{name}")
    finally:
        walk.close()


def make_directory(path: str, mode: int = 0o755, trust: PathTrust = ROOT_AND_ME) -> None:
    """Create one directory, with exactly this mode. Raises UntrustedPathError, and OSError if it exists already."""
    with place_of(path, trust) as place, _naming(path):
        os.mkdir(place.name, 0o700, dir_fd=place.directory)
        fd = os.open(place.name, _LIST, dir_fd=place.directory)
        try:
            os.fchmod(fd, mode)  # the umask changes the mode of mkdir
        finally:
            os.close(fd)


def make_directories(path: str, trust: PathTrust = ROOT_AND_ME) -> None:
    """Create a directory and those above it that are missing, with mode 0755. Raises UntrustedPathError and OSError."""
    for one in missing_directories(path, trust):
        make_directory(one, trust=trust)


def missing_directories(path: str, trust: PathTrust = ROOT_AND_ME) -> list[str]:
    """Return the paths that have to be created so that this directory exists, the outer ones first. Raises as place_of."""
    try:
        with place_of(path, trust) as place:
            return [] if place.status() is not None else [place.path]
    except IsADirectoryError:  # the path ends at /, or with ..
        return []
    except FileNotFoundError:
        above, name = os.path.split(path.rstrip("/"))
        outer = missing_directories(above, trust)
        return [*outer, f"{outer[-1]}/{name}"]


def flush_directory(path: str) -> None:
    """Have the names in a directory survive a power failure. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_directory(path: str, trust: PathTrust = ROOT_AND_ME) -> None:
    """Remove an empty directory. Raises UntrustedPathError and OSError."""
    with place_of(path, trust) as place, _naming(path):
        place.status()
        os.rmdir(place.name, dir_fd=place.directory)


def remove_empty(*paths: str) -> None:
    """Remove those of the directories that are there and empty."""
    for path in paths:
        with contextlib.suppress(OSError, UntrustedPathError):
            remove_directory(path)


class _Walk:
    """The directories from / to where the walk stands, all open."""

    def __init__(self, path: str, trust: PathTrust) -> None:
        self.given, self.trust = path, trust
        self._open: list[tuple[int, str, bool, bool]] = []

    @property
    def directory(self) -> int:
        return self._open[-1][0]

    @property
    def _lent(self) -> bool:
        return self._open[-1][2]

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop()[0])

    def go(self, into: bool = False) -> Place:
        """Walk to the file, or into the directory. Return the place of the file."""
        if "\0" in self.given:
            raise EngineError(f"path {self.given!a} contains a null character")
        absolute = self.given if self.given.startswith("/") else f"{os.getcwd()}/{self.given}"  # noqa: PTH109
        self.close()
        with _naming(self.given):
            self._enter("/", None)
            todo, links = deque(absolute.split("/")), 0
            while todo:
                part = todo.popleft()
                if part in ("", "."):
                    continue
                if part == "..":
                    self._back(to=max(len(self._open) - 1, 1))
                    continue
                status = _lstat(part, self.directory)
                if status is not None and stat.S_ISLNK(status.st_mode):
                    self._refuse_link(part, status)
                    links += 1
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    target = os.readlink(part, dir_fd=self.directory)
                    if target.startswith("/"):
                        self._back(to=1)
                    todo.extendleft(reversed(target.split("/")))
                elif into or any(one not in ("", ".") for one in todo):
                    self._enter(part, self.directory)
                else:
                    _fd, _name, lent, sticky = self._open[-1]
                    return Place(self.directory, part, self._path(part), self.given, self.trust, lent, sticky)
            if not into:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            here = "/" + "/".join(one[1] for one in self._open[1:])
            return Place(self.directory, ".", here, self.given, self.trust, self._lent)

    def _path(self, name: str) -> str:
        return "/".join(["", *(one[1] for one in self._open[1:]), name])

    def _back(self, to: int) -> None:
        while len(self._open) > to:
            os.close(self._open.pop()[0])

    def _enter(self, name: str, above: Optional[int]) -> None:
        fd = os.open(name, _ENTER, dir_fd=above)
        try:
            lent, sticky = self._judge(fd, name)
        except BaseException:
            os.close(fd)
            raise
        self._open.append((fd, name, lent, sticky))

    def _judge(self, fd: int, name: str) -> tuple[bool, bool]:
        """Return whether the directory is lent, and whether only its sticky bit protects names in it. Raises UntrustedPathError."""
        status = os.fstat(fd)
        trusted, owners = self.trust.trusted, self.trust.owners
        shown = self._path(name) if self._open else "/"
        if status.st_uid not in trusted and status.st_uid not in owners:
            why = f"belongs to {_user(status.st_uid)}, who could lead the path elsewhere"
            raise UntrustedPathError(_text(self.given, shown, why, f"run 'chown root {shown}'", self.trust))
        lent, sticky = status.st_uid not in trusted, False
        for uid, who in _writers(fd, status, {*trusted, *owners}):
            if uid is not None and uid in trusted:
                continue
            if (uid is None and owners is ANYBODY) or (uid is not None and uid in owners):
                lent = True
            elif status.st_mode & stat.S_ISVTX:
                sticky = True
            else:
                why = f"can be written by {who}, so others could lead the path elsewhere"
                remedy = f"run 'chmod {'o' if who == _ALL else 'g'}-w {shown}'"
                raise UntrustedPathError(_text(self.given, shown, why, remedy, self.trust))
        return lent, sticky

    def _refuse_link(self, name: str, status: os.stat_result) -> None:
        link = self._path(name)
        if status.st_uid not in self.trust.trusted:
            why = f"is a link that {_user(status.st_uid)} made"
        elif self._lent:
            why = "is a link in a directory that is not root's alone, so others could have put it there"
        else:
            return
        raise UntrustedPathError(_text(self.given, link, why, "give the path without this link", self.trust))


def _lstat(name: str, directory: int) -> Optional[os.stat_result]:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _writers(fd: int, status: os.stat_result, allowed: Collection[int]) -> Iterator[tuple[Optional[int], str]]:
    """Yield who, besides the owner, can write to a directory: the number, or None for more than one user, and words."""
    if status.st_mode & stat.S_IWOTH:
        yield None, _ALL
    if not status.st_mode & stat.S_IWGRP:  # with an access control list, these bits are its mask
        return
    groups = [status.st_gid]
    entries = _acl_of(fd)
    if entries:
        groups = [status.st_gid for tag, perm, _id in entries if tag == _GROUP_OBJ and perm & _WRITE]
        groups += [number for tag, perm, number in entries if tag == _GROUP and perm & _WRITE]
        for uid in (number for tag, perm, number in entries if tag == _USER and perm & _WRITE):
            yield uid, f"{_user(uid)} by an access control list"
    for gid in groups:
        yield from _members(gid, allowed)


def _members(gid: int, allowed: Collection[int]) -> Iterator[tuple[Optional[int], str]]:
    if gid == 0:
        return
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        yield None, f"the group {gid}"
        return
    names = {_name(uid) for uid in allowed}
    if gid >= _FIRST_GROUP_OF_USERS and group.gr_name not in names:
        # A directory service need not list the members of a group. A user's own group has the user's name.
        yield None, f"the group {group.gr_name}"
        return
    for user in pwd.getpwall():
        if user.pw_gid == gid or user.pw_name in group.gr_mem:
            yield user.pw_uid, f"the group {group.gr_name} (to which {user.pw_name} belongs)"


def acl_entries(packed: bytes) -> list[tuple[int, int, int]]:
    """Return tag, permissions and number of each entry of a packed access control list. Empty if it cannot be read."""
    if len(packed) < 4 or (len(packed) - 4) % 8 or packed[:4] != struct.pack("<I", 2):
        return []
    return list(struct.iter_unpack("<HHI", packed[4:]))


def _acl_of(fd: int) -> list[tuple[int, int, int]]:
    try:
        return acl_entries(os.getxattr(f"/proc/self/fd/{fd}", ACL))
    except (OSError, AttributeError):  # none, or a system without them
        return []


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _user(uid: int) -> str:
    name = _name(uid)
    return f"{name} (uid {uid})" if name else f"uid {uid}"


def _text(given: str, place: str, why: str, remedy: str, trust: PathTrust) -> str:
    subject = f"{place} {why}" if place == given else f"{given} is refused: {place} {why}"
    return f"{subject}; {remedy}, or {f'correct {trust.option}' if trust.option else 'choose another path'}"


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """In this context, an OSError names this path instead of a part of it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename == path and error.filename2 is None):
            raise
        raise OSError(error.errno, error.strerror, path) from error
