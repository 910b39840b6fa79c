"""The fleet with TLS, and then without anything of the collection: every host is as before the first enable."""

from __future__ import annotations

from collections.abc import Callable

from lab_testinfra import SERVERS, Fleet, wait_for

HOSTS = ("gw1", *SERVERS)
SECOND = "/etc/postfix-mailfleet"
BUSY = (
    "smtpd_recipient_restrictions=check_recipient_access inline:{{trace@alpha.test=450 4.2.1 the mailbox is busy}}, permit_mynetworks, "
    "reject_unauth_destination"
)
PEM = "/etc/mailfleet/starttls.pem"
HOOK = "/usr/local/sbin/mailfleet-starttls"
CERTIFICATE = {
    "name": "pf13.fleet.test",
    "names": ["pf13.fleet.test"],
    "pairs": [{"private_key": PEM, "certificate": PEM}],
    "listeners": [{"host": "127.0.0.1", "name": "pf13.fleet.test"}],
}
QUIET = {"starttls_send_messages": False, "starttls_queue_timeout": 0}


def test_the_fleet_is_as_before_the_first_enable(fleet: Fleet, snapshot: Callable[[str], list[str]]) -> None:
    before = {host: snapshot(host) for host in HOSTS}
    on = fleet.play("playbooks/enable_tls.yml", variables=QUIET)
    assert on.status == 0, on.output

    # What renews a certificate between two runs goes as well.
    hooked = fleet.result("pf13", "renewal_hook", {"kind": "postfix", "certificates": [CERTIFICATE]})
    assert not hooked["failed"] and HOOK in hooked["files"], hooked

    # Mail that came over TLS waits in the second instance: it would be lost with it.
    fleet.run("pf12", f"postconf -e '{BUSY}' && postfix reload")
    mark = fleet.send("outside", ["trace@alpha.test"], tls=True)
    waiting = wait_for(lambda: [one for one in fleet.queue("gw1", SECOND) if one["queue_name"] == "deferred"])
    assert waiting, fleet.queue("gw1", SECOND)
    dry = fleet.play("playbooks/uninstall.yml", "--check", variables=QUIET)
    assert dry.status == 0, dry.output
    assert waiting[0]["queue_id"] in dry.output and "the mailbox is busy" in dry.output
    refused = fleet.play("playbooks/uninstall.yml", variables=QUIET)
    assert refused.status != 0, refused.output
    assert f"{waiting[0]['queue_id']} to trace@alpha.test (postfix-mailfleet): " in refused.output
    assert "450 4.2.1 " in refused.output and "the mailbox is busy" in refused.output
    assert fleet.queue("gw1", SECOND)

    fleet.run("pf12", "postconf -X smtpd_recipient_restrictions && postfix reload")
    fleet.run("gw1", f"postqueue -c {SECOND} -f")
    assert wait_for(lambda: fleet.mail("pf12", mark))
    gone = fleet.play("playbooks/uninstall.yml", variables={"starttls_send_messages": False})
    assert gone.status == 0, gone.output
    assert {host: set(snapshot(host)) ^ set(before[host]) for host in HOSTS} == {host: set() for host in HOSTS}
    assert fleet.run("pf13", f"ls {HOOK}", check=False) == ""

    again = fleet.play("playbooks/uninstall.yml", variables=QUIET)
    assert again.status == 0, again.output
    assert set(again.changed.values()) == {0}, again.output
    assert {host: set(snapshot(host)) ^ set(before[host]) for host in HOSTS} == {host: set() for host in HOSTS}
    mark = fleet.send("outside", ["trace@alpha.test"], tls=False)
    assert wait_for(lambda: fleet.mail("pf12", mark))
