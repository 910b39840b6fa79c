# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What no option's value may hold, whatever the option is for: characters that begin a new line or steer a terminal.

Each option has its own check of its meaning as well. This one is for all of them, so that none can be forgotten.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_LAYOUT = "\n\r\t"
"""What the text of a certificate or a key may hold."""
_TEXT = "{name} holds a line break or another control character (U+{code:04X}); take it out of the value"


def refuse_control_characters(spec: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> None:
    """Raise EngineError, which names the option, if a value holds a line break or another control character.

    spec: an argument spec of Ansible. options: what Ansible made of the task by that spec. An option with PEM text, whose name
    ends in C(content), may hold line breaks and tabs. A mapping without a spec of its own holds results of other tasks, and is
    left to its reader. The value is not shown: it may be a secret.
    """
    for name, value in _texts(spec, options):
        allowed = _LAYOUT if name.endswith("content") else ""
        found = next((char for char in value if char not in allowed and _is_control(char)), "")
        if found:
            raise EngineError(_TEXT.format(name=name, code=ord(found)))


def refuse_null_characters(options: Mapping[str, Any], within: str = "") -> None:
    """Raise EngineError, which names the option, if a value holds U+0000. For the controller: no spec is needed for that.

    Ansible on the host may log the options before a module sees them, and then fails by a fault that names none.
    """
    for name, value in options.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, Mapping):
                refuse_null_characters(one, f"{within}{name}.")
            elif isinstance(one, str) and "\0" in one:
                raise EngineError(_TEXT.format(name=f"{within}{name}", code=0))


def _texts(
    spec: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield each text with the name of its option, as C(option.suboption)."""
    for name, option in spec.items():
        value = options.get(name)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, str):
                yield within + name, one
            elif isinstance(one, Mapping) and option.get("options"):
                yield from _texts(option["options"], one, f"{within}{name}.")


def _is_control(char: str) -> bool:
    kind = unicodedata.category(char)
    # Bytes of a path that are not UTF-8 are surrogates from U+DC80 to U+DCFF in Python. They can be written again.
    return kind in ("Cc", "Zl", "Zp") or (kind == "Cs" and not "\udc80" <= char <= "\udcff")
