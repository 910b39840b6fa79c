# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between AnsibleModule and the engine of the mail servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import set_starttls
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_glue import runner
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import resolve
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.server import SERVERS

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def change_mail_server(module: AnsibleModule) -> dict[str, Any]:
    """Bring the mail server of this host to the wanted state and return the result. Raises EngineError, TransactionError."""
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
