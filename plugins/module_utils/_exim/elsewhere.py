# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The macros that a site sets in other files than Debian's file of local macros.

Exim takes a macro from every file that Debian puts together, and from files that those include. A second definition breaks the
configuration, or replaces the first (C(==)). Sources: the Exim specification (macros, conditional skips, file inclusion),
update-exim4.conf(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.macros import macro_of, statements

_SECTIONS = ("main", "acl", "router", "transport", "retry", "rewrite", "auth")
"""The directories of the split configuration, in Debian's order."""
_RELEVANT = re.compile(r"(MAIN_TLS_|REMOTE_SMTP_|MAIN_ACL_CHECK_MAIL\Z|MAILFLEET_)")
_DIRECTIVE = re.compile(r"\s*\.(ifdef|ifndef|elifdef|elifndef|else|endif|include_if_exists|include)\b[ \t]*(.*)")
_WORTH = re.compile(r"(?m)^[ \t]*(?:(?:MAIN_TLS_|REMOTE_SMTP_|MAIN_ACL_CHECK_MAIL\b|MAILFLEET_)\w*[ \t]*=|\.include)")
_PART = re.compile(r"[A-Za-z0-9_-]+\Z")
_SETTING = re.compile(r"(?m)^([A-Z]\w*)=['\"]?([^'\"\n]*)")
_DEEPEST = 10
"""How deep files may include others: Exim has no limit, and one that includes itself has no end."""


@dataclass(frozen=True)
class Definition:
    """One definition of a macro. is_default: it counts only if nothing before it sets the macro."""

    name: str
    value: str
    path: str
    line: int
    is_default: bool = False

    @property
    def place(self) -> str:
        """Where it stands, for a message."""
        return f"{self.path}, line {self.line}"


@dataclass
class _Condition:
    """A conditional skip of the file. taken: whether one of its branches was. absent: the macro that it asks to be absent."""

    outer: bool
    active: bool
    taken: bool
    absent: str = ""


@dataclass
class _Reader:
    known: Callable[[], Mapping[str, str]]
    found: list[Definition] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def read(self, path: str, own: bool = False, depth: int = 0) -> None:
        """Read a file and those that it includes. own: its own definitions are left out."""
        try:
            text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:  # Exim says so itself, and refuses its configuration
            return
        if not _WORTH.search(text):  # most of Debian's files
            self.seen.update(re.findall(r"(?m)^[ \t]*([A-Z]\w*)[ \t]*=", text))
            return
        line, stack = 1, [_Condition(True, True, True)]
        for statement in statements(text):
            self._take(statement, path, line, stack, own, depth)
            line += statement.count("\n")

    def _take(self, statement: str, path: str, line: int, stack: list[_Condition], own: bool, depth: int) -> None:
        directive = _DIRECTIVE.match(statement)
        if not directive:
            name, value = macro_of(statement)
            if name and stack[-1].active:
                self.seen.add(name)
                if not own and _RELEVANT.match(name):
                    is_default = any(one.absent == name for one in stack)
                    self.found.append(Definition(name, value, path, line, is_default))
        elif directive[1].startswith("include"):
            if stack[-1].active and depth < _DEEPEST:
                self.read(self._expanded(directive[2].strip().strip('"')), depth=depth + 1)
        else:
            self._condition(directive[1], directive[2].strip(), stack)

    def _condition(self, word: str, names: str, stack: list[_Condition]) -> None:
        if word in ("ifdef", "ifndef"):
            outer = stack[-1].active
            active = outer and self._holds(word, names)
            stack.append(_Condition(outer, active, active, names if word == "ifndef" else ""))
        elif len(stack) == 1:  # Exim refuses such a file
            return
        elif word == "endif":
            stack.pop()
        else:
            top = stack[-1]
            active = top.outer and not top.taken and (word == "else" or self._holds(word[2:], names))
            stack[-1] = _Condition(top.outer, active, top.taken or active)

    def _holds(self, word: str, names: str) -> bool:
        """Whether a macro occurs in the text, as Exim looks for them. What asks for the absence of one macro is a default of it."""
        if word == "ifndef" and _RELEVANT.match(names) and names not in self.seen:
            return True
        there = any(one in names for one in self.seen) or any(one in names for one in self.known())
        return there == (word == "ifdef")

    def _expanded(self, path: str) -> str:
        if re.search("[A-Z]", path) and not Path(path).exists():
            for name, value in sorted(self.known().items(), key=lambda one: -len(one[0])):
                path = path.replace(name, value)
        return path


def definitions(
    config_dir: str, split: bool, own: str, settings: str, known: Callable[[], Mapping[str, str]]
) -> list[Definition]:
    """Return the definitions that the collection cares about, but for those in the file of local macros, in Exim's order.

    own: the file of local macros. settings: update-exim4.conf.conf, of which Debian makes defaults. known: returns all macros
    that Exim knows now; it is asked only if a condition depends on them.
    """
    reader = _Reader(known)
    for path in sources(config_dir, split) if split else (own, *sources(config_dir, split)):
        reader.read(path, own=path == own)
    return [*reader.found, *_defaults(settings)]


def sources(config_dir: str, split: bool) -> list[str]:
    """Return the files that Debian puts together, in its order, without what they include."""
    if not split:
        return [f"{config_dir}/exim4.conf.template"]
    return [path for section in _SECTIONS for path in parts(Path(config_dir, "conf.d", section))]


def parts(directory: Path) -> Iterator[str]:
    """Yield the files of a section as Debian's run_parts does: C(NAME.rul) stands for NAME."""
    for one in sorted(directory.glob("*"), key=lambda path: path.name):
        if _PART.match(one.name) and one.is_file():
            rule = one.with_name(f"{one.name}.rul")
            yield str(rule if rule.is_file() else one)


def _defaults(settings: str) -> Iterator[Definition]:
    try:
        text = Path(settings).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    for match in _SETTING.finditer(text):
        if _RELEVANT.match(match[1]):
            line = text.count("\n", 0, match.start()) + 1
            yield Definition(match[1], match[2].strip().lower(), settings, line, is_default=True)


def in_force(found: Sequence[Definition], own: Mapping[str, str]) -> dict[str, Definition]:
    """Return the definition of each macro that counts, beside those of the file of local macros.

    A default counts only in update-exim4.conf.conf: those in Debian's files are what Debian does without the macro.
    """
    counts: dict[str, Definition] = {}
    for one in found:
        if not one.is_default:
            counts[one.name] = one
        elif one.path.endswith(".conf.conf") and one.name not in own:
            counts.setdefault(one.name, one)
    return counts
