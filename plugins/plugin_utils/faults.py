# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a filter returns instead of an error. Ansible puts the words "The filter plugin failed" around the text of an error.

The task that takes the value fails with the text: action plugins refuse it, and playbooks look for the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FAULT = "mailfleet_fault"
"""The only key of a value that stands for an error. Its value is the text."""


def as_fault(error: Exception) -> dict[str, str]:
    """Return the value that stands for an error."""
    return {FAULT: str(error)}


def fault_in(value: Any) -> str:
    """Return the text of a fault that is the value, or one of the items of a list; else an empty text."""
    items: Iterable[Any] = value if isinstance(value, (list, tuple)) else [value]
    return next((str(one[FAULT]) for one in items if isinstance(one, Mapping) and FAULT in one), "")
