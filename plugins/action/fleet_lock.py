# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs fleet_lock on the host in the name of this run, and knows whether the run of a lock there has ended."""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.modules.fleet_lock import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    refuse_async,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.fleet_lock import (
    hours_of,
    is_over,
    refusal,
    taken_over,
    this_run,
)

MODULE = "mailfleet.starttls.fleet_lock"


class ActionModule(ActionBase):
    """Takes or releases the lock of the fleet."""

    TRANSFERS_FILES = False

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return whether this run has the lock; failed if another one has it."""
        refuse_async(self)
        super().run(tmp, task_vars)
        options = checked_options(self, ARGUMENT_SPEC)
        variables = task_vars or {}
        host = str(self._task.delegate_to or variables.get("inventory_hostname"))
        with task_errors():
            hours = hours_of(options["hours"])
            arguments = {**options, "hours": hours, **this_run(variables, options["playbook"])}
        result = self._call(arguments, task_vars)
        former = result.get("former") or {}
        if options["state"] == "held" and not result.get("held") and is_over(str(former.get("process") or "")):
            result = self._call({**arguments, "over": former.get("run")}, task_vars)
        if result.get("failed") or result.get("unreachable"):
            return result
        result["host"] = host
        with task_errors():
            return self._judged(result, host, hours, options)

    def _call(self, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        return result

    def _judged(self, result: dict[str, Any], host: str, hours: float, options: dict[str, Any]) -> dict[str, Any]:
        former = result.get("former") or {}
        if options["state"] == "released" or not former:
            return result
        if result.get("held"):
            result["warnings"] = [*result.get("warnings", ()), taken_over(host, former, hours, options["break_lock"])]
        elif self._task.check_mode:
            result["warnings"] = [*result.get("warnings", ()), refusal(host, former, hours)]
        else:
            raise AnsibleActionFail(refusal(host, former, hours))
        return result
