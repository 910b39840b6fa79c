"""The stand-in for Exchange, in both behaviours; each test gets one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.exchange import Exchange, exchange


@pytest.fixture
def premises(tmp_path: Path) -> Iterator[Exchange]:
    """Exchange on premises."""
    with exchange(tmp_path, "on_premises") as made:
        yield made


@pytest.fixture
def online(tmp_path: Path) -> Iterator[Exchange]:
    """Exchange Online."""
    with exchange(tmp_path, "online") as made:
        yield made
