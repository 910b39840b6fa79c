"""The table and the reports say what is: the mode of the gateway, who could look, and what is not in the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_testinfra import Fleet, Played

QUICK = {"starttls_send_messages": False}


def play(fleet: Fleet, name: str, *arguments: str, **variables: Any) -> Played:
    return fleet.play(f"playbooks/{name}.yml", *arguments, variables=variables)


def row(played: Played, host: str) -> str:
    """The last row of a table that is about this host; the recap of Ansible is none."""
    lines = (line.rstrip() for line in played.output.splitlines() if re.match(rf"{host}  ", line))
    return [one for one in lines if " : ok=" not in one][-1]


def configs(**changes: Any) -> list[dict[str, Any]]:
    """The email configs of the inventory. changes: name -> keys, or None for one that is left out."""
    every = {"alpha": ("pf12", "match_sender"), "bravo": ("pf13", "required"), "charlie": ("ex12", "opportunistic"),
             "delta": ("ex13", "match_sender")}  # fmt: skip
    made = {
        name: {"name": name, "domains": [f"{name}.test"], "servers": [host], "delivery_mode": mode}
        for name, (host, mode) in every.items()
    }
    return [{**one, **(changes.get(name) or {})} for name, one in made.items() if changes.get(name, {}) is not None]


@pytest.fixture
def in_plaintext(fleet: Fleet) -> Iterator[Played]:
    """alpha is set to plaintext, and the inventory still says match_sender."""
    answers = {"starttls_email_config": "alpha"}
    played = play(fleet, "set_delivery_mode", **answers, starttls_delivery_mode="plaintext")
    yield played
    play(fleet, "set_delivery_mode", **answers, starttls_delivery_mode="match_sender")


def test_the_report_shows_the_mode_that_was_set_and_what_the_inventory_wants(
    fleet: Fleet, in_plaintext: Played, tmp_path: Path
) -> None:
    assert in_plaintext.status == 0, in_plaintext.output
    assert "plaintext" in row(in_plaintext, "pf12")
    played = play(
        fleet,
        "report_tls",
        starttls_report_directory=str(tmp_path),
        starttls_report_formats="json",
        starttls_fail_on="error",
    )
    assert played.status != 0
    hosts = {one["host"]: one for one in json.loads((tmp_path / "report.json").read_text())["hosts"]}
    assert {name: one["delivery_modes"] for name, one in hosts.items() if name != "gw1"} == {
        "pf12": ["plaintext"], "pf13": ["required"], "ex12": ["opportunistic"], "ex13": ["match_sender"],
    }  # fmt: skip
    differing = {
        name for name, one in hosts.items() for found in one["findings"] if found["code"] == "delivery_mode_differs"
    }
    assert differing == {"pf12"}
    assert hosts["pf12"]["verdict"] == "FAIL"


@pytest.fixture
def not_in_use(fleet: Fleet) -> Iterator[None]:
    """Somebody has taken the collection's table out of transport_maps. Its record and the table stay."""
    maps = fleet.run("gw1", "postconf -h transport_maps").strip()
    kept = ", ".join(one for one in re.split(r"[\s,]+", maps) if "mailfleet" not in one)
    fleet.run("gw1", f"postconf -e 'transport_maps = {kept}' && postfix reload 2>&1")
    yield
    fleet.run("gw1", f"postconf -e 'transport_maps = {maps}' && postfix reload 2>&1")


def test_the_daemon_counts_and_not_what_was_noted(fleet: Fleet, not_in_use: None) -> None:
    played = play(fleet, "verify_tls", **QUICK)
    assert played.status != 0
    assert (
        "the inventory wants the mode 'required', and the gateway gw1 delivers bravo.test in the mode " in played.output
    )
    assert "required" not in row(played, "pf13")
    plan = play(fleet, "plan_tls")
    assert re.search(r"transport_maps\b[^\n]* does not name [^\n]*/mailfleet-starttls/transport", plan.output), (
        plan.output
    )
    assert re.search(r"(?m)^gw1 .*modes \(", plan.output), "the plan does not repair it"


def test_a_controller_that_cannot_resolve_the_names_is_no_fault_of_the_hosts(fleet: Fleet) -> None:
    played = play(fleet, "verify_tls", **QUICK, starttls_address="")
    assert played.status == 0, played.output
    for host in ("pf12", "pf13", "ex12", "ex13"):
        assert re.search(r"  host, gw1; not controller  pass$", row(played, host)), played.output
        assert (
            f"{host}: notice: the controller could not look: cannot connect to {host}.fleet.test:25: " in played.output
        )
    assert re.search(r"  host; not controller +pass$", row(played, "gw1"))


def test_roots_as_text_are_trusted_from_every_side(fleet: Fleet) -> None:
    """A job of AWX has no file of them. The certificate passes with them, so the handshake tests have to trust them too."""
    roots = {"starttls_ca_file": "", "starttls_ca_content": fleet.ca.read_text()}
    assert play(fleet, "verify_tls", **QUICK, **roots).status == 0
    planned = play(fleet, "enable_tls", "--check", **roots)
    assert planned.status == 0 and "not trusted" not in planned.output


def test_a_host_outside_the_run_is_nothing_but_that(fleet: Fleet) -> None:
    played = play(fleet, "verify_tls", "--limit", "pf12", **QUICK)
    assert played.status == 0, played.output
    assert "Not in this run, so nothing is said of them: gw1, pf13, ex12, ex13" in played.output
    assert re.search(r"  not in this run .*  pass, 1 warning$", row(played, "pf12")), played.output
    assert "pf12 was not tested from the gateway gw1, which is not in this run" in played.output
    plan = play(fleet, "plan_tls", "--limit", "pf12")
    assert plan.status == 0 and "Plan: enable: clean" in plan.output, plan.output
    assert "Not in this run, so nothing is said of them: gw1, pf13, ex12, ex13" in plan.output


def test_check_mode_tests(fleet: Fleet) -> None:
    played = play(fleet, "verify_tls", "--check")
    assert played.status == 0, played.output
    assert re.search(r"  match_sender +- +host, gw1, controller +pass$", row(played, "ex13")), played.output


@pytest.mark.parametrize("playbook", ["verify_tls", "plan_tls"])
def test_email_configs_that_the_inventory_lacks_and_domains_that_the_gateway_does_not_accept(
    fleet: Fleet, playbook: str
) -> None:
    more = {"name": "echo", "domains": ["echo.example"], "servers": ["pf12"], "delivery_mode": "plaintext"}
    quick = QUICK if playbook == "verify_tls" else {}
    played = play(fleet, playbook, **quick, email_configs=[*configs(delta=None), more])
    assert played.status != 0
    entry = '{"name": "delta", "domains": ["delta.test"], "servers": ["ex13"], "state": "absent"}'
    assert f"with this line there: - {entry}" in played.output, played.output
    assert "email config echo: the gateway takes no mail for echo.example; " in played.output
    misspelt = play(fleet, playbook, **quick, email_configs=configs(delta={"name": "dleta"}))
    assert "its domains are in the email config dleta of the inventory: correct the name there" in misspelt.output


@pytest.fixture(params=[True, False], ids=["running", "not running"])
def broken(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[str]:
    """A Postfix whose master.cf somebody has damaged, and which runs, or has been stopped since."""
    fleet.run("pf12", "cp -p /etc/postfix/master.cf /root/master.cf && echo 'what is this' >>/etc/postfix/master.cf")
    if not request.param:
        fleet.run(
            "pf12",
            "systemctl kill --signal=KILL postfix@- 2>&1; pkill -KILL -x master; while pgrep -x master; do :; done",
        )
    yield "running" if request.param else "not running"
    fleet.run(
        "pf12",
        "cp -p /root/master.cf /etc/postfix/master.cf && rm /root/master.cf && (postfix status || postfix start) 2>&1",
    )


def test_a_broken_configuration_is_named_and_whether_the_daemon_runs(fleet: Fleet, broken: str) -> None:
    plan = play(fleet, "plan_tls", "--limit", "pf12")
    assert re.search(rf"(?m)^pf12 .*: broken configuration, {broken}\b.* configuration_broken", plan.output), (
        plan.output
    )
    assert "bad field count" in plan.output or "what is this" in plan.output or "bad transport type" in plan.output, (
        plan.output
    )
    assert "is not running; start it" not in plan.output
    verdict = play(fleet, "verify_tls", "--limit", "pf12", **QUICK)
    assert f"; the daemon {'runs' if broken == 'running' else 'does not run'}" in verdict.output, verdict.output
