# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's errors. A message is for the user: it names the fault, the place and the next thing to do."""

from __future__ import annotations


class EngineError(Exception):
    """A fault that changed nothing. The text names the fault, the place and the next thing to do."""


class NotRunningError(EngineError):
    """The daemon is on this host and does not run."""


class BrokenConfigurationError(EngineError):
    """The daemon cannot read its configuration. The text holds the daemon's own words."""


class TransactionError(EngineError):
    """A change failed after it began. restored: whether the former state is back and proved."""

    def __init__(self, message: str, restored: bool) -> None:
        super().__init__(message)
        self.restored = restored


class PortInUseError(EngineError):
    """Another service uses a port of this host that the change needs."""


class NotExpressibleError(EngineError):
    """The product has no setting for what is wanted."""
