"""The plan of a large fleet, measured in a process of its own. Here the fleet is small: the goals are the bench's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench import plan_scale
from tests.bench.rollout_table import SCHEMA

pytest.importorskip("tests.support.plan_states")


def test_what_it_prints_is_as_the_schema_says():
    done = subprocess.run(
        [sys.executable, str(plan_scale.TOP / "tests/bench/plan_scale.py"), "40"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found) == sorted(json.loads(SCHEMA.read_text())["$defs"]["plan"]["required"])
    assert found["hosts"] == 40 and found["megabytes"] > 10
    parts = found["parse_seconds"] + found["plan_seconds"] + found["output_seconds"]
    assert found["seconds"] == pytest.approx(parts, abs=0.01)
