"""A gateway host with a stand-in for Postfix below a directory, and the collection's adapter on it."""

import contextlib
import os
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Record, texts
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import own_port, record
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    EnforcedDomain,
    GatewayState,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import (
    arrival_policy,
    between,
    gateway,
    instances,
    policy_client,
    server,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Edits, Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import OwnPaths
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, Target

from tests.support.fake_postfix import MAIN, FakePostfix

OWN_PORT = Target("127.0.0.1", 25)
PAIR = b"-----BEGIN PRIVATE KEY-----\n-----END CERTIFICATE-----\n"
SETTINGS = Settings(helo_name="gw.example", timeout=0.2)


def config(name, mode, *domains, servers=("mx.example",)):
    return EmailConfig(name, domains or (f"{name}.example",), tuple(map(Target.parse, servers)), mode)


def state(*configs, enforced=(), **more):
    return GatewayState({one.name: one for one in configs}, tuple(enforced), **more)


def inbound(*domains):
    return [EnforcedDomain(domain, "inbound") for domain in domains]


def outbound(domain, check="encryption_only", *servers):
    return EnforcedDomain(domain, "outbound", check, tuple(map(Target.parse, servers)))


class PostfixHost:
    """A gateway host below a directory, and the adapter on it."""

    def __init__(self, monkeypatch, root, **fake):
        self.root = root
        self.etc = root / "etc/postfix"
        self.second = root / "etc/postfix-mailfleet"
        self.third = root / "etc/postfix-mailfleet_enforced"
        self.fake = FakePostfix(self.etc, **fake)
        self.layout = replace(DEBIAN, config_dir=str(self.etc))
        directory = self.etc / "mailfleet-starttls"
        self.ports = {}  # port -> stage that a handshake with it reaches, or the Handshake
        self.tested = []
        self.running = {"/var/spool/postfix"}  # queue directories of the instances that run
        for module in (server, instances):
            monkeypatch.setattr(module, "runs", lambda queue: queue in self.running)
        self.units = root / "etc/systemd/system"
        monkeypatch.setattr(instances, "UNITS", str(self.units))
        self.runs_in = {}  # queue directory -> the unit that its master runs in
        monkeypatch.setattr(instances, "running", lambda queue: queue)
        monkeypatch.setattr(instances, "unit_of", lambda queue: self.runs_in.get(queue, ""))
        monkeypatch.setattr(gateway, "refuse_blocked", lambda *_arguments: None)  # it looks at this machine's own ports
        # A test may run a whole module, which knows the usual directory only.
        monkeypatch.setattr(server, "Postconf", lambda run, _config_dir: Postconf(run, str(self.etc)))
        for module in (gateway, server):
            monkeypatch.setattr(module, "OwnPaths", lambda _config_dir: OwnPaths(str(self.etc)))
        monkeypatch.setattr(gateway, "POLICY", str(root / "usr/arrival_policy.py"))
        self.directory = directory
        for module in (gateway, instances, record):
            monkeypatch.setattr(module, "FileImage", OwnFiles())
        for module in (gateway, own_port):
            monkeypatch.setattr(module, "handshake_one", lambda target, _settings: self.test(target))
        monkeypatch.setattr(between, "new_pair", lambda _run: PAIR)
        monkeypatch.setattr(between, "fault", lambda port, _pair, _settings: self.fault(port))
        self.policy = self.answered  # what the policy service answers to questions
        monkeypatch.setattr(policy_client, "ask", lambda _path, questions: self.policy(questions))
        for module in (own_port, gateway):
            monkeypatch.setattr(module, "wait_until", lambda _condition, target, *_: self.test(target))
        self.adapter = gateway.PostfixGateway(self.fake, SETTINGS, OWN_PORT, 10125, self.layout)

    def test(self, target):
        self.tested.append(str(target))
        stage = self.ports.get(target.port, Stage.CONNECT)
        if isinstance(stage, Handshake):
            return stage
        failure = {} if stage else {"code": "connect_failed", "message": "cannot connect"}
        return Handshake(target, stage, **failure)

    def answered(self, questions):
        """What the policy service that the collection writes answers."""
        there = self.services(self.etc)["mailfleet_arrival/unix"][-3:-1]
        lines = [f"{name}={value}\n" for one in questions for name, value in [*one.items(), ("", "")]]
        lines = ["\n" if one == "=\n" else one for one in lines]
        found = arrival_policy.answers(lines, *there, frozenset)
        return [one.strip().removeprefix("action=") for one in found]

    def fault(self, port):
        seen = self.test(port)
        return "" if seen.stage >= Stage.EHLO else seen.message

    def plan(self, *configs, **more):
        self.adapter._postconf.forget()  # a test edits files between two plans; in a run, the transaction does, and then checks
        return self.adapter.plan(state(*configs, **more))

    def apply(self, *configs, enabled=True, **more):
        """Write the files of a state. enabled: whether systemd wants the units, as it does after a reload."""
        change = self.plan(*configs, **more)
        for image in change.after:
            Path(image.path).parent.mkdir(parents=True, exist_ok=True)
            image.write()
        self.adapter._postconf.forget()
        if enabled:
            self.enable(instances.not_enabled(self.adapter._instances))
        return change

    def enable(self, units):
        """What C(systemctl enable) does."""
        for unit in units:
            for target in ("multi-user.target", "postfix.service"):
                link = self.units / f"{target}.wants" / unit
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(self.units / unit)

    def lines(self, name):
        """The lines of a table of ours, without the header."""
        header, *lines = (self.directory / name).read_text().splitlines()
        assert header.startswith("# Written by mailfleet.starttls")
        return lines

    def services(self, path):
        text = re.sub(r"\n[ \t]+", " ", (path / "master.cf").read_text())
        lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
        return {f"{words[0]}/{words[1]}": words for words in lines}


def edit(host, services=(), **main):
    """What an administrator writes by hand."""
    host.adapter._postconf.forget()
    for image in host.adapter._postconf.images(Edits(main, dict(services))):
        image.write()
    host.adapter._postconf.forget()


class OwnFiles:
    """FileImage whose new files belong to whoever runs the tests."""

    read = staticmethod(FileImage.read)

    def __call__(self, path, content, mode=0o644, **more):
        return FileImage(path, content, mode, os.getuid(), os.getgid(), **more)


@contextlib.contextmanager
def answering(host, rcpt=b"250 2.1.5 Ok", greeting=b"220 gw.example ESMTP"):
    """Put a mail server that answers RCPT so on the gateway's own port; yields the commands it gets."""
    commands = []

    def serve():
        client, _peer = listener.accept()
        with client, client.makefile("rb") as lines:
            client.sendall(greeting + b"\r\n")
            for line in lines:
                commands.append(line.decode().strip())
                verb = line[:4].upper()
                if verb == b"RCPT" and not rcpt:
                    return
                client.sendall({b"RCPT": rcpt, b"QUIT": b"221 Bye"}.get(verb, b"250 Ok") + b"\r\n")
                if verb == b"QUIT":
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        host.ports[port] = Stage.EHLO
        host.adapter.own_port = Target("127.0.0.1", port)
        host.adapter._settings = Settings(helo_name="gw.example", timeout=10)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield commands
        thread.join(10)
        assert not thread.is_alive()


class RecordedHost:
    """A mail server with what the record knows of its files. plan() of a subclass says what is wanted."""

    def __init__(self, monkeypatch, directory, main, master):
        self.fake = FakePostfix(directory, MAIN + main, master)
        self.fake.defaults["smtpd_tls_cert_file"] = ""
        self.files = (self.fake.main, self.fake.master)
        monkeypatch.setattr(server, "Postconf", lambda run, _config_dir: Postconf(run, str(directory)))
        self.first = [path.read_bytes() for path in self.files]
        self.record = Record()

    def adapter(self):
        return server.Postfix(self.fake)

    def known(self):
        """The former texts that the record has."""
        return texts(self.record, map(str, self.files))[0]

    def apply(self, *wanted, **more):
        change = self.plan(*wanted, **more)
        self.record = self.record.noted([(FileImage.read(image.path), image) for image in change.after])
        for image in change.after:
            image.write()
        assert not self.plan(*wanted, **more)
        return change
