"""A run that stops half way releases the lock of the fleet, whichever host fails or is lost at whichever step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.deferred import WAIT_CAUSES

from tests.support.canned_fleet import canned_fleet
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


def waits_for_the_gateway() -> dict[str, Any]:
    """What deferred_mail_info says of a mail server that requires TLS, behind a gateway that does not offer it."""
    message = {
        "queue_id": "1", "instance": "", "queue": "deferred", "sender": "a@a.example", "recipient": "b@b.example", "size": 1,
        "arrived": None, "reason": "TLS is required", "next_hop": "gw1.test", "next_hop_address": "192.0.2.7", "next_hop_port": 25,
        "next_try": None, "held": False, "cause": "not_offered", "said": "", "side": WAIT_CAUSES["not_offered"].side, "for_tls": True,
    }  # fmt: skip
    return {
        "changed": False, "looked": True, "message": "", "waiting": 1, "for_tls": 1, "held": 0, "instances": [], "causes": {},
        "messages": [message], "left_out": 0, "returned": [],
    }  # fmt: skip


REQUIRES = {**server("m1"), **NO_TESTS, "before": {"inbound": "disabled", "outbound": "required"}}
WAITS = {"m1": {"deferred_mail_info": waits_for_the_gateway(), "mail_server_info": REQUIRES}}
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


@pytest.mark.exhaustive
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(("name", "host", "module", "answers"), CASES)
def test_a_run_that_stops_releases_the_lock(
    tmp_path: Path, name: str, host: str, module: str, answers: dict[str, Any], lost: bool
) -> None:
    said = {one: dict(given) for one, given in answers.items()}
    if not lost:
        said.setdefault(host, {})[module] = FAILED
    inventory = canned_fleet(tmp_path, said, starttls_changes={}, starttls_send_messages=False)
    if lost:
        group = "mail_gateways" if host == "gw1" else "mail_servers"
        inventory["all"]["children"][group]["hosts"][host] |= {
            "ansible_connection": "local_lost", "ansible_local_lost_module": module
        }  # fmt: skip
    plays = [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}]
    done = run_playbook(tmp_path, inventory, plays, env=CONNECTIONS)
    assert done.returncode != 0, done.stdout
    assert "Take the lock of the fleet" in done.stdout, done.stdout
    assert arguments_of(tmp_path / "gw1", "fleet_lock")["state"] == "released", done.stdout
    assert ("the host is lost" if lost else "the daemon did not answer") in done.stdout, done.stdout
