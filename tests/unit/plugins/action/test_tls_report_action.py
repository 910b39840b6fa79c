"""tls_report as a real playbook runs it: files, modes, what counts as a change, check mode, refusals."""

import json
import os
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.support.report_rows import demo_rows, hostile, tls_report

ROOT = Path(__file__).resolve().parents[4]
SCHEMA = json.loads((ROOT / "docs/schema/report.schema.json").read_text())
NAMES = {"html": "r.html", "json": "r.json", "csv": "r.csv", "junit": "r.xml", "prometheus": "r.prom"}


def tasks(place):
    """Name, options, check mode."""
    outputs = [{"format": kind, "path": str(place / name)} for kind, name in NAMES.items()]
    one = [{"format": "html", "path": str(place / "one.html")}]
    rows = demo_rows()
    calm = [{"host": "mx", "activity": {}}]
    known = {"previous": str(place / "r.json"), "tls_reports": [str(place / "report.json.gz")]}
    same = [{"format": kind, "path": str(place / "x")} for kind in ("csv", "html")]
    return [
        ("checked", {"rows": rows, "outputs": outputs}, True),
        ("first", {"rows": rows, "outputs": outputs, **known}, False),
        ("second", {"rows": rows, "outputs": outputs, **known}, False),
        ("other", {"rows": rows[:4], "outputs": outputs, "title": "Without ex13"}, False),
        ("mode", {"rows": calm, "outputs": [{**one[0], "mode": "0600"}]}, False),
        ("kept_mode", {"rows": calm, "title": "new", "outputs": one}, False),
        ("number", {"rows": calm, "outputs": [{**one[0], "mode": 0o604}]}, False),
        ("hostile", {"rows": hostile("{{ 7 * 7 }}\x1b<script>")[0], "outputs": one}, False),
        ("no_output", {"rows": rows}, False),
        ("bad_report", {"rows": calm, "tls_reports": [str(place / "broken.json")], "outputs": one}, False),
        ("no_report", {"rows": calm, "tls_reports": [str(place / "nothing.json")]}, False),
        ("bad_previous", {"rows": calm, "previous": str(place / "broken.json")}, False),
        ("check_directory", {"rows": calm, "outputs": [{"format": "csv", "path": str(place / "new/r.csv")}]}, True),
        ("no_directory", {"rows": calm, "outputs": [{"format": "csv", "path": str(place / "no/r.csv")}]}, False),
        ("directory", {"rows": calm, "outputs": [{"format": "csv", "path": str(place / "made")}]}, False),
        ("twice", {"rows": calm, "outputs": same}, False),
        ("bad_mode", {"rows": calm, "outputs": [{"format": "csv", "path": str(place / "x"), "mode": "rw"}]}, False),
        ("bad_format", {"rows": calm, "outputs": [{"format": "pdf", "path": str(place / "x")}]}, False),
        ("no_host", {"rows": [{"daemon": "Exim"}]}, False),
        ("empty", {"rows": []}, False),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The results by name, and the directory with the files as the task named left them."""
    place = tmp_path_factory.mktemp("tls_report")
    (place / "made").mkdir()
    (place / "broken.json").write_text("{")
    (place / "report.json.gz").write_text(json.dumps(tls_report()))
    play = []
    named = tasks(place)
    for name, options, check in named:
        play.append({
            "name": name, "mailfleet.starttls.tls_report": {**options, "rows": f"{{{{ rows[{name!r}] }}}}"}, "register": f"run_{name}",
            "ignore_errors": True, "check_mode": check,
        })  # fmt: skip
        copy = f"rm -rf '{place}/after_{name}'; mkdir '{place}/after_{name}'; cp -p '{place}'/r.* '{place}/after_{name}' || true"
        play.append({"ansible.builtin.shell": {"cmd": copy}, "changed_when": False})
    found = "{{ {" + ", ".join(f"'{name}': run_{name}" for name, *_ in named) + "} | to_json }}"
    play.append({"ansible.builtin.copy": {"content": found, "dest": str(place / "results"), "mode": "0600"}})
    # From a file, as what hosts said comes: nothing in it is a template.
    (place / "rows.json").write_text(json.dumps({name: options["rows"] for name, options, _ in named}))
    variables = {"rows": "{{ lookup('ansible.builtin.file', '" + str(place / "rows.json") + "') | from_json }}"}
    plays = [{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": play}]
    (place / "play.yml").write_text(yaml.safe_dump(plays, width=10_000))
    (place / "inventory").write_text("localhost ansible_connection=local\n")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory", "play.yml"],
        cwd=place,
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / ".lab/ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(place / "local"),
            "ANSIBLE_REMOTE_TEMP": str(place / "remote"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((place / "results").read_text()), place


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_check_mode_counts_on_a_directory_that_an_earlier_task_would_make(runs):
    assert (runs[0]["check_directory"]["failed"], runs[0]["check_directory"]["changed"]) == (False, True)


def test_check_mode_says_what_would_change_and_writes_nothing(runs):
    results, place = runs
    assert results["checked"]["changed"]
    assert results["checked"]["changed_paths"] == [str(place / name) for name in NAMES.values()]
    assert list((place / "after_checked").iterdir()) == []


def test_every_format_is_written(runs):
    results, place = runs
    result, files = results["first"], place / "after_first"
    assert (result["changed"], result["failed"]) == (True, False)
    assert result["paths"] == [str(place / name) for name in NAMES.values()]
    assert result["msg"].startswith("4 of 5 hosts pass; ")
    report = json.loads((files / "r.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    assert (report["alerts"], report["summary"]) == (result["alerts"], result["summary"])
    assert report["tls_reports"][0]["organization"] == "Example Mail"
    assert (files / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert (files / "r.csv").read_text().startswith("host,daemon,verdict,")
    assert ET.parse(files / "r.xml").getroot().tag == "testsuites"
    assert 'mailfleet_starttls_host_passed{host="ex13",daemon="Exim"} 0\n' in (files / "r.prom").read_text()
    assert {name: mode(files / name) for name in NAMES.values()} == {
        "r.html": 0o640, "r.json": 0o640, "r.csv": 0o640, "r.xml": 0o640, "r.prom": 0o644,
    }  # fmt: skip
    assert not list(place.glob(".mailfleet-*"))


def test_a_second_run_changes_nothing_but_the_time(runs):
    results, place = runs
    assert (results["second"]["changed"], results["second"]["changed_paths"]) == (False, [])
    first, second = (json.loads((place / f"after_{name}/r.json").read_text()) for name in ("first", "second"))
    assert first.pop("generated_at") <= second.pop("generated_at")
    assert first == second
    assert (place / "after_first/r.csv").read_text() == (place / "after_second/r.csv").read_text()


def test_other_rows_are_a_change(runs):
    results, place = runs
    assert len(results["other"]["changed_paths"]) == 5
    assert "<h1>Without ex13</h1>" in (place / "after_other/r.html").read_text()


def test_modes(runs):
    results, place = runs
    assert results["mode"]["changed"]
    assert results["kept_mode"]["changed"]
    assert results["number"]["changed_paths"] == [str(place / "one.html")]
    assert mode(place / "one.html") == 0o604


def test_what_a_host_says_is_no_template(runs):
    results, _place = runs
    assert not results["hostile"]["failed"]
    assert "{{ 7 * 7 }}?<script>" in json.dumps(results["hostile"]["alerts"])


def test_alerts_alone(runs):
    result = runs[0]["no_output"]
    assert (result["changed"], result["paths"]) == (False, [])
    assert {"enforced_inbound_remote", "certificate_expiring"} <= {one["code"] for one in result["alerts"]}


def test_a_report_that_cannot_be_read_is_left_out_with_a_warning(runs):
    result = runs[0]["bad_report"]
    assert not result["failed"]
    assert result["warnings"] == ["TLS reports: broken.json: it is not readable JSON (JSONDecodeError)"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_report", "there is no such file"),
        ("bad_previous", "cannot be used: it is not readable JSON"),
        ("no_directory", "there is no directory for"),
        ("directory", "is a directory, not a regular file"),
        ("twice", "two of outputs have the same path"),
        ("bad_mode", "mode 'rw' is not a file mode"),
        ("bad_format", "value of format must be one of"),
        ("no_host", "each of rows needs the name of its host"),
        ("empty", "there is no host to report on"),
    ],
)
def test_refusals(runs, name, says):
    result = runs[0][name]
    assert result["failed"]
    assert says in result["msg"]
