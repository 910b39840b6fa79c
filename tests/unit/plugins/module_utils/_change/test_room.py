"""Room for the way back, on real file systems: a small tmpfs and a read-only bind mount, in a mount namespace of their own."""

import contextlib
import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.room import nothing_changed
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

TOP = Path(__file__).resolve().parents[5]
NAMES = ("main.cf", "master.cf", "table")
SIZE = 12_000
"""Of each file: three pages of a tmpfs."""


class Daemon:
    """Reads nothing. Its check runs what a test wants to happen in the middle of a change."""

    name = "fakemail"
    reads_files_unasked = True

    def __init__(self):
        self.check = self.reload = self.resume = lambda: None


class Place:
    """Three files on a file system of their own, and the store of transactions on another one."""

    def __init__(self, directory, size="128k"):
        self.directory = directory
        self.etc, self.store = directory / "etc", directory / "store"
        self.etc.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(self.etc))
        for name in NAMES:
            (self.etc / name).write_bytes(old(name))
        self.daemon = Daemon()

    def images(self, content):
        return [FileImage(str(self.etc / name), content(name), 0o640, 0, 0) for name in NAMES]

    def apply(self, content=None, hold=False):
        change = Change.of(self.images(content or new))
        with Transaction(self.daemon, str(self.store)).locked() as transaction:
            transaction.apply(change, lambda: None, lambda: None, hold)
        return change

    def fill(self):
        """Leave no room at all, not even for a file without content."""
        with contextlib.suppress(OSError), (self.etc / "filler").open("wb", 0) as file:
            while True:
                file.write(b"x" * 512)
        with pytest.raises(OSError) as caught:
            (self.etc / "more").write_bytes(b"x" * 4096)
        assert caught.value.errno == errno.ENOSPC

    def is_all(self, content, more=()):
        found = {one.name: one.read_bytes() for one in self.etc.iterdir() if one.name not in ("filler", "more")}
        return found == {name: content(name) for name in (*NAMES, *more)} and not list(self.store.glob("*.journal"))


def old(name):
    return f"old {name}\n".encode().ljust(SIZE, b"o")


def new(name):
    return f"new {name}\n".encode().ljust(SIZE, b"n")


def newer(name):
    return f"newer {name}\n".encode().ljust(SIZE, b"r")


def mount(*words):
    subprocess.run(["mount", *words], check=True)


def own_namespace(case):
    """Make a test of a function that may mount: it runs in a process with mounts of its own."""

    def test(tmp_path):
        if os.geteuid():
            pytest.skip("only root may mount")
        if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
            pytest.skip("this machine gives no mount namespaces")
        code = f"import sys; sys.path[:0] = {json.dumps(sys.path)}; from {__name__} import CASES; CASES[{case.__name__!r}]()"
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", code],
            check=False, capture_output=True, text=True, cwd=TOP, env={**os.environ, "CASE_DIRECTORY": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    CASES[case.__name__] = lambda: case(Path(os.environ["CASE_DIRECTORY"]))
    return test


CASES = {}


@own_namespace
def test_a_disk_that_is_full_before_the_change(directory):
    place = Place(directory, "48k")
    with pytest.raises(EngineError) as caught:
        place.apply()
    assert not isinstance(caught.value, TransactionError)
    assert str(caught.value) == (
        f"{place.etc}/main.cf: No space left on device; nothing was changed; free some space on its file system, then run again"
    ).replace("main.cf", Path(str(caught.value).partition(":")[0]).name)
    assert place.is_all(old)


@own_namespace
def test_a_disk_that_becomes_full_during_the_change(directory):
    """The former files come back although nothing can be written any more."""
    place = Place(directory)
    inodes = {name: (place.etc / name).stat().st_ino for name in NAMES}

    def check():
        place.fill()
        raise EngineError("no good")

    place.daemon.check = check
    with pytest.raises(TransactionError, match=r"^no good\. The former state is restored and proved$"):
        place.apply()
    assert place.is_all(old)
    assert {name: (place.etc / name).stat().st_ino for name in NAMES} == inodes


@own_namespace
def test_a_disk_that_is_full_when_a_killed_run_is_undone(directory):
    place = Place(directory)
    if not (pid := os.fork()):
        place.daemon.check = lambda: os._exit(9)
        with contextlib.suppress(BaseException):
            place.apply()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert (place.etc / "main.cf").read_bytes() == new("main.cf")
    place.fill()
    with Transaction(place.daemon, str(place.store)).locked() as transaction:
        assert transaction.recover()
    assert place.is_all(old)


@own_namespace
def test_a_run_that_is_killed_before_it_has_written_everything(directory):
    """What waits beside the files goes, too."""
    for number in range(6):
        (directory / str(number)).mkdir()
        place = Place(directory / str(number))
        if not (pid := os.fork()):
            steps = iter(range(number))
            for name in ("stage", "keep"):
                setattr(FileImage, name, killed_after(steps, getattr(FileImage, name)))
            with contextlib.suppress(BaseException):
                place.apply()
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        with Transaction(place.daemon, str(place.store)).locked() as transaction:
            assert transaction.recover()
        assert place.is_all(old)


def killed_after(steps, real):
    def step(image, *arguments, **options):
        if next(steps, None) is None:
            os._exit(9)
        return real(image, *arguments, **options)

    return step


@own_namespace
def test_of_two_changes_of_a_call_both_are_undone_on_a_full_disk(directory):
    place = Place(directory)
    first = place.apply(hold=True)
    assert (place.etc / "main.cf").read_bytes() == new("main.cf")
    second = Change.of(place.images(newer)).following(first)
    place.fill()
    with Transaction(place.daemon, str(place.store)).locked() as transaction, pytest.raises(TransactionError) as caught:
        transaction.apply(second, lambda: None, lambda: None)
    assert "No space left on device" in str(caught.value)
    assert caught.value.restored is True
    assert place.is_all(old)


@own_namespace
def test_a_change_that_is_held_is_taken_back_on_a_full_disk(directory):
    place = Place(directory)
    place.apply(hold=True)
    place.fill()
    with Transaction(place.daemon, str(place.store)).locked() as transaction:
        transaction.take_back(lambda: None, EngineError("refused"))
    assert place.is_all(old)


@own_namespace
def test_files_that_the_daemons_own_tools_write_come_back_on_a_full_disk(directory):
    place = Place(directory)
    generated = place.etc / "generated"
    generated.write_bytes(old("generated"))

    def reload():
        with generated.open("r+b") as file:  # into the file, which no second name would survive
            file.write(new("generated"))
        place.fill()
        raise EngineError("no good")

    place.daemon.reload = reload
    change = Change.of(place.images(new))
    change = Change(change.before, change.after, kept=(FileImage.read(str(generated)),))
    with Transaction(place.daemon, str(place.store)).locked() as transaction, pytest.raises(TransactionError) as caught:
        transaction.apply(change, lambda: None, lambda: None)
    assert caught.value.restored is True
    assert place.is_all(old, ["generated"])


@own_namespace
def test_a_store_without_room(directory):
    place = Place(directory)
    place.store.mkdir()
    mount("-t", "tmpfs", "-o", "size=8k,mode=700", "tmpfs", str(place.store))
    with pytest.raises(
        EngineError, match=r"fakemail\.journal: No space left on device; nothing was changed; free some"
    ):
        place.apply()
    assert place.is_all(old)


@own_namespace
def test_a_directory_that_is_mounted_read_only(directory):
    """It is the last of the directories in which the change writes."""
    place = Place(directory)
    sub = place.etc / "sub"
    sub.mkdir()
    (sub / "last.cf").write_bytes(old("last.cf"))
    mount("--bind", str(sub), str(sub))
    mount("-o", "remount,bind,ro", str(sub))
    called = []
    place.daemon.check = place.daemon.reload = place.daemon.resume = lambda: called.append(1)
    change = Change.of([*place.images(new), FileImage(str(sub / "last.cf"), new("last.cf"), 0o644, 0, 0)])
    with Transaction(place.daemon, str(place.store)).locked() as transaction, pytest.raises(EngineError) as caught:
        transaction.apply(change, lambda: None, lambda: None)
    assert str(caught.value) == (
        f"{sub}/last.cf: Read-only file system; nothing was changed; make its file system writable, then run again"
    )
    assert called == []
    assert {name: (place.etc / name).read_bytes() for name in NAMES} == {name: old(name) for name in NAMES}
    assert not list(place.store.glob("*.journal"))


@own_namespace
def test_a_store_that_is_mounted_read_only(directory):
    place = Place(directory)
    place.store.mkdir()
    mount("-t", "tmpfs", "-o", "ro,mode=700", "tmpfs", str(place.store))
    with pytest.raises(EngineError, match=r"host\.lock: Read-only file system; nothing was changed; make its file"):
        place.apply()
    assert place.is_all(old)


@own_namespace
def test_new_files_and_directories_on_a_full_disk(directory):
    place = Place(directory)

    def check():
        place.fill()
        raise EngineError("no good")

    place.daemon.check = check
    made = [FileImage(str(place.etc / "deep/er" / name), b"x", 0o644, 0, 0) for name in ("a", "b")]
    with Transaction(place.daemon, str(place.store)).locked() as transaction, pytest.raises(TransactionError) as caught:
        transaction.apply(Change.of([*made, *place.images(new)]), lambda: None, lambda: None)
    assert caught.value.restored is True
    assert place.is_all(old)


# Without mounts


@pytest.fixture
def host(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(old(name))
    return tmp_path


def image(host, name, content, mode=0o640):
    return FileImage(str(host / name), content, mode, os.getuid(), os.getgid())


def names(host):
    """What is there beside the store."""
    return sorted(one.name for one in host.iterdir() if one.name != "store")


@pytest.mark.parametrize("fault", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_file_system_without_second_names(host, monkeypatch, fault):
    def link(*_arguments, **_options):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(os, "link", link)
    daemon = Daemon()

    def check():
        [kept] = host.glob(".*.old")
        assert kept.read_bytes() == old("main.cf")
        raise EngineError("no good")

    daemon.check = check
    (host / "main.cf").chmod(0o600)
    with Transaction(daemon, str(host / "store")).locked() as transaction, pytest.raises(TransactionError):
        transaction.apply(Change.of([image(host, "main.cf", b"new")]), lambda: None, lambda: None)
    assert (host / "main.cf").read_bytes() == old("main.cf")
    assert stat.S_IMODE((host / "main.cf").stat().st_mode) == 0o600
    assert names(host) == [*NAMES]


@pytest.mark.parametrize(
    "tamper", [Path.unlink, lambda path: path.write_bytes(b"theirs"), lambda path: path.chmod(0o777)]
)
def test_a_former_version_that_somebody_takes_away_comes_from_the_journal(host, tamper):
    daemon = Daemon()
    (host / "main.cf").chmod(0o600)

    def check():
        [kept] = host.glob(".*.old")
        tamper(kept)
        raise EngineError("no good")

    daemon.check = check
    with Transaction(daemon, str(host / "store")).locked() as transaction, pytest.raises(TransactionError) as caught:
        transaction.apply(Change.of([image(host, "main.cf", b"new")]), lambda: None, lambda: None)
    assert caught.value.restored is True
    assert (host / "main.cf").read_bytes() == old("main.cf")
    assert stat.S_IMODE((host / "main.cf").stat().st_mode) == 0o600
    assert names(host) == [*NAMES]


def test_a_new_version_that_somebody_takes_away_ends_the_change(host, monkeypatch):
    daemon = Daemon()
    real = FileImage.take
    monkeypatch.setattr(FileImage, "take", lambda self, name: not self.path.endswith(".cf") and real(self, name))
    with Transaction(daemon, str(host / "store")).locked() as transaction, pytest.raises(TransactionError) as caught:
        transaction.apply(Change.of([image(host, "main.cf", b"new")]), lambda: None, lambda: None)
    assert "main.cf: its new version, which was written beside it, is not there any more" in str(caught.value)
    assert (caught.value.restored, names(host)) == (True, [*NAMES])


@pytest.mark.parametrize("name", ["../main.cf", "main.cf", ".mailfleet-/../main.cf"])
def test_a_journal_that_names_another_file_as_the_one_that_waits(host, name):
    daemon = Daemon()
    (host / "store").mkdir()
    entry = {
        "path": str(host / "main.cf"), "content": "", "mode": 0o600, "uid": 0, "gid": 0, "after_sha256": "any", "old": name,
    }  # fmt: skip
    (host / "store/fakemail.journal").write_text(json.dumps({"format": 3, "files": [entry], "directories": []}))
    with (
        Transaction(daemon, str(host / "store")).locked() as transaction,
        pytest.raises(EngineError, match="cannot be read"),
    ):
        transaction.recover()
    assert (host / "main.cf").read_bytes() == old("main.cf")


def test_the_words_of_an_error_that_changed_nothing():
    assert str(nothing_changed(EngineError("no good"))) == "no good; nothing was changed"
    assert str(nothing_changed(OSError(5, "Input/output error", "/etc/x"))) == (
        "/etc/x: Input/output error; nothing was changed; see why, then run again"
    )
    assert str(nothing_changed(OSError("odd"))) == "odd; nothing was changed; see why, then run again"
