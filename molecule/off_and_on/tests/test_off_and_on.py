"""TLS off again, and on again; mail flows all the time, and no secret shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from lab_testinfra import DOMAINS, SERVERS, Fleet, wait_for

if TYPE_CHECKING:
    from conftest import Talkative


def files(fleet: Fleet) -> dict[str, list[str]]:
    """Host -> its files and Postfix's settings.

    Left out is what may differ after TLS was off: the key pair between the instances of a gateway is a new one, and a setting that
    went and comes back stands at the end of main.cf.
    """
    differ = ("/instances.pem ", "/main.cf ")
    found = {host: text.splitlines() for host, text in fleet.digests().items()}
    return {
        host: [*(one for one in lines if not any(name in one for name in differ)), *settings(fleet, host)]
        for host, lines in found.items()
    }


def settings(fleet: Fleet, host: str) -> list[str]:
    """The settings of Postfix that main.cf has; none on another mail server."""
    return sorted(fleet.run(host, "! command -v postconf >/dev/null || postconf -n").splitlines())


OF_THE_ADMINISTRATOR = "smtp/inet/smtpd_tls_security_level"
"""What is set in master.cf only: switching on accepts it, so switching off takes it back."""


@pytest.fixture
def option(fleet: Fleet) -> Iterator[None]:
    """Switching on finds it on pf13, and changes nothing."""
    fleet.run("pf13", f"postconf -P {OF_THE_ADMINISTRATOR}=may; postfix reload 2>&1")
    yield
    fleet.run("pf13", f"postconf -PX {OF_THE_ADMINISTRATOR}; postfix reload 2>&1")


def test_off_and_on_again(fleet: Fleet, talkative: Talkative, option: None) -> None:
    first = files(fleet)
    # One message a second for the whole time, from a sender that uses TLS whenever it is offered.
    fleet.run(
        "outside",
        "nohup setsid sh -c 'for i in $(seq 1 300); do [ -e /tmp/stop ] && break; for d in "
        + " ".join(DOMAINS.values())
        + '; do printf "Subject: flow-$i\\n\\nx\\n" | sendmail -f trace@partner.test trace@$d; done; '
        "echo $i >/tmp/sent; sleep 1; done' >/dev/null 2>&1 & rm -f /tmp/stop",
    )
    try:
        off = talkative.play("playbooks/disable_tls.yml")
        assert off.status == 0, off.output
        assert fleet.run("pf13", f"postconf -P {OF_THE_ADMINISTRATOR}").strip().endswith("= none")
        assert not any(fleet.offers_starttls(host) for host in ("gw1", *SERVERS))
        for host in SERVERS:
            mark = fleet.send("outside", [f"trace@{DOMAINS[host]}"], tls=False)
            assert not fleet.arrived_over_tls(host, mark)

        again = fleet.play("playbooks/disable_tls.yml")
        assert again.status == 0, again.output
        assert set(again.changed.values()) == {0}, again.output

        on = talkative.play("playbooks/enable_tls.yml")
        assert on.status == 0, on.output
        assert all(fleet.offers_starttls(host) for host in ("gw1", *SERVERS))
        assert files(fleet) == first
    finally:
        fleet.run("outside", "touch /tmp/stop")
    talkative.look_at_hosts()

    sent = int(fleet.run("outside", "cat /tmp/sent"))
    assert sent >= 10  # one a second, while TLS went off and on
    for host in SERVERS:

        def arrived(host: str = host) -> bool:
            mail = fleet.run(host, "cat /var/mail/trace")
            return all(mail.count(f"Subject: flow-{number}\n") == 1 for number in range(1, sent + 1))

        assert wait_for(arrived, 90), f"a message for {host} is missing or came twice"


def test_check_mode_of_disable_changes_nothing(fleet: Fleet) -> None:
    before = fleet.digests()
    dry = fleet.play("playbooks/disable_tls.yml", "--check", "--diff")
    assert dry.status == 0, dry.output
    assert "-smtpd_tls_security_level = may" in dry.output
    assert "Plan: disable: drift" in dry.output
    assert not any(dry.changed.values())
    assert fleet.digests() == before
