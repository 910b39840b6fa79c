"""The record of what was there, kept by real transactions on real files."""

import dataclasses
import json
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

from tests.unit.plugins.module_utils._change.test_files import OLD, Host, as_root

ON = OLD.replace(b"tls = none", b"tls = may") + b"chain = ours\n"


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def record_of(host):
    return before.load(str(host.store), "fakemail")


def put_back(host, **options):
    """Put everything back, as uninstall does."""
    found = before.removal(str(host.store), "fakemail", **options)
    assert found.obstacles == ()
    if found.images:
        host.apply(*found.images)
    before.forget(str(host.store), "fakemail")
    return found


def test_the_first_state_is_kept_and_put_back_whatever_follows(host):
    for content in (ON, ON + b"more = 1\n", ON.replace(b"may", b"encrypt")):
        host.apply(host.image(content, 0o600))
    entry = record_of(host).files[str(host.config)]
    assert (entry.without.content, entry.without.mode) == (OLD, 0o640)
    assert not record_of(host).incomplete
    put_back(host)
    assert host.config.read_bytes() == OLD
    assert stat.S_IMODE(host.config.stat().st_mode) == 0o640
    assert not list(host.store.glob("*.before"))


def test_only_root_may_read_the_record(host):
    host.apply(host.image(ON))
    path = host.store / "fakemail.before"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(host.store.stat().st_mode) == 0o700
    assert b"hunter2" not in path.read_bytes()  # the files are base64, so nobody finds a word of them by searching


def test_files_and_directories_that_were_not_there_go(host):
    deep = host.directory / "a" / "b" / "c.cf"
    host.apply(host.image(ON), host.image(b"x\n", path=deep))
    put_back(host)
    assert not (host.directory / "a").exists()


def test_a_directory_with_a_file_of_somebody_else_stays(host):
    deep = host.directory / "a" / "b" / "c.cf"
    host.apply(host.image(b"x\n", path=deep))
    (host.directory / "a" / "mine").write_text("mine")
    put_back(host)
    assert [one.name for one in (host.directory / "a").iterdir()] == ["mine"]


def test_a_file_that_was_removed_comes_back(host):
    host.apply(host.image(None))
    put_back(host)
    assert host.config.read_bytes() == OLD


def test_a_path_that_is_as_before_again_leaves_the_record(host):
    host.apply(host.image(ON))
    host.apply(host.image(OLD))
    assert record_of(host).files == {}
    host.config.write_bytes(OLD + b"mine = 1\n")
    host.apply(host.image(ON))
    assert record_of(host).files[str(host.config)].without.content == OLD + b"mine = 1\n"


@pytest.mark.parametrize("then", [[], [b"later = 1\n"], [b"later = 1\n", b"last = 2\n"]])
def test_an_edit_by_hand_stays(host, then):
    host.apply(host.image(ON))
    host.config.write_bytes(ON + b"mine = 1\n")
    for line in then:
        host.apply(host.image(host.config.read_bytes().replace(b"chain", line + b"chain")))
    found = put_back(host)
    assert host.config.read_bytes() == OLD + b"mine = 1\n"
    assert found.kept == (() if then else (str(host.config),))


def test_an_edit_of_our_own_lines_is_named_and_refused(host):
    host.apply(host.image(ON))
    edited = ON.replace(b"tls = may", b"tls = encrypt\npassword = new")
    host.config.write_bytes(edited)
    found = before.removal(str(host.store), "fakemail")
    assert found.images == ()
    assert "tls = encrypt" in found.obstacles[0]
    assert str(host.config) in found.obstacles[0]
    assert "= new" not in found.obstacles[0]
    assert before.removal(str(host.store), "fakemail", leave=[str(host.config)]).obstacles == ()


def test_so_is_one_that_a_later_change_has_built_on(host):
    host.apply(host.image(ON))
    edited = ON.replace(b"chain = ours", b"chain = ours and mine")
    host.config.write_bytes(edited)
    host.apply(host.image(edited.replace(b"tls = may", b"tls = encrypt")))
    assert "ours and mine" in before.removal(str(host.store), "fakemail").obstacles[0]


def test_an_edit_that_a_later_change_has_undone_is_no_conflict(host):
    host.apply(host.image(ON))
    host.config.write_bytes(ON.replace(b"tls = may", b"tls = encrypt"))
    host.apply(host.image(ON))
    put_back(host)
    assert host.config.read_bytes() == OLD


def test_a_file_that_somebody_removed_or_put_back_is_left_alone(host):
    other = host.directory / "other"
    other.write_bytes(b"old\n")
    host.apply(host.image(ON), host.image(b"new\n", path=other))
    host.config.write_bytes(OLD)
    other.unlink()
    put_back(host)
    assert host.config.read_bytes() == OLD
    assert not other.exists()


def test_lines_that_somebody_added_to_a_file_of_ours_stay(host):
    made = host.directory / "macros"
    host.apply(host.image(b"OURS = 1\n", path=made))
    made.write_bytes(b"OURS = 1\nMINE = 2\n")
    put_back(host)
    assert made.read_bytes() == b"MINE = 2\n"


@as_root
def test_owner_and_mode_that_somebody_gave_a_file_stay(host):
    host.apply(host.image(ON))
    os.chown(host.config, 12345, 12346)
    host.config.chmod(0o660)
    put_back(host)
    status = host.config.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 12346, 0o660)
    assert host.config.read_bytes() == OLD


def test_a_key_is_kept_once_and_never_shown(host):
    key = host.directory / "key.pem"
    key.write_bytes(b"KEY of the administrator")
    secret = dataclasses.replace(host.image(b"KEY of ours", 0o600, key), secret=True)
    host.apply(host.image(ON), secret)
    text = json.dumps(record_of(host).to_json()["files"][0]["last"])
    assert json.loads(text)["content"] is None
    found = before.removal(str(host.store), "fakemail")
    assert "KEY" not in repr(found)
    assert "KEY" not in json.dumps(Change.of(found.images).diff())
    put_back(host)
    assert key.read_bytes() == b"KEY of the administrator"


def test_a_certificate_that_somebody_else_has_installed_since_stays_and_is_named(host):
    key = host.directory / "key.pem"
    host.apply(dataclasses.replace(host.image(b"KEY of ours", 0o600, key), secret=True))
    key.write_bytes(b"KEY of somebody else")
    assert put_back(host).kept == (str(key),)
    assert key.read_bytes() == b"KEY of somebody else"


# The record and the transaction


@pytest.mark.parametrize("where", ["check", "reload", "prove"])
def test_a_change_that_fails_leaves_the_record_as_it_was(host, where):
    host.apply(host.image(ON))
    former = (host.store / "fakemail.before").read_bytes()
    host.daemon.failures[where] = EngineError("no good")
    with pytest.raises(TransactionError):
        host.apply(host.image(b"other\n"))
    assert (host.store / "fakemail.before").read_bytes() == former


@pytest.mark.parametrize("where", ["check", "reload", "prove"])
@pytest.mark.parametrize("first", [True, False])
def test_a_killed_change_leaves_it_so_too_after_the_next_run(host, where, first):
    if not first:
        host.apply(host.image(ON))
        host.config.write_bytes(ON + b"mine = 1\n")
    host.die_in(where, host.image(ON.replace(b"may", b"encrypt")))
    assert host.recover() is True
    put_back(host)
    assert host.config.read_bytes() == (OLD if first else OLD + b"mine = 1\n")


@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("earlier", [True, False])
def test_two_merged_changes_that_are_undone_leave_the_record_before_both(host, dies, earlier):
    if earlier:
        host.apply(host.image(ON))
    former = record_of(host).files
    first = Change.of([host.image(ON + b"first = 1\n")])
    transaction = host.transaction()
    with transaction.locked():
        transaction.apply(first, host.daemon.prove, host.daemon.prove_old)
        second = Change.of([host.image(ON + b"second = 1\n")]).following(first)
        if not dies:
            host.daemon.failures["prove"] = EngineError("no good")
            with pytest.raises(TransactionError):
                transaction.apply(second, host.daemon.prove, host.daemon.prove_old)
    if dies:
        pid = os.fork()
        if pid == 0:
            host.daemon.prove = lambda: os._exit(9)
            with host.transaction().locked() as again:
                again.apply(second, host.daemon.prove, host.daemon.prove_old)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert host.recover() is True
    assert record_of(host).files == former
    put_back(host)
    assert host.config.read_bytes() == OLD


def test_a_change_that_is_taken_back_leaves_no_entry(host):
    change = Change.of([host.image(ON)])
    with host.transaction().locked() as transaction:
        transaction.apply(change, host.daemon.prove, host.daemon.prove_old, hold=True)
        transaction.take_back(host.daemon.prove_old, EngineError("no good"))
    assert record_of(host).files == {}


# Several writers, and other versions


def test_what_another_daemon_uses_stays_until_that_one_goes_too(host):
    shared = host.directory / "shared.pem"
    host.apply(host.image(ON), host.image(b"ours\n", path=shared))
    host.daemon.name = "othermail"
    host.apply(host.image(b"ours anew\n", path=shared))
    assert before.load(str(host.store), "othermail").files[str(shared)].without.content is None
    put_back(host)
    assert shared.exists()
    assert host.config.read_bytes() == OLD
    found = before.removal(str(host.store), "othermail")
    host.apply(*found.images)
    assert not shared.exists()


def test_a_certificate_that_was_installed_alone_goes_with_the_daemon_that_serves_it(host):
    bundle, elsewhere = host.directory / "tls" / "bundle.pem", host.directory / "dovecot.pem"
    store = str(host.store)
    host.apply(host.image(ON))
    for path in (bundle, elsewhere):
        image = host.image(b"KEY", 0o600, path)
        path.parent.mkdir(exist_ok=True)
        before.note(store, before.CERTIFICATES, [(FileImage.read(str(path)), image)], {})
        image.write()
    found = before.removal(store, "fakemail", certificates=[str(bundle)])
    host.apply(*found.images)
    before.forget(store, "fakemail", [str(bundle)])
    assert (bundle.exists(), elsewhere.exists()) == (False, True)
    assert set(before.load(store, before.CERTIFICATES).files) == {str(elsewhere)}


def test_a_host_that_a_version_without_records_has_changed_has_an_incomplete_one(host):
    host.store.mkdir(mode=0o700)
    (host.store / "fakemail.lock").touch()
    assert before.removal(str(host.store), "fakemail").incomplete
    host.apply(host.image(ON))
    assert record_of(host).incomplete
    assert before.removal(str(host.store), "fakemail").incomplete


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "files": [{}], "directories": {}}'])
def test_a_record_that_cannot_be_read_is_named_and_nothing_is_changed(host, text):
    host.apply(host.image(ON))
    (host.store / "fakemail.before").write_text(text)
    with pytest.raises(EngineError, match=r"fakemail\.before.*cannot be read"):
        host.apply(host.image(OLD))
    assert host.config.read_bytes() == ON


def test_a_record_of_a_newer_version_is_refused(host):
    host.apply(host.image(ON))
    path = host.store / "fakemail.before"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": before.RECORD_FORMAT + 1}))
    with pytest.raises(EngineError, match=r"newer mailfleet\.starttls"):
        host.apply(host.image(OLD))
    assert host.config.read_bytes() == ON


def test_the_kept_record_is_read(host):
    kept = (Path(__file__).parents[3] / "formats" / "before_1.json").read_text()
    host.store.mkdir()
    (host.store / "fakemail.before").write_text(kept)
    record = record_of(host)
    assert record.to_json() == json.loads(kept)
    assert record.files["/etc/postfix/main.cf"].without.content == OLD


def test_check_mode_leaves_no_record(host):
    with host.transaction().opened(check_mode=True):
        pass
    assert not host.store.exists()
