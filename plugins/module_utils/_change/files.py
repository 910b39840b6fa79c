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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Protocol, runtime_checkable

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
    TEMPORARY_PREFIX,
    PathTrust,
    UntrustedPathError,
    flush_directory,
    make_directory,
    missing_directories,
    remove_directory,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Stopped, reason_of, stoppable
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.room import Slot, nothing_changed, slots_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.stored import digest_of, entry_of, image_from
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    EngineError,
    NotRunningError,
    TransactionError,
)

_ANY = "any"
JOURNAL_FORMAT = 3
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


@runtime_checkable
class Startable(Protocol):
    """The part of an adapter whose daemon can be started again. Without it, a daemon that has ended stays down."""

    def service(self) -> str:
        """Return the name by which the host's service manager runs the daemon now; empty if that cannot be told."""

    def has_ended(self) -> bool:
        """Whether the daemon does not run."""

    def start(self, service: str) -> None:
        """Start the daemon by this name, unless somebody has stopped it.

        Raises NotRunningError if somebody has stopped it, or if that cannot be told, and EngineError if it does not start.
        """


@runtime_checkable
class Judging(Protocol):
    """The part of an adapter whose daemon may use a new file as soon as it is in place, before its own check."""

    def judge(self, path: str, candidate: str) -> None:
        """Raise EngineError if the daemon could not use the new version of a file. candidate: where that waits, beside the file."""


@dataclass(frozen=True)
class Change:
    """Files before and after, in the order in which they are written. A reload without files is a change too.

    kept: the former state of files that the daemon's own tools write during the reload.
    directories: those that the change creates, the outer ones first; an undone change removes them if they are empty.
    between: the state of files after the first of two merged changes, see following().
    found: the files as they have to be on the disk when the change begins. None stands for before and kept.
    unasked: the daemon takes up these files, and their former state, without being told. So the transaction does not tell it, and whoever
    proves the change tells it if it does not.
    """

    before: tuple[FileImage, ...]
    after: tuple[FileImage, ...]
    reload: bool = False
    kept: tuple[FileImage, ...] = ()
    directories: tuple[str, ...] = field(default=(), compare=False)
    between: tuple[FileImage, ...] = ()
    found: Optional[tuple[FileImage, ...]] = field(default=None, compare=False)
    unasked: bool = False

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


class _Left(NamedTuple):
    """What a journal holds.

    slots: the former files and the names under which they wait. written: the digests of what the run wrote to each. directories: those
    that it created. service: that of the daemon. unasked: see Change.
    """

    slots: list[Slot]
    written: list[list[str]]
    directories: list[str]
    service: str
    unasked: bool


class Transaction:
    """The journal and lock of one daemon on this host. Use C(with transaction.opened(check_mode)), then apply()."""

    def __init__(self, daemon: Daemon, store: str = STORE) -> None:
        """Prepare only; no file or directory is created. store: the directory of locks and journals."""
        self._daemon = daemon
        self._store = Path(store)
        self._journal = self._store / f"{daemon.name}.journal"
        self._done = self._store / f"{daemon.name}.done"

    @contextlib.contextmanager
    def locked(self, seconds: float = SECONDS) -> Iterator[Transaction]:
        """Hold the daemon's lock and a share of the host's, so that two runs never change the same files at the same time.

        Raises EngineError if another run holds the lock for longer than these seconds.
        """
        first = not lock_exists(self._daemon.name, str(self._store))
        with daemon_locked(self._daemon.name, str(self._store), seconds):
            if first:
                record.begin(str(self._store), self._daemon.name)
            self._tidy()
            yield self

    @contextlib.contextmanager
    def opened(self, check_mode: bool, prove: Optional[Callable[[], None]] = None) -> Iterator[tuple[bool, list[str]]]:
        """Lock the daemon and undo the change of a killed run. Yields whether there was one, and warnings.

        prove: proves the daemon after that; raises EngineError. Check mode locks and restores nothing; it only warns.
        Raises EngineError if another run holds the lock for too long, and as recover() does.
        """
        if not check_mode:
            with self.locked():
                warnings: list[str] = []
                yield self.recover(prove, warnings), warnings
        elif self.interrupted:
            self._left_over()
            yield False, ["an earlier run was interrupted; a real run first restores the files that it changed"]
        else:
            yield False, []

    @property
    def interrupted(self) -> bool:
        """Whether a killed run has left a journal."""
        return self._journal.exists()

    def recover(self, prove: Optional[Callable[[], None]] = None, warnings: Optional[list[str]] = None) -> bool:
        """Undo the change of a killed run. Return whether there was one.

        If the daemon has ended meanwhile, it is started again, unless somebody has stopped it; that becomes a warning.
        Raises EngineError if somebody else has changed a file since (their edit is kept), if the journal cannot be read
        or was written by a newer version, and if the daemon cannot use the former files.
        """
        if not self.interrupted:
            return False
        left = self._left_over()
        if edited := _edited_since(left.slots, left.written):
            raise EngineError(
                f"a run was interrupted and {edited} has been edited since; make sure the file is "
                f"what you want, then remove {self._journal} and run again"
            )
        with stoppable():
            try:
                self._restore(left.slots, left.directories, left.service, left.unasked)
                if prove:
                    self._prove_recovered(prove)
            except NotRunningError as error:  # the files are back, and there is nobody to tell
                if warnings is not None:
                    warnings.append(f"the files that a killed run changed are restored, but {error}")
            self._end(left.slots)
        return True

    def _left_over(self, place: Optional[Path] = None) -> _Left:
        """Read the journal. place: where it is, if it has another name. Raises EngineError."""
        try:
            journal = json.loads((place or self._journal).read_text())
            format_of(journal, JOURNAL_FORMAT, f"the journal {self._journal} of an interrupted run")
            slots = [
                Slot(image_from(entry), None, _name_in(entry, "new"), _name_in(entry, "old"))
                for entry in journal["files"]
            ]
            written = [[entry["after_sha256"], *entry.get("between_sha256", ())] for entry in journal["files"]]
            directories = [str(directory) for directory in journal["directories"]]
            return _Left(slots, written, directories, str(journal.get("service", "")), journal.get("unasked") is True)
        except NewerFormatError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"the journal {self._journal} of an interrupted run cannot be read ({error}); compare the "
                f"files of {self._daemon.name} with your backup, then remove the journal"
            ) from error

    def apply(
        self, change: Change, prove: Callable[[], None], prove_old: Callable[[], None], hold: bool = False
    ) -> None:
        """Make the change, or undo it. prove and prove_old raise EngineError if the daemon does not show the state.

        hold: keep the way back of a change that succeeds, until a later change of the same call, take_back() or release().
        Raises TransactionError with the reason if the change failed; restored says whether it was undone. Raises EngineError
        before anything is changed if there is no room for the change, or somebody has changed a file since it was computed.
        """
        missing = _directories_to_make(change.after)
        directories = list(dict.fromkeys((*change.directories, *missing)))
        with stoppable() as stop:
            change.refuse_edited()
            begun = holding = self.interrupted
            held = self._held()
            noted = self._noted(change, missing, held)
            pairs = [*((one.former, one.after) for one in noted), *zip(change.before, change.after)]
            slots = slots_of(pairs, change.kept, {path: slot.old for path, slot in held.items() if slot.old})
            service = self._service()
            self._begin(change, directories, noted, slots, service)
            seen = holding or self._daemon.reads_files_unasked
            try:
                stop.look()
                for directory, trust in missing.items():
                    make_directory(directory, trust=trust)
                for slot in slots:
                    slot.keep()
                begun = True
                for slot in slots:
                    self._judge(slot)
                    slot.put()
                with stop.obeyed():
                    self._daemon.check()
                    seen = True
                    if not change.unasked:
                        self._daemon.reload()
                    prove()
            except BaseException as error:
                stop.end()
                if not begun and isinstance(error, (OSError, EngineError)):
                    self._end(slots)
                    _remove_directories(slots, directories)
                    raise nothing_changed(error) from error
                left = _Left(slots, [], directories, service, change.unasked)
                self._undo(left, seen, prove_old, reason_of(error), error)
                if not isinstance(error, (Exception, Stopped)):
                    raise
                raise TransactionError(
                    f"{reason_of(error)}. The former state is restored and proved", restored=True
                ) from error
            if not hold:
                self._end(slots)

    def _judge(self, slot: Slot) -> None:
        """Have the daemon judge the new version of a file, which waits beside it. What comes before it is in place already."""
        if slot.new and isinstance(self._daemon, Judging):
            path = slot.former.path
            self._daemon.judge(path, str(Path(os.path.realpath(path)).with_name(slot.new)))

    def take_back(self, prove_old: Callable[[], None], error: Exception) -> None:
        """Undo a change that was held, because of this error. Raises TransactionError if that fails."""
        if self.interrupted:
            left = self._left_over()
            if edited := _edited_since(left.slots, left.written):
                raise TransactionError(
                    f"{error}. The change before it is not undone, because {edited} has been edited since; make sure the "
                    f"file is what you want, then remove {self._journal} and run again",
                    restored=False,
                ) from error
            with stoppable():
                self._undo(left, True, prove_old, str(error), error)

    def release(self) -> None:
        """Give up the way back of a change that was held. The change stays."""
        if self.interrupted:
            self._end(self._left_over().slots)

    def _held(self) -> dict[str, Slot]:
        """Return path -> room, of a change of this call that was held."""
        slots = self._left_over().slots if self.interrupted else []
        return {slot.former.path: slot for slot in slots}

    def _undo(
        self,
        left: _Left,
        seen: bool,
        prove_old: Callable[[], None],
        reason: str,
        error: BaseException,
    ) -> None:
        """Put the former files back and prove them. Raises TransactionError. seen: whether the daemon may have seen the new ones."""
        try:
            self._restore(left.slots, left.directories, left.service if seen else None, left.unasked)
            prove_old()
        except (EngineError, OSError) as second:
            raise TransactionError(
                f"{reason}. The rollback failed as well: {second}. The former files are in "
                f"{self._journal}; run again to restore them",
                restored=False,
            ) from error
        self._end(left.slots)

    def _restore(
        self, slots: Sequence[Slot], directories: Sequence[str], service: Optional[str], unasked: bool
    ) -> None:
        """Put the former files back, and have the daemon use them unless service is None. Raises EngineError.

        A file that cannot be put back does not keep the others changed. NotRunningError comes after all is done.
        """
        failures = []
        for slot in reversed(slots):
            try:
                slot.put_back()
            except OSError as error:
                failures.append(f"{slot.former.path}: {error.strerror or error}")
            except UntrustedPathError as error:
                failures.append(str(error))
        stopped = self._resume(service, unasked) if service is not None else None
        if failures:
            raise EngineError("; ".join(failures))
        _remove_directories(slots, directories)
        if stopped:
            raise stopped

    def _service(self) -> str:
        return self._daemon.service() if isinstance(self._daemon, Startable) else ""

    def _resume(self, service: str, unasked: bool) -> Optional[NotRunningError]:
        """Have the daemon use the former files, which it may do unasked. If it has ended, start it. Raises EngineError.

        Returns the error if it has ended and may not be started, because somebody else has stopped it.
        """
        daemon = self._daemon
        if not isinstance(daemon, Startable):
            if not unasked:
                daemon.resume()
            return None
        try:
            if not daemon.has_ended():
                if not unasked:
                    daemon.resume()
                return None
        except EngineError:
            if not daemon.has_ended():  # it may have been about to end
                raise
        try:
            daemon.start(service)
        except NotRunningError as error:
            return error
        return None

    def _prove_recovered(self, prove: Callable[[], None]) -> None:
        try:
            prove()
        except (EngineError, OSError) as error:
            raise EngineError(
                f"the files that a killed run changed are restored, but {error}; correct that, then run again"
            ) from error

    def _noted(self, change: Change, directories: dict[str, PathTrust], held: Mapping[str, Slot]) -> list[_Noted]:
        """Return the record's file before and after the change; nothing if the record stays the same.

        If the change also undoes the one before it, the record before both is that of the files before both.
        held: path -> room of the change before it.
        """
        store, name = str(self._store), self._daemon.name
        pairs = [(_on_disk(image), image) for image in change.after]
        present = FileImage.read(record.path_of(store, name))
        now = record.load(store, name)
        others = record.others(store, name)
        after = now.noted([(old, new) for old, new in pairs if old != new], directories, others)
        former = present
        if present.path in held:
            former = held[present.path].former
        elif change.found is not None:
            back = [(old, before) for (old, _new), before in zip(pairs, change.before) if old != before]
            former = record.image_of(store, name, now.noted(back, None, others))
        if after == now and former is present:
            return []
        return [_Noted(former, present, record.image_of(store, name, after))]

    def _begin(
        self,
        change: Change,
        directories: Sequence[str],
        noted: Sequence[_Noted] = (),
        slots: Sequence[Slot] = (),
        service: str = "",
    ) -> None:
        entries = [_entry_of(one.former, digest_of(one.after)) for one in noted]
        entries += [_entry_of(old, digest_of(new)) for old, new in zip(change.before, change.after)]
        between = [*(one.present for one in noted if one.present != one.former), *change.between]
        for entry in entries:
            if digests := [digest_of(image) for image in between if image.path == entry["path"]]:
                entry["between_sha256"] = digests
        entries += [_entry_of(old, _ANY) for old in change.kept]
        for entry, slot in zip(entries, slots):
            entry.update(new=slot.new, old=slot.old)
        journal: dict[str, Any] = {
            KEY: JOURNAL_FORMAT,
            "daemon": self._daemon.name,
            "files": entries,
            "directories": list(directories),
            "service": service,
        }
        if change.unasked:  # a version that does not know it tells the daemon
            journal["unasked"] = True
        try:
            FileImage(str(self._journal), json.dumps(journal).encode(), 0o600, os.getuid(), os.getgid()).write()
        except OSError as error:
            raise nothing_changed(error) from error

    def _end(self, slots: Sequence[Slot] = ()) -> None:
        """From here on everything stays as it is. The journal gets another name until nothing waits beside the files any more."""
        with contextlib.suppress(FileNotFoundError):
            self._journal.replace(self._done)
            flush_directory(str(self._store))
        for slot in slots:
            slot.give_up()
        FileImage(str(self._done), None).write()

    def _tidy(self) -> None:
        """Remove what a run that was killed at its very end has left beside the files."""
        if self._done.exists():
            slots: Sequence[Slot] = ()
            with contextlib.suppress(EngineError, OSError):
                slots = self._left_over(self._done).slots
            for slot in slots:
                slot.give_up()
            FileImage(str(self._done), None).write()

    def journal_facts(self) -> Optional[dict[str, Any]]:
        """Return C(path) of the journal that a killed run left, and C(files): the paths it would restore. None without a journal.

        files is empty if the journal cannot be read. Raises OSError if this user may not look for it.
        """
        if not self.interrupted:
            return None
        try:
            own = record.path_of(str(self._store), self._daemon.name)
            files = [slot.former.path for slot in self._left_over().slots if slot.former.path != own]
        except (EngineError, OSError):
            files = []
        return {"path": str(self._journal), "files": files}

    def unasked_files(self) -> list[str]:
        """Return the files of a killed run's change, if the daemon takes them up without being told. Raises EngineError."""
        left = self._left_over() if self.interrupted else None
        return [slot.former.path for slot in left.slots] if left and left.unasked else []


def _edited_since(slots: Sequence[Slot], written: Sequence[Sequence[str]]) -> str:
    """Return the path of a file that is neither as before the change nor as the change wrote it; empty if there is none.

    written: for each slot, the digests of what the change has written there.
    """
    for slot, digests in zip(slots, written):
        now = _on_disk(slot.former)
        if now != slot.former and not {digest_of(now), _ANY} & {*digests}:
            return slot.former.path
    return ""


def _remove_directories(slots: Sequence[Slot], directories: Sequence[str]) -> None:
    """Remove the directories that a change has created, the inner ones first, if they are empty."""
    for slot in slots:
        slot.give_up_new()
    trust = PathTrust(owners=frozenset(uid for slot in slots for uid in slot.former.trust.owners))
    for directory in reversed(directories):
        with contextlib.suppress(OSError, UntrustedPathError):  # somebody may have put files into it since
            remove_directory(directory, trust)


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


def _name_in(entry: Mapping[str, Any], which: str) -> str:
    """Return the name under which a version waits, empty if there is none. Raises ValueError for a name that is not ours."""
    name = str(entry.get(which, ""))
    if name and (not name.startswith(TEMPORARY_PREFIX) or "/" in name):
        raise ValueError(f"{name!a} is no name of a file that waits")
    return name
