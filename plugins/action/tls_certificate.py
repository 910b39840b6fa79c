# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of the module tls_certificate: read, check, and only then send a file to the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Optional

from ansible.errors import AnsibleError, AnsibleFileNotFound
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import check_path, parse_mode
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.modules.tls_certificate import ARGUMENT_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import checked_options, task_errors
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.assessment import (
    Assessment,
    Sources,
    check_certificate,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding

MODULE = "mailfleet.starttls.tls_certificate"


class Source(NamedTuple):
    """One input: its text, None if it was not given or cannot be read, and how messages call it."""

    text: Optional[bytes]
    name: str


class ActionModule(ActionBase):
    """Checks the certificate before anything reaches the host."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result with the facts of the certificate, or the findings if there are any."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        options = self._options()
        arguments = {name: options[name] for name in ("path", "state", "kind", "owner", "group")}
        findings: list[Finding] = []
        try:
            check_path(options["path"])
            if options["mode"] is not None:
                arguments["mode"] = f"{parse_mode(options['mode']):04o}"
        except EngineError as error:
            findings.append(Finding("bad_option", f"{error}."))
        if options["state"] == "present":
            assessment = self._check(options, findings)
            if assessment and assessment.leaf:
                result["certificate"] = assessment.leaf.describe()
                result["chain"] = [certificate.subject for certificate in assessment.chain]
            if assessment and not findings:
                arguments["content"] = assessment.bundle
                result["fingerprint_sha256"] = result["certificate"]["fingerprint_sha256"]
                result.setdefault("warnings", []).extend(one.message for one in assessment.warnings)
        if findings:
            result.update(failed=True, changed=False, **_report(findings))
            return result
        reply = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        warnings = [*result.pop("warnings", []), *reply.pop("warnings", [])]
        _complete_diff(reply, result.get("certificate"))
        result.update(reply)
        if warnings:
            result["warnings"] = warnings
        return result

    def _options(self) -> dict[str, Any]:
        # '~' in path is the host's, so the controller must not expand it.
        spec = {**ARGUMENT_SPEC, "path": {**ARGUMENT_SPEC["path"], "type": "str"}}
        return checked_options(self, spec)

    def _check(self, options: dict[str, Any], findings: list[Finding]) -> Optional[Assessment]:
        """Add what is wrong with the inputs to the findings; return None if they could not all be read."""
        with task_errors():
            x509.require_cryptography()
        before = len(findings)
        key = self._source(options, "private_key", findings, required=True)
        certificate = self._source(options, "certificate", findings, required=True)
        chain = self._source(options, "chain", findings)
        authority = self._source(options, "ca", findings)
        names = [name.strip() for name in options["names"] or [] if name.strip()]
        if not names:
            findings.append(
                Finding(
                    "bad_option",
                    "names is empty. Give the host names that the certificate has to cover, like "
                    "names: [mx1.example.com].",
                )
            )
        if len(findings) > before and (key.text is None or certificate.text is None):
            return None
        assessment = check_certificate(
            key.text or b"",
            certificate.text or b"",
            chain.text,
            ca_pem=authority.text,
            names=names,
            min_days_left=options["min_days_left"],
            allow_self_signed=options["allow_self_signed"],
            sources=Sources(key.name, certificate.name, chain.name, authority.name),
        )
        findings.extend(assessment.findings)
        return assessment

    def _source(self, options: dict[str, Any], kind: str, findings: list[Finding], *, required: bool = False) -> Source:
        """Return one input, whether it was given as a file or as text; '' counts as not given, as in AWX."""
        file, text = options[f"{kind}_file"], options[f"{kind}_content"]
        if file and text:
            findings.append(Finding("bad_option", f"{kind}_file and {kind}_content are both given. Leave out one."))
        elif text:
            return Source(text.encode("utf-8", "surrogateescape"), f"{kind}_content")
        elif file:
            name = f"{kind}_file '{x509.printable_text(file)}'"
            try:
                return Source(self._read(file), name)
            except AnsibleFileNotFound:
                reason = "there is no such file (a relative path is searched in 'files' and by the playbook)"
            except AnsibleError as error:
                reason = x509.printable_text(str(error).split("\n", maxsplit=1)[0])
            except OSError as error:
                reason = error.strerror or type(error).__name__
            findings.append(Finding("unreadable", f"{name} cannot be read on the controller: {reason}."))
        elif required:
            findings.append(Finding("bad_option", f"{kind}_file or {kind}_content is needed. Give one of them."))
        return Source(None, kind)

    def _read(self, file: str) -> bytes:
        """Return the content of a file on the controller, decrypted if Ansible Vault holds it."""
        path = self._find_needle("files", file)
        # For a vault this is a private temporary file, which is removed again at once.
        real = self._loader.get_real_file(path, decrypt=True)
        try:
            with Path(real).open("rb") as stream:
                return stream.read(pem.MAX_BYTES + 1)
        finally:
            self._loader.cleanup_tmp_file(real)


def _report(findings: list[Finding]) -> dict[str, Any]:
    lines = [f"[{finding.code}] {finding.message}" for finding in findings]
    head = "The certificate was not installed and the host was not touched:"
    return {"msg": "\n".join([head, *lines]), "findings": [finding.as_dict() for finding in findings]}


def _complete_diff(reply: dict[str, Any], certificate: Optional[dict[str, Any]]) -> None:
    """Add to the diff what the host cannot tell, for want of a library: whose certificates these are."""
    previous: Optional[dict[str, Any]] = None
    text = reply.pop("previous_certificate", None)
    if text and x509.CRYPTOGRAPHY_VERSION:
        try:
            previous = x509.describe(pem.split(text)[0].der)
        except (x509.CertificateError, pem.PemError, IndexError):
            previous = None
    diff = reply.get("diff")
    if isinstance(diff, dict):
        for side, facts in (("before", previous), ("after", certificate)):
            if facts:
                shown = ("subject", "issuer", "not_after")
                diff[side] = "".join(f"{name}: {facts[name]}\n" for name in shown) + diff[side]
