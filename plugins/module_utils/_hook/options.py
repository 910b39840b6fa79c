# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the module renewal_hook, and the configuration that they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.policy import (
    ERROR_SHARE,
    MINIMUM_BITS,
    RENEWAL_SHARE,
    fixed_days,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import RENEWAL_FORMAT, RenewalPlan
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_TEXT: dict[str, Any] = {"type": "str"}

CERTIFICATES_SPEC: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "pairs": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "private_key": {"type": "path", "required": True, "no_log": False},
            "certificate": {"type": "path", "required": True},
            "chain": {"type": "path"},
            "path": {"type": "path"},
        },
    },
    "names": {"type": "list", "elements": "str", "required": True},
    "listeners": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "host": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 25},
            "name": _TEXT,
            "protocol": {"type": "str", "choices": ["smtp", "smtps"], "default": "smtp"},
        },
    },
    "owner": {"type": "str", "default": "root"},
    "group": _TEXT,
    "mode": {"type": "raw"},
    "ca_content": _TEXT,
    "policy": {
        "type": "dict",
        "apply_defaults": True,
        "options": {
            "allow_self_signed": {"type": "bool", "default": False},
            "min_days_left": _TEXT,
            "install_min_days_left": _TEXT,
            "warn_days_left": _TEXT,
            "error_share": {"type": "int", "default": ERROR_SHARE},
            "renewal_share": {"type": "int", "default": RENEWAL_SHARE},
            "minimum_bits": {
                "type": "dict",
                "apply_defaults": True,
                "options": {name: {"type": "int", "default": bits} for name, bits in MINIMUM_BITS.items()},
            },
        },
    },
    "tlsa": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "usage": {"type": "int", "required": True},
            "selector": {"type": "int", "required": True},
            "matching_type": {"type": "int", "required": True},
            "data": {"type": "str", "required": True},
        },
    },
}
"""One certificate, in the words of docs/schema/renewal.schema.json; ca_content is its C(roots)."""

HOOK_SPEC: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "kind": {"type": "str", "default": "auto"},
    "certificates": {"type": "list", "elements": "dict", "default": [], "options": CERTIFICATES_SPEC},
    "timeout": {"type": "int", "default": 20},
    "textfile": {"type": "str", "default": "auto"},
    "certbot": {"type": "str", "choices": ["auto", "hook", "none"], "default": "auto"},
    "timer": {"type": "bool", "default": True},
    "acme_ca_file": {"type": "path"},
}


def configuration_of(
    options: Mapping[str, Any], kind: str, layout: Layout, textfile: str, present: Optional[RenewalPlan] = None
) -> RenewalPlan:
    """Return the configuration. kind: the product of this host; layout: its places. Raises EngineError, which names the option.

    present: the one that is there. A certificate keeps its TLSA records where the options do not say which are published.
    """
    if not options["certificates"]:
        raise EngineError("certificates is empty; name what is to be renewed on this host")
    data: dict[str, Any] = {
        "format": RENEWAL_FORMAT,
        "kind": kind,
        "timeout": options["timeout"],
        "textfile": textfile,
        "certificates": [_entry(one, layout) for one in options["certificates"]],
    }
    kept = {one.name: [asdict(record) for record in one.tlsa] for one in present.certificates} if present else {}
    for one in data["certificates"]:
        if one.get("tlsa") is None:
            one["tlsa"] = kept.get(one["name"], [])
    return RenewalPlan.from_json(data, "renewal_hook", "correct that option")


def _entry(given: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    policy = dict(given["policy"] or {})
    for name in ("min_days_left", "install_min_days_left", "warn_days_left"):
        policy[name] = fixed_days(policy.get(name), f"certificates.policy.{name}")
    policy["minimum_bits"] = dict(policy.get("minimum_bits") or MINIMUM_BITS)
    mode = given["mode"]
    mode = layout.certificate_mode if mode in (None, "") else mode
    return {
        **{name: value for name, value in given.items() if name != "ca_content"},
        "policy": {name: value for name, value in policy.items() if value is not None},
        "pairs": [_without_none(one) for one in given["pairs"]],
        "listeners": [_without_none(one) for one in given["listeners"]],
        "group": given["group"] or layout.certificate_group,
        "mode": f"{mode:04o}" if isinstance(mode, int) else str(mode),
        "roots": given["ca_content"] or "",
    }


def _without_none(given: Mapping[str, Optional[Any]]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
