"""Who used old TLS versions, by the log files."""

import gzip
import os

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.floor import EXIM_SESSIONS as EXIM
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import versions_in_log
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.versions_in_log import old_peers
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import POSTFIX_SESSIONS as POSTFIX

OLD = ("SSLv3", "TLSv1", "TLSv1.1")
AT = "2026-11-29T10:00:0{}+00:00 mx "


def write(path, lines, compressed=False):
    text = "".join(f"{AT.format(number % 10)}{line}\n" for number, line in enumerate(lines)).encode()
    path.write_bytes(gzip.compress(text) if compressed else text)
    return path


def heard(tmp_path, lines, patterns=POSTFIX):
    path = write(tmp_path / "mail.log", lines)
    return old_peers([str(path)], patterns, OLD)


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


def test_rotated_files_count_and_compressed_ones_do_not(tmp_path):
    line = "postfix/smtpd[7]: Anonymous TLS connection established from {}[192.0.2.1]: TLSv1 with cipher X (1/1 bits)"
    for number, name in enumerate(("mail.log.2.gz", "mail.log.1", "mail.log")):
        path = write(tmp_path / name, [line.format(f"h{number}")], name.endswith("gz"))
        os.utime(path, (number, number))
    found = old_peers([f"{tmp_path}/mail.log", f"{tmp_path}/mail.log.*"], POSTFIX, OLD)
    assert list(found.sides["inbound"].peers) == ["h1[192.0.2.1]", "h2[192.0.2.1]"]


def test_only_the_end_of_a_large_log_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(versions_in_log, "MOST_BYTES", 300)
    monkeypatch.setattr(versions_in_log, "_BLOCK", 64)
    line = "postfix/smtpd[7]: Anonymous TLS connection established from h{}[192.0.2.1]: TLSv1 with cipher X (1/1 bits)"
    found = heard(tmp_path, [line.format(number) for number in range(20)])
    assert list(found.sides["inbound"].peers) == ["h18[192.0.2.1]", "h19[192.0.2.1]"]


def test_what_a_peer_writes_into_a_log_does_not_show(tmp_path):
    lines = [
        "postfix/smtpd[7]: warning: Anonymous TLS connection established from \x1b[31mevil[192.0.2.1]: TLSv1 with cipher X (1/1 bits)",
        "postfix/smtpd[7]: Anonymous TLS connection established from a\x1bb[192.0.2.1]: TLSv1 with cipher X (1/1 bits)",
        "a" * 5000,
    ]
    assert heard(tmp_path, lines).sides["inbound"].peers == {}


def test_no_log_is_nothing_known(tmp_path):
    found = old_peers([f"{tmp_path}/none"], POSTFIX, OLD)
    assert (found.began, found.sides["inbound"].sessions) == ("", 0)
