# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivery modes, enforced domains and the outbound side of a Postfix gateway.

Each mode has one smtp transport. transport_maps chooses the transport by recipient domain. If the TLS level depends on
how a message arrived, a policy service sends mail that arrived over TLS through another Postfix instance. These
instances listen on the loopback only and have the same transports with other TLS levels: the second instance serves
the modes that depend on the arrival, and the third one serves enforced sender domains and requires TLS for all mail.
So the level is right for each recipient of a message, also for queued mail and after restarts. Sources: transport(5),
access(5), cidr_table(5), postmulti(1), MULTI_INSTANCE_README, TLS_README.
"""

from __future__ import annotations

import contextlib
import inspect
import pwd
import re
import shutil
import socket
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import load, texts
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import remove_empty
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import (
    DIFFERS,
    NOT_TOLD,
    WHOLE,
    Answers,
    Fault,
    Flaw,
    as_written,
    every,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    CERTIFICATE_CHECKS,
    LEVELS,
    MODES,
    GatewayState,
    inbound_senders,
    spellings,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.own_port import (
    ask,
    prove_answer,
    prove_refusal,
    require_answer,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import of_domains
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import change_with_record, load_file
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import (
    amavis,
    arrival_policy,
    between,
    filters,
    protocols,
    queue,
    removal,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Edits, Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.delivered import (
    Routes,
    comes_first,
    delivered,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.domains import AcceptedDomains
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.instances import (
    Instance,
    not_enabled,
    remove_units,
    stop_elsewhere,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.master import running
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import (
    ARRIVED,
    BACK,
    SECOND,
    THIRD,
    OwnPaths,
    with_programs,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.pending import not_read_yet, refuse_blocked
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.queue import PostfixQueue, waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import (
    OUTBOUND_KIND,
    OUTBOUND_LEVEL,
    POLICY,
    POLICY_USER,
    Postfix,
    at_least_one,
    check_instance,
    peer_routes,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.top_level_domains import TOP_LEVEL_DOMAINS
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.truth import (
    MOST,
    AdapterReads,
    Truth,
    Wanted,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import PEER_TRANSPORT
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import older_than
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Settings,
    Target,
    is_address,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_one, wait_until
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, PortInUseError

RESTRICTION_CLASS = "mailfleet_arrival"
ENFORCED_CLASS = "mailfleet_enforced"
UNICODE_CLASS = "mailfleet_unicode"
_QUESTIONS = {
    RESTRICTION_CLASS: arrival_policy.ARRIVAL,
    ENFORCED_CLASS: arrival_policy.ENFORCED,
    UNICODE_CLASS: arrival_policy.UNICODE,
}
"""Restriction class -> the question that it asks the policy service."""

_HEADER = "# Written by mailfleet.starttls from gateway.json; a change made here is lost.\n"
# A server that accepts mail over TLS only refuses plaintext permanently (530). This makes it temporary: mail is deferred
# and does not bounce.
_REPLY_FILTER = "/^530([ -].*STARTTLS.*)/ 430$1\n"
# What the tables of the mail servers say of each of them.
_REFUSED = "reject_plaintext_session"
_HIDDEN = "starttls, silent-discard"
_COMMAND = 7  # the place of the daemon program in an entry of master.cf
# Parameters that the other instances copy from the default one: SMTP client settings and queue times.
_SHARED = re.compile(
    r"(compatibility_level|myhostname|mydomain|message_size_limit|header_size_limit|smtputf8_enable|maillog_file|syslog_facility"
    r"|smtp_(?!tls_session_cache)|tls_"
    r"|(maximal|bounce)_queue_lifetime|(minimal|maximal)_backoff_time|queue_run_delay|mail_owner|setgid_group)"
)
# Further parameters to copy if the other instances send to the internet themselves: routes and credentials.
_ROUTES = re.compile(
    r"((smtp|lmtp)_(?!tls_session_cache)|relayhost|relay_domains|virtual_(alias|mailbox)_domains|virtual_alias_maps|sender_dependent_"
    r"|default_transport|parent_domain_matches_subdomains|local_recipient_maps)"
)
_SET_ANYWAY = (
    "inet_protocols",
    "message_size_limit",
    "smtp_tls_security_level",
    "transport_maps",
    "tls_required_enable",
)
"""Parameters of these that have a value of their own in the other instances."""
# Postfix 3.7 does not write this line with the option -c.
_CONNECTED = re.compile(r"posttls-finger: Connected to ([^\s\[\]]+)\[[0-9a-fA-F.:]+\]:(\d+)")
# A TLS policy by next hop would override the mode. A fallback relay would bypass the mode or an instance. It is empty here; that it
# names a parameter keeps postconf of a Postfix before 3.10 from warning of one that it does not know.
_OURS_ALONE = ("smtp_tls_policy_maps=", "smtp_fallback_relay=${tls_required_enable?}")
# Options of the gateway's own transports that the TLS level of the instance replaces. Stricter options stay.
_RELAXED = tuple(f"smtp_tls_security_level={level}" for level in ("", "none", "may"))
_SECOND_SERVICES = """\
pickup     unix n - n 60    1 pickup
cleanup    unix n - n -     0 cleanup
qmgr       unix n - n 300   1 qmgr
tlsmgr     unix - - n 1000? 1 tlsmgr
tlsproxy   unix - - n -     0 tlsproxy
rewrite    unix - - n -     - trivial-rewrite
bounce     unix - - n -     0 bounce
defer      unix - - n -     0 bounce
trace      unix - - n -     0 bounce
verify     unix - - n -     1 verify
flush      unix n - n 1000? 0 flush
proxymap   unix - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp       unix - - n -     - smtp
showq      unix n - n -     - showq
error      unix - - n -     - error
retry      unix - - n -     - error
discard    unix - - n -     - discard
anvil      unix - - n -     1 anvil
scache     unix - - n -     1 scache
postlog    unix-dgram n - n - 1 postlogd
"""
# What "postfix upgrade-configuration" adds to every master.cf that lacks it, so that a reinstallation changes nothing.
_ADDED_BY_POSTFIX = """#smtp      inet  n       -       n       -       1       postscreen
#smtpd     pass  -       -       n       -       -       smtpd
#dnsblog   unix  -       -       n       -       0       dnsblog
"""
_RELAY = "relay      unix - - n -     - smtp\n"
"""The same, unless the instance has a copy of the gateway's own."""


class PostfixGateway:
    """Adapter for a gateway that is the default Postfix instance of this host."""

    name = "postfix"  # one lock and one journal for one configuration
    title = "a Postfix gateway"
    reads_files_unasked = True
    keeps_names = True
    holds_own_floor = True
    plaintext_at_once = False
    modes = MODES
    verifying_modes: Sequence[str] = ()
    softens_refusals = True
    limits: Mapping[str, str] = {}

    def __init__(
        self,
        run: Runner,
        settings: Settings,
        own_port: Target,
        reinjection_port: int,
        layout: Layout = DEBIAN,
        tls_filter: str = "",
    ) -> None:
        """own_port takes the mail of the internet; reinjection_port is the first of three free loopback ports.

        With a content filter it is the first of seven. tls_filter: the second port of a filter that its administrator configures.
        """
        self._run = run = with_programs(run, layout)
        self._settings = settings
        self._at = OwnPaths(layout.config_dir)
        self.own_port = own_port
        second, self._return_port, third = (Target("127.0.0.1", reinjection_port + offset) for offset in range(3))
        self._instances = (
            Instance(SECOND, self._at.second_dir, second, 1),
            Instance(THIRD, self._at.third_dir, third, 2),
        )
        self._tls_filter = tls_filter
        # Arrival -> the port where the content filter hands mail back, and its own port.
        ports = [Target("127.0.0.1", reinjection_port + offset) for offset in range(3, 7)]
        self._filter_places = amavis.AmavisPlaces(self._at.amavis, {1: (ports[0], ports[1]), 2: (ports[2], ports[3])})
        self._amavis_read = FileImage.read(self._filter_places.file).content
        self._refused = False  # by amavis, because it was reloaded while it worked on mail
        self._layout = layout
        self._postfix = Postfix(run, own_port.port, layout)
        self._postconf = self._postfix.postconf
        self._new_pair = b""  # one for all plans of a call
        self._store = STORE
        self._told: Optional[tuple[Any, Truth]] = None
        self._checked: dict[str, list[Optional[bytes]]] = {}  # configuration directory -> the content of its files

    def transaction(self, store: str) -> Transaction:
        """Return the transaction on the files of all instances."""
        self._store = store
        return Transaction(self, store)

    def require_running(self) -> None:
        """Raise EngineError unless the default instance runs, can be changed, and answers on its own port."""
        self._postfix.require_running()
        require_answer(self.own_port, self._settings)
        ports = [one.port for one in self._instances if not one.runs]
        if not any(Path(one.directory).exists() for one in self._instances):
            ports = [self._return_port, *ports]
        if self._postconf.value_expanded("content_filter") and not Path(self._filter_places.file).exists():
            taken = self._postconf.overrides("content_filter")
            backs = [pair[0] for pair in self._filter_places.ports.values() if f"{pair[0]}/inet" not in taken]
            ports += [*backs, *([] if self._tls_filter else [pair[1] for pair in self._filter_places.ports.values()])]
        for port in ports:
            # Who answers there need not speak SMTP, so its greeting is not waited for.
            if handshake_one(port, replace(self._settings, timeout=1.0)).code not in ("connect_failed", "no_route"):
                raise PortInUseError(f"another service answers on {port}; name a free port with reinjection_port")

    def version(self) -> str:
        """Return the version of Postfix."""
        return self._postfix.version()

    def files(self) -> tuple[str, ...]:
        """Return the files that plan() depends on; some may not exist."""
        tables = (
            self._at.registry,
            self._at.transport_map,
            self._at.arrival_map,
            self._at.senders_map,
            self._at.sender_patterns,
            self._at.tls_only_map,
            self._at.plaintext_map,
            self._at.trusted_chain_map,
            self._at.reply_filter,
            self._at.pair,
            self._filter_places.file,
        )
        others = (f"{one.directory}/{name}" for one in self._instances for name in ("main.cf", "master.cf"))
        units = (image.path for one in self._instances for image in one.unit_files())
        return (*self._postfix.files(), *tables, *others, POLICY, *units)

    def left(self) -> list[str]:
        """Return the files and directories that the collection left on this host for Postfix."""
        return self._postfix.left()

    def observe(self) -> Mapping[str, Any]:
        """Return C(listeners) and C(transports) of the default instance as plain data. Raises EngineError."""
        return self._postfix.observe()

    def read(self, wanted: Sequence[Mapping[str, Any]] = ()) -> GatewayState:
        """Return the state that the record on this host holds."""
        del wanted
        return load_file(self._at.registry)

    def prepare(self, state: GatewayState) -> Change:
        """Return the change that starts the needed instances before mail is sent to them.

        They stay if the main change is undone.
        """
        instances = self._needed(state)
        if all(one.exists for one in instances):
            return Change((), ())
        return self._plan(self.read(), instances)

    def plan(self, state: GatewayState) -> Change:
        """Return the files that make Postfix hold this state, and the record of it."""
        if state == GatewayState() and not Path(self._at.directory).exists():
            return Change((), ())
        return self._plan(state, self._needed(state))

    def _needed(self, state: GatewayState) -> list[Instance]:
        """Return the instances for a state. An existing instance stays, because its queue may hold mail."""
        wanted = [state.depends_on_arrival or state.senders_enforced, state.senders_enforced]
        return [one for one, needed in zip(self._instances, wanted) if needed or one.exists]

    def _plan(self, state: GatewayState, instances: Sequence[Instance]) -> Change:
        self._refuse_overrides(state)
        images = [
            FileImage(self._at.reply_filter, _REPLY_FILTER.encode()),
            FileImage(self._at.transport_map, self._transport_map(state).encode()),
            FileImage(self._at.arrival_map, arrival_map(state).encode()),
            FileImage(self._at.senders_map, senders_map(state).encode()),
            FileImage(self._at.sender_patterns, sender_patterns(state).encode()),
            FileImage(self._at.tls_only_map, clients_map(state, "tls_only", _REFUSED).encode()),
            FileImage(self._at.plaintext_map, clients_map(state, "plaintext", _HIDDEN).encode()),
        ]
        if state.recipients_enforced or Path(self._at.trusted_chain_map).exists():
            images.append(FileImage(self._at.trusted_chain_map, trusted_chain_map().encode()))
        if instances:
            images.append(FileImage(POLICY, inspect.getsource(arrival_policy).encode(), 0o755))
            images.append(replace(FileImage(self._at.pair, self._pair_content(), 0o600), secret=True))
        content_filter = self._content_filter(instances, state)
        images += self._filter_images(content_filter)
        edits = self._edits(state, instances, content_filter)
        explicit = self._postconf.explicit_expanded() if instances else {}
        explicit.update(
            {name: value for name, value in edits.main.items() if value is not None and name.startswith("smtp_")}
        )
        if instances and not self._layout.unit.endswith(".service"):
            raise EngineError(
                f"this gateway needs another instance of Postfix, which starts by a unit of systemd, and {self._layout.platform} has none; "
                "take plaintext, opportunistic or required as delivery_mode and starttls_send here, and no inbound enforced domain"
            )
        for one in instances:
            if one.is_masked:
                raise EngineError(f"the unit {one.unit} is masked; allow it: systemctl unmask {one.unit}")
            images += [*self._instance_files(one, state, explicit), *one.unit_files()]
        images += self._postconf.images(edits)
        masters = [(self._postconf.config_dir, self._postfix.main_process())]
        masters += [(one.directory, running(one.queue)) for one in self._instances]
        for directory, master in masters:
            if not not_read_yet(directory, master):
                self._checked.setdefault(directory, _own_files(directory))  # the running daemon uses them
        return change_with_record(images, self._at.registry, state)

    def next_hops(self, domain: str, state: GatewayState) -> Sequence[Target]:
        """Return the configured servers of the domain; without any, the MX hosts that posttls-finger(1) reaches.

        It also shows what the servers say, after a mark. A server must not choose which hosts are tested in its place, so only
        whole lines that are its own count.
        """
        route = self._route_of(domain, state)
        hops = [_target(hop) for hop in re.split(r"[,\s]+", route) if hop.startswith("[")]
        if hops:
            return hops
        _status, out, err = self._run(["posttls-finger", "-l", "none", "-L", "verbose", "-T", "10", route])
        found = [match.groups() for line in f"{out}\n{err}".split("\n") if (match := _CONNECTED.fullmatch(line))]
        return [Target(host, int(port)) for host, port in dict.fromkeys(found)]

    def roots(self, state: GatewayState) -> str:
        """Return ca_file, or else Postfix's own smtp_tls_CAfile. Raises EngineError if ca_file does not exist."""
        if state.ca_file and not Path(state.ca_file).is_file():
            raise EngineError(f"ca_file: there is no file {state.ca_file} on this gateway")
        return state.ca_file or self._postconf.values("smtp_tls_CAfile").get("smtp_tls_CAfile", "")

    def relay_hosts(self) -> Sequence[Target]:
        """Return the hosts of relayhost, and the next hops of other transports with the same level; none for the MX of each domain.

        Raises EngineError for routes that are not known, and for what undercuts the level.
        """
        hops = self._postfix.next_hops(f"texthash:{self._at.transport_map}")
        return [*dict.fromkeys([*hops, *self._postfix.other_hops()])] if hops else ()

    def accepts(self, domains: Sequence[str]) -> Mapping[str, Optional[bool]]:
        """Return whether the default instance takes mail for these domains; see AcceptedDomains."""
        return AcceptedDomains(self._run, self._postconf).accepts(domains)

    def delivers(self, domains: Sequence[str]) -> Mapping[str, Optional[str]]:
        """Return the mode of the transport that Postfix's tables choose, if its levels are those of the mode; see delivered.py."""
        if not domains:
            return {}
        configuration = _configuration(self._postconf)
        relay = self._postconf.value_expanded("relay_transport").partition(":")[0] or "relay"
        expected = {transport_of(mode): (mode, levels[0]) for mode, levels in LEVELS.items()}
        routes = Routes(self._run, self._postconf)
        return delivered(
            routes,
            domains,
            lambda transport: self._kind_of(configuration, transport or relay),
            expected,
            lambda mode, some: self._by_arrival(routes, mode, some),
            AcceptedDomains(self._run, self._postconf).local,
        )

    def _by_arrival(self, routes: Routes, mode: str, domains: Sequence[str]) -> Mapping[str, Optional[str]]:
        """Return the mode of domains with a transport for mail that arrived in plaintext.

        Mail that arrived over TLS takes the second instance, if the policy service is asked. Without the question it is plaintext, too.
        """
        second = self._instances[0]
        asked = routes.ask(f"texthash:{self._at.arrival_map}", domains)
        if not (second.exists and second.runs) or asked is None or not self._lets_ask():
            return dict.fromkeys(domains)
        there = self._kind_of(_configuration(Postconf(self._run, second.directory)), transport_of(mode))
        found = next((one for one, levels in LEVELS.items() if levels == (LEVELS[mode][0], there)), None)
        restrictions = self._postconf.value_expanded("smtpd_recipient_restrictions")
        of_domain, of_all = self._asks(restrictions)
        if (of_domain or of_all) and not self._asks_all(restrictions):
            return dict.fromkeys(domains)
        through = [one for one in domains if of_all or (of_domain and one in asked)]
        if through and not self._truth(self.read()).takes(1, through, transport_of(mode)):
            found = None
        return {one: found if one in through else "plaintext" for one in domains}

    def _asks(self, restrictions: str) -> tuple[bool, bool]:
        """Return whether the policy service is asked by the recipient domain, and about all mail."""
        by_domain = f"check_recipient_access texthash:{self._at.arrival_map}" in restrictions
        return by_domain, RESTRICTION_CLASS in re.split(r"[\s,]+", restrictions)

    def _lets_ask(self) -> bool:
        """Whether no listener has restrictions of its own, and no filter takes the place of what the policy service answers."""
        return not any(self._not_asked())

    def _not_asked(self) -> Iterator[Flaw]:
        """Yield why what the policy service answers may not count, whatever the question is."""
        for where in filter(self._receives, self._postconf.overrides("smtpd_recipient_restrictions")):
            yield Flaw(NOT_TOLD, f"master.cf sets smtpd_recipient_restrictions for {where}")
        there = [one for one in self._instances if one.exists]
        try:
            found = filters.find(
                self._postconf,
                self._receives,
                self._filter_places,
                self._tls_filter,
                [one.arrival for one in there if one.arrival == 1 or not self._tls_filter],
            )
        except EngineError as error:
            yield Flaw(NOT_TOLD, error.flaw if isinstance(error, filters.FilterError) else str(error))
        else:
            yield from self._filter_flaws(found) if found else ()

    def _filter_flaws(self, content_filter: filters.ContentFilter) -> Iterator[Flaw]:
        """Yield why mail does not take its way through the content filter."""
        if content_filter.file and FileImage.read(self._filter_places.file).content != content_filter.file:
            yield Flaw(
                DIFFERS, f"{self._filter_places.file} does not give the content filter its port for mail over TLS"
            )
        texts = {one.name: one.text for one in self._postconf.services()}
        entries = content_filter.entries({one.arrival: self._destination(one) for one in self._instances})
        for name, entry in entries.items():
            if " ".join(entry.split()) != texts.get(name):
                yield Flaw(DIFFERS, f"master.cf does not take mail back from the content filter in the service {name}")
        for way in content_filter.ways.values():
            if handshake_one(way.port, self._settings).stage < Stage.GREETING:
                yield Flaw(DIFFERS, f"the content filter does not answer on {way.port}, so mail over TLS waits for it")

    def _not_asked_about(self, domains: Optional[Sequence[str]]) -> Iterator[Flaw]:
        """Yield why Postfix does not ask about mail for these domains (without any: about all mail), or from enforced senders (None)."""
        restrictions = self._postconf.value_expanded("smtpd_recipient_restrictions")
        lacks = "smtpd_recipient_restrictions of main.cf does not ask the policy service"
        behind = "other entries of smtpd_recipient_restrictions come before the question to the policy service"
        if domains is None:
            asked = self._asked(f"check_sender_access regexp:{self._at.sender_patterns}")
        elif not domains:
            asked = self._asked(RESTRICTION_CLASS)
        else:
            of_domain, of_all = self._asks(restrictions)
            asked = (of_domain or of_all) and (self._stands_first(restrictions) or None)
            table = (FileImage.read(self._at.arrival_map).content or b"").decode("utf-8", "replace")
            entries = {line.split()[0] for line in table.splitlines() if line.strip()}
            missing = [one for one in domains if not of_all and one not in entries]
            if asked is not False and missing:
                yield Flaw(DIFFERS, f"{self._at.arrival_map} has no entry for {', '.join(missing[:MOST])}")
        if not asked:
            yield Flaw(DIFFERS, lacks) if asked is False else Flaw(NOT_TOLD, behind)
        elif not self._asks_service(ENFORCED_CLASS if domains is None else RESTRICTION_CLASS):
            yield Flaw(NOT_TOLD, "the question in main.cf is another one, or master.cf has no policy service")

    def _truth(self, state: GatewayState) -> Truth:
        """Return what tells the flaws. It is kept until a file may have changed."""
        key = (self._postconf.age, state)
        if self._told is None or self._told[0] != key:
            self._told = (key, self._new_truth(state))
        return self._told[1]

    def _new_truth(self, state: GatewayState) -> Truth:
        there = [one for one in self._instances if one.exists]
        explicit = self._postconf.explicit_expanded()
        queue = self._postconf.value_expanded("queue_directory")
        wanted = Wanted(
            state=state,
            table=self._at.transport_map,
            hops={
                domain: ",".join(map(next_hop, one.servers))
                for one in state.email_configs.values()
                for domain in one.domains
                if domain not in state.recipients_enforced
            },
            checks={domain: transport_of(one.certificate_check) for domain, one in state.recipients_enforced.items()},
            transport=transport_of,
            destinations=self._destinations(self._content_filter(there)),
            socket=f"{queue}/private/{RESTRICTION_CLASS}",
            copied={name: value for name, value in self._copied(explicit, state).items() if name not in _SET_ANYWAY},
        )
        reader = AdapterReads(
            kind_of=lambda postconf, transport: self._kind_of(_configuration(postconf), transport),
            fault=lambda one: between.fault(one.port, self._at.pair, self._settings),
            lets_ask=self._not_asked,
            asked=self._not_asked_about,
            is_shared=lambda name: _SHARED.match(name) is not None and name not in _SET_ANYWAY,
        )
        masters = {self._postconf.config_dir: self._postfix.main_process()}
        masters.update({one.directory: running(one.queue) for one in there})
        return Truth(self._run, self._postconf, masters, there, wanted, reader)

    @staticmethod
    def _destination(instance: Instance) -> str:
        """Return where mail goes on to that takes an instance."""
        return f"{ARRIVED}:[127.0.0.1]:{instance.port.port}"

    def _destinations(self, content_filter: Optional[filters.ContentFilter]) -> dict[int, str]:
        """Return what the policy service answers for each kind of arrival: the instance, or first the content filter."""
        ways = content_filter.ways if content_filter else {}
        return {
            one.arrival: ways[one.arrival].destination if one.arrival in ways else self._destination(one)
            for one in self._instances
        }

    def _content_filter(
        self, instances: Sequence[Instance], state: Optional[GatewayState] = None
    ) -> Optional[filters.ContentFilter]:
        """Return the content filter, with a way to each of the instances; None if there is none, or none is needed.

        state: raises EngineError if it needs a way that the filter cannot have.
        """
        if not instances:
            return None
        needed = state is not None and (state.depends_on_arrival or state.senders_enforced)
        arrivals = [one.arrival for one in instances]
        if self._tls_filter and not (state and state.senders_enforced):
            arrivals = [one for one in arrivals if one == 1]  # its administrator has given the filter one port for us
        try:
            return filters.find(self._postconf, self._receives, self._filter_places, self._tls_filter, arrivals)
        except EngineError:
            if needed:
                raise
            return None

    def _hand_back_ports(self) -> list[str]:
        """Return our services that take mail back from the content filter, as C(name/type)."""
        leads = self._postconf.overrides("content_filter")
        return [name for name, value in leads.items() if value.partition(":")[0] == ARRIVED]

    def _filter_images(self, content_filter: Optional[filters.ContentFilter]) -> list[FileImage]:
        """Return the file that configures amavis; without a use for it any more, that it goes."""
        wanted = content_filter.file if content_filter and content_filter.ways else None
        there = FileImage.read(self._filter_places.file)
        if wanted is None:
            return [replace(there, content=None)] if there.content is not None else []
        return [FileImage(self._filter_places.file, wanted)]

    def _asks_all(self, restrictions: str) -> bool:
        """Whether the policy service is asked about all mail: with our question, and before a restriction of the administrator."""
        return self._stands_first(restrictions) and self._asks_service(RESTRICTION_CLASS)

    def _stands_first(self, restrictions: str) -> bool:
        """Whether no restriction of the administrator comes before the question by recipient, or about all mail."""
        asks = rf"check_recipient_access texthash:{re.escape(self._at.arrival_map)}|{RESTRICTION_CLASS}"
        ours = rf"(?:check_client_access cidr:{re.escape(self._at.tls_only_map)}[\s,]+)?(?:{asks})(?:[\s,]|\Z)"
        return re.match(ours, restrictions) is not None

    def _asks_service(self, name: str) -> bool:
        """Whether a restriction class asks the policy service our question."""
        services = {one.name: one.command for one in self._postconf.services()}
        return (
            self._postconf.value_expanded(name) == _question(name)
            and services.get(f"{RESTRICTION_CLASS}/unix") == "spawn"
        )

    def in_force(self, state: GatewayState) -> Answers:
        """Return what main.cf, master.cf, our tables and the policy service show of the state."""
        found: dict[str, Mapping[str, Optional[bool]]] = {"outbound": self._recipients_in_force(state)}
        asked = self._asked_by_class(f"check_sender_access regexp:{self._at.sender_patterns}", ENFORCED_CLASS)
        if asked is False and f"texthash:{self._at.senders_map}" in self._postconf.value_expanded(
            "smtpd_recipient_restrictions"
        ):
            asked = None  # what earlier versions wrote
        takes = asked and state.senders_enforced and self._truth(state).takes(2, [], "")
        found["inbound"] = {
            one.domain: every(
                asked,
                takes or None,
                self._holds(self._at.sender_patterns, sender_patterns(state), map(_pattern, spellings(one.domain))),
            )
            for one in state.enforced
            if one.direction == "inbound"
        }
        if state.outbound and state.outbound.accept:
            found["accept"] = {state.outbound.accept: self._accepts(state, state.outbound.accept)}
        if state.outbound and state.outbound.send:
            found["send"] = {state.outbound.send: self._sends(state)}
        return found

    def faults(self, state: GatewayState) -> Sequence[Fault]:
        """Return where an instance, a table or the policy service does not do what the state says; see truth.py."""
        if state == GatewayState():
            return ()
        return [*self._truth(state).faults(), *(self._below_the_floor(state) if state.min_tls else ())]

    def _below_the_floor(self, state: GatewayState) -> Iterator[Fault]:
        """Yield the instances whose transports permit older TLS versions than was set."""
        names = [transport_of(one) for one in (*LEVELS, *(CERTIFICATE_CHECKS if state.recipients_enforced else ()))]
        others = [(f" of the instance {one.name}", one.directory) for one in self._instances if one.exists]
        for where, directory in (("", ""), *others):
            postconf = Postconf(self._run, directory) if directory else self._postconf
            if low := protocols.looser(_configuration(postconf), names, state.min_tls):
                said = f"the floor {state.min_tls} was set, and {', '.join(low)}{where} may use older TLS versions"
                yield Fault(WHOLE, DIFFERS, said)

    def _holds(self, path: str, wanted: str, lines: Iterable[str]) -> Optional[bool]:
        return as_written(FileImage.read(path).content, wanted, lines)

    def _asked(self, check: str) -> Optional[bool]:
        """Whether Postfix asks a restriction of ours about all mail: none of the administrator comes first, no listener has its own."""
        ours = [
            f"check_client_access cidr:{self._at.tls_only_map}",
            f"check_recipient_access texthash:{self._at.arrival_map}",
            RESTRICTION_CLASS,
        ]
        found = comes_first(self._postconf.value_expanded("smtpd_recipient_restrictions"), check, ours)
        own = any(map(self._receives, self._postconf.overrides("smtpd_recipient_restrictions")))
        return None if found and own else found

    def _asked_by_class(self, check: str, name: str) -> Optional[bool]:
        """Whether Postfix asks the policy service the question of a class about all mail."""
        return every(self._asked(check), (self._lets_ask() and self._asks_service(name)) or None)

    def _accepts(self, state: GatewayState, accept: str) -> Optional[bool]:
        """Whether the mail servers are received as wanted."""
        if accept == "tls_only":
            path, asked = self._at.tls_only_map, self._asked(f"check_client_access cidr:{self._at.tls_only_map}")
            wanted = clients_map(state, accept, _REFUSED)
        elif accept == "plaintext":
            hidden = self._postconf.value_expanded("smtpd_discard_ehlo_keyword_address_maps")
            path, asked = self._at.plaintext_map, comes_first(hidden, f"cidr:{self._at.plaintext_map}")
            wanted = clients_map(state, accept, _HIDDEN)
        else:
            return True
        return every(asked, self._holds(path, wanted, wanted.splitlines()))

    def _sends(self, state: GatewayState) -> Optional[bool]:
        """Whether mail leaves with the wanted levels."""
        plain, over_tls = state.levels
        found = self._sends_with(self._postconf, plain)
        if plain == over_tls:
            return found
        second = self._instances[0]
        there = second.exists and second.runs
        by_tls = self._sends_with(Postconf(self._run, second.directory), over_tls) if there else None
        return every(found, self._asked_by_class(RESTRICTION_CLASS, RESTRICTION_CLASS), by_tls)

    def _recipients_in_force(self, state: GatewayState) -> dict[str, Optional[bool]]:
        """Return for each enforced recipient domain whether the tables lead to the transport of its check, and that is as written."""
        enforced = state.recipients_enforced
        if not enforced:
            return {}
        configuration = _configuration(self._postconf)
        entries: dict[str, str] = {}
        with contextlib.suppress(EngineError):  # without its roots no check can be told
            entries = dict(self._enforced_services("n", state))
        texts = {one.name: one.text for one in self._postconf.services()}
        found: dict[str, Optional[bool]] = {}
        for domain, transport in Routes(self._run, self._postconf).transports(list(enforced)).items():
            right = transport_of(enforced[domain].certificate_check)
            if transport is None or transport != right:
                found[domain] = None if transport is None else False
            elif texts.get(f"{right}/unix", "").split()[_COMMAND:] == entries.get(right, "-").split()[_COMMAND:]:
                found[domain] = True
            else:
                found[domain] = False if self._kind_of(configuration, right) in ("disabled", "opportunistic") else None
        return found

    def _kind_of(self, configuration: Any, transport: str) -> Optional[str]:
        """Return the kind of TLS level of a transport (OUTBOUND_KIND); None if it is none over SMTP, or depends on the next hop."""
        command = configuration.commands.get(f"{transport}/unix")
        if command not in ("smtp", "lmtp"):
            return None
        level = configuration.level_for_all(f"{transport}/unix", command, self._trusted_chain())
        return OUTBOUND_KIND.get(level) if level else None

    def _sends_with(self, postconf: Postconf, level: str) -> Optional[bool]:
        """Return whether mail leaves an instance with this level; None if the sender or, for C(required), the next hop decides."""
        if postconf.value_expanded("sender_dependent_default_transport_maps"):
            return None
        configuration = _configuration(postconf)
        transport = postconf.value_expanded("default_transport").partition(":")[0]
        service = f"{transport}/unix"
        found = self._kind_of(configuration, transport)
        if level != "required" and configuration.commands.get(service) == "smtp":
            found = OUTBOUND_KIND.get(configuration.level(service, "smtp"))  # next hops may be exceptions
        return None if found is None else found == level

    def _trusted_chain(self) -> str:
        """Return the table of policies by next hop that the collection itself uses."""
        return f"regexp:{self._at.trusted_chain_map}"

    def queued(self, domains: Collection[str]) -> Sequence[Waiting]:
        """Return the messages for recipients in these domains, in the queues of the default instance and of the others."""
        return of_domains([*queue.waiting(self._run, self._postconf.config_dir), *self.in_others()], domains)

    def in_others(self) -> Sequence[Waiting]:
        """Return every message in the queues of the other instances."""
        there = [one for one in self._instances if one.exists]
        # What waits in the first queue for a port of the filter can go no other way.
        hops = [f"]:{port.port}:" for port in self._filter_ports()]
        first = queue.waiting(self._run, self._postconf.config_dir) if hops else ()
        stuck = [one for one in first if any(hop in one.reason for hop in hops)]
        listed = [message for one in there for message in queue.waiting(self._run, one.directory, one.name)]
        return [
            *stuck,
            *listed,
            *(message for one in self._instances for message in removal.unlisted(one.queue, one.name)),
        ]

    def generated(self) -> Sequence[FileImage]:
        """Return none."""
        return ()

    def own_files(self) -> Sequence[FileImage]:
        """Return the tables, the record, the policy service, and the files of the other instances, as far as they exist."""
        images = [FileImage.read(path) for path in self.files() if path not in self._postfix.files()]
        return [image for image in images if image.content is not None]

    def stripped(self, images: Mapping[str, FileImage]) -> Sequence[FileImage]:
        """Return main.cf and master.cf without the collection's entries."""
        return removal.stripped(self._run, self._postconf.config_dir, images)

    def remains(self) -> Sequence[str]:
        """Return the directories of the other instances, and the user of the policy service."""
        return list(removal.remaining(self._places(), POLICY_USER))

    def clear(self) -> None:
        """Remove the units, directories and user that the other instances had. Raises EngineError."""
        there = [one for one in self._instances if one.has_left_overs or Path(one.directory).exists()]
        remove_units(self._run, there)
        removal.clear(self._run, bool(there), self._places(), POLICY_USER)
        remove_empty(self._at.directory, str(Path(POLICY).parent))

    def _places(self) -> list[str]:
        return [place for one in self._instances for place in (one.directory, one.queue, one.data)]

    def check(self) -> None:
        """Have Postfix check the instances whose own files have changed. Raises EngineError with what Postfix says.

        An instance that does not run is not checked: its start includes the check.
        """
        self._postconf.forget()
        for one in self._instances:
            if one.exists:
                self._make_places(one)
                if one.runs:
                    postconf = Postconf(self._run, one.directory)
                    self._check(postconf)
                    if master := running(one.queue):
                        refuse_blocked(postconf, master)
        self._check(self._postconf)
        if self._amavis_read != FileImage.read(self._filter_places.file).content:
            amavis.check(self._run)
        if master := self._postfix.main_process():
            refuse_blocked(self._postconf, master)

    def _check(self, postconf: Postconf) -> None:
        """Check an instance, unless its files are those that were there before, or that were checked last."""
        now = _own_files(postconf.config_dir)
        if self._checked.get(postconf.config_dir) != now:
            check_instance(self._run, postconf)
            self._checked[postconf.config_dir] = now

    def reload(self) -> None:
        """Start the instances that main.cf lists, reload those that run, and stop the others. Raises EngineError."""
        listed = self._postconf.values("multi_instance_directories").get("multi_instance_directories", "")
        words = listed.replace(",", " ").split()
        wanted = [one for one in self._instances if one.directory in words]
        moving = [one for one in wanted if one.has_unit and one.runs and one.runs_elsewhere]
        running = [one for one in wanted if one.runs and one not in moving]
        self._start([one for one in wanted if one not in running], moving, not_enabled(wanted))
        remove_units(self._run, [one for one in self._instances if one not in wanted and one.has_left_overs])
        for one in running:
            self._call("postfix", "-c", one.directory, "reload")
        # Whoever is sent somewhere has to find somebody there: amavis gets a port before Postfix uses it, and loses it after.
        filtered = FileImage.read(self._filter_places.file).content
        if filtered is not None:
            self._reload_amavis(filtered)
        self._postfix.reload()
        if filtered is None:
            self._reload_amavis(filtered)
        if moving:  # what found nobody there in between would wait
            self._run(["postqueue", "-c", self._postconf.config_dir, "-f"])
        elif self._refused:
            self._try_again_what_amavis_refused()

    def _try_again_what_amavis_refused(self) -> None:
        """Have Postfix try these messages now, and not in some minutes. If the queue cannot be read, they wait until then."""
        with contextlib.suppress(EngineError):
            messages = waiting(self._run, self._postconf.config_dir)
            refused = [one for one in messages if one.queue == "deferred" and amavis.INTERRUPTED in one.reason]
            PostfixQueue(self._run, self._layout).try_again(refused)
            self._refused = False

    def _reload_amavis(self, content: Optional[bytes]) -> None:
        """Have amavis read its files, if ours has changed, and wait until it serves its ports. Raises EngineError."""
        if content == self._amavis_read:
            return
        # An administrator may have emptied our file.
        served = amavis.ports(content or b"") or amavis.ports(self._amavis_read or b"")
        if not amavis.reload(self._run, served[-1] if served else None):
            self._refused = True
        self._amavis_read = content
        for port in amavis.ports(content or b""):
            seen = wait_until(lambda now: now.stage >= Stage.GREETING, port, self._settings, amavis.RELOAD_SECONDS)
            if seen.stage < Stage.GREETING:
                raise EngineError(
                    f"amavis does not answer on {port} within {amavis.RELOAD_SECONDS:g} s after the change: {seen.message}; "
                    f"see what its log says: journalctl -u {amavis.AMAVIS_UNIT}"
                )

    def _start(self, instances: Sequence[Instance], moving: Sequence[Instance], new: Sequence[str]) -> None:
        """Start instances, now and after each boot. moving: those of them that another unit runs. new: units to enable.

        Raises EngineError.
        """
        for one in instances:
            if one not in moving:
                refuse_blocked(Postconf(self._run, one.directory), None)
        if new or instances:
            self._call("systemctl", "daemon-reload")
        if new:
            self._call("systemctl", "enable", "--quiet", *new)
        for one in moving:
            stop_elsewhere(self._run, one)
        try:
            for one in instances:
                self._start_one(one)
        except EngineError:
            for one in instances:
                check_instance(self._run, Postconf(self._run, one.directory))  # it may know the reason
            raise
        self._checked.update({one.directory: _own_files(one.directory) for one in instances})

    def _start_one(self, instance: Instance) -> None:
        undone = not instance.has_unit  # to what an earlier version wrote
        if not (undone and self._run(["systemctl", "start", instance.former_unit])[0] == 0):
            self._call("systemctl", "start", instance.unit)

    def resume(self) -> None:
        """Have Postfix read the former configuration, unless the reload would end it."""
        self._postconf.forget()
        if not self._postfix.reload_would_end():
            self.reload()

    def service(self) -> str:
        """Return the unit of systemd that the default instance runs in; empty if that cannot be told."""
        return self._postfix.service()

    def has_ended(self) -> bool:
        """Whether the default instance does not run. Raises EngineError."""
        return self._postfix.has_ended()

    def start(self, service: str) -> None:
        """Start the default instance, unless somebody has stopped it, then the others. Raises NotRunningError and EngineError."""
        self._postfix.start(service)
        self.resume()

    def serves(self) -> bool:
        """Return whether each port answers. Tests once, without waiting."""
        if handshake_one(self.own_port, self._settings).stage < Stage.EHLO:
            return False
        if not_enabled([one for one in self._instances if one.exists]):
            return False
        if any(handshake_one(port, self._settings).stage < Stage.GREETING for port in self._filter_ports()):
            return False
        return not any(between.fault(port, self._at.pair, self._settings) for port in self._ports())

    def prove(self) -> None:
        """Raise EngineError unless each port answers and the policy service gives the wanted answers."""
        prove_answer(self.own_port, self._settings, self.has_ended)
        for port in self._ports():
            if Path(self._at.pair).exists():
                between.prove(port, self._at.pair, self._settings)
            else:  # a change is undone to what an earlier version wrote
                prove_answer(port, self._settings)
        for port in self._filter_ports():
            seen = wait_until(lambda now: now.stage >= Stage.GREETING, port, self._settings, self._settings.timeout)
            if seen.stage < Stage.GREETING:
                raise EngineError(
                    f"nobody answers on {port}, where mail that arrived over TLS goes through the content filter: {seen.message}"
                )
        self._prove_policy(self.read())

    def _filter_ports(self) -> list[Target]:
        """Return the ports of the content filter that the policy service names, and ours where it hands mail back."""
        backs = self._hand_back_ports()
        found = self._content_filter([one for one in self._instances if one.exists]) if backs else None
        ways = found.ways.values() if found else ()
        return [port for way in ways if f"{way.back}/inet" in backs for port in (way.port, way.back)]

    def _pair_content(self) -> bytes:
        """Return the key and certificate of the instances: those that are there, else new ones."""
        present = FileImage.read(self._at.pair).content or b""
        if not between.is_pair(present):
            self._new_pair = self._new_pair or between.new_pair(self._run)
        return present if between.is_pair(present) else self._new_pair

    def _ports(self) -> list[Target]:
        """Return the loopback ports of the instances that are there."""
        there = [one.port for one in self._instances if one.exists]
        return [*there, *([self._return_port] if there else [])]

    def _prove_policy(self, state: GatewayState) -> None:
        """Raise EngineError unless the policy service works: if it fails, Postfix answers RCPT with 451 4.3.5."""
        configs = sorted(state.email_configs.values(), key=lambda one: not one.depends_on_arrival)
        # With a domain: Postfix accepts mail for plain "postmaster" without checking its restrictions.
        domain = configs[0].domains[0] if configs else self._postconf.value_expanded("myhostname")
        recipient = f"postmaster@{domain}"
        if state.depends_on_arrival:
            code, text = ask(self.own_port, self._settings, "", recipient)
            if code == 451 and "4.3.5" in text:  # "server configuration error", not greylisting
                raise EngineError(f"the gateway defers mail for {recipient}: {code} {text}")
        refusal = prove_refusal(self.own_port, self._settings, state, recipient)
        if refusal.startswith("451") and "4.3.5" in refusal:
            raise EngineError(f"the gateway defers all mail of enforced sender domains, over TLS as well: {refusal}")

    def _refuse_overrides(self, state: GatewayState) -> None:
        """Raise EngineError if a listener would not ask the policy service, or a filter or a peer's route would replace its answer."""
        self._refuse_peers(state)
        if not (state.depends_on_arrival or state.senders_enforced) and not (
            state.outbound and state.outbound.accept == "tls_only"
        ):
            return
        for where in self._postconf.overrides("smtpd_recipient_restrictions"):
            if self._receives(where):
                raise EngineError(
                    f"master.cf sets smtpd_recipient_restrictions for {where}, so the collection could not see how mail "
                    f"arrives there; remove it first: postconf -PX '{where}/smtpd_recipient_restrictions'"
                )

    def _refuse_peers(self, state: GatewayState) -> None:
        """Raise EngineError for what collides with the peers of a mail server on the same host."""
        configured = {domain for one in state.email_configs.values() for domain in one.domains}
        if both := sorted({*configured, *state.recipients_enforced} & set(peer_routes(self._at.peer_table))):
            raise EngineError(
                f"{', '.join(both)}: its mail goes to a peer of this host (starttls_peers); keep it there or here, not in both"
            )
        depends = state.outbound is not None and state.outbound.depends_on_arrival
        if depends and any(one.name.startswith(PEER_TRANSPORT) for one in self._postconf.services()):
            raise EngineError(
                "this host has peers (starttls_peers), and a mode of send that depends on how mail arrived would bypass their "
                "transports; choose another starttls_send, or keep the peers on another host"
            )

    def _receives(self, service: str) -> bool:
        return self._postfix.is_listener(service) or service == "smtpd/pass"

    def _transport_map(self, state: GatewayState) -> str:
        """Return the transport(5) table: one line for each recipient domain. Enforced domains override email configs."""
        enforced = state.recipients_enforced
        lines = [
            f"{spelling} {transport_of(config.delivery_mode)}:{','.join(map(next_hop, config.servers))}\n"
            for _name, config in sorted(state.email_configs.items())
            for domain in config.domains
            if domain not in enforced
            for spelling in spellings(domain)
        ]
        if (
            enforced
            and "transport_maps"
            in self._postconf.values("parent_domain_matches_subdomains")
            .get("parent_domain_matches_subdomains", "")
            .replace(",", " ")
            .split()
        ):
            raise EngineError(
                "parent_domain_matches_subdomains names transport_maps, so an enforced domain would cover its subdomains as "
                "well; take transport_maps out of it first"
            )
        lines += [
            f"{spelling} {transport_of(one.certificate_check)}:{self._route_of(domain, state)}\n"
            for domain, one in sorted(enforced.items())
            for spelling in spellings(domain)
        ]
        return _HEADER + "".join(lines)

    def _route_of(self, domain: str, state: GatewayState) -> str:
        """Return the next hop of an enforced domain: the given servers, else its present route. Raises EngineError."""
        owner = state.owner_of(domain)
        servers = state.recipients_enforced[domain].servers or (owner.servers if owner else ())
        if servers:
            return ",".join(map(next_hop, servers))
        maps = self._postconf.value_expanded("transport_maps")
        tables = [one for one in maps.replace(",", " ").split() if self._at.transport_map not in one]
        if "{" in maps:
            raise EngineError(
                f"transport_maps has tables in braces, so the route to {domain} cannot be looked up; name its servers"
            )
        parents = [f".{domain.split('.', at)[at]}" for at in range(1, domain.count(".") + 1)]
        for key in (f"mailfleet-starttls@{domain}", domain, *parents, "*"):
            for table in tables:
                status, out, err = self._run(["postmap", "-q", key, table])
                if status != 0 and err.strip():
                    raise EngineError(f"the route to {domain} cannot be looked up in {table}: {err.strip()}")
                if out.strip():
                    return _smtp_hop(domain, out.strip()) or domain
        return self._postconf.value_expanded("relayhost") or domain

    def _edits(
        self, state: GatewayState, instances: Sequence[Instance], content_filter: Optional[filters.ContentFilter]
    ) -> Edits:
        now = self._postconf.values(
            "transport_maps", "smtpd_recipient_restrictions", "smtpd_restriction_classes",
            "multi_instance_wrapper", "multi_instance_enable", "multi_instance_directories", "plaintext_reject_code",
            "smtpd_discard_ehlo_keyword_address_maps",
        )  # fmt: skip
        main = {
            "transport_maps": _first([f"texthash:{self._at.transport_map}"], [], now["transport_maps"]),
            # From Postfix 3.10 on, a sender's header "TLS-Required: no" can turn every level into plaintext, also after an upgrade.
            "tls_required_enable": "no",
        }
        accept = state.outbound.accept if state.outbound else None
        if accept == "tls_only" and now.get("plaintext_reject_code", "450").startswith("5"):
            raise EngineError(
                f"plaintext_reject_code = {now['plaintext_reject_code']} would make mail of your mail servers bounce; take it "
                "out first: postconf -X plaintext_reject_code"
            )
        hidden = f"cidr:{self._at.plaintext_map}"
        main["smtpd_discard_ehlo_keyword_address_maps"] = _first(
            [hidden] if accept == "plaintext" else [], [hidden], now.get("smtpd_discard_ehlo_keyword_address_maps", "")
        )
        # At the beginning, because a permit_... before them would skip them. The last of several FILTER answers counts, so
        # that for enforced senders comes last. Every recipient of a message gets the same answer to it.
        checks = {
            f"check_client_access cidr:{self._at.tls_only_map}": accept == "tls_only",
            f"check_recipient_access texthash:{self._at.arrival_map}": bool(instances),
            f"{RESTRICTION_CLASS}": self._concerns_all_mail(state),
            f"check_sender_access regexp:{self._at.sender_patterns}": state.senders_enforced,
            f"check_sender_access texthash:{self._at.senders_map}": False,  # what earlier versions wrote
        }
        main["smtpd_recipient_restrictions"] = _first(
            [check for check, wanted in checks.items() if wanted], list(checks), now["smtpd_recipient_restrictions"]
        )
        if instances:
            main["smtpd_restriction_classes"] = _first([*_QUESTIONS], [], now["smtpd_restriction_classes"])
            # Own default_action: without an answer of the policy service, mail is deferred, whatever the gateway's default is.
            main.update({name: _question(name) for name in _QUESTIONS})
            main["multi_instance_wrapper"] = "${command_directory}/postmulti -p --"
            main["multi_instance_enable"] = "yes"
            directories = [one.directory for one in instances]
            others = [
                one for one in re.split(r"[\s,]+", now["multi_instance_directories"]) if one not in ("", *directories)
            ]
            # Blanks only: Debian's unit generator reads a comma as a part of the name, and does not start that instance.
            main["multi_instance_directories"] = " ".join([*directories, *others])
        main.update(self._outbound_level(state))
        explicit = self._postconf.explicit()
        changed = {name: value for name, value in main.items() if explicit.get(name, None if value else "") != value}
        services: dict[str, Optional[str]] = dict.fromkeys(self._hand_back_ports())
        services.update(self._services(0, state, bool(instances), content_filter))
        exempt = self._postfix.exemptions({"smtp_tls_security_level": changed.get("smtp_tls_security_level")})
        return Edits(changed, services=services, options={**self._exempted_before(state), **exempt})

    def _exempted_before(self, state: GatewayState) -> dict[str, Optional[str]]:
        """Return the options that take back the exemptions of a gateway that required TLS when it sent. Raises EngineError and OSError."""
        if state.levels[0] in ("", "required") or not self._postconf.overrides("smtp_tls_security_level"):
            return {}
        master = self._postfix.files()[-1]
        return self._postfix.exempted_before(texts(load(self._store, self.name), [master])[0])

    def _concerns_all_mail(self, state: GatewayState) -> bool:
        """Whether the policy service has to see all mail: an alias may rewrite any recipient to a domain of an email config."""
        if state.outbound and state.outbound.depends_on_arrival:
            return True
        rewriting = ("virtual_alias_maps", "canonical_maps", "recipient_canonical_maps", "recipient_bcc_maps")
        return state.depends_on_arrival and any(map(self._postconf.value_expanded, rewriting))

    def _outbound_level(self, state: GatewayState) -> dict[str, str]:
        """Return the changes of main.cf for the TLS level towards the internet.

        If the administrator has set a stronger level with the same meaning, it stays. Raises EngineError if the wanted
        level would weaken a level that the collection has not set.
        """
        kind = state.levels[0]
        if not kind:
            return {}
        now = self._postconf.values("smtp_tls_security_level", "smtp_tls_loglevel")
        self._postfix.refuse_override(
            "smtp_tls_security_level", OUTBOUND_KIND, kind, lambda service: service == "smtp/unix"
        )
        present = now["smtp_tls_security_level"]
        if kind != "required" and OUTBOUND_KIND.get(present) == "required" and not self.read().levels[0]:
            raise EngineError(
                f"smtp_tls_security_level = {present} is stricter than send {state.outbound.send if state.outbound else ''} "
                "and was not set by this collection; choose required (starttls_send in an inventory), or relax it by hand first"
            )
        wanted = (
            {} if present and OUTBOUND_KIND.get(present) == kind else {"smtp_tls_security_level": OUTBOUND_LEVEL[kind]}
        )
        if state.levels[1] != "disabled":
            wanted["smtp_tls_loglevel"] = at_least_one(now["smtp_tls_loglevel"])
        return wanted

    def refuse_one_way(self, state: GatewayState) -> None:
        """Raise EngineError if master.cf holds a level for the client that sending in plaintext could not replace."""
        if state.levels[0]:
            self._postfix.refuse_override(
                "smtp_tls_security_level", OUTBOUND_KIND, "disabled", lambda service: service == "smtp/unix"
            )

    def _services(
        self,
        arrival: int,
        state: GatewayState,
        instances: bool,
        content_filter: Optional[filters.ContentFilter] = None,
    ) -> dict[str, str]:
        """Return the master.cf entries of one instance: C(name/type) -> entry.

        arrival: how its mail arrived: in plaintext (0), over TLS (1), over TLS from an enforced sender domain (2).
        """
        chroot = "n" if arrival else self._chroot()
        if (
            not state.senders_enforced
        ):  # no domain is enforced any more, so queued mail of the third instance is ordinary
            arrival = min(arrival, 1)
        services = {}
        floor = self._floor(state)
        for mode in LEVELS:
            level = _level(mode, arrival)
            options = [f"smtp_tls_security_level={level}", *_OURS_ALONE, *self._unwrapped()]
            options += floor if level != "none" else []
            if level != "encrypt":
                options.append(f"smtp_reply_filter=regexp:{self._at.reply_filter}")
            services[transport_of(mode)] = _smtp_entry(transport_of(mode), chroot, options)
        if state.recipients_enforced or Path(self._at.trusted_chain_map).exists():
            services.update(self._enforced_services(chroot, state))
        if instances and not arrival:
            services[ARRIVED] = _smtp_entry(
                ARRIVED,
                chroot,
                _settings(between.client(self._at.pair)),
            )
            destinations = self._destinations(content_filter)
            services[RESTRICTION_CLASS] = (
                f"{RESTRICTION_CLASS} unix - n n - 0 spawn user={POLICY_USER} "
                f"argv={_python()} -I {POLICY} {' '.join(destinations.values())} {self._at.senders_map}"
            )
        entries = {f"{name}/unix": entry for name, entry in services.items()}
        if instances and not arrival:
            # A listener for mail that the other instances do not route themselves: local, virtual and all other domains.
            options = _settings(between.listener(self._at.pair, self._size_limit()))
            if content_filter:
                options.append("content_filter=")  # this mail has been through it
            entries[f"{self._return_port}/inet"] = f"{self._return_port} inet n - {chroot} - - smtpd " + " ".join(
                f"-o {option}" for option in options
            )
            if content_filter:
                entries.update(content_filter.entries({one.arrival: self._destination(one) for one in self._instances}))
        return entries

    def _floor(self, state: GatewayState) -> list[str]:
        """Return the options that hold the floor for TLS versions. A list of main.cf that is as strict counts. Raises EngineError."""
        found = []
        present = self._postconf.expanded(*protocols.SENDING_LISTS) if state.min_tls else {}
        for name in protocols.SENDING_LISTS if state.min_tls else ():
            value = present.get(name, "")
            at = protocols.oldest(value)
            spelled = protocols.spelled(self._postfix.version(), state.min_tls)
            if at is None:
                raise EngineError(
                    f"{name} is '{value}', and it cannot be told which TLS versions that permits, so starttls_min_tls is not set; write "
                    f"'{spelled}' there, or take it out: postconf -X {name}"
                )
            if at in older_than(state.min_tls):
                found.append(f"{name}={spelled.replace(' ', '')}")
        return found

    def _unwrapped(self) -> list[str]:
        """Return the option that keeps a transport of ours at STARTTLS, where main.cf has implicit TLS for a smart host.

        The evidence for a mode is a handshake with STARTTLS.
        """
        wrapped = self._postconf.value_expanded("smtp_tls_wrappermode") == "yes"
        return ["smtp_tls_wrappermode=no"] if wrapped else []

    def _enforced_services(self, chroot: str, state: GatewayState) -> Iterator[tuple[str, str]]:
        """Yield a transport for each certificate check. They are the same for every kind of arrival."""
        own = any(self._postconf.values("smtp_tls_CAfile", "smtp_tls_CApath").values())
        roots = [] if own and not state.ca_file else [f"smtp_tls_CAfile={self.roots(state) or self._layout.ca_bundle}"]
        floor = self._floor(state)
        options = {
            "encryption_only": ["smtp_tls_security_level=encrypt", *_OURS_ALONE, *self._unwrapped()],
            # Postfix has no level that verifies the chain without the name, so a policy table allows every name.
            "trusted_chain": [
                "smtp_tls_security_level=verify", f"smtp_tls_policy_maps={self._trusted_chain()}", _OURS_ALONE[1],
                *self._unwrapped(), *roots,
            ],
            "hostname": [
                "smtp_tls_security_level=verify", *_OURS_ALONE, *self._unwrapped(), "smtp_tls_verify_cert_match=hostname", *roots,
            ],
        }  # fmt: skip
        for check, words in options.items():
            yield transport_of(check), _smtp_entry(transport_of(check), chroot, [*words, *floor])

    def _instance_files(self, instance: Instance, state: GatewayState, explicit: Mapping[str, str]) -> list[FileImage]:
        """Return main.cf and master.cf of an instance. explicit: the default instance's main.cf after the change.

        They hold what the files of the default instance hold, passwords among it, so they have the same owners and modes.
        """
        back = f"{BACK}:[{self._return_port.host}]:{self._return_port.port}"
        main = {
            # Postfix's own tools write it where it is missing.
            "inet_protocols": self._postconf.value_expanded("inet_protocols") or "all",
            **self._copied(explicit, state),
            "transport_maps": f"texthash:{self._at.transport_map}",
            "default_transport": back,
            "relay_transport": back,
            "virtual_transport": back,
            "local_transport": back,
            "multi_instance_name": instance.name,
            "multi_instance_enable": "yes",
            "queue_directory": instance.queue,
            "data_directory": instance.data,
            "syslog_name": instance.name,
            "inet_interfaces": "loopback-only",
            "message_size_limit": between.longer(self._size_limit()),
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "authorized_submit_users": "",
            "tls_required_enable": "no",
        }
        services = {
            **self._services(instance.arrival, state, True),
            "back": _smtp_entry(BACK, "n", _settings(between.client(self._at.pair))),
        }
        if state.outbound and state.outbound.depends_on_arrival:
            routes = self._own_routes(explicit)
            main.update({name: routes[name] for name in ("transport_maps", "default_transport", "mydestination")})
            main["smtp_tls_security_level"] = OUTBOUND_LEVEL[state.levels[1]]
            services.update(self._own_services())
        listener = " -o ".join(
            [f"{instance.port} inet n - n - - smtpd", *_settings(between.listener(self._at.pair, self._size_limit()))]
        )
        relay = [] if "own relay" in services else [_RELAY]
        master = [
            _lines_of(listener), _SECOND_SERVICES, *relay, *map(_lines_of, services.values()), _ADDED_BY_POSTFIX,
        ]  # fmt: skip
        lines = [f"{name} = {value}".rstrip() + "\n" for name, value in sorted(main.items())]
        return [
            replace(
                FileImage.read(f"{self._postconf.config_dir}/{name}"),
                path=f"{instance.directory}/{name}",
                content=(_HEADER + "".join(text)).encode(),
                seen="",  # that of another path
            )
            for name, text in (("main.cf", lines), ("master.cf", master))
        ]

    def _copied(self, explicit: Mapping[str, str], state: GatewayState) -> dict[str, str]:
        """Return the settings of an instance that are copies of the default instance's: Postfix has no way to refer to them.

        explicit: the default instance's main.cf.
        """
        copied = {name: value for name, value in explicit.items() if _SHARED.match(name)}
        copied.update(self._outgoing_address(explicit))
        if state.outbound and state.outbound.depends_on_arrival:
            copied.update(self._own_routes(explicit))
        return copied

    def _own_routes(self, explicit: Mapping[str, str]) -> dict[str, str]:
        """Return the parameters of the gateway's own routes, for an instance that sends to the internet itself."""
        routes = {name: value for name, value in explicit.items() if _ROUTES.match(name)}
        tables = [f"texthash:{self._at.transport_map}", explicit.get("transport_maps", "")]
        routes["transport_maps"] = _first(tables[:1], tables[:1], tables[1])
        routes["default_transport"] = explicit.get("default_transport", "smtp")
        routes["mydestination"] = self._postconf.value_expanded("mydestination")
        return routes

    def _own_services(self) -> dict[str, str]:
        """Return copies of the gateway's own transports, which its tables may name. They use the instance's TLS level."""
        known = {line.split()[0] for line in _SECOND_SERVICES.splitlines()}
        services = {}
        for one in self._postconf.services():
            name = one.fields[0]
            if one.fields[1] != "unix" or name in known or name.startswith("mailfleet"):
                continue
            fields = one.text.split()
            fields[4] = "n"  # the instance has no chroot
            words = " ".join(fields).split(" -o ")
            kept = [word for word in words[1:] if word not in _RELAXED]
            services[f"own {name}"] = " -o ".join([words[0], *kept])
        return services

    def _outgoing_address(self, explicit: Mapping[str, str]) -> dict[str, str]:
        """Return the source address for outgoing connections, if the default instance listens on one address only.

        Postfix then sends from that address, and the other instances have to do the same.
        """
        if "smtp_bind_address" in explicit:
            return {}
        listens = explicit.get("inet_interfaces", "").replace(",", " ").split()
        outside = [one for one in listens if is_address(one) and not one.startswith("127.") and ":" not in one]
        return {"smtp_bind_address": outside[0]} if len(listens) == len(outside) == 1 else {}

    def _size_limit(self) -> str:
        return self._postconf.values("message_size_limit").get("message_size_limit", "0")

    def _chroot(self) -> str:
        """Return the chroot column of the gateway's own smtp transport."""
        return next((one.fields[4] for one in self._postconf.services() if one.name == "smtp/unix"), "n")

    def _make_places(self, instance: Instance) -> None:
        for place, owner in ((instance.queue, "root"), (instance.data, "postfix")):
            Path(place).mkdir(exist_ok=True)
            Path(place).chmod(0o755)  # the umask changes the mode of mkdir
            shutil.chown(place, owner)
        self._make_policy_user()

    def _make_policy_user(self) -> None:
        """Give the policy service a user of its own: processes of a shared one, such as nobody, could change its answers."""
        try:
            uid = pwd.getpwnam(POLICY_USER).pw_uid
        except KeyError:
            home = ("--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
            self._call("useradd", "--system", "--user-group", *home, POLICY_USER)
            return
        if uid == 0:
            raise EngineError(
                f"the user {POLICY_USER} has the user ID 0, so it cannot run the policy service; remove that user"
            )

    def _call(self, *command: str) -> None:
        status, out, err = self._run(command)
        if status != 0:
            raise EngineError(f"{' '.join(command)} failed: {(err or out).strip()}")


def _own_files(directory: str) -> list[Optional[bytes]]:
    """Return the content of main.cf and master.cf of an instance; None for a file that does not exist."""
    return [FileImage.read(f"{directory}/{name}").content for name in ("main.cf", "master.cf")]


def _configuration(postconf: Postconf) -> Any:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.observe import (  # noqa: PLC0415
        Configuration,  # a change does not need it
    )

    return Configuration(postconf)


def _question(name: str) -> str:
    """Return the value of a restriction class."""
    return (
        f"check_policy_service {{ unix:private/{RESTRICTION_CLASS}, policy_context={_QUESTIONS[name]}, "
        f"{{ default_action = {arrival_policy.SERVER_ERROR} }} }}"
    )


def transport_of(what: str) -> str:
    """Return the name of the transport of a mode or of a certificate check, as the log shows it."""
    return f"mailfleet-{what}"


def arrival_map(state: GatewayState) -> str:
    """Return the access(5) table of the recipient domains whose mode depends on how a message arrived."""
    lines = [
        f"{spelling} {RESTRICTION_CLASS}\n"
        for _name, config in sorted(state.email_configs.items())
        if config.depends_on_arrival
        for domain in config.domains
        for spelling in spellings(domain)
    ]
    return _HEADER + "".join(lines)


def senders_map(state: GatewayState) -> str:
    """Return the list of the enforced sender domains for the policy service. Former versions also used it as a table."""
    return _HEADER + "".join(f"{domain} {RESTRICTION_CLASS}\n" for domain in inbound_senders(state.enforced))


def sender_patterns(state: GatewayState) -> str:
    """Return the regexp_table(5) of the enforced sender domains, without their subdomains.

    Postfix looks up the address as it will use it: without routes, quotes and a dot at the end. The table alone decides. Only
    for an address with a domain that is not ASCII the policy service is asked, because there are many spellings of a domain.
    """
    lines = [_pattern(domain) for domain in inbound_senders(state.enforced)]
    return _HEADER + "".join([*lines, *([f"!/^[ -~]*$/ {UNICODE_CLASS}\n"] if lines else [])])


def _pattern(domain: str) -> str:
    escaped = domain.replace(".", "\\.")
    return f"/@{escaped}$/ {ENFORCED_CLASS}\n"


def clients_map(state: GatewayState, accept: str, action: str) -> str:
    """Return the cidr_table(5) of the mail servers; without entries unless the wanted accept is this one."""
    outbound = state.outbound
    servers = outbound.mail_servers if outbound and outbound.accept == accept else ()
    return _HEADER + "".join(f"{network} {action}\n" for network in servers)


def trusted_chain_map() -> str:
    """Return the TLS policy table of the transport for trusted_chain: a certificate for any name is allowed."""
    return f"{_HEADER}/./ verify match={':'.join(f'.{name}' for name in TOP_LEVEL_DOMAINS)}\n"


def next_hop(server: Target) -> str:
    """Return a next hop in brackets, which Postfix uses without an MX look-up."""
    return f"[{server.host}]:{server.port}"


def _target(hop: str) -> Target:
    """Read a next hop in brackets, C([host]) or C([host]:port). Raises EngineError for an unknown port."""
    host, _, port = hop[1:].partition("]")
    number = port.lstrip(":")
    try:
        return Target(host, int(number) if number.isdigit() else socket.getservbyname(number or "smtp", "tcp"))
    except OSError as error:
        raise EngineError(f"the port of the next hop {hop} is not known here: {error}") from error


def _smtp_hop(domain: str, found: str) -> str:
    """Return the next hop of a transport(5) result. Raises EngineError unless its transport is smtp or relay."""
    transport, _, hop = found.partition(":")
    if transport not in ("", "smtp", "relay"):
        raise EngineError(
            f"mail for {domain} uses the transport {found}, which cannot require TLS; name its servers, or remove that route"
        )
    return hop


def _level(mode: str, arrival: int) -> str:
    """Return the TLS level of a mode for an arrival (see _services). An enforced sender domain overrides every mode."""
    return OUTBOUND_LEVEL[(*LEVELS[mode], "required")[arrival]]


def _smtp_entry(name: str, chroot: str, options: Sequence[str]) -> str:
    return f"{name} unix - - {chroot} - - smtp " + " ".join(f"-o {option}" for option in options)


def _settings(values: Mapping[str, str]) -> list[str]:
    """Return settings as the options of a service."""
    return [f"{name}={value}" for name, value in values.items()]


def _lines_of(entry: str) -> str:
    """Return an entry of master.cf with a line for each option."""
    words = entry.split(" -o ")
    return words[0] + "\n" + "".join(f"  -o {word}\n" for word in words[1:])


def _first(entries: Sequence[str], ours: Sequence[str], present: str) -> str:
    """Return a list setting that begins with the wanted entries. Other entries of the collection are removed.

    The administrator's entries stay unchanged.
    """
    rest = present
    for entry in {*entries, *ours}:
        rest = re.sub(rf"(?<![^\s,]){re.escape(entry)}(?:[\s,]+|\Z)", "", rest)
    wanted = ", ".join([*entries, *([rest] if rest else [])])
    return present if re.split(r"[\s,]+", present) == re.split(r"[\s,]+", wanted) else wanted


def _python() -> str:
    """Return the path of a Python that the policy service can use later, as its own user."""
    return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
