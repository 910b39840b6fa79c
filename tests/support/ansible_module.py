"""Runs a module as Ansible does: arguments in, the JSON of its result out."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any, Callable
from unittest import mock

from ansible.module_utils import basic


def run_module(
    main: Callable[[], None], *, check_mode: bool = False, diff: bool = False, **options: Any
) -> dict[str, Any]:
    """The result that a module's main() prints for these options; failed is in it if it failed."""
    arguments = json.dumps(
        {"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": check_mode, "_ansible_diff": diff}}
    ).encode()
    output = io.StringIO()
    warned: list[str] = []
    with (
        mock.patch.object(basic, "_ANSIBLE_ARGS", arguments),
        mock.patch.object(basic, "_ANSIBLE_PROFILE", "legacy", create=True),  # ansible-core 2.19 or newer
        # Ansible keeps warnings for all runs in a process, and each version of it elsewhere.
        mock.patch.object(basic.AnsibleModule, "warn", lambda _self, text, **_options: warned.append(text)),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        main()
    # What a module tells Ansible alone is not for users: Ansible takes it out, too.
    result = {key: value for key, value in json.loads(output.getvalue()).items() if not key.startswith("_ansible_")}
    return {**result, "warnings": warned} if warned else result
