"""Real runs of ansible-playbook, with the ansible-core of the Python that runs the tests and nothing of the user's configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(sys.executable).with_name("ansible-playbook"))
PLAYBOOKS = ROOT / "playbooks"


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


def run_playbook(
    directory: Path,
    inventory: Mapping[str, Any],
    plays: Sequence[Mapping[str, Any]],
    *words: str,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the plays. What is printed is in stdout, with what goes to stderr."""
    return subprocess.run(
        command(directory, inventory, plays, *words), cwd=directory, env={**environment(directory), **(env or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        timeout=300, check=False,
    )  # fmt: skip
