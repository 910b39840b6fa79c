"""The delivery modes on a Haraka gateway, against a directory for its files and one for /proc."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import own_port, record
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import GatewayVerdict
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import change_within
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    GatewayState,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import load_file
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.uninstall import uninstall
from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka import gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka.gateway import (
    NOTE,
    RECORD,
    Ini,
    with_entries,
    without_entries,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from hypothesis import given
from hypothesis import strategies as st

from tests.support import fake_haraka
from tests.support.alarm import at_most
from tests.support.attacker import UID
from tests.support.edits import edited_meanwhile
from tests.support.records import FORMAT, format_in, make_former, make_newer

GETADDRINFO = socket.getaddrinfo
MASTER = 100
SETTINGS = Settings(helo_name="gw.example", timeout=0.2)
TLS_INI = """\
; by hand
key=tls_key.pem

[outbound]
; an old appliance
no_tls_hosts[]=192.0.2.25

[redis]
"""


def config(name, mode, *domains, servers=("mx.example",)):
    return EmailConfig(name, domains or (f"{name}.example",), tuple(map(Target.parse, servers)), mode)


def state(*configs):
    return GatewayState({one.name: one for one in configs})


class Host:
    """A gateway host below a directory, with two workers, and the adapter."""

    def __init__(self, monkeypatch, root):
        self.home = root / "haraka"
        self.config = self.home / "config"
        self.config.mkdir(parents=True)
        self.tls_ini = self.config / "tls.ini"
        self.tls_ini.write_text(TLS_INI)
        self.proc = root / "proc"
        self.proc.mkdir()
        (self.proc / "version").write_text("")
        self.stage = Stage.EHLO  # that a handshake reaches
        self.signals, self.replaces, self.next_pid = [], True, 900
        self.uid = (os.getuid(), os.getgid())
        monkeypatch.setattr(gateway, "PROC", str(self.proc))
        for module in (gateway, own_port):
            monkeypatch.setattr(module, "handshake_one", lambda target, _settings: self.test(target))
        monkeypatch.setattr(own_port, "wait_until", lambda _condition, target, *_: self.test(target))
        monkeypatch.setattr(gateway, "send_signal", self.kill)
        monkeypatch.setattr(gateway.socket, "getaddrinfo", self.lookup)
        for module in (gateway, record):
            monkeypatch.setattr(module, "FileImage", _OwnFiles())
        self.adapter = gateway.HarakaGateway(self.run, SETTINGS, Target("127.0.0.1"), str(self.home))
        self.adapter._answering = lambda: max(self.adapter._workers(), default=0)
        self.start(MASTER, parent=1)
        (self.proc / str(MASTER) / "fd").mkdir()
        self.listen(25)
        for pid in (101, 102):
            self.start(pid)

    def run(self, arguments):
        raise AssertionError(arguments)

    def lookup(self, host, *args, **kwargs):
        if host == "127.0.0.1":
            return GETADDRINFO(host, *args, **kwargs)
        if host == "mx.example":
            return [(0, 0, 0, "", ("192.0.2.10", 0))]
        raise OSError("unknown")

    def test(self, target):
        failure = {} if self.stage >= Stage.EHLO else {"code": "connect_failed", "message": "cannot connect"}
        return Handshake(target, self.stage, **failure)

    def listen(self, port, pid=MASTER, inode=1, host="00000000"):
        """This process has a socket that listens."""
        (self.proc / "net").mkdir(exist_ok=True)
        row = f"0: {host}:{port:04X} 00000000:0000 0A 0:0 0:0 0 0 0 {inode} 1\n"
        (self.proc / "net/tcp").write_text("head\n" + row)
        held = self.proc / str(pid) / "fd" / str(inode)
        held.unlink(missing_ok=True)
        held.symlink_to(f"socket:[{inode}]")

    def start(self, pid, home=None, age=0.0, parent=MASTER, uid=0, program="/usr/bin/node", **environment):
        place = self.proc / str(pid)
        place.mkdir(exist_ok=True)
        (place / "status").write_text(f"Name:\tnode\nPPid:\t{parent}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        (place / "exe").unlink(missing_ok=True)
        (place / "exe").symlink_to(program)
        environment = {"HARAKA": str(home or self.home), "NODE_UNIQUE_ID": "1", **environment}
        (place / "environ").write_bytes("".join(f"{name}={value}\0" for name, value in environment.items()).encode())
        ticks = (time.clock_gettime(time.CLOCK_BOOTTIME) - age) * os.sysconf("SC_CLK_TCK") + 2
        (place / "stat").write_text(f"{pid} (node (x) y) S " + "0 " * 18 + f"{int(ticks)} 0 0\n")

    def stop(self, pid):
        for path in (self.proc / str(pid)).iterdir():
            path.unlink()
        (self.proc / str(pid)).rmdir()

    def kill(self, pid, number, is_right):
        self.signals.append((pid, number))
        process = gateway.process_of(pid, str(self.proc))
        assert process is None or is_right(process)
        if not (self.proc / str(pid)).exists():
            raise ProcessLookupError
        self.stop(pid)
        if self.replaces:
            self.next_pid += 1
            self.start(self.next_pid)

    def connect(self, pid, local, remote, state="01", inode=77):
        place = self.proc / str(pid)
        (place / "fd").mkdir(exist_ok=True)
        (place / "net").mkdir(exist_ok=True)
        (place / "fd" / str(inode)).symlink_to(f"socket:[{inode}]")
        row = f"0: 00000000:{local:04X} 00000000:{remote:04X} {state} 0:0 0:0 0 0 0 {inode} 1\n"
        (place / "net/tcp").write_text("head\n" + row)
        (place / "net/tcp6").write_text("head\n")

    def transact(self, *configs):
        change = self.adapter.plan(state(*configs))
        with self.adapter.transaction(str(self.home.parent / "store")).opened(False):
            pass
        self.adapter.transaction(str(self.home.parent / "store")).apply(change, self.adapter.prove, self.adapter.prove)

    def write(self, *configs):
        change = self.adapter.plan(state(*configs))
        for image in change.after:
            image.write()
        return change

    def lists(self):
        ini = Ini.parse(self.tls_ini.read_text())
        return ini.hosts("no_tls_hosts"), ini.hosts("force_tls_hosts")

    def put(self, name, text):
        (self.config / name).write_text(text)


class _OwnFiles:
    """FileImage whose files belong to whoever runs the tests."""

    read = staticmethod(FileImage.read)

    def __call__(self, path, content, mode=0o644, **more):
        return FileImage(path, content, mode, os.getuid(), os.getgid(), **more)


@pytest.fixture
def host(monkeypatch, tmp_path):
    return Host(monkeypatch, tmp_path)


# What the lists hold


def test_each_mode_has_its_list(host):
    host.write(
        config("a", "plaintext"), config("b", "opportunistic"), config("c", "required", "c.example", "d.example")
    )
    assert host.lists() == (["a.example", "192.0.2.25"], ["c.example", "d.example"])
    assert set(load_file(str(host.config / RECORD)).email_configs) == {"a", "b", "c"}
    host.adapter.check()


def test_a_second_run_finds_nothing_to_do(host):
    configs = config("a", "plaintext"), config("c", "required")
    host.write(*configs)
    assert not host.adapter.plan(state(*configs))


def test_going_back_gives_the_file_as_it_was(host):
    host.write(config("a", "plaintext"), config("c", "required"))
    host.write(config("a", "opportunistic"), config("c", "opportunistic"))
    assert host.tls_ini.read_text() == TLS_INI


def test_owner_and_mode_of_the_file_stay(host):
    host.tls_ini.chmod(0o600)
    host.write(config("a", "required"))
    assert host.tls_ini.stat().st_mode & 0o777 == 0o600


def test_without_a_file_one_is_made_only_for_an_entry(host):
    host.tls_ini.unlink()
    host.write(config("a", "opportunistic"))
    assert not host.tls_ini.exists()
    host.write(config("a", "required"))
    assert host.tls_ini.read_text() == f"[outbound]\n{NOTE}\nforce_tls_hosts[]=a.example\n"


def test_nothing_held_and_nothing_wanted_is_no_change(host):
    host.put("tls.ini", "[outbound]\nno_tls_hosts=192.0.2.1\n")
    assert not host.adapter.plan(GatewayState())


def test_the_diff_shows_our_lines_only(host):
    shown = host.adapter.plan(state(config("a", "required"))).diff()[0]["prepared"].splitlines()
    assert shown[2:] == [f"+{NOTE}", "+force_tls_hosts[]=a.example"]


def test_an_entry_that_somebody_removed_comes_back(host):
    host.write(config("a", "required"))
    host.tls_ini.write_text(TLS_INI)
    assert host.adapter.plan(state(config("a", "required")))


def test_an_entry_of_the_administrator_that_says_the_same_survives_ours(host):
    host.put("tls.ini", "[outbound]\n; mine\nforce_tls_hosts[]=a.example\n")
    host.write(config("a", "required"))
    assert host.tls_ini.read_text().count("force_tls_hosts[]=a.example") == 2
    with pytest.raises(EngineError, match="contradicts opportunistic"):
        host.adapter.plan(state(config("a", "opportunistic")))


# Files as they come

HOSTILE = {
    "no end of line": "[outbound]",
    "carriage returns": "key=x\r\n[outbound]\r\nminVersion=TLSv1.2\r\n",
    "old carriage returns": "key=x\r[outbound]\rminVersion=TLSv1.2\r",
    "no section": "key=x",
    "empty": "",
    "twice": "[outbound]\nkey=a\n[redis]\n[ outbound ]\nkey=b\n",
    "a mark": "\ufeff[outbound]\nkey=a\n",
    "not UTF-8": b"; \xff\xfe\n[outbound]\n; \xc3\n",
    "junk": "=\n]]\n[\n[]\n[outbound]\n\x00\n []= \n",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_every_byte_of_the_file_survives(host, case):
    content = HOSTILE[case] if isinstance(HOSTILE[case], bytes) else HOSTILE[case].encode()
    host.tls_ini.write_bytes(content)
    host.write(config("a", "required"), config("b", "plaintext"))
    text = host.tls_ini.read_bytes().decode("utf-8", "surrogateescape")
    assert Ini.parse(text).hosts("force_tls_hosts") == ["a.example"]
    assert not host.adapter.plan(state(config("a", "required"), config("b", "plaintext")))
    host.write(config("a", "opportunistic"), config("b", "opportunistic"))
    assert host.tls_ini.read_bytes().startswith(content)
    assert host.tls_ini.read_bytes()[len(content) :] in (b"", b"\n", b"[outbound]\n", b"\n[outbound]\n")


REFUSED = {
    "a scalar after ours": "[outbound]\nno_tls_hosts=192.0.2.1\n",
    "a scalar in a former section": "[outbound]\nno_tls_hosts=192.0.2.1\n[redis]\n[outbound]\n",
    "a line that goes on": "key=a\\\n[outbound]\n",
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_in_which_an_entry_would_be_lost_is_refused(host, case):
    host.put("tls.ini", REFUSED[case])
    with pytest.raises(
        EngineError, match=r"tls\.ini: Haraka would not read .* from (no|force)_tls_hosts in \[outbound\]"
    ):
        host.adapter.plan(state(config("a", "plaintext")))
    assert host.tls_ini.read_text() == REFUSED[case]


def test_entries_that_outbound_inherits_are_not_displaced(host):
    host.put("tls.ini", "force_tls_hosts[]=partner.example\n[outbound]\n")
    with pytest.raises(EngineError, match=r"would not read partner\.example from force_tls_hosts"):
        host.adapter.plan(state(config("a", "required")))
    assert host.adapter.plan(state(config("a", "plaintext")))


def test_a_domain_that_haraka_takes_for_a_number_is_refused(host):
    with pytest.raises(EngineError, match="would not read 10 from force_tls_hosts"):
        host.adapter.plan(state(config("a", "required", "10")))


def test_check_finds_a_list_that_does_not_hold(host):
    host.write(config("a", "required"))
    host.tls_ini.write_text(TLS_INI)
    with pytest.raises(EngineError, match=r"would not read a\.example"):
        host.adapter.check()


def test_a_record_of_a_former_version_is_no_reason_for_a_change(host):
    host.write(config("a", "required"))
    make_former(host.config / RECORD)
    assert not host.adapter.plan(state(config("a", "required")))
    host.write(config("a", "plaintext"))
    assert format_in(host.config / RECORD) == FORMAT


def test_a_record_of_a_newer_version_is_refused(host):
    host.write(config("a", "required"))
    make_newer(host.config / RECORD)
    with pytest.raises(EngineError, match=rf"{RECORD} was written by a newer mailfleet\.starttls"):
        host.adapter.read()


def test_a_record_that_cannot_be_read_is_named(host):
    host.put(RECORD, "{")
    with pytest.raises(EngineError, match=f"{RECORD} cannot be read"):
        host.adapter.read()


# Haraka's own reading of an .ini file


@pytest.mark.parametrize(
    ("text", "no_tls", "force"),
    [
        ("[outbound]\nno_tls_hosts[]=a\nno_tls_hosts[] = b \nforce_tls_hosts=c\n", ["a", "b"], ["c"]),
        ("[outbound]\nno_tls_hosts=a\nno_tls_hosts[]=b\n", ["b"], []),
        ("[outbound]\nno_tls_hosts[]=a\nno_tls_hosts=b\n", ["b"], []),
        ("no_tls_hosts[]=a\nforce_tls_hosts[]=b\n[outbound]\n", [], ["b"]),
        ("force_tls_hosts[]=b\n[outbound]\nforce_tls_hosts[]=c\n", [], ["c"]),
        ("[outbound]\n;no_tls_hosts[]=a\n# no_tls_hosts[]=b\n", [], []),
        ("[outbound]\nno_tls_hosts[]=a \\\n  b\n", ["a   b"], []),
        ("[outbound]\nno_tls_hosts[]\nno_tls_hosts[]=7\nno_tls_hosts[]=1.5\nno_tls_hosts[]=\n", [], []),
        ("[Outbound]\nno_tls_hosts[]=a\n", [], []),
        ("[outbound]\n[]=a\nno tls[]=a\n", [], []),
    ],
)
def test_lists_are_read_as_haraka_reads_them(text, no_tls, force):
    ini = Ini.parse(text)
    assert (ini.hosts("no_tls_hosts"), ini.hosts("force_tls_hosts")) == (no_tls, force)


@pytest.mark.parametrize(
    ("value", "truth"),
    [
        ("true", True),
        ("YES", True),
        ("1", True),
        ("on", True),
        ("false", False),
        ("0", False),
        ("2", False),
        ("", False),
    ],
)
def test_booleans_are_read_as_haraka_reads_them(value, truth):
    assert Ini.parse(f"x={value}").is_true("main", "x") is truth
    assert Ini.parse("").is_true("main", "x", True)
    assert not Ini.parse("x").is_true("main", "x", True)


_LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["[outbound]", "[redis]", "", "; x", "no_tls_hosts[]=192.0.2.1", "force_tls_hosts[]=a.example"]
        ),
        st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=12),
    )
)
_DOMAINS = st.sets(st.sampled_from(["a.example", "b.example", "c.example"]))


@given(lines=_LINES, eol=st.sampled_from(["\n", "\r\n", "\r"]), force=_DOMAINS, no_tls=_DOMAINS)
def test_every_line_that_is_not_ours_survives(lines, eol, force, no_tls):
    text = "".join(line + eol for line in lines)
    entries = sorted({("force_tls_hosts", one) for one in force} | {("no_tls_hosts", one) for one in no_tls})
    edited = with_entries(text, entries)
    there = edited.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if entries:
        place = there.index(NOTE)
        assert there[place + 1 :][: len(entries)] == [f"{key}[]={domain}" for key, domain in entries]
        del there[place : place + 1 + len(entries)]
        if len(there) > len(lines) + 1:
            assert there.pop(place - 1) == "[outbound]"
    assert there == [*lines, ""]
    back = without_entries(edited, entries)
    assert back in (text, text + "[outbound]\n", text + "[outbound]\r\n")
    assert with_entries(back, entries) == edited


def test_our_entries_are_found_without_the_note(host):
    host.write(config("a", "required"), config("b", "plaintext"))
    host.put("tls.ini", host.tls_ini.read_text().replace(NOTE + "\n", ""))
    host.write(config("a", "opportunistic"), config("b", "opportunistic"))
    assert host.tls_ini.read_text() == TLS_INI


# What contradicts, and what makes a mode vain


@pytest.mark.parametrize(
    ("entry", "mode"),
    [
        ("no_tls_hosts[]=a.example", "opportunistic"),
        ("no_tls_hosts[]=a.example", "required"),
        ("force_tls_hosts[]=a.example", "opportunistic"),
        ("force_tls_hosts[]=a.example", "plaintext"),
        ("force_tls_hosts[]=mx.example", "plaintext"),
        ("no_tls_hosts[]=192.0.2.0/28", "opportunistic"),
        ("force_tls_hosts[]=192.0.2.10", "opportunistic"),
    ],
)
def test_an_entry_of_the_administrator_that_contradicts_is_named(host, entry, mode):
    host.put("tls.ini", f"[outbound]\n{entry}\n")
    with pytest.raises(EngineError) as caught:
        host.adapter.plan(state(config("a", mode)))
    assert f"email config a: {host.tls_ini} has {entry} in [outbound]" in str(caught.value)
    assert f"contradicts {mode}" in str(caught.value)


@pytest.mark.parametrize("entry", ["force_tls_hosts[]=a.example", "force_tls_hosts[]=mx.example"])
def test_an_entry_that_would_keep_tls_on_is_named_before_it_is_switched_on(host, entry):
    host.put("tls.ini", f"[outbound]\n{entry}\n")
    wanted = state(config("a", "required"))
    host.adapter.plan(wanted)  # it says the same
    with pytest.raises(EngineError, match="contradicts plaintext; remove it") as caught:
        host.adapter.refuse_one_way(wanted)
    assert f"email config a: {host.tls_ini} has {entry} in [outbound]" in str(caught.value)


def test_our_own_entries_keep_nothing_on(host):
    host.write(config("a", "required"))
    host.adapter.refuse_one_way(state(config("a", "required")))


@pytest.mark.parametrize(
    ("entry", "mode", "server"),
    [
        ("no_tls_hosts[]=192.0.2.0/24", "required", "mx.example"),  # forced goes before
        ("no_tls_hosts[]=192.0.2.0/24", "opportunistic", "unknown.example"),
        ("no_tls_hosts[]=192.0.2.0/24", "opportunistic", "[2001:db8::1]"),
        ("no_tls_hosts[]=other.example", "opportunistic", "mx.example"),
    ],
)
def test_an_entry_about_something_else_is_no_contradiction(host, entry, mode, server):
    host.put("tls.ini", f"[outbound]\n{entry}\n")
    assert host.adapter.plan(state(config("a", mode, servers=(server,))))


def test_a_literal_address_is_found_in_a_network(host):
    host.put("tls.ini", "[outbound]\nno_tls_hosts[]=192.0.2.0/24\n")
    with pytest.raises(EngineError, match="contradicts"):
        host.adapter.plan(state(config("a", "opportunistic", servers=("192.0.2.7",))))


@pytest.mark.parametrize("mode", ["opportunistic", "required"])
def test_without_outbound_tls_at_all(host, mode):
    host.put("outbound.ini", "enable_tls=false\n")
    with pytest.raises(EngineError, match=r"outbound\.ini says enable_tls=false, the switch for all mail"):
        host.adapter.plan(state(config("a", mode)))
    assert host.adapter.plan(state(config("a", "plaintext")))


def test_what_is_held_already_does_not_keep_others_from_relaxing(host):
    host.write(config("a", "required"), config("b", "required"))
    host.put("outbound.ini", "enable_tls=false\n")
    assert host.adapter.plan(state(config("a", "plaintext"), config("b", "required")))


def test_a_memory_for_failed_hosts_is_no_opportunistic_tls(host):
    host.put("tls.ini", TLS_INI + "disable_for_failed_hosts=true\n")
    with pytest.raises(EngineError, match=r"disable_for_failed_hosts=true in .redis.: after one failure"):
        host.adapter.plan(state(config("a", "opportunistic")))
    assert host.adapter.plan(state(config("a", "required")))


@pytest.mark.parametrize("name", ["smtp.json", "smtp.yaml"])
def test_a_file_that_replaces_tls_ini(host, name):
    host.put(name, '{"!tls.ini": {}}')
    with pytest.raises(EngineError, match=f"{name} replaces tls.ini"):
        host.adapter.plan(state(config("a", "required")))


RELAY = {"relay.ini": "[relay]\ndest_domains=true\n", "relay_dest_domains.ini": "[domains]\na.example={}\n"}


@pytest.mark.parametrize(
    ("plugins", "files", "taken"),
    [
        ("queue/smtp_forward\n", {}, "smtp_forward"),
        ("# queue/smtp_forward\nrelay\n", {}, ""),
        ("queue/smtp_forward # x\nrelay\n", {}, "smtp_forward"),
        ("queue/smtp_forward\nrelay\n", RELAY, ""),
        ("queue/smtp_forward\nharaka-plugin-relay\n", {"relay.ini": "[relay]\nall=true\n"}, ""),
        ("queue/smtp_forward\nrelay\n", {**RELAY, "smtp_forward.ini": "enable_outbound=true\n"}, "smtp_forward"),
        (
            "queue/smtp_forward\nrelay\n",
            {**RELAY, "smtp_forward.ini": "[a.example]\nenable_outbound=true\n"},
            "smtp_forward",
        ),
        ("queue/smtp_proxy\nrelay\n", RELAY, "smtp_proxy"),
        ("queue/qmail-queue\nrelay\n", {**RELAY, "qmail-queue.ini": "enable_outbound=false\n"}, ""),
    ],
)
def test_a_plugin_that_hands_mail_on_by_itself(host, plugins, files, taken):
    for name, text in {"plugins": plugins, **files}.items():
        host.put(name, text)
    if not taken:
        assert host.adapter.plan(state(config("a", "required")))
        return
    with pytest.raises(EngineError, match=f"the plugin queue/{taken} delivers mail for a.example itself"):
        host.adapter.plan(state(config("a", "required")))


@pytest.mark.parametrize(
    ("text", "modes"),
    [
        ("", ("required",)),
        ("rejectUnauthorized=true\n", ("opportunistic", "required")),
        ("rejectUnauthorized=true\n[outbound]\nrejectUnauthorized=false\n", ("required",)),
        ("[outbound]\nrejectUnauthorized=true\n", ("opportunistic", "required")),
    ],
)
def test_modes_in_which_haraka_judges_the_certificate(host, text, modes):
    host.put("tls.ini", text)
    assert host.adapter.verifying_modes == modes


def test_what_haraka_cannot(host):
    assert set(host.adapter.limits) == {"match_sender", "match_sender_strict", "enforced", "outbound"}
    assert host.adapter.modes == ("plaintext", "opportunistic", "required")


def test_next_hops_are_the_servers_that_are_named(host):
    held = state(config("a", "required"))
    assert host.adapter.next_hops("a.example", held) == (Target("mx.example"),)
    assert host.adapter.next_hops("b.example", held) == ()
    assert host.adapter.relay_hosts() == ()
    assert host.adapter.roots(held) == ""


# Processes


def test_only_this_harakas_workers_count(host, tmp_path):
    host.start(200, home=tmp_path)
    (host.proc / "201").mkdir()  # one that ended meanwhile
    host.start(202)
    (host.proc / "202/environ").write_bytes(f"HARAKA={host.home}\0".encode())
    link = tmp_path / "link"
    link.symlink_to(host.home)
    host.start(203, home=link, age=60.0)
    assert host.adapter._workers() == [203, 101, 102]


@pytest.mark.parametrize(
    ("liar", "counts"),
    [
        ({}, True),
        ({"parent": 1}, False),
        ({"parent": 101}, False),
        ({"program": "/usr/bin/python3"}, False),
        ({"program": "/usr/bin/node (deleted)"}, True),  # an update came since
        ({"uid": 65534}, True),  # user= in smtp.ini, while the main process is root's
    ],
)
def test_a_worker_is_a_child_of_the_process_that_listens(host, liar, counts):
    host.start(300, **liar)
    assert (300 in host.adapter._workers()) is counts


def test_a_worker_has_the_user_of_its_main_process(host):
    host.start(MASTER, parent=1, uid=900)
    assert host.adapter._workers() == []
    host.start(101, uid=900)
    assert host.adapter._workers() == [101]


@pytest.mark.parametrize(
    ("address", "port", "counts"), [("0100007F", 25, True), ("0200007F", 25, False), ("00000000", 26, False)]
)
def test_the_main_process_listens_on_the_own_port(host, address, port, counts):
    host.listen(port, host=address)
    assert bool(host.adapter._workers()) is counts


# The same on real processes


@contextlib.contextmanager
def running_haraka(home, port, nodes=2):
    program = [sys.executable, fake_haraka.__file__, str(home), str(port), str(nodes)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture
def real(tmp_path):
    """The adapter on a real port, and what runs there. Its workers may take a moment to call themselves so."""
    with socket.create_server(("127.0.0.1", 0)) as spare:
        port = spare.getsockname()[1]
    (tmp_path / "config").mkdir()
    with running_haraka(tmp_path, port) as haraka:
        adapter = gateway.HarakaGateway(None, SETTINGS, Target("127.0.0.1", port), str(tmp_path))
        adapter.pid = haraka.pid
        yield adapter


def children_of(pid):
    return {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_no_other_process_is_taken_for_a_worker(real, tmp_path):
    """A process of another user that says it is one, and does not end at a SIGTERM, made every change fail, and its way back."""
    words = {"HARAKA": str(tmp_path), "NODE_UNIQUE_ID": "7"}
    stubborn = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
    user = UID if os.geteuid() == 0 else None
    liar = subprocess.Popen(
        stubborn, env={**os.environ, **words}, user=user, stdout=subprocess.PIPE, start_new_session=True
    )
    with socket.create_server(("127.0.0.1", 0)) as spare:
        other_port = spare.getsockname()[1]
    try:
        assert liar.stdout.readline() == b"ready\n"
        with running_haraka(tmp_path, other_port) as other:
            bystanders = children_of(other.pid)
            old = children_of(real.pid)
            assert set(real._workers()) == old
            with at_most(30):
                real.reload()
            assert set(real._workers()) == children_of(real.pid)
            assert not old & children_of(real.pid)
            assert children_of(other.pid) == bystanders
            assert liar.poll() is None
    finally:
        os.killpg(liar.pid, signal.SIGKILL)
        liar.wait()
        liar.stdout.close()


def test_a_running_haraka_is_required(host):
    host.adapter.require_running()
    host.stage = Stage.CONNECT
    with pytest.raises(EngineError, match=r"does not answer on 127\.0\.0\.1:25 \(cannot connect\)"):
        host.adapter.require_running()
    host.stop(101)
    host.stop(102)
    with pytest.raises(
        EngineError, match=r"no worker process of a Haraka started with -c .* serves 127.* on this host.*nodes=0"
    ):
        host.adapter.require_running()
    host.tls_ini.unlink()
    host.config.rmdir()
    with pytest.raises(EngineError, match=r"there is no directory .*/config; config_dir has to be"):
        host.adapter.require_running()


def test_every_worker_is_replaced_one_after_the_other(host):
    host.transact(config("a", "required"))
    assert host.signals == [(101, signal.SIGTERM), (102, signal.SIGTERM)]
    assert sorted(host.adapter._workers()) == [901, 902]
    assert host.lists()[1] == ["a.example"]


@pytest.mark.parametrize("late", [[0.3, 0], [0, 0.3]])
def test_the_oldest_worker_is_replaced_first_whoever_runs_between_two_clocks(host, monkeypatch, late):
    clock, waits = time.time, iter(late)
    monkeypatch.setattr(time, "time", lambda: clock() + next(waits, 0))
    assert host.adapter._workers() == [101, 102]


def test_a_worker_with_smtp_connections_is_given_a_moment(host):
    host.connect(101, 25, 40000)
    host.connect(102, 40000, 25)
    assert host.adapter._talks(101)
    assert host.adapter._talks(102)
    started = time.monotonic()
    host.stop = lambda pid: [(host.proc / str(pid) / "environ").write_bytes(b"")]
    host.adapter.reload()
    assert time.monotonic() - started >= 2 * SETTINGS.timeout


@pytest.mark.parametrize(("local", "remote", "tcp"), [(40000, 6379, "01"), (25, 40000, "06")])
def test_other_connections_do_not_count(host, local, remote, tcp):
    host.connect(101, local, remote, tcp)
    assert not host.adapter._talks(101)
    assert not host.adapter._talks(102)  # nothing can be seen of it


def test_a_worker_that_ended_by_itself_is_no_failure(host, monkeypatch):
    def gone(pid, _signal, _is_right):
        host.stop(pid)
        host.next_pid += 1
        host.start(host.next_pid)
        raise ProcessLookupError

    monkeypatch.setattr(gateway, "send_signal", gone)
    host.adapter.resume()
    assert sorted(host.adapter._workers()) == [901, 902]


def test_a_worker_that_is_not_replaced_ends_the_change(host, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(gateway.time, "monotonic", lambda: float(next(clock)))
    host.replaces = False
    with pytest.raises(TransactionError, match="has not replaced its worker 101 by one that answers"):
        host.transact(config("a", "required"))
    assert host.tls_ini.read_text() == TLS_INI
    assert not (host.config / RECORD).exists()


def test_workers_older_than_the_file_do_not_follow_it(host):
    host.start(101, age=3600.0)
    assert not host.adapter.serves()
    with pytest.raises(EngineError, match=r"the Haraka workers 101 are older than .*tls\.ini"):
        host.adapter.prove()
    host.tls_ini.unlink()
    assert host.adapter.serves()
    host.adapter.prove()


def test_prove_needs_the_port_and_a_worker(host):
    host.stage = Stage.CONNECT
    assert not host.adapter.serves()
    with pytest.raises(EngineError, match="does not answer on 127"):
        host.adapter.prove()
    host.stage = Stage.EHLO
    host.stop(101)
    host.stop(102)
    with pytest.raises(EngineError, match="no worker process of Haraka runs"):
        host.adapter.prove()


@pytest.mark.parametrize("greets", [True, False])
def test_the_worker_that_answers_is_known_by_its_connection(host, greets):
    del host.adapter._answering
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        port = listener.getsockname()[1]
        host.adapter._port = replace(host.adapter._port, port=port)
        host.listen(port)

        def serve():
            wire, peer = listener.accept()
            host.connect(102, port, peer[1])
            if greets:
                wire.sendall(b"220 gw.example\r\n")
            wire.close()

        thread = threading.Thread(target=serve)
        thread.start()
        assert host.adapter._answering() == (102 if greets else 0)
        thread.join()
    assert host.adapter._answering() == 0  # nobody listens


@pytest.mark.parametrize(
    ("files", "domain", "accepted"),
    [
        ({}, "a.example", None),
        ({"plugins": "rcpt_to.in_host_list\n", "host_list": "# ours\nA.example # first\nb.example\n"}, "a.example", True),
        ({"plugins": "rcpt_to.in_host_list\n", "host_list": "b.example\n"}, "a.example", None),
        ({"plugins": "# rcpt_to.in_host_list\n", "host_list": "a.example\n"}, "a.example", None),
        (
            {"plugins": "relay\n", "relay.ini": "[relay]\ndest_domains=true\n",
             "relay_dest_domains.ini": '[domains]\na.example={"action":"accept","nexthop":"mx.example"}\n'},
            "a.example", True,
        ),
        (
            {"plugins": "haraka-plugin-relay\n", "relay.ini": "[relay]\ndest_domains=true\n",
             "relay_dest_domains.ini": '[domains]\na.example={"action":"deny"}\n'},
            "a.example", None,
        ),
        (
            {"plugins": "relay\n", "relay.ini": "[relay]\n",
             "relay_dest_domains.ini": '[domains]\na.example={"action":"accept"}\n'},
            "a.example", None,
        ),
    ],
)  # fmt: skip
def test_the_domains_that_its_own_plugins_take(host, files, domain, accepted):
    for name, text in files.items():
        (host.config / name).write_text(text)
    assert host.adapter.accepts([domain]) == {domain: accepted}


def test_the_files_that_a_change_depends_on(host):
    assert host.adapter.files() == [str(host.tls_ini), str(host.config / "mailfleet-starttls.json")]


DAEMON = 12345


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
class TestDirectoryOfTheDaemon:
    """config_dir belongs to the user whom Haraka runs as."""

    WANTED = state(config("main", "required", "a.example"))

    @pytest.fixture
    def host(self, monkeypatch, tmp_path):
        host = Host(monkeypatch, tmp_path)
        for one in (host.home, host.config, host.tls_ini):
            os.chown(one, DAEMON, DAEMON)
        return host

    @pytest.fixture
    def victim(self, tmp_path):
        path = tmp_path / "shadow"
        path.write_text("root:secret\n")
        yield path
        assert path.read_text() == "root:secret\n"

    def apply(self, host, wanted, tmp_path):
        change = host.adapter.plan(wanted)
        with host.adapter.transaction(str(tmp_path / "store")).locked() as transaction:
            transaction.apply(change, lambda: None, lambda: None)
        return change

    def test_it_is_changed_and_its_files_stay_that_users(self, host, tmp_path):
        assert self.apply(host, self.WANTED, tmp_path)
        assert host.lists()[1] == ["a.example"]
        owners = {one.name: (one.stat().st_uid, one.stat().st_gid) for one in host.config.iterdir()}
        assert owners == {"tls.ini": (DAEMON, DAEMON), RECORD: (DAEMON, DAEMON)}
        assert not host.adapter.plan(self.WANTED)

    def test_a_new_file_is_that_users(self, host, tmp_path):
        host.tls_ini.unlink()
        self.apply(host, self.WANTED, tmp_path)
        assert host.tls_ini.stat().st_uid == DAEMON

    def test_a_killed_run_is_undone_there(self, host, tmp_path):
        host.adapter.reload = host.adapter.resume = lambda: None
        before = host.tls_ini.read_text()
        change = host.adapter.plan(self.WANTED)
        pid = os.fork()
        if pid == 0:
            with host.adapter.transaction(str(tmp_path / "store")).locked() as transaction:
                transaction.apply(change, lambda: os._exit(9), lambda: None)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert host.lists()[1] == ["a.example"]
        with host.adapter.transaction(str(tmp_path / "store")).locked() as transaction:
            assert transaction.recover() is True
        assert host.tls_ini.read_text() == before and host.tls_ini.stat().st_uid == DAEMON

    @pytest.mark.parametrize("maker", [DAEMON, 0])
    def test_no_link_in_it_is_followed(self, host, victim, maker):
        host.tls_ini.unlink()
        host.tls_ini.symlink_to(victim)
        os.lchown(host.tls_ini, maker, maker)
        with pytest.raises(EngineError, match=f"{host.tls_ini} is a link .*correct config_dir"):
            host.adapter.plan(self.WANTED)

    def test_config_is_no_link(self, host, victim, tmp_path):
        host.config.rename(host.home / "aside")
        (tmp_path / "tls.ini").symlink_to(victim)
        host.config.symlink_to(tmp_path)
        os.lchown(host.config, DAEMON, DAEMON)
        with pytest.raises(EngineError, match=f"{host.config} is a link"):
            host.adapter.plan(self.WANTED)

    def test_a_second_name_of_roots_file_is_refused(self, host, victim):
        host.tls_ini.unlink()
        os.link(victim, host.tls_ini)
        with pytest.raises(EngineError, match="another name elsewhere"):
            host.adapter.plan(self.WANTED)

    def test_a_link_put_there_after_the_plan_is_refused(self, host, victim, tmp_path):
        change = host.adapter.plan(self.WANTED)
        host.tls_ini.rename(host.config / "aside")
        host.tls_ini.symlink_to(victim)
        os.lchown(host.tls_ini, DAEMON, DAEMON)
        with host.adapter.transaction(str(tmp_path / "store")).locked() as transaction, pytest.raises(EngineError):
            transaction.apply(change, lambda: None, lambda: None)

    def test_somebody_elses_directory_above_is_refused(self, host):
        os.chown(host.home, 65534, 65534)
        os.chown(host.config, DAEMON, DAEMON)
        host.adapter.plan(self.WANTED)  # config_dir itself may belong to anybody
        deeper = gateway.HarakaGateway(host.run, SETTINGS, Target("127.0.0.1"), str(host.config))
        (host.config / "config").mkdir()
        with pytest.raises(EngineError, match=f"{host.home} belongs to"):
            deeper.plan(self.WANTED)


def test_what_somebody_writes_after_the_plan_is_not_lost(host, tmp_path):
    transaction = host.adapter.transaction(str(tmp_path / "store"))
    wanted = state(config("main", "required", "a.example"))
    edited_meanwhile(host.adapter, host.tls_ini, "; by hand\n")
    with transaction.locked(), pytest.raises(EngineError, match=f"{host.tls_ini} changed while"):
        change_within(transaction, host.adapter, lambda _before: wanted, lambda *_: GatewayVerdict(), [], False)
    assert host.tls_ini.read_text() == TLS_INI + "; by hand\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="the record is root's")
class TestUninstall:
    WANTED = state(config("a", "required", "a.example"), config("b", "plaintext", "b.example"))

    @pytest.fixture
    def remove(self, host, tmp_path, monkeypatch):
        store = str(tmp_path / "store")
        for name in ("require_running", "reload", "prove"):
            monkeypatch.setattr(host.adapter, name, lambda: None)
        with host.adapter.transaction(store).locked() as transaction:
            transaction.apply(host.adapter.plan(self.WANTED), lambda: None, lambda: None)
        return lambda: uninstall(host.adapter, "/none", store=store, queue_seconds=0)

    def test_tls_ini_is_as_before_and_the_record_is_gone(self, host, remove, tmp_path):
        assert host.lists()[1] == ["a.example"]
        host.tls_ini.write_text(host.tls_ini.read_text() + "; a note\n")
        assert remove()["changed"] is True
        assert host.tls_ini.read_text().endswith("; a note\n")
        assert "a.example" not in host.tls_ini.read_text() and gateway.NOTE not in host.tls_ini.read_text()
        assert [one.name for one in host.config.iterdir()] == ["tls.ini"]
        assert not (tmp_path / "store").exists()
        assert remove()["changed"] is False

    def test_mail_that_insists_on_tls_is_named(self, host, remove):
        directory = host.home / "queue"
        directory.mkdir()
        envelope = json.dumps({"domain": "a.example", "rcpt_to": [{"original": "<you@a.example>"}]}).encode()
        (directory / "1700000000000_1_3_77_AbC_1_hk").write_bytes(len(envelope).to_bytes(4, "big") + envelope)
        with pytest.raises(EngineError, match=r"1700000000000_1_3_77_AbC_1_hk to you@a\.example: failed attempts: 3"):
            remove()
        assert host.lists()[1] == ["a.example"]

    def test_without_a_record_our_entries_go(self, host, remove, tmp_path):
        (tmp_path / "store/haraka.before").unlink()
        assert "without records" in remove()["warnings"][0]
        assert host.lists() == (["192.0.2.25"], [])
