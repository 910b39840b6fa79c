"""What a run prints: a failure is one line with the reason, and a table is shown once."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.canned_fleet import canned_fleet
from tests.support.plan_states import server
from tests.support.playbooks import PLAYBOOKS, run_playbook

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
        ("verify_tls", {}, "Fail if a host does not pass", "HOST  DAEMON", "0 of 3 hosts pass; gw1: .*no test was made"),
    ],
)  # fmt: skip
def test_a_failure_is_one_line_with_the_reason(tmp_path, playbook, answers, task, table, said):
    done = run_playbook(
        tmp_path, canned_fleet(tmp_path, answers), [{PLAY: str(PLAYBOOKS / f"{playbook}.yml")}],
        env={"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    [shown] = re.findall(rf"^TASK \[{task}\].*?(?=^PLAY RECAP)", done.stdout, re.M | re.S)
    [line] = [line for line in shown.splitlines() if line.startswith("fatal: ")]
    result = json.loads(line.partition(" => ")[2])
    assert set(result) == {"changed", "msg"} and "\n" not in result["msg"]
    assert re.match(said, result["msg"])
    assert done.stdout.count(table) == 1
