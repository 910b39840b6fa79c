import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils import mailbox_search
from ansible_collections.mailfleet.starttls.plugins.module_utils.mailbox_search import (
    MARKER_HEADER,
    MAX_LINE,
    find_marked,
)


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
    huge = "x" * (3 * MAX_LINE + 100)
    path = mbox(
        message("a", ["one"], more=f"X-Huge: {huge}\n", body=f"{huge}\n"),
        message("b", ["two"], body=f"{huge}\nFrom {huge}\n"),
        message("c", ["three"]),
    )
    assert find_marked(path, ["a", "b", "c"]) == {"a": ["one"], "b": ["two"], "c": ["three"]}


def test_a_header_line_as_long_as_what_is_read_at_once(mbox):
    line = "X-Huge: " + "x" * (MAX_LINE - len("X-Huge: "))
    assert find_marked(mbox(message("a", ["one"], more=f"{line}\n")), ["a"]) == {"a": ["one"]}


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE, 2 * MAX_LINE + 1])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_header_line_of_any_length_takes_no_other_with_it(mbox, length, end):
    line = "X-Huge: ".ljust(length - len(end), "x")
    text = message("a", ["one"], more=f"{line}\n").decode().replace("\n", end).encode()
    assert find_marked(mbox(text, message("b", ["two"])), ["a", "b"]) == {"a": ["one"], "b": ["two"]}


def test_a_body_line_as_long_as_what_is_read_at_once(mbox):
    body = "x" * MAX_LINE + f"\nFrom here on\n{MARKER_HEADER}: b\n"
    assert find_marked(mbox(message("a", ["one"], body=body)), ["b"]) == {}


def test_endless_headers_are_cut_off(mbox):
    assert find_marked(mbox(message("a", ["one"], more="X-More: x\n" * 3000), message("b", ["two"])), ["a", "b"]) == {
        "b": ["two"]
    }


def test_only_the_end_of_a_large_mbox_is_read(mbox, monkeypatch):
    last = message("b", ["two"])
    path = mbox(message("a", ["one"], body="x\n" * 1000), last)
    monkeypatch.setattr(mailbox_search, "MAX_TAIL", len(last) + 100)
    assert find_marked(path, ["a", "b"]) == {"b": ["two"]}


# Maildir


def test_a_maildir_has_new_messages_and_old_ones(maildir):
    (maildir / "new" / "1.host").write_bytes(message("a", ["one"], separator=False))
    (maildir / "cur" / "2.host:2,S").write_bytes(message("b", ["two"], separator=False))
    (maildir / "cur" / "3.host:2,S").write_bytes(message(None, separator=False, body=f"{MARKER_HEADER}: c\n"))
    (maildir / "tmp" / "4.host").write_bytes(message("d", separator=False))
    assert find_marked(str(maildir), ["a", "b", "c", "d"]) == {"a": ["one"], "b": ["two"]}


def test_a_huge_header_in_a_maildir(maildir):
    huge = f"X-Huge: {'x' * 2 * MAX_LINE}\n"
    (maildir / "new" / "1.host").write_bytes(message("a", ["one"], more=huge, separator=False))
    assert find_marked(str(maildir), ["a"]) == {"a": ["one"]}


def test_an_empty_maildir_and_a_directory_that_is_none(maildir, tmp_path):
    assert find_marked(str(maildir), ["a"]) == {}
    assert find_marked(str(tmp_path), ["a"]) == {}


def test_a_message_that_is_moved_while_the_maildir_is_read(maildir):
    (maildir / "new" / "1.host").symlink_to("moved")  # listed, and gone when it is opened
    (maildir / "cur" / "2.host:2,S").write_bytes(message("b", ["two"], separator=False))
    assert find_marked(str(maildir), ["b"]) == {"b": ["two"]}
