# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""STARTTLS on Postfix. Sources: postconf(5), TLS_README. Needs Postfix 3.4 (smtpd_tls_chain_files)."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import installed_at
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Was
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_rate import sessions_an_hour
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import port_number
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.units import not_running, start_again, unit_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import by_port, former, protocols
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Edits, Postconf, Service
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log_places import LOG_PARAMETERS, log_places
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.master import running, runs
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.observe import Configuration, observe
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import (
    SECOND,
    THIRD,
    OwnPaths,
    with_programs,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.pending import (
    blocked,
    not_read_yet,
    refuse_blocked,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.reach import OURS, Reach, loopback_only
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import FLOORS, Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import PEER_TRANSPORT
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import TLS_ORDER, Permits, older_than
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import Sides, is_loopback
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import (
    BrokenConfigurationError,
    EngineError,
)

DEFAULT_UNIT = "postfix@-.service"
"""What the default instance runs in on Debian 12, where C(postfix.service) starts it and the others."""

POLICY = "/usr/local/lib/mailfleet-starttls/arrival_policy.py"
POLICY_USER = "mailfleet-starttls"
"""The system user that runs the policy service, and nothing else."""

# Patterns of what is left on a host with Postfix, besides OwnPaths, lines in main.cf and master.cf, and the certificate.
_LEFT = (
    *(f"{place}/{name}" for name in (SECOND, THIRD) for place in ("/var/spool", "/var/lib")),
    *(
        f"/etc/systemd/system/{place}postfix@*{name}.service{more}"
        for name in ("mailfleet", "mailfleet_enforced")
        for place, more in (("*.wants/", ""), ("", ""), ("", ".d/mailfleet.conf"))
    ),
    POLICY,
    "/var/lib/mailfleet-starttls/postfix.*",
)
USUAL_QUEUE = "/var/spool/postfix"
"""The queue directory of an instance that names no other one."""
INBOUND_LEVEL = {"disabled": "none", "offered": "may", "required": "encrypt"}
OUTBOUND_LEVEL = {"disabled": "none", "opportunistic": "may", "required": "encrypt"}
# What satisfies an outbound level: a stronger one of the same kind is the administrator's and stays.
OUTBOUND_KIND = {
    "": "disabled",
    "none": "disabled",
    "may": "opportunistic",
    "dane": "opportunistic",
    "encrypt": "required",
    "dane-only": "required",
    "fingerprint": "required",
    "verify": "required",
    "secure": "required",
}
_SESSION = re.compile(r"/(?:smtpd\[\d+\]: connect from|postscreen\[\d+\]: CONNECT from) ")
_TLS_WORDS = re.compile(
    r"/(?:smtpd|tlsproxy)\[\d+\]: warning: ((?:error opening|error loading|cannot get|cannot load|key at index|private key) .*)"
)
INBOUND_KIND = {"": "disabled", "none": "disabled", "may": "offered", "encrypt": "required"}
# The settings of main.cf that a change sets, and that go back when TLS is switched off.
_INBOUND = (
    "smtpd_tls_security_level",
    "smtpd_tls_chain_files",
    "smtpd_tls_received_header",
    "smtpd_tls_loglevel",
    *former.SUPERSEDED,
    *protocols.RECEIVING_LISTS,
)
_OUTBOUND = ("smtp_tls_security_level", "smtp_tls_loglevel", *protocols.SENDING_LISTS)
_AGREED = (
    rb"(?:Anonymous|Trusted|Untrusted|Verified) TLS connection (?:established|reused) %s "
    rb"(?P<peer>[A-Za-z0-9._-]{0,255}\[[0-9A-Fa-f.:]{2,45}\])"
    rb"(?::\d{1,5})?(?: to [^ :]{1,255})?: (?P<version>(?:TLS|SSL)v[\d.]{1,4}) "
)
_HOP = re.compile(r"\[([^\]\s]{1,255})\](?::(\d{1,5}))?")
POSTFIX_SESSIONS = {
    "inbound": re.compile(rb"/(?:smtpd|tlsproxy)\[\d{1,9}\]: " + _AGREED % rb"from"),
    "outbound": re.compile(rb"/(?:smtp|tlsproxy)\[\d{1,9}\]: (?:\w{1,30}: )?" + _AGREED % rb"to"),
}
"""A line that tells a session's peer and TLS version. Postfix writes it from tls_loglevel 1 on."""


class Postfix:
    """Adapter for the default Postfix instance of this host."""

    name = "postfix"
    reads_files_unasked = True
    serves_by_port = True
    plaintext_at_once = False  # it waits for minimal_backoff_time: smtp/smtp.h

    def __init__(self, run: Runner, port: int = 25, layout: Layout = DEBIAN) -> None:
        """run starts a program from an argument list; port is the listener whose settings count."""
        self._run = with_programs(run, layout)
        self._port = str(port)
        self._layout = layout
        self._at = OwnPaths(layout.config_dir)
        self.postconf = Postconf(self._run, layout.config_dir)

    def transaction(self, store: str) -> Transaction:
        """Return the transaction on the files of the default instance. store: the directory of locks and journals."""
        return Transaction(self, store)

    def require_running(self) -> None:
        """Raise EngineError unless Postfix 3.4 or newer is installed and its default instance runs.

        NotRunningError if it does not run, BrokenConfigurationError if it cannot read its files, PortInUseError if its next
        reload would end it.
        """
        try:
            values = self.postconf.values("smtpd_tls_chain_files", "queue_directory")
        except FileNotFoundError:
            raise EngineError(
                "Postfix is not installed on this host (the command postconf is not there); install it first"
            ) from None
        if "smtpd_tls_chain_files" not in values:
            raise EngineError("this Postfix is older than 3.4 and cannot take key and chain from one file")
        if not runs(self._queue_directory()):
            self._require_sound()
            raise not_running("Postfix", (self._layout.unit, DEFAULT_UNIT))
        if edited := not_read_yet(self.postconf.config_dir, self.main_process()):
            try:
                check_instance(self._run, self.postconf)
            except EngineError as error:
                raise BrokenConfigurationError(
                    f"{' and '.join(edited)} changed, the running Postfix has not read that yet, and {error}; correct that first"
                ) from error
        if master := self.main_process():
            refuse_blocked(self.postconf, master)

    def _require_sound(self) -> None:
        """Raise BrokenConfigurationError if Postfix refuses its configuration, so that it could not be started either."""
        if said := _complaint(self._run, self.postconf):
            raise BrokenConfigurationError(
                f"Postfix refuses its own configuration in {self.postconf.config_dir}: {said}"
            )

    def _queue_directory(self) -> str:
        queue = self.postconf.values("queue_directory").get("queue_directory", "")
        return self.postconf.value_expanded("queue_directory") if "$" in queue else queue

    def main_process(self) -> Optional[int]:
        """Return the process of this instance's master; None if it does not run. Another instance has another master.

        Raises BrokenConfigurationError if its configuration cannot be read, and so not told where it keeps its process.
        """
        try:
            return running(self._queue_directory())
        except BrokenConfigurationError:
            if not self._has_usual_queue():
                raise
            return running(USUAL_QUEUE)
        except OSError:
            return None

    def _has_usual_queue(self) -> bool:
        """Whether main.cf, which postconf cannot read, names no other queue directory."""
        try:
            text = Path(self.postconf.config_dir, "main.cf").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return not any("queue_directory" in line for line in text.splitlines() if not line.startswith("#"))

    def version(self) -> str:
        """Return the version of Postfix, for example C(3.7.11)."""
        return self.postconf.values("mail_version").get("mail_version", "")

    def sessions_an_hour(self) -> Optional[float]:
        """Return how many sessions an hour smtpd and postscreen had; None if the log does not tell it."""
        return sessions_an_hour(self._log().patterns, _SESSION)

    def _log(self) -> LogPlaces:
        """Where this instance logs to."""
        values: Mapping[str, str] = {}
        with contextlib.suppress(EngineError):  # a broken configuration: then it is where the platform's package has it
            values = self.postconf.values(*LOG_PARAMETERS)
            if any("$" in value for value in values.values()):
                values = self.postconf.expanded(*LOG_PARAMETERS)
        return log_places({self.postconf.config_dir: values}, self._layout.logs)

    def tls_words(self) -> str:
        """Return why smtpd could not load key and certificate; empty if the end of the log has nothing of it."""
        from ansible_collections.mailfleet.starttls.plugins.module_utils._host.recent_log import (  # noqa: PLC0415
            last_words,  # a change does not need it
        )

        return last_words(self._run, self._log(), _TLS_WORDS)

    def files(self) -> tuple[str, ...]:
        """Return the configuration files that plan() depends on."""
        return tuple(f"{self.postconf.config_dir}/{name}" for name in ("main.cf", "master.cf"))

    def left(self) -> list[str]:
        """Return the files and directories that the collection left on this host for Postfix."""
        at = self._at
        own = (at.directory, at.peer_directory, at.second_dir, at.third_dir, self._layout.certificate)
        found = {path for pattern in (*_LEFT, *own) for path in Path("/").glob(pattern[1:])}
        return sorted(map(str, found))

    def observe(self) -> Mapping[str, Any]:
        """Return C(listeners) and C(transports) as plain data. Raises EngineError if postconf cannot read the configuration."""
        edited = not_read_yet(self.postconf.config_dir, self.main_process())
        return {**observe(self.postconf), "not_read_yet": edited}

    def has_peers(self) -> bool:
        """Return whether master.cf has a transport of a peer."""
        return any(one.name.startswith(PEER_TRANSPORT) for one in self.postconf.services())

    def state(self) -> dict[str, str]:
        """Return the TLS levels of the listener and of the client C(smtp), with the values of Desired or C(custom)."""
        configuration = Configuration(self.postconf)
        known = [(service, name) for service, name in self._places() if name in configuration.main]
        inbound = {
            INBOUND_KIND.get(configuration.level(service, name.partition("_")[0]), "custom")
            for service, name in known or [("", "smtpd_")]
        }
        return {
            "inbound": inbound.pop() if len(inbound) == 1 else "custom",
            "outbound": OUTBOUND_KIND.get(configuration.level(former.CLIENT, "smtp"), "custom"),
        }

    def sides(self, change: Any = None) -> Sides:
        """Return all listeners and ways of outgoing mail, as they are or as the change leaves them. Raises EngineError."""
        texts = {} if change is None else {image.path: image.content or b"" for image in change.after}
        with self._as_after(texts) as reach:
            return reach.sides()

    @contextlib.contextmanager
    def _as_after(self, texts: Mapping[str, bytes]) -> Iterator[Reach]:
        """Yield the reach of the configuration with these texts in the place of its own files; of the present one without any."""
        texts = {path: text for path, text in texts.items() if path in self.files()}
        if not texts:
            yield Reach(self._run, self.postconf, Configuration(self.postconf), OUTBOUND_KIND)
            return
        with self.postconf.staged(texts) as staged:
            configuration = Configuration(staged)
            configuration.stands_for(staged.config_dir, self.postconf.config_dir)
            yield Reach(self._run, staged, configuration, OUTBOUND_KIND)

    def _places(self) -> list[tuple[str, str]]:
        return former.places(self.postconf.services(), self.is_listener)

    def plan(self, desired: Desired) -> Change:
        """Return the edits of main.cf and master.cf. Raises EngineError if master.cf overrides them for the listener or the client.

        C(disabled) puts back the settings as they were, and makes an exception in master.cf for the listener or the client that
        would use TLS with them. So every other service is as it was before.
        """
        off = {"in": desired.inbound == "disabled", "out": desired.outbound == "disabled"}
        floors = self._floors(desired)
        names = (*(_INBOUND if off["in"] else ()), *(_OUTBOUND if off["out"] else ()), *floors)
        places = self._places() if desired.inbound is not None else []
        places += [(former.CLIENT, "smtp_tls_security_level")] if desired.outbound is not None else []
        ports = by_port.set_by_port(self._of_others(), desired) if desired.offers else {}
        # Where TLS is only relaxed, nobody says which ports have certificates of their own.
        gone = by_port.no_longer_set(self._of_others(), ports) if desired.offers and not desired.only_relax else []
        options = [*dict.fromkeys([*places, *self._exempted(desired), *gone])]
        back = former.former(self.postconf, self._was(desired, names), names, options)
        if gone:
            again = by_port.kept_again(self.postconf.services(), back.options, self._main_before(desired))
            back = back._replace(options={**back.options, **again})
        wanted = {**self._wanted(desired, back.options), **self._to_the_floor(floors, back.main)}
        now = {**self.postconf.values(*wanted), **self.postconf.explicit()}
        main = {name: value for name, value in back.main.items() if name not in wanted}
        main.update({name: value for name, value in wanted.items() if now.get(name) != value})
        kept = self.exemptions(main, back.options, by_port.services_of(ports))
        edits = Edits(main, options=self._differing({**back.options, **kept, **ports}))
        images = self.postconf.images(edits)
        if any(off.values()):
            more = former.exceptions(self.postconf, images, self.is_listener, off["in"], off["out"])
            edits = replace(edits, options={**edits.options, **more})
            # The present options may say so already: then nothing is edited, so that the file keeps its layout.
            edits = replace(edits, options=self._differing(edits.options))
            images = self.postconf.images(edits)
        if not edits.main and not edits.options:
            return Change((), ())
        return Change.of(former.alike(self.postconf, images, desired.was))

    @staticmethod
    def _floors(desired: Desired) -> dict[str, str]:
        """Return the settings of main.cf that hold a floor, each with that floor."""
        sides = (("inbound", protocols.RECEIVING_LISTS), ("outbound", protocols.SENDING_LISTS))
        return {
            name: desired.floor_in(direction)
            for direction, names in sides
            for name in names
            if desired.floor_in(direction)
        }

    def _to_the_floor(self, floors: Mapping[str, str], back: Mapping[str, Optional[str]]) -> dict[str, str]:
        """Return the settings that raise TLS versions to a floor. What is as strict without the collection stays.

        back: what goes back to what it was. Raises EngineError for a setting that cannot be told, and for one of master.cf that is looser.
        """
        found = {}
        own = {*(service for service, _name in self._places()), former.CLIENT}
        version = self.version()
        for name, wanted in floors.items():
            if wanted not in FLOORS:
                continue
            for service, value in self.postconf.overrides(name).items():
                at = protocols.oldest(value)
                if service in own and (at is None or at in older_than(wanted)):
                    raise EngineError(
                        f"master.cf sets {name}={value}, which overrides main.cf for {service} and permits "
                        f"{at or 'what cannot be told'}, and starttls_min_tls is {wanted}; remove it first: "
                        f"postconf -PX '{service}/{name}'"
                    )
            present = back[name] if name in back else self.postconf.explicit_expanded().get(name)
            at = protocols.oldest(present) if present is not None else TLS_ORDER[0]
            if at is None:
                raise EngineError(
                    f"{name} is '{present}', and it cannot be told which TLS versions that permits, so starttls_min_tls is not set; write "
                    f"'{protocols.spelled(version, wanted)}' there, or take it out: postconf -X {name}"
                )
            if at in older_than(wanted):
                found[name] = protocols.spelled(version, wanted)
        return found

    def permits(self, floor: str, change: Any = None) -> Permits:
        """Return which TLS versions its listeners and transports permit, as they are or as the change leaves them."""
        texts = {} if change is None else {image.path: image.content or b"" for image in change.after}
        with self._as_after(texts) as reach:
            return protocols.permits(reach.configuration, reach.entries, protocols.spelled(self.version(), floor))

    def peer_hops(self) -> list[tuple[Target, bool]]:
        """Return the next hops of the peers' transports that use TLS, and whether TLS is required there."""
        configuration = Configuration(self.postconf)
        main = self.postconf.values("default_transport", "relayhost", "transport_maps")
        routes = [main.get("default_transport", "")]
        if f"texthash:{self._at.peer_table}" in main.get("transport_maps", ""):
            routes += peer_routes(self._at.peer_table).values()
        found = {}
        for route in routes:
            transport, _, hops = route.partition(":")
            level = configuration.level(f"{transport}/unix", "smtp")
            if transport.startswith(PEER_TRANSPORT) and level != "none":
                for host, port in _HOP.findall(hops or main.get("relayhost", "")):
                    found[Target(host, int(port or 25))] = level != "may"
        return list(found.items())

    def log_of_versions(self) -> tuple[LogPlaces, Mapping[str, re.Pattern[bytes]]]:
        """Return the places of the log, and the patterns of the lines that tell a session's TLS version."""
        return self._log(), POSTFIX_SESSIONS

    def _exempted(self, desired: Desired) -> list[tuple[str, str]]:
        """Return the options that may be exemptions of an earlier change, and that the wanted state has no use for."""
        services = self._of_others()
        less = desired.outbound not in (None, "required")
        found = former.exempted(services, desired.inbound == "disabled", less)
        if desired.inbound == "offered":  # a certificate of its own is kept as long as the port has another one
            found += [(one.name, "smtpd_tls_security_level") for one in services if self._is_inner(one)]
        return found

    def _of_others(self) -> list[Service]:
        """Return the services that are not ours. An older version gave its own other levels."""
        return [
            one
            for one in self.postconf.services()
            if not one.name.startswith(OURS) and one.settings.get(former.CHAIN) != self._at.pair
        ]

    def exempted_before(self, was: Mapping[str, Was]) -> dict[str, Optional[str]]:
        """Return the options of master.cf that take back what exemptions() wrote when outgoing mail began to require TLS."""
        options = former.exempted(self._of_others(), inbound=False, outbound=True)
        return former.former(self.postconf, was, (), options).options

    def _is_inner(self, service: Service) -> bool:
        """Whether a service receives mail on the loopback, and is not the listener to configure."""
        host = service.name.rpartition("/")[0].rpartition(":")[0].strip("[]")
        return service.command == "smtpd" and is_loopback(host) and not self.is_listener(service.name)

    def exemptions(
        self,
        main: Mapping[str, Optional[str]],
        options: Mapping[str, Optional[str]] = MappingProxyType({}),
        others: Collection[str] = (),
    ) -> dict[str, Optional[str]]:
        """Return the options of master.cf with which other services stay as they are although main.cf changes.

        A listener with a certificate of its own keeps it; one on the loopback does not begin to require TLS, and neither does a
        transport that carries mail to hops on this host only. main, options: the edits that reach them. others: the services that get
        other certificates by the same change.
        """
        found: dict[str, Optional[str]] = {}
        if not any(main.get(name) for name in (former.CHAIN, "smtpd_tls_security_level", "smtp_tls_security_level")):
            return found
        now = Configuration(self.postconf)
        explicit = self.postconf.explicit()
        services = self.postconf.services()
        if main.get(former.CHAIN) and not explicit.get(former.CHAIN):
            rest = [one for one in services if one.name not in others]
            found.update(former.certificates_of_their_own(rest, explicit, self.is_listener))
        if main.get("smtpd_tls_security_level") == INBOUND_LEVEL["required"]:
            for one in services:
                if self._is_inner(one) and "smtpd_tls_security_level" not in one.settings:
                    found[f"{one.name}/smtpd_tls_security_level"] = now.level(one.name, "smtpd")
        if OUTBOUND_KIND.get(main.get("smtp_tls_security_level") or "") == "required":
            images = self.postconf.images(Edits(main, options=self._differing(options)))
            with self._as_after({image.path: image.content or b"" for image in images}) as reach:
                for way in loopback_only(reach.ways()):
                    service = f"{way.transport}/unix"
                    if "smtp_tls_security_level" not in way.overrides and now.commands.get(service) == "smtp":
                        found[f"{service}/smtp_tls_security_level"] = now.level(service, "smtp")
        return found

    def _was(self, desired: Desired, names: Collection[str]) -> dict[str, Was]:
        """Return what is known of the files that matter: of main.cf only if its settings go back."""
        main, master = self.files()
        return {path: desired.was[path] for path in (main, master) if path in desired.was and (names or path == master)}

    def _main_before(self, desired: Desired) -> dict[str, str]:
        """Return the settings of main.cf without the collection; none if that is not known."""
        main, _master = self.files()
        if main not in desired.was:
            return {}
        with self.postconf.staged({main: desired.was[main].without}) as staged:
            return staged.explicit()

    def _differing(self, options: Mapping[str, Optional[str]]) -> dict[str, Optional[str]]:
        services = {one.name: one.settings for one in self.postconf.services()}

        def value(key: str) -> Optional[str]:
            service, _, name = key.rpartition("/")
            return services.get(service, {}).get(name)

        return {key: wanted for key, wanted in options.items() if value(key) != wanted}

    def _wanted(self, desired: Desired, options: Mapping[str, Optional[str]]) -> dict[str, str]:
        """Return the settings of main.cf that switch TLS on. options: those of master.cf that the change takes back."""
        wanted: dict[str, str] = {}
        now = self.postconf.values("smtpd_tls_loglevel", "smtp_tls_security_level", "smtp_tls_loglevel")
        if desired.offers and desired.inbound:
            receiving = [service for service, _name in self._places()]
            self.refuse_override(
                "smtpd_tls_security_level", INBOUND_KIND, desired.inbound, receiving.__contains__, options
            )
            wanted["smtpd_tls_security_level"] = INBOUND_LEVEL[desired.inbound]
            if desired.names_certificates:
                files = [file for certificate, key in desired.own_pairs for file in (key, certificate) if file]
                wanted["smtpd_tls_chain_files"] = ", ".join(files)  # the key comes first
                explicit = self.postconf.explicit()
                wanted.update({name: "" for name in former.SUPERSEDED if explicit.get(name)})
            wanted["smtpd_tls_received_header"] = "yes"
            wanted["smtpd_tls_loglevel"] = at_least_one(now["smtpd_tls_loglevel"])
        if desired.outbound not in (None, "disabled"):
            self.refuse_override(
                "smtp_tls_security_level",
                OUTBOUND_KIND,
                desired.outbound,
                lambda service: service == former.CLIENT,
                options,
            )
            level = Configuration(self.postconf).level("", "smtp")  # an older spelling counts, too
            if OUTBOUND_KIND.get(level) != desired.outbound:
                wanted["smtp_tls_security_level"] = OUTBOUND_LEVEL[desired.outbound]
            wanted["smtp_tls_loglevel"] = at_least_one(now["smtp_tls_loglevel"])
        return wanted

    def stripped(self, images: Mapping[str, FileImage], certificate: str) -> list[FileImage]:
        """Return main.cf and master.cf without the certificates of the collection."""
        main, master = self.files()
        served = (self.postconf.explicit().get(former.CHAIN) or "").split(", ")
        settings: dict[str, Optional[str]] = (
            {former.CHAIN: None} if served[0] == certificate and main not in images else {}
        )
        ours = installed_at(certificate)[1:]
        options: dict[str, Optional[str]] = {
            f"{one.name}/{former.CHAIN}": None
            for one in self._of_others()
            if master not in images and by_port.names_only(one, ours)
        }
        changed = [path for path, edits in ((main, settings), (master, options)) if edits]
        if not changed:
            return []
        return [one for one in self.postconf.images(Edits(settings, options=options)) if one.path in changed]

    def generated(self) -> Sequence[FileImage]:
        """Return no file: a reload of Postfix writes none."""
        return ()

    def next_hops(self, ours: str = "") -> Sequence[Target]:
        """Return the hosts of relayhost; none if it is not set.

        ours: the collection's own entry of transport_maps, which is ignored. Raises EngineError if mail also leaves by
        other routes, or if relayhost is not in brackets and so names a domain instead of a host.
        """
        hops = []
        others = ("transport_maps", "sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps")
        values = self.postconf.values(*others, "default_transport", "relayhost")
        maps = values.get("transport_maps", "")
        for table in filter(None, (ours, f"texthash:{self._at.peer_table}")):  # peers have levels of their own
            maps = maps.replace(table, "")
        values["transport_maps"] = maps.strip(" ,")
        ways = [f"{name} = {values[name]}" for name in others if values.get(name)]
        transport, _, hop = values.get("default_transport", "smtp").partition(":")
        if transport != "smtp" and not transport.startswith(PEER_TRANSPORT):
            ways.append(f"default_transport = {values['default_transport']}")
        if ways:
            raise EngineError(f"mail also leaves by {', '.join(ways)}, and those routes cannot all be tested")
        relayhost = hop or values["relayhost"]
        for hop in relayhost.replace(",", " ").split():
            host, _, port = hop.rpartition(":") if "]:" in hop else (hop, "", "25")
            if not host.startswith("["):
                raise EngineError(f"relayhost = {relayhost} names a domain, not the host itself in brackets")
            try:
                number = port if port.isdigit() else socket.getservbyname(port, "tcp")
                hops.append(replace(Target.parse(f"{host}:{number}"), protocol=self._protocol()))
            except (ValueError, OSError) as error:  # a TargetError is a ValueError
                raise EngineError(f"relayhost of this host cannot be read: {error}") from error
        return hops

    def _protocol(self) -> str:
        """Return how the client C(smtp) begins TLS: at once, or by STARTTLS."""
        wrapped = Configuration(self.postconf).value(former.CLIENT, "smtp_tls_wrappermode") == "yes"
        return "smtps" if wrapped else "smtp"

    def other_hops(self) -> list[Target]:
        """Return the next hops of all ways that would require TLS if main.cf did, but for those that keep their level.

        Raises EngineError for ways that cannot be listed or are undercut.
        """
        main = {"smtp_tls_security_level": OUTBOUND_LEVEL["required"]}
        options = self.exemptions(main)
        images = self.postconf.images(Edits(main, options=options))
        with self._as_after({image.path: image.content or b"" for image in images}) as reach:
            ways = [one for one in reach.ways() if one.kind == "required"]
        faults = [*reach.unread, *(f"{one}: {one.undercut}" for one in ways if one.undercut)]
        faults += [f"{one} cannot be tested, because it names no host" for one in ways if one.target is None]
        if faults:
            raise EngineError("; ".join(faults))
        return [one.target for one in ways if one.target]

    def check(self) -> None:
        """Have Postfix check its configuration. Raises EngineError with what Postfix says."""
        self.postconf.forget()
        check_instance(self._run, self.postconf)
        if master := self.main_process():
            refuse_blocked(self.postconf, master)

    def reload(self) -> None:
        """Have Postfix read its configuration. Raises EngineError."""
        status, out, err = self._run(["postfix", "-c", self.postconf.config_dir, "reload"])
        if status != 0:
            raise EngineError(f"postfix reload failed: {(err or out).strip()}")

    def resume(self) -> None:
        """Have Postfix read the former configuration, unless the reload would end it. Raises EngineError."""
        self.postconf.forget()
        if not self.reload_would_end():
            self.reload()

    def reload_would_end(self) -> bool:
        """Whether the default instance runs, and its next reload would end it. Files that cannot be read do not: it refuses them."""
        try:
            master = self.main_process()
            return bool(master and blocked(self.postconf, master))
        except EngineError:
            return False

    def service(self) -> str:
        """Return the unit of systemd that the default instance runs in; empty if that cannot be told."""
        return unit_of(self.main_process())

    def has_ended(self) -> bool:
        """Whether the default instance does not run. Raises EngineError."""
        self.postconf.forget()
        return not runs(self._queue_directory())

    def start(self, service: str) -> None:
        """Start the default instance, unless somebody has stopped it. Raises NotRunningError and EngineError."""
        start_again(self._run, service, "Postfix")

    def is_listener(self, service: str) -> bool:
        """Whether a master.cf service, C(name/type), is the listener to configure."""
        name, _, kind = service.rpartition("/")
        return kind == "inet" and port_number(name.rpartition(":")[2]) == int(self._port)

    def refuse_override(
        self,
        parameter: str,
        kinds: Mapping[str, str],
        wanted: str,
        concerns: Callable[[str], bool],
        edits: Mapping[str, Optional[str]] = MappingProxyType({}),
    ) -> None:
        """Raise EngineError if master.cf overrides a parameter with another state than the wanted one.

        kinds: value of the parameter -> state. concerns: whether a service, C(name/type), matters. edits: options as the change
        leaves them, see Edits.
        """
        for service, present in self.postconf.overrides(parameter).items():
            value = edits.get(f"{service}/{parameter}", present)
            if value is not None and concerns(service) and kinds.get(value) != wanted:
                raise EngineError(
                    f"master.cf sets {parameter}={value}, which overrides main.cf for {service}; remove it "
                    f"first: postconf -PX '{service}/{parameter}'"
                )


def check_instance(run: Runner, postconf: Postconf) -> None:
    """Have Postfix check the configuration of one instance. Raises EngineError with what Postfix says.

    With -c, the command concerns this instance only; without it, it would go on to every other instance. check-fatal is the
    part of check that can fail. The rest, which compares some 160 files and only warns, follows if that part fails, or if this
    Postfix does not know it.
    """
    if said := _complaint(run, postconf):
        raise EngineError(f"postfix -c {postconf.config_dir} check refuses the change: {said}")


def _complaint(run: Runner, postconf: Postconf) -> str:
    """Return what Postfix says against the configuration of one instance; empty if nothing. Raises BrokenConfigurationError."""
    postconf.require_readable()  # Postfix 3.7 tells the reason to the system's log only
    for verb in ("check-fatal", "check"):
        status, out, err = run(["postfix", "-c", postconf.config_dir, verb])
        if status == 0:
            return ""
    return (err or out).strip() or "it gives no reason here; see the mail log"


def at_least_one(level: str) -> str:
    """Return the log level, but at least 1, which logs TLS."""
    return level if level.isdigit() and int(level) >= 1 else "1"


def peer_routes(table: str) -> dict[str, str]:
    """Return the routes of the peers' table: domain -> transport and next hops."""
    text = (FileImage.read(table).content or b"").decode("utf-8", "replace")
    pairs = (line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
