# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module starttls_probe on the host. The controller reads the trust store, queries DNS and adds the verdicts."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.modules.starttls_probe import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    is_controlled,
    not_made,
    read_text,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.probe_results import Inquiry, complete_result

MODULE = "mailfleet.starttls.starttls_probe"


class ActionModule(ActionBase):
    """Runs the module on the host, then completes each result on the controller."""

    TRANSFERS_FILES = False

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result with a verdict on each target."""
        super().run(tmp, task_vars)
        options = checked_options(self, ARGUMENT_SPEC)
        if is_controlled(self, task_vars):
            return not_made("the handshake test was not made from this host")
        with task_errors():
            inquiry = Inquiry.of_options(options)
        arguments = {name: value for name, value in self._task.args.items() if name != "ca_file"}
        if options["ca_file"] and not options["ca_content"]:
            arguments["ca_content"] = read_text(self, "ca_file", options["ca_file"])
        result = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        with task_errors():
            return complete_result(result, inquiry, arguments.get("ca_content") or "", len(options["targets"]))
