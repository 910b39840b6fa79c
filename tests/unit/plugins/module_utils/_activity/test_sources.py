import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import shutil
import subprocess
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity import sources as log_source
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Clock, Tally
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.sources import (
    CHUNK,
    Found,
    Journal,
    LogFile,
    Pipe,
    SourceError,
    beginning,
    count,
    find,
    find_files,
    lines_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log import EximLog
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import LOG_LINE_BYTES
from hypothesis import given
from hypothesis import strategies as st

from tests.support.alarm import at_most
from tests.support.attacker import UID, needs_root, never_opened

NOW = 1767225600.0  # 2026-01-01T00:00:00Z
NO_TIME = re.compile(rb"(never)")
STAMP = EximLog.stamp

needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="this machine has no program zstd")


def content(source, since=0.0):
    return b"\n".join(line for lines, _size in source.chunks(NO_TIME, since) for line in lines)


def file_of(path, changed=NOW):
    os.utime(path, (changed, changed))
    return LogFile(str(path), path.stat().st_size, changed)


# Lines


@given(st.lists(st.binary(max_size=50)), st.integers(1, 64))
def test_lines_are_the_same_however_they_arrive(parts, chunk):
    data = b"\n".join(parts)
    original = log_source.CHUNK
    log_source.CHUNK = chunk
    try:
        seen = [line for lines, _size in lines_of(io.BytesIO(data)) for line in lines]
    finally:
        log_source.CHUNK = original
    wanted = data.replace(b"\r\n", b"\n").split(b"\n")
    assert seen == (wanted if wanted[-1] else wanted[:-1])


def test_a_line_without_end_is_cut_and_the_next_one_is_whole():
    data = b"x" * (CHUNK * 3) + b"\nnext\n" + b"y" * (CHUNK + 5)
    seen = [line for lines, _size in lines_of(io.BytesIO(data)) for line in lines]
    assert seen[0] == b"x" * LOG_LINE_BYTES
    assert seen[1] == b"next"
    assert len(seen) == 3
    assert len(seen[2]) == LOG_LINE_BYTES


def test_every_byte_is_counted():
    data = b"a\n" * CHUNK + b"z"
    assert sum(size for _lines, size in lines_of(io.BytesIO(data))) == len(data)


# Files


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, bz2.compress, lzma.compress, lambda data: gzip.compress(data[:6]) + gzip.compress(data[6:])],
)
def test_plain_and_compressed_files(tmp_path, pack):
    path = tmp_path / "mainlog.2"
    path.write_bytes(pack(b"first\nsecond\nthird"))
    assert content(file_of(path)) == b"first\nsecond\nthird"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:200] + b"\0" * 50 + data[250:]])
def test_a_damaged_file_counts_up_to_there(tmp_path, pack, damage):
    path = tmp_path / "log.gz"
    path.write_bytes(damage(pack(os.urandom(50000).hex().encode())))
    with pytest.raises(SourceError, match=re.escape(str(path))):
        content(file_of(path))


def with_dictionary(data: bytes, size: int) -> bytes:
    """An xz file whose block header asks for a dictionary of this size, which is a code of the format: 40 is 4 GiB."""
    packed = bytearray(lzma.compress(data, check=lzma.CHECK_NONE))
    length = (packed[12] + 1) * 4
    header = packed[12 : 12 + length]
    place = header.index(b"\x21\x01") + 2  # LZMA2, with one byte of properties
    header[place] = size
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    packed[12 : 12 + length] = header
    return bytes(packed)


def test_an_xz_file_does_not_decide_about_memory(tmp_path):
    path = tmp_path / "mainlog.2.xz"
    path.write_bytes(with_dictionary(b"first\nsecond", 28))  # 64 MiB, as xz -9
    assert content(file_of(path)) == b"first\nsecond"
    path.write_bytes(with_dictionary(b"first\nsecond", 29))  # 96 MiB
    with pytest.raises(SourceError, match="cannot be read: Memory usage limit exceeded"):
        content(file_of(path))


@pytest.mark.parametrize("between", [b"", b"\0" * 8, b"\0" * 600_000])
def test_an_xz_file_of_several_streams(tmp_path, between):
    path = tmp_path / "log.xz"
    path.write_bytes(lzma.compress(b"a\n" * 200_000) + between + lzma.compress(b"b") + between)
    assert content(file_of(path)) == b"a\n" * 200_000 + b"b"


@needs_zstd
def test_zstd_by_its_program(tmp_path):
    path = tmp_path / "log.zst"
    text = b"a line\n" * 50_000 + b"end"
    path.write_bytes(subprocess.run(["zstd", "-cq"], input=text, stdout=subprocess.PIPE, check=True).stdout)
    assert content(file_of(path)) == text
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SourceError, match=r"log\.zst: the compressed data cannot be read: zstd ended with status 1"):
        content(file_of(path))


@needs_zstd
def test_zstd_ends_with_its_reader(tmp_path):
    path = tmp_path / "log.zst"
    path.write_bytes(
        subprocess.run(["zstd", "-cq"], input=b"a line\n" * 10**6, stdout=subprocess.PIPE, check=True).stdout
    )
    reading = file_of(path).chunks(STAMP, 0)
    next(reading)
    with at_most(5):
        reading.close()


def test_a_host_without_zstd_says_so(tmp_path, monkeypatch):
    path = tmp_path / "log.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SourceError, match=r"log\.zst is compressed with zstd, and this host has no program zstd: install the"
    ):
        content(file_of(path))


def test_a_python_without_the_module_says_so(tmp_path, monkeypatch):
    path = tmp_path / "log.xz"
    path.write_bytes(lzma.compress(b"x"))
    monkeypatch.setitem(__import__("sys").modules, "lzma", None)
    with pytest.raises(SourceError, match="xz, which this host's Python cannot read"):
        content(file_of(path))


def test_files_that_are_gone_or_are_no_files(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        content(LogFile(str(tmp_path / "gone"), 1, NOW))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with at_most(5), pytest.raises(SourceError, match="is not a file"):
        content(LogFile(str(pipe), 1, NOW))


def test_files_are_found_once_and_the_oldest_first(tmp_path):
    for age, name in enumerate(("mail.log", "mail.log.1", "mail.log.2.gz")):
        path = tmp_path / name
        path.write_bytes(b"x")
        os.utime(path, (NOW - age, NOW - age))
    (tmp_path / "mail.log.link").symlink_to(tmp_path / "mail.log.1")
    (tmp_path / "mail.log.d").mkdir()
    os.mkfifo(tmp_path / "mail.log.pipe")
    found = find_files([f"{tmp_path}/mail.log*", f"{tmp_path}/mail.log.1"])
    assert [Path(one.path).name for one in found] == ["mail.log.2.gz", "mail.log.1", "mail.log"]


def test_a_directory_is_read_whole(tmp_path):
    (tmp_path / "mx1/old").mkdir(parents=True)
    (tmp_path / "mx2").mkdir()
    for name in ("mx1/mail.log", "mx1/old/mail.log.1", "mx2/mail.log"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "mx2/elsewhere").symlink_to("/etc")
    os.mkfifo(tmp_path / "mx2/pipe")
    found = {str(Path(one.path).relative_to(tmp_path)) for one in find_files([str(tmp_path)])}
    assert found == {"mx1/mail.log", "mx1/old/mail.log.1", "mx2/mail.log"}


def test_a_directory_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(log_source, "LOG_DIRECTORY_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(EngineError, match=r"logs: .* holds more than 2 files; name the ones to read"):
        find_files([str(tmp_path)])


# Pipes


def written(pipe, data):
    thread = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_named_pipe_is_read_to_its_end(tmp_path, pack):
    pipe, text = tmp_path / "pipe", b"a line\n" * 100_000 + b"end"
    os.mkfifo(pipe)
    (found,) = find([str(pipe)], "auto", EximLog(Tally(10), NOW, NOW + 60), NOW, NOW + 60).sources
    thread = written(pipe, pack(text))
    with at_most(30):
        assert content(found) == text
        thread.join()


def test_a_pipe_without_a_writer_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(log_source, "LOG_PIPE_SECONDS", 0.1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with (
        at_most(10),
        pytest.raises(SourceError, match=r"pipe: nothing came from the pipe within 0.1 s; does a program"),
    ):
        content(Pipe(str(pipe), NOW))


def test_zstd_comes_unpacked_out_of_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = written(pipe, b"\x28\xb5\x2f\xfd\x00\x00\x00")
    with at_most(10), pytest.raises(SourceError, match=r"pipe gives data of zstd; put zstd -dc before the pipe"):
        content(Pipe(str(pipe), NOW))
    thread.join()


def test_a_pipe_that_was_replaced_by_a_file_is_not_read(tmp_path):
    (tmp_path / "pipe").write_text("x")
    with pytest.raises(SourceError, match="is no pipe any more"):
        content(Pipe(str(tmp_path / "pipe"), NOW))


def test_patterns_have_to_be_absolute():
    with pytest.raises(EngineError, match=r"mail\.log is not an absolute path"):
        find_files(["mail.log"])


# The beginning of the window


def large_log(path, hours=4):
    """A line each second, a page of lines without a time in the middle."""
    lines = []
    for second in range(hours * 3600):
        lines.append(time.strftime("%Y-%m-%d %H:%M:%S +0000", time.gmtime(NOW + second)) + " " + "x" * 300)
        if second == hours * 1800:
            lines += ["no time"] * 2000
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_beginning_of_the_window_is_found_without_reading_it_all(tmp_path):
    path = large_log(tmp_path / "mainlog")
    size = path.stat().st_size
    for second in (0, 1, 3000, 7200, 7201, 14000, 14399):
        with path.open("rb") as raw:
            place = beginning(raw, size, STAMP, Clock(NOW), NOW + second)
            raw.seek(place)
            line = raw.readline()
        found = Clock(NOW).at(line[:25])
        assert found is None or found <= NOW + second, second
        assert place == 0 or (NOW + second - (found or NOW + second)) * 327 < CHUNK * 4, second


def test_a_small_window_of_a_large_file_is_read_fast(tmp_path):
    path = large_log(tmp_path / "mainlog")
    source = file_of(path, NOW + 14400)
    assert source.size > log_source.SEARCH_FROM
    whole = sum(size for _lines, size in source.chunks(STAMP, NOW))
    last = sum(size for _lines, size in source.chunks(STAMP, NOW + 14000))
    assert whole == source.size
    assert last < whole / 5


# The journal


@pytest.fixture
def journalctl(tmp_path, monkeypatch):
    """A journalctl that prints what it is told, and remembers how it was called."""
    directory = tmp_path / "bin"
    directory.mkdir()

    def install(script):
        program = directory / "journalctl"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{tmp_path}/arguments\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
        return tmp_path / "arguments"

    return install


def test_the_journal_is_asked_for_the_window(journalctl):
    arguments = journalctl("printf '1767225600.5 mx exim4[1]: hello\\n'")
    assert content(Journal(("SYSLOG_FACILITY=2",), NOW, NOW + 60)) == b"1767225600.5 mx exim4[1]: hello"
    asked = arguments.read_text().split()
    assert "--output=short-unix" in asked
    assert {"--since=@1767225600", "--until=@1767225661", "SYSLOG_FACILITY=2"} <= set(asked)


def test_a_journal_that_cannot_be_read(journalctl, monkeypatch, tmp_path):
    journalctl("echo half a line; exit 1")
    with pytest.raises(SourceError, match="journalctl ended with status 1"):
        content(Journal((), NOW, NOW))
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match="journalctl: No such file"):
        content(Journal((), NOW, NOW))


def test_a_journal_that_never_ends_is_left_when_enough_was_read(journalctl):
    journalctl("exec yes")
    with at_most(10):
        chunks = Journal((), NOW, NOW).chunks(NO_TIME, 0)
        assert next(chunks)[0]
        chunks.close()


# What is read


@pytest.fixture
def adapter():
    tally = Tally(10)
    log = EximLog(tally, NOW, NOW + 3600)
    log.tally = tally
    return log


LINE = "2026-01-01 00:10:00 +0000 1xVuM6-0000i7-2X <= a@alpha.test H=mx.partner.test [192.0.2.15] P=esmtp S=1\n"


def test_files_that_reach_into_the_window_are_read(tmp_path, adapter, journalctl):
    journalctl("exit 1")
    for name, changed in (("log.1", NOW - 7200), ("log", NOW + 600), ("log.0", NOW + 700)):
        (tmp_path / name).write_text(LINE if name != "log.0" else "")
        os.utime(tmp_path / name, (changed, changed))
    found = find([f"{tmp_path}/log*"], "auto", adapter, NOW, NOW + 3600)
    assert [Path(one.path).name for one in found.sources] == ["log"]
    assert (found.notes, found.reaches_back) == ([], True)
    activity = count(adapter, adapter.tally, found, NOW, NOW + 3600)
    assert activity["totals"]["inbound"]["messages_plaintext"] == 1
    assert (activity["lines"], activity["bytes"], activity["skipped_lines"]) == (1, len(LINE), 0)
    assert activity["sources"] == [str(tmp_path / "log")]
    assert (activity["since"], activity["until"]) == ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")
    assert activity["begins"] == "2026-01-01T00:10:00Z"
    assert [note["code"] for note in activity["notes"]] == ["sessions_by_message"]


@pytest.mark.parametrize(("journal", "read"), [("auto", True), ("true", True), ("false", False)])
def test_without_files_the_journal_is_read_unless_that_is_ruled_out(tmp_path, adapter, journalctl, journal, read):
    journalctl(f"printf '%s' '{LINE.replace('2026-01-01 00:10:00 +0000', '1767226200.1 mx exim4[3]:')}'")
    found = find([f"{tmp_path}/none*"], journal, adapter, NOW, NOW + 3600)
    activity = count(adapter, adapter.tally, found, NOW, NOW + 3600)
    assert activity["sources"] == (["journal"] if read else [])
    assert activity["totals"]["inbound"]["messages_plaintext"] == int(read)
    codes = [note["code"] for note in activity["notes"]]
    assert codes == (["sessions_by_message"] if read else ["no_log"])


def test_lines_that_the_journal_did_not_hand_on_are_said(tmp_path, adapter, journalctl, monkeypatch):
    monkeypatch.setattr(adapter, "globs", [f"{tmp_path}/log"])
    monkeypatch.setattr(adapter, "through_syslog", True)
    (tmp_path / "log").write_text(LINE)
    for script, wanted in (
        ("echo '1767225600.5 mx systemd-journald[18]: Forwarding to syslog missed 33 messages.'", ["lines_lost"]),
        ("", []),
        ("exit 1", []),
    ):
        journalctl(script)
        notes = find(adapter.globs, "auto", adapter, NOW, NOW + 3600).notes
        assert [note.code for note in notes] == wanted
        assert all("33 entries" in note.message for note in notes)
    journalctl("echo '1767225600.5 mx systemd-journald[18]: Forwarding to syslog missed 33 messages.'")
    assert find([f"{tmp_path}/lo?"], "auto", adapter, NOW, NOW + 3600).notes == []
    monkeypatch.setattr(adapter, "through_syslog", False)
    assert find(adapter.globs, "auto", adapter, NOW, NOW + 3600).notes == []


def test_a_file_that_cannot_be_read_does_not_keep_the_others(tmp_path, adapter):
    (tmp_path / "log.1.gz").write_bytes(gzip.compress(os.urandom(9000))[:-30])
    (tmp_path / "log").write_text(LINE)
    found = [file_of(tmp_path / "log.1.gz"), file_of(tmp_path / "log", NOW + 1)]
    activity = count(adapter, adapter.tally, Found(found), NOW, NOW + 3600)
    assert activity["totals"]["inbound"]["messages_plaintext"] == 1
    (note,) = [note for note in activity["notes"] if note["code"] == "unreadable"]
    assert str(tmp_path / "log.1.gz") in note["message"]


def test_a_log_that_begins_late_or_holds_nothing_says_so(tmp_path, adapter):
    (tmp_path / "log").write_text("nothing\n")
    activity = count(adapter, adapter.tally, Found([file_of(tmp_path / "log")]), NOW, NOW + 3600)
    assert [note["code"] for note in activity["notes"]] == ["no_lines"]
    assert activity["begins"] == ""
    (tmp_path / "log").write_text(LINE)
    activity = count(adapter, adapter.tally, Found([file_of(tmp_path / "log")]), NOW - 86400, NOW + 3600)
    assert "log_begins_late" in [note["code"] for note in activity["notes"]]
    older = Found([file_of(tmp_path / "log")], reaches_back=True)
    activity = count(adapter, adapter.tally, older, NOW - 86400, NOW + 3600)
    assert "log_begins_late" not in [note["code"] for note in activity["notes"]]


@pytest.mark.parametrize(("script", "reaches_back"), [("echo before", True), ("", False), ("exit 1", False)])
def test_the_journal_is_asked_whether_it_goes_back_before_the_window(
    tmp_path, adapter, journalctl, script, reaches_back
):
    arguments = journalctl(script)
    found = find([f"{tmp_path}/none"], "auto", adapter, NOW, NOW + 3600)
    assert found.reaches_back is reaches_back
    assert [one.path for one in found.sources] == ["journal"]
    assert {"--until=@1767225601", "--lines=1"} <= set(arguments.read_text().split())


def test_nothing_behind_the_window_is_read(tmp_path, adapter, monkeypatch):
    monkeypatch.setattr(log_source, "CHUNK", 1000)
    late = LINE.replace("00:10:00", "02:00:00")
    (tmp_path / "log").write_text(LINE + late * 100)
    activity = count(adapter, adapter.tally, Found([file_of(tmp_path / "log", NOW + 9999)]), NOW, NOW + 3600)
    assert activity["totals"]["inbound"]["messages_plaintext"] == 1
    assert activity["lines"] < 30


# Hostile lines


def counted(tmp_path, *lines, until=NOW):
    path = tmp_path / "mainlog"
    path.write_bytes(b"\n".join(lines))
    tally = Tally(10)
    return count(EximLog(tally, NOW - 86400, until), tally, Found([file_of(path)]), NOW - 86400, until)


MESSAGE = (
    b"2025-12-31 12:00:00 1vaQzL-000000002Xe-0aBc <= a@example.com H=mx.example.com [192.0.2.7] P=esmtps "
    b"X=TLS1.3:TLS_AES_256_GCM_SHA384:256"
)


@pytest.mark.parametrize("stamp", [b"9999-12-31T23:59:59-12:00", b"0001-01-01T00:00:00+14:00", b"99999999999.0"])
def test_a_first_line_of_any_time_does_not_end_the_count(tmp_path, stamp):
    result = counted(tmp_path, stamp + b" mx exim[7]: x", MESSAGE)
    assert result["totals"]["inbound"]["messages_tls"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result["begins"])


def test_a_line_of_the_future_does_not_end_the_count(tmp_path, monkeypatch):
    monkeypatch.setattr(log_source, "CHUNK", 200)
    future = b"2125-12-31 12:00:00 1vaQzL-000000002Xe-0aBc Completed"
    result = counted(tmp_path, *[future] * 20, MESSAGE)
    assert result["totals"]["inbound"]["messages_tls"] == 1


def test_the_count_ends_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(log_source, "LOG_RUN_SECONDS", 0.0)
    [note] = [one for one in counted(tmp_path, MESSAGE)["notes"] if one["code"] == "unreadable"]
    assert note["message"].endswith("the reading of the log needs more than 0 seconds, so the counts are not whole")


# A directory of somebody else


@needs_root
@pytest.mark.parametrize("kind", ["link", "second name", "way"])
def test_no_file_of_root_is_read_in_the_place_of_a_log(tmp_path, kind):
    """Exim's user owns the directory of its log, and this reads it as root."""
    logs, secret = tmp_path / "logs", tmp_path / "etc/secret"
    logs.mkdir()
    secret.parent.mkdir()
    secret.write_text("2026-01-01 00:00:00 secret\n")
    if kind == "second name":
        os.link(secret, logs / "mainlog")
    else:
        (logs / ("mainlog" if kind == "link" else "more")).symlink_to(secret if kind == "link" else secret.parent)
    os.chown(logs, UID, UID)
    for one in logs.iterdir():
        if one.is_symlink():
            os.chown(one, UID, UID, follow_symlinks=False)
    (logs / "mainlog.1").write_text("2026-01-01 00:00:00 mine\n")
    os.chown(logs / "mainlog.1", UID, UID)
    pattern = f"{logs}/more/secret" if kind == "way" else f"{logs}/mainlog"
    with contextlib.nullcontext() if kind == "second name" else never_opened(secret):
        files = find_files([pattern, f"{logs}/mainlog.1"])
        found = Found([replace(one, changed=NOW) for one in files])
        tally = Tally(10)
        counted = count(EximLog(tally, NOW, NOW + 60), tally, found, NOW, NOW + 60)
    assert counted["lines"] == 1
    [note] = [one for one in counted["notes"] if one["code"] == "unreadable"]
    assert re.search("is a link that|so others could have put it there", note["message"])


@needs_root
def test_a_link_of_root_to_a_log_is_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/log").write_text("x\n")
    os.chown(tmp_path / "elsewhere", UID, UID)
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere/log")
    [found] = find_files([f"{tmp_path}/log"])
    os.chown(tmp_path / "elsewhere/log", UID, UID)
    assert content(found) == b"x"
