"""Questions to a policy service that answers as it likes."""

import contextlib
import socket
import tempfile
import threading
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import arrival_policy, policy_client
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

QUESTIONS = [{"policy_context": "arrival", "encryption_protocol": one} for one in ("TLSv1.3", "")]


@contextlib.contextmanager
def service(answer):
    """A policy service on a socket. answer: gets the lines of the session and the function that sends bytes."""

    def serve():
        client, _peer = listener.accept()
        with client, client.makefile("r", encoding="ascii") as lines, contextlib.suppress(OSError):
            answer(lines, client.sendall)

    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(directory, "policy"))
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        thread.join(10)
        assert not thread.is_alive()


def scripted(*answers):
    def answer(lines, send):
        for one in answers:
            for line in lines:
                if line == "\n":
                    break
            send(one)

    return answer


def test_our_own_service_understands_the_questions():
    def answer(lines, send):
        for one in arrival_policy.answers(lines, "mailfleet-arrived:x", "y", frozenset):
            send(one.encode())

    with service(answer) as path:
        assert policy_client.ask(path, QUESTIONS) == ["FILTER mailfleet-arrived:x", "DUNNO"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "ends the session without an answer"),
        (b"250 Ok\n\n", "it answers '250 Ok'"),
        (b"action=" + b"x" * 5000, "it answers 'action=xxx"),
        (b"action=\x1b[2J\n", r"it answers 'action=\\\\x1b\[2J\\\\x0a'"),
    ],
)
def test_something_else_that_answers(answer, message):
    with service(scripted(answer)) as path, pytest.raises(EngineError, match=message):
        policy_client.ask(path, QUESTIONS)


def test_a_hostile_action_is_one_printable_line():
    with service(scripted(b"action=DUNNO\x1b[2J\nmore=x\n\n", b"action=" + b"y" * 900 + b"\n\n")) as path:
        one, two = policy_client.ask(path, QUESTIONS)
    assert (one, len(two)) == (r"DUNNO\x1b[2J", 200)


def test_a_service_that_does_not_answer():
    with service(lambda lines, _send: list(lines)) as path, pytest.raises(EngineError, match=r"within 0\.1 seconds"):
        policy_client.ask(path, QUESTIONS, 0.1)


def test_a_service_that_trickles_is_given_up_in_time():
    waits = threading.Event()

    def answer(_lines, send):
        while not waits.wait(0.02):
            send(b"a")

    with service(answer) as path:
        with pytest.raises(EngineError, match=r"within 0\.2 seconds"):
            policy_client.ask(path, QUESTIONS, 0.2)
        waits.set()


def test_no_service(tmp_path):
    with pytest.raises(EngineError, match="No such file"):
        policy_client.ask(str(tmp_path / "none"), QUESTIONS)
