# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a certificate that is on a host, by the rules for one that is installed there. The key is not here.

It is there because somebody else renews it (C(certificate_source=host)), or because it ends later than the one to install.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import SOURCE_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import fixed_days
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.assessment import (
    Assessment,
    Sources,
    check_certificate,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import (
    CheckedInputs,
    ReadFile,
    meet,
    of_ports_problem,
    twice_of,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding, entry_of
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood


def with_host_certificate(
    result: Mapping[str, Any],
    install: Mapping[str, Any],
    read: ReadFile,
    entries: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the result of a read with the judgement on the certificate of C(on_host), if it has one.

    install: the option; its names, CA and days count. entries: the option more_on_host; the names of one with ports count for it.
    Faults become obstacles. Raises EngineError if the CA file cannot be read, and MissingLibraryError.
    """
    done = dict(result)
    seen = done.pop("on_host", None)
    if not seen or result.get("failed"):
        return done
    with understood("what the host returned about its certificate"):
        return _judged(done, seen, install, read, entries)


def _judged(
    done: dict[str, Any],
    seen: Mapping[str, Any],
    install: Mapping[str, Any],
    read: ReadFile,
    entries: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    notes, obstacles, prints = list(done["notes"]), [], []
    kinds: list[tuple[str, tuple[int, ...]]] = []
    of_path = {str(one["certificate_path"]): one for one in entries}
    for entry in entries:
        if problem := of_ports_problem(entry):
            said = f"[bad_option] starttls_more_certificates: {x509.printable_text(str(entry['certificate_path']))}: {problem}."
            obstacles.append({"code": "certificate_unfit", "message": said})
    obstacles += [{"code": "certificate_unfit", "message": said} for said in _apart(entries)]
    every = [seen, *(seen.get("more") or ())]
    for one in every:
        entry = of_path.get(str(one["certificate"]), {}) if one is not seen else {}
        ports = tuple(entry.get("ports") or ())
        path, key_path = (x509.printable_text(str(one[name])) for name in ("certificate", "private_key"))
        if one["message"]:
            said = f"could not look at the certificate {path} on the host: {x509.printable_text(str(one['message']))}"
            advice = entry_of("certificate_not_read").advice
            obstacles.append({"code": "certificate_not_read", "message": f"{said}; {advice}"})
            continue
        names = Sources(f"{key_path} on the host", f"{path} on the host", ca="ca_file")
        judged_by = {**install, "names": entry["names"]} if entry.get("names") else install
        assessment = _assess(one, judged_by, read, base64.b64decode(str(one["public_key"])), names)
        wrong = [f"[{found.code}] {found.message}" for found in assessment.findings]
        notes += [{"code": found.code, "message": found.message} for found in assessment.warnings]
        if assessment.leaf:
            facts = assessment.leaf.describe()
            if any(kind == facts["key_type"] and meet(others, ports) for kind, others in kinds):
                said = twice_of(facts["key_type"], bool(ports))
                wrong.append(f"[bad_option] starttls_more_certificates: {path} {said}")
            kinds.append((facts["key_type"], ports))
            prints += [] if ports else [facts["fingerprint_sha256"]]
        obstacles += [{"code": "certificate_unfit", "message": message} for message in wrong]
    if obstacles:
        done["obstacles"] = [*_others(done), *obstacles]
    elif prints:
        done["fingerprint_sha256"] = prints[0]
        if len(prints) > 1:
            done["fingerprints_sha256"] = prints
    done["notes"] = notes
    return done


def _apart(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield that two entries share a port and are not one certificate in two algorithms, which is what the renewal hook proves."""
    for one, other in combinations(entries, 2):
        ports, others = ({*(each.get("ports") or ())} for each in (one, other))
        if ports & others and (ports != others or {*(one.get("names") or ())} != {*(other.get("names") or ())}):
            path, beside = (x509.printable_text(str(each["certificate_path"])) for each in (one, other))
            yield (
                f"[bad_option] starttls_more_certificates: {path} and {beside} share port {min(ports & others)}, and the renewal hook "
                "could not tell them apart. Give both the same ports and names, or ports of their own"
            )


def keep_newer(
    newer: Sequence[Mapping[str, Any]], install: Mapping[str, Any], checked: CheckedInputs, read: ReadFile
) -> CheckedInputs:
    """Return the checked certificates; in the place of each for which the host has one that ends later, that one (see _kept)."""
    with understood("what the host returned about its certificate"):
        found = {str(one["path"]): one for one in newer}
    first, *more = (
        _kept(found[path], install, one, read) if (path := str(one.arguments["path"])) in found else one
        for one in (checked, *checked.more)
    )
    others = [one for one, was in zip(more, checked.more) if one is not was]
    findings = [*first.findings, *(finding for one in others for finding in one.findings)]
    caveats = [*first.caveats, *(caveat for one in others for caveat in one.caveats)]
    return replace(first, more=more, findings=findings, caveats=caveats)


def _kept(
    newer: Mapping[str, Any], install: Mapping[str, Any], checked: CheckedInputs, read: ReadFile
) -> CheckedInputs:
    """Return what stands in the place of a checked certificate, because the host has one that ends later.

    newer: what the host said of it (newer.newer_on_host). The result has the facts of that one, and the warning that it stays; or a
    finding, if it does not pass the same check. Raises EngineError for a CA file that cannot be read, or a result of another form.
    """
    with understood("what the host returned about its certificate"):
        path, message = x509.printable_text(str(newer["path"])), x509.printable_text(str(newer["message"]))
        leaf = x509.Certificate.load(pem.split(str(newer["pem"]))[0].der)
        ends = [str(one["not_after"]) for one in (leaf.describe(), checked.facts["certificate"])]
        if ends[0] <= ends[1]:  # the host has no program that could tell it the end
            return replace(checked, facts={**checked.facts, "replaces": pem.fingerprint(leaf.der)})
        which = (
            f"{path} on the host holds a certificate that ends later ({ends[0]}) than the one to install ({ends[1]})"
        )
        sources = Sources(f"the key in {path} on the host", f"{path} on the host", ca="ca_file")
        judged_by = {**install, "names": checked.names} if checked.names else install
        assessment = _assess(newer, judged_by, read, leaf.spki, sources)
    kept = CheckedInputs({**checked.arguments, "content": str(newer["pem"])}, ports=checked.ports, names=checked.names)
    wrong = [message] if message else [f"[{one.code}] {one.message}" for one in assessment.findings]
    if wrong:
        what = f"{which}, and it cannot stay: {'; '.join(wrong).rstrip('.')}"
        kept.findings.append(Finding.advised("certificate_newer_unfit", what))
        return kept
    kept.facts = {
        "certificate": leaf.describe(),
        "chain": [one.subject for one in assessment.chain],
        "fingerprint_sha256": pem.fingerprint(leaf.der),
        "kept": True,
    }
    kept.caveats = [Finding.advised("certificate_newer_kept", f"{which}, so it stays"), *assessment.warnings]
    return kept


def _assess(
    seen: Mapping[str, Any], install: Mapping[str, Any], read: ReadFile, public_key: Optional[bytes], sources: Sources
) -> Assessment:
    """Judge the certificates in C(pem). install: the option. public_key: that of the private key on the host."""
    x509.require_cryptography()
    given = {name: value for name, value in install.items() if value not in ("", None)}
    options = {**{name: option.get("default") for name, option in SOURCE_SPEC.items()}, **given}
    authority = options["ca_content"] or (read(options["ca_file"], pem.MAX_BYTES + 1) if options["ca_file"] else None)
    return check_certificate(
        None,
        str(seen["pem"]),
        ca_pem=authority,
        names=[name.strip() for name in options["names"] or () if name.strip()],
        min_days_left=fixed_days(options["min_days_left"], "min_days_left"),
        allow_self_signed=options["allow_self_signed"],
        public_key=public_key,
        sources=sources,
    )


def _others(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the obstacles without those that this judgement says better."""
    return [one for one in done["obstacles"] if one["code"] != "certificate_missing"]
