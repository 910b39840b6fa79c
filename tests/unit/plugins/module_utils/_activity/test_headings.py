"""What stands in front of a log line, as syslog daemons, journalctl, containers and collectors write it."""

import json

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity import headings
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Clock, Tally
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log import EximLog
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log import (
    _ENDINGS,
    _OURS,
    PostfixLog,
    Visibility,
)

from tests.support.counts import counted, short
from tests.support.patterns import Used
from tests.unit.test_patterns import GROWTH, growth

BEGIN = 1768212000.0  # 2026-01-12T10:00:00Z
CLIENT = "out.example.net[192.0.2.15]"
LINES = (
    ("smtpd", 3001, f"connect from {CLIENT}"),
    ("smtpd", 3001, f"Anonymous TLS connection established from {CLIENT}: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"),
    ("smtpd", 3001, f"4BcDbF1H2Jz3KMl: client={CLIENT}"),
    ("qmgr", 12, "4BcDbF1H2Jz3KMl: from=<a@example.net>, size=1050, nrcpt=1 (queue active)"),
    ("smtpd", 3001, f"disconnect from {CLIENT} ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7"),
)  # fmt: skip
EXIM = "1tzaAa-002Abc-1p <= ann@example.net H=mx.example.net [192.0.2.15] P=esmtps X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no S=2345"
OVER_TLS = {"sessions_tls": 1, "messages_tls": 1, "versions": {"TLSv1.3": 1}, "ciphers": {"TLS_AES_256_GCM_SHA384": 1}}
HEADS = {
    "weekday and year at the end": "Mon Jan 12 10:00:00 2026 mail.info ",
    "year behind the day": "Jan 12 2026 10:00:00 mx1 ",
    "year in front": "2026 Jan 12 10:00:00.123 mx1 ",
    "slashes and comma": "2026/01/12 10:00:00,123 mx1 ",
    "UTC by name": "2026-01-12 10:00:00 UTC mx1 ",
    "weekday and zone in hours": "Mon 2026-01-12 10:00:00 +03 mx1 ",
    "TAI64N": "@400000006964c5aa1dcd6500 mx1 ",
    "AIX": "Jan 12 10:00:00 mx1 mail:info ",
    "Busybox": "Jan 12 10:00:00 mx1 mail.info ",
    "priority and version": "<22>1 2026-01-12T10:00:00Z mx1 ",
    "docker compose with times and colours": "\x1b[36mmail-1  | \x1b[0m2026-01-12T10:00:00.123456789Z Jan 12 10:00:00 4f1d2c3b4a5e ",
    "kubectl with a prefix": "[pod/mail-0/postfix] Jan 12 10:00:00 mail-0 ",
    "CRI, errors": "2026-01-12T10:00:00.123456789Z stderr P Jan 12 10:00:00 mail-0 ",
    "loghost": "2026-01-12T10:00:00Z loghost mx1 ",
    "docker, no name": "2026-01-12T10:00:00.123456789Z ",
}


def postfix(lines, host=""):
    tally = Tally(100)
    log = PostfixLog(tally, 0.0, 2e9, {"postfix": Visibility(1)}, host=host)
    last = log.feed([line.encode() for line in lines], Clock(BEGIN + 3600))
    log.finish()
    return {**counted(tally, log), "last": last}


def exim(lines):
    tally = Tally(100)
    log = EximLog(tally, 0.0, 2e9)
    last = log.feed([line.encode() for line in lines], Clock(BEGIN + 3600))
    return {**counted(tally, log), "last": last}


def written(head):
    return [f"{head}postfix/{program}[{process}]: {text}" for program, process, text in LINES]


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_postfix_under_every_heading(head):
    seen = postfix(written(head))
    assert short(seen["inbound"]) == OVER_TLS
    assert (seen["log"].skipped_lines, abs(seen["last"] - BEGIN) <= 10800) == (0, True)


@pytest.mark.parametrize(
    "program", ["exim[4711]: ", "exim4: 2026-01-12 10:00:00 ", "exim[4]: 2026-01-12 10:00:00 [1/3] "]
)
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_exim_under_every_heading(head, program):
    assert short(exim([f"{head}{program}{EXIM}"])["peers"]["example.net", "inbound"]) == OVER_TLS


@pytest.mark.parametrize(
    "head",
    ["", "mail-1  | ", "2026-01-12T10:00:00.123456789Z stdout F ", "2026-01-12T10:00:00.1Z ", "[pod/mail-0/exim] "],
)
def test_exims_own_file_as_a_container_prints_it(head):
    seen = exim([f"{head}2026-01-12 10:00:00 Start queue run: pid=7", f"{head}2026-01-12 10:00:00.123 [41] {EXIM}"])
    assert (short(seen["inbound"]), seen["log"].skipped_lines) == (OVER_TLS, 0)


def test_the_syslog_protocol():
    lines = [
        f'<22>1 2026-01-12T10:00:00.1Z mx1 postfix/{program} {process} - [meta a="b"] \ufeff{text}'
        for program, process, text in LINES
    ]
    assert short(postfix(lines)["inbound"]) == OVER_TLS
    line = f"<22>1 2026-01-12T10:00:00.1Z mx1 exim 4711 - - {EXIM}"
    assert short(exim([line])["inbound"]) == OVER_TLS


def test_the_heading_of_solaris():
    lines = [
        f"Jan 12 10:00:00 mx1 postfix/{program}[{process}]: [ID 197553 mail.info] {text}"
        for program, process, text in LINES
    ]
    assert short(postfix(lines)["inbound"]) == OVER_TLS


@pytest.mark.parametrize(
    "entry",
    [
        lambda program, process, text: {
            "__REALTIME_TIMESTAMP": "1768212000123456", "_HOSTNAME": "mx1", "SYSLOG_IDENTIFIER": f"postfix/{program}",
            "_PID": str(process), "MESSAGE": text,
        },
        lambda program, process, text: {
            "log": f"Jan 12 10:00:00 mx1 postfix/{program}[{process}]: {text}\n", "stream": "stdout", "time": "2026-01-12T10:00:00.1Z",
        },
        lambda program, process, text: {
            "@timestamp": "2026-01-12T10:00:00+00:00", "hostname": "mx1", "syslogtag": f"postfix/{program}[{process}]:", "msg": " " + text,
        },
        lambda program, process, text: {"ts": 1768212000, "host": "mx1", "ident": f"postfix/{program}", "pid": process, "message": text},
    ],
    ids=["journalctl", "docker", "rsyslog", "collector"],
)  # fmt: skip
def test_json(entry):
    seen = postfix([json.dumps(entry(*one)) for one in LINES])
    assert short(seen["inbound"]) == OVER_TLS
    assert abs(seen["last"] - BEGIN) < 2


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"a": 1}', "{" * 9000, '{"message": "/smtpd[1" , "time": [[[', '{"x":"/smtpd[1"}']
)
def test_json_that_is_none(line):
    assert short(postfix([line])["inbound"]) == {}


def test_a_heading_that_changes_within_a_file():
    seen = postfix(
        [*written("Jan 12 10:00:00 mx1 "), *written("2026-01-12T10:00:00Z mx1 "), *written("Jan 12 10:00:00 mx1 ")]
    )
    assert (seen["inbound"]["sessions_tls"], seen["log"].skipped_lines) == (3, 0)


def test_a_word_before_the_program_is_a_host_only_if_other_lines_have_it_too():
    others = ["Jan 12 10:00:00 mx1 dovecot: ready", "Jan 12 10:00:00 mx1 cron[2]: run"] * 10
    forged = written("Jan 12 10:00:00 mx1 imap-user ")
    seen = postfix([*others, *forged])
    assert (short(seen["inbound"]), seen["log"].skipped_lines) == ({}, 5)


@pytest.mark.parametrize("times", [2, 10**9 - 1])
@pytest.mark.parametrize(
    "repeated", ["mx1 postfix/smtpd[3001]: message repeated {} times: [ {}]", "mx1 last message repeated {} times"]
)
def test_lines_that_were_said_once_for_many(times, repeated):
    refused = (
        f"NOQUEUE: reject: RCPT from {CLIENT}: 450 4.7.1 Session encryption is required; from=<a@example.net> to=<b@example.com> "
        "proto=ESMTP helo=<mx>"
    )
    lines = [
        f"Jan 12 10:00:00 mx1 postfix/smtpd[3001]: {refused}",
        f"Jan 12 10:00:01 {repeated.format(times, refused)}",
    ]
    (event,) = postfix(lines)["inbound"]["refusals"]
    assert event["count"] == 1 + min(times, headings.MOST_REPEATED)


def test_a_repeated_line_of_another_program_repeats_nothing():
    lines = [
        *written("Jan 12 10:00:00 mx1 "),
        "Jan 12 10:00:00 mx1 cron[2]: run",
        "Jan 12 10:00:01 mx1 last message repeated 9 times",
    ]
    assert short(postfix(lines)["inbound"]) == OVER_TLS


def test_lines_without_a_time_count_as_written_when_the_file_was():
    seen = postfix(written(""))
    assert (short(seen["inbound"]), seen["last"]) == (OVER_TLS, BEGIN + 3600)
    assert [note.code for note in seen["log"].notes()] == ["times_not_logged"]


def test_a_line_without_a_host_is_not_taken_for_one_of_this_host():
    hidden = (
        "postfix/smtp[7]: 4BcDbF1H2Jz3KMl: to=<b@example.org>, relay=mx.example.org[192.0.2.16]:25, delay=1, delays=0/0/0/1, "
        "dsn=2.0.0, status=sent (250 Ok)"
    )
    seen = postfix([f"2026-01-12T10:00:00Z INFO    {hidden}"], host="mx1")
    assert short(seen["outbound"]) == {"sessions_unknown": 1, "messages_unknown": 1}


def test_what_is_not_understood_is_said_with_a_sample_once_it_is_many():
    odd = [f"Jan 12 10:00:0{number} mx1 a b c postfix/smtpd[{number}]: connect from {CLIENT}" for number in range(9)]
    many = written("Jan 12 10:00:00 mx1 ") * 200
    assert postfix([*many, *odd[:9]])["log"].unread_lines() == []
    (note,) = postfix([*written("Jan 12 10:00:00 mx1 "), *odd])["log"].unread_lines()
    assert note.code == "lines_not_read"
    assert note.message.startswith("9 of 14 lines of mail (64 %) are not understood")
    assert "9 like: Jan 12 10:00:00 mx1 a b c postfix/smtpd[0]: connect from" in note.message


def test_shapes_do_not_grow_with_the_log():
    seen = postfix(
        [f"Jan 12 10:00:00 mx1 {'x- ' * (n % 40)}postfix/smtpd[1]: connect from {CLIENT}" for n in range(3000)]
    )
    assert len(seen["log"].skipped._shapes) <= 17
    assert len(seen["log"]._headings._known) <= 16


@pytest.mark.exhaustive
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_no_learned_pattern_grows_faster_than_its_text(head):
    learned = headings.Headings(_ENDINGS, _OURS)
    line = f"{head}postfix/smtpd[3]: x".encode()
    learned.other(line, [line])
    assert growth(Used(head, learned.current.pattern, "match"))[0] <= GROWTH
