"""Runs an action plugin as Ansible does, and its module in this process: options in, the public result out."""

from __future__ import annotations

import functools
from types import ModuleType, SimpleNamespace
from typing import Any, Callable, Optional
from unittest import mock

from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase

from tests.support.ansible_module import run_module


def run_action(
    plugin: ModuleType, main: Optional[Callable[[], None]] = None, *, check_mode: bool = False, **options: Any
) -> dict[str, Any]:
    """The result of a task with these options; failed and msg are in it if the task failed.

    main: of the module that runs on the host; None if the plugin needs none.
    """
    action = object.__new__(plugin.ActionModule)
    action._task = SimpleNamespace(
        args=dict(options), check_mode=check_mode, async_val=0, delegate_to=None, action=plugin.__name__, diff=False
    )
    action._load_name = plugin.__name__.rpartition(".")[2]
    action._connection = SimpleNamespace(transport="ssh")
    action._loader = DataLoader()
    action._find_needle = lambda _directory, path: path

    def execute(module_args: dict[str, Any], **_more: Any) -> dict[str, Any]:
        assert main
        return run_module(main, check_mode=check_mode, **module_args)

    action._execute_module = lambda _name, **words: functools.partial(execute, **words)()
    with mock.patch.object(ActionBase, "run", lambda *_args, **_kwargs: {}):
        try:
            return dict(action.run(task_vars={}))
        except AnsibleActionFail as error:
            return {"failed": True, "changed": False, "msg": str(error)}
