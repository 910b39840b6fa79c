"""Every playbook as a job of AWX, in the order of a workflow. The tests are one story, in this order.

The levels of verbosity and the odd answers are spread over the jobs. What holds for all jobs is in `play`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import SECTIONS
from lab_awx import Awx, Credentials, Done, Project
from lab_testinfra import STATE, TOP, Fleet

from tests.support.awx import by_playbook, questions
from tests.support.fake_mailcow import KEY, FakeMailcow
from tests.support.pki import lab_authority

ASKED = ("The wanted state of a mail server", "The run", "Handshake tests", "Reports")
HANDED_ON = {"starttls_changes", "starttls_result"}
"""What jobs of a workflow hand on is no question of a survey."""
UNSET = {name: "" for section in ASKED for name in SECTIONS[section] if name not in HANDED_ON}
"""Questions that nobody answered: AWX gives '' for the variable of each."""


@dataclass(frozen=True)
class Inventory:
    """What AWX has of the fleet. It names neither a user nor a key."""

    gateway: str
    server: str
    config: dict[str, Any]
    script: dict[str, Any]
    """What the inventory script prints."""

    @classmethod
    def of(cls, fleet: Fleet) -> Inventory:
        """Take a gateway, a mail server that sends through it, and the host outside."""
        groups = yaml.safe_load(fleet.inventory.read_text())["all"]["children"]
        servers = groups["mail_servers"]["hosts"]
        server = next(host for host, data in servers.items() if "lab_smart_host" not in data)
        [config] = [one for one in fleet.variables["email_configs"] if one["servers"] == [server]]
        members = {"mail_gateways": ["gw1"], "mail_servers": [server], "mail_outside": ["outside"]}
        known = {
            host: {name: value for name, value in groups[group]["hosts"][host].items() if not name.startswith("lab_")}
            for group, hosts in members.items()
            for host in hosts
        }
        everybody = {
            "ansible_ssh_common_args": "-F none -o UserKnownHostsFile=/dev/null",
            "starttls_chain_content": (fleet.pki / "chain.pem").read_text(),
            "email_configs": [config],
        }
        script = {
            "_meta": {"hostvars": known}, "all": {"vars": everybody}, **{name: {"hosts": some} for name, some in members.items()},
        }  # fmt: skip
        return cls("gw1", server, config, script)

    @property
    def hosts(self) -> list[str]:
        """Gateway and mail server."""
        return [self.gateway, self.server]


@pytest.fixture(scope="module")
def inventory(fleet: Fleet) -> Inventory:
    return Inventory.of(fleet)


@pytest.fixture(scope="module")
def awx(fleet: Fleet, inventory: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Awx:
    """The project, and a machine credential. A credential type of the user's brings one certificate for all hosts, as files."""
    authority = lab_authority(fleet.pki, fleet.ca)
    assert authority
    issued = authority.issue(
        [inventory.script["_meta"]["hostvars"][host]["starttls_hostname"] for host in inventory.hosts]
    )
    files = {
        "starttls_private_key_file": issued.key_pem.decode(), "starttls_certificate_file": issued.certificate_pem.decode(),
        "starttls_ca_file": fleet.ca.read_text(),
    }  # fmt: skip
    key = (STATE / "ssh/id_ed25519").read_text()
    return Awx(
        Project(tmp_path_factory.mktemp("awx")),
        inventory.script,
        Credentials(user=fleet.variables["ansible_user"], ssh_key=key, files=files),
    )


def secrets(awx: Awx) -> list[str]:
    """Lines of the keys, of which none may be shown."""
    keys = (awx.credentials.ssh_key, awx.credentials.files.get("starttls_private_key_file", ""))
    return [*(line for key in keys for line in key.splitlines() if len(line) > 40), KEY]


def play(awx: Awx, playbook: str, answers: dict[str, Any], verbosity: int) -> Done:
    """Run a job that has to succeed: each question of its survey has an answer, nothing else is asked, and no secret is shown."""
    assert questions(by_playbook()[playbook]).keys() <= answers.keys()
    done = awx.job(playbook, answers, verbosity)
    assert done.status == "successful", done.failure
    shown = done.output + json.dumps(done.events)
    assert [line for line in secrets(awx) if line in shown or line in json.dumps(done.artifacts)] == []
    return done


def test_the_collection_comes_from_the_address_in_the_requirements(awx: Awx) -> None:
    assert re.search(r"(?m)^mailfleet\.starttls:\S+ was installed successfully$", awx.project.installed)
    ours = awx.project.collections / "ansible_collections/mailfleet/starttls"
    assert {path.name for path in (ours / "playbooks").iterdir()} == {
        path.name for path in (TOP / "playbooks").glob("*")
    }
    assert not (ours / "collections").exists()


def test_plan(awx: Awx, inventory: Inventory) -> None:
    """A second gateway has an API. The controller asks it, on which nobody becomes root, with a secret from the environment."""
    cow = {"ansible_connection": "local", "ansible_become": False, "starttls_kind": "mailcow"}
    script = {
        **inventory.script, "mail_gateways": {"hosts": [inventory.gateway, "cow"]},
        "_meta": {"hostvars": {**inventory.script["_meta"]["hostvars"], "cow": cow}},
    }  # fmt: skip
    with FakeMailcow() as api:
        credentials = replace(awx.credentials, environment={"MAILFLEET_API_URL": api.url, "MAILFLEET_API_KEY": KEY})
        done = play(Awx(awx.project, script, credentials), "plan_tls", {**UNSET, "starttls_plan_fail_on": "never"}, 4)
    assert {one["X-Api-Key"] for one in api.headers} == {KEY}
    assert re.search(r"(?m)^cow +gateway +.*mailcow", done.output), done.output
    assert re.search(rf"(?m)^{inventory.gateway} +gateway .* accept", done.output), done.output
    assert done.changed == set()
    tasks = [one["event_data"] for one in done.events if one["event"] == "playbook_on_task_start"]
    roles = {one["task_path"] for one in tasks if one.get("role")}
    assert roles and all(
        "/requirements_collections/ansible_collections/mailfleet/starttls/roles/" in path for path in roles
    )


def test_enable(awx: Awx, fleet: Fleet, inventory: Inventory) -> None:
    done = play(
        awx,
        "enable_tls",
        {**UNSET, "starttls_batches": "1, 100%", "starttls_message_timeout": "60", "starttls_send_messages": "true"},
        3,
    )
    assert "TLS is on" in done.output
    assert done.changed == {*inventory.hosts}
    for host in inventory.hosts:
        assert re.search(rf"(?m)^{host} .*  pass$", done.output.replace("\r", "")), done.output
        seen = fleet.s_client(host, "-CAfile", str(fleet.ca), "-verify_return_error")
        assert seen.status == 0, seen.output


def test_verify(awx: Awx, inventory: Inventory, tmp_path: Path) -> None:
    """Several answers of a multiselect are a list. The directory is a mount of the pod's."""
    answers = {
        **UNSET, "starttls_checks": ["versions", "resumption"], "starttls_report_formats": ["html", "json"],
        "starttls_report_directory": str(tmp_path / "mount"), "starttls_send_messages": "false", "starttls_min_days_left": "0",
        "starttls_probe_timeout": "20", "starttls_fail_on": "error",
    }  # fmt: skip
    done = play(awx, "verify_tls", answers, 1)
    assert done.changed <= {inventory.gateway}  # the reports are written once, on the controller
    assert {path.name for path in (tmp_path / "mount").iterdir()} == {"report.html", "report.json"}
    document = json.loads((tmp_path / "mount/report.json").read_text())
    assert {one["host"] for one in document["hosts"]} == {*inventory.hosts}
    assert all("versions" in test for one in document["hosts"] for test in one["tests"][:1])


def test_report(awx: Awx) -> None:
    """Nothing was chosen of a multiselect. The reports are in the project's checkout, which ends with the job."""
    done = play(awx, "report_tls", {**UNSET, "starttls_report_formats": [], "starttls_report_since": "2026-01-31"}, 2)
    assert re.search(r"The reports are in \S+/project/reports: report\.html, report\.json", done.output), done.output


def test_rotate_certificate(awx: Awx) -> None:
    """The hosts have the certificates already. Once the gateway has another mode than the inventory, the proof would name it."""
    answers = {**UNSET, "starttls_check_tlsa": "true", "starttls_send_messages": "false"}
    assert play(awx, "rotate_certificate", answers, 2).changed == set()


def test_set_delivery_mode(awx: Awx, fleet: Fleet, inventory: Inventory) -> None:
    answers = {
        **UNSET, "starttls_email_config": f" {inventory.config['name']}\n", "starttls_delivery_mode": "opportunistic",
        "starttls_send_messages": "false",
    }  # fmt: skip
    done = play(awx, "set_delivery_mode", answers, 0)
    assert done.changed == {inventory.gateway}
    mark = fleet.send("outside", [f"trace@{inventory.config['domains'][0]}"], tls=False)
    assert fleet.arrived_over_tls(inventory.server, mark)


def test_recover_deferred_mail(awx: Awx) -> None:
    assert play(awx, "recover_deferred_mail", UNSET, 4).changed == set()


def test_undo(awx: Awx, fleet: Fleet, inventory: Inventory) -> None:
    """AWX hands on the artifacts of the former jobs. Nothing had TLS before."""
    done = play(awx, "undo_workflow", {**UNSET, "starttls_send_messages": "false"}, 1)
    assert done.changed == {*inventory.hosts}
    assert [host for host in inventory.hosts if fleet.s_client(host).status == 0] == []


def test_disable(awx: Awx, fleet: Fleet, inventory: Inventory) -> None:
    done = play(awx, "disable_tls", {**UNSET, "starttls_send_messages": "False", "starttls_timeout": "30"}, 1)
    assert "TLS is off" in done.output
    assert [host for host in inventory.hosts if fleet.s_client(host).status == 0] == []


def test_uninstall(awx: Awx, fleet: Fleet, inventory: Inventory) -> None:
    answers = {**UNSET, "starttls_uninstall_keep": "/etc/none\n/etc/neither\n", "starttls_queue_timeout": "30"}
    done = play(awx, "uninstall", {**answers, "starttls_send_messages": "false"}, 2)
    assert done.changed == {*inventory.hosts}
    for host in inventory.hosts:
        assert fleet.run(host, "ls -d /etc/mailfleet /var/lib/mailfleet-starttls 2>/dev/null", check=False) == ""


def test_every_playbook_was_a_job(awx: Awx) -> None:
    assert {*awx.project.played} == {path.stem for path in (TOP / "playbooks").glob("*.yml")}
