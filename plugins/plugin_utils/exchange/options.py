# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of exchange_tls: those of a task, completed by the variables C(starttls_exchange_...) of the host and by defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.modules.exchange_tls import ARGUMENT_SPEC, EXCHANGE_SPEC
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.journal import JOURNAL_DIRECTORY

ACCESS = ("reach", "server", "session_uri")
"""The options that exchange_cmdlets has as well."""
_VARIABLES: dict[str, tuple[str, Any]] = {
    "reach": ("starttls_exchange_reach", "auto"),
    "server": ("starttls_exchange_server", ""),
    "session_uri": ("starttls_exchange_session_uri", ""),
    "clients": ("starttls_exchange_clients", []),
    "next_hops": ("starttls_exchange_next_hops", []),
    "check": ("starttls_exchange_check", "encryption_only"),
    "tls_domain": ("starttls_exchange_tls_domain", ""),
    "send_certificate": ("starttls_exchange_send_certificate", False),
    "certificate_on": ("starttls_exchange_certificate_on", []),
    "fqdn": ("starttls_exchange_fqdn", ""),
    "internal_certificate": ("starttls_exchange_internal_certificate", False),
    "remove_former": ("starttls_exchange_remove_former", False),
    "ecc": ("starttls_exchange_ecc", False),
    "wait": ("starttls_exchange_wait", 120),
    "journal": ("starttls_exchange_journal", JOURNAL_DIRECTORY),
}
"""Option -> the variable that sets it for a host, and its default."""


def completed(
    options: Mapping[str, Any], variables: Mapping[str, Any], template: Callable[[Any], Any]
) -> dict[str, Any]:
    """Return all options of exchange_tls.

    options: those of a task, of exchange_tls or of another module with the same ones. variables: of the host, which may be templates.
    template: makes a value of one. Raises EngineError, which names the variable that does not fit.
    """
    given = {name: options[name] for name in ARGUMENT_SPEC if options.get(name) is not None}
    for name, (variable, _default) in _VARIABLES.items():
        if name not in given and variable in variables and (value := template(variables[variable])) not in (None, ""):
            given[name] = _checked(name, variable, value)
    specified = {name: one.get("default") for name, one in ARGUMENT_SPEC.items()}
    defaults = {name: default for name, (_variable, default) in _VARIABLES.items()}
    return {**specified, **defaults, **given}


def _checked(name: str, variable: str, value: Any) -> Any:
    found = ArgumentSpecValidator({name: EXCHANGE_SPEC[name]}).validate({name: value})
    if found.error_messages:
        raise EngineError(f"{variable} does not fit: {'; '.join(found.error_messages)}; correct it")
    return found.validated_parameters[name]
