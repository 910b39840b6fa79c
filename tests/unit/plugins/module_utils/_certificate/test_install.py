import functools
import grp
import os
import pwd
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import install as engine
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem, readers
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import BundleFile
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import daemon_locked
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.acl import NAME, packed_acl, set_acl

KEY = pem.PemBlock("PRIVATE KEY", b"the private key")
BUNDLE = pem.join([KEY, pem.PemBlock("CERTIFICATE", b"leaf"), pem.PemBlock("CERTIFICATE", b"chain")])
ME = pwd.getpwuid(os.getuid()).pw_name
MY_GROUP = grp.getgrgid(os.getgid()).gr_name


STORE = [""]
"""The directory of the locks of this test."""


@pytest.fixture(autouse=True)
def store(tmp_path_factory):
    STORE[0] = str(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def narrow_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def options(tmp_path):
    tmp_path.chmod(0o755)
    return {
        "state": "present",
        "mode": "0600",
        "path": str(tmp_path / "mailfleet" / "starttls.pem"),
        "owner": ME,
        "group": MY_GROUP,
        "content": BUNDLE,
    }


def run(options, *, check_mode=False, **changes):
    given = {**options, **changes}
    wanted = BundleFile.of_options(given, given["group"], given["mode"])
    return engine.install(wanted, check_mode=check_mode, store=STORE[0])


def test_check_mode_predicts_and_writes_nothing(options, tmp_path):
    assert run(options, check_mode=True)["changed"] is True
    assert list(tmp_path.iterdir()) == []


def test_the_file_and_its_directory_are_made(options, tmp_path):
    first = run(options)
    path = tmp_path / "mailfleet" / "starttls.pem"
    assert first["changed"] is True and first["previous_certificate"] is None
    assert path.read_text() == BUNDLE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert first["diff"]["before"] == ""
    assert first["diff"]["after"].splitlines() == [
        f"certificate sha256: {pem.fingerprint(b'leaf')}",
        f"chain sha256: {pem.fingerprint(b'chain')}",
        "mode: 0600",
        f"owner: {os.getuid()}",
        f"group: {os.getgid()}",
    ]
    second = run(options)
    assert second["changed"] is False
    assert second["diff"]["before"] == second["diff"]["after"]


def test_no_result_shows_the_key(options):
    secret = KEY.text.splitlines()[1]
    for changes in ({}, {}, {"content": BUNDLE + "\n"}, {"mode": "0640"}, {"state": "absent"}):
        assert secret not in str(run(options, **changes))


def test_drift_of_the_mode_is_repaired(options):
    run(options)
    os.chmod(options["path"], 0o644)
    assert run(options, check_mode=True)["changed"] is True
    result = run(options)
    assert result["changed"] is True
    assert "mode: 0644" in result["diff"]["before"] and "mode: 0600" in result["diff"]["after"]
    assert stat.S_IMODE(os.stat(options["path"]).st_mode) == 0o600
    assert run(options)["changed"] is False


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_drift_of_the_owner_is_repaired(options):
    run(options)
    os.chown(options["path"], 12345, 54321)
    result = run(options)
    assert result["changed"] is True and "owner: 12345" in result["diff"]["before"]
    assert os.stat(options["path"]).st_uid == 0


def test_a_change_of_the_key_alone_is_seen_in_the_diff(options):
    run(options, content=BUNDLE.replace(KEY.text, pem.PemBlock("PRIVATE KEY", b"another").text))
    diff = run(options)["diff"]
    assert "different" in diff["before"] and "as wanted" in diff["after"]


def test_the_former_certificate_is_returned(options):
    run(options)
    renewed = BUNDLE.replace(pem.PemBlock("CERTIFICATE", b"leaf").text, pem.PemBlock("CERTIFICATE", b"new").text)
    assert run(options, content=renewed)["previous_certificate"] == pem.PemBlock("CERTIFICATE", b"leaf").text


def test_a_file_of_another_kind_is_not_replaced(options, tmp_path):
    """A wrong path, such as that of a system's file, must not cost it."""
    (tmp_path / "mailfleet").mkdir(mode=0o755)
    for other in (b"root:x:0:0:root:/root:/bin/bash\n", b"\x7fELF"):
        Path(options["path"]).write_bytes(other)
        for state in ("present", "absent"):
            with pytest.raises(
                EngineError, match="holds something else than a certificate, so it is not replaced or removed"
            ):
                run(options, state=state)
        assert Path(options["path"]).read_bytes() == other


def test_a_damaged_or_empty_certificate_is_replaced(options, tmp_path):
    (tmp_path / "mailfleet").mkdir(mode=0o755)
    for junk in (b"", b" \n", b"-----BEGIN X-----"):
        with open(options["path"], "wb") as file:
            file.write(junk)
        result = run(options)
        assert result["changed"] and result["previous_certificate"] is None
        assert "none that can be read" in result["diff"]["before"]


def test_absent_removes_the_file_once(options, tmp_path):
    run(options)
    assert run(options, state="absent", check_mode=True)["changed"] is True
    assert os.path.exists(options["path"])
    result = run(options, state="absent", content=None, owner="nobody-of-that-name")
    assert result["changed"] is True and result["diff"]["after"] == ""
    assert not os.path.exists(options["path"])
    assert run(options, state="absent")["changed"] is False
    # The directory was made by the installation. Only root keeps a record of that.
    assert (tmp_path / "mailfleet").is_dir() is bool(os.geteuid())
    assert os.geteuid() or not list((tmp_path / "store").glob("*.before"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps the record of what was there")
@pytest.mark.parametrize("edited", [False, True])
def test_absent_puts_back_the_file_that_was_there_before(options, tmp_path, edited):
    path = Path(options["path"])
    path.parent.mkdir()
    former = "-----BEGIN CERTIFICATE-----\nof the administrator\n-----END CERTIFICATE-----\n"
    path.write_text(former)
    path.chmod(0o640)
    run(options)
    if edited:
        path.write_text(former.replace("the administrator", "somebody else"))
    assert run(options, state="absent", content=None)["changed"] is True
    if edited:
        assert not path.exists()
        return
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (former, 0o640)
    assert path.parent.is_dir()


def test_without_the_action_plugin_nothing_happens(options, tmp_path):
    with pytest.raises(EngineError, match="without its action plugin"):
        run(options, content=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("relative.pem", "not absolute"),
        ("/etc/a\nb.pem", "line break"),
        ("/etc/a\x1bb.pem", "line break"),
        ("/etc/mailfleet/", "names a directory"),
        ("/etc/..", "names a directory"),
        ("", "not absolute"),
    ],
)
@pytest.mark.parametrize("state", ["present", "absent"])
def test_odd_paths(options, path, word, state):
    with pytest.raises(EngineError, match=word) as caught:
        run(options, path=path, state=state)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("value", "bits"), [("0600", 0o600), ("640", 0o640), (0o600, 0o600), ("0440", 0o440)])
def test_good_modes(value, bits):
    assert engine.parse_mode(value) == bits


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("0644", "mode 0644 does not fit"),
        ("0604", "does not fit"),
        ("0700", "does not fit"),
        ("0040", "does not fit"),
        ("4600", "does not fit"),
        (600, "mode 1130 does not fit"),
        (0o644, "mode 0644"),
        ("u=rw", "not an octal number"),
        ("0680", "not an octal number"),
        (None, "not an octal number"),
    ],
)
def test_bad_modes(value, word):
    with pytest.raises(EngineError, match=word):
        engine.parse_mode(value)


def test_unknown_accounts(options):
    with pytest.raises(EngineError, match=r"user no-such-user does not exist on this host$"):
        run(options, owner="no-such-user")
    with pytest.raises(EngineError, match=r"group no-such-group does not exist on this host$"):
        run(options, group="no-such-group")


def test_a_missing_group_of_exim_gets_a_hint(options, monkeypatch):
    def missing(name):
        raise KeyError(name)

    monkeypatch.setattr(engine.grp, "getgrnam", missing)
    with pytest.raises(EngineError, match="Debian-exim does not exist on this host: is Exim installed"):
        run(options, group="Debian-exim")


def test_accounts_by_number():
    assert engine.user_id("0") == engine.group_id("0") == 0


def test_a_user_who_is_not_root_is_told(options, monkeypatch):
    monkeypatch.setattr(engine.os, "geteuid", lambda: 4711)
    with pytest.raises(EngineError, match="set 'become: true'"):
        run(options, owner="0")


def test_a_directory_that_everybody_can_write(options, tmp_path):
    tmp_path.chmod(0o1777)  # sticky, with another directory below: like /tmp
    run(options)
    (tmp_path / "mailfleet").chmod(0o1777)
    with pytest.raises(EngineError, match=f"chmod o-w {tmp_path}/mailfleet"):
        run(options)
    (tmp_path / "mailfleet").chmod(0o755)
    tmp_path.chmod(0o777)
    with pytest.raises(EngineError, match=f"chmod o-w {tmp_path}'"):
        run(options)


def test_a_file_in_the_place_of_the_directory(options, tmp_path):
    (tmp_path / "mailfleet").write_text("")
    with pytest.raises(EngineError, match="is not a directory"):
        run(options)


def test_a_directory_in_the_place_of_the_file(options):
    os.makedirs(options["path"], mode=0o755)
    os.chmod(os.path.dirname(options["path"]), 0o755)
    with pytest.raises(OSError, match="is a directory, not a regular file"):
        run(options)


def test_a_file_that_is_too_long(options, tmp_path):
    (tmp_path / "mailfleet").mkdir(mode=0o755)
    with open(options["path"], "wb") as file:
        file.truncate(pem.MAX_BYTES + 1)
    with pytest.raises(OSError, match="longer than"):
        run(options)


@pytest.fixture
def exim(monkeypatch):
    """A host with Exim: a user and a group that are not root."""
    user = SimpleNamespace(pw_name="Debian-exim", pw_uid=4711, pw_gid=4712)
    monkeypatch.setattr(readers.pwd, "getpwall", lambda: [user])
    monkeypatch.setattr(readers.grp, "getgrgid", lambda gid: SimpleNamespace(gr_mem=[]))
    monkeypatch.setattr(readers.os, "getgrouplist", lambda name, gid: [gid, 4713])
    return user


@pytest.fixture
def closed(tmp_path):
    """A directory below /, with a closed one in it; the way to it is open."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(0o755)
    directory = tmp_path / "closed"
    directory.mkdir()
    directory.chmod(0o700)
    return directory


def test_the_group_has_to_reach_the_file(exim, closed):
    path = str(closed / "new" / "x.pem")
    with pytest.raises(EngineError, match=f"user Debian-exim could not read .*'chmod o.x {closed}'"):
        engine.check_directories(path, 0, exim.pw_gid, 0o640)
    engine.check_directories(path, 0, exim.pw_gid, 0o600)
    closed.chmod(0o711)
    engine.check_directories(path, 0, exim.pw_gid, 0o640)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(("uid", "gid", "bits", "who"), [(0, 4713, 0o710, "g"), (4711, 0, 0o700, "u")])
def test_every_way_to_pass_a_directory(exim, closed, uid, gid, bits, who):
    os.chown(closed, uid, gid)
    path = str(closed / "x.pem")
    closed.chmod(0o600)
    with pytest.raises(EngineError, match=f"chmod {who}.x"):
        engine.check_directories(path, uid, exim.pw_gid, 0o640)
    closed.chmod(bits)
    engine.check_directories(path, uid, exim.pw_gid, 0o640)


def test_a_group_that_nobody_is_in(exim, closed):
    with pytest.raises(EngineError, match="user of group 999 could not read"):
        engine.check_directories(str(closed / "x.pem"), 0, 999, 0o640)


def test_an_owner_has_to_reach_the_file_too(exim, closed, monkeypatch):
    monkeypatch.setattr(readers.pwd, "getpwuid", lambda uid: exim)
    with pytest.raises(EngineError, match="user Debian-exim could not read"):
        engine.check_directories(str(closed / "x.pem"), 4711, 0, 0o600)


def test_an_owner_without_a_name(closed):
    with pytest.raises(EngineError, match="user 3999999 could not read"):
        engine.check_directories(str(closed / "x.pem"), 3999999, 0, 0o600)


def test_a_group_without_a_name():
    assert [reader.name for reader in readers.readers_of(0, 3999999, 0o640)] == ["of group 3999999"]


def test_an_access_control_list_is_not_second_guessed(exim, closed, monkeypatch):
    monkeypatch.setattr(readers.os, "listxattr", lambda path: ["system.posix_acl_access"])
    engine.check_directories(str(closed / "x.pem"), 0, exim.pw_gid, 0o640)


def test_a_system_without_access_control_lists(exim, closed, monkeypatch):
    monkeypatch.delattr(readers.os, "listxattr")
    with pytest.raises(EngineError):
        engine.check_directories(str(closed / "x.pem"), 0, exim.pw_gid, 0o640)


def test_a_link_is_checked_where_it_leads(options, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    other.chmod(0o777)
    (tmp_path / "mailfleet").mkdir(mode=0o755)
    os.symlink(other / "real.pem", options["path"])
    with pytest.raises(EngineError, match=f"{other} can be written by everybody"):
        run(options)
    other.chmod(0o755)
    run(options)
    assert os.path.islink(options["path"]) and (other / "real.pem").read_text() == BUNDLE


STRANGER, SERVICE = 65534, 12345
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
BOTH = pytest.mark.parametrize("state", ["present", "absent"])


@pytest.fixture
def victim(tmp_path):
    """A file that nobody but root may touch; it has to stay as it is."""
    path = tmp_path / "shadow"
    path.write_bytes(b"secret")
    yield path
    assert path.read_bytes() == b"secret"


def place_of(options, uid, mode):
    place = os.path.dirname(options["path"])
    os.mkdir(place)
    os.chown(place, uid, uid)
    os.chmod(place, mode)
    return place


def link_of(uid, options, victim):
    os.symlink(victim, options["path"])
    os.lchown(options["path"], uid, uid)


@as_root
@BOTH
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_directory_of_somebody_else_is_refused(options, victim, state, check_mode):
    place = place_of(options, STRANGER, 0o755)
    link_of(STRANGER, options, victim)
    with pytest.raises(
        EngineError, match=rf"{place} belongs to .*'chown root {place}', or correct path \(starttls_cert"
    ):
        run(options, state=state, check_mode=check_mode)


@as_root
@BOTH
def test_a_directory_that_a_group_may_write_is_refused(options, victim, state, monkeypatch):
    place = place_of(options, 0, 0o775)
    os.chown(place, 0, SERVICE)
    link_of(0, options, victim)
    with pytest.raises(EngineError, match=f"{place} can be written by the group {SERVICE}"):
        run(options, state=state)


@as_root
@BOTH
def test_a_link_of_somebody_else_is_refused(options, tmp_path, victim, state):
    tmp_path.chmod(0o1777)
    place = f"{tmp_path}/mailfleet"
    os.symlink(tmp_path / "elsewhere", place)
    os.lchown(place, STRANGER, STRANGER)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(victim, tmp_path / "elsewhere/starttls.pem")
    with pytest.raises(EngineError, match=f"{place} is a link that .*{STRANGER}.* made"):
        run(options, state=state)


@as_root
def test_a_directory_of_the_files_owner(options, victim, monkeypatch):
    """The owner may read the key anyway, and root is not led elsewhere."""
    place_of(options, SERVICE, 0o755)
    own = {"owner": str(SERVICE), "group": str(SERVICE), "mode": "0600"}
    assert run(options, **own)["changed"]
    assert not run(options, **own)["changed"]
    assert os.stat(options["path"]).st_uid == SERVICE
    assert run(options, state="absent", **own)["changed"]
    link_of(SERVICE, options, victim)
    for state in ("present", "absent"):
        with pytest.raises(EngineError, match="is a link that"):
            run(options, state=state, **own)


@as_root
def test_links_of_root_are_followed(options, tmp_path):
    """As certbot makes them."""
    (tmp_path / "archive").mkdir(mode=0o755)
    (tmp_path / "live").mkdir(mode=0o755)
    os.symlink("../archive/one.pem", tmp_path / "live/starttls.pem")
    os.symlink("live", tmp_path / "mailfleet")
    run(options)
    assert (tmp_path / "archive/one.pem").read_text() == BUNDLE
    run(options, state="absent")
    assert os.listdir(tmp_path / "archive") == [] and os.path.islink(options["path"])


def test_a_monitor_that_reads_by_an_access_control_list_still_does_after_a_renewal(options):
    run(options)
    listed = packed_acl(6, 0, 0, {SERVICE: 4}, mask=4)
    set_acl(options["path"], listed)
    assert run(options)["changed"] is False
    assert run(options, content=BUNDLE + "\n")["changed"] is True
    assert os.getxattr(options["path"], NAME) == listed


@as_root
def test_it_waits_for_a_run_that_changes_a_daemon(options, monkeypatch):
    monkeypatch.setattr(engine, "host_locked", functools.partial(engine.host_locked, seconds=0.0))
    with daemon_locked("postfix", STORE[0]):
        with pytest.raises(EngineError, match="another run has been changing this host"):
            run(options)
        assert run(options, check_mode=True)["changed"] and not os.path.exists(options["path"])
    assert run(options)["changed"]
