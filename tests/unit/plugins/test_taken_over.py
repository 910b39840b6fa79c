"""A managed host that somebody else has taken over says something about itself alone."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.canned_host import canned_host
from tests.support.playbooks import run_playbook

OURS = "mailfleet.starttls"


def test_a_host_sets_no_variable_of_the_run(tmp_path: Path) -> None:
    """By Ansible's default, what a module returns as facts comes before the variables of the inventory."""
    taken = {"starttls_private_key_file": "/other.key", "starttls_report_directory": "/x", "tls_action": "disable"}
    more = {
        "ansible_facts": taken,
        "ansible_stats": {"data": taken, "aggregate": True},
        "add_host": {"host_name": "new"},
    }
    modules = ("message_trace", "tls_activity_info")
    host = canned_host(tmp_path / "m1", {one: {"changed": False, **more} for one in modules})
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    tasks = [{f"{OURS}.message_trace": {}}, {f"{OURS}.tls_activity_info": {"daemon": "postfix"}}]
    shown = ["set: {{ " + name + " | default('nothing') }}" for name in taken] + [
        "hosts: {{ groups.all | sort | join(' ') }}"
    ]
    done = run_playbook(
        tmp_path,
        {"all": {"hosts": {"localhost": here, "m1": {**host, "starttls_private_key_file": "nothing"}}}},
        [
            {
                "hosts": "m1",
                "gather_facts": False,
                "tasks": [*tasks, *({"ansible.builtin.debug": {"msg": one}} for one in shown)],
            }
        ],
        env={"ANSIBLE_INJECT_FACT_VARS": "True"},
    )
    assert done.returncode == 0, done.stdout
    assert (done.stdout.count("set: nothing"), 'hosts: localhost m1"' in done.stdout) == (len(taken), True), done.stdout
