"""gateway x mode x arrived over TLS or in plaintext x server with or without STARTTLS x one or several recipients."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import permutations

import pytest
from lab_testinfra import DOMAINS, SERVERS, Fleet, came_over_tls, of_kind, on_each, report, wait_for

KIND = {"gw1": "postfix", "gw13": "postfix", "gx12": "exim", "gx13": "exim"}
WITH_STARTTLS = ("pf12", "ex12")
# Mode -> uses TLS for mail that arrived in plaintext, over TLS.
MODES = {
    "plaintext": (False, False),
    "match_sender": (False, True),
    "match_sender_strict": (False, True),
    "opportunistic": (True, True),
    "required": (True, True),
}
INSISTS = {"match_sender_strict": (False, True), "required": (True, True)}
ALL = [f"trace@{domain}" for domain in DOMAINS.values()]
ARRIVALS = pytest.mark.parametrize("tls", [True, False], ids=["arrived over TLS", "arrived in plaintext"])
GATEWAYS = on_each(KIND)
POSTFIX_GATEWAYS = on_each(name for name, kind in KIND.items() if kind == "postfix")
RESULTS: dict[tuple[str, str, str, str], str] = {}


@pytest.fixture(scope="module", autouse=True)
def matrix() -> Iterator[None]:
    """Print what was seen, a row for each gateway and mode."""
    yield
    columns = [(arrival, host) for arrival in ("in plaintext", "over TLS") for host in sorted(SERVERS)]
    rows = [
        f"{gateway} {mode}".ljust(28)
        + "  ".join(RESULTS.get((gateway, mode, *column), "-").ljust(17) for column in columns)
        for gateway, mode in {key[:2] for key in RESULTS}
    ]
    report("gateway mode".ljust(28) + "  ".join(f"{host} {arrival}".ljust(17) for arrival, host in columns), rows)


def wanted(mode: str, tls: bool, host: str) -> str:
    """The table of the delivery modes: TLS, plaintext or queued."""
    if host in WITH_STARTTLS:
        return "TLS" if MODES[mode][tls] else "plaintext"
    return "queued" if INSISTS.get(mode, (False, False))[tls] else "plaintext"


def set_modes(fleet: Fleet, gateway: str, modes: dict[str, str], **options: object) -> None:
    configs = [
        {"name": host, "domains": [DOMAINS[host]], "servers": [f"{host}.fleet.test"], "delivery_mode": mode}
        for host, mode in modes.items()
    ]
    played = change(fleet, gateway, {"email_configs": configs, **options})
    assert '"failed": true' not in played and "FAILED" not in played, played


def change(fleet: Fleet, gateway: str, options: dict[str, object], *arguments: str) -> str:
    """What inbound_tls_mode says."""
    options = {**of_kind(KIND[gateway]), **options}
    return fleet.module(gateway, "inbound_tls_mode", options, *arguments).output


def queued(fleet: Fleet, gateway: str, host: str) -> list[str]:
    """Why mail for a host waits, in every queue of the gateway."""
    if KIND[gateway] == "exim":
        # A recipient that has its copy already is listed behind a D.
        waiting = len(re.findall(rf"(?m)^\s+trace@{DOMAINS[host]}$", fleet.run(gateway, "exim4 -bpr")))
        deferred = re.findall(rf"== trace@{DOMAINS[host]} .*", fleet.run(gateway, "cat /var/log/exim4/mainlog"))
        return deferred[-waiting:] if waiting else []
    entries = fleet.queue(gateway) + fleet.queue(gateway, "/etc/postfix-mailfleet")
    recipients = [one for entry in entries for one in entry["recipients"]]
    return [one.get("delay_reason", "") for one in recipients if one["address"].endswith(DOMAINS[host])]


def flushed(fleet: Fleet, gateway: str, host: str) -> bool:
    """Try the queue again; whether nothing is left of it for the host."""
    command = "exim4 -qff" if KIND[gateway] == "exim" else "postqueue -f; postqueue -c /etc/postfix-mailfleet -f"
    fleet.run(gateway, command, check=False)
    return not queued(fleet, gateway, host)


def check(fleet: Fleet, gateway: str, host: str, mark: str, expected: str) -> str:
    if expected == "queued":
        reason = r"TLS is required|TLS session is required|retry time not reached"
        seen = wait_for(lambda: [why for why in queued(fleet, gateway, host) if re.search(reason, why)])
        assert seen, queued(fleet, gateway, host)
        assert fleet.mail(host, mark) is None
        return "queued"
    seen = "TLS" if fleet.arrived_over_tls(host, mark) else "plaintext"
    assert seen == expected
    return seen


@GATEWAYS
@pytest.mark.parametrize("mode", MODES)
def test_one_mode_for_all(fleet: Fleet, gateway: str, mode: str) -> None:
    set_modes(fleet, gateway, dict.fromkeys(SERVERS, mode), require_without_evidence=True)
    sent = {}
    for tls in (True, False):
        together = fleet.send("outside", ALL, tls=tls, to=gateway)
        for host in SERVERS:
            sent[tls, host] = (fleet.send("outside", [f"trace@{DOMAINS[host]}"], tls=tls, to=gateway), together)
    for (tls, host), marks in sent.items():
        for mark in marks:
            seen = check(fleet, gateway, host, mark, wanted(mode, tls, host))
            RESULTS[gateway, mode, "over TLS" if tls else "in plaintext", host] = seen


@GATEWAYS
@pytest.mark.parametrize("order", list(permutations(("plaintext", "match_sender", "opportunistic", "required")))[::6])
def test_a_message_to_four_modes_at_once(fleet: Fleet, gateway: str, order: tuple[str, ...]) -> None:
    modes = dict(zip(SERVERS, order))
    set_modes(fleet, gateway, modes, require_without_evidence=True)
    marks = {tls: fleet.send("outside", ALL, tls=tls, to=gateway) for tls in (True, False)}
    for tls, mark in marks.items():
        for host, mode in modes.items():
            check(fleet, gateway, host, mark, wanted(mode, tls, host))


@GATEWAYS
def test_no_header_of_the_sender_weakens_a_mode(fleet: Fleet, gateway: str) -> None:
    set_modes(fleet, gateway, {"pf12": "match_sender", "ex12": "required"})
    forged = f"Received: from a (a [192.0.2.1]) by {gateway}.fleet.test (Postfix) with ESMTPS id 1; Mon, 1 Jan 2024 00:00:00 +0000\n"
    mark = fleet.send("outside", ["trace@alpha.test"], tls=False, headers=forged, to=gateway)
    assert not fleet.arrived_over_tls("pf12", mark)
    mark = fleet.send("outside", ["trace@charlie.test"], tls=True, headers="TLS-Required: no\n", to=gateway)
    assert fleet.arrived_over_tls("ex12", mark)


@GATEWAYS
@pytest.mark.changes_servers
def test_required_mail_waits_and_goes_out_over_tls_once_the_server_offers_it(fleet: Fleet, gateway: str) -> None:
    """Nor does its email config go before, by which the mail would take another way."""
    gone = {"email_configs": [{"name": "pf13", "state": "absent"}], "queue_timeout": 0}
    set_modes(fleet, gateway, dict.fromkeys(SERVERS, "required"), require_without_evidence=True)
    marks = [fleet.send("outside", ["trace@bravo.test"], tls=tls, to=gateway) for tls in (True, False)]
    for mark in marks:
        check(fleet, gateway, "pf13", mark, "queued")
    # Neither a reload nor a restart of the gateway lets it out in plaintext.
    unit = "exim4" if KIND[gateway] == "exim" else "postfix"
    fleet.run(gateway, f"systemctl reload {unit} && systemctl restart {unit}")
    flushed(fleet, gateway, "pf13")
    assert wait_for(lambda: len(queued(fleet, gateway, "pf13")) >= 2)
    refused = change(fleet, gateway, gone)
    assert "the route of bravo.test (email config pf13) is not taken out, because mail still waits for it" in refused, (
        refused
    )
    assert len(re.findall(r"[-\w]+ to trace@bravo\.test: [^;]*TLS", refused)) >= 2, refused
    played = fleet.play("molecule/modes/offer_starttls.yml", variables={"offer_on": "pf13"})
    assert played.status == 0, played.output
    try:
        assert wait_for(lambda: flushed(fleet, gateway, "pf13")), queued(fleet, gateway, "pf13")
        assert all(fleet.arrived_over_tls("pf13", mark) for mark in marks)
        told = change(fleet, gateway, {**gone, "queue_timeout": 30})
        assert '"changed": true' in told and "the gateway still takes mail for bravo.test" in told, told
        assert '"changed": false' in change(fleet, gateway, gone)
        mark = fleet.send("outside", ["trace@bravo.test"], tls=True, to=gateway)
        assert not fleet.arrived_over_tls("pf13", mark)  # by the gateway's own route, which says nothing of TLS
    finally:
        off = fleet.module("pf13", "mail_server_tls", {"inbound": "disabled"})
        assert off.status == 0, off.output


@GATEWAYS
def test_a_change_of_mode_holds_for_queued_mail(fleet: Fleet, gateway: str) -> None:
    set_modes(fleet, gateway, {"ex13": "required"}, require_without_evidence=True)
    mark = fleet.send("outside", ["trace@delta.test"], tls=True, to=gateway)
    check(fleet, gateway, "ex13", mark, "queued")
    set_modes(fleet, gateway, {"ex13": "opportunistic"})
    assert wait_for(lambda: flushed(fleet, gateway, "ex13")), queued(fleet, gateway, "ex13")
    assert not fleet.arrived_over_tls("ex13", mark)


@GATEWAYS
def test_a_mode_is_changed_by_name_alone_and_read_back(fleet: Fleet, gateway: str) -> None:
    set_modes(fleet, gateway, {"pf12": "plaintext"})
    dry = change(fleet, gateway, {"name": "pf12", "delivery_mode": "opportunistic"}, "--check", "--diff")
    assert "+alpha.test" in dry
    assert '"changed": true' in dry
    assert '"changed": true' in change(fleet, gateway, {"name": "pf12", "delivery_mode": "opportunistic"})
    told = fleet.module(gateway, "inbound_tls_mode_info", {"gateway": KIND[gateway]}).output
    configs = json.loads(told[told.index("{\n") :])["email_configs"]
    expected = {
        "name": "pf12",
        "domains": ["alpha.test"],
        "servers": ["pf12.fleet.test:25"],
        "delivery_mode": "opportunistic",
    }
    assert expected in configs
    mark = fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway)
    assert fleet.arrived_over_tls("pf12", mark)


@GATEWAYS
def test_several_servers_are_tried_in_their_order(fleet: Fleet, gateway: str) -> None:
    """The first does not answer, the second is named by its address and port."""
    servers = ["pf12.fleet.test:26", f"[{fleet.address('pf12')}]:25"]
    config = {"name": "pf12", "domains": ["alpha.test"], "servers": servers}
    assert "FAILED" not in change(fleet, gateway, {**config, "delivery_mode": "opportunistic"})
    mark = fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway)
    assert fleet.arrived_over_tls("pf12", mark)


@GATEWAYS
def test_two_email_configs_share_a_server(fleet: Fleet, gateway: str) -> None:
    """The same host and port, in one message: each recipient domain has the mode of its own email config."""
    modes = {"alpha.test": ("required", "opportunistic"), "pf12.fleet.test": ("plaintext", "match_sender")}
    for round_ in (0, 1):
        configs = [
            {"name": domain, "domains": [domain], "servers": ["pf12.fleet.test"], "delivery_mode": mode[round_]}
            for domain, mode in modes.items()
        ]
        assert "FAILED" not in change(fleet, gateway, {"email_configs": configs})
        for tls in (True, False):
            mark = fleet.send("outside", [f"trace@{domain}" for domain in modes], tls=tls, to=gateway)
            copies = wait_for(lambda mark=mark: found if len(found := fleet.copies("pf12", mark)) == 2 else [])
            seen = {str(one["X-Original-To"]).partition("@")[2]: came_over_tls(one) for one in copies}
            assert seen == {domain: MODES[mode[round_]][tls] for domain, mode in modes.items()}


@GATEWAYS
@pytest.mark.changes_servers
def test_a_server_that_takes_tls_only_is_never_sent_plaintext(fleet: Fleet, gateway: str) -> None:
    set_modes(fleet, gateway, {"pf12": "required"})
    assert fleet.module("pf12", "mail_server_tls", {"inbound": "required"}).status == 0
    try:
        refused = change(fleet, gateway, {"name": "pf12", "delivery_mode": "match_sender"})
        assert "takes mail over TLS only, so mail would bounce" in refused
        if KIND[gateway] == "postfix":  # forced all the same, mail is put off and not bounced
            set_modes(fleet, gateway, {"pf12": "plaintext"}, require_without_evidence=True)
            mark = fleet.send("outside", ["trace@alpha.test"], tls=True, to=gateway)
            assert wait_for(lambda: [why for why in queued(fleet, gateway, "pf12") if "STARTTLS" in why])
            set_modes(fleet, gateway, {"pf12": "required"})
            assert wait_for(lambda: flushed(fleet, gateway, "pf12"))
            assert fleet.arrived_over_tls("pf12", mark)
    finally:
        assert fleet.module("pf12", "mail_server_tls", {"inbound": "offered"}).status == 0


@POSTFIX_GATEWAYS
def test_other_recipients_of_the_message_get_it_at_their_own_place(fleet: Fleet, gateway: str) -> None:
    """The whole message passes the second instance, which knows nothing of the gateway's own users or the outside."""
    set_modes(fleet, gateway, {"pf12": "match_sender"})
    recipients = ["trace@alpha.test", f"man@{gateway}.fleet.test"]
    mark = fleet.send("outside", recipients, tls=True, to=gateway)
    assert fleet.arrived_over_tls("pf12", mark)
    assert wait_for(lambda: mark in fleet.run(gateway, "cat /var/mail/man", check=False))


@POSTFIX_GATEWAYS
def test_a_gateway_that_listens_on_one_address_delivers_all_the_same(fleet: Fleet, gateway: str) -> None:
    """Postfix then sends from that address, towards its own loopback too."""
    address = fleet.address(gateway)
    fleet.run(gateway, f"postconf -e inet_interfaces={address} && systemctl restart postfix")
    try:
        options = {"name": "pf12", "delivery_mode": "match_sender"}
        told = change(fleet, gateway, options)
        assert "the gateway does not answer on 127.0.0.1:25" in told
        told = change(fleet, gateway, {**options, "address": address})
        assert "FAILED" not in told, told
        mark = fleet.send("outside", ["trace@alpha.test", f"man@{gateway}.fleet.test"], tls=True, to=gateway)
        assert fleet.arrived_over_tls("pf12", mark)
        assert wait_for(lambda: mark in fleet.run(gateway, "cat /var/mail/man", check=False))
    finally:
        fleet.run(gateway, "postconf -e inet_interfaces=all && systemctl restart postfix")
        change(fleet, gateway, {"name": "pf12", "delivery_mode": "match_sender"})  # starts the other instances again


@POSTFIX_GATEWAYS
def test_a_content_filter_is_not_bypassed(fleet: Fleet, gateway: str) -> None:
    set_modes(fleet, gateway, {"pf12": "plaintext"})
    fleet.run(gateway, "postconf -e content_filter=smtp:[127.0.0.1]:10024")
    try:
        assert "content_filter=smtp:[127.0.0.1]:10024" in change(
            fleet, gateway, {"name": "pf12", "delivery_mode": "match_sender"}
        )
    finally:
        fleet.run(gateway, "postconf -X content_filter; postfix reload 2>&1")


@POSTFIX_GATEWAYS
def test_the_gateway_fails_safe_without_its_policy_service(fleet: Fleet, gateway: str) -> None:
    set_modes(fleet, gateway, {"pf12": "match_sender", "ex12": "opportunistic"})
    fleet.run(gateway, "mv /usr/local/lib/mailfleet-starttls /usr/local/lib/away; pkill -f arrival_policy", check=False)
    try:
        with pytest.raises(AssertionError, match="451"):
            fleet.send("outside", ["trace@alpha.test"], tls=True, to=gateway)
        mark = fleet.send("outside", ["trace@charlie.test"], tls=True, to=gateway)
        assert fleet.arrived_over_tls("ex12", mark)
    finally:
        fleet.run(gateway, "mv /usr/local/lib/away /usr/local/lib/mailfleet-starttls")


@POSTFIX_GATEWAYS
def test_the_gateway_fails_safe_without_its_second_instance(fleet: Fleet, gateway: str) -> None:
    set_modes(fleet, gateway, {"pf12": "match_sender"})
    fleet.run(gateway, "postmulti -i postfix-mailfleet -p stop 2>&1")
    mark = fleet.send("outside", ["trace@alpha.test"], tls=True, to=gateway)
    assert wait_for(lambda: queued(fleet, gateway, "pf12"))
    repaired = change(fleet, gateway, {"name": "pf12", "delivery_mode": "match_sender"})
    assert '"changed": true' in repaired
    assert wait_for(lambda: flushed(fleet, gateway, "pf12"))
    assert fleet.arrived_over_tls("pf12", mark)


@GATEWAYS
def test_no_unit_failed_and_a_second_run_changes_nothing(fleet: Fleet, gateway: str) -> None:
    set_modes(fleet, gateway, {"pf12": "match_sender", "ex12": "match_sender"})
    assert '"changed": false' in change(fleet, gateway, {"name": "pf12", "delivery_mode": "match_sender"})
    assert fleet.run(gateway, "systemctl --failed --no-legend").strip() == ""
