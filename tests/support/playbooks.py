"""Real runs of ansible-playbook, with the ansible-core of the Python that runs the tests and nothing of the user's configuration."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(sys.executable).with_name("ansible-playbook"))
PLAYBOOKS = ROOT / "playbooks"
PATIENCE = 900
"""Seconds that a run may take."""


def write_yaml(path: Path, data: Any) -> Path:
    """Write data for Ansible; long lines stay whole."""
    path.write_text(yaml.safe_dump(data, width=100_000, sort_keys=False))
    return path


def environment(directory: Path) -> dict[str, str]:
    """The environment of a run: all that Ansible keeps is below the directory."""
    (directory / "tmp").mkdir(exist_ok=True)
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MAILFLEET_"))}
    return {
        **mine, "ANSIBLE_CONFIG": str(ROOT / ".lab/ansible.cfg"), "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".lab/collections"),
        "ANSIBLE_LOCAL_TEMP": str(directory / "local"), "ANSIBLE_REMOTE_TEMP": str(directory / "remote"),
        "TMPDIR": str(directory / "tmp"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_DEPRECATION_WARNINGS": "false", "LC_ALL": "C.UTF-8",
    }  # fmt: skip


def command(
    directory: Path, inventory: Mapping[str, Any], plays: Sequence[Mapping[str, Any]], *words: str
) -> list[str]:
    """Write inventory and playbook below the directory, and return the command that runs them."""
    write_yaml(directory / "inventory.yml", dict(inventory))
    write_yaml(directory / "play.yml", [dict(one) for one in plays])
    return [PROGRAM, "-i", str(directory / "inventory.yml"), str(directory / "play.yml"), *words]


class Forks:
    """Ansible, loaded once and forked for each run of this process; see tools/lab/ansible_forks.py."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="ansible-forks-")
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tools/lab/ansible_forks.py")], env={**environment(Path(self._place.name)), **settings},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, words: Sequence[str], directory: Path, env: Mapping[str, str], leave_out: str) -> tuple[int, str]:
        """Run a program: its status and what it printed."""
        asked = {
            "words": words, "directory": str(directory), "environment": env, "one_file": True, "leave_out": leave_out
        }  # fmt: skip
        assert self._process.stdin and self._process.stdout
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            _FORKS.clear()
            raise subprocess.TimeoutExpired(list(words), PATIENCE)
        status, output, _errors = json.loads(self._process.stdout.readline())
        return status, Path(output).read_text(errors="replace")

    def end(self) -> None:
        """End the process."""
        self._process.communicate(timeout=120)
        self._place.cleanup()


_FORKS: dict[tuple[tuple[str, str], ...], Forks] = {}
"""Settings of Ansible -> the process that was started with them. The end of the tests ends it."""


def end() -> None:
    """End what was started for the tests of this process."""
    while _FORKS:
        _FORKS.popitem()[1].end()


def run(
    words: Sequence[str], directory: Path, env: Mapping[str, str], leave_out: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook there, with these variables beside those of environment(); all that it prints is in stdout.

    leave_out: a pattern; with --step, somebody answers no to the questions in which it is found, and yes to the others.
    """
    ours = environment(directory)
    settings = {name: value for name, value in env.items() if name.startswith("ANSIBLE_") and ours.get(name) != value}
    key = tuple(sorted(settings.items()))
    if key not in _FORKS:
        _FORKS[key] = Forks(settings)
    status, output = _FORKS[key].run(["ansible-playbook", *words], directory, {**ours, **env}, leave_out)
    return subprocess.CompletedProcess(words, status, output)


def run_playbook(
    directory: Path,
    inventory: Mapping[str, Any],
    plays: Sequence[Mapping[str, Any]],
    *words: str,
    env: Mapping[str, str] | None = None,
    leave_out: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run the plays. What is printed is in stdout, with what goes to stderr. leave_out: see run()."""
    ran = command(directory, inventory, plays, *words)
    if any(name.startswith("PYTHON") for name in env or ()):  # read when Python starts
        return subprocess.run(
            ran, cwd=directory, env={**environment(directory), **(env or {})}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=PATIENCE, check=False,
        )  # fmt: skip
    return run(ran[1:], directory, env or {}, leave_out)
