# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of the certificate files of a host: who can read them, and the certificate. Never a key."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.readers import (
    Reader,
    closed_to,
    readers_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage, resolve
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.attributes import named_readers
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, UntrustedPathError

EVERYBODY = "everybody"
"""Stands for all users in a list of readers."""


def certificate_files(paths: Iterable[str]) -> list[dict[str, Any]]:
    """Return for each path C(path), C(readers), C(pem) and C(message). Nothing is raised.

    readers: names of the users, beside root, who can read the file, and EVERYBODY if all others can too. pem: the first certificate,
    None if there is none. message: why there is no certificate, or why nothing could be looked at; else empty.
    """
    return [_facts(path) for path in dict.fromkeys(paths)]


def _facts(path: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": path, "readers": [], "pem": None, "message": ""}
    if not path.startswith("/") or "\0" in path:
        return {**facts, "message": "could not look: it is not the path of one file"}
    try:
        image = FileImage.read(path, max_bytes=pem.MAX_BYTES, trust=LOOK)
        if image.content is None:
            return {**facts, "message": "there is no such file"}
        facts["readers"] = _readers(image)
    except OSError as error:
        return {**facts, "message": f"could not look: {error.strerror or error}"}
    except UntrustedPathError as error:
        return {**facts, "message": f"could not look: {error}"}
    try:
        leaf = pem.certificates(pem.split(image.content))[:1]
    except pem.PemError as error:
        return {**facts, "message": str(error)}
    if not leaf:
        return {**facts, "message": "it holds no certificate"}
    if not _is_certificate(leaf[0].der):
        return {**facts, "message": "its first block with the label CERTIFICATE is something else"}
    return {**facts, "pem": leaf[0].text}


def _is_certificate(der: bytes) -> bool:
    """Whether Python's OpenSSL reads it as a certificate. No form of a private key is one."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _by_list(image: FileImage) -> Iterator[Reader]:
    """Yield the users whom the file's access control list names and lets read it."""
    users, groups = named_readers(image.attributes or {})
    for uid in users:
        yield from readers_of(uid, 0, 0o400)
    for gid in groups:
        yield from readers_of(0, gid, 0o040)


def _readers(image: FileImage) -> list[str]:
    above = [(directory, directory.stat()) for directory in Path(resolve(image.path, LOOK)).parents]
    wanted = [*readers_of(image.uid, image.gid, image.mode), *_by_list(image)]
    names = {one.name for one in wanted if not any(closed_to(*directory, one) for directory in above)}
    everybody = image.mode & 0o004 and all(status.st_mode & 0o001 for _directory, status in above)
    return [*sorted(names), *([EVERYBODY] if everybody else [])]
