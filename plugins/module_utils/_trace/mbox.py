# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages in an open mbox file: found, and removed. Whatever stands in it, time and memory are bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, Callable, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    MAILBOX_HEADER_BYTES,
    MAILBOX_LOOK_BYTES,
    Budget,
)

MAX_HEADER_LINE = 65536
_BLOCK = 1 << 16
_EMPTY = (b"\n", b"\r\n")


def messages(handle: BinaryIO, end: int, budget: Budget) -> Iterator[tuple[int, bytes]]:
    """Yield the messages in the last MAILBOX_LOOK_BYTES before an offset: where the separator line begins, and the headers.

    The headers are empty if they are longer than MAILBOX_HEADER_BYTES. Raises ExhaustedError.
    """
    handle.seek(max(0, end - MAILBOX_LOOK_BYTES))
    empty = True
    lines = _lines(handle, end, budget)
    for offset, line in lines:
        if empty and line.startswith(b"From "):
            headers, empty = _headers(lines)
            yield offset, headers
        else:
            empty = line in _EMPTY


def remove(fd: int, is_unwanted: Callable[[bytes], bool], budget: Budget) -> None:
    """Remove messages from a file that is locked and open for reading and writing. is_unwanted: gets the headers of each.

    Raises ExhaustedError before anything is changed, and OSError.
    """
    size = os.fstat(fd).st_size
    unwanted: list[tuple[int, int]] = []
    start = -1
    with os.fdopen(fd, "rb", closefd=False) as handle:
        for offset, headers in messages(handle, size, budget):
            if start >= 0:
                unwanted.append((start, offset))
            start = offset if is_unwanted(headers) else -1
    if start >= 0:
        unwanted.append((start, size))
    if unwanted:
        _cut(fd, unwanted)


def _lines(handle: BinaryIO, end: int, budget: Budget) -> Iterator[tuple[int, bytes]]:
    """Yield the offset of each line before end and the line, cut to MAX_HEADER_LINE bytes and ended by a newline."""
    whole, offset = True, handle.tell()
    unpaid = 0
    while offset < end and (piece := handle.readline(min(MAX_HEADER_LINE, end - offset))):
        unpaid += len(piece)
        if unpaid >= _BLOCK:  # not for each line: that would take as long as reading it
            budget.spend(unpaid)
            unpaid = 0
        beginning, whole = whole, piece.endswith(b"\n")
        if beginning:
            yield offset, piece if whole else piece + b"\n"
        offset += len(piece)


def _headers(lines: Iterator[tuple[int, bytes]]) -> tuple[bytes, bool]:
    """Return the headers, none if they are too long, and whether the last line that was read is empty."""
    headers: list[bytes] = []
    size = 0
    for _offset, line in lines:
        if line in _EMPTY:
            return b"".join(headers), True
        size += len(line)
        if size > MAILBOX_HEADER_BYTES:
            return b"", False
        headers.append(line)
    return b"".join(headers), False


def _cut(fd: int, parts: list[tuple[int, int]]) -> None:
    """Remove parts of a file, in order. The rest moves up from its beginning, so a kill during the move loses nothing of the rest."""
    # A program that ignores the locks may go on writing.
    budget = Budget("the move of what is behind a message", {"bytes": 2 * MAILBOX_LOOK_BYTES})
    target = parts[0][0]
    ends: list[Optional[int]] = [*(start for start, _end in parts[1:]), None]
    for (_start, begin), end in zip(parts, ends):
        source = begin
        while block := os.pread(fd, _BLOCK if end is None else min(_BLOCK, end - source), source):
            budget.spend(len(block))
            source += len(block)
            while block:
                written = os.pwrite(fd, block, target)
                target += written
                block = block[written:]
    os.ftruncate(fd, target)
    os.fsync(fd)
