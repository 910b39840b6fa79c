"""Who used old TLS versions, by the log files."""

import gzip
import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity import old_versions
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.old_versions import old_peers
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.floor import EXIM_SESSIONS as EXIM
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import POSTFIX_SESSIONS as POSTFIX

OLD = ("SSLv3", "TLSv1", "TLSv1.1")
AT = "2026-11-29T10:00:0{}+00:00 mx "


def write(path, lines, compressed=False):
    text = "".join(f"{AT.format(number % 10)}{line}\n" for number, line in enumerate(lines)).encode()
    path.write_bytes(gzip.compress(text) if compressed else text)
    return path


def heard(tmp_path, lines, patterns=POSTFIX):
    path = write(tmp_path / "mail.log", lines)
    return old_peers(LogPlaces((str(path),), (), ()), patterns, OLD)


@pytest.mark.parametrize(
    ("line", "direction", "peer", "version"),
    [
        ("postfix/smtpd[7]: Anonymous TLS connection established from old.example.com[192.0.2.1]: TLSv1.1 with cipher X (256/256 bits)",
         "inbound", "old.example.com[192.0.2.1]", "TLSv1.1"),
        ("postfix/submission/smtpd[7]: Trusted TLS connection established from unknown[2001:db8::1]:4711: TLSv1 with cipher X (1/1 bits)",
         "inbound", "unknown[2001:db8::1]", "TLSv1"),
        ("postfix/smtpd[7]: Anonymous TLS connection established from a.example.com[192.0.2.1] to mx.example.com: TLSv1 with cipher X (1)",
         "inbound", "a.example.com[192.0.2.1]", "TLSv1"),
        ("postfix/tlsproxy[7]: Anonymous TLS connection established from [192.0.2.9]:4711: TLSv1 with cipher X (1/1 bits)",
         "inbound", "[192.0.2.9]", "TLSv1"),
        ("postfix/smtp[7]: Untrusted TLS connection established to mx.example.com[192.0.2.2]:25: TLSv1.1 with cipher X (1/1 bits)",
         "outbound", "mx.example.com[192.0.2.2]", "TLSv1.1"),
        ("postfix/smtp[7]: 4F00A: Verified TLS connection reused to mx.example.com[192.0.2.2]:25: TLSv1 with cipher X (1/1 bits)",
         "outbound", "mx.example.com[192.0.2.2]", "TLSv1"),
    ],
)  # fmt: skip
def test_a_line_of_postfix(tmp_path, line, direction, peer, version):
    found = heard(tmp_path, [line])
    assert found.sides[direction].peers == {peer: version}
    other = "inbound" if direction == "outbound" else "outbound"
    assert (found.sides[other].sessions, found.sides[other].peers) == (0, {})


@pytest.mark.parametrize(
    ("line", "direction", "peer", "version"),
    [
        ("1xQ <= a@example.com H=old.example.com [192.0.2.1] P=esmtps X=TLS1.1:RSA__AES_256:256 CV=no S=1", "inbound",
         "old.example.com[192.0.2.1]", "TLSv1.1"),
        ("1xQ <= a@example.com H=(helo) [192.0.2.1]:4711 P=esmtps X=TLSv1:AES256-SHA:256 S=1", "inbound", "[192.0.2.1]", "TLSv1"),
        ("1xQ <= a@example.com H=rdns.example.com (helo) [2001:db8::1] P=esmtps X=TLS1.0:X:256 S=1", "inbound",
         "rdns.example.com[2001:db8::1]", "TLSv1"),
        ("1xQ => b@example.com R=dnslookup T=remote_smtp H=mx.example.com [192.0.2.2] X=TLS1.0:X:128 CV=yes C=\"250 ok\"", "outbound",
         "mx.example.com[192.0.2.2]", "TLSv1"),
        ("1xQ -> b@example.com R=x T=y H=mx.example.com [192.0.2.2]:25 X=TLS1.1:X:128", "outbound", "mx.example.com[192.0.2.2]", "TLSv1.1"),
    ],
)  # fmt: skip
def test_a_line_of_exim(tmp_path, line, direction, peer, version):
    assert heard(tmp_path, [line], EXIM).sides[direction].peers == {peer: version}


def test_new_versions_are_sessions_and_shut_nobody_out(tmp_path):
    line = "postfix/smtpd[7]: Anonymous TLS connection established from a.example.com[192.0.2.1]: TLSv1.3 with cipher X (256/256 bits)"
    found = heard(tmp_path, [line, "postfix/smtpd[7]: disconnect from a.example.com[192.0.2.1]", line])
    assert (found.sides["inbound"].sessions, found.sides["inbound"].peers) == (2, {})
    assert (found.began, found.ended) == ("2026-11-29T10:00", "2026-11-29T10:00")


OF_A = "postfix/smtpd[7]: Anonymous TLS connection established from {}[192.0.2.1]: {} with cipher X (1/1 bits)"


def in_files(*patterns):
    return old_peers(LogPlaces(patterns, (), ()), POSTFIX, OLD)


def test_rotated_files_count_compressed_or_not_and_what_a_peer_used_last(tmp_path):
    written = [("mail.log.2.gz", "h0", "TLSv1"), ("mail.log.1", "h0", "TLSv1.1"), ("mail.log", "h2", "TLSv1")]
    for number, (name, peer, version) in enumerate(written):
        path = write(tmp_path / name, [OF_A.format(peer, version)], name.endswith("gz"))
        os.utime(path, (number, number))
    found = in_files(f"{tmp_path}/mail.log", f"{tmp_path}/mail.log.*")
    assert found.sides["inbound"].peers == {"h0[192.0.2.1]": "TLSv1.1", "h2[192.0.2.1]": "TLSv1"}
    assert (found.sides["inbound"].sessions, found.is_cut, found.unread) == (3, False, [])


@pytest.mark.parametrize("compressed", [False, True])
def test_of_a_large_log_only_the_newest_part_is_read_and_that_is_known(tmp_path, monkeypatch, compressed):
    monkeypatch.setattr(old_versions, "FORECAST_BYTES", 300)
    older = write(tmp_path / "mail.log.1.gz", [OF_A.format("old", "TLSv1")], compressed=True)
    os.utime(older, (1, 1))
    lines = [OF_A.format(f"h{number}", "TLSv1") for number in range(20)]
    write(tmp_path / "mail.log", lines, compressed)
    found = in_files(f"{tmp_path}/mail.log", f"{tmp_path}/mail.log.*")
    assert found.is_cut
    names = [f"h{number}[192.0.2.1]" for number in (range(20) if compressed else (18, 19))]
    assert list(found.sides["inbound"].peers) == names


def test_the_reading_ends_in_time_and_that_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(old_versions, "FORECAST_SECONDS", 0.0)
    found = heard(tmp_path, [OF_A.format("h", "TLSv1")])
    assert (found.is_cut, found.sides["inbound"].sessions) == (True, 0)


def test_a_file_that_cannot_be_read_is_named_and_the_others_count(tmp_path):
    write(tmp_path / "mail.log", [OF_A.format("h", "TLSv1")])
    (tmp_path / "mail.log.1.gz").write_bytes(gzip.compress(b"x" * 5000)[:30])
    found = in_files(f"{tmp_path}/mail.log", f"{tmp_path}/mail.log.*")
    assert list(found.sides["inbound"].peers) == ["h[192.0.2.1]"]
    assert [one.split(":")[0] for one in found.unread] == [f"{tmp_path}/mail.log.1.gz"]


@pytest.mark.parametrize("stale", [False, True])
def test_without_a_file_that_is_written_the_journal_is_read(tmp_path, monkeypatch, stale):
    program = tmp_path / "journalctl"
    newest = "1767225600.5 mx " + OF_A.format("h", "TLSv1.1")
    oldest = "1767222000.5 mx " + OF_A.format("h", "TLSv1")
    program.write_text(f'#!/bin/sh\nprintf "%s " "$@" >{tmp_path}/arguments\necho "{newest}"\necho "{oldest}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if stale:
        os.utime(write(tmp_path / "mail.log", [OF_A.format("h", "TLSv1")]), (1, 1))
    found = old_peers(LogPlaces((f"{tmp_path}/mail.log",), (), ("SYSLOG_FACILITY=2",)), POSTFIX, OLD)
    assert found.sides["inbound"].peers == {"h[192.0.2.1]": "TLSv1.1"}
    assert (found.sides["inbound"].sessions, found.ended) == (2 + stale, "2026-01-01T00:00Z")
    assert stale or (found.began, found.is_cut) == ("2025-12-31T23:00Z", False)
    asked = (tmp_path / "arguments").read_text()
    # With --since, --lines means the oldest ones up to systemd 253. The newest ones come first, so a cut leaves older ones out.
    assert "--lines=200000 --reverse SYSLOG_FACILITY=2" in asked and "--since" not in asked


def test_a_file_that_is_written_is_read_and_not_the_journal(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = write(tmp_path / "mail.log", [OF_A.format("h", "TLSv1")])
    found = old_peers(LogPlaces((str(path),), (), ("SYSLOG_FACILITY=2",)), POSTFIX, OLD)
    assert (found.sides["inbound"].sessions, found.unread) == (1, [])


def test_a_journal_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = old_peers(LogPlaces((), (), ("SYSLOG_FACILITY=2",), ("syslog is elsewhere",)), POSTFIX, OLD)
    assert found.unread == ["syslog is elsewhere", "journalctl: No such file or directory"]


def test_what_a_peer_writes_into_a_log_does_not_show(tmp_path):
    lines = [
        "postfix/smtpd[7]: warning: Anonymous TLS connection established from \x1b[31mevil[192.0.2.1]: TLSv1 with cipher X (1/1 bits)",
        "postfix/smtpd[7]: Anonymous TLS connection established from a\x1bb[192.0.2.1]: TLSv1 with cipher X (1/1 bits)",
        "a" * 5000,
    ]
    assert heard(tmp_path, lines).sides["inbound"].peers == {}


def test_no_log_is_nothing_known(tmp_path):
    found = old_peers(LogPlaces((f"{tmp_path}/none",), (), ()), POSTFIX, OLD)
    assert (found.began, found.sides["inbound"].sessions) == ("", 0)
