# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of starttls_probe: reads the trust store, judges what the host saw."""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import Expectation, judge_handshake
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.x509 import MissingLibraryError, require_cryptography


class ActionModule(ActionBase):
    """Runs the module on the host, then adds certificate, findings and passed to each result."""

    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """See ActionBase."""
        super().run(tmp, task_vars)
        try:
            require_cryptography()
        except MissingLibraryError as error:
            raise AnsibleActionFail(str(error)) from error
        arguments = dict(self._task.args)
        ca_file = arguments.pop("ca_file", None)
        if ca_file and not arguments.get("ca_content"):
            arguments["ca_content"] = self._read(ca_file)
        result: dict[str, Any] = self._execute_module(
            "mailfleet.starttls.starttls_probe", module_args=arguments, task_vars=task_vars
        )
        if result.get("failed") or "results" not in result:
            return result
        expectations = result.pop("expectations")
        result["results"] = [
            judge_handshake(seen, Expectation(**expected)) for seen, expected in zip(result["results"], expectations)
        ]
        result["passed"] = all(one["passed"] for one in result["results"])
        return result

    def _read(self, path: str) -> str:
        try:
            found = self._find_needle("files", path)
            with open(found, encoding="utf-8") as handle:  # noqa: PTH123
                return handle.read()
        except Exception as error:
            raise AnsibleActionFail(f"ca_file {path!r} cannot be read on the controller: {error}") from error
