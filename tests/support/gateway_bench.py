"""A gateway in one file and servers whose handshakes are scripted, for the engines that change a gateway."""

import os

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    MODES,
    GatewayState,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import dump, load_file
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


class FakeGateway:
    """A gateway (see contract.Gateway) that keeps its state in one file."""

    name = "fake-gateway"
    title = "a stand-in for a gateway"
    reads_files_unasked = True

    def __init__(self, file):
        self.file = file
        self.modes = MODES
        self.verifying_modes = ()
        self.limits = {}
        self.softens_refusals = True
        self.prepared = Change((), ())  # what prepare() asks for
        self.prepared_for = []
        self.own_port = Target("gw.example")
        self.log = []
        self.fail = {}  # step -> what is wrong with it, once
        self.up = True
        self.wanted = []  # what it was asked to read for
        self.hops = {}  # domain -> hosts, or an exception to raise
        self.asked = []  # the domains whose hosts were asked for, each with the state
        self.system_roots = ""
        self.relays = ()  # or an exception to raise
        self.waiting = []  # what each look at the queue finds; the last one stays
        self.accepted = {}  # recipient domain -> whether it takes mail for it
        self.delivered = {}  # recipient domain -> mode in which it delivers, or an exception to raise
        self.forced = {}  # what it says is in force, or an exception to raise
        self.found = ()  # the faults that it knows, or an exception to raise
        self.keeps_names = True

    def _step(self, name):
        self.log.append(name)
        if name in self.fail:
            raise EngineError(self.fail.pop(name))

    def transaction(self, store):
        return Transaction(self, store)

    def check(self):
        self._step("check")

    def reload(self):
        self._step("reload")

    def resume(self):
        self._step("resume")

    def require_running(self):
        self._step("require_running")

    def serves(self):
        self._step("serves")
        return self.up

    def prove(self):
        self._step("prove")
        self.up = True

    def read(self, wanted=()):
        self.wanted.append(list(wanted))
        return load_file(str(self.file))

    def prepare(self, state):
        self.prepared_for.append(state)
        return self.prepared

    def plan(self, state):
        if state == GatewayState() and not self.file.exists():
            return Change((), ())
        return Change.of([FileImage(str(self.file), dump(state).encode(), 0o600, os.getuid(), os.getgid())])

    def accepts(self, domains):
        return {one: self.accepted.get(one) for one in domains}

    def delivers(self, domains):
        return {one: _or_raise(self.delivered.get(one)) for one in domains}

    def in_force(self, state):
        return _or_raise(self.forced)

    def faults(self, state):
        return _or_raise(self.found)

    def queued(self, domains):
        self.log.append(f"queue of {', '.join(domains)}")
        found = self.waiting.pop(0) if len(self.waiting) > 1 else (self.waiting or [()])[0]
        return list(found)

    def files(self):
        return [str(self.file)]

    def next_hops(self, domain, state):
        self.asked.append((domain, state))
        return _or_raise(self.hops.get(domain, ()))

    def roots(self, state):
        self._step("roots")
        return state.ca_file or self.system_roots

    def relay_hosts(self):
        self._step("relay_hosts")
        return _or_raise(self.relays)


def _or_raise(answer):
    if isinstance(answer, BaseException):
        raise answer
    return answer


UNTRUSTED = "self-signed certificate"
REASONS = {
    "no starttls": "the server does not offer STARTTLS",
    "broken": "the handshake failed: no common cipher",
    "mute": "no answer to EHLO in time",
    "down": "cannot connect to {target}: refused",
}


def seen(target, how="good", requires_tls=None, judged=False):
    """A handshake with a server that is good, untrusted, or one of REASONS."""
    if how in ("good", "untrusted"):
        trust = {"trusted": how == "good", "verify_error": "" if how == "good" else UNTRUSTED} if judged else {}
        return Handshake(target, Stage.EHLO_TLS, requires_tls=requires_tls, **trust)
    stage, code = {
        "no starttls": (Stage.EHLO, "starttls_not_offered"),
        "broken": (Stage.STARTTLS_ANSWERED, "tls_failed"),
        "mute": (Stage.GREETING, "no_ehlo"),
        "down": (Stage.CONNECT, "connect_failed"),
    }[how]
    return Handshake(target, stage, code, REASONS[how].format(target=target), requires_tls=requires_tls)


class Bench:
    """The stand-in, its servers, and the handshakes that are made with them in the place of those of a module."""

    def __init__(self, directory, monkeypatch, *modules):
        self.directory = directory
        self.gateway = FakeGateway(directory / "gateway.json")
        self.store = directory / "store"
        self.servers = {}  # host -> the arguments of seen
        self.handshakes = []
        self.settings = []
        self.common = Settings(helo_name="gw.example", ask_plaintext=False)
        for module in modules:
            monkeypatch.setattr(module, "handshake_all", self.handshake_all)

    def handshake_all(self, targets, settings):
        self.handshakes.append([str(target) for target in targets])
        self.settings.append(settings)
        return [seen(target, *self.servers.get(target.host, ()), judged=settings.verify_trust) for target in targets]

    def hold(self, state):
        self.gateway.file.write_text(dump(state))
        self.gateway.file.chmod(0o600)

    def held(self):
        return load_file(str(self.gateway.file))

    def clear(self):
        for memory in (self.gateway.log, self.gateway.asked, self.gateway.wanted, self.handshakes, self.settings):
            memory.clear()
