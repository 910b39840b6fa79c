"""Which sockets listen, who owns them, and how that differs from the configuration."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.sockets import (
    MAIL_PORTS,
    Socket,
    compare,
    listening,
)

from tests.support.attacker import UID, needs_root, sleeping

OURS = ("master",)
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"


def written(address: str) -> str:
    """An address as the kernel writes it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


class Proc:
    """A tree as in /proc."""

    def __init__(self, root: Path):
        self.root = root
        (root / "net").mkdir()
        for name in ("tcp", "tcp6"):
            (root / "net" / name).write_text(HEADER + "\n")

    def socket(self, address: str, port: int, inode: int, state: str = "0A") -> None:
        table = self.root / "net" / ("tcp6" if ":" in address else "tcp")
        local, remote = f"{written(address)}:{port:04X}", f"{written('::' if ':' in address else '0.0.0.0')}:0000"
        line = f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100"
        table.write_text(table.read_text() + line + "\n")

    def process(self, pid: int, program: str, *inodes: int, parent: int = 1, comm: str = "") -> Path:
        directory = self.root / str(pid)
        (directory / "fd").mkdir(parents=True)
        (directory / "exe").symlink_to(f"/usr/sbin/{program}")
        name = comm or program.partition(" ")[0]
        (directory / "comm").write_text(f"{name}\n")
        (directory / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0 -1")
        for number, inode in enumerate(inodes):
            (directory / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
        (directory / "fd" / "90").symlink_to("/dev/null")
        return directory

    def listening(self, programs=OURS, **options):
        return listening(programs, proc=str(self.root), **options)


@pytest.fixture
def proc(tmp_path):
    return Proc(tmp_path)


@pytest.mark.skipif(sys.byteorder == "big", reason="the texts come from a machine that is little-endian")
def test_addresses_are_written_as_the_kernel_does(proc):
    assert written("127.0.0.1") == "0100007F"
    assert written("::1") == "00000000000000000000000001000000"


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("10.89.0.11", "10.89.0.11"),
        ("0.0.0.0", ""),
        ("::", ""),
        ("::1", "::1"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1:2:3:4:5"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:0.0.0.0", ""),
    ],
)
def test_an_address(proc, address, host):
    proc.socket(address, 25, 100)
    proc.process(7, "master", 100)
    assert proc.listening() == [Socket(host, 25, 7, "master")]


def test_both_protocols_of_one_owner_are_one_socket(proc):
    proc.socket("0.0.0.0", 25, 100)
    proc.socket("::", 25, 101)
    proc.process(7, "master", 100, 101)
    assert proc.listening() == [Socket("", 25, 7, "master")]


def test_connections_are_no_sockets_that_listen(proc):
    proc.socket("127.0.0.1", 25, 100)
    proc.socket("127.0.0.1", 587, 101, state="01")
    proc.process(7, "master", 100, 101)
    assert proc.listening() == [Socket("127.0.0.1", 25, 7, "master")]


def test_all_sockets_of_ours_and_the_mail_ports_of_all(proc):
    for number, port in enumerate([25, 10025, 22, 587, 631]):
        proc.socket("127.0.0.1", port, 100 + number)
    proc.process(7, "master", 100, 101)
    proc.process(8, "sshd", 102)
    proc.process(9, "python3.11", 103, comm="aiosmtpd")
    assert proc.listening() == [
        Socket("127.0.0.1", 25, 7, "master"),
        Socket("127.0.0.1", 587, 9, "aiosmtpd"),
        Socket("127.0.0.1", 10025, 7, "master"),
    ]
    assert Socket("127.0.0.1", 22, 8, "sshd") in proc.listening(ports=[*MAIL_PORTS, 22])


def test_a_socket_that_children_inherit_is_the_parents(proc):
    proc.socket("0.0.0.0", 25, 100)
    proc.process(40, "node", 100, parent=70)
    proc.process(70, "node", 100)
    proc.process(80, "node", 100, parent=70)
    assert proc.listening(["node"]) == [Socket("", 25, 70, "node")]
    assert proc.listening(["exim4"]) == [Socket("", 25, 70, "node")]


def test_a_socket_that_the_first_process_opened_for_ours_is_ours(proc):
    proc.socket("0.0.0.0", 25, 100)
    proc.process(1, "systemd", 100, parent=0)
    proc.process(70, "exim4", 100)
    assert proc.listening(["exim4"]) == [Socket("", 25, 70, "exim4")]
    assert proc.listening(["master"]) == [Socket("", 25, 70, "exim4")]


def test_a_socket_that_only_the_first_process_holds(proc):
    proc.socket("0.0.0.0", 25, 100)
    proc.process(1, "systemd", 100, parent=0)
    proc.process(70, "exim4")
    assert proc.listening(["exim4"]) == [Socket("", 25, 1, "systemd")]


def test_the_daemon_is_known_after_an_update_of_its_file(proc):
    proc.socket("0.0.0.0", 25, 100)
    proc.process(7, "master (deleted)", 100)
    assert proc.listening() == [Socket("", 25, 7, "master")]


def test_a_stranger_may_call_itself_what_it_likes(proc):
    proc.socket("0.0.0.0", 25, 100)
    proc.socket("0.0.0.0", 587, 101)
    proc.process(7, "python3.11", 100, comm="master")
    proc.process(8, "perl", 101, comm="a) S 7 (b\x1b[2J")
    assert proc.listening() == [Socket("", 25, 7, "python3.11"), Socket("", 587, 8, "a) S 7 (b?[2J")]


@pytest.mark.parametrize("hidden", ["/7/fd/", "/7/"])
def test_an_owner_that_cannot_be_seen_is_unknown(proc, monkeypatch, hidden):
    proc.socket("0.0.0.0", 25, 100)
    proc.socket("0.0.0.0", 2526, 101)
    proc.process(7, "master", 100, 101)
    whole = os.readlink

    def readlink(path):
        if hidden in path:
            raise PermissionError(13, "Permission denied", path)
        return whole(path)

    monkeypatch.setattr(os, "readlink", readlink)
    assert proc.listening() == [Socket("", 25)]


def test_processes_that_are_hidden(proc, monkeypatch):
    proc.socket("0.0.0.0", 25, 100)
    assert proc.listening() == [Socket("", 25)]

    def listdir(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert proc.listening() == [Socket("", 25)]


def test_a_process_that_has_ended_in_the_meantime(proc, monkeypatch):
    proc.socket("0.0.0.0", 25, 100)
    proc.process(7, "master", 100)
    proc.process(9, "master", 100, parent=7)
    (proc.root / "8").mkdir()  # without anything in it
    whole = os.listdir

    def listdir(path):
        if path.endswith("/7/fd"):
            raise ProcessLookupError(3, "No such process", path)
        return whole(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert proc.listening() == [Socket("", 25, 9, "master")]


def test_a_link_that_has_gone_in_the_meantime(proc, monkeypatch):
    proc.socket("0.0.0.0", 25, 100)
    proc.process(7, "master", 99, 100)
    whole = os.readlink

    def readlink(path):
        if path.endswith("/7/fd/0"):
            raise FileNotFoundError(2, "No such file", path)
        return whole(path)

    monkeypatch.setattr(os, "readlink", readlink)
    assert proc.listening() == [Socket("", 25, 7, "master")]


def test_it_stops_when_all_are_found(proc, monkeypatch):
    proc.socket("0.0.0.0", 25, 100)
    proc.process(7, "master", 100)
    proc.process(8, "postgres")
    looked = []
    whole = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: looked.append(path) or whole(path))
    proc.listening()
    assert [path for path in looked if path.endswith("/fd")] == [str(proc.root / "7/fd")]


def test_a_program_of_another_user_is_not_the_mail_server(proc):
    """Every user can copy a program, and listen on a port above 1023 while the mail server does not."""
    for number, uid in enumerate([0, 100, 1000]):
        proc.socket("127.0.0.1", 2525 + number, 200 + number)
        directory = proc.process(20 + number, "exim4", 200 + number)
        (directory / "status").write_text(f"Name:\texim4\nPPid:\t1\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    known = [Socket("127.0.0.1", 2525, 20, "exim4"), Socket("127.0.0.1", 2526, 21, "exim4")]
    found = proc.listening(["exim4"], ports=[2527], users={0, 100})
    assert found == [*known, Socket("127.0.0.1", 2527, 22, "/usr/sbin/exim4")]
    findings = compare([Listener("2527", "127.0.0.1", 2527, "offered")], found[2:], ["exim4"])
    assert [one["code"] for one in findings] == ["stranger_on_mail_port"]
    (directory / "status").unlink()  # it has ended
    assert proc.listening(["exim4"], ports=[], users={0, 100}) == known


@needs_root
def test_a_program_of_another_user_on_this_host():
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        with sleeping("exim4", UID, holds=(one.fileno(),)) as other:
            one.close()
            if not os.access(f"/proc/{other.pid}/fd/0", os.R_OK):
                pytest.skip("the sockets of other users' processes cannot be seen here")
            [anybodys] = listening(["exim4"], [port])
            [strange] = listening(["exim4"], [port], users={0})
        assert (anybodys.pid, anybodys.program) == (other.pid, "exim4")
        assert strange.pid == other.pid
        assert strange.program.endswith("/exim4")


def test_without_ipv6(proc):
    (proc.root / "net/tcp6").unlink()
    proc.socket("127.0.0.1", 25, 100)
    assert proc.listening() == [Socket("127.0.0.1", 25)]


def test_nothing_listens(proc):
    assert proc.listening() == []


@pytest.mark.parametrize("text", [None, f"{HEADER}\nsomething else\n", f"{HEADER}\n 0: xyz 0 0A 0 0 0 0 0 1\n"])
def test_a_host_that_does_not_show_its_sockets(proc, text):
    table = proc.root / "net/tcp"
    table.unlink() if text is None else table.write_text(text)
    assert proc.listening() is None


def test_plain_data():
    assert Socket("", 25).to_json() == {"host": "", "port": 25, "pid": None, "program": ""}


class TestThisMachine:
    """Real sockets, of this process."""

    @pytest.fixture
    def mine(self):
        return Path(os.readlink("/proc/self/exe")).name

    def opened(self, family, address):
        try:
            one = socket.socket(family)
            one.bind((address, 0))
        except OSError:
            pytest.skip("this machine does not have the protocol")
        one.listen()
        return one

    @pytest.mark.parametrize(
        ("family", "address", "host"),
        [
            (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
            (socket.AF_INET, "", ""),
            (socket.AF_INET6, "::1", "::1"),
            (socket.AF_INET6, "::", ""),
            (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
        ],
    )
    def test_a_socket(self, mine, family, address, host):
        with self.opened(family, address) as one:
            port = one.getsockname()[1]
            assert [found for found in listening([mine]) if found.port == port] == [
                Socket(host, port, os.getpid(), mine)
            ]
            strange = [found for found in listening([], [port]) if found.port == port]
            assert [(found.host, found.pid) for found in strange] == [(host, os.getpid())]
        assert [found for found in listening([mine], [port]) if found.port == port] == []

    def test_a_child_that_inherits_it(self, mine):
        with self.opened(socket.AF_INET, "127.0.0.1") as one:
            port = one.getsockname()[1]
            one.set_inheritable(True)
            with subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False, stdout=subprocess.DEVNULL
            ) as child:
                found = [one for one in listening([mine], [port]) if one.port == port]
                child.communicate(b"\n")
            assert found == [Socket("127.0.0.1", port, os.getpid(), mine)]


def listener(host="", port=25, service="smtp/inet"):
    return Listener(service, host, port, "offered")


def our(host="", port=25):
    return Socket(host, port, 7, "master")


def stranger(host="", port=25):
    return Socket(host, port, 9, "python3")


NOBODY = Socket("", 25)
SILENT, EXTRA, STRANGER = "listener_not_listening", "socket_not_configured", "stranger_on_mail_port"


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """Names that resolve. All others do not."""
    known = {"localhost": ["127.0.0.1", "::1"], "mail.test": ["192.0.2.1"]}

    def getaddrinfo(name, port, **options):
        if name not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in known[name]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("listeners", "sockets", "codes"),
    [
        ([], [], []),
        ([listener()], [our()], []),
        ([listener("all")], [our()], []),
        ([listener("0.0.0.0"), listener("::")], [our()], []),
        ([listener("127.0.0.1")], [our("127.0.0.1")], []),
        ([listener("[::1]")], [our("::1")], []),
        ([listener("0:0::0:1")], [our("::1")], []),
        ([listener("fe80::1%eth0")], [our("fe80::1")], []),
        ([listener("::ffff:127.0.0.1")], [our("127.0.0.1")], []),
        ([listener("localhost")], [our("127.0.0.1")], []),
        ([listener("localhost")], [our("127.0.0.1"), our("::1")], []),
        ([listener("loopback-only")], [our("127.0.0.1")], []),
        ([listener("loopback-only")], [our("127.0.0.1"), our("::1")], []),
        ([listener("mail.test, localhost")], [our("127.0.0.1"), our("192.0.2.1")], []),
        ([listener("192.0.2.1 127.0.0.1 ::1")], [our("127.0.0.1"), our("192.0.2.1"), our("::1")], []),
        # The configuration says more than there is.
        ([listener()], [], [SILENT]),
        ([listener(port=587)], [our()], [SILENT, EXTRA]),
        ([listener()], [our("127.0.0.1")], [SILENT]),
        ([listener("192.0.2.1, ::1")], [our("192.0.2.1")], [SILENT]),
        ([listener("mail.test")], [our("127.0.0.1")], [SILENT, EXTRA]),
        # It says less.
        ([], [our()], [EXTRA]),
        ([listener()], [our(), our(port=2525)], [EXTRA]),
        ([listener("127.0.0.1")], [our()], [EXTRA]),
        ([listener("loopback-only")], [our()], [EXTRA]),
        ([listener("127.0.0.1")], [our("127.0.0.1"), our("192.0.2.1")], [EXTRA]),
        # It cannot be compared.
        ([listener(port=None)], [], [SILENT]),
        ([listener(port=None)], [our()], [SILENT, EXTRA]),
        ([listener("gone.test")], [our("192.0.2.9")], [SILENT]),
        ([listener("gone.test")], [NOBODY], [SILENT]),
        ([listener("gone.test")], [], [SILENT]),
        # Somebody else is there.
        ([], [stranger()], [STRANGER]),
        ([], [stranger(port=465), stranger(port=587)], [STRANGER, STRANGER]),
        ([], [stranger(port=24), stranger(port=2525)], []),
        ([listener()], [stranger()], [STRANGER]),
        ([listener()], [stranger("127.0.0.1")], [SILENT, STRANGER]),
        ([listener("127.0.0.1")], [our("127.0.0.1"), stranger("192.0.2.1")], [STRANGER]),
        ([listener("127.0.0.1", 10025)], [stranger("127.0.0.1", 10025)], [STRANGER]),
        ([listener("127.0.0.1", 10025)], [our("127.0.0.1", 10025), stranger("192.0.2.1", 10025)], []),
        ([listener("127.0.0.1", 10025)], [stranger("", 10025)], [STRANGER]),
        ([listener("gone.test")], [stranger()], [STRANGER]),
        # Nobody knows who is there.
        ([], [NOBODY], []),
        ([listener()], [NOBODY], []),
        ([listener("127.0.0.1")], [NOBODY], []),
        ([listener()], [Socket("127.0.0.1", 25)], [SILENT]),
    ],
)
def test_what_differs(listeners, sockets, codes):
    assert [one["code"] for one in compare(listeners, sockets, OURS)] == codes


@pytest.mark.parametrize(
    ("listeners", "sockets", "messages"),
    [
        ([listener()], [], ["listener smtp/inet: nothing listens on port 25 of all addresses"]),
        (
            [listener()],
            [our("127.0.0.1"), our("::1")],
            ["listener smtp/inet: nothing listens on port 25 of all addresses, only on 127.0.0.1, ::1"],
        ),
        (
            [listener("loopback-only")],
            [our()],
            [
                "master (process 7) listens on port 25 of all addresses; its configuration does not have that "
                "(only loopback-only)"
            ],
        ),
        (
            [listener(port=None, service="foo/inet")],
            [our(port=2526)],
            [
                "listener foo/inet: it cannot be compared, because this host does not know its port by name",
                "master (process 7) listens on port 2526 of all addresses; its configuration does not have that, "
                "unless it is listener foo/inet",
            ],
        ),
        (
            [listener("gone.test")],
            [our()],
            ["listener smtp/inet: it cannot be compared, because the name gone.test does not resolve on this host"],
        ),
        (
            [listener()],
            [stranger()],
            [
                "python3 (process 9) is not the mail server and listens on port 25 of all addresses, "
                "where the configuration has listener smtp/inet"
            ],
        ),
        ([], [stranger()], ["python3 (process 9) is not the mail server and listens on port 25 of all addresses"]),
    ],
)
def test_the_messages(listeners, sockets, messages):
    assert [one["message"] for one in compare(listeners, sockets, OURS)] == messages


def test_what_the_configuration_has_beside_mail_is_configured():
    sockets = [our("127.0.0.1", 10031), our()]
    assert compare([listener()], sockets, OURS, others=[("127.0.0.1", 10031)]) == []
    assert compare([listener()], sockets, OURS, others=[("localhost", 10031)]) == []
    assert len(compare([listener()], sockets, OURS, others=[("127.0.0.1", 10032)])) == 1


def test_a_name_is_resolved_once(monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *_, **__: asked.append(name) or [])
    compare([listener("mx.test", port) for port in (25, 465, 587)], [], OURS)
    assert asked == ["mx.test"]


def test_a_name_that_cannot_be_encoded(monkeypatch):
    def getaddrinfo(name, port, **options):
        return name.encode("idna")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    findings = compare([listener("a" * 70 + ".test")], [our()], OURS)
    assert "does not resolve" in findings[0]["message"]


@pytest.mark.parametrize("row", ["-0000001:0019", "0100007F:-019", "x:y", "0100007F:0019:0", "01:0019"])
def test_a_table_that_is_not_the_kernels_shows_no_sockets(tmp_path, row):
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(f"head\n 0: {row} 00000000:0000 0A 0:0 0:0 0 0 0 77 1\n")
    assert listening(["master"], proc=str(tmp_path)) is None
