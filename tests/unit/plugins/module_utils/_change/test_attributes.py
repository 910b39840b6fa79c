"""Access control lists, labels and the user's attributes stay: in every write, every rollback, and after a killed run."""

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import attributes as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.support.acl import NAME, packed_acl, set_acl

MONITOR, EXIM = 12345, 12346
ME = {"uid": os.getuid(), "gid": os.getgid()}
LIST = packed_acl(0o6, 0, 0, {MONITOR: 4, EXIM: 4}, mask=4)


@pytest.fixture
def key(tmp_path):
    """A key of mode 0600 that a monitor may read by its access control list, with an attribute of the administrator."""
    path = tmp_path / "key.pem"
    path.write_bytes(b"old")
    path.chmod(0o600)
    set_acl(path, LIST)
    os.setxattr(path, "user.origin", b"by hand")
    return path


def kept(path):
    return os.getxattr(path, NAME) == LIST and os.getxattr(path, "user.origin") == b"by hand"


def test_the_mode_is_what_owner_group_and_others_may_do(key):
    assert stat.S_IMODE(key.stat().st_mode) == 0o640  # the mask stands in the place of the group
    assert FileImage.read(str(key)).mode == 0o600


@pytest.mark.parametrize("made", [lambda path: FileImage(path, b"new", 0o600, **ME), None], ids=["new", "from the old"])
def test_a_new_version_keeps_them(key, made):
    wanted = made(str(key)) if made else FileImage(**{**vars(FileImage.read(str(key))), "content": b"new"})
    wanted.write()
    assert key.read_bytes() == b"new" and kept(key)
    assert FileImage.read(str(key)) == wanted
    assert not Change.of([FileImage(str(key), b"new", 0o600, **ME)])


def test_another_mode_leaves_the_entries_for_single_users(key):
    FileImage(str(key), b"new", 0o644, **ME).write()
    assert FileImage.read(str(key)).mode == 0o644
    assert os.getxattr(key, NAME) == packed_acl(0o6, 4, 4, {MONITOR: 4, EXIM: 4}, mask=4)
    FileImage(str(key), b"new", 0o600, **ME).write()
    assert os.getxattr(key, NAME) == LIST


def test_a_group_that_the_mask_closes_out_stays_closed_out(key):
    odd = packed_acl(0o6, 4, 0, {MONITOR: 4}, mask=0)
    set_acl(key, odd)
    image = FileImage.read(str(key))
    assert image.mode == 0o600
    image.write()
    assert os.getxattr(key, NAME) == odd


def test_a_snapshot_brings_them_back(key):
    before = FileImage.read(str(key))
    key.unlink()
    key.write_bytes(b"other")
    before.write()
    assert kept(key) and FileImage.read(str(key)) == before


def test_a_snapshot_without_a_list_takes_it_away(key):
    os.removexattr(key, NAME)
    key.chmod(0o600)
    before = FileImage.read(str(key))
    set_acl(key, LIST)
    before.write()
    assert NAME not in os.listxattr(key) and stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_default_list_of_the_directory_and_the_mode(tmp_path):
    set_acl(tmp_path, packed_acl(7, 5, 5, {MONITOR: 5}, mask=7), "system.posix_acl_default")
    wanted = FileImage(str(tmp_path / "main.cf"), b"x", 0o644, **ME)
    wanted.write()
    assert FileImage.read(wanted.path) == wanted
    assert os.getxattr(wanted.path, NAME) == packed_acl(6, 5, 4, {MONITOR: 5}, mask=4)


def test_a_label_is_kept_where_there_is_one(key, monkeypatch):
    """No file system here has labels, so the calls are looked at."""
    labels = {}
    real_list, real_get, real_set = os.listxattr, os.getxattr, os.setxattr
    monkeypatch.setattr(module.os, "listxattr", lambda fd: [*real_list(fd), "security.selinux"])
    monkeypatch.setattr(
        module.os, "getxattr", lambda fd, name: labels.get(fd, b"etc_t") if "selinux" in name else real_get(fd, name)
    )
    monkeypatch.setattr(
        module.os,
        "setxattr",
        lambda fd, name, value: labels.update({fd: value}) if "selinux" in name else real_set(fd, name, value),
    )
    FileImage(str(key), b"new", 0o600, attributes={"security.selinux": b"cert_t"}, **ME).write()
    assert list(labels.values()) == [b"cert_t"]
    labels.clear()
    FileImage(str(key), b"new", 0o600, attributes={"security.selinux": b"etc_t"}, **ME).write()
    assert labels == {}  # it is so already, and not everybody may set it


def test_a_file_system_without_attributes(tmp_path, monkeypatch):
    def none(*_args):
        raise OSError(95, "Operation not supported")

    for call in ("listxattr", "getxattr", "setxattr"):
        monkeypatch.setattr(module.os, call, none)
    wanted = FileImage(str(tmp_path / "file"), b"x", 0o640, attributes={"user.a": b"b"}, **ME)
    wanted.write()
    assert FileImage.read(wanted.path) == wanted


class Daemon:
    name = "fakemail"
    reads_files_unasked = True

    def __init__(self, reload=lambda: None):
        self.reload = reload

    def check(self):
        pass

    def resume(self):
        pass


def refuse():
    raise EngineError("no")


def test_a_rollback_brings_them_back(key, tmp_path):
    change = Change.of([FileImage(str(key), b"new", 0o600, **ME)])

    def prove():
        os.removexattr(key, NAME)
        os.setxattr(key, "user.origin", b"other")
        refuse()

    with (
        Transaction(Daemon(), str(tmp_path / "store")).locked() as transaction,
        pytest.raises(TransactionError) as caught,
    ):
        transaction.apply(change, prove, lambda: None)
    assert caught.value.restored and key.read_bytes() == b"old" and kept(key)


@pytest.mark.parametrize("removed", [False, True])
def test_the_next_run_brings_them_back_after_a_killed_one(key, tmp_path, removed):
    pid = os.fork()
    if pid == 0:
        image = FileImage(str(key), None if removed else b"new", 0o600, **ME)
        with Transaction(Daemon(lambda: os._exit(9)), str(tmp_path / "store")).locked() as transaction:
            transaction.apply(Change.of([image]), lambda: None, lambda: None)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert key.exists() is not removed
    if not removed:
        os.removexattr(key, NAME)
    with Transaction(Daemon(), str(tmp_path / "store")).locked() as transaction:
        assert transaction.recover() is True
    assert key.read_bytes() == b"old" and kept(key)


def test_who_may_read_by_the_list(key):
    assert module.named_readers(FileImage.read(str(key)).attributes) == ([MONITOR, EXIM], [])
    assert module.named_readers({}) == ([], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_the_monitor_reads_the_renewed_key(key):
    for directory in [one for one in key.parents if str(one).startswith("/tmp/")]:
        directory.chmod(directory.stat().st_mode | 0o011)
    FileImage(str(key), b"renewed", 0o600, **ME).write()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(MONITOR)
        os.setuid(MONITOR)
        os._exit(0 if Path(key).read_bytes() == b"renewed" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
