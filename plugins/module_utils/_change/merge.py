# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A three-way merge of configuration files. Nothing is read or written.

A statement is the smallest part: a line with the lines that continue it. A continuation line begins with white space, or follows
a line that ends in a backslash. So no option of one service can end up below another service.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_LINE = re.compile(rb"[^\n]*\n|[^\n]+")


class Merged(NamedTuple):
    """The result. conflicts: the statements of ours that could not be merged; the content is theirs if there are any."""

    content: bytes
    conflicts: tuple[bytes, ...] = ()


class _Edit(NamedTuple):
    """statements[begin:end] of the base become new."""

    begin: int
    end: int
    new: tuple[bytes, ...]


def merge(base: bytes, ours: bytes, theirs: bytes) -> Merged:
    """Return theirs with what changed from base to ours.

    An edit that both made counts once. Edits of the same statement, and two additions at the same place, are conflicts.
    """
    statements = statements_of(base)
    own, other = (list(_edits(statements, statements_of(text))) for text in (ours, theirs))
    other = [edit for edit in other if edit not in own]
    conflicts = [one for one in own if any(_overlap(one, edit) for edit in other)]
    if conflicts:
        return Merged(theirs, tuple(_shown(statements, edit) for edit in conflicts))
    merged: list[bytes] = []
    done = 0
    for edit in sorted([*own, *other]):
        merged += [*statements[done : edit.begin], *edit.new]
        done = edit.end
    return Merged(_joined([*merged, *statements[done:]]))


def statements_of(text: bytes) -> list[bytes]:
    """Split a file into statements. Comments and empty lines in the middle of a statement belong to it."""
    found: list[bytes] = []
    backslash = False
    for line in _LINE.findall(text):
        blank = not line.strip()
        if found and (backslash or (line[:1] in b" \t" and not blank)):
            while len(found) > 1 and _is_filler(found[-1]):
                found[-2:] = [found[-2] + found[-1]]
            found[-1] += line
        else:
            found.append(line)
        backslash = line.rstrip().endswith(b"\\") and not line.lstrip().startswith(b"#")
    return found


def _is_filler(statement: bytes) -> bool:
    return all(not line.strip() or line.startswith(b"#") for line in statement.splitlines())


def _edits(base: Sequence[bytes], other: Sequence[bytes]) -> Iterator[_Edit]:
    """Yield what turns base into other. A removal of several statements is one edit for each of them."""
    head = 0
    while head < min(len(base), len(other)) and base[head] == other[head]:
        head += 1
    tail = 0
    while tail < min(len(base), len(other)) - head and base[-1 - tail] == other[-1 - tail]:
        tail += 1
    one, two = base[head : len(base) - tail], other[head : len(other) - tail]
    for kind, begin, end, new_begin, new_end in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if kind == "delete":
            yield from (_Edit(head + number, head + number + 1, ()) for number in range(begin, end))
        elif kind != "equal":
            yield _Edit(head + begin, head + end, tuple(two[new_begin:new_end]))


def _overlap(one: _Edit, two: _Edit) -> bool:
    if one.begin == one.end and two.begin == two.end:
        return one.begin == two.begin
    return one.begin < two.end and two.begin < one.end


def _shown(base: Sequence[bytes], edit: _Edit) -> bytes:
    return b"".join(edit.new or base[edit.begin : edit.end])


def _joined(statements: Sequence[bytes]) -> bytes:
    ended = [one if one.endswith(b"\n") else one + b"\n" for one in statements[:-1]]
    return b"".join([*ended, *statements[-1:]])
