"""A gateway that is somebody else's service. The lab's gateway is it: only these tests touch it, as its own people would."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from lab_estates import other_inventory
from lab_testinfra import DOMAINS, SERVERS, Fleet, Played

REQUIRING = ("pf13", "ex12")
"""The mail servers that are to take mail over TLS only in the end."""


@pytest.fixture(scope="module")
def estate() -> Iterator[Fleet]:
    """The mail servers and the partner outside. Of the gateway, the inventory knows the modes that it is to have."""
    configs = [
        {"name": domain.partition(".")[0], "domains": [domain], "servers": [host], "delivery_mode": "required"}
        for host, domain in DOMAINS.items()
    ]
    requiring = {host: {"starttls_inbound": "required"} for host in REQUIRING}
    groups = {"mail_servers": list(SERVERS), "mail_outside": ["outside"]}
    fleet = other_inventory("no_gateway", groups, requiring, email_configs=configs)
    yield fleet
    fleet.end()


def by_hand(fleet: Fleet, level: str) -> None:
    """What the service's own people set."""
    fleet.run("gw1", f"postconf -e smtp_tls_security_level={level} smtp_tls_loglevel=1; postfix reload")


def row(played: Played, host: str) -> str:
    """The last row of a host in the tables of a run; the recap has none."""
    return re.findall(rf"(?m)^ *({host}  +[A-Za-z].*?) *$", played.output)[-1]


def requires_tls(fleet: Fleet, host: str) -> bool:
    """Whether a mail server refuses MAIL without TLS, seen from the gateway."""
    code = (
        f"import smtplib; s = smtplib.SMTP('{fleet.address(host)}', 25); s.ehlo(); print(s.mail('a@partner.test')[0])"
    )
    return fleet.run("gw1", f'python3 -c "{code}"').strip() in ("430", "530")


@pytest.fixture(scope="module")
def first(estate: Fleet) -> Played:
    """The first run: nothing was set at the service yet."""
    return estate.play("playbooks/enable_tls.yml")


@pytest.fixture(scope="module")
def second(estate: Fleet, first: Played) -> Played:
    """The run after that."""
    by_hand(estate, "encrypt")
    return estate.play("playbooks/enable_tls.yml", variables={"starttls_confirmed": ["modes"]})


def test_the_run_ends_before_the_step_and_is_not_failed(first: Played, estate: Fleet) -> None:
    assert first.status == 0, first.output
    for host in SERVERS:
        assert estate.offers_starttls(host), host
        assert not requires_tls(estate, host), host
        assert row(first, host).endswith("pass"), first.output


def test_it_says_what_to_do(first: Played) -> None:
    assert re.search(
        r"modes: set the delivery mode of the email config alpha \(alpha\.test\) to 'required'", first.output
    )
    last = first.output.rpartition("The next step is yours")[2]
    assert "Now set the delivery mode of the email config alpha (alpha.test) to 'required'; set" in last, last
    assert "starttls_confirmed" in last, last


def test_after_the_word_of_a_person_it_goes_on(second: Played, estate: Fleet) -> None:
    assert second.status == 0, second.output
    assert "The next step is yours" not in second.output
    assert {host: requires_tls(estate, host) for host in SERVERS} == {host: host in REQUIRING for host in SERVERS}


def test_the_headers_of_arriving_messages_prove_the_mode(second: Played) -> None:
    for host in SERVERS:
        line = row(second, host)
        assert re.search(r"  required \(by hand\)  +in 2/2 TLS, out 2/2 TLS .*  pass$", line), line


def test_a_word_that_is_not_true_is_seen_by_the_messages(second: Played, estate: Fleet) -> None:
    """Where no mail server refuses plaintext, only the headers tell that the mode was never set."""
    by_hand(estate, "none")
    try:
        played = estate.play(
            "playbooks/verify_tls.yml", "--limit", "pf12,outside", variables={"starttls_confirmed": "modes"}
        )
    finally:
        by_hand(estate, "encrypt")
    assert played.status != 0
    assert "the message from outside reached pf12.fleet.test in plaintext" in played.output, played.output


def test_another_step_than_those_by_hand_is_refused(estate: Fleet) -> None:
    played = estate.play("playbooks/plan_tls.yml", variables={"starttls_confirmed": ["offer"]})
    assert played.status != 0
    assert "starttls_confirmed: 'offer' is no step that is made by hand" in played.output, played.output


def test_the_way_back_stops_there_too(second: Played, estate: Fleet) -> None:
    played = estate.play("playbooks/disable_tls.yml")
    assert played.status == 0, played.output
    assert "to 'plaintext'" in played.output.rpartition("The next step is yours")[2], played.output
    for host in SERVERS:
        assert estate.offers_starttls(host), host
        assert not requires_tls(estate, host), host
    # What was confirmed on the way there may still be in the inventory, and says nothing about the way back.
    played = estate.play("playbooks/disable_tls.yml", variables={"starttls_confirmed": ["modes"]})
    assert played.status == 0, played.output
    assert "modes_off" in played.output and all(estate.offers_starttls(host) for host in SERVERS), played.output
    by_hand(estate, "none")
    played = estate.play("playbooks/disable_tls.yml", variables={"starttls_confirmed": ["modes_off"]})
    assert played.status == 0, played.output
    assert not any(estate.offers_starttls(host) for host in SERVERS)
