# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rows of the table are made of: results of handshake tests, of a test message, and findings."""

from __future__ import annotations

CERTIFICATE = {"subject": "CN=mx.example.com", "days_left": 90}
PROBE = {
    "starttls_advertised": True, "stage": "ehlo_tls", "tls_version": "TLSv1.3", "trusted": True,
    "certificate": CERTIFICATE, "findings": [], "passed": True, "message": "",
}  # fmt: skip
PLAIN = {
    "starttls_advertised": False, "stage": "ehlo", "tls_version": "", "trusted": None, "certificate": None,
    "findings": [{"code": "starttls_not_offered", "message": "the server does not offer STARTTLS; switch it on"}],
    "passed": False, "message": "the server does not offer STARTTLS",
}  # fmt: skip
TRACE = {
    "arrived": True, "direction": "in", "findings": [],
    "hops": [{"network": True, "tls": True}, {"network": False, "tls": False}, {"network": True, "tls": False}],
}  # fmt: skip

WARNING = {"code": "old_tls_offered", "severity": "warning", "message": "switch old TLS off"}
NOTICE = {"code": "no_tls13", "severity": "notice", "message": "there is no TLS 1.3"}
