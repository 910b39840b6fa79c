# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Exchange organisation as one server shows it: values that exchange_cmdlets read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


class NotReadError(EngineError):
    """What a decision depends on could not be read. The text says what, and why if that is known."""


class Organisation:
    """What exchange_cmdlets read. An attribute that could not be read raises NotReadError."""


def observe(observed: Mapping[str, Any]) -> Organisation:
    """Parse C(observed) of exchange_cmdlets. Raises EngineError if it has another shape."""
    raise NotImplementedError
