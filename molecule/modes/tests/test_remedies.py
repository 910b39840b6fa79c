"""The settings that keep a gateway from doing harm: with each of them the harm stays away, without it it is there.

A remedy is taken out by hand in every place where it stands, so that each test is seen to be able to fail; the next run
of the module puts it back. Other harm that a gateway could do is in test_modes.py:

* The gateway chooses once for a whole message: test_a_message_to_four_modes_at_once.
* Mail bounces because the server takes TLS only: test_a_server_that_takes_tls_only_is_never_sent_plaintext, on Exim by
  the refusal, as there is no setting that would help.
* A mode of Exim weakens another one because they share a connection: the modes are transports of their own, and a
  connection is never shared by two, see test_one_mode_for_all.

tls_tempfail_tryclear=false has no test: where TLS is required, Exim 4.98 does not fall back to plaintext without it either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lab_testinfra import Fleet, came_over_tls, of_kind, on_each, wait_for

EXIM = ["gx12", "gx13"]  # moved to the split configuration, and made with it: where a section stands matters
POSTFIX = ["gw1", "gw13"]
SENDER, SENDER_HOST = "trace@charlie.test", "ex12"  # where a returned message is seen
CLOSED_PORT = 2601
SPOOL = "/var/spool/exim4"
IN_EACH_INSTANCE = "for dir in $(ls -d /etc/postfix /etc/postfix-*); do {}; done; postfix reload"
WAITS = r"TLS is required|TLS session is required|retry time not reached|Connection refused|STARTTLS command first"

Config = dict[str, Any]
Harm = Callable[[], set[str]]


def config(name: str, domain: str, mode: str, server: str = "") -> Config:
    server = server or f"{name}.fleet.test"
    return {"name": name, "domains": [domain], "servers": [server], "delivery_mode": mode}


def set_modes(fleet: Fleet, gateway: str, *configs: Config) -> dict[str, Any]:
    options = {
        **of_kind("postfix" if gateway in POSTFIX else "exim"),
        "email_configs": list(configs),
        "require_without_evidence": True,
    }
    told = fleet.result(gateway, "inbound_tls_mode", options)
    assert not told["failed"], told["output"]
    return told


def prove(
    fleet: Fleet, gateway: str, configs: list[Config], take_out: str, harm: Harm, with_it: str, without: str
) -> None:
    """Look at the fate of messages with the remedy, without it, and once the module has put it back."""
    set_modes(fleet, gateway, *configs)
    assert harm() == {with_it}
    try:
        fleet.run(gateway, take_out)
        assert harm() == {without}
    finally:
        told = set_modes(fleet, gateway, *configs)
    assert told["changed"], told["output"]
    assert harm() == {with_it}


def fate(fleet: Fleet, gateway: str, host: str, mark: str) -> str:
    """What became of a message: it came over TLS or in plaintext, was returned, or is queued."""

    def look() -> str:
        # Exim notes that it put a message off before it finds that the message is too old to wait.
        settled = gateway in POSTFIX or exim_alone(fleet, gateway)
        if message := fleet.mail(host, mark):
            return "TLS" if came_over_tls(message) else "plaintext"
        if any("Action: failed" in str(copy) for copy in fleet.copies(SENDER_HOST, mark)):
            return "returned"
        return "queued" if settled and re.search(WAITS, why(fleet, gateway, mark)) else ""

    return str(wait_for(look))


def why(fleet: Fleet, gateway: str, mark: str) -> str:
    """What the queue says of a message; nothing if it is not there or has not been tried."""
    if gateway in EXIM:
        ids = f"$(grep -rls --include='*-H' {mark} {SPOOL}/input | sed 's,.*/,,; s,-H$,,')"
        return fleet.run(gateway, f'id={ids}; test -z "$id" || grep -F "$id ==" /var/log/exim4/mainlog', check=False)
    reasons = [""]
    for directory in fleet.run(gateway, "ls -d /etc/postfix /etc/postfix-*", check=False).split():
        for entry in fleet.queue(gateway, directory):
            if mark in fleet.run(gateway, f"postcat -c {directory} -qh {entry['queue_id']}", check=False):
                reasons += [one.get("delay_reason", "") for one in entry["recipients"]]
    return "\n".join(reasons)


def exim_alone(fleet: Fleet, gateway: str) -> bool:
    """Whether nothing runs but the daemon: then nothing is under way."""
    return fleet.run(gateway, "pgrep -cx exim4", check=False).strip() == "1"


def exim_rests(fleet: Fleet, gateway: str) -> bool:
    """Wait until nothing is under way any more."""
    return bool(wait_for(lambda: exim_alone(fleet, gateway)))


def forget(fleet: Fleet, gateway: str) -> None:
    """Empty the queue, and what Exim remembers of the servers."""
    if gateway in POSTFIX:
        fleet.run(
            gateway, "for dir in $(ls -d /etc/postfix /etc/postfix-*); do postsuper -c $dir -d ALL; done", check=False
        )
        return
    assert exim_rests(fleet, gateway)
    fleet.run(gateway, f"exim4 -bpr | awk '$3 ~ /-/ {{print $3}}' | xargs -r exim4 -Mrm; rm -f {SPOOL}/db/*")


@contextmanager
def tls_only(fleet: Fleet, server: str) -> Iterator[None]:
    """A mail server that takes mail over TLS only."""
    required = fleet.module(server, "mail_server_tls", {"inbound": "required"})
    try:
        assert required.status == 0, required.output
        yield
    finally:
        offered = fleet.module(server, "mail_server_tls", {"inbound": "offered"})
    assert offered.status == 0, offered.output


def section(gateway: str, kind: str) -> str:
    """Our file of a section of Exim's configuration."""
    names = {"router": "050", "transport": "050", "retry": "10"}
    return f"/etc/exim4/conf.d/{kind}/{names[kind]}_mailfleet-starttls"


STARTS = "grep -c 'daemon started' /var/log/exim4/mainlog"


def without_lines(gateway: str, kind: str, lines: str) -> str:
    """The command that takes lines out of a section of Exim's configuration, and waits until the daemon has read it anew."""
    return (
        f"before=$({STARTS}); sed -i '{lines}d' {section(gateway, kind)} && update-exim4.conf && systemctl reload exim4"
        f' && for i in $(seq 200); do [ "$({STARTS})" -gt "$before" ] && exit 0; sleep 0.1; done; exit 1'
    )


@pytest.fixture(autouse=True)
def empty_queue(fleet: Fleet, gateway: str) -> Iterator[None]:
    forget(fleet, gateway)
    yield
    forget(fleet, gateway)


@on_each(["gw13"])
def test_no_sender_can_ask_postfix_to_do_without_tls(fleet: Fleet, gateway: str) -> None:
    """tls_required_enable=no, in the instance for mail that arrived over TLS too."""

    def harm() -> set[str]:
        sent = {
            host: fleet.send(
                "outside", [f"trace@{domain}"], tls=tls, headers="TLS-Required: no\n", to=gateway, sender=SENDER
            )
            for host, domain, tls in (("pf13", "bravo.test", False), ("ex13", "delta.test", True))
        }
        return {fate(fleet, gateway, host, mark) for host, mark in sent.items()}

    configs = [config("pf13", "bravo.test", "required"), config("ex13", "delta.test", "match_sender_strict")]
    take_out = IN_EACH_INSTANCE.format("postconf -c $dir -X tls_required_enable || exit 1")
    prove(fleet, gateway, configs, take_out, harm, with_it="queued", without="plaintext")


@pytest.mark.changes_servers
@on_each(["gw1"])
def test_postfix_does_not_return_what_a_server_takes_over_tls_only(fleet: Fleet, gateway: str) -> None:
    """smtp_reply_filter on each transport that may use plaintext, in both instances."""

    def harm() -> set[str]:
        recipients = ["trace@alpha.test", "trace@delta.test"]  # the second takes the message to the other instance
        sent = [fleet.send("outside", recipients, tls=tls, to=gateway, sender=SENDER) for tls in (True, False)]
        return {fate(fleet, gateway, "pf12", mark) for mark in sent}

    configs = [
        config("pf12", "alpha.test", "plaintext"),
        config("ex13", "delta.test", "match_sender"),
        config("ex12", "charlie.test", "opportunistic"),
    ]
    settings = "$(postconf -c $dir -P '*/unix/smtp_reply_filter' | sed 's/ *=.*//')"
    take_out = IN_EACH_INSTANCE.format(f"for one in {settings}; do postconf -c $dir -PX $one || exit 1; done")
    with tls_only(fleet, "pf12"):
        prove(fleet, gateway, configs, take_out, harm, with_it="queued", without="returned")


@on_each(["gx13"])
def test_exim_does_not_send_a_message_down_the_connection_of_another(fleet: Fleet, gateway: str) -> None:
    """connection_max_messages=1: what waits for a port nobody listens on is not handed over on another one."""

    def harm() -> set[str]:
        forget(fleet, gateway)
        waiting = fleet.send("outside", ["trace@pf12.fleet.test"], tls=True, to=gateway, sender=SENDER)
        assert fate(fleet, gateway, "pf12", waiting) == "queued"
        other = fleet.send("outside", ["trace@alpha.test"], tls=True, to=gateway, sender=SENDER)
        assert fate(fleet, gateway, "pf12", other) == "TLS"
        assert exim_rests(fleet, gateway)
        return {fate(fleet, gateway, "pf12", waiting)}

    configs = [
        config("pf12", "alpha.test", "opportunistic"),
        config("pf13", "pf12.fleet.test", "opportunistic", server=f"pf12.fleet.test:{CLOSED_PORT}"),
    ]
    take_out = without_lines(gateway, "transport", "/connection_max_messages/")
    prove(fleet, gateway, configs, take_out, harm, with_it="queued", without="TLS")


@on_each(["gx13"])
def test_mail_in_plaintext_does_not_wait_for_the_tls_of_another_domain(fleet: Fleet, gateway: str) -> None:
    """retry_include_ip_address=false on the transport that insists on TLS: Exim keeps its failures apart."""

    def harm() -> set[str]:
        forget(fleet, gateway)
        required = fleet.send("outside", ["trace@bravo.test"], tls=False, to=gateway, sender=SENDER)
        assert fate(fleet, gateway, "pf13", required) == "queued"
        plaintext = fleet.send("outside", ["trace@pf13.fleet.test"], tls=False, to=gateway, sender=SENDER)
        return {fate(fleet, gateway, "pf13", plaintext)}

    configs = [
        config("pf13", "bravo.test", "required"),
        config("ex13", "pf13.fleet.test", "plaintext", server="pf13.fleet.test"),
    ]
    take_out = without_lines(gateway, "transport", "/retry_include_ip_address/")
    prove(fleet, gateway, configs, take_out, harm, with_it="plaintext", without="queued")


@on_each(EXIM)
def test_exim_does_not_return_new_mail_for_a_server_without_tls_for_days(fleet: Fleet, gateway: str) -> None:
    """The retry rule of our domains. Debian's ends after four days, so Exim is made to remember a failure of six."""
    failed_long_ago = (  # record, then first failure, last and next try as exim_fixdb takes the times
        f"record=$(exim_dumpdb {SPOOL} retry | grep -o 'T:pf13[^ ]*') && old=$(date -d '-6 days' +%y%m%d%H%M) && "
        f'printf "$record\\n2 $old\\n3 $old\\n4 $old\\n" | exim_fixdb {SPOOL} retry'
    )

    def harm() -> set[str]:
        forget(fleet, gateway)
        first = fleet.send("outside", ["trace@bravo.test"], tls=False, to=gateway, sender=SENDER)
        assert fate(fleet, gateway, "pf13", first) == "queued"
        assert exim_rests(fleet, gateway)
        assert len(re.findall("first failed", fleet.run(gateway, failed_long_ago, check=False))) == 4
        new = fleet.send("outside", ["trace@bravo.test"], tls=False, to=gateway, sender=SENDER)
        return {fate(fleet, gateway, "pf13", new)}

    configs = [config("pf13", "bravo.test", "required"), config("ex12", "charlie.test", "opportunistic")]
    take_out = without_lines(gateway, "retry", "/365d/")
    prove(fleet, gateway, configs, take_out, harm, with_it="queued", without="returned")


@on_each(EXIM)
def test_exim_returns_a_message_at_the_end_of_its_lifetime(fleet: Fleet, gateway: str) -> None:
    """The router mailfleet_expired: with a retry rule that does not end, mail would wait for ever."""

    def harm() -> set[str]:
        forget(fleet, gateway)
        mark = fleet.send("outside", ["trace@bravo.test"], tls=False, to=gateway, sender=SENDER)
        assert fate(fleet, gateway, "pf13", mark) == "queued"
        assert exim_rests(fleet, gateway)
        spooled = f"$(grep -rl --include='*-H' {mark} {SPOOL}/input)"
        fleet.run(gateway, f"sed -i \"4s/^[0-9]*/$(date -d '-6 days' +%s)/\" {spooled} && exim4 -qff")
        return {fate(fleet, gateway, "pf13", mark)}

    configs = [config("pf13", "bravo.test", "required"), config("ex12", "charlie.test", "opportunistic")]
    take_out = without_lines(gateway, "router", "/^mailfleet_expired:/,/^$/")
    prove(fleet, gateway, configs, take_out, harm, with_it="returned", without="queued")
