# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The delivery modes on a gateway that runs Haraka: two lists of recipient domains in config/tls.ini.

Haraka routes mail itself (MX, relay_dest_domains.ini), and both lists contain recipient domains. So the servers of an
email config are used for the handshake tests only. Mail for a domain in force_tls_hosts[] waits until the server offers
TLS with a certificate that node trusts and that covers the server's name. This list overrides no_tls_hosts[] and the
hosts that [redis] stores as broken. Haraka logs that it reloaded tls.ini, but a worker process reads the lists only once,
at its first delivery. `haraka --graceful` replaces the workers, but their deferred mail then waits until the next start
of Haraka. If a signal ends a worker, the main process takes over its mail. So the adapter ends one worker after the
other by a signal, if possible while the worker has no SMTP connection. Sources: outbound/hmail.js, outbound/tls.js,
outbound/queue.js, server.js of Haraka 3.3.4 and its haraka-config 1.7, and the lab.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import signal
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, PathTrust, entered
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import Answers, Fault
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    EmailConfig,
    GatewayState,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.own_port import prove_answer, require_answer
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import change_with_record, load_file
from ansible_collections.mailfleet.starttls.plugins.module_utils._haraka import queue
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import sockets
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import (
    Process,
    process_of,
    send_signal,
    start_ticks,
    started,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.units import start_again, unit_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Settings,
    Target,
    is_address,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_one
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

PROC = "/proc"
START_SECONDS = 60.0  # a worker takes a second to start, more on a busy machine
RECORD = "mailfleet-starttls.json"
NOTE = f"; Entries of mailfleet.starttls, listed in {RECORD}:"
LISTS = {"plaintext": "no_tls_hosts", "required": "force_tls_hosts"}
"""Delivery mode -> the list in [outbound] of tls.ini for its domains. Domains with opportunistic are in neither list."""

_UNAWARE = "its outbound side chooses by recipient domain and does not know how a message arrived"
# Queue plugins that deliver mail themselves and ignore [outbound] of tls.ini. The value is the default of enable_outbound
# in the plugin's own file: whether the plugin also handles relayed mail.
_FORWARDERS = {"smtp_forward": False, "smtp_proxy": True, "qmail-queue": True}

# The patterns of haraka-config for .ini files. JavaScript counts a byte order mark as white space.
_SPACE = r"[\s\ufeff]"
_SECTION = re.compile(rf"{_SPACE}*\[([^\]]*)\]{_SPACE}*\Z")
_BLANKS = " \t\n\v\f\r\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
_PARAMETER = re.compile(rf"([A-Za-z0-9_@:.+\-/\[\]]+){_SPACE}*(?:=(.*))?\Z")  # of a line without blanks around it
_SKIPPED = re.compile(rf"{_SPACE}*(?:[;#].*)?\Z")
_CONTINUED = re.compile(r"\\[ \t]*\Z")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?\Z")
_TRUTH = re.compile(r"(?:true|yes|ok|enabled|on|1)\Z", re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")

_TAKEN = re.compile(r'"action"\s*:\s*"accept"')  # in an entry of relay_dest_domains.ini

IniValue = Union[None, str, float, list[Any]]


@dataclass(frozen=True)
class Ini:
    """The values that Haraka reads from an .ini file."""

    sections: Mapping[str, Mapping[str, IniValue]]

    @classmethod
    def parse(cls, text: str) -> Ini:
        """Read the text like haraka-config: a[]= is a list entry, a number is not a text, a later value replaces an earlier one."""
        sections: dict[str, dict[str, IniValue]] = {"main": {}}
        section = sections["main"]
        pending = ""
        for line in re.split(r"\r\n|\r|\n", text):
            if _SKIPPED.match(line):
                continue
            if header := _SECTION.match(line):
                section = sections.setdefault(header[1].strip(), {})
            elif _CONTINUED.search(line):
                pending += _CONTINUED.sub("", line)
            else:
                _assign(section, pending + line)
                pending = ""
        return cls(sections)

    def is_true(self, section: str, key: str, default: bool = False) -> bool:
        """Whether Haraka reads a value as true. default: the result without the value."""
        values = self.sections.get(section, {})
        return bool(_TRUTH.match(_text(values[key]))) if key in values else default

    def hosts(self, key: str) -> list[str]:
        """Return the entries of a list in [outbound]. Without force_tls_hosts there, Haraka uses the one in [main]."""
        value = self.sections.get("outbound", {}).get(key)
        if value is None and key == "force_tls_hosts":
            value = self.sections["main"].get(key)
        return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]


def _assign(section: dict[str, IniValue], line: str) -> None:
    match = _PARAMETER.match(line.strip(_BLANKS))
    if not match:
        return
    key, given = match[1], None if match[2] is None else match[2].strip(_BLANKS)
    value: IniValue = float(given) if given and _NUMBER.match(given) else given
    if not key.endswith("[]") or key == "[]":
        section[key] = value
        return
    held = section.get(key[:-2])
    if not isinstance(held, list):
        held = section[key[:-2]] = []
    held.append(value)


def _text(value: IniValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class HarakaGateway:
    """Adapter for a gateway that is this host's Haraka, started with -c config_dir."""

    name = "haraka"  # of the lock and the journal
    title = "Haraka"
    modes: Sequence[str] = ("plaintext", "opportunistic", "required")
    reads_files_unasked = True  # a worker that has not delivered anything yet
    keeps_names = True
    softens_refusals = False
    limits: Mapping[str, str] = {
        "match_sender": _UNAWARE,
        "match_sender_strict": _UNAWARE,
        "enforced": (
            "it has no setting that refuses mail by sender domain, and for a recipient domain no certificate check "
            "other than the one of the delivery mode required"
        ),
        "outbound": (
            "its one switch, enable_tls in outbound.ini, applies to all mail in both directions; for single domains, set "
            "their delivery mode"
        ),
    }

    def __init__(self, run: Runner, settings: Settings, own_port: Target, config_dir: str) -> None:
        """Prepare only. own_port: the port for mail from the internet. config_dir: Haraka's option -c, the parent of config/."""
        self._run = run
        self._settings = settings
        self.own_port: Optional[Target] = own_port
        self._port = own_port
        self._home = os.path.realpath(config_dir)
        self._config = f"{config_dir.rstrip('/')}/config"
        self._tls_ini = f"{self._config}/tls.ini"
        self._record = f"{self._config}/{RECORD}"

    @property
    def verifying_modes(self) -> Sequence[str]:
        """The modes that use TLS: with rejectUnauthorized, Haraka checks the certificate wherever it uses TLS."""
        ini = self._ini("tls.ini")
        inherited = ini.is_true("main", "rejectUnauthorized")
        verifies = ini.is_true("outbound", "rejectUnauthorized", inherited)
        return ("opportunistic", "required") if verifies else ("required",)

    def transaction(self, store: str) -> Transaction:
        """Return the transaction on the files in config_dir."""
        return Transaction(self, store)

    def require_running(self) -> None:
        """Raise EngineError unless Haraka runs with workers: without workers only a restart makes it read its lists."""
        if not Path(self._config).is_dir():
            raise EngineError(
                f"there is no directory {self._config}; config_dir has to be the directory of Haraka's option -c"
            )
        if not self._workers():
            raise EngineError(
                f"no worker process of a Haraka started with -c {self._home} serves {self._port} on this host. "
                "Start it, or correct config_dir or the gateway's own port; if smtp.ini says nodes=0, give it a number of "
                "workers and restart Haraka, because a Haraka without workers reads new TLS settings at a restart only"
            )
        require_answer(self._port, self._settings)

    def read(self, wanted: Sequence[Mapping[str, Any]] = ()) -> GatewayState:
        """Return the state that the record in config_dir holds."""
        return load_file(self._record, self._trust())

    def prepare(self, state: GatewayState) -> Change:
        """Return an empty change."""
        return Change((), ())

    def plan(self, state: GatewayState) -> Change:
        """Return the change of tls.ini and of the record to this state. Raises EngineError."""
        held = self.read()
        if not state.email_configs and not held.email_configs:
            return Change((), ())
        image = self._image(self._tls_ini)
        text = (image.content or b"").decode("utf-8", "surrogateescape")
        rest = without_entries(text, _entries(held))
        new = with_entries(rest, _entries(state))
        self._refuse_contradictions(state, Ini.parse(rest))
        self._require(rest, new, state)
        for config in state.email_configs.values():
            if held.email_configs.get(config.name) != config:
                self._refuse_in_vain(config, Ini.parse(new))
        images = []
        if new or image.content is not None:
            images.append(replace(image, content=new.encode("utf-8", "surrogateescape")))
        return change_with_record(images, self._image(self._record), state)

    def check(self) -> None:
        """Raise EngineError if Haraka would misread the new tls.ini. Haraka has no check of its own."""
        text = self._text("tls.ini")
        self._require(text, text, self.read())

    def reload(self) -> None:
        """Replace one worker after the other. The new worker takes over the deferred mail of the former one."""
        old = self._workers()
        for pid in old:
            deadline = time.monotonic() + self._settings.timeout
            while self._talks(pid) and time.monotonic() < deadline:
                time.sleep(0.1)
            known = set(self._workers())
            with contextlib.suppress(ProcessLookupError):
                send_signal(pid, signal.SIGTERM, lambda process: self._is_worker(process, self._masters()))
            self._await_replacement(pid, known)

    def resume(self) -> None:
        """Replace the workers again after the former files came back."""
        self.reload()

    def service(self) -> str:
        """Return the unit of systemd that Haraka runs in; empty if that cannot be told."""
        return next(filter(None, (unit_of(process.pid) for process in self._masters())), "")

    def has_ended(self) -> bool:
        """Whether nothing listens on the port, as far as this host shows its sockets."""
        found = sockets.listening((), (self._port.port,), PROC)
        return found is not None and not any(one.port == self._port.port for one in found)

    def start(self, service: str) -> None:
        """Start Haraka, unless somebody has stopped it. Raises NotRunningError and EngineError."""
        start_again(self._run, service, "Haraka")

    def serves(self) -> bool:
        """Return whether the port answers and no worker is older than tls.ini."""
        return not self._outdated() and handshake_one(self._port, self._settings).stage >= Stage.EHLO

    def prove(self) -> None:
        """Raise EngineError unless the port answers and every worker was started after tls.ini was written."""
        prove_answer(self._port, self._settings, self.has_ended)
        if not self._workers():
            raise EngineError("no worker process of Haraka runs; see what its log says")
        if old := self._outdated():
            raise EngineError(
                f"the Haraka workers {', '.join(map(str, old))} are older than {self._tls_ini}, so they do not use it"
            )

    def next_hops(self, domain: str, state: GatewayState) -> Sequence[Target]:
        """Return the servers of the email config. Haraka's own routing cannot be read."""
        owner = state.owner_of(domain)
        return owner.servers if owner else ()

    def roots(self, state: GatewayState) -> str:
        """Return an empty path: node has its own list, similar to the system's, and NODE_EXTRA_CA_CERTS adds roots to it."""
        return ""

    def accepts(self, domains: Sequence[str]) -> Mapping[str, Optional[bool]]:
        """Return true for the domains that Haraka's own plugins take. None for the others: any other plugin may take them."""
        lines = (line.partition("#")[0].strip() for line in self._text("plugins").splitlines())
        plugins = {line.replace("haraka-plugin-", "") for line in lines}
        taken: set[str] = set()
        if "rcpt_to.in_host_list" in plugins:
            taken |= {line.partition("#")[0].strip().lower() for line in self._text("host_list").splitlines()}
        if "relay" in plugins and self._ini("relay.ini").is_true("relay", "dest_domains"):
            listed = self._ini("relay_dest_domains.ini").sections.get("domains", {})
            taken |= {name.lower() for name, value in listed.items() if _TAKEN.search(_text(value))}
        return {one: True if one in taken else None for one in domains}

    def delivers(self, domains: Sequence[str]) -> Mapping[str, Optional[str]]:
        """Return the mode that Haraka's files give each domain; None while a worker is older than tls.ini, or a plugin delivers."""
        if not domains or self._outdated():
            return dict.fromkeys(domains)
        ini = self._ini("tls.ini")
        plaintext, required = (set(ini.hosts(LISTS[mode])) for mode in ("plaintext", "required"))
        off = not self._ini("outbound.ini").is_true("main", "enable_tls", True)
        found: dict[str, Optional[str]] = {}
        for one in domains:
            usual = "plaintext" if off or one in plaintext else "required" if one in required else "opportunistic"
            found[one] = None if self._forwarder(one) else usual
        return found

    def in_force(self, state: GatewayState) -> Answers:
        """Return nothing: this gateway has no enforced domains and no outbound side."""
        return {}

    def faults(self, state: GatewayState) -> Sequence[Fault]:
        """Return none: delivers() reads the modes where they are kept."""
        return ()

    def files(self) -> Sequence[str]:
        """Return tls.ini and the record."""
        return [self._tls_ini, self._record]

    def queued(self, domains: Collection[str]) -> Sequence[Waiting]:
        """Return the messages for recipients in these domains, from the files of Haraka's outbound queue."""
        named = self._text("queue_dir").partition("\n")[0].strip()
        directory = str(Path(self._home, named or "queue"))
        with contextlib.suppress(FileNotFoundError):
            owner = Path(directory).stat().st_uid
            return queue.waiting(directory, domains, replace(self._trust(), owners={*self._trust().owners, owner}))
        return ()

    def in_others(self) -> Sequence[Waiting]:
        """Return none: there is one daemon."""
        return ()

    def generated(self) -> Sequence[FileImage]:
        """Return none."""
        return ()

    def own_files(self) -> Sequence[FileImage]:
        """Return the record, if it exists."""
        image = self._image(self._record)
        return [image] if image.content is not None else []

    def stripped(self, images: Mapping[str, FileImage]) -> Sequence[FileImage]:
        """Return tls.ini without our entries."""
        image = images.get(self._tls_ini) or self._image(self._tls_ini)
        text = (image.content or b"").decode("utf-8", "surrogateescape")
        new = without_entries(text, _entries(self.read()))
        if image.content is None or (new == text and self._tls_ini not in images):
            return []
        return [replace(image, content=new.encode("utf-8", "surrogateescape"))]

    def remains(self) -> Sequence[str]:
        """Return none: all of it is files."""
        return ()

    def clear(self) -> None:
        """Do nothing."""

    def relay_hosts(self) -> Sequence[Target]:
        """Return none: Haraka looks up the MX of each domain."""
        return ()

    # Files

    def _text(self, name: str) -> str:
        image = FileImage.read(f"{self._config}/{name}", trust=self._trust())
        return (image.content or b"").decode("utf-8", "surrogateescape")

    def _trust(self) -> PathTrust:
        """Return whom the paths may trust: config_dir may belong to the user whom Haraka runs as.

        This user decides what lies in there. No link of theirs is followed, so that is all they decide.
        """
        owners = set()
        for directory in (self._config.rpartition("/")[0] or "/", self._config):
            with contextlib.suppress(FileNotFoundError), entered(directory, LOOK) as fd:
                owners.add(os.fstat(fd).st_uid)
        return PathTrust(owners=frozenset(owners - {0}), option="config_dir")

    def _image(self, path: str) -> FileImage:
        """Return a file in config/. A file that does not exist has the owner and group of the directory."""
        image = FileImage.read(path, trust=self._trust())
        if image.content is not None:
            return image
        with entered(self._config, image.trust) as fd:
            status = os.fstat(fd)
        return replace(image, uid=status.st_uid, gid=status.st_gid)

    def _ini(self, name: str) -> Ini:
        return Ini.parse(self._text(name))

    def _require(self, rest: str, new: str, state: GatewayState) -> None:
        """Raise EngineError unless Haraka reads both the administrator's entries and ours from the new text."""
        before, after = Ini.parse(rest), Ini.parse(new)
        for key in LISTS.values():
            ours = {domain for listed, domain in _entries(state) if listed == key}
            if lost := (set(before.hosts(key)) | ours) - set(after.hosts(key)):
                raise EngineError(
                    f"{self._tls_ini}: Haraka would not read {', '.join(sorted(lost))} from {key} in [outbound]. Write each "
                    f"entry there as a line {key}[]=..., none as {key}=..., none in another section, and no line above it "
                    "that ends in a backslash; then run again"
                )

    def refuse_one_way(self, state: GatewayState) -> None:
        """Raise EngineError if an entry of the administrator contradicts plaintext, which switching off means."""
        configs = {name: replace(one, delivery_mode="plaintext") for name, one in state.email_configs.items()}
        rest = without_entries(self._text("tls.ini"), _entries(self.read()))
        self._refuse_contradictions(replace(state, email_configs=configs), Ini.parse(rest))

    def _refuse_contradictions(self, state: GatewayState, ini: Ini) -> None:
        """Raise EngineError if an entry of the administrator contradicts the mode of a domain or of its servers."""
        lists = {key: ini.hosts(key) for key in LISTS.values()}
        for config in state.email_configs.values():
            wanted = LISTS.get(config.delivery_mode)
            for key in LISTS.values():
                if key == wanted:
                    continue
                found = [one for one in lists[key] if one in config.domains]
                if config.delivery_mode != "required":  # required overrides the entries of hosts
                    found += [one for one in lists[key] if any(_names(one, server) for server in config.servers)]
                if found:
                    raise EngineError(
                        f"email config {config.name}: {self._tls_ini} has {key}[]={found[0]} in [outbound] or [main], not "
                        f"written by this collection, which contradicts {config.delivery_mode}; remove it or choose "
                        f"another delivery mode"
                    )

    def _refuse_in_vain(self, config: EmailConfig, ini: Ini) -> None:
        """Raise EngineError if another setting than the lists decides the delivery of a changed email config."""
        if config.delivery_mode == "plaintext":  # a change to plaintext is never refused
            return
        where = f"email config {config.name}: {config.delivery_mode} would not be kept"
        for name in ("smtp.json", "smtp.yaml"):
            if "!tls.ini" in self._text(name):
                raise EngineError(
                    f"{where}, because {self._config}/{name} replaces tls.ini (!tls.ini); move it to tls.ini"
                )
        for domain in config.domains:
            if plugin := self._forwarder(domain):
                raise EngineError(
                    f"{where}, because the plugin queue/{plugin} delivers mail for {domain} itself and does not read "
                    f"[outbound] in tls.ini. Let Haraka deliver it: the plugin relay with dest_domains=true in relay.ini "
                    f"and {domain} in relay_dest_domains.ini"
                )
        if not self._ini("outbound.ini").is_true("main", "enable_tls", True):
            raise EngineError(
                f"{where}, because {self._config}/outbound.ini says enable_tls=false, the switch for all mail that Haraka "
                "delivers. Put the domains that shall stay in plaintext into no_tls_hosts[], then remove that line"
            )
        if config.delivery_mode == "opportunistic" and ini.is_true("redis", "disable_for_failed_hosts"):
            raise EngineError(
                f"{where}, because {self._tls_ini} says disable_for_failed_hosts=true in [redis]: after one failure Haraka "
                "delivers to that host in plaintext for days. Remove that line and restart Haraka, or choose required, "
                "which is not affected"
            )

    def _forwarder(self, domain: str) -> str:
        """Return the queue plugin that delivers the mail of a domain instead of Haraka; empty if there is none."""
        lines = (line.partition("#")[0].strip() for line in self._text("plugins").splitlines())
        plugins = {line.replace("haraka-plugin-", "") for line in lines}
        relayed = "relay" in plugins and (
            self._ini("relay.ini").is_true("relay", "all")
            or (
                self._ini("relay.ini").is_true("relay", "dest_domains")
                and domain in self._ini("relay_dest_domains.ini").sections.get("domains", {})
            )
        )
        for plugin, default in _FORWARDERS.items():
            if f"queue/{plugin}" in plugins:
                ini = self._ini(f"{plugin}.ini")
                takes_relayed = ini.is_true("main", "enable_outbound", default)
                if not relayed or ini.is_true(domain, "enable_outbound", takes_relayed):
                    return plugin
        return ""

    # Processes

    def _workers(self) -> list[int]:
        """Return the process IDs of the workers of this Haraka, the oldest first."""
        masters = self._masters()
        found = []
        for entry in Path(PROC).iterdir() if masters else ():
            if entry.name.isdigit():
                process = process_of(int(entry.name), PROC)
                if process and self._is_worker(process, masters):
                    with contextlib.suppress(OSError):  # it may have ended
                        found.append((start_ticks(process.pid, PROC), process.pid))
        return [pid for _ticks, pid in sorted(found)]

    def _masters(self) -> list[Process]:
        """Return the processes that listen on the own port: node's main process holds its socket, and starts the workers."""
        everywhere_or_here = {"", *_addresses(self._port.host)}
        listeners = sockets.listening((), (self._port.port,), PROC) or ()
        pids = {
            one.pid for one in listeners if one.pid and one.port == self._port.port and one.host in everywhere_or_here
        }
        return [process for pid in pids if (process := process_of(pid, PROC))]

    def _is_worker(self, process: Process, masters: Sequence[Process]) -> bool:
        """Whether a process is a worker of this Haraka.

        Every user can start a process whose environment says so. So it also has to be a child of the main process, with the same
        program and user. Workers of a main process of root may have another user (user= in smtp.ini).
        """
        for master in masters:
            if process.parent == master.pid and process.program == master.program:
                return (process.uids == master.uids or 0 in master.uids) and self._calls_itself_worker(process.pid)
        return False

    def _calls_itself_worker(self, pid: int) -> bool:
        try:
            words = Path(PROC, str(pid), "environ").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            return False
        environment = dict(word.partition("=")[::2] for word in words)
        home = environment.get("HARAKA")
        return bool(home) and "NODE_UNIQUE_ID" in environment and os.path.realpath(home or "") == self._home

    def _outdated(self) -> list[int]:
        """Return the workers that may have read the lists before tls.ini was written."""
        try:
            written = Path(self._tls_ini).stat().st_ctime
        except FileNotFoundError:
            return []
        old = []
        for pid in self._workers():
            with contextlib.suppress(OSError):
                if started(pid, PROC) < written:
                    old.append(pid)
        return old

    def _talks(self, pid: int) -> bool:
        """Whether a worker has an SMTP connection: an incoming one, or one to port 25."""
        return any(local == self._port.port or remote == 25 for local, remote in _connections(pid))

    def _await_replacement(self, pid: int, known: Collection[int]) -> None:
        """Wait until the worker has ended and a new one answers on the port. Raises EngineError after START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            workers = self._workers()
            if pid not in workers and self._answering() in set(workers) - set(known):
                return
            if time.monotonic() > deadline:
                raise EngineError(
                    f"Haraka has not replaced its worker {pid} by one that answers on {self._port} within "
                    f"{START_SECONDS:g} s; see what its log says"
                )
            time.sleep(0.1)

    def _answering(self) -> int:
        """Return the process ID of the worker that greets a new connection to the port, 0 if none does."""
        with contextlib.suppress(OSError), socket.create_connection((self._port.host, self._port.port), 5) as wire:
            if wire.recv(1):
                ours = wire.getsockname()[1]
                for pid in reversed(self._workers()):
                    if (self._port.port, ours) in _connections(pid):
                        wire.sendall(b"QUIT\r\n")
                        return pid
        return 0


def _entries(state: GatewayState) -> list[tuple[str, str]]:
    """Return the entries that the state needs, as (list, domain), in a fixed order."""
    return sorted(
        (LISTS[config.delivery_mode], domain)
        for config in state.email_configs.values()
        if config.delivery_mode in LISTS
        for domain in config.domains
    )


def without_entries(text: str, entries: Iterable[tuple[str, str]]) -> str:
    """Return tls.ini without our note and the entries below it. All other lines stay the same.

    If somebody has removed the note, one matching line of [outbound] is removed for each entry.
    """
    lines = _LINE.findall(text)
    bare = [line.rstrip("\r\n") for line in lines]
    ours = [f"{key}[]={domain}" for key, domain in entries]
    noted = NOTE in bare
    drop = set()
    below_note = False
    section = "main"
    for number, line in enumerate(bare):
        if header := _SECTION.match(line):
            section = header[1].strip()
        if line == NOTE:
            below_note = True
        elif line in ours and (below_note if noted else section == "outbound"):
            ours.remove(line)
        else:
            below_note = False
            continue
        drop.add(number)
    return "".join(line for number, line in enumerate(lines) if number not in drop)


def with_entries(text: str, entries: Sequence[tuple[str, str]]) -> str:
    """Return tls.ini with our entries directly below the last header [outbound]. All other lines stay the same."""
    if not entries:
        return text
    lines: list[str] = _LINE.findall(text)
    eol = "\r\n" if "\r\n" in text else "\n"
    headers = [
        number
        for number, line in enumerate(lines)
        if (match := _SECTION.match(line.rstrip("\r\n"))) and match[1].strip() == "outbound"
    ]
    if lines and not lines[-1].endswith(("\r", "\n")):
        lines[-1] += eol
    if not headers:
        lines.append(f"[outbound]{eol}")
        headers = [len(lines) - 1]
    ours = [f"{NOTE}{eol}", *(f"{key}[]={domain}{eol}" for key, domain in entries)]
    lines[headers[-1] + 1 : headers[-1] + 1] = ours
    return "".join(lines)


def _names(entry: str, server: Target) -> bool:
    """Whether an entry of a list matches the server: by its name, its address or a network."""
    if entry == server.host:
        return True
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return any(ipaddress.ip_address(address) in network for address in _addresses(server.host))


def _addresses(host: str) -> Iterator[str]:
    if is_address(host):
        yield host.partition("%")[0]
        return
    with contextlib.suppress(OSError, UnicodeError):
        for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
            yield str(found[4][0]).partition("%")[0]


def _connections(pid: int) -> list[tuple[int, int]]:
    """Return the local and remote port of each established TCP connection of a process."""
    found = []
    with contextlib.suppress(OSError):
        held = set()
        for descriptor in Path(PROC, str(pid), "fd").iterdir():
            with contextlib.suppress(OSError):  # it may be closed by now
                held.add(str(descriptor.readlink()))
        for table in ("tcp", "tcp6"):
            for line in Path(PROC, str(pid), "net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "01" and f"socket:[{fields[9]}]" in held:
                    found.append((int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16)))
    return found
