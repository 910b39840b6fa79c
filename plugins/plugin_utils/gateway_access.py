# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a gateway with an API is reached, where neither the task nor the inventory says it: from the environment of the controller.

The environment of the host that runs the module is not read: it is not the administrator's, and is the same for all gateways.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import DEFAULT_GATEWAY, PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import guarded


def environment_names(option: str, host: str) -> tuple[str, str]:
    """Return the variables of the environment for an option: that of one gateway, by its inventory name, then that of all."""
    name = f"MAILFLEET_{option.upper()}"
    return f"{name}_{re.sub('[^A-Za-z0-9]', '_', host).upper()}", name


def with_access(arguments: Mapping[str, Any], host: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return a task's options with the access to the API that they lack. Only what the kind of gateway needs is added."""
    product = PRODUCTS.get(str(arguments.get("gateway") or DEFAULT_GATEWAY))
    completed = dict(arguments)
    for option in product.api_options if product else ():
        found = (environment.get(name) for name in environment_names(option, host))
        if not completed.get(option) and (value := next(filter(None, found), None)):
            completed[option] = value
    return completed


class GatewayAccess(ActionBase):
    """To be the first base class of an action of a gateway's module."""

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Run the action with the access to the gateway."""
        host = str((task_vars or {}).get("inventory_hostname", ""))
        self._task.args = with_access(self._task.args, host, os.environ)
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result
