# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and edits a Postfix configuration with Postfix's own postconf(1).

Edits are made on a copy, so the new text is known before anything is written. Check mode shows the same text
that a run writes.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import parse_settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
)

_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_SERVICE = re.compile(r"[A-Za-z0-9_.:\[\]-]+/(inet|unix|fifo|unix-dgram|pass)\Z")
# These warnings of postconf say nothing about why it fails.
_USUAL = re.compile(r"overriding earlier entry|(?:unused|undefined) parameter:")


@dataclass(frozen=True)
class Edits:
    """Changes to main.cf and master.cf.

    main: parameter -> value; an empty value is written as an empty value, None removes the parameter.
    services: C(name/type) -> the whole master.cf entry; None removes the service.
    options: C(name/type/parameter) -> value of a C(-o) option of a service; None removes the option.
    """

    main: Mapping[str, Optional[str]]
    services: Mapping[str, Optional[str]] = field(default_factory=dict)
    options: Mapping[str, Optional[str]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise EngineError for a name or value that could add further settings to a file."""
        for name in self.main:
            if not _PARAMETER.match(name):
                raise EngineError(f"{name!r} is not a Postfix parameter name")
        for name in [*self.services, *(one.rpartition("/")[0] for one in self.options)]:
            if not _SERVICE.match(name):
                raise EngineError(f"{name!r} is not a Postfix service")
        values = [*self.main.items(), *self.services.items(), *self.options.items()]
        for name, value in values:
            if value and any(ord(char) < 32 or ord(char) == 127 for char in value):
                raise EngineError(f"the value of {name} holds a newline or another control character")


@dataclass(frozen=True)
class Service:
    """One service of master.cf. name: C(name/type). fields: its first eight words. settings: its C(-o) options.

    text: the whole entry, its words separated by one blank.
    """

    name: str
    fields: tuple[str, ...]
    settings: Mapping[str, str]
    text: str

    @classmethod
    def parse(cls, line: str) -> Service:
        """Read a line of C(postconf -M)."""
        fields, options = line.split()[:8], line.split(None, 8)[8:]
        settings = dict(_settings(list(_words(options[0] if options else ""))))
        return cls("/".join(fields[:2]), tuple(fields), settings, " ".join(line.split()))

    @property
    def command(self) -> str:
        """The daemon program."""
        return self.fields[7]


def _words(text: str) -> Iterator[str]:
    """Split the arguments of a service. Blanks between braces do not separate."""
    word, depth = "", 0
    for char in text:
        if char in " \t" and depth <= 0:
            if word:
                yield word
            word = ""
            continue
        depth += {"{": 1, "}": -1}.get(char, 0)
        word += char
    if word:
        yield word


def _settings(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the C(-o) options. postconf -M has normalized them; the first word that is no option ends them."""
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "--":
            return
        if word == "-o":
            option = next(rest, "")
            name, _, value = (option[1:-1] if option.startswith("{") else option).partition("=")
            yield name.strip(), value.strip()


class Postconf:
    """The configuration directory of one Postfix instance, read through postconf(1).

    Each listing (effective values, expanded values, main.cf, master.cf) is read once, when it is needed, and then remembered.
    Call forget() when files may have changed.
    """

    def __init__(self, run: Runner, config_dir: str = DEBIAN.config_dir) -> None:
        """Prepare only; nothing is read."""
        self._run = run
        self.config_dir = config_dir
        self._listings: dict[tuple[str, ...], str] = {}
        self._settings: dict[tuple[str, ...], dict[str, str]] = {}
        self.age = 0
        """How often it was forgotten: what was read at another age may be old."""

    def forget(self) -> None:
        """Read everything again when it is needed the next time."""
        self.age += 1
        self._listings.clear()
        self._settings.clear()

    def _listing(self, *options: str) -> str:
        """Return what postconf says. Raises BrokenConfigurationError with its words if it cannot read the files."""
        if options not in self._listings:
            status, out, err = self._run(["postconf", "-c", self.config_dir, *options])
            if status != 0:
                raise BrokenConfigurationError(f"postconf cannot read {self.config_dir}: {_reason(err or out)}")
            self._listings[options] = out
        return self._listings[options]

    def _settings_of(self, *options: str) -> dict[str, str]:
        if options not in self._settings:
            self._settings[options] = parse_settings(self._listing(*options))
        return self._settings[options]

    def require_readable(self) -> None:
        """Raise BrokenConfigurationError if postconf cannot read main.cf, or a line of master.cf."""
        self._listing()

    def values(self, *names: str) -> dict[str, str]:
        """Return the effective values. A parameter that this Postfix does not know is left out."""
        found = self._settings_of()
        return {name: found[name] for name in names if name in found}

    def expanded(self, *names: str) -> dict[str, str]:
        """Return the effective values with their $references expanded. An unknown parameter is left out."""
        found = self._settings_of("-x")
        return {name: found[name] for name in names if name in found}

    def value_expanded(self, name: str) -> str:
        """Return one effective value with its $references expanded; empty if this Postfix does not know it."""
        return self.expanded(name).get(name, "")

    def explicit(self) -> dict[str, str]:
        """Return the parameters that main.cf itself sets and Postfix uses."""
        return dict(self._settings_of("-n"))

    def explicit_expanded(self) -> dict[str, str]:
        """Return the parameters that main.cf itself sets, with their $references expanded."""
        return self.expanded(*self.explicit())

    def services(self) -> list[Service]:
        """Return the services of master.cf, in its order."""
        return [Service.parse(line) for line in self._listing("-M").split("\n") if len(line.split()) >= 8]

    def overrides(self, parameter: str) -> dict[str, str]:
        """Return the C(-o) options of master.cf for this parameter: service as C(name/type) -> value."""
        return {one.name: one.settings[parameter] for one in self.services() if parameter in one.settings}

    def images(self, edits: Edits) -> list[FileImage]:
        """Return main.cf and master.cf with the edits. Changes nothing on the host."""
        edits.check()
        now = [FileImage.read(f"{self.config_dir}/{name}") for name in ("main.cf", "master.cf")]
        for image in now:
            if image.content is None:
                raise EngineError(f"{image.path} does not exist: is Postfix installed and configured here?")
        services = self._differing(dict(edits.services))
        if not edits.main and not services and not edits.options:
            return now
        with tempfile.TemporaryDirectory(prefix="mailfleet-") as stage:
            for image in now:
                replace(image, path=f"{stage}/{Path(image.path).name}").write()
            edit_copy(self._run, stage, "-e", *_appended(Path(stage, "main.cf"), edits.main))
            edit_copy(self._run, stage, "-X", *(name for name, value in edits.main.items() if value is None))
            edit_copy(
                self._run, stage, "-M", *(f"{name}={entry}" for name, entry in services.items() if entry is not None)
            )
            edit_copy(self._run, stage, "-MX", *(name for name, entry in services.items() if entry is None))
            edit_copy(
                self._run,
                stage,
                "-P",
                *(f"{name}={value}" for name, value in edits.options.items() if value is not None),
            )
            edit_copy(self._run, stage, "-PX", *(name for name, value in edits.options.items() if value is None))
            return [replace(image, content=(Path(stage) / Path(image.path).name).read_bytes()) for image in now]

    def _differing(self, services: Mapping[str, Optional[str]]) -> dict[str, Optional[str]]:
        """Return the entries that master.cf does not have yet, word by word, and those that it must not have any more."""
        if not services:
            return {}
        present: dict[str, list[str]] = {}
        for one in self.services():
            present.setdefault(one.name, []).append(one.text)
        wanted = {name: [" ".join(entry.split())] if entry is not None else [] for name, entry in services.items()}
        return {name: entry for name, entry in services.items() if present.get(name, []) != wanted[name]}

    @contextlib.contextmanager
    def staged(self, texts: Mapping[str, bytes]) -> Iterator[Postconf]:
        """Yield another configuration, with these texts of main.cf and master.cf in the place of the present ones.

        texts: path of a file of this configuration -> its text.
        """
        with tempfile.TemporaryDirectory(prefix="mailfleet-") as stage:
            for name in ("main.cf", "master.cf"):
                path = f"{self.config_dir}/{name}"
                text = texts[path] if path in texts else FileImage.read(path).content or b""
                FileImage(f"{stage}/{name}", text, 0o600, os.getuid(), os.getgid()).write()
            age(stage)
            yield Postconf(self._run, stage)


def edit_copy(run: Runner, stage: str, flag: str, *arguments: str) -> None:
    """Edit the copies in a directory of ours. Raises EngineError."""
    if arguments:
        age(stage)
        status, out, err = run(["postconf", "-c", stage, flag, *arguments])
        if status != 0:
            raise EngineError(f"postconf {' '.join([flag, *arguments])} failed: {err.strip() or out.strip()}")


def age(stage: str) -> None:
    """Give main.cf of a directory of ours an old time: Postfix reads a new one again, with pauses, for two seconds."""
    past = time.time() - 60
    with contextlib.suppress(FileNotFoundError):  # whoever reads it says so
        os.utime(f"{stage}/main.cf", (past, past))


def _appended(path: Path, edits: Mapping[str, Optional[str]]) -> list[str]:
    """Append the parameters that the file does not have yet, and return the lines for postconf for the others.

    postconf would append them in an order that is another one each time.
    """
    text = path.read_bytes()
    there = {name.strip().decode("ascii", "replace") for name in re.findall(rb"(?m)^(\w+)[ \t]*=", text)}
    lines = {name: f"{name} = {value}" for name, value in edits.items() if value is not None}
    new = "".join(line.rstrip() + "\n" for name, line in lines.items() if name not in there)
    if new:
        path.write_bytes(text + (b"" if text.endswith(b"\n") or not text else b"\n") + new.encode())
    return [line for name, line in lines.items() if name in there]


def _reason(said: str) -> str:
    """Return why postconf fails, each line once, without the warnings that it gives in any case."""
    lines = dict.fromkeys(line.strip() for line in said.splitlines())
    return "; ".join(line for line in lines if line and not _USUAL.search(line)) or said.strip()
