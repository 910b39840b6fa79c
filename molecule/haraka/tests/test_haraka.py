"""Haraka: mode x server with or without STARTTLS, what is refused, and what a change does to the mail on its way."""

from __future__ import annotations

import json
import smtplib
import threading
from typing import Any

import pytest
from lab_testinfra import DOMAINS, SERVERS, Fleet, wait_for

HK = "hk"
CONFIG = "/etc/haraka/config"
WITH_STARTTLS = ("pf12", "ex12")
WITHOUT_STARTTLS = ("pf13", "ex13")
ALL = [f"trace@{domain}" for domain in DOMAINS.values()]


def change(fleet: Fleet, options: dict[str, Any], *arguments: str) -> str:
    """What inbound_tls_mode says."""
    return fleet.module(HK, "inbound_tls_mode", {"gateway": "haraka", **options}, *arguments).output


def configs(modes: dict[str, str]) -> dict[str, Any]:
    return {
        "email_configs": [
            {"name": host, "domains": [DOMAINS[host]], "servers": [f"{host}.fleet.test"], "delivery_mode": mode}
            for host, mode in modes.items()
        ]
    }


def set_modes(fleet: Fleet, modes: dict[str, str], **options: Any) -> str:
    told = change(fleet, {**configs(modes), **options})
    assert "FAILED" not in told, told
    return told


def queued(fleet: Fleet, host: str) -> int:
    """The number of messages for a host that wait."""
    listed = fleet.run(HK, "haraka -c /etc/haraka --qlist")
    return sum(line.startswith("Q: ") and line.endswith(f"domain:{DOMAINS[host]}") for line in listed.splitlines())


def flush(fleet: Fleet) -> None:
    """Have Haraka try all deferred mail now."""
    fleet.run(HK, "haraka -c /etc/haraka --qunstick")


def digest(fleet: Fleet) -> str:
    """Haraka's configuration, and which processes run."""
    return fleet.run(HK, f"cd {CONFIG} && sha256sum * | sort; pgrep -f '[H]araka/haraka.js'")


def edit(fleet: Fleet, script: str, file: str = "tls.ini") -> None:
    fleet.run(HK, f"sed -i '{script}' {CONFIG}/{file}")


@pytest.mark.parametrize("mode", ["plaintext", "opportunistic"])
def test_the_mode_is_kept_towards_servers_with_and_without_starttls(fleet: Fleet, mode: str) -> None:
    set_modes(fleet, dict.fromkeys(SERVERS, mode))
    for tls in (True, False):
        mark = fleet.send("outside", ALL, tls=tls, to=HK)
        for host in SERVERS:
            assert fleet.arrived_over_tls(host, mark) == (mode == "opportunistic" and host in WITH_STARTTLS), host


def test_the_administrators_lines_are_still_there(fleet: Fleet) -> None:
    set_modes(fleet, {"pf12": "plaintext", "ex12": "required"})
    text = fleet.run(HK, f"cat {CONFIG}/tls.ini")
    assert "; an old appliance\nno_tls_hosts[]=192.0.2.25\n" in text
    assert "no_tls_hosts[]=alpha.test\n" in text
    assert "force_tls_hosts[]=charlie.test\n" in text


def test_a_second_run_changes_nothing_and_replaces_no_worker(fleet: Fleet) -> None:
    before = digest(fleet)
    assert '"changed": false' in set_modes(fleet, {"pf12": "plaintext", "ex12": "required"})
    assert digest(fleet) == before


def test_check_mode_says_what_would_change_and_changes_nothing(fleet: Fleet) -> None:
    before = digest(fleet)
    told = change(fleet, configs({"pf12": "required"}), "--check", "--diff")
    assert '"changed": true' in told
    assert "-no_tls_hosts[]=alpha.test\n" in told
    assert "+force_tls_hosts[]=alpha.test\n" in told
    assert digest(fleet) == before


@pytest.mark.parametrize("mode", ["match_sender", "match_sender_strict"])
def test_match_sender_is_refused_with_the_reason(fleet: Fleet, mode: str) -> None:
    before = digest(fleet)
    told = change(fleet, configs({"pf12": mode}))
    assert f"email config pf12: Haraka cannot express {mode}, because its outbound side chooses by recipient" in told
    assert "does not know how a message arrived; it can do plaintext, opportunistic, required" in told
    assert digest(fleet) == before


def test_required_is_refused_for_a_server_without_starttls(fleet: Fleet) -> None:
    before = digest(fleet)
    told = change(fleet, configs({"pf13": "required"}))
    assert "the server does not offer STARTTLS" in told
    assert digest(fleet) == before


def test_required_is_refused_for_a_certificate_that_is_not_trusted(fleet: Fleet) -> None:
    before = digest(fleet)
    anchor = "/usr/local/share/ca-certificates/lab.crt"
    fleet.run(HK, f"mv {anchor} /root/lab.crt && update-ca-certificates 2>&1")
    try:
        told = change(fleet, configs({"pf12": "required"}))
    finally:
        fleet.run(HK, f"mv /root/lab.crt {anchor} && update-ca-certificates 2>&1")
    assert "FAILED" in told and "'required' is refused" in told, told
    assert "pf12.fleet.test:25" in told
    assert digest(fleet) == before


def test_an_entry_of_the_administrator_that_says_otherwise_is_refused(fleet: Fleet) -> None:
    edit(fleet, "s/^; an old appliance$/no_tls_hosts[]=bravo.test/")
    try:
        told = change(fleet, configs({"pf13": "opportunistic", "pf12": "required"}))
        assert f"{CONFIG}/tls.ini has no_tls_hosts[]=bravo.test in [outbound]" in told
        assert "contradicts opportunistic" in told
    finally:
        edit(fleet, "s/^no_tls_hosts..=bravo.test$/; an old appliance/")


def test_required_is_refused_while_haraka_uses_no_tls_at_all(fleet: Fleet) -> None:
    fleet.run(HK, f"cp {CONFIG}/outbound.ini /root && echo enable_tls=false >>{CONFIG}/outbound.ini")
    try:
        assert "outbound.ini says enable_tls=false" in change(fleet, configs({"pf12": "required"}))
    finally:
        fleet.run(HK, f"mv /root/outbound.ini {CONFIG}/outbound.ini")


def test_an_edit_by_hand_is_taken_up_by_the_next_run(fleet: Fleet) -> None:
    """Haraka says that it reloaded the file; its workers go by the lists that they know."""
    edit(fleet, "/old appliance/d")
    assert '"changed": true' in set_modes(fleet, {"pf12": "plaintext"})
    assert '"changed": false' in set_modes(fleet, {"pf12": "plaintext"})


def test_no_message_is_lost_while_the_workers_are_replaced(fleet: Fleet) -> None:
    """A connection that is cut is the sender's to repeat; what Haraka took arrives."""
    accepted: list[str] = []
    cut = 0
    over = threading.Event()

    def send() -> None:
        nonlocal cut
        address = fleet.address(HK)
        number = 0
        while not over.is_set():
            number += 1
            mark = f"steady-{threading.get_ident()}-{number}"
            try:
                with smtplib.SMTP(address, 25, "mx.partner.test", timeout=10) as server:
                    text = f"Subject: {mark}\nFrom: trace@partner.test\n\nx\n"
                    server.sendmail("trace@partner.test", ["trace@charlie.test", "trace@alpha.test"], text)
                accepted.append(mark)
            except (OSError, smtplib.SMTPException):
                cut += 1
            over.wait(0.2)

    senders = [threading.Thread(target=send) for _ in range(2)]
    for sender in senders:
        sender.start()
    try:
        set_modes(fleet, {"pf12": "required", "ex12": "plaintext"}, timeout=4)
    finally:
        over.set()
        for sender in senders:
            sender.join()
    assert len(accepted) > 20
    assert cut < len(accepted) / 10, f"{cut} of {len(accepted)} were cut"
    fleet.run("ex12", "exim4 -qff", check=False)  # what waits there for a mailbox that was locked
    for host in WITH_STARTTLS:
        assert wait_for(lambda host=host: not missing(fleet, host, accepted)), missing(fleet, host, accepted)


def missing(fleet: Fleet, host: str, marks: list[str]) -> list[str]:
    subjects = set(fleet.run(host, "sed -n 's/^Subject: //p' /var/mail/trace", check=False).split())
    return [mark for mark in marks if mark not in subjects]


def test_required_waits_and_goes_out_once_the_server_offers_tls(fleet: Fleet) -> None:
    """Over two changes that replace every worker: the deferred mail is taken over each time."""
    set_modes(fleet, dict.fromkeys(SERVERS, "required"), require_without_evidence=True)
    mark = fleet.send("outside", ALL, tls=True, to=HK)
    plain = fleet.send("outside", ALL, tls=False, to=HK)
    for host in WITH_STARTTLS:
        assert fleet.arrived_over_tls(host, mark)
        assert fleet.arrived_over_tls(host, plain)
    for host in WITHOUT_STARTTLS:
        assert wait_for(lambda host=host: queued(fleet, host) == 2), host
        assert fleet.mail(host, mark) is None
    reason = "journalctl -u haraka --no-pager | grep -c 'No TLS available but required'"
    assert wait_for(lambda: int(fleet.run(HK, reason, check=False)) >= 2)
    # A change while mail is queued: it goes by the new mode, the other domain's waits on.
    refused = change(fleet, {"name": "ex13", "state": "absent", "queue_timeout": 0})
    assert "mail still waits for it after 0 s: " in refused and "to trace@delta.test: failed attempts: " in refused, (
        refused
    )
    told = change(fleet, {"name": "ex13", "delivery_mode": "plaintext"})
    assert "FAILED" not in told, told
    flush(fleet)
    assert not fleet.arrived_over_tls("ex13", mark)
    assert not fleet.arrived_over_tls("ex13", plain)
    assert queued(fleet, "pf13") == 2
    played = fleet.play("molecule/modes/offer_starttls.yml", variables={"offer_on": "pf13"})
    assert played.status == 0, played.output
    flush(fleet)
    assert fleet.arrived_over_tls("pf13", mark)
    assert fleet.arrived_over_tls("pf13", plain)
    assert wait_for(lambda: queued(fleet, "pf13") == 0)
    # Nothing waits any more, so an email config can go, and its entries with it.
    assert '"changed": true' in change(fleet, {"name": "pf13", "state": "absent"})
    assert '"changed": false' in change(fleet, {"name": "pf13", "state": "absent", "queue_timeout": 0})
    assert "bravo.test" not in fleet.run(
        HK, "cat /etc/haraka/config/tls.ini /etc/haraka/config/mailfleet-starttls.json"
    )


def test_inbound_tls_mode_info_says_it(fleet: Fleet) -> None:
    played = fleet.module(HK, "inbound_tls_mode_info", {"gateway": "haraka"})
    told = json.loads(played.output.partition("=>")[2])
    assert {one["name"]: one["delivery_mode"] for one in told["email_configs"]} == {
        "pf12": "required",
        "ex12": "required",
        "ex13": "plaintext",
    }, "pf13 was removed"
