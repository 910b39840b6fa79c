"""A gateway of each kind with everything that it can have, and then without: as before the first change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab_testinfra import DOMAINS, Fleet, of_kind, on_each

KIND = {"gw1": "postfix", "gw13": "postfix", "gx12": "exim", "gx13": "exim", "hk": "haraka"}
MODES = {
    "postfix": ("match_sender", "required"),
    "exim": ("match_sender", "required"),
    "haraka": ("required", "plaintext"),
}
GATEWAYS = on_each(KIND)


def wanted(gateway: str) -> dict[str, Any]:
    """Email configs in two modes, and for those that have them enforced domains and the outbound side."""
    hosts = ("pf12", "ex12")
    configs = [
        {"name": host, "domains": [DOMAINS[host]], "servers": [f"{host}.fleet.test"], "delivery_mode": mode}
        for host, mode in zip(hosts, MODES[KIND[gateway]])
    ]
    more: dict[str, Any] = {}
    if KIND[gateway] != "haraka":
        domains = [{"domain": "p.example", "direction": "inbound"}, {"domain": "partner.test", "direction": "outbound"}]
        more = {"enforced_domains": domains, "send": "match_sender", "accept": "both"}
    return {**of_kind(KIND[gateway]), "email_configs": configs, "require_without_evidence": True, **more}


@GATEWAYS
def test_everything_goes_again(fleet: Fleet, snapshot: Callable[[str], list[str]], gateway: str) -> None:
    before = snapshot(gateway)
    kind = KIND[gateway]
    options: dict[str, Any] = {"gateway": kind, "state": "absent", "queue_timeout": 0}
    set_up = fleet.result(gateway, "gateway_tls", wanted(gateway))
    assert set_up.get("changed") is True, set_up
    assert set(snapshot(gateway)) != set(before)

    gone = fleet.result(gateway, "gateway_tls", options)
    assert gone.get("changed") is True, gone
    assert set(snapshot(gateway)) ^ set(before) == set()
    again = fleet.result(gateway, "gateway_tls", options)
    assert again.get("changed") is False, again
    assert set(snapshot(gateway)) ^ set(before) == set()
