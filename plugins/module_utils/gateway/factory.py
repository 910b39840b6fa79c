# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which adapter serves which kind of gateway: the one place to name a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils.gateway.exim import EximGateway
from ansible_collections.mailfleet.starttls.plugins.module_utils.gateway.postfix import PostfixGateway

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import Settings, Target
    from ansible_collections.mailfleet.starttls.plugins.module_utils.mode import Gateway
    from ansible_collections.mailfleet.starttls.plugins.module_utils.transaction import Runner

GATEWAYS = ("postfix", "exim")


def make_gateway(kind: str, run: Runner, settings: Settings, own_port: Target, reinjection_port: int) -> Gateway:
    """The adapter for one of GATEWAYS."""
    if kind == "exim":
        return EximGateway(run, settings, own_port)
    return PostfixGateway(run, settings, own_port, reinjection_port)
