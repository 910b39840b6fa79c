# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that name the certificate to install, for every module that installs one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SOURCES = ("files", "content", "pkcs12", "host", "command", "csr", "acme")
"""Where a certificate comes from."""
ISSUED = ("command", "csr", "acme")
"""Those whose key is made on the host, and stays there."""
ON_HOST = ("host", "acme")
"""Those whose certificates are renewed on the host, without the controller."""
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

OF_PORTS_SPEC: dict[str, dict[str, Any]] = {
    "ports": {"type": "list", "elements": "int"},
    "names": {"type": "list", "elements": "str"},
}
"""For a certificate that the listeners on some ports serve in the place of the host's own."""

HOST_PAIR_SPEC: dict[str, dict[str, Any]] = {
    "certificate_path": {"type": "path", "required": True},
    "private_key_path": {"type": "path", "no_log": False},
    **OF_PORTS_SPEC,
}
"""What names one certificate that is on the host."""

ISSUE_SPEC: dict[str, dict[str, Any]] = {
    "key_types": {"type": "list", "elements": "str", "choices": list(KEY_TYPES)},
    "command": {"type": "raw"},
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
    "more": {"type": "list", "elements": "dict", "options": {**PAIR_SPEC, **OF_PORTS_SPEC}},
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

HOST_ISSUE_SPEC: dict[str, dict[str, Any]] = {
    "source": {"type": "str", "choices": list(ISSUED), "required": True},
    "names": {"type": "list", "elements": "str", "required": True},
    "key_types": {"type": "list", "elements": "str", "choices": list(KEY_TYPES), "required": True},
    "force": {"type": "bool", "default": False},
    "requests": {"type": "bool", "default": False},
    **{name: ISSUE_SPEC[name] for name in ISSUE_SPEC if name.startswith("acme_") or name == "renew_days"},
}
"""What is to be issued, for the host."""

_ONE_SPEC: dict[str, dict[str, Any]] = {
    "sha256": {"type": "str", "default": ""},
    "fingerprints": {"type": "list", "elements": "str", "default": []},
    "ends": {"type": "str", "default": ""},
    "keep": {"type": "str", "default": ""},
    "replaces": {"type": "str", "default": ""},
    "private_key": {"type": "path", "default": ""},
    "issued_by": {"type": "str", "default": ""},
}

BUNDLE_SPEC: dict[str, dict[str, Any]] = {
    **_ONE_SPEC,
    "more": {
        "type": "list",
        "elements": "dict",
        "options": {**_ONE_SPEC, "ports": {"type": "list", "elements": "int", "default": []}},
        "default": [],
    },
    "issue": {
        "type": "dict",
        "options": HOST_ISSUE_SPEC,
    },
    "replace": {"type": "bool", "default": False},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
}
"""For the host: what the action plugin made of them, but for the content."""

NEXT = "# next\n"
"""Stands between the contents of two certificate files."""

MOST_CERTIFICATES = 3
"""The most certificates that one mail server serves: of different kinds of keys side by side, or on ports of their own."""


def numbered(path: str, place: int) -> str:
    """Return the path of a further certificate beside the first one: C(starttls-2.pem) beside C(starttls.pem)."""
    if not place:
        return path
    there = Path(path)
    return str(there.with_name(f"{there.stem}-{place + 1}{there.suffix}"))


def installed_at(path: str) -> list[str]:
    """Return the paths at which certificates are installed beside this one, and its own."""
    return [numbered(path, place) for place in range(MOST_CERTIFICATES)]


def waiting_keys(path: str, store: str) -> list[str]:
    """Return the keys that were made on this host, and wait for the certificates at these paths."""
    return [key for one in installed_at(path) if os.path.lexists(key := pending_key(one, store))]


def pending_key(path: str, store: str) -> str:
    """Return the path of the key that waits for the certificate which is to be at a path."""
    return f"{store}/pending{path.replace('/', '+')}.key"
