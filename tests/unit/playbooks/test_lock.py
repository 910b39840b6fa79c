"""A run that stops half way releases the lock of the fleet, whichever host fails or is lost at whichever step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.canned_fleet import WAITS, canned_fleet
from tests.support.canned_host import arguments_of
from tests.support.plan_states import gateway, server
from tests.support.playbooks import PLAYBOOKS, ROOT, run_playbook

FAILED = {
    "failed": True,
    "changed": False,
    "restored": True,
    "msg": "the daemon did not answer",
    "before": {},
    "after": {},
    "diff": [],
}
NO_TESTS = {"probe": {"results": [], "certificates": {}}}
KILLED = {"journal": {"path": "/var/lib/mailfleet-starttls/postfix.journal", "files": ["/etc/postfix/main.cf"]}}
CONNECTIONS = {"ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "tests/support/connection_plugins")}


KILLED_GATEWAY = {"gw1": {"gateway_info": {**gateway("gw1", drift=True), **NO_TESTS, **KILLED}}}
KILLED_SERVER = {"m1": {"mail_server_info": {**server("m1", drift=True), **NO_TESTS, **KILLED}}}
CASES = [
    ("enable_tls", "gw1", "gateway_tls", {}),
    ("enable_tls", "m1", "mail_server_tls", {}),
    ("disable_tls", "m1", "mail_server_tls", {}),
    ("uninstall", "gw1", "gateway_tls", {}),
    ("undo_workflow", "m1", "mail_server_tls", {}),
    ("enable_tls", "gw1", "gateway_tls", KILLED_GATEWAY),
    ("enable_tls", "m1", "mail_server_tls", KILLED_SERVER),
    ("recover_deferred_mail", "m1", "mail_server_tls", WAITS),
    ("recover_deferred_mail", "gw1", "gateway_tls", WAITS),
]


def run(
    directory: Path, name: str, answers: dict[str, Any], lost: dict[str, dict[str, str]] | None = None, **facts: Any
) -> str:
    """Run a playbook that fails after it has taken the lock: what it prints. lost: host -> options of local_lost."""
    inventory = canned_fleet(directory, answers, starttls_changes={}, starttls_send_messages=False, **facts)
    for host, options in (lost or {}).items():
        group = "mail_gateways" if host == "gw1" else "mail_servers"
        ways = {f"ansible_local_lost_{option}": value for option, value in options.items()}
        inventory["all"]["children"][group]["hosts"][host] |= {"ansible_connection": "local_lost", **ways}
    done = run_playbook(directory, inventory, [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}], env=CONNECTIONS)
    assert done.returncode != 0, done.stdout
    assert "Take the lock of the fleet" in done.stdout, done.stdout
    assert arguments_of(directory / "gw1", "fleet_lock")["state"] == "released", done.stdout
    return " ".join(done.stdout.split())


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "host", "module", "answers"), CASES)
def test_a_run_that_stops_releases_the_lock(
    tmp_path: Path, name: str, host: str, module: str, answers: dict[str, Any]
) -> None:
    failing = {**answers, host: {**answers.get(host, {}), module: FAILED}}
    assert "the daemon did not answer" in run(tmp_path, name, failing)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "host", "module", "answers"), CASES)
def test_a_run_that_loses_a_host_releases_the_lock(
    tmp_path: Path, name: str, host: str, module: str, answers: dict[str, Any]
) -> None:
    assert "the host is lost" in run(tmp_path, name, answers, {host: {"module": module}})


@pytest.mark.exhaustive
@pytest.mark.parametrize("gateway_fails", [True, False])
@pytest.mark.parametrize("lost", [True, False])
def test_a_recovery_that_cannot_put_a_server_back_says_so_and_releases_the_lock(
    tmp_path: Path, gateway_fails: bool, lost: bool
) -> None:
    """It has TLS off by then. Either the gateway fails, or the server itself at its next step."""
    answers = {**WAITS, "gw1": {"gateway_tls": FAILED}} if gateway_fails else WAITS
    if lost:
        gone = {"m1": {"module": "mail_server_tls", "after": str(tmp_path / "m1/mail_server_tls.sent")}}
        said, why = run(tmp_path, "recover_deferred_mail", answers, gone), "the host is lost"
    else:
        again = {**answers, "m1": {**WAITS["m1"], "mail_server_tls.later": FAILED}}
        said, why = run(tmp_path, "recover_deferred_mail", again), "the daemon did not answer"
    assert re.search(f"These could not be put back, and send without TLS now: m1: [^;]*{why}", said), said
    assert ("gw1: the daemon did not answer" in said) == gateway_fails, said


@pytest.mark.exhaustive
def test_a_second_plan_that_fails_releases_the_lock(tmp_path: Path) -> None:
    """The run has the lock by then, as it has undone what a killed run left."""
    second = "{{ '/dev/null/plan.json' if plan_tls_recovered | default(false) else '' }}"
    assert "starttls_plan_file" in run(tmp_path, "enable_tls", KILLED_SERVER, starttls_plan_file=second)
