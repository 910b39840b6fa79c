"""Jobs on other machines, as AWX sends them to its execution nodes: ansible-runner transmit | worker | process, over SSH.

Two lab hosts are the workers, with an ansible-core each. What their jobs found becomes one report, the same as from one controller.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_newcomer import FQDN, HOME, PLACE, Newcomer, Section
from lab_testinfra import STATE, TOP, Fleet

WORKERS = {"oldest": "gw1:mail1", "newest": "gw1:mail2"}
"""Worker -> the hosts that its job is limited to. Each part has the gateway, which tests the mail servers of its part."""
RUNNER = str(Path(sys.executable).with_name("ansible-runner"))
QUIET = {"starttls_send_messages": "false", "starttls_report_formats": "json"}


@pytest.fixture(scope="module")
def workers(fleet: Fleet) -> dict[str, Newcomer]:
    """TLS is on, and both machines have ansible-runner and the collection."""
    on = fleet.play("playbooks/enable_tls.yml", variables=QUIET)
    assert on.status == 0, on.output
    found = {name: Newcomer(fleet, name) for name in WORKERS}
    packed = subprocess.run(["git", "-C", str(TOP), "ls-files", "-z"], capture_output=True, check=True).stdout
    archive = subprocess.run(
        ["tar", "-C", str(TOP), "--null", "--files-from=-", "-cz"], input=packed, capture_output=True, check=True
    ).stdout
    section = Section.read()

    def prepare(newcomer: Newcomer) -> None:
        place = f"/tmp/{newcomer.controller}.tar.gz"
        subprocess.run(
            ["podman", "exec", "-i", fleet.container(newcomer.controller), "sh", "-c", f"cat >{place}"], input=archive, check=True
        )  # fmt: skip
        newcomer.does(f"rm -rf checkout && mkdir checkout && tar -C checkout -xzf {place}")
        newcomer.does(
            "ansible-galaxy collection install --force . && pip install -q 'cryptography>=42.0' ansible-runner",
            HOME / "checkout",
        )
        newcomer.writes(HOME / ".ssh/config", f"{section.ssh_config}Host mail1\n    Port 2222\n")

    with ThreadPoolExecutor() as pool:
        list(pool.map(prepare, found.values()))
    return found


def inventory(fleet: Fleet, place: str) -> dict[str, Any]:
    """The inventory of README, with the roots at a place of the machine that plays."""
    found: dict[str, Any] = yaml.safe_load(Section.read().inventory)
    for name in ("starttls_private_key_file", "starttls_certificate_file"):
        del found["all"]["vars"][name]  # nothing is installed here, and no key leaves the controller
    found["all"]["vars"]["starttls_ca_file"] = place
    return found


def job(fleet: Fleet, directory: Path, worker: str, limit: str) -> dict[str, Any]:
    """Send a job to a worker and take back what it made: the report of its part. Nothing of it stays there."""
    shutil.copytree(TOP / "playbooks", directory / "project")
    (directory / "inventory").mkdir()
    (directory / "env").mkdir()
    shutil.copy(fleet.ca, directory / "project/ca.pem")
    (directory / "inventory/hosts.yml").write_text(yaml.safe_dump(inventory(fleet, "ca.pem")))
    # The job begins in its project, and what lies with its artifacts comes back.
    (directory / "env/extravars").write_text(json.dumps({**QUIET, "starttls_report_directory": "../artifacts/job/tls"}))
    key, known = (STATE / "ssh" / name for name in ("id_ed25519", "known_hosts"))
    # "su -" would print nothing on its own either: the answer is a stream, and nothing else may be in it.
    words = [
        "ssh", "-F", "none", "-i", str(key), "-o", f"UserKnownHostsFile={known}", "-o", "IdentitiesOnly=yes",
        f"{fleet.variables['ansible_user']}@{fleet.address(worker)}", "sudo -iu newcomer ansible-runner worker",
    ]  # fmt: skip
    send = [
        RUNNER,
        "transmit",
        str(directory),
        "--ident",
        "job",
        "--playbook",
        "verify_tls.yml",
        "--limit",
        limit,
        "-q",
    ]
    with (directory / "errors").open("w+b") as errors:
        first = subprocess.Popen(send, stdout=subprocess.PIPE, stderr=errors)
        second = subprocess.Popen(words, stdin=first.stdout, stdout=subprocess.PIPE, stderr=errors)
        done = subprocess.run(
            [RUNNER, "process", str(directory), "--ident", "job"], stdin=second.stdout, capture_output=True, check=False
        )
        status = [process.wait(120) for process in (first, second)]
        errors.seek(0)
        shown = (
            done.stdout.decode(errors="replace")
            + done.stderr.decode(errors="replace")
            + errors.read().decode(errors="replace")
        )
    assert (done.returncode, status) == (0, [0, 0]), shown
    found: dict[str, Any] = json.loads((directory / "artifacts/job/tls/report.json").read_text())
    return found


def told(report: dict[str, Any]) -> dict[str, Any]:
    """What a report says of each host, without times and without what every session has anew."""
    found = {}
    for host in report["hosts"]:
        tests = {
            (one["name"], one["seen_from"]): (
                one["passed"],
                one["tls_version"],
                one["fingerprint_sha256"],
                one["trusted"],
            )
            for one in host["tests"]
        }
        found[host["host"]] = {**{name: host[name] for name in host if name != "tests"}, "tests": tests}
    return found


def test_two_workers_make_the_report_of_one_controller(
    fleet: Fleet, workers: dict[str, Newcomer], tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        parts = dict(zip(WORKERS, pool.map(lambda one: job(fleet, tmp_path / one, one, WORKERS[one]), WORKERS)))
    assert {worker: [one["host"] for one in part["hosts"]] for worker, part in parts.items()} == {
        worker: hosts.split(":") for worker, hosts in WORKERS.items()
    }
    alone = workers["newest"]
    alone.writes(PLACE / "ca.pem", fleet.ca.read_text())
    alone.writes(PLACE / "hosts.yml", yaml.safe_dump(inventory(fleet, "ca.pem")))
    answers = " ".join(f"-e {name}={value}" for name, value in {**QUIET, "starttls_report_directory": "alone"}.items())
    alone.does(f"ansible-playbook -i hosts.yml mailfleet.starttls.verify_tls {answers}", PLACE)
    one = json.loads(alone.does("cat alone/report.json", PLACE))

    given = {
        "starttls_report_parts": f"{tmp_path}/*/artifacts/job/tls/report.json",
        "starttls_report_directory": str(tmp_path / "all"),
    }
    merged = fleet.play("playbooks/report_tls.yml", variables={**given, "starttls_report_formats": "json"})
    assert merged.status == 0, merged.output
    whole = json.loads((tmp_path / "all/report.json").read_text())
    assert told(whole) == told(one)
    assert whole["summary"] == one["summary"]
    assert (whole["not_in_this_run"], set(told(whole))) == ([], {*FQDN})
    for worker, newcomer in workers.items():
        left = newcomer.does("find /tmp -user newcomer -maxdepth 1 -name 'tmp*'")
        assert left.strip() == "", f"{worker} kept {left}"


def test_the_cores_of_the_workers_differ(workers: dict[str, Newcomer]) -> None:
    versions = {name: one.does("ansible-playbook --version") for name, one in workers.items()}
    cores = {re.search(r"\[core (\d+\.\d+)", text)[1] for text in versions.values()}  # type: ignore[index]
    assert len(cores) == 2
