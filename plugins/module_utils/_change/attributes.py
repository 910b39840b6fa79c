# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file has beside owner and mode: its access control list, its SELinux label, and the user's attributes.

With an access control list, the group bits of a file's status are the list's mask. This collection always means by the
mode of a file what its owner, its group and others may do, so setting a mode leaves the entries for single users alone.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import ACL, acl_entries

_LABEL = "security.selinux"
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_READ = 4
_SHIFTS = {_USER_OBJ: 6, _GROUP_OBJ: 3, _OTHER: 0}


def attributes_of(fd: int) -> dict[str, bytes]:
    """Return the attributes of an open file that a new version of it has to keep. Empty where there are none."""
    try:
        names = os.listxattr(fd)
        kept = [name for name in names if name in (ACL, _LABEL) or name.startswith("user.")]
        return {name: os.getxattr(fd, name) for name in kept}
    except AttributeError:  # not on Linux
        return {}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return {}
        raise


def mode_of(status_mode: int, attributes: Mapping[str, bytes]) -> int:
    """Return the mode of a file by the meaning above, from the bits of its status."""
    perms = {tag: perm for tag, perm, _id in acl_entries(attributes.get(ACL, b""))}
    if _MASK not in perms or _GROUP_OBJ not in perms:
        return status_mode
    return status_mode & ~0o070 | (perms[_GROUP_OBJ] & perms[_MASK]) << 3


def named_readers(attributes: Mapping[str, bytes]) -> tuple[list[int], list[int]]:
    """Return the numbers of the users and of the groups that an access control list names and lets read."""
    entries = acl_entries(attributes.get(ACL, b""))
    mask = next((perm for tag, perm, _id in entries if tag == _MASK), 0)
    reading = [(tag, number) for tag, perm, number in entries if perm & mask & _READ]
    return [number for tag, number in reading if tag == _USER], [number for tag, number in reading if tag == _GROUP]


def dress(fd: int, mode: int, wanted: Mapping[str, bytes], exactly: bool) -> None:
    """Give an open new file its mode and attributes. Raises OSError; a file system without attributes is no error.

    exactly: also remove the access control list that its directory has given it, if none is wanted.
    """
    os.fchmod(fd, mode)
    here = attributes_of(fd)
    for name, value in wanted.items():
        if name != ACL and here.get(name) != value:
            _set(fd, name, value)
    if ACL in wanted:
        _set(fd, ACL, _fitting(wanted[ACL], mode))
    elif ACL in here and exactly:
        os.removexattr(fd, ACL)
        os.fchmod(fd, mode)
    elif ACL in here:  # by the directory's default; fchmod has made the mask that of a file with this mode
        _set(fd, ACL, _fitting(here[ACL], mode))


def _set(fd: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise


def _fitting(packed: bytes, mode: int) -> bytes:
    """Return the list with the permissions of this mode for owner, group and others. The other entries stay."""
    entries = acl_entries(packed)
    perms = {tag: perm for tag, perm, _id in entries}
    if mode_of(mode, {ACL: packed}) == mode and all(
        perms.get(tag) == mode >> _SHIFTS[tag] & 7 for tag in (_USER_OBJ, _OTHER)
    ):
        return packed  # as it was: the group's own permissions may be wider than the mask lets through
    bits = {tag: mode >> shift & 7 for tag, shift in _SHIFTS.items()}
    bits[_MASK] = perms.get(_MASK, 0) | bits[_GROUP_OBJ]
    fitted = [(tag, bits.get(tag, perm), number) for tag, perm, number in entries]
    return packed[:4] + b"".join(struct.pack("<HHI", *entry) for entry in fitted)
