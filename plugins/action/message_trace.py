# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs message_trace on the host, with the IMAP passwords in an option that Ansible does not log. Nothing in its result is a template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    ModuleAction,
    guarded,
    is_controlled,
    not_made,
)


class ActionModule(ModuleAction):
    """The module puts the passwords back."""

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result."""
        if is_controlled(self, task_vars):
            return not_made("no test message was sent or looked for")
        receive, passwords = _apart(self._task.args.get("receive"))
        if any(passwords):
            self._task.args = {**self._task.args, "receive": receive, "imap_passwords": passwords}
        return super().run(tmp, task_vars)


def _apart(receive: Any) -> tuple[Any, list[str]]:
    """Return the option receive without passwords, and the password of each entry; empty if it has none."""
    if not isinstance(receive, list):
        return receive, []
    without, passwords = [], []
    for item in receive:
        imap = item.get("imap") if isinstance(item, Mapping) else None
        password = imap.get("password") if isinstance(imap, Mapping) else None
        passwords.append(str(password or ""))
        without.append({**item, "imap": {**(imap or {}), "password": ""}} if password else item)
    return without, passwords
