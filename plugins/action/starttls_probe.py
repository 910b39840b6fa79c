# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of starttls_probe: reads the trust store, asks DNS, judges what the host saw."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.validation import check_type_dict, check_type_list
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import PLAIN_RESULTS, unpack_result
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import KeyExchange
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    MissingLibraryError,
    Roots,
    ascii_name,
    require_cryptography,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.key_proof import has_key
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import dane, mta_sts
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import (
    Resolver,
    is_domain,
    require_dnspython,
    run_all,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import (
    Certificates,
    Evidence,
    Expectation,
    judge_handshake,
)

LOOKUPS_AT_A_TIME = 200

Found = Mapping[tuple[Any, ...], Any]


class ActionModule(ActionBase):
    """Runs the module on the host, then adds what the controller makes of each result."""

    TRANSFERS_FILES = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """See ActionBase."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            require_cryptography()
            inquiry = Inquiry.of_arguments(arguments)
        except (MissingLibraryError, TypeError, ValueError) as error:
            raise AnsibleActionFail(str(error)) from error
        ca_file = arguments.pop("ca_file", None)
        if ca_file and not arguments.get("ca_content"):
            arguments["ca_content"] = self._read(ca_file)
        result: dict[str, Any] = self._execute_module(
            "mailfleet.starttls.starttls_probe", module_args=arguments, task_vars=task_vars
        )
        if result.get("failed"):
            return result
        try:
            result = unpack_result(result)
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        return complete(result, inquiry, str(arguments.get("ca_content") or "")) if "results" in result else result

    def _read(self, path: str) -> str:
        try:
            found = self._find_needle("files", path)
            with open(found, encoding="utf-8") as handle:  # noqa: PTH123
                return handle.read()
        except Exception as error:
            raise AnsibleActionFail(f"ca_file {path!r} cannot be read on the controller: {error}") from error


@dataclass(frozen=True)
class Inquiry:
    """What is to be looked up from the controller. domains has one entry for each target, with dane or mta_sts."""

    with_dane: bool = False
    with_mta_sts: bool = False
    domains: tuple[str, ...] = ()
    resolver: Optional[Resolver] = None
    web: Optional[mta_sts.Web] = None

    @classmethod
    def of_arguments(cls, arguments: Mapping[str, Any]) -> Inquiry:
        """Read the task's options, which nobody has checked yet, before the host is bothered.

        Raises MissingLibraryError, TypeError and ValueError, with texts for people.
        """
        checks = [str(one).strip() for one in check_type_list(arguments.get("checks") or [])]
        if not {"dane", "mta_sts"} & set(checks):
            return cls()
        require_dnspython()
        targets = [check_type_dict(one) for one in check_type_list(arguments.get("targets") or [])]
        domains = tuple(_domain(one, "mta_sts" in checks) for one in targets)
        timeout = float(arguments.get("timeout") or 15)
        servers = [str(one).strip() for one in check_type_list(arguments.get("resolver") or [])]
        return cls(
            with_dane="dane" in checks,
            with_mta_sts="mta_sts" in checks,
            domains=domains,
            resolver=Resolver(servers, lifetime=timeout),
            web=mta_sts.Web(ssl.create_default_context(), timeout=timeout),
        )

    def look_up(self, results: Sequence[Mapping[str, Any]]) -> Found:
        """Everything that the results need, each thing once: C(("dane", base, port)) and C(("mta_sts", domain))."""
        jobs: dict[tuple[Any, ...], Callable[[], Awaitable[Any]]] = {}
        resolver, web = self.resolver, self.web
        if resolver is None or web is None:
            return {}
        for seen, domain in zip(results, self.domains):
            if self.with_dane:
                base, port = dane.base_name(seen["host"], seen["name"]), seen["port"]
                jobs["dane", base, port] = lambda base=base, port=port: dane.look_up(resolver, base, port)  # type: ignore[misc]
            if self.with_mta_sts:
                jobs["mta_sts", domain] = lambda domain=domain: mta_sts.look_up(resolver, web, domain)  # type: ignore[misc]
        return run_all(jobs, LOOKUPS_AT_A_TIME)

    def evidence(self, found: Found, index: int, seen: Mapping[str, Any]) -> tuple[Any, Any, str]:
        """What was found for one result: TLSA records, policy, domain."""
        base = dane.base_name(seen["host"], seen["name"])
        domain = self.domains[index] if self.domains else ""
        return found.get(("dane", base, seen["port"])), found.get(("mta_sts", domain)), domain


def _domain(target: Mapping[str, Any], required: bool) -> str:
    given = str(target.get("domain") or "")
    domain = ascii_name(given) or "" if given else ""
    if given and not is_domain(domain):
        raise TypeError(f"the domain {given!r} of {target.get('host')} is none")
    if required and not domain:
        raise TypeError(f"the check mta_sts needs the domain of each target, and {target.get('host')} has none")
    return domain


def complete(result: dict[str, Any], inquiry: Inquiry, ca_content: str) -> dict[str, Any]:
    """The module's result in the form that users see: judged, and with certificates where they are expected."""
    raw: list[dict[str, Any]] = result["results"]
    pem_of: Mapping[str, str] = result.pop("certificates")
    expectations = result.pop("expectations")
    certificates = Certificates(pem_of)
    found = inquiry.look_up(raw)
    roots = _roots(raw, ca_content)
    judged = []
    for index, (seen, expected) in enumerate(zip(raw, expectations)):
        exchange = seen.pop("key_exchange", None)
        tlsa, policy, domain = inquiry.evidence(found, index, seen)
        evidence = Evidence(roots, _has_key(certificates, seen, exchange), tlsa, policy, domain)
        judged.append(judge_handshake(seen, Expectation(**expected), certificates, evidence))
    if len(judged) <= PLAIN_RESULTS:
        for one in judged:
            one["chain_pem"] = [pem_of[fingerprint] for fingerprint in one["chain_sha256"] if fingerprint in pem_of]
    else:
        result["certificates"] = pem_of
    return {**result, "results": judged, "passed": all(one["passed"] for one in judged)}


def _roots(results: Sequence[Mapping[str, Any]], ca_content: str) -> Optional[Roots]:
    """The trust store: what was given, or the controller's for what only the controller can judge."""
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
