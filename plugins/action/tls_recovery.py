# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tls_recovery on the controller only: shows what waits for want of TLS, and what has to be done."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.modules.tls_recovery import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    show,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.recovery.table import recovery_result, write_json


class ActionModule(ActionBase):
    """Shows one table."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the plan, or the comparison."""
        super().run(tmp, task_vars)
        options = checked_options(self, ARGUMENT_SPEC)
        variables = task_vars or {}
        with task_errors():
            result, text = recovery_result(
                options["stage"], options["hosts"], variables.get("hostvars") or {}, variables.get("groups") or {},
                self._task.check_mode,
            )  # fmt: skip
            if options["json_file"]:
                write_json(options["json_file"], result)
        show(text)
        return result
