# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between an action plugin and the controller's engine: it checks options, and turns errors into task failures.

An action plugin takes its options from its module's ARGUMENT_SPEC. Its run() has only a few lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleFileNotFound
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.option_values import refuse_control_characters
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import MissingLibraryError

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase


def checked_options(action: ActionBase, spec: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the task's options by the spec, with defaults; None for a missing option without a default.

    Raises AnsibleActionFail if the options do not fit the spec, or hold a control character.
    """
    _validation, options = action.validate_argument_spec(argument_spec=spec)
    with task_errors():
        refuse_control_characters(spec, options)
    return {name: options.get(name) for name in spec}


@contextlib.contextmanager
def task_errors() -> Iterator[None]:
    """Turn an error of the engine into AnsibleActionFail with the same text. Other exceptions pass unchanged."""
    try:
        yield
    except (EngineError, MissingLibraryError) as error:
        raise AnsibleActionFail(str(error)) from error


def read_text(action: ActionBase, option: str, path: str) -> str:
    """Return the text of a file on the controller. The search path is that of the module copy. Raises AnsibleActionFail."""
    try:
        found = action._find_needle("files", path)
        with open(found, encoding="utf-8") as handle:  # noqa: PTH123
            return handle.read()
    except Exception as error:
        raise AnsibleActionFail(f"{option} {path!r} cannot be read on the controller: {error}") from error


def read_bytes(action: ActionBase, path: str, limit: int) -> bytes:
    """Return the first bytes of a file on the controller, decrypted by Ansible Vault.

    The search path is that of the module copy. Raises EngineError with the reason, in one line.
    """
    try:
        # For a vault this is a private temporary file, which is removed at once.
        real = action._loader.get_real_file(action._find_needle("files", path), decrypt=True)
        try:
            with Path(real).open("rb") as stream:
                return stream.read(limit)
        finally:
            action._loader.cleanup_tmp_file(real)
    except AnsibleFileNotFound:
        reason = "there is no such file (a relative path is searched in 'files' and by the playbook)"
    except AnsibleError as error:
        reason = str(error).split("\n", maxsplit=1)[0]
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise EngineError(reason)
