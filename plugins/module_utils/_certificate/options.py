# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that name the certificate to install, for every module that installs one."""

from __future__ import annotations

from typing import Any

SOURCE_SPEC: dict[str, dict[str, Any]] = {
    "private_key_file": {"type": "path", "no_log": False},
    "private_key_content": {"type": "str", "no_log": True},
    "certificate_file": {"type": "path"},
    "certificate_content": {"type": "str"},
    "chain_file": {"type": "path"},
    "chain_content": {"type": "str"},
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

BUNDLE_SPEC: dict[str, dict[str, Any]] = {
    "sha256": {"type": "str", "default": ""},
    "fingerprints": {"type": "list", "elements": "str", "default": []},
    "ends": {"type": "str", "default": ""},
    "replace": {"type": "bool", "default": False},
    "keep": {"type": "str", "default": ""},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
}
"""For the host: what the action plugin made of them, but for the content."""
