import contextlib
import os
import stat
import struct
import threading
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import paths
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import (
    ANYBODY,
    PathTrust,
    UntrustedPathError,
    place_of,
)

from tests.support.acl import packed_acl, set_acl

STRANGER, DAEMON = 65534, 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
OF_DAEMON = PathTrust(owners={DAEMON})


def put(path, content=b"new", trust=paths.ROOT_AND_ME):
    with place_of(str(path), trust) as place:
        place.replace(content, lambda fd: os.fchmod(fd, 0o644))


def get(path, trust=paths.ROOT_AND_ME):
    with place_of(str(path), trust) as place, os.fdopen(place.open(), "rb") as file:
        return file.read()


def drop(path, trust=paths.ROOT_AND_ME):
    with place_of(str(path), trust) as place:
        place.remove()


WAYS = pytest.mark.parametrize("way", [put, get, drop])


@pytest.fixture
def victim(tmp_path):
    """A file of root's, which nobody else may touch. The tests check that it stays as it is."""
    path = tmp_path / "shadow"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    status = path.stat()
    yield path
    assert path.read_bytes() == b"secret"
    assert path.stat().st_ino == status.st_ino and path.stat().st_mode == status.st_mode


def directory_of(path, uid, mode=0o755):
    path.mkdir(mode=0o700)
    os.chown(path, uid, uid)
    path.chmod(mode)
    return path


def link_of(uid, link, target):
    link.symlink_to(target)
    os.lchown(link, uid, uid)
    return link


def test_files_are_written_read_and_removed(tmp_path):
    put(tmp_path / "main.cf")
    assert get(tmp_path / "main.cf") == b"new"
    assert sorted(os.listdir(tmp_path)) == ["main.cf"]
    drop(tmp_path / "main.cf")
    drop(tmp_path / "main.cf")
    assert os.listdir(tmp_path) == []


def test_own_links_are_followed_and_stay(tmp_path):
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "etc").symlink_to("real/../real/deep")
    (tmp_path / "real/deep/file").symlink_to(tmp_path / "kept")
    put(tmp_path / "etc/file")
    assert (tmp_path / "kept").read_bytes() == b"new"
    assert paths.real_path(str(tmp_path / "etc/file")) == str(tmp_path / "kept")
    drop(tmp_path / "etc/file")
    assert (tmp_path / "real/deep/file").is_symlink() and not (tmp_path / "kept").exists()


@pytest.mark.parametrize("given", ["a/b", "./a//b", "a/../a/b", "a/b/", "a/.//./b"])
def test_other_spellings_of_a_path(tmp_path, monkeypatch, given):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    put(given)
    assert (tmp_path / "a/b").read_bytes() == b"new"
    assert paths.real_path(given) == str(tmp_path / "a/b")


@pytest.mark.parametrize("given", ["/", "/..", "a/..", "..", ".", "a/.", ""])
def test_a_path_without_a_name_in_a_directory(tmp_path, monkeypatch, given):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    if given == "a/.":
        assert paths.real_path(given) == str(tmp_path / "a")
        return
    with pytest.raises(IsADirectoryError):
        put(given)
    assert paths.real_path(given) == os.path.realpath(given)


def test_the_error_names_the_path(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path, error in ((tmp_path / "no/file", FileNotFoundError), (tmp_path / "file/file", NotADirectoryError)):
        with pytest.raises(error) as caught:
            put(path)
        assert caught.value.filename == str(path)


def test_the_real_path_of_what_does_not_exist(tmp_path):
    (tmp_path / "etc").symlink_to(tmp_path)
    assert paths.real_path(str(tmp_path / "etc/no/such/file")) == str(tmp_path / "no/such/file")


def test_a_circle_of_links_ends(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"[Tt]oo many"):
        get(tmp_path / "a")


def test_no_descriptor_stays_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    put(tmp_path / "file")
    get(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        get(tmp_path / "no/file")
    assert os.listdir("/proc/self/fd") == before


@as_root
@WAYS
@pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777])
def test_a_directory_of_somebody_else_is_refused(tmp_path, victim, way, mode):
    home = directory_of(tmp_path / "home", STRANGER, mode)
    link_of(STRANGER, home / "key.pem", victim)
    with pytest.raises(UntrustedPathError, match=rf"{home} belongs to \w+ \(uid {STRANGER}\).*run 'chown root {home}'"):
        way(home / "key.pem")


@as_root
@WAYS
def test_a_link_of_somebody_else_in_a_sticky_directory_is_refused(tmp_path, victim, way):
    shared = directory_of(tmp_path / "tmp", 0, 0o1777)
    link = link_of(STRANGER, shared / "key.pem", victim)
    with pytest.raises(UntrustedPathError, match=f"{link} is a link that .*{STRANGER}.* made"):
        way(link)
    link.unlink()
    link_of(STRANGER, shared / "dir", tmp_path)
    with pytest.raises(UntrustedPathError, match=f"{shared}/dir is a link"):
        way(shared / "dir/shadow")


@as_root
@WAYS
def test_a_file_of_somebody_else_in_a_sticky_directory_is_refused(tmp_path, way):
    shared = directory_of(tmp_path / "tmp", 0, 0o1777)
    (shared / "report").write_bytes(b"theirs")
    os.chown(shared / "report", STRANGER, STRANGER)
    with pytest.raises(UntrustedPathError, match=f"report belongs to .*{STRANGER}.*remove it"):
        way(shared / "report")


@as_root
def test_own_files_and_links_in_a_sticky_directory(tmp_path):
    shared = directory_of(tmp_path / "tmp", 0, 0o1777)
    put(shared / "report")
    link_of(0, shared / "link", "report")
    put(shared / "link", b"newer")
    assert get(shared / "report") == b"newer"


@as_root
@WAYS
def test_a_directory_that_others_may_write_is_refused(tmp_path, way):
    home = directory_of(tmp_path / "home", 0, 0o777)
    with pytest.raises(UntrustedPathError, match=f"{home} can be written by everybody.*chmod o-w {home}"):
        way(home / "key.pem")


@pytest.fixture
def groups(monkeypatch):
    """Two users' own groups, and some others."""
    users = [("root", 0, 0), ("alice", 1000, 1000), ("bob", 1001, 1001), ("carol", 1002, 100), ("mail", 8, 8)]
    known = {0: ("root", []), 1000: ("alice", []), 1001: ("bob", ["alice"]), 100: ("users", []), 50: ("staff", [])}
    known.update({8: ("mail", ["bob"]), 1500: ("domain users", [])})
    entries = [paths.pwd.struct_passwd((name, "x", uid, gid, "", "/", "")) for name, uid, gid in users]
    monkeypatch.setattr(paths.pwd, "getpwall", lambda: entries)
    monkeypatch.setattr(paths.pwd, "getpwuid", {one.pw_uid: one for one in entries}.__getitem__)
    found = {gid: paths.grp.struct_group((name, "x", gid, members)) for gid, (name, members) in known.items()}
    monkeypatch.setattr(paths.grp, "getgrgid", found.__getitem__)


@as_root
@pytest.mark.parametrize(
    ("gid", "fault"),
    [
        (0, ""),  # root's
        (1000, ""),  # the trusted user's own
        (50, ""),  # Debian's staff: nobody is in it
        (1001, "the group bob"),
        (8, r"the group mail \(to which bob belongs\)"),
        (100, r"the group users \(to which carol belongs\)"),
        (1500, "the group domain users"),  # a directory service need not list its members
        (4711, "the group 4711"),  # unknown
    ],
)
def test_a_directory_that_a_group_may_write(tmp_path, groups, gid, fault):
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1000, gid)
    home.chmod(0o775)
    trust = PathTrust(frozenset({0, 1000}))
    if not fault:
        put(home / "report", trust=trust)
        return
    with pytest.raises(UntrustedPathError, match=f"{home} can be written by {fault}"):
        put(home / "report", trust=trust)


@as_root
def test_a_directory_that_an_access_control_list_opens(tmp_path):
    home = directory_of(tmp_path / "home", 0)
    set_acl(home, packed_acl(0o7, 0o5, 0o5, {STRANGER: 0o5}))
    put(home / "file")
    set_acl(home, packed_acl(0o7, 0o5, 0o5, {STRANGER: 0o7}))
    with pytest.raises(UntrustedPathError, match=f"uid {STRANGER}\\) by an access control list"):
        put(home / "file")


@as_root
def test_a_lent_directory_is_written_and_no_link_is_followed_there(tmp_path, victim):
    home = directory_of(tmp_path / "haraka", DAEMON)
    directory_of(home / "config", DAEMON)
    put(home / "config/tls.ini", trust=OF_DAEMON)
    assert get(home / "config/tls.ini", OF_DAEMON) == b"new"
    for maker in (DAEMON, 0):
        link = link_of(maker, home / "config/link", victim)
        for way in (put, get, drop):
            with pytest.raises(UntrustedPathError, match="link"):
                way(link, trust=OF_DAEMON)
        link.unlink()


@as_root
def test_a_second_name_of_roots_file_in_a_lent_directory_is_refused(tmp_path, victim):
    home = directory_of(tmp_path / "haraka", DAEMON)
    os.link(victim, home / "tls.ini")
    with pytest.raises(UntrustedPathError, match="another name elsewhere"):
        get(home / "tls.ini", OF_DAEMON)
    with pytest.raises(UntrustedPathError, match="another name elsewhere"):
        put(home / "tls.ini", trust=OF_DAEMON)


@as_root
def test_everybodys_directory_is_looked_at_and_no_link_is_followed(tmp_path, victim):
    home = directory_of(tmp_path / "home", STRANGER, 0o777)
    (home / "report").write_bytes(b"theirs")
    assert get(home / "report", PathTrust(owners=ANYBODY)) == b"theirs"
    link_of(STRANGER, home / "link", victim)
    with pytest.raises(UntrustedPathError):
        get(home / "link", PathTrust(owners=ANYBODY))


@as_root
def test_a_directory_that_is_exchanged_meanwhile_leads_nowhere_else(tmp_path, victim):
    """The walk holds the directory open, so what its owner puts in its place afterwards does not matter."""
    home = directory_of(tmp_path / "haraka", DAEMON)
    config = directory_of(home / "config", DAEMON)
    with place_of(str(config / "shadow"), OF_DAEMON) as place:
        config.rename(home / "moved")
        link_of(DAEMON, config, victim.parent)
        place.replace(b"new", lambda _fd: None)
        assert (home / "moved/shadow").read_bytes() == b"new"
        place.remove()
    assert os.listdir(home / "moved") == []


@as_root
def test_a_race_for_the_directory_is_lost_by_its_owner(tmp_path, victim):
    home = directory_of(tmp_path / "haraka", DAEMON)
    config = directory_of(home / "config", DAEMON)
    link_of(DAEMON, home / "trap", victim.parent)
    ended = threading.Event()

    def exchange():
        while not ended.is_set():
            os.rename(config, home / "aside")
            os.rename(home / "trap", config)
            os.rename(config, home / "trap")
            os.rename(home / "aside", config)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _number in range(300):
            with contextlib.suppress(UntrustedPathError, OSError):
                put(config / "shadow", trust=OF_DAEMON)
    finally:
        ended.set()
        thread.join()
    # Whether the victim is as it was, its fixture looks.


def test_the_option_is_named(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w").chmod(0o777)
    with pytest.raises(UntrustedPathError, match=r"or correct starttls_report_directory\Z"):
        put(tmp_path / "w/report", trust=PathTrust(option="starttls_report_directory"))


def test_directories_are_made_and_removed(tmp_path):
    before = os.umask(0o077)
    try:
        paths.make_directories(str(tmp_path / "a/b/c"))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "a", tmp_path / "a/b/c")] == [0o755, 0o755]
    paths.make_directories(str(tmp_path / "a/b/c"))
    paths.remove_directory(str(tmp_path / "a/b/c"))
    assert paths.missing_directories(str(tmp_path / "a/b/c/d")) == [str(tmp_path / "a/b/c"), str(tmp_path / "a/b/c/d")]
    with pytest.raises(OSError):
        paths.remove_directory(str(tmp_path / "a"))


def test_an_open_directory_is_listed(tmp_path):
    (tmp_path / "one").write_bytes(b"")
    with paths.entered(str(tmp_path)) as directory:
        assert os.listdir(directory) == ["one"]
    with pytest.raises(NotADirectoryError), paths.entered(str(tmp_path / "one")):
        pass


def test_a_null_character_is_refused():
    with pytest.raises(paths.EngineError, match="null"):
        get(Path("/tmp/a\0b"))


@pytest.mark.parametrize("packed", [b"", b"\x02", struct.pack("<I", 1), struct.pack("<IH", 2, 1)])
def test_an_odd_access_control_list_has_no_entries(packed):
    assert paths.acl_entries(packed) == []
