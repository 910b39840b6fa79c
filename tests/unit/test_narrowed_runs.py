"""A run that is narrowed until it tests or plans nothing fails and says so: it is no success."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.playbooks import PLAYBOOKS, ROOT, run_playbook

LOCAL = {"ansible_connection": "local"}
ALL = {"all": {"children": {"mail_servers": {"hosts": {"mx": LOCAL}}, "web": {"hosts": {"www": LOCAL}}}}}
OTHERS = {"all": {"children": {"web": {"hosts": {"www": LOCAL}}}}}
NARROWED = {
    "tags": (ALL, "--tags", "nothing"),
    "skipped tags": (ALL, "--skip-tags", "untagged,all"),
    "limit": (ALL, "--limit", "www"),
    "groups": (OTHERS,),
    "empty groups": ({"all": {"children": {"mail_servers": {}, "web": {"hosts": {"www": LOCAL}}}}},),
    "no host": ({"all": {}},),
    "limit and check": (ALL, "--limit", "www", "--check"),
}
WORDS = {"verify_tls": "tested", "report_tls": "tested", "recover_deferred_mail": "looked for"}
SAMPLE = [
    ("verify_tls", "tags"), ("verify_tls", "limit"), ("verify_tls", "no host"), ("report_tls", "tags"), ("enable_tls", "limit"),
    ("recover_deferred_mail", "limit"),
]  # fmt: skip
EVERY = [
    (name, one)
    for name in (
        "verify_tls",
        "report_tls",
        "plan_tls",
        "enable_tls",
        "disable_tls",
        "set_delivery_mode",
        "undo_workflow",
        "recover_deferred_mail",
        "rotate_certificate",
    )
    for one in NARROWED
]


def check(directory: Path, name: str, how: str) -> None:
    inventory, *words = NARROWED[how]
    done = run_playbook(directory, inventory, [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}], *words)
    assert done.returncode != 0, done.stdout
    assert (
        f"Nothing was {WORDS.get(name, 'planned')}: --tags or --skip-tags left the tasks out, or no host of the groups"
        in " ".join(done.stdout.split())
    ), done.stdout


@pytest.mark.parametrize(("name", "how"), SAMPLE)
def test_a_narrowed_run_fails(tmp_path: Path, name: str, how: str) -> None:
    check(tmp_path, name, how)


def test_a_run_without_any_task_cannot_fail_and_the_documentation_says_so(tmp_path: Path) -> None:
    words = ("--skip-tags", "always,all")
    done = run_playbook(tmp_path, ALL, [{"import_playbook": str(PLAYBOOKS / "verify_tls.yml")}], *words)
    assert (done.returncode, "TASK" in done.stdout) == (0, False), done.stdout
    assert f"`{' '.join(words)}` leaves out every task" in (ROOT / "docs/verification.md").read_text(encoding="utf-8")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "how"), [one for one in EVERY if one not in SAMPLE])
def test_every_narrowed_run_fails(tmp_path: Path, name: str, how: str) -> None:
    check(tmp_path, name, how)


def test_a_check_of_verify_tls_tests(tmp_path: Path) -> None:
    """There is no mail server on this port, and that is seen."""
    facts = {
        **LOCAL,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "starttls_port": 1,
        "starttls_kind": "postfix",
    }
    inventory = {"all": {"children": {"mail_servers": {"hosts": {"mx": {**facts, "starttls_hostname": "127.0.0.1"}}}}}}
    done = run_playbook(tmp_path, inventory, [{"import_playbook": str(PLAYBOOKS / "verify_tls.yml")}], "--check")
    assert done.returncode != 0
    assert "mx: error: cannot connect to 127.0.0.1:1: Connection refused" in done.stdout, done.stdout
    assert "Send the messages" not in done.stdout
