# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of the module tls_certificate: reads and checks the inputs, then completes the host's result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import ISSUERS as ISSUED_BY
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import check_path, parse_mode
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import (
    MOST_CERTIFICATES,
    NEXT,
    PAIR_SPEC,
    SOURCE_SPEC,
    numbered,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import fixed_days
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.assessment import (
    Assessment,
    Sources,
    check_certificate,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.pkcs12 import decoded, unpacked
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding

ReadFile = Callable[[str, int], bytes]
"""(path, maximum number of bytes) -> content of a file on the controller. Raises EngineError with only the reason."""

_SHOWN_IN_DIFF = ("subject", "issuer", "not_after")


@dataclass
class CheckedInputs:
    """The options after the check.

    arguments: the options of the module on the host, with C(content) if the certificate may be installed. facts: the
    part of the result that describes the certificate. caveats: findings that do not forbid it. Nothing may be sent to the
    host while there are findings. more: further certificates, for keys of other algorithms. private_key: the path of the key on the
    host, if it was made there. issue: what the host is asked to have issued, see _certificate.due; None if nothing is. waiting_key: the
    public key (DER) that waits on the host for the certificate that will be issued; empty if none does. ports: those that serve it in
    the place of the host's own; none for all. names: what it has to cover there.
    """

    arguments: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    caveats: list[Finding] = field(default_factory=list)
    more: list[CheckedInputs] = field(default_factory=list)
    private_key: str = ""
    issue: Optional[dict[str, Any]] = None
    waiting_key: bytes = b""
    ports: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def own(self) -> list[CheckedInputs]:
        """The certificates that are served on all ports but those that have others."""
        return [self, *(one for one in self.more if not one.ports)]

    def refusal(self) -> dict[str, Any]:
        """Return the failed result of a task with findings. The task did not change the host."""
        lines = [f"[{finding.code}] {finding.message}" for finding in self.findings]
        head = "The certificate was not installed and the host was not touched: "
        found = [finding.as_dict() for finding in self.findings]
        return {**self.facts, "failed": True, "changed": False, "msg": head + "; ".join(lines), "findings": found}

    def complete(self, reply: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of the module on the host in its public form."""
        result = {**self.known(), **reply}
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
        path = diff.get("path") or diff.get("after_header")
        facts = next((one.facts for one in self.more if one.arguments["path"] == path), self.facts)
        return _with_names(diff, _facts_of(previous), facts.get("certificate"))

    def for_module(self) -> dict[str, Any]:
        """Return the options of tls_certificate on the host for this file alone."""
        arguments = {name: value for name, value in self.arguments.items() if name != "content"}
        if not self.served:
            return {**arguments, **({"issued_by": ISSUED_BY[self.issue["source"]]} if self.issue else {})}
        key = {"private_key": self.private_key} if self.private_key else {}
        return {**arguments, "content": self.served, **key}

    @property
    def served(self) -> str:
        """The checked file as PEM, with the private key; without it, if it is on the host and stays there (on_host.keep_newer)."""
        return str(self.arguments.get("content") or "")

    @property
    def content(self) -> str:
        """What the host gets of all files. Of one that stays on the host it is nothing."""
        return NEXT.join("" if one.facts.get("kept") else one.served for one in (self, *self.more))

    def known(self) -> dict[str, Any]:
        """Return the facts of the first certificate; with C(fingerprints_sha256) of all that the mail port serves, if there are several."""
        prints = [one.facts.get("fingerprint_sha256") for one in self.own]
        facts = {name: value for name, value in self.facts.items() if name != "replaces"}
        return {**facts, "fingerprints_sha256": prints} if len(prints) > 1 and all(prints) else facts

    def bundle(self) -> dict[str, Any]:
        """Return the checked files for a host, without their content."""
        made = {
            **{
                name: self.arguments[name]
                for name in ("owner", "group", "mode", "replace")
                if self.arguments.get(name) not in (None, False)
            },
            **self._one(),
        }
        if self.more:
            made["more"] = [{**one._one(), **({"ports": list(one.ports)} if one.ports else {})} for one in self.more]
        return {**made, "issue": self.issue} if self.issue else made

    def _one(self) -> dict[str, Any]:
        if self.facts.get("kept"):
            return {"keep": self.facts["fingerprint_sha256"]}
        content = self.served
        if not content:
            return {"issued_by": ISSUED_BY[self.issue["source"]]} if self.issue else {}
        found = [pem.fingerprint(block.der) for block in pem.certificates(pem.split(content))]
        known = {"ends": self.facts["certificate"]["not_after"], "fingerprints": found}
        if self.facts.get("replaces"):
            known["replaces"] = self.facts["replaces"]
        if self.private_key:
            return {**known, "private_key": self.private_key}
        return {**known, "sha256": hashlib.sha256(content.encode("ascii")).hexdigest()}


def merged(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results of the calls for several files as one: the first one, with the changes of all."""
    first, *more = results
    if not more:
        return dict(first)
    diffs = [one["diff"] for one in results if one.get("diff")]
    return {**first, "changed": any(one.get("changed") for one in results), "diff": diffs}


def check_install(
    install: Optional[Mapping[str, Any]], path: str, read: ReadFile, source: str = "files"
) -> Optional[CheckedInputs]:
    """Check the option install of a module. None if it names no key and no certificate, so that nothing is to be installed."""
    named = any((install or {}).get(name) for name in (*PAIR_SPEC, "more") if not name.startswith("chain"))
    if source == "files" and not named:
        return None
    given = {name: value for name, value in (install or {}).items() if value not in ("", None)}
    options = {**{name: option.get("default") for name, option in SOURCE_SPEC.items()}, **given}
    return check_inputs({**options, "path": path, "state": "present", "kind": "", "source": source}, read)


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
        for place, pair in enumerate(options.get("more") or [], start=1):
            _add_more(checked, place, pair, options, read)
    return checked


def _add_more(
    checked: CheckedInputs, place: int, pair: Mapping[str, Any], options: Mapping[str, Any], read: ReadFile
) -> None:
    """Check a further certificate, which is served beside the first one."""
    name = f"starttls_more_certificates, entry {place}"
    if place >= MOST_CERTIFICATES:
        checked.findings.append(
            Finding("bad_option", f"{name}: at most {MOST_CERTIFICATES - 1} further certificates are served.")
        )
        return
    given = {**options, **dict.fromkeys(PAIR_SPEC), **pair, "path": numbered(options["path"], place)}
    given["names"] = pair.get("names") or options["names"]
    given["source"] = "pkcs12" if pair.get("pkcs12_file") or pair.get("pkcs12_content") else "files"
    ports = tuple(dict.fromkeys(pair.get("ports") or ()))
    one = CheckedInputs({**checked.arguments, "path": given["path"]}, ports=ports, names=tuple(given["names"] or ()))
    if problem := of_ports_problem(pair):
        one.findings.append(Finding("bad_option", f"{problem}."))
    one.arguments.pop("content", None)
    if assessment := _assess(given, read, one.findings):
        _add(assessment, one)
    beside = [each for each in (checked, *checked.more) if meet(each.ports, ports)]
    kinds = {each.facts.get("certificate", {}).get("key_type") for each in beside}
    kind = one.facts.get("certificate", {}).get("key_type")
    if kind and kind in kinds:
        one.findings.append(Finding("bad_option", f"it {twice_of(kind, bool(ports))}"))
    checked.findings += [replace(found, message=f"{name}: {found.message}") for found in one.findings]
    checked.caveats += [replace(found, message=f"{name}: {found.message}") for found in one.caveats]
    checked.more.append(one)


def of_ports_problem(entry: Mapping[str, Any]) -> str:
    """Return what is wrong with the ports and names of an entry of starttls_more_certificates; empty if nothing is."""
    if wrong := [one for one in entry.get("ports") or () if not 0 < one < 1 << 16]:
        return f"{wrong[0]} in ports is no port from 1 to 65535"
    if entry.get("names") and not entry.get("ports"):
        return (
            "names counts together with ports only: without them the certificate has to cover the names of the host "
            "(starttls_certificate_names). Add ports, or take names out"
        )
    return ""


def meet(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two certificates are served side by side on a port. Without ports, it is the host's own."""
    return bool({*one} & {*other}) if one and other else not one and not other


def twice_of(kind: str, on_port: bool) -> str:
    """Return the sentence on a key of a type that another certificate has that is served beside it."""
    where = "of the same port" if on_port else "of this host"
    return f"has a key of the type {kind}, as another one {where}. One certificate for each type can be served."


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
    source = options.get("source") or "files"
    if other := _others(source, options):
        findings.append(Finding("bad_option", f"{other}. Take out what does not count, or name the other source."))
        return None
    if source == "pkcs12":
        key, certificate = _unpacked(options, read, findings)
        chain = _Source(None, "chain")
    else:
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


_NOT_OF: Mapping[str, tuple[str, ...]] = {
    "content": ("private_key_file", "certificate_file", "chain_file", "pkcs12_file", "pkcs12_content"),
    "pkcs12": tuple(name for name in PAIR_SPEC if not name.startswith("pkcs12")),
    "files": ("pkcs12_file", "pkcs12_content"),
}
"""Source -> the options that belong to another one. Two sources at once would leave open which one counts."""


def _others(source: str, options: Mapping[str, Any]) -> str:
    """Return what belongs to another source; empty if nothing does."""
    found = [f"starttls_{name}" for name in _NOT_OF.get(source, ()) if options.get(name)]
    verb = "is" if len(found) == 1 else "are"
    given = [name for name in ("pkcs12_file", "pkcs12_content") if source == "pkcs12" and options.get(name)]
    own = f"{source} ({given[0]})" if given else source
    return f"starttls_certificate_source is {own}, and {' and '.join(found)} {verb} set as well" if found else ""


def _unpacked(options: Mapping[str, Any], read: ReadFile, findings: list[Finding]) -> tuple[_Source, _Source]:
    """Return the key and the certificates of a PKCS#12 file, as PEM."""
    given = _source(options, "pkcs12", read, findings, required=True)
    if given.text is None:
        return given, given
    data = given.text if options["pkcs12_file"] else decoded(given.text)
    try:
        key, chain = unpacked(data, str(options["pkcs12_password"] or ""))
    except EngineError as error:
        findings.append(Finding("not_pkcs12", f"{given.name}: {error}."))
        return given._replace(text=None), given._replace(text=None)
    return _Source(key, f"the key in {given.name}"), _Source(chain, given.name)


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
        own = (
            f"starttls_{kind}_content"
            if options.get("source") == "content"
            else f"starttls_{kind}_file or starttls_{kind}_content"
        )
        findings.append(Finding("bad_option", f"{kind}_file or {kind}_content is needed. Set {own}."))
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
