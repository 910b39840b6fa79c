import contextlib
import errno
import os
import select
import socket
import threading
import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import wire
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Dialogue, Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.wire import Limits, drive

from tests.support.alarm import at_most
from tests.support.smtp_server import PLAIN, Face, refused_port, serving

QUICK = Limits(timeout=5, total_timeout=10)


class Talk:
    """A session in plaintext, which is over when the server refuses STARTTLS or offers none."""

    def __init__(self, output=b""):
        self.dialogue = Dialogue("client.example.org")
        self.finished = False
        self.output = output

    def receive(self, data):
        self.dialogue.receive(data)
        if self.dialogue.wants_tls:
            self.finished = True
        return self.dialogue.take_output() + self.output


def once(session):
    ended = yield session
    return ended


def run(targets, limits=QUICK, make=Talk):
    found = {}
    drive(((target, once(make())) for target in targets), limits, found.__setitem__)
    return [found[place] for place in range(len(targets))]


def test_a_session_to_its_end_and_the_time_of_its_stages():
    with serving() as server:
        [ended] = run([Target(server.host, server.port)])
    assert ended.error is None
    assert list(ended.timings) == ["connect", "greeting", "ehlo", "starttls"]
    assert 0 < sum(ended.timings.values()) <= ended.seconds < 5


def test_a_slow_stage_is_told_from_the_others():
    with serving(Face(delay=0.3)) as server:
        [ended] = run([Target(server.host, server.port)])
    assert ended.timings["greeting"] >= 0.29 > ended.timings["connect"] + ended.timings["ehlo"]


def test_a_stage_that_was_reached_with_an_error_is_timed_too():
    with serving(PLAIN) as server:
        [ended] = run([Target(server.host, server.port)])
    assert ended.error.code == "starttls_not_offered"
    assert list(ended.timings) == ["connect", "greeting", "ehlo"]


def test_one_connection_after_the_other_for_one_target():
    order = []

    def thrice():
        for number in range(3):
            ended = yield Talk()
            order.append((number, ended.error))
        return "result"

    found = {}
    with serving() as server:
        drive([(Target(server.host, server.port), thrice())], QUICK, found.__setitem__)
        assert server.connections == 3
    assert order == [(0, None), (1, None), (2, None)] and found == {0: "result"}


def test_a_target_has_one_time_limit_for_all_its_connections():
    def stubborn():
        errors = []
        for _ in range(3):
            ended = yield Talk()
            errors.append(str(ended.error))
        return errors

    found = {}
    with serving(Face(on_connect=lambda connection: connection.recv(1))) as server:
        drive([(Target(server.host, server.port), stubborn())], Limits(5, 0.3, 1), found.__setitem__)
        assert server.connections == 1
    assert found[0] == ["no end within 0.3 s"] * 3


def test_a_name_is_looked_up_and_its_addresses_are_tried_in_turn(monkeypatch):
    with serving() as server:
        rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host, port in
                [("127.0.0.1", refused_port()), ("127.0.0.1", server.port)]]  # fmt: skip
        monkeypatch.setattr(
            wire.socket, "getaddrinfo", lambda host, port, **_: rows if host == "mx.example.com" else []
        )
        seen = run([Target("mx.example.com.", 25), Target("none.example.com", 25)])
        assert server.connections == 1
    assert seen[0].error is None
    assert (seen[1].error.code, str(seen[1].error)) == (
        "name_not_resolved", "cannot connect to none.example.com:25: it has no address",
    )  # fmt: skip


def deaf_address(opened):
    """An address that takes no more connections and refuses none, as behind a firewall that drops."""
    deaf = opened.enter_context(socket.socket())
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    for _ in range(4):
        filler = opened.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(deaf.getsockname())
    return deaf.getsockname()


def test_every_address_gets_its_share_of_the_time(monkeypatch):
    with contextlib.ExitStack() as opened:
        deaf = deaf_address(opened)
        server = opened.enter_context(serving())
        rows = [(socket.AF_INET, 1, 6, "", address) for address in (deaf, (server.host, server.port))]
        monkeypatch.setattr(wire.socket, "getaddrinfo", lambda *_, **__: rows)
        [ended] = run([Target("mx.example.com")], Limits(1.0, 10))
    assert ended.error is None
    assert 0.4 < ended.timings["connect"] < 1.0


def test_a_third_address_that_is_silent_holds_nobody_up(monkeypatch):
    with contextlib.ExitStack() as opened:
        addresses = [deaf_address(opened) for _ in range(2)]
        silent = opened.enter_context(serving(Face(delay=30)))
        rows = [(socket.AF_INET, 1, 6, "", address) for address in (*addresses, (silent.host, silent.port))]
        monkeypatch.setattr(wire.socket, "getaddrinfo", lambda *_, **__: rows)
        with at_most(5):
            [ended] = run([Target("mx.example.com")], Limits(0.6, 1.5))
    assert ended.error.code == "timeout"


def test_names_that_wait_to_be_looked_up_lose_no_time(monkeypatch):
    with serving() as server:
        row = (socket.AF_INET, 1, 6, "", (server.host, server.port))
        monkeypatch.setattr(wire, "MAX_RESOLVERS", 1)
        monkeypatch.setattr(wire.socket, "getaddrinfo", lambda *_, **__: time.sleep(0.2) or [row])
        seen = run([Target(f"mx{number}.example.com") for number in range(6)], Limits(0.7, 10))
    assert [ended.error for ended in seen] == [None] * 6


@pytest.mark.parametrize("allowed", [0, 1])
def test_without_more_threads_names_are_looked_up_all_the_same(monkeypatch, allowed):
    begin, begun = threading.Thread.start, []

    def start(thread):
        if "_Resolver" in str(thread._target):  # the server has threads too
            if len(begun) == allowed:
                raise RuntimeError("can't start new thread")
            begun.append(thread)
        begin(thread)

    with serving() as server:
        row = (socket.AF_INET, 1, 6, "", (server.host, server.port))
        monkeypatch.setattr(wire.socket, "getaddrinfo", lambda *_, **__: [row])
        monkeypatch.setattr(wire.threading.Thread, "start", start)
        seen = run([Target(f"mx{number}.example.com") for number in range(3)])
        monkeypatch.undo()
    assert [ended.error for ended in seen] == [None] * 3


def test_many_slow_look_ups_take_the_time_of_one(monkeypatch):
    def slow(*_, **__):
        time.sleep(0.2)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(wire.socket, "getaddrinfo", slow)
    started = time.monotonic()
    seen = run([Target(f"mx{number}.example.com") for number in range(100)])
    assert time.monotonic() - started < 5
    assert {ended.error.code for ended in seen} == {"name_not_resolved"}
    assert "Name or service not known" in str(seen[0].error)


@pytest.mark.parametrize("limits", [Limits(0.3, 10), Limits(10, 0.3)])
def test_a_look_up_that_takes_too_long(monkeypatch, limits):
    """Whichever limit ends it, the name service is what did not answer."""
    release = threading.Event()
    monkeypatch.setattr(wire.socket, "getaddrinfo", lambda *_, **__: release.wait(10) and [])
    with at_most(5):
        [ended] = run([Target("mx.example.com")], limits)
    release.set()
    assert (ended.error.code, str(ended.error)) == ("name_not_resolved", "no address found within 0.3 s")


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EPERM])
def test_a_host_without_a_route_says_nothing_of_the_server(monkeypatch, number):
    monkeypatch.setattr(wire.socket.socket, "connect_ex", lambda *_: number)
    [ended] = run([Target("192.0.2.1", 25)])
    assert (ended.error.code, str(ended.error)) == (
        "no_route",
        f"cannot connect to 192.0.2.1:25: {os.strerror(number)}",
    )


def test_what_does_not_fit_into_the_socket_is_sent_later():
    taken = []

    def swallow(connection):
        connection.sendall(b"220 hello\r\n")
        time.sleep(0.2)
        while len(b"".join(taken)) < 8_000_000:
            taken.append(connection.recv(65536))
        connection.sendall(b"250-x\r\n250 STARTTLS\r\n")
        connection.recv(100)
        connection.sendall(b"220 go\r\n")

    class Large(Talk):
        def receive(self, data):
            return super().receive(data) + (b"x" * 8_000_000 if data.startswith(b"220 hello") else b"")

    with serving(Face(on_connect=swallow)) as server, at_most(20):
        [ended] = run([Target(server.host, server.port)], make=Large)
    assert ended.error is None
    assert b"".join(taken).startswith(b"EHLO client.example.org\r\nxxx")


def test_what_a_server_said_before_it_closed_is_read_though_nothing_can_be_sent():
    def last_words(connection):
        connection.sendall(b"220 hello\r\n250-x\r\n250 STARTTLS\r\n454 no\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    with serving(Face(on_connect=last_words)) as server:
        [ended] = run([Target(server.host, server.port)])
    assert ended.error.code == "starttls_refused"


def test_no_more_handshakes_at_a_time_than_memory_is_meant_for(monkeypatch):
    monkeypatch.setattr(wire, "MAX_HANDSHAKES", 2)
    lock, at_once, most = threading.Lock(), 0, 0

    class Long(Talk):
        """Goes on after the 220 until the server says more."""

        def receive(self, data):
            if self.dialogue.stage is Stage.STARTTLS_ANSWERED:
                self.finished = True
                return b""
            self.dialogue.receive(data)
            return self.dialogue.take_output() or b"hello"

    def handshake(connection):
        nonlocal at_once, most
        assert connection.recv(100) == b"hello"
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        connection.sendall(b"x")

    with serving(Face(on_starttls=handshake)) as server:
        seen = run([Target(server.host, server.port)] * 20, make=Long)
    assert [ended.error for ended in seen] == [None] * 20
    assert most <= 2


def test_servers_that_stall_in_their_handshakes_do_not_hold_up_the_others_for_long(monkeypatch):
    monkeypatch.setattr(wire, "MAX_HANDSHAKES", 2)
    monkeypatch.setattr(wire, "MAX_WAIT", 0.1)

    class Stalled(Talk):
        def receive(self, data):
            self.dialogue.receive(data)
            return self.dialogue.take_output()

    started = time.monotonic()
    with serving(Face(on_starttls=lambda connection: connection.recv(100))) as server:
        seen = run([Target(server.host, server.port)] * 12, Limits(1.0, 10), Stalled)
    assert {str(ended.error) for ended in seen} == {"no progress for 1 s after starttls_answered"}
    assert time.monotonic() - started < 4


def test_timers_of_connections_that_have_ended_are_thrown_away():
    deliveries = []
    driver = wire._Driver(QUICK, lambda *_: deliveries.append(len(driver._timers)))
    with serving(Face(greeting=b"421 busy\r\n")) as server:
        driver.run((Target(server.host, server.port), once(Talk())) for _ in range(400))
    driver.close()
    assert len(deliveries) == 400 and max(deliveries) <= 2 * QUICK.concurrency + 66


def test_without_epoll_poll_does(monkeypatch):
    monkeypatch.delattr(select, "epoll")
    with serving() as server:
        seen = run([Target(server.host, server.port)] * 5 + [Target("127.0.0.1", refused_port())])
    assert [ended.error and ended.error.code for ended in seen] == [None] * 5 + ["connect_failed"]


def test_no_sockets_are_left(monkeypatch):
    with serving() as server:
        run([Target(server.host, server.port)])
        before = len(os.listdir("/proc/self/fd"))
        run([Target("localhost", server.port)] * 10)
        deadline = time.monotonic() + 5
        while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
            time.sleep(0.01)  # the server's side
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("family", ["2001:db8::1", "192.0.2.1"])
def test_an_address_is_not_looked_up(monkeypatch, family):
    monkeypatch.setattr(wire.socket, "getaddrinfo", None)
    assert wire._literal(Target(family, 25))[0][1][:2] == (family, 25)


def test_running_out_of_files_is_told_for_what_it_is(monkeypatch):
    def exhausted(*_args):
        raise OSError(24, "Too many open files")

    driver_socket = wire.socket.socket
    monkeypatch.setattr(wire.socket, "socket", exhausted)
    try:
        [ended] = run([Target("127.0.0.1", 25)])
    finally:
        monkeypatch.setattr(wire.socket, "socket", driver_socket)
    assert str(ended.error) == "cannot connect to 127.0.0.1:25: Too many open files"


@pytest.mark.parametrize(
    ("host", "looked_up", "said"),
    [
        ("mx1.example.com", "other.example.net", "mx1.example.com"),
        ("check-a", "check-a.example.com", "check-a.example.com"),
        ("check-b", "check-b", ""),
        ("check-c", "localhost.localdomain", ""),
        ("check-d.", "check-d.", ""),
    ],
)
def test_the_own_name_is_full_or_none(monkeypatch, host, looked_up, said):
    monkeypatch.setattr("socket.gethostname", lambda: host)
    monkeypatch.setattr("socket.getfqdn", lambda name="": looked_up)
    assert wire.own_name() == said


def test_a_name_service_that_does_not_answer_is_not_waited_for(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr("socket.gethostname", lambda: "check-slow")
    monkeypatch.setattr("socket.getfqdn", lambda name="": str(never.wait(30)))
    monkeypatch.setattr(wire, "NAME_SECONDS", 0.01)
    assert wire.own_name() == ""
    never.set()


@pytest.mark.parametrize(("address", "literal"), [("127.0.0.1", "[127.0.0.1]"), ("::1", "[IPv6:::1]")])
def test_the_own_address_as_a_literal(address, literal):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind((address, 0))
        assert wire.address_literal(sock) == literal
