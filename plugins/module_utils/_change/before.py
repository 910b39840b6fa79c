# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of what was there: for each changed file, the state that it would have without the collection.

Each writer, that is a daemon's transactions or the module tls_certificate, has a record of its own in the store. It has an
entry for each path that differs from what it would be without the collection:

- without: the file as it was before the first change. What somebody edits by hand afterwards is carried over into it.
- last: the file as the last change left it. If the file is another one now, somebody has edited it.

A record holds what the files hold, so it is only in the store (directory 0700, file 0600), never in a result, diff or log.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.conceal import conceal
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.formats import KEY, NewerFormatError, format_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.merge import merge
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import (
    PathTrust,
    UntrustedPathError,
    remove_directory,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.stored import digest_of, entry_of, image_from
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

RECORD_FORMAT = 1
"""The format of the records that this version writes."""

CERTIFICATES = "certificate"
"""The name of the record of files that belong to no daemon alone: certificates that tls_certificate installs."""

SUFFIX = ".before"


@dataclass(frozen=True)
class Origin:
    """What is known of one path. digest: that of the content of last, because last has no content if the file is secret.

    conflict: the statements, without secrets, that somebody edited by hand and that could not be carried over into without.
    """

    without: FileImage
    last: FileImage
    digest: str
    conflict: str = ""

    @classmethod
    def of(cls, without: FileImage, last: FileImage, conflict: str = "") -> Origin:
        """Return the entry after a change that has written last."""
        kept = replace(last, content=None) if last.secret else last
        return cls(replace(without, secret=last.secret), kept, digest_of(last), conflict)

    def is_last(self, present: FileImage) -> bool:
        """Whether a file is as the last change left it."""
        return digest_of(present) == self.digest and (present.content is None or _dress(present) == _dress(self.last))

    def carried(self, present: FileImage) -> tuple[FileImage, str]:
        """Return the file as it would be without the collection, with what was edited by hand since. Also the conflict, if any.

        An edit of the same lines that the collection has changed is a conflict; the edit is then not in the returned file.
        """
        if self.is_last(present):
            return self.without, self.conflict
        if same(present, self.without):
            return self.without, ""
        if present.content is None:
            return replace(self.without, content=None), ""  # removed by hand
        content, conflict = self.without.content, self.conflict
        if self.digest == digest_of(replace(present, content=None)):
            content = present.content  # made by hand since
        elif digest_of(present) != self.digest and self.last.content is not None:
            merged = merge(self.last.content, present.content, self.without.content or b"")
            empty = self.without.content is None and not merged.content
            content = None if empty else merged.content
            text = b"".join(merged.conflicts).decode("utf-8", "replace")
            conflict = "\n".join(filter(None, (conflict, conceal(text))))
        return self._dressed(present, content), conflict

    def _dressed(self, present: FileImage, content: Optional[bytes]) -> FileImage:
        """Return the file with this content, and the owner, mode and attributes that somebody has given it since."""
        if self.last.content is None and not self.without.secret:
            return replace(present, content=content)
        pairs = zip(_dress(present), _dress(self.last), _dress(self.without))
        mode, uid, gid = (now if now != last else former for now, last, former in pairs)
        edited = present.attributes != self.last.attributes
        attributes = present.attributes if edited else self.without.attributes
        return replace(self.without, content=content, mode=mode, uid=uid, gid=gid, attributes=attributes)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain data, for the record only."""
        return {
            "without": entry_of(self.without),
            "last": {**entry_of(self.last), "sha256": self.digest},
            "secret": self.without.secret,
            "conflict": self.conflict,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Origin:
        """Return the entry of a record. Raises KeyError, TypeError or ValueError."""
        secret = bool(data["secret"])
        without, last = (replace(image_from(data[name]), secret=secret) for name in ("without", "last"))
        return cls(without, last, str(data["last"]["sha256"]), str(data["conflict"]))


@dataclass(frozen=True)
class Record:
    """What was there before one writer's first change.

    files: path -> entry. directories: those that it made -> numbers of the users whom their paths may trust, besides root.
    incomplete: whether a version without records has been at work before, so that the first state of some files is not known.
    """

    files: Mapping[str, Origin] = field(default_factory=dict)
    directories: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    incomplete: bool = False

    def noted(
        self,
        changes: Iterable[tuple[FileImage, FileImage]],
        directories: Optional[Mapping[str, PathTrust]] = None,
        others: Iterable[Record] = (),
    ) -> Record:
        """Return the record after a change of files. changes: the file as it is on the disk, and as the change leaves it.

        directories: those that the change makes, and whom their paths may trust.
        others: the records of the other writers, which may have changed a file before.
        """
        files = dict(self.files)
        known = list(others)
        for present, after in changes:
            path = after.path
            entry = files.pop(path, None) or next((one.files[path] for one in known if path in one.files), None)
            without, conflict = entry.carried(present) if entry else (present, "")
            if entry and digest_of(after) == entry.digest:  # the edit by hand is gone
                without, conflict = entry.without, entry.conflict
            if not same(after, without):
                files[path] = Origin.of(without, after, conflict)
        made = {directory: tuple(sorted(trust.owners)) for directory, trust in (directories or {}).items()}
        return replace(self, files=files, directories={**self.directories, **made})

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data, for its file only."""
        return {
            KEY: RECORD_FORMAT,
            "incomplete": self.incomplete,
            "files": [self.files[path].to_json() for path in sorted(self.files)],
            "directories": {directory: list(owners) for directory, owners in self.directories.items()},
        }


@dataclass(frozen=True)
class Removal:
    """What puts back everything.

    images: the files as they would be without the collection. kept: the paths that keep something edited by hand.
    obstacles: what stands in the way, one text for each path. incomplete: see Record.
    """

    images: tuple[FileImage, ...]
    kept: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()
    incomplete: bool = False


def removal(
    store: str,
    name: str,
    paths: Optional[Collection[str]] = None,
    leave: Collection[str] = (),
    certificates: Collection[str] = (),
) -> Removal:
    """Return what puts back the files of a writer. Changes nothing.

    paths: these files only; None for all. leave: the paths that stay as they are. certificates: paths that are put back although
    tls_certificate has changed them. A file that the record of another daemon also names stays.
    Apply the change of the images in a transaction of the writer, then call forget().
    Raises EngineError if a record cannot be read, and OSError.
    """
    record = load(store, name)
    mine = {path: entry for path, entry in load(store, CERTIFICATES).files.items() if path in certificates}
    mine.update(record.files)
    elsewhere = {path for one in _names(store) - {name, CERTIFICATES} for path in load(store, one).files}
    images, kept, obstacles = [], [], []
    for path, entry in sorted(mine.items()):
        if path in leave or path in elsewhere or (paths is not None and path not in paths):
            continue
        present = FileImage.read(path, trust=entry.without.trust)
        if entry.without.secret and digest_of(present) not in (entry.digest, digest_of(entry.without)):
            kept.append(path)  # somebody has installed another certificate: it is theirs
            continue
        without, conflict = entry.carried(present)
        if conflict:
            obstacles.append(_obstacle(path, conflict))
            continue
        if not entry.is_last(present) and not same(present, entry.without) and without.content is not None:
            kept.append(path)
        images.append(replace(without, seen=present.seen))
    return Removal(tuple(images), tuple(kept), tuple(obstacles), record.incomplete)


def _obstacle(path: str, conflict: str) -> str:
    lines = " / ".join(line.strip() for line in conflict.splitlines() if line.strip())
    return (
        f"{path} was edited by hand in lines that the collection had changed ({lines}); edit it so that it is as you want it "
        "without the collection, then name it in starttls_uninstall_keep"
    )


def load(store: str, name: str) -> Record:
    """Return the record of a writer. Without a file it is empty and incomplete. Raises EngineError and OSError."""
    path = path_of(store, name)
    content = FileImage.read(path).content
    if content is None:
        return Record(incomplete=name != CERTIFICATES)
    try:
        data = json.loads(content)
        format_of(data, RECORD_FORMAT, path)
        entries = [Origin.from_json(one) for one in data["files"]]
        files = {one.without.path: one for one in entries}
        made = {str(one): tuple(map(int, owners)) for one, owners in dict(data["directories"]).items()}
        return Record(files, made, bool(data["incomplete"]))
    except NewerFormatError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{path}, the record of what was there, cannot be read ({error}); restore it from a backup, or remove it: then "
            "uninstall cannot put back what was there before"
        ) from error


def others(store: str, name: str) -> list[Record]:
    """Return the records of the other writers of this host. Raises as load() does."""
    return [load(store, one) for one in sorted(_names(store) - {name})]


def image_of(store: str, name: str, record: Record) -> FileImage:
    """Return the file of a record."""
    content = json.dumps(record.to_json()).encode()
    return FileImage(path_of(store, name), content, 0o600, os.getuid(), os.getgid())


def path_of(store: str, name: str) -> str:
    """Return the path of a writer's record."""
    return f"{store}/{name}{SUFFIX}"


def begin(store: str, name: str) -> None:
    """Write an empty, complete record if there is none. For the first run of a writer on a host, under its lock."""
    if not os.path.lexists(path_of(store, name)):
        image_of(store, name, Record()).write()


def note(
    store: str,
    name: str,
    changes: Sequence[tuple[FileImage, FileImage]],
    directories: Optional[Mapping[str, PathTrust]] = None,
) -> None:
    """Write into the record what a change without a transaction is about to do. See Record.noted."""
    former = load(store, name)
    record = former.noted(changes, directories, others(store, name))
    if record != former:
        image_of(store, name, record).write()


def forget(store: str, name: str, certificates: Collection[str] = ()) -> None:
    """Remove the directories that a writer made, if they are empty, and its record. Called under its lock, after the removal.

    certificates: as for removal(); they leave the record of tls_certificate.
    """
    shared = load(store, CERTIFICATES)
    rest = {path: entry for path, entry in shared.files.items() if path not in certificates}
    _remove_empty({**load(store, name).directories, **shared.directories})
    left = {directory: owners for directory, owners in shared.directories.items() if os.path.lexists(directory)}
    gone = not rest and not left
    image = image_of(store, CERTIFICATES, Record(rest, left))
    (replace(image, content=None) if gone else image).write()
    FileImage(path_of(store, name), None).write()


def same(one: FileImage, two: FileImage) -> bool:
    """Whether two images are the same file on the disk; of files that do not exist, owner and mode do not count."""
    if one.content is None or two.content is None:
        return one.content is two.content
    return one.content == two.content and _dress(one) == _dress(two)


def _dress(image: FileImage) -> tuple[int, int, int]:
    return image.mode, image.uid, image.gid


def _names(store: str) -> set[str]:
    return {path.name[: -len(SUFFIX)] for path in Path(store).glob(f"*{SUFFIX}")}


def _remove_empty(directories: Mapping[str, Sequence[int]]) -> None:
    for directory in sorted(directories, reverse=True):  # the inner ones first
        with contextlib.suppress(OSError, UntrustedPathError):  # somebody else's files are in it, or it is gone
            remove_directory(directory, PathTrust(owners=frozenset(directories[directory])))
