# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds marked messages in an mbox file or a Maildir. Reads headers only, and no unchanged file twice.

A mailbox belongs to its owner, who can exchange every file in it at any moment. So the module, which runs as root, takes the
owner's identity, opens nothing but regular files, and uses directories that it has open instead of their paths.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import heapq
import os
import re
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from typing import Callable, Optional, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import (
    ANYBODY,
    PathTrust,
    Place,
    place_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import mbox
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.identity import acting_as
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    MAILBOX_FILES,
    MAILBOX_FOLDERS,
    MAILBOX_HEADER_BYTES,
    MAILBOX_LOCK_SECONDS,
    MAILBOX_LOOK_BYTES,
    MAILBOX_MESSAGES,
    Budget,
    Deadline,
    ExhaustedError,
)

MARKER_HEADER = "X-Mailfleet-Trace"
_BLOCK = 1 << 14
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # without O_NONBLOCK, a named pipe would block
_ENTER = _READ | os.O_DIRECTORY
_HEADERS_END = re.compile(rb"(?:\A|\n)\r?\n")


class Mailbox(Protocol):
    """A place where marked messages arrive. The caller that creates it has to close it."""

    interval: float
    """Seconds between two looks."""
    unread: str
    """What the last look has left out, and why; empty if it has read everything."""

    def look(self, markers: Collection[str]) -> dict[str, list[str]]:
        """Return marker -> Received headers, for the messages that have arrived.

        Raises EngineError or OSError if the place cannot be read.
        """

    def delete(self, marker: str) -> None:
        """Delete the message with this marker, and no other. Raises EngineError or OSError if that is not safe."""

    def close(self) -> None:
        """Release everything that look() has opened."""


def received_of(headers: bytes) -> tuple[str, list[str]]:
    """Return the marker of a message, empty if it has none, and its Received headers."""
    if MARKER_HEADER.lower().encode() not in headers.lower():
        return "", []
    message = BytesHeaderParser().parsebytes(headers)
    marker = str(message.get(MARKER_HEADER, "")).strip()
    return marker, [str(value) for value in message.get_all("Received", [])]


@dataclass(frozen=True)
class _Found:
    """A mailbox that is there. status: its own, from before anything was opened."""

    place: Place
    status: os.stat_result

    @property
    def is_maildir(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    def as_owner(self) -> AbstractContextManager[None]:
        return acting_as(self.status.st_uid, self.status.st_gid)

    @contextlib.contextmanager
    def opened(self, flags: int) -> Iterator[int]:
        """Open what was found, and nothing that has taken its name since. Raises EngineError, OSError."""
        fd = self.place.open(flags)
        try:
            if not _is_same(os.fstat(fd), self.status):
                raise EngineError(f"{self.place.path} was exchanged while it was opened")
            yield fd
        finally:
            os.close(fd)


@contextlib.contextmanager
def _found(path: str) -> Iterator[Optional[_Found]]:
    """Yield the mailbox at a path, or None. Root's links on the way are followed, those of others are refused."""
    trust = PathTrust(frozenset({0, os.geteuid()}), ANYBODY, "the mailbox (starttls_mailbox)")
    with contextlib.ExitStack() as stack:
        status = None
        with contextlib.suppress(FileNotFoundError):
            place = stack.enter_context(place_of(path, trust))
            status = place.status()
        if status and not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
            raise EngineError(f"{path} is neither an mbox file nor a Maildir")
        yield _Found(place, status) if status else None


@dataclass(frozen=True)
class _Message:
    """An open file of a Maildir. folder: the descriptor of its directory."""

    folder: int
    name: str
    status: os.stat_result
    headers: bytes


class LocalMailbox:
    """A Mailbox that is an mbox file, or a Maildir with its Maildir++ folders. A path that does not exist yet is empty."""

    interval = 0.2

    def __init__(self, path: str, seconds: float = 20.0) -> None:
        """Prepare only. seconds: the time limit of each look, and of the search for a message to delete."""
        self.unread = ""
        self._path = path
        self._seconds = seconds
        self._seen: set[str] = set()
        self._state: tuple[int, ...] = ()
        self._asked: set[str] = set()

    def look(self, markers: Collection[str]) -> dict[str, list[str]]:
        """Return marker -> Received headers of new messages since the last look for these markers.

        A look that reaches its limit of bytes or time returns what it has found, and C(unread) says so. Raises EngineError, OSError.
        """
        if not set(markers) <= self._asked:
            self._forget()
        self._asked = set(markers)
        self.unread = ""
        matching: dict[str, list[str]] = {}

        def take(headers: bytes) -> None:
            marker, received = received_of(headers)
            if marker and marker in markers:
                matching[marker] = received

        budget = self._budget()
        with self._named(), _found(self._path) as found:
            if found is None:
                return {}
            try:
                with found.as_owner():
                    if found.is_maildir:
                        self._scan(found, budget, lambda message: take(message.headers))
                    else:
                        self._read_mbox(found, budget, take)
            except ExhaustedError as error:
                self.unread = str(error)
        return matching

    def delete(self, marker: str) -> None:
        """Delete the messages with this marker: the files in a Maildir, or a part of an mbox under the mail servers' locks."""
        budget = self._budget()
        with self._named(), _found(self._path) as found:
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if found.is_maildir:
                self._forget()
                with found.as_owner():
                    self._scan(found, budget, lambda message: self._unlink(message, marker))
            else:
                self._delete_from_mbox(found, marker, budget)

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _forget(self) -> None:
        self._seen, self._state = set(), ()

    def _budget(self) -> Budget:
        return Budget(f"a look into {self._path}", {"bytes": MAILBOX_LOOK_BYTES}, self._seconds)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """In this context, an OSError names the mailbox, not a part of it."""
        try:
            yield
        except OSError as error:
            error.filename, error.filename2 = self._path, None
            raise

    def _read_mbox(self, found: _Found, budget: Budget, take: Callable[[bytes], None]) -> None:
        with found.opened(os.O_RDONLY) as fd, os.fdopen(fd, "rb", closefd=False) as handle:
            status = os.fstat(fd)
            state = (status.st_ino, status.st_size, status.st_mtime_ns)
            if state != self._state:
                for _offset, headers in mbox.messages(handle, status.st_size, budget):
                    take(headers)
                self._state = state

    def _delete_from_mbox(self, found: _Found, marker: str, budget: Budget) -> None:
        if os.path.islink(self._path):  # noqa: PTH114
            # Mail servers put their lock file beside the link, and this would put it beside the file.
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        deadline = Deadline(self._path, MAILBOX_LOCK_SECONDS)
        with _lock_file(found, deadline), found.as_owner(), found.opened(os.O_RDWR) as fd:
            _retry(lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB), found.place.path, deadline)
            mbox.remove(fd, lambda headers: received_of(headers)[0] == marker, budget)

    # Maildir

    def _scan(self, found: _Found, budget: Budget, take: Callable[[_Message], None]) -> None:
        """Hand over the files that no look has read yet. A Maildir file never changes, only the flags in its name."""
        with found.opened(os.O_RDONLY | os.O_DIRECTORY) as maildir:
            for name in (".", *_subfolders(maildir, budget)):
                with self._passing_over(), _entered(name, maildir) as above:
                    for part in ("new", "cur"):
                        with self._passing_over(), _entered(part, above) as folder:
                            self._scan_folder(folder, budget, take)

    def _scan_folder(self, folder: int, budget: Budget, take: Callable[[_Message], None]) -> None:
        for name in _newest(folder, budget):
            unique = name.partition(":")[0]
            if unique in self._seen:
                continue
            if len(self._seen) >= MAILBOX_MESSAGES:
                raise ExhaustedError(self._path, "messages", MAILBOX_MESSAGES)
            with self._passing_over(), _message(folder, name, budget) as message:
                if message is not None:
                    take(message)
                    self._seen.add(unique)

    @contextlib.contextmanager
    def _passing_over(self) -> Iterator[None]:
        """In this context, something is passed over that is gone, is a link or no directory, or may not be read.

        A mail program may move a message from new to cur at any moment. It is found there then, or by the next look.
        """
        try:
            yield
        except PermissionError:
            self.unread = f"the owner of {self._path} may not read all of it"
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise

    def _unlink(self, message: _Message, marker: str) -> None:
        if received_of(message.headers)[0] != marker:
            return
        status = os.stat(message.name, dir_fd=message.folder, follow_symlinks=False)
        if not _is_same(status, message.status):
            raise EngineError(f"a file in {self._path} was exchanged while it was read")
        try:
            os.unlink(message.name, dir_fd=message.folder)
        except PermissionError:
            raise EngineError(f"the owner of {self._path} may not delete files in it") from None


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


@contextlib.contextmanager
def _entered(name: str, above: int) -> Iterator[int]:
    """Open a directory of a Maildir, not through a link, and act as its owner in it: a Maildir of root may have folders of others."""
    fd = os.open(name, _ENTER, dir_fd=above)
    try:
        status = os.fstat(fd)
        with acting_as(status.st_uid, status.st_gid):
            yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _message(folder: int, name: str, budget: Budget) -> Iterator[Optional[_Message]]:
    """Open a file of a Maildir and read its headers; None if it is not a regular file. A link or a device is not even opened."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        yield None
        return
    fd = os.open(name, _READ, dir_fd=folder)
    try:
        status = os.fstat(fd)
        yield _Message(folder, name, status, _headers(fd, budget)) if stat.S_ISREG(status.st_mode) else None
    finally:
        os.close(fd)


def _headers(fd: int, budget: Budget) -> bytes:
    """Return the headers of a file; none if they are longer than MAILBOX_HEADER_BYTES. Raises ExhaustedError."""
    data = b""
    while len(data) <= MAILBOX_HEADER_BYTES:
        piece = os.read(fd, _BLOCK)
        budget.spend(len(piece))
        data += piece
        if end := _HEADERS_END.search(data):
            return data[: end.start() + 1]
        if not piece:
            return data
    return b""


def _subfolders(maildir: int, budget: Budget) -> list[str]:
    """Return the names of Maildir++ folders. They begin with a dot."""

    def names() -> Iterator[str]:
        for entry in entries:
            budget.look()
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield entry.name

    with os.scandir(maildir) as entries:
        return sorted(heapq.nsmallest(MAILBOX_FOLDERS, names()))


def _newest(folder: int, budget: Budget) -> list[str]:
    """Return the names of the newest messages. A name begins with the time of the delivery."""

    def delivered(name: str) -> int:
        match = re.match(r"\d{1,18}", name)
        return int(match[0]) if match else 0

    def names() -> Iterator[str]:
        for entry in entries:
            budget.look()
            if not entry.name.startswith("."):
                yield entry.name

    with os.scandir(folder) as entries:
        return heapq.nlargest(MAILBOX_FILES, names(), key=delivered)


@contextlib.contextmanager
def _lock_file(found: _Found, deadline: Deadline) -> Iterator[None]:
    """Hold the lock file next to an mbox. Raises EngineError, OSError."""
    name, directory = f"{found.place.name}.lock", found.place.directory
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

    def make() -> None:
        _retry(lambda: os.close(os.open(name, flags, 0o600, dir_fd=directory)), found.place.path, deadline)

    identity: Callable[[], AbstractContextManager[None]] = found.as_owner
    try:
        with identity():
            make()
    except PermissionError:
        # In some mail spools only root can create a file, so mail servers make the lock as root.
        if os.fstat(directory).st_uid != 0:
            raise
        identity = contextlib.nullcontext
        make()
    try:
        yield
    finally:
        with identity(), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def _retry(take: Callable[[], object], path: str, deadline: Deadline) -> None:
    while True:
        try:
            take()
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.EAGAIN):
                raise
            if deadline.is_over:
                raise EngineError(f"{path} is locked by another program") from None
        time.sleep(0.1)
