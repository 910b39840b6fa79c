# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of listeners and transports: one entry a product, loaded when it is used."""

# ruff: noqa: PLC0415  (a product is loaded when it is used)

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import product

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner


def _postfix(run: Runner) -> Mapping[str, Any]:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.observe import observe

    return observe(Postconf(run, product.layout_of("postfix").config_dir))


def _exim(run: Runner) -> Mapping[str, Any]:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.observe import observe
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import (
        PID_FILE,
        SMARTHOST_TRANSPORT,
        Exim,
    )

    exim = Exim(run, lambda *_nothing_is_tried: None)
    try:
        hops, requires = exim.next_hops(), exim.state()["inbound"] == "required"
    except OSError as error:
        raise EngineError(f"{error.filename}: {error.strerror}") from error
    next_hops = {SMARTHOST_TRANSPORT: [(hop.host, hop.port) for hop in hops]}
    return observe(run, PID_FILE, next_hops, requires)


OBSERVERS: dict[str, Callable[[Runner], Mapping[str, Any]]] = {"postfix": _postfix, "exim": _exim}
"""Kind -> the function that reads C(listeners) and C(transports). A kind without an entry cannot tell them yet."""


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
    if found["kind"] not in OBSERVERS:
        return {**unread, "message": f"listeners and transports of {title} cannot be read yet"}
    try:
        return {**found, **OBSERVERS[found["kind"]](run)}
    except EngineError as error:
        return {**unread, "message": str(error)}
