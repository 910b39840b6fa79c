# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between an action plugin and the controller's engine: it checks options, and turns errors into task failures.

An action plugin takes its options from its module's ARGUMENT_SPEC. Its run() has only a few lines.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from ansible import constants as C
from ansible.errors import (
    AnsibleAction,
    AnsibleActionFail,
    AnsibleConnectionFailure,
    AnsibleError,
    AnsibleFileNotFound,
)
from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.plugins.loader import callback_loader
from ansible.utils.display import Display
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import controlled_kind
from ansible_collections.mailfleet.starttls.plugins.module_utils.option_values import (
    refuse_control_characters,
    refuse_null_characters,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import MissingLibraryError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.controller_paths import from_start
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.faults import fault_in
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.untrusted import RUNS_UNMARKED, untrusted

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase


SECRET_OPTIONS = frozenset(
    {
        "api_key",
        "api_password",
        "bundle_content",
        "content",
        "imap_passwords",
        "password",
        "pkcs12_content",
        "pkcs12_password",
        "private_key_content",
    }
)
"""The names of all options that hold secrets, at any depth."""
NOT_LOGGED = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
_PEOPLES_CALLBACKS = ("default", "minimal", "oneline")
"""Those of ansible-core that write for people. Other ones count if they are made from the default one."""
_FOR_THE_RUN = frozenset(
    {"ansible_facts", "ansible_stats", "add_host", "add_group", "_ansible_facts_cacheable", "_ansible_notify"}
)
_PRIVATE = re.compile(r"PRIVATE KEY-----|://\S+@")

Run = Callable[..., dict[str, Any]]


def guarded(run: Run) -> Run:
    """Decorate run() of an action plugin. Nothing in its result is a template, and no secret stays in the options of its task.

    ansible-core before 2.19 marks what run() returns. It marks neither the message of an exception nor what a host that
    cannot be reached says, such as the banner of its SSH server.

    The options go back to the strategy and to callbacks with the result. Some show them: the strategy free does with
    display_args_to_stdout.

    An option whose value is the fault of a filter fails the task with the filter's text.
    """

    @functools.wraps(run)
    def wrapped(action: ActionBase, *args: Any, **kwargs: Any) -> dict[str, Any]:
        task = action._task
        if getattr(action, "guarded", False):  # called by another guarded run()
            return run(action, *args, **kwargs)
        action.guarded = True
        task.args = task.whole_args = getattr(task, "whole_args", task.args)  # a former attempt has hidden secrets
        try:
            with task_errors():
                refuse_null_characters(task.args)
            if fault := next(filter(None, map(fault_in, task.args.values())), ""):
                raise AnsibleActionFail(fault)
            result: dict[str, Any] = untrusted(about_itself(run(action, *args, **kwargs)))
            return result
        except AnsibleAction as error:
            if RUNS_UNMARKED:
                error.result = untrusted(error.result)
            raise
        except AnsibleConnectionFailure as error:
            if not RUNS_UNMARKED:
                raise
            return dict(untrusted({"unreachable": True, "changed": False, "msg": str(error)}))
        finally:
            task.args = without_secrets(task.args)

    return wrapped


def about_itself(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result without what Ansible would take from it for the whole run: variables, hosts, groups, statistics.

    A host that somebody else has taken over could set variables that come before those of the inventory, such as the path
    of a private key. No module of the collection returns such a thing.
    """
    return {name: value for name, value in result.items() if name not in _FOR_THE_RUN}


def without_secrets(options: Any) -> Any:
    """Return options with NOT_LOGGED for each secret: by the name of the option, or because the text holds a private key or userinfo."""
    if isinstance(options, Mapping):
        return {
            name: NOT_LOGGED if name in SECRET_OPTIONS and value else without_secrets(value)
            for name, value in options.items()
        }
    if isinstance(options, (list, tuple)):
        return [without_secrets(one) for one in options]
    return NOT_LOGGED if isinstance(options, str) and _PRIVATE.search(options) else options


class ModuleAction(NormalAction):
    """Runs the module of the same name on the host and does no more on the controller, as Ansible does for a module without an action.

    It exists to be guarded.
    """

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result


def refuse_async(action: ActionBase) -> None:
    """Raise AnsibleActionFail if a change is to be made in the background. Ansible would refuse it later, without a reason."""
    if action._task.async_val:
        name = str(getattr(action._task, "action", "")).rpartition(".")[2]
        raise AnsibleActionFail(
            f"async is refused for a change{f' by {name}' if name else ''}: nobody would undo it if the job were lost. Remove async from "
            "this task"
        )


class ChangeModuleAction(ModuleAction):
    """The same for a module that changes the host: not in the background."""

    @guarded
    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result."""
        refuse_async(self)
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result


def is_controlled(action: ActionBase, variables: Optional[Mapping[str, Any]], kind: Any = None) -> bool:
    """Return whether the decisions for the host of a task run on the controller, and no Python runs there.

    kind: the option of the task; without one, C(starttls_kind) counts. What is delegated runs elsewhere.
    """
    facts = variables or {}
    if action._task.delegate_to not in (None, "", facts.get("inventory_hostname")):
        return False
    given = kind if kind not in (None, "", "auto") else facts.get("starttls_kind")
    return bool(controlled_kind(str(given or "auto"), str(action._connection.transport)))


def not_made(what: str) -> dict[str, Any]:
    """Return the result of a task that needs Python on the host: skipped, so that nobody takes it for made."""
    return {"changed": False, "skipped": True, "msg": f"{what}: no module in Python runs on an Exchange server"}


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
        # Ansible appends the text of a cause to that of the error, and the two are the same here.
        raise AnsibleActionFail(str(error)) from None


@functools.cache
def _is_for_people(callback: str) -> bool:
    """Return whether a callback writes for people, and not a document that a program reads."""
    name = callback.removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")
    if name in _PEOPLES_CALLBACKS:
        return True
    kind = callback_loader.get(name, class_only=True)
    return isinstance(kind, type) and issubclass(kind, Default)


def show(text: str) -> None:
    """Show text to people, once. Where the callback writes for programs, such as C(json), the result of the task has it all."""
    if text and _is_for_people(C.DEFAULT_STDOUT_CALLBACK):
        Display().display(f"\n{text}\n")


def _found(action: ActionBase, path: str) -> str:
    """Return where a file on the controller is: as the module copy finds it, or else from where Ansible was started.

    Raises AnsibleFileNotFound.
    """
    try:
        return str(action._find_needle("files", path))
    except AnsibleFileNotFound:
        here = from_start(path)
        if not Path(here).exists():
            raise
        return here


def read_text(action: ActionBase, option: str, path: str) -> str:
    """Return the text of a file on the controller. Raises AnsibleActionFail."""
    try:
        with open(_found(action, path), encoding="utf-8") as handle:  # noqa: PTH123
            return handle.read()
    except Exception as error:
        raise AnsibleActionFail(f"{option} {path!r} cannot be read on the controller: {error}") from None


def read_bytes(action: ActionBase, path: str, limit: int) -> bytes:
    """Return the first bytes of a file on the controller, decrypted by Ansible Vault.

    Raises EngineError with the reason, in one line.
    """
    try:
        # For a vault this is a private temporary file, which is removed at once.
        real = action._loader.get_real_file(_found(action, path), decrypt=True)
        try:
            with Path(real).open("rb") as stream:
                return stream.read(limit)
        finally:
            action._loader.cleanup_tmp_file(real)
    except AnsibleFileNotFound:
        reason = f"there is no such file (searched in 'files', by the playbook, and as {from_start(path)})"
    except AnsibleError as error:
        reason = str(error).split("\n", maxsplit=1)[0]
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise EngineError(reason)
