# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The numbers and names of the certificate policy, as plain values. A host reads the same ones as the controller does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

RENEWAL_SHARE = 3
"""A third of a certificate's life left: it should have been renewed."""
ERROR_SHARE = 10
"""A tenth left: an error."""
RENEWAL_AT_MOST = timedelta(days=90)
ERROR_AT_MOST = timedelta(days=30)
"""No certificate is renewed earlier, or refused earlier, than this. It only matters for lives of more than 270 and 300 days."""

FALLBACK_DAYS = 21
"""Instead of a third, where the life of a certificate is not known."""

MINIMUM_BITS: Mapping[str, int] = {"RSA": 2048, "EC": 256}
"""Kind of key -> the smallest size in bits that is not weak."""
WEAK_HASHES = frozenset({"md2", "md4", "md5", "sha1"})
"""Hash algorithms that make a signature weak."""

SIGNING_USAGE = "digital_signature"
"""The key usage that TLS 1.3 and all cipher suites with forward secrecy need. GnuTLS insists on it."""
TLS_USAGES = frozenset({SIGNING_USAGE, "key_encipherment", "key_agreement"})
"""OpenSSL takes a server's certificate with any of them."""
NOT_EVERYWHERE: Mapping[str, str] = {
    "Ed25519": "Schannel (Exchange, Windows) does not know Ed25519",
    "Ed448": "Schannel (Exchange, Windows) does not know Ed448",
    "secp521r1": "Schannel (Exchange, Windows) does not take P-521 unless it is switched on",
}
"""Kind of key, or curve -> who refuses it."""
COMMON_CURVES = frozenset({"secp256r1", "secp384r1"})
PSS = "1.2.840.113549.1.1.10"
"""RSASSA-PSS as the algorithm of a signature or key."""

MAX_DAYS = 36_500


def renewal_limit(life: timedelta, share: int = RENEWAL_SHARE) -> timedelta:
    """Return the time before its end by which a certificate of this life should have been renewed."""
    return min(life / share, RENEWAL_AT_MOST)


def error_limit(life: timedelta, share: int = ERROR_SHARE) -> timedelta:
    """Return the time before its end from which on a certificate of this life is an error."""
    return min(life / share, ERROR_AT_MOST)


def fixed_days(value: Union[str, int, None], name: str) -> Optional[int]:
    """Return a number of days that somebody gave, None if nobody did. Raises EngineError. name: the option.

    A question of AWX that nobody answered is an empty text, so the options are texts.
    """
    text = str(value if value is not None else "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= MAX_DAYS and len(text) <= len(str(MAX_DAYS))):
        raise EngineError(
            f"{name} has to be a whole number of days, at most {MAX_DAYS}, not {text[:40]!a}; leave it out, and a share of the "
            "certificate's life is the limit"
        )
    return int(text)


def with_fixed_days(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options whose days are numbers, or None where nobody gave any. Raises EngineError."""
    days = {name: fixed_days(options[name], name) for name in ("min_days_left", "warn_days_left") if name in options}
    return {**options, **days}
