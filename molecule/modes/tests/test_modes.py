"""mode x arrived over TLS or in plaintext x server with or without STARTTLS x one or several recipients."""

from __future__ import annotations

from itertools import permutations

import pytest
from lab_testinfra import DOMAINS, SERVERS, Fleet, wait_for

WITH_STARTTLS = ("pf12", "ex12")
MODES = ("plaintext", "match_sender", "opportunistic", "required")
ALL = [f"trace@{domain}" for domain in DOMAINS.values()]
ARRIVALS = pytest.mark.parametrize("tls", [True, False], ids=["arrived over TLS", "arrived in plaintext"])


def wanted(mode: str, tls: bool, host: str) -> str:
    """The table of the delivery modes: TLS, plaintext or queued."""
    uses = {"plaintext": False, "match_sender": tls, "opportunistic": True, "required": True}[mode]
    if host in WITH_STARTTLS:
        return "TLS" if uses else "plaintext"
    return "queued" if mode == "required" else "plaintext"


def set_modes(fleet: Fleet, modes: dict[str, str], **options: object) -> None:
    configs = [
        {"name": host, "domains": [DOMAINS[host]], "servers": [f"{host}.fleet.test"], "delivery_mode": mode}
        for host, mode in modes.items()
    ]
    played = fleet.module("gw1", "inbound_tls_mode", {"email_configs": configs, **options})
    assert played.status == 0, played.output


def queued(fleet: Fleet, host: str) -> list[str]:
    """Why mail for a host waits, in both queues of the gateway."""
    entries = fleet.queue("gw1") + fleet.queue("gw1", "/etc/postfix-mailfleet")
    recipients = [one for entry in entries for one in entry["recipients"]]
    return [one.get("delay_reason", "") for one in recipients if one["address"].endswith(DOMAINS[host])]


def check(fleet: Fleet, host: str, mark: str, expected: str) -> None:
    if expected == "queued":
        assert wait_for(lambda: [why for why in queued(fleet, host) if "TLS is required" in why]), queued(fleet, host)
        assert fleet.mail(host, mark) is None
    else:
        assert ("TLS" if fleet.arrived_over_tls(host, mark) else "plaintext") == expected


@ARRIVALS
@pytest.mark.parametrize("mode", MODES)
def test_one_mode_for_all(fleet: Fleet, mode: str, tls: bool) -> None:
    set_modes(fleet, dict.fromkeys(SERVERS, mode), require_without_evidence=True)
    alone = {host: fleet.send("outside", [f"trace@{DOMAINS[host]}"], tls=tls) for host in SERVERS}
    together = fleet.send("outside", ALL, tls=tls)
    for host in SERVERS:
        for mark in (alone[host], together):
            check(fleet, host, mark, wanted(mode, tls, host))


@ARRIVALS
@pytest.mark.parametrize("order", list(permutations(MODES))[::6], ids=", ".join)
def test_a_message_to_four_modes_at_once(fleet: Fleet, order: tuple[str, ...], tls: bool) -> None:
    modes = dict(zip(SERVERS, order))
    set_modes(fleet, modes, require_without_evidence=True)
    mark = fleet.send("outside", ALL, tls=tls)
    for host, mode in modes.items():
        check(fleet, host, mark, wanted(mode, tls, host))


def test_no_header_of_the_sender_weakens_a_mode(fleet: Fleet) -> None:
    set_modes(fleet, {"pf12": "match_sender", "ex12": "required"})
    forged = "Received: from a (a [192.0.2.1]) by gw1.fleet.test (Postfix) with ESMTPS id 1; Mon, 1 Jan 2024 00:00:00 +0000\n"
    mark = fleet.send("outside", ["trace@alpha.test"], tls=False, headers=forged)
    assert not fleet.arrived_over_tls("pf12", mark)
    mark = fleet.send("outside", ["trace@charlie.test"], tls=True, headers="TLS-Required: no\n")
    assert fleet.arrived_over_tls("ex12", mark)


def test_required_mail_waits_and_goes_out_over_tls_once_the_server_offers_it(fleet: Fleet) -> None:
    set_modes(fleet, dict.fromkeys(SERVERS, "required"), require_without_evidence=True)
    marks = [fleet.send("outside", ["trace@bravo.test"], tls=tls) for tls in (True, False)]
    for mark in marks:
        check(fleet, "pf13", mark, "queued")
    # Neither a reload nor a restart of the gateway lets it out in plaintext.
    fleet.run("gw1", "postfix reload 2>&1; systemctl restart postfix; postqueue -f")
    assert wait_for(lambda: len(queued(fleet, "pf13")) >= 2)
    played = fleet.play("molecule/modes/offer_starttls.yml", variables={"offer_on": "pf13"})
    assert played.status == 0, played.output
    assert wait_for(lambda: fleet.run("gw1", "postqueue -f") or not queued(fleet, "pf13"), 60)
    assert all(fleet.arrived_over_tls("pf13", mark) for mark in marks)


def test_absent_is_plaintext_and_keeps_the_route(fleet: Fleet) -> None:
    set_modes(fleet, dict.fromkeys(SERVERS, "match_sender"))
    played = fleet.module("gw1", "inbound_tls_mode", {"name": "pf12", "state": "absent"})
    assert played.status == 0
    again = fleet.module("gw1", "inbound_tls_mode", {"name": "pf12", "state": "absent"})
    assert '"changed": false' in again.output
    mark = fleet.send("outside", ALL, tls=True)
    assert not fleet.arrived_over_tls("pf12", mark)
    assert fleet.arrived_over_tls("ex12", mark)


def test_a_mode_is_changed_by_name_alone(fleet: Fleet) -> None:
    set_modes(fleet, {"pf12": "plaintext"})
    played = fleet.module("gw1", "inbound_tls_mode", {"name": "pf12", "delivery_mode": "opportunistic"}, "--diff")
    assert played.status == 0
    assert "+alpha.test mailfleet-opportunistic:[pf12.fleet.test]:25" in played.output
    mark = fleet.send("outside", ["trace@alpha.test"], tls=False)
    assert fleet.arrived_over_tls("pf12", mark)


def test_a_server_that_takes_tls_only_is_never_sent_plaintext(fleet: Fleet) -> None:
    set_modes(fleet, {"pf12": "required"})
    assert fleet.module("pf12", "postfix_starttls", {"inbound": "required"}).status == 0
    try:
        refused = fleet.module("gw1", "inbound_tls_mode", {"name": "pf12", "delivery_mode": "match_sender"})
        assert refused.status != 0
        assert "takes mail over TLS only, so mail would bounce" in refused.output
        # Forced all the same, mail is put off and not bounced.
        set_modes(fleet, {"pf12": "plaintext"}, require_without_evidence=True)
        mark = fleet.send("outside", ["trace@alpha.test"], tls=True)
        assert wait_for(lambda: [why for why in queued(fleet, "pf12") if "STARTTLS" in why])
        set_modes(fleet, {"pf12": "required"})
        assert wait_for(lambda: fleet.run("gw1", "postqueue -f") or not queued(fleet, "pf12"), 60)
        assert fleet.arrived_over_tls("pf12", mark)
    finally:
        fleet.module("pf12", "postfix_starttls", {"inbound": "offered"})


def test_the_gateway_fails_safe_without_its_policy_service(fleet: Fleet) -> None:
    set_modes(fleet, {"pf12": "match_sender", "ex12": "opportunistic"})
    fleet.run("gw1", "mv /usr/local/lib/mailfleet-starttls /usr/local/lib/away; pkill -f arrival_policy", check=False)
    try:
        with pytest.raises(AssertionError, match="451"):
            fleet.send("outside", ["trace@alpha.test"], tls=True)
        mark = fleet.send("outside", ["trace@charlie.test"], tls=True)
        assert fleet.arrived_over_tls("ex12", mark)
    finally:
        fleet.run("gw1", "mv /usr/local/lib/away /usr/local/lib/mailfleet-starttls")


def test_the_gateway_fails_safe_without_its_second_instance(fleet: Fleet) -> None:
    set_modes(fleet, {"pf12": "match_sender"})
    fleet.run("gw1", "postmulti -i postfix-mailfleet -p stop 2>&1")
    mark = fleet.send("outside", ["trace@alpha.test"], tls=True)
    assert wait_for(lambda: queued(fleet, "pf12"))
    repaired = fleet.module("gw1", "inbound_tls_mode", {"name": "pf12", "delivery_mode": "match_sender"})
    assert '"changed": true' in repaired.output
    assert wait_for(lambda: fleet.run("gw1", "postqueue -f") or not queued(fleet, "pf12"), 60)
    assert fleet.arrived_over_tls("pf12", mark)
