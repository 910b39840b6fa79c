"""After enable_tls, from the other side of the wire: OpenSSL's judgement, the Received headers, the queues."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lab_testinfra import DOMAINS, SERVERS, Fleet, wait_for

from tests.bench.call_trace import counts_of_calls

FQDN = {host: f"{host}.fleet.test" for host in ("gw1", *SERVERS)}


@pytest.mark.parametrize("host", FQDN)
def test_openssl_trusts_what_is_served(fleet: Fleet, host: str) -> None:
    seen = fleet.s_client(host, "-CAfile", str(fleet.ca), "-verify_return_error", "-verify_hostname", FQDN[host])
    assert seen.status == 0, seen.output
    assert f"Verified peername: {FQDN[host]}" in seen.output
    assert re.search(r"TLSv1\.[23]", seen.output)


@pytest.mark.parametrize("host", FQDN)
def test_the_served_certificate_is_the_installed_one_and_comes_with_its_chain(fleet: Fleet, host: str) -> None:
    served = re.findall(
        r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----", fleet.s_client(host, "-showcerts").output
    )
    assert served[0].split() == (fleet.pki / f"{host}.pem").read_text().split()
    assert served[1].split() == (fleet.pki / "chain.pem").read_text().split()


@pytest.mark.parametrize("host", SERVERS)
def test_a_stranger_cannot_read_the_key(fleet: Fleet, host: str) -> None:
    mode, owner, group = fleet.run(host, "stat -c '%a %U %G' /etc/mailfleet/starttls.pem").split()
    assert (mode, owner, group) == (
        ("640", "root", "Debian-exim") if host.startswith("ex") else ("600", "root", "root")
    )


@pytest.mark.parametrize("host", SERVERS)
@pytest.mark.parametrize("tls", [True, False], ids=["arrived over TLS", "arrived in plaintext"])
def test_the_delivery_mode_holds(fleet: Fleet, host: str, tls: bool) -> None:
    modes = {config["name"]: config["delivery_mode"] for config in fleet.variables["email_configs"]}
    mode = modes[DOMAINS[host].removesuffix(".test")]
    mark = fleet.send("outside", [f"trace@{DOMAINS[host]}"], tls=tls)
    wanted = {"match_sender": tls, "opportunistic": True, "required": True}[mode]
    assert fleet.arrived_over_tls(host, mark) == wanted


def test_nothing_waits_in_a_queue(fleet: Fleet) -> None:
    # The last messages of the run may be on their way.
    assert wait_for(lambda: fleet.queue("gw1") + fleet.queue("gw1", "/etc/postfix-mailfleet") == [])
    assert fleet.run("ex12", "exim4 -bpc").strip() == "0"
    assert fleet.run("ex13", "exim4 -bpc").strip() == "0"


@pytest.mark.parametrize("host", ["gw1", "pf12", "pf13"])
def test_postfix_has_nothing_to_complain_about(fleet: Fleet, host: str) -> None:
    log = fleet.run(host, "cat /var/log/mail.log")
    complaints = [line for line in log.splitlines() if re.search(r"(warning|error|fatal|panic):", line)]
    assert not [line for line in complaints if "hostname" not in line and "does not resolve" not in line]


@pytest.mark.parametrize("host", ["gw1", *SERVERS])
def test_no_unit_failed(fleet: Fleet, host: str) -> None:
    assert fleet.run(host, "systemctl --failed --no-legend").strip() == ""


@pytest.mark.parametrize("host", ["gw1", *SERVERS])
def test_no_journal_is_left(fleet: Fleet, host: str) -> None:
    assert fleet.run(host, "find /var/lib/mailfleet-starttls -name '*.journal'").strip() == ""


def test_without_an_outside_host_the_messages_are_left_out(fleet: Fleet) -> None:
    played = fleet.play("playbooks/enable_tls.yml", variables={"starttls_outside_host": ""})
    assert played.status == 0, played.output
    assert "in 2/2 TLS" not in played.output


def lock_calls(results: list[dict[str, Any]]) -> int:
    """How often a run has called the host that holds the lock of the fleet for it."""
    return sum(one["action"] == "mailfleet.starttls.fleet_lock" and not one["skipped"] for one in results)


def test_a_change_costs_two_calls_more_on_the_one_host_with_the_lock(fleet: Fleet, tmp_path: Path) -> None:
    wish = {
        "starttls_email_config": "alpha",
        "starttls_delivery_mode": "opportunistic",
        "starttls_send_messages": False,
    }
    for mode, file in (("opportunistic", "there"), ("match_sender", "back")):
        variables = {**wish, "starttls_delivery_mode": mode}
        played, results = fleet.play_and_count("playbooks/set_delivery_mode.yml", tmp_path / file, variables=variables)
        assert played.status == 0, played.output
        assert lock_calls(results) == 2, played.output


def test_a_rerun_is_one_read_and_one_call_for_the_messages(fleet: Fleet, tmp_path: Path) -> None:
    """A task costs a round trip on every host of a fleet. Without a change the tests of the read are the proof."""
    played, results = fleet.play_and_count("playbooks/enable_tls.yml", tmp_path / "results")
    calls = Counter(
        one["host"]
        for one in results
        if one["action"].startswith("mailfleet.starttls.") and not (one["delegated"] or one["loop"] or one["skipped"])
    )
    assert {host: calls[host] for host in SERVERS} == dict.fromkeys(SERVERS, 2), played.output
    assert lock_calls(results) == 0
    assert played.changed and not any(played.changed.values())
    for host, product in {"gw1": "Postfix gateway", "pf12": "Postfix", "ex13": "Exim"}.items():
        assert re.search(rf"(?m)^{host} +{product}  ", played.output), played.output


@pytest.mark.parametrize(("host", "others"), [("pf12", "_exim"), ("ex12", "_postfix")])
def test_a_rerun_costs_a_host_one_call_that_loads_and_starts_little(fleet: Fleet, host: str, others: str) -> None:
    """Without messages: one module call, one handshake, at most six programs, and nothing of gateways or of another product."""

    def rerun() -> None:
        played = fleet.play("playbooks/enable_tls.yml", variables={"starttls_outside_host": ""})
        assert played.status == 0, played.output

    [call] = counts_of_calls(fleet.container(host), rerun)
    assert call.module == "mailfleet.starttls.mail_server_info"
    assert sum(call.programs.values()) <= 6, call.programs
    assert call.handshakes == 1
    loaded = {name for name in call.own_files if "_gateway" in name or "ansible_gateway" in name or others in name}
    # The registry knows where each product lies.
    assert loaded == {f"module_utils.{others}", f"module_utils.{others}.layout"}
    assert "ansible.module_utils.urls" not in call.files
