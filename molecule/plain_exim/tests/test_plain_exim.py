"""Exim with one configuration file that somebody has written by hand: TLS on, proved, off, and gone without a trace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_testinfra import DOMAINS, Fleet, wait_for

HOSTS = ("ex12", "ex13")
FILE = "/etc/exim4/exim4.conf"
QUIET = {"starttls_send_messages": False}
TLS = {"inbound": "offered", "outbound": "opportunistic"}
RESTART = "systemctl reset-failed exim4; systemctl restart exim4"
"""The tests start the daemon more often than systemd allows a unit that fails."""


def shown(fleet: Fleet, host: str) -> str:
    """The file with its owner and mode."""
    return fleet.run(host, f"stat -c '%a %U:%G' {FILE}; cat {FILE}")


def daemon(fleet: Fleet, host: str) -> str:
    """The process of the daemon, which a reload keeps."""
    return wait_for(lambda: fleet.run(host, "cat /run/exim4/exim.pid", check=False).strip())


def with_lines(fleet: Fleet, host: str, script: str) -> None:
    """Change the file by hand, and have Exim read it."""
    fleet.run(host, f"{script} {FILE} && exim4 -bV >/dev/null && {RESTART}")
    daemon(fleet, host)


@pytest.fixture
def ex13(fleet: Fleet) -> Iterator[str]:
    """A host without TLS, whose file the test may change by hand."""
    text = fleet.run("ex13", f"cat {FILE}")
    yield "ex13"
    fleet.run("ex13", f"cat >{FILE}; rm -f /etc/exim4/tls.conf; {RESTART}", text)
    daemon(fleet, "ex13")


def test_on_off_and_gone(fleet: Fleet) -> None:
    before = {host: shown(fleet, host) for host in HOSTS}
    pids = {host: daemon(fleet, host) for host in HOSTS}

    dry = fleet.play("playbooks/enable_tls.yml", "--check", variables=QUIET)
    assert dry.status == 0, dry.output
    assert f"{FILE} on ex12, ex13" in dry.output
    assert "+# mailfleet.starttls keeps: tls_advertise_hosts =" in dry.output
    assert {host: shown(fleet, host) for host in HOSTS} == before

    on = fleet.play("playbooks/enable_tls.yml")
    assert on.status == 0, on.output
    for host in HOSTS:
        assert fleet.offers_starttls(host)
        assert re.search(rf"0 s:CN ?= ?{host}\.fleet\.test", fleet.s_client(host).output)
        assert daemon(fleet, host) == pids[host]
        assert fleet.arrived_over_tls(host, fleet.send("outside", [f"trace@{DOMAINS[host]}"], tls=True))
        printed = fleet.run(host, "exim4 -bP transport remote_smtp; exim4 -bP transport filter")
        assert re.findall(r"(?m)^hosts_avoid_tls = (.*)", printed) == ["", ""]

    again = fleet.play("playbooks/enable_tls.yml", variables=QUIET)
    assert again.status == 0, again.output
    assert set(again.changed.values()) == {0}, again.output

    proved = fleet.play("playbooks/verify_tls.yml", variables=QUIET)
    assert proved.status == 0, proved.output
    assert re.search(r"(?m)^ex12 .* pass$", proved.output), proved.output

    off = fleet.play("playbooks/disable_tls.yml", variables=QUIET)
    assert off.status == 0, off.output
    assert not any(fleet.offers_starttls(host) for host in HOSTS)
    assert {host: shown(fleet, host) for host in HOSTS} == before
    mark = fleet.send("outside", [f"trace@{DOMAINS['ex12']}"], tls=False)
    assert not fleet.arrived_over_tls("ex12", mark)


@pytest.mark.parametrize("host", HOSTS)
def test_everything_goes_and_the_file_is_the_former_one(fleet: Fleet, host: str) -> None:
    before = shown(fleet, host)
    options = {"kind": "exim", **TLS, "install": fleet.install(host)}
    on = fleet.result(host, "mail_server_tls", options)
    assert on["changed"], on["output"]
    insists = fleet.result(host, "mail_server_tls", {**options, "inbound": "required"})
    assert insists["changed"] and insists["handshake"]["requires_tls"], insists["output"]
    assert "mailfleet.starttls: begin" in shown(fleet, host)
    # An edit of somebody else, elsewhere in the file, stays.
    with_lines(fleet, host, "sed -i 's/^never_users = root$/never_users = root:daemon/'")
    gone = fleet.result(host, "mail_server_tls", {"kind": "exim", "state": "absent"})
    assert gone["changed"], gone["output"]
    assert shown(fleet, host) == before.replace("never_users = root\n", "never_users = root:daemon\n")
    with_lines(fleet, host, "sed -i 's/^never_users = root:daemon$/never_users = root/'")
    assert not fleet.offers_starttls(host)
    assert not fleet.result(host, "mail_server_tls", {"kind": "exim", "state": "absent"})["changed"]


OLD_VERSIONS = ("-tls1", "-tls1_1")
AT_SECURITY_LEVEL_0 = ("-cipher", "DEFAULT@SECLEVEL=0")
"""With it alone OpenSSL's client has the old versions."""


@pytest.mark.parametrize("host", HOSTS)
def test_a_floor_for_tls_versions_comes_and_goes_with_the_file_as_it_was(fleet: Fleet, host: str) -> None:
    def statuses() -> list[int]:
        return [fleet.s_client(host, one, *AT_SECURITY_LEVEL_0).status for one in OLD_VERSIONS]

    before = shown(fleet, host)
    options = {"kind": "exim", **TLS, "install": fleet.install(host)}
    fleet.result(host, "mail_server_tls", options)
    offered = shown(fleet, host)
    assert statuses() == [0, 0]
    on = fleet.result(host, "mail_server_tls", {**options, "min_tls": "TLSv1.2"})
    assert on["changed"], on["output"]
    assert 0 not in statuses()
    assert fleet.s_client(host, "-tls1_2").status == 0
    again = fleet.result(host, "mail_server_tls", {**options, "min_tls": "TLSv1.2"})
    assert not again["failed"] and not again["changed"], again["output"]
    off = fleet.result(host, "mail_server_tls", {**options, "min_tls": "none"})
    assert off["changed"], off["output"]
    assert shown(fleet, host) == offered
    assert statuses() == [0, 0]
    fleet.result(host, "mail_server_tls", {**options, "min_tls": "TLSv1.2"})
    gone = fleet.result(host, "mail_server_tls", {"kind": "exim", "state": "absent"})
    assert gone["changed"], gone["output"]
    assert shown(fleet, host) == before


REFUSED = {
    "a condition": (
        "sed -i 's/^tls_advertise_hosts =$/.ifdef TLS\\ntls_advertise_hosts = *\\n.endif\\ntls_advertise_hosts =/'",
        "tls_advertise_hosts is set within the condition '.ifdef TLS'",
    ),
    "an included file": (
        "echo 'tls_advertise_hosts =' >/etc/exim4/tls.conf; sed -i 's:^tls_advertise_hosts =$:.include /etc/exim4/tls.conf:'",
        "tls_advertise_hosts is set to '' by an included file or a macro",
    ),
    "a certificate by name": (
        "sed -i '1i tls_certificate = /etc/ssl/${if eq{$tls_in_sni}{}{a}{b}}.pem'",
        "tls_certificate depends on the connection",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_edited_safely_is_refused_with_the_lines(fleet: Fleet, ex13: str, case: str) -> None:
    script, reason = REFUSED[case]
    with_lines(fleet, ex13, script)
    before, pid = shown(fleet, ex13), daemon(fleet, ex13)
    read = fleet.result(ex13, "mail_server_info", {"kind": "exim", **TLS})
    said = " ".join(one["message"] for one in read["obstacles"])
    assert reason in said, read["output"]
    result = fleet.result(ex13, "mail_server_tls", {"kind": "exim", **TLS, "install": fleet.install(ex13)})
    assert result["failed"] and reason in result["msg"], result["output"]
    assert "does not edit the file" in result["msg"]
    assert (shown(fleet, ex13), daemon(fleet, ex13)) == (before, pid)


def test_lines_that_were_added_by_hand_are_enough(fleet: Fleet, ex13: str) -> None:
    """Nothing is written to the file; the certificate is installed, and the port is proved."""
    options: dict[str, Any] = {"kind": "exim", **TLS, "install": fleet.install(ex13)}
    with_lines(fleet, ex13, REFUSED["a condition"][0])
    lines = fleet.result(ex13, "mail_server_tls", options)["msg"]
    assert "tls_certificate = /etc/mailfleet/starttls.pem" in lines
    with_lines(
        fleet, ex13,
        "sed -i -e 's:^tls_advertise_hosts =$:tls_advertise_hosts = *\\ntls_certificate = /etc/mailfleet/starttls.pem:' "
        "-e '/hosts_avoid_tls/,+1d'",
    )  # fmt: skip
    before = shown(fleet, ex13)
    done = fleet.result(ex13, "mail_server_tls", options)
    assert not done["failed"] and done["handshake"]["completed"], done["output"]
    assert shown(fleet, ex13) == before
    fleet.run(ex13, "rm -rf /etc/mailfleet /var/lib/mailfleet-starttls")


def test_what_would_fail_in_the_handshake_is_found_before_the_daemon_reads_it(fleet: Fleet, ex13: str) -> None:
    """Exim -bV takes such a file, and a daemon that is told to read it ends, or refuses every handshake."""
    with_lines(fleet, ex13, "sed -i 's/^tls_require_ciphers = NORMAL$/tls_require_ciphers = NORMAL:-VERS-ALL/'")
    before, pid = fleet.digests([ex13]), daemon(fleet, ex13)
    result = fleet.result(ex13, "mail_server_tls", {"kind": "exim", **TLS, "install": fleet.install(ex13)})
    assert result["failed"], result["output"]
    assert "Exim would not start TLS with the change: 454" in result["msg"], result["msg"]
    assert (fleet.digests([ex13]), daemon(fleet, ex13)) == (before, pid)


ROLE = """
- hosts: ex13
  gather_facts: false
  vars: {starttls_settings_only: true, starttls_outbound: opportunistic}
  roles: [mailfleet.starttls.ROLE]
"""


def test_settings_only_shows_the_lines_for_the_owner_and_proves_them(fleet: Fleet, ex13: str) -> None:
    """The file is that of another tool: nothing is changed here, and the run goes on when that tool has written the lines."""
    with_lines(fleet, ex13, "sed -i '1i # Ansible managed'")
    before = fleet.digests([ex13])
    shown_first = fleet.play(ROLE.replace("ROLE", "mail_server"))
    assert shown_first.status != 0
    output = shown_first.output
    assert f"{FILE} is written by Ansible" in output
    assert "tls_certificate = /etc/mailfleet/starttls.pem" in output
    assert fleet.digests([ex13]) == before

    fleet.run(ex13, f"sed -i -e 's/^tls_advertise_hosts =$/tls_advertise_hosts = */' -e '/hosts_avoid_tls/,+1d' {FILE}")
    fleet.run(ex13, f"sed -i '/^tls_advertise_hosts/a tls_certificate = /etc/mailfleet/starttls.pem' {FILE}")
    assert fleet.play(ROLE.replace("ROLE", "certificate")).status == 0
    fleet.run(ex13, RESTART)
    daemon(fleet, ex13)
    done = fleet.play(ROLE.replace("ROLE", "mail_server"))
    assert done.status == 0 and done.changed == {ex13: 0}, done.output
    assert "mailfleet" not in fleet.run(ex13, f"grep -v starttls.pem {FILE}")
    proved = fleet.play("playbooks/verify_tls.yml", "--limit", ex13, variables=QUIET)
    assert proved.status == 0, proved.output
    fleet.run(ex13, "rm -rf /etc/mailfleet /var/lib/mailfleet-starttls")


SCRIPT = Path(__file__).resolve().parents[1] / "files/red_hat.sh"


@pytest.fixture
def red_hat(fleet: Fleet) -> Iterator[str]:
    """A host whose Exim has the program, paths, user, log and unit of the Red Hat family, compiled in."""
    fleet.run("ex12", "sh -s on", SCRIPT.read_text())
    yield "ex12"
    fleet.run("ex12", "sh -s off", SCRIPT.read_text())
    daemon(fleet, "ex12")


def test_the_layout_of_the_red_hat_family(fleet: Fleet, red_hat: str) -> None:
    look = "stat -c '%a %U:%G' /etc/exim/exim.conf; cat /etc/exim/exim.conf"
    before = fleet.run(red_hat, look)
    pid = fleet.run(red_hat, "cat /run/exim.pid")
    seen = fleet.result(red_hat, "mail_server_info", {"kind": "auto"})
    assert (seen["kind"], seen["layout"]["platform"]) == ("exim", "Red Hat family"), seen["output"]
    on = fleet.result(red_hat, "mail_server_tls", {**TLS, "inbound": "required", "install": fleet.install(red_hat)})
    assert on["changed"] and on["handshake"]["requires_tls"], on["output"]
    assert fleet.run(red_hat, "stat -c '%a %U:%G' /etc/mailfleet/starttls.pem").split() == ["640", "root:exim"]
    assert fleet.arrived_over_tls(red_hat, fleet.send("outside", ["trace@charlie.test"], tls=True, to=red_hat))
    counted = fleet.result(red_hat, "tls_activity_info", {"daemon": "exim"})
    assert counted["activity"]["sources"] == ["/var/log/exim/main.log"], counted["output"]
    assert counted["activity"]["totals"]["inbound"]["messages_tls"] == 1, counted["output"]
    waiting = fleet.result(red_hat, "deferred_mail_info", {"kind": "exim"})
    assert waiting["looked"] and waiting["messages"] == [], waiting["output"]
    proved = fleet.play("playbooks/verify_tls.yml", "--limit", red_hat, variables=QUIET)
    assert proved.status == 0, proved.output
    off = fleet.result(red_hat, "mail_server_tls", {"inbound": "disabled", "outbound": "disabled"})
    assert off["changed"] and fleet.run(red_hat, look) == before, off["output"]
    assert not fleet.offers_starttls(red_hat)
    assert fleet.result(red_hat, "mail_server_tls", {"state": "absent"})["changed"]
    assert fleet.run(red_hat, f"{look}; ls -d /etc/mailfleet 2>/dev/null || :") == before
    assert fleet.run(red_hat, "cat /run/exim.pid") == pid
