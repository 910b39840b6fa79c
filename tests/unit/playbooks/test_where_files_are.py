"""Relative paths that a user gives start where ansible-playbook was started, and a run says where its reports are."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support import playbooks
from tests.support.canned_fleet import canned_fleet
from tests.support.playbooks import PLAYBOOKS, write_yaml
from tests.support.report_rows import tls_report


@pytest.fixture
def start(tmp_path):
    """The directory in which Ansible is started; inventory and playbook lie elsewhere."""
    (tmp_path / "start/tlsrpt").mkdir(parents=True)
    return tmp_path / "start"


def run(start, playbook, *words, **facts):
    write_yaml(start.parent / "inventory.yml", canned_fleet(start.parent, **facts))
    # A process of its own: where Ansible was started is what is tested. Its sockets are below TMPDIR, and 107 bytes is
    # the longest path of a socket: the tests here have short names.
    return subprocess.run(
        [playbooks.PROGRAM, "-i", "../inventory.yml", str(PLAYBOOKS / f"{playbook}.yml"), *words],
        cwd=start, env=playbooks.environment(start.parent), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", timeout=playbooks.PATIENCE, check=False,
    ).stdout  # fmt: skip


def test_reports(start):
    (start / "tlsrpt/one.json").write_text(json.dumps(tls_report()))
    facts = {"starttls_report_received": ["tlsrpt/one.json"], "starttls_report_formats": "json,csv"}
    output = run(start, "report_tls", **facts)
    assert {path.name for path in (start / "reports").iterdir()} == {"report.json", "report.csv"}, output
    assert f'"msg": "The reports are in {start}/reports: report.json, report.csv"' in output
    output = run(start, "verify_tls", "-e", "starttls_report_directory=../out")
    assert (start.parent / "out/report.html").exists()
    assert (
        output.index(" DAEMON ")
        < output.index(f"The reports are in {start.parent}/out: report.html")
        < output.rindex("fatal: ")
    )


def test_plan(start):
    for name in ("mx.pem", "mx.key", "root.pem"):
        (start / name).write_text("this is none")
    facts = {
        "starttls_certificate_file": "mx.pem",
        "starttls_private_key_file": "mx.key",
        "starttls_plan_file": "plan.json",
    }
    output = run(start, "plan_tls", **facts, starttls_ca_file="root.pem")
    assert (start / "plan.json").exists(), output
    plan = json.loads((start / "plan.json").read_text())
    said = " ".join(one["message"] for one in plan["obstacles"])
    assert "mx.pem" in said and "mx.key" in said and "no such file" not in output
    output = run(start.parent / "start", "plan_tls", **{**facts, "starttls_certificate_file": "none.pem"})
    assert f"there is no such file (searched in 'files', by the playbook, and as {start}/none.pem)" in output
