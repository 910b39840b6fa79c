"""What the next reload of Postfix would activate: listeners, and edits that it has not read."""

import os
import shutil
import socket
import subprocess
import time
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import binding
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import pending, server
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.pending import (
    blocked,
    not_read_yet,
    refuse_blocked,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import BrokenConfigurationError, PortInUseError

from tests.support.fake_postfix import MAIN, FakePostfix

TLS = "  -o smtpd_tls_wrappermode=yes\n"


def postconf(tmp_path, master, main=MAIN):
    return Postconf(FakePostfix(tmp_path / "postfix", main, master), str(tmp_path / "postfix"))


@pytest.fixture
def wanted(monkeypatch):
    found = []
    monkeypatch.setattr(pending, "obstacles", lambda wishes, pid, _programs: found.extend(wishes) or [str(pid)])
    return found


def test_every_service_that_listens_counts(tmp_path, wanted):
    master = f"smtp inet n - y - - smtpd\n127.0.0.1:2600 inet n - y - - smtpd\n{TLS}[::1]:25 inet n - y - - smtpd\n"
    master += "foo inet n - n - - spawn\npickup unix n - y 60 1 pickup\n"
    assert blocked(postconf(tmp_path, master), 7) == ["7"]
    assert [(one.host, one.port, one.port_name) for one in wanted] == [
        ("", 25, "smtp"), ("127.0.0.1", 2600, "2600"), ("::1", 25, "25"), ("", None, "foo"),
    ]  # fmt: skip
    assert wanted[1].title == f"{tmp_path}/postfix/master.cf, service 127.0.0.1:2600/inet"


@pytest.mark.parametrize(
    ("protocols", "families"),
    [("all", binding.BOTH), ("ipv4", (socket.AF_INET,)), ("ipv6", (socket.AF_INET6,)), ("ipv4, ipv6", binding.BOTH)],
)
def test_the_protocols_and_the_interfaces_are_those_of_postfix(tmp_path, wanted, protocols, families):
    main = f"{MAIN}inet_protocols = {protocols}\ninet_interfaces = 192.0.2.1, localhost\n"
    blocked(postconf(tmp_path, "smtp inet n - y - - smtpd\n", main), 7)
    assert (tuple(wanted[0].families), wanted[0].host) == (families, "192.0.2.1, localhost")


def test_a_port_that_another_program_has_refuses_the_reload(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortInUseError) as caught:
            refuse_blocked(postconf(tmp_path, f"127.0.0.1:{port} inet n - y - - smtpd\n"), None)
    assert str(caught.value).endswith(
        f"listens on port {port} of 127.0.0.1. Postfix would end at its next reload; correct that service in master.cf, or "
        "free the address, then run again"
    )
    refuse_blocked(postconf(tmp_path, f"127.0.0.1:{port} inet n - y - - smtpd\n"), None)


@pytest.fixture
def master(monkeypatch):
    """This process, with a child that stands for its queue manager."""
    program = os.path.realpath(shutil.which("cat"))  # this process may have other children that are Python
    child = subprocess.Popen([program], stdin=subprocess.PIPE)
    monkeypatch.setattr(pending, "QUEUE_MANAGERS", (os.path.basename(program),))
    time.sleep(0.05)
    yield os.getpid()
    child.stdin.close()
    child.wait()


def test_edits_after_the_last_reload(tmp_path, master, monkeypatch):
    for name in ("main.cf", "master.cf"):
        (tmp_path / name).write_text("")
    assert not_read_yet(str(tmp_path), master) == []
    monkeypatch.setattr(pending, "TOLERANCE", -10.0)  # as if the queue manager were older by some seconds
    assert not_read_yet(str(tmp_path), master) == [f"{tmp_path}/main.cf", f"{tmp_path}/master.cf"]
    (tmp_path / "main.cf").unlink()
    assert not_read_yet(str(tmp_path), master) == [f"{tmp_path}/master.cf"]


def test_without_a_queue_manager_nothing_is_said(tmp_path, monkeypatch):
    (tmp_path / "main.cf").write_text("")
    monkeypatch.setattr(pending, "TOLERANCE", -1e9)
    assert not_read_yet(str(tmp_path), os.getpid()) == not_read_yet(str(tmp_path), None) == []


def test_a_kernel_that_does_not_list_children(tmp_path, master, monkeypatch):
    real = pending.Path.read_text

    def read_text(path, *arguments, **options):
        if str(path).endswith("/children"):
            raise OSError(2, "no such file")
        return real(path, *arguments, **options)

    monkeypatch.setattr(pending.Path, "read_text", read_text)
    monkeypatch.setattr(pending, "TOLERANCE", -10.0)
    (tmp_path / "main.cf").write_text("")
    assert not_read_yet(str(tmp_path), master) == [f"{tmp_path}/main.cf"]


class TestServer:
    """Postfix with a listener that would end it: nothing is reloaded, neither for a change nor for its way back."""

    @pytest.fixture
    def postfix(self, tmp_path, monkeypatch):
        fake = FakePostfix(tmp_path / "postfix")
        made = server.Postfix(fake, layout=replace(DEBIAN, config_dir=str(tmp_path / "postfix")))
        monkeypatch.setattr(server, "runs", lambda _queue: True)
        monkeypatch.setattr(server, "running", lambda _queue: 7)
        monkeypatch.setattr(server, "not_read_yet", lambda *_arguments: [])
        self.found = ["port 2600 is in use"]
        for module in (server, pending):
            monkeypatch.setattr(module, "blocked", lambda *_arguments: self.found)
        self.fake = fake
        return made

    @pytest.mark.parametrize("step", ["require_running", "check"])
    def test_it_refuses_a_change(self, postfix, step):
        with pytest.raises(PortInUseError, match=r"port 2600 is in use\. Postfix would end at its next reload"):
            getattr(postfix, step)()
        self.found.clear()
        getattr(postfix, step)()

    def test_the_way_back_does_not_end_it_either(self, postfix):
        postfix.resume()
        assert self.fake.called("postfix") == []
        self.found.clear()
        postfix.resume()
        assert [call[3] for call in self.fake.called("postfix")] == ["reload"]

    def test_edits_that_its_own_check_refuses(self, postfix, monkeypatch):
        self.found.clear()
        monkeypatch.setattr(server, "not_read_yet", lambda *_arguments: ["/etc/postfix/main.cf"])
        postfix.require_running()
        self.fake.answers[("postfix",)] = (1, "", "fatal: no good\n")
        with pytest.raises(
            BrokenConfigurationError,
            match=r"main\.cf changed, the running Postfix has not read that yet, and .*no good",
        ):
            postfix.require_running()
