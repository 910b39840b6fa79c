# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tls_activity_info on the host. Nothing in its result is a template."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    ModuleAction,
    guarded,
    is_controlled,
    not_made,
)


class ActionModule(ModuleAction):
    """The controller adds nothing."""

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result."""
        if is_controlled(self, task_vars):
            return not_made("the log was not counted")
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result
