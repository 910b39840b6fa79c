# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which peers used old TLS versions, from the newest log files. An estimate for a plan; tls_activity_info counts exactly."""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_files import opened, status_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

MOST_BYTES = 32 << 20
"""How much of the logs is read, the newest first."""
_BLOCK = 1 << 20
_MOST_PEERS = 10_000
_STAMP = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d")
_VERSION = re.compile(rb"(TLS|SSL)v?(\d)(?:\.(\d))?\Z")


@dataclass
class Seen:
    """What the log tells of one direction. sessions: those with a TLS version. peers: peer -> the old version that it used last."""

    sessions: int = 0
    peers: dict[str, str] = field(default_factory=dict)


@dataclass
class Heard:
    """What the log tells. began and ended: the times of its first and last line, as they are written; empty if there is none."""

    sides: dict[str, Seen]
    began: str = ""
    ended: str = ""


def old_peers(patterns: Iterable[str], lines: Mapping[str, re.Pattern[bytes]], old: Collection[str]) -> Heard:
    """Return who used one of the old versions, also if it used a newer one as well: several programs may have one address.

    patterns: of the log files; compressed ones are left out. lines: direction -> what finds a session: its C(peer) and C(version), perhaps
    its C(name).
    """
    found = Heard({direction: Seen() for direction in lines})
    left = MOST_BYTES
    newest: list[tuple[str, int]] = []
    for path, _when, size in sorted(_files(patterns), key=lambda one: one[1], reverse=True):
        if left > 0:
            newest.append((path, left))
            left -= size
    for path, most in reversed(newest):  # the oldest first: what a peer used last counts
        with contextlib.suppress(OSError, EngineError):
            for block in _blocks(path, most):
                _take(block, lines, old, found)
    return found


def _files(patterns: Iterable[str]) -> Iterator[tuple[str, float, int]]:
    """Yield each uncompressed file once, with the time of its last line and its size."""
    paths = {path for one in patterns for path in glob.glob(one)}  # noqa: PTH207  (without pathlib: this runs on every host)
    for path in sorted(paths):
        if not path.endswith((".gz", ".xz", ".bz2", ".zst")):
            with contextlib.suppress(OSError, EngineError):
                if status := status_of(path):
                    yield path, status.st_mtime, status.st_size


def _blocks(path: str, most: int) -> Iterator[bytes]:
    """Yield whole lines of the end of a file, many at a time."""
    with opened(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - most))
        rest = b""
        cut = size > most
        while data := file.read(_BLOCK):
            lines, mark, rest_of = (rest + data).rpartition(b"\n")
            rest = rest_of[-_BLOCK:]
            if cut:
                lines = lines.partition(b"\n")[2]
                cut = False
            if mark:
                yield lines
        if rest:
            yield rest


def _take(block: bytes, lines: Mapping[str, re.Pattern[bytes]], old: Collection[str], found: Heard) -> None:
    if not found.began and (stamp := _STAMP.match(block)):
        found.began = stamp[0].decode()
    if stamp := _STAMP.match(block.rpartition(b"\n")[2]):
        found.ended = stamp[0].decode()
    for direction, pattern in lines.items():
        seen = found.sides[direction]
        for match in pattern.finditer(block):
            version = _name(match["version"])
            seen.sessions += 1
            name = match.groupdict().get("name") or b""
            peer = (name + match["peer"]).decode("ascii", "replace")
            if version in old and (peer in seen.peers or len(seen.peers) < _MOST_PEERS):
                seen.peers[peer] = version


def _name(written: bytes) -> str:
    """Return a version as OpenSSL calls it: Exim with GnuTLS writes TLS1.0 for TLSv1."""
    found = _VERSION.match(written)
    if not found:
        return written.decode("ascii", "replace")
    kind, major, minor = (one.decode() if one else "" for one in found.groups())
    return f"{kind}v{major}{f'.{minor}' if minor not in ('', '0') else ''}"
