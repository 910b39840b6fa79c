# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between AnsibleModule and the engine of the mail servers."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import set_starttls
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import INBOUND, OUTBOUND, Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import fail_on_engine_errors, runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, resolve
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.server import SERVERS

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "kind": {"type": "str", "default": AUTO},
    "inbound": {"type": "str", "choices": list(INBOUND)},
    "outbound": {"type": "str", "choices": list(OUTBOUND)},
    "certificate": {"type": "path", "default": CERTIFICATE},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 25},
    "timeout": {"type": "int", "default": 20},
    "require_without_evidence": {"type": "bool", "default": False},
    "relax": {"type": "bool", "default": True},
    "only_relax": {"type": "bool", "default": False},
}


def change_mail_server(module: AnsibleModule) -> dict[str, Any]:
    """Bring the mail server of this host to the wanted state. Raises EngineError, TransactionError."""
    options = module.params
    kind = resolve(options["kind"], "server", "kind")
    desired = Desired(
        options["inbound"],
        options["outbound"],
        options["certificate"],
        Target(options["address"], options["port"]),
        options["require_without_evidence"],
        options["relax"],
        options["only_relax"],
    )
    settings = Settings(timeout=float(options["timeout"]))
    server = SERVERS[kind](runner(module), desired, settings)
    outcome = set_starttls(server, desired, settings, module.check_mode)
    return {**outcome.to_dict(), "kind": kind, "diff": outcome.diff, "warnings": outcome.warnings}


def run(module: AnsibleModule) -> None:
    """The whole of the module mail_server_tls."""
    fail_on_engine_errors(module, lambda: change_mail_server(module))
