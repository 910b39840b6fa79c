# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work as another user for a moment, so that the kernel refuses what that user may not do."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """In this context, files are used with the rights of this user, in the user's groups and in this group.

    The identity of before comes back at the end, whatever happens. Only root can take another identity: for everybody else, and
    for the files of root, nothing changes. Raises OSError if root may not do it, for example in a container.
    """
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    former_groups, former_gid = os.getgroups(), os.getegid()
    try:
        # The user last: after that, this process is not allowed to change its groups.
        os.setgroups(_groups(uid, gid))
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(former_gid)
        os.setgroups(former_groups)


def _groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # a user that only owns mail has no name on some hosts
        return [gid]
