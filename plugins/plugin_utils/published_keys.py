# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the TLSA records that are published for a host fit the certificate to install.

A sender that checks DANE defers its mail for as long as they do not. So the record of the next key comes first, beside that of the
present one; then the certificate; then the old record goes (RFC 7671, 8.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    MissingLibraryError,
    utc_now,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import CheckedInputs
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import dane
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import Resolver, is_dns_domain, run_all
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood

LOOKUP_SECONDS = 5.0
_MOST_NAMES = 10


def tlsa_refusal(checked: CheckedInputs, options: Mapping[str, Any]) -> list[Finding]:
    """Return why a certificate must not be installed yet; nothing if it may. options: of a change, with C(install). Raises EngineError."""
    return [one for one in _findings(checked, options) if one.code == "tlsa_not_published"]


def with_tlsa(
    result: Mapping[str, Any],
    options: Mapping[str, Any],
    checked: Optional[CheckedInputs],
    renewed_here: bool = False,
    on_host: Optional[Mapping[str, Any]] = None,
) -> dict[str, Any]:
    """Return a read with what the published records mean for the certificate that the change would install.

    renewed_here: whether it is renewed on the host. Then the records go to the renewal hook, as C(published_tlsa), whatever
    C(check_tlsa) says: the hook decides by them for weeks. It is left out if they are not known, so the hook keeps those that it has.
    on_host: the certificate that the daemon reads from its owner, as the host showed it; without C(check_tlsa) it is only noted that it
    does not fit. Raises EngineError.
    """
    done = dict(result)
    install, port = options.get("install") or {}, int(options.get("port") or 25)
    installs = bool(checked and not checked.findings and _installs(result, checked) and install.get("check_tlsa"))
    names = _names(install)
    if not names or not (installs or renewed_here):
        return done
    found = look_up(names, port, [str(one) for one in install.get("resolver") or ()])
    said = _not_looked_up(found, port, "; the renewal hook keeps the records that it has" if renewed_here else "")
    if renewed_here and not said:
        done["published_tlsa"] = [one for name in names for one in _plain(found[name], f"_{port}._tcp.{name}")]
    answered = [one for one in found.values() if not one.failure]
    if installs and checked:
        said += _compared(answered, port, checked)
    elif on_host and on_host.get("pem"):
        with understood("what the host returned about its certificate"):
            chain = [Certificate.load(one.der) for one in pem.certificates(pem.split(str(on_host["pem"])))]
        said += [one for each in answered for one in compared(each, port, [chain] if chain else [])]
    for one in said:
        stops = one.code == "tlsa_not_published" and install.get("check_tlsa")
        name = "obstacles" if stops else "notes"
        done[name] = [*done[name], {"code": one.code, "message": one.message}]
    return done


def _plain(found: dane.TlsaLookup, where: str) -> list[dict[str, Any]]:
    """Return records as the renewal hook is given them."""
    return [
        {
            "name": where,
            "usage": one.usage,
            "selector": one.selector,
            "matching_type": one.matching_type,
            "data": one.data.hex(),
        }
        for one in found.records
    ]


def _names(install: Mapping[str, Any]) -> list[str]:
    """Return the names whose records count."""
    wanted = [str(name).rstrip(".").lower() for name in install.get("names") or ()]
    return [name for name in dict.fromkeys(wanted) if is_dns_domain(name)][:_MOST_NAMES]


def _installs(result: Mapping[str, Any], checked: CheckedInputs) -> bool:
    """Whether a read says that a certificate file changes."""
    paths = {str(one.arguments["path"]) for one in checked.own}
    changes = result.get("changes") or ()
    return any(isinstance(one, Mapping) and one.get("path") in paths for one in changes)


def _findings(checked: CheckedInputs, options: Mapping[str, Any]) -> list[Finding]:
    install, port = options.get("install") or {}, int(options.get("port") or 25)
    names = _names(install) if install.get("check_tlsa") else []
    if not names:
        return []
    found = look_up(names, port, [str(one) for one in install.get("resolver") or ()])
    return _compared([one for one in found.values() if not one.failure], port, checked)


def _compared(found: Iterable[dane.TlsaLookup], port: int, checked: CheckedInputs) -> list[Finding]:
    every = checked.own  # the records are those of the mail port
    keys = [one.waiting_key for one in every]
    return [one for each in found for one in compared(each, port, [_chain(one) for one in every], keys)]


def _not_looked_up(found: Mapping[str, dane.TlsaLookup], port: int, more: str = "") -> list[Finding]:
    """Return why records are not known, once for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, one in found.items():
        if one.failure:
            reasons.setdefault(one.failure, []).append(f"_{port}._tcp.{name}")
    return [
        Finding.advised("tlsa_unknown", f"the TLSA records of {', '.join(where)} cannot be looked up: {reason}{more}")
        for reason, where in reasons.items()
    ]


def look_up(names: Sequence[str], port: int, servers: Sequence[str]) -> dict[str, dane.TlsaLookup]:
    """Return the published records of each name, or why they are not known. Raises nothing of the DNS."""
    try:
        resolver = Resolver(servers, lifetime=LOOKUP_SECONDS)
        jobs = {name: lambda name=name: dane.look_up(resolver, name, port) for name in names}
        return run_all(jobs, len(jobs))
    except (EngineError, MissingLibraryError) as error:
        return {name: dane.TlsaLookup(name, failure=str(error)) for name in names}


def compared(
    found: dane.TlsaLookup, port: int, chains: Sequence[Sequence[Certificate]], keys: Sequence[bytes] = ()
) -> list[Finding]:
    """Return what published records mean for the chains to install, leaf first; an empty one is not known yet.

    Each has to fit: which one a sender gets depends on the algorithms that it takes. Records count whether or not this resolver reports
    that DNSSEC validates them: the resolver of a sender may. keys: for a chain that is not known, its public key (DER) if that is.
    """
    where = f"_{port}._tcp.{found.base}"
    if found.failure:
        return [Finding.advised("tlsa_unknown", f"the TLSA records of {where} cannot be looked up: {found.failure}")]
    if not any(one.usable for one in found.records):
        return []
    said = []
    for place, chain in enumerate(chains):
        key = keys[place] if place < len(keys) else b""
        if chain:
            verdict = dane.compare_records(replace(found, secure=True), port, chain, [], utc_now())
            if verdict["status"] == "mismatch":
                said.append(Finding.advised("tlsa_not_published", _to_publish(where, found, chain[0].spki or b"")))
        elif key and all(_by_key(one) for one in found.records if one.usable):
            if not any(one.matches_key(key) for one in found.records if one.usable):
                said.append(Finding.advised("tlsa_not_published", _to_publish(where, found, key)))
        else:
            said.append(Finding("tlsa_unknown", _not_known(where, found)))
    return said


def _by_key(record: dane.Tlsa) -> bool:
    """Whether the key of the server alone decides about a record."""
    return record.usage == dane.END_ENTITY and record.selector == 1


def _not_known(where: str, found: dane.TlsaLookup) -> str:
    known = "; ".join(f"{where}. IN TLSA {one}" for one in found.shown[:3])
    return (
        f"TLSA records are published ({known}), and whether they fit the certificate to come is not known yet: if none does, the run stops "
        "on this host before it is installed, and names the record to publish"
    )


def _to_publish(where: str, found: dane.TlsaLookup, key: bytes) -> str:
    record = f"{where}. IN TLSA 3 1 1 {hashlib.sha256(key).hexdigest()}"
    return (
        f"no published TLSA record fits the key of the certificate to install. Publish '{record}' beside what is there "
        f"({'; '.join(found.shown[:3])})"
    )


def _chain(checked: CheckedInputs) -> list[Certificate]:
    return [Certificate.load(one.der) for one in pem.certificates(pem.split(checked.served))]
