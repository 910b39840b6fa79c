"""A marked message on its whole way, read where it lands: a file, IMAP, a command's output."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from lab_testinfra import Fleet

IMAP = {"host": "mx.partner.test", "user": "trace", "password": "imap-secret"}
COMMAND = ["doveadm", "-f", "pager", "fetch", "-u", "trace", "hdr", "header", "X-Mailfleet-Trace", "{marker}"]
MAILBOX = "/var/mail/trace"


@pytest.fixture(scope="module")
def imap(fleet: Fleet) -> Iterator[dict[str, Any]]:
    """The mailbox of the outside host behind IMAP, with a certificate of the lab's authority."""
    partner = fleet.play("tools/lab/playbooks/partner.yml")
    assert partner.status == 0, partner.output
    fleet.run("outside", "systemctl restart dovecot")
    yield {**IMAP, "ca_content": fleet.ca.read_text()}
    fleet.run("outside", "systemctl stop dovecot")


@pytest.fixture(scope="module")
def marker(fleet: Fleet) -> str:
    """A message that has arrived outside, from a mail server through the gateway."""
    mark = f"out-{uuid.uuid4().hex}"
    letter = {"marker": mark, "sender": "trace@alpha.test", "recipient": "trace@partner.test"}
    sent = fleet.result("pf12", "message_trace", {"send": [letter]})
    assert sent["sent"] == [mark], sent["output"]
    assert look(fleet, mark, timeout=60, mailbox=MAILBOX)["arrived"]
    return mark


def look(fleet: Fleet, mark: str, timeout: int = 5, **place: Any) -> dict[str, Any]:
    """What message_trace says of one message."""
    seen = fleet.result("outside", "message_trace", {"receive": [{"marker": mark, **place}], "timeout": timeout})
    assert not seen["failed"], seen["output"]
    return seen["received"][0]


def refusal(fleet: Fleet, mark: str, **place: Any) -> str:
    """Why message_trace failed; it does not wait, and no secret is in its output."""
    seen = fleet.result("outside", "message_trace", {"receive": [{"marker": mark, **place}], "timeout": 45})
    assert seen["failed"], seen["output"]
    assert "secret" not in seen["output"]
    return seen["msg"]


def test_the_way_through_the_gateway(fleet: Fleet, imap: dict[str, Any], marker: str) -> None:
    trace = look(fleet, marker, mailbox=MAILBOX)
    crossed = [hop for hop in trace["hops"] if hop["network"]]
    assert [hop["by"] for hop in crossed] == ["gw1.fleet.test", "mx.partner.test"]
    assert all(hop["writer"] == "postfix" and hop["clear"] and hop["date"] for hop in trace["hops"])
    assert all(hop["delay"] >= 0 for hop in trace["hops"][1:])
    assert crossed[-1]["tls_version"] == "TLSv1.3"
    assert (trace["tls"], trace["verdict"]) == (True, "pass"), trace["message"]


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_imap_shows_the_same_as_the_file(fleet: Fleet, imap: dict[str, Any], marker: str, tls: str) -> None:
    assert look(fleet, marker, imap={**imap, "tls": tls}) == look(fleet, marker, mailbox=MAILBOX)


def test_a_command_shows_the_same_as_the_file(fleet: Fleet, imap: dict[str, Any], marker: str) -> None:
    assert look(fleet, marker, command=COMMAND) == look(fleet, marker, mailbox=MAILBOX)
    assert look(fleet, marker, command=["cat", MAILBOX]) == look(fleet, marker, mailbox=MAILBOX)


def test_the_message_stays_unread(fleet: Fleet, imap: dict[str, Any], marker: str) -> None:
    look(fleet, marker, imap=imap)
    flags = fleet.run("outside", f"doveadm fetch -u trace flags header X-Mailfleet-Trace {marker}")
    assert "Seen" not in flags and "flags:" in flags


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "another-secret"}, "did not let trace log in"),
        ({"ca_content": None}, "shows a certificate that cannot be trusted"),
        ({"host": "localhost"}, "shows a certificate that cannot be trusted"),
        ({"folder": "Nowhere"}, "has no folder 'Nowhere'"),
        ({"port": 994}, "Connection refused"),
    ],
    ids=["wrong password", "unknown authority", "wrong name", "unknown folder", "no server"],
)
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_what_cannot_be_read_fails_at_once(
    fleet: Fleet, imap: dict[str, Any], marker: str, tls: str, change: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(fleet, marker, imap={**imap, "tls": tls, **change})


def test_another_authority_is_not_trusted(fleet: Fleet, imap: dict[str, Any], marker: str) -> None:
    fleet.run(
        "outside", "openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -out /tmp/other.pem -subj /CN=other"
    )
    other = {**imap, "ca_content": None, "ca_file": "/tmp/other.pem"}
    assert "cannot be trusted" in refusal(fleet, marker, imap=other)


def test_a_command_that_fails(fleet: Fleet, marker: str) -> None:
    assert "doveadm failed with status" in refusal(fleet, marker, command=[*COMMAND[:6], "hdr", "no-such-search"])
    assert refusal(fleet, marker, command=["/usr/local/bin/none"]) == (
        "/usr/local/bin/none cannot be started: No such file or directory"
    )


@pytest.mark.parametrize("place", ["mailbox", "imap", "command"])
def test_a_message_that_does_not_come_is_lost(fleet: Fleet, imap: dict[str, Any], place: str) -> None:
    places = {"mailbox": MAILBOX, "imap": imap, "command": COMMAND}
    trace = look(fleet, f"none-{uuid.uuid4().hex}", timeout=1, **{place: places[place]})
    assert (trace["arrived"], trace["verdict"]) == (False, "lost")


@pytest.mark.parametrize("tls", [True, False], ids=["over TLS", "in plaintext"])
def test_the_verdict_on_a_message_from_outside_the_path(fleet: Fleet, imap: dict[str, Any], tls: bool) -> None:
    mark = f"direct-{uuid.uuid4().hex}"
    fleet.send("gw1", ["trace@partner.test"], tls, headers=f"X-Mailfleet-Trace: {mark}\n", to="outside")
    trace = look(fleet, mark, timeout=40, imap=imap)
    assert (trace["tls"], trace["verdict"]) == (tls, "pass" if tls else "plaintext")
    assert tls or trace["message"] == "in plaintext from mx.partner.test to mx.partner.test (ESMTP)"


@pytest.mark.parametrize("place", ["mailbox", "imap"])
def test_the_message_is_removed_and_no_other(fleet: Fleet, imap: dict[str, Any], marker: str, place: str) -> None:
    marks = [f"gone-{uuid.uuid4().hex}" for _ in range(3)]
    for mark in marks:
        fleet.send("gw1", ["trace@partner.test"], False, headers=f"X-Mailfleet-Trace: {mark}\n", to="outside")
        look(fleet, mark, timeout=40, mailbox=MAILBOX)
    where = {"mailbox": MAILBOX} if place == "mailbox" else {"imap": imap}
    assert look(fleet, marks[1], delete=True, **where)["deleted"] is True
    arrived = [look(fleet, mark, timeout=0, mailbox=MAILBOX)["arrived"] for mark in (marker, *marks)]
    assert arrived == [True, True, False, True]
