# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the certificate on the controller, then runs mail_server_tls on the host, or decides itself for a kind that requires this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, kind_by_connection
from ansible_collections.mailfleet.starttls.plugins.modules.mail_server_tls import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    is_controlled,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.host_actions import ChangeAction


class ActionModule(ChangeAction):
    """A host without Python cannot detect its own kind: the inventory or the connection tells it."""

    MODULE = "mailfleet.starttls.mail_server_tls"
    SPEC = ARGUMENT_SPEC

    def change(self, options: Mapping[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        """Make the change from the controller if the kind requires this, else on the host."""
        if is_controlled(self, task_vars, options["kind"]):
            if options.get("settings_only"):
                raise AnsibleActionFail(
                    "starttls_settings_only is for Postfix and Exim, and this is Exchange; take it away"
                )
            from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.acting import change_exchange  # noqa: PLC0415

            return change_exchange(self, {**options, "address": None}, task_vars)
        with task_errors():
            kind_by_connection(
                options["kind"] or AUTO, self._connection.transport
            )  # a wrong kind is refused before the host is asked
        self._task.args = {**self._task.args, "kind": options["kind"] or AUTO}
        return super().change(options, task_vars)
