# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a gateway's daemon still does what the collection noted: somebody may have edited its configuration since.

An answer is true, false (what it takes is gone), or None (it cannot be told).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState

Answers = Mapping[str, Mapping[str, Optional[bool]]]


def in_force(gateway: Gateway, held: GatewayState) -> dict[str, dict[str, Optional[bool]]]:
    """Return the answers for what the record holds: C(inbound) and C(outbound) by domain, C(accept) and C(send) by their value."""
    noted: dict[str, list[str]] = {}
    for one in held.enforced:
        noted.setdefault(one.direction, []).append(one.domain)
    for option in ("accept", "send"):
        if value := getattr(held.outbound, option, None):
            noted[option] = [value]
    found: Answers = {}
    if noted:
        with contextlib.suppress(EngineError, OSError):
            found = gateway.in_force(held)
    return {what: {one: found.get(what, {}).get(one) for one in values} for what, values in noted.items()}


def every(*answers: Optional[bool]) -> Optional[bool]:
    """Return false if one of them is, else None if one of them is, else true."""
    return False if False in answers else None if None in answers else True


def as_written(content: Optional[bytes], wanted: str, lines: Iterable[str]) -> Optional[bool]:
    """Return whether a file has these lines: true if it is as the collection writes it, None if there is other text as well."""
    text = (content or b"").decode("utf-8", "replace")
    if text == wanted:
        return True
    held = text.splitlines()
    return None if all(one.rstrip("\n") in held for one in lines) else False
