# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding marked messages in an mbox file or a Maildir, reading headers only and nothing twice."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import BinaryIO

MARKER_HEADER = "X-Mailfleet-Trace"
MAX_LINE = 65536
# A marked message is new, so only the end of a large mbox is read.
MAX_TAIL = 64 * 1024 * 1024


def find_marked(mailbox: str, markers: Collection[str]) -> dict[str, list[str]]:
    """Marker -> Received headers of the message that carries it, for those that have arrived.

    A mailbox that does not exist yet is an empty one. Raises OSError when it cannot be read.
    """
    place = Path(mailbox)
    found: dict[str, list[str]] = {}
    for headers in _maildir(place) if place.is_dir() else _mbox(place):
        if MARKER_HEADER.lower().encode() not in headers.lower():
            continue
        message = BytesHeaderParser().parsebytes(headers)
        marker = str(message.get(MARKER_HEADER, "")).strip()
        if marker in markers:
            found[marker] = [str(value) for value in message.get_all("Received", [])]
    return found


def _maildir(place: Path) -> Iterator[bytes]:
    for folder in ("new", "cur"):
        for file in (place / folder).glob("*"):
            # A mail program may move a message from new to cur meanwhile; the next look finds it there.
            with contextlib.suppress(FileNotFoundError), file.open("rb") as handle:
                yield _headers(_lines(handle))


def _mbox(place: Path) -> Iterator[bytes]:
    try:
        handle = place.open("rb")
    except FileNotFoundError:
        return
    with handle:
        size = handle.seek(0, 2)
        handle.seek(max(0, size - MAX_TAIL))
        blank = True
        lines = _lines(handle)
        for line in lines:
            if blank and line.startswith(b"From "):
                yield _headers(lines)
                blank = True
                continue
            blank = line in (b"\n", b"\r\n")


def _lines(handle: BinaryIO) -> Iterator[bytes]:
    """The lines, each cut to MAX_LINE bytes and ended by a newline."""
    whole = True
    while piece := handle.readline(MAX_LINE):
        beginning, whole = whole, piece.endswith(b"\n")
        if beginning:
            yield piece if whole else piece + b"\n"


def _headers(lines: Iterator[bytes]) -> bytes:
    headers: list[bytes] = []
    for line in lines:
        if line in (b"\n", b"\r\n") or len(headers) > 2000:
            break
        headers.append(line)
    return b"".join(headers)
