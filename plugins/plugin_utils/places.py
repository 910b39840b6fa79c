# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From where handshake tests are made: the host itself, the gateways, the controller. One that could not look says nothing of the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding

CONTROLLER = "the controller"
COULD_NOT_LOOK = "could_not_look"
"""The code of a test that says nothing of the server, because the controller did not get to it."""

_BLIND = frozenset({"name_not_resolved", "no_route"})


def looked(test: Mapping[str, Any]) -> bool:
    """Return whether a test says anything of the server."""
    return test.get("code") != COULD_NOT_LOOK


def of_controller(
    result: Mapping[str, Any],
    tests: Sequence[Mapping[str, Any]],
    target: Target,
    from_gateways: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the controller's tests of a host. One that did not get to the server becomes one that could not look.

    A controller is often outside the network of the mail servers. That it cannot resolve a name, or has no route, is no fault of
    the server. A connection that times out is none either, if a gateway had one. A refusal comes from the server.

    result: what the controller's task registered. tests: those of its results with this host. from_gateways: the gateways' tests.
    """
    if result.get("failed") or result.get("unreachable"):
        return [_blind({"host": target.host, "port": target.port, "name": target.server_name}, result.get("msg"))]
    reached = any(one.get("stage", "connect") != "connect" for one in from_gateways)
    return [_blind(one, one.get("message")) if _says_nothing(one, reached) else dict(one) for one in tests]


def _says_nothing(test: Mapping[str, Any], reached: bool) -> bool:
    no_connection = reached and test.get("code") == "timeout" and test.get("stage") == "connect"
    return test.get("code") in _BLIND or no_connection


def _blind(test: Mapping[str, Any], why: Any) -> dict[str, Any]:
    finding = Finding.advised(COULD_NOT_LOOK, f"the controller could not look: {why or 'it gave no reason'}")
    return {
        **test,
        "stage": "connect",
        "completed": False,
        "code": COULD_NOT_LOOK,
        "message": str(why or ""),
        "passed": False,
        "findings": [finding.as_dict()],
    }


def without_proof(host: str, tests: Sequence[Mapping[str, Any]], is_gateway: bool) -> list[dict[str, Any]]:
    """Return a finding if nobody could look at a host, or only the host itself could. A gateway tests itself as others would."""
    if not tests or all(map(looked, tests)):
        return []
    places = {one.get("seen_from") or host for one in tests if looked(one)}
    if not places:
        return [Finding.advised("unproven", f"nobody could look at {host}").as_dict()]
    if places == {host} and not is_gateway:
        return [Finding.advised("only_itself", f"only {host} itself tested its server").as_dict()]
    return []


def tested_from(host: str, tests: Sequence[Mapping[str, Any]], others: Sequence[str] = ()) -> str:
    """Return in words who looked and who could not, as in C(host, gw1; not the controller).

    others: further places that did not look.
    """
    saw = [one.get("seen_from") or host for one in tests if looked(one)]
    not_seen = [one.get("seen_from") or host for one in tests if not looked(one)]
    blind = [one for one in dict.fromkeys([*others, *not_seen]) if one not in saw]
    said = _names(host, list(dict.fromkeys(saw))) or ("nobody" if tests or others else "")
    return f"{said}; not {_names(host, blind)}" if blind else said


def _names(host: str, places: Sequence[str], most: int = 3) -> str:
    named = ["host" if one == host else one.removeprefix("the ") for one in places]
    gateways = [one for one in named if one not in ("host", "controller")]
    if len(gateways) > most:
        named = [one for one in named if one not in gateways]
        named.insert(1 if "host" in named else 0, f"{len(gateways)} gateways")
    return ", ".join(named)
