# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins have in common that read or change a mail server or a gateway, with its certificate."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import with_fixed_days
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    read_bytes,
    read_text,
    refuse_async,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import CheckedInputs, check_install
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.on_host import (
    keep_newer,
    with_host_certificate,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.observed_results import (
    complete_observed,
    served_chain,
    with_verdict,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peer_results import with_read_peers

OFFERING = ("offered", "required")
"""The words of the option inbound with which a certificate is installed."""


class HostAction(ActionBase):
    """An action that starts its module on the host. The certificate is checked on the controller first."""

    TRANSFERS_FILES = False
    MODULE = ""
    SPEC: Mapping[str, Mapping[str, Any]] = {}

    def checked_options(self) -> dict[str, Any]:
        """Return the checked options of the task."""
        options = dict(checked_options(self, self.SPEC))
        with task_errors():
            for name in ("install", "handshake"):
                if options.get(name):
                    options[name] = with_fixed_days(options[name])
        return options

    def checked_install(self, options: Mapping[str, Any]) -> Optional[CheckedInputs]:
        """Return the checked certificate of the option install; None if none is to be installed.

        A state that offers no STARTTLS, or the present one, installs none. So a certificate that expired does not keep TLS on.
        """
        if options["inbound"] not in OFFERING or options["certificate_source"] == "host":
            return None
        with task_errors():
            return check_install(options["install"], options["certificate"], functools.partial(read_bytes, self))

    def roots(self, expected: Mapping[str, Any]) -> str:
        """Return the roots of the option handshake as PEM; empty if it names none."""
        if expected.get("ca_content"):
            return str(expected["ca_content"])
        return read_text(self, "ca_file", expected["ca_file"]) if expected.get("ca_file") else ""

    def execute(self, arguments: Mapping[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        """Run the module on the host and return its result."""
        result: dict[str, Any] = self._execute_module(self.MODULE, module_args=dict(arguments), task_vars=task_vars)
        return result


class ReadAction(HostAction):
    """Reads a host. No private key leaves the controller for that."""

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the observed state, with the facts of certificates and the verdicts on the handshake tests."""
        super().run(tmp, task_vars)
        options = self.checked_options()
        return self.read(options, task_vars)

    def read(self, options: Mapping[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        """Check the certificate and read the host."""
        expected = options["handshake"]
        arguments = {name: value for name, value in self._task.args.items() if name not in ("install", "handshake")}
        checked = self.checked_install(options)
        if checked and not checked.findings:
            arguments["bundle"] = checked.bundle()
        if roots := self.roots(expected):
            arguments["ca_content"] = roots
        result = self.execute(arguments, task_vars)
        if result.get("send_only"):
            checked = None  # what the inventory names for all hosts does not matter on this one
        with task_errors():
            newer = result.pop("newer", None)
            if newer and checked:
                checked = keep_newer(newer, options["install"] or {}, checked, functools.partial(read_bytes, self))
            result = with_host_certificate(result, options["install"] or {}, functools.partial(read_bytes, self))
            result = with_read_peers(result, options, served_chain(result, checked))
            return complete_observed(result, expected, checked, arguments.get("ca_content") or "")


class ChangeAction(HostAction):
    """Changes a host in one call."""

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the result of the change; of the check of the certificate if that has findings."""
        refuse_async(self)
        super().run(tmp, task_vars)
        options = self.checked_options()
        return self.change(options, task_vars)

    def change(self, options: Mapping[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
        """Check the certificate and change the host."""
        checked = self.checked_install(options)
        expected = options.get("handshake") or {}
        arguments = {name: value for name, value in self._task.args.items() if name not in ("install", "handshake")}
        if checked and checked.findings:
            return checked.refusal()
        if checked:
            arguments |= {"bundle": checked.bundle(), "bundle_content": checked.content}
        if roots := self.roots(expected):
            arguments["ca_content"] = roots
        result = self.execute(arguments, task_vars)
        if checked and (newer := result.pop("newer", None)):
            # The host has changed nothing: the certificate that it has ends later, and only the controller can judge it.
            with task_errors():
                checked = keep_newer(newer, options["install"] or {}, checked, functools.partial(read_bytes, self))
            if checked.findings:
                return checked.refusal()
            arguments["bundle"] = {**arguments["bundle"], "keep": checked.facts["fingerprint_sha256"]}
            del arguments["bundle_content"]
            result = self.execute(arguments, task_vars)
            if result.pop("newer", None):
                raise AnsibleActionFail(
                    "the certificate file on the host changed while this task looked at it; run it again"
                )
        if checked:
            result = checked.complete(result)
        with task_errors():
            return with_verdict(result, expected, arguments.get("ca_content") or "")
