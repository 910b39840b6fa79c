"""Writes when each play and task of a run began, and which hosts it ran on, to the file that TASK_TIMES names: a JSON object a line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_times
type: aggregate
short_description: The times of a run as lines of JSON
description: ansible-core itself has no callback that says how long a task took.
options: {}
"""


class CallbackModule(CallbackBase):
    """One object an event: its kind, when it was (seconds since 1970), and a name: of the play, the task, or the host."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"
    CALLBACK_NEEDS_ENABLED = True

    def _note(self, event: str, name: str = "") -> None:
        with Path(os.environ["TASK_TIMES"]).open("a") as file:
            file.write(json.dumps({"event": event, "at": time.time(), "name": name}) + "\n")

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._note("play", play.get_name())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._note("task", task.get_name())

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._note("task", task.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note("result", result._host.get_name())

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._note("result", result._host.get_name())

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._note("result", result._host.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._note("end")
