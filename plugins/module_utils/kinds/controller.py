# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mail servers whose decisions run on the controller, one entry for each product. The host runs single steps only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Execute = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Runs a module on the host: (name of the module, its options) -> its result."""

CONTROLLERS: dict[str, Callable[[Mapping[str, Any], Execute, bool], dict[str, Any]]] = {}
"""Kind -> the function that makes the change: (checked options of mail_server_tls, Execute, check mode) -> result."""
