# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that name the certificate to install, for every module that installs one."""

from __future__ import annotations

from typing import Any

SOURCES = ("files", "content", "pkcs12", "host", "command", "csr", "acme")
"""Where a certificate comes from."""
ISSUED = ("command", "csr", "acme")
"""Those whose key is made on the host, and stays there."""
KEY_TYPES = ("ecdsa", "rsa")

PAIR_SPEC: dict[str, dict[str, Any]] = {
    "private_key_file": {"type": "path", "no_log": False},
    "private_key_content": {"type": "str", "no_log": True},
    "certificate_file": {"type": "path"},
    "certificate_content": {"type": "str"},
    "chain_file": {"type": "path"},
    "chain_content": {"type": "str"},
    "pkcs12_file": {"type": "path"},
    "pkcs12_content": {"type": "str", "no_log": True},
    "pkcs12_password": {"type": "str", "no_log": True},
}
"""What names one key with its certificate and chain."""

ISSUE_SPEC: dict[str, dict[str, Any]] = {
    "key_type": {"type": "str", "choices": list(KEY_TYPES), "default": KEY_TYPES[0]},
    "command": {"type": "list", "elements": "str"},
    "command_timeout": {"type": "int", "default": 120},
    "csr_file": {"type": "path"},
    "renew_days": {"type": "str"},
    "acme_challenge": {"type": "str", "choices": ["", "webroot", "standalone", "rfc2136"], "default": ""},
    "acme_webroot": {"type": "path"},
    "acme_dns_credentials": {"type": "path"},
    "acme_email": {"type": "str"},
    "acme_server": {"type": "str"},
    "acme_ca_file": {"type": "path"},
    "acme_install": {"type": "bool", "default": False},
}
"""How a certificate is issued for a key that is made on the host."""

SOURCE_SPEC: dict[str, dict[str, Any]] = {
    **PAIR_SPEC,
    "more": {"type": "list", "elements": "dict", "options": PAIR_SPEC},
    **ISSUE_SPEC,
    "check_tlsa": {"type": "bool", "default": False},
    "resolver": {"type": "list", "elements": "str"},
    "ca_file": {"type": "path"},
    "ca_content": {"type": "str"},
    "names": {"type": "list", "elements": "str"},
    "min_days_left": {"type": "str"},
    "allow_self_signed": {"type": "bool", "default": False},
    "replace": {"type": "bool", "default": False},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
}
"""For users: files and contents on the controller."""

MORE_SPEC: dict[str, dict[str, Any]] = {
    "sha256": {"type": "str", "default": ""},
    "fingerprints": {"type": "list", "elements": "str", "default": []},
    "ends": {"type": "str", "default": ""},
    "keep": {"type": "str", "default": ""},
}

BUNDLE_SPEC: dict[str, dict[str, Any]] = {
    "sha256": {"type": "str", "default": ""},
    "fingerprints": {"type": "list", "elements": "str", "default": []},
    "ends": {"type": "str", "default": ""},
    "replace": {"type": "bool", "default": False},
    "keep": {"type": "str", "default": ""},
    "private_key": {"type": "path", "default": ""},
    "more": {"type": "list", "elements": "dict", "options": MORE_SPEC, "default": []},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
}
"""For the host: what the action plugin made of them, but for the content."""
