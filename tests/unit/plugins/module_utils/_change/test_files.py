import contextlib
import dataclasses
import fcntl
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import files as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import process
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import (
    Change,
    Transaction,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Stopped, postponed, stoppable
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.alarm import at_most

OLD = b"tls = none\npassword = hunter2\nlast = 1\n"
NEW = b"tls = may\npassword = hunter2\nlast = 1\n"
ME = {"uid": os.getuid(), "gid": os.getgid()}
OTHER = 12345
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")


class FakeDaemon:
    """Notes what is asked of it and how the file looked; fails, or is sent signals, where it is told to."""

    name = "fakemail"
    reads_files_unasked = True

    def __init__(self, config):
        self.config = config
        self.calls = []
        self.failures = {}
        self.signals = {}
        self.went_on = []

    def _call(self, what):
        self.calls.append((what, self.config.read_bytes() if self.config.exists() else None))
        tell(*self.signals.get(what, ()))
        self.went_on.append(what)
        error = self.failures.pop(what, None)
        if error:
            raise error

    def check(self):
        self._call("check")

    def reload(self):
        self._call("reload")

    def resume(self):
        self._call("resume")

    def prove(self):
        self._call("prove")

    def prove_old(self):
        self._call("prove_old")


class Host:
    """One daemon, its file, and the store of its transactions."""

    def __init__(self, directory, made=False):
        self.directory = directory
        self.config = directory / "main.cf"
        if not made:
            self.config.write_bytes(OLD)
            self.config.chmod(0o640)
        self.store = directory / "store"
        self.journal = self.store / "fakemail.journal"
        self.daemon = FakeDaemon(self.config)

    def image(self, content=NEW, mode=0o640, path=None, **owner):
        return FileImage(str(path or self.config), content, mode, **{**ME, **owner})

    def transaction(self):
        return Transaction(self.daemon, str(self.store))

    def apply(self, *images, reload=False):
        change = Change.of(images or [self.image()], reload)
        with self.transaction().locked() as transaction:
            transaction.apply(change, self.daemon.prove, self.daemon.prove_old)

    def recover(self):
        with self.transaction().locked() as transaction:
            return transaction.recover()

    def die_in(self, what, *images):
        """Make the change in a process that is killed at that point."""
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                setattr(self.daemon, what, lambda: os._exit(9))
                self.apply(*images)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert self.journal.exists()


@pytest.fixture
def host(tmp_path):
    before = os.umask(0o022)
    yield Host(tmp_path)
    os.umask(before)


# Success


def test_a_change_is_written_checked_reloaded_proved_and_forgotten(host):
    host.apply()
    assert host.daemon.calls == [("check", NEW), ("reload", NEW), ("prove", NEW)]
    assert host.config.read_bytes() == NEW
    assert not host.journal.exists()
    assert sorted(one.name for one in host.directory.iterdir()) == ["main.cf", "store"]


def test_the_journal_is_there_while_the_change_is_made_and_nobody_else_may_read_it(host):
    seen = {}

    def look():
        seen["mode"] = stat.S_IMODE(host.journal.stat().st_mode)
        seen["store"] = stat.S_IMODE(host.store.stat().st_mode)
        seen["interrupted"] = host.transaction().interrupted

    host.daemon.prove = look
    host.apply()
    assert seen == {"mode": 0o600, "store": 0o700, "interrupted": True}
    assert not host.transaction().interrupted


def test_files_look_settled_to_a_daemon_that_waits_for_that(host):
    host.apply()
    assert host.config.stat().st_mtime < time.time() - 2


def test_a_reload_alone_is_checked_too(host):
    host.apply(host.image(OLD), reload=True)
    assert host.daemon.calls == [("check", OLD), ("reload", OLD), ("prove", OLD)]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_several_files_and_their_directories(host, umask):
    os.umask(umask)  # the fixture puts it back
    deep = host.directory / "a" / "b" / "c.cf"
    host.apply(host.image(), host.image(b"x\n", 0o600, deep), host.image(b"y\n", 0o644, host.directory / "a" / "d"))
    assert deep.read_bytes() == b"x\n"
    for directory in (deep.parent, deep.parent.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    assert stat.S_IMODE((host.directory / "a" / "d").stat().st_mode) == 0o644
    assert stat.S_IMODE(deep.stat().st_mode) == 0o600


def test_a_file_can_be_removed(host):
    host.apply(host.image(None))
    assert not host.config.exists()
    assert host.daemon.calls[0] == ("check", None)


# Failure


@pytest.mark.parametrize(
    ("where", "calls"),
    [
        ("check", ["check", "resume", "prove_old"]),
        ("reload", ["check", "reload", "resume", "prove_old"]),
        ("prove", ["check", "reload", "prove", "resume", "prove_old"]),
    ],
)
@pytest.mark.parametrize("error", [EngineError("no good"), OSError(28, "No space left on device"), ValueError("bug")])
def test_a_failure_restores_the_former_state(host, where, calls, error):
    host.daemon.failures[where] = error
    with pytest.raises(TransactionError) as caught:
        host.apply()
    assert caught.value.restored is True
    assert isinstance(caught.value, EngineError)
    reason = repr(error) if isinstance(error, ValueError) else str(error)
    assert str(caught.value) == f"{reason}. The former state is restored and proved"
    assert caught.value.__cause__ is error
    assert [what for what, _content in host.daemon.calls] == calls
    assert host.daemon.calls[-1] == ("prove_old", OLD)
    assert host.config.read_bytes() == OLD
    assert stat.S_IMODE(host.config.stat().st_mode) == 0o640
    assert not host.journal.exists()


@pytest.mark.parametrize(
    ("where", "calls"),
    [
        ("check", ["check", "prove_old"]),
        ("reload", ["check", "reload", "resume", "prove_old"]),
        ("prove", ["check", "reload", "prove", "resume", "prove_old"]),
    ],
)
def test_a_daemon_that_reads_its_files_only_when_told_is_left_alone_until_it_was_told(host, where, calls):
    host.daemon.reads_files_unasked = False
    host.daemon.failures[where] = EngineError("no good")
    with pytest.raises(TransactionError) as caught:
        host.apply()
    assert caught.value.restored is True
    assert [what for what, _content in host.daemon.calls] == calls
    assert host.config.read_bytes() == OLD


@pytest.mark.parametrize("unasked", [True, False])
def test_so_it_is_when_a_file_cannot_be_written(host, unasked):
    """Nothing has changed, so there is nothing to restore."""
    host.daemon.reads_files_unasked = unasked
    change = Change.of([host.image(), host.image(b"x", path="/proc/no-such-place/new.cf")])
    with host.transaction().locked() as transaction, pytest.raises(EngineError) as caught:
        transaction.apply(change, host.daemon.prove, host.daemon.prove_old)
    assert not isinstance(caught.value, TransactionError)
    assert host.daemon.calls == []
    assert_old(host)


@pytest.mark.parametrize("unasked", [True, False])
@pytest.mark.parametrize("where", ["check", "reload", "prove"])
def test_after_a_killed_run_the_daemon_is_told_in_any_case(host, unasked, where):
    """What the killed run had already told it is not known."""
    host.daemon.reads_files_unasked = unasked
    host.die_in(where)
    assert host.recover() is True
    assert host.daemon.calls == [("resume", OLD)]


@pytest.mark.parametrize("unasked", [True, False])
def test_a_change_that_succeeds_is_told_the_same_way(host, unasked):
    host.daemon.reads_files_unasked = unasked
    host.apply()
    assert [what for what, _content in host.daemon.calls] == ["check", "reload", "prove"]


def keep(host, error=None):
    """Apply a change during which the daemon's own tools write a second file, and fail after that."""
    table = host.directory / "table.db"
    table.write_bytes(b"old table")
    table.chmod(0o600)

    def rebuild():
        table.write_bytes(b"new table")
        table.chmod(0o644)

    host.daemon.reload = rebuild
    host.daemon.failures["prove"] = error
    change = dataclasses.replace(Change.of([host.image()]), kept=(FileImage.read(str(table)),))
    assert "table" not in str(change.diff())
    with host.transaction().locked() as transaction:
        transaction.apply(change, host.daemon.prove, host.daemon.prove_old)


def test_a_file_that_the_daemons_tools_wrote_is_restored_too(host):
    with pytest.raises(TransactionError) as caught:
        keep(host, EngineError("no good"))
    assert caught.value.restored is True
    table = host.directory / "table.db"
    assert (table.read_bytes(), stat.S_IMODE(table.stat().st_mode)) == (b"old table", 0o600)
    assert host.config.read_bytes() == OLD


def test_a_file_that_the_daemons_tools_wrote_stays_after_success(host):
    keep(host)
    assert (host.directory / "table.db").read_bytes() == b"new table"


def test_a_killed_run_is_undone_whatever_the_daemons_tools_had_written(host):
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            host.daemon.prove = lambda: os._exit(9)
            keep(host)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    table = host.directory / "table.db"
    assert table.read_bytes() == b"new table"
    table.write_bytes(b"and written again since")
    assert host.recover() is True
    assert (table.read_bytes(), host.config.read_bytes()) == (b"old table", OLD)


def test_a_failure_restores_mode_and_removes_what_was_made(host):
    host.config.chmod(0o600)
    made = host.directory / "tls" / "deep" / "new.cf"
    host.daemon.failures["prove"] = EngineError("no good")
    with pytest.raises(TransactionError):
        host.apply(host.image(mode=0o644), host.image(b"x", path=made))
    assert stat.S_IMODE(host.config.stat().st_mode) == 0o600
    assert not (host.directory / "tls").exists()


@as_root
def test_a_failure_restores_the_owner(host):
    os.chown(host.config, OTHER, OTHER + 1)
    host.daemon.failures["check"] = EngineError("no good")
    with pytest.raises(TransactionError):
        host.apply()
    status = host.config.stat()
    assert (status.st_uid, status.st_gid) == (OTHER, OTHER + 1)


def test_a_failure_brings_a_removed_file_back(host):
    host.daemon.failures["reload"] = EngineError("no good")
    with pytest.raises(TransactionError):
        host.apply(host.image(None))
    assert host.config.read_bytes() == OLD


def test_a_directory_that_was_filled_in_the_meantime_stays(host):
    made = host.directory / "tls" / "new.cf"

    def check():
        (made.parent / "of-somebody-else").touch()
        raise EngineError("no good")

    host.daemon.check = check
    with pytest.raises(TransactionError) as caught:
        host.apply(host.image(b"x", path=made))
    assert caught.value.restored
    assert [one.name for one in made.parent.iterdir()] == ["of-somebody-else"]


def test_a_directory_that_cannot_be_made_changes_nothing(host):
    change = Change.of([host.image(), host.image(b"x", path="/proc/no-such-place/new.cf")])
    with host.transaction().locked() as transaction, pytest.raises(EngineError) as caught:
        transaction.apply(change, host.daemon.prove, host.daemon.prove_old)
    assert "/proc/no-such-place" in str(caught.value) and "nothing was changed" in str(caught.value)
    assert sorted(one.name for one in host.directory.iterdir()) == ["main.cf", "store"]
    assert host.config.read_bytes() == OLD


def fail_with_a_directory_in_the_way(host):
    """Both files are written, but the place of the second is taken by a directory when they are to come back."""
    blocked = host.directory / "new.cf"
    blocked.write_bytes(b"before")
    change = Change.of([host.image(), host.image(b"x", path=blocked)])

    def check():
        blocked.unlink()
        blocked.mkdir()
        raise EngineError("no good")

    host.daemon.check = check
    with host.transaction().locked() as transaction, pytest.raises(TransactionError) as caught:
        transaction.apply(change, host.daemon.prove, host.daemon.prove_old)
    return caught.value


def test_a_file_that_can_neither_be_written_nor_restored_is_named(host):
    error = fail_with_a_directory_in_the_way(host)
    assert error.restored is False
    assert str(host.directory / "new.cf") in str(error) and str(host.journal) in str(error)


def test_one_file_that_cannot_be_restored_does_not_keep_the_others_changed(host):
    fail_with_a_directory_in_the_way(host)
    assert host.config.read_bytes() == OLD
    assert ("resume", OLD) in host.daemon.calls


def test_a_journal_that_cannot_be_written_changes_nothing(host):
    with host.transaction().locked() as transaction:
        host.journal.mkdir()  # stands for a full disk
        with pytest.raises((OSError, EngineError)):
            transaction.apply(Change.of([host.image()]), host.daemon.prove, host.daemon.prove_old)
    assert host.config.read_bytes() == OLD
    assert host.daemon.calls == []


@pytest.mark.parametrize("where", ["resume", "prove_old"])
def test_when_going_back_fails_the_journal_stays_and_the_error_says_where(host, where):
    host.daemon.failures["check"] = EngineError("the check refuses it")
    host.daemon.failures[where] = EngineError("nobody answers")
    with pytest.raises(TransactionError) as caught:
        host.apply()
    assert caught.value.restored is False
    assert str(caught.value) == (
        "the check refuses it. The rollback failed as well: nobody answers. The former files are in "
        f"{host.journal}; run again to restore them"
    )
    assert host.recover() is True
    assert host.config.read_bytes() == OLD
    assert not host.journal.exists()


@pytest.mark.parametrize("where", ["check", "reload", "prove"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_restores_and_goes_on(host, where, kind):
    host.daemon.failures[where] = kind()
    with pytest.raises(kind):
        host.apply()
    assert host.config.read_bytes() == OLD
    assert host.daemon.calls[-1] == ("prove_old", OLD)
    assert not host.journal.exists()


def test_a_second_interrupt_during_the_restoring_leaves_the_journal(host):
    host.daemon.failures["prove"] = KeyboardInterrupt()
    host.daemon.failures["prove_old"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        host.apply()
    assert host.recover() is True


# Signals

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def tell(*signals):
    for number in signals:
        os.kill(os.getpid(), number)


def tell_in(monkeypatch, step, number, path, content):
    """Send a signal in this step of FileImage for the path, if it is this content that is written."""
    real = getattr(FileImage, step)

    def write(image, *arguments, **options):
        if image.path == str(path) and content(image.content):
            tell(number)
        return real(image, *arguments, **options)

    monkeypatch.setattr(FileImage, step, write)


def stopped(host, number, reason="", cause=Stopped):
    with pytest.raises(TransactionError) as caught:
        host.apply()
    assert str(caught.value) == f"{reason or f'stopped by {number.name}'}. The former state is restored and proved"
    assert caught.value.restored is True
    assert isinstance(caught.value.__cause__, cause)
    assert host.daemon.calls[-1] == ("prove_old", OLD)
    assert_old(host)


def assert_old(host):
    assert host.config.read_bytes() == OLD
    assert not host.journal.exists()


@pytest.mark.parametrize("unasked", [True, False])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize(
    ("where", "calls"),
    [
        ("check", ["check", "resume", "prove_old"]),
        ("reload", ["check", "reload", "resume", "prove_old"]),
        ("prove", ["check", "reload", "prove", "resume", "prove_old"]),
    ],
)
def test_a_signal_restores_at_once(host, late, where, number, calls, unasked):
    host.daemon.reads_files_unasked = unasked
    host.daemon.signals[where] = [number]
    stopped(host, number)
    if where == "check" and not unasked:
        calls = ["check", "prove_old"]
    assert [what for what, _content in host.daemon.calls] == calls
    assert where not in host.daemon.went_on
    assert late == []


@pytest.mark.parametrize("where", ["check", "reload", "prove"])
def test_ctrl_c_restores_at_once_and_is_passed_on(host, late, where):
    host.daemon.signals[where] = [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        host.apply()
    assert host.daemon.calls[-1] == ("prove_old", OLD)
    assert where not in host.daemon.went_on
    assert_old(host)
    assert late == []


@pytest.mark.parametrize("first", ENDING)
@pytest.mark.parametrize("second", ENDING)
@pytest.mark.parametrize("where", ["resume", "prove_old"])
def test_a_second_signal_does_not_cut_the_restoring_off(host, late, first, second, where):
    host.daemon.signals = {"prove": [first], where: [second, first, second]}
    with pytest.raises((TransactionError, KeyboardInterrupt)) as caught:
        host.apply()
    assert isinstance(caught.value, KeyboardInterrupt) == (first == signal.SIGINT)
    assert where in host.daemon.went_on
    assert_old(host)
    assert late == []  # this run has failed and ends anyway


def test_two_signals_at_once_count_once(host, late):

    def reload():
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            tell(*ENDING)  # other threads, which former tests may have left, can take them all the same
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    host.daemon.reload = reload
    with pytest.raises((TransactionError, KeyboardInterrupt)):
        host.apply()
    assert host.daemon.calls[-1] == ("prove_old", OLD)
    assert_old(host)
    assert late == []


@pytest.mark.parametrize("error", [EngineError("no good"), OSError("no good")])
def test_a_signal_while_a_failure_is_undone_changes_nothing_about_it(host, late, error):
    host.daemon.failures["check"] = error
    host.daemon.signals["resume"] = [signal.SIGTERM]
    stopped(host, signal.SIGTERM, "no good", type(error))
    assert late == []


def test_programs_that_restore_do_not_hear_what_a_terminal_sends_to_all(host, late):
    """It sends SIGHUP, or Ctrl-C, to its whole foreground, and often more than once."""
    seen = []

    def run(script):
        seen.append(subprocess.run(["sh", "-c", script], check=False).returncode)

    host.daemon.reload = lambda: run("kill -HUP $$; exit 7")
    host.daemon.signals["prove"] = [signal.SIGHUP]
    host.daemon.resume = lambda: [run(f"kill -{name} $$; exit 7") for name in ("HUP", "INT", "TERM")]
    stopped(host, signal.SIGHUP)
    assert seen == [-signal.SIGHUP, 7, 7, -signal.SIGTERM]


def test_a_signal_that_was_ignored_stays_ignored(host, late):
    note = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        host.daemon.signals = {"check": [signal.SIGHUP], "prove": [signal.SIGHUP]}
        host.daemon.reload = lambda: host.daemon.calls.append(("reload", signal.getsignal(signal.SIGHUP)))
        host.apply()
        assert ("reload", signal.SIG_IGN) in host.daemon.calls
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert host.config.read_bytes() == NEW

        host.config.write_bytes(OLD)
        host.daemon.signals["prove"] = [signal.SIGTERM]
        stopped(host, signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, note)


def test_outside_the_main_thread_there_are_no_handlers(host, late):
    seen = []
    host.daemon.reload = lambda: seen.append([signal.getsignal(number) for number in ENDING])
    before = [signal.getsignal(number) for number in ENDING]
    failures = []

    def change():
        try:
            host.apply()
            host.daemon.failures["prove"] = EngineError("no good")
            with pytest.raises(TransactionError):
                host.apply(host.image(b"x"))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    thread.join(20)
    assert (failures, seen) == ([], [before, before])
    assert host.config.read_bytes() == NEW


def test_a_thread_leaves_the_signals_of_a_change_alone(host, late):
    """It starts a program, for instance, while the main thread makes a change."""
    seen = []

    def elsewhere():
        with postponed():
            seen.append(process._under_way[-1].obeys)

    def reload():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    host.daemon.reload = reload
    host.apply()
    assert seen == [True]


def test_a_signal_while_the_journal_is_written_comes_to_nothing(host, late, monkeypatch):
    tell_in(monkeypatch, "_dress", signal.SIGTERM, host.journal, lambda content: content is not None)
    written = []
    tell_in(monkeypatch, "write", signal.SIGTERM, host.config, written.append)
    stopped(host, signal.SIGTERM)
    assert written == []
    assert [what for what, _content in host.daemon.calls] == ["resume", "prove_old"]
    assert late == []


def test_a_signal_while_a_file_is_written_waits_until_it_is(host, late, monkeypatch):
    made = host.directory / "made" / "new.cf"
    tell_in(monkeypatch, "_dress", signal.SIGHUP, host.config, lambda content: content == NEW)
    with pytest.raises(TransactionError, match="stopped by SIGHUP"):
        host.apply(host.image(), host.image(b"x", path=made))
    assert [what for what, _content in host.daemon.calls] == ["resume", "prove_old"]
    assert sorted(one.name for one in host.directory.iterdir()) == ["main.cf", "store"]
    assert_old(host)
    assert late == []


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_after_the_proof_comes_too_late_and_takes_effect_after_the_change(host, late, monkeypatch, number):
    real = Path.replace

    def move(path, target):
        if path == host.journal:
            tell(number)
            assert late == []
        return real(path, target)

    monkeypatch.setattr(Path, "replace", move)
    host.apply()
    assert late == [number]
    assert host.config.read_bytes() == NEW
    assert not host.journal.exists()


def test_a_signal_that_was_lost_on_the_way_is_found_at_the_end(host, late):
    """What is raised within a finalizer is printed and dropped."""

    def reload():
        with contextlib.suppress(Stopped):
            tell(signal.SIGTERM)

    host.daemon.reload = reload
    stopped(host, signal.SIGTERM)
    assert host.daemon.calls[-3] == ("prove", NEW)


def test_a_signal_and_a_restoring_that_fails(host, late):
    host.daemon.signals["prove"] = [signal.SIGTERM]
    host.daemon.failures["prove_old"] = EngineError("nobody answers")
    with pytest.raises(
        TransactionError, match=r"^stopped by SIGTERM\. The rollback failed as well: nobody answers\. "
    ) as caught:
        host.apply()
    assert caught.value.restored is False
    assert host.recover() is True
    assert_old(host)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_does_not_cut_off_the_recovery_from_a_killed_run(host, late, number):
    host.die_in("prove")
    there = []
    real = host.daemon.resume
    host.daemon.resume = lambda: (tell(number), there.append(late.copy()), real())
    assert host.recover() is True
    assert (there, host.daemon.calls) == ([[]], [("resume", OLD)])
    assert_old(host)
    assert late == [number]


def test_former_handlers_come_back_after_any_end(host, late):
    """The fixture looks whether they do."""
    host.apply()
    host.daemon.failures["check"] = EngineError("no good")
    with pytest.raises(TransactionError):
        host.apply(host.image(OLD))
    with host.transaction().locked() as transaction:
        host.journal.mkdir()
        with pytest.raises(OSError):
            transaction.apply(Change.of([host.image(OLD)]), host.daemon.prove, host.daemon.prove_old)
    assert process._under_way == []


def test_a_handler_that_python_did_not_install_is_left_alone(monkeypatch, late):
    monkeypatch.setattr(signal, "getsignal", lambda _number: None)
    installed = []
    monkeypatch.setattr(signal, "signal", lambda *arguments: installed.append(arguments))
    with stoppable():
        pass
    assert installed == []
    monkeypatch.undo()


def test_what_is_postponed_is_not_cut_in_two(late):
    order = []
    with pytest.raises(Stopped, match="stopped by SIGTERM"), stoppable() as stop, stop.obeyed():
        with postponed():
            tell(signal.SIGTERM)
            order.append("whole")
        order.append("more")
    assert order == ["whole"]
    with pytest.raises(Stopped), stoppable() as stop, stop.obeyed(), postponed() as go_on:
        tell(signal.SIGTERM)
        order.append("begun")
        go_on()
        order.append("more")
    assert order == ["whole", "begun"]
    with pytest.raises(Stopped), stoppable() as stop, stop.obeyed(), postponed() as go_on:
        go_on()
        tell(signal.SIGTERM)
        order.append("more")
    assert order == ["whole", "begun"]
    assert late == []


def test_what_is_postponed_and_fails_is_stopped(late):
    with pytest.raises(Stopped) as caught, stoppable() as stop, stop.obeyed(), postponed():
        tell(signal.SIGTERM)
        raise OSError("no such program")
    assert isinstance(caught.value.__context__, OSError)


def test_without_a_change_nothing_is_postponed(late):
    with postponed() as go_on:
        tell(signal.SIGTERM)
        assert late == [signal.SIGTERM]
        go_on()


def test_where_no_signal_is_obeyed_nothing_that_was_postponed_makes_it_so(late):
    with stoppable() as stop:
        with postponed() as go_on:
            go_on()
            tell(signal.SIGTERM)
        assert not stop.obeys
    assert late == [signal.SIGTERM]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_a_signal_at_any_moment(host, late, monkeypatch, every):
    """At each line that a change runs through: it is made or undone, and the signal is heeded once.

    A line that is run through often is tried the first and the last time, or every time.
    """
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # it is done a thousand times
    ends = []
    for moment in [*(range(100_000) if every else first_and_last(lines_of_a_change(host))), 1_000_000]:
        host.config.write_bytes(OLD)
        host.daemon.calls.clear()
        how = at_the_line(moment, host)
        state = host.config.read_bytes()
        assert not host.journal.exists()
        assert [one.name for one in host.directory.iterdir() if one.name.startswith(".")] == []
        if how == "restored":
            assert (state, late, host.daemon.calls[-1]) == (OLD, [], ("prove_old", OLD))
        elif how == "made":
            assert (state, late, host.daemon.calls[-1]) == (NEW, [signal.SIGTERM], ("prove", NEW))
        else:
            assert (state, late) == (NEW, [])
            break
        ends.append(how)
        late.clear()
    assert (ends[0], ends[-1]) == ("made", "made")  # before the change, and after it
    assert ends.count("restored") > 100


def lines_of_a_change(host):
    """The lines that a change runs through, in order; what the first change alone does, as compiling a pattern, is left out."""
    for _ in range(2):
        lines = []

        def trace(frame, event, _argument):
            if event == "line":
                lines.append((frame.f_code.co_filename, frame.f_lineno))  # noqa: B023
            return trace

        host.config.write_bytes(OLD)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            host.apply()
        finally:
            sys.settrace(before)
    return lines


def first_and_last(lines):
    """The places in the list at which a line stands the first and the last time."""
    first = {line: place for place, line in reversed(list(enumerate(lines)))}
    last = {line: place for place, line in enumerate(lines)}
    return sorted({*first.values(), *last.values()})


def at_the_line(moment, host):
    """Make the change and send a signal at that line of it: how it ended."""
    left = moment

    def trace(_frame, event, _argument):
        nonlocal left
        if event == "line":
            left -= 1
            if left == -1:
                sys.settrace(None)
                tell(signal.SIGTERM)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        host.apply()
    except TransactionError as error:
        assert str(error) == "stopped by SIGTERM. The former state is restored and proved"
        return "restored"
    finally:
        sys.settrace(before)
    return "made" if left < 0 else "not reached"


CHILD = """
import json, os, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from tests.unit.plugins.module_utils._change.test_files import Host
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import TransactionError

host, outcome = Host(Path(sys.argv[2]), made=True), Path(sys.argv[3])

def wait():
    outcome.with_name("waiting").touch()
    time.sleep(60)

setattr(host.daemon, sys.argv[4], wait)
try:
    host.apply()
except TransactionError as error:
    outcome.write_text(json.dumps([str(error), error.restored, host.daemon.calls[-1][0]]))
    print(str(error), flush=True)
    print(str(error), file=sys.stderr, flush=True)
"""


def start(host, tmp_path, where, **options):
    """A process of its own that makes the change and waits for ever in one of its steps."""
    waiting = tmp_path / "waiting"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(sys.path), str(host.directory), str(tmp_path / "outcome"), where],
        cwd=ROOT,
        **options,
    )
    deadline = time.monotonic() + 30
    while not waiting.exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    assert (host.config.read_bytes(), host.journal.exists()) == (NEW, True)
    return child


ROOT = Path(__file__).resolve().parents[5]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("where", ["check", "reload", "prove"])
def test_a_process_that_is_told_to_end_restores_first(host, tmp_path, where, number):
    child = start(host, tmp_path, where, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child.send_signal(number)
    with at_most(30):
        out, _err = child.communicate()
    error = f"stopped by {number.name}. The former state is restored and proved"
    assert (out.decode(), child.returncode) == (f"{error}\n", 0)
    assert json.loads((tmp_path / "outcome").read_text()) == [error, True, "prove_old"]
    assert_old(host)
    assert host.recover() is False


def test_a_terminal_that_is_closed(host, tmp_path):
    """What is said afterwards reaches nobody, which comes after all that counts."""
    ours, theirs = pty.openpty()
    child = start(
        host, tmp_path, "prove", stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    with at_most(30):
        assert child.wait() != 0  # print() has failed
    error = "stopped by SIGHUP. The former state is restored and proved"
    assert json.loads((tmp_path / "outcome").read_text()) == [error, True, "prove_old"]
    assert_old(host)


# Killed runs


@pytest.mark.parametrize("where", ["check", "reload", "prove"])
def test_what_a_killed_run_left_is_undone_by_the_next(host, where):
    made = host.directory / "tls" / "new.cf"
    host.die_in(where, host.image(mode=0o600), host.image(b"x", path=made))
    assert (host.config.read_bytes(), made.read_bytes()) == (NEW, b"x")
    assert host.transaction().interrupted

    assert host.recover() is True
    assert host.config.read_bytes() == OLD
    assert stat.S_IMODE(host.config.stat().st_mode) == 0o640
    assert not made.parent.exists()
    assert host.daemon.calls == [("resume", OLD)]
    assert host.recover() is False


def test_a_run_killed_before_it_wrote_everything_is_undone_too(host):
    made = host.directory / "new.cf"
    host.die_in("check", host.image(), host.image(b"x", path=made))
    made.unlink()  # as if it had come no further
    assert host.recover() is True
    assert host.config.read_bytes() == OLD and not made.exists()


def test_a_removal_that_was_killed_is_undone(host):
    host.die_in("reload", host.image(None))
    assert not host.config.exists()
    assert host.recover() is True
    assert host.config.read_bytes() == OLD


@as_root
def test_recovery_gives_the_file_back_to_its_owner(host):
    os.chown(host.config, OTHER, OTHER)
    host.die_in("prove")
    host.recover()
    assert host.config.stat().st_uid == OTHER


def test_binary_content_survives_the_journal(host):
    content = bytes(range(256)) * 3
    host.config.write_bytes(content)
    host.die_in("prove")
    host.recover()
    assert host.config.read_bytes() == content


@pytest.mark.parametrize("edit", [b"edited by hand\n", None])
def test_an_edit_made_since_is_kept_and_the_run_refused(host, edit):
    host.die_in("prove")
    if edit is None:
        host.config.unlink()
    else:
        host.config.write_bytes(edit)
    for _ in range(2):
        with pytest.raises(EngineError) as caught:
            host.recover()
        assert str(host.config) in str(caught.value) and str(host.journal) in str(caught.value)
        assert "edited since" in str(caught.value)
        assert (host.config.read_bytes() if host.config.exists() else None) == edit
    host.journal.unlink()
    assert host.recover() is False


def test_one_edited_file_keeps_all_of_them(host):
    other = host.directory / "other.cf"
    host.die_in("prove", host.image(), host.image(b"x", path=other))
    other.write_bytes(b"edited")
    with pytest.raises(EngineError, match=r"other\.cf has been edited since"):
        host.recover()
    assert host.config.read_bytes() == NEW
    assert host.daemon.calls == []


def test_an_administrator_who_already_put_the_old_file_back_is_no_obstacle(host):
    host.die_in("prove")
    host.config.write_bytes(OLD)
    assert host.recover() is True
    assert host.config.read_bytes() == OLD


GOOD_ENTRY = {"path": "/x", "content": None, "mode": 420, "uid": 0, "gid": 0, "after_sha256": "absent"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps({"files": [], "daemon": "fakemail"}),
        json.dumps({"files": [{"path": "/x"}], "directories": []}),
        json.dumps({"files": ["x"], "directories": []}),
        json.dumps({"files": 1, "directories": []}),
        json.dumps({"files": [], "directories": [], "format": "1"}),
        json.dumps({"files": [{**GOOD_ENTRY, "mode": None}], "directories": []}),
        json.dumps({"files": [{**GOOD_ENTRY, "content": "not base64"}], "directories": []}),
        json.dumps({"files": [{**GOOD_ENTRY, "content": 1}], "directories": []}),
        "\udcff",
    ],
)
def test_a_journal_that_cannot_be_read(host, text):
    host.store.mkdir()
    host.journal.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(EngineError) as caught:
        host.recover()
    assert str(host.journal) in str(caught.value) and "cannot be read" in str(caught.value)
    assert "fakemail" in str(caught.value)
    assert host.journal.exists()
    assert host.config.read_bytes() == OLD


def test_recovery_that_fails_can_be_tried_again(host):
    host.die_in("prove")
    host.daemon.failures["resume"] = EngineError("the daemon is down")
    with pytest.raises(EngineError, match="the daemon is down"):
        host.recover()
    assert host.transaction().interrupted
    assert host.recover() is True


def test_nothing_to_recover(host):
    assert host.recover() is False
    assert host.daemon.calls == []


def test_the_facts_of_a_journal(host):
    assert host.transaction().journal_facts() is None
    host.die_in("check", host.image(), host.image(b"x", path=host.directory / "new.cf"))
    facts = host.transaction().journal_facts()
    assert facts == {"path": str(host.journal), "files": [str(host.config), str(host.directory / "new.cf")]}
    for text in ("{", "[]", json.dumps({"format": module.JOURNAL_FORMAT + 1})):
        host.journal.write_text(text)
        assert host.transaction().journal_facts() == {"path": str(host.journal), "files": []}


# Journals of other versions

FORMATS = ROOT / "tests/unit/formats"


def put_left_over(host, name):
    """What a killed run of some version left: a kept journal, and the files as that run wrote them."""
    text = (FORMATS / name).read_text().replace("/etc/postfix", str(host.directory)).replace("postfix", "fakemail")
    host.store.mkdir()
    host.journal.write_text(text.replace('"uid": 0, "gid": 0', f'"uid": {ME["uid"]}, "gid": {ME["gid"]}'))
    (host.directory / "tls").mkdir()
    (host.directory / "tls/chain.cf").write_bytes(b"new\n")
    host.config.write_bytes(b"smtpd_tls_security_level = may\n")
    (host.directory / "generated").write_bytes(b"generated anew\n")


@pytest.mark.parametrize("number", range(module.JOURNAL_FORMAT + 1))
def test_a_killed_run_of_every_former_version_is_undone(host, number):
    put_left_over(host, f"journal_{number}.json")
    assert host.recover() is True
    assert host.config.read_bytes() == b"smtpd_tls_security_level = none\n"
    assert stat.S_IMODE(host.config.stat().st_mode) == 0o640
    assert (host.directory / "generated").read_bytes() == b"generated before\n"
    assert not (host.directory / "tls").exists()
    assert not host.journal.exists()


def test_a_kept_journal_has_the_shape_that_is_written_today(host):
    """A change of the shape needs a new format and a new file; the former files stay."""
    host.die_in("check", host.image(), host.image(b"x", path=host.directory / "tls" / "new.cf"))
    written, kept = (
        json.loads(path.read_text()) for path in (host.journal, FORMATS / f"journal_{module.JOURNAL_FORMAT}.json")
    )
    assert list(written) == list(kept)
    assert written["format"] == kept["format"] == module.JOURNAL_FORMAT
    assert {frozenset(entry) for entry in written["files"]} == {frozenset(entry) for entry in kept["files"][:2]}


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_journal_of_a_newer_version_is_refused_and_stays(host, check_mode):
    put_left_over(host, f"journal_{module.JOURNAL_FORMAT}.json")
    newer = {**json.loads(host.journal.read_text()), "format": module.JOURNAL_FORMAT + 1}
    host.journal.write_text(json.dumps(newer))
    before = host.config.read_bytes()
    with pytest.raises(EngineError) as caught, host.transaction().opened(check_mode):
        pytest.fail("the journal was passed over")
    assert str(caught.value) == (
        f"the journal {host.journal} of an interrupted run was written by a newer mailfleet.starttls "
        f"(format {module.JOURNAL_FORMAT + 1}; this one knows up to {module.JOURNAL_FORMAT}). "
        "Update the collection on the controller, then run again; this run changed nothing"
    )
    assert host.config.read_bytes() == before
    assert json.loads(host.journal.read_text()) == newer
    assert host.daemon.calls == []


def test_check_mode_says_that_a_journal_cannot_be_read(host):
    host.store.mkdir()
    host.journal.write_text("{")
    with pytest.raises(EngineError, match="cannot be read"), host.transaction().opened(check_mode=True):
        pytest.fail("the journal was passed over")


# The lock


def test_nothing_is_created_until_it_is_needed(host):
    assert not host.transaction().interrupted
    assert not host.store.exists()


def test_a_second_process_gets_a_clear_error(host):
    held, hold = os.pipe()
    done, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), host.transaction().locked():
            os.write(hold, b"x")
            os.read(done, 1)
        os._exit(0)
    try:
        os.read(held, 1)
        with pytest.raises(EngineError) as caught, at_most(10), host.transaction().locked(seconds=0.1):
            pytest.fail("both have the lock")
        assert str(caught.value) == (
            "another run has been changing fakemail on this host for more than 0.1 s; wait for it to end, then run again"
        )
    finally:
        os.write(release, b"x")
        os.waitpid(pid, 0)
        for descriptor in (held, hold, done, release):
            os.close(descriptor)
    with at_most(10), host.transaction().locked(seconds=0.1):
        pass


def test_a_second_run_waits_for_the_first(host):
    entered = threading.Event()
    order = []

    def second():
        with host.transaction().locked(seconds=10):
            order.append("second")
        entered.set()

    with host.transaction().locked():
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not entered.wait(0.1)
        order.append("first")
    assert entered.wait(10)
    waiting.join()
    assert order == ["first", "second"]


def test_a_killed_run_leaves_no_lock_behind(host):
    host.die_in("prove")
    with at_most(5):
        assert host.recover() is True


def test_the_lock_is_freed_after_a_failure(host):
    host.daemon.failures["check"] = EngineError("no good")
    with pytest.raises(TransactionError):
        host.apply()
    with at_most(5), host.transaction().locked(seconds=0):
        pass


def test_two_daemons_of_one_host_do_not_wait_for_each_other(host):
    other = FakeDaemon(host.config)
    other.name = "othermail"
    with host.transaction().locked(), at_most(5), Transaction(other, str(host.store)).locked(seconds=0):
        pass


# Changes


def test_unchanged_files_drop_out(host):
    absent = FileImage(str(host.directory / "absent"), None)
    change = Change.of([host.image(OLD), absent, host.image(b"x", path=host.directory / "new")])
    assert [image.path for image in change.after] == [str(host.directory / "new")]
    assert [image.content for image in change.before] == [None]


def test_no_change_is_false_and_a_reload_is_one(host):
    assert not Change.of([host.image(OLD)])
    assert not Change.of([])
    assert Change.of([host.image(OLD)], reload=True)
    assert Change.of([host.image(NEW)])
    assert Change.of([host.image(OLD, mode=0o600)])


def test_a_diff_shows_what_changes_and_no_other_line(host):
    (entry,) = Change.of([host.image()]).diff()
    assert set(entry) == {"prepared"}
    assert entry["prepared"] == (
        f"--- before: {host.config}\n+++ after: {host.config}\n-tls = none\n+tls = may\n"
    )  # fmt: skip
    assert "hunter2" not in str(entry)


def test_a_secret_between_two_changes_is_not_shown(host):
    (entry,) = Change.of([host.image(b"tls = may\npassword = hunter2\nlast = 2\n")]).diff()
    assert "-last = 1\n+last = 2\n" in entry["prepared"]
    assert "hunter2" not in entry["prepared"] and "@@" not in entry["prepared"]


def test_a_diff_of_a_new_file_and_of_a_removed_one(host):
    new = host.image(b"a\nb\n", path=host.directory / "new")
    first, second = Change.of([new, host.image(None)]).diff()
    assert first["prepared"] == f"--- before: (absent)\n+++ after: {new.path}\n+a\n+b\n"
    assert second["prepared"].startswith(f"--- before: {host.config}\n+++ after: (absent)\n-tls = none\n")


def test_a_diff_shows_a_change_of_mode_and_owner(host):
    (entry,) = Change.of([host.image(mode=0o600)]).diff()
    owner = f"owner {os.getuid()}:{os.getgid()}"
    assert entry["prepared"].endswith(f"-mode 0640 {owner}\n+mode 0600 {owner}\n")
    assert "hunter2" not in entry["prepared"]
    (entry,) = Change.of([host.image(gid=OTHER)]).diff()
    assert f"+mode 0640 owner {os.getuid()}:{OTHER}\n" in entry["prepared"]


def test_a_diff_of_the_mode_alone_names_the_file(host):
    (entry,) = Change.of([host.image(OLD, mode=0o600)]).diff()
    assert str(host.config) in entry["prepared"]


def test_a_diff_of_a_removed_file_gives_it_no_mode(host):
    (entry,) = Change.of([FileImage(str(host.config), None)]).diff()
    assert "+mode" not in entry["prepared"]


def test_an_absent_file_that_shall_be_absent_is_no_change(host):
    assert not Change.of([FileImage(str(host.directory / "absent"), None, 0o600, 1, 1)])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"one line without an end", b""])
def test_a_diff_of_any_content_is_text(host, content):
    for entry in Change.of([host.image(content)]).diff():
        assert entry["prepared"].encode()
        assert "hunter2" not in entry["prepared"]  # its line does change


# Two changes of one call


def pair(host, hold=False):
    """The first change, applied and proved, and the second one, planned after it. Both change main.cf."""
    first = Change.of([host.image(b"first\n", path=host.directory / "tls" / "one.cf"), host.image()])
    with host.transaction().locked() as transaction:
        transaction.apply(first, host.daemon.prove, host.daemon.prove_old, hold)
    host.daemon.calls.clear()
    second = Change.of([host.image(b"second\n", path=host.directory / "maps" / "two"), host.image(b"both\n")])
    return first, second


def test_the_second_change_alone_is_undone_alone(host):
    _first, second = pair(host)
    host.daemon.failures["prove"] = EngineError("no good")
    with host.transaction().locked() as transaction, pytest.raises(TransactionError):
        transaction.apply(second, host.daemon.prove, host.daemon.prove_old)
    assert host.config.read_bytes() == NEW


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("where", ["check", "reload", "prove"])
def test_a_second_change_that_follows_the_first_undoes_both(host, where, hold):
    first, second = pair(host, hold)
    host.daemon.failures[where] = EngineError("no good")
    with host.transaction().locked() as transaction, pytest.raises(TransactionError) as caught:
        transaction.apply(second.following(first), host.daemon.prove, host.daemon.prove_old)
    assert caught.value.restored is True
    assert host.daemon.calls[-1] == ("prove_old", OLD)
    assert sorted(one.name for one in host.directory.iterdir()) == ["main.cf", "store"]
    assert stat.S_IMODE(host.config.stat().st_mode) == 0o640


@pytest.mark.parametrize("hold", [False, True])
def test_success_of_both_leaves_both(host, hold):
    first, second = pair(host, hold)
    one = host.directory / "tls" / "one.cf"
    written = one.stat().st_ino
    with host.transaction().locked() as transaction:
        transaction.apply(second.following(first), host.daemon.prove, host.daemon.prove_old)
    assert (host.config.read_bytes(), (host.directory / "maps" / "two").read_bytes()) == (b"both\n", b"second\n")
    assert one.stat().st_ino == written  # not written again
    assert not host.journal.exists()
    assert list(host.directory.rglob(".*")) == []


def test_the_files_of_the_second_change_are_written_in_its_order(host):
    first, second = pair(host)
    merged = second.following(first)
    assert [Path(one.path).name for one in merged.after] == ["one.cf", "two", "main.cf"]
    assert [one.path for one in merged.before] == [one.path for one in merged.after]
    assert merged.before[2].content == OLD
    assert [one.content for one in merged.between] == [NEW]


def test_a_second_change_without_effect_undoes_nothing(host):
    first, _second = pair(host)
    nothing = Change.of([host.image()])
    assert nothing.following(first) == nothing
    assert not nothing.following(first)


def test_a_reload_alone_follows_as_well(host):
    first, _second = pair(host)
    host.daemon.failures["prove"] = EngineError("no good")
    with host.transaction().locked() as transaction, pytest.raises(TransactionError):
        transaction.apply(Change((), (), True).following(first), host.daemon.prove, host.daemon.prove_old)
    assert host.config.read_bytes() == OLD


@pytest.mark.parametrize("where", ["check", "reload", "prove"])
def test_a_killed_run_is_undone_as_a_whole(host, where):
    first, second = pair(host)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), host.transaction().locked() as transaction:
            setattr(host.daemon, where, lambda: os._exit(9))
            transaction.apply(second.following(first), host.daemon.prove, host.daemon.prove_old)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert host.recover() is True
    assert host.config.read_bytes() == OLD
    assert sorted(one.name for one in host.directory.iterdir()) == ["main.cf", "store"]


def test_so_is_one_that_was_killed_before_it_wrote_a_file_of_both(host):
    first, second = pair(host)
    host.config.write_bytes(b"both\n")
    with host.transaction().locked() as transaction:
        transaction._begin(second.following(first), [])
    host.config.write_bytes(NEW)
    host.config.chmod(0o640)
    assert host.recover() is True
    assert host.config.read_bytes() == OLD


def test_an_edit_since_is_still_kept(host):
    first, second = pair(host)
    with host.transaction().locked() as transaction:
        transaction._begin(second.following(first), [])
    host.config.write_bytes(b"of somebody else\n")
    with pytest.raises(EngineError, match="has been edited since"):
        host.recover()


def test_a_file_that_the_daemons_tools_write_comes_back_as_it_was_before_both(host):
    table = host.directory / "table.db"
    table.write_bytes(b"old table")
    count = []

    def rebuild():
        count.append(1)
        table.write_bytes(b"table %d" % len(count))

    host.daemon.reload = rebuild
    first = dataclasses.replace(Change.of([host.image()]), kept=(FileImage.read(str(table)),))
    with host.transaction().locked() as transaction:
        transaction.apply(first, host.daemon.prove, host.daemon.prove_old)
        second = dataclasses.replace(Change.of([host.image(b"both\n")]), kept=(FileImage.read(str(table)),))
        merged = second.following(first)
        assert [one.content for one in merged.kept] == [b"old table"]
        host.daemon.failures["prove"] = EngineError("no good")
        with pytest.raises(TransactionError):
            transaction.apply(merged, host.daemon.prove, host.daemon.prove_old)
    assert (table.read_bytes(), host.config.read_bytes()) == (b"old table", OLD)


def test_three_changes_follow_one_another(host):
    first, second = pair(host)
    with host.transaction().locked() as transaction:
        merged = second.following(first)
        transaction.apply(merged, host.daemon.prove, host.daemon.prove_old)
        third = Change.of([host.image(b"all\n")]).following(merged)
        assert [one.content for one in third.between] == [NEW, b"both\n"]
        host.daemon.failures["prove"] = EngineError("no good")
        with pytest.raises(TransactionError):
            transaction.apply(third, host.daemon.prove, host.daemon.prove_old)
    assert sorted(one.name for one in host.directory.iterdir()) == ["main.cf", "store"]
    assert host.config.read_bytes() == OLD


def test_a_change_that_is_held_is_taken_back(host):
    pair(host, hold=True)
    assert host.journal.exists()
    with host.transaction().locked() as transaction:
        transaction.take_back(host.daemon.prove_old, EngineError("no good"))
    assert [what for what, _content in host.daemon.calls] == ["resume", "prove_old"]
    assert sorted(one.name for one in host.directory.iterdir()) == ["main.cf", "store"]
    assert_old(host)


def test_a_change_that_is_held_stays_when_it_is_released(host):
    pair(host, hold=True)
    host.transaction().release()
    assert host.config.read_bytes() == NEW
    assert sorted(one.name for one in host.directory.iterdir()) == ["main.cf", "store", "tls"]
    assert [one.name for one in (host.directory / "tls").iterdir()] == ["one.cf"]
    assert not host.journal.exists()


@pytest.mark.parametrize("error", [EngineError("nobody answers"), OSError(5, "Input/output error")])
def test_a_change_that_is_held_and_cannot_be_taken_back(host, error):
    pair(host, hold=True)
    host.daemon.failures["prove_old"] = error
    with host.transaction().locked() as transaction, pytest.raises(TransactionError) as caught:
        transaction.take_back(host.daemon.prove_old, EngineError("no good"))
    assert caught.value.restored is False
    assert str(caught.value).startswith("no good. The rollback failed as well: ")
    assert host.recover() is True


def test_a_run_that_is_killed_between_two_changes_of_a_call_is_undone(host):
    pair(host, hold=True)
    assert host.recover() is True
    assert_old(host)


# What others write meanwhile


@pytest.mark.parametrize(
    "edit", [lambda path: path.write_bytes(OLD + b"by hand = 1\n"), Path.unlink, lambda path: path.chmod(0o600)]
)
def test_a_file_that_changed_since_it_was_read_refuses_the_change(host, edit):
    change = Change.of([host.image(), host.image(b"x", path=host.directory / "new.cf")])
    edit(host.config)
    now = FileImage.read(str(host.config))
    with (
        host.transaction().locked() as transaction,
        pytest.raises(EngineError, match=rf"{host.config} changed while .*nothing was changed; run again") as caught,
    ):
        transaction.apply(change, host.daemon.prove, host.daemon.prove_old)
    assert not isinstance(caught.value, TransactionError)
    assert FileImage.read(str(host.config)) == now
    assert not (host.directory / "new.cf").exists() and not host.journal.exists() and host.daemon.calls == []


def test_a_file_that_somebody_made_meanwhile_refuses_the_change(host):
    new = host.directory / "new.cf"
    change = Change.of([host.image(b"x", path=new)])
    new.write_bytes(b"theirs")
    with host.transaction().locked() as transaction, pytest.raises(EngineError, match="changed while"):
        transaction.apply(change, host.daemon.prove, host.daemon.prove_old)
    assert new.read_bytes() == b"theirs"


def test_a_kept_file_that_changed_refuses_the_change(host):
    generated = host.directory / "generated"
    generated.write_bytes(b"one")
    change = dataclasses.replace(Change.of([host.image()]), kept=(FileImage.read(str(generated)),))
    generated.write_bytes(b"two")
    with host.transaction().locked() as transaction, pytest.raises(EngineError, match="generated changed while"):
        transaction.apply(change, host.daemon.prove, host.daemon.prove_old)


def test_a_change_computed_from_a_file_that_changed_at_once_is_refused(host):
    """The new text was made from what was read before, so the edit would be lost."""
    wanted = dataclasses.replace(FileImage.read(str(host.config)), content=NEW)
    host.config.write_bytes(OLD + b"by hand = 1\n")
    with pytest.raises(EngineError, match=rf"{host.config} changed while"):
        Change.of([wanted])


def test_of_two_merged_changes_what_the_first_has_written_is_expected(host):
    other = host.directory / "other.cf"
    first = Change.of([host.image(), host.image(b"first", path=other)])
    with host.transaction().locked() as transaction:
        transaction.apply(first, host.daemon.prove, host.daemon.prove_old, hold=True)
        second = Change.of([host.image(NEW + b"more = 1\n")]).following(first)
        other.write_bytes(b"by hand")
        with pytest.raises(EngineError, match=rf"{other} changed while"):
            transaction.apply(second, host.daemon.prove, host.daemon.prove_old)
        with pytest.raises(TransactionError, match=rf"no good.*{other} has been edited since") as caught:
            transaction.take_back(host.daemon.prove_old, EngineError("no good"))
        assert caught.value.restored is False and other.read_bytes() == b"by hand"
        other.write_bytes(b"first")
        transaction.apply(second, host.daemon.prove, host.daemon.prove_old)
    assert host.config.read_bytes() == NEW + b"more = 1\n" and other.read_bytes() == b"first"
