"""A run that begins in the middle says what was left out and what to run. It changes nothing, and no variable is undefined."""

from __future__ import annotations

import hashlib
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.probe import record
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.canned_fleet import WAITS, canned_fleet
from tests.support.pki import self_signed
from tests.support.plan_states import gateway, server
from tests.support.playbooks import PLAYBOOKS, ROOT, command, environment, run_playbook

NAMES = [
    "plan_tls", "enable_tls", "disable_tls", "set_delivery_mode", "undo_workflow", "uninstall", "verify_tls", "report_tls",
    "recover_deferred_mail", "rotate_certificate",
]  # fmt: skip
CHANGES = ("mail_server_tls", "gateway_tls", "peer_tls", "deferred_mail", "tls_certificate")
VARIABLES = {
    "starttls_email_config": "main", "starttls_delivery_mode": "match_sender", "starttls_changes": {}, "starttls_send_messages": False,
    "starttls_report_url": "http://127.0.0.1:1/", "starttls_fail_on": "error",
}  # fmt: skip
NO_CHANGE_WITHOUT = (
    "Read the hosts of the run and the delivery of their mail", "Show what is there, what will change, and what stands in the way",
    "Keep the plan for the steps", "Take the lock of the fleet", "Note where the lock is", "Read the hosts of the run",
    "Show what waits, and what has to be done", "Keep it for the steps",
)  # fmt: skip
"""Whoever leaves one of these tasks out gets no change."""
FIRST = "Read the hosts of the run and the delivery of their mail"
"""A run that begins there is a whole one, and may change the hosts."""
UNDEFINED = re.compile(
    r"is undefined|has no attribute|Traceback|Unexpected (failure|Exception)|VARIABLE IS NOT DEFINED|MODULE FAILURE"
)


def tasks_of(directory: Path, name: str) -> list[str]:
    """The names of all tasks of a playbook, each once, in their order."""
    words = command(
        directory, canned_fleet(directory), [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}], "--list-tasks"
    )
    listed = subprocess.run(
        words, cwd=directory, env=environment(directory), capture_output=True, text=True, timeout=900, check=True
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
    if changed and task != FIRST:
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


def passed(name: str) -> dict[str, Any]:
    """What starttls_probe says of a server that passes."""
    der = self_signed([name]).certificate.public_bytes(Encoding.DER)
    seen = record(Handshake(Target(name), stage=Stage.EHLO_TLS, tls_version="TLSv1.3", trusted=True, chain=(der,)))
    certificates = {hashlib.sha256(der).hexdigest(): ssl.DER_cert_to_PEM_cert(der)}
    return {"changed": False, "results": [seen], "certificates": certificates, "expectations": [{}]}


def step_through(directory: Path, name: str, leave_out: str = "") -> str:
    """Run a playbook with --step, and answer no to one task. Every change succeeds; m2 needs none. Returns what is printed."""
    tested = {"starttls_probe": passed("m1.test")}
    untested = {"probe": {"results": [], "certificates": {}}}
    ready = {**server("m2"), **untested}
    changes = gateway("gw1", drift=True, view={"changes": [{"path": "/etc/postfix/transport", "lines": "+x\n"}]})
    answers = {
        "gw1": {**tested, "gateway_info": {**changes, **untested}},
        "m1": tested,
        "m2": {"mail_server_info": ready},
    }
    inventory = canned_fleet(directory, WAITS if name == "recover_deferred_mail" else answers, **VARIABLES)
    plays = [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}]
    question = rf"TASK: {re.escape(leave_out)} (on \w+ )?\(N\)o" if leave_out else r"(?!)"
    return run_playbook(directory, inventory, plays, "--step", leave_out=question).stdout


def asked(printed: str) -> list[str]:
    """The tasks that a run asked about, each once, in their order."""
    return list(dict.fromkeys(re.findall(r"TASK: (.*?) (?:on \w+ )?\(N\)o", printed)))


def with_a_result() -> set[str]:
    """The names of the tasks of playbooks and roles that leave a variable. The others may be left out: nothing depends on them."""
    found: set[str] = set()
    for path in [*PLAYBOOKS.glob("**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]:
        for one in _mappings(yaml.safe_load(path.read_text())):
            if "register" in one or "ansible.builtin.set_fact" in one:
                found.add(one["name"])
    return found


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _mappings(one)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_each_task_with_a_result_may_be_left_out(tmp_path: Path, name: str) -> None:
    """Those of plan_tls and verify_tls are left out there and in enable_tls, not in each playbook that has them."""
    shared = [] if name in ("plan_tls", "verify_tls", "enable_tls") else [
        task for other in ("plan_tls", "verify_tls") for task in asked(step_through(tmp_path, other))
    ]  # fmt: skip
    needed = with_a_result()
    whole = step_through(tmp_path, name)
    tasks = [one for one in asked(whole) if one.rpartition(" : ")[2] in needed and one not in shared]
    assert tasks, whole
    wrong = []
    for task in tasks:
        for path in tmp_path.glob("*/*.sent"):
            path.unlink()
        printed = step_through(tmp_path, name, task)
        changed = [path.name for path in tmp_path.glob("*/*.sent") if path.stem in CHANGES]
        if found := UNDEFINED.search(" ".join(printed.split())):
            wrong.append(f"{task}: it says {found[0]!r}:\n{printed}")
        elif changed and task in NO_CHANGE_WITHOUT:
            wrong.append(f"{task}: it calls {changed}:\n{printed}")
    assert wrong == [], "\n\n".join(wrong)
