"""Access control lists without the tools of the package acl."""

import errno
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

NAME = "system.posix_acl_access"
_NOBODY = 0xFFFFFFFF


def packed_acl(user: int, group: int, other: int, users: Mapping[int, int], mask: int = 0o7) -> bytes:
    """An access control list as the kernel stores it. users: number -> permissions."""
    entries = [(0x01, user, _NOBODY), *((0x02, perm, uid) for uid, perm in sorted(users.items()))]
    entries += [(0x04, group, _NOBODY), (0x10, mask, _NOBODY), (0x20, other, _NOBODY)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def set_acl(path: Path, packed: bytes, name: str = NAME) -> None:
    """Set the list; skip the test where the file system has none."""
    try:
        os.setxattr(path, name, packed)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            pytest.skip(f"the file system of {path} has no {name}")
        raise
