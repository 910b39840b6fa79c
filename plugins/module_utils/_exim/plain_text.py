# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of an Exim configuration that somebody has written by hand: one plain file, with the collection's settings within marks.

A line that a setting replaces becomes a comment beside the marks. So the text without the marks is the former one, byte by byte.
Source: the Exim specification, chapter on the configuration file; what Exim does with what it does not describe was tried.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.macros import statements
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

BEGIN, END = "# mailfleet.starttls: begin", "# mailfleet.starttls: end"
_NOTE = "# What stands here is written anew at each run. Lines that it replaces are comments, and come back."
_KEPT = "# mailfleet.starttls keeps: "
_BLOCK = re.compile(rf"(?ms)^[ \t]*{re.escape(BEGIN)}[ \t]*\r?\n(.*?)^[ \t]*{re.escape(END)}[ \t]*\r?\n")
_SECTION = re.compile(r"[ \t]*begin[ \t]+(\w+)")
_STANZA = re.compile(r"[ \t]*([\w.-]+)[ \t]*:[ \t]*\r?\n?\Z")
_SETTING = re.compile(r"(?:hide[ \t]+)?(?:no_|not_)?([a-z]\w*)[ \t]*(?:=(.*))?\Z", re.DOTALL)
_DIRECTIVE = re.compile(r"[ \t]*\.(ifdef|ifndef|elifdef|elifndef|else|endif|include_if_exists|include)\b[ \t]*(.*)")
_WITH_STANZAS = ("routers", "transports", "authenticators")
MAIN = ""
"""The place of the options before the first section; every other place is the name of a transport."""


class ByHandError(EngineError):
    """The text cannot be edited safely."""


@dataclass(frozen=True)
class Statement:
    """A line with its continuation lines. conditions: the words of the conditions around it, as they are written."""

    text: str
    line: int
    section: str = "main"
    stanza: str = ""
    conditions: tuple[str, ...] = ()

    @property
    def setting(self) -> tuple[str, str]:
        """The option that it sets, and the value in one line; both empty if it sets none."""
        if self.section not in ("main", "transports") or self.text.lstrip().startswith(("#", ".")):
            return "", ""
        if self.section == "transports" and not self.stanza:
            return "", ""
        lines = [line for line in self.text.split("\n") if not line.strip().startswith("#")]
        match = _SETTING.match("\n".join(lines).strip())
        if not match:
            return "", ""
        parts = [line.strip() for line in (match[2] or "").split("\n")]
        return match[1], "".join(one[:-1] if one.endswith("\\") else one for one in parts).strip()

    @property
    def place(self) -> str:
        """The place whose option it sets."""
        return self.stanza if self.section == "transports" else MAIN

    @property
    def depends(self) -> str:
        """The condition around it that somebody can change; empty if there is none. What Exim has built in begins with a low line."""
        found = (one for one in self.conditions if not all(word.startswith("_") for word in one.split()[1:]))
        return next(found, "")


def read(text: str) -> Iterator[Statement]:
    """Yield the statements of a text, also comments, empty lines and directives."""
    line, section, stanza = 1, "main", ""
    conditions: list[str] = []
    for one in statements(text):
        directive = _DIRECTIVE.match(one)
        begin = _SECTION.match(one)
        if directive:
            _condition(directive[1], directive[2].strip(), conditions)
        elif begin:
            section, stanza = begin[1], ""
        elif section in _WITH_STANZAS and (name := _STANZA.match(one)):
            stanza = name[1]
        yield Statement(one, line, section, stanza, tuple(conditions))
        line += one.count("\n")


def _condition(word: str, names: str, conditions: list[str]) -> None:
    if word in ("ifdef", "ifndef"):
        conditions.append(f".{word} {names}")
    elif conditions and word == "endif":
        conditions.pop()
    elif conditions and word.startswith("el"):
        conditions[-1] = f"{conditions[-1]} {names}".rstrip()


def includes(text: str) -> list[str]:
    """Return the files that the text includes, as they are written."""
    found = (_DIRECTIVE.match(one) for one in statements(text))
    return [match[2].strip().strip('"') for match in found if match and match[1].startswith("include")]


def without_marks(text: str, path: str) -> str:
    """Return the text as it would be without the collection. path: of the file, for the error.

    Raises ByHandError if somebody has taken away one of two marks.
    """
    bare = re.sub(rf"(?m)^{re.escape(_KEPT)}", "", _BLOCK.sub("", text))
    for mark in (BEGIN, END, _KEPT):
        if mark in bare:
            line = bare.count("\n", 0, bare.index(mark)) + 1
            raise ByHandError(
                f"{path}, near line {line}: the mark '{mark.strip()}' stands there alone; take it out, with the settings of the "
                "collection beside it"
            )
    return bare


def marked(text: str) -> dict[str, dict[str, str]]:
    """Return the settings within the marks. A place with marks and no setting has an empty entry."""
    found: dict[str, dict[str, str]] = {}
    inside = False
    for one in read(text):
        word = one.text.strip()
        if word == BEGIN:
            inside = True
            found.setdefault(one.place, {})
        elif word == END:
            inside = False
        elif inside and one.setting[0]:
            found[one.place][one.setting[0]] = one.setting[1]
    return found


def assigned(text: str) -> dict[str, dict[str, list[str]]]:
    """Return place -> option -> its values, in the order of the text."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in read(text):
        name, value = one.setting
        if name:
            found.setdefault(one.place, {}).setdefault(name, []).append(value)
    return found


@dataclass(frozen=True)
class Edit:
    """What to change in a place. settings: what to write within the marks. gone: options of the text that become comments, too."""

    settings: Mapping[str, str]
    gone: Collection[str] = field(default=())

    @property
    def names(self) -> set[str]:
        """The options that have no other assignment afterwards."""
        return {*self.settings, *self.gone}


def edited(bare: str, edits: Mapping[str, Edit], path: str) -> str:
    """Return a text without marks with these settings within marks. path: of the file, for errors.

    Raises ByHandError, which says what makes that unsafe.
    """
    parts: list[str] = []
    left = dict(edits)
    begun = False
    for one in read(bare):
        if one.section != "main" and not begun:
            begun = True
            if MAIN in left:
                _require(not one.conditions, one, path, "the first section begins within a condition")
                parts.append(_block(left.pop(MAIN).settings, ""))
        edit = edits.get(one.place) if one.section in ("main", "transports") else None
        name, value = one.setting
        if edit and name in edit.names:
            depends = one.depends
            _require(not depends, one, path, f"{name} is set within the condition {depends!a}")
            parts += [f"{_KEPT}{line}" for line in re.findall(r"[^\n]*\n|[^\n]+", one.text)]
            continue
        parts.append(one.text)
        if edit and one.place != MAIN and name == "driver" and value == "smtp" and one.place in left:
            _require(one.text.endswith("\n"), one, path, "the file ends there without the end of a line")
            parts.append(_block(left.pop(one.place).settings, "  "))
    if MAIN in left:
        raise ByHandError(f"{path} has no line that begins a section, so the end of its main part is not known")
    if left:
        raise ByHandError(f"{path} does not hold the transport {', '.join(left)} itself")
    return "".join(parts)


def _block(settings: Mapping[str, str], indent: str) -> str:
    lines = [BEGIN, _NOTE, *(f"{name} = {value}".rstrip() for name, value in settings.items()), END]
    for value in settings.values():
        if any(ord(char) < 32 or ord(char) == 127 for char in value) or value.endswith("\\"):
            raise ByHandError(f"the value {value!a} cannot stand in a configuration file")
    return "".join(f"{indent}{line}\n" for line in lines)


def _require(fine: bool, statement: Statement, path: str, what: str) -> None:
    if not fine:
        raise ByHandError(f"{path}, line {statement.line}: {what}")


def by_hand(settings: Mapping[str, Mapping[str, str]]) -> str:
    """Return the settings as lines to add by hand. settings: place -> option -> value."""
    places = []
    for place, values in settings.items():
        lines = "; ".join(f"{name} = {value}".rstrip() for name, value in values.items())
        if lines:
            places.append(f"in the transport {place}: {lines}" if place else f"before the first 'begin': {lines}")
    return "; ".join(places)
