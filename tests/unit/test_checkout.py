"""What a checkout shows to those who use it as it is: AWX, which lists playbooks, and git, which lists what is new."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

# AWX's rule for the list of a project's playbooks: these lines, in a YAML file, except in these directories.
LINE = re.compile(r"^\s*?-?\s*?(?:hosts|(?:ansible\.builtin\.)?import_playbook|include):\s*?.*?$")
LEFT_OUT = re.compile(r"(^|/)(\.[^/]+|roles|tasks|group_vars|host_vars)/")

# What AWX lists beside playbooks/, and why it has to be there.
KNOWN = {
    "awx/load.yml": "loads the objects beside it into AWX, and is run from elsewhere",
    "molecule/*/*.yml": "Molecule wants a scenario's playbooks beside it",
    "tools/lab/playbooks/*.yml": "the lab's own: starting state, what the demo shows first",
    "tests/bench/rival.yml": "what the bench compares the roll-out with",
    "tests/bench/ping.yml": "what the bench counts from",
    "tests/bench/read.yml": "the call that the bench measures alone",
}


def listed() -> list[str]:
    """The files that AWX would list, from the top of the checkout; links are not followed."""
    found = []
    for directory, below, names in os.walk(TOP):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            path = Path(directory, name)
            relative = path.relative_to(TOP).as_posix()
            if path.suffix not in (".yml", ".yaml") or path.is_symlink() or LEFT_OUT.search(relative):
                continue
            if any(LINE.match(line) for line in path.read_text(errors="replace").splitlines()):
                found.append(relative)
    return sorted(found)


def test_awx_lists_the_playbooks_and_what_is_known_to_stand_elsewhere():
    found = listed()
    playbooks = {path.relative_to(TOP).as_posix() for path in (TOP / "playbooks").glob("*.yml")}
    assert playbooks and playbooks <= set(found)
    elsewhere = [name for name in found if name not in playbooks]
    assert [name for name in elsewhere if not any(fnmatch(name, pattern) for pattern in KNOWN)] == []


def test_each_known_exception_is_still_there():
    found = listed()
    assert [pattern for pattern in KNOWN if not any(fnmatch(name, pattern) for name in found)] == []


def test_what_is_generated_is_ignored_by_git():
    if shutil.which("git") is None or not (TOP / ".git").exists():
        pytest.skip("not a git checkout")
    generated = [
        ".lab/inventory.yml", ".lab/ansible.cfg", ".lab/test/ssh/id_ed25519", ".venv", ".cache/ansible/tmp", "tests/output/x",
        "mailfleet-starttls-0.1.0.tar.gz", ".mypy_cache/x", ".ruff_cache/x", ".pytest_cache/x", ".hypothesis/x", ".ansible/x",
        "plugins/modules/__pycache__/x.pyc",
    ]  # fmt: skip
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "check-ignore", *generated],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == generated
