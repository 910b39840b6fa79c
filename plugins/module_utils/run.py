# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between AnsibleModule and the engine: the only file in module_utils that knows Ansible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils.handshake import (
    Settings,
    Target,
    TargetError,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.starttls import (
    INBOUND,
    OUTBOUND,
    Desired,
    Server,
    set_starttls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.transaction import (
    EngineError,
    Runner,
    TransactionError,
)

STARTTLS_SPEC: dict[str, dict[str, Any]] = {
    "inbound": {"type": "str", "choices": list(INBOUND)},
    "outbound": {"type": "str", "choices": list(OUTBOUND)},
    "certificate": {"type": "path", "default": "/etc/mailfleet/starttls.pem"},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 25},
    "timeout": {"type": "int", "default": 20},
    "require_without_evidence": {"type": "bool", "default": False},
    "relax": {"type": "bool", "default": True},
    "only_relax": {"type": "bool", "default": False},
}


def runner(module: AnsibleModule) -> Runner:
    """The engine's way to start programs, without a shell and in the C locale."""

    def run(arguments: Sequence[str]) -> tuple[int, str, str]:
        status, out, err = module.run_command(
            list(arguments),
            path_prefix="/usr/sbin:/sbin",
            environ_update={"LC_ALL": "C"},
            handle_exceptions=False,
        )
        return status, out, err

    return run


def fail_on_engine_errors(module: AnsibleModule, work: Callable[[], dict[str, Any]]) -> None:
    """Do the work and exit with its result; an error of the engine becomes the module's message."""
    try:
        result = work()
    except TransactionError as error:
        module.fail_json(msg=str(error), restored=error.restored)
    except (EngineError, TargetError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'the host'}: {error.strerror or error}")
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    module.exit_json(**result)


def run_starttls(make_server: Callable[[AnsibleModule, Desired, Settings], Server]) -> None:
    """The whole of a mail server module, given how to make its adapter."""
    module = AnsibleModule(
        argument_spec=STARTTLS_SPEC,
        required_one_of=[("inbound", "outbound")],
        supports_check_mode=True,
    )
    options = module.params

    def work() -> dict[str, Any]:
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
        outcome = set_starttls(make_server(module, desired, settings), desired, settings, module.check_mode)
        return {**outcome.to_dict(), "diff": outcome.diff, "warnings": outcome.warnings}

    fail_on_engine_errors(module, work)
