"""tls_verdict: what a row says, and the table as a real playbook shows it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.mailfleet.starttls.plugins.action.tls_verdict import summarize

ROOT = Path(__file__).resolve().parents[3]
CERTIFICATE = {"subject": "CN=mx.example.com", "days_left": 90}
PROBE = {
    "starttls_advertised": True, "stage": "ehlo_tls", "tls_version": "TLSv1.3", "trusted": True,
    "certificate": CERTIFICATE, "findings": [], "passed": True, "message": "",
}  # fmt: skip
PLAIN = {
    "starttls_advertised": False, "stage": "ehlo", "tls_version": "", "trusted": None, "certificate": None,
    "findings": [{"code": "starttls_not_offered", "message": "the server does not offer STARTTLS; switch it on"}],
    "passed": False, "message": "the server does not offer STARTTLS",
}  # fmt: skip
DEAD = {**PLAIN, "stage": "connect", "message": "cannot connect", "findings": [{"code": "x", "message": "it is down"}]}
TRACE = {
    "arrived": True, "direction": "in", "findings": [],
    "hops": [{"network": True, "tls": True}, {"network": False, "tls": False}, {"network": True, "tls": False}],
}  # fmt: skip


WARNING = {"code": "old_tls_offered", "severity": "warning", "message": "switch old TLS off"}
NOTICE = {"code": "no_tls13", "severity": "notice", "message": "there is no TLS 1.3"}


def messages(summary):
    return [one["message"] for one in summary["findings"]]


def row(**changes):
    return {"host": "mx", "daemon": "Postfix", "probes": [PROBE], "traces": [], "delivery_modes": [], **changes}


class TestRow:
    def test_a_host_that_passes(self):
        assert summarize(row(traces=[TRACE], delivery_modes=["required"])) == {
            "host": "mx", "daemon": "Postfix", "starttls": "offered", "tls_version": "TLSv1.3",
            "certificate": "CN=mx.example.com", "days_left": 90, "trusted": True, "delivery_mode": ["required"],
            "messages": "in 1/2 TLS", "verdict": "pass", "findings": [],
        }  # fmt: skip

    def test_the_least_that_can_be_given(self):
        summary = summarize({"host": "mx"})
        assert (summary["verdict"], messages(summary)) == ("FAIL", ["the handshake test was not made"])
        assert (summary["starttls"], summary["daemon"], summary["messages"]) == ("", "", "")

    @pytest.mark.parametrize("nothing", [None, []])
    def test_nothing_was_gathered(self, nothing):
        summary = summarize(row(probes=nothing, traces=nothing, delivery_modes=nothing))
        assert messages(summary) == ["the handshake test was not made"]
        assert summary["delivery_mode"] == []

    def test_what_several_places_saw_is_said_once(self):
        probes = [PLAIN, {**PLAIN, "seen_from": "gw1"}, {**PLAIN, "seen_from": "mx"}, {**DEAD, "seen_from": "gw2"}]
        assert messages(summarize(row(probes=probes))) == [
            "the server does not offer STARTTLS; switch it on (seen from gw1)",
            "it is down (seen from gw2)",
        ]

    def test_a_host_is_not_told_that_it_saw_itself(self):
        assert messages(summarize(row(probes=[{**PLAIN, "seen_from": "mx"}]))) == [
            "the server does not offer STARTTLS; switch it on"
        ]

    @pytest.mark.parametrize(
        ("fail_on", "verdict"), [("error", "pass, 1 warning"), ("warning", "FAIL"), ("notice", "FAIL")]
    )
    def test_a_warning(self, fail_on, verdict):
        summary = summarize(row(probes=[{**PROBE, "findings": [WARNING, NOTICE]}]), fail_on)
        assert summary["verdict"] == verdict
        assert [one["severity"] for one in summary["findings"]] == ["warning", "notice"]

    def test_warnings_are_counted(self):
        findings = [WARNING, {**WARNING, "code": "expires_soon", "message": "renew it"}]
        assert summarize(row(probes=[{**PROBE, "findings": findings}]))["verdict"] == "pass, 2 warnings"

    @pytest.mark.parametrize(("fail_on", "verdict"), [("warning", "pass"), ("notice", "FAIL")])
    def test_a_notice(self, fail_on, verdict):
        assert summarize(row(probes=[{**PROBE, "findings": [NOTICE]}]), fail_on)["verdict"] == verdict

    def test_a_finding_from_one_gateway_is_enough_to_fail(self):
        assert summarize(row(probes=[PROBE, {**DEAD, "seen_from": "gw1"}]))["verdict"] == "FAIL"

    def test_tls_off_passes_when_off_is_expected(self):
        assert summarize(row(expected="disabled", probes=[PLAIN]))["verdict"] == "pass"

    def test_tls_on_fails_when_off_is_expected(self):
        summary = summarize(row(expected="disabled", probes=[PROBE, {**PROBE, "seen_from": "gw1"}]))
        assert messages(summary) == ["STARTTLS is still offered (seen from gw1)"]

    def test_a_server_that_is_down_fails_in_any_case(self):
        assert messages(summarize(row(expected="disabled", probes=[DEAD]))) == ["cannot connect"]
        assert messages(summarize(row(probes=[DEAD]))) == ["it is down"]
        assert summarize(row(probes=[DEAD]))["starttls"] == "", "it did not say"

    def test_what_could_not_be_gathered_fails(self):
        summary = summarize(row(errors=["the handshake test could not be made on gw1: it is down"]))
        assert (summary["verdict"], messages(summary)) == (
            "FAIL",
            ["the handshake test could not be made on gw1: it is down"],
        )
        assert len(messages(summarize({"host": "mx", "errors": ["it is down"]}))) == 1

    def test_messages(self):
        lost = {"arrived": False, "direction": "out", "hops": [], "findings": ["lost, look there"]}
        summary = summarize(row(traces=[TRACE, lost]))
        assert summary["messages"] == "in 1/2 TLS, out lost"
        assert summary["findings"] == [{"code": "message", "severity": "error", "message": "lost, look there"}]


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
        capture_output=True, text=True, timeout=120, check=False,
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
        assert (result["failed"], result["msg"]) == (True, "1 of 2 hosts pass")
        assert "\nTLS on the mail fleet\n" in printed
        assert "the server does not offer STARTTLS; switch it on\n" in printed
        assert [one["verdict"] for one in result["rows"]] == ["pass", "FAIL"]
        assert re.search(r"^ex13\?root: +Exim +not offered +- +- +- +- +required, plaintext +- +FAIL$", printed, re.M)

    def test_warnings_fail_if_that_is_wanted(self, runs):
        assert (runs[0]["strict"]["failed"], runs[0]["strict"]["msg"]) == (True, "0 of 1 hosts pass")
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
