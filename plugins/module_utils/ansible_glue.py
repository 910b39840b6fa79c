# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between AnsibleModule and the engine: the only file in module_utils that knows Ansible."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import Any, Optional
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import LARGEST, Http, Response
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Runner, postponed
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway, Outcome
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Settings,
    Target,
    TargetError,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.gateway import GATEWAYS, Access
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import product_of

# Which gateway, and how it is reached. The API's secrets may come from the environment of the host that the module runs on.
ACCESS_SPEC: dict[str, dict[str, Any]] = {
    "gateway": {"type": "str", "default": "postfix"},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 25},
    "reinjection_port": {"type": "int", "default": 10125},
    "config_dir": {"type": "path", "default": "/etc/haraka"},
    "api_url": {"type": "str", "fallback": (env_fallback, ["MAILFLEET_API_URL"])},
    "api_user": {"type": "str", "fallback": (env_fallback, ["MAILFLEET_API_USER"])},
    "api_password": {"type": "str", "no_log": True, "fallback": (env_fallback, ["MAILFLEET_API_PASSWORD"])},
    "api_key": {"type": "str", "no_log": True, "fallback": (env_fallback, ["MAILFLEET_API_KEY"])},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 20},
}
CHANGE_SPEC: dict[str, dict[str, Any]] = {
    **ACCESS_SPEC,
    "require_without_evidence": {"type": "bool", "default": False},
}

SECONDS_TO_END = 10.0
"""How long a program may go on once a signal has stopped the change."""


def runner(module: AnsibleModule) -> Runner:
    """The engine's way to start programs, without a shell and in the C locale."""

    def run(arguments: Sequence[str]) -> tuple[int, str, str]:
        with _over_before_anything_else() as started:
            status, out, err = module.run_command(
                list(arguments),
                path_prefix="/usr/sbin:/sbin",
                environ_update={"LC_ALL": "C"},
                handle_exceptions=False,
                before_communicate_callback=started,
            )
        return status, out, err

    return run


@contextlib.contextmanager
def _over_before_anything_else() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Wait for a program that is cut off by a signal, as what is restored then must not be changed by it again."""
    running: list[subprocess.Popen[bytes]] = []
    with postponed() as go_on:  # until the program is known

        def started(program: subprocess.Popen[bytes]) -> None:
            running.append(program)
            go_on()

        try:
            yield started
        except BaseException:
            for program in running:
                _end(program)
            raise


def _end(program: subprocess.Popen[bytes]) -> None:
    try:
        program.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        program.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(1.0)


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


def http_client(module: AnsibleModule) -> Http:
    """The engine's way to an API: TLS verified unless told otherwise, no redirects, no proxies of the environment."""

    def http(method: str, url: str, headers: Mapping[str, str], body: Optional[bytes]) -> Response:
        from ansible.module_utils.urls import open_url  # noqa: PLC0415  (it costs 35 ms, and few gateways have an API)

        try:
            answer = open_url(
                url,
                data=body,
                headers=dict(headers),
                method=method,
                timeout=module.params["timeout"],
                validate_certs=module.params["validate_certs"],
                ca_path=module.params["ca_path"],
                follow_redirects="none",
                use_proxy=False,
                use_netrc=False,  # it would add credentials of its own
            )
        except HTTPError as error:
            answer = error
        except (HTTPException, ValueError) as error:
            raise OSError(f"{type(error).__name__} in the answer") from error
        return Response(
            answer.getcode(),
            answer.read(LARGEST + 1),
            {name.lower(): value for name, value in answer.headers.items()},
        )

    return http


def gateway_of(module: AnsibleModule) -> tuple[Gateway, Settings]:
    """The adapter that a module's options name, and the settings of its handshakes. Raises EngineError, TargetError."""
    options = module.params
    own_port = Target(options["address"], options["port"])
    own_port.check()
    settings = Settings(timeout=float(options["timeout"]), judge_trust=False)
    kind = options["gateway"]
    product_of(kind, "gateway", "gateway")
    access = Access(
        runner(module),
        http_client(module),
        own_port,
        options["reinjection_port"],
        options["config_dir"],
        options["api_url"] or "",
        options["api_user"] or "",
        options["api_password"] or "",
        options["api_key"] or "",
    )
    return GATEWAYS[kind](access, settings), settings


def report(outcome: Outcome, **more: Any) -> dict[str, Any]:
    """What every module that changes a gateway returns, and more."""
    return {
        "changed": outcome.changed,
        "evidence": [seen.to_dict() for seen in outcome.evidence],
        "recovered": outcome.recovered,
        "diff": outcome.diff,
        "warnings": outcome.warnings,
        **more,
    }
