# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of cmdlets, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call of a cmdlet. undo: the calls that undo it, in the order in which they run.

    insists: whether it makes this server insist on TLS, so that a handshake has to be completed first.
    """

    cmdlet: str
    parameters: Mapping[str, Any]
    undo: tuple[Call, ...] = ()
    insists: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the call as exchange_cmdlets takes it: C(Cmdlet), C(Parameters), C(Undo)."""
        return {
            "Cmdlet": self.cmdlet,
            "Parameters": {
                name: list(value) if isinstance(value, tuple) else value for name, value in self.parameters.items()
            },
            "Undo": [one.to_json() for one in self.undo],
        }
