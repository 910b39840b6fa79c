"""gateway x mode x arrived over TLS or in plaintext, with amavis behind the queue and with rspamd as a milter: the mode holds."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from lab_testinfra import DOMAINS, Fleet, came_over_tls, on_each, report, wait_for

WHOLE = os.environ.get("LAB_FILTERS") == "all"
GATEWAYS = on_each(("gw1", "gw13"))
ON_GW1, ON_GW13 = (GATEWAYS, GATEWAYS) if WHOLE else (on_each(("gw1",)), on_each(("gw13",)))
"""What does not differ between the Debian releases runs on one of them in make test, on both in make test-matrix."""
SERVERS = ("pf12", "ex12")  # with STARTTLS, and without
AMAVIS = "/etc/amavis/conf.d/99-mailfleet_starttls"
PORT = 10129
"""The port of amavis for mail that arrived over TLS."""
STATE = "sha256sum $(find /etc/postfix /etc/amavis -type f ! -name '*.db' | sort)"

LOAD = """
import os, smtplib, ssl, time
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
number = 0
while not os.path.exists(__file__[:-3] + ".end") and number < 300:
    with smtplib.SMTP("GATEWAY", 25, "mx.partner.test") as session:
        if number % 2:
            session.starttls(context=context)
        text = f"Subject: {__file__[5:-3]}-{number}\\n\\nx\\n"
        session.sendmail("trace@partner.test", ["trace@alpha.test"], text)
    number += 1
    time.sleep(0.2)
print("sent", number)
"""


@pytest.fixture(scope="module", autouse=True)
def _both_gateways_serve(fleet: Fleet) -> None:
    for gateway in ("gw1", "gw13"):
        assert wait_for(lambda gateway=gateway: listens(fleet, gateway, 10024))


def listens(fleet: Fleet, gateway: str, port: int) -> bool:
    return f"127.0.0.1:{port} " in fleet.run(gateway, "ss -ltn")


def change(fleet: Fleet, gateway: str, mode: str, **options: Any) -> dict[str, Any]:
    configs = [
        {"name": host, "domains": [DOMAINS[host]], "servers": [f"{host}.fleet.test"], "delivery_mode": mode}
        for host in SERVERS
    ]
    wanted = {"email_configs": configs, "require_without_evidence": True, **options}
    return fleet.result(gateway, "inbound_tls_mode", wanted)


def set_mode(fleet: Fleet, gateway: str, mode: str, **options: Any) -> dict[str, Any]:
    done = change(fleet, gateway, mode, **options)
    assert not done["failed"], done["output"]
    return done


def waiting(fleet: Fleet, gateway: str, config_dir: str = "/etc/postfix") -> list[str]:
    return [one.get("delay_reason", "") for entry in fleet.queue(gateway, config_dir) for one in entry["recipients"]]


def scanned(fleet: Fleet, gateway: str) -> int:
    """How many messages rspamd has judged."""
    return int(fleet.run(gateway, "cat /var/log/rspamd/*.log 2>/dev/null | grep -c rspamd_task_write_log || true"))


def through_amavis(fleet: Fleet, gateway: str, host: str, mark: str) -> list[str]:
    """The ports of amavis that a message went through, by amavis's own Received headers."""
    message = wait_for(lambda: fleet.mail(host, mark))
    assert message, (mark, fleet.queue(gateway), fleet.queue(gateway, "/etc/postfix-mailfleet"))
    received = [" ".join(str(one).split()) for one in message.get_all("Received", [])]
    return [found[1] for one in received if (found := re.search(r"amavis, port (\d+)", one))]


@ON_GW1
def test_amavis_that_cannot_read_its_files_stays_as_it_is(fleet: Fleet, gateway: str) -> None:
    fleet.run(gateway, "echo 'no Perl {' >/etc/amavis/conf.d/60-broken")
    try:
        before = fleet.run(gateway, STATE)
        done = change(fleet, gateway, "match_sender")
        assert done["failed"]
        assert "amavis cannot read its configuration" in done["output"]
        assert "60-broken" in done["output"]
        assert fleet.run(gateway, f"cat {AMAVIS} 2>&1", check=False).strip().endswith("No such file or directory")
        assert listens(fleet, gateway, 10024)
        assert before == fleet.run(gateway, STATE)
    finally:
        fleet.run(gateway, "rm /etc/amavis/conf.d/60-broken")


def change_under_load(fleet: Fleet, gateway: str, mode: str, queued: int = 0) -> bool:
    """Set the mode while mail comes in, with so much of it before amavis: whether all of it arrives soon after."""
    host = f"load-{gateway}-{mode}"
    text = LOAD.replace("GATEWAY", fleet.address(gateway))
    fleet.run("outside", f"rm -f /tmp/{host}.*; cat >/tmp/{host}.py", text)
    fleet.run("outside", f"python3 /tmp/{host}.py >/tmp/{host}.txt 2>&1 & echo")
    assert wait_for(lambda: len(fleet.queue(gateway)) >= queued)
    set_mode(fleet, gateway, mode)
    fleet.run("outside", f"touch /tmp/{host}.end")
    assert wait_for(lambda: "sent" in fleet.run("outside", f"cat /tmp/{host}.txt"))
    sent = int(fleet.run("outside", f"cat /tmp/{host}.txt").split()[1])
    assert sent > 5
    mark = rf"Subject: {host}-(\d+)"
    return bool(wait_for(lambda: len(set(re.findall(mark, fleet.run("pf12", "cat /var/mail/trace")))) == sent))


@on_each(("gw13",))
def test_no_mail_waits_because_of_the_change(fleet: Fleet, gateway: str) -> None:
    """amavis gets its port by a reload, under mail. No attempt of Postfix to reach it fails."""
    assert change_under_load(fleet, gateway, "match_sender"), fleet.queue(gateway)
    assert fleet.run(gateway, "grep status=deferred /var/log/mail.log || true") == ""


@pytest.mark.skipif(
    not WHOLE, reason="make test-matrix: Postfix may look minutes later at what it delivered during a reload"
)
@on_each(("gw1",))
def test_what_amavis_refuses_because_of_its_reload_is_tried_again_at_once(fleet: Fleet, gateway: str) -> None:
    """amavis does not rest, and is handing messages back at every moment. Postfix itself would wait for five minutes."""
    # Not by postconf, which writes the whole entry anew, and in that entry only: the last test compares the bytes.
    line = r"s/^\( *-o smtpd_end_of_data_restrictions=\)%s$/\1%s/"
    slow = f"sed -i '/^127.0.0.1:10025 /,/^[^ ]/ {line}' /etc/postfix/master.cf && systemctl reload postfix"
    fleet.run(gateway, slow % ("", "sleep,1"))
    try:
        assert change_under_load(fleet, gateway, "match_sender", queued=10), fleet.queue(gateway)
    finally:
        fleet.run(gateway, slow % ("sleep,1", ""))
    refused = fleet.run(gateway, "grep -c 'status=deferred.*Interrupted system call' /var/log/mail.log || true").strip()
    report("A reload of amavis that does not rest", [f"  {gateway}: {refused} refused and tried again"])


@GATEWAYS
@pytest.mark.parametrize("mode", ["match_sender", "match_sender_strict"])
def test_amavis_sees_all_mail_and_the_mode_holds(fleet: Fleet, gateway: str, mode: str) -> None:
    set_mode(fleet, gateway, mode)
    marks = {
        (host, tls): fleet.send("outside", [f"trace@{DOMAINS[host]}"], tls=tls, to=gateway)
        for host in SERVERS
        for tls in (True, False)
    }
    both = {
        tls: fleet.send("outside", [f"trace@{DOMAINS[host]}" for host in SERVERS], tls=tls, to=gateway)
        for tls in (True, False)
    }
    for (host, tls), mark in marks.items():
        for one in (mark, both[tls]):
            if mode == "match_sender_strict" and host == "ex12" and tls:
                why = wait_for(lambda: waiting(fleet, gateway, "/etc/postfix-mailfleet"))
                assert all("TLS is required, but was not offered" in reason for reason in why)
                assert fleet.mail(host, one) is None
                continue
            assert through_amavis(fleet, gateway, host, one) == [str(PORT if tls else 10024)]
            assert fleet.arrived_over_tls(host, one) == (tls and host == "pf12")
    fleet.run(gateway, "postsuper -c /etc/postfix-mailfleet -d ALL 2>&1")


@ON_GW1
def test_a_second_run_changes_nothing_and_the_daemon_shows_the_mode(fleet: Fleet, gateway: str) -> None:
    set_mode(fleet, gateway, "match_sender")
    assert not set_mode(fleet, gateway, "match_sender")["changed"]
    info = fleet.result(gateway, "inbound_tls_mode_info", {"gateway": "postfix"})
    assert info["differences"] == [], info["output"]
    assert info["delivered_modes"] == {DOMAINS[host]: "match_sender" for host in SERVERS}, info["output"]


@ON_GW13
def test_enforced_senders_go_through_the_filter_as_well(fleet: Fleet, gateway: str) -> None:
    set_mode(fleet, gateway, "match_sender")
    options = {"domain": "partner.test", "direction": "inbound", "require_without_evidence": True}
    done = fleet.result(gateway, "enforced_tls_domain", options)
    assert not done["failed"], done["output"]
    try:
        mark = fleet.send("outside", ["trace@alpha.test"], tls=True, to=gateway)
        assert fleet.arrived_over_tls("pf12", mark)
        assert through_amavis(fleet, gateway, "pf12", mark) == ["10131"]
        with pytest.raises(AssertionError, match="451"):
            fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway)
    finally:
        done = fleet.result(gateway, "enforced_tls_domain", {**options, "state": "absent"})
        assert not done["failed"], done["output"]


@ON_GW1
def test_without_its_filter_mail_waits(fleet: Fleet, gateway: str) -> None:
    set_mode(fleet, gateway, "match_sender")
    fleet.run(gateway, "systemctl stop amavis")
    try:
        marks = {tls: fleet.send("outside", ["trace@alpha.test"], tls=tls, to=gateway) for tls in (True, False)}
        assert wait_for(lambda: len([one for one in waiting(fleet, gateway) if "Connection refused" in one]) == 2)
        assert any(f":{PORT}" in one for one in waiting(fleet, gateway))
        info = fleet.result(gateway, "inbound_tls_mode_info", {"gateway": "postfix"})
        assert f"does not answer on 127.0.0.1:{PORT}" in json.dumps(info["differences"])
        assert not any(fleet.mail("pf12", mark) for mark in marks.values())
    finally:
        fleet.run(gateway, "systemctl start amavis")
    assert wait_for(lambda: listens(fleet, gateway, PORT))
    fleet.run(gateway, "postqueue -f")
    for tls, mark in marks.items():
        assert fleet.arrived_over_tls("pf12", mark) == tls
        assert through_amavis(fleet, gateway, "pf12", mark) == [str(PORT if tls else 10024)]


@ON_GW13
def test_rspamd_as_a_milter_needs_nothing(fleet: Fleet, gateway: str) -> None:
    fleet.run(
        gateway,
        "sed -i 's/^content_filter = .*/content_filter =/' /etc/postfix/main.cf && "
        "printf 'smtpd_milters = inet:127.0.0.1:11332\\nmilter_default_action = tempfail\\n' >>/etc/postfix/main.cf && "
        "postfix reload 2>&1",
    )
    assert wait_for(lambda: "127.0.0.1:11332 " in fleet.run(gateway, "ss -ltn"))
    try:
        set_mode(fleet, gateway, "match_sender")
        before = scanned(fleet, gateway)
        for tls in (True, False):
            mark = fleet.send("outside", ["trace@alpha.test"], tls=tls, to=gateway)
            message = wait_for(lambda mark=mark: fleet.mail("pf12", mark))
            assert message, fleet.queue(gateway)
            assert came_over_tls(message) == tls
            assert wait_for(lambda before=before: scanned(fleet, gateway) > before)
            before = scanned(fleet, gateway)
    finally:
        fleet.run(
            gateway,
            "sed -i -e 's/^content_filter =.*/content_filter = smtp-amavis:[127.0.0.1]:10024/' "
            "-e '/^smtpd_milters/d' -e '/^milter_default_action/d' /etc/postfix/main.cf && postfix reload 2>&1",
        )


@GATEWAYS
def test_uninstall_brings_everything_back(fleet: Fleet, gateway: str) -> None:
    set_mode(fleet, gateway, "match_sender")
    assert listens(fleet, gateway, PORT)
    done = fleet.result(gateway, "gateway_tls", {"state": "absent"})
    assert not done["failed"], done["output"]
    assert fleet.run(gateway, "sha256sum --check --quiet /var/lib/mailfleet-lab/filtered 2>&1", check=False) == ""
    assert fleet.run(gateway, "find /etc/postfix* /etc/amavis -name '*mailfleet*'") == ""
    assert wait_for(lambda: not listens(fleet, gateway, PORT))
    mark = fleet.send("outside", ["trace@alpha.test"], tls=False, to=gateway)
    assert through_amavis(fleet, gateway, "pf12", mark) == ["10024"]
