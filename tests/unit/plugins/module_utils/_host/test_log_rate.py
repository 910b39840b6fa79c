"""The sessions an hour that the end of a log tells."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_rate import TAIL_BYTES, sessions_an_hour

from tests.support.alarm import at_most
from tests.support.attacker import give_away, needs_root, never_opened

NOW = 1_796_000_000.0
SESSION = re.compile(r"smtpd\[\d+\]: connect from")


def line(stamp: str, text: str = "postfix/smtpd[7]: connect from mx.example.com[192.0.2.7]") -> str:
    return f"{stamp} mx1 {text}\n"


def at(seconds: float, form: str) -> str:

    return time.strftime(form, time.localtime(NOW - seconds))


@pytest.mark.parametrize(
    "form", ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S", "%b %e %H:%M:%S", "%Y-%m-%dT%H:%M:%S.123456%z"]
)
def test_each_form_of_a_time(tmp_path: Path, form: str):
    log = tmp_path / "mail.log"
    other = line(at(600, form), "postfix/qmgr[3]: removed")
    log.write_text(line(at(1800, form)) + other + line(at(60, form)))
    assert sessions_an_hour([str(tmp_path / "mail.log*")], SESSION, NOW) == pytest.approx(4.0)


def test_a_time_of_last_year(tmp_path: Path):
    log = tmp_path / "mail.log"
    log.write_text(line("Dec 31 23:59:59"))
    new_year = 1_798_761_600.0  # 2027-01-01T00:00:00Z
    assert sessions_an_hour([str(log)], SESSION, new_year + 86400) < 1.0


@pytest.mark.parametrize("text", ["", "no time here\n", "2026-13-45T99:99:99Z mx1 x\n", "\x00\xff" * 100])
def test_what_is_not_understood_is_not_known(tmp_path: Path, text: str):
    log = tmp_path / "mail.log"
    log.write_text(text)
    assert sessions_an_hour([str(log)], SESSION, NOW) is None


def test_no_file_is_not_known(tmp_path: Path):
    assert sessions_an_hour([str(tmp_path / "mail.log*")], SESSION, NOW) is None


def test_a_minute_says_nothing_about_an_hour(tmp_path: Path):
    log = tmp_path / "mail.log"
    log.write_text(line(at(30, "%Y-%m-%dT%H:%M:%S%z")))
    assert sessions_an_hour([str(log)], SESSION, NOW) is None


def test_only_the_end_of_the_newest_file_is_read(tmp_path: Path):
    old, new = tmp_path / "mail.log.1", tmp_path / "mail.log"
    old.write_text(line(at(3600, "%Y-%m-%dT%H:%M:%S%z")) * 1000)
    os.utime(old, (NOW - 3600, NOW - 3600))
    first = line(at(7200, "%Y-%m-%dT%H:%M:%S%z"))
    new.write_text(first * (2 * TAIL_BYTES // len(first)) + line(at(3600, "%Y-%m-%dT%H:%M:%S%z"), "x" * TAIL_BYTES))
    os.utime(new, (NOW, NOW))
    (tmp_path / "mail.log.2.gz").write_bytes(b"")
    assert sessions_an_hour([str(tmp_path / "mail.log*")], SESSION, NOW) is None


def test_a_named_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "mainlog")
    with at_most(5):
        assert sessions_an_hour([str(tmp_path / "mainlog")], SESSION, NOW) is None


def test_a_pipe_that_is_newer_does_not_hold_the_read(tmp_path: Path):
    log = tmp_path / "mail.log"
    log.write_text(line(at(1800, "%Y-%m-%d %H:%M:%S")) * 3)
    os.utime(log, (NOW - 60, NOW - 60))
    os.mkfifo(tmp_path / "mail.log.1")
    os.utime(tmp_path / "mail.log.1", (NOW, NOW))
    with at_most(10):
        assert sessions_an_hour([f"{tmp_path}/mail.log*"], SESSION, NOW) == pytest.approx(6.0)


@needs_root
def test_a_link_of_the_daemons_user_is_passed_over(tmp_path: Path):
    logs, secret = tmp_path / "logs", tmp_path / "secret"
    logs.mkdir()
    secret.write_text(line(at(1800, "%Y-%m-%d %H:%M:%S")))
    (logs / "mail.log").symlink_to(secret)
    give_away(logs)
    with never_opened(secret):
        assert sessions_an_hour([f"{logs}/mail.log*"], SESSION, NOW) is None
