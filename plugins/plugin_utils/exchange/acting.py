# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an action plugin does for an Exchange server. It is loaded for one alone: other hosts have no use for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import RENEWED
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import floor_not_held
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import task_errors
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.issued import is_issued
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.options import completed
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.queues import read_queues, try_queues
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.server import ReadFailed
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.task import ExchangeTask
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.observed_results import complete_observed

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase
    from ansible_collections.mailfleet.starttls.plugins.plugin_utils.host_actions import HostAction

Variables = Optional[Mapping[str, Any]]


def exchange_task(action: ActionBase, options: Mapping[str, Any], variables: Variables) -> ExchangeTask:
    """Return the work for the host of a task. options: some of those of exchange_tls. Raises EngineError."""
    facts = variables or {}

    def execute(module: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = action._execute_module(module, module_args=dict(arguments), task_vars=variables)
        result.pop("invocation", None)
        return result

    every = completed(options, facts, action._templar.template)
    return ExchangeTask(execute, str(facts.get("inventory_hostname")), every, facts)


def _refuse_host_certificate(options: Mapping[str, Any]) -> None:
    source = options.get("certificate_source")
    if source == "host" or is_issued(str(source)):
        raise EngineError(
            f"Exchange takes certificates of its own store: starttls_certificate_source: {source} is not for it; name the files on the "
            "controller (starttls_certificate_file, starttls_private_key_file), or none, and the one that Exchange has stays"
        )


def _refuse_several(options: Mapping[str, Any]) -> None:
    if (options.get("install") or {}).get("more"):
        raise EngineError("Exchange serves one certificate: take starttls_more_certificates away from this host")


def _without_rotation(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options for Exchange, whose certificate enable_tls renews: to rotate the others' leaves it as it is."""
    return {**options, "inbound": None, "install": None} if options.get("inbound") == RENEWED else options


def _floor_not_held(options: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a note if a floor is wanted in a direction that is set, and not switched off."""
    sides = {options.get("inbound"), options.get("outbound")} - {None, "none", "disabled"}
    wants = sides and options.get("state") != "absent" and not options.get("only_relax")
    return floor_not_held("exchange", options.get("min_tls")) if wants else []


def read_exchange(action: HostAction, options: Mapping[str, Any], variables: Variables) -> dict[str, Any]:
    """Return the result of mail_server_info. options: of that module."""
    options = _without_rotation(options)
    with task_errors():
        _refuse_host_certificate(options)
        _refuse_several(options)
        checked = action.checked_install(options)
        result = exchange_task(action, options, variables).read(checked)
        if said := _floor_not_held(options):
            result["notes"] = [*result.get("notes", ()), *said]
        return complete_observed(result, options["handshake"], checked, "")


def change_exchange(action: HostAction, options: Mapping[str, Any], variables: Variables) -> dict[str, Any]:
    """Return the result of a change, or of the check of the certificate if that has findings. options: some of those of exchange_tls."""
    options = _without_rotation(options)
    with task_errors():
        _refuse_host_certificate(options)
        _refuse_several(options)
        task = exchange_task(action, options, variables)
        if options.get("proof") is not None:
            return task.conclude(options["proof"])
        if options.get("only_recover"):
            return task.recover(action._task.check_mode)
        checked = action.checked_install({"certificate_source": "files", "certificate": CERTIFICATE, **options})
        if checked and checked.findings:
            return checked.refusal()
        result = task.change(checked, action._task.check_mode)
        warnings = [*result.get("warnings", ()), *(one["message"] for one in _floor_not_held(options))]
        if checked:
            warnings[:0] = [one.message for one in checked.caveats]
        return {
            **(checked.facts if checked else {}),
            **result,
            **({"warnings": warnings} if checked or warnings else {}),
        }


def peers_of_exchange(action: ActionBase, options: Mapping[str, Any], variables: Variables) -> dict[str, Any]:
    """Return the result of peer_tls. options: of that module."""
    with task_errors():
        asked = {"peers": options["peers"] or [], "peers_state": options["state"], "digests": options["digests"]}
        return exchange_task(action, {**asked, "port": options["port"]}, variables).change_peers(
            action._task.check_mode
        )


def queues_of_exchange(action: ActionBase, options: Mapping[str, Any], variables: Variables) -> dict[str, Any]:
    """Return the result of deferred_mail_info. options: of that module."""
    with task_errors():
        server = exchange_task(action, {}, variables).server
        try:
            return {"changed": False, **read_queues(server, options["recipients"])}
        except ReadFailed as error:
            return error.result


def retry_exchange(action: ActionBase, options: Mapping[str, Any], variables: Variables) -> dict[str, Any]:
    """Return the result of deferred_mail. options: of that module."""
    with task_errors():
        server = exchange_task(action, {}, variables).server
        try:
            return try_queues(server, options["next_hops"], float(options["timeout"]), action._task.check_mode)
        except ReadFailed as error:
            return error.result
