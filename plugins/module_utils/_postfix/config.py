# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and edits a Postfix configuration with Postfix's own postconf(1).

Edits are made on a copy, so the new text is known before anything is written. Check mode shows the same text
that a run writes.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import parse_settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_SERVICE = re.compile(r"[A-Za-z0-9_.:\[\]-]+/(inet|unix|fifo|unix-dgram|pass)\Z")


@dataclass(frozen=True)
class Edits:
    """Changes to main.cf and master.cf.

    main: parameter -> value; an empty value is written as an empty value.
    services: C(name/type) -> the whole master.cf entry.
    """

    main: Mapping[str, str]
    services: Mapping[str, str] = ()  # type: ignore[assignment]

    def check(self) -> None:
        """Raise EngineError for a name or value that could add further settings to a file."""
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
    """The configuration directory of one Postfix instance, read through postconf(1)."""

    def __init__(self, run: Runner, config_dir: str = DEBIAN.config_dir) -> None:
        """Prepare only; nothing is read."""
        self._run = run
        self.config_dir = config_dir

    def call(self, *arguments: str, config_dir: str = "") -> str:
        """Run postconf and return its standard output. Raises EngineError with its error text if it fails."""
        status, out, err = self._run(["postconf", "-c", config_dir or self.config_dir, *arguments])
        if status != 0:
            raise EngineError(f"postconf {' '.join(arguments)} failed: {err.strip() or out.strip()}")
        return out

    def values(self, *names: str) -> dict[str, str]:
        """Return the effective values. A parameter that this Postfix does not know is left out."""
        status, out, err = self._run(["postconf", "-c", self.config_dir, *names])
        if status != 0 and "unknown parameter" not in err:
            raise EngineError(f"postconf cannot read {self.config_dir}: {err.strip()}")
        return parse_settings(out)

    def values_expanded(self, name: str) -> str:
        """Return one effective value with its $references expanded."""
        return self.call("-x", "-h", name).strip()

    def explicit(self, *options: str) -> dict[str, str]:
        """Return the parameters that main.cf itself sets; with the option C(-x), their $references are expanded."""
        return parse_settings(self.call("-n", *options))

    def service_settings(self) -> dict[str, dict[str, str]]:
        """Return the C(-o) options of master.cf: service as C(name/type) -> parameter -> value."""
        found: dict[str, dict[str, str]] = {}
        for place, value in parse_settings(self.call("-P")).items():
            service, _, parameter = place.rpartition("/")
            found.setdefault(service, {})[parameter] = value
        return found

    def overrides(self, parameter: str) -> dict[str, str]:
        """Return the C(-o) options of master.cf for this parameter: service as C(name/type) -> value."""
        return {
            service: settings[parameter]
            for service, settings in self.service_settings().items()
            if parameter in settings
        }

    def images(self, edits: Edits) -> list[FileImage]:
        """Return main.cf and master.cf with the edits. Changes nothing on the host."""
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
