# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of a certificate whose key is made on the host: a company's authority (command), a request (csr), or acme.

The key never leaves the host: what goes over is a request (CSR) one way, and certificates the other way. A read asks for nothing to be
made: it says what the run will have issued, and why.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import ISSUERS
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import check_path
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.issuing import check_names
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import (
    ISSUE_SPEC,
    ISSUED,
    KEY_TYPES,
    SOURCE_SPEC,
    numbered,
    pending_key,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import fixed_days
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import PathTrust
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import TargetError, ascii_name
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.assessment import (
    Assessment,
    Sources,
    check_certificate,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import (
    CheckedInputs,
    ReadFile,
    check_inputs,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.controller_paths import from_start
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood

SIGNING_SECONDS = 300
"""How long the command of an authority may take."""
_SAID = 300
_COMMAND = "starttls_certificate_command"
_SHORTEST_SECRET = 6


_PATH = re.compile(r"/[A-Za-z0-9_./+@-]*")
_FORMS = (
    (
        "acme_email",
        re.compile(r"\A[A-Za-z0-9][^\s,@]{0,63}@[A-Za-z0-9.-]{1,253}\Z"),
        "an address, like postmaster@example.com",
    ),
    (
        "acme_server",
        re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(/\S*)?"),
        "the address of an ACME directory, like https://ca.example.com/directory",
    ),
    ("acme_webroot", _PATH, "an absolute path of letters, digits and _./+@-"),
    ("acme_dns_credentials", _PATH, "an absolute path of letters, digits and _./+@-"),
    ("acme_ca_file", _PATH, "an absolute path of letters, digits and _./+@-"),
)
"""Option -> its form, and that in words."""


class NotIssuedError(EngineError):
    """The authority has issued no certificate. The message says why."""


@dataclass(frozen=True)
class WaitingRequest:
    """A host whose certificate is to be issued by hand. paths: the requests, on the controller. requests: the same as PEM.

    void: sentences on requests that were made before.
    """

    paths: tuple[str, ...]
    requests: tuple[str, ...]
    changed: bool
    path: str
    void: tuple[str, ...] = ()

    def result(self) -> dict[str, Any]:
        """Return the result of a task that ends here for this host, and has not failed."""
        advice = (
            "have it signed by your authority, set starttls_certificate_file (and starttls_chain_file) to what it returns, and run "
            "again. The key is on the host, and waits there"
        )
        where = " and ".join(self.paths)
        return {
            "changed": self.changed,
            "waiting": True,
            "path": self.path,
            "csr": list(self.requests),
            "csr_files": list(self.paths),
            "msg": " ".join(
                [f"The request (CSR) for this host is in {where} on the controller: {advice}.", *self.void]
            ),
        }


def is_issued(source: str) -> bool:
    """Whether the key of a source is made on the host."""
    return source in ISSUED


def planned(
    install: Optional[Mapping[str, Any]], path: str, source: str, read: ReadFile, orders: bool = False
) -> CheckedInputs:
    """Return what a read asks its host about. Faults of the options are findings; of C(csr) the certificate is read if it is given.

    orders: whether the run writes requests for certificates that are due.
    """
    options = _complete(install or {}, path, source)
    checked = _bare(options)
    try:
        check_path(path)
        checked.issue = {**_for_host(options, source), "requests": orders}
    except EngineError as error:
        checked.findings.append(Finding("bad_option", f"{error}."))
        return checked
    checked.more = [
        CheckedInputs({**checked.arguments, "path": numbered(path, place)}, issue=checked.issue)
        for place in range(1, len(checked.issue["key_types"]))
    ]
    for place, one in enumerate(_given(options, source, read, checked.findings)):
        if one and not checked.findings:
            each = (checked, *checked.more)[place]
            each.arguments["content"], each.private_key = one, pending_key(each.arguments["path"], STORE)
            leaf = _leaf(one)
            if leaf is None:
                checked.findings.append(
                    Finding("not_pem", "starttls_certificate_file holds no certificate that can be read.")
                )
            else:
                each.facts = {"certificate": leaf.describe(), "fingerprint_sha256": leaf.fingerprint_sha256}
    return checked


@dataclass(frozen=True)
class Judged:
    """What a read means for a certificate that is issued. again: the host is asked once more, because what it has does not pass."""

    checked: CheckedInputs
    obstacles: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    again: bool = False


def judged(
    parts: Sequence[Mapping[str, Any]], checked: CheckedInputs, install: Optional[Mapping[str, Any]], read: ReadFile
) -> Judged:
    """Judge what a host said of its certificates (due.look). Raises EngineError for a CA file that cannot be read."""
    issue = checked.issue or {}
    options = _complete(install or {}, str(checked.arguments["path"]), issue["source"])
    obstacles: list[Finding] = []
    notes: list[Finding] = []
    made = []
    with understood("what the host returned about its certificate"):
        for each, part in zip((checked, *checked.more), parts):
            one, again = _judge(each, part, options, read, obstacles, notes, forced=bool(issue.get("force")))
            if again:
                return Judged(replace(checked, issue={**issue, "force": True}), again=True)
            made.append(one)
    return Judged(replace(made[0], more=made[1:]), tuple(dict.fromkeys(obstacles)), tuple(dict.fromkeys(notes)))


def _judge(
    each: CheckedInputs,
    part: Mapping[str, Any],
    options: Mapping[str, Any],
    read: ReadFile,
    obstacles: list[Finding],
    notes: list[Finding],
    forced: bool,
) -> tuple[CheckedInputs, bool]:
    """Return one certificate as it is known now, and whether the host has to be asked again."""
    source, path = options["source"], str(part["path"])
    who, why = ISSUERS[source], x509.printable_text(str(part["due"]), 200)
    names = ", ".join(options["names"])
    orders = source == "csr" and bool((each.issue or {}).get("requests"))
    kept = _assessed(part, options, read, f"{path} on the host") if part["pem"] and not forced else None
    if each.served:  # a certificate that was given, for the key of the host
        same = bool(kept and kept.leaf and kept.leaf.fingerprint_sha256 == each.facts["fingerprint_sha256"])
        if not (same and part["due"] and orders):
            if same and part["due"]:
                notes.append(Finding.advised("certificate_renewal_due", f"{path}: {why}"))
            return _given_one(each, part, options, read, kept if same else None, obstacles), False
        each = replace(each, arguments={**each.arguments, "content": ""}, facts={}, private_key="")
    elif kept and kept.ok and (not part["due"] or (source == "csr" and not orders)):
        if part["due"]:
            notes.append(Finding.advised("certificate_renewal_due", f"{path}: {why}"))
        notes += kept.warnings
        return _kept(each, part, kept), False
    if not part["due"] and not forced:
        return each, True
    if not part["due"]:
        obstacles.append(
            Finding(
                "certificate_not_issued", f"{path} does not pass, and the host says nothing of a new one; run again"
            )
        )
        return each, False
    if void := part.get("void"):
        notes.append(Finding.advised("certificate_request_void", x509.printable_text(str(void), 300)))
    if part["message"]:
        obstacles.append(Finding("certificate_not_issued", x509.printable_text(str(part["message"]), 900)))
    elif source == "csr" and not orders:
        obstacles.append(Finding.advised("certificate_to_request", f"{path}: {why}"))
    elif source == "csr":
        said = f"a request (CSR) for {path}, with {names}, is written to {_request_path(options, 0)} on the controller: {why}"
        notes.append(Finding("certificate_issue", said))
    else:
        notes.append(Finding("certificate_issue", f"{who} issues {path} for {names}: {why}"))
        each = replace(each, waiting_key=base64.b64decode(str(part["pending"])))
    return each, False


def _given_one(
    each: CheckedInputs,
    part: Mapping[str, Any],
    options: Mapping[str, Any],
    read: ReadFile,
    kept: Optional[Assessment],
    obstacles: list[Finding],
) -> CheckedInputs:
    """Return a certificate that the user gave, judged with the key on the host that it was issued for. kept: it is there already."""
    if kept:
        obstacles += [Finding("certificate_unfit", f"[{one.code}] {one.message}") for one in kept.findings]
        return _kept(each, part, kept)
    key, private_key = _key_for(each.served, part, each.private_key)
    found = _assessed({"pem": each.served, "public_key": key}, options, read, "starttls_certificate_file")
    obstacles += [Finding("certificate_unfit", f"[{one.code}] {one.message}") for one in found.findings]
    return _filled(each, found, private_key)


def _key_for(text: str, part: Mapping[str, Any], pending: str) -> tuple[str, str]:
    """Return the public key, and the path of the private one, that a certificate was issued for: the one that waits, or the present one."""
    leaf = _leaf(text)
    known = {str(part["pending"]): pending, str(part["public_key"]): str(part["path"])}
    own = base64.b64encode(leaf.spki).decode("ascii") if leaf and leaf.spki else ""
    if own and own in known:
        return own, known[own]
    return str(part["pending"] or part["public_key"]), pending


def issue(
    install: Optional[Mapping[str, Any]],
    path: str,
    source: str,
    read: ReadFile,
    ask: Callable[[dict[str, Any]], dict[str, Any]],
    check_mode: bool,
    orders: bool = True,
) -> tuple[Optional[CheckedInputs], Optional[dict[str, Any]]]:
    """Have the certificates of a host issued. Return them checked, or the result of the task if it ends here.

    ask: runs tls_certificate on the host with C(path) and C(issue), and returns its result. orders: see planned(). Raises EngineError.
    """
    checked = planned(install, path, source, read, orders)
    if checked.findings:
        return checked, None
    options = _complete(install or {}, path, source)
    wanted = checked.issue or {}
    reply = ask({"path": path, "issue": wanted})
    if reply.get("failed") or reply.get("unreachable"):
        return None, reply
    verdict = _of_reply(reply, checked, install, read)
    if verdict.again:
        reply = ask({"path": path, "issue": {**wanted, "force": True}})
        if reply.get("failed") or reply.get("unreachable"):
            return None, reply
        verdict = _of_reply(reply, verdict.checked, install, read)
    checked = verdict.checked
    hard = [one for one in verdict.obstacles if one.code != "certificate_to_request"]
    if hard:
        checked.findings += [
            Finding("bad_option" if one.code != "certificate_unfit" else "not_issued", one.message) for one in hard
        ]
        return checked, None
    checked.caveats += [one for one in verdict.notes if one.code not in ("certificate_issue",)]
    if check_mode:
        return checked, None
    return _finished(checked, reply, options, read)


def _of_reply(
    reply: Mapping[str, Any], checked: CheckedInputs, install: Optional[Mapping[str, Any]], read: ReadFile
) -> Judged:
    with understood("what the host returned about its certificate"):
        parts = [dict(one) for one in reply["issued"]]
    return judged(parts, checked, install, read)


def _finished(
    checked: CheckedInputs, reply: Mapping[str, Any], options: Mapping[str, Any], read: ReadFile
) -> tuple[Optional[CheckedInputs], Optional[dict[str, Any]]]:
    """Have those issued that are not there yet. Return as issue() does."""
    source = options["source"]
    made: list[CheckedInputs] = []
    waiting: list[tuple[str, str]] = []
    with understood("what the host returned about its certificate"):
        parts = [
            {name: str(one.get(name) or "") for name in ("csr", "pending", "issued", "key")} for one in reply["issued"]
        ]
    for place, (each, part) in enumerate(zip((checked, *checked.more), parts)):
        if each.served:
            made.append(each)
            continue
        if source == "acme":
            issued = part["issued"]
        else:
            request = _checked_request(part["csr"], part["pending"], options["names"])
            if source == "csr":
                waiting.append((_request_path(options, place), request))
                continue
            issued = sign(options["command"], request, options["names"])
        with understood("what the host returned about its certificate"):
            found = _assessed(
                {"pem": issued, "public_key": part["pending"]}, options, read, f"what {ISSUERS[source]} issued"
            )
        checked.findings += found.findings
        made.append(_filled(each, found, part["key"]))
    if waiting:
        written = [(from_start(path), text, _write_request(path, text)) for path, text in waiting]
        changed = bool(reply.get("changed")) or any(new for _path, _text, new in written)
        texts = tuple(text for _path, text, _new in written)
        void = tuple(one.message for one in checked.caveats if one.code == "certificate_request_void")
        return None, WaitingRequest(
            tuple(path for path, _text, _new in written), texts, changed, options["path"], void
        ).result()
    for one in made:  # it was issued because the one that is there does not do, whatever its end
        one.arguments["replace"] = one.arguments["replace"] or source != "csr"
    return replace(made[0], more=made[1:], findings=checked.findings), None


def sign(command: Any, request: str, names: Sequence[str], seconds: float = SIGNING_SECONDS) -> str:
    """Return what the command of an authority issued for a request, as PEM. It gets the request on its standard input.

    No shell reads the words. They may hold a token, so no message shows them. Raises NotIssuedError.
    """
    words = _words(command)
    told = {"MAILFLEET_NAMES": ",".join(names)}
    try:
        done = subprocess.run(  # noqa: S603  (the user's own command)
            [_program(words[0]), *words[1:]], input=request.encode("ascii"), capture_output=True, timeout=seconds, check=False,
            env={**os.environ, **told},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotIssuedError(f"{_COMMAND} ({words[0]}) has not ended in {seconds:.0f} seconds") from None
    except OSError as error:
        raise NotIssuedError(f"{_COMMAND} ({words[0]}) cannot be started: {error.strerror or error}") from None
    if done.returncode:
        raise NotIssuedError(
            f"{_COMMAND} ({words[0]}) has ended with status {done.returncode}: {_last_line(done.stderr, words[1:]) or 'it said nothing'}"
        )
    if len(done.stdout) > pem.MAX_BYTES:
        raise NotIssuedError(f"{_COMMAND} ({words[0]}) returned more than {pem.MAX_BYTES} bytes")
    try:
        found = pem.certificates(pem.split(done.stdout))
    except pem.PemError as error:
        raise NotIssuedError(f"{_COMMAND} ({words[0]}) returned no chain in PEM: {error}") from None
    if not found:
        raise NotIssuedError(
            f"{_COMMAND} ({words[0]}) returned no certificate; it has to write the certificate and its chain to its standard output, as PEM"
        )
    return pem.join(found)


def _words(command: Any) -> list[str]:
    """Return the words of a command, given as a text or as a list. Raises EngineError."""
    try:
        words = shlex.split(command) if isinstance(command, str) else [str(one) for one in command or ()]
    except (ValueError, TypeError):
        raise EngineError(f"{_COMMAND} is neither a text nor a list of words") from None
    if not words or any("\0" in one for one in words):
        raise EngineError(
            f"{_COMMAND} is needed: the program that gets a request (CSR) on its standard input and returns the chain"
        )
    return words


def _program(word: str) -> str:
    """Return the path of the program. One with a slash starts where Ansible was started; Raises NotIssuedError."""
    found = from_start(word) if "/" in word else shutil.which(word)
    if not found or not os.access(found, os.X_OK):
        raise NotIssuedError(f"{_COMMAND}: there is no program {x509.printable_text(word, 100)} on the controller")
    return str(found)


def _last_line(said: bytes, secrets: Sequence[str]) -> str:
    text = said[-4000:].decode("utf-8", "replace")
    for word in secrets:
        for secret in {word, word.partition("=")[2]}:
            text = text.replace(secret, "***") if len(secret) >= _SHORTEST_SECRET else text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return x509.printable_text(lines[-1], _SAID) if lines else ""


def _complete(install: Mapping[str, Any], path: str, source: str) -> dict[str, Any]:
    given = {name: value for name, value in install.items() if value not in ("", None)}
    options = {**{name: option.get("default") for name, option in SOURCE_SPEC.items()}, **given}
    names = [name.strip() for name in options["names"] or [] if name.strip()]
    return {**options, "names": names, "path": path, "state": "present", "kind": "", "source": source}


def _bare(options: Mapping[str, Any]) -> CheckedInputs:
    """Return inputs without a certificate, with the options of the file checked."""
    return check_inputs({**options, "state": "absent"}, _no_file)


def _no_file(_path: str, _limit: int) -> bytes:
    raise EngineError("no file is needed")


def _for_host(options: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return what the host is asked. Raises EngineError for options that do not go together, in the user's words."""
    x509.require_cryptography()
    for name in ("private_key_file", "private_key_content", "pkcs12_file", "pkcs12_content"):
        if options.get(name):
            raise EngineError(
                f"starttls_certificate_source is {source}, which makes the key on the host, and starttls_{name} is set; take that out"
            )
    if source != "csr":
        for name in ("certificate_file", "certificate_content", "chain_file", "chain_content"):
            if options.get(name):
                raise EngineError(
                    f"starttls_certificate_source is {source}, and starttls_{name} is set; take that out, or choose csr or files"
                )
    if any(one.get("ports") or one.get("names") for one in options.get("more") or ()):
        raise EngineError(
            f"starttls_more_certificates has ports or names, and starttls_certificate_source is {source}, which issues one certificate "
            "for all ports; take them out, or choose files, content, pkcs12 or host"
        )
    if source == "command":
        _program(_words(options["command"])[0])
    if not options["names"]:
        raise EngineError("names is empty: set starttls_certificate_names")
    if source == "acme":
        _check_acme(options)
    names = _asked(options["names"])
    check_names(names)
    kinds = list(dict.fromkeys(options["key_types"] or KEY_TYPES[:1]))
    days = fixed_days(options["renew_days"], "renew_days (starttls_renew_days)")
    passed = {name: options[name] for name in ISSUE_SPEC if name.startswith("acme_") and options.get(name)}
    return {
        "source": source,
        "names": names,
        "key_types": kinds,
        **({"renew_days": str(days)} if days is not None else {}),
        **passed,
    }


def _asked(names: Sequence[str]) -> list[str]:
    """Return names as they stand in a request: in ASCII, without the final dot. Raises EngineError."""
    plain = [name.rstrip(".") for name in names]
    try:
        return [f"*.{ascii_name(one[2:])}" if one.startswith("*.") else ascii_name(one) for one in plain]
    except TargetError as error:
        raise EngineError(f"starttls_certificate_names: {error}") from error


def _check_acme(options: Mapping[str, Any]) -> None:
    needs = {"webroot": "acme_webroot", "rfc2136": "acme_dns_credentials"}
    challenge = options["acme_challenge"]
    if not challenge:
        raise EngineError(
            "starttls_acme_challenge is needed: webroot (a web server on the host), standalone (certbot answers on port 80 itself), or "
            "rfc2136 (a dynamic update of the DNS)"
        )
    if (name := needs.get(challenge)) and not options.get(name):
        raise EngineError(f"starttls_acme_challenge is {challenge}, which needs starttls_{name}")
    for name, pattern, wanted in _FORMS:
        if options.get(name) and not pattern.fullmatch(str(options[name])):
            raise EngineError(f"starttls_{name} has to be {wanted}")
    if challenge != "rfc2136" and any(name.startswith("*.") for name in options["names"]):
        raise EngineError(
            "a name with a wildcard can only be proved by the DNS: set starttls_acme_challenge to rfc2136"
        )


def _given(options: Mapping[str, Any], source: str, read: ReadFile, findings: list[Finding]) -> list[str]:
    """Return the certificates that the user gave for keys of the host, as PEM; an empty text for one that is not there."""
    if source != "csr":
        return []
    found = []
    for pair in (options, *(options.get("more") or [])):
        leaf, chain = (_as_pem(_text(pair, kind, read, findings), kind, findings) for kind in ("certificate", "chain"))
        if chain and not leaf:
            said = "starttls_chain_file or starttls_chain_content is set, and no certificate: set starttls_certificate_file, too"
            findings.append(Finding("bad_option", f"{said}."))
        found.append(leaf + chain)
    return found


def _text(pair: Mapping[str, Any], kind: str, read: ReadFile, findings: list[Finding]) -> bytes:
    if pair.get(f"{kind}_content"):
        return str(pair[f"{kind}_content"]).encode() + b"\n"
    path = pair.get(f"{kind}_file")
    if not path:
        return b""
    try:
        return read(path, pem.MAX_BYTES + 1) + b"\n"
    except EngineError as error:
        shown = x509.printable_text(path)
        findings.append(
            Finding("unreadable", f"starttls_{kind}_file '{shown}' cannot be read on the controller: {error}.")
        )
        return b""


def _as_pem(text: bytes, kind: str, findings: list[Finding]) -> str:
    if not text.strip():
        return ""
    try:
        found = pem.certificates(pem.split(text))
    except pem.PemError as error:
        findings.append(Finding("not_pem", f"starttls_{kind}_file cannot be read as PEM: {error}."))
        return ""
    if not found:
        findings.append(
            Finding("not_pem", f"starttls_{kind}_file holds no certificate. Give what the authority has issued.")
        )
    return pem.join(found)


def _leaf(text: str) -> Optional[x509.Certificate]:
    try:
        return x509.Certificate.load(pem.split(text)[0].der)
    except (x509.CertificateError, pem.PemError, IndexError):
        return None


def _assessed(part: Mapping[str, Any], options: Mapping[str, Any], read: ReadFile, name: str) -> Assessment:
    """Judge certificates whose key is on the host, by the rules for one that is installed from the controller."""
    authority = options["ca_content"] or (read(options["ca_file"], pem.MAX_BYTES + 1) if options["ca_file"] else None)
    return check_certificate(
        None,
        str(part["pem"]),
        ca_pem=authority,
        names=options["names"],
        min_days_left=fixed_days(options["min_days_left"], "min_days_left"),
        allow_self_signed=options["allow_self_signed"],
        public_key=base64.b64decode(str(part["public_key"])),
        sources=Sources("the key on the host", name, ca="starttls_ca_file"),
    )


def _kept(each: CheckedInputs, part: Mapping[str, Any], found: Assessment) -> CheckedInputs:
    one = replace(
        each, arguments={**each.arguments, "content": str(part["pem"])}, facts=dict(each.facts), private_key=""
    )
    if found.leaf:
        one.facts = {**_facts(found, found.leaf), "kept": True}
    return one


def _filled(each: CheckedInputs, found: Assessment, private_key: str) -> CheckedInputs:
    """Return the inputs with a certificate that was issued. With faults it has no content, so nothing can be installed."""
    if found.leaf is None or not found.ok:
        return replace(each, arguments={**each.arguments, "content": ""}, private_key=private_key)
    text = found.leaf.pem + "".join(one.pem for one in found.chain)
    caveats = [*each.caveats, *found.warnings]
    facts = {**_facts(found, found.leaf), "kept": False}
    return replace(
        each,
        arguments={**each.arguments, "content": text},
        facts=facts,
        caveats=caveats,
        private_key=private_key,
        issue=None,
    )


def _facts(found: Assessment, leaf: x509.Certificate) -> dict[str, Any]:
    return {
        "certificate": leaf.describe(),
        "chain": [one.subject for one in found.chain],
        "fingerprint_sha256": leaf.fingerprint_sha256,
    }


def _checked_request(text: str, public_key: str, names: Sequence[str]) -> str:
    """Return a request that a host made, if it is what was asked for: no host gets a certificate for the names of another one.

    Raises EngineError.
    """
    with understood("the request (CSR) that the host made"):
        key, asked = x509.request_facts(text)
        if base64.b64encode(key).decode("ascii") != public_key:
            raise ValueError("it is not for the key that the host showed")
        if {one.lower() for one in asked} != {one.lower() for one in _asked(names)}:
            raise ValueError("it asks for other names than those that were wanted")
    return text


def _request_path(options: Mapping[str, Any], place: int) -> str:
    path = Path(options["csr_file"] or f"{options['names'][0].lstrip('*.')}.csr")
    return str(path) if not place else str(path.with_name(f"{path.stem}-{place + 1}{path.suffix}"))


def _write_request(path: str, text: str) -> bool:
    """Write a request on the controller. Return whether it was another one before. Raises EngineError."""
    place = from_start(path)
    if not Path(place).parent.is_dir():
        raise EngineError(
            f"there is no directory for {place} on the controller; create it, or correct starttls_csr_file"
        )
    try:
        trust = PathTrust(option="starttls_csr_file")
        before = FileImage.read(place, max_bytes=pem.MAX_BYTES, trust=trust)
        if before.content and b"CERTIFICATE REQUEST" not in before.content:
            raise EngineError(f"{place} holds something else than a request; correct starttls_csr_file")
        if before.content and _same_key(before.content.decode("ascii", "replace"), text):
            return False
        FileImage(place, text.encode("ascii"), 0o644, os.geteuid(), os.getegid(), trust=trust).write()
    except OSError as error:
        raise EngineError(
            f"{place} cannot be written on the controller: {error.strerror or error}; correct starttls_csr_file"
        ) from error
    return True


def _same_key(one: str, two: str) -> bool:
    """Whether two requests are for the same key and names. A signature is another one each time."""
    try:
        return _facts_of_request(one) == _facts_of_request(two)
    except ValueError:
        return False


@functools.lru_cache(maxsize=4)
def _facts_of_request(text: str) -> tuple[bytes, frozenset[str]]:
    key, names = x509.request_facts(text)
    return key, frozenset(names)
