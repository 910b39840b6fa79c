"""Fixtures of this scenario."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_testinfra import STATE, Fleet

from tests.support.obstacles import Obstacles


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for inventories and certificates, which a controller in a container sees, too."""
    path: Path = STATE / "obstacles"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="module")
def obstructed(fleet: Fleet, place: Path) -> Iterator[Fleet]:
    """The fleet with everything in the way."""
    obstacles = Obstacles(fleet, place)
    there = Fleet()
    try:
        obstacles.put()
        there.inventory = obstacles.inventory()
        yield there
    finally:
        there.end()
        obstacles.take_away()
