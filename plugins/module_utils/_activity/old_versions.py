# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which peers used old TLS versions, from the newest part of the log. An estimate for a plan; tls_activity_info counts exactly.

Its counts have no addresses, and its readers would make each read of a mail server send twice as much to the host. So this takes the
sources from there, and one pattern for each direction.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.compression import MAGIC_BYTES, kind_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import iso
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.sources import (
    Journal,
    LogFile,
    SourceError,
    find_files,
    lines_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_files import opened
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    FORECAST_BYTES,
    FORECAST_LINES,
    FORECAST_SECONDS,
    Deadline,
)

_MOST_PEERS = 10_000
_NO_STAMP = re.compile(rb"(?!)")
"""The reader is to begin at the beginning."""
_STALE = 2 * 86400.0
"""Seconds after which the newest file is taken for one that nobody writes any more."""
_STAMP = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d|\d{9,11}(?=\.\d)")
_VERSION = re.compile(rb"(TLS|SSL)v?(\d)(?:\.(\d))?\Z")


@dataclass
class Seen:
    """What the log tells of one direction. sessions: those with a TLS version. peers: peer -> the old version that it used last."""

    sessions: int = 0
    peers: dict[str, str] = field(default_factory=dict)


@dataclass
class Heard:
    """What the log tells.

    began and ended: the times of its first and last line, as they are written, of the journal in UTC; empty if there is none. is_cut:
    whether older lines were left out, for their number or for the time. unread: what cannot be read, and why.
    """

    sides: dict[str, Seen]
    began: str = ""
    ended: str = ""
    is_cut: bool = False
    unread: list[str] = field(default_factory=list)


def old_peers(places: LogPlaces, lines: Mapping[str, re.Pattern[bytes]], old: Collection[str]) -> Heard:
    """Return who used one of the old versions, also if it used a newer one as well: several programs may have one address.

    lines: direction -> what finds a session: its C(peer) and C(version), perhaps its C(name). The newest source is read first, and as
    much as FORECAST_BYTES and FORECAST_SECONDS allow.
    """
    whole = Heard({direction: Seen() for direction in lines}, unread=list(places.unread))
    parts: list[Heard] = []
    deadline = Deadline("the reading of the log", FORECAST_SECONDS)
    left = FORECAST_BYTES
    for source in _newest_first(places, whole.unread):
        if left <= 0 or deadline.is_over:
            whole.is_cut = True
            break
        part = Heard({direction: Seen() for direction in lines})
        parts.append(part)
        most, count = left, 0
        try:
            with contextlib.closing(_chunks(source, most)) as chunks:
                for chunk, size in chunks:
                    if size and (left <= 0 or deadline.is_over):
                        whole.is_cut = True
                        break
                    left -= size
                    count += len(chunk)
                    _take(b"\n".join(chunk), lines, old, part, isinstance(source, Journal))
        except SourceError as error:
            whole.unread.append(str(error))
        whole.is_cut |= source.size > most if isinstance(source, LogFile) else count >= FORECAST_LINES
    for part in reversed(parts):  # the oldest first: what a peer used last counts
        _add(part, whole)
    return whole


def _newest_first(places: LogPlaces, unread: list[str]) -> list[Union[LogFile, Journal]]:
    """Return the files; the journal as well where there is no file, or none that is still written."""
    now = time.time()
    files: Sequence[LogFile] = ()
    try:
        files = [one for one in find_files(places.patterns) if one.size]
    except EngineError as error:
        unread.append(str(error))
    found: list[Union[LogFile, Journal]] = [*reversed(files)]
    if places.journal and (not files or files[-1].changed < now - _STALE):
        found.insert(0, Journal(places.journal, 0.0, now, (f"--lines={FORECAST_LINES}", "--reverse")))
    return found


def _chunks(source: Union[LogFile, Journal], most: int) -> Generator[tuple[list[bytes], int], None, None]:
    """Yield lists of lines and their bytes; of an uncompressed file that is larger, the last ones. Raises SourceError."""
    if isinstance(source, LogFile) and source.size > most:
        try:
            with opened(source.path) as file:
                if not kind_of(file.read(MAGIC_BYTES)):
                    file.seek(-most, 2)
                    yield [], len(file.readline(most))
                    yield from lines_of(file)
                    return
        except (EngineError, OSError) as error:
            raise SourceError(str(error)) from error
    yield from source.chunks(_NO_STAMP, 0.0)


def _take(
    block: bytes, lines: Mapping[str, re.Pattern[bytes]], old: Collection[str], found: Heard, backwards: bool = False
) -> None:
    """Count the sessions of some lines. backwards: whether the newest line is the first one."""
    first, last = (
        _time(stamp[0]) if (stamp := _STAMP.match(one)) else "" for one in (block, block.rpartition(b"\n")[2])
    )
    if backwards:
        found.began, found.ended = last or found.began, found.ended or first
    else:
        found.began, found.ended = found.began or first, last or found.ended
    for direction, pattern in lines.items():
        seen = found.sides[direction]
        for match in pattern.finditer(block):
            version = _name(match["version"])
            seen.sessions += 1
            name = match.groupdict().get("name") or b""
            peer = (name + match["peer"]).decode("ascii", "replace")
            if version not in old or (backwards and peer in seen.peers):
                continue
            if peer in seen.peers or len(seen.peers) < _MOST_PEERS:
                seen.peers[peer] = version


def _add(part: Heard, whole: Heard) -> None:
    whole.began = whole.began or part.began
    whole.ended = part.ended or whole.ended
    for direction, seen in part.sides.items():
        known = whole.sides[direction]
        known.sessions += seen.sessions
        for peer, version in seen.peers.items():
            if peer in known.peers or len(known.peers) < _MOST_PEERS:
                known.peers[peer] = version


def _time(stamp: bytes) -> str:
    text = stamp.decode()
    return f"{iso(float(text))[:16]}Z" if text.isdigit() else text


def _name(written: bytes) -> str:
    """Return a version as OpenSSL calls it: Exim with GnuTLS writes TLS1.0 for TLSv1."""
    found = _VERSION.match(written)
    if not found:
        return written.decode("ascii", "replace")
    kind, major, minor = (one.decode() if one else "" for one in found.groups())
    return f"{kind}v{major}{f'.{minor}' if minor not in ('', '0') else ''}"
