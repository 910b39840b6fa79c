"""The adapter of an Exim with one plain configuration file, on a stand-in for Exim: what it reads, and what it does not touch."""

import os
import pwd
from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import plain
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.daemon import EximDaemon
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.layout import EXIM_LAYOUTS
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain import PlainExim
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_peer import PlainPeers
from ansible_collections.mailfleet.starttls.plugins.module_utils._server import evidence
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import demanding
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    NotRunningError,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds import server as server_registry

RED_HAT = next(one for one in EXIM_LAYOUTS if one.platform == "Red Hat family")
TEXT = (
    "tls_advertise_hosts =\nbegin transports\nout:\n  driver = smtp\n  hosts_avoid_tls = *\nfilter:\n  driver = smtp\n"
)
USER = pwd.getpwuid(os.getuid()).pw_name


class Host:
    """A configuration file below a directory, and an Exim that prints the options that a test gives."""

    def __init__(self, tmp_path):
        self.file = tmp_path / "exim.conf"
        self.file.write_text(TEXT)
        self.pid_file = tmp_path / "exim.pid"
        self.main = {
            "exim_version": "4.98", "exim_user": USER, "pid_file_path": str(self.pid_file), "local_interfaces": "<; 127.0.0.1",
            "daemon_smtp_ports": "0", "tls_advertise_hosts": "", "acl_smtp_mail": "",
        }  # fmt: skip
        self.transports = {"out": {"driver": "smtp", "hosts_avoid_tls": "*"}, "filter": {"driver": "smtp"}}
        self.routers = {
            "gateway": {"driver": "manualroute", "transport": "out", "route_list": "* gw.example.com"},
            "filter": {"driver": "manualroute", "transport": "filter", "route_list": "* 127.0.0.1::10025"},
        }
        self.broken = ""
        self.layout = replace(RED_HAT, config_file=str(self.file), pid_file=str(self.pid_file))
        self.exim = PlainExim(self.run, self.layout, Target("127.0.0.1"))

    def run(self, words):
        assert words[0] == "exim"
        if self.broken:
            return 1, "", self.broken
        if "-bV" in words:
            return 1, "", "Permission denied"  # no trial of a text elsewhere
        if words[-1] == "config":
            return 0, self.file.read_text(), ""
        if words[-1] == "routers":
            return 0, _printed(self.routers, "router"), ""
        return 0, f"{self.file}\n{_lines(self.main)}{_printed(self.transports, 'transport')}", ""


def _lines(options):
    return "".join(f"{name} = {value}\n" for name, value in options.items())


def _printed(drivers, kind):
    return "".join(f"{name} {kind}:\n{_lines(options)}" for name, options in drivers.items())


@pytest.fixture
def host(tmp_path, monkeypatch):
    made = Host(tmp_path)
    monkeypatch.setattr(plain, "command_line_of", lambda _pid: "/usr/sbin/exim\0-bd\0")
    monkeypatch.setattr(PlainExim, "main_process", lambda _self: 4711)
    monkeypatch.setattr(plain, "obstacles", lambda *_: [])
    return made


def test_what_exim_computes_is_the_state(host):
    assert host.exim.state() == {"inbound": "disabled", "outbound": "disabled"}
    assert host.exim.outgoing() == ["out"]  # the filter on this host is none
    assert [str(one) for one in host.exim.next_hops()] == ["gw.example.com:25"]
    host.main.update(tls_advertise_hosts="*", acl_smtp_mail=f"{plain.REQUIRES}accept hosts = *}}{{defer}}")
    host.transports["out"] = {"driver": "smtp", "hosts_require_tls": "bank.example.com"}
    host.exim._printed.forget()
    assert host.exim.state() == {"inbound": "required", "outbound": "custom"}


def test_a_change_says_which_lines_and_touches_nothing_else(host):
    change = host.exim.plan(Desired("offered", "opportunistic", certificate="/etc/mail/pem"))
    [(path, lines)] = change.lines()
    assert path == str(host.file)
    assert "+tls_certificate = /etc/mail/pem" in lines
    assert "+# mailfleet.starttls keeps:   hosts_avoid_tls = *" in lines
    assert "filter" not in lines
    assert host.file.read_text() == TEXT


def test_the_lines_by_hand_have_their_places(host):
    assert host.exim.by_hand(Desired("offered", "required", certificate="/etc/mail/pem")) == (
        "before the first 'begin': tls_advertise_hosts = ${if eq{$received_port}{25}{*}{}}; tls_certificate = /etc/mail/pem; "
        "tls_privatekey = /etc/mail/pem; in the transport out: hosts_require_tls = *"
    )


def test_a_refusal_has_the_lines(host):
    host.file.write_text(".ifdef X\ntls_advertise_hosts =\n.endif\nbegin acl\n")
    with pytest.raises(
        EngineError, match=r"line 2: .* '\.ifdef X', so the collection does not edit the file; add by hand, before"
    ):
        host.exim.plan(Desired("offered"))


def test_the_other_side_stays_as_it_is(host):
    both = host.exim.plan(Desired("offered", "required"))
    host.file.write_bytes(both.after[0].content)
    host.main["tls_advertise_hosts"] = "${if eq{$received_port}{25}{*}{}}"
    host.transports["out"] = {"driver": "smtp", "hosts_require_tls": "*"}
    host.exim._printed.forget()
    assert not host.exim.plan(Desired("offered", "required"))
    [image] = host.exim.plan(Desired(None, "disabled")).after
    assert b"tls_certificate = /etc/mailfleet/starttls.pem" in image.content
    assert b"\n  hosts_avoid_tls = *\n" in image.content and b"hosts_require_tls" not in image.content
    [image] = host.exim.plan(Desired("disabled", "disabled")).after
    assert image.content.decode() == TEXT
    [image] = host.exim.stripped({}, "")
    assert image.content.decode() == TEXT


@pytest.mark.parametrize("words", ["-C\0/etc/other.conf", "-DTLS=1", "-C/etc/other.conf"])
def test_a_daemon_with_options_of_its_own_is_refused(host, monkeypatch, words):
    host.exim.require_running()
    monkeypatch.setattr(plain, "command_line_of", lambda _pid: f"/usr/sbin/exim\0-bd\0{words}\0")
    with pytest.raises(EngineError, match=r"Exim was started with -[CD]"):
        host.exim.require_running()


def test_a_panel_is_named(host, monkeypatch, tmp_path):
    monkeypatch.setattr(plain, "_PANELS", {str(tmp_path): "cPanel"})
    with pytest.raises(EngineError, match=rf"^cPanel \({tmp_path}\) writes {host.file} anew"):
        host.exim.require_running()


def test_a_broken_file_and_a_stopped_daemon_are_two_things(host, monkeypatch):
    monkeypatch.setattr(PlainExim, "main_process", lambda _self: None)
    with pytest.raises(NotRunningError, match=f"{host.pid_file} names no process"):
        host.exim.require_running()
    host.broken = "Exim configuration error in line 3"
    host.exim._printed.forget()
    with pytest.raises(BrokenConfigurationError, match="line 3"):
        host.exim.require_running()
    assert (host.exim.path, host.exim.sessions_an_hour()) == (str(host.file), None)


@pytest.mark.parametrize("text", [TEXT, f".include tls.conf\n{TEXT}"])
def test_what_a_change_reaches_is_told_where_no_trial_is_possible(host, text):
    """Exim reads no file of another directory here, or the file includes one beside it."""
    host.file.write_text(text)
    host.main.update(daemon_smtp_ports="25 : 465", tls_on_connect_ports="465")
    change = host.exim.plan(Desired("offered", "required", certificate="/etc/mail/pem"))
    before, after = evidence.both(host.exim, change)
    assert {one.port: (one.tls, one.certificates) for one in before.listeners} == {
        25: ("none", ()),
        465: ("implicit", ()),
    }
    assert {one.port: (one.tls, one.certificates) for one in after.listeners} == {
        25: ("offered", ("/etc/mail/pem",)),
        465: ("implicit", ("/etc/mail/pem",)),
    }
    assert [str(one.target) for one in demanding(before, after)] == ["gw.example.com:25"]  # it has to be proved, too
    assert (before.notes, after.unread) == ((), ())
    assert after.notes == (
        f"{host.file} cannot be tried from another directory, so what the change reaches is told from the lines that it changes",
    )
    host.file.write_bytes(change.after[0].content)
    host.main.update(tls_advertise_hosts="${if eq{$received_port}{25}{*}{}}", tls_certificate="/etc/mail/pem")
    host.transports["out"] = {"driver": "smtp", "hosts_require_tls": "*"}
    host.exim._printed.forget()
    back = host.exim.sides(host.exim.plan(Desired("disabled", "disabled")))
    assert {one.port: (one.tls, one.certificates) for one in back.listeners} == {
        25: ("none", ()),
        465: ("implicit", ()),
    }
    assert {one.transport.transport: one.kind for one in back.ways}["out"] == "disabled"


def test_a_send_only_host_needs_no_daemon(host, monkeypatch):
    """Each message is sent by a process of its own, which reads the file. There is nobody to tell, and nobody has ended."""
    monkeypatch.setattr(PlainExim, "main_process", lambda _self: None)
    monkeypatch.setattr(plain, "obstacles", lambda *_: ["another program has the port"])
    monkeypatch.setattr(server_registry, "layout_of", lambda _kind: host.layout)
    exim = server_registry.SERVERS["exim"](host.run, Desired(None, "required", listens=False), Settings())
    exim.require_running()
    exim.reload()
    exim.resume()
    assert not exim.has_ended()
    with pytest.raises(NotRunningError):
        host.exim.require_running()
    assert host.exim.has_ended()


def test_the_daemon_of_a_send_only_host_is_told(host, monkeypatch):
    told = []
    monkeypatch.setattr(EximDaemon, "have_it_read", lambda _self, told_before=None: told.append(told_before) or 4711)
    exim = PlainExim(host.run, host.layout, Target("127.0.0.1"), listens=False)
    exim.require_running()
    exim.reload()
    exim.resume()
    assert told == [None, 4711]


def test_peers_are_refused_by_name_and_there_are_none(host):
    peers = PlainPeers(host.exim)
    wanted = peers_of([{"name": "partner", "hosts": ["mx.example.net"], "domains": ["example.net"]}])
    assert (peers.peers(), bool(peers.plan((), ["gone"], {})), peers.waiting(["*"], [])) == ([], False, ())
    assert peers.faults(wanted)[0].startswith("peer partner: peers of an Exim with one plain configuration file (")
    with pytest.raises(EngineError, match="not supported yet"):
        peers.plan(wanted, (), {})


@pytest.mark.parametrize(
    ("zone", "line", "unread"),
    [
        ("UTC", "2026-11-30 10:00:05 exim 4.98 daemon started: pid=4711, -q30m", False),
        ("UTC", "2026-11-30 10:00:04 exim 4.98 daemon started: pid=4711, -q30m", True),
        ("", "2026-11-30 11:00:05.123 +0100 [4711] exim 4.98 daemon started: pid=4711, -q30m", False),
        ("", "2026-11-30 11:00:04 +0100 exim 4.98 daemon started: pid=4711, -q30m", True),
        ("", "2026-11-30 04:30:04 -0530 exim 4.98 daemon started: pid=4711, -q30m", True),
        ("", "2026-11-30 04:30:05 -0530 exim 4.98 daemon started: pid=4711, -q30m", False),
        ("Europe/Nowhere", "2026-11-30 10:00:04 exim 4.98 daemon started: pid=4711, -q30m", False),
        ("UTC", "2026-11-31 10:00:04 exim 4.98 daemon started: pid=4711, -q30m", False),
        ("UTC", "2026-11-30 10:00:04 exim 4.98 daemon started: pid=12, -q30m", False),
        ("UTC", "2026-11-30 10:00:04 1abc rejected: 2026-11-30 10:00:04 exim 4.98 daemon started: pid=4711,", False),
    ],
)
def test_an_edit_is_unread_if_the_log_has_no_later_start(host, tmp_path, zone, line, unread):
    """A SIGHUP leaves the pid file as it is."""
    (tmp_path / "mainlog").write_text(f"{line}\n2026-11-30 11:00:00 Start queue run: pid=9\n")
    host.pid_file.write_text("4711\n")
    os.utime(host.pid_file, (0, 0))
    host.main.update(log_file_path=str(tmp_path / "mainlog"), timezone=zone)
    os.utime(host.file, ns=(0, 1_796_032_805_999_999_999))
    assert host.exim.observe()["not_read_yet"] == ([str(host.file)] if unread else [])


def test_without_a_line_about_the_start_nothing_is_said(host, tmp_path):
    (tmp_path / "mainlog").write_text("2026-11-30 11:00:00 Start queue run: pid=9\n")
    host.main["log_file_path"] = str(tmp_path / "mainlog")
    assert host.exim.observe()["not_read_yet"] == []
