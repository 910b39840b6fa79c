"""Processes as the kernel shows them, and signals to the right one."""

import errno
import os
import signal
import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import processes
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import (
    Process,
    number_in,
    process_of,
    send_signal,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.alarm import at_most
from tests.support.attacker import UID, give_away, needs_root, sleeping


def test_what_the_kernel_says():
    with sleeping("a daemon") as one:
        found = process_of(one.pid)
        assert found == Process(one.pid, os.getpid(), frozenset({os.getuid()}), found.program, "a daemon")
        assert found.program.endswith("/a daemon")
        assert found.name == "a daemon"
    assert process_of(one.pid) is None


def test_when_it_started_whoever_runs_between_two_clocks(monkeypatch):
    clock, waits = time.time, iter([0.3])

    def read():
        time.sleep(next(waits, 0))  # another process has the processor
        return clock()

    with sleeping() as one:
        right = processes.started(one.pid)
        assert abs(clock() - right) < 30
        monkeypatch.setattr(processes.time, "time", read)
        assert processes.started(one.pid) == pytest.approx(right, abs=0.1)


@needs_root
def test_whose_it_is():
    with sleeping(uid=UID) as one:
        assert process_of(one.pid).uids == {UID}


def test_a_program_that_an_update_replaced():
    with sleeping("daemon") as one:
        program = process_of(one.pid).program
        os.unlink(program)
        assert process_of(one.pid).program == program


def test_a_name_cannot_forge_a_line(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/status").write_text("Name:\tx\\nUid:\t0\\nPPid:\t1\nPPid:\t5\nUid:\t7\t8\t7\t7\n")
    assert process_of(7, str(tmp_path)) == Process(7, 5, frozenset({7, 8}), "", "x\\nUid:\t0\\nPPid:\t1")


@pytest.mark.parametrize(
    "text", ["", "\n", "1\n", "0", "-5", "1e3", "7 8", "\u0667", f"{(1 << 22) + 1}", "9" * 64, "7" + " " * 64]
)
def test_what_is_no_number_of_a_process(tmp_path, text):
    (tmp_path / "pid").write_text(text)
    with pytest.raises(ValueError, match="does not hold the number of a process"):
        number_in(str(tmp_path / "pid"))


@pytest.mark.parametrize("text", ["4711", "4711\n", " 4711 \n", " " * 28 + "4711\n"])
def test_the_number_in_a_pid_file(tmp_path, text):
    (tmp_path / "pid").write_text(text)
    assert number_in(str(tmp_path / "pid")) == 4711


@needs_root
def test_the_number_in_a_directory_of_somebody_else(tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    give_away(place)
    (place / "pid").write_text("4711\n")  # root's, as Exim writes it
    assert number_in(str(place / "pid")) == 4711
    (tmp_path / "secret").write_text("4712\n")
    (place / "link").symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", place / "name")
    for other in ("link", "name"):
        with pytest.raises((EngineError, OSError)):
            number_in(str(place / other))
    os.mkfifo(place / "pipe")
    with at_most(10), pytest.raises(ValueError, match="is not a file"):
        number_in(str(place / "pipe"))


@pytest.mark.parametrize("old_kernel", [False, True])
def test_a_signal_goes_to_the_right_process_only(monkeypatch, old_kernel):
    if old_kernel:
        monkeypatch.setattr(os, "pidfd_open", lambda _pid: (_ for _ in ()).throw(OSError(errno.ENOSYS, "no")))
    with sleeping("daemon") as one:
        with pytest.raises(ProcessLookupError):
            send_signal(one.pid, signal.SIGTERM, lambda process: process.name == "other")
        assert one.poll() is None
        send_signal(one.pid, signal.SIGTERM, lambda process: process.name == "daemon")
        assert one.wait(10) == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        send_signal(one.pid, signal.SIGTERM, lambda _process: True)


def test_a_number_that_is_another_process_now_gets_no_signal(monkeypatch):
    """It ended after it was looked at; what has its number since is not signalled."""
    with sleeping("daemon") as one:
        looked_at = process_of(one.pid)
        one.kill()
        one.wait()
        monkeypatch.setattr(processes, "process_of", lambda _pid: looked_at)
        with pytest.raises(ProcessLookupError):
            send_signal(one.pid, signal.SIGTERM, lambda process: process == looked_at)
