"""playbooks/verify_tls.yml and playbooks/report_tls.yml, as a person, CI or AWX plays them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from lab_testinfra import SERVERS, Fleet, Played

HOSTS = {"gw1", *SERVERS}
CHECKS = ["versions", "injection", "resumption"]


def play(fleet: Fleet, name: str, *arguments: str, **variables: Any) -> Played:
    return fleet.play(f"playbooks/{name}.yml", *arguments, variables=variables)


def row(played: Played, host: str) -> str:
    return next(line.rstrip() for line in played.output.splitlines() if re.match(rf"{host}  ", line))


@pytest.fixture(scope="module")
def verified(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Path]:
    """The fleet, verified with everything there is to check, and where the reports are.

    Two forks are fewer than hosts: no host may wait for a message that a later one sends.
    """
    place = tmp_path_factory.mktemp("verified") / "reports"
    played = play(
        fleet,
        "verify_tls",
        "--forks=2",
        starttls_checks=CHECKS,
        starttls_report_directory=str(place),
        starttls_report_formats="html, json, csv, junit, prometheus",
    )
    return played, place


def test_a_good_fleet_passes(verified: tuple[Played, Path]) -> None:
    played, _place = verified
    assert played.status == 0, played.output
    for host in HOSTS:
        assert "  pass" in row(played, host), played.output
    assert all("in 2/2 TLS, out 2/2 TLS" in row(played, host) for host in SERVERS)


def test_each_host_was_seen_from_every_side(fleet: Fleet, verified: tuple[Played, Path]) -> None:
    document = json.loads((verified[1] / "report.json").read_text())
    for host in document["hosts"]:
        assert {one["seen_from"] for one in host["tests"]} == {host["host"], "gw1", "the controller"}
        own = host["tests"][0]
        assert own["injection"] is False
        assert own["resumption"] is ("Postfix" in host["daemon"])  # Exim offers none unless it is told to
        assert own["group"]
        for version, option in (("TLSv1", "-tls1"), ("TLSv1.2", "-tls1_2"), ("TLSv1.3", "-tls1_3")):
            openssl = fleet.s_client(host["host"], option, "-cipher", "DEFAULT@SECLEVEL=0")
            assert own["versions"][version] is (openssl.status == 0), (host["host"], version, openssl.output)


def test_ci_can_read_the_verdict(verified: tuple[Played, Path]) -> None:
    suites = ET.parse(verified[1] / "report.junit.xml").getroot()
    assert {one.get("name") for one in suites.iter("testsuite")} == HOSTS
    assert not list(suites.iter("failure"))


def test_the_other_reports_are_there(verified: tuple[Played, Path]) -> None:
    assert {one.name for one in verified[1].iterdir()} == {
        "report.html",
        "report.json",
        "report.csv",
        "report.junit.xml",
        "mailfleet_starttls.prom",
    }
    assert "pf12.fleet.test" in (verified[1] / "report.html").read_text()


@pytest.fixture
def without_starttls(fleet: Fleet) -> Any:
    """A mail server that somebody has switched STARTTLS off on, by hand."""
    fleet.run("pf13", "postconf -e smtpd_tls_security_level=none && postfix reload 2>&1")
    yield "pf13"
    fleet.run("pf13", "postconf -e smtpd_tls_security_level=may && postfix reload 2>&1")


def test_a_server_that_does_not_offer_starttls_fails_the_run(
    fleet: Fleet, without_starttls: str, tmp_path: Path
) -> None:
    played = play(
        fleet,
        "verify_tls",
        starttls_send_messages=False,
        starttls_report_directory=str(tmp_path),
        starttls_report_formats="junit",
    )
    assert played.status != 0
    assert row(played, "pf13").endswith("FAIL")
    assert row(played, "pf12").endswith("pass")
    said = [line for line in played.output.splitlines() if line.startswith("pf13: error: the server does not offer")]
    assert len(said) == 1
    assert "seen from gw1, the controller" in said[0]
    suites = ET.parse(tmp_path / "report.junit.xml").getroot()
    assert {one.get("name") for one in suites.iter("testsuite") if one.find(".//failure") is not None} == {"pf13"}


def test_a_warning_fails_the_run_where_that_is_wanted(fleet: Fleet) -> None:
    wanted = {"starttls_send_messages": False, "starttls_warn_days_left": 5000}
    mild = play(fleet, "verify_tls", **wanted)
    assert mild.status == 0, mild.output
    assert "pass, 1 warning" in row(mild, "ex13")
    strict = play(fleet, "verify_tls", starttls_fail_on="warning", **wanted)
    assert strict.status != 0
    assert row(strict, "ex13").endswith("FAIL")


@pytest.fixture
def gone(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """An inventory with one more host, in the group that the test names, which cannot be reached."""
    host = {"ansible_connection": "ssh", "ansible_host": "192.0.2.1", "ansible_ssh_common_args": "-o ConnectTimeout=1"}
    inventory = tmp_path / "more.yml"
    inventory.write_text(json.dumps({"all": {"children": {request.param: {"hosts": {"gone": host}}}}}))
    return str(inventory)


@pytest.mark.parametrize("gone", ["mail_servers"], indirect=True)
def test_a_host_that_cannot_be_reached_is_no_success(fleet: Fleet, gone: str) -> None:
    played = play(fleet, "verify_tls", "-i", gone, starttls_send_messages=False)
    assert played.status != 0
    assert row(played, "gone").endswith("FAIL")
    assert "gone: error: the handshake test could not be made on gone:" in played.output
    assert row(played, "pf12").endswith("pass")


@pytest.mark.parametrize("gone", ["mail_gateways"], indirect=True)
def test_a_gateway_that_cannot_be_reached_does_not_keep_the_others_from_their_verdict(
    fleet: Fleet, gone: str, tmp_path: Path
) -> None:
    played = play(
        fleet, "report_tls", "-i", gone, starttls_report_directory=str(tmp_path / "reports"), starttls_fail_on="error"
    )
    assert played.status != 0
    document = json.loads((tmp_path / "reports/report.json").read_text())
    found = {one["host"]: [finding["message"] for finding in one["findings"]] for one in document["hosts"]}
    assert set(found) == HOSTS | {"gone"}
    for host in HOSTS:
        assert any(one.startswith("the handshake test could not be made on gone:") for one in found[host]), found
        assert document["hosts"][0]["tests"]


def test_the_report_counts_what_the_logs_say(fleet: Fleet, tmp_path: Path, without_starttls: str) -> None:
    first = play(fleet, "report_tls", starttls_report_directory=str(tmp_path), starttls_report_formats="json")
    assert first.status == 0, first.output
    document = json.loads((tmp_path / "report.json").read_text())
    totals = {one["host"]: one["activity"]["totals"] for one in document["hosts"]}
    assert set(totals) == HOSTS
    assert all(totals[host]["inbound"]["messages_tls"] > 0 for host in SERVERS), totals
    assert totals["gw1"]["outbound"]["messages_tls"] > 0


def test_a_server_that_stopped_offering_tls_is_an_alert(fleet: Fleet, tmp_path: Path) -> None:
    assert (
        play(fleet, "report_tls", starttls_report_directory=str(tmp_path), starttls_report_formats="json").status == 0
    )
    fleet.run("pf12", "postconf -e smtpd_tls_security_level=none && postfix reload 2>&1")
    try:
        played = play(
            fleet,
            "report_tls",
            starttls_report_directory=str(tmp_path),
            starttls_report_formats="json",
            starttls_fail_on="error",
        )
    finally:
        fleet.run("pf12", "postconf -e smtpd_tls_security_level=may && postfix reload 2>&1")
    assert played.status != 0
    alerts = json.loads((tmp_path / "report.json").read_text())["alerts"]
    [lost] = [one for one in alerts if one["code"] == "starttls_lost" and one["host"] == "pf12"]
    assert lost["cause"] == "local"
    assert "alerts have at least the severity 'error'" in played.output
