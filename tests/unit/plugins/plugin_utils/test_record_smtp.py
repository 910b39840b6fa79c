"""The recorder of a server's answers: what gets into a record, what does not, and what it never does."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils import record_smtp
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.record_smtp import Mask, RecordError, Wire, main

from tests.support.exchange import Exchange, exchange
from tests.support.smtp_server import PLAIN, Face, refused_port, server_context, serving

ENVELOPE = ["--sender", "anna@fleet.test", "--recipient", "joe@echo.test", "--recipient", "you@partner.test"]


@pytest.fixture(params=["on_premises", "online"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Exchange]:
    """Either stand-in for Exchange."""
    with exchange(tmp_path, request.param) as made:
        yield made


def test_what_exchange_answers(server: Exchange, capsys: pytest.CaptureFixture[str]) -> None:
    online = server.state()["Behaviour"] == "online"
    certificate = server.bundle("client", server.authority.issue(["relay.fleet.test"]))
    place = f"127.0.0.1:{server.port}"
    assert main([place, *ENVELOPE, "--helo", "relay.fleet.test", "--certificate", str(certificate)]) == 0
    record = capsys.readouterr().out
    assert [line for line in record.splitlines() if line.startswith("==")][1:] == [
        "== plaintext",
        "== TLS",
        "== TLS, resumed",
    ]
    end = " [<name> <time> <token>]" if online else ""
    greeting = f"S: 220 <name> Microsoft ESMTP MAIL Service ready at <time>{' [<token>]' if online else ''}"
    refused = "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"
    answers = ["250 2.1.5 Recipient OK", "250 2.1.5 Recipient OK" if online else refused]
    assert record.count(greeting) == 3
    assert f"C: MAIL FROM:<sender>\nS: 503 5.5.2 Send hello first{end}\n" in record
    for number, answer in enumerate(answers, 1):
        assert record.count(f"C: RCPT TO:<recipient {number}>\nS: {answer}{end}\n") == 2
    assert "S: 250-8BITMIME" in record and "S: 250-STARTTLS" in record and "SMTPUTF8" in record and "SIZE " in record
    assert ", new session" in record and ", resumed\n" in record
    found = re.findall(
        r"fleet|echo|partner|anna|joe|127\.0|exch\b|relay\.|[0-9A-F]{16}|20\d\d", record.replace("AES_256", "")
    )
    assert found == []
    assert server.received() == []


def test_a_server_that_requires_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with exchange(tmp_path, "on_premises") as server:
        server.set("ReceiveConnectors", RequireTLS=True)
        assert main([f"127.0.0.1:{server.port}", *ENVELOPE]) == 0
    assert "C: MAIL FROM:<sender>\nS: 451 5.7.3 STARTTLS is required to send mail\n" in capsys.readouterr().out


def test_nothing_but_harmless_commands_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(PLAIN) as server:
        main([f"127.0.0.1:{server.port}", *ENVELOPE])
        verbs = {command.split(b" ")[0].decode() for command in server.commands}
    assert verbs <= set(record_smtp.VERBS) and not {"DATA", "BDAT"} & set(record_smtp.VERBS)
    one, other = socket.socketpair()
    with one, other:
        for command in ("DATA", "BDAT 1 LAST", "RSET\r\nDATA", "data"):
            with pytest.raises(RecordError):
                Wire(one).send(command)


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("250 2.1.5 Recipient OK", "250 2.1.5 Recipient OK"),
        ("550 5.7.64 TenantAttribution; Relay Access Denied [AM0PR01.eurprd01.prod.example.com 2026-11-29T10:00:00.000Z 08DE2F]",
         "550 5.7.64 TenantAttribution; Relay Access Denied [<name> <time> <token>]"),
        ("250-SIZE 37748736", "250-SIZE 37748736"),
        ("250-AUTH NTLM LOGIN CRAM-MD5 XOAUTH2", "250-AUTH NTLM LOGIN CRAM-MD5 XOAUTH2"),
        ("250-X-EXPS GSSAPI NTLM", "250-X-EXPS GSSAPI NTLM"),
        ("550 5.1.10 <joe@corp.example.com>: nobody at CORP, see https://corp.example.com/x?y=z",
         "550 5.1.10 <address>: nobody at <name>, see <url>"),
        ("454 4.7.0 Failed to establish appropriate TLS channel: UntrustedRoot: Access Denied",
         "454 4.7.0 Failed to establish appropriate TLS channel: UntrustedRoot: Access Denied"),
        ("550 5.7.1 client 2001:db8::25 (192.0.2.25) of EX01 is listed, ticket 123456",
         "550 5.7.1 client <ip> (<ip>) of <token> is listed, ticket <number>"),
        ("421 4.3.2 \x1b[mService\x07", "421 4.3.2 \\x1b[mService\\x07"),
        ("250 2.6.0 eyJhbGciOiJIUzI1NiJ9.abcdefghijklmnopqrstuvwxyzABCDEFGHIJ", "250 2.6.0 <name>"),
        ("450 4.4.317 x [Message=SubjectMismatch] [Hostname=mx.corp.example.com] [IPv6:2001:db8::1] Reason:UntrustedRoot.",
         "450 4.4.317 x [Message=SubjectMismatch] [Hostname=<name>] [<ip>] Reason:UntrustedRoot."),
        ("550 5.7.1 corp-dc, CORP's \"corp\" and (Corp)", "550 5.7.1 <name>, <name>'s \"<name>\" and (<name>)"),
    ],
)  # fmt: skip
def test_the_mask(line: str, masked: str) -> None:
    assert Mask(["mail.corp.example.com"]).line(line) == masked


def test_a_greeting_of_one_s_own_goes_as_a_whole() -> None:
    mask = Mask()
    own = "The machine of Example Corp, no entry"
    assert mask.greeting(f"220 MAILSRV {own}") == f"220 <name> <a text of its own, {len(own)} characters>"
    assert mask.line("450 4.7.1 ask mailsrv again") == "450 4.7.1 ask <name> again"
    assert mask.greeting("220 mail.example.com ESMTP Postfix") == "220 <name> ESMTP Postfix"
    assert mask.greeting("554 5.7.1 no entry for 192.0.2.1") == "554 5.7.1 no entry for <ip>"


def test_hosts_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"127.0.0.1:{refused_port()}"]) == 1
    assert "-- ended: Connection refused" in capsys.readouterr().out
    assert main([f"{'a' * 70}.test"]) == 1
    assert "the name cannot be resolved" in capsys.readouterr().out


def drip(connection: socket.socket) -> None:
    """Send a byte now and then, and never a line."""
    for _ in range(100):
        connection.sendall(b"2")
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("face", "said"),
    [
        (Face(on_connect=lambda connection: connection.sendall(b"220-x\r\n" * 5000)), "more than 100 lines"),
        (Face(on_connect=lambda connection: connection.sendall(b"2" * 100000)), "more than 2000 characters"),
        (Face(on_connect=lambda connection: None), "closed the connection"),
        (Face(starttls=b"220 go\r\n", on_starttls=lambda connection: connection.sendall(b"rubbish" * 9)), "-- ended: "),
        (Face(ehlo=b"\xff\x00\x1b]0;x\x07\r\n"), "S: \\xff\\x00"),
    ],
    ids=["lines", "line", "gone", "no TLS", "rubbish"],
)  # fmt: skip
def test_hostile_servers(face: Face, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(face) as server:
        main([f"127.0.0.1:{server.port}", *ENVELOPE])
    shown = capsys.readouterr().out
    assert said in shown, shown
    assert len(shown) < 20000 and shown.replace("\n", "").isprintable() and shown.isascii()


@pytest.mark.parametrize(
    ("face", "said"),
    [
        (Face(on_connect=lambda connection: connection.recv(1)), "no whole reply within"),
        (Face(on_connect=drip), "no whole reply within"),
    ],
    ids=["silent", "drip"],
)
def test_slow_servers(
    face: Face, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_smtp, "_PATIENCE", 0.4)
    with serving(face) as server:
        assert main([f"127.0.0.1:{server.port}"]) == 1
    assert said in capsys.readouterr().out


def test_a_session_that_is_not_resumed_is_said(authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = server_context(tmp_path, authority.issue(["mail.example.com"]))
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    with serving(Face(context=context)) as server:
        main([f"127.0.0.1:{server.port}"])
    assert "resumed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["bad:port"], ["x:0"], ["x:99999"], ["x", "--recipient", "a@b.test"], ["x", "--sender", "a b@c.test"],
        ["x", "--sender", "a>@b.test"],
        ["x", "--sender", "a@b.test\r\nDATA"], ["x", "--helo", "a b"], ["127.0.0.1:1", "--certificate", "/nonexistent"],
    ],
)  # fmt: skip
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("record_smtp: ")


def test_it_is_a_program_of_one_file(tmp_path: Path) -> None:
    """It runs where nothing of the collection is."""
    alone = tmp_path / "record_smtp.py"
    alone.write_bytes(Path(record_smtp.__file__).read_bytes())
    with serving(PLAIN) as server:
        done = subprocess.run(
            [sys.executable, "-I", str(alone), f"127.0.0.1:{server.port}", "--helo", "x.test"],
            cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "S: 220 <name>" in done.stdout
