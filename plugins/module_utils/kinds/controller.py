# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mail servers whose decisions run on the controller, one entry for each product. The host runs single steps only.

A function gives the entry points of its product's room when it is called. No module on a host imports this file.
"""

# ruff: noqa: PLC0415  (a product is loaded when it is used)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, kind_by_connection


@dataclass(frozen=True)
class Room:
    """The entry points of a product's room, as modules. See their documentation."""

    engine: ModuleType
    model: ModuleType
    observed: ModuleType
    peers: ModuleType
    wanted: ModuleType


def _exchange() -> Room:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange import (
        engine,
        model,
        observed,
        peers,
        wanted,
    )

    return Room(engine, model, observed, peers, wanted)


CONTROLLERS: dict[str, Callable[[], Room]] = {"exchange": _exchange}
"""Kind -> the function that loads its room."""


def controlled_kind(kind: str, connection: str) -> str:
    """Return the kind of a host whose decisions run on the controller; empty if they run on the host.

    kind: the given one, of a mail server or a gateway, or C(auto). connection: the name of the connection plugin.
    """
    found = kind_by_connection(AUTO, connection) if kind in ("", AUTO) else kind
    return found if found in CONTROLLERS else ""
