# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files as JSON, for the journal and for the record of what was there."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import ABSENT, FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import PathTrust


def digest_of(image: FileImage) -> str:
    """Return the SHA-256 of a file's content, or C(absent)."""
    return ABSENT if image.content is None else hashlib.sha256(image.content).hexdigest()


def entry_of(image: FileImage) -> dict[str, Any]:
    """Return the image as JSON. The content is in it, so the JSON is as secret as the file."""
    return {
        "path": image.path,
        "content": None if image.content is None else base64.b64encode(image.content).decode(),
        "mode": image.mode,
        "uid": image.uid,
        "gid": image.gid,
        "owners": sorted(image.trust.owners),
        "attributes": None if image.attributes is None else _encoded(image.attributes),
    }


def image_from(entry: Mapping[str, Any]) -> FileImage:
    """Return the image that entry_of has written. Raises KeyError, TypeError or ValueError if it cannot be read."""
    content, attributes = entry["content"], entry.get("attributes")
    if attributes is not None:
        attributes = {str(name): base64.b64decode(value) for name, value in dict(attributes).items()}
    return FileImage(
        path=str(entry["path"]),
        content=None if content is None else base64.b64decode(content),
        mode=int(entry["mode"]),
        uid=int(entry["uid"]),
        gid=int(entry["gid"]),
        attributes=attributes,
        trust=PathTrust(owners=frozenset(map(int, entry.get("owners", ())))),
    )


def _encoded(attributes: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in attributes.items()}
