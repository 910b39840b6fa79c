"""The hops between the instances: their certificate, made by the real openssl, and who is let in with it."""

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import between
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

SETTINGS = Settings(helo_name="gw.example", timeout=5)


def run(arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def pair(tmp_path):
    path = tmp_path / "instances.pem"
    path.write_bytes(between.new_pair(run))
    return str(path)


@contextlib.contextmanager
def instance(pair, clients, greeting=b"220 gw.example ESMTP", ehlo=b"250 gw.example"):
    """A port that a session can begin on with a certificate of these clients only; yields its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.load_verify_locations(clients)
    context.verify_mode = ssl.CERT_REQUIRED

    def serve():
        with contextlib.suppress(OSError):
            client, _peer = listener.accept()
            with client, context.wrap_socket(client, server_side=True) as session:
                session.sendall(greeting + b"\r\n")
                while line := session.recv(1024):
                    session.sendall((ehlo if line.startswith(b"ehlo") else b"221 Bye") + b"\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Target("127.0.0.1", listener.getsockname()[1])
        listener.close()
        thread.join(10)


def test_the_holder_of_the_certificate_is_let_in(pair):
    with instance(pair, pair) as port:
        assert between.fault(port, pair, SETTINGS) == ""


def test_another_certificate_with_the_same_name_is_not(pair, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(between.new_pair(run))
    with instance(pair, pair) as port:
        assert "certificate verify failed" in between.fault(port, str(other), SETTINGS)
    with instance(str(other), pair) as port:
        assert "certificate verify failed" in between.fault(port, pair, SETTINGS)


@pytest.mark.parametrize(
    ("answers", "said"),
    [({"greeting": b"421 no"}, "421"), ({"ehlo": b"502 no"}, "502 b'no'")],
    ids=["greeting", "ehlo"],
)
def test_an_instance_that_does_not_serve_is_said(pair, answers, said):
    with instance(pair, pair, **answers) as port:
        assert said in between.fault(port, pair, SETTINGS)


def test_nobody_there_or_no_certificate_is_said(pair, tmp_path):
    assert "refused" in between.fault(Target("127.0.0.1", 1), pair, SETTINGS)
    assert "No such file" in between.fault(Target("127.0.0.1", 1), str(tmp_path / "none"), SETTINGS)
    with pytest.raises(
        EngineError, match=r"^the gateway does not answer on 127\.0\.0\.1:1 after the change: .*refused"
    ):
        between.prove(Target("127.0.0.1", 1), pair, Settings(timeout=0.1))


def test_the_certificate_outlives_the_host(pair):
    assert run(["openssl", "x509", "-in", pair, "-noout", "-checkend", str(90 * 365 * 86400)])[0] == 0
    assert run(["openssl", "verify", "-CAfile", pair, pair])[0] == 0


@pytest.mark.parametrize("answer", [(1, "", "unable to write"), (0, "", ""), FileNotFoundError()])
def test_no_openssl_is_said(answer):
    def failing(_arguments):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(EngineError, match=r"^openssl cannot make the certificate of the other instances: "):
        between.new_pair(failing)
