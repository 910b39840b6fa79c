"""Another run changes the fleet: a run that would change it stops at its plan, before its first change, and says who has the lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.canned_fleet import canned_fleet
from tests.support.plan_states import gateway
from tests.support.playbooks import PLAYBOOKS, run_playbook

LOCK = {
    "user": "alice", "controller": "control.example.com", "playbook": "disable_tls", "run": "a1", "process": "",
    "since": 1_800_000_000.0, "age": 720.0,
}  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["enable_tls", "disable_tls"])
def test_a_second_run_changes_nothing(tmp_path: Path, name: str) -> None:
    read = {**gateway("gw1", drift=True), "probe": {"results": [], "certificates": {}}, "fleet_lock": LOCK}
    inventory = canned_fleet(tmp_path, {"gw1": {"gateway_info": read}}, starttls_send_messages=False)
    done = run_playbook(tmp_path, inventory, [{"import_playbook": str(PLAYBOOKS / f"{name}.yml")}])
    changes = ("fleet_lock", "gateway_tls", "mail_server_tls", "peer_tls", "tls_certificate")
    assert [str(one) for one in tmp_path.glob("*/*.sent") if one.stem in changes] == [], done.stdout
    assert done.returncode != 0, done.stdout
    assert len(list(tmp_path.glob("*/gateway_info.sent"))) == 1
    said = " ".join(done.stdout.split())
    assert "holds its lock on gw1: disable_tls, run by alice on control.example.com" in said, done.stdout
