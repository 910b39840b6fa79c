# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller keeps of an Exchange server: the journal of a change that is not over, and what was there before the first one.

Both are files of the controller, one each for a host. Nothing secret is in them: what undoes a call needs no key and no password.
A run that is killed leaves its journal, and the next run on the same controller undoes the change. A controller that is thrown away with
its files, such as a pod of AWX, takes the journal along.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.controller_paths import from_start

JOURNAL_DIRECTORY = "~/.local/state/mailfleet-starttls"
EXCHANGE_JOURNAL_FORMAT = 1
_OPTION = "journal (starttls_exchange_journal)"


@dataclass(frozen=True)
class Pending:
    """A change that was begun and is not over.

    undo: calls as plain data, in the order in which they run. last: those that follow the proof. record: what to keep once the change is
    over. result: that of the change. wanted: what the proof has to show, see proof.Wire.
    """

    undo: Sequence[Mapping[str, Any]] = ()
    last: Sequence[Mapping[str, Any]] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    wanted: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """The two files of a host."""

    def __init__(self, directory: str, host: str) -> None:
        """Prepare only. directory: on the controller. host: the name of the inventory."""
        self._directory = Path(from_start(directory))
        name = re.sub(r"[^A-Za-z0-9.-]", lambda match: f"_{ord(match[0]):x}_", host)
        self.journal = self._directory / f"{name}.journal.json"
        self._record = self._directory / f"{name}.before.json"

    def begin(self, pending: Pending) -> None:
        """Write the journal, or a longer one of the same change. Raises EngineError."""
        self._write(self.journal, vars(pending))

    def pending(self) -> Pending | None:
        """Return the change that is not over; None if there is none. Raises EngineError."""
        found = self._read(self.journal)
        try:
            return None if found is None else Pending(**found)
        except TypeError as error:
            raise self._not_ours(self.journal) from error

    def end(self) -> None:
        """Remove the journal: the change is over, or undone. Raises EngineError."""
        try:
            self.journal.unlink(missing_ok=True)
        except OSError as error:
            raise EngineError(
                f"{self.journal} cannot be removed on the controller: {error.strerror}; remove it"
            ) from error

    def record(self) -> dict[str, Any]:
        """Return what was there before the first change; empty if nothing is kept here. Raises EngineError."""
        return self._read(self._record) or {}

    def keep(self, record: Mapping[str, Any]) -> None:
        """Keep what was there before the first change; nothing of it if it is empty. Raises EngineError."""
        if record:
            self._write(self._record, record)
        else:
            self._record.unlink(missing_ok=True)

    def left(self) -> list[str]:
        """Return the paths of the files that are there."""
        return [str(path) for path in (self.journal, self._record) if path.exists()]

    def _write(self, path: Path, data: Mapping[str, Any]) -> None:
        text = json.dumps({"format": EXCHANGE_JOURNAL_FORMAT, "data": data}, indent=1) + "\n"
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as stream:  # noqa: PTH123
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(path)
        except OSError as error:
            raise EngineError(
                f"{path} cannot be written on the controller: {error.strerror or error}; a change keeps there how it is undone. "
                f"Name another directory in {_OPTION}"
            ) from error

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EngineError(
                f"{path} cannot be read on the controller: {error.strerror}; correct its permissions, or {_OPTION}"
            ) from error
        except ValueError as error:
            raise self._not_ours(path) from error
        if (
            not isinstance(found, dict)
            or found.get("format") != EXCHANGE_JOURNAL_FORMAT
            or not isinstance(found["data"], dict)
        ):
            raise self._not_ours(path)
        return dict(found["data"])

    def _not_ours(self, path: Path) -> EngineError:
        return EngineError(
            f"{path} on the controller is not what this version of the collection writes; use the version that wrote it, or compare the "
            "connectors by hand and remove the file"
        )
