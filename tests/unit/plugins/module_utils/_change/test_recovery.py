"""A daemon that has ended: in a change, and when the next run undoes a killed one."""

import contextlib
import json
import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    EngineError,
    NotRunningError,
    TransactionError,
)

OLD, NEW = b"old\n", b"new\n"


class Daemon:
    """A daemon that can end, and be started by its name. It notes what it was told, and the file that it read then."""

    name = "fakemail"
    reads_files_unasked = True

    def __init__(self, file):
        self.file = file
        self.runs = True
        self.stopped = False  # by somebody
        self.refuses = False  # to start
        self.calls = []
        self.reloaded = lambda: None

    def note(self, what):
        self.calls.append((what, self.file.read_bytes()))

    def check(self):
        pass

    def reload(self):
        self.note("reload")
        self.reloaded()

    def resume(self):
        self.note("resume")
        if not self.runs:
            raise EngineError("fakemail reload failed: the mail system is not running")

    def service(self):
        return "fakemail.service" if self.runs else ""

    def has_ended(self):
        return not self.runs

    def start(self, service):
        self.note(f"start {service}")
        if self.stopped:
            raise NotRunningError("fakemail is not running: somebody has stopped it; start it, then run again")
        if self.refuses:
            raise EngineError("fakemail does not start")
        self.runs = True

    def prove(self):
        self.note("prove")
        if not self.runs:
            raise EngineError("nobody answers")


class Host:
    def __init__(self, directory):
        self.file = directory / "main.cf"
        self.file.write_bytes(OLD)
        self.store = directory / "store"
        self.daemon = Daemon(self.file)

    @property
    def transaction(self):
        return Transaction(self.daemon, str(self.store))

    def apply(self):
        status = self.file.stat()
        image = FileImage(str(self.file), NEW, 0o644, status.st_uid, status.st_gid)
        with self.transaction.locked() as transaction:
            transaction.apply(Change.of([image]), self.daemon.prove, self.daemon.prove)

    def kill_in_the_middle(self):
        pid = os.fork()
        if not pid:
            self.daemon.reloaded = lambda: os._exit(9)
            with contextlib.suppress(BaseException):
                self.apply()
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert self.file.read_bytes() == NEW

    def recover(self):
        with self.transaction.opened(False, self.daemon.prove) as found:
            return found

    @property
    def is_restored(self):
        return self.file.read_bytes() == OLD and not list(self.store.glob("*.journal"))


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def end(host):
    host.daemon.runs = False


# In a change


@pytest.mark.parametrize("notices", ["reload", "proof"])
def test_a_daemon_that_a_reload_ends_is_started_with_the_former_files(host, notices):
    def reloaded():
        end(host)
        if notices == "reload":
            raise EngineError("it has ended")

    host.daemon.reloaded = reloaded
    with pytest.raises(TransactionError, match=r"The former state is restored and proved$") as caught:
        host.apply()
    assert caught.value.restored
    assert host.daemon.calls[-2:] == [("start fakemail.service", OLD), ("prove", OLD)]
    assert host.is_restored


def test_a_daemon_that_is_about_to_end_when_it_is_told(host):
    """It still runs when it is looked at, and has ended when it is told to use the former files."""
    looks = iter([False, True])
    host.daemon.has_ended = lambda: next(looks, True)
    host.daemon.reloaded = lambda: end(host)
    with pytest.raises(TransactionError) as caught:
        host.apply()
    assert [what for what, _content in host.daemon.calls] == [
        "reload",
        "prove",
        "resume",
        "start fakemail.service",
        "prove",
    ]
    assert caught.value.restored and host.is_restored


def test_a_daemon_that_does_not_start_leaves_the_journal(host):
    host.daemon.reloaded = lambda: end(host)
    host.daemon.refuses = True
    with pytest.raises(TransactionError, match=r"The rollback failed as well: fakemail does not start") as caught:
        host.apply()
    assert not caught.value.restored and host.file.read_bytes() == OLD
    host.daemon.refuses = False
    assert host.recover() == (True, [])
    assert host.is_restored and host.daemon.runs


# After a killed run


def test_a_daemon_that_still_runs_is_told_and_proved(host):
    host.kill_in_the_middle()
    assert host.recover() == (True, [])
    assert host.daemon.calls == [("resume", OLD), ("prove", OLD)]
    assert host.is_restored


def test_one_that_has_ended_is_started_by_the_name_that_it_had_before_the_change(host):
    host.kill_in_the_middle()
    end(host)
    assert host.recover() == (True, [])
    assert host.daemon.calls == [("start fakemail.service", OLD), ("prove", OLD)]
    assert host.is_restored


def test_one_that_somebody_has_stopped_stays_stopped_and_the_files_are_restored(host):
    host.kill_in_the_middle()
    end(host)
    host.daemon.stopped = True
    recovered, [warning] = host.recover()
    assert recovered and host.is_restored and not host.daemon.runs
    assert warning == (
        "the files that a killed run changed are restored, but fakemail is not running: somebody has stopped it; start it, "
        "then run again"
    )
    assert ("prove", OLD) not in host.daemon.calls


def test_one_that_does_not_start_can_be_tried_again(host):
    host.kill_in_the_middle()
    end(host)
    host.daemon.refuses = True
    with pytest.raises(EngineError, match="fakemail does not start"):
        host.recover()
    assert host.file.read_bytes() == OLD and host.transaction.interrupted
    host.daemon.refuses = False
    assert host.recover() == (True, []) and host.is_restored


def test_one_that_starts_and_does_not_answer_is_an_error_that_says_so(host):
    host.kill_in_the_middle()
    host.daemon.prove = lambda: (_ for _ in ()).throw(EngineError("nobody answers on port 25"))
    with pytest.raises(
        EngineError,
        match=r"^the files that a killed run changed are restored, but nobody answers on port 25; correct that",
    ):
        host.recover()
    assert host.file.read_bytes() == OLD and host.transaction.interrupted


def test_a_journal_of_a_former_version_names_no_service(host):
    host.kill_in_the_middle()
    [path] = host.store.glob("*.journal")
    journal = json.loads(path.read_text())
    del journal["service"]
    path.write_text(json.dumps({**journal, "format": 2}))
    end(host)
    assert host.recover() == (True, [])
    assert host.daemon.calls[0] == ("start ", OLD)
