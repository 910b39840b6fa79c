# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the inputs of tls_certificate on the controller, and then runs the module on the host."""

from __future__ import annotations

import functools
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.modules.tls_certificate import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    is_controlled,
    read_bytes,
    refuse_async,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import check_inputs
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.on_host import keep_newer

MODULE = "mailfleet.starttls.tls_certificate"

# '~' in path refers to the host, so the controller must not expand it.
_SPEC = {**ARGUMENT_SPEC, "path": {**ARGUMENT_SPEC["path"], "type": "str"}}


class ActionModule(ActionBase):
    """Checks the certificate before any data is sent to the host."""

    TRANSFERS_FILES = False

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result with the facts of the certificate, or the findings if there are any."""
        refuse_async(self)
        super().run(tmp, task_vars)
        options = checked_options(self, _SPEC)
        if is_controlled(self, task_vars, options["kind"]):
            raise AnsibleActionFail(
                "Exchange keeps its certificates in its own store: this module writes files. Use exchange_tls, or the role mail_server"
            )
        with task_errors():
            checked = check_inputs(options, functools.partial(read_bytes, self))
        if checked.findings:
            return checked.refusal()
        result = self._execute_module(MODULE, module_args=checked.arguments, task_vars=task_vars)
        if newer := result.pop("newer", None):
            with task_errors():
                checked = keep_newer(newer, options, checked, functools.partial(read_bytes, self))
            if checked.findings:
                return checked.refusal()
        return checked.complete(result)
