"""message_trace as Ansible starts it: what the options must be, and what becomes of the engine's answers and errors."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import mailbox as mailbox_search
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import MARKER_HEADER
from ansible_collections.mailfleet.starttls.plugins.modules import message_trace as module

from tests.support.alarm import at_most
from tests.support.ansible_module import run_module

LETTER = {"marker": "m-1", "sender": "trace@partner.test", "recipient": "trace@alpha.test"}
IMAP = {"host": "127.0.0.1", "tls": "none", "user": "trace", "password": "s3cret-word"}


@pytest.fixture
def host(tmp_path):
    """A directory with a sendmail command that delivers into the mailbox beside it."""
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(f"#!/bin/sh\n(echo 'From x'; cat; echo) >>{tmp_path}/trace\n")
    sendmail.chmod(0o755)
    return tmp_path


def run(host, **options):
    with at_most(20):
        return run_module(module.main, **{"sendmail": str(host / "sendmail"), "timeout": 0, **options})


def test_one_call_sends_waits_and_removes(host):
    item = {"marker": "m-1", "mailbox": str(host / "trace"), "delete": True}
    result = run(host, send=[LETTER], receive=[item], timeout=10)
    assert (result["changed"], result["sent"], "failed" in result) == (True, ["m-1"], False)
    [received] = result["received"]
    assert (received["arrived"], received["deleted"], received["verdict"]) == (True, True, "unproven")


def test_a_warning_is_shown_as_one(host, monkeypatch):
    monkeypatch.setattr(mailbox_search, "MAILBOX_LOCK_SECONDS", 0.2)
    (host / "trace").write_text(f"From x\n{MARKER_HEADER}: a\n\nbody\n\n")
    (host / "trace.lock").touch()
    result = run(host, receive=[{"marker": "a", "mailbox": str(host / "trace"), "delete": True}])
    assert result["warnings"] == [f"the message a was not removed: {host}/trace is locked by another program"]


def test_no_sendmail(host):
    result = run(host, send=[LETTER], sendmail=str(host / "none"))
    assert result["failed"] is True and "none" in str(result)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"send": [{**LETTER, "marker": "a b"}]}, "the marker 'a b' has to be 1 to 64 letters"),
        ({"look_timeout": 0}, "look_timeout has to be 1 second or more"),
        ({"receive": [{"marker": "a", "imap": {**IMAP, "port": 70000}}]}, "is not between 1 and 65535"),
    ],
)
def test_what_the_engine_refuses_fails_the_module(host, options, reason):
    result = run(host, **options)
    assert result["failed"] is True and reason in result["msg"]
    assert "s3cret-word" not in str(result)


def test_a_mailbox_that_cannot_be_read(host):
    result = run(host, receive=[{"marker": "a", "mailbox": f"{host}/sendmail/box"}])
    assert result["failed"] is True and result["msg"] == f"{host}/sendmail/box: Not a directory"


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ({}, "one of the following is required: mailbox, imap, command"),
        ({"mailbox": "/m", "command": ["x"]}, "mutually exclusive: mailbox|imap|command"),
        ({"mailbox": "/m", "imap": IMAP}, "mutually exclusive: mailbox|imap|command"),
    ],
)
def test_a_message_lands_in_one_place(host, check_mode, place, reason):
    result = run(host, check_mode=check_mode, send=[LETTER], receive=[{"marker": "a", **place}])
    assert result["failed"] is True and reason in result["msg"]
    assert not (host / "trace").exists()


def test_check_mode_sends_nothing_and_waits_for_nothing(host):
    result = run(host, check_mode=True, send=[LETTER], receive=[{"marker": "m-1", "mailbox": "/nowhere"}], timeout=60)
    assert (result["changed"], result["sent"], result["received"]) == (False, [], [])
    assert not (host / "trace").exists()
