"""Programs that a signal finds running, in a module as Ansible starts it: nothing is restored beside them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_glue as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.alarm import at_most
from tests.support.ansible_module import run_module

OLD, NEW = b"old\n", b"new\n"
STOPPED = "stopped by SIGTERM. The former state is restored and proved"


class Daemon:
    """Reloads by a script that is given the path of a log, and resumes by a word in that log."""

    name = "fakemail"
    reads_files_unasked = True

    def __init__(self, directory, script):
        self.config = directory / "main.cf"
        self.config.write_bytes(OLD)
        self.log = directory / "log"
        self.log.write_text("")
        self.script = script
        self.run = None

    def check(self):
        pass

    def reload(self):
        status, _out, _err = self.run(["sh", "-c", self.script, str(os.getpid()), str(self.log)])
        if status != 0:
            raise EngineError(f"the reload ended with {status}")

    def resume(self):
        status, out, _err = self.run(["sh", "-c", "echo resumed"])
        self.log.write_text(f"{self.log.read_text()}{out}")
        assert status == 0


def children():
    """The processes that this one has started and not waited for. Other tests may have left some that serve them."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {pid for one in lists for pid in one.read_text().split()}


def change(daemon, tmp_path):
    """The result of a module that makes the change, and that has no child left."""

    def main():
        ansible = AnsibleModule({})
        daemon.run = module.runner(ansible)
        image = FileImage(str(daemon.config), NEW, 0o644, os.getuid(), os.getgid())

        def work():
            Transaction(daemon, str(tmp_path / "store")).apply(Change.of([image]), lambda: None, lambda: None)
            return {"changed": True}

        (tmp_path / "store").mkdir()
        module.fail_on_engine_errors(ansible, work)

    before = children()
    with at_most(20):
        result = run_module(main)
    assert children() <= before
    assert not (tmp_path / "store" / "fakemail.journal").exists()
    return result


def words(daemon):
    return daemon.log.read_text().split()


def test_a_program_that_a_signal_finds_running_may_end_first(tmp_path):
    daemon = Daemon(tmp_path, "kill -TERM $0; sleep 0.5; echo reloaded >> $1; exit 1")
    result = change(daemon, tmp_path)
    assert (result["failed"], result["restored"], result["msg"]) == (True, True, STOPPED)
    assert words(daemon) == ["reloaded", "resumed"]
    assert daemon.config.read_bytes() == OLD


def test_one_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_END", 0.2)
    daemon = Daemon(tmp_path, "kill -TERM $0; exec sleep 60")
    started = time.monotonic()
    assert change(daemon, tmp_path)["msg"] == STOPPED
    assert time.monotonic() - started < 10
    assert words(daemon) == ["resumed"]


def test_one_that_says_more_than_anybody_reads_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_END", 0.2)
    daemon = Daemon(tmp_path, "kill -TERM $0; exec yes")
    assert change(daemon, tmp_path)["msg"] == STOPPED
    assert words(daemon) == ["resumed"]


def test_a_second_signal_does_not_keep_it_from_being_waited_for(tmp_path):
    daemon = Daemon(tmp_path, "kill -TERM $0; sleep 0.3; kill -TERM $0; kill -HUP $0; sleep 0.3; echo reloaded >> $1")
    # A process that gets no CPU in between finds all of them at once, and takes SIGHUP first.
    assert change(daemon, tmp_path)["msg"] in (STOPPED, STOPPED.replace("SIGTERM", "SIGHUP"))
    assert words(daemon) == ["reloaded", "resumed"]


def test_a_signal_while_the_program_is_started(tmp_path, monkeypatch):
    """Before it is known to anybody: it is waited for all the same."""

    real = subprocess.Popen._execute_child
    daemon = Daemon(tmp_path, "sleep 0.3; echo reloaded >> $1")

    def start(popen, arguments, *others):
        real(popen, arguments, *others)
        if daemon.script.encode() in arguments:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", start)
    assert change(daemon, tmp_path)["msg"] == STOPPED
    assert words(daemon) == ["reloaded", "resumed"]


def test_without_a_signal_nothing_is_different(tmp_path):
    daemon = Daemon(tmp_path, "echo reloaded >> $1")
    result = change(daemon, tmp_path)
    assert (result["changed"], "failed" in result) == (True, False)
    assert words(daemon) == ["reloaded"]
    assert daemon.config.read_bytes() == NEW


def test_a_program_that_does_not_exist(tmp_path):
    daemon = Daemon(tmp_path, "")
    daemon.reload = lambda: daemon.run(["no-such-program-at-all"])
    result = change(daemon, tmp_path)
    assert result["restored"] is True
    assert "No such file or directory: b'no-such-program-at-all'" in result["msg"]
    assert words(daemon) == ["resumed"]


def test_a_module_whose_output_reaches_nobody_has_restored_before(tmp_path):
    """A terminal that is closed, or a connection: the end of the module fails, which comes last."""
    script = tmp_path / "module.py"
    script.write_text(
        f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from unittest import mock
from ansible.module_utils import basic
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_glue as run
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from tests.unit.plugins.module_utils.test_ansible_glue import Daemon

basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = b'{{"ANSIBLE_MODULE_ARGS": {{}}}}', "legacy"
module = basic.AnsibleModule({{}})
directory = Path({str(tmp_path)!r})
daemon = Daemon(directory, "echo waiting >> $1; exec sleep 60")
daemon.run = run.runner(module)
run.SECONDS_TO_END = 0.2
image = FileImage(str(daemon.config), {NEW!r}, 0o644, {os.getuid()}, {os.getgid()})

def work():
    with Transaction(daemon, str(directory / "store")).locked() as transaction:
        transaction.apply(Change.of([image]), lambda: None, lambda: None)

run.fail_on_engine_errors(module, work)
"""
    )
    log, config = tmp_path / "log", tmp_path / "main.cf"
    reading, writing = os.pipe()
    child = subprocess.Popen([sys.executable, str(script)], stdout=writing, stderr=subprocess.DEVNULL)
    os.close(writing)
    deadline = time.monotonic() + 30
    while not (log.exists() and log.read_text()):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    assert config.read_bytes() == NEW
    os.close(reading)
    child.send_signal(signal.SIGHUP)
    with at_most(30):
        assert child.wait() != 0
    assert config.read_bytes() == OLD
    assert log.read_text() == "waiting\nresumed\n"
    assert not (tmp_path / "store" / "fakemail.journal").exists()


def test_bytes_that_are_no_text_do_not_get_into_a_result():
    """A daemon's output may have any encoding; core 2.19 refuses a result that is not UTF-8."""
    ended = {}
    stand_in = SimpleNamespace(
        exit_json=ended.update, fail_json=ended.update, warn=lambda _text: None, argument_spec={}, params={}, _diff=True
    )
    latin = b"caf\xe9".decode("utf-8", "surrogateescape")
    module.fail_on_engine_errors(stand_in, lambda: {"a": [latin, {latin: 1}], "n": 1, "t": (True, None)})
    assert ended == {"a": ["caf\ufffd", {"caf\ufffd": 1}], "n": 1, "t": [True, None]}

    def fails():
        raise EngineError(latin)

    ended.clear()
    stand_in.fail_json = lambda **result: ended.update(result) or (_ for _ in ()).throw(SystemExit)
    with pytest.raises(SystemExit):
        module.fail_on_engine_errors(stand_in, fails)
    assert ended == {"msg": "caf\ufffd"}
