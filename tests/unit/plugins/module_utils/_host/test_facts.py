"""Free space, and digests of files."""

from __future__ import annotations

import hashlib
import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.facts import (
    differing,
    digests,
    disk_space,
    too_full,
)

FREE = {"path": "/etc/postfix", "free_bytes": 1 << 30, "free_inodes": 1000}


def counts(blocks=100, files=100, free_files=50, size=4096):
    """A file system: 11 numbers as statvfs(3) gives them. What is free for root is ten times what is free for all."""
    return os.statvfs_result((size, size, 1000, blocks * 10, blocks, files, free_files * 10, free_files, 0, 255))


def test_one_entry_a_file_system(tmp_path):
    (tmp_path / "here").write_text("")
    paths = [str(tmp_path / "not/yet/there"), str(tmp_path), str(tmp_path / "here")]
    (entry,) = disk_space(paths)
    assert entry["path"] == paths[0]
    assert entry["free_bytes"] > 0
    assert entry["free_inodes"] is None or entry["free_inodes"] > 0


def test_other_file_systems_have_entries_of_their_own(tmp_path):
    entries = disk_space([str(tmp_path), "/proc/self/status"])
    assert [entry["path"] for entry in entries] == [str(tmp_path), "/proc/self/status"]


def test_a_link_lies_where_it_leads(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "statvfs", lambda path: asked.append(path) or counts())
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there/new")
    disk_space([str(tmp_path / "link")])
    assert asked == [str(tmp_path / "there")]


def test_what_is_kept_for_root_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _path: counts(blocks=7, free_files=5))
    assert disk_space([str(tmp_path)]) == [{"path": str(tmp_path), "free_bytes": 7 * 4096, "free_inodes": 5}]


def test_a_file_system_that_does_not_count_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _path: counts(files=0, free_files=0))
    entries = disk_space([str(tmp_path)])
    assert entries[0]["free_inodes"] is None
    assert too_full(entries, need_bytes=1) == ""


def test_a_path_that_cannot_be_looked_at_is_left_out(tmp_path, monkeypatch):
    def statvfs(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert disk_space([str(tmp_path)]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"free_bytes": facts.NEEDED_BYTES}, ""),
        ({"free_inodes": None}, ""),
        (
            {"free_bytes": 4096},
            "the file system of /etc/postfix has 4 KiB free, and a change may need 1024 KiB; free some space, then run again",
        ),
        (
            {"free_inodes": 0},
            "the file system of /etc/postfix has room for 0 files more, and a change may need 32; "
            "free some space, then run again",
        ),
    ],
)
def test_what_is_too_full(change, message):
    assert too_full([{**FREE, **change}]) == message


def test_each_full_file_system_is_named():
    text = too_full([FREE, {**FREE, "path": "/var/lib/x", "free_bytes": 0}, {**FREE, "path": "/usr", "free_bytes": 0}])
    assert "/var/lib/x has 0 KiB" in text
    assert "that of /usr has 0 KiB" in text
    assert "/etc/postfix" not in text
    assert too_full([]) == ""


def test_digests(tmp_path):
    file, link, none, dangling = (tmp_path / name for name in ("file", "link", "none", "dangling"))
    file.write_bytes(b"one\n")
    link.symlink_to(file)
    dangling.symlink_to(tmp_path / "nowhere")
    one = hashlib.sha256(b"one\n").hexdigest()
    found = digests(map(str, (file, link, none, dangling)))
    assert found == {str(file): one, str(link): one, str(none): "absent", str(dangling): "absent"}
    assert differing(found) == []
    file.write_bytes(b"two\n")
    (tmp_path / "nowhere").write_bytes(b"")
    assert differing(found) == [str(file), str(link), str(dangling)]
    file.unlink()
    assert differing(found) == [str(file), str(link), str(dangling)]
    assert differing({}) == []


def test_what_is_no_file_has_no_digest(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(OSError, match="not a regular file"):
            digests([str(path)])
