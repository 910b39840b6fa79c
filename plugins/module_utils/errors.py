# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine raises. A message is for the user: what is wrong, where, and what to do next."""

from __future__ import annotations


class EngineError(Exception):
    """Something is wrong and nothing was changed; the text says what, where and what to do next."""


class TransactionError(EngineError):
    """A change failed after it began. restored tells whether the old state is back and proved."""

    def __init__(self, message: str, restored: bool) -> None:
        super().__init__(message)
        self.restored = restored
