# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The products that the collection knows: the only list of them. A file a facet (server, gateway, log) loads their rooms.

Adding a product: an entry here, and one in the file of each facet that it has. docs/kinds.md is generated from both.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.layout import DEBIAN as EXIM_DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN as POSTFIX_DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

AUTO = "auto"
"""The kind that says: find out on the host."""

_ACCEPT, _ENFORCED, _OUTBOUND = "accept", "enforced", "outbound"
"""Capabilities of a gateway: STARTTLS towards senders is set by the collection, domains can be enforced, the outbound side can
be set. The delivery modes that it can express are the adapter's own (Gateway.modes)."""


@dataclass(frozen=True)
class Product:
    """One product.

    title: its name in messages and tables. facets: what it can be (server, gateway, log). layouts: where it keeps its things,
    a value for each platform; none if it is reached by an API. capabilities: of its gateway facet. connections: the Ansible
    connections that only hosts of this product have; its decisions then run on the controller, else on the host.
    """

    title: str
    facets: tuple[str, ...]
    layouts: tuple[Layout, ...] = ()
    capabilities: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()


PRODUCTS: dict[str, Product] = {
    "postfix": Product(
        "Postfix",
        facets=("server", "gateway", "log"),
        layouts=(POSTFIX_DEBIAN,),
        capabilities=(_ACCEPT, _ENFORCED, _OUTBOUND),
    ),
    "exim": Product(
        "Exim",
        facets=("server", "gateway", "log"),
        layouts=(EXIM_DEBIAN,),
        capabilities=(_ACCEPT, _ENFORCED, _OUTBOUND),
    ),
    "haraka": Product("Haraka", facets=("gateway",)),
    "proxmox": Product("Proxmox Mail Gateway", facets=("gateway",)),
    "mailcow": Product("mailcow", facets=("gateway",)),
}
"""Kind -> product."""


def product_of(kind: str, facet: str, option: str) -> Product:
    """The product of a kind that has a facet. Raises EngineError naming the option, and the kinds that there are."""
    product = PRODUCTS.get(kind)
    if product is None:
        raise EngineError(
            f"{option} {kind!r} is not a kind that is known; choose one of: {', '.join(kinds_with(facet))}"
        )
    if facet not in product.facets:
        raise EngineError(
            _WITHOUT[facet].format(option=option, title=product.title, kinds=", ".join(kinds_with(facet)))
        )
    return product


_WITHOUT = {
    "server": (
        "{title} has its own way to accept TLS: install its certificate and switch TLS on there. If it is a gateway, set the "
        "delivery modes with the playbook set_delivery_mode afterwards. {option} can be: {kinds}"
    ),
    "gateway": "{title} is not supported as a gateway; {option} can be: {kinds}",
    "log": "the log of {title} cannot be read yet; {option} can be: {kinds}",
}


def kinds_with(facet: str) -> list[str]:
    """The kinds that have a facet."""
    return [kind for kind, product in PRODUCTS.items() if facet in product.facets]


def resolve(kind: str, facet: str, option: str) -> str:
    """The kind of this host: the one that was named, or for C(auto) the one that is found.

    Raises EngineError if there is none, or more than one, or the kind does not have the facet.
    """
    if kind != AUTO:
        product_of(kind, facet, option)
        return kind
    found = [one for one in kinds_with(facet) if layout_here(PRODUCTS[one].layouts)]
    if len(found) == 1:
        return found[0]
    titles = " and ".join(PRODUCTS[one].title for one in found)
    what = f"{titles} are both on this host" if found else "no mail server that is known is on this host"
    raise EngineError(f"{what}; set {option} to one of: {', '.join(found or kinds_with(facet))}")


def kind_by_connection(kind: str, connection: str) -> str:
    """The kind of a host that Ansible reaches by this connection plugin; C(auto) if only the host can tell.

    Raises EngineError if the kind cannot be reached by it.
    """
    if kind != AUTO:
        product = product_of(kind, "server", "kind")
        if product.connections and connection not in product.connections:
            raise EngineError(
                f"{product.title} is reached by one of {', '.join(product.connections)}, and the connection of this host is "
                f"{connection}; set ansible_connection, or correct kind"
            )
        return kind
    return next((one for one, product in PRODUCTS.items() if connection in product.connections), AUTO)


def layout_for(kind: str, option: str) -> Optional[Layout]:
    """Where the mail server of this host keeps its things; None if it has no place on a host, or C(auto) finds none.

    Raises EngineError for an unknown kind, and for C(auto) where there are two.
    """
    if kind == AUTO:
        if not any(layout_here(PRODUCTS[one].layouts) for one in kinds_with("server")):
            return None
        kind = resolve(kind, "server", option)
    if kind not in PRODUCTS:
        raise EngineError(f"{option} {kind!r} is not a kind that is known; choose one of: {', '.join(PRODUCTS)}")
    return layout_of(kind) if PRODUCTS[kind].layouts else None


def layout_of(kind: str) -> Layout:
    """Where a product that lies on hosts keeps its things on this one; its first layout if it is not there."""
    layouts = PRODUCTS[kind].layouts
    return layout_here(layouts) or layouts[0]


def layout_here(layouts: Collection[Layout]) -> Optional[Layout]:
    """The first layout whose program and configuration are both on this host. A removed package leaves its configuration."""
    for layout in layouts:
        if Path(layout.config_file).exists() and any(Path(program).exists() for program in layout.programs):
            return layout
    return None
