"""A server that has too much to do is asked once more, wherever evidence or a proof is taken, and that is told."""

import contextlib
import socket
import threading

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import own_port
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.evidence import Handshakes
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import between
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe import engine as probe_engine
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import Request, run_probe
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import patience
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import (
    handshake_all,
    is_busy,
    says_busy,
    wait_until,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

POSTFIX = b"421 4.7.0 mx.example Error: too many connections from 192.0.2.1\r\n"
EXIM = b"421 Too many concurrent SMTP connections; please try again later.\r\n"
POSTSCREEN = b"421 4.3.2 All server ports are busy\r\n"
SILENT = b""


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    for module in (patience, own_port, between, probe_engine):
        monkeypatch.setattr(module, "PAUSE", 0.0)


@contextlib.contextmanager
def greeting(*greetings, then=b"220 mx.example ESMTP\r\n"):
    """A server that greets its first clients so, and then takes mail in plaintext."""
    left = list(greetings)
    held = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _peer = server.accept()
                words = left.pop(0) if left else then
                held.append(client)
                if words:
                    client.sendall(words)
                if words == then:
                    threading.Thread(target=talk, args=[client], daemon=True).start()
                elif words:
                    client.close()

    def talk(client):
        with contextlib.suppress(OSError), client, client.makefile("rb") as lines:
            for line in lines:
                client.sendall(b"221 Bye\r\n" if line[:4].upper() == b"QUIT" else b"250 ok\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield Target("127.0.0.1", server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    for client in held:
        client.close()


def settings(**more):
    return Settings(helo_name="gw.example", timeout=0.3, verify_trust=False, **more)


@pytest.mark.parametrize(
    ("text", "busy"),
    [
        ("the server greets with 421 4.7.0 mx Error: too many connections from 192.0.2.1", True),
        ("the server greets with 421 Too many concurrent SMTP connections; please try again later.", True),
        ("the server greets with 421 4.3.2 All server ports are busy", True),
        ("the server greets with 421 mx lost input connection - load average too high", True),
        ("the server greets with 554 5.7.1 too many complaints", False),
        ("the server greets with 421 4.3.2 Service currently shutting down", False),
        ("EHLO is answered with 502 too many words", False),
        ("220 421 busy", True),
        ("", False),
    ],
)
def test_what_says_that_a_server_is_busy(text, busy):
    assert says_busy(text) is busy


def test_a_server_that_does_not_greet_may_be_busy_and_one_that_is_not_reached_is_not():
    assert is_busy("timeout", "connect", "no progress for 15 s after connect")
    assert not is_busy("timeout", "connect", "no connection within 15 s")
    assert not is_busy("timeout", "ehlo", "no progress for 15 s after ehlo")
    assert not is_busy("connect_failed", "connect", "cannot connect: 421 busy")
    assert not is_busy("starttls_not_offered", "ehlo", "421 busy")


@pytest.mark.parametrize("first", [POSTFIX, EXIM, POSTSCREEN, SILENT])
def test_a_busy_server_is_asked_once_more_and_that_is_told(first):
    common = settings()
    with greeting(first) as target:
        [seen] = handshake_all([target], common)
    assert (seen.stage, seen.code) == (Stage.EHLO, "starttls_not_offered")
    [text] = common.told
    assert text.startswith(f"{target} was busy (") and text.endswith(", which went well")


def test_one_that_stays_busy_is_asked_twice_and_not_more():
    common = settings()
    with greeting(POSTFIX, POSTFIX) as target:
        [seen] = handshake_all([target], common)
    assert seen.code == "greeting_rejected"
    assert "which was answered with: the server greets with 421 4.7.0" in common.told[0]


def test_only_those_that_are_busy_are_asked_again():
    common = settings()
    with greeting(EXIM) as first, greeting(b"554 5.7.1 no\r\n") as second, greeting() as third:
        seen = handshake_all([first, second, third], common)
    assert [one.code for one in seen] == ["starttls_not_offered", "greeting_rejected", "starttls_not_offered"]
    assert [one.target for one in seen] == [first, second, third]
    assert len(common.told) == 1


def test_settings_that_were_derived_tell_the_same():
    common = settings()
    with greeting(POSTFIX) as target:
        Handshakes(common).of([target], ask_plaintext=True)
    assert len(common.told) == 1


def test_a_proof_gets_more_time(monkeypatch):
    common = settings()
    with greeting(*[POSTFIX] * 3) as target:
        seen = wait_until(lambda now: now.stage >= Stage.EHLO, target, common, 0.0)  # one look each
        assert seen.stage < Stage.EHLO and len(common.told) == 1
        assert wait_until(lambda now: now.stage >= Stage.EHLO, target, common, 0.0).stage >= Stage.EHLO
    assert len(common.told) == 2


def test_a_proof_that_fails_otherwise_does_not(monkeypatch):
    common = settings()
    with greeting() as target:
        wait_until(lambda now: now.completed, target, common, 0.0)
    assert common.told == []


def test_the_question_at_the_own_port():
    common = settings()
    with greeting(EXIM) as target:
        assert own_port.ask(target, common, "a@example.com", "b@example.com")[0] == 250
    assert len(common.told) == 1
    with greeting(EXIM, EXIM) as target, pytest.raises(EngineError, match="421 Too many concurrent SMTP"):
        own_port.ask(target, common, "a@example.com", "b@example.com")
    with greeting(b"554 5.7.1 no\r\n") as target, pytest.raises(EngineError, match=r"554 5\.7\.1 no"):
        own_port.ask(target, common, "a@example.com", "b@example.com")


def test_the_hops_between_instances(monkeypatch):
    answers = ["421 4.7.0 too many connections", ""]
    monkeypatch.setattr(between, "_fault", lambda *_arguments: answers.pop(0))
    common = settings()
    assert between.fault(Target("127.0.0.1", 10125), "pair", common) == ""
    assert (answers, len(common.told)) == ([], 1)


OPTIONS = {
    "mode": "full", "checks": [], "ca_content": None, "helo_name": "gw.example", "timeout": 1, "total_timeout": 5, "concurrency": 10,
    "require_trusted": False, "min_tls_version": "TLSv1.2", "min_days_left": 0, "warn_days_left": 0, "fail_on": "error",
}  # fmt: skip


@pytest.mark.parametrize("first", [[], [POSTFIX], [POSTFIX, POSTFIX]])
def test_the_probe(first):
    with greeting(*first) as target, greeting() as other:
        targets = [
            {"host": one.host, "port": one.port, "name": "", "protocol": "smtp", "fingerprint_sha256": ""}
            for one in (other, target)
        ]
        result = run_probe(Request.of_options({**OPTIONS, "targets": targets}), lambda _line: None)
    code = "greeting_rejected" if len(first) == 2 else "starttls_not_offered"
    assert [one["code"] for one in result["results"]] == ["starttls_not_offered", code]
    assert len(result.get("warnings", [])) == bool(first)
