# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one certificate policy: the rules for a certificate when it is installed, served and renewed.

The rules are those of mail servers, not the stricter ones of browsers. OpenSSL says whether a chain is trusted; the rules on purposes
and issuers only explain why it is not. Revocation is not checked. Each rule is a function that yields faults; label names the
certificate in their messages. The controller and the renewal on a host use the same rules, each with its own way to read a certificate.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, Optional, Protocol

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import (
    COMMON_CURVES,
    ERROR_SHARE,
    MINIMUM_BITS,
    NOT_EVERYWHERE,
    RENEWAL_SHARE,
    SIGNING_USAGE,
    TLS_USAGES,
    WEAK_HASHES,
    error_limit,
    renewal_limit,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import TargetError, ascii_name

INVALID_CA = "invalid CA certificate"
"""OpenSSL's message for an issuer that is not a certification authority."""
PATH_TOO_LONG = "path length constraint exceeded"
SERVER_PURPOSES = frozenset({"1.3.6.1.5.5.7.3.1", "2.16.840.1.113730.4.1", "1.3.6.1.4.1.311.10.3.3"})
"""Extended key usages that OpenSSL takes for a server: serverAuth, and strong cryptography for servers of export times. Not any."""

_MAX_LABEL = 63
_SHOWN_NAMES = 10


class Unfit(NamedTuple):
    """One fault. code: that of a finding. advice: the next thing to do; empty for that of the catalogue, None if what has it already."""

    code: str
    what: str
    advice: Optional[str] = ""


class Facts(Protocol):
    """What the rules ask a certificate."""

    @property
    def common_name(self) -> Optional[str]: ...
    @property
    def sans(self) -> tuple[str, ...]: ...
    @property
    def not_before(self) -> datetime: ...
    @property
    def not_after(self) -> datetime: ...
    @property
    def key_type(self) -> str: ...
    @property
    def key_bits(self) -> Optional[int]: ...
    @property
    def curve(self) -> str: ...
    @property
    def key_usage(self) -> Optional[frozenset[str]]: ...
    @property
    def signature_hash(self) -> Optional[str]: ...
    @property
    def uses_pss(self) -> bool: ...
    @property
    def self_signed(self) -> bool: ...
    @property
    def is_ca(self) -> Optional[bool]: ...
    @property
    def path_length(self) -> Optional[int]: ...
    @property
    def is_for_servers(self) -> bool: ...
    @property
    def must_staple(self) -> bool: ...
    @property
    def damaged(self) -> bool: ...
    def days_left(self, now: datetime) -> int: ...
    def refuses_to_sign(self, authorities: int) -> str: ...
    def confirms(self, host: str, is_address: bool) -> bool: ...


def printable_text(text: str, limit: int = 500) -> str:
    """Return the text with all unprintable characters escaped, cut to ``limit`` characters."""
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text[:limit]
    )
    return escaped if len(text) <= limit else escaped + "..."


def iso_time(time: datetime) -> str:
    """Return a time in UTC as text, such as C(2026-11-01T00:00:00Z)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_weak_key(certificate: Facts, minimum: Mapping[str, int] = MINIMUM_BITS) -> bool:
    """Return whether the public key is weak: DSA, or fewer bits than the minimum of its kind."""
    bits = certificate.key_bits or 0
    return certificate.key_type == "DSA" or bits < minimum.get(certificate.key_type, 0)


def is_weakly_signed(certificate: Facts) -> bool:
    """Return whether the signature is weak. The signature of a self-signed certificate does not matter."""
    return certificate.signature_hash in WEAK_HASHES and not certificate.self_signed


def is_valid(certificate: Facts, now: datetime) -> bool:
    """Return whether the certificate is valid at this time."""
    return certificate.not_before <= now < certificate.not_after


def check_strength(certificate: Facts, label: str, minimum: Mapping[str, int] = MINIMUM_BITS) -> Iterator[Unfit]:
    """Yield C(weak_key) and C(weak_signature)."""
    if is_weak_key(certificate, minimum):
        yield Unfit(
            "weak_key",
            f"the {label} has a weak key ({certificate.key_type}, {certificate.key_bits} bits), which partners refuse",
        )
    if is_weakly_signed(certificate):
        digest = str(certificate.signature_hash).upper()
        yield Unfit("weak_signature", f"the {label} is signed with {digest}, which partners refuse")


def life_of(certificate: Facts) -> timedelta:
    """Return how long the certificate is valid in all."""
    return certificate.not_after - certificate.not_before


def check_dates(
    certificate: Facts,
    label: str,
    now: datetime,
    min_days_left: Optional[int] = None,
    warn_days_left: Optional[int] = None,
    *,
    life: Optional[timedelta] = None,
    shares: tuple[int, int] = (ERROR_SHARE, RENEWAL_SHARE),
) -> Iterator[Unfit]:
    """Yield C(expired), C(not_yet_valid), C(expiring) or C(expires_soon).

    C(expiring): fewer whole days than min_days_left are left. C(expires_soon): less than warn_days_left days are left. None: a share
    of the life is the limit, by default of the certificate's own. An issuer lives for years, so its limit is that of the leaf.
    shares: which ones, for an error and for a warning.
    """
    left, end = certificate.not_after - now, iso_time(certificate.not_after)
    life = life_of(certificate) if life is None else life
    too_few, soon = error_limit(life, shares[0]), renewal_limit(life, shares[1])
    if certificate.not_before > now:
        begin = iso_time(certificate.not_before)
        yield Unfit("not_yet_valid", f"the {label} is not valid before {begin}")
    elif left <= timedelta(0):
        yield Unfit("expired", f"the {label} expired on {end}")
    elif min_days_left is not None and certificate.days_left(now) < min_days_left:
        days = certificate.days_left(now)
        yield Unfit("expiring", f"the {label} has {days} days left (until {end}), fewer than {min_days_left}")
    elif min_days_left is None and left < too_few:
        yield Unfit(
            "expiring",
            f"the {label} has {time_text(left)} left (until {end}), less than {_share(life, shares[0], too_few)}",
            "renew it now, or give fixed days as min_days_left",
        )
    elif warn_days_left is not None and left < timedelta(days=warn_days_left):
        yield Unfit("expires_soon", f"the {label} has {certificate.days_left(now)} days left (until {end})")
    elif warn_days_left is None and left < soon:
        yield Unfit(
            "expires_soon",
            f"the {label} has {time_text(left)} left (until {end}), less than {_share(life, shares[1], soon)}",
        )


def time_text(span: timedelta) -> str:
    """Return a span of time for people: whole days, or hours or minutes if it is shorter than two days."""
    for unit, name in ((timedelta(days=1), "days"), (timedelta(hours=1), "hours")):
        if span >= 2 * unit:
            return f"{span // unit} {name}"
    minutes = span // timedelta(minutes=1)
    return f"{minutes} {'minute' if minutes == 1 else 'minutes'}"


def _share(life: timedelta, share: int, limit: timedelta) -> str:
    """Return a limit for people."""
    names = {RENEWAL_SHARE: "a third", ERROR_SHARE: "a tenth"}
    name = names.get(share, f"1/{share}")
    return f"{name} of its life of {time_text(life)}" if limit == life / share else time_text(limit)


def check_name(certificate: Facts, label: str, name: str, *, not_covered: str = "name_mismatch") -> Iterator[Unfit]:
    """Yield C(bad_name), C(name_in_common_name_only) or not_covered for one host name or IP address.

    not_covered is the code for a name that the certificate does not have: C(name_mismatch) in the probe,
    C(name_not_covered) in the installation.
    """
    try:
        ascii_name(name.strip())
    except TargetError as error:
        yield Unfit("bad_name", str(error), None)
        return
    shown = printable_text(name)
    if not covers(certificate, name):
        yield Unfit(not_covered, f"the {label} is for {names_of(certificate)}, not for {shown}")
    elif not certificate.sans:
        yield Unfit(
            "name_in_common_name_only",
            f"the {label} has the name {shown} in its common name only, which newer clients do not read",
        )


def check_purpose(certificate: Facts, label: str) -> Iterator[Unfit]:
    """Yield C(wrong_purpose) if the extended key usage of a leaf or an intermediate excludes TLS servers."""
    if not certificate.is_for_servers:
        yield Unfit("wrong_purpose", f"the {label} is not for servers: its extended key usage lacks serverAuth")


def check_key_usage(certificate: Facts, label: str) -> Iterator[Unfit]:
    """Yield C(wrong_purpose) if the key usage of a leaf excludes TLS, C(wrong_key_usage) if it excludes signing."""
    usage = certificate.key_usage
    if usage is None or SIGNING_USAGE in usage:
        return
    listed = ", ".join(map(_usage_name, sorted(usage))) or "empty"
    if not usage & TLS_USAGES:
        yield Unfit("wrong_purpose", f"the {label} may not be used for TLS: its key usage is {listed}")
        return
    yield Unfit(
        "wrong_key_usage",
        f"the {label} may not sign: its key usage is {listed}, without digitalSignature, which TLS 1.3 and every cipher suite with "
        f"forward secrecy need. GnuTLS (Exim of Debian) ends the handshake with 'Key usage violation'; OpenSSL lets it pass",
    )


def _usage_name(name: str) -> str:
    """Return a key usage as RFC 5280 and certificate tools spell it."""
    first, *rest = name.split("_")
    return {"crl": "cRL"}.get(first, first) + "".join(map(str.capitalize, rest))


def check_acceptance(certificate: Facts, label: str, minimum: Mapping[str, int] = MINIMUM_BITS) -> Iterator[Unfit]:
    """Yield C(not_everywhere) for what one of OpenSSL, GnuTLS and Schannel does not take, and others do."""
    key = certificate.curve or certificate.key_type
    if is_weak_key(certificate, minimum):
        pass  # no one takes it
    elif key in NOT_EVERYWHERE:
        yield Unfit("not_everywhere", f"the {label} is not taken everywhere: {NOT_EVERYWHERE[key]}")
    elif certificate.curve and certificate.curve not in COMMON_CURVES:
        yield Unfit(
            "not_everywhere",
            f"the {label} is not taken everywhere: its key is of the curve {certificate.curve}, which neither OpenSSL, GnuTLS nor "
            "Schannel offers unless it is switched on",
        )
    if certificate.uses_pss:
        yield Unfit("not_everywhere", f"the {label} is not taken everywhere: Exchange does not take RSASSA-PSS")
    if certificate.must_staple:
        yield Unfit(
            "not_everywhere",
            f"the {label} is not taken everywhere: it says that its server staples an OCSP response ('must-staple'), and where the "
            "server does not, GnuTLS trusts it no more",
            "have it issued again without must-staple",
        )


def check_leaf(certificate: Facts, label: str) -> Iterator[Unfit]:
    """Yield C(ca_as_leaf) if the certificate is not the server's own."""
    if certificate.is_ca and not certificate.self_signed:
        yield Unfit("ca_as_leaf", f"the {label} belongs to a certification authority, not to a server")


def check_issuer(certificate: Facts, label: str, depth: int) -> Iterator[Unfit]:
    """Yield C(issuer_not_ca) if the certificate may not sign a certificate with depth authorities below it."""
    reason = certificate.refuses_to_sign(depth)
    if reason == INVALID_CA:
        yield Unfit(
            "issuer_not_ca",
            f"the {label} signed another certificate, but it does not belong to a certification authority",
        )
    elif reason:
        yield Unfit(
            "issuer_not_ca",
            f"the {label} allows {certificate.path_length} authorities below it, and the chain has {depth}",
        )


def check_extensions(certificate: Facts, label: str) -> Iterator[Unfit]:
    """Yield C(bad_certificate) if the extensions cannot be decoded."""
    if certificate.damaged:
        yield Unfit("bad_certificate", f"the {label} has extensions that cannot be decoded")


def covers(certificate: Facts, name: str) -> bool:
    """Return whether the certificate covers a host, a domain name or an IP address, by RFC 9525.

    A wildcard stands for the whole left-most label and needs two labels after it. As in mail servers, the common name
    counts for a domain name only if no alternative name is a domain name or an address. Names outside ASCII are
    compared by their A-labels. A name that cannot be converted safely is not covered.
    """
    address = _address(name)
    if address is not None:
        return any(san == f"IP:{address}" for san in certificate.sans) and certificate.confirms(address, True)
    host = _host_of(name)
    if not host:
        return False
    patterns = [san[4:] for san in certificate.sans if san.startswith("DNS:")]
    if not certificate.sans and not certificate.damaged and certificate.common_name:
        patterns = [certificate.common_name]
    return any(_matches(pattern, host) for pattern in patterns) and certificate.confirms(host, False)


def names_of(certificate: Facts) -> str:
    """Return the names of a certificate for a message, at most ten of them."""
    shown = list(certificate.sans[:_SHOWN_NAMES])
    if len(certificate.sans) > len(shown):
        shown.append(f"{len(certificate.sans) - len(shown)} more")
    return ", ".join(shown) or certificate.common_name or "no name"


def _address(name: str) -> Optional[str]:
    try:
        return str(ipaddress.ip_address(name.strip().strip("[]")))
    except ValueError:
        return None


def _host_of(name: str) -> str:
    """Return the name in lower-case A-labels, without the final dot; empty if a certificate cannot hold it."""
    try:
        host = ascii_name(name.strip()).lower()
    except TargetError:
        return ""
    return host if all(0 < len(label) <= _MAX_LABEL for label in host.split(".")) else ""


def _matches(pattern: str, host: str) -> bool:
    """Return whether a name in a certificate, possibly with a wildcard, matches the host name."""
    # Names in certificates are ASCII. A U-label in a common name is not converted.
    # Neither OpenSSL nor GnuTLS takes one that ends in a dot.
    pattern = pattern.lower()
    if not pattern.startswith("*."):
        return "*" not in pattern and pattern == host
    rest = pattern[2:]
    first, _dot, parent = host.partition(".")
    return bool(first) and "*" not in rest and "." in rest and parent == rest
