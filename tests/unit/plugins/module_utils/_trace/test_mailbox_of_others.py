"""A mailbox whose owner wants root to read or delete something else. He acts at the worst moment, not by luck."""

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import mailbox as mailbox_search
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import MARKER_HEADER, LocalMailbox
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.support.attacker import UID, attacker, give_away, needs_root, never_opened

pytestmark = needs_root

MESSAGE = f"Received: one\n{MARKER_HEADER}: a\n\nhello\n\n"
MBOX = f"From x\n{MESSAGE}"


@pytest.fixture
def home(tmp_path):
    """The home of the attacker."""
    place = tmp_path / "home"
    place.mkdir()
    give_away(place)
    return place


@pytest.fixture
def maildir(home):
    for folder in ("new", "cur", "tmp"):
        (home / "Maildir" / folder).mkdir(parents=True)
    give_away(home)
    return home / "Maildir"


@pytest.fixture
def etc(tmp_path):
    """A directory of root with a file that nobody else may read."""
    place = tmp_path / "etc"
    place.mkdir()
    (place / "shadow").write_text(MBOX)
    (place / "shadow").chmod(0o600)
    return place


def put(directory: Path, name: str, text: str = MESSAGE) -> None:
    (directory / name).write_text(text)
    give_away(directory / name)


@pytest.fixture
def at_the_worst_moment(monkeypatch):
    """Has somebody strike after a file was read, before anything is done because of it."""

    def prepare(strike):
        read = mailbox_search.received_of

        def received_of(headers):
            found = read(headers)
            strike()
            return found

        monkeypatch.setattr(mailbox_search, "received_of", received_of)

    return prepare


def exchange(directory, target):
    """What the attacker does: his directory becomes a link to another one."""

    def act():
        os.rename(directory, "elsewhere")
        os.symlink(target, directory)

    return act


def test_a_file_of_the_host_is_not_deleted_in_its_place(maildir, etc, at_the_worst_moment):
    put(maildir / "new", "shadow")
    with attacker(maildir, exchange("new", etc)) as strike:
        at_the_worst_moment(strike)
        LocalMailbox(str(maildir)).delete("a")
    assert (etc / "shadow").read_text() == MBOX
    assert list((maildir / "elsewhere").iterdir()) == []


def test_another_file_is_not_deleted_in_the_place_of_the_message(maildir, at_the_worst_moment):
    put(maildir / "new", "1.host")
    put(maildir / "cur", "keep", "Subject: keep\n\n")
    with attacker(maildir, lambda: os.replace("cur/keep", "new/1.host")) as strike:
        at_the_worst_moment(strike)
        with pytest.raises(EngineError, match="was exchanged while it was read"):
            LocalMailbox(str(maildir)).delete("a")
    assert (maildir / "new/1.host").read_text() == "Subject: keep\n\n"


def test_a_message_that_is_moved_while_it_is_deleted_is_deleted_there(maildir, at_the_worst_moment):
    put(maildir / "new", "1.host")
    with attacker(maildir, lambda: os.rename("new/1.host", "cur/1.host:2,S")) as strike:
        at_the_worst_moment(strike)
        LocalMailbox(str(maildir)).delete("a")
    assert [*(maildir / "new").iterdir(), *(maildir / "cur").iterdir()] == []


def test_the_lock_of_an_mbox_is_removed_where_it_was_made(home, etc, at_the_worst_moment):
    (home / "mail").mkdir()
    put(home / "mail", "box", MBOX)
    give_away(home)
    (etc / "box.lock").write_text("the host's")
    with attacker(home, exchange("mail", etc)) as strike:
        at_the_worst_moment(strike)
        LocalMailbox(str(home / "mail/box")).delete("a")
    assert (etc / "box.lock").read_text() == "the host's"
    assert [(one.name, one.read_text()) for one in (home / "elsewhere").iterdir()] == [("box", "")]


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("path", ["mail/shadow", "shadow", "Maildir"])
def test_no_link_of_the_owner_leads_elsewhere(home, etc, path, delete):
    (etc / "Maildir/new").mkdir(parents=True)
    (etc / "Maildir/new/1.host").write_text(MESSAGE)
    (home / path.partition("/")[0]).symlink_to(etc if "/" in path else etc / path)
    give_away(home)
    place = LocalMailbox(str(home / path))
    with pytest.raises(
        EngineError, match=r"is a link that .* made; give the path without this link, or correct the mail"
    ):
        place.delete("a") if delete else place.look(["a"])
    assert (etc / "shadow").read_text() == MBOX
    assert (etc / "Maildir/new/1.host").exists()


@pytest.mark.parametrize("there", ["new", ".Junk"])
def test_no_folder_of_a_maildir_leads_elsewhere(maildir, etc, there):
    (etc / "new").mkdir()
    (etc / "new/1.host").write_text(MESSAGE)
    if there == "new":
        (maildir / "new").rmdir()
    (maildir / there).symlink_to(etc / "new" if there == "new" else etc)
    give_away(maildir)
    place = LocalMailbox(str(maildir))
    assert place.look(["a"]) == {}
    place.delete("a")
    assert (etc / "new/1.host").exists()


@pytest.mark.parametrize("kind", ["pipe", "file", "device"])
def test_what_a_link_in_a_maildir_leads_to_is_not_even_opened(maildir, etc, kind):
    target = etc / "shadow" if kind == "file" else etc / kind
    try:
        if kind != "file":
            os.mknod(target, 0o600 | {"pipe": stat.S_IFIFO, "device": stat.S_IFCHR}[kind], os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no devices can be made here")
    (maildir / "new/1.host").symlink_to(target)
    give_away(maildir)
    with never_opened(target):
        assert LocalMailbox(str(maildir)).look(["a"]) == {}


def test_a_pipe_in_a_maildir_is_not_even_opened(maildir):
    os.mkfifo(maildir / "new/1.host")
    give_away(maildir)
    with never_opened(maildir / "new/1.host"):
        assert LocalMailbox(str(maildir)).look(["a"]) == {}


def test_a_second_name_of_a_file_that_the_owner_may_not_read(maildir, etc):
    os.link(etc / "shadow", maildir / "new/1.host")
    put(maildir / "new", "2.host", MESSAGE.replace(": a", ": b"))
    place = LocalMailbox(str(maildir))
    assert place.look(["a", "b"]) == {"b": ["one"]}
    assert place.unread == f"the owner of {maildir} may not read all of it"


def test_a_message_that_its_owner_may_not_delete_stays(maildir):
    put(maildir / "new", "1.host")
    (maildir / "new").chmod(0o555)
    with pytest.raises(EngineError, match=r"the owner of .* may not delete files in it"):
        LocalMailbox(str(maildir)).delete("a")
    assert (maildir / "new/1.host").exists()


def test_a_second_name_of_a_file_of_root_is_no_mailbox(home, etc):
    os.link(etc / "shadow", home / "box")
    for use in (lambda place: place.look(["a"]), lambda place: place.delete("a")):
        with pytest.raises(EngineError, match=r"belongs to root .* and has another name elsewhere"):
            use(LocalMailbox(str(home / "box")))
    assert (etc / "shadow").read_text() == MBOX


@pytest.mark.parametrize("kind", ["Maildir", "mbox"])
@pytest.mark.parametrize("use", ["look", "delete"])
def test_it_works_with_the_rights_of_the_owner(home, maildir, monkeypatch, kind, use):
    path = maildir if kind == "Maildir" else home / "box"
    put(*(maildir / "new", "1.host") if kind == "Maildir" else (home, "box", MBOX))
    seen = []
    read = mailbox_search.received_of
    monkeypatch.setattr(
        mailbox_search, "received_of", lambda headers: seen.append((os.geteuid(), os.getegid())) or read(headers)
    )
    place = LocalMailbox(str(path))
    assert place.look(["a"]) == {"a": ["one"]} if use == "look" else place.delete("a") is None
    assert seen == [(UID, UID)]
    assert (os.geteuid(), os.getegid()) == (0, 0)
    monkeypatch.setattr(mailbox_search, "received_of", lambda _headers: 1 / 0)
    put(*(maildir / "new", "2.host") if kind == "Maildir" else (home, "box", MBOX + MBOX))
    with pytest.raises(ZeroDivisionError):
        place.look(["a"]) if use == "look" else place.delete("a")
    assert (os.geteuid(), os.getegid()) == (0, 0)
    assert not (home / "box.lock").exists()


def test_a_folder_of_somebody_else_in_a_maildir_of_root(maildir, monkeypatch):
    os.chown(maildir, 0, 0)
    put(maildir / "new", "1.host")
    seen = []
    monkeypatch.setattr(mailbox_search, "received_of", lambda _headers: seen.append(os.geteuid()) or ("a", []))
    LocalMailbox(str(maildir)).delete("a")
    assert (seen, list((maildir / "new").iterdir())) == ([UID], [])


@pytest.mark.parametrize(
    ("spool_group", "spool_mode", "box_group", "locker"), [(8, 0o2775, 8, UID), (0, 0o755, UID, 0), (8, 0o775, UID, 0)]
)  # fmt: skip
def test_an_mbox_in_a_spool(tmp_path, monkeypatch, spool_group, spool_mode, box_group, locker):
    """Its owner has the rights of the mbox's group there, as with the group mail. If they are not enough, root makes the lock."""
    spool = tmp_path / "spool"
    spool.mkdir()
    os.chown(spool, 0, spool_group)
    spool.chmod(spool_mode)
    put(spool, "box", MBOX)
    os.chown(spool / "box", UID, box_group)
    (spool / "box").chmod(0o660)
    link = tmp_path / "link"
    link.symlink_to(spool)  # root's, such as /var/spool/mail
    locks = []
    read = mailbox_search.received_of
    opened = os.open(spool, os.O_RDONLY)  # the owner could not walk there in this test

    def received_of(headers):
        locks.append(os.stat("box.lock", dir_fd=opened).st_uid)
        return read(headers)

    monkeypatch.setattr(mailbox_search, "received_of", received_of)
    LocalMailbox(str(link / "box")).delete("a")
    os.close(opened)
    assert locks == [locker]
    assert [(one.name, one.read_text()) for one in spool.iterdir()] == [("box", "")]
