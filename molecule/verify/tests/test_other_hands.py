"""Other hands at a gateway: verify fails and names the cause, the next run repairs it, and mail goes as the table of the modes says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_modes import of_the_table, ways
from lab_testinfra import DOMAINS, Fleet, Played

QUICK = {"starttls_send_messages": False}
MODES = {"pf12": "match_sender_strict", "pf13": "required", "ex12": "opportunistic", "ex13": "match_sender"}
OF_THE_INVENTORY = {**MODES, "pf12": "match_sender"}
TABLES = "/etc/postfix/mailfleet-starttls"
# A main.cf as a role for Postfix writes it that knows nothing of ours: with the routes that the gateway had before.
OF_ANOTHER_ROLE = """\
cd /etc/postfix
postconf -X smtpd_restriction_classes smtpd_recipient_restrictions $(postconf -n | grep -Eo '^(mailfleet|multi_instance)_[a-z_]+')
postconf -e transport_maps=hash:/etc/postfix/transport
systemctl restart postfix
"""
# A policy service that lets everything pass.
POLICY = """\
import sys
for line in sys.stdin:
    if line == "\\n":
        print("action=DUNNO\\n", flush=True)
"""


def play(fleet: Fleet, name: str, modes: dict[str, str], **variables: Any) -> Played:
    configs = [
        {"name": DOMAINS[host].partition(".")[0], "domains": [DOMAINS[host]], "servers": [host], "delivery_mode": mode}
        for host, mode in modes.items()
    ]
    return fleet.play(f"playbooks/{name}.yml", variables={"email_configs": configs, **variables})


def repaired(fleet: Fleet, modes: dict[str, str]) -> None:
    played = play(fleet, "enable_tls", modes, **QUICK)
    assert played.status == 0, played.output
    assert ways(fleet, "gw1", modes) == of_the_table(modes)


def refused(fleet: Fleet, *texts: str) -> None:
    """verify_tls fails and says so."""
    played = play(fleet, "verify_tls", MODES, **QUICK)
    assert played.status != 0
    for text in texts:
        assert f"gw1: error: {text}" in played.output, played.output


@pytest.fixture(scope="module", autouse=True)
def modes(fleet: Fleet) -> Iterator[None]:
    """Every mode but plaintext is in use, and there is a backup from before."""
    fleet.run("gw1", "rm -rf /root/old && cp -a /etc/postfix /root/old")
    repaired(fleet, MODES)
    yield
    fleet.run("gw1", "rm -rf /root/old")


def test_an_old_backup_of_etc_and_a_main_cf_of_another_role(fleet: Fleet) -> None:
    fleet.run("gw1", "rm -rf /etc/postfix && cp -a /root/old /etc/postfix && systemctl restart postfix")
    refused(fleet, f"{TABLES}/gateway.json is not as the last run left it; ")
    fleet.run("gw1", OF_ANOTHER_ROLE)
    refused(
        fleet,
        f"email config bravo: transport_maps does not name {TABLES}/transport; ",
        f"email config alpha: transport_maps does not name {TABLES}/transport; ",
    )
    repaired(fleet, MODES)


def test_an_emptied_table_another_policy_service_and_a_masked_instance(fleet: Fleet) -> None:
    unit = "postfix@mailfleet.service"
    fleet.run("gw1", f": >{TABLES}/transport; postfix reload 2>&1")
    fleet.run("gw1", "cat >/usr/local/lib/mailfleet-starttls/arrival_policy.py", text=POLICY)
    fleet.run("gw1", "pkill -u mailfleet-starttls", check=False)  # it may serve a session of smtpd for a while
    fleet.run("gw1", f"systemctl stop {unit}; rm /etc/systemd/system/{unit}; systemctl mask {unit} 2>&1")
    there = "hash:/etc/postfix/transport leads to the transport 'smtp'"
    refused(
        fleet,
        f"email config bravo: {TABLES}/transport has no entry for bravo.test, so {there}",
        f"email config alpha: {TABLES}/transport has no entry for alpha.test, so {there}; the policy service answers 'DUNNO' for mail "
        "over TLS, not 'FILTER mailfleet-arrived:[127.0.0.1]:10125'; the instance postfix-mailfleet does not run: the unit "
        f"{unit} is masked",
    )
    plan = play(fleet, "plan_tls", MODES)
    assert f"the unit {unit} is masked; allow it: systemctl unmask {unit}" in plan.output
    fleet.run("gw1", f"systemctl unmask {unit} 2>&1")
    repaired(fleet, OF_THE_INVENTORY)


def test_a_gateway_that_was_renamed(fleet: Fleet) -> None:
    """The other instances have copies of its settings; a warning says so, and mail flows."""
    fleet.run("gw1", "postconf -e myhostname=renamed.fleet.test && postfix reload 2>&1")
    played = play(fleet, "verify_tls", OF_THE_INVENTORY, **QUICK)
    fleet.run("gw1", "postconf -e myhostname=gw1.fleet.test && postfix reload 2>&1")
    said = "gw1: warning: the instance postfix-mailfleet has other values than the first one in myhostname; "
    assert (played.status, said in played.output) == (0, True), played.output
