# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which users can read a file by its mode bits, and which users must be able to."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_SHIFT = {"u": 6, "g": 3, "o": 0}
_READ, _PASS = 4, 1


class Reader(NamedTuple):
    """A user who must be able to open a file. gids are all groups of the user."""

    name: str
    uid: int
    gids: frozenset[int]


def can_read(path: str, uid: int, gids: Collection[int]) -> bool:
    """Return whether a user may read the file and pass the directories above it.

    An access control list may let the user in, in spite of the mode. So what has such a list counts as open.
    """
    file = Path(path).resolve()
    passes = all(_allows(one.stat(), uid, gids, _PASS) or _has_acl(one) for one in file.parents)
    return passes and (_allows(file.stat(), uid, gids, _READ) or _has_acl(file))


def readers_of(uid: int, gid: int, mode: int) -> Iterator[Reader]:
    """Yield the users, except root, who can read a file with this owner, group and mode."""
    if uid:
        yield _owner(uid)
    if not mode & stat.S_IRGRP or not gid:
        return
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    users = [user for user in pwd.getpwall() if user.pw_gid == gid or user.pw_name in members]
    for user in users:
        if user.pw_uid:
            yield _reader(user)
    if not users:
        yield Reader(f"of group {gid}", -1, frozenset({gid}))


def closed_to(directory: Path, status: os.stat_result, reader: Reader) -> str:
    """Return the class of users (C(u), C(g) or C(o)) that lacks the right to pass; empty if the reader can pass.

    An access control list may let the reader pass in spite of the mode. So a directory with such a list counts as open.
    """
    passes = _allows(status, reader.uid, reader.gids, _PASS) or _has_acl(directory)
    return "" if passes else _class_of(status, reader.uid, reader.gids)


def _owner(uid: int) -> Reader:
    try:
        return _reader(pwd.getpwuid(uid))
    except KeyError:
        return Reader(str(uid), uid, frozenset())


def _reader(user: pwd.struct_passwd) -> Reader:
    return Reader(user.pw_name, user.pw_uid, frozenset(os.getgrouplist(user.pw_name, user.pw_gid)))


def _class_of(status: os.stat_result, uid: int, gids: Collection[int]) -> str:
    """Return which class of mode bits (C(u), C(g) or C(o)) applies to a user."""
    if status.st_uid == uid:
        return "u"
    return "g" if status.st_gid in gids else "o"


def _allows(status: os.stat_result, uid: int, gids: Collection[int], bit: int) -> bool:
    return bool(status.st_mode & (bit << _SHIFT[_class_of(status, uid, gids)]))


def _has_acl(directory: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(directory)
    except (OSError, AttributeError):
        return False
