# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What product is there on a host, and where it keeps its things."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import product

_INTERNAL = ("families", "pid_file", "writer", "writer_off")
"""What a layout needs to be found, and to find a daemon that tells nothing."""


def describe(kind: str) -> dict[str, Any]:
    """Return the kind, title and layout of the product of this host, as far as they are known.

    C(auto) gives an empty kind and a message if it finds no product, or more than one. Raises EngineError for an unknown kind.
    """
    if kind == product.AUTO:
        try:
            kind = product.resolve(kind, "server", "kind")
        except EngineError as error:
            return {"kind": "", "message": str(error)}
    known = product.known_product(kind, product.PRODUCTS, "kind")
    here = product.layout_here(known.layouts)
    shown = {name: value for name, value in asdict(here).items() if name not in _INTERNAL} if here else {}
    return {"kind": kind, "title": known.title, **({"layout": shown} if shown else {})}
