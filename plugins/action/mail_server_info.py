# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs mail_server_info on the host. The controller checks the certificate to install, and judges the handshake test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.modules.mail_server_info import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    is_controlled,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.host_actions import ReadAction


class ActionModule(ReadAction):
    """No private key leaves the controller for a read."""

    MODULE = "mailfleet.starttls.mail_server_info"
    SPEC = ARGUMENT_SPEC

    def read(self, options: Mapping[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        """Read the host; from the controller if no Python runs there."""
        if is_controlled(self, task_vars, options["kind"]):
            from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.acting import read_exchange  # noqa: PLC0415

            return read_exchange(self, options, task_vars)
        return super().read(options, task_vars)
