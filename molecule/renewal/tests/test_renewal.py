"""Certificates of an ACME authority, renewed without Ansible. The tests follow each other, as the weeks after a roll-out do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lab_clients import handshake
from lab_renewal import CA, CERTBOT, Renewing
from lab_testinfra import SERVERS, Played, report, wait_for

FACES = [f"{port} {kind}" for port in (25, 587, 465) for kind in ("ECDSA", "RSA")]
TWO = ("pf12", "ex13")
"""A Postfix that proves its name on port 80, and an Exim that does by the DNS."""
DEFERRED = "cat /var/log/mail.log /var/log/exim4/mainlog 2>/dev/null | grep -E 'status=(deferred|bounced)| == | \\*\\* ' || true"
DELIVERED = "cat /var/mail/trace 2>/dev/null | grep -c '^Subject: beside-' || true"
RESTS = "if command -v postqueue >/dev/null; then postqueue -j | wc -l; else exim4 -bpc; fi"
# As the timer of certbot does, but at once and although nothing is due.
FORCED = (
    "echo 'renew-by-default = true' >>/etc/letsencrypt/cli.ini; systemctl start certbot.service; status=$?; "
    "sed -i /renew-by-default/d /etc/letsencrypt/cli.ini; [ $status = 0 ] || journalctl -u certbot --no-pager | tail -n 20; "
    "exit $status"
)


def test_the_first_certificates_are_issued_in_both_algorithms_and_served_on_every_port(
    first: Played, renewing: Renewing
) -> None:
    assert first.status == 0, first.output
    for host, (status, line) in renewing.on_each(renewing.check).items():
        assert status == 0 and line.startswith(f"STARTTLS OK - {host}.fleet.test: "), line
        assert "served on 6 of 6 listeners" in line, line
        installed = renewing.installed(host)
        assert installed["ECDSA"] != installed["RSA"]
        assert renewing.serves_what_is_installed(host), host


OLDER = 'sed -i \'s/^VERSION = "[0-9.]*"/VERSION = "0.0.9"/\' /usr/local/sbin/mailfleet-starttls && mailfleet-starttls --version'


def test_a_second_run_changes_nothing_but_a_hook_of_another_version(first: Played, renewing: Renewing) -> None:
    renewing.on_each(lambda host: renewing.run(host, "systemctl start mailfleet-starttls-renew.timer"))
    before = renewing.on_each(renewing.installed)
    version = renewing.on_each(lambda host: renewing.run(host, "mailfleet-starttls --version"))
    older = renewing.on_each(lambda host: renewing.run(host, OLDER), TWO)
    assert all(status == 0 and said.endswith("0.0.9") for status, said in older.values()), older
    again = renewing.fleet.play("playbooks/enable_tls.yml")
    renewing.on_each(lambda host: renewing.run(host, "systemctl stop mailfleet-starttls-renew.timer"))
    assert again.status == 0, again.output
    assert {host: again.changed[host] for host in SERVERS} == {host: int(host in TWO) for host in SERVERS}, again.output
    assert renewing.on_each(lambda host: renewing.run(host, "mailfleet-starttls --version")) == version
    assert renewing.on_each(renewing.installed) == before


@pytest.fixture(scope="module")
def renewed(first: Played, renewing: Renewing) -> dict[str, Any]:
    """What happens while certbot's own service renews all of them: what was installed before and after, and what the clients saw."""
    before = renewing.on_each(renewing.installed)
    logged = renewing.on_each(lambda host: len(renewing.log(host)))
    with renewing.clients() as seen:
        ended = renewing.on_each(lambda host: renewing.run(host, FORCED))
    return {
        host: {"before": before[host], "after": renewing.installed(host), "ended": ended[host], "seen": seen[host],
               "log": renewing.log(host)[logged[host] :]}
        for host in SERVERS
    }  # fmt: skip


@pytest.mark.parametrize("host", SERVERS)
def test_the_hook_alone_renews_both_algorithms_on_every_port(host: str, renewed: dict[str, Any]) -> None:
    one = renewed[host]
    assert one["ended"][0] == 0, one["ended"]
    assert not {*one["before"].values()} & {*one["after"].values()}
    wanted = {face: [one["before"][face.split()[1]], one["after"][face.split()[1]]] for face in FACES}
    assert one["seen"]["served"] == wanted
    # One line for each change.
    assert len(one["log"]) == 2 and all("installed: until" in line for line in one["log"]), one["log"]
    assert all("served on 6 of 6 listeners" in line for line in one["log"]), one["log"]


@pytest.mark.parametrize("host", SERVERS)
def test_meanwhile_no_handshake_fails_and_no_message_is_deferred(
    host: str, renewed: dict[str, Any], renewing: Renewing
) -> None:
    seen, fleet = renewed[host]["seen"], renewing.fleet
    assert seen["failures"] == [] and seen["handshakes"] > len(FACES) and seen["messages"] > 0, seen
    assert wait_for(lambda: int(fleet.run(host, DELIVERED)) >= seen["messages"])
    assert int(fleet.run(host, DELIVERED)) == seen["messages"]
    assert fleet.run(host, DEFERRED) == "" and int(fleet.run(host, RESTS)) == 0
    report(
        "A renewal by the hook alone",
        [f"  {host}: {seen['handshakes']} handshakes, 0 failed; {seen['messages']} messages, 0 deferred"],
    )


@pytest.mark.parametrize(
    ("clock", "status", "words"),
    [
        ("+3d", 0, "OK - "),
        ("+4.5d", 1, "WARNING - .*less than a third of its life"),
        ("+5.5d", 2, "CRITICAL - .*less than a tenth of its life"),
        ("+7d", 2, "CRITICAL - .*expired on "),
    ],
)
def test_the_check_counts_in_shares_of_a_life_of_six_days(
    clock: str, status: int, words: str, first: Played, renewing: Renewing
) -> None:
    for host, (found, line) in renewing.on_each(lambda host: renewing.check(host, clock), TWO).items():
        assert found == status and re.match(rf"STARTTLS {words}", line), f"{host}: {line}"
        assert re.search(r"'\S+_EC_life'=.*'\S+_RSA_life'=", line), line


def test_a_mail_server_that_does_not_answer_is_unknown(first: Played, renewing: Renewing) -> None:
    unit = {"pf12": "postfix", "ex13": "exim4"}
    for host in TWO:
        renewing.fleet.run(host, f"systemctl stop {unit[host]}")
    try:
        found = renewing.on_each(renewing.check, TWO)
    finally:
        for host in TWO:
            renewing.fleet.run(host, f"systemctl start {unit[host]}")
    assert all(status == 3 and line.startswith("STARTTLS UNKNOWN - ") for status, line in found.values()), found
    for host in TWO:
        assert wait_for(lambda host=host: renewing.check(host)[0] == 0), renewing.check(host)


def test_a_renewed_certificate_for_another_name_is_refused_and_the_old_one_stays(
    first: Played, renewing: Renewing
) -> None:
    before = renewing.on_each(renewing.served, TWO)
    issued = renewing.on_each(lambda host: renewing.issue(host, f"other.{host}.fleet.test"), TWO)
    assert all(status == 0 for status, _said in issued.values()), issued
    for host, (status, said) in renewing.on_each(renewing.renew, TWO).items():
        assert status == 1 and re.search(rf"{host}\S+: refused: .*the old one stays: \[name_not_covered\]", said), said
        assert any("refused: " in line for line in renewing.log(host))
    for status, line in renewing.on_each(renewing.check, TWO).values():
        assert status == 1 and "was renewed and is not installed, because it is unfit ([name_not_covered]" in line, line
    assert renewing.on_each(renewing.served, TWO) == before
    # The right name again, and the hook takes it.
    issued = renewing.on_each(lambda host: renewing.issue(host, f"{host}.fleet.test"), TWO)
    assert all(status == 0 for status, _said in issued.values()), issued
    renewing.on_each(renewing.renew, TWO)
    for host in TWO:
        assert renewing.check(host)[0] == 0 and renewing.serves_what_is_installed(host), renewing.check(host)
        assert renewing.installed(host)["ECDSA"] not in before[host].values()


def renew_past_the_hook(host: str, renewing: Renewing) -> None:
    """Have certbot renew the ECDSA certificate without telling the hook."""
    status, said = renewing.certbot(
        host, f"renew --cert-name {host}.fleet.test --force-renewal --no-random-sleep-on-renew --no-directory-hooks"
    )
    assert status == 0, said


def test_of_two_renewals_at_once_one_waits_for_the_other(first: Played, renewing: Renewing) -> None:
    renewing.on_each(lambda host: renew_past_the_hook(host, renewing), TWO)
    both = "(mailfleet-starttls renew; echo status $?) & (mailfleet-starttls renew; echo status $?) & wait"
    for host, (_status, said) in renewing.on_each(lambda host: renewing.run(host, both), TWO).items():
        assert sorted(re.findall(rf"(?m)^{host}\S+: (\w+):", said)) == ["current", "installed"], said
        assert re.findall(r"status (\d+)", said) == ["0", "0"], said
        assert renewing.serves_what_is_installed(host), host


KILLED = (
    "mailfleet-starttls renew & hook=$!; "
    "i=0; until ls /var/lib/mailfleet-starttls/*.journal >/dev/null 2>&1 || [ $i = 3000 ]; do i=$((i + 1)); sleep 0.01; done; "
    "kill -9 $hook; ls /var/lib/mailfleet-starttls"
)


def test_the_next_renewal_mends_what_a_killed_one_has_left(first: Played, renewing: Renewing) -> None:
    renewing.on_each(lambda host: renew_past_the_hook(host, renewing), TWO)
    for host, (_status, said) in renewing.on_each(lambda host: renewing.run(host, KILLED), TWO).items():
        assert ".journal" in said, f"{host}: {said}"
    for host, (status, said) in renewing.on_each(renewing.renew, TWO).items():
        assert status == 0 and re.search(r"installed: .*a change that was interrupted is undone", said), said
        assert renewing.check(host)[0] == 0 and renewing.serves_what_is_installed(host), host
        assert ".journal" not in renewing.fleet.run(host, "ls /var/lib/mailfleet-starttls")


DROP_IN = "/run/systemd/system/mailfleet-starttls-renew.timer.d"
# Without AccuracySec a timer may fire up to a minute late.
SOON = (
    f"mkdir -p {DROP_IN} && printf '[Timer]\nOnCalendar=\nRandomizedDelaySec=0\nAccuracySec=1\nOnActiveSec=1\n' "
    f">{DROP_IN}/soon.conf && "
    "systemctl daemon-reload && systemctl start mailfleet-starttls-renew.timer"
)
NOT_SOON = f"systemctl stop mailfleet-starttls-renew.timer; rm -r {DROP_IN}; systemctl daemon-reload"


def test_the_timer_makes_up_for_a_renewal_of_which_the_hook_was_not_told(first: Played, renewing: Renewing) -> None:
    """The installed timer and its service; only the hour at which it fires is another one."""
    before = renewing.on_each(renewing.installed, TWO)
    renewing.on_each(lambda host: renew_past_the_hook(host, renewing), TWO)
    started = renewing.on_each(lambda host: renewing.run(host, SOON), TWO)
    try:
        assert all(status == 0 for status, _said in started.values()), started
        for host in TWO:
            assert wait_for(lambda host=host: renewing.installed(host)["ECDSA"] != before[host]["ECDSA"], 180), host
            assert wait_for(lambda host=host: renewing.check(host)[0] == 0), renewing.check(host)
            assert renewing.serves_what_is_installed(host), host
    finally:
        renewing.on_each(lambda host: renewing.run(host, NOT_SOON), TWO)


LIVE = "/etc/letsencrypt/live"
OTHER = "other.{{ starttls_hostname }}"
READ_WHERE_THEY_ARE = {
    "starttls_certificate_source": "host",
    "starttls_certificate_path": LIVE + "/{{ starttls_hostname }}/fullchain.pem",
    "starttls_private_key_path": LIVE + "/{{ starttls_hostname }}/privkey.pem",
    "starttls_more_certificates": [
        {
            "certificate_path": f"{LIVE}/{OTHER}/fullchain.pem", "private_key_path": f"{LIVE}/{OTHER}/privkey.pem",
            "ports": [465], "names": [OTHER],
        }
    ],
}  # fmt: skip
# As the plan asks for it, for a daemon that does not read as root; certbot keeps group and mode when it renews.
FOR_EXIM = "cd /etc/letsencrypt && chmod 755 live archive && chgrp Debian-exim archive/*/privkey*.pem && chmod 640 archive/*/privkey*.pem"


def test_one_port_has_another_certificate_and_the_hook_proves_it_there_alone(first: Played, renewing: Renewing) -> None:
    """Port 465 with another name than 25 and 587, renewed by its owner, and gone again without a trace."""
    fleet = renewing.fleet

    def served(host: str) -> dict[int, str]:
        return {port: handshake(fleet.address(host), port, "ECDSA") for port in (25, 587, 465)}

    def issued(host: str) -> dict[int, str]:
        own, other = (
            fleet.run(host, f"openssl x509 -in {LIVE}/{name}/cert.pem -noout -fingerprint -sha256")
            for name in (f"{host}.fleet.test", f"other.{host}.fleet.test")
        )
        wanted = {25: own, 587: own, 465: other}
        return {port: one.partition("=")[2].strip().replace(":", "").lower() for port, one in wanted.items()}

    def played(playbook: str, **variables: Any) -> Played:
        done = fleet.play(f"playbooks/{playbook}.yml", "--limit", ",".join(TWO), variables=variables or None)
        assert done.status == 0, done.output
        return done

    def files() -> dict[str, list[str]]:
        # A macro of Exim that went and came back stands at the end.
        moved = ("/000_localmacros ", "/config.autogenerated ")
        sort = "sort /etc/exim4/conf.d/main/000_localmacros 2>/dev/null"
        return {
            host: [
                *(one for one in text.splitlines() if not any(name in one for name in moved)),
                fleet.run(host, sort, check=False),
            ]
            for host, text in fleet.digests(TWO).items()
        }

    before = files()
    for host in TWO:
        other = f"other.{host}.fleet.test"
        status, said = renewing.issue(host, other, lineage=other)
        assert status == 0, said
    fleet.run("ex13", FOR_EXIM)
    played("enable_tls", **READ_WHERE_THEY_ARE)
    assert renewing.on_each(served, TWO) == renewing.on_each(issued, TWO)
    again = played("enable_tls", **READ_WHERE_THEY_ARE)
    assert {host: again.changed[host] for host in TWO} == dict.fromkeys(TWO, 0), again.output
    renewing.on_each(lambda host: renewing.run(host, "systemctl stop mailfleet-starttls-renew.timer"), TWO)
    for host in TWO:
        for name, listeners in ((f"other.{host}.fleet.test:465", "1 of 1"), (f"{host}.fleet.test", "2 of 2")):
            status, line = renewing.run(host, f"mailfleet-starttls check --name {name}")
            assert status == 0 and f"served on {listeners} listeners" in line, line
    played("verify_tls", **READ_WHERE_THEY_ARE, starttls_send_messages=False)
    was = renewing.on_each(served, TWO)
    for host in TWO:
        status, said = renewing.certbot(
            host, f"renew --cert-name other.{host}.fleet.test --force-renewal --no-random-sleep-on-renew"
        )
        assert status == 0, said
        now = served(host)
        assert now == issued(host)
        assert [port for port in now if now[port] != was[host][port]] == [465]
    played("enable_tls")
    renewing.on_each(lambda host: renewing.run(host, "systemctl stop mailfleet-starttls-renew.timer"), TWO)
    assert files() == before
    for host in TWO:
        assert renewing.serves_what_is_installed(host)
        assert renewing.certbot(host, f"delete --non-interactive --cert-name other.{host}.fleet.test")[0] == 0


FULL = (
    "rm -rf /root/kept; cp -a /etc/mailfleet /root/kept && mount -t tmpfs -o size=1m,mode=755 tmpfs /etc/mailfleet "
    "&& cp -a /root/kept/. /etc/mailfleet/ && { dd if=/dev/zero of=/etc/mailfleet/filled bs=4k 2>/dev/null || true; }"
)


def test_a_full_disk_changes_nothing_and_the_next_renewal_makes_up_for_it(first: Played, renewing: Renewing) -> None:
    before = renewing.on_each(renewing.served, TWO)
    for host in TWO:
        renewing.fleet.run(host, FULL)
    try:
        renewing.on_each(lambda host: renew_past_the_hook(host, renewing), TWO)
        refused = renewing.on_each(renewing.renew, TWO)
        checked = renewing.on_each(renewing.check, TWO)
    finally:
        for host in TWO:
            renewing.fleet.run(host, "umount /etc/mailfleet")
    for host in TWO:
        status, said = refused[host]
        assert status == 3 and "No space left on device" in said and "nothing was changed" in said, said
        status, said = checked[host]
        assert status == 1 and "was renewed and is not installed" in said, said
        assert renewing.served(host) == before[host]
        status, said = renewing.renew(host)
        assert status == 0 and "installed: " in said, said
        assert renewing.serves_what_is_installed(host), host


def test_an_authority_that_is_away_leaves_all_as_it_is(first: Played, renewing: Renewing) -> None:
    """After this one nothing can be renewed: pebble forgets its accounts when it ends."""
    before = renewing.on_each(renewing.served)
    renewing.fleet.run(CA, "systemctl stop pebble")
    ended = renewing.on_each(
        lambda host: renewing.run(host, f"{CERTBOT} renew --force-renewal --no-random-sleep-on-renew")
    )
    assert all(status != 0 for status, _said in ended.values()), ended
    assert renewing.on_each(renewing.served) == before
    assert all(status == 0 for status, _line in renewing.on_each(renewing.check).values())


def test_where_tls_is_off_nothing_of_the_hook_is_left(first: Played, renewing: Renewing) -> None:
    off = renewing.fleet.play("playbooks/disable_tls.yml")
    assert off.status == 0, off.output
    left = "ls -d /usr/local/sbin/mailfleet-starttls /etc/mailfleet/renewal.json /etc/systemd/system/*/mailfleet-starttls* 2>/dev/null"
    for host in SERVERS:
        found = renewing.run(
            host, f"{left}; find /etc/letsencrypt/renewal-hooks /etc/systemd/system -name '*mailfleet*'"
        )[1]
        assert found == "", f"{host}: {found}"
