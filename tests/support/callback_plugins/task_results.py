"""Writes every task result of a run to the file that TASK_RESULTS names, a JSON object a line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_results
type: aggregate
short_description: Task results as lines of JSON
description: For tests that count what a run did on each host.
options: {}
"""


class CallbackModule(CallbackBase):
    """One object a result: host, play, action, whether it was delegated, a loop, skipped, failed, changed, and when it began and ended."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_results"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._play = ""
        self._began: dict[tuple[str, str], float] = {}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play.get_name()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._began[host.get_name(), task._uuid] = time.time()

    def _note(self, result: Any, skipped: bool = False) -> None:
        task, data = result._task, result._result
        host, now = result._host.get_name(), time.time()
        line = {
            "host": host,
            "play": self._play,
            "action": task.action,
            "delegated": bool(task.delegate_to),
            "loop": bool(task.loop),
            "skipped": skipped,
            "failed": bool(data.get("failed") or data.get("unreachable")),
            "changed": bool(data.get("changed")),
            "began": self._began.get((host, task._uuid), now),
            "ended": now,
        }
        with Path(os.environ["TASK_RESULTS"]).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._note(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._note(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._note(result, skipped=True)
