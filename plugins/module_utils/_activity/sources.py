# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where log lines come from: files, rotated and compressed ones, and the journal. Read as a stream, the oldest first.

Sources: logrotate(8), journalctl(1), rsyslog.conf(5).
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import io
import os
import re
import stat
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Optional, Union, cast

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import (
    ACTIVITY_VERSION,
    Adapter,
    Clock,
    Note,
    Tally,
    iso,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

CHUNK = 1 << 18
MAX_LOG_LINE = 16384
# A file is searched for the beginning of the window only if that spares more than the search costs.
SEARCH_FROM = 4 << 20
# Lines may stand a little out of order: several writers, and what was buffered.
SLACK = 60.0
_MISSED = "0027229ca0644181a76c4e92458afa2e"
_MISSED_TEXT = re.compile(rb"missed (\d{1,9}) messages")
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))


class SourceError(Exception):
    """A source cannot be read, or not to its end; what came before counts. The text says why."""


@dataclass(frozen=True)
class LogFile:
    """A log file as it was found: its size in bytes and when it was written last."""

    path: str
    size: int
    changed: float

    def chunks(self, stamp: re.Pattern[bytes], since: float) -> Iterator[tuple[list[bytes], int]]:
        """Lines without their ends, many at a time, and how many bytes they were. Raises SourceError.

        What lies long before the window is left out where that can be found without reading it.
        """
        try:
            # Opened without waiting: what was a file may be a pipe by now.
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as raw:
                if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
                    raise SourceError(f"{self.path} is no file")
                head = raw.read(6)
                raw.seek(0)
                kind = next((name for magic, name in _MAGIC if head.startswith(magic)), "")
                if not kind and self.size > SEARCH_FROM:
                    raw.seek(beginning(raw, self.size, stamp, Clock(self.changed), since - SLACK))
                yield from lines_of(_opened(raw, kind, self.path))
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise SourceError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from error

    def clock(self) -> Clock:
        """Reads the file's time stamps."""
        return Clock(self.changed)


@dataclass(frozen=True)
class Journal:
    """The journal of this host, as journalctl prints it: one line for an entry, seconds since 1970 as its time stamp."""

    matches: tuple[str, ...]
    since: float
    until: float
    options: tuple[str, ...] = ()
    path: str = "journal"

    def chunks(self, stamp: re.Pattern[bytes], since: float) -> Iterator[tuple[list[bytes], int]]:
        """Yield lines without their ends, many at a time, and how many bytes they were. Raises SourceError."""
        del stamp, since
        command = [
            "journalctl", "--quiet", "--no-pager", "--all", "--output=short-unix",
            f"--since=@{int(self.since)}", f"--until=@{int(self.until) + 1}", *self.options, *self.matches,
        ]  # fmt: skip
        environment = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"}
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            raise SourceError(f"journalctl: {error.strerror}") from error
        with process:
            try:
                yield from lines_of(cast(IO[bytes], process.stdout))
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise SourceError(f"journalctl ended with status {process.returncode}")

    def clock(self) -> Clock:
        """Return what reads the time stamps of these lines."""
        return Clock(self.until)


Source = Union[LogFile, Journal]


@dataclass(frozen=True)
class Found:
    """What is to be read, the oldest first, what has to be said of it, and whether the log goes back before the window."""

    sources: Sequence[Source]
    notes: Sequence[Note] = ()
    reaches_back: bool = False


def find(globs: Sequence[str], journal: str, adapter: Adapter, since: float, until: float) -> Found:
    """What there is to read of the window. journal is C(auto), C(true) or C(false).

    Raises EngineError for a pattern that is no absolute path.
    """
    files = [] if journal == "true" else find_files(globs)
    current = [one for one in files if one.changed >= since - SLACK and one.size]
    if current:
        own = adapter.through_syslog and list(globs) == list(adapter.globs)
        notes = _lost(since, until) if own else []
        return Found(current, notes, any(one.changed < since - SLACK and one.size for one in files))
    if journal == "false":
        missing = "are older than the time asked for, or empty" if files else "do not exist"
        return Found([], [Note("no_log", "", f"the log files {', '.join(globs)} {missing}")])
    earlier = Journal((), 0, since, ("--lines=1",))
    reaches_back = False
    with contextlib.suppress(SourceError):
        reaches_back = any(lines for lines, _size in earlier.chunks(adapter.stamp, since))
    return Found([Journal(tuple(adapter.journal_matches), since, until)], [], reaches_back)


def _lost(since: float, until: float) -> list[Note]:
    """Under load the journal leaves out lines that it hands to the daemon that writes the files, and says how many."""
    missed = 0
    with contextlib.suppress(SourceError):
        entries = Journal((f"MESSAGE_ID={_MISSED}",), since, until)
        for lines, _size in entries.chunks(re.compile(b""), since):
            missed += sum(int(found.group(1)) for found in map(_MISSED_TEXT.search, lines) if found)
    if not missed:
        return []
    text = (
        f"the journal did not hand {missed} entries to the log files, of mail or of others, so that counts may be wrong"
    )
    return [Note("lines_lost", "", f"{text}; read the journal instead with journal: 'true'")]


def count(adapter: Adapter, tally: Tally, found: Found, since: float, until: float) -> dict[str, Any]:
    """Read the sources and return what they tell, the ACTIVITY of the module's documentation."""
    started = time.monotonic()
    said = list(found.notes)
    lines = size = 0
    for source in found.sources:
        clock = source.clock()
        try:
            for chunk, length in source.chunks(adapter.stamp, since):
                lines += len(chunk)
                size += length
                last = adapter.feed(chunk, clock)
                if last is not None and last > until + SLACK:
                    break
        except SourceError as error:
            said.append(Note("unreadable", "", str(error)))
    adapter.finish()
    said += adapter.notes()
    if found.sources and adapter.first is None:
        said.append(
            Note(
                "no_lines", "", f"no line of {adapter.name} was found in {', '.join(one.path for one in found.sources)}"
            )
        )
    elif adapter.first is not None and adapter.first > since + 3600 and not found.reaches_back:
        said.append(Note("log_begins_late", "", f"the log reaches back to {iso(adapter.first)} only"))
    return {
        "version": ACTIVITY_VERSION,
        "daemon": adapter.name,
        "since": iso(since),
        "until": iso(until),
        "begins": iso(adapter.first) if adapter.first is not None else "",
        "sources": [one.path for one in found.sources],
        "lines": lines,
        "bytes": size,
        "skipped_lines": adapter.skipped_lines,
        "seconds": round(time.monotonic() - started, 3),
        **tally.result(),
        "notes": [note.to_dict() for note in said],
    }


def find_files(globs: Sequence[str]) -> list[LogFile]:
    """The regular files that the patterns name, each once, the oldest first."""
    found: dict[tuple[int, int], LogFile] = {}
    for pattern in globs:
        if not os.path.isabs(pattern):  # noqa: PTH117
            raise EngineError(f"logs: {pattern} is no absolute path")
        for path in sorted(glob.glob(pattern)):  # noqa: PTH207
            try:
                status = Path(path).stat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                found.setdefault((status.st_dev, status.st_ino), LogFile(path, status.st_size, status.st_mtime))
    return sorted(found.values(), key=lambda one: (one.changed, one.path))


def lines_of(stream: IO[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """The lines of a stream, many at a time. Of a line that has no end only the beginning is kept."""
    rest = b""
    dropping = False
    while chunk := stream.read(CHUNK):
        size = len(chunk)
        if dropping:
            _end, newline, chunk = chunk.partition(b"\n")
            if not newline:
                yield [], size
                continue
            dropping = False
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_LOG_LINE:
            lines.append(rest[:MAX_LOG_LINE])
            rest = b""
            dropping = True
        yield lines, size
    if rest:
        yield [rest], 0


def beginning(raw: IO[bytes], size: int, stamp: re.Pattern[bytes], clock: Clock, since: float) -> int:
    """A place at the beginning of a line, at or before the first one of the window, if the file is in order of time."""
    low, high = 0, size
    while high - low > CHUNK:
        middle = (low + high) // 2
        found = _time_behind(raw, middle, stamp, clock)
        if found is None or found >= since:
            high = middle
        else:
            low = middle
    if low:
        raw.seek(low)
        raw.readline(MAX_LOG_LINE)
        low = raw.tell()
    return low


def _time_behind(raw: IO[bytes], place: int, stamp: re.Pattern[bytes], clock: Clock) -> Optional[float]:
    """The time of the first whole line behind a place that has one."""
    raw.seek(place)
    for line in raw.read(CHUNK // 4).split(b"\n")[1:-1]:
        match = stamp.match(line)
        when = clock.at(match.group(1)) if match else None
        if when is not None:
            return when
    return None


def _opened(raw: IO[bytes], kind: str, path: str) -> IO[bytes]:
    """The file's content. The modules for xz and bzip2 may be missing in a Python that was built without them."""
    if not kind:
        return raw
    if kind == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if kind == "zstd":
        raise SourceError(f"{path} is compressed with zstd, which Python cannot read; use gzip or xz")
    try:
        if kind == "xz":
            import lzma  # noqa: PLC0415

            return cast(IO[bytes], _Guarded(lzma.LZMAFile(raw), lzma.LZMAError))
        import bz2  # noqa: PLC0415

        return cast(IO[bytes], bz2.BZ2File(raw))
    except ImportError:
        raise SourceError(f"{path} is compressed with {kind}, which this host's Python cannot read") from None


class _Guarded:
    """A stream whose own kind of error becomes one that is known without its module."""

    def __init__(self, stream: io.BufferedIOBase, error: type[Exception]) -> None:
        self._stream = stream
        self._error = error

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except self._error as error:
            raise OSError(f"the compressed data cannot be read: {error}") from error
