"""A moment at which amavis works on no mail, with processes that take turns as those of amavis do."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import children
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.amavis_rest import at_rest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target


def _serve(listener, path):
    """One process of amavis: it ends by the signal unless it has a client."""
    connected = []
    signal.signal(signal.SIGHUP, lambda *_: None if connected else os._exit(0))
    with open(path) as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client, _address = listener.accept()
            connected.append(client)
            fcntl.flock(lock, fcntl.LOCK_UN)
            with client, client.makefile("rwb") as lines:
                lines.write(b"220 x\r\n")
                lines.flush()
                for line in lines:
                    if line.upper().startswith(b"QUIT"):
                        break
            connected.clear()


def _main(listener, path):
    """The main process: two of them, and two others after SIGHUP."""
    hups = []
    signal.signal(signal.SIGHUP, lambda *_: hups.append(1))
    while True:
        pids = []
        for _number in range(2):
            pids.append(os.fork())
            if not pids[-1]:
                _serve(listener, path)
        while not hups:
            time.sleep(0.01)
        hups.clear()
        for pid in pids:
            os.kill(pid, signal.SIGHUP)
            os.waitpid(pid, 0)


@pytest.fixture
def amavis(tmp_path):
    path = tmp_path / "amavisd.lock"
    path.touch()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pid = os.fork()
        if not pid:
            try:
                os.setpgid(0, 0)
                _main(listener, path)
            finally:
                os._exit(1)
        target = Target("127.0.0.1", listener.getsockname()[1])
        try:
            deadline = time.monotonic() + 10
            while len(children(pid)) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            yield pid, target, path
        finally:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is read from /proc/locks")


def test_idle_processes_take_no_client_until_the_reload_is_over(amavis):
    pid, target, path = amavis
    former = {one.pid for one in children(pid)}
    with contextlib.ExitStack() as clients:
        with at_rest(pid, target, str(path)) as rest:
            assert rest.quiet
            client = clients.enter_context(socket.create_connection((target.host, target.port), timeout=0.3))
            with pytest.raises(socket.timeout):
                client.recv(1)
            os.kill(pid, signal.SIGHUP)
            rest.wait_for_new_ones()
            assert former.isdisjoint(one.pid for one in children(pid))
        client.settimeout(20)
        assert client.recv(100) == b"220 x\r\n"


def test_who_is_at_work_is_waited_for(amavis):
    pid, target, path = amavis
    with socket.create_connection((target.host, target.port), timeout=20) as client:
        assert client.recv(100) == b"220 x\r\n"
        with at_rest(pid, target, str(path), seconds=1) as rest:
            assert not rest.quiet
            rest.wait_for_new_ones()
        client.sendall(b"QUIT\r\n")
        with at_rest(pid, target, str(path)) as rest:
            assert rest.quiet


@pytest.mark.parametrize("there", ["no file", "a link", "no process"])
def test_without_its_lock_nothing_is_waited_for(amavis, tmp_path, there):
    pid, target, path = amavis
    named = tmp_path / "other.lock"
    if there == "a link":
        named.symlink_to(path)
    with at_rest(0 if there == "no process" else pid, target, str(path if there == "no process" else named)) as rest:
        assert not rest.quiet
