# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateways, one entry for each product. A function loads its product when it is called.

Ansible's packer follows the imports in these functions and ships the products to the host.
"""

# ruff: noqa: PLC0415  (a product is loaded when it is used)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import layout_of

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Http
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway
    from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings


@dataclass(frozen=True)
class Access:
    """The access to a gateway. run, own_port, reinjection_port and config_dir: for a gateway on this host. http and api_*: for an API."""

    run: Runner
    http: Http
    own_port: Target = field(default_factory=lambda: Target("127.0.0.1"))
    reinjection_port: int = 10125
    config_dir: str = ""
    api_url: str = ""
    api_user: str = ""
    api_password: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    exim_split: bool = False
    tls_filter: str = ""


def _postfix(access: Access, settings: Settings) -> Gateway:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.gateway import PostfixGateway

    own_port, first = access.own_port, access.reinjection_port
    return PostfixGateway(access.run, settings, own_port, first, layout_of("postfix"), access.tls_filter)


def _exim(access: Access, settings: Settings) -> Gateway:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.gateway import EximGateway

    return EximGateway(access.run, settings, access.own_port, access.exim_split)


def _haraka(access: Access, settings: Settings) -> Gateway:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka.gateway import HarakaGateway

    return HarakaGateway(access.run, settings, access.own_port, access.config_dir)


def _proxmox(access: Access, settings: Settings) -> Gateway:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._proxmox.gateway import ProxmoxGateway

    return ProxmoxGateway(access.http, settings, access.api_url, access.api_user, access.api_password)


def _mailcow(access: Access, settings: Settings) -> Gateway:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._mailcow.gateway import MailcowGateway

    return MailcowGateway(access.http, settings, access.api_url, access.api_key)


GATEWAYS: dict[str, Callable[[Access, Settings], Gateway]] = {
    "postfix": _postfix,
    "exim": _exim,
    "haraka": _haraka,
    "proxmox": _proxmox,
    "mailcow": _mailcow,
}
"""Kind -> the function that makes the adapter. It raises EngineError if the access is incomplete."""
