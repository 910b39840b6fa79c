"""Somebody else writes to the configuration while a run is under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def edited_meanwhile(gateway: Any, path: Path, line: str) -> None:
    """Append a line to a file between the plan of a gateway's change and its first write."""
    real = gateway.prepare

    def prepare(state: Any) -> Any:
        change = real(state)
        with path.open("a") as file:
            file.write(line)
        return change

    gateway.prepare = prepare
