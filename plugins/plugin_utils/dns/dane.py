# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DANE for SMTP: compares the TLSA records of a mail server with the certificates that it served.

Private to this collection. Runs on the controller only. Sources: RFC 6698 (records), RFC 7671 (their use), RFC 7672
(SMTP: names, usages and comparison).
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    CertificateError,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.policy import covers, is_valid
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.roots import Roots, served_path
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import (
    Answer,
    Resolver,
    is_dns_domain,
)

TRUST_ANCHOR, END_ENTITY = 2, 3
_CERTIFICATE, _PUBLIC_KEY = 0, 1
_HASHES = {1: hashlib.sha256, 2: hashlib.sha512}
_MAX_RECORDS = 20
_MAX_SHOWN = 128


@dataclass(frozen=True)
class Tlsa:
    """One TLSA record. The names of its numbers are those of RFC 7218."""

    usage: int
    selector: int
    matching_type: int
    data: bytes

    @property
    def usable(self) -> bool:
        """Whether SMTP clients use such a record (RFC 7672, 3.1)."""
        if self.usage not in (TRUST_ANCHOR, END_ENTITY) or self.selector not in (_CERTIFICATE, _PUBLIC_KEY):
            return False
        if self.matching_type == 0:
            return bool(self.data)
        return self.matching_type in _HASHES and len(self.data) == _HASHES[self.matching_type]().digest_size

    def matches(self, certificate: Certificate) -> bool:
        """Whether the record matches this certificate or its public key."""
        selected = certificate.der if self.selector == _CERTIFICATE else certificate.spki
        return selected is not None and self._is_of(selected)

    def matches_key(self, key: bytes) -> bool:
        """Whether the record matches a public key (DER) that has no certificate yet."""
        return self.selector == _PUBLIC_KEY and self._is_of(key)

    def _is_of(self, selected: bytes) -> bool:
        if self.matching_type == 0:
            return selected == self.data
        return _HASHES[self.matching_type](selected).digest() == self.data

    def __str__(self) -> str:
        data = self.data.hex()
        shown = data if len(data) <= _MAX_SHOWN else data[:_MAX_SHOWN] + "..."
        return f"{self.usage} {self.selector} {self.matching_type} {shown}"


@dataclass(frozen=True)
class TlsaLookup:
    """The TLSA records of a mail server: their name, whether DNSSEC validates them, and the reason of a failure.

    asked_for: whether senders look for the records. They do if DNSSEC validates the server's address (RFC 7672, 2.2.2).
    """

    base: str
    records: tuple[Tlsa, ...] = ()
    secure: bool = False
    failure: str = ""
    asked_for: bool = True

    @property
    def shown(self) -> list[str]:
        """The first records as text, at most _MAX_RECORDS."""
        return [str(one) for one in self.records[:_MAX_RECORDS]]


def base_name(host: str, name: str) -> str:
    """Return the base name for the TLSA records: host or, if host is an address, name; empty if both are addresses."""
    for one in (host, name):
        try:
            ipaddress.ip_address(one.partition("%")[0])
        except ValueError:
            return one.rstrip(".").lower()
    return ""


async def look_up(resolver: Resolver, base: str, port: int) -> TlsaLookup:
    """Find the TLSA records of a server.

    If the name is an alias and DNSSEC validates its address, the records of the canonical name come first (RFC 7672,
    2.2.2).
    """
    if not is_dns_domain(base):
        return TlsaLookup(base)
    address, own = await asyncio.gather(resolver.look_up(base, "A"), resolver.look_up(f"_{port}._tcp.{base}", "TLSA"))
    if address.secure and address.name and address.name != base:
        found = _read(address.name, await resolver.look_up(f"_{port}._tcp.{address.name}", "TLSA"))
        if found.failure or (found.records and found.secure):
            return found
    return replace(_read(base, own), asked_for=address.secure or not address.records)


def _read(base: str, answer: Answer) -> TlsaLookup:
    records = tuple(Tlsa(int(one.usage), int(one.selector), int(one.mtype), bytes(one.cert)) for one in answer.records)
    return TlsaLookup(base, records, answer.secure, answer.failure)


def compare_records(
    found: TlsaLookup, port: int, chain: Sequence[Certificate], names: Sequence[str], now: datetime
) -> dict[str, Any]:
    """Compare the records with the served chain, leaf first. Return C(status), C(records) as text, and C(message).

    status: C(none) there are no records; C(insecure) there are records, but DNSSEC does not validate them; C(unusable)
    SMTP uses none of the records; C(match); C(mismatch); C(failed) the look-up failed, or no certificate was seen;
    C(not_checked) the server is known by an address or a bare host name only.
    names: further names that the certificate may have, besides the name of the records. They matter for usage 2 only.
    """
    where = f"_{port}._tcp.{found.base}"

    def result(status: str, message: str) -> dict[str, Any]:
        return {"status": status, "records": found.shown, "message": message}

    if not is_dns_domain(found.base):
        known = f"{found.base} is no domain name" if found.base else "an address has none"
        return result("not_checked", f"the TLSA records of the server were not looked up, because {known}")
    if found.failure and not found.asked_for:
        return result(
            "none", f"DNSSEC does not validate the address of {found.base}, so senders do not ask for TLSA records"
        )
    if found.failure:
        return result("failed", f"the TLSA records of {where} cannot be looked up: {found.failure}")
    if not found.records:
        return result("none", f"{where} has no TLSA records")
    if not found.secure:
        return result(
            "insecure", f"{where} has TLSA records, but the resolver does not report that DNSSEC validates them"
        )
    usable = [one for one in found.records if one.usable]
    if not usable:
        return result("unusable", f"SMTP uses none of the TLSA records of {where}")
    if not chain:
        return result("failed", f"no certificate was seen to compare with the TLSA records of {where}")
    reasons = []
    for record in usable:
        if record.usage == END_ENTITY:
            reason = "" if record.matches(chain[0]) else "the served certificate is a different one"
        else:
            reason = _distrust(record, chain, [found.base, *names], now)
        if not reason:
            return result("match", f"the TLSA record {_short(record)} of {where} matches")
        reasons.append(f"{_short(record)}: {reason}")
    return result("mismatch", f"no TLSA record of {where} matches ({'; '.join(reasons[:5])})")


def _short(record: Tlsa) -> str:
    return f"{record.usage} {record.selector} {record.matching_type} {record.data.hex()[:16]}..."


def _distrust(record: Tlsa, chain: Sequence[Certificate], names: Sequence[str], now: datetime) -> str:
    """Return why the chain does not lead to the trust anchor of a record with usage 2; empty if OpenSSL says that it does."""
    path = served_path(chain, now)
    depth = next((depth for depth, one in enumerate(path) if depth and record.matches(one)), None)
    if depth is None:
        anchor = _whole_anchor(record)
        if anchor is None or not path[-1].is_issued_by(anchor):
            return "the served chain does not lead to it"
        path = [*path, anchor]
    else:
        path = path[: depth + 1]
    refused = Roots([path[-1].der], partial=True).distrust([one.der for one in chain])
    if refused:
        return next(_faults(path, now), refused)
    if not any(covers(path[0], name) for name in names if name):
        return f"the served certificate is not for {names[0]}"
    return ""


def _whole_anchor(record: Tlsa) -> Optional[Certificate]:
    """Return the trust anchor if the record holds it whole. Then the server need not send it."""
    if record.selector != _CERTIFICATE or record.matching_type != 0:
        return None
    try:
        return Certificate.load(record.data)
    except CertificateError:
        return None


def _faults(path: Sequence[Certificate], now: datetime) -> Iterator[str]:
    """Yield why OpenSSL refuses a path, in our own words."""
    for depth, one in enumerate(path):
        if not is_valid(one, now):
            yield f"the certificate {one.subject} is out of date"
        if depth and one.refuses_to_sign(depth - 1):
            yield f"the certificate {one.subject} may not sign others"
    if not path[0].is_for_servers:
        yield "the served certificate is not for servers"
