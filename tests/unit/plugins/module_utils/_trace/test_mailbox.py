import fcntl
import os
import signal
import tracemalloc
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import mailbox as mailbox_search
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import mbox as mbox_file
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import MARKER_HEADER, LocalMailbox
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mbox import MAX_HEADER_LINE
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.alarm import at_most
from tests.support.mailbox import find_marked


def message(marker="m-1", received=("from a by b with ESMTPS id 1; x",), more="", body="hello\n", separator=True):
    head = "From trace@partner.test  Mon Nov 23 17:00:00 2026\n" if separator else ""
    head += "".join(f"Received: {one}\n" for one in received)
    head += f"From: trace@partner.test\n{more}"
    if marker:
        head += f"{MARKER_HEADER}: {marker}\n"
    return f"{head}Subject: test\n\n{body}\n".encode("utf-8", "surrogateescape")


@pytest.fixture
def mbox(tmp_path):
    """Writes an mbox and returns its path."""

    def write(*messages):
        path = tmp_path / "trace"
        path.write_bytes(b"".join(messages))
        return str(path)

    return write


@pytest.fixture
def maildir(tmp_path):
    for folder in ("new", "cur", "tmp"):
        (tmp_path / "Maildir" / folder).mkdir(parents=True)
    return tmp_path / "Maildir"


def test_the_marked_messages_of_several(mbox):
    path = mbox(message(None), message("a", ["one", "two"]), message("b", ["three"]), message("c"), message(None))
    assert find_marked(path, ["a", "b", "d"]) == {"a": ["one", "two"], "b": ["three"]}


def test_received_headers_keep_their_order_and_their_folds(mbox):
    folded = "from a ([192.0.2.1])\n\tby b (Postfix) with ESMTPS id 1;\n\tMon, 23 Nov 2026 17:00:00 +0000"
    assert find_marked(mbox(message("a", [folded, "second"])), {"a"}) == {"a": [folded, "second"]}


def test_a_folded_marker(mbox):
    marker = "m" * 64
    assert list(find_marked(mbox(message("\n " + marker)), [marker])) == [marker]


def test_a_header_name_in_any_case(mbox):
    path = mbox(message(None, more="x-mailfleet-trace: a\n"))
    assert "a" in find_marked(path, ["a"])


def test_lines_that_end_with_crlf(mbox):
    path = mbox(message("a", ["one"]).replace(b"\n", b"\r\n"), message("b", ["two"]).replace(b"\n", b"\r\n"))
    assert find_marked(path, ["a", "b"]) == {"a": ["one"], "b": ["two"]}


def test_a_marker_in_the_body_does_not_count(mbox):
    quoted = f"You wrote:\n{MARKER_HEADER}: a\nReceived: from forged by forged with ESMTPS\n"
    assert find_marked(mbox(message(None, body=quoted)), ["a"]) == {}


@pytest.mark.parametrize("more", [f"Subject: {MARKER_HEADER}: a\n", f"X-Other: x\n {MARKER_HEADER}: a\n"])
def test_a_marker_in_another_header_does_not_count(mbox, more):
    assert find_marked(mbox(message(None, more=more)), ["a"]) == {}


def test_a_bounce_that_quotes_the_message_does_not_count(mbox):
    quoted = message("a", separator=False).decode()
    assert find_marked(mbox(message(None, body=f"--x\nContent-Type: message/rfc822\n\n{quoted}--x--\n")), ["a"]) == {}


def test_another_marker_or_part_of_one_does_not_count(mbox):
    path = mbox(message("abc"))
    assert find_marked(path, ["a", "abcd", ""]) == {}


def test_from_at_the_beginning_of_a_line_of_the_body(mbox):
    body = f"text\nFrom here on\n{MARKER_HEADER}: b\n\n>From quoted\n{MARKER_HEADER}: b\n"
    path = mbox(message("a", ["one"], body=body), message("c", ["two"]))
    assert find_marked(path, ["a", "b", "c"]) == {"a": ["one"], "c": ["two"]}


def test_a_message_without_received_headers(mbox):
    assert find_marked(mbox(message("a", [])), ["a"]) == {"a": []}


def test_a_message_without_a_body_and_one_that_is_cut_off(mbox):
    whole = message("a", ["one"], body="")
    cut = f"From x\nReceived: two\n{MARKER_HEADER}: b".encode()
    assert find_marked(mbox(whole, cut), ["a", "b"]) == {"a": ["one"], "b": ["two"]}


def test_a_mailbox_that_does_not_exist_yet(tmp_path):
    assert find_marked(str(tmp_path / "nobody"), ["a"]) == {}


@pytest.mark.parametrize("content", [b"", b"\n\n\n", b"no mbox at all\n", b"\0" * 200000, bytes(range(256)) * 10])
def test_a_file_with_no_message(mbox, content):
    assert find_marked(mbox(content), ["a"]) == {}


def test_a_mailbox_that_cannot_be_read(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        find_marked(str(tmp_path / "file" / "mailbox"), ["a"])


def test_bytes_outside_ascii(mbox):
    path = mbox(message("a", ["from caf\udce9 by b"], more="Subject: \udcff\n"), message("b", ["two"]))
    found = find_marked(path, ["a", "b"])
    assert found["b"] == ["two"]
    assert found["a"][0].startswith("from caf") and found["a"][0].encode()


def test_huge_lines_are_passed_over(mbox):
    huge = "x" * (3 * MAX_HEADER_LINE + 100)
    path = mbox(
        message("a", ["one"], more=f"X-Huge: {huge}\n", body=f"{huge}\n"),
        message("b", ["two"], body=f"{huge}\nFrom {huge}\n"),
        message("c", ["three"]),
    )
    assert find_marked(path, ["a", "b", "c"]) == {"a": ["one"], "b": ["two"], "c": ["three"]}


def test_a_header_line_as_long_as_what_is_read_at_once(mbox):
    line = "X-Huge: " + "x" * (MAX_HEADER_LINE - len("X-Huge: "))
    assert find_marked(mbox(message("a", ["one"], more=f"{line}\n")), ["a"]) == {"a": ["one"]}


@pytest.mark.parametrize(
    "length", [MAX_HEADER_LINE - 1, MAX_HEADER_LINE, MAX_HEADER_LINE + 1, 2 * MAX_HEADER_LINE, 2 * MAX_HEADER_LINE + 1]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_header_line_of_any_length_takes_no_other_with_it(mbox, length, end):
    line = "X-Huge: ".ljust(length - len(end), "x")
    text = message("a", ["one"], more=f"{line}\n").decode().replace("\n", end).encode()
    assert find_marked(mbox(text, message("b", ["two"])), ["a", "b"]) == {"a": ["one"], "b": ["two"]}


def test_a_body_line_as_long_as_what_is_read_at_once(mbox):
    body = "x" * MAX_HEADER_LINE + f"\nFrom here on\n{MARKER_HEADER}: b\n"
    assert find_marked(mbox(message("a", ["one"], body=body)), ["b"]) == {}


def test_endless_headers_are_cut_off(mbox):
    assert find_marked(mbox(message("a", ["one"], more="X-More: x\n" * 30000), message("b", ["two"])), ["a", "b"]) == {
        "b": ["two"]
    }


def test_only_the_end_of_a_large_mbox_is_read(mbox, monkeypatch):
    last = message("b", ["two"])
    path = mbox(message("a", ["one"], body="x\n" * 1000), last)
    monkeypatch.setattr(mbox_file, "MAILBOX_LOOK_BYTES", len(last) + 100)
    assert find_marked(path, ["a", "b"]) == {"b": ["two"]}


# Maildir


def test_a_maildir_has_new_messages_and_old_ones(maildir):
    (maildir / "new" / "1.host").write_bytes(message("a", ["one"], separator=False))
    (maildir / "cur" / "2.host:2,S").write_bytes(message("b", ["two"], separator=False))
    (maildir / "cur" / "3.host:2,S").write_bytes(message(None, separator=False, body=f"{MARKER_HEADER}: c\n"))
    (maildir / "tmp" / "4.host").write_bytes(message("d", separator=False))
    assert find_marked(str(maildir), ["a", "b", "c", "d"]) == {"a": ["one"], "b": ["two"]}


def test_a_huge_header_in_a_maildir(maildir):
    huge = f"X-Huge: {'x' * 2 * MAX_HEADER_LINE}\n"
    (maildir / "new" / "1.host").write_bytes(message("a", ["one"], more=huge, separator=False))
    assert find_marked(str(maildir), ["a"]) == {"a": ["one"]}


def test_an_empty_maildir_and_a_directory_that_is_none(maildir, tmp_path):
    assert find_marked(str(maildir), ["a"]) == {}
    assert find_marked(str(tmp_path), ["a"]) == {}


def test_a_message_that_is_moved_while_the_maildir_is_read(maildir):
    (maildir / "new" / "1.host").symlink_to("moved")  # listed, and gone when it is opened
    (maildir / "cur" / "2.host:2,S").write_bytes(message("b", ["two"], separator=False))
    assert find_marked(str(maildir), ["b"]) == {"b": ["two"]}


def test_the_folders_of_a_maildir(maildir):
    for folder in (".Junk", ".Lists.tls", "plain"):
        for part in ("new", "cur"):
            (maildir / folder / part).mkdir(parents=True)
    (maildir / ".Junk" / "new" / "1.host").write_bytes(message("a", ["one"], separator=False))
    (maildir / ".Lists.tls" / "cur" / "2.host:2,").write_bytes(message("b", ["two"], separator=False))
    (maildir / "plain" / "new" / "3.host").write_bytes(message("c", ["three"], separator=False))
    assert find_marked(str(maildir), ["a", "b", "c"]) == {"a": ["one"], "b": ["two"]}
    assert find_marked(str(maildir / ".Junk"), ["a", "b"]) == {"a": ["one"]}


def test_only_the_newest_messages_of_a_large_maildir_are_read(maildir, monkeypatch):
    monkeypatch.setattr(mailbox_search, "MAILBOX_FILES", 2)
    for time in ("9", "10", "11"):
        (maildir / "new" / f"{time}.host").write_bytes(message(f"m-{time}", ["one"], separator=False))
    assert sorted(find_marked(str(maildir), ["m-9", "m-10", "m-11"])) == ["m-10", "m-11"]


def test_a_pipe_in_a_maildir_is_passed_over(maildir):
    os.mkfifo(maildir / "new" / "1.host")
    (maildir / "new" / "2.host").write_bytes(message("b", ["two"], separator=False))
    assert find_marked(str(maildir), ["b"]) == {"b": ["two"]}


# Looking again


def test_a_second_look_reads_only_what_is_new(mbox, maildir, monkeypatch):
    place = LocalMailbox(str(maildir))
    (maildir / "new" / "1.host").write_bytes(message("a", ["one"], separator=False))
    assert place.look(["a", "b"]) == {"a": ["one"]}
    (maildir / "new" / "1.host").rename(maildir / "cur" / "1.host:2,S")
    (maildir / "new" / "2.host").write_bytes(message("b", ["two"], separator=False))
    assert place.look(["a", "b"]) == {"b": ["two"]}
    assert place.look(["a", "b"]) == {}
    assert place.look(["a", "b", "c"]) == {"a": ["one"], "b": ["two"]}  # asked for something else

    path = mbox(message("a", ["one"]))
    place = LocalMailbox(path)
    assert place.look(["a", "b"]) == {"a": ["one"]}
    monkeypatch.setattr(mbox_file, "messages", None)
    assert place.look(["b"]) == {}
    monkeypatch.undo()
    with open(path, "ab") as handle:
        handle.write(message("b", ["two"]))
    assert place.look(["b"]) == {"b": ["two"]}


# Removing


@pytest.mark.parametrize("marker", ["a", "b", "c"])
def test_a_message_is_cut_out_of_an_mbox(mbox, marker):
    parts = {
        None: message(None),
        "a": message("a", body="one\nFrom me\n"),
        "b": message("b"),
        "c": message("c", body=""),
    }
    path = mbox(*parts.values())
    LocalMailbox(path).delete(marker)
    assert Path(path).read_bytes() == b"".join(part for name, part in parts.items() if name != marker)
    assert not os.path.exists(f"{path}.lock")


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.text("x\n >From", max_size=30)), max_size=6))
def test_whatever_stands_around_it_stays(tmp_path_factory, messages):
    path = tmp_path_factory.mktemp("mail") / "box"
    parts = [
        (marker, message(marker, body=body.replace("\nFrom ", "\n>From ").lstrip() + "\n")) for marker, body in messages
    ]
    path.write_bytes(b"".join(part for _, part in parts))
    LocalMailbox(str(path)).delete("a")
    assert path.read_bytes() == b"".join(part for marker, part in parts if marker != "a")


def test_a_marker_that_is_not_there_removes_nothing(mbox):
    before = message("abc") + message(None, body=f"{MARKER_HEADER}: a\n")
    path = mbox(before)
    LocalMailbox(path).delete("a")
    assert Path(path).read_bytes() == before


def test_a_locked_mbox_stays_as_it_is(mbox, monkeypatch):
    monkeypatch.setattr(mailbox_search, "MAILBOX_LOCK_SECONDS", 0.2)
    path = mbox(message("a"))
    Path(f"{path}.lock").touch()
    with pytest.raises(EngineError, match="is locked by another program"):
        LocalMailbox(path).delete("a")
    assert os.path.exists(f"{path}.lock")
    os.unlink(f"{path}.lock")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:  # a lock of fcntl's is a process's
        with open(path, "r+b") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX)
            os.write(writer, b"x")
            os.close(writer)
            signal.pause()
        os._exit(0)
    try:
        os.read(reader, 1)
        with pytest.raises(EngineError, match="is locked by another program"):
            LocalMailbox(path).delete("a")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert find_marked(path, ["a"]) != {}
    assert not os.path.exists(f"{path}.lock")


def test_no_link_is_followed_to_remove_something(mbox, tmp_path):
    path = mbox(message("a"))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError):
        LocalMailbox(str(tmp_path / "link")).delete("a")
    assert find_marked(path, ["a"]) != {}


def test_a_file_is_taken_out_of_a_maildir(maildir):
    for number, marker in enumerate(["a", "b", "a"]):
        (maildir / "new" / f"{number}.host").write_bytes(message(marker, separator=False))
    place = LocalMailbox(str(maildir))
    place.look(["a"])
    place.delete("a")
    assert [file.name for file in (maildir / "new").iterdir()] == ["1.host"]


def test_neither_a_file_nor_a_directory(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EngineError, match="neither an mbox file nor a Maildir"):
        find_marked(str(tmp_path / "pipe"), ["a"])


# Limits


@pytest.fixture
def endless(tmp_path):
    """Makes a file that seems to be a line of 8 TiB, and takes no space."""

    def make(path, text=b""):
        path.write_bytes(text)
        os.truncate(path, 8 << 40)

    try:
        make(tmp_path / "trial")
    except OSError:
        pytest.skip("this file system cannot hold such a file")
    return make


@pytest.mark.parametrize("use", ["look", "delete"])
def test_a_line_without_an_end(maildir, tmp_path, endless, use):
    endless(maildir / "new" / "1.host")
    (maildir / "new" / "2.host").write_bytes(message("a", ["one"], separator=False))
    endless(tmp_path / "box", message("a"))
    for path in (maildir, tmp_path / "box"):
        place = LocalMailbox(str(path))
        with at_most(10):
            found = place.look(["a"]) if use == "look" else place.delete("a")
        assert found == ({"a": ["one"]} if use == "look" and path == maildir else {} if use == "look" else None)
        assert place.unread == ""


@pytest.mark.parametrize("kind", ["Maildir", "mbox"])
def test_headers_take_little_memory(maildir, tmp_path, kind):
    """2,000 header lines of 64 KiB took a gigabyte."""
    path = maildir / "new" / "1.host" if kind == "Maildir" else tmp_path / "box"
    with path.open("wb") as file:
        file.write(f"From x\n{MARKER_HEADER}: a\n".encode())
        for _ in range(800):
            file.write(b"X-Huge: " + b"x" * MAX_HEADER_LINE + b"\n")
    tracemalloc.start()
    try:
        assert find_marked(str(maildir if kind == "Maildir" else path), ["a"]) == {}
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_many_messages_are_cut_out_in_one_pass(mbox):
    """2,000 of them took 26 s, and four times as many took more than 16 times as long."""
    path = mbox(message("b"), *[message("a", ["x"], body="") + message(None, body="")] * 4000, message("b"))
    with at_most(20):
        LocalMailbox(path).delete("a")
    assert Path(path).read_bytes() == message("b") + message(None, body="") * 4000 + message("b")


def test_a_look_ends_in_time_wherever_it_is(mbox, maildir, monkeypatch):
    place = LocalMailbox(mbox(b"\n" * (1 << 20)), seconds=0.01)
    assert place.look(["a"]) == {}
    assert place.unread == f"a look into {place._path} needs more than 0.01 seconds"
    with pytest.raises(EngineError, match=r"needs more than 0\.01 seconds"):
        place.delete("a")
    assert Path(place._path).stat().st_size == 1 << 20
    place = LocalMailbox(str(maildir), seconds=0.0)
    (maildir / ".Junk").mkdir()
    assert place.look(["a"]) == {}
    assert place.unread


def test_the_next_look_goes_on_where_this_one_ended(maildir, monkeypatch):
    monkeypatch.setattr(mailbox_search, "MAILBOX_LOOK_BYTES", 1000)
    for number in range(10):
        (maildir / "new" / f"{number}.host").write_bytes(
            message(f"m-{number}", separator=False, more=f"X: {'x' * 100}\n")
        )
    place = LocalMailbox(str(maildir))
    wanted = [f"m-{number}" for number in range(10)]
    looks = []
    while not looks or place.unread:
        looks.append(place.look(wanted))
        assert place.unread in ("", f"a look into {maildir} needs more than 1000 bytes")
    assert 2 <= len(looks) <= 5
    assert sorted(marker for look in looks for marker in look) == wanted


def test_no_more_names_are_kept_than_that(maildir, monkeypatch):
    monkeypatch.setattr(mailbox_search, "MAILBOX_MESSAGES", 2)
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(message(f"m-{number}", separator=False))
    place = LocalMailbox(str(maildir))
    assert sorted(place.look(["m-0", "m-1", "m-2"])) == ["m-1", "m-2"]
    assert place.unread == f"{maildir} needs more than 2 messages"


def test_a_program_that_ignores_the_locks_cannot_hold_the_delete(mbox, monkeypatch):
    path = mbox(message("a"), message("b"))
    read = os.pread

    def written_meanwhile(fd, size, offset):
        with open(path, "ab") as file:
            file.write(b"x" * 100)
        return read(fd, size, offset)

    monkeypatch.setattr(os, "pread", written_meanwhile)
    monkeypatch.setattr(mbox_file, "MAILBOX_LOOK_BYTES", 5000)
    with at_most(10), pytest.raises(EngineError, match="needs more than 10000 bytes"):
        LocalMailbox(path).delete("a")
    assert message("b") in Path(path).read_bytes()
