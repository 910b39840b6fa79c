"""Sending marked messages and waiting for them, with a sendmail command and mailboxes in a directory."""

import email
import email.policy
import os
import socket
import subprocess
import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import engine as module
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace import mailbox as mailbox_search
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.engine import Trace, run_trace
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import MARKER_HEADER
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.alarm import at_most
from tests.support.mailbox import find_marked

TLS = (
    "from gw1.test (gw1.test [192.0.2.10]) (using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)) "
    "by me.test (Postfix) with ESMTPS id 1; date"
)
PLAIN = "from out.test (out.test [192.0.2.99]) by gw1.test (Postfix) with ESMTP id 2; date"
SENDER, RECIPIENT = "trace@partner.test", "trace@alpha.test"


class Host:
    """A mail server's sendmail command and mailboxes."""

    def __init__(self, directory):
        self.directory = directory
        self.sendmail = directory / "sendmail"
        self.arguments = directory / "arguments"
        self.taken = directory / "taken"
        self.install(f'printf "%s\\n" "$@" >>{self.arguments}; cat >>{self.taken}')

    def install(self, script):
        self.sendmail.write_text(f"#!/bin/sh\n{script}\n")
        self.sendmail.chmod(0o755)

    def deliver(self, marker, *received, mailbox="trace"):
        path = self.directory / mailbox
        head = "".join(f"Received: {one}\n" for one in received)
        with path.open("a") as handle:
            handle.write(f"From x\n{head}{MARKER_HEADER}: {marker}\n\nbody\n\n")
        return str(path)

    def run(self, *, check_mode=False, receive=(), **options):
        trace = Trace(
            **{"sendmail": str(self.sendmail), "timeout": 0, "receive": [whole(one) for one in receive], **options}
        )
        with at_most(20):
            return run_trace(trace, submit, check_mode)

    def refusal(self, **options):
        """Why the call fails."""
        with pytest.raises((EngineError, ValueError, OSError)) as caught:
            self.run(**options)
        return str(caught.value)


def submit(command, message):
    done = subprocess.run(command, input=message, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def whole(item):
    """An item of receive with all its options, as the module has them."""
    imap = {
        "port": None,
        "tls": "implicit",
        "validate_certs": True,
        "ca_content": None,
        "ca_file": None,
        "folder": "INBOX",
    }
    places = {"mailbox": None, "imap": None, "command": None, "delete": False, **item}
    return {**places, "imap": places["imap"] and {**imap, **places["imap"]}}


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def letter(marker="m-1", sender=SENDER, recipient=RECIPIENT):
    return {"marker": marker, "sender": sender, "recipient": recipient}


# Sending


def test_a_message_is_handed_to_sendmail(host):
    result = host.run(send=[letter()])
    assert (result["changed"], result["sent"], result["received"]) == (False, ["m-1"], [])
    assert host.arguments.read_text().split() == ["-i", "-f", SENDER, "--", RECIPIENT]
    message = email.message_from_bytes(host.taken.read_bytes(), policy=email.policy.default)
    assert (message["From"], message["To"], message[MARKER_HEADER]) == (SENDER, RECIPIENT, "m-1")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == "<m-1@partner.test>"
    assert "m-1" in message["Subject"] and message["Date"].datetime is not None
    assert "TLS" in message.get_content()


def test_every_message_is_sent_in_order(host):
    assert host.run(send=[letter("a"), letter("b", recipient="other@beta.test")])["sent"] == ["a", "b"]
    assert host.arguments.read_text().split()[4::5] == [RECIPIENT, "other@beta.test"]


def test_what_is_sent_is_what_is_found(host):
    host.run(send=[letter("m" * 64)])
    mailbox = host.directory / "trace"
    mailbox.write_bytes(b"From x\nReceived: " + TLS.encode() + b"\n" + host.taken.read_bytes() + b"\n")
    assert find_marked(str(mailbox), ["m" * 64]) == {"m" * 64: [TLS]}


def test_a_message_that_is_not_taken(host):
    host.install("cat >/dev/null; echo 'fatal: no such user' >&2; exit 75")
    assert host.refusal(send=[letter()]) == (
        f"{host.sendmail} did not accept the message for {RECIPIENT}: fatal: no such user"
    )


def test_the_reason_may_stand_on_standard_output(host):
    host.install("cat >/dev/null; echo 'queue full'; exit 1")
    assert host.refusal(send=[letter()]).endswith(": queue full")


def test_the_first_refusal_ends_the_sending(host):
    host.install(f"cat >/dev/null; echo sent >>{host.arguments}; exit 1")
    assert host.refusal(send=[letter("a"), letter("b")])
    assert host.arguments.read_text() == "sent\n"


@pytest.mark.parametrize("what", ["sender", "recipient"])
@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "a@b\n",
        "a@b c",
        "a@b,c@d",
        "<a@b>",
        "a@b\nBcc: c@d",
        "-oQ/tmp",
        "a@",
        "@b",
        "a b@c",
        "a@b;id",
        "|id@b",
    ],
)
def test_addresses_that_are_refused(host, what, address):
    said = host.refusal(send=[letter(**{what: address})])
    assert said == f"the {what} {address!r} is not a plain address like name@example.com"
    assert not host.taken.exists()


@pytest.mark.parametrize("marker", ["", "a b", "a\n", "a" * 65, "<a>", "a\nBcc: x@y", "é", "a/b"])
def test_markers_that_are_refused_before_anything_is_sent(host, marker):
    for options in (
        {"send": [letter("good"), letter(marker)]},
        {"send": [letter("good")], "receive": [{"marker": marker, "mailbox": "/nowhere"}]},
    ):
        for check_mode in (False, True):
            said = host.refusal(check_mode=check_mode, **options)
            assert said == f"the marker {marker!r} has to be 1 to 64 letters, digits or _.-"
    assert not host.taken.exists()


@given(
    marker=st.from_regex(module._MARKER, fullmatch=True),
    sender=st.from_regex(module._ADDRESS, fullmatch=True),
    recipient=st.from_regex(module._ADDRESS, fullmatch=True),
)
def test_any_message_that_is_allowed_can_be_composed(marker, sender, recipient):
    data = module.compose(marker, sender, recipient)
    message = email.message_from_bytes(data)
    assert message[MARKER_HEADER].strip() == marker
    assert set(message.keys()) >= {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"}
    assert len(message.keys()) == len(set(message.keys()))
    assert data.isascii()


# Receiving


def test_what_has_arrived_is_read(host):
    mailbox = host.deliver("a", TLS, PLAIN)
    host.deliver("b", TLS)
    result = host.run(receive=[{"marker": one, "mailbox": mailbox} for one in ("b", "a")])
    assert (result["changed"], result["sent"]) == (False, [])
    assert [(one["marker"], one["arrived"], one["tls"]) for one in result["received"]] == [
        ("b", True, True),
        ("a", True, False),
    ]
    assert [hop["by"] for hop in result["received"][1]["hops"]] == ["gw1.test", "me.test"]
    assert result["received"][0]["hops"] == [
        {
            "by": "me.test",
            "from_host": "gw1.test",
            "protocol": "ESMTPS",
            "tls": True,
            "tls_version": "TLSv1.3",
            "cipher": "TLS_AES_256_GCM_SHA384",
            "network": True,
            "date": "",
            "writer": "postfix",
            "clear": True,
            "delay": None,
        }
    ]
    assert [(one["verdict"], one["message"]) for one in result["received"]] == [
        ("pass", "over TLS on every hop over a network, 1 of 1"),
        ("plaintext", "in plaintext from out.test to gw1.test (ESMTP)"),
    ]


def test_several_mailboxes(host):
    items = [{"marker": one, "mailbox": host.deliver(one, TLS, mailbox=f"box-{one}")} for one in ("a", "b")]
    result = host.run(receive=items, timeout=10)
    assert [one["arrived"] for one in result["received"]] == [True, True]


def test_what_does_not_arrive_in_time_is_said_and_is_no_failure(host):
    mailbox = host.deliver("a", TLS)
    started = time.monotonic()
    result = host.run(receive=[{"marker": one, "mailbox": mailbox} for one in ("a", "b")], timeout=1)
    assert time.monotonic() - started >= 1
    assert result["received"][1] == {
        "marker": "b",
        "arrived": False,
        "deleted": False,
        "tls": False,
        "verdict": "lost",
        "message": "it did not arrive within 1 s; deferred_mail_info shows the queues of the gateways and the servers",
        "hops": [],
    }
    assert result["received"][0]["arrived"] is True


def test_a_mailbox_that_does_not_exist_yet_is_empty(host):
    result = host.run(receive=[{"marker": "a", "mailbox": str(host.directory / "none")}])
    assert result["received"][0]["arrived"] is False


def test_a_mailbox_that_cannot_be_read(host):
    host.taken.touch()
    said = host.refusal(receive=[{"marker": "a", "mailbox": f"{host.taken}/box"}])
    assert f"{host.taken}/box" in said


def test_waiting_ends_when_the_last_message_comes(host, monkeypatch):
    mailbox = host.deliver("a", TLS)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: host.deliver("b", TLS))
    started = time.monotonic()
    result = host.run(receive=[{"marker": one, "mailbox": mailbox} for one in ("a", "b")], timeout=15)
    assert [one["arrived"] for one in result["received"]] == [True, True]
    assert time.monotonic() - started < 10


def test_one_call_sends_and_waits(host):
    host.install(f"(echo 'From x'; echo 'Received: {TLS}'; cat; echo) >>{host.directory}/trace")
    result = host.run(
        send=[letter("m-1")], receive=[{"marker": "m-1", "mailbox": str(host.directory / "trace")}], timeout=10
    )
    assert result["sent"] == ["m-1"]
    assert (result["received"][0]["arrived"], result["received"][0]["tls"]) == (True, True)


def test_nothing_to_do(host):
    assert host.run(timeout=10)["received"] == []


def test_a_message_in_another_mailbox_has_not_arrived(host):
    """A message that was delivered to the wrong mailbox is no proof of its path."""
    own = host.deliver("a", TLS, mailbox="box-a")
    host.deliver("b", TLS, mailbox="box-a")
    other = host.deliver("c", TLS, mailbox="box-b")
    result = host.run(receive=[{"marker": "a", "mailbox": own}, {"marker": "b", "mailbox": other}])
    assert [one["arrived"] for one in result["received"]] == [True, False]


def test_one_message_in_two_mailboxes(host):
    """The same message to two recipients: each copy has a way of its own."""
    items = [
        {"marker": "a", "mailbox": host.deliver("a", TLS, mailbox="box-a")},
        {"marker": "a", "mailbox": host.deliver("a", PLAIN, mailbox="box-b")},
    ]
    started = time.monotonic()
    result = host.run(receive=items, timeout=60)
    assert [one["tls"] for one in result["received"]] == [True, False]
    assert time.monotonic() - started < 60


def test_the_copy_in_one_mailbox_does_not_stand_for_the_other(host):
    box_a, box_b = host.deliver("a", TLS, mailbox="box-a"), str(host.directory / "box-b")
    items = [{"marker": "a", "mailbox": box_b}, {"marker": "a", "mailbox": box_a}]
    result = host.run(receive=items)
    assert [(one["arrived"], one["tls"]) for one in result["received"]] == [(False, False), (True, True)]
    assert result["received"][0]["hops"] == []


def test_both_copies_are_waited_for(host, monkeypatch):
    box_a, box_b = host.deliver("a", TLS, mailbox="box-a"), str(host.directory / "box-b")
    monkeypatch.setattr(module.time, "sleep", lambda seconds: host.deliver("a", PLAIN, mailbox="box-b"))
    started = time.monotonic()
    result = host.run(receive=[{"marker": "a", "mailbox": one} for one in (box_a, box_b)], timeout=15)
    assert [(one["arrived"], one["tls"]) for one in result["received"]] == [(True, True), (True, False)]
    assert time.monotonic() - started < 10


def test_the_same_copy_asked_for_twice_is_waited_for_once(host):
    item = {"marker": "a", "mailbox": host.deliver("a", TLS)}
    started = time.monotonic()
    assert [one["arrived"] for one in host.run(receive=[item, item], timeout=10)["received"]] == [True, True]
    assert time.monotonic() - started < 5


# Other places

IMAP = {"host": "127.0.0.1", "tls": "none", "user": "trace", "password": "s3cret-word"}


def command(host, script):
    program = host.directory / "get-message"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_what_a_command_prints(host):
    program = command(host, f'printf "Received: {TLS}\\n{MARKER_HEADER}: $1\\n\\nbody\\n"')
    (one,) = host.run(receive=[{"marker": "a", "command": [program, "{marker}"]}])["received"]
    assert (one["arrived"], one["verdict"], one["hops"][0]["by"]) == (True, "pass", "me.test")


def test_a_command_is_run_until_the_message_is_there(host, monkeypatch):
    program = command(host, f"cat {host.directory}/trace 2>/dev/null || true")
    monkeypatch.setattr(module.CommandMailbox, "interval", 0)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: host.deliver("a", TLS))
    result = host.run(receive=[{"marker": "a", "command": [program]}], timeout=15)
    assert result["received"][0]["arrived"] is True


def test_a_command_that_fails_is_not_waited_for(host):
    program = command(host, "echo 'no such user' >&2; exit 67")
    started = time.monotonic()
    said = host.refusal(receive=[{"marker": "a", "command": [program]}], timeout=60)
    assert said == f"{program} failed with status 67: no such user"
    assert time.monotonic() - started < 10


def test_a_command_that_hangs(host):
    said = host.refusal(receive=[{"marker": "a", "command": [command(host, "sleep 60")]}], look_timeout=1)
    assert said.endswith("did not end within 1 s")


def test_an_imap_server_that_is_not_there(host, unused_tcp_port):
    said = host.refusal(receive=[{"marker": "a", "imap": {**IMAP, "port": unused_tcp_port}}], timeout=60)
    assert said == f"imap: 127.0.0.1:{unused_tcp_port} failed: Connection refused"


@pytest.fixture
def unused_tcp_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ({"command": []}, "command is empty"),
        ({"command": ["x"], "delete": True}, "delete cannot be used with command"),
        ({"imap": {**IMAP, "host": "imap.example.com"}}, "would cross the network to imap.example.com in plaintext"),
        ({"imap": {**IMAP, "host": "a b"}}, "neither a host name nor an IP address"),
        ({"imap": {**IMAP, "port": 70000}}, "is not between 1 and 65535"),
        ({"imap": {**IMAP, "folder": "a\r\nb"}}, "the folder is empty or holds a control character"),
        ({"imap": {**IMAP, "password": "s3cret-word\n"}}, "the password is empty or holds a control character"),
    ],
)
def test_places_that_are_refused_before_anything_is_sent(host, check_mode, place, reason):
    said = host.refusal(check_mode=check_mode, send=[letter()], receive=[{"marker": "a", **place}])
    assert reason in said
    assert "s3cret-word" not in said
    assert not host.taken.exists()


def test_a_message_is_removed_where_that_is_wanted(host):
    mailbox = host.deliver("a", TLS)
    host.deliver("b", TLS)
    result = host.run(
        receive=[
            {"marker": "a", "mailbox": mailbox, "delete": True},
            {"marker": "b", "mailbox": mailbox},
            {"marker": "c", "mailbox": mailbox, "delete": True},
        ]
    )
    assert [(one["arrived"], one["deleted"]) for one in result["received"]] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert result["changed"] is True
    assert sorted(find_marked(mailbox, ["a", "b"])) == ["b"]


def test_a_message_that_cannot_be_removed_stays_with_a_warning(host, monkeypatch):
    monkeypatch.setattr(mailbox_search, "MAILBOX_LOCK_SECONDS", 0.2)
    mailbox = host.deliver("a", TLS)
    (host.directory / "trace.lock").touch()
    result = host.run(receive=[{"marker": "a", "mailbox": mailbox, "delete": True}])
    assert (result["changed"], result["received"][0]["deleted"], result["received"][0]["verdict"]) == (
        False,
        False,
        "pass",
    )
    assert result["warnings"] == [f"the message a was not removed: {mailbox} is locked by another program"]
    assert (host.directory / "trace.lock").exists()


def test_a_mailbox_that_holds_too_much_does_not_hold_the_call(host):
    (host.directory / "box").write_bytes(b"\n" * (48 << 20))
    with at_most(30):
        result = host.run(
            receive=[{"marker": "a", "mailbox": str(host.directory / "box")}], timeout=1, look_timeout=300
        )
    [one] = result["received"]
    assert (one["verdict"], one["message"]) == (
        "lost",
        f"it was not found within 1 s, but not all was read: a look into {host.directory}/box needs more than 1 seconds",
    )


def test_a_pipe_is_no_mailbox(host):
    os.mkfifo(host.directory / "pipe")
    said = host.refusal(receive=[{"marker": "a", "mailbox": str(host.directory / "pipe")}], timeout=60)
    assert "neither an mbox file nor a Maildir" in said


# Check mode


def test_check_mode_sends_nothing_and_waits_for_nothing(host):
    started = time.monotonic()
    result = host.run(check_mode=True, send=[letter()], receive=[{"marker": "m-1", "mailbox": "/nowhere"}], timeout=60)
    assert (result["changed"], result["sent"], result["received"]) == (False, [], [])
    assert time.monotonic() - started < 10
    assert not host.taken.exists()
