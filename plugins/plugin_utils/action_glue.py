# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between an action plugin and the controller's engine: checked options in, errors out as the failure of the task.

An action plugin has the options of its module's ARGUMENT_SPEC, and a run() of a few lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleFileNotFound
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import MissingLibraryError

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase


def checked_options(action: ActionBase, spec: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The task's options by the spec, with their defaults; None for an option that is not given and has no default.

    Raises AnsibleActionFail if they do not fit the spec.
    """
    _validation, options = action.validate_argument_spec(argument_spec=spec)
    return {name: options.get(name) for name in spec}


@contextlib.contextmanager
def task_errors() -> Iterator[None]:
    """Within, an error of the engine raises AnsibleActionFail with the same text. Other errors are faults and stay as they are."""
    try:
        yield
    except (EngineError, MissingLibraryError) as error:
        raise AnsibleActionFail(str(error)) from error


def read_text(action: ActionBase, option: str, path: str) -> str:
    """The text of a file on the controller, found as the module copy finds its source. Raises AnsibleActionFail."""
    try:
        found = action._find_needle("files", path)
        with open(found, encoding="utf-8") as handle:  # noqa: PTH123
            return handle.read()
    except Exception as error:
        raise AnsibleActionFail(f"{option} {path!r} cannot be read on the controller: {error}") from error


def read_bytes(action: ActionBase, path: str, limit: int) -> bytes:
    """The first bytes of a file on the controller, found as the module copy finds its source, decrypted by Ansible Vault.

    Raises EngineError with the reason, in one line.
    """
    try:
        # For a vault this is a private temporary file, which is removed again at once.
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
