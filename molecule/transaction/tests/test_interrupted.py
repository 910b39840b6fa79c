"""A change that does not come to its end: a signal, a lost connection, a killed process, on a real Postfix over real SSH."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_testinfra import TOP, Fleet, wait_for

HOST = "pf12"
OFFERED = {"inbound": "offered", "outbound": "opportunistic"}
DISABLED = {"inbound": "disabled", "outbound": "disabled"}
JOURNALS = "find /var/lib/mailfleet-starttls -name '*.journal'"
# The process that holds the lock; its command line does not name the module where it was read from standard input.
CHANGING = "for one in /proc/[0-9]*; do ls -l $one/fd 2>/dev/null | grep -q mailfleet-starttls/postfix.lock && echo ${one#/proc/}; done; :"
MASTER = "tr -d ' ' </var/spool/postfix/pid/master.pid"
NOT_PROVED = "the former state was never left, so this test proves nothing"

pytestmark = pytest.mark.usefixtures("other_certificate")


class Run:
    """A module call that runs while the test looks at the host."""

    def __init__(self, pipelining: bool, timeout: int) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if "COLOR" not in name},
            "ANSIBLE_CONFIG": str(TOP / ".lab/ansible.cfg"),
            "ANSIBLE_PIPELINING": str(pipelining),
            # A connection of its own, not one that others share and that outlives this run.
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none",
        }
        self._process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "ansible"), "-i", str(Fleet().inventory), HOST,
                "-m", "mailfleet.starttls.mail_server_tls", "-a", json.dumps({**OFFERED, "timeout": timeout}),
            ],
            cwd=TOP, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def output(self) -> str:
        """Wait for its end: all that it printed."""
        return self._process.communicate(timeout=600)[0]

    def cut(self) -> None:
        """The controller is gone, and with it the connection: Ansible, its workers (in sessions of their own) and their ssh."""
        listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
        doomed = [self._process.pid]
        for one in doomed:
            doomed += [pid for pid, parent in parents if parent == one]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.communicate(timeout=120)


@contextlib.contextmanager
def in_the_middle(fleet: Fleet, pipelining: bool, timeout: int = 150) -> Iterator[Run]:
    """A change that is written and served, and waits for a proof that cannot come."""
    run = Run(pipelining, timeout)
    try:
        assert wait_for(lambda: fleet.run(HOST, JOURNALS, check=False).strip(), 120), "no journal was seen"
        assert wait_for(lambda: fleet.offers_starttls(HOST)), "the change was not served"
        yield run
    finally:
        run.cut()


def changing(fleet: Fleet) -> str:
    """The numbers of the processes that make a change on the host."""
    return " ".join(fleet.run(HOST, CHANGING).split())


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelining", "terminal"])
@pytest.mark.parametrize("name", ["TERM", "HUP"])
def test_a_signal_restores_at_once(fleet: Fleet, name: str, pipelining: bool) -> None:
    before = fleet.digests()[HOST]
    with in_the_middle(fleet, pipelining) as run:
        assert fleet.digests()[HOST] != before, NOT_PROVED
        fleet.run(HOST, f"kill -{name} {changing(fleet)}")
        output = run.output()
    assert f"SIG{name}" in output and "The former state is restored and proved" in output, output
    assert re.search(r'"restored": true', output)
    assert fleet.digests()[HOST] == before
    assert fleet.run(HOST, JOURNALS).strip() == ""
    assert not fleet.offers_starttls(HOST)


def test_a_lost_connection_with_a_terminal_restores_at_once(fleet: Fleet) -> None:
    before = fleet.digests()[HOST]
    with in_the_middle(fleet, pipelining=False) as run:
        assert fleet.digests()[HOST] != before, NOT_PROVED
        run.cut()
        # Well before the end of the time that the proof is waited for.
        assert wait_for(lambda: not changing(fleet)), "the change goes on"
    assert fleet.digests()[HOST] == before
    assert fleet.run(HOST, JOURNALS).strip() == ""
    assert not fleet.offers_starttls(HOST)


@pytest.mark.parametrize("provable", [True, False], ids=["proved", "restored"])
def test_with_pipelining_a_lost_connection_does_not_stop_the_change(fleet: Fleet, provable: bool) -> None:
    before = fleet.digests()[HOST]
    with in_the_middle(fleet, pipelining=True, timeout=150 if provable else 8) as run:
        process = changing(fleet)
        run.cut()
        assert changing(fleet) == process, "the change ended with the connection"
        if provable:
            fleet.run(HOST, "postconf -PX smtp/inet/smtpd_tls_chain_files && postfix reload 2>&1")
        assert wait_for(lambda: not changing(fleet)), "the change does not end"
    assert fleet.run(HOST, JOURNALS).strip() == ""
    assert fleet.offers_starttls(HOST) == provable
    if provable:
        assert '"changed": false' in fleet.module(HOST, "mail_server_tls", OFFERED).output
        assert fleet.module(HOST, "mail_server_tls", DISABLED).status == 0
    else:
        assert fleet.digests()[HOST] == before


def test_a_killed_run_is_undone_by_the_next(fleet: Fleet) -> None:
    before = fleet.digests()[HOST]
    with in_the_middle(fleet, pipelining=True):
        fleet.run(HOST, f"kill -KILL {changing(fleet)}")
    assert fleet.digests()[HOST] != before, NOT_PROVED
    fleet.run(HOST, "postconf -PX smtp/inet/smtpd_tls_chain_files")

    dry = fleet.module(HOST, "mail_server_tls", DISABLED, "--check")
    assert "an earlier run was interrupted" in dry.output

    again = fleet.module(HOST, "mail_server_tls", OFFERED)
    assert again.status == 0, again.output
    assert '"recovered": true' in again.output
    assert fleet.run(HOST, JOURNALS).strip() == ""
    assert fleet.s_client(HOST, "-CAfile", str(fleet.ca), "-verify_return_error").status == 0
    assert fleet.module(HOST, "mail_server_tls", DISABLED).status == 0


@pytest.mark.parametrize(
    "ends", [pytest.param(True, id="ended"), pytest.param(False, id="stopped", marks=pytest.mark.exhaustive)]
)
def test_a_killed_run_is_undone_although_the_daemon_does_not_run(fleet: Fleet, ends: bool) -> None:
    before = fleet.digests()[HOST]
    with in_the_middle(fleet, pipelining=True):
        fleet.run(HOST, f"kill -KILL {changing(fleet)}")
    assert fleet.digests()[HOST] != before
    fleet.run(HOST, "postconf -PX smtp/inet/smtpd_tls_chain_files")
    fleet.run(HOST, f"kill -KILL $({MASTER})" if ends else "systemctl stop postfix")
    again = fleet.module(HOST, "mail_server_tls", OFFERED)
    if ends:
        assert again.status == 0 and '"recovered": true' in again.output, again.output
        assert fleet.offers_starttls(HOST)
        assert fleet.module(HOST, "mail_server_tls", DISABLED).status == 0
    else:
        assert again.status != 0 and "start it first" in again.output, again.output
        assert fleet.run(HOST, "systemctl is-active postfix@-.service", check=False).strip() != "active"
        fleet.run(HOST, "systemctl start postfix")
    assert fleet.run(HOST, JOURNALS).strip() == ""
    assert not fleet.offers_starttls(HOST)
