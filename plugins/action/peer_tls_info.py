# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module peer_tls_info on the host. The controller explains what the peers said, and judges the certificates."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import peers_of
from ansible_collections.mailfleet.starttls.plugins.modules.peer_tls_info import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    is_controlled,
    not_made,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import require_cryptography
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_results import with_findings

MODULE = "mailfleet.starttls.peer_tls_info"


class ActionModule(ActionBase):
    """Runs the module on the host, then completes the result of each peer on the controller."""

    TRANSFERS_FILES = False

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result with the findings of each peer."""
        super().run(tmp, task_vars)
        options = checked_options(self, ARGUMENT_SPEC)
        with task_errors():
            require_cryptography()
            peers = peers_of(options["peers"])
        if is_controlled(self, task_vars):
            return not_made("the proof with the peers was not made")
        result = self._execute_module(MODULE, module_args=self._task.args, task_vars=task_vars)
        with task_errors():
            return with_findings(result, peers, options)
