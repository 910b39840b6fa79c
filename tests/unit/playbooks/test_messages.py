"""What a user reads when something is wrong in the inventory or on the controller: the engine's own words, once."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.fake_mailcow import KEY, FakeMailcow
from tests.support.plan_states import config
from tests.support.playbooks import PLAYBOOKS, run_playbook

OURS = "mailfleet.starttls"


def inventory(*hosts: str, gateways: dict[str, Any] | None = None, **facts: Any) -> dict[str, Any]:
    """Mail servers on this machine."""
    servers = dict.fromkeys(hosts)
    children: dict[str, Any] = {"mail_servers": {"hosts": servers}, "mail_gateways": {"hosts": gateways or {}}}
    return {"all": {"vars": {"ansible_connection": "local", **facts}, "children": children}}


def fatal(printed: str) -> list[str]:
    """The lines of tasks that failed."""
    return [line for line in printed.splitlines() if line.startswith("fatal: ")]


def playbook(name: str) -> dict[str, str]:
    return {"import_playbook": str(PLAYBOOKS / f"{name}.yml")}


@pytest.mark.parametrize(
    ("name", "facts", "said"),
    [
        ("plan_tls", {"email_configs": [config("main", "nowhere")]},
         "email config main: the mail server 'nowhere' is not in the inventory; add the host or correct the name; "
         "a slice of an AWX job lacks hosts: set job_slice_count of its template to 1"),
        ("set_delivery_mode", {"email_configs": [config("main", "m1")], "starttls_email_config": "mian"},
         "starttls_email_config: there is no email config 'mian' in the inventory; choose one of: main"),
        ("verify_tls", {"starttls_outside_host": "aut"},
         "starttls_outside_host 'aut' is not in the inventory; add the host or correct the name"),
    ],
)  # fmt: skip
def test_a_playbook_says_what_is_wrong_in_the_inventory(tmp_path, name, facts, said):
    done = run_playbook(tmp_path, inventory("m1", "m2", **facts), [playbook(name)])
    assert done.returncode == 2
    [line] = fatal(done.stdout)
    assert re.fullmatch(r'fatal: \[m1\]: FAILED! => \{"changed": false, "msg": "(.*)"\}', line)[1] == said  # type: ignore[index]
    assert "filter" not in done.stdout


BAD_NAME = {"starttls_hostname": "a b"}
ALONE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    *(
        ({"ansible.builtin.include_role": {"name": f"{OURS}.{role}"}}, BAD_NAME, "starttls_hostname or starttls_port of h")
        for role in ("mail_server", "gateway", "verify", "certificate")
    ),
    ({"ansible.builtin.include_role": {"name": f"{OURS}.verify", "tasks_from": "message"}}, {"starttls_outside_host": "aut"},
     "starttls_outside_host 'aut' is not in the inventory; "),
    ({f"{OURS}.mail_server_tls": {"digests": "{{ inventory_hostname | mailfleet.starttls.planned_digests(hostvars) }}"}}, {},
     "this run has no plan for h"),
    ({f"{OURS}.message_trace": {"receive": "{{ [] | mailfleet.starttls.trace_landings('inbound', inventory_hostname, hostvars) }}"}},
     {"starttls_landing": "x"}, "starttls_landing of h"),
    ({f"{OURS}.message_trace": {"receive": "{{ work.receive }}"}, "vars": {
        "work": "{{ [{'host': inventory_hostname, 'outbound': {}, 'inbound': {'marker': 'x'}}]"
        " | mailfleet.starttls.trace_work(inventory_hostname, hostvars) }}"}},
     {"starttls_landing": "x"}, "starttls_landing of h"),
    ({f"{OURS}.starttls_probe": {"targets": "{{ inventory_hostname | mailfleet.starttls.own_target(hostvars) }}"}}, BAD_NAME,
     "starttls_hostname or starttls_port of h"),
    ({f"{OURS}.tls_report": {"rows": [], "outputs": "{{ 'pdf' | mailfleet.starttls.report_outputs('x') }}"}}, {},
     "starttls_report_formats: 'pdf' is not a format of a report"),
]  # fmt: skip
"""A task, the variables of its host, and the beginning of what it says."""


def test_a_role_or_a_module_alone_says_what_is_wrong_in_the_inventory(tmp_path):
    hosts = {f"h{number}": facts for number, (_task, facts, _said) in enumerate(ALONE)}
    plays = [
        {"hosts": host, "gather_facts": False, "tasks": [{"block": [task], "rescue": [{"ansible.builtin.meta": "clear_host_errors"}]}]}
        for host, (task, _facts, _said) in zip(hosts, ALONE)
    ]  # fmt: skip
    done = run_playbook(tmp_path, {"all": {"vars": {"ansible_connection": "local"}, "hosts": hosts}}, plays)
    for number, (_task, _facts, said) in enumerate(ALONE):
        [line] = [line for line in fatal(done.stdout) if f"[h{number}]" in line]
        assert f'"msg": "{said}' in line
    assert "filter plugin" not in done.stdout


def test_a_missing_library_is_named_once(tmp_path):
    (tmp_path / "python/dns").mkdir(parents=True)
    (tmp_path / "python/dns/__init__.py").write_text("raise ImportError\n")
    hosts = inventory("m1", "m2", "m3", starttls_checks="versions, dane")
    done = run_playbook(tmp_path, hosts, [playbook("verify_tls")], env={"PYTHONPATH": str(tmp_path / "python")})
    [line] = fatal(done.stdout)
    assert "need the Python package 'dnspython'" in line and "filter" not in done.stdout


def test_the_secrets_of_a_gateway_are_those_of_the_controller(tmp_path):
    """Each gateway has its own; the environment of the host that the module runs on is not asked."""
    there = {
        "MAILFLEET_API_KEY": "that-of-the-host", "MAILFLEET_API_KEY_GW_1_TEST": "that-of-the-host",
        "MAILFLEET_API_URL": "http://127.0.0.1:9",
    }  # fmt: skip
    hosts = {
        name: {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        for name in ("gw-1.test", "gw2")
    }
    read = {
        "hosts": "all", "gather_facts": False, "environment": there,
        "tasks": [
            {f"{OURS}.inbound_tls_mode_info": {"gateway": "mailcow"}},
            {f"{OURS}.gateway_info": {"gateway": "mailcow", "api_key": "{{ omit }}"}},
        ],
    }  # fmt: skip
    with FakeMailcow() as right, FakeMailcow() as other:
        env = {
            "MAILFLEET_API_URL": other.url, "MAILFLEET_API_KEY": "that-of-others",
            "MAILFLEET_API_URL_GW_1_TEST": right.url, "MAILFLEET_API_KEY_GW_1_TEST": KEY,
        }  # fmt: skip
        done = run_playbook(tmp_path, {"all": {"hosts": hosts}}, [read], env=env)
    assert {one["X-Api-Key"] for one in right.headers} == {KEY}
    assert {one["X-Api-Key"] for one in other.headers} == {"that-of-others"}
    assert (
        "gw-1.test                  : ok=2 " in done.stdout and "that-of" not in done.stdout and KEY not in done.stdout
    )
