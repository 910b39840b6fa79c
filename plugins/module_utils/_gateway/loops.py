# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a route leads back to the gateway itself: its daemon would bounce that mail (Postfix) or freeze it (Exim)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import EmailConfig


def loops(gateway: Gateway, configs: Iterable[EmailConfig], tests: Iterable[Handshake]) -> Iterator[str]:
    """Yield the email configs whose mail would come back to this gateway.

    tests: handshakes with their servers. One that did not answer is not looked up, because its name may not resolve.
    """
    if gateway.own_port is None:  # behind an API: it runs on another host
        return
    answering = {one.target for one in tests if one.stage >= Stage.EHLO and one.target.port == gateway.own_port.port}
    for config in configs:
        for server in config.servers:
            if server in answering and leads_here(server):
                yield (
                    f"email config {config.name}: {server} in its servers is this gateway itself, so its mail would loop back and "
                    f"bounce; leave delivery_mode of {config.name} away in email_configs and name this gateway in its servers, then "
                    "it delivers that mail as before; or take it out of its servers"
                )


def leads_here(server: Target) -> bool:
    """Return whether a name or address is one of this host. To an own address, the kernel sends from that address."""
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_is_own(family, address) for family, _kind, _protocol, _name, address in found)


def _is_own(family: int, address: Any) -> bool:
    if ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        return True
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(address)  # sends nothing
        except OSError:
            return False
        return bool(sock.getsockname()[0] == address[0])
