"""A whole call of tls_activity_info, without Ansible: options in, what the log tells out."""

import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity import sources
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.engine import read_activity
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log import EximLog
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log import PostfixLog
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

LINE = (
    "1xVuM6-0000i7-2X <= a@partner.test H=mx.partner.test [192.0.2.15] P=esmtps X=TLS1.3:TLS_AES_256_GCM_SHA384:256 S=1"
)


def options(**given):
    return {"logs": [], "journal": "false", "since": "24h", "until": "now", "max_peers": 1000, **given}


def exim(tally, since, until):
    return EximLog(tally, since, until, True)


def write_log(path, age):
    path.write_text(time.strftime("%Y-%m-%d %H:%M:%S +0000 ", time.gmtime(time.time() - age)) + LINE + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("given", "peers"), [({}, []), ({"since": "2d"}, ["partner.test"]), ({"since": "2d", "until": "26h"}, [])]
)
def test_what_lies_in_the_time_is_counted(tmp_path, given, peers):
    activity = read_activity(options(logs=[write_log(tmp_path / "log", age=90_000)], **given), exim)
    assert (activity["daemon"], [one["domain"] for one in activity["peers"]]) == ("exim", peers)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_peers": 0}, "max_peers has to be at least 1"),
        ({"since": "last week"}, "'last week' is not a time"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "since 2026-01-02 is not before until 2026-01-01"),
    ],
)
def test_options_are_refused_before_the_log_reader_is_made(given, message):
    with pytest.raises(EngineError, match=message):
        read_activity(options(**given), lambda *_: pytest.fail("a log reader was made"))


UNREAD = LogPlaces((), (), (), ("Postfix in /etc/postfix logs to /dev/stdout (maillog_file)",))


def test_a_log_that_the_daemon_names_and_nobody_can_read_is_said(tmp_path):
    def unread(tally, since, until):
        return PostfixLog(tally, since, until, {}, UNREAD)

    notes = read_activity(options(journal="auto"), unread)["notes"]
    assert {note["code"]: note["message"] for note in notes}["not_read"] == UNREAD.unread[0]
    named = read_activity(options(logs=[write_log(tmp_path / "log", age=60)]), unread)
    assert "not_read" not in [note["code"] for note in named["notes"]]


@pytest.mark.parametrize("journal", ["auto", "true", "false"])
def test_a_daemon_without_entries_in_the_journal_gets_nobody_elses(tmp_path, monkeypatch, journal):
    monkeypatch.setattr(sources.subprocess, "Popen", lambda *_, **__: pytest.fail("the journal was read"))
    places = LogPlaces((f"{tmp_path}/none",), (f"{tmp_path}/none",), ())
    activity = read_activity(options(journal=journal), lambda *window: PostfixLog(*window, {}, places))
    [note] = activity["notes"]
    assert note["code"] == "no_log"
    assert f"{tmp_path}/none" in note["message"]
