"""The servers' own logs against the truth: known mail over TLS and in plaintext, both ways, and all that can go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_partner import GATEWAYS, NAME, NAME_WITHOUT_TLS, flush, queue
from lab_testinfra import Fleet, of_kind, on_each, wait_for

WITH_TLS, WITHOUT_TLS = 2600, 2604
OUTBOUND = {"out-tls.test": WITH_TLS, "out-plaintext.test": WITHOUT_TLS, "out-enforced.test": WITHOUT_TLS}
gateways = on_each(GATEWAYS)


@pytest.fixture(scope="module")
def outside(fleet: Fleet) -> Fleet:
    """The outside host takes mail for our domains, on a port with STARTTLS and on one without."""
    chain = "/etc/postfix/activity.pem"
    make = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN={NAME} "
        "-keyout /tmp/activity.key -out /tmp/activity.crt 2>/dev/null && umask 077 && "
        f"cat /tmp/activity.key /tmp/activity.crt >{chain}"
    )
    offers = f"-o smtpd_tls_security_level=may -o smtpd_tls_chain_files={chain}"
    refuses = "-o smtpd_tls_security_level=none"
    domains = " ".join(OUTBOUND)
    fleet.run(
        "outside",
        f"{make} && postconf -M '{WITH_TLS}/inet={WITH_TLS} inet n - n - - smtpd {offers}' && "
        f"postconf -M '{WITHOUT_TLS}/inet={WITHOUT_TLS} inet n - n - - smtpd {refuses}' && "
        f'postconf -e "mydestination = $(postconf -h mydestination), {domains}" && postfix reload 2>&1',
    )
    return fleet


def route(fleet: Fleet, gateway: str) -> None:
    """The gateway's own routes to our domains, as an administrator would write them."""
    if GATEWAYS[gateway] == "exim":
        known = f"grep -q {NAME_WITHOUT_TLS} /etc/hosts"
        fleet.run(gateway, f"{known} || echo '{fleet.address('outside')} {NAME_WITHOUT_TLS}' >>/etc/hosts")
        names = {WITH_TLS: NAME, WITHOUT_TLS: NAME_WITHOUT_TLS}
        lines = "".join(f"{domain}: {names[port]}::{port}\n" for domain, port in OUTBOUND.items())
        fleet.run(gateway, "cat >>/etc/exim4/hubbed_hosts", lines)
        return
    lines = "".join(f"{domain} smtp:[{NAME}]:{port}\n" for domain, port in OUTBOUND.items())
    table = "$(postconf -h default_database_type):/etc/postfix/transport"
    fleet.run(gateway, f"cat >>/etc/postfix/transport && postmap {table} && postfix reload 2>&1", lines)


def result(fleet: Fleet, gateway: str, name: str, **options: Any) -> dict[str, Any]:
    """What a gateway module returns; it does not fail."""
    seen = fleet.result(gateway, name, {**of_kind(GATEWAYS[gateway]), **options})
    assert not seen["failed"], seen
    return seen


@pytest.fixture
def ready(outside: Fleet, gateway: str) -> Iterator[None]:
    """A gateway that accepts TLS, uses it where it can, and enforces it for a domain each way."""
    fleet = outside
    accept = (
        f"- hosts: {gateway}\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.import_role:\n        name: mailfleet.starttls.certificate\n"
        "    - ansible.builtin.import_role:\n        name: mailfleet.starttls.gateway\n        tasks_from: accept\n"
    )
    played = fleet.play(accept, variables={"starttls_kind": GATEWAYS[gateway]})
    assert played.status == 0, played.output
    route(fleet, gateway)
    before = result(fleet, gateway, "inbound_tls_mode_info")["outbound"]
    enforced = [
        {"domain": "in-enforced.test", "direction": "inbound"},
        {"domain": "out-enforced.test", "direction": "outbound", "certificate_check": "encryption_only"},
    ]
    options = {"enforced_domains": enforced, "require_without_evidence": True}
    result(fleet, gateway, "outbound_tls_mode", send="opportunistic", require_without_evidence=True)
    result(fleet, gateway, "enforced_tls_domain", **options)
    yield
    result(fleet, gateway, "enforced_tls_domain", **options, state="absent")
    assert wait_for(lambda: (flush(fleet, gateway), "out-enforced.test" not in queue(fleet, gateway))[1])
    if before:
        result(fleet, gateway, "outbound_tls_mode", send=before["send"], require_without_evidence=True)
    else:
        result(fleet, gateway, "outbound_tls_mode", state="absent")


def activity(fleet: Fleet, gateway: str, **options: Any) -> dict[str, Any]:
    """What the module counts on a gateway. The lab's rsyslog misses lines of a burst, the journal does not."""
    journal = "false" if GATEWAYS.get(gateway) == "exim" else "true"
    seen = fleet.result(gateway, "tls_activity_info", {"journal": journal, **options})
    assert not seen["failed"], seen
    return dict(seen["activity"])


def peer(seen: dict[str, Any], domain: str, direction: str) -> dict[str, Any]:
    """The counts of a peer that are not zero; of events how many of each reason."""
    counts = next((one for one in seen["peers"] if (one["domain"], one["direction"]) == (domain, direction)), {})
    short = {
        name: {one["reason"]: one["count"] for one in value} if isinstance(value, list) else value
        for name, value in counts.items()
        if name not in ("domain", "direction", "versions", "ciphers")
    }
    return {name: value for name, value in short.items() if value}


@gateways
def test_what_is_counted_is_what_was_sent(fleet: Fleet, ready: None, gateway: str) -> None:
    since = fleet.run(gateway, "date -u +%Y-%m-%dT%H:%M:%SZ; sleep 1").strip()
    for tls, sender, times in (
        (True, "in-tls.test", 2),
        (False, "in-plaintext.test", 1),
        (True, "in-enforced.test", 1),
    ):
        for _ in range(times):
            mark = fleet.send("outside", ["trace@alpha.test"], tls=tls, to=gateway, sender=f"trace@{sender}")
            assert wait_for(lambda mark=mark: fleet.mail("pf12", mark))
    with pytest.raises(AssertionError, match="STARTTLS is required for this sender"):
        fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway, sender="trace@in-enforced.test")
    failed = fleet.s_client(gateway, "-tls1_2", "-cipher", "AES128-SHA")
    assert "handshake failure" in failed.output
    mark = fleet.send(
        "pf12", [f"trace@{domain}" for domain in OUTBOUND], tls=True, to=gateway, sender="trace@alpha.test"
    )
    assert wait_for(lambda: len(fleet.copies("outside", mark)) == 2), queue(fleet, gateway)
    assert wait_for(lambda: "out-enforced.test" in queue(fleet, gateway))
    seen = wait_for(lambda: complete(activity(fleet, gateway, since=since)))
    assert seen, activity(fleet, gateway, since=since)

    assert peer(seen, "in-tls.test", "inbound") == {"messages_tls": 2}
    assert peer(seen, "in-plaintext.test", "inbound") == {"messages_plaintext": 1}
    refused = peer(seen, "in-enforced.test", "inbound")
    assert refused == {"messages_tls": 1, "refusals": {"enforced_sender": 1}}
    assert peer(seen, "alpha.test", "inbound") == {"messages_tls": 1}
    client = peer(seen, "partner.test", "inbound")
    assert client["sessions_tls"] == 3
    # Postfix logs each session, Exim each message: there, the refused one is no session.
    assert client["sessions_plaintext"] == (1 if GATEWAYS[gateway] == "exim" else 2)
    assert seen["totals"]["inbound"]["versions"] == {"TLSv1.3": 4}
    assert [(one["reason"], one["count"]) for one in seen["totals"]["inbound"]["failures"]] == [("no_shared_cipher", 1)]

    assert peer(seen, "out-tls.test", "outbound") == {"sessions_tls": 1, "messages_tls": 1}
    assert peer(seen, "out-plaintext.test", "outbound") == {"sessions_plaintext": 1, "messages_plaintext": 1}
    deferred = peer(seen, "out-enforced.test", "outbound")
    assert set(deferred) == {"deferrals"}
    assert set(deferred["deferrals"]) == {"no_starttls_offered"}
    assert seen["skipped_lines"] == 0


def complete(seen: dict[str, Any]) -> dict[str, Any] | None:
    """The activity once the daemon has logged all that the test waits for."""
    domains = {(one["domain"], one["direction"]) for one in seen["peers"]}
    wanted = {("alpha.test", "inbound"), *((domain, "outbound") for domain in OUTBOUND)}
    return seen if wanted <= domains and seen["totals"]["inbound"]["failures"] else None


@pytest.mark.parametrize("host", ["gw1", "gx13"])
def test_a_log_that_was_rotated_and_packed_is_read_as_well(fleet: Fleet, host: str) -> None:
    log = "/var/log/exim4/mainlog" if GATEWAYS[host] == "exim" else "/var/log/mail.log"
    copy = "/tmp/activity.log"
    fleet.run(host, f"rm -f {copy}*; cp -p {log} {copy}.1")
    plain = fleet.result(host, "tls_activity_info", {"logs": [f"{copy}*"], "journal": "false"})["activity"]
    fleet.run(host, f"gzip {copy}.1")
    packed = fleet.result(host, "tls_activity_info", {"logs": [f"{copy}*"], "journal": "false"})["activity"]
    assert packed["sources"] == [f"{copy}.1.gz"]
    assert packed["lines"] == plain["lines"] > 0
    assert (packed["totals"], packed["bytes"]) == (plain["totals"], plain["bytes"])
    fleet.run(host, f"rm -f {copy}*")


def test_a_host_that_does_not_log_outbound_sessions_is_no_host_without_tls(fleet: Fleet) -> None:
    host = "pf12"
    level = fleet.run(host, "postconf -h smtp_tls_loglevel").strip()
    security = fleet.run(host, "postconf -h smtp_tls_security_level").strip()
    fleet.run(host, "postconf -e smtp_tls_loglevel=0 smtp_tls_security_level=may && postfix reload 2>&1")
    since = fleet.run(host, "sleep 1; date -u +%Y-%m-%dT%H:%M:%SZ; sleep 1").strip()
    try:
        fleet.run(host, "printf 'Subject: x\\n\\nx\\n' | sendmail -f trace@alpha.test trace@partner.test")
        seen = wait_for(lambda: (one := activity(fleet, host, since=since))["peers"] and one)
        counts = peer(seen, "partner.test", "outbound")
        assert counts == {"sessions_unknown": 1, "messages_unknown": 1}
        (note,) = [one for one in seen["notes"] if one["code"] == "outbound_not_logged"]
        assert "postconf -e smtp_tls_loglevel=1" in note["message"]
    finally:
        fleet.run(
            host, f"postconf -e smtp_tls_loglevel={level} 'smtp_tls_security_level={security}' && postfix reload 2>&1"
        )


def test_postfix_that_logs_to_a_file_of_its_own_is_counted_there(fleet: Fleet) -> None:
    host, file = "pf12", "/var/log/postfix.log"
    send = "printf 'Subject: x\\n\\nx\\n' | sendmail -f trace@alpha.test trace@partner.test"

    def sent(since: str) -> int:
        counts = peer(activity(fleet, host, since=since, journal="auto"), "partner.test", "outbound")
        return sum(count for name, count in counts.items() if name.startswith("messages_"))

    before = sent("24h") + 1
    fleet.run(host, send)
    assert wait_for(lambda: sent("24h") == before)
    fleet.run(host, f"postconf -e maillog_file={file} && postfix reload 2>&1")
    since = fleet.run(host, "sleep 1; date -u +%Y-%m-%dT%H:%M:%SZ; sleep 1").strip()
    try:
        fleet.run(host, send)
        assert wait_for(lambda: sent(since)) == 1
        assert activity(fleet, host, since=since, journal="auto")["sources"] == [file]
        # The time before the change is in the former log.
        assert sent("24h") == before + 1
    finally:
        fleet.run(host, f"postconf -X maillog_file && postfix reload 2>&1; rm -f {file}")
