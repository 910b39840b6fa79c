# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the certificate on the controller, then runs mail_server_tls on the host, or on the controller for a kind that requires this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import CONTROLLERS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, kind_by_connection
from ansible_collections.mailfleet.starttls.plugins.modules.mail_server_tls import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import task_errors
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.host_actions import ChangeAction


class ActionModule(ChangeAction):
    """Derives the kind from the connection first, because a host without Python cannot detect its own kind."""

    MODULE = "mailfleet.starttls.mail_server_tls"
    SPEC = ARGUMENT_SPEC

    def change(self, options: Mapping[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        """Make the change from the controller if the kind requires this, else on the host."""

        def execute(module: str, arguments: Any) -> dict[str, Any]:
            result: dict[str, Any] = self._execute_module(module, module_args=dict(arguments), task_vars=task_vars)
            return result

        with task_errors():
            kind = kind_by_connection(options["kind"] or AUTO, self._connection.transport)
            if kind in CONTROLLERS:
                return CONTROLLERS[kind]({**options, "kind": kind}, execute, self._task.check_mode)
        self._task.args = {**self._task.args, "kind": kind}
        return super().change(options, task_vars)
