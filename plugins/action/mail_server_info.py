# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs mail_server_info on the host. The controller checks the certificate to install, and judges the handshake test."""

from __future__ import annotations

import functools
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.modules.mail_server_info import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    read_bytes,
    read_text,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import check_install
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.observed_results import complete_observed

MODULE = "mailfleet.starttls.mail_server_info"


class ActionModule(ActionBase):
    """No private key leaves the controller for a read."""

    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the observed state, with the facts of certificates and the verdicts on the handshake tests."""
        super().run(tmp, task_vars)
        options = checked_options(self, ARGUMENT_SPEC)
        expected = options["handshake"]
        arguments = {name: value for name, value in self._task.args.items() if name not in ("install", "handshake")}
        with task_errors():
            checked = check_install(options["install"], options["certificate"], functools.partial(read_bytes, self))
        if checked and not checked.findings:
            arguments["bundle"] = checked.bundle(with_content=False)
        if expected.get("ca_file"):
            arguments["ca_content"] = read_text(self, "ca_file", expected["ca_file"])
        result = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        with task_errors():
            return complete_observed(result, expected, checked, arguments.get("ca_content") or "")
