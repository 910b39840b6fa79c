# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tls_report on the controller only: creates one report and writes it in every wanted format."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.modules.tls_report import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.outputs import write_report


class ActionModule(ActionBase):
    """Builds the document once and renders it for each output."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the summary, the alerts and the paths of the files."""
        super().run(tmp, task_vars)
        options = checked_options(self, ARGUMENT_SPEC)
        with task_errors():
            return write_report(options, self._task.check_mode)
