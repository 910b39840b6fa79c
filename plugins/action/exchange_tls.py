# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets TLS on an Exchange server. All decisions are made here; the host runs exchange_cmdlets only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.modules.exchange_tls import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.acting import change_exchange
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.host_actions import ChangeAction


class ActionModule(ChangeAction):
    """Makes a change, ends a pending one, or undoes that of a killed run."""

    MODULE = "mailfleet.starttls.exchange_tls"
    SPEC = ARGUMENT_SPEC

    def change(self, options: Mapping[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        """Make the change from the controller."""
        return change_exchange(self, options, task_vars)
