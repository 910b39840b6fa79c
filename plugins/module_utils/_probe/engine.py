# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole call of starttls_probe: plain options in, plain results out.

The options have the shape of the module's options. The results contain the servers' answers; the controller completes them.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import PORTS
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target, make_context
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import PAUSE, is_busy, told
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.probe import (
    CHECKS,
    Probe,
    probe_all,
    unpack,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import TargetError, ascii_name

EXPECTATIONS = ("require_trusted", "min_tls_version", "min_days_left", "warn_days_left", "fail_on")
"""Options that are returned unchanged. The controller compares the results with them."""
PLAIN_RESULTS = 200
"""Up to this number, the results are returned as plain data. More results are packed."""
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Request:
    """The tests of one call.

    fingerprints: one for each target, the SHA-256 of the expected certificate in lower-case hexadecimal, or C("").
    expected: the values of EXPECTATIONS.
    """

    targets: tuple[Target, ...]
    fingerprints: tuple[str, ...]
    probe: Probe
    expected: Mapping[str, Any]

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Request:
        """Read the module's options. Raises ValueError if one of them cannot be used."""
        targets = tuple(make_target(item) for item in options["targets"])
        if not targets:
            raise TargetError("there is no target to test")
        return cls(
            targets,
            tuple(_fingerprint(item["fingerprint_sha256"] or "") for item in options["targets"]),
            Probe(_settings(options), options["mode"], frozenset(options["checks"]).intersection(CHECKS)),
            {key: options[key] for key in EXPECTATIONS},
        )

    @property
    def is_long(self) -> bool:
        """Whether the results are returned packed."""
        return len(self.targets) > PLAIN_RESULTS


def run_probe(request: Request, log: Callable[[str], None]) -> dict[str, Any]:
    """Test all targets and return the module's result. The result of a long list is packed; unpack_result() reads it.

    log: called with lines about the progress of a long list. A fault of a server never raises; it is in the result.
    """
    progress = progress_log(len(request.targets), log) if request.is_long else None
    packed = {
        "changed": False,
        "packed": probe_all(request.targets, request.probe, progress),
        "expected": dict(request.expected),
        "fingerprints": {str(place): one for place, one in enumerate(request.fingerprints) if one},
    }
    return packed if request.is_long else _asked_again(request, unpack_result(packed))


def _asked_again(request: Request, result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with a second test of each server that was busy, and a warning for each. A survey of many has none."""
    seen = result["results"]
    busy = [number for number, one in enumerate(seen) if is_busy(one["code"], one["stage"], one["message"])]
    if not busy:
        return result
    time.sleep(PAUSE)
    again, certificates = unpack(probe_all([request.targets[number] for number in busy], request.probe))
    warnings = []
    for number, second in zip(busy, again):
        still = is_busy(second["code"], second["stage"], second["message"])
        warnings.append(told(request.targets[number], seen[number]["message"], second["message"] if still else ""))
        seen[number] = second
    return {**result, "certificates": {**result["certificates"], **certificates}, "warnings": warnings}


def make_target(item: dict[str, Any]) -> Target:
    """Return the target of one element of the option. Raises TargetError."""
    protocol = item["protocol"]
    target = Target(
        ascii_name(item["host"]),
        PORTS[protocol] if item["port"] is None else item["port"],
        ascii_name(item["name"] or ""),
        protocol,
    )
    target.check()
    return target


def _fingerprint(text: str) -> str:
    plain = text.replace(":", "").replace(" ", "").lower()
    if plain and not all(re.fullmatch(r"[0-9a-f]{64}", one) for one in plain.split(",")):
        raise ValueError(f"the fingerprint {plain[:80]!r} is not a SHA-256 fingerprint in hexadecimal")
    return plain


def _settings(options: Mapping[str, Any]) -> Settings:
    for option in ("timeout", "total_timeout", "concurrency"):
        if options[option] < 1:
            raise ValueError(f"{option} has to be at least 1")
    return Settings(
        ca_pem=_roots(options["ca_content"]),
        timeout=float(options["timeout"]),
        total_timeout=float(options["total_timeout"]),
        concurrency=options["concurrency"],
        **({"helo_name": options["helo_name"]} if options["helo_name"] else {}),
    )


def _roots(ca_content: Optional[str]) -> Optional[str]:
    """Return the certificates of ca_content as PEM; None if ca_content is empty.

    Text between the certificates may be in any script, so it is left out. Raises ValueError without a usable certificate.
    """
    if not ca_content:
        return None
    try:
        roots = pem.join(pem.certificates(pem.split(ca_content)))
        make_context(roots, verify=True)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ValueError(f"ca_content holds no usable certificate: {reason}") from error
    return roots


def progress_log(total: int, log: Callable[[str], None]) -> Callable[[int], None]:
    """Return a function that logs the progress: after each tenth of the targets, and every ten seconds."""
    step, told, at = max(1, total // 10), 0, time.monotonic()

    def tell(finished: int) -> None:
        nonlocal told, at
        if finished // step > told // step or time.monotonic() - at >= PROGRESS_SECONDS:
            told, at = finished, time.monotonic()
            log(f"{finished} of {total}")

    return tell


def unpack_result(result: dict[str, Any], targets: Optional[int] = None) -> dict[str, Any]:
    """Return the module's result with plain C(results), C(certificates) and C(expectations), for short and long lists.

    targets: how many were to be tested, if a host packed them. Raises ValueError if the packed results cannot be read.
    """
    if "packed" not in result:
        return result
    others = {key: value for key, value in result.items() if key not in ("packed", "expected", "fingerprints")}
    results, certificates = unpack(result["packed"], targets)
    fingerprints = result["fingerprints"]
    expectations = [
        {**result["expected"], "fingerprint": fingerprints.get(str(place), "")} for place in range(len(results))
    ]
    return {**others, "results": results, "certificates": certificates, "expectations": expectations}
