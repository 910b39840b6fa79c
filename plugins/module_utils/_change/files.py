# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A transaction on a mail daemon's files. At the end, the host is proved to be in the new state or in the old one.

snapshot -> write -> the daemon's own check -> reload -> proof -> commit. After any failure, and after SIGHUP,
SIGINT or SIGTERM, the old files are written back, the daemon reloads and the old state is proved. A journal
beside the lock file stays after a killed run. The next run restores the old files from the journal first.
The record of what was there (see before) is one of the files of each change, so it is always that of the files on the disk.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before as record
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.conceal import conceal
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.formats import KEY, NewerFormatError, format_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import (
    SECONDS,
    STORE,
    daemon_locked,
    lock_exists,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import (
    PathTrust,
    UntrustedPathError,
    make_directory,
    missing_directories,
    remove_directory,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Stopped, reason_of, stoppable
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.stored import digest_of, entry_of, image_from
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

# Postfix waits until a changed main.cf is more than a second old, in case it is still being written. A renamed file is
# complete at once, so it gets an older time of modification, and Postfix does not wait.
SETTLED_SECONDS = 3.0
_ANY = "any"
JOURNAL_FORMAT = 2
"""The format of the journals that this version writes. Format 0 had the keys of format 1, without the number."""


class Daemon(Protocol):
    """The part of an adapter that the transaction uses. name: names the lock, the journal and the daemon in messages."""

    name: str
    reads_files_unasked: bool
    """Whether processes of the running daemon may read changed files before a reload."""

    def check(self) -> None:
        """Raise EngineError if the daemon's own check refuses the files on disk."""

    def reload(self) -> None:
        """Make the running daemon use the files on disk, without a restart. Raises EngineError."""

    def resume(self) -> None:
        """Make the running daemon use the restored files, and no other pending change. Raises EngineError."""


@dataclass(frozen=True)
class Change:
    """Files before and after, in the order in which they are written. A reload without files is a change too.

    kept: the former state of files that the daemon's own tools write during the reload.
    directories: those that the change creates, the outer ones first; an undone change removes them if they are empty.
    between: the state of files after the first of two merged changes, see following().
    found: the files as they have to be on the disk when the change begins. None stands for before and kept.
    """

    before: tuple[FileImage, ...]
    after: tuple[FileImage, ...]
    reload: bool = False
    kept: tuple[FileImage, ...] = ()
    directories: tuple[str, ...] = field(default=(), compare=False)
    between: tuple[FileImage, ...] = ()
    found: Optional[tuple[FileImage, ...]] = field(default=None, compare=False)

    @classmethod
    def of(cls, after: Sequence[FileImage], reload: bool = False) -> Change:
        """Return the change from the files on disk to the given images, without the files that stay the same.

        Raises EngineError if an image was made from a file that somebody has changed since it was read.
        """
        pairs = [(_on_disk(image), image) for image in after]
        _refuse_edited([old.path for old, new in pairs if new.seen and new.seen != old.seen])
        differing = [(old, new) for old, new in pairs if old != new and (old.content, new.content) != (None, None)]
        new_ones = tuple(new for _old, new in differing)
        return cls(
            tuple(old for old, _new in differing), new_ones, reload, directories=tuple(_directories_to_make(new_ones))
        )

    def __bool__(self) -> bool:
        return bool(self.after) or self.reload

    def diff(self) -> list[dict[str, str]]:
        """Return the changed lines in Ansible's diff format, without secret files.

        Other lines are left out, because they may be secret.
        """
        return [{"prepared": lines} for _path, lines in self.lines()]

    def lines(self) -> list[tuple[str, str]]:
        """Return path and changed lines of each changed file that is not secret. Secrets in the lines are hidden."""
        return [(new.path, _changed_lines(old, new)) for old, new in zip(self.before, self.after) if not new.secret]

    def preceded_by(self, image: FileImage) -> Change:
        """Return this change with another file, which is written first. The change stays the same if the file is as wanted."""
        first = Change.of([image])
        directories = tuple(dict.fromkeys((*first.directories, *self.directories)))
        return replace(self, before=first.before + self.before, after=first.after + self.after, directories=directories)

    def mentioned_before(self, text: str) -> bool:
        """Whether one of the files contained this text before; true if no file changes."""
        return not self.before or any(text.encode() in (image.content or b"") for image in self.before)

    def following(self, first: Change) -> Change:
        """Return this change as one that also undoes the change before it. Used for two changes of one call.

        first was applied and proved under the same lock, and this change was planned after that. The merged change
        holds the state of each file before both and after both. So if apply() fails, the files of both come back, and
        the next run undoes both if this one is killed. A file that first has written already is not written again. A
        change without effect stays as it is: nothing can fail, so nothing has to be undone.

        prove_old of the merged change has to prove the state before both. The changes show their diffs themselves.
        """
        if not self:
            return self
        former: dict[str, FileImage] = {}
        for image in (*first.before, *first.kept, *self.before, *self.kept):
            former.setdefault(image.path, image)
        own = {image.path for image in self.after}
        found = {image.path: image for image in (*first.after, *self.before, *self.kept)}
        # In the order of this change, because its record is written last. The others are on the disk already.
        after = (*(image for image in first.after if image.path not in own), *self.after)
        written = {image.path for image in after}
        return Change(
            tuple(former[image.path] for image in after),
            after,
            self.reload or first.reload,
            tuple(image for path, image in former.items() if path not in written),
            tuple(dict.fromkeys((*first.directories, *self.directories))),
            (*first.between, *(image for image in self.before if image != former[image.path])),
            tuple(found.values()),
        )

    def refuse_edited(self) -> None:
        """Raise EngineError if a file is no longer as it was when this change was computed."""
        found = (*self.before, *self.kept) if self.found is None else self.found
        pairs = [(_on_disk(image), image) for image in found]
        _refuse_edited(
            [old.path for old, image in pairs if old != image and (old.content, image.content) != (None, None)]
        )

    def undoing(self) -> Change:
        """Return the change that takes this one back. It is for a change that was applied under the same lock."""
        return Change(self.after, self.before, True, tuple(map(_on_disk, self.kept)))


def _changed_lines(old: FileImage, new: FileImage) -> str:
    lines = difflib.unified_diff(
        conceal((old.content or b"").decode("utf-8", "replace")).splitlines(),
        conceal((new.content or b"").decode("utf-8", "replace")).splitlines(),
        f"before: {old.path}" if old.content is not None else "before: (absent)",
        f"after: {new.path}" if new.content is not None else "after: (absent)",
        lineterm="",
        n=0,
    )
    shown = [line for line in lines if not line.startswith("@@")]
    there = old.content is not None and new.content is not None
    if not shown and old.content != new.content:
        shown = [f"--- before: {old.path}", f"+++ after: {new.path}", "(only what is not shown here changes)"]
    if there and (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid):
        shown = shown or [f"--- before: {old.path}", f"+++ after: {new.path}"]
        shown.append(f"-mode {old.mode:04o} owner {old.uid}:{old.gid}")
        shown.append(f"+mode {new.mode:04o} owner {new.uid}:{new.gid}")
    return "\n".join(shown) + "\n"


class _Noted(NamedTuple):
    """The file of the record: as it was before the change (or before both merged ones), as it is, as the change leaves it."""

    former: FileImage
    present: FileImage
    after: FileImage


class Transaction:
    """The journal and lock of one daemon on this host. Use C(with transaction.opened(check_mode)), then apply()."""

    def __init__(self, daemon: Daemon, store: str = STORE) -> None:
        """Prepare only; no file or directory is created. store: the directory of locks and journals."""
        self._daemon = daemon
        self._store = Path(store)
        self._journal = self._store / f"{daemon.name}.journal"

    @contextlib.contextmanager
    def locked(self, seconds: float = SECONDS) -> Iterator[Transaction]:
        """Hold the daemon's lock and a share of the host's, so that two runs never change the same files at the same time.

        Raises EngineError if another run holds the lock for longer than these seconds.
        """
        first = not lock_exists(self._daemon.name, str(self._store))
        with daemon_locked(self._daemon.name, str(self._store), seconds):
            if first:
                record.begin(str(self._store), self._daemon.name)
            yield self

    @contextlib.contextmanager
    def opened(self, check_mode: bool) -> Iterator[tuple[bool, list[str]]]:
        """Lock the daemon and undo the change of a killed run. Yields whether there was one, and warnings.

        Check mode locks and restores nothing; it only warns. Raises EngineError if another run holds the lock for too
        long, or if the journal cannot be read or was written by a newer version.
        """
        if not check_mode:
            with self.locked():
                yield self.recover(), []
        elif self.interrupted:
            self._left_over()
            yield False, ["an earlier run was interrupted; a real run first restores the files that it changed"]
        else:
            yield False, []

    @property
    def interrupted(self) -> bool:
        """Whether a killed run has left a journal."""
        return self._journal.exists()

    def recover(self) -> bool:
        """Undo the change of a killed run. Return whether there was one.

        Raises EngineError if somebody else has changed a file since (their edit is kept), and if the journal cannot
        be read or was written by a newer version.
        """
        if not self.interrupted:
            return False
        images, written, directories = self._left_over()
        for image, after in zip(images, written):
            now = _on_disk(image)
            if now != image and not {digest_of(now), _ANY} & {*after}:
                raise EngineError(
                    f"a run was interrupted and {image.path} has been edited since; make sure the file is "
                    f"what you want, then remove {self._journal} and run again"
                )
        with stoppable():
            self._restore(images, directories)
            self._end()
        return True

    def _left_over(self) -> tuple[list[FileImage], list[list[str]], list[str]]:
        """Read the journal: the former files, the digests of what the run wrote to each, and the directories it created."""
        try:
            journal = json.loads(self._journal.read_text())
            format_of(journal, JOURNAL_FORMAT, f"the journal {self._journal} of an interrupted run")
            images = [image_from(entry) for entry in journal["files"]]
            written = [[entry["after_sha256"], *entry.get("between_sha256", ())] for entry in journal["files"]]
            return images, written, [str(directory) for directory in journal["directories"]]
        except NewerFormatError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"the journal {self._journal} of an interrupted run cannot be read ({error}); compare the "
                f"files of {self._daemon.name} with your backup, then remove the journal"
            ) from error

    def apply(self, change: Change, prove: Callable[[], None], prove_old: Callable[[], None]) -> None:
        """Make the change, or undo it. prove and prove_old raise EngineError if the daemon does not show the state.

        Raises TransactionError with the reason if the change failed; restored says whether it was undone. Raises EngineError
        before anything is written if somebody has changed a file since the change was computed.
        """
        missing = _directories_to_make(change.after)
        directories = list(dict.fromkeys((*change.directories, *missing)))
        with stoppable() as stop:
            change.refuse_edited()
            noted = self._noted(change, missing)
            self._begin(change, directories, noted)
            seen = self._daemon.reads_files_unasked
            try:
                stop.look()
                for directory, trust in missing.items():
                    make_directory(directory, trust=trust)
                for image in [*(one.after for one in noted), *change.after]:
                    if _on_disk(image) != image:
                        image.write(mtime=time.time() - SETTLED_SECONDS)
                with stop.obeyed():
                    self._daemon.check()
                    seen = True
                    self._daemon.reload()
                    prove()
            except BaseException as error:
                stop.end()
                reason = reason_of(error)
                try:
                    former = [one.former for one in noted]
                    self._restore([*former, *change.before, *change.kept], directories, resume=seen)
                    prove_old()
                except (EngineError, OSError) as second:
                    raise TransactionError(
                        f"{reason}. The rollback failed as well: {second}. The former files are in "
                        f"{self._journal}; run again to restore them",
                        restored=False,
                    ) from error
                self._end()
                if not isinstance(error, (Exception, Stopped)):
                    raise
                raise TransactionError(f"{reason}. The former state is restored and proved", True) from error
            self._end()

    def _restore(self, images: Sequence[FileImage], directories: Sequence[str], resume: bool = True) -> None:
        failures = []
        for image in reversed(images):
            try:
                image.write(mtime=time.time() - SETTLED_SECONDS)
            except OSError as error:  # restore the other files anyway
                failures.append(f"{image.path}: {error.strerror or error}")
            except UntrustedPathError as error:
                failures.append(str(error))
        if resume:
            self._daemon.resume()
        if failures:
            raise EngineError("; ".join(failures))
        trust = PathTrust(owners=frozenset(uid for image in images for uid in image.trust.owners))
        for directory in reversed(directories):
            with contextlib.suppress(OSError, UntrustedPathError):  # somebody may have put files into it since
                remove_directory(directory, trust)

    def _noted(self, change: Change, directories: dict[str, PathTrust]) -> list[_Noted]:
        """Return the record's file before and after the change; nothing if the record stays the same.

        If the change also undoes the one before it, the record before both is that of the files before both.
        """
        store, name = str(self._store), self._daemon.name
        pairs = [(_on_disk(image), image) for image in change.after]
        present = FileImage.read(record.path_of(store, name))
        now = record.load(store, name)
        others = record.others(store, name)
        after = now.noted([(old, new) for old, new in pairs if old != new], directories, others)
        former = present
        if change.found is not None:
            back = [(old, before) for (old, _new), before in zip(pairs, change.before) if old != before]
            former = record.image_of(store, name, now.noted(back, None, others))
        if after == now and former is present:
            return []
        return [_Noted(former, present, record.image_of(store, name, after))]

    def _begin(self, change: Change, directories: Sequence[str], noted: Sequence[_Noted] = ()) -> None:
        entries = [_entry_of(one.former, digest_of(one.after)) for one in noted]
        entries += [_entry_of(old, digest_of(new)) for old, new in zip(change.before, change.after)]
        between = [*(one.present for one in noted if one.present != one.former), *change.between]
        for entry in entries:
            if digests := [digest_of(image) for image in between if image.path == entry["path"]]:
                entry["between_sha256"] = digests
        entries += [_entry_of(old, _ANY) for old in change.kept]
        journal = {
            KEY: JOURNAL_FORMAT,
            "daemon": self._daemon.name,
            "files": entries,
            "directories": list(directories),
        }
        FileImage(str(self._journal), json.dumps(journal).encode(), 0o600, os.getuid(), os.getgid()).write()

    def _end(self) -> None:
        FileImage(str(self._journal), None).write()

    def journal_facts(self) -> Optional[dict[str, Any]]:
        """Return C(path) of the journal that a killed run left, and C(files): the paths it would restore. None without a journal.

        files is empty if the journal cannot be read. Raises OSError if this user may not look for it.
        """
        if not self.interrupted:
            return None
        try:
            own = record.path_of(str(self._store), self._daemon.name)
            files = [image.path for image in self._left_over()[0] if image.path != own]
        except (EngineError, OSError):
            files = []
        return {"path": str(self._journal), "files": files}


def _refuse_edited(paths: Sequence[str]) -> None:
    if paths:
        raise EngineError(
            f"{', '.join(paths)} changed while this run computed and tested its change, so another program or person writes "
            "there; nothing was changed; run again"
        )


def _on_disk(image: FileImage) -> FileImage:
    """Return the present state of the file of an image."""
    return FileImage.read(image.path, trust=image.trust)


def _entry_of(old: FileImage, after: str) -> dict[str, Any]:
    return {**entry_of(old), "after_sha256": after}


def _directories_to_make(images: Sequence[FileImage]) -> dict[str, PathTrust]:
    """Return the directories that have to be created for these files, the outer ones first, and whom each may trust."""
    missing: dict[str, PathTrust] = {}
    for image in images:
        if image.content is not None:
            above = missing_directories(str(Path(image.path).parent), image.trust)
            missing.update(dict.fromkeys(above, image.trust))
    return dict(sorted(missing.items()))
