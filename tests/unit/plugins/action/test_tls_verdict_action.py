"""tls_verdict: the table as a real playbook shows it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.table_rows import PLAIN, PROBE, TRACE, WARNING

ROOT = Path(__file__).resolve().parents[4]
DEAD = {**PLAIN, "stage": "connect", "message": "cannot connect", "findings": [{"code": "x", "message": "it is down"}]}


def row(**changes):
    return {"host": "mx", "daemon": "Postfix", "probes": [PROBE], "traces": [], "delivery_modes": [], **changes}


GOOD = row(host="pf12", delivery_modes=["match_sender"], traces=[TRACE])
ROWS = [GOOD, row(host="ex13\nroot:", daemon="Exim", probes=[PLAIN], delivery_modes=["required", "plaintext"])]
TASKS = {
    "pass": {"rows": [GOOD], "title": "TLS is on"},
    "fail": {"rows": ROWS},
    "strict": {"rows": [row(probes=[{**PROBE, "findings": [WARNING]}])], "fail_on": "warning"},
    "empty": {"rows": []},
    "no_rows": {},
    "no_host": {"rows": [GOOD, {"daemon": "Postfix"}]},
    "null_host": {"rows": [row(host=None)]},
    "bad_option": {"rows": [GOOD], "titel": "x"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One playbook with all the tasks: the results by name, and what it printed."""
    directory = tmp_path_factory.mktemp("tls_verdict")
    tasks = [
        {"name": name, "mailfleet.starttls.tls_verdict": arguments, "register": f"run_{name}", "ignore_errors": True}
        for name, arguments in TASKS.items()
    ]
    found = "{{ {" + ", ".join(f"'{name}': run_{name}" for name in TASKS) + "} | to_json }}"
    tasks.append({"ansible.builtin.copy": {"content": found, "dest": str(directory / "results"), "mode": "0600"}})
    (directory / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}], width=10000)
    )
    (directory / "inventory").write_text("localhost ansible_connection=local\n")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory", "play.yml"],
        cwd=directory,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / ".lab/ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
            "ANSIBLE_REMOTE_TEMP": str(directory / "remote"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((directory / "results").read_text()), done.stdout


class TestPlaybook:
    def test_hosts_that_pass(self, runs):
        results, printed = runs
        result = results["pass"]
        assert (result["failed"], result["changed"], result["msg"]) == (False, False, "1 of 1 hosts pass")
        assert result["table"] in printed
        assert "\nTLS is on\n\nHOST  DAEMON   STARTTLS  TLS      CERTIFICATE        DAYS LEFT  TRUSTED" in printed
        assert "pf12  Postfix  offered   TLSv1.3  CN=mx.example.com  90         yes      match_sender" in printed

    def test_a_host_that_does_not(self, runs):
        results, printed = runs
        result = results["fail"]
        assert result["failed"] and result["msg"].startswith(
            "1 of 2 hosts pass; ex13?root:: the server does not offer STARTTLS"
        )
        assert "\nNOT PROVED: TLS on the mail fleet\n" in printed
        assert "the server does not offer STARTTLS; switch it on\n" in printed
        assert [one["verdict"] for one in result["rows"]] == ["pass", "FAIL"]
        assert re.search(
            r"^ex13\?root: +Exim +not offered +- +- +- +- +required, plaintext +- +host +FAIL$", printed, re.M
        )

    def test_warnings_fail_if_that_is_wanted(self, runs):
        assert (runs[0]["strict"]["failed"], runs[0]["strict"]["msg"]) == (
            True,
            "0 of 1 hosts pass; mx: switch old TLS off",
        )
        assert "\nmx: warning: switch old TLS off\n" in runs[1]

    def test_control_characters_are_not_shown_below_the_table_either(self, runs):
        assert "\nroot:: the server" not in runs[1]
        assert "\nex13?root:: error: the server does not offer STARTTLS; switch it on\n" in runs[1]

    def test_no_host_at_all_is_no_success(self, runs):
        assert runs[0]["empty"]["failed"]
        assert "there is no host to give a verdict on" in runs[0]["empty"]["msg"]

    @pytest.mark.parametrize("name", ["no_host", "null_host"])
    def test_a_row_without_a_host(self, runs, name):
        assert runs[0][name]["failed"]
        assert "each of rows needs the name of its host" in runs[0][name]["msg"]

    def test_the_rows_are_required(self, runs):
        assert runs[0]["no_rows"]["failed"]
        assert "missing required arguments: rows" in runs[0]["no_rows"]["msg"]

    def test_an_option_that_is_none(self, runs):
        assert runs[0]["bad_option"]["failed"]
        assert "titel" in runs[0]["bad_option"]["msg"]
