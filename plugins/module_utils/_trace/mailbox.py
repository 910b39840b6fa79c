# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds marked messages in an mbox file or a Maildir. Reads headers only, and no unchanged file twice."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import heapq
import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import BinaryIO, Callable, Optional, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

MARKER_HEADER = "X-Mailfleet-Trace"
MAX_HEADER_LINE = 65536
# A marked message is new. So only the end of a large mbox and the newest files of a large Maildir folder are read.
MAX_TAIL = 64 * 1024 * 1024
MAX_FILES = 5000
MAX_FOLDERS = 200
LOCK_SECONDS = 10.0
_MAX_HEADERS = 2000


class Mailbox(Protocol):
    """A place where marked messages arrive. The caller that creates it has to close it."""

    interval: float
    """Seconds between two looks."""

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


class LocalMailbox:
    """A Mailbox that is an mbox file, or a Maildir with its Maildir++ folders. A path that does not exist yet is empty."""

    interval = 0.2

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: set[str] = set()
        self._state: tuple[int, ...] = ()
        self._asked: set[str] = set()

    def look(self, markers: Collection[str]) -> dict[str, list[str]]:
        """Return marker -> Received headers of new messages since the last look for these markers.

        Raises EngineError, OSError.
        """
        if not set(markers) <= self._asked:
            self._forget()
        self._asked = set(markers)
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return {}
        if stat.S_ISDIR(status.st_mode):
            return dict(_matching((headers for _, headers in self._unseen()), markers))
        if not stat.S_ISREG(status.st_mode):
            raise EngineError(f"{self._path} is neither an mbox file nor a Maildir")
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        if state == self._state:
            return {}
        with self._path.open("rb") as handle:
            found = dict(_matching((headers for _, headers in _messages(handle)), markers))
        self._state = state
        return found

    def delete(self, marker: str) -> None:
        """Delete the messages with this marker: the files in a Maildir, or a part of an mbox under the mail servers' locks."""
        if self._path.is_dir():
            self._forget()
            for file, headers in self._unseen():
                if received_of(headers)[0] == marker:
                    file.unlink(missing_ok=True)
            return
        with _locked(self._path) as handle:
            while span := _span(handle, marker):
                _cut(handle, *span)

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _forget(self) -> None:
        self._seen, self._state = set(), ()

    def _unseen(self) -> Iterator[tuple[Path, bytes]]:
        """Yield the files that no look has read yet, and their headers. A Maildir file never changes, only the flags in its name."""
        for folder in _folders(self._path):
            for name in _newest(folder):
                unique = name.partition(":")[0]
                if unique in self._seen:
                    continue
                file = folder / name
                # A mail program may move a message from new to cur at this moment. The next look finds it there.
                with contextlib.suppress(FileNotFoundError), _opened(file) as handle:
                    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                        continue
                    headers = _headers(line for _, line in _lines(handle))
                    self._seen.add(unique)
                    yield file, headers


def _opened(file: Path) -> BinaryIO:
    return os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb")  # without O_NONBLOCK, a named pipe would block


def _matching(messages: Iterable[bytes], markers: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    for headers in messages:
        marker, received = received_of(headers)
        if marker and marker in markers:
            yield marker, received


def _folders(place: Path) -> Iterator[Path]:
    """Yield the directories of a Maildir that contain messages. The names of Maildir++ folders begin with a dot."""
    with os.scandir(place) as entries:
        names = (entry.name for entry in entries if entry.name.startswith(".") and entry.is_dir())
        subfolders = sorted(heapq.nsmallest(MAX_FOLDERS, names))
    for folder in (place, *(place / name for name in subfolders)):
        yield folder / "new"
        yield folder / "cur"


def _newest(folder: Path) -> list[str]:
    """Return the names of the newest messages. A name begins with the time of the delivery."""

    def delivered(name: str) -> int:
        match = re.match(r"\d{1,18}", name)
        return int(match[0]) if match else 0

    try:
        with os.scandir(folder) as entries:
            names = (entry.name for entry in entries if not entry.name.startswith("."))
            return heapq.nlargest(MAX_FILES, names, key=delivered)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _messages(handle: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the messages at the end of an mbox: the offset of the separator line, and the headers."""
    size = handle.seek(0, os.SEEK_END)
    handle.seek(max(0, size - MAX_TAIL))
    blank = True
    lines = _lines(handle)
    for offset, line in lines:
        if blank and line.startswith(b"From "):
            yield offset, _headers(text for _, text in lines)
            blank = True
            continue
        blank = line in (b"\n", b"\r\n")


def _lines(handle: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the offset of each line and the line, cut to MAX_HEADER_LINE bytes and ended by a newline."""
    whole, offset = True, handle.tell()
    while piece := handle.readline(MAX_HEADER_LINE):
        beginning, whole = whole, piece.endswith(b"\n")
        if beginning:
            yield offset, piece if whole else piece + b"\n"
        offset += len(piece)


def _headers(lines: Iterable[bytes]) -> bytes:
    headers: list[bytes] = []
    for line in lines:
        if line in (b"\n", b"\r\n") or len(headers) > _MAX_HEADERS:
            break
        headers.append(line)
    return b"".join(headers)


def _span(handle: BinaryIO, marker: str) -> Optional[tuple[int, int]]:
    """Return the offsets of the begin and the end of the last message with this marker in an mbox, or None."""
    found, start = None, -1
    for offset, headers in _messages(handle):
        if start >= 0:
            found, start = (start, offset), -1
        if received_of(headers)[0] == marker:
            start = offset
    return (start, handle.seek(0, os.SEEK_END)) if start >= 0 else found


def _cut(handle: BinaryIO, start: int, end: int) -> None:
    """Remove a part of a file. The rest moves up from its beginning, so a kill during the move loses nothing of the rest."""
    handle.seek(end)
    behind = handle.read()
    handle.seek(start)
    handle.write(behind)
    handle.flush()
    handle.truncate(start + len(behind))
    os.fsync(handle.fileno())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open an mbox for writing under both locks of mail servers: a lock file next to it, and fcntl. Raises EngineError."""
    lock = path.with_name(f"{path.name}.lock")
    deadline = time.monotonic() + LOCK_SECONDS
    # A symbolic link may lead to a file that is not a mailbox. The module runs as root and must not change such a file.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "r+b") as handle:
        _retry(lambda: os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)), path, deadline)
        try:
            _retry(lambda: fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB), path, deadline)
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                raise EngineError(f"{path} is not a file")
            yield handle
        finally:
            lock.unlink(missing_ok=True)


def _retry(take: Callable[[], object], path: Path, deadline: float) -> None:
    while True:
        try:
            take()
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.EAGAIN):
                raise
            if time.monotonic() >= deadline:
                raise EngineError(f"{path} is locked by another program") from None
        time.sleep(0.1)
