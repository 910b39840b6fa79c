# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tls_verdict on the controller only: shows a table and fails if a host did not pass."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.modules.tls_verdict import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    show,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.table import fleet_verdict


class ActionModule(ActionBase):
    """Shows one row for each host, then the findings of the hosts."""

    TRANSFERS_FILES = False
    _requires_connection = False

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the table and its rows; failed if a host did not pass."""
        super().run(tmp, task_vars)
        options = checked_options(self, ARGUMENT_SPEC)
        with task_errors():
            result, text = fleet_verdict(**options)
        show(text)
        return result
