import os
import socket
import stat

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import atomic
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage, UnsafeFileError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ME = {"uid": os.getuid(), "gid": os.getgid()}


@pytest.fixture(autouse=True)
def open_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def names(directory):
    return sorted(p.name for p in directory.iterdir())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.one_of(st.none(), st.binary()), st.integers(0, 0o777).map(lambda bits: bits | 0o400))
def test_what_was_written_is_read_back(tmp_path, content, mode):
    path = tmp_path / "main.cf"
    FileImage(str(path), content, mode, **ME).write()
    image = FileImage.read(str(path))
    assert image.content == content
    if content is not None:
        assert image == FileImage(str(path), content, mode, **ME)
    assert names(tmp_path) == ([] if content is None else ["main.cf"])


def test_a_snapshot_restores_the_file(tmp_path):
    path = tmp_path / "main.cf"
    path.write_bytes(b"old")
    path.chmod(0o640)
    before = FileImage.read(str(path))
    FileImage(str(path), b"new", 0o644, **ME).write()
    before.write()
    assert FileImage.read(str(path)) == before


def test_a_snapshot_of_nothing_removes_the_file(tmp_path):
    path = tmp_path / "map"
    before = FileImage.read(str(path))
    assert before.content is None
    path.write_bytes(b"new")
    before.write()
    before.write()
    assert names(tmp_path) == []


def test_removing_needs_no_directory(tmp_path):
    FileImage(str(tmp_path / "gone" / "file"), None).write()


def test_the_time_is_set_before_the_file_is_visible(tmp_path):
    path = tmp_path / "main.cf"
    FileImage(str(path), b"x", **ME).write(mtime=1_000_000_000.5)
    assert path.stat().st_mtime == 1_000_000_000.5


def test_a_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real.cf", tmp_path / "main.cf"
    real.write_bytes(b"old")
    link.symlink_to("real.cf")
    FileImage(str(link), b"new", **ME).write()
    assert link.is_symlink() and real.read_bytes() == b"new"
    assert FileImage.read(str(link)).content == b"new"
    FileImage(str(link), None).write()
    assert link.is_symlink() and not real.exists()
    assert FileImage.read(str(link)).content is None


def test_a_link_to_itself_is_refused(tmp_path):
    link = tmp_path / "loop"
    link.symlink_to("loop")
    for action in (lambda: FileImage.read(str(link)), FileImage(str(link), b"x", **ME).write):
        with pytest.raises(OSError) as caught:
            action()
        assert caught.value.filename == str(link)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("directory", lambda p: p.mkdir()),
        ("named pipe", os.mkfifo),
        ("socket", lambda p: socket.socket(socket.AF_UNIX).bind(os.fspath(p))),
    ],
)
def test_only_regular_files_are_touched(tmp_path, monkeypatch, kind, make):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make(type(tmp_path)("odd"))
    path = str(tmp_path / "odd")
    for action in (
        lambda: FileImage.read(path),
        FileImage(path, b"x", **ME).write,
        FileImage(path, None).write,
    ):
        with pytest.raises(UnsafeFileError, match=f"is a {kind}, not a regular file") as caught:
            action()
        assert caught.value.filename == path
    assert names(tmp_path) == ["odd"]


def test_reading_is_bounded(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(bytes(11))
    assert FileImage.read(str(path), max_bytes=11).content == bytes(11)
    with pytest.raises(UnsafeFileError, match="longer than 10 bytes"):
        FileImage.read(str(path), max_bytes=10)


@pytest.mark.parametrize("step", ["fchmod", "fsync", "utime"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "main.cf"
    path.write_bytes(b"old")

    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, step, fail)
    with pytest.raises(OSError, match="No space"):
        FileImage(str(path), b"new", **ME).write(mtime=1.0)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["main.cf"]


def test_the_file_is_private_until_it_is_dressed(tmp_path, monkeypatch):
    seen = []
    real = os.fchmod

    def spy(fd, mode):
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        real(fd, mode)

    monkeypatch.setattr(atomic.os, "fchmod", spy)
    FileImage(str(tmp_path / "key"), b"x", 0o644, **ME).write()
    assert seen == [0o600]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_owner_and_group_are_set(tmp_path):
    path = tmp_path / "key"
    image = FileImage(str(path), b"x", 0o640, 12345, 54321)
    image.write()
    assert FileImage.read(str(path)) == image


def test_the_content_is_not_in_the_representation():
    assert "secret" not in repr(FileImage("/x", b"secret"))


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileImage(str(tmp_path / "no" / "file"), b"x", **ME).write()
    assert FileImage.read(str(tmp_path / "no" / "file")).content is None
