# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The oldest TLS version that Exim permits, and the setting that raises it: a priority string of GnuTLS, or options of OpenSSL.

Sources: the Exim specification (tls_require_ciphers, openssl_options), GnuTLS's "Priority Strings", lib/priority.c of GnuTLS 3.7.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import TLS_ORDER, older_than
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

CIPHERS, OPTIONS = "tls_require_ciphers", "openssl_options"
FLOOR_OPTIONS = (CIPHERS, OPTIONS)
_GNUTLS = {"SSLv3": "SSL3.0", "TLSv1": "TLS1.0", "TLSv1.1": "TLS1.1", "TLSv1.2": "TLS1.2", "TLSv1.3": "TLS1.3"}
_BY_KEYWORD = {f"VERS-{written}": name for name, written in _GNUTLS.items()}
_USUAL = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_LEVELS = {
    **dict.fromkeys(("PERFORMANCE", "NORMAL", "LEGACY", "PFS", "SECURE128", "SECURE192", "SECURE256"), _USUAL),
    **dict.fromkeys(("SUITEB128", "SUITEB192"), ("TLSv1.2",)),
    "NONE": (),
}
_DEFAULT_LEVEL = "NORMAL"
"""What Exim has without a setting."""
_OPENSSL = {
    "no_sslv3": "SSLv3",
    "no_tlsv1": "TLSv1",
    "no_tlsv1_1": "TLSv1.1",
    "no_tlsv1_2": "TLSv1.2",
    "no_tlsv1_3": "TLSv1.3",
}
COLLECTION_PREFIX = "mailfleet"
FLOORED_BY_GATEWAY = re.compile(
    r"mailfleet_(?:none|may|encrypt|encryption_only|trusted_chain|hostname)(?:_smarthost)?\Z"
)
"""The transports of a gateway's modes and enforced domains: its own part of a change sets their versions."""
OWN_TRANSPORTS = "the collection writes these for a peer or for a gateway's mail to the internet, with the versions of the TLS library"
"""Why a transport of the collection's own is below the floor."""
_IN_LOG = (
    rb" (?:\S{1,400} ){0,14}?H=(?:(?P<name>[A-Za-z0-9._-]{1,255}) )?(?:\([^()\s]{0,255}\) )?(?P<peer>\[[0-9A-Fa-f.:]{2,45}\])\S{0,20}"
    rb"(?: \S{1,400}){0,14}? X=(?P<version>(?:TLS|SSL)v?[\d.]{1,4}):"
)
EXIM_SESSIONS = {"inbound": re.compile(rb" <=" + _IN_LOG), "outbound": re.compile(rb" (?:=>|->|>>)" + _IN_LOG)}
"""A line that tells a message's or delivery's peer and TLS version."""


@dataclass(frozen=True)
class Library:
    """The TLS library that an Exim is built with, and its setting of versions. setting: empty for a library that is not known."""

    setting: str

    @classmethod
    def of(cls, printed: str) -> Library:
        """Read what C(exim -bV) says."""
        for word, setting in (("GnuTLS", CIPHERS), ("OpenSSL", OPTIONS)):
            if re.search(rf"(?m)^Support for:.*\b{word}\b", printed):
                return cls(setting)
        return cls("")

    @property
    def is_of_transports(self) -> bool:
        """Whether each transport has a setting of its own. That of OpenSSL is for both directions."""
        return self.setting == CIPHERS

    def oldest(self, value: str) -> Optional[str]:
        """Return the oldest version that a value permits; None if that cannot be told, empty if it permits none."""
        found = _of_priority(value) if self.setting == CIPHERS else _of_options(value)
        return None if found is None else next((one for one in TLS_ORDER if one in found), "")

    def with_floor(self, value: str, floor: str, place: str) -> str:
        """Return a value that permits no older version than the floor: the same one, if it does not already.

        place: what has the value, for the message. Raises EngineError if it cannot be told what the value permits.
        """
        found = _of_priority(value) if self.setting == CIPHERS else _of_options(value)
        if not self.setting:
            raise EngineError(
                "it cannot be told whether this Exim uses GnuTLS or OpenSSL, so starttls_min_tls is not set"
            )
        if found is None:
            raise EngineError(
                f"{self.setting} of {place} is {value!a}, and it cannot be told which TLS versions that permits, so starttls_min_tls is "
                f"not set; let it permit {floor} and newer versions only, or take it out"
            )
        old = [one for one in older_than(floor) if one in found]
        if not old:
            return value
        if not found - set(old):
            raise EngineError(
                f"{self.setting} of {place} is {value!a}, which permits no TLS version from {floor} on; correct that first"
            )
        if self.setting == CIPHERS:
            return ":".join([value.rstrip(": ") or _DEFAULT_LEVEL, *(f"-VERS-{_GNUTLS[one]}" for one in old)])
        names = {version: name for name, version in _OPENSSL.items()}
        return " ".join([*value.split(), *(f"+{names[one]}" for one in old)])


def _of_priority(value: str) -> Optional[set[str]]:
    """Return the versions of a priority string of GnuTLS; None if it is not understood."""
    words = [word.strip() for word in value.strip().strip('"').split(":") if word.strip()]
    if "$" in value or '"' in value:
        return None
    if not words:
        words = [_DEFAULT_LEVEL]
    level = _LEVELS.get(words[0].upper())
    if level is None:
        return None
    found = set(level)
    for word in words[1:]:
        sign, name = word[0], word[1:].upper()
        if sign not in "+-!%" or (sign == "%" and name.startswith("VERS-")):
            return None
        if name in ("VERS-ALL", "VERS-TLS-ALL"):
            found = set(_USUAL) if sign == "+" else set()
        elif name in _BY_KEYWORD:
            found = found | {_BY_KEYWORD[name]} if sign == "+" else found - {_BY_KEYWORD[name]}
    return found


def _of_options(value: str) -> Optional[set[str]]:
    """Return the versions that options of OpenSSL permit; None if they are not understood. Exim itself switches SSLv3 off."""
    found = set(_USUAL)
    for word in value.strip().strip('"').lower().split():
        if word[0] not in "+-" or word[1:] == "all":
            return None
        version = _OPENSSL.get(word[1:])
        if version:
            found = found - {version} if word[0] == "+" else found | {version}
    return found
