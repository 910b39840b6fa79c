# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of daemons, whatever the product: C(name = value) lines, and paths that need no quotes."""

from __future__ import annotations

import re

_PATH = re.compile(r"/[A-Za-z0-9_./+@-]*\Z")


def parse_settings(text: str) -> dict[str, str]:
    """Return name -> value of the lines that have an equals sign."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def is_path(text: str) -> bool:
    """Whether the text is an absolute path without blanks, quotes and "..", so that every daemon reads it literally."""
    return bool(_PATH.match(text)) and ".." not in text.split("/")
