# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else writes the configuration of a host: tools that say so at the head of a file, and programs of the platform. Nothing changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import load
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_HEAD_LINES = 40
_HEAD_BYTES = 8192
# The words with which the tools' own templates and the usual modules and roles begin a file.
_BY = r"\b(?:managed|maintained|controlled|generated|created|written) (?:by|with|through|using|via) (?:the )?"
_NAMELESS = "a tool"
_TOOLS = {
    "DebOps": r"\bdebops\b",
    "Ansible": rf"\bansible[ _-]managed\b|{_BY}ansible\b",
    "Puppet": rf"\bpuppet[ -]managed\b|{_BY}puppet\b",
    "Chef": rf"\bchef[ -]managed\b|{_BY}(?:chef|cinc)\b",
    "Salt": rf"\bsalt(?:stack)?[ -]managed\b|{_BY}salt(?:stack)?\b",
    "CFEngine": rf"\bcfengine[ -]managed\b|{_BY}cfengine\b",
    _NAMELESS: r"\bdo not (?:edit|modify|change)\b.{0,60}\b(?:overwritten|lost|generated|by hand)\b"
    r"|\b(?:changes|edits)\b.{0,40} will be (?:overwritten|lost)\b",
}
_COMMENT = re.compile(r"[ \t]*[#;]+[ \t]*(.{1,200})")
_SHOWN = 80


def other_hands(paths: Iterable[str], layout: Layout, store: str, name: str) -> list[dict[str, str]]:
    """Return a note with C(code) and C(message) for each file that somebody else writes, or has written since the last change.

    store, name: of the record of what was there. Nothing is raised: what cannot be read says nothing here.
    """
    try:
        files = load(store, name).files
    except (EngineError, OSError):
        files = {}
    notes = [{"code": "other_writer", "message": one} for one in _of_the_platform(layout)]
    for path in dict.fromkeys(paths):
        try:
            image = FileImage.read(path, trust=LOOK)
        except (EngineError, OSError):
            continue
        text = (image.content or b"")[:_HEAD_BYTES].decode("utf-8", "replace")
        tool, line = writer_of(text)
        if tool:
            message = f"{path} is written by {tool} (it says: {line!a}), whose next run may take settings of the collection out"
            notes.append({"code": "other_writer", "message": message})
        entry = files.get(path)
        if entry and not entry.without.secret and not entry.is_last(image):
            notes.append(
                {"code": "edited_since", "message": f"{path} changed after the collection has changed it last"}
            )
    return notes


def writer_of(text: str) -> tuple[str, str]:
    """Return the tool that a file names at its head as its writer, and the line; both empty if it names none."""
    found = ("", "")
    for line in text.splitlines()[:_HEAD_LINES]:
        comment = _COMMENT.match(line)
        if not comment or "mailfleet" in comment[1]:
            continue
        for tool, pattern in _TOOLS.items():
            if re.search(pattern, comment[1], re.IGNORECASE):
                said = tool, comment[1].strip()[:_SHOWN]
                if tool != _NAMELESS:
                    return said
                found = found if found[0] else said
    return found


def _of_the_platform(layout: Layout) -> Iterator[str]:
    """Yield the program of the platform that writes the configuration anew, unless it is switched off."""
    if not layout.writer or not Path(layout.writer).exists():
        return
    path, setting = layout.writer_off
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    name, _, value = setting.partition("=")
    found = re.findall(rf"(?m)^[ \t]*{re.escape(name)}=[\"']?([^\"'\s]*)", text)
    if not found or found[-1].lower() != value:
        yield f"{layout.writer} writes {layout.config_file} anew at each start of the mail server; set {setting} in {path} first"
