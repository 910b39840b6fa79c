"""A daemon that the reload of a change would end: real ones, with what administrators leave behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from lab_testinfra import DOMAINS, Fleet, wait_for

OFFERED = {"inbound": "offered", "outbound": "opportunistic"}
PORT = 2600
LISTEN = f"systemd-run --quiet --unit=stranger /usr/bin/python3 -m http.server --bind 127.0.0.1 {PORT}"
MASTER = "/etc/postfix/master.cf"
MACROS = "/etc/exim4/exim4.conf.localmacros"
DAEMONS = {"pf12": "tr -d ' ' </var/spool/postfix/pid/master.pid", "ex12": "cat /run/exim4/exim.pid"}
FILES = "cd /etc && find postfix exim4 -type f -exec sha256sum {} + 2>/dev/null | sort"
EDITS = {
    "a port in use": f"127.0.0.1:{PORT} inet n - y - - smtpd",
    "an address of another host": "192.0.2.77:2601 inet n - y - - smtpd",
    "a name that does not resolve": "nowhere.invalid:2601 inet n - y - - smtpd",
    "a port that has no such name": "foo inet n - y - - smtpd",
}


@contextlib.contextmanager
def edited(fleet: Fleet, host: str, path: str, line: str) -> Iterator[None]:
    """A line that somebody has added, and that the daemon has not read."""
    fleet.run(host, f"cp -p {path} /root/kept 2>/dev/null; sleep 1.5; cat >>{path}", line + "\n")
    try:
        yield
    finally:
        fleet.run(host, f"mv /root/kept {path} 2>/dev/null || rm {path}")


@pytest.fixture
def stranger(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[None]:
    """Another program on the port, on the host of the test."""
    host = request.getfixturevalue("host")
    fleet.run(host, LISTEN)
    assert wait_for(lambda: fleet.run(host, f"ss -Hltn 'sport = :{PORT}'").strip())
    yield
    fleet.run(host, "systemctl stop stranger")


@pytest.mark.parametrize("host", ["pf12"])
@pytest.mark.parametrize(
    "edit", [pytest.param(one, marks=[pytest.mark.exhaustive] if one != "a port in use" else []) for one in EDITS]
)
def test_a_listener_that_would_end_postfix_is_seen_and_the_daemon_stays(
    fleet: Fleet, host: str, stranger: None, edit: str
) -> None:
    daemon = fleet.run(host, DAEMONS[host])
    before = fleet.run(host, FILES)
    with edited(fleet, host, MASTER, EDITS[edit]):
        seen = fleet.module(host, "mail_server_info", OFFERED)
        assert '"code": "port_in_use"' in seen.output, seen.output
        assert '"code": "edits_not_read"' in seen.output
        played = fleet.module(host, "mail_server_tls", OFFERED)
        assert played.status != 0
        assert "Postfix would end at its next reload" in played.output, played.output
        assert "The former state is restored and proved" not in played.output
        assert fleet.run(host, DAEMONS[host]) == daemon
    assert fleet.run(host, FILES) == before
    assert not fleet.offers_starttls(host)


@pytest.mark.parametrize("host", ["ex12"])
def test_a_port_in_use_is_seen_before_exim_would_wait_for_it(fleet: Fleet, host: str, stranger: None) -> None:
    before = fleet.run(host, FILES)
    with edited(fleet, host, MACROS, f"daemon_smtp_ports = smtp : {PORT}"):
        seen = fleet.module(host, "mail_server_info", OFFERED)
        assert '"code": "port_in_use"' in seen.output, seen.output
        assert "python3" in seen.output
        played = fleet.module(host, "mail_server_tls", OFFERED)
        assert played.status != 0
        assert "Exim would take no mail for minutes" in played.output, played.output
        assert fleet.offers_starttls(host) is False
        assert fleet.send("outside", [f"trace@{DOMAINS[host]}"], tls=False, to=host)
    assert fleet.run(host, FILES) == before
