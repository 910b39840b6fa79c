"""Many estates in one: see conftest.py for the shape of each host. One run switches TLS on for all of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lab_estates import other_inventory
from lab_testinfra import Fleet, Played, wait_for

GATEWAYS = ("gw1", "gw13")
OTHER = "find /etc/postfix-other -type f -exec sha256sum {} + | sort; ss -Hltn 'sport = 2525' | wc -l"


def row(played: Played, host: str) -> str:
    """The last row of a host in the tables of a run; the recap has none."""
    return re.findall(rf"(?m)^ *({host}  +[A-Za-z].*?) *$", played.output)[-1]


def served(fleet: Fleet, host: str, port: int, *more: str) -> str:
    """The subject of the certificate that a host serves to itself at a port."""
    starttls = "" if port == 465 else "-starttls smtp"
    said = fleet.run(host, f"openssl s_client {starttls} -connect localhost:{port} </dev/null 2>/dev/null", check=False)
    found = re.search(r"(?m)^subject=(.*)$", said)
    return found[1].replace(" ", "") if found else ""


@pytest.fixture(scope="module")
def other_instance(estate: Fleet) -> str:
    """The second instance of Postfix on pf12, before the first change."""
    return estate.run("pf12", OTHER)


@pytest.fixture(scope="module")
def enabled(estate: Fleet, other_instance: str) -> Played:
    return estate.play("playbooks/enable_tls.yml")


def test_everything_is_on(enabled: Played) -> None:
    assert enabled.status == 0, enabled.output
    for host in (*GATEWAYS, "pf12", "pf13", "ex12", "ex13"):
        assert re.search(r"  pass(, \d warnings?)?$", row(enabled, host)), row(enabled, host)


def test_several_gateways_test_and_deliver(enabled: Played) -> None:
    for host in ("pf12", "pf13", "ex12", "ex13"):
        assert re.search(r"  host, gw1, gw13  ", row(enabled, host)), row(enabled, host)


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize(("domain", "host", "tls", "wanted"), [
    ("alpha.test", "pf12", True, True),
    ("alpha.test", "pf12", False, False),
    ("legal.test", "pf12", False, True),
    ("bravo.test", "pf13", False, True),
    ("charlie.test", "ex12", False, True),
    ("delta.test", "ex13", False, True),
])  # fmt: skip
def test_each_domain_is_delivered_in_its_mode(
    enabled: Played, estate: Fleet, gateway: str, domain: str, host: str, tls: bool, wanted: bool
) -> None:
    """A server in several email configs, IPv6 behind postscreen, an address that is not on the host, a port that only gateways reach."""
    mark = estate.send("outside", [f"trace@{domain}"], tls, to=gateway)
    assert estate.arrived_over_tls(host, mark, 60) is wanted


def test_the_hop_to_a_host_with_ipv6_alone_is_ipv6(enabled: Played, estate: Fleet) -> None:
    mark = estate.send("outside", ["trace@bravo.test"], True)
    message = wait_for(lambda: estate.mail("pf13", mark))
    assert message, mark
    assert "[IPv6:fd00:25::10]" in str(message.get_all("Received")[0])


def test_a_gateway_that_is_a_mail_server_keeps_its_own_delivery(enabled: Played, estate: Fleet) -> None:
    mark = estate.send("outside", ["trace@own.test"], True)
    assert wait_for(lambda: estate.mail("gw1", mark))


def test_another_instance_of_postfix_stays_as_it_is(enabled: Played, estate: Fleet, other_instance: str) -> None:
    assert estate.run("pf12", OTHER) == other_instance
    assert other_instance.endswith("1\n")


def test_submission_and_smtps_keep_their_certificate(enabled: Played, estate: Fleet) -> None:
    assert {port: served(estate, "pf12", port) for port in (25, 587, 465)} == {
        25: "CN=pf12.fleet.test",
        587: "CN=users.example",
        465: "CN=users.example",
    }
    assert "/etc/ssl/own.pem" in estate.run("pf12", "postconf -P submission/inet/smtpd_tls_chain_files")


def test_a_controller_that_reaches_no_port_25_could_not_look(enabled: Played, estate: Fleet) -> None:
    played = estate.play(
        "playbooks/verify_tls.yml",
        variables={"starttls_probe_timeout": 6, "starttls_send_messages": False, "starttls_fail_on": "error"},
    )
    assert played.status == 0, played.output
    assert re.search(r"  host, gw1, gw13; not controller  ", row(played, "ex13")), row(played, "ex13")
    assert re.search(r"(?m)^ex13: notice: the controller could not look", played.output), played.output


LIAR = """
import socket, sys
address = socket.inet_aton(sys.argv[1])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    asked, client = server.recvfrom(4096)
    end = 12
    while asked[end]:
        end += 1 + asked[end]
    question = asked[12 : end + 5]
    is_a = question[-4:-2] == bytes([0, 1])
    head = asked[:2] + bytes([0x81, 0x80, 0, 1, 0, int(is_a), 0, 0, 0, 0])
    answer = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]) + address if is_a else b""
    server.sendto(head + question + answer, client)
"""
"""A DNS server that has an address for every name: its own."""


@pytest.fixture
def resolver(estate: Fleet) -> Iterator[Callable[[str], None]]:
    """Sets the resolver of the gateway gw13."""
    former = estate.run("gw13", "cat /etc/resolv.conf")

    def ask(address: str) -> None:
        estate.run("gw13", "cat >/etc/resolv.conf", f"nameserver {address}\n")

    yield ask
    estate.run("gw13", "cat >/etc/resolv.conf", former)


def mistyped(estate: Fleet) -> dict[str, Any]:
    """What a gateway sees of a mail server whose name is wrong in the inventory."""
    options = {"targets": [{"host": "mistyped.fleet.test"}], "ca_content": estate.ca.read_text(), "timeout": 10}
    result = estate.result("gw13", "starttls_probe", options)
    assert "results" in result, result["output"]
    [entry] = result["results"]
    return dict(entry)


def with_the_wrong_name() -> Fleet:
    """An inventory of one mail server, with that name, and one gateway."""
    wrong = {
        "starttls_hostname": "mistyped.fleet.test",
        "starttls_address": "",
        "starttls_certificate_names": ["pf12.fleet.test"],
    }
    config = {"name": "alpha", "domains": ["alpha.test"], "servers": ["pf12"]}
    groups = {"mail_gateways": ["gw13"], "mail_servers": ["pf12"]}
    return other_inventory("mistyped", groups, {"pf12": wrong}, email_configs=[config])


def test_a_resolver_that_has_an_address_for_every_name_leads_to_a_server_that_is_not_ours(
    enabled: Played, estate: Fleet, resolver: Callable[[str], None]
) -> None:
    estate.run(
        "outside",
        "cat >/tmp/liar.py; (setsid python3 /tmp/liar.py $(hostname -i) >/dev/null 2>&1 & echo $! >/tmp/liar.pid)",
        LIAR,
    )
    try:
        resolver(estate.address("outside"))
        assert wait_for(
            lambda: estate.address("outside") in estate.run("gw13", "getent ahostsv4 nosuch.test", check=False)
        )
        seen = mistyped(estate)
        played = with_the_wrong_name().play("playbooks/verify_tls.yml", variables={"starttls_send_messages": False})
    finally:
        estate.run("outside", "kill $(cat /tmp/liar.pid)", check=False)
    assert seen["completed"] is True
    assert "name_mismatch" in [one["code"] for one in seen["findings"]], seen
    # What a user sees: the names of both servers, and where to look.
    assert played.status != 0
    said = re.findall(r"(?m)^pf12: (.*) \(seen from gw13\)$", played.output)
    assert any(
        "not for mistyped.fleet.test" in one and "a name service that has an address for every name" in one
        for one in said
    ), said
    assert any(
        one.startswith("warning: mx.partner.test answered gw13, and pf12.fleet.test answered pf12 itself")
        for one in said
    ), said


def test_a_resolver_that_never_answers_is_waited_for_once_and_named(
    enabled: Played, estate: Fleet, resolver: Callable[[str], None]
) -> None:
    resolver("192.0.2.53")
    begun = time.monotonic()
    seen = mistyped(estate)
    assert time.monotonic() - begun < 60
    assert (seen["completed"], seen["code"]) == (False, "name_not_resolved"), seen
    assert "the name service of the host that made the test" in seen["findings"][0]["message"], seen


def test_everything_is_off(enabled: Played, estate: Fleet, other_instance: str) -> None:
    played = estate.play("playbooks/disable_tls.yml", variables={"starttls_send_messages": False})
    assert played.status == 0, played.output
    assert served(estate, "pf12", 25) == ""
    assert served(estate, "pf12", 587) == "CN=users.example"
    assert estate.run("pf12", OTHER) == other_instance
    mark = estate.send("outside", ["trace@bravo.test"], False)
    assert estate.arrived_over_tls("pf13", mark, 60) is False
