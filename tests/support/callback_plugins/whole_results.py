"""Writes all that a callback gets of a run to the file that WHOLE_RESULTS names: before Ansible masks what it prints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: whole_results
type: aggregate
short_description: Whole task results as lines of JSON
description: For tests that look for secrets, as a job's events or a log of results would keep them.
options: {}
"""


class CallbackModule(CallbackBase):
    """One object for the arguments of a task as it starts, and one for each result."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "whole_results"
    CALLBACK_NEEDS_ENABLED = True

    def _note(self, **data: Any) -> None:
        with Path(os.environ["WHOLE_RESULTS"]).open("a") as file:
            file.write(json.dumps(data, default=str, ensure_ascii=False) + "\n")

    def _result(self, result: Any, *_more: Any, **_options: Any) -> None:
        self._note(host=result._host.get_name(), task=result._task.get_name(), result=result._result)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._note(task=task.get_name(), args=task.args)

    v2_runner_on_ok = v2_runner_on_failed = v2_runner_on_unreachable = v2_runner_on_skipped = _result
    v2_runner_item_on_ok = v2_runner_item_on_failed = v2_on_file_diff = v2_runner_retry = _result
