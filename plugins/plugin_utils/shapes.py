# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of what hosts return. A result that cannot be read is an error of that host only, never of all hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import shown
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What code raises that is given a result of another shape."""


@contextlib.contextmanager
def understood(what: str) -> Iterator[None]:
    """Turn the exceptions of a result of another shape into EngineError. what: names the result."""
    try:
        yield
    except MALFORMED as error:
        said = shown(str(error), 200)  # it may hold the host's own words
        raise EngineError(
            f"{what} cannot be understood ({type(error).__name__}: {said}); see whether the host is what it seems, "
            "and whether another version of this collection runs there"
        ) from error


def readable(result: Any) -> Mapping[str, Any]:
    """Return a registered result whose tests, messages and counts have the right shape; else one that says that it failed."""
    if not result:
        return {}
    fault = _fault(result)
    return {"failed": True, "msg": f"its result cannot be understood: {fault}"} if fault else result


def _fault(result: Any) -> str:
    if not isinstance(result, Mapping):
        return "it is no mapping"
    if result.get("failed") or result.get("unreachable") or result.get("skipped"):
        return ""
    probe, activity = result.get("probe") or {}, result.get("activity") or {}
    if not isinstance(probe, Mapping) or not isinstance(activity, Mapping):
        return "probe or activity is no mapping"
    for name, of in (("results", result), ("results", probe)):
        if not all(_is_test(one) for one in _listed(of.get(name))):
            return f"one of its {name} is not that of a handshake test"
    if not all(_is_trace(one) for one in _listed(result.get("received"))):
        return "one of received is not the way of a message"
    return ""


def _listed(value: Any) -> Any:
    """Return a list as it is, nothing for none, and otherwise a list that no check passes."""
    return value if isinstance(value, (list, tuple)) else [] if value is None else [None]


def _is_test(one: Any) -> bool:
    return (
        isinstance(one, Mapping)
        and all(isinstance(one.get(name) or "", str) for name in ("host", "fingerprint_sha256", "seen_from"))
        and isinstance(one.get("name"), str)
        and isinstance(one.get("port"), int)
        and all(isinstance(finding, Mapping) for finding in _listed(one.get("findings")))
    )


def _is_trace(one: Any) -> bool:
    return (
        isinstance(one, Mapping)
        and isinstance(one.get("marker"), str)
        and "arrived" in one
        and isinstance(one.get("hops"), (list, tuple))
        and all(
            isinstance(hop, Mapping) and {"network", "tls", "by", "protocol"} <= set(hop) for hop in one.get("hops", ())
        )
    )
