# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's unsplit configuration moved to the split one, so that no conffile of dpkg is edited.

An unsplit configuration has no place for a router but exim4.conf.template, and that is a conffile: an edited one stops the next
unattended upgrade. The settings (update-exim4.conf.conf) and the local macros are no conffiles. Debian makes the template of the files
in conf.d, with marks around each, so what an administrator changed in it is a part with another text. Such a part becomes NAME.rul,
which Debian reads instead of NAME, and which no package has. Sources: update-exim4.conf(8), update-exim4.conf.template(8).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.conceal import conceal
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import elsewhere, sections
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_RULER = r"#{20,}\n"
_PART = re.compile(rf"(?ms)^{_RULER}### (?!end )(\S+)\n{_RULER}(.*?)^{_RULER}### end \1\n{_RULER}")
_FILE_MARK = re.compile(r'(?m)^# \d+ ".*"\n')
_SPLIT_LINE = re.compile(r"(?m)^dc_use_split_config=.*$")
_OURS = (*sections.GATEWAY_FILES.values(), *sections.PEER_FILES.values())
_MOST = 5
"""How many files are named."""


def refusal(template: str) -> EngineError:
    """Return why nothing is set on a host with an unsplit configuration, and what to do."""
    return EngineError(
        f"Exim's configuration is unsplit here, so a router needs a change of {template}. That is a conffile of the package "
        "exim4-config, and dpkg stops an unattended upgrade to ask about an edited one. Set starttls_exim_split: true (the option "
        "exim_split of a module) to have the configuration moved to Debian's split one first, or move it yourself: dpkg-reconfigure "
        "exim4-config"
    )


@dataclass(frozen=True)
class Paths:
    """Where Debian's files are, and the directory of the collection's tables."""

    config_dir: str
    settings: str
    directory: str

    @property
    def template(self) -> str:
        """The unsplit configuration."""
        return f"{self.config_dir}/exim4.conf.template"

    @property
    def macros(self) -> tuple[str, str]:
        """The files of local macros: of the unsplit and of the split configuration."""
        return f"{self.config_dir}/exim4.conf.localmacros", f"{self.config_dir}/conf.d/main/000_localmacros"

    def part(self, name: str) -> str:
        """Return the path of a part, for example C(router/200_exim4-config_primary)."""
        return f"{self.config_dir}/conf.d/{name}"


def move(run: Runner, paths: Paths) -> list[FileImage]:
    """Return the files that make an unsplit configuration a split one which means the same.

    What the collection has in the template leaves it, and becomes files of its own. Raises EngineError, which names what
    stands in the way.
    """
    template = FileImage.read(paths.template)
    text = _text(template)
    without = sections.without_ours(text, paths.directory)
    settings = FileImage.read(paths.settings)
    images = [replace(settings, content=_encoded(_with_split(_text(settings)))), *_carried(without, paths)]
    if not was_split(paths):
        images.append(_macros(paths))
        _prove_same(run, paths, without, images)
    if without != text:
        images.append(replace(template, content=_encoded(without)))
    return [*images, *_own(text, template, paths)]


def was_split(paths: Paths) -> bool:
    """Whether the host had a split configuration at the last run, and somebody has switched it back since."""
    return any(Path(paths.part(one)).exists() for one in _OURS)


def _own(text: str, template: FileImage, paths: Paths) -> list[FileImage]:
    """Return the collection's own parts, as files of the split configuration."""
    images = []
    for name, part in sections.GATEWAY_FILES.items():
        old = FileImage.read(f"{paths.directory}/{name}")
        if old.content is not None:
            images += [replace(old, path=paths.part(part), seen=""), replace(old, content=None)]
    for title, part in sections.PEER_FILES.items():
        if block := sections.block_in(text, title):
            content = _encoded(sections.HEADER + block)
            images.append(replace(template, path=paths.part(part), content=content, seen=""))
    return images


def _macros(paths: Paths) -> FileImage:
    unsplit, split = map(FileImage.read, paths.macros)
    if split.content is not None and split.content != unsplit.content:
        raise EngineError(
            f"{split.path} exists, and Exim does not read it now; with the split configuration it would. Remove it, or move what you want "
            f"to keep to {unsplit.path}"
        )
    return replace(unsplit, path=split.path, content=unsplit.content or b"", seen="")


def _carried(template: str, paths: Paths) -> list[FileImage]:
    """Return the parts of the template that differ from Debian's files, each as a file that Debian reads in its place."""
    parts = dict(_PART.findall(template))
    outside = [line for line in _PART.sub("", template).splitlines() if line.strip() and not line.startswith("#")]
    if not parts:
        raise EngineError(
            f"{paths.template} is not made of the files in {paths.config_dir}/conf.d, so it cannot be moved: is it Debian's?"
        )
    if outside:
        raise EngineError(
            f"{paths.template} has lines outside of the parts that Debian makes it of, so it cannot be moved as it is: "
            f"{conceal(outside[0])}; move them to a file in {paths.config_dir}/conf.d"
        )
    inactive = {
        one.removeprefix(paths.part("")).removesuffix(".rul"): one for one in elsewhere.sources(paths.config_dir, True)
    }
    if more := [path for name, path in inactive.items() if name not in (*parts, *_OURS, "main/000_localmacros")]:
        raise EngineError(
            f"{', '.join(more[:_MOST])}: Exim does not read such a file now, and with the split configuration it would. Remove it, or "
            f"add it to {paths.template}"
        )
    found = []
    for name, text in parts.items():
        present = FileImage.read(inactive[name]) if name in inactive else FileImage(paths.part(name), None)
        if present.content is None:  # a part that somebody added
            found.append(replace(present, content=_encoded(text), mode=0o644, seen=""))
        elif _text(present).rstrip("\n") != text.rstrip("\n"):
            if present.path.endswith(".rul"):
                raise EngineError(
                    f"{present.path} differs from the part {name} of {paths.template}; Exim reads only the template now, and would read "
                    "that file. Make them alike"
                )
            found.append(replace(present, path=f"{present.path}.rul", content=_encoded(text), seen=""))
    return found


def _with_split(settings: str) -> str:
    line = "dc_use_split_config='true'"
    if _SPLIT_LINE.search(settings):
        return _SPLIT_LINE.sub(line, settings)
    return f"{settings.rstrip()}\n{line}\n"


def _prove_same(run: Runner, paths: Paths, template: str, images: Sequence[FileImage]) -> None:
    """Raise EngineError unless Exim reads the same configuration from both schemes. Nothing on the host is changed."""
    with tempfile.TemporaryDirectory(prefix="mailfleet-") as stage:
        copy = Path(stage, "exim4")
        for path in (paths.settings, paths.macros[0], *elsewhere.sources(paths.config_dir, True)):
            _put(copy, paths, FileImage.read(path))
        _put(copy, paths, FileImage(paths.template, _encoded(template)))
        before = _printed(run, str(copy), f"{stage}/before")
        for image in images:
            _put(copy, paths, image)
        after = _printed(run, str(copy), f"{stage}/after")
    if before != after:
        lines = [one for one in after if one not in before] or [one for one in before if one not in after]
        raise EngineError(
            f"Exim would not read the same from {paths.config_dir}/conf.d as from {paths.template}"
            f"{f' (the first line that differs: {conceal(lines[0])})' if lines else ' (the order differs)'}; make them alike, or move the "
            "configuration yourself"
        )


def _put(copy: Path, paths: Paths, image: FileImage) -> None:
    target = copy / image.path.removeprefix(f"{paths.config_dir}/")
    if image.content is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image.content)


def _printed(run: Runner, directory: str, target: str) -> list[str]:
    """Return what Exim reads of the configuration in a directory, macros and conditions resolved."""
    for command in (["update-exim4.conf", "-d", directory, "-o", target], ["exim4", "-C", target, "-bP", "config"]):
        status, out, err = run(command)
        if status != 0:
            raise EngineError(f"the split configuration cannot be tried: {(err or out).strip()}")
    return _FILE_MARK.sub("", out).splitlines()


def _text(image: FileImage) -> str:
    return (image.content or b"").decode("utf-8", "surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
