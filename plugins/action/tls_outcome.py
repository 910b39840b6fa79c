# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tls_outcome on the controller only: fails if a host of a step failed, and then shows where every host stands."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.modules.tls_outcome import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    show,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import check_step
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.rows import outcome_input


class ActionModule(ActionBase):
    """Shows nothing as long as all is well."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return where each host stands; failed if a step failed on one."""
        super().run(tmp, task_vars)
        options = checked_options(self, ARGUMENT_SPEC)
        with task_errors():
            result, text = check_step(**outcome_input(options, task_vars or {}))
        show(text)
        return result
