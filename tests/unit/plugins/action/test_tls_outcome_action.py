"""tls_outcome: a real run that stops at the step that failed, and shows where every host stands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
OFFERED = {"changed": True, "after": {"inbound": "offered"}}
FAILED = {"failed": True, "restored": True, "msg": "no handshake\nm2 is {{ 1 + 1 }} \x1b[31mfine"}
BAD_TEST = {
    "name": "m1.test", "port": 25, "findings": [{"severity": "error", "code": "expired", "message": "the certificate has expired"}],
}  # fmt: skip
PLAN = {
    "hosts": {"gw1": {"role": "gateway"}, "m1": {"role": "mail_server"}, "m2": {"role": "mail_server"}, "m3": {"role": "mail_server"}},
    "steps": {
        "accept": {"hosts": ["gw1"], "batches": [1]},
        "offer": {"hosts": ["m1", "m2"], "batches": [1, 1]},
        "modes": {"hosts": [], "batches": []},
        "require": {"hosts": [], "batches": []},
    },
}  # fmt: skip
REGISTERED = {
    "gw1": {"gateway_accept_result": OFFERED},
    "m1": {"mail_server_result": OFFERED, "verify_from_a_gateway": {"results": [BAD_TEST]}},
    "m2": {"mail_server_result": FAILED},
    "m3": {},
}
ALWAYS = {"check_mode": False}
TASKS = {
    "done": {"step": "accept"},
    "failed": {"step": "offer", "tests": [{"inventory_host": "m1", "findings": []}]},
    "tested": {"step": "offer", "results": {"m1": OFFERED, "m2": OFFERED}},
    "given": {"step": "offer", "plan": {"hosts": {}, "steps": {"offer": {"hosts": []}}}},
    "wrong_step": {"step": "off"},
    "no_step": {},
    "bad_option": {"step": "accept", "stepp": "x"},
}


def play(directory, tasks, plan, *words):
    """Run the tasks on the hosts of the plan: the results by name, what was printed, and the exit status."""
    inventory = {
        "all": {
            "vars": {"ansible_connection": "local", "starttls_hostname": "{{ inventory_hostname }}.test"},
            "hosts": dict.fromkeys(PLAN["hosts"]),
        }
    }
    (directory / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (directory / "plan").write_text(json.dumps(plan))
    for host, facts in REGISTERED.items():
        (directory / host).write_text(json.dumps(facts))
    found = "{{ {" + ", ".join(f"'{name}': run_{name} | default({{}})" for name in tasks) + "} | to_json }}"
    made = [
        {"ansible.builtin.slurp": {"src": "{{ playbook_dir }}/{{ inventory_hostname }}"}, "register": "raw"},
        # What a module registered is no template.
        {
            "ansible.builtin.set_fact": {
                f"{name}": f"{{{{ (raw.content | b64decode | from_json).{name} | default({{}}) }}}}"
                for name in ("gateway_accept_result", "mail_server_result", "verify_from_a_gateway")
            }
        },
        {"ansible.builtin.slurp": {"src": "{{ playbook_dir }}/plan"}, "register": "raw_plan", "run_once": True},
        {
            "ansible.builtin.set_fact": {"tls_plan": "{{ raw_plan.content | b64decode | from_json }}"},
            "delegate_to": "localhost", "delegate_facts": True, "run_once": True,
        },
        *(
            {"name": name, "mailfleet.starttls.tls_outcome": given, "register": f"run_{name}", "ignore_errors": True, "run_once": True}
            for name, given in tasks.items()
        ),
        {"ansible.builtin.copy": {"content": found, "dest": str(directory / "results"), "mode": "0600"}, "run_once": True, **ALWAYS},
    ]  # fmt: skip
    (directory / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": made}], width=10000)
    )
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
    return play(tmp_path_factory.mktemp("tls_outcome"), TASKS, PLAN)


def states(result):
    return {host: one["state"] for host, one in result["hosts"].items()}


def test_a_step_that_is_done_shows_nothing(runs):
    results, printed = runs
    assert (results["done"]["failed"], results["done"]["changed"]) == (False, False)
    assert states(results["done"])["gw1"] == "done: accept"
    before = printed.partition("TASK [failed]")[0]
    assert "THE RUN STOPPED" not in before and "HOST" not in before


def test_a_step_that_failed_stops_the_run_and_shows_all_hosts(runs):
    results, printed = runs
    result = results["failed"]
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"] == (
        "the run stops at the step offer, because of m2: failed, restored: offer: no handshake?m2 is {{ 1 + 1 }} ?[31mfine. Hosts that are "
        "not started are unchanged. Repair that and run again: completed steps are not repeated"
    )
    assert "hosts" not in result  # the table has them
    shown = printed.partition("TASK [failed]")[2].partition("TASK [tested]")[0]
    assert "\nTHE RUN STOPPED\n\nHOST  ROLE         STATE" in shown
    for line in ("gw1   gateway      done: accept", "m1    mail_server  done: offer", "m3    mail_server  no change"):
        assert f"\n{line}" in shown
    # What a host says stays on its line, and is no template.
    assert "\nm2: no handshake?m2 is {{ 1 + 1 }} ?[31mfine\n" in shown


def test_a_handshake_test_from_a_gateway_counts(runs):
    result = runs[0]["tested"]
    assert (
        result["failed"]
        and "because of m1: failed the handshake test: offer: the certificate has expired. " in result["msg"]
    )


def test_a_plan_that_is_given_counts(runs):
    assert (runs[0]["given"]["failed"], runs[0]["given"]["hosts"]) == (False, {})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong_step", "step 'off' is not one of the plan: accept, offer, modes, require"),
        ("no_step", "missing required arguments: step"),
        ("bad_option", "stepp"),
    ],
)
def test_what_it_refuses(runs, name, words):
    assert runs[0][name]["failed"] and words in runs[0][name]["msg"]


def test_check_mode_is_the_same_and_without_a_plan_nothing_goes_on(tmp_path):
    tasks = {name: TASKS[name] for name in ("done", "failed")}
    results, printed = play(tmp_path, tasks, {}, "--check")
    for result in results.values():
        assert result["failed"]
        assert "this run has no plan; start the playbook at its beginning, without --start-at-task" in result["msg"]
    assert "THE RUN STOPPED" not in printed
    results, printed = play(tmp_path, tasks, PLAN, "--check")
    assert (results["done"]["failed"], results["failed"]["failed"]) == (False, True)
    assert "THE RUN STOPPED" in printed
