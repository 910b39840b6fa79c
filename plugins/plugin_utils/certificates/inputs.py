# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of the module tls_certificate: reads and checks the inputs, then completes the host's result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import check_path, parse_mode
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import SOURCE_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import fixed_days
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.assessment import (
    Assessment,
    Sources,
    check_certificate,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding

ReadFile = Callable[[str, int], bytes]
"""(path, maximum number of bytes) -> content of a file on the controller. Raises EngineError with only the reason."""

_SHOWN_IN_DIFF = ("subject", "issuer", "not_after")


@dataclass
class CheckedInputs:
    """The options after the check.

    arguments: the options of the module on the host, with C(content) if the certificate may be installed. facts: the
    part of the result that describes the certificate. caveats: findings that do not forbid it. Nothing may be sent to the
    host while there are findings.
    """

    arguments: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    caveats: list[Finding] = field(default_factory=list)

    def refusal(self) -> dict[str, Any]:
        """Return the failed result of a task with findings. The task did not change the host."""
        lines = [f"[{finding.code}] {finding.message}" for finding in self.findings]
        head = "The certificate was not installed and the host was not touched: "
        found = [finding.as_dict() for finding in self.findings]
        return {**self.facts, "failed": True, "changed": False, "msg": head + "; ".join(lines), "findings": found}

    def complete(self, reply: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of the module on the host in its public form."""
        result = {**self.facts, **reply}
        warnings = [*(one.message for one in self.caveats), *result.pop("warnings", ())]
        if warnings:
            result["warnings"] = warnings
        previous = result.pop("previous_certificate", None)
        diff = result.get("diff")
        if isinstance(diff, dict):
            result["diff"] = self.named(diff, previous)
        elif isinstance(diff, list):
            result["diff"] = [self.named(one, previous) if "before" in one else one for one in diff]
        return result

    def named(self, diff: Mapping[str, Any], previous: Optional[str]) -> dict[str, Any]:
        """Return the diff of the file with the names in the certificates. previous: the former certificate as PEM, or None."""
        return _with_names(diff, _facts_of(previous), self.facts.get("certificate"))

    @property
    def content(self) -> str:
        """The checked file as PEM, with the private key; without it, if it is on the host and stays there (on_host.keep_newer)."""
        return str(self.arguments["content"])

    def bundle(self) -> dict[str, Any]:
        """Return the checked file for a host, without its content."""
        content = self.content
        return {
            **{
                name: self.arguments[name]
                for name in ("owner", "group", "mode", "replace")
                if self.arguments.get(name) not in (None, False)
            },
            "ends": self.facts["certificate"]["not_after"],
            "sha256": hashlib.sha256(content.encode("ascii")).hexdigest(),
            "fingerprints": [pem.fingerprint(block.der) for block in pem.certificates(pem.split(content))],
        }


def check_install(install: Optional[Mapping[str, Any]], path: str, read: ReadFile) -> Optional[CheckedInputs]:
    """Check the option install of a module. None if it names no key and no certificate, so that nothing is to be installed."""
    sources = ("private_key_file", "private_key_content", "certificate_file", "certificate_content")
    if not any((install or {}).get(name) for name in sources):
        return None
    given = {name: value for name, value in (install or {}).items() if value not in ("", None)}
    options = {**{name: option.get("default") for name, option in SOURCE_SPEC.items()}, **given}
    return check_inputs({**options, "path": path, "state": "present", "kind": ""}, read)


def check_inputs(options: Mapping[str, Any], read: ReadFile) -> CheckedInputs:
    """Check the options of tls_certificate. Raises MissingLibraryError if a certificate has to be checked."""
    checked = CheckedInputs({name: options[name] for name in ("path", "state", "kind", "owner", "group", "replace")})
    try:
        check_path(options["path"])
        if options["mode"] is not None:
            checked.arguments["mode"] = f"{parse_mode(options['mode']):04o}"
    except EngineError as error:
        checked.findings.append(Finding("bad_option", f"{error}."))
    if options["state"] == "present":
        x509.require_cryptography()
        assessment = _assess(options, read, checked.findings)
        if assessment:
            _add(assessment, checked)
    return checked


def _add(assessment: Assessment, checked: CheckedInputs) -> None:
    checked.findings += assessment.findings
    if assessment.leaf:
        checked.facts["certificate"] = assessment.leaf.describe()
        checked.facts["chain"] = [certificate.subject for certificate in assessment.chain]
    if not checked.findings:
        checked.arguments["content"] = assessment.bundle
        checked.facts["kept"] = False
        checked.facts["fingerprint_sha256"] = checked.facts["certificate"]["fingerprint_sha256"]
        checked.caveats += assessment.warnings


class _Source(NamedTuple):
    """One input: its text, and its name in messages. text is None if the input is missing or unreadable."""

    text: Optional[bytes]
    name: str


def _assess(options: Mapping[str, Any], read: ReadFile, findings: list[Finding]) -> Optional[Assessment]:
    """Read and check the inputs, and add unreadable or missing ones to the findings.

    Return None if the key or the certificate cannot be read.
    """
    key = _source(options, "private_key", read, findings, required=True)
    certificate = _source(options, "certificate", read, findings, required=True)
    chain = _source(options, "chain", read, findings)
    authority = _source(options, "ca", read, findings)
    names = [name.strip() for name in options["names"] or [] if name.strip()]
    if not names:
        said = "names is empty. Give the host names that the certificate has to cover, like names: [mx1.example.com]."
        findings.append(Finding("bad_option", said))
    try:
        days = fixed_days(options["min_days_left"], "min_days_left")
    except EngineError as error:
        findings.append(Finding("bad_option", f"{error}."))
        return None
    if key.text is None or certificate.text is None:
        return None
    return check_certificate(
        key.text,
        certificate.text,
        chain.text,
        ca_pem=authority.text,
        names=names,
        min_days_left=days,
        allow_self_signed=options["allow_self_signed"],
        sources=Sources(key.name, certificate.name, chain.name, authority.name),
    )


def _source(
    options: Mapping[str, Any], kind: str, read: ReadFile, findings: list[Finding], *, required: bool = False
) -> _Source:
    """Return one input, given as a file or as text. As in AWX, '' counts as not given."""
    file, text = options[f"{kind}_file"], options[f"{kind}_content"]
    if file and text:
        findings.append(Finding("bad_option", f"{kind}_file and {kind}_content are both given. Leave out one."))
    elif text:
        return _Source(text.encode("utf-8", "surrogateescape"), f"{kind}_content")
    elif file:
        name = f"{kind}_file '{x509.printable_text(file)}'"
        try:
            return _Source(read(file, pem.MAX_BYTES + 1), name)
        except EngineError as error:
            reason = x509.printable_text(str(error))
            findings.append(Finding("unreadable", f"{name} cannot be read on the controller: {reason}."))
    elif required:
        findings.append(Finding("bad_option", f"{kind}_file or {kind}_content is needed. Give one of them."))
    return _Source(None, kind)


def _facts_of(text: Optional[str]) -> Optional[dict[str, Any]]:
    """Return the facts of the certificate that was on the host.

    Return None if there was none, if it cannot be read, or if the library is missing.
    """
    if not text or not x509.CRYPTOGRAPHY_VERSION:
        return None
    try:
        return x509.describe(pem.split(text)[0].der)
    except (x509.CertificateError, pem.PemError, IndexError):
        return None


def _with_names(
    diff: Mapping[str, Any], before: Optional[Mapping[str, Any]], after: Optional[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the diff with the names in the certificates. The host has no library to read them."""
    done = dict(diff)
    for side, facts in (("before", before), ("after", after)):
        if facts:
            done[side] = "".join(f"{name}: {facts[name]}\n" for name in _SHOWN_IN_DIFF) + done[side]
    return done
