# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of mail_server_info: facts of certificates, names in the diff, and verdicts on handshake tests."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import with_fixed_days
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import EXPECTATIONS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import certificate as x509
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import CheckedInputs
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.probe_results import Inquiry, complete
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood


def complete_observed(
    result: Mapping[str, Any], expected: Mapping[str, Any], checked: Optional[CheckedInputs], ca_content: str
) -> dict[str, Any]:
    """Return the module's result in its public form. A failure is returned unchanged.

    expected: the option handshake. checked: the certificate to install; its findings become obstacles.
    """
    if result.get("failed") or "obstacles" not in result:
        return dict(result)
    with understood("what the host returned"):
        return _complete(result, expected, checked, ca_content)


def _complete(
    result: Mapping[str, Any], expected: Mapping[str, Any], checked: Optional[CheckedInputs], ca_content: str
) -> dict[str, Any]:
    done = dict(result)
    if checked:
        done["obstacles"] = [
            # The certificate to install is named; what is wrong with it says more than that it is not there yet.
            *(one for one in done["obstacles"] if one["code"] != "certificate_missing" or not checked.findings),
            *(_stands(one) for one in checked.findings),
        ]
        done["notes"] = [*done["notes"], *({"code": one.code, "message": one.message} for one in checked.caveats)]
        done.update({name: value for name, value in checked.known().items() if name.startswith("fingerprint")})
    done["changes"] = [_with_lines(one, checked) for one in done.get("changes", ())]
    done["certificates"] = [_with_facts(one) for one in done.get("certificates", ())]
    if "probe" in done:
        done["probe"] = _judged(done["probe"], expected, _expected(done), ca_content)
    return done


def _stands(finding: Finding) -> dict[str, str]:
    """Return a finding on the certificate as an obstacle of the plan."""
    if finding.code == "certificate_newer_unfit":
        return {"code": finding.code, "message": finding.message}
    return {"code": "certificate_unfit", "message": f"[{finding.code}] {finding.message}"}


def served_chain(result: Mapping[str, Any], checked: Optional[CheckedInputs]) -> list[bytes]:
    """Return the chain that a host serves after its change (DER, leaf first): the one to install, or the one that its own port served.

    result: of the module, before complete_observed. checked: the certificate to install; None if none is.
    """
    if checked and not checked.findings:
        return [one.der for one in pem.certificates(pem.split(checked.served))]
    with understood("the handshake test that the host returned"):
        probe = result.get("probe") or {}
        own: Mapping[str, Any] = next(iter(probe.get("results") or ()), {})
        texts = probe.get("certificates") or {}
        return [ssl.PEM_cert_to_DER_cert(texts[one]) for one in own.get("chain_sha256") or () if one in texts]


def with_verdict(result: Mapping[str, Any], expected: Mapping[str, Any], ca_content: str) -> dict[str, Any]:
    """Return the result of a change with the verdict on its handshake test, if it has one. expected: the option handshake."""
    done = dict(result)
    if done.get("probe") and expected.get("name"):
        with understood("the handshake test that the host returned"):
            done["probe"] = _judged(done["probe"], expected, _expected(done), ca_content)
    elif "probe" in done:
        del done["probe"]  # without expectations nobody judged it
    return done


def _expected(done: Mapping[str, Any]) -> str:
    """Return the fingerprints of the certificates to serve, with commas; empty if they are not known."""
    return ",".join(map(str, done.get("fingerprints_sha256") or filter(None, [done.get("fingerprint_sha256")])))


def _with_lines(change: Mapping[str, Any], checked: Optional[CheckedInputs]) -> dict[str, Any]:
    """Return a change with C(lines). That of a certificate file comes as a diff, because the host cannot read names."""
    if "before" not in change:
        return dict(change)
    diff = checked.named(change, change.get("previous_certificate")) if checked else dict(change)
    lines = [f"-{line}" for line in diff["before"].splitlines()] + [f"+{line}" for line in diff["after"].splitlines()]
    same = {line[1:] for line in lines if f"-{line[1:]}" in lines and f"+{line[1:]}" in lines}
    kept = [line for line in lines if line[1:] not in same]
    head = [
        f"--- before: {change['path']}" if diff["before"] else "--- before: (absent)",
        f"+++ after: {change['path']}",
    ]
    return {"path": change["path"], "lines": "\n".join([*head, *kept]) + "\n"}


def _with_facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a certificate file with the facts of its leaf instead of the PEM text."""
    done = {name: value for name, value in found.items() if name != "pem"}
    if found.get("pem"):
        try:
            done["certificate"] = x509.describe(pem.split(found["pem"])[0].der)
        except (x509.CertificateError, pem.PemError) as error:
            done["message"] = f"the certificate cannot be read: {error}"
        except IndexError:
            done["message"] = "the certificate cannot be read: it holds no PEM block"
    return done


def _judged(probe: Mapping[str, Any], expected: Mapping[str, Any], fingerprint: str, ca_content: str) -> dict[str, Any]:
    """Return the tests with verdicts. The first one is of the own port, which has the host's name."""
    results = [dict(one) for one in probe["results"]]
    own = bool(results) and probe.get("own", True)  # a gateway with an API has no port of its own to test
    for place, one in enumerate(results):
        one["own"] = own and place == 0
    if own and expected.get("name"):
        results[0]["name"] = expected["name"]
    wanted = with_fixed_days({name: expected[name] for name in EXPECTATIONS})
    expectations = [
        {**wanted, "fingerprint": fingerprint if own and place == 0 else ""} for place in range(len(results))
    ]
    raw = {"results": results, "certificates": probe["certificates"], "expectations": expectations}
    return complete(raw, Inquiry(), ca_content)
