# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judging handshake tests on the controller, and the table in which people read the result."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.x509 import (
    CertificateError,
    Finding,
    covers,
    describe,
)

TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

# What to do about a handshake test that did not complete, by its code.
ADVICE = {
    "connect_failed": "see that the server runs, listens on this address and lets this host in",
    "timeout": "see that the server is not overloaded and that nothing between filters the connection",
    "greeting_rejected": "see why the server refuses this client; its log has the reason",
    "not_smtp": "see that the port is the one of a mail server",
    "ehlo_rejected": "see why the server refuses EHLO from this client; its log has the reason",
    "starttls_not_offered": "switch STARTTLS on at the server; if it is on, something between strips it",
    "starttls_refused": "see that the daemon can read key and certificate and that they belong together",
    "plaintext_after_220": "something between injects plaintext, or the server is vulnerable to injection: update it",
    "tls_failed": "see the server's log; a key that does not belong to the certificate is the usual reason",
    "connection_closed": "see the server's log for why it hung up",
    "ehlo_tls_rejected": "see the server's log for why it refuses EHLO inside TLS",
    "bad_name": "give a name that a certificate can hold",
}


@dataclass(frozen=True)
class Expectation:
    """What a served certificate and its session have to be. fingerprint is SHA-256, hex, or empty."""

    require_trusted: bool = True
    min_tls_version: str = "TLSv1.2"
    min_days_left: int = 0
    fingerprint: str = ""


def judge_handshake(seen: Mapping[str, Any], expected: Expectation, now: Optional[datetime] = None) -> dict[str, Any]:
    """The result of a handshake test with C(certificate), C(findings) and C(passed) added to it.

    seen is Handshake.to_dict(); certificate is x509.describe() of the served leaf, or None.
    """
    certificate: Optional[dict[str, Any]] = None
    findings: list[Finding] = []
    if not seen["completed"]:
        advice = ADVICE.get(seen["code"], "see the server's log")
        findings.append(Finding(seen["code"], f"{seen['message']}; {advice}"))
    if seen["chain_pem"]:
        der = ssl.PEM_cert_to_DER_cert(seen["chain_pem"][0])
        try:
            certificate = describe(der, now)
            findings += _judge_certificate(der, certificate, seen, expected, now)
        except CertificateError as error:
            findings.append(Finding("bad_certificate", f"the served certificate cannot be read: {error}"))
    if seen["tls_version"] in TLS_VERSIONS[: TLS_VERSIONS.index(expected.min_tls_version)]:
        findings.append(
            Finding("old_tls", f"{seen['tls_version']} was agreed; the server should offer {expected.min_tls_version}")
        )
    return {
        **seen,
        "certificate": certificate,
        "findings": [one.as_dict() for one in findings],
        "passed": not findings,
    }


def _judge_certificate(
    der: bytes, certificate: Mapping[str, Any], seen: Mapping[str, Any], expected: Expectation, now: Optional[datetime]
) -> Iterator[Finding]:
    subject = certificate["subject"]
    if expected.fingerprint and seen["fingerprint_sha256"] != expected.fingerprint:
        yield Finding(
            "wrong_certificate",
            f"the certificate served ({subject}, {seen['fingerprint_sha256'][:16]}...) is not the one that was installed "
            f"({expected.fingerprint[:16]}...); see which file the daemon reads, and reload it",
        )
    dates_are_wrong = certificate["days_left"] < 0 or _not_yet(certificate, now)
    if expected.require_trusted and seen["trusted"] is False and not dates_are_wrong:
        yield Finding(
            "untrusted",
            f"the chain of {subject} is not trusted: {seen['verify_error']}; serve the intermediates with it, or name its "
            "CA if it is a private one",
        )
    if not covers(der, seen["name"]):
        names = ", ".join(certificate["sans"]) or certificate["common_name"] or "no name"
        yield Finding("name_mismatch", f"the certificate is for {names}, not for {seen['name']}")
    if _not_yet(certificate, now):
        yield Finding("not_yet_valid", f"the certificate {subject} is valid from {certificate['not_before']} on only")
    elif certificate["days_left"] < 0:
        yield Finding("expired", f"the certificate {subject} expired on {certificate['not_after']}; install a new one")
    elif certificate["days_left"] < expected.min_days_left:
        yield Finding(
            "expiring",
            f"the certificate {subject} has {certificate['days_left']} days left, fewer than {expected.min_days_left}; "
            "renew it",
        )


def _not_yet(certificate: Mapping[str, Any], now: Optional[datetime]) -> bool:
    return datetime.fromisoformat(certificate["not_before"]) > (now or datetime.now(timezone.utc))


def render_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], width: int = 40) -> str:
    """A table in plain text: columns maps a row's key to its heading; long cells are cut to width."""
    cells = [list(columns.values())] + [[_cell(row.get(key), width) for key in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = ["  ".join(text.ljust(size) for text, size in zip(line, widths)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * size for size in widths))
    return "\n".join(lines)


def _cell(value: Any, width: int) -> str:
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, (list, tuple)):
        text = ", ".join(map(str, value))
    else:
        text = "" if value is None else str(value)
    text = one_line(text) or "-"
    return text if len(text) <= width else text[: width - 3] + "..."


def one_line(text: str) -> str:
    """The text with everything that could move a terminal's cursor taken out."""
    return "".join(char if char.isprintable() else "?" for char in text)
