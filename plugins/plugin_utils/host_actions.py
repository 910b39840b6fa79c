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
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import ON_HOST
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import with_fixed_days
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import RENEWED
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import (
    checked_options,
    guarded,
    read_bytes,
    read_text,
    refuse_async,
    task_errors,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import CheckedInputs, check_install
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.issued import (
    is_issued,
    issue,
    judged,
    planned,
)
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
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.published_keys import (
    tlsa_refusal,
    with_tlsa,
)

OFFERING = ("offered", "required", RENEWED)
"""The words of the option inbound with which a certificate is installed."""
CERTIFICATE_MODULE = "mailfleet.starttls.tls_certificate"
"""The module that makes keys and requests on a host."""


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
        source = options["certificate_source"] or "files"
        if options["inbound"] not in OFFERING or source == "host":
            return None
        read = functools.partial(read_bytes, self)
        with task_errors():
            if is_issued(source):
                return planned(options["install"], options["certificate"], source, read, options["inbound"] == RENEWED)
            return check_install(options["install"], options["certificate"], read, source)

    def roots(self, expected: Mapping[str, Any]) -> str:
        """Return the roots of the option handshake as PEM; empty if it names none."""
        if expected.get("ca_content"):
            return str(expected["ca_content"])
        return read_text(self, "ca_file", expected["ca_file"]) if expected.get("ca_file") else ""

    def issued(
        self, options: Mapping[str, Any], task_vars: Optional[dict[str, Any]]
    ) -> tuple[Optional[CheckedInputs], Optional[dict[str, Any]]]:
        """Have the certificate issued for a key of the host. Return it checked, or the result of the task if it ends here."""

        def ask(arguments: dict[str, Any]) -> dict[str, Any]:
            return dict(self._execute_module(CERTIFICATE_MODULE, module_args=arguments, task_vars=task_vars))

        with task_errors():
            return issue(
                options["install"],
                options["certificate"],
                options["certificate_source"],
                functools.partial(read_bytes, self),
                ask,
                bool(self._task.check_mode),
                orders=options["inbound"] == RENEWED,
            )

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
        if checked and checked.issue:
            result, checked = self._judged(result, checked, options, arguments, task_vars)
        renewed_here = options["certificate_source"] in ON_HOST and options["inbound"] in OFFERING
        if result.get("send_only") or _offers_nothing(result, options):
            renewed_here = False
            checked = None  # what the inventory names for all hosts does not matter on this one
        with task_errors():
            newer = result.pop("newer", None)
            if newer and checked:
                checked = keep_newer(newer, options["install"] or {}, checked, functools.partial(read_bytes, self))
            on_host = result.get("on_host")
            entries = options.get("more_on_host") or ()
            result = with_host_certificate(
                result, options["install"] or {}, functools.partial(read_bytes, self), entries
            )
            result = with_read_peers(result, options, served_chain(result, checked))
            done = complete_observed(result, expected, checked, arguments.get("ca_content") or "")
            return with_tlsa(done, options, checked, renewed_here and "obstacles" in done, on_host)

    def _judged(
        self,
        result: dict[str, Any],
        checked: CheckedInputs,
        options: Mapping[str, Any],
        arguments: dict[str, Any],
        task_vars: Optional[dict[str, Any]],
    ) -> tuple[dict[str, Any], CheckedInputs]:
        """Return the read with what it means for a certificate that is issued, and the certificate. Asks once more if it does not pass."""
        for _time in range(2):
            if result.get("failed") or "issued" not in result:
                return result, checked
            with task_errors():
                verdict = judged(result["issued"], checked, options["install"], functools.partial(read_bytes, self))
            checked = verdict.checked
            if not verdict.again:
                break
            arguments["bundle"] = checked.bundle()
            result = self.execute(arguments, task_vars)
        done = {name: value for name, value in result.items() if name != "issued"}
        for name, found in (("obstacles", verdict.obstacles), ("notes", verdict.notes)):
            done[name] = [*done[name], *({"code": one.code, "message": one.message} for one in found)]
        return done, checked


def _offers_nothing(result: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether a certificate is to be renewed on a host that offers no TLS: then none is installed."""
    before = result.get("before")
    return options["inbound"] == RENEWED and isinstance(before, Mapping) and before.get("inbound") not in OFFERING


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
        """Check the certificate, which may have to be issued first, and change the host."""
        if is_issued(options["certificate_source"]) and options["inbound"] in OFFERING:
            checked, ended = self.issued(options, task_vars)
            if ended is not None:
                return ended
        else:
            checked = self.checked_install(options)
        expected = options.get("handshake") or {}
        arguments = {name: value for name, value in self._task.args.items() if name not in ("install", "handshake")}
        if checked and not checked.findings:
            with task_errors():
                checked.findings += tlsa_refusal(checked, options)
        if checked and checked.findings:
            return checked.refusal()
        if checked:
            arguments |= _sent(checked)
        if roots := self.roots(expected):
            arguments["ca_content"] = roots
        result = self.execute(arguments, task_vars)
        if checked and (newer := result.pop("newer", None)):
            # The host has changed nothing: the certificate that it has ends later, and only the controller can judge it.
            with task_errors():
                checked = keep_newer(newer, options["install"] or {}, checked, functools.partial(read_bytes, self))
            if checked.findings:
                return checked.refusal()
            arguments |= _sent(checked)
            if not checked.content:
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


def _sent(checked: CheckedInputs) -> dict[str, Any]:
    """Return what a host is given of a checked certificate."""
    bundle = {name: value for name, value in checked.bundle().items() if name != "issue"}
    return {"bundle": bundle, "bundle_content": checked.content}
