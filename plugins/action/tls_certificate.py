# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the inputs of tls_certificate on the controller, and then runs the module on the host."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import (
    CheckedInputs,
    ReadFile,
    check_inputs,
    merged,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.issued import is_issued, issue
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.on_host import keep_newer
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.published_keys import tlsa_refusal

Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""Runs the module on the host with these options, and returns its result."""
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
        read = functools.partial(read_bytes, self)

        def ask(arguments: dict[str, Any]) -> dict[str, Any]:
            return dict(self._execute_module(MODULE, module_args=arguments, task_vars=task_vars))

        with task_errors():
            checked, ended = self._checked(options, read, ask)
            if checked is None:
                return ended or {}
            if not checked.findings:
                checked.findings += tlsa_refusal(checked, {"install": options})
        if checked.findings:
            return checked.refusal()
        return installed(checked, options, read, ask)

    def _checked(
        self, options: dict[str, Any], read: ReadFile, ask: Ask
    ) -> tuple[Optional[CheckedInputs], Optional[dict[str, Any]]]:
        """Return the checked certificate, which may have to be issued first, or the result of the task if it ends here."""
        if options["state"] == "present" and is_issued(options["source"]):
            return issue(options, options["path"], options["source"], read, ask, bool(self._task.check_mode))
        return check_inputs(options, read), None


def installed(checked: CheckedInputs, options: dict[str, Any], read: ReadFile, ask: Ask) -> dict[str, Any]:
    """Install the files on the host, each by a call. Return the result of the first one, with what changed of the others."""
    results = []
    for one in (checked, *checked.more):
        if one.issue and one.facts.get("kept"):  # the host has judged it already
            results.append({"changed": False, "path": one.arguments["path"]})
            continue
        result = ask(one.for_module())
        if newer := result.pop("newer", None):
            with task_errors():
                kept = keep_newer(newer, options, one, read)
            if kept.findings:
                return kept.refusal()
            if kept.facts.get("kept"):
                one.facts, one.caveats = kept.facts, kept.caveats
            else:
                result = ask({**one.for_module(), "replace": True})
        results.append(result)
        if result.get("failed") or result.get("unreachable"):
            return {**result, "changed": any(each.get("changed") for each in results)}
    return checked.complete(merged(results))
