# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing a mail daemon's files so that the host ends either proved in the new state or in the old one.

snapshot -> write -> the daemon's own check -> reload -> proof -> commit; on any failure the old files
are written back, the daemon reloads and the old state is proved. So it is if SIGHUP, SIGINT or SIGTERM
comes in between. A journal beside a lock survives a killed run: the next one restores from it before it
looks at anything else.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.formats import KEY, NewerFormatError, format_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Stopped, reason_of, stoppable
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

STORE = "/var/lib/mailfleet-starttls"
# A file that is renamed into place is complete at once. Dated a moment back it also looks settled to
# Postfix, which otherwise waits until a changed main.cf is more than a second old.
SETTLED_SECONDS = 3.0
_ANY = "any"
JOURNAL_FORMAT = 1
"""The format of a journal that is written. Format 0 had the same keys, without the number."""


class Daemon(Protocol):
    """What the transaction needs of an adapter."""

    name: str
    reads_files_unasked: bool
    """Whether processes of the running daemon read changed files before a reload tells them to."""

    def check(self) -> None:
        """Raise EngineError when the daemon's own check refuses the files as they are now."""

    def reload(self) -> None:
        """Make the running daemon follow the files as they are now, without a restart."""

    def resume(self) -> None:
        """The same after the former files came back: nothing else may be taken up on the way."""


@dataclass(frozen=True)
class Change:
    """Files before and after, in the order in which they are written; reload alone is a change too.

    kept holds files that the daemon's own tools write during the reload, as they are before it.
    """

    before: tuple[FileImage, ...]
    after: tuple[FileImage, ...]
    reload: bool = False
    kept: tuple[FileImage, ...] = ()

    @classmethod
    def of(cls, after: Sequence[FileImage], reload: bool = False) -> Change:
        """The change from what is on disk to the given images; files that stay as they are drop out."""
        pairs = [(FileImage.read(image.path), image) for image in after]
        differing = [(old, new) for old, new in pairs if old != new and (old.content, new.content) != (None, None)]
        return cls(tuple(old for old, _new in differing), tuple(new for _old, new in differing), reload)

    def __bool__(self) -> bool:
        return bool(self.after) or self.reload

    def diff(self) -> list[dict[str, str]]:
        """Only the lines that change, in Ansible's diff format: files may hold lines nobody should see."""
        return [{"prepared": _changed_lines(old, new)} for old, new in zip(self.before, self.after)]

    def mentioned_before(self, text: str) -> bool:
        """Whether one of the files held this text before; true where no file changes."""
        return not self.before or any(text.encode() in (image.content or b"") for image in self.before)


def _changed_lines(old: FileImage, new: FileImage) -> str:
    lines = difflib.unified_diff(
        (old.content or b"").decode("utf-8", "replace").splitlines(),
        (new.content or b"").decode("utf-8", "replace").splitlines(),
        f"before: {old.path}" if old.content is not None else "before: (absent)",
        f"after: {new.path}" if new.content is not None else "after: (absent)",
        lineterm="",
        n=0,
    )
    shown = [line for line in lines if not line.startswith("@@")]
    there = old.content is not None and new.content is not None
    if there and (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid):
        shown = shown or [f"--- before: {old.path}", f"+++ after: {new.path}"]
        shown.append(f"-mode {old.mode:04o} owner {old.uid}:{old.gid}")
        shown.append(f"+mode {new.mode:04o} owner {new.uid}:{new.gid}")
    return "\n".join(shown) + "\n"


class Transaction:
    """The journal and lock of one daemon on this host. Use as C(with Transaction(daemon).locked() as t)."""

    def __init__(self, daemon: Daemon, store: str = STORE) -> None:
        """Nothing is created until something has to be written."""
        self._daemon = daemon
        self._store = Path(store)
        self._journal = self._store / f"{daemon.name}.journal"

    @contextlib.contextmanager
    def locked(self, seconds: float = 60.0) -> Iterator[Transaction]:
        """Hold the host's lock, so that two runs never change one daemon at once."""
        self._store.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._store / f"{self._daemon.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + seconds
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise EngineError(
                            f"another run has been changing {self._daemon.name} on this host for more than "
                            f"{seconds:g} s; wait for it to end, then run again"
                        ) from None
                    time.sleep(0.2)
            yield self
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def opened(self, check_mode: bool) -> Iterator[tuple[bool, list[str]]]:
        """Lock the daemon and undo what a killed run left: whether there was anything, and warnings.

        In check mode nothing is locked or undone, only said. Raises EngineError if another run holds the lock for long, or
        if the journal cannot be read or was written by a newer version.
        """
        if not check_mode:
            with self.locked():
                yield self.recover(), []
        elif self.interrupted:
            self._left_over()
            yield False, ["a former run was interrupted; a real run first restores what it left half done"]
        else:
            yield False, []

    @property
    def interrupted(self) -> bool:
        """Whether a killed run left a journal behind."""
        return self._journal.exists()

    def recover(self) -> bool:
        """Undo what a killed run left; True if there was anything to undo.

        Raises EngineError if a file has been changed by somebody else since (their edit is kept), and if the journal cannot
        be read or was written by a newer version.
        """
        if not self.interrupted:
            return False
        images, written, directories = self._left_over()
        for image, after in zip(images, written):
            now = FileImage.read(image.path)
            if now != image and after not in (_digest(now), _ANY):
                raise EngineError(
                    f"a run was interrupted and {image.path} has been edited since; make sure the file is "
                    f"what you want, then remove {self._journal} and run again"
                )
        with stoppable():
            self._restore(images, directories)
            self._end()
        return True

    def _left_over(self) -> tuple[list[FileImage], list[str], list[str]]:
        """The journal: files as they were, for each the digest of what the run wrote, and the directories it made."""
        try:
            journal = json.loads(self._journal.read_text())
            format_of(journal, JOURNAL_FORMAT, f"the journal {self._journal} of an interrupted run")
            images = [_image_from(entry) for entry in journal["files"]]
            written = [str(entry["after_sha256"]) for entry in journal["files"]]
            return images, written, [str(directory) for directory in journal["directories"]]
        except NewerFormatError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"the journal {self._journal} of an interrupted run cannot be read ({error}); compare the "
                f"files of {self._daemon.name} with your backup, then remove the journal"
            ) from error

    def apply(self, change: Change, prove: Callable[[], None], prove_old: Callable[[], None]) -> None:
        """Make the change or undo it. prove and prove_old raise EngineError if the state is not there.

        Raises TransactionError with the reason when the change was undone or could not be.
        """
        directories = _missing_directories(change.after)
        with stoppable() as stop:
            self._begin(change, directories)
            seen = self._daemon.reads_files_unasked
            try:
                stop.look()
                for directory in directories:
                    Path(directory).mkdir()
                    Path(directory).chmod(0o755)  # mkdir's own mode goes through the umask
                for image in change.after:
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
                    self._restore([*change.before, *change.kept], directories, resume=seen)
                    prove_old()
                except (EngineError, OSError) as second:
                    raise TransactionError(
                        f"{reason}. Going back failed as well: {second}. The files as they were are in "
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
            except OSError as error:  # the others come back all the same
                failures.append(f"{image.path}: {error.strerror or error}")
        if resume:
            self._daemon.resume()
        if failures:
            raise EngineError("; ".join(failures))
        for directory in reversed(directories):
            with contextlib.suppress(OSError):  # it may have been filled since
                Path(directory).rmdir()

    def _begin(self, change: Change, directories: Sequence[str]) -> None:
        entries = [_entry_of(old, _digest(new)) for old, new in zip(change.before, change.after)]
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


def _missing_directories(images: Sequence[FileImage]) -> list[str]:
    """The directories that have to be made for these files, the outer ones first."""
    missing: set[str] = set()
    for image in images:
        above = Path(image.path).parents
        missing.update(str(one) for one in above if image.content is not None and not one.exists())
    return sorted(missing)


def _digest(image: FileImage) -> str:
    return "absent" if image.content is None else hashlib.sha256(image.content).hexdigest()


def _entry_of(old: FileImage, after: str) -> dict[str, Any]:
    return {
        "path": old.path,
        "content": None if old.content is None else base64.b64encode(old.content).decode(),
        "mode": old.mode,
        "uid": old.uid,
        "gid": old.gid,
        "after_sha256": after,
    }


def _image_from(entry: dict[str, Any]) -> FileImage:
    content = entry["content"]
    return FileImage(
        path=str(entry["path"]),
        content=None if content is None else base64.b64decode(content),
        mode=int(entry["mode"]),
        uid=int(entry["uid"]),
        gid=int(entry["gid"]),
    )
