# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of starttls_probe: reads the trust store, queries DNS, and adds a verdict to each host result."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import PLAIN_RESULTS, unpack_result
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import KeyExchange
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import TargetError, ascii_name
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import require_cryptography
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.key_proof import has_key
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import Roots
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import dane, mta_sts
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import (
    Resolver,
    is_dns_domain,
    require_dnspython,
    run_all,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import NEED_DNS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import (
    Certificates,
    Evidence,
    Expectation,
    assess_handshake,
)

LOOKUPS_AT_A_TIME = 200

LookedUp = Mapping[tuple[Any, ...], Any]
"""Key of a look-up in Inquiry.look_up() -> its answer."""


@dataclass(frozen=True)
class Inquiry:
    """The look-ups that the controller has to make. With dane or mta_sts, domains has one entry for each target."""

    with_dane: bool = False
    with_mta_sts: bool = False
    domains: tuple[str, ...] = ()
    resolver: Optional[Resolver] = None
    web: Optional[mta_sts.Web] = None

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Inquiry:
        """Read the module's options, before the host starts the module. Raises MissingLibraryError, EngineError."""
        require_cryptography()
        checks = set(options["checks"])
        if not NEED_DNS & checks:
            return cls()
        require_dnspython()
        timeout = float(options["timeout"])
        return cls(
            with_dane="dane" in checks,
            with_mta_sts="mta_sts" in checks,
            domains=tuple(_domain(one) for one in options["targets"]),
            resolver=Resolver([one.strip() for one in options["resolver"] or []], lifetime=timeout),
            web=mta_sts.Web(ssl.create_default_context(), timeout=timeout),
        )

    def look_up(self, results: Sequence[Mapping[str, Any]]) -> LookedUp:
        """Look up all records that the results need, each once. Keys: C(("dane", base, port)) and C(("mta_sts", domain))."""
        jobs: dict[tuple[Any, ...], Callable[[], Awaitable[Any]]] = {}
        resolver, web = self.resolver, self.web
        if resolver is None or web is None:
            return {}
        for seen, domain in zip(results, self.domains):
            if self.with_dane:
                base, port = dane.base_name(seen["host"], seen["name"]), seen["port"]
                jobs["dane", base, port] = lambda base=base, port=port: dane.look_up(resolver, base, port)  # type: ignore[misc]
            if self.with_mta_sts and domain:
                jobs["mta_sts", domain] = lambda domain=domain: mta_sts.look_up(resolver, web, domain)  # type: ignore[misc]
        return run_all(jobs, LOOKUPS_AT_A_TIME)

    def evidence(self, found: LookedUp, index: int, seen: Mapping[str, Any]) -> tuple[Any, Any, str]:
        """Return the TLSA records, the policy and the domain for one result."""
        base = dane.base_name(seen["host"], seen["name"])
        domain = self.domains[index] if self.domains else ""
        policy = found.get(("mta_sts", domain))
        if self.with_mta_sts and not domain:
            policy = mta_sts.PolicyLookup(
                "not_checked", f"no recipient domain of {seen['name']} is known, so no MTA-STS policy was looked up"
            )
        return found.get(("dane", base, seen["port"])), policy, domain


def _domain(target: Mapping[str, Any]) -> str:
    given = str(target.get("domain") or "")
    try:
        domain = ascii_name(given.strip()).lower()
    except TargetError as error:
        raise EngineError(f"the domain of {target.get('host')}: {error}") from error
    if given and not is_dns_domain(domain):
        raise EngineError(
            f"the domain {given!r} of {target.get('host')} is not a domain; correct starttls_domain of the host"
        )
    return domain


def complete_result(result: dict[str, Any], inquiry: Inquiry, ca_content: str, targets: int) -> dict[str, Any]:
    """Return the module's result, packed or not, in its public form. A failure is returned unchanged.

    targets: how many the host was to test. Raises EngineError if the results cannot be read, or are not those of the targets.
    """
    if result.get("failed"):
        return result
    with understood("what the host returned"):
        result = unpack_result(result, targets)
        if "results" not in result:
            return result
        if len(result["results"]) != targets or len(result["expectations"]) != targets:
            raise ValueError(f"there are {len(result['results'])} results for {targets} targets")
        return complete(result, inquiry, ca_content)


def complete(result: dict[str, Any], inquiry: Inquiry, ca_content: str) -> dict[str, Any]:
    """Return the module's result in its public form: with verdicts and certificates. Callers say what is not understood."""
    raw: list[dict[str, Any]] = result["results"]
    pem_of: Mapping[str, str] = result.pop("certificates")
    expectations = result.pop("expectations")
    certificates = Certificates(pem_of)
    found = inquiry.look_up(raw)
    roots = _roots(raw, ca_content)
    done = []
    for index, (seen, expected) in enumerate(zip(raw, expectations)):
        exchange = seen.pop("key_exchange", None)
        tlsa, policy, domain = inquiry.evidence(found, index, seen)
        evidence = Evidence(roots, _has_key(certificates, seen, exchange), tlsa, policy, domain)
        done.append(assess_handshake(seen, Expectation(**expected), certificates, evidence))
    if len(done) <= PLAIN_RESULTS:
        for one in done:
            one["chain_pem"] = [pem_of[fingerprint] for fingerprint in one["chain_sha256"] if fingerprint in pem_of]
    else:
        result["certificates"] = pem_of
    return {**result, "results": done, "passed": all(one["passed"] for one in done)}


def _roots(results: Sequence[Mapping[str, Any]], ca_content: str) -> Optional[Roots]:
    """Return the given trust store, or the controller's if there is a survey; None if neither is needed."""
    if ca_content:
        return Roots.of_pem(ca_content)
    return Roots.of_system() if any(one["mode"] == "survey" for one in results) else None


def _has_key(certificates: Certificates, seen: Mapping[str, Any], exchange: Any) -> Optional[bool]:
    if not exchange or not seen["chain_sha256"]:
        return None
    try:
        leaf = certificates.load(seen["chain_sha256"][0])
        return has_key(leaf.der, KeyExchange.from_dict(exchange))
    except ValueError:  # a CertificateError is one, too
        return None
