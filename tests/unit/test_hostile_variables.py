"""Every variable of an inventory or a survey with hostile values: it becomes an option of the table of test_hostile_values.py, or
what reads it refuses it by its name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils import estate, messages, rows, workflow
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan import by_hand
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.order import in_batches
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import VARIABLES

from tests.support import awx, hostile

TOP = Path(__file__).resolve().parents[2]
CONFIG = {"name": "main", "domains": ["a.example"], "servers": ["m1"]}
BY_ROLES = {
    name for path in TOP.glob("roles/*/defaults/main.yml") for name in re.findall(r"\bstarttls_\w+", path.read_text())
}
"""Variables from which a role takes the default of an option."""


def target(**facts: Any) -> Any:
    return estate.target_of("m1", {"m1": facts})


REFUSED_BY: dict[str, Callable[[Any], Any]] = {
    "starttls_hostname": lambda value: target(starttls_hostname=value),
    "starttls_port": lambda value: target(starttls_port=value),
    "starttls_email_config": lambda value: estate.with_delivery_mode([CONFIG], value, "required"),
    "starttls_delivery_mode": lambda value: estate.with_delivery_mode([CONFIG], "main", value),
    "starttls_outside_host": lambda value: messages.trace_messages(["m1"], {"m1": {}}, value, "run"),
    "starttls_report_formats": lambda value: rows.report_outputs(value, "/srv/reports"),
    "starttls_batches": lambda value: in_batches(["m1"], [value], ()),
    "starttls_changes": lambda value: workflow.configs_before([], value, []),
    "starttls_confirmed": lambda value: by_hand.confirmed_by({"starttls_confirmed": [value]}),
    "starttls_gateways": lambda value: estate.Estate.parse([], {"m1": {"starttls_gateways": [value]}}, ["m1"]),
}
"""Variable -> what reads it first."""

BY_OPTION = {
    "starttls_address": "starttls_probe targets.host",
    "starttls_domain": "starttls_probe targets.domain",
    "starttls_inbound": "mail_server main mail_server_inbound",
    "starttls_trace_address": "message_trace send.sender",
    "starttls_mailbox": "message_trace receive.mailbox",
    "starttls_landing": "message_trace receive.command",
    "starttls_verify_ports": "mail_server_info listener_ports",
    "starttls_send_messages": "verify_tls: a condition that compares it",
    "starttls_plan_fail_on": "tls_plan fail_on",
    "starttls_plan_file": "tls_plan json_file",
    "starttls_recovery_file": "tls_recovery json_file",
    "starttls_report_directory": "tls_report outputs.path",
    "starttls_report_received": "tls_report tls_reports",
    "starttls_report_parts": "tls_report parts",
    "starttls_exchange_reach": "exchange_tls reach",
    "starttls_exchange_server": "exchange_tls server",
    "starttls_exchange_session_uri": "exchange_tls session_uri",
    "starttls_exchange_clients": "exchange_tls clients",
    "starttls_exchange_next_hops": "exchange_tls next_hops",
    "starttls_exchange_check": "exchange_tls check",
    "starttls_exchange_tls_domain": "exchange_tls tls_domain",
    "starttls_exchange_send_certificate": "exchange_tls send_certificate",
    "starttls_certificate_replace": "tls_certificate replace",
    "starttls_exim_split": "mail_server_info exim_split",
    "starttls_lock_hours": "fleet_lock hours",
    "starttls_lock_break": "fleet_lock break_lock",
    "starttls_exchange_certificate_on": "exchange_tls certificate_on",
    "starttls_exchange_fqdn": "exchange_tls fqdn",
    "starttls_exchange_internal_certificate": "exchange_tls internal_certificate",
    "starttls_exchange_remove_former": "exchange_tls remove_former",
    "starttls_exchange_ecc": "exchange_tls ecc",
    "starttls_exchange_journal": "exchange_tls journal",
    "starttls_exchange_proof_host": "delegate_to: the name of a host that has to be in the inventory",
    "starttls_result": "handed on by playbooks: nothing reads it",
}
"""Variables that playbooks and filters hand to an option as they are."""


def test_every_variable_is_here():
    assert BY_ROLES | REFUSED_BY.keys() | BY_OPTION.keys() == VARIABLES.keys()
    every = {f"{one.owner} {one.name}" for one in hostile.options({**hostile.module_specs(), **hostile.role_specs()})}
    assert {one for one in BY_OPTION.values() if ":" not in one} - every == set()


@pytest.mark.parametrize("name", REFUSED_BY)
def test_a_variable_is_refused_by_name(name: str):
    for what, value in hostile.variants(""):
        with pytest.raises(EngineError) as error:
            REFUSED_BY[name](value)
        said = str(error.value)
        assert name in said, (what, said)
        assert said.isprintable(), what


def test_every_question_of_a_survey_has_choices_or_is_here():
    for template in awx.templates().values():
        for variable, question in awx.questions(template).items():
            assert "choices" in question or variable in {*REFUSED_BY, *BY_OPTION, *BY_ROLES}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("playbook", "answers"),
    [
        ("set_delivery_mode", {"starttls_email_config": "{jinja}", "starttls_delivery_mode": "required"}),
        ("set_delivery_mode", {"starttls_email_config": "main", "starttls_delivery_mode": "{jinja}"}),
        ("report_tls", {"starttls_report_since": "{jinja}", "starttls_report_directory": "{tmp}/r"}),
        ("report_tls", {"starttls_report_since": "1h", "starttls_report_directory": "{tmp}/{shell}"}),
    ],
)
def test_an_answer_of_a_survey_is_not_executed(playbook: str, answers: dict[str, str], tmp_path: Path):
    """AWX hands answers on as text that is not to be templated; nothing of ours takes that away."""
    seen = tmp_path / "executed"
    values = {
        "jinja": f"{{{{ lookup('pipe', 'touch {seen}') }}}}",
        "shell": f"$(touch {seen.name})`touch {seen.name}`",
        "tmp": str(tmp_path),
    }
    given = "".join(f"{name}: !unsafe {json.dumps(text.format(**values))}\n" for name, text in answers.items())
    (tmp_path / "answers.yml").write_text(given)
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "starttls_address": "127.0.0.1",
    }
    inventory = {"all": {"children": {"mail_servers": {"hosts": {"m1": host}}}, "vars": {"email_configs": [CONFIG]}}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [
        program,
        "-i",
        str(tmp_path / "inventory.yml"),
        "-e",
        f"@{tmp_path}/answers.yml",
        str(TOP / f"playbooks/{playbook}.yml"),
    ]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(TOP / ".lab/ansible.cfg")}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert "PLAY [" in ran.stdout, ran.stderr
    assert list(tmp_path.rglob("executed")) == [], ran.stdout
    assert not (tmp_path / seen.name).exists()
    if playbook == "set_delivery_mode":
        assert ran.returncode and ("no email config" in ran.stdout or "is not a delivery mode" in ran.stdout)
