"""A mail server in one settings file and one port, for the engine that changes and reads mail servers."""

import hashlib
import os
import ssl
import sys
import threading
from dataclasses import replace
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import BundleFile
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.pem import (
    certificates,
    fingerprint,
    leaf_fingerprint,
    split,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener, Transport
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import set_starttls
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reading import Reading
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
    NotRunningError,
)

from tests.support.smtp_server import PLAIN, REQUIRES_TLS, Face, SmtpServer

NAME = "mail.example.com"
PATIENT = Settings(timeout=10, total_timeout=20)
BRIEF = Settings(timeout=0.4)  # for proofs that cannot succeed


class FakeMail:
    """A mail server (see contract.Server): a settings file, a port that follows it at each reload, and faults to order."""

    name = "fakemail"
    reads_files_unasked = True

    def __init__(self, directory, authority):
        self.directory = directory
        self.store = directory / "store"
        self.config = directory / "fakemail.cf"
        self.certificate = directory / "starttls.pem"
        self.calls = []
        self.hops = []
        self.refuses = False  # whether its own check refuses any settings
        self.deaf = False  # whether a reload changes nothing
        self.never = ()  # inbound states that it does not take up whatever its settings say
        self.delay = 0.0  # how long it serves the old state after a reload
        self.broken = ""  # its words if it cannot read its settings
        self.stopped = False
        self.missing = False
        self.other_places = []  # what its settings have at an address and port for something else
        self.leftovers = []  # what the collection left on its host beside the certificate
        self.write("disabled", "disabled")
        self.install(authority.issue([NAME]))
        self.port = SmtpServer(PLAIN)

    def write(self, inbound, outbound):
        self.config.write_text(self.text(inbound, outbound))

    def text(self, inbound, outbound):
        return f"inbound={inbound}\noutbound={outbound}\ncertificate={self.certificate}\npassword=hunter2\n"

    def install(self, issued):
        self.certificate.write_bytes(issued.key_pem + issued.fullchain_pem)

    @property
    def settings(self):
        pairs = dict(line.split("=") for line in self.config.read_text().splitlines())
        return {name: value for name, value in pairs.items() if name != "certificate"}

    @property
    def fingerprint(self):
        return leaf_fingerprint(self.certificate.read_bytes())

    def follow(self):
        """Serve what the settings say."""
        inbound = self.settings["inbound"]
        if inbound in self.never:
            return
        if inbound == "disabled":
            self.port.face = PLAIN
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self.port.face = Face(context=context, mail=REQUIRES_TLS if inbound == "required" else b"250 ok\r\n")

    def start(self, inbound="disabled", outbound="disabled"):
        self.write(inbound, outbound)
        self.follow()
        return self

    # The adapter

    def transaction(self, store):
        return Transaction(self, store)

    def check(self):
        self.calls.append("check")
        if self.refuses:
            self.refuses = False
            raise EngineError("fakemail: bad settings")

    def reload(self):
        self.calls.append("reload")
        if self.deaf:
            return
        if self.delay:
            threading.Timer(self.delay, self.follow).start()
        else:
            self.follow()

    def resume(self):
        self.calls.append("resume")
        if not self.deaf:
            self.follow()

    def require_running(self):
        self.calls.append("require_running")
        if self.missing:
            raise EngineError("fakemail is not installed; install it")
        if self.broken:
            raise BrokenConfigurationError(f"fakemail cannot read its settings: {self.broken}; correct them")
        if self.stopped:
            raise NotRunningError("fakemail does not run; start it")

    def main_process(self):
        return os.getpid()

    def version(self):
        return "1.2.3"

    def files(self):
        return [str(self.config)]

    def left(self):
        return self.leftovers

    def sessions_an_hour(self):
        return 120.0

    def observe(self):
        self.calls.append("observe")
        inbound = self.settings["inbound"]
        tls = {"disabled": "none"}.get(inbound, inbound)
        served = () if inbound == "disabled" else (str(self.certificate),)
        transport = Transport("relay", "smtp", None, None, self.settings["outbound"])
        return {
            "listeners": [Listener("smtp", self.port.host, self.port.port, tls, served).to_json()],
            "transports": [transport.to_json()],
            "other_places": self.other_places,
        }

    def plan(self, desired):
        now = self.settings
        inbound, outbound = desired.inbound or now["inbound"], desired.outbound or now["outbound"]
        text = self.text(inbound, outbound)
        status = self.config.stat()
        image = FileImage(str(self.config), text.encode(), status.st_mode & 0o777, status.st_uid, status.st_gid)
        return Change.of([image])

    def state(self):
        return {one: self.settings[one] for one in ("inbound", "outbound")}

    def next_hops(self):
        return self.hops

    def stripped(self, _images, certificate):
        text = self.config.read_text()
        return [FileImage.read(str(self.config))] if certificate not in text else [self._without(text, certificate)]

    def _without(self, text, certificate):
        kept = [line for line in text.splitlines(keepends=True) if certificate not in line]
        return replace(FileImage.read(str(self.config)), content="".join(kept).encode())

    def generated(self):
        return ()

    # What the tests do with it

    def desired(self, inbound=None, outbound=None, **more):
        return Desired(
            inbound,
            outbound,
            **{"certificate": str(self.certificate), "own_port": Target(self.port.host, self.port.port), **more},
        )

    def renewal(self, issued, **more):
        """The file that installs another certificate, as the controller sends it for a change."""
        content = (issued.key_pem + issued.fullchain_pem).decode()
        prints = tuple(fingerprint(block.der) for block in certificates(split(content)))
        digest = hashlib.sha256(content.encode()).hexdigest()
        made = {"content": content, "sha256": digest, "fingerprints": prints, **more}
        return BundleFile(str(self.certificate), owner=str(os.getuid()), group=str(os.getgid()), **made)

    def set(self, inbound=None, outbound=None, *, settings=PATIENT, check_mode=False, digests=None, **more):
        desired = self.desired(inbound, outbound, **more)
        return set_starttls(self, desired, settings, check_mode, str(self.store), digests)

    def read(self, inbound=None, outbound=None, *, settings=PATIENT, targets=(), **more):
        reading = Reading(self, self.desired(inbound, outbound, **more), settings, str(self.store))
        return reading.read([Path(sys.executable).resolve().name], targets)
