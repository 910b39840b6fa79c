# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sources of log lines: files, also rotated and compressed ones, pipes, and the journal. Read as a stream, the oldest first.

Sources: logrotate(8), journalctl(1), rsyslog.conf(5), fifo(7).
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import select
import stat
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Optional, Union, cast

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.compression import (
    CHUNK,
    MAGIC_BYTES,
    CompressionError,
    kind_of,
    uncompressed,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import (
    ACTIVITY_VERSION,
    Adapter,
    Clock,
    Note,
    Tally,
    iso,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, place_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_files import opened, status_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    LOG_DIRECTORY_FILES,
    LOG_LINE_BYTES,
    LOG_PIPE_SECONDS,
    LOG_RUN_SECONDS,
    Deadline,
    ExhaustedError,
)

# Smaller files are read from their beginning, because a search for the beginning of the window would not save time.
SEARCH_FROM = 4 << 20
# Seconds that lines may be out of order, because of several writers and of buffers.
SLACK = 60.0
_MISSED = "0027229ca0644181a76c4e92458afa2e"
_MISSED_TEXT = re.compile(rb"missed (\d{1,9}) messages")


class SourceError(Exception):
    """A source cannot be read, or not to its end. The lines before the fault count. The text names the fault."""


@contextlib.contextmanager
def _faults_told(path: str) -> Iterator[None]:
    """Raise SourceError, which names the path, for whatever keeps a source from being read."""
    try:
        yield
    except EngineError as error:
        raise SourceError(str(error)) from error
    except CompressionError as error:
        raise SourceError(f"{path} {error}") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise SourceError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


@dataclass(frozen=True)
class LogFile:
    """A log file. size: in bytes. changed: the time of its last write, in seconds since 1970."""

    path: str
    size: int
    changed: float

    def chunks(self, stamp: re.Pattern[bytes], since: float) -> Iterator[tuple[list[bytes], int]]:
        """Yield lists of lines without their line ends, and the number of bytes of each list. Raises SourceError.

        In a large uncompressed file, lines long before the window are skipped.
        """
        with _faults_told(self.path), opened(self.path) as raw:
            kind = kind_of(raw.read(MAGIC_BYTES))
            raw.seek(0)
            if not kind and self.size > SEARCH_FROM:
                raw.seek(beginning(raw, self.size, stamp, Clock(self.changed), since - SLACK))
            with uncompressed(raw, kind) as stream:
                yield from lines_of(stream)

    def clock(self) -> Clock:
        """Return the reader of the file's time stamps."""
        return Clock(self.changed)


@dataclass(frozen=True)
class Pipe:
    """A named pipe that the user names: some program writes a log into it. It is read to its end, whatever the window.

    until: the end of the window, in seconds since 1970.
    """

    path: str
    until: float

    def chunks(self, stamp: re.Pattern[bytes], since: float) -> Iterator[tuple[list[bytes], int]]:
        """Yield lists of lines without their line ends, and the number of bytes of each list. Raises SourceError."""
        del stamp, since
        with _faults_told(self.path):
            with place_of(self.path, LOOK) as place:
                handle = place.open()
            with io.FileIO(handle) as pipe, io.BufferedReader(_Waiting(pipe), CHUNK) as raw:
                if not stat.S_ISFIFO(os.fstat(handle).st_mode):
                    raise SourceError(f"{self.path} is no pipe any more")
                with uncompressed(raw, kind_of(raw.peek(MAGIC_BYTES))) as stream:
                    yield from lines_of(stream)

    def clock(self) -> Clock:
        """Return the reader of the time stamps."""
        return Clock(self.until)


class _Waiting(io.RawIOBase):
    """A pipe whose reader waits for its writer, and not for ever. Raises TimeoutError, which is an OSError."""

    def __init__(self, pipe: io.FileIO) -> None:
        self._pipe = pipe

    def readable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._pipe.fileno()

    def readinto(self, buffer: Any) -> int:
        """Wait for data or for the end. Raises OSError if neither comes within LOG_PIPE_SECONDS."""
        waiting = select.poll()
        waiting.register(self._pipe, select.POLLIN)
        if not waiting.poll(LOG_PIPE_SECONDS * 1000):
            raise TimeoutError(f"nothing came from the pipe within {LOG_PIPE_SECONDS:g} s; does a program write to it?")
        return self._pipe.readinto(buffer) or 0


@dataclass(frozen=True)
class Journal:
    """The journal of this host, printed by journalctl: one line for each entry, with seconds since 1970 as its time stamp."""

    matches: tuple[str, ...]
    since: float
    until: float
    options: tuple[str, ...] = ()
    path: str = "journal"

    def chunks(self, stamp: re.Pattern[bytes], since: float) -> Iterator[tuple[list[bytes], int]]:
        """Yield lists of lines without their line ends, and the number of bytes of each list. Raises SourceError."""
        del stamp, since
        command = [
            "journalctl", "--quiet", "--no-pager", "--all", "--output=short-unix",
            # Up to systemd 253, --lines with --since means the oldest ones.
            *([f"--since=@{int(self.since)}"] if self.since else []), f"--until=@{int(self.until) + 1}", *self.options, *self.matches,
        ]  # fmt: skip
        environment = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"}
        try:
            process = subprocess.Popen(  # noqa: S603  (no shell; all words but two numbers are this code's own)
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
        """Return the reader of the time stamps."""
        return Clock(self.until)


Source = Union[LogFile, Pipe, Journal]


@dataclass(frozen=True)
class Found:
    """The sources to read, the oldest first, and notes about them. reaches_back: whether the log begins before the window."""

    sources: Sequence[Source]
    notes: Sequence[Note] = ()
    reaches_back: bool = False


def find(globs: Sequence[str], journal: str, adapter: Adapter, since: float, until: float) -> Found:
    """Return the sources for the window. journal: C(auto), C(true) or C(false).

    Raises EngineError if a pattern is not an absolute path.
    """
    files = [] if journal == "true" else find_files(globs)
    pipes = [] if journal == "true" else [Pipe(path, until) for path in dict.fromkeys(globs) if _is_pipe(path)]
    current: list[Source] = [*(one for one in files if one.changed >= since - SLACK and one.size), *pipes]
    if current:
        own = adapter.through_syslog and list(globs) == list(adapter.globs)
        notes = _lost(since, until) if own else []
        return Found(current, notes, any(one.changed < since - SLACK and one.size for one in files))
    if journal == "false":
        missing = "are older than the requested time, or empty" if files else "do not exist"
        return Found([], [Note("no_log", "", f"the log files {', '.join(globs)} {missing}")])
    if not adapter.journal_matches:
        told = f"{adapter.name} logs to {', '.join(globs)} only, and there is nothing of that time"
        return Found([], [Note("no_log", "", f"{told}; the journal has none of it" if globs else "no log can be read")])
    earlier = Journal((), 0, since, ("--lines=1",))
    reaches_back = False
    with contextlib.suppress(SourceError):
        reaches_back = any(lines for lines, _size in earlier.chunks(adapter.stamp, since))
    return Found([Journal(tuple(adapter.journal_matches), since, until)], [], reaches_back)


def _lost(since: float, until: float) -> list[Note]:
    """Return a note if log files lack lines. Under load, the journal drops lines for the syslog daemon and logs their number."""
    missed = 0
    with contextlib.suppress(SourceError):
        entries = Journal((f"MESSAGE_ID={_MISSED}",), since, until)
        for lines, _size in entries.chunks(re.compile(b""), since):
            missed += sum(int(found.group(1)) for found in map(_MISSED_TEXT.search, lines) if found)
    if not missed:
        return []
    text = f"the journal did not pass {missed} entries, of mail or of others, to the log files, so counts may be wrong"
    return [Note("lines_lost", "", f"{text}; read the journal instead with journal: 'true'")]


def count(adapter: Adapter, tally: Tally, found: Found, since: float, until: float) -> dict[str, Any]:
    """Read the sources and return the counts: ACTIVITY of the module's documentation."""
    started = time.monotonic()
    said = list(found.notes)
    lines = size = 0
    deadline = Deadline("the reading of the log", LOG_RUN_SECONDS)
    for source in found.sources:
        clock = source.clock()
        try:
            for chunk, length in source.chunks(adapter.stamp, since):
                deadline.look()
                lines += len(chunk)
                size += length
                last = adapter.feed(chunk, clock)
                # A time that has not come yet is forged, or of a wrong clock: it must not end the count.
                if last is not None and until + SLACK < last <= time.time():
                    break
        except SourceError as error:
            said.append(Note("unreadable", "", str(error)))
        except ExhaustedError as error:
            said.append(Note("unreadable", "", f"{source.path}: {error}, so the counts are not whole"))
            break
    adapter.finish()
    said += adapter.notes()
    said += adapter.unread_lines()
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
    """Return the regular files that match the patterns, or are in a named directory, each once, the oldest first.

    Raises EngineError.
    """
    found: dict[tuple[int, int], LogFile] = {}
    for pattern in globs:
        if not os.path.isabs(pattern):  # noqa: PTH117
            raise EngineError(f"logs: {pattern} is not an absolute path")
        within = _files_below(pattern) if os.path.isdir(pattern) else sorted(glob.glob(pattern))  # noqa: PTH112, PTH207
        for path in within:
            status = _status(path)
            if status:
                found.setdefault((status.st_dev, status.st_ino), LogFile(path, status.st_size, status.st_mtime))
    return sorted(found.values(), key=lambda one: (one.changed, one.path))


def _files_below(directory: str) -> list[str]:
    """Return the paths of the files of a directory and of those in it; links to directories are not followed. Raises EngineError."""
    found: list[str] = []
    for place, _directories, names in os.walk(directory):
        found += (os.path.join(place, name) for name in names)  # noqa: PTH118
        if len(found) > LOG_DIRECTORY_FILES:
            raise EngineError(f"logs: {directory} holds more than {LOG_DIRECTORY_FILES:,} files; name the ones to read")
    return sorted(found)


def _is_pipe(path: str) -> bool:
    """Whether a path is that of a pipe. One that a pattern or a directory leads to is not read: the user has not asked for it."""
    try:
        return stat.S_ISFIFO(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _status(path: str) -> Optional[os.stat_result]:
    """Return the status of a log file; None if it is not a regular file, or cannot be looked at."""
    with contextlib.suppress(OSError):
        try:
            return status_of(path)
        except EngineError:  # somebody's link, for example: it is refused when it is read, and a note says so
            return os.lstat(path)
    return None


def lines_of(stream: IO[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Yield the lines of a stream, many at a time. Of a line that is too long, only the beginning is kept."""
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
        text = rest + chunk
        if b"\r\n" in text:
            text = text.replace(b"\r\n", b"\n")
        lines = text.split(b"\n")
        rest = lines.pop()
        if len(rest) > LOG_LINE_BYTES:
            lines.append(rest[:LOG_LINE_BYTES])
            rest = b""
            dropping = True
        yield lines, size
    if rest:
        yield [rest], 0


def beginning(raw: IO[bytes], size: int, stamp: re.Pattern[bytes], clock: Clock, since: float) -> int:
    """Return the offset of a line at or before the first line of the window, if the file is in order of time."""
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
        raw.readline(LOG_LINE_BYTES)
        low = raw.tell()
    return low


def _time_behind(raw: IO[bytes], place: int, stamp: re.Pattern[bytes], clock: Clock) -> Optional[float]:
    """Return the time of the first whole line after an offset that has one, or None."""
    raw.seek(place)
    for line in raw.read(CHUNK // 4).split(b"\n")[1:-1]:
        match = stamp.match(line)
        when = clock.at(match.group(1)) if match else None
        if when is not None:
            return when
    return None
