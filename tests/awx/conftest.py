"""awx/*.yml with the real collection awx.awx, which tools/lab/awx fetches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def awx_collections() -> Path:
    """A collection path with awx.awx in it."""
    made = subprocess.run([sys.executable, TOP / "tools/lab/awx"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(made.stdout.strip())
