"""Whether an instance of Postfix runs, by the lock that its master holds on its pid file."""

import fcntl
import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import master


@pytest.fixture
def pid_file(tmp_path):
    (tmp_path / "pid").mkdir()
    path = tmp_path / "pid/master.pid"
    path.write_text("723".rjust(32) + "\n")
    return path


@pytest.fixture
def locked(pid_file):
    with pid_file.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def called(monkeypatch, name):
    monkeypatch.setattr(master, "_program", lambda pid: name if pid == "723" else pytest.fail(pid))


@pytest.mark.parametrize(("name", "expected"), [("master", True), (None, True), ("sleep", False)])
def test_the_lock_is_held(tmp_path, monkeypatch, locked, name, expected):
    called(monkeypatch, name)
    assert master.runs(str(tmp_path)) is expected
    assert master.running(str(tmp_path)) == (723 if expected else None)


def test_a_master_whose_number_is_not_known(tmp_path, monkeypatch, locked, pid_file):
    monkeypatch.setattr(master, "_program", lambda _pid: None)
    pid_file.write_text("x\n")
    assert (master.running(str(tmp_path)), master.runs(str(tmp_path))) == (0, True)


@pytest.mark.parametrize("name", ["master", None, "sleep"])
def test_the_lock_is_free(tmp_path, monkeypatch, pid_file, name):
    called(monkeypatch, name)
    assert (master.runs(str(tmp_path)), master.running(str(tmp_path))) == (False, None)
    with pid_file.open("a") as file:  # and free again afterwards
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_another_reader_is_no_master(tmp_path, monkeypatch, pid_file):
    called(monkeypatch, "master")
    with pid_file.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert master.runs(str(tmp_path)) is False


def test_it_was_never_started(tmp_path):
    assert master.runs(str(tmp_path)) is False


@pytest.mark.parametrize("content", ["", "x", "-1", "0", "99999999999", "\xff"])
def test_junk_in_the_pid_file_leaves_the_lock(tmp_path, pid_file, content):
    pid_file.write_text(content, encoding="latin-1")
    assert master.runs(str(tmp_path)) is False


def test_the_name_of_a_process():
    with open(f"/proc/{os.getpid()}/comm") as file:
        assert master._program(str(os.getpid())) == file.read().strip()
