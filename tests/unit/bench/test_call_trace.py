"""What a module call does on a host, read from what strace wrote about two of them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.bench import call_trace
from tests.bench.host_trace import count
from tests.bench.measure import BenchError

RECORDED = Path(__file__).with_name("two_calls.strace")
ARCHIVE = (
    "/tmp/ansible_mailfleet.starttls.mail_server_info_payload_x/ansible_mailfleet.starttls.mail_server_info_payload.zip"
)


@pytest.fixture(scope="module")
def recorded():
    return RECORDED.read_text(errors="replace").splitlines()


def call(*lines):
    """A module call of process 7 that did this."""
    written = f'7  openat(AT_FDCWD, "{ARCHIVE}", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 3'
    (found,) = call_trace.read_calls([written, *lines])
    return found


def test_two_calls_in_a_container(recorded):
    probe, command = call_trace.read_calls(recorded)
    assert (probe.module, command.module) == ("mailfleet.starttls.starttls_probe", "ansible.legacy.command")
    assert (probe.programs, command.programs) == (Counter(), Counter(sh=1, true=1, expr=1))
    assert (probe.handshakes, command.handshakes) == (1, 0)
    assert probe.own_files == {
        "modules.starttls_probe", "module_utils._smtp", "module_utils._smtp.dialogue", "module_utils._smtp.target",
    }  # fmt: skip
    assert probe.files - probe.own_files == {"ansible.module_utils.basic"}
    assert command.own_files == set()


def test_the_same_by_its_other_reader():
    counts = count(RECORDED)
    assert counts.modules == {"mailfleet.starttls.starttls_probe": 1, "ansible.legacy.command": 1}


def test_plain_data(recorded):
    probe, command = (one.to_dict() for one in call_trace.read_calls(recorded))
    assert probe["connects"] == {"25": 1}
    assert command["programs"] == {"sh": 1, "true": 1, "expr": 1}
    assert command["files"] == ["ansible.module_utils.basic", "ansible.modules.command"]


def test_a_program_without_a_namespace_of_its_own_and_its_children():
    found = call(
        "7  clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD, child_tidptr=0x7f) = 8",
        '8  execve("/bin/postconf", ["postconf"], 0x7f /* 3 vars */) = -1 ENOENT (No such file or directory)',
        '8  execve("/usr/sbin/postconf", ["postconf"], 0x7f /* 3 vars */) = 0',
        "8  clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD, stack=0x7f} => {parent_tid=[0]}, 88) = 9",
        '9  execveat(3, "/bin/sh", ["sh"], 0x7f /* 3 vars */, 0) = 0',
    )
    assert found.programs == {"postconf": 1, "sh": 1}


def test_what_others_do_does_not_count():
    found = call(
        '5  execve("/usr/sbin/sshd", ["sshd"], 0x7f /* 3 vars */) = 0',
        '5  read(3, "PK\\3\\4\\24\\0ansible_collections/mailfleet/starttls/plugins/module_utils/_smtp/wire.py\\235"..., 4096) = 4096',
        '5  connect(4, {sa_family=AF_INET, sin_port=htons(25), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        "5  clone(child_stack=NULL, flags=SIGCHLD) = 6",
        '6  execve("/bin/sh", ["sh"], 0x7f /* 3 vars */) = 0',
        "+++ this is no line of a call +++",
    )
    assert (found.programs, found.files, found.connects) == (Counter(), set(), Counter())


@pytest.mark.parametrize(
    ("ended", "counted"),
    [
        ("0", 1),
        ("-1 EINPROGRESS (Operation now in progress)", 1),
        ("-1 ECONNREFUSED (Connection refused)", 0),
        ("? ERESTARTSYS (To be restarted if SA_RESTART is set)", 0),
    ],
)
@pytest.mark.parametrize(
    "address",
    [
        'sa_family=AF_INET, sin_port=htons(25), sin_addr=inet_addr("127.0.0.1")',
        'sa_family=AF_INET6, sin6_port=htons(25), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0',
    ],
)
def test_connections(address, ended, counted):
    assert call(f"7  connect(4, {{{address}}}, 28) = {ended}").handshakes == counted


def test_datagrams_and_other_ports_are_no_handshakes():
    address = '{sa_family=AF_INET, sin_port=htons(25), sin_addr=inet_addr("127.0.0.1")}, 16'
    found = call(
        "7  socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP) = 4",
        f"7  connect(4, {address}) = 0",
        "7  socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, IPPROTO_IP) = 4",
        f"7  connect(4, {address.replace('25', '587')}) = 0",
    )
    assert (found.handshakes, found.connects) == (0, Counter({587: 1}))


def test_a_call_that_others_interrupt_is_put_together():
    found = call(
        "7  read(3,  <unfinished ...>",
        "5  vfork( <unfinished ...>",
        '7  <... read resumed>"PK\\3\\4\\24\\0ansible/module_utils/urls.py\\235"..., 4096) = 4096',
        "7  <... write resumed>) = 3",
    )
    assert found.files == {"ansible.module_utils.urls"}


def test_no_calls():
    assert call_trace.read_calls([]) == []


def test_no_such_container(monkeypatch, tmp_path):
    podman = tmp_path / "podman"
    podman.write_text("#!/bin/sh\necho no such container >&2; exit 125\n")
    podman.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(BenchError, match=re.escape("podman knows no container nobody: no such container")):
        call_trace.counts_of_calls("nobody", lambda: None)
