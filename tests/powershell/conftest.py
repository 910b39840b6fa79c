"""What these tests share: an organisation for the stubs, and Ansible's way to it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import powershell
from tests.support.pki import Issued, self_signed
from tools.lab.exchange.first import first_state
from tools.lab.exchange.state import write

TOP = powershell.TOP
SERVER = "EX1"


class Organisation:
    """One server, whose state the stubs change."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "certificates").mkdir(parents=True)
        own: Issued = self_signed(["ex1.example.test", SERVER])
        file = directory / "certificates/1-own.pem"
        file.write_bytes(own.key_pem + own.fullchain_pem)
        self.write(first_state("on_premises", "ex1.example.test", ["example.test"], [file], smart_host="192.0.2.1"))

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.directory / "state.json").read_text()))

    def write(self, state: dict[str, Any]) -> None:
        write(self.directory / "state.json", state)

    def calls(self) -> list[str]:
        """The cmdlets that were called and may change something."""
        file = self.directory / "calls.jsonl"
        return [json.loads(line)["Cmdlet"] for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def organisation(tmp_path: Path) -> Organisation:
    return Organisation(tmp_path / "exchange")


def play(inventory: dict[str, Any], tasks: list[dict[str, Any]], directory: Path) -> tuple[list[dict[str, Any]], str]:
    """Run tasks against the host ex1: the result of each, and all that was printed."""
    playbook = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    (directory / "playbook.yml").write_text(json.dumps(playbook))
    (directory / "inventory.yml").write_text(json.dumps({"all": {"hosts": {"ex1": inventory}}}))
    results = directory / "results"
    results.unlink(missing_ok=True)
    environment = {
        **powershell.environment(),
        "ANSIBLE_CONFIG": str(TOP / ".lab/ansible.cfg"),
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_CONNECTION_PLUGINS": str(powershell.CONNECTIONS),
        "ANSIBLE_CALLBACK_PLUGINS": str(TOP / "tests/support/callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "whole_results",
        "WHOLE_RESULTS": str(results),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    done = subprocess.run(
        ["ansible-playbook", "-vvv", "--diff", "-i", str(directory / "inventory.yml"), str(directory / "playbook.yml")],
        cwd=TOP, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = results.read_text().splitlines() if results.exists() else []
    return [one["result"] for one in map(json.loads, lines) if "result" in one], done.stdout + done.stderr


def piped(directory: Path) -> dict[str, Any]:
    """A host whose modules run in a PowerShell here, with the stubs."""
    variables = powershell.environment(directory)
    names = ("PSModulePath", "EXCHANGE_STUBS_DIRECTORY", "EXCHANGE_STUBS_ROOT")
    return {
        "ansible_connection": "pwsh_pipe",
        "ansible_pwsh_pipe_program": powershell.required(),
        "ansible_pwsh_pipe_environment": {name: variables[name] for name in names},
        "ansible_host": "192.0.2.2",
    }
