# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only list of the supported products. One file for each facet (server, gateway, log) loads their rooms.

A new product needs an entry here, and one in the file of each of its facets. docs/kinds.md is generated from both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.layout import EXIM_LAYOUTS
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import POSTFIX_LAYOUTS
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

OS_RELEASE = "/etc/os-release"
_OS_RELEASE = re.compile(r"""(?m)^(ID|ID_LIKE)=["']?([^"'\n]*)""")
_VARIABLE = "in an inventory the variable is starttls_kind"
AUTO = "auto"
"""The kind is detected on the host."""

DEFAULT_GATEWAY = "postfix"
"""The kind of a gateway for which the inventory names none."""

_ACCEPT, _ENFORCED, _OUTBOUND = "accept", "enforced", "outbound"
"""Capabilities of a gateway. accept: the collection can set STARTTLS for senders. enforced: it can enforce domains.
outbound: it can set the outbound side. The supported delivery modes are in the adapter (Gateway.modes)."""


@dataclass(frozen=True)
class Product:
    """One product.

    title: the name in messages and tables. facets: some of server, gateway, log. layouts: one for each platform; none if the
    product has an API. capabilities: those of the gateway facet. api_options: the options that say how its API is reached.
    connections: the Ansible connections that only hosts of this product use, by which C(auto) finds it. floor_by_hand: where a
    floor for TLS versions is set by hand; empty if the collection sets it.
    """

    title: str
    facets: tuple[str, ...]
    layouts: tuple[Layout, ...] = ()
    capabilities: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    api_options: tuple[str, ...] = ()
    floor_by_hand: str = ""


PRODUCTS: dict[str, Product] = {
    "postfix": Product(
        "Postfix",
        facets=("server", "gateway", "log"),
        layouts=POSTFIX_LAYOUTS,
        capabilities=(_ACCEPT, _ENFORCED, _OUTBOUND),
    ),
    "exim": Product(
        "Exim",
        facets=("server", "gateway", "log"),
        layouts=EXIM_LAYOUTS,
        capabilities=(_ACCEPT, _ENFORCED, _OUTBOUND),
    ),
    "haraka": Product("Haraka", facets=("gateway",), floor_by_hand="in config/tls.ini (minVersion)"),
    "proxmox": Product(
        "Proxmox Mail Gateway",
        facets=("gateway", "log"),
        api_options=("api_url", "api_user", "api_password"),
        floor_by_hand="in a template of your own, /etc/pmg/templates/main.cf.in (the lists of protocols of smtpd and smtp)",
    ),
    "mailcow": Product(
        "mailcow",
        facets=("gateway",),
        api_options=("api_url", "api_key"),
        floor_by_hand="in data/conf/postfix/extra.cf (the lists of protocols of smtpd and smtp)",
    ),
    "exchange": Product(
        "Exchange Server",
        facets=("server",),
        connections=("psrp", "winrm"),
        floor_by_hand="in Windows, which decides TLS versions (the registry, SecurityProviders\\SCHANNEL\\Protocols)",
    ),
}
"""Kind -> product."""


def product_of(kind: str, facet: str, option: str) -> Product:
    """Return the product of a kind. Raises EngineError, which names the option and the possible kinds, without the facet."""
    product = PRODUCTS.get(kind)
    if product is None:
        raise EngineError(
            f"{option} {kind!r} is not a known kind; choose one of: {', '.join(kinds_with(facet))} ({_VARIABLE})"
        )
    if facet not in product.facets:
        raise EngineError(
            _WITHOUT[facet].format(option=option, title=product.title, kinds=", ".join(kinds_with(facet)))
        )
    return product


def known_product(kind: str, choices: Collection[str], option: str) -> Product:
    """Return the product of a kind. Raises EngineError, which lists the choices, for an unknown one."""
    if kind not in PRODUCTS:
        raise EngineError(f"{option} {kind!r} is not a known kind; choose one of: {', '.join(choices)} ({_VARIABLE})")
    return PRODUCTS[kind]


_WITHOUT = {
    "server": (
        "{title} has its own way to accept TLS: install its certificate and switch TLS on there. If it is a gateway, set the "
        f"delivery modes with the playbook set_delivery_mode afterwards. {{option}} can be: {{kinds}} ({_VARIABLE})"
    ),
    "gateway": f"{{title}} is not supported as a gateway; {{option}} can be: {{kinds}} ({_VARIABLE})",
    "log": f"the log of {{title}} cannot be read yet; {{option}} can be: {{kinds}} ({_VARIABLE})",
}


def floor_not_held(kind: str, floor: Optional[str]) -> list[dict[str, str]]:
    """Return a note, code and message, if a floor for TLS versions is wanted of a kind for which the collection cannot set it."""
    product = PRODUCTS[kind]
    if not product.floor_by_hand or floor in (None, "", "none"):
        return []
    said = (
        f"starttls_min_tls is {floor}, and the collection sets no TLS versions on {product.title}, so it is not set here; set it "
        f"{product.floor_by_hand}, and take starttls_min_tls away for this host"
    )
    return [{"code": "tls_floor_by_hand", "message": said}]


def kinds_with(facet: str) -> list[str]:
    """Return the kinds that have a facet."""
    return [kind for kind, product in PRODUCTS.items() if facet in product.facets]


def resolve(kind: str, facet: str, option: str) -> str:
    """Return the kind of this host: the given one, or for C(auto) the detected one.

    Raises EngineError if no kind or more than one is detected, or if the kind does not have the facet.
    """
    if kind != AUTO:
        product_of(kind, facet, option)
        return kind
    return _only(detected(facet), facet, option)


def detected(facet: str) -> list[str]:
    """Return the kinds with this facet that are on this host."""
    return [kind for kind in kinds_with(facet) if layout_here(PRODUCTS[kind].layouts)]


def _only(found: list[str], facet: str, option: str) -> str:
    """Return the one kind that was detected. Raises EngineError if there is none or more than one."""
    if len(found) == 1:
        return found[0]
    titles = " and ".join(PRODUCTS[one].title for one in found)
    what = f"{titles} are both on this host" if found else "no known mail server is on this host"
    raise EngineError(f"{what}; set {option} to one of: {', '.join(found or kinds_with(facet))} ({_VARIABLE})")


def kind_by_connection(kind: str, connection: str) -> str:
    """Return the given kind of a host; for C(auto) that of its connection plugin, or C(auto) if it has to be detected on the host.

    connection: the name of the plugin, with or without that of its collection. Raises EngineError for an unknown kind.
    """
    if kind != AUTO:
        product_of(kind, "server", "kind")
        return kind
    name = connection.rpartition(".")[2]
    return next((one for one, product in PRODUCTS.items() if name in product.connections), AUTO)


def layout_for(kind: str, option: str) -> Optional[Layout]:
    """Return the layout of the mail server on this host; None if the kind has no layout, or C(auto) detects no mail server.

    Raises EngineError for an unknown kind, and if C(auto) detects two.
    """
    if kind == AUTO:
        found = detected("server")
        if not found:
            return None
        kind = _only(found, "server", option)
    return layout_of(kind) if known_product(kind, PRODUCTS, option).layouts else None


def permissions(options: Mapping[str, Any]) -> tuple[str, Any]:
    """Return group and mode of a certificate file: the given ones, else those of this host's mail server, else root and 0600.

    options: those of tls_certificate. Raises EngineError if the kind is unknown, or if C(auto) detects two mail servers.
    """
    group, mode = options["group"], options["mode"]
    asks = options["state"] == "present" and (group is None or mode is None)
    layout = layout_for(options["kind"], "kind") if asks and options["kind"] else None
    needed = (layout.certificate_group, layout.certificate_mode) if layout else ("root", 0o600)
    return needed[0] if group is None else group, needed[1] if mode is None else mode


def layout_of(kind: str) -> Layout:
    """Where a product that lies on hosts keeps its things on this one; its first layout if it is not there."""
    layouts = PRODUCTS[kind].layouts
    return layout_here(layouts) or layouts[0]


def layout_here(layouts: Collection[Layout], os_release: str = OS_RELEASE) -> Optional[Layout]:
    """Return the layout whose program and configuration both exist on this host, or None.

    The configuration alone is not enough: a removed package leaves it on the host. A layout with a sign counts where the sign exists,
    and precedes those without a sign. Platforms may use the same paths: then what os-release says of the system decides, and else the
    order.
    """
    there = [
        one
        for one in layouts
        if Path(one.config_file).exists()
        and any(Path(program).exists() for program in one.programs)
        and (not one.sign or Path(one.sign).exists())
    ]
    if signed := [one for one in there if one.sign]:
        return signed[0]
    families = _families(os_release) if len(there) > 1 else ()
    # ID comes before the words of ID_LIKE, the closest of which is the first.
    ranked = [(families.index(word), one) for one in there for word in one.families if word in families]
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else next(iter(there), None)


def _families(path: str) -> list[str]:
    """Return what os-release calls the system, and then what it is like; none without the file. Source: os-release(5)."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = dict(_OS_RELEASE.findall(text))
    words = [word for name in ("ID", "ID_LIKE") for word in found.get(name, "").lower().split()]
    return [part for word in words for part in dict.fromkeys((word, word.partition("-")[0]))]
