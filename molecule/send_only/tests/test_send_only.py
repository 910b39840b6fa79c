"""Send-only hosts: null clients of Postfix and satellites of Exim, on Debian 12 and 13. The gateway of the fleet is their relay."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from lab_testinfra import SERVERS, Fleet, Played

VARIABLES = {
    "email_configs": [],
    "starttls_inbound": "{{ 'none' if inventory_hostname in ['pf12', 'ex13'] else '' }}",
    "starttls_outbound": "{{ 'required' if inventory_hostname in ['pf13', 'ex13'] else 'opportunistic' }}",
}
# Files that do not exist: a send-only host needs no certificate.
WITHOUT = {name: f"/nowhere/{name}" for name in ("starttls_private_key_file", "starttls_certificate_file")}
LEVELS = {"pf12": "may", "pf13": "encrypt", "ex12": "opportunistic", "ex13": "required"}
OFF = {"pf12": "none", "pf13": "none", "ex12": "disabled", "ex13": "disabled"}


def levels(fleet: Fleet) -> dict[str, str]:
    """How each host sends, as its daemon says."""
    found = {host: fleet.run(host, "postconf -hx smtp_tls_security_level").strip() for host in ("pf12", "pf13")}
    for host in ("ex12", "ex13"):
        said = fleet.run(host, "exim4 -bP transport remote_smtp_smarthost | grep -E 'hosts_(avoid|require)_tls'")
        words = dict(re.findall(r"(?m)^hosts_(avoid|require)_tls = ?(.*)$", said))
        found[host] = (
            "disabled" if words["avoid"] == "*" else "required" if words["require"] == "*" else "opportunistic"
        )
    return found


def row(played: Played, host: str) -> str:
    """The last row of a host in the tables of a run; the recap has none."""
    return re.findall(rf"(?m)^ *({host}  +[A-Za-z].*?) *$", played.output)[-1]


def variables(fleet: Fleet, **more: object) -> dict[str, object]:
    """The inventory's variables of this estate. The gateway has a certificate, the others have none."""
    own = {name: f"{{{{ '{fleet.pki}/gw1.{end}' if inventory_hostname == 'gw1' else '{WITHOUT[name]}' }}}}"
           for name, end in (("starttls_private_key_file", "key"), ("starttls_certificate_file", "pem"))}  # fmt: skip
    return {**VARIABLES, **own, **more}


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plan of the first run is."""
    return tmp_path_factory.mktemp("plan") / "plan.json"


@pytest.fixture(scope="module")
def enabled(fleet: Fleet, plan_file: Path) -> Played:
    """TLS switched on for the whole estate."""
    return fleet.play("playbooks/enable_tls.yml", variables=variables(fleet, starttls_plan_file=str(plan_file)))


@pytest.mark.parametrize("host", SERVERS)
def test_the_plan_says_that_a_host_only_sends(enabled: Played, plan_file: Path, host: str) -> None:
    hosts = json.loads(plan_file.read_text())["hosts"]
    says = rf"(?m)^ *{host} +mail server +(Postfix|Exim) \S+: send only, outbound disabled +send over TLS \(1 file\) "
    assert re.search(says, enabled.output), enabled.output
    assert (hosts[host]["send_only"], hosts["gw1"]["send_only"]) == (True, False)


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
    again = fleet.play("playbooks/enable_tls.yml", variables=variables(fleet, starttls_send_messages=False))
    assert again.status == 0, again.output
    assert set(again.changed.values()) == {0}, again.output


def test_a_report_says_it_too(enabled: Played, fleet: Fleet, tmp_path: Path) -> None:
    more = {"starttls_report_directory": str(tmp_path), "starttls_report_formats": ["json", "html"]}
    played = fleet.play("playbooks/report_tls.yml", variables=variables(fleet, **more))
    assert played.status == 0, played.output
    entries = {one["host"]: one for one in json.loads((tmp_path / "report.json").read_text())["hosts"]}
    assert {host: (one["send_only"], one["verdict"]) for host, one in entries.items()} == {
        "gw1": (False, "pass"),
        **dict.fromkeys(SERVERS, (True, "pass")),
    }
    for host in SERVERS:
        assert [(one["name"], one["completed"]) for one in entries[host]["tests"]] == [("gw1.fleet.test", True)]
    assert (tmp_path / "report.html").read_text().count("send only") == len(SERVERS)


def test_verify_fails_if_the_relay_offers_no_tls_any_more(enabled: Played, fleet: Fleet) -> None:
    more = {"starttls_send_messages": False}
    fleet.run("gw1", "postconf -e smtpd_tls_security_level=none; postfix reload")
    try:
        played = fleet.play("playbooks/verify_tls.yml", "--limit", "mail_servers", variables=variables(fleet, **more))
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
    off = fleet.play("playbooks/disable_tls.yml", variables=variables(fleet, starttls_send_messages=False))
    assert off.status == 0, off.output
    assert levels(fleet) == OFF
    for host in SERVERS:
        assert "  send only  " in row(off, host), off.output
    before = fleet.digests(SERVERS)
    limited = fleet.play("playbooks/enable_tls.yml", "--limit", "mail_servers", variables=variables(fleet))
    assert limited.status != 0
    assert re.search(r"it is not in this run, and (pf13|ex13) is to send to it over TLS only", limited.output), limited.output  # fmt: skip
    assert fleet.digests(SERVERS) == before


def test_everything_goes_again(enabled: Played, fleet: Fleet) -> None:
    gone = fleet.play("playbooks/uninstall.yml", variables=variables(fleet, starttls_send_messages=False))
    assert gone.status == 0, gone.output
    for host in SERVERS:
        assert fleet.run(host, "ls -d /var/lib/mailfleet-starttls /etc/mailfleet 2>/dev/null", check=False) == ""
    assert levels(fleet) == OFF
