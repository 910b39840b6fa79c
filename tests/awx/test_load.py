"""awx/load.yml, with the real modules, against a stand-in for AWX."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import awx
from tests.support.fake_awx import FakeAwx
from tests.support.playbooks import PROGRAM, environment

TOP = Path(__file__).resolve().parents[2]


def load(directory: Path, collections: Path, server: FakeAwx, *words: str) -> str:
    done = subprocess.run(
        [PROGRAM, str(TOP / "awx/load.yml"), *words], cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
        env={**environment(directory), "ANSIBLE_COLLECTIONS_PATH": str(collections), "CONTROLLER_HOST": server.url,
             "CONTROLLER_OAUTH_TOKEN": "x", "HOME": str(directory)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def loaded(awx_collections: Path, tmp_path_factory: pytest.TempPathFactory):
    """A stand-in into which everything was loaded, with values of the user's own."""
    directory = tmp_path_factory.mktemp("load")
    (directory / "mine.yml").write_text("mailfleet_organization: Mail\nmailfleet_credentials: [SSH, Vault]\n")
    with FakeAwx([one["playbook"] for one in awx.templates().values()]) as server:
        organization = server.add("organizations", {"name": "Mail"})
        for name in ("SSH", "Vault"):
            server.add("credentials", {"name": name, "organization": organization["id"]})
        output = load(directory, awx_collections, server, "-e", f"@{directory}/mine.yml")
        yield server, directory, output


def test_everything_is_there(loaded):
    server, _directory, output = loaded
    assert "duplicate" not in output and "unsafe" not in output, "Ansible warns of what the files hold"
    for variable, wanted in awx.objects().items():
        endpoint = {"inventory": "inventories"}.get(awx.MODULES[variable], f"{awx.MODULES[variable]}s")
        made = [one["name"] for one in server.items[endpoint].values()]
        assert made == [one["name"] for one in wanted]
    assert [one["identifier"] for one in server.items["workflow_job_template_nodes"].values()] == [
        one["identifier"] for one in awx.nodes()
    ]


def test_a_template_has_survey_credentials_and_the_organization(loaded):
    server, _directory, _output = loaded
    for one in server.items["job_templates"].values():
        assert one["survey"] == awx.templates()[one["name"]]["survey_spec"]
        names = [
            server.items["credentials"][id_]["name"] for id_ in server.belongs[f"job_templates/{one['id']}/credentials"]
        ]
        assert sorted(names) == ["SSH", "Vault"]
        assert server.items["organizations"][one["organization"]]["name"] == "Mail"


def test_what_is_for_awx_to_fill_in_arrives_as_it_is(loaded):
    server, _directory, _output = loaded
    made = {one["name"]: one for one in server.items["credential_types"].values()}
    assert made["Mail gateway API"]["injectors"]["env"]["MAILFLEET_API_KEY"] == "{{ key }}"
    assert made["Mail server certificate"]["injectors"]["file"]["template.private_key"] == "{{ private_key }}"


def test_the_nodes_are_those_of_the_table(loaded):
    server, _directory, _output = loaded
    made = server.items["workflow_job_template_nodes"]
    names = {number: one["identifier"] for number, one in made.items()}
    launched = {number: one["name"] for number, one in server._list("unified_job_templates").items()}
    for one, wanted in zip(made.values(), awx.nodes(), strict=True):
        runs = wanted.get("unified_job_template") or wanted["approval_node"]["name"]
        assert launched[int(one["unified_job_template"])] == runs
        assert (one.get("limit"), one.get("extra_data")) == (wanted.get("limit"), wanted.get("extra_data"))
        for which in ("success_nodes", "failure_nodes"):
            ids = server.belongs[f"workflow_job_template_nodes/{one['id']}/{which}"]
            assert [names[number] for number in ids] == wanted.get(which, [])


@pytest.mark.exhaustive
def test_a_second_load_makes_the_nodes_anew_and_nothing_else(loaded, awx_collections):
    server, directory, _output = loaded
    server.writes.clear()
    output = load(directory, awx_collections, server, "-e", f"@{directory}/mine.yml")
    changed = {re.sub(r"/\d+/.*|/$", "", path.removeprefix("/api/v2/")) for _method, path in server.writes}
    assert changed <= {"workflow_job_template_nodes"}, server.writes
    assert [one["identifier"] for one in server.items["workflow_job_template_nodes"].values()] == [
        one["identifier"] for one in awx.nodes()
    ], output


def test_lint(awx_collections: Path) -> None:
    """Here, because ansible-lint has to find the modules; make lint leaves this file out."""
    program = Path(sys.executable).with_name("ansible-lint")
    done = subprocess.run(
        [program, "--offline", "--profile", "production", "-q", "awx/load.yml"], cwd=TOP, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(awx_collections)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
