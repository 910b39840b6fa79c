# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole wanted state of a gateway as plain options, and the parts of a change that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import (
    Gateway,
    GatewayOutcome,
    HoldsOwnFloor,
    Part,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.enforced import Enforced
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import Modes, summary
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.outbound import Outbound
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.own_floor import OwnFloor

OUTBOUND_OPTIONS = ("accept", "send", "mail_servers")


def parts_of(gateway: Gateway, options: Mapping[str, Any]) -> list[Part]:
    """Return the parts that the options ask for, in the safe order. What is not given is no part and stays.

    options: email_configs, state, accept, send, mail_servers, enforced_domains, enforced_ca_file, min_tls; each may be missing.
    min_tls is that of the gateway's own transports, so it is a part beside another one only.
    state plaintext: no inbound domain is enforced any more, the given email configs get the default mode, the given enforced
    domains are removed. accept and send are set as given. An email config with a state absent of its own is removed.
    """
    plaintext = options.get("state") == "plaintext"
    configs = options.get("email_configs") or ()
    domains = options.get("enforced_domains") or ()
    ca_file = options.get("enforced_ca_file")
    parts: list[Part] = []
    if plaintext and (domains or "enforced" not in gateway.limits):
        parts.append(Enforced(domains, absent=True, all_inbound=True))
    if configs:
        parts.append(Modes(configs, plaintext))
    outbound = {name: options.get(name) for name in OUTBOUND_OPTIONS}
    if any(value not in (None, [], "") for value in outbound.values()):
        parts.append(Outbound(outbound, relax=plaintext))
    if not plaintext and (domains or ca_file is not None):
        parts.append(Enforced(domains, ca_file=ca_file))
    floor = options.get("min_tls")
    if parts and (floor or plaintext) and isinstance(gateway, HoldsOwnFloor):
        parts.append(OwnFloor("none" if plaintext else str(floor)))  # with TLS, its floor goes
    return parts


def gateway_result(outcome: GatewayOutcome) -> dict[str, Any]:
    """Return the result of gateway_tls: the state of each part, before and after."""
    before, after = outcome.before, outcome.after
    return {
        **outcome.to_dict(),
        "before": summary(before.email_configs),
        "after": summary(after.email_configs),
        "email_configs": [one.to_dict() for one in after.email_configs.values()],
        "outbound": {
            "before": before.outbound.to_dict() if before.outbound else {},
            "after": after.outbound.to_dict() if after.outbound else {},
        },
        "enforced_domains": [one.to_dict() for one in after.enforced],
    }
