# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A distinguished name as Windows writes it, and so Get-ExchangeCertificate: the form of CertNameToStr with CERT_X500_NAME_STR.

It is a prediction for check mode. What a connector names in the end is what the server itself shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_KEYS = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "SERIALNUMBER",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "S",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "T",
    "2.5.4.13": "Description",
    "2.5.4.17": "PostalCode",
    "2.5.4.42": "G",
    "2.5.4.43": "I",
    "1.2.840.113549.1.9.1": "E",
    "0.9.2342.19200300.100.1.25": "DC",
}
_NEEDS_QUOTES = frozenset(',+="\n\r<>#;')


def windows_name(name: x509.Name) -> str:
    """Return a distinguished name, the most specific part first, such as C(CN=mx.example.com, O="Example, Inc.", C=DE)."""
    return ", ".join(
        " + ".join(f"{_KEYS.get(oid, f'OID.{oid}')}={_quoted(value)}" for oid, value in _parts(part))
        for part in reversed(name.rdns)
    )


def _parts(part: x509.RelativeDistinguishedName) -> list[tuple[str, str]]:
    return [
        (one.oid.dotted_string, one.value if isinstance(one.value, str) else one.value.decode("latin-1"))
        for one in part
    ]


def _quoted(value: str) -> str:
    if not value or value.strip() != value or _NEEDS_QUOTES & set(value):
        return '"{}"'.format(value.replace('"', '""'))
    return value
