# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""STARTTLS on a mail server that keeps its state in one file: what a newcomer writes to add a kind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._testmail.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, NotRunningError

PID_FILE = f"{DEBIAN.config_dir}/testmail.pid"


class Testmail:
    """Adapter for the mail server of the test."""

    name = "testmail"
    reads_files_unasked = False

    def __init__(self, run: Runner) -> None:
        """run starts a program from an argument list."""
        self._run = run

    def transaction(self, store: str) -> Transaction:
        """One transaction on the one file."""
        return Transaction(self, store)

    def require_running(self) -> None:
        """Raise EngineError unless the daemon runs."""
        if not Path(PID_FILE).exists():
            raise NotRunningError("testmail is not running; start it first")

    def sessions_an_hour(self) -> None:
        """It has no log."""

    def main_process(self) -> None:
        """Nobody asks: the daemon is a script, and its program's name says nothing."""

    def version(self) -> str:
        """It does not say."""
        return ""

    def files(self) -> tuple[str, ...]:
        """The one file."""
        return (DEBIAN.config_file,)

    def left(self) -> list[str]:
        """The certificate, and the journal and lock of changes."""
        patterns = (DEBIAN.certificate, f"/var/lib/mailfleet-starttls/{self.name}.*")
        return sorted(str(path) for pattern in patterns for path in Path("/").glob(pattern[1:]))

    def observe(self) -> Mapping[str, Any]:
        """It cannot tell its listeners and transports."""
        return {"listeners": None, "transports": None}

    def state(self) -> dict[str, str]:
        """Both directions as the file has them."""
        settings = json.loads(Path(DEBIAN.config_file).read_text())
        return {"inbound": settings["inbound"], "outbound": settings["outbound"]}

    def plan(self, desired: Desired) -> Change:
        """The file with the wanted state."""
        image = FileImage.read(DEBIAN.config_file)
        settings = json.loads(image.content or b"{}")
        if desired.offers:
            settings["certificate"] = desired.certificate
        for name, value in (("inbound", desired.inbound), ("outbound", desired.outbound)):
            settings[name] = value or settings[name]
        return Change.of([replace(image, content=(json.dumps(settings, indent=1) + "\n").encode())])

    def generated(self) -> Sequence[FileImage]:
        """None: it has no tool that writes files."""
        return ()

    def next_hops(self) -> Sequence[Target]:
        """None: the test does not require TLS outbound."""
        return ()

    def check(self) -> None:
        """Have the daemon read the file without using it. Raises EngineError."""
        status, out, err = self._run([DEBIAN.programs[0], "--check"])
        if status != 0:
            raise EngineError(f"testmail refuses the change: {(err or out).strip()}")

    def reload(self) -> None:
        """Have the daemon read the file anew. Raises EngineError."""
        try:
            os.kill(int(Path(PID_FILE).read_text()), signal.SIGHUP)
        except (OSError, ValueError) as error:
            raise EngineError(f"testmail cannot be told to read its file: {error}") from error

    def resume(self) -> None:
        """The same after the former file came back."""
        self.reload()
