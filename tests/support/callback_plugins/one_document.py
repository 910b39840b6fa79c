"""Writes a run as one JSON document to stdout at its end, as the callbacks for programs do. ansible-core itself has none."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: one_document
type: stdout
short_description: A run as one JSON document
description: For tests that read all of stdout as JSON.
options: {}
"""


class CallbackModule(CallbackBase):
    """A list of results, each with its host, task and data."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "one_document"

    def __init__(self) -> None:
        super().__init__()
        self.results: list[dict[str, Any]] = []

    def _note(self, result: Any, **_more: Any) -> None:
        self.results.append(
            {"host": result._host.get_name(), "task": result._task.get_name(), "result": dict(result._result)}
        )

    v2_runner_on_ok = v2_runner_on_failed = v2_runner_on_unreachable = v2_runner_on_skipped = _note

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._display.display(json.dumps(self.results, default=str))
