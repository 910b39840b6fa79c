"""A run that begins in the middle says what was left out and what to run. It changes nothing, and no variable is undefined."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.canned_fleet import canned_fleet
from tests.support.playbooks import PLAYBOOKS, command, environment, run_playbook

NAMES = [
    "plan_tls", "enable_tls", "disable_tls", "set_delivery_mode", "undo_workflow", "uninstall", "verify_tls", "report_tls",
    "recover_deferred_mail",
]  # fmt: skip
CHANGES = ("mail_server_tls", "gateway_tls", "peer_tls", "deferred_mail", "tls_certificate")
VARIABLES = {
    "starttls_email_config": "main", "starttls_delivery_mode": "required", "starttls_changes": {}, "starttls_send_messages": False
}  # fmt: skip
UNDEFINED = re.compile(
    r"is undefined|has no attribute|Traceback|Unexpected (failure|Exception)|VARIABLE IS NOT DEFINED|MODULE FAILURE"
)


def tasks_of(directory: Path, name: str) -> list[str]:
    """The names of all tasks of a playbook, each once, in their order."""
    words = command(
        directory, canned_fleet(directory), [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}], "--list-tasks"
    )
    listed = subprocess.run(
        words, cwd=directory, env=environment(directory), capture_output=True, text=True, timeout=300, check=True
    )
    return list(dict.fromkeys(re.findall(r"(?m)^      (\S.*?)\tTAGS: ", listed.stdout)))


def start_at(directory: Path, name: str, task: str) -> str:
    """Start a playbook at a task, and return what is wrong with what it says or does; nothing if all is well."""
    inventory = canned_fleet(directory, **VARIABLES)
    plays = [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}]
    done = run_playbook(directory, inventory, plays, "--start-at-task", task.partition(" : ")[2] or task)
    said = " ".join(done.stdout.split())
    changed = [path.name for path in directory.glob("*/*.sent") if path.stem in CHANGES]
    for path in directory.glob("*/*.sent"):
        path.unlink()
    if found := UNDEFINED.search(said):
        return f"{task}: it says {found[0]!r}:\n{done.stdout}"
    if changed:
        return f"{task}: it calls {changed}:\n{done.stdout}"
    return ""


@pytest.mark.parametrize(
    ("name", "task", "says"),
    [
        ("enable_tls", "Read the gateway, and what the change would do", "this run has not read the inventory"),
        ("disable_tls", "Change the mail server in one transaction, and prove it", "this run has no plan"),
    ],
)
def test_a_run_that_begins_in_the_middle_says_so(tmp_path: Path, name: str, task: str, says: str) -> None:
    inventory = canned_fleet(tmp_path, **VARIABLES)
    plays = [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}]
    done = run_playbook(tmp_path, inventory, plays, "--start-at-task", task)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0, done.stdout
    assert says in said, done.stdout
    assert "without --start-at-task" in said, done.stdout
    assert not UNDEFINED.search(said), done.stdout
    assert not [path for path in tmp_path.glob("*/*.sent") if path.stem in CHANGES]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_a_run_may_begin_at_each_task(tmp_path: Path, name: str) -> None:
    tasks = tasks_of(tmp_path, name)
    assert len(tasks) > 5
    wrong = [found for task in tasks if (found := start_at(tmp_path, name, task))]
    assert wrong == [], "\n\n".join(wrong)
