"""tls_plan: the plan as a real playbook makes and shows it, from what its hosts registered."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.support.plan_states import config, gateway, plain, server

ROOT = Path(__file__).resolve().parents[4]
SCHEMA = json.loads((ROOT / "docs/schema/plan.schema.json").read_text())
FULL = [{"code": "no_disk_space", "message": "/etc is full {{ 1 + 1 }}\nm9 is fine"}]
INVENTORY = {
    "all": {
        "vars": {
            "ansible_connection": "local", "email_configs": [config(mode="required")], "starttls_hostname": "{{ inventory_hostname }}.test",
        },
        "children": {
            "mail_gateways": {"hosts": {"gw1": {"said": gateway(probes=[plain("m1.test")])}}},
            "mail_servers": {"hosts": {"m1": {"said": server("m1", drift=True)}, "m2": {"said": server("m2", obstacles=FULL)}}},
        },
    }
}  # fmt: skip
ESTATE = "{{ email_configs | mailfleet.starttls.estate(hostvars, ansible_play_hosts_all) }}"
TASKS = {
    "blocked": {"estate": ESTATE, "json_file": "{{ playbook_dir }}/plan.json"},
    "only_shown": {"estate": ESTATE, "plan_only": True, "fail_on": "never"},
    "batches": {"estate": ESTATE, "batches": "many"},
    "no_directory": {"estate": ESTATE, "json_file": "{{ playbook_dir }}/no/plan.json"},
    "no_estate": {},
    "action": {"estate": ESTATE, "action": "explode"},
}


def play(directory, *words):
    """Run the playbook with all the tasks: the results by name, and what it printed."""
    # What a module registered is no template, as what a debug task says here would be.
    read = {
        "name": "read",
        "ansible.builtin.slurp": {"src": "{{ playbook_dir }}/{{ inventory_hostname }}"},
        "register": "raw",
    }
    observe = {
        "name": "observe",
        "ansible.builtin.set_fact": {"mail_server_observed": "{{ raw.content | b64decode | from_json }}"},
    }
    tasks = [
        {"name": name, "mailfleet.starttls.tls_plan": given, "register": f"run_{name}", "ignore_errors": True, "run_once": True}
        for name, given in TASKS.items()
    ]  # fmt: skip
    found = "{{ {" + ", ".join(f"'{name}': run_{name}" for name in TASKS) + "} | to_json }}"
    copy = {"content": found, "dest": str(directory / "results"), "mode": "0600"}
    tasks.append({"ansible.builtin.copy": copy, "run_once": True, "check_mode": False})
    inventory = json.loads(json.dumps(INVENTORY))
    for group in inventory["all"]["children"].values():
        for host, facts in group["hosts"].items():
            (directory / host).write_text(json.dumps(facts.pop("said")))
    (directory / "inventory.yml").write_text(yaml.safe_dump(inventory))
    hosts = {"hosts": "mail_gateways:mail_servers", "gather_facts": False, "tasks": [read, observe, *tasks]}
    (directory / "play.yml").write_text(yaml.safe_dump([hosts], width=10000))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "play.yml", *words],
        cwd=directory,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / ".lab/ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
            "ANSIBLE_REMOTE_TEMP": str(directory / "remote"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((directory / "results").read_text()), done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls_plan")
    return (*play(directory), directory)


def test_a_blocked_plan_stops_a_run(runs):
    results, printed, directory = runs
    result = results["blocked"]
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"].startswith("the plan is blocked: 3 hosts, 1 to change, 1 blocked (m2); nothing was changed. ")
    assert result["msg"].endswith(". m2: /etc is full {{ 1 + 1 }}?m9 is fine")
    assert result["table"] in printed
    assert "\nIn the way\n  m2: /etc is full {{ 1 + 1 }}?m9 is fine\n" in printed
    assert {host: one["state"] for host, one in result["plan"]["hosts"].items()} == {
        "gw1": "clean",
        "m1": "drift",
        "m2": "blocked",
    }
    assert result["plan"]["steps"] == {"offer": {"hosts": ["m1"], "batches": [1]}}
    written = json.loads((directory / "plan.json").read_text())
    assert written == result["plan"]
    jsonschema.Draft202012Validator(SCHEMA).validate(written)


def test_a_plan_alone_fails_as_wanted(runs):
    assert (runs[0]["only_shown"]["failed"], runs[0]["only_shown"]["plan"]["result"]) == (False, "blocked")


@pytest.mark.parametrize(
    ("name", "words"),
    [("batches", "starttls_batches: 'many' is not the size of a batch"), ("no_directory", "there is no directory for"),
     ("no_estate", "missing required arguments: estate"), ("action", "value of action must be one of: enable, disable, set_delivery_mode")],
)  # fmt: skip
def test_what_it_refuses(runs, name, words):
    assert runs[0][name]["failed"] and words in runs[0][name]["msg"]


def test_check_mode_is_a_plan_alone(tmp_path):
    results, printed = play(tmp_path, "--check")
    assert results["blocked"]["failed"] and "plan_tls.yml" not in results["blocked"]["msg"]
    assert (tmp_path / "plan.json").exists() and "Plan: enable: blocked" in printed
