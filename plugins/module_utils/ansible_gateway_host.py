# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between AnsibleModule and a gateway as a whole: the side that accepts TLS, and the state of the gateway.

Apart from ansible_gateway, because the modules that set one part of a gateway need nothing of mail servers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import drop_pending
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.newer import newer_ones
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import HOST_PAIR_SPEC, SOURCES
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import (
    Opening,
    refuse_to_stop_accepting,
    set_gateway,
    undo_killed_run,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.own_floor import foretold
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.parts import gateway_result, parts_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.reading import probe_targets, read_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.uninstall import (
    Installed,
    removed_configs,
    uninstall,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.facts import known_digests, refuse_changed
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import change_within, set_starttls
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import FLOORS, INBOUND, NO_FLOOR, RENEWED
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_gateway import gateway_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_reading import read_mail_server
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import desired_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.observed import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import (
    PRODUCTS,
    floor_not_held,
    product_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.server import SERVERS

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import Server
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
    from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings

STARTTLS_SPEC: dict[str, dict[str, Any]] = {
    "inbound": {"type": "str", "choices": [*INBOUND, RENEWED]},
    "min_tls": {"type": "str", "choices": [*FLOORS, NO_FLOOR]},
    "certificate": {"type": "path", "default": CERTIFICATE},
    "certificate_source": {"type": "str", "choices": list(SOURCES), "default": "files"},
    "private_key": {"type": "path"},
    "more_on_host": {"type": "list", "elements": "dict", "options": HOST_PAIR_SPEC, "default": []},
}
"""The side of a gateway that accepts TLS. Its words are those of mail_server_tls."""


def _as_server(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the gateway's own mail server, as mail_server_tls takes them."""
    fixed = {"kind": options["gateway"], "outbound": None, "relax": False, "only_relax": False}
    # The state of the option is the gateway's. What is removed from a gateway, its own part says.
    return {**options, **fixed, "require_without_evidence": True, "state": "present", "keep": []}


def read_gateway_host(module: AnsibleModule) -> dict[str, Any]:
    """Return the observed state of a gateway, in the shape of mail_server_info, with C(gateway). Changes nothing."""
    options = module.params
    kind = options["gateway"]
    gateway, settings = gateway_of(module)
    capabilities = PRODUCTS[kind].capabilities
    accepts = "accept" in capabilities
    view = read_gateway(
        gateway,
        options,
        settings,
        options["domains"],
        capabilities,
        probe=not accepts,
        certificate=options["certificate"],
    )
    if not accepts:
        journal = {"path": "", "files": []} if view["interrupted"] else None
        host = {**describe(kind), "health": {"state": "unknown", "message": ""}, "listeners": None, "transports": None}
        host = {
            **host,
            "obstacles": [],
            "notes": [],
            "journal": journal,
            "probe": view["probe"],
            "changes": [],
            "digests": {},
        }
        if options["inbound"]:
            host["obstacles"].append({"code": "change_refused", "message": _refusal(kind)})
    else:
        targets = probe_targets(gateway, view["gateway"], options)
        host = read_mail_server(
            _as_server(options), runner(module), [one for one in targets if one != gateway.own_port]
        )
    wanted = options["min_tls"] if options["state"] == "present" else None
    floor = [*floor_not_held(kind, wanted), *(_floor_left_out(gateway, options) if view["gateway"] and wanted else ())]
    refused: list[dict[str, str]] = []
    if options["state"] == "present" and view["gateway"]:
        problems, weaker = _foretold(gateway, options, (host["probe"] or {}).get("results") or ())
        refused = [{"code": "server_below_floor", "message": one} for one in problems]
        floor += [{"code": "tls_floor_not_reached", "message": one} for one in weaker]
    host = {
        **host,
        "notes": [*host["notes"], *view["notes"], *floor],
        "obstacles": [*host["obstacles"], *refused],
    }
    said = {one["message"] for one in host["obstacles"]}
    return {
        **host,
        "gateway": view["gateway"],
        "digests": {**host.get("digests", {}), **view["digests"]},
        "obstacles": [*host["obstacles"], *(one for one in view["obstacles"] if one["message"] not in said)],
    }


def _foretold(gateway: Gateway, options: Mapping[str, Any], tests: Iterable[Any]) -> tuple[list[str], list[str]]:
    """Return which mail servers the floor of the gateway's own transports would keep mail from, and where it would go in plaintext."""
    try:
        return foretold(gateway, parts_of(gateway, options), [one for one in tests if isinstance(one, Mapping)])
    except EngineError:  # the read of the gateway says it
        return [], []


def _floor_left_out(gateway: Gateway, options: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a note if the accepting side gets a floor, and the gateway's own transports, which nothing of the call concerns, do not."""
    if options["inbound"] not in INBOUND[1:] or options["min_tls"] not in FLOORS or parts_of(gateway, options):
        return []
    held = gateway.read()
    if held.min_tls == options["min_tls"] or not (held.email_configs or held.recipients_enforced):
        return []
    said = (
        f"the transports of the delivery modes and enforced domains that this gateway holds keep their TLS versions, because the inventory "
        f"names none of them; the floor {options['min_tls']} is set there in a run with email_configs"
    )
    return [{"code": "tls_floor_not_reached", "message": said}]


def _refusal(kind: str) -> str:
    """Return why STARTTLS of a kind cannot be set; empty if it can."""
    try:
        product_of(kind, "server", "gateway")
    except EngineError as error:
        return str(error)
    return ""


def change_gateway_host(module: AnsibleModule) -> dict[str, Any]:
    """Set what the options give on the gateway, in one transaction. Raises EngineError, TransactionError."""
    options = module.params
    gateway, settings = gateway_of(module)
    if options["only_recover"]:
        recovered, warnings = undo_killed_run(gateway, module.check_mode)
        return {"changed": recovered, "recovered": recovered, "warnings": warnings}
    if options["state"] == "absent" and isinstance(gateway, Installed):
        return uninstall(
            gateway,
            options["certificate"],
            module.check_mode,
            queue_seconds=options["queue_timeout"],
            keep=options["keep"] or (),
            digests=options["digests"],
        )
    if options["state"] == "absent":
        options = {**options, "email_configs": removed_configs(options), "inbound": None}
    parts = parts_of(gateway, options)
    if not options["inbound"]:
        outcome = set_gateway(
            gateway,
            parts,
            settings,
            options["require_without_evidence"],
            module.check_mode,
            digests=options["digests"],
            queue_seconds=options["queue_timeout"],
        )
        result = gateway_result(outcome)
        if said := floor_not_held(options["gateway"], options["min_tls"]):
            result["warnings"] = [*result.get("warnings", ()), *(one["message"] for one in said)]
        return _with_digests(result, gateway, module)
    if refusal := _refusal(options["gateway"]):
        raise EngineError(refusal)
    desired = desired_of(_as_server(options), options["gateway"])
    if newer := newer_ones(desired.bundles):
        return {"changed": False, "newer": newer}
    server = SERVERS[options["gateway"]](runner(module), desired, settings)
    if not parts:
        result = _only_starttls(gateway, server, desired, settings, module)
        if not module.check_mode:
            drop_pending(desired.bundles)
        return result
    if desired.inbound == "disabled":
        raise EngineError(
            "inbound disabled cannot be combined with other settings of the gateway: stop to require TLS first, then switch STARTTLS "
            "off in a call of its own"
        )
    accept = _Accept(server, desired, settings)
    outcome = set_gateway(
        gateway,
        parts,
        settings,
        options["require_without_evidence"],
        module.check_mode,
        digests=options["digests"],
        opening=accept.open,
        queue_seconds=options["queue_timeout"],
    )
    result = gateway_result(outcome)
    if module.check_mode:
        accept.predict()
    else:
        drop_pending(desired.bundles)
    if accept.result:
        result["changed"] = result["changed"] or accept.result["changed"]
        result["starttls"] = accept.result
        result["diff"] = [*accept.diff, *result["diff"]]
    return _with_digests(result, gateway, module)


def _with_digests(result: dict[str, Any], gateway: Gateway, module: AnsibleModule) -> dict[str, Any]:
    """Return the result with the digests of the files after a change, for the next change of the run."""
    made = result["changed"] and not module.check_mode
    own = (result.get("starttls") or {}).get("digests") or {}
    return {**result, "digests": {**own, **known_digests(gateway.files())} if made else {}}


def _only_starttls(
    gateway: Gateway, server: Server, desired: Desired, settings: Settings, module: AnsibleModule
) -> dict[str, Any]:
    """Set STARTTLS alone. What a killed run left is undone by the gateway's adapter, which knows all instances of its product."""
    if desired.inbound == "disabled":
        refuse_to_stop_accepting(gateway.read())
    with gateway.transaction(STORE).opened(module.check_mode, gateway.prove) as (recovered, warnings):
        refuse_changed(module.params["digests"] or {})
        transaction = server.transaction(STORE)
        outcome, _made = change_within(transaction, server, desired, settings, module.check_mode, warnings)
    certificate = {"previous_certificate": outcome.look.previous} if outcome.look else {}
    return {
        **outcome.to_dict(),
        **certificate,
        "changed": outcome.changed or recovered,
        "recovered": recovered,
        "diff": outcome.diff,
        "warnings": [*warnings, *settings.told],
    }


class _Accept:
    """The change of the gateway's own STARTTLS, before the other parts of one call."""

    def __init__(self, server: Server, desired: Desired, settings: Settings, store: str = STORE) -> None:
        self._server, self._desired, self._settings, self._store = server, desired, settings, store
        self.result: dict[str, Any] = {}
        self.diff: list[dict[str, str]] = []

    def predict(self) -> None:
        """Compute the change without making it. Raises EngineError."""
        outcome = set_starttls(self._server, self._desired, self._settings, check_mode=True, store=self._store)
        self.result, self.diff = outcome.to_dict(), outcome.diff

    def open(self) -> Optional[Opening]:
        """Make the change under the lock that the gateway's transaction holds. Raises EngineError, TransactionError."""
        transaction = self._server.transaction(self._store)
        outcome, made = change_within(transaction, self._server, self._desired, self._settings, False, [], hold=True)
        self.result, self.diff = outcome.to_dict(), outcome.diff
        return Opening(made.change, made.prove, made.prove_old) if made else None
