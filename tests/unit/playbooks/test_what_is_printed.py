"""What a run prints: a failure is one line with the reason, a table is shown once, and a callback for programs gets no other text."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.action_glue import _is_for_people

from tests.support.canned_fleet import canned_fleet
from tests.support.canned_host import arguments_of
from tests.support.plan_states import server
from tests.support.playbooks import PLAYBOOKS, ROOT, command, environment, run_playbook

FULL = {
    **server("m2", drift=True, obstacles=[{"code": "no_disk_space", "message": "/etc is full"}]),
    "probe": {"results": [], "certificates": {}},
}
FAILED = {
    "failed": True, "changed": False, "restored": True, "msg": "the daemon did not answer", "before": {"inbound": "disabled"},
    "after": {"inbound": "disabled"}, "diff": [{"prepared": "+x\n"}],
}  # fmt: skip
PLAY = "ansible.builtin.import_playbook"


@pytest.mark.parametrize(
    ("playbook", "answers", "task", "table", "said"),
    [
        ("enable_tls", {"m2": {"mail_server_info": FULL}}, "Stop if something stands in the way", "HOST  ROLE",
         "the plan is blocked: .*m2: /etc is full"),
        ("enable_tls", {"m1": {"mail_server_tls": FAILED}}, "Stop here if a mail server failed", "HOST  ROLE         STATE",
         "the run stops at the step offer, because of m1: failed, restored: offer: the daemon did not answer"),
        ("verify_tls", {}, "Fail if a host does not pass", " DAEMON ", "0 of 3 hosts pass; gw1: .*no test was made"),
    ],
)  # fmt: skip
def test_a_failure_is_one_line_with_the_reason(tmp_path, playbook, answers, task, table, said):
    # The usual callback by its short name and by its long one.
    env = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"} if playbook == "verify_tls" else {}
    done = run_playbook(
        tmp_path, canned_fleet(tmp_path, answers), [{PLAY: str(PLAYBOOKS / f"{playbook}.yml")}], env=env
    )
    assert done.returncode == 2, done.stdout
    [shown] = re.findall(rf"^TASK \[{task}\].*?(?=^PLAY RECAP)", done.stdout, re.M | re.S)
    [line] = [line for line in shown.splitlines() if line.startswith("fatal: ")]
    result = json.loads(line.partition(" => ")[2])
    assert set(result) == {"changed", "msg"} and "\n" not in result["msg"]
    assert re.match(said, result["msg"])
    assert done.stdout.count(table) == 1
    assert arguments_of(tmp_path / "gw1", "fleet_lock").get("state", "released") == "released"  # or it was never taken


def test_a_callback_for_programs_gets_nothing_beside_its_document(tmp_path):
    """Nothing is lost: the results have the plan and the table."""
    inventory = canned_fleet(tmp_path, {"m2": {"mail_server_info": FULL}})
    plays = [{PLAY: str(PLAYBOOKS / "enable_tls.yml")}]
    env = {
        **environment(tmp_path), "ANSIBLE_STDOUT_CALLBACK": "one_document",
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/support/callback_plugins"),
    }  # fmt: skip
    done = subprocess.run(
        command(tmp_path, inventory, plays), cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    results = {one["task"]: one["result"] for one in json.loads(done.stdout)}
    shown = results["Show what is there, what will change, and what stands in the way"]
    assert shown["stops"] and "HOST  ROLE" in shown["table"] and shown["plan"]["result"] == "blocked"
    assert "m2: /etc is full" in results["Stop if something stands in the way"]["msg"]


def test_which_callbacks_are_for_people():
    for name in ("default", "ansible.builtin.default", "minimal", "ansible.builtin.oneline"):
        assert _is_for_people(name)
    for name in ("tree", "junit"):
        assert not _is_for_people(name)
