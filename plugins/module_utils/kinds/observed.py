# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there on a host: its product, and its listeners and transports as the product's adapter reads them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import product
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.server import SERVERS

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner


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
    return {"kind": kind, "title": known.title, **({"layout": asdict(here)} if here else {})}


def read_host(kind: str, run: Runner) -> dict[str, Any]:
    """Return the kind and layout of this host's product (describe), and its listeners and transports.

    Both are None if they could not be read, and C(message) says why. Raises EngineError for an unknown kind.
    """
    found = describe(kind or product.AUTO)
    if not found["kind"]:
        return found
    unread = {**found, "listeners": None, "transports": None}
    title = found["title"]
    if "layout" not in found:
        return {**unread, "message": f"{title} is not on this host"}
    if found["kind"] not in SERVERS:
        return {**unread, "message": f"listeners and transports of {title} cannot be read yet"}
    try:
        return {**found, **SERVERS[found["kind"]](run, Desired(), Settings()).observe()}
    except EngineError as error:
        return {**unread, "message": str(error)}
