"""What a job leaves behind: results for the next job, reports at a URL, one report from several, and refusals in a slice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.document import build, render_json

from tests.support import playbooks
from tests.support.canned_fleet import canned_fleet
from tests.support.plan_states import config
from tests.support.playbooks import PLAYBOOKS, run_playbook, write_yaml

TOKEN = "planted-report-token"


def run(directory, inventory, playbook, *words, **more):
    """What a playbook prints, and what it hands on."""
    write_yaml(directory / "inventory.yml", inventory)
    given = directory / "extravars"
    given.write_text(json.dumps(more))
    settings = {"ANSIBLE_SHOW_CUSTOM_STATS": "1", "ANSIBLE_INJECT_FACT_VARS": "false"}
    written = ["-i", "inventory.yml", str(PLAYBOOKS / f"{playbook}.yml"), "-e", f"@{given}", *words]
    done = playbooks.run(written, directory, settings)
    _, _, stats = done.stdout.rpartition("\tRUN: ")
    return done.stdout, json.JSONDecoder().raw_decode(stats)[0] if stats else {}


class Store(BaseHTTPRequestHandler):
    """Takes files by PUT from who has the token."""

    taken: dict[str, bytes]

    def do_PUT(self) -> None:
        """Keep a file."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["Authorization"] == f"Bearer {TOKEN}"
        if known:
            self.taken[self.path] = body
        self.send_response(201 if known else 403)
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def store() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The URL of a store, and what it took."""
    handler = type("Mine", (Store,), {"taken": {}})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/tls/", handler.taken
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_reports_are_sent_and_the_verdict_is_handed_on_although_the_run_fails(tmp_path, store):
    """In a slice of an AWX job: its inventory lacks m3. A run that changes something refuses that, see test_estate."""
    url, taken = store
    fleet = canned_fleet(tmp_path, email_configs=[config("main", "m1", "m2", "m3", mode="opportunistic")])
    given = {"starttls_report_url": url, "starttls_report_token": TOKEN, "starttls_report_formats": "json, csv"}
    output, handed = run(tmp_path, fleet, "verify_tls", "-vvv", **given)
    assert set(taken) == {"/tls/report.json", "/tls/report.csv"}, output
    assert json.loads(taken["/tls/report.json"])["summary"]["hosts"] == 3
    assert TOKEN not in output
    assert "Not in this run, so nothing is said of them: m3" in output
    result = handed["starttls_result"]
    assert (result["summary"], result["report"]) == ({"hosts": 3, "passed": 0, "failed": 3}, url)
    assert {"host", "severity", "code", "message"} == set(result["findings"][0])
    assert "fatal: " in output


def test_a_url_that_takes_nothing_fails_the_run_with_the_reason(tmp_path, store):
    url, taken = store
    (tmp_path / "report.html").write_text("x")
    send = {
        "hosts": "all", "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "mailfleet.starttls.verify", "tasks_from": "send"}}],
        "vars": {"verify_report_paths": [str(tmp_path / "report.html")]},
    }  # fmt: skip
    given = {"starttls_report_url": url.replace("//", "//me:secret@"), "starttls_report_token": TOKEN[::-1]}
    done = run_playbook(tmp_path, {"all": {"hosts": {"mx": given}}}, [send], "-vvv")
    assert (done.returncode, taken) == (2, {})
    assert "report.html could not be sent to 127.0.0.1: " in done.stdout and "403" in done.stdout
    assert "secret" not in done.stdout and TOKEN[::-1] not in done.stdout


def test_several_reports_become_one_and_no_host_is_read(tmp_path):
    for part, hosts in (("one", ["gw1", "m1"]), ("two", ["gw1", "m2"])):
        place = tmp_path / f"parts/{part}"
        place.mkdir(parents=True)
        whole = build([{"host": host, "activity": {}} for host in hosts], title="", not_in_run=["m1", "m2"])
        (place / "report.json").write_text(render_json(whole))
    given = {"starttls_report_parts": "parts/*/report.json", "starttls_report_formats": "json"}
    output, handed = run(tmp_path, canned_fleet(tmp_path), "report_tls", **given)
    found = json.loads((tmp_path / "reports/report.json").read_text())
    assert ([one["host"] for one in found["hosts"]], found["not_in_this_run"]) == (["gw1", "m1", "m2"], []), output
    assert "Make the handshake tests" not in output
    assert handed["starttls_result"]["summary"]["hosts"] == 3


def test_what_a_run_changes_is_handed_on_although_it_stops(tmp_path):
    fails = {"changed": False, "failed": True, "msg": "port 25 is in use", "restored": True}
    output, handed = run(tmp_path, canned_fleet(tmp_path, {"m1": {"mail_server_tls": fails}}), "enable_tls")
    assert "THE RUN STOPPED" in output
    off = {"inbound": "disabled", "outbound": "disabled"}
    changes = handed["starttls_changes"]["hosts"]
    assert (changes["m1"], changes["m2"], changes["gw1"]["inbound"]) == (off, off, "disabled")
