# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a gateway's daemon still does what the collection noted: somebody may have edited its configuration since.

An answer is true, false (what it takes is gone), or None (it cannot be told).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Optional

Answers = Mapping[str, Mapping[str, Optional[bool]]]


def every(*answers: Optional[bool]) -> Optional[bool]:
    """Return false if one of them is, else None if one of them is, else true."""
    return False if False in answers else None if None in answers else True


def as_written(content: Optional[bytes], wanted: str, lines: Iterable[str]) -> Optional[bool]:
    """Return whether a file has these lines: true if it is as the collection writes it, None if there is other text as well."""
    text = (content or b"").decode("utf-8", "replace")
    if text == wanted:
        return True
    held = text.splitlines()
    return None if all(one.rstrip("\n") in held for one in lines) else False
