# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and editing a Postfix configuration by Postfix's own postconf(1).

Edits are made on a copy, so that what would be written is known before anything is: the text a
check-mode diff shows and the text a run writes are the same.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_SERVICE = re.compile(r"[A-Za-z0-9_.:\[\]-]+/(inet|unix|fifo|unix-dgram|pass)\Z")


@dataclass(frozen=True)
class Edits:
    """Changes to main.cf and master.cf.

    main: parameter -> value; an empty value is written as such.
    services: C(name/type) -> the whole master.cf entry.
    """

    main: Mapping[str, str]
    services: Mapping[str, str] = ()  # type: ignore[assignment]

    def check(self) -> None:
        """Raise EngineError for anything that could say more in a file than it was meant to."""
        for name in self.main:
            if not _PARAMETER.match(name):
                raise EngineError(f"{name!r} is not a Postfix parameter name")
        for name in self.services:
            if not _SERVICE.match(name):
                raise EngineError(f"{name!r} is not a Postfix service")
        values = [*self.main.items(), *dict(self.services).items()]
        for name, value in values:
            if any(ord(char) < 32 or ord(char) == 127 for char in value):
                raise EngineError(f"the value of {name} holds a newline or another control character")


class Postconf:
    """One Postfix instance's configuration directory, seen through postconf(1)."""

    def __init__(self, run: Runner, config_dir: str = DEBIAN.config_dir) -> None:
        """Nothing is read yet."""
        self._run = run
        self.config_dir = config_dir

    def call(self, *arguments: str, config_dir: str = "") -> str:
        """Standard output of postconf; EngineError with what it said when it fails."""
        status, out, err = self._run(["postconf", "-c", config_dir or self.config_dir, *arguments])
        if status != 0:
            raise EngineError(f"postconf {' '.join(arguments)} failed: {err.strip() or out.strip()}")
        return out

    def values(self, *names: str) -> dict[str, str]:
        """Effective values; a parameter this Postfix does not know is left out."""
        status, out, err = self._run(["postconf", "-c", self.config_dir, *names])
        if status != 0 and "unknown parameter" not in err:
            raise EngineError(f"postconf cannot read {self.config_dir}: {err.strip()}")
        return _parse(out)

    def values_expanded(self, name: str) -> str:
        """One effective value with what it refers to put in."""
        return self.call("-x", "-h", name).strip()

    def explicit(self, *options: str) -> dict[str, str]:
        """The parameters that main.cf itself sets; with C(-x), what they refer to put in."""
        return _parse(self.call("-n", *options))

    def overrides(self, parameter: str) -> dict[str, str]:
        """C(-o) options of master.cf for this parameter: service as C(name/type) -> value."""
        found = {}
        for name, value in _parse(self.call("-P")).items():
            service, _, overridden = name.rpartition("/")
            if overridden == parameter:
                found[service] = value
        return found

    def images(self, edits: Edits) -> list[FileImage]:
        """main.cf and master.cf as they would be after the edits; nothing on the host changes."""
        edits.check()
        with tempfile.TemporaryDirectory(prefix="mailfleet-") as stage:
            now = [FileImage.read(f"{self.config_dir}/{name}") for name in ("main.cf", "master.cf")]
            for image in now:
                if image.content is None:
                    raise EngineError(f"{image.path} does not exist: is Postfix installed and configured here?")
                replace(image, path=f"{stage}/{Path(image.path).name}").write()
            self._edit(stage, edits)
            return [replace(image, content=(Path(stage) / Path(image.path).name).read_bytes()) for image in now]

    def _edit(self, stage: str, edits: Edits) -> None:
        if edits.main:
            self.call("-e", *(f"{name} = {value}" for name, value in edits.main.items()), config_dir=stage)
        for name, entry in dict(edits.services).items():
            self.call("-M", f"{name}={entry}", config_dir=stage)


def _parse(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
