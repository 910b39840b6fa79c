# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Explains a chain that OpenSSL refuses: which certificate is at fault, and what it says. Decides nothing.

Private to this collection. Runs on the controller only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import policy
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import (
    Certificate,
    extension_of,
    printable_text,
)

with contextlib.suppress(ImportError):
    from cryptography import x509

REISSUE = "have it issued again, if need be by another authority"
"""The advice for most refusals."""

_SHOWN = 5
# Extensions that OpenSSL evaluates, as they are named in RFC 5280; others must not be critical.
_EVALUATED = frozenset(f"2.5.29.{number}" for number in (14, 15, 17, 19, 30, 31, 32, 33, 35, 36, 37, 54))


def explain_refusal(reason: str, path: Sequence[Certificate]) -> str:
    """Return which certificate causes OpenSSL's reason, and by what. Empty if only OpenSSL's own words are known.

    path: leaf first, with the root if it is known.
    """
    for words, rule in _RULES.items():
        if words in reason:
            return next(rule(path), "")
    return ""


def _constraints(path: Sequence[Certificate]) -> Iterator[str]:
    for issuer in path[1:]:
        found: Any = extension_of(issuer, x509.NameConstraints)
        for verb, names in (
            ("allows only", found and found.permitted_subtrees),
            ("forbids", found and found.excluded_subtrees),
        ):
            if names:
                listed = [printable_text(str(one.value)) for one in names[:_SHOWN]]
                yield f"{issuer.subject} {verb} these names: {', '.join(listed)}"


def _proxies(path: Sequence[Certificate]) -> Iterator[str]:
    yield f"{path[0].subject} is a proxy certificate, which stands for somebody else's"


def _critical(path: Sequence[Certificate]) -> Iterator[str]:
    for one in path:
        for oid in one.critical:
            if oid not in _EVALUATED:
                yield f"{one.subject} has the critical extension {oid}, which OpenSSL does not know"


def _key_identifiers(path: Sequence[Certificate]) -> Iterator[str]:
    for one, issuer in zip(path, path[1:]):
        named: Any = extension_of(one, x509.AuthorityKeyIdentifier)
        own: Any = extension_of(issuer, x509.SubjectKeyIdentifier)
        if named and own and named.key_identifier not in (None, own.digest):
            yield f"{one.subject} names another key of {issuer.subject} as its issuer (authority key identifier)"
        elif named and named.authority_cert_serial_number not in (None, issuer.parsed.serial_number):
            yield f"{one.subject} names another certificate of {issuer.subject} as its issuer (authority key identifier)"


def _issuer_lookup(path: Sequence[Certificate]) -> Iterator[str]:
    for one in path:
        if one.damaged:
            yield f"{one.subject} has extensions that cannot be decoded"
    yield from _key_identifiers(path)


def _purposes(path: Sequence[Certificate]) -> Iterator[str]:
    for one in path:
        if not one.is_for_servers:
            yield f"the extended key usage of {one.subject} lacks serverAuth"
    yield from (
        found.message.partition(";")[0] for found in policy.check_key_usage(path[0], f"certificate {path[0].subject}")
    )


def _issuers(path: Sequence[Certificate]) -> Iterator[str]:
    for depth, one in enumerate(path[1:]):
        said = one.refuses_to_sign(depth)
        if said:
            yield f"{one.subject}: {said}"


def _strength(path: Sequence[Certificate]) -> Iterator[str]:
    for one in path:
        yield from (
            found.message.partition(";")[0] for found in policy.check_strength(one, f"certificate {one.subject}")
        )


_RULES: Mapping[str, Callable[[Sequence[Certificate]], Iterator[str]]] = {
    "subtree": _constraints,
    "name constraint": _constraints,
    "critical extension": _critical,
    "key identifier": _key_identifiers,
    "issuer certificate": _issuer_lookup,
    "serial number mismatch": _key_identifiers,
    "proxy": _proxies,
    "purpose": _purposes,
    "invalid CA": _issuers,
    "path length": _issuers,
    "too weak": _strength,
}
