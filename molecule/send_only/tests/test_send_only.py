"""Send-only hosts: null clients of Postfix and satellites of Exim, on Debian 12 and 13. The gateway of the fleet is their relay."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from lab_testinfra import SERVERS, Fleet, Played

EXPLICIT = ("pf12", "ex13")
"""The hosts that the inventory names as send-only; the others are found by the read."""
VARIABLES = {
    "email_configs": [],
    "starttls_inbound": "{{ 'none' if inventory_hostname in ['pf12', 'ex13'] else '' }}",
    "starttls_outbound": "{{ 'required' if inventory_hostname in ['pf13', 'ex13'] else 'opportunistic' }}",
}
# Files that do not exist: a send-only host needs no certificate.
WITHOUT = {name: f"/nowhere/{name}" for name in ("starttls_private_key_file", "starttls_certificate_file")}
LEVELS = {"pf12": "may", "pf13": "encrypt", "ex12": "opportunistic", "ex13": "required"}


def levels(fleet: Fleet) -> dict[str, str]:
    """How each host sends, as its daemon says."""
    found = {host: fleet.run(host, "postconf -hx smtp_tls_security_level").strip() for host in ("pf12", "pf13")}
    for host in ("ex12", "ex13"):
        said = fleet.run(host, "exim4 -bP transport remote_smtp_smarthost | grep -E 'hosts_(avoid|require)_tls'")
        words = dict(re.findall(r"(?m)^hosts_(avoid|require)_tls = ?(.*)$", said))
        found[host] = "disabled" if words["avoid"] == "*" else "required" if words["require"] == "*" else "opportunistic"
    return found


def row(played: Played, host: str) -> str:
    """The last row of a host in the tables of a run."""
    return re.findall(rf"(?m)^ *({host}  +.*?) *$", played.output)[-1]


def variables(fleet: Fleet, **more: object) -> dict[str, object]:
    """The inventory's variables of this estate. The gateway has a certificate, the others have none."""
    own = {name: f"{{{{ '{fleet.pki}/gw1.{end}' if inventory_hostname == 'gw1' else '{WITHOUT[name]}' }}}}"
           for name, end in (("starttls_private_key_file", "key"), ("starttls_certificate_file", "pem"))}  # fmt: skip
    return {**VARIABLES, **own, **more}


@pytest.fixture(scope="module")
def plan(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, dict[str, object]]:
    """What plan_tls says before the first change."""
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    played = fleet.play("playbooks/plan_tls.yml", variables=variables(fleet, starttls_plan_file=str(file)))
    return played, json.loads(Path(file).read_text())


@pytest.fixture(scope="module")
def enabled(fleet: Fleet, plan: tuple[Played, dict[str, object]]) -> Played:
    """TLS switched on for the whole estate."""
    return fleet.play("playbooks/enable_tls.yml", variables=variables(fleet))


@pytest.mark.parametrize("host", SERVERS)
def test_the_plan_says_that_a_host_only_sends(plan: tuple[Played, dict[str, object]], host: str) -> None:
    played, written = plan
    assert played.status == 0, played.output
    assert re.search(rf"(?m)^ *{host} +mail server +(Postfix|Exim) \S+: send only, outbound disabled +send over TLS \(1 file\) ", played.output), played.output  # fmt: skip
    assert written["hosts"][host]["send_only"] is True  # type: ignore[index]
    assert written["hosts"]["gw1"]["send_only"] is False  # type: ignore[index]


@pytest.mark.parametrize("host", SERVERS)
def test_only_the_way_to_the_relay_is_changed(enabled: Played, fleet: Fleet, host: str) -> None:
    assert enabled.status == 0, enabled.output
    assert levels(fleet)[host] == LEVELS[host]
    assert fleet.run(host, "ls /etc/mailfleet /etc/exim4/mailfleet* 2>/dev/null", check=False) == ""
    inside = "postconf -hx smtpd_tls_security_level" if host.startswith("pf") else "exim4 -bP tls_advertise_hosts"
    assert fleet.run(host, inside).strip() in ("none", "tls_advertise_hosts =")


@pytest.mark.parametrize("host", SERVERS)
def test_the_verdict_is_about_the_way_to_the_relay(enabled: Played, host: str) -> None:
    line = row(enabled, host)
    assert re.search(r"  send only  +TLSv1\.3  +- .*  to gw1\.fleet\.test  +out 2/2 TLS .*  pass$", line), line


def test_the_gateway_tests_no_host_that_only_sends(enabled: Played) -> None:
    assert "Connection refused" not in enabled.output, enabled.output
    assert row(enabled, "gw1").endswith("pass")


def test_a_second_run_changes_nothing(enabled: Played, fleet: Fleet) -> None:
    again = fleet.play("playbooks/enable_tls.yml", variables=variables(fleet))
    assert again.status == 0, again.output
    assert set(again.changed.values()) == {0}, again.output


@pytest.mark.parametrize("host", SERVERS)
def test_a_report_says_it_too(enabled: Played, fleet: Fleet, tmp_path: Path, host: str) -> None:
    played = fleet.play(
        "playbooks/report_tls.yml",
        "--limit", f"gw1,{host}",
        variables=variables(fleet, starttls_report_directory=str(tmp_path), starttls_report_formats=["json", "html"]),
    )  # fmt: skip
    assert played.status == 0, played.output
    entry = next(one for one in json.loads((tmp_path / "report.json").read_text())["hosts"] if one["host"] == host)
    assert (entry["send_only"], entry["verdict"]) == (True, "pass"), entry
    assert [(one["name"], one["completed"]) for one in entry["tests"]] == [("gw1.fleet.test", True)]
    assert "send only" in (tmp_path / "report.html").read_text()


def test_verify_fails_if_the_relay_offers_no_tls_any_more(enabled: Played, fleet: Fleet) -> None:
    fleet.run("gw1", "postconf -e smtpd_tls_security_level=none; postfix reload")
    try:
        played = fleet.play("playbooks/verify_tls.yml", "--limit", "mail_servers", variables=variables(fleet, starttls_send_messages=False))  # fmt: skip
    finally:
        fleet.run("gw1", "postconf -e smtpd_tls_security_level=may; postfix reload")
    assert played.status != 0
    for host in SERVERS:
        assert row(played, host).endswith("FAIL"), played.output


def test_the_role_alone_serves_a_fleet_of_such_hosts(enabled: Played, fleet: Fleet) -> None:
    """README's play, with another level."""
    play = """
- hosts: mail_servers
  become: true
  gather_facts: false
  roles: [mailfleet.starttls.mail_server, mailfleet.starttls.verify]
  vars: {starttls_inbound: none, starttls_outbound: required}
"""
    played = fleet.play(play)
    assert played.status == 0, played.output
    assert levels(fleet) == {"pf12": "encrypt", "pf13": "encrypt", "ex12": "required", "ex13": "required"}


def test_a_host_that_is_to_insist_is_refused_if_its_relay_has_no_tls(enabled: Played, fleet: Fleet) -> None:
    off = fleet.play("playbooks/disable_tls.yml", variables=variables(fleet))
    assert off.status == 0, off.output
    assert levels(fleet) == {"pf12": "none", "pf13": "none", "ex12": "disabled", "ex13": "disabled"}
    for host in SERVERS:
        assert "send only" in row(off, host), off.output
    before = fleet.digests(SERVERS)
    limited = fleet.play("playbooks/enable_tls.yml", "--limit", "mail_servers", variables=variables(fleet))
    assert limited.status != 0
    assert re.search(r"pf13 is to send to it over TLS only", limited.output), limited.output
    assert fleet.digests(SERVERS) == before


def test_everything_goes_again(enabled: Played, fleet: Fleet) -> None:
    on = fleet.play("playbooks/enable_tls.yml", variables=variables(fleet, starttls_send_messages=False))
    assert on.status == 0, on.output
    gone = fleet.play("playbooks/uninstall.yml", variables=variables(fleet, starttls_send_messages=False))
    assert gone.status == 0, gone.output
    for host in SERVERS:
        assert fleet.run(host, "ls -d /var/lib/mailfleet-starttls /etc/mailfleet 2>/dev/null", check=False) == ""
    assert levels(fleet) == {"pf12": "none", "pf13": "none", "ex12": "disabled", "ex13": "disabled"}
