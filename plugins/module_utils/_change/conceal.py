# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of configuration files without the secrets that people keep in them. For diffs, which go to screens and job logs."""

from __future__ import annotations

import re

HIDDEN = "(not shown)"
# A setting, anywhere in a line: a service has its settings behind its command. Name and secret word are two patterns,
# because one for both would take hours for a long line of such words.
_SETTING = re.compile(r"(?<![\w.-])([\w.-]+(?:\[\])?[ \t]*=[ \t]*)(?=\S)")
_SECRET = re.compile(r"(?i)pass|secret|credential|api_?key|token")
# A table that is written where others are named, as the value of a setting with any name: static:{user password}
_TABLE = re.compile(r"\b(static|inline):.*")
_WORD = re.compile(r"\S+")
_USERINFO = re.compile(r"(://[^/:]*:).+")
_CONTINUED = re.compile(r"[ \t]+(?!-o\b)\S")


def conceal(text: str) -> str:
    """Return the text with HIDDEN in the place of each secret, and with as many lines as before.

    Hidden are the values of settings whose names speak of passwords, tokens and the like, tables that are written into a
    setting, and passwords in URLs. Lines that continue such a value are hidden as a whole.
    """
    lines = []
    hidden = False
    for line in text.splitlines():
        if hidden and _CONTINUED.match(line):
            lines.append(line[: len(line) - len(line.lstrip())] + HIDDEN)
            continue
        found = next((one.end() for one in _SETTING.finditer(line) if _SECRET.search(one[1])), None)
        shown = _TABLE.sub(rf"\1:{HIDDEN}", line if found is None else line[:found] + HIDDEN)
        # A name alone also begins such a value: it stands in the lines below.
        alone = _SETTING.match(f"{line}x")
        hidden = shown != line or bool(alone and _SECRET.search(alone[1]))
        lines.append(_WORD.sub(_without_password, shown) if "@" in shown else shown)
    return "\n".join(lines)


def _without_password(word: re.Match[str]) -> str:
    """Return a word with HIDDEN in the place of the password before each @."""
    *urls, rest = word[0].split("@")
    return "@".join([*(_USERINFO.sub(rf"\1{HIDDEN}", one) for one in urls), rest])
