# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of mail_server_tls: where the decisions for this kind of mail server run."""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import CONTROLLERS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, kind_by_connection

MODULE = "mailfleet.starttls.mail_server_tls"


class ActionModule(ActionBase):
    """Asks the connection for the kind first: a product that no Python reaches has its decisions made here."""

    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Make the change from here if the kind asks for that, else on the host."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            arguments["kind"] = kind_by_connection(str(arguments.get("kind") or AUTO), self._connection.transport)
        except EngineError as error:
            raise AnsibleActionFail(str(error)) from error
        if arguments["kind"] not in CONTROLLERS:
            result: dict[str, Any] = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
            return result
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        return CONTROLLERS[arguments["kind"]](
            {**options, "kind": arguments["kind"]},
            lambda module, given: self._execute_module(module, module_args=dict(given), task_vars=task_vars),
            self._task.check_mode,
        )
