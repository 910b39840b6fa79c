# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tls_plan on the controller only: shows the plan of a run and fails if something stands in the way."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.modules.tls_plan import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    show,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.fleet_lock import this_run
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import (
    former_changes,
    handed_on,
    lock_of,
    plan_of_run,
    plan_result,
    write_plan,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.stated import as_stated


class ActionModule(ActionBase):
    """Makes one plan of the results of all hosts, shows it and writes it to a file if that is wanted."""

    TRANSFERS_FILES = False
    _requires_connection = False

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the plan; failed if it may not be carried out, or as O(fail_on) says."""
        super().run(tmp, task_vars)
        options = checked_options(self, ARGUMENT_SPEC)
        variables = task_vars or {}
        with task_errors():
            hostvars = as_stated(variables.get("hostvars") or {}, variables.get("ansible_play_name"))
            groups = variables.get("groups") or {}
            options["plan_only"] = options["plan_only"] or self._task.check_mode
            plan = plan_of_run(options, hostvars, groups, this_run({}, "")["run"])
            if options["json_file"]:
                write_plan(options["json_file"], plan)
            result, text = plan_result(
                plan,
                options["plan_only"],
                options["fail_on"],
                options["only_these_hosts"],
                options["recovered"],
                options["fail"],
            )
            if "run" in result:
                result["run"]["changes"] = handed_on(plan, result["run"], hostvars)
                result["run"].update(lock_of(plan, result["run"], hostvars, groups))
        for host, former in former_changes(plan.hosts, hostvars).items():
            if former and host in result.get("run", {}).get("hosts", {}):
                result["run"]["hosts"][host]["former"] = former
        show(text)
        return result
