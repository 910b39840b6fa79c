"""How the time of a run is spread, with a real run of ansible-playbook and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench import rollout_profile

PLAY = """
- name: Two batches
  hosts: all
  serial: 1
  gather_facts: false
  tasks:
    - name: Say it
      ansible.builtin.debug:
        msg: x
    - name: Leave it out
      ansible.builtin.debug:
        msg: x
      when: false
"""


def events(*lines):
    return [json.dumps({"event": kind, "at": at, "name": name}) for kind, at, name in lines]


def test_all_rows_together_are_the_whole_time():
    rows = rollout_profile.read_times(
        events(
            ("play", 11.0, "One"), ("task", 11.5, "a"), ("result", 12.0, "h1"), ("result", 12.5, "h2"), ("task", 13.0, "b"),
            ("play", 14.0, "One"), ("task", 14.5, "a"), ("result", 15.0, "h3"), ("play", 16.0, "Two"), ("task", 16.0, "a"),
            ("end", 18.0, ""),
        ),
        10.0,
        18.25,
    )  # fmt: skip
    assert [(one.play, one.task, len(one.hosts), one.times, one.seconds) for one in rows] == [
        ("", "ansible-playbook starts", 0, 1, 1.5),
        ("One", "a", 3, 2, 3.0),
        ("One", "b", 0, 1, 1.5),
        ("Two", "a", 0, 1, 2.0),
        ("", "ansible-playbook ends", 0, 1, 0.25),
    ]
    assert sum(one.seconds for one in rows) == 8.25


def test_the_table():
    rows = rollout_profile.read_times(
        events(("play", 1.0, "One"), ("task", 1.0, "a"), ("result", 1.5, "h1"), ("task", 2.0, "b"), ("end", 4.0, "")),
        0.0,
        4.0,
    )
    lines = [line.split() for line in rollout_profile.render("rerun, 4 mail servers", rows).splitlines()]
    assert lines == [
        ["rerun,", "4", "mail", "servers", "hosts", "times", "wall", "s"],
        ["ansible-playbook", "starts", "1", "1.00"],
        ["One", "3.00"],
        ["a", "1", "1", "1.00"],
        ["b", "1", "2.00"],
        ["ansible-playbook", "ends", "1", "0.00"],
        ["together", "4.00"],
    ]


@pytest.fixture
def times(tmp_path):
    playbook, output = tmp_path / "play.yml", tmp_path / "times"
    playbook.write_text(PLAY)
    began = time.time()
    environment = {
        **os.environ,
        **rollout_profile.environment(output),
        "ANSIBLE_HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", "h1,h2,", "-c", "local", playbook], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return rollout_profile.read_times(output.read_text().splitlines(), began, time.time())


def test_a_real_run(times):
    assert [(one.play, one.task, one.hosts, one.times) for one in times] == [
        ("", "ansible-playbook starts", set(), 1),
        ("Two batches", "Say it", {"h1", "h2"}, 2),
        ("Two batches", "Leave it out", set(), 2),
        ("", "ansible-playbook ends", set(), 1),
    ]
    assert all(one.seconds > 0 for one in times)
