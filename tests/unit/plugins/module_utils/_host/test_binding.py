"""Whether a daemon could listen where its configuration says so, with real sockets."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import binding, sockets
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.binding import Wish, obstacles

V4 = (socket.AF_INET,)
ME = os.getpid()


@contextlib.contextmanager
def taken(host="127.0.0.1"):
    """A port on which this process listens."""
    with socket.create_server((host, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def stranger():
    """A process that holds nothing of these: the daemon whose configuration is looked at."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.stdin.close()
    process.wait()


def wish(port, host="127.0.0.1", **more):
    return Wish("service x/inet", host, port, str(port), **{"families": V4, **more})


def test_a_port_that_is_free(stranger):
    with taken() as port:
        pass
    assert obstacles([wish(port), wish(port, ""), wish(port, "127.0.0.2")], stranger) == []


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_a_port_that_another_program_has(stranger, host):
    with taken() as port:
        [text] = obstacles([wish(port, host)], stranger)
    where = host or "all addresses"
    assert text.startswith("service x/inet: ") and text.endswith(f"listens on port {port} of {where}")
    assert f"(process {ME})" in text


@pytest.mark.parametrize("pid", [None, "stranger"])
def test_so_it_is_whether_the_daemon_runs_or_not(stranger, pid):
    with taken() as port:
        assert len(obstacles([wish(port)], stranger if pid else None)) == 1


def test_a_port_of_another_address_is_no_obstacle(stranger):
    with taken("127.0.0.2") as port:
        assert obstacles([wish(port)], stranger) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "", "127.0.0.2"])
def test_what_the_daemon_holds_itself_is_none(host):
    """Its reload gives back what it does not need any more, before it listens anew."""
    with taken() as port:
        assert obstacles([wish(port, host)], ME) == []


def test_an_address_that_this_host_does_not_have(stranger):
    with taken() as port:
        pass
    [text] = obstacles([wish(port, "192.0.2.77")], stranger)
    assert text == f"service x/inet: nobody can listen on port {port} of 192.0.2.77 (Cannot assign requested address)"


def test_a_name_with_an_address_that_this_host_does_not_have(stranger, monkeypatch):
    """Which of the addresses of a name the daemon uses is not known."""
    monkeypatch.setattr(sockets, "_resolved", lambda _name: ("192.0.2.77", "127.0.0.1"))
    with taken() as port:
        pass
    assert obstacles([wish(port, "mail.example.com")], stranger) == []


def test_a_name_that_does_not_resolve(stranger, monkeypatch):
    monkeypatch.setattr(sockets, "_resolved", lambda _name: None)
    assert obstacles([wish(2600, "nowhere.example.com")], stranger) == [
        "service x/inet: this host does not resolve the name nowhere.example.com"
    ]
    with taken() as port:
        assert obstacles([wish(port, "nowhere.example.com")], ME) == []  # it could when the daemon read it


def test_a_port_that_is_not_known_by_name(stranger):
    found = obstacles([Wish("service foo/inet", "", None, "foo")], stranger)
    assert found == ["service foo/inet: this host does not know the port foo by name"]


def test_a_protocol_that_the_daemon_does_not_use(stranger):
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        port = server.getsockname()[1]
        assert obstacles([wish(port, "")], stranger) == []
        assert len(obstacles([wish(port, "", families=binding.BOTH)], stranger)) == 1


def test_a_daemon_whose_sockets_cannot_be_seen(stranger, monkeypatch):
    monkeypatch.setattr(sockets, "held_by", lambda _pid: None)
    with taken() as port:
        assert obstacles([wish(port)], stranger) == []


def test_each_text_once(stranger):
    with taken() as port:
        assert len(obstacles([wish(port), wish(port)], stranger)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_without_the_right_to_listen_there(stranger):
    os.seteuid(65534)
    try:
        assert obstacles([wish(1)], None) == []
    finally:
        os.seteuid(0)


def test_what_a_process_holds():
    with taken() as port:
        assert ("127.0.0.1", port) in sockets.held_by(ME)
    assert ("127.0.0.1", port) not in sockets.held_by(ME)
    assert sockets.held_by(1 << 30) is None
