# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs deferred_mail on the host, or Retry-Queue on an Exchange server. Nothing in its result is a template."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.modules.deferred_mail import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    ModuleAction,
    checked_options,
    guarded,
    is_controlled,
    refuse_async,
)


class ActionModule(ModuleAction):
    """The controller adds nothing for a host that runs Python."""

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result."""
        refuse_async(self)
        if is_controlled(self, task_vars, self._task.args.get("kind")):
            from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.acting import retry_exchange  # noqa: PLC0415

            return retry_exchange(self, checked_options(self, ARGUMENT_SPEC), task_vars)
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result
