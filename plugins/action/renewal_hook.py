# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs renewal_hook on the host. Nothing in its result is a template."""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    ModuleAction,
    guarded,
    is_controlled,
    refuse_async,
)


class ActionModule(ModuleAction):
    """A change is not made in the background."""

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result."""
        refuse_async(self)
        if is_controlled(self, task_vars, self._task.args.get("kind")):
            raise AnsibleActionFail(
                "Exchange keeps its certificates in its own store, so this hook has nothing to renew there; use exchange_tls, or the "
                "role mail_server"
            )
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result
