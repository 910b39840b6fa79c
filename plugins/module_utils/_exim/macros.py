# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of Debian's file of macros for Exim. Source: the Exim specification, chapter on the configuration file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_MACRO = re.compile(r"\s*([A-Z][A-Za-z0-9_]*|tls_require_ciphers|openssl_options)\s*==?\s*(.*)", re.DOTALL)


def statements(text: str) -> list[str]:
    """Split an Exim file into statements: a line with its continuation lines."""
    found: list[str] = []
    continued = False
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        if continued:
            found[-1] += line
        else:
            found.append(line)
        # A comment is one line, even with a backslash at its end, and may stand between the lines of a statement.
        if not line.strip().startswith("#"):
            continued = line.rstrip().endswith("\\")
    return found


def macro_of(statement: str) -> tuple[str, str]:
    """Return the macro that a statement defines, and its value; both empty if it defines none."""
    lines = [line for line in statement.split("\n") if not line.strip().startswith("#")]
    match = _MACRO.match("\n".join(lines))
    if not match:
        return "", ""
    return match.group(1), re.sub(r"\\\s*\n\s*", "", match.group(2)).strip()


def read_macros(text: str) -> dict[str, str]:
    """Read an Exim macros file: macro -> value. The last definition counts."""
    pairs = (macro_of(statement) for statement in statements(text))
    return {name: value for name, value in pairs if name}


def set_macros(text: str, wanted: Mapping[str, Optional[str]]) -> str:
    """Return the text with these macros set, or removed if None. Every other line stays the same.

    Raises EngineError for a value with a control character.
    """
    left = dict(wanted)
    kept: list[str] = []
    for name, value in wanted.items():
        if value is not None and any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise EngineError(f"the value of {name} holds a newline or another control character")
    for statement in statements(text):
        name, value = macro_of(statement)
        if name not in wanted:
            kept.append(statement)
        elif name in left:
            new = left.pop(name)
            if new is not None:
                kept.append(statement if new == value else _line(name, new))
    added = [_line(name, value) for name, value in left.items() if value is not None]
    if added and kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    if added and kept and kept[-1].rstrip().endswith("\\") and not kept[-1].lstrip().startswith("#"):
        kept.append("\n")  # end the last line, so that the new line does not continue it
    return "".join(kept + added)


def _line(name: str, value: str) -> str:
    return f"{name} = {value}".rstrip() + "\n"
