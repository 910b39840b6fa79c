# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivery modes, enforced domains and the outbound side of a gateway that runs Debian's Exim 4.

Routers before Debian's own ones handle the domains of the email configs and the enforced domains, and choose a static
transport. Exim's spool stores how a message arrived. So the choice is right for each recipient of a message, also for
queued mail and after restarts. The tables are files that Exim reads at each attempt, so only the first entry of a kind
changes the configuration itself. Towards the internet, Exim uses copies of Debian's own routers and transports, so
routes, credentials and signatures stay those of the administrator. Sources: the Exim specification (manualroute, the
smtp transport, retry configuration, access control lists), update-exim4.conf(8).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import remove_empty
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import queue, scheme, sections
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.config import ByPort
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.floor import Library
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.macros import read_macros, set_macros
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import (
    CONFIG_DIR,
    DEFAULT_MAIL_ACL,
    DIRECTORY,
    GENERATED,
    MAIL_ACL,
    NEXT_MAIL_ACL,
    REQUIRE_ACL,
    SETTINGS,
    Exim,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.truth import (
    EximReads,
    EximTruth,
    EximWanted,
    Wiring,
    of_file,
    of_list,
)
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
    EmailConfig,
    EnforcedDomain,
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
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import names_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import change_with_record, load_file
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import parse_settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import older_than
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Settings,
    Target,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_one
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.replies import ENFORCED_SENDER
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

REGISTRY = f"{DIRECTORY}/gateway.json"
ROUTES = f"{DIRECTORY}/routes"
SENDERS = f"{DIRECTORY}/enforced_senders"
RECIPIENTS = f"{DIRECTORY}/enforced_recipients"
SENDER_ACL = f"{DIRECTORY}/enforced_sender.acl"
TLS_ONLY_ACL = f"{DIRECTORY}/tls_only.acl"
TEMPLATE = f"{CONFIG_DIR}/exim4.conf.template"
ROUTER = "mailfleet_inbound"
SPLIT_FILES = {name: f"{CONFIG_DIR}/conf.d/{file}" for name, file in sections.GATEWAY_FILES.items()}
QUEUE_LIFETIME = 5 * 24 * 3600

_HEADER = sections.HEADER
# One message for each connection: Exim lists waiting messages by host name only, and would send them over an open
# connection with any TLS state or port. Without retry_include_ip_address=false, a server without STARTTLS would also
# delay mail in other modes to that server.
_TRANSPORT = """\
mailfleet_{level}:
  driver = smtp
  hosts_try_dane =
{options}
"""
_ONE_MESSAGE = "  connection_max_messages = 1\n"
_INSIST = "  hosts_require_tls = *\n  tls_tempfail_tryclear = false\n  retry_include_ip_address = false\n"
_LEVEL_OPTIONS = {"none": "  hosts_avoid_tls = *\n", "may": "", "encrypt": _INSIST}
# TLS level -> its word in the routes and in the names of the transports. Both stay on gateways, so the words stay as well.
_WORDS = {"disabled": "none", "opportunistic": "may", "required": "encrypt"}
_LEVEL_OF_WORD = {word: level for level, word in _WORDS.items()}
_MODE_OF_WORDS = {(_WORDS[plain], _WORDS[over_tls]): mode for mode, (plain, over_tls) in LEVELS.items()}
_MODE_OF_LEVEL = {"disabled": "plaintext", "opportunistic": "opportunistic", "required": "required"}
_CHECK_OPTIONS = {
    "encryption_only": "",
    # Exim also verifies the name unless tls_verify_cert_hostnames is empty.
    "trusted_chain": "  tls_verify_hosts = *\n  tls_verify_certificates = {roots}\n  tls_verify_cert_hostnames =\n",
    "hostname": "  tls_verify_hosts = *\n  tls_verify_certificates = {roots}\n  tls_verify_cert_hostnames = *\n",
}
_BY_ARRIVAL = "${if def:tls_in_cipher{over_tls}{in_plaintext}}"
_FROM_ENFORCED = f"${{lookup{{$sender_address_domain}}lsearch{{{SENDERS}}}{{yes}}{{no}}}}"
_TO_ENFORCED = f"${{lookup{{$domain}}lsearch{{{RECIPIENTS}}}{{yes}}{{no}}}}"
_CHECK = f"${{extract{{check}}{{${{lookup{{$domain}}lsearch{{{RECIPIENTS}}}}}}}{{$value}}fail}}"
# After the end of a retry rule, Exim bounces new mail at once. So the rule is long, and the age of the message decides.
_EXPIRED = f"""\
mailfleet_expired:
  driver = redirect
  domains = lsearch;{ROUTES} : lsearch;{RECIPIENTS}
  condition = ${{if >{{$message_age}}{{{QUEUE_LIFETIME}}}}}
  allow_fail
  data = :fail: the mail server could not be reached as required within {QUEUE_LIFETIME // 86400} days

"""
_ENFORCED_SERVERS = f"""\
mailfleet_enforced:
  driver = manualroute
  domains = lsearch;{RECIPIENTS}
  condition = ${{extract{{servers}}{{$domain_data}}{{yes}}{{no}}}}
  route_data = ${{extract{{servers}}{{$domain_data}}}}
  host_find_failed = defer
  transport = mailfleet_${{extract{{check}}{{$domain_data}}{{$value}}fail}}
  no_more

"""
_INBOUND = f"""\
{ROUTER}:
  driver = manualroute
  domains = lsearch;{ROUTES}
  route_data = ${{extract{{servers}}{{$domain_data}}}}
  host_find_failed = defer
  transport = mailfleet_${{if bool{{{_FROM_ENFORCED}}}{{encrypt}}{{${{extract{{{_BY_ARRIVAL}}}{{$domain_data}}{{$value}}fail}}}}}}
  no_more
"""
_OURS = "mailfleet_"
_ENFORCED = "mailfleet_enforced"
_OVER_TLS = "mailfleet_over_tls"
_OF_A_MESSAGE = re.compile(r"\$(?:\w|\{\w+\})")  # a variable
_ROUTER_HEADS = re.compile(r"^(\S+) router:$", re.MULTILINE)
_FOR_ALL_MAIL = {"senders": "", "local_parts": ""}
"""Options of a router of ours that takes all mail of its domains."""
_AS_WRITTEN = {
    "senders": "",
    "condition": "",
    "local_parts": "",
    "transport": _INBOUND.partition("transport = ")[2].split("\n")[0],
}
"""Options of our router that decide about the way, as they are written."""
# The pattern is an address, because Exim would look a plain domain up as a whole address and never find it.
_RETRY = "".join(f"*@lsearch;{table}  *  F,2h,2m; F,365d,15m\n" for table in (ROUTES, RECIPIENTS))
_SENDER_ACL_TEXT = f"defer message = 451 4.7.0 {ENFORCED_SENDER}\n"
_TLS_ONLY_ACL_TEXT = "defer message = 450 4.7.0 Session encryption is required of this mail server\n"
_HIDDEN_FROM = "<; ! "
_ACCEPTED = "+local_domains:+relay_to_domains"


class EximGateway:
    """Adapter for a gateway that is this host's Exim, Debian's configuration split or unsplit."""

    name = "exim"  # one lock and one journal for one configuration
    title = "an Exim gateway"
    modes = MODES
    verifying_modes: Sequence[str] = ()
    limits: Mapping[str, str] = {}
    reads_files_unasked = False
    keeps_names = True
    holds_own_floor = True
    plaintext_at_once = True
    softens_refusals = False  # a 530 bounces; Exim has no filter for replies

    def __init__(self, run: Runner, settings: Settings, own_port: Target, may_split: bool = False) -> None:
        """Prepare only. own_port: the port for mail from the internet. may_split: whether an unsplit configuration may be moved."""
        self._run = run
        self._settings = settings
        self.own_port = own_port
        self._may_split = may_split
        self._exim = Exim(run, lambda _planned, target: prove_answer(target, settings))
        self._known: dict[str, Optional[bytes]] = {}  # path -> the content that the running daemon uses

    def transaction(self, store: str) -> Transaction:
        """Return the transaction on the files of this Exim."""
        return Transaction(self, store)

    def require_running(self) -> None:
        """Raise EngineError unless Debian's Exim runs, reads what Debian generates, and answers on its own port."""
        if plain := self._exim.plain_file():
            raise EngineError(
                f"Exim reads {plain}, not Debian's generated configuration; a gateway with one plain configuration file is not supported "
                "yet: use Debian's there, or another gateway"
            )
        self._exim.require_running()
        require_answer(self.own_port, self._settings)

    def version(self) -> str:
        """Return the version of Exim."""
        return self._exim.version()

    def files(self) -> tuple[str, ...]:
        """Return the files that plan() depends on; some may not exist."""
        ours = (REGISTRY, ROUTES, SENDERS, RECIPIENTS, SENDER_ACL, TLS_ONLY_ACL)
        texts = (
            SPLIT_FILES.values() if self._exim.split else (*(f"{DIRECTORY}/{name}" for name in SPLIT_FILES), TEMPLATE)
        )
        return (*self._exim.files(), *ours, *texts)

    def left(self) -> list[str]:
        """Return the files and directories that the collection left on this host for Exim."""
        return self._exim.left()

    def observe(self) -> Mapping[str, Any]:
        """Return C(listeners) and C(transports) as plain data. Raises EngineError."""
        return self._exim.observe()

    def read(self, wanted: Sequence[Mapping[str, Any]] = ()) -> GatewayState:
        """Return the state that the record on this host holds."""
        del wanted
        return load_file(REGISTRY)

    def prepare(self, state: GatewayState) -> Change:
        """Return an empty change: there is one daemon, and it runs already."""
        return Change((), ())

    def plan(self, state: GatewayState) -> Change:
        """Return the tables, routers, transports and lists that make Exim hold this state, and the record of it."""
        if state == GatewayState() and not Path(DIRECTORY).exists():
            return Change((), ())
        images = [
            FileImage(ROUTES, routes(state.email_configs.values()).encode()),
            FileImage(SENDERS, senders(state).encode()),
            FileImage(RECIPIENTS, recipients(state).encode()),
            FileImage(SENDER_ACL, (_HEADER + _SENDER_ACL_TEXT).encode()),
            FileImage(TLS_ONLY_ACL, (_HEADER + _TLS_ONLY_ACL_TEXT).encode()),
        ]
        texts = self._sections(state)
        moves = self._may_split and not self._exim.split
        split = self._exim.split or moves
        paths = SPLIT_FILES if split else {name: f"{DIRECTORY}/{name}" for name in SPLIT_FILES}
        source = self._most_private()
        for name, text in texts.items():
            # seen is that of another path
            images.append(
                replace(source, path=paths[name], content=(_HEADER + text).encode("utf-8", "surrogateescape"), seen="")
            )
        if not split:
            self._refuse_new_lines([name for name, text in texts.items() if text])
        if moves:
            images += self._moved_macros(state)
            images = list({one.path: one for one in (*scheme.move(self._run, self._paths), *images)}.values())
        else:
            images += self._exim.macro_images(self._macros(state, self._exim))
        for image in images:
            self._known.setdefault(image.path, FileImage.read(image.path).content)
        return replace(change_with_record(images, REGISTRY, state), kept=(FileImage.read(GENERATED),))

    def _moved_macros(self, state: GatewayState) -> list[FileImage]:
        """Return the local macros of the configuration that will be split."""
        if not scheme.was_split(self._paths):
            return self._exim.macro_images(self._macros(state, self._exim), path=self._paths.macros[1])
        exim = Exim(self._run, lambda *_: None, will_be_split=True)
        return exim.macro_images(self._macros(state, exim))

    @property
    def _paths(self) -> scheme.Paths:
        return scheme.Paths(CONFIG_DIR, SETTINGS, DIRECTORY)

    @staticmethod
    def _refuse_new_lines(names: Sequence[str]) -> None:
        """Raise EngineError if the template lacks an include line. Those that an older version has put there may stay."""
        lines = (FileImage.read(TEMPLATE).content or b"").decode("utf-8", "surrogateescape").splitlines()
        if any(f".include {DIRECTORY}/{name}" not in lines for name in names):
            raise scheme.refusal(TEMPLATE)

    def next_hops(self, domain: str, state: GatewayState) -> Sequence[Target]:
        """Return the configured servers of the domain; without any, the hosts to which Exim routes its mail now."""
        if servers := self._servers_of(state.recipients_enforced[domain], state):
            return servers
        _status, out, _err = self._run(["exim4", "-bt", f"postmaster@{domain}"])
        found = re.findall(r"^ +host (\S+) +\[([^\]]+)\](?:.* port=(\d+))?", out, re.MULTILINE)
        return [Target(name, int(port or 25)) for name, _address, port in dict.fromkeys(found)]

    @staticmethod
    def _servers_of(one: EnforcedDomain, state: GatewayState) -> Sequence[Target]:
        """Return the configured servers of an enforced domain; none if Exim looks them up."""
        owner = state.owner_of(one.domain)
        return one.servers or (owner.servers if owner else ())

    def roots(self, state: GatewayState) -> str:
        """Return the path of the roots, empty for the system's. Raises EngineError if Exim cannot read the file."""
        if state.ca_file:
            self._exim.require_readable(state.ca_file, "no certificate could be checked")
        return state.ca_file

    def relay_hosts(self) -> Sequence[Target]:
        """Return the smart hosts; none if Exim looks up the MX of each domain."""
        return self._exim.next_hops()

    def accepts(self, domains: Sequence[str]) -> Mapping[str, Optional[bool]]:
        """Return whether a domain is in Debian's lists local_domains or relay_to_domains; None without these lists.

        One program answers for all domains, a line for each. is_domain has kept other characters out of the expansion.
        """
        asked = [one for one in domains if is_domain(one)]
        answers: list[str] = []
        if asked:
            questions = [f"${{if match_domain{{{one}}}{{{_ACCEPTED}}}{{yes}}{{no}}}}" for one in asked]
            answers = self._run(["exim4", "-be", *questions])[1].splitlines()
        found = {}
        if len(answers) == len(asked):
            found = {one: {"yes": True, "no": False}.get(answer.strip()) for one, answer in zip(asked, answers)}
        return {one: found.get(one) for one in domains}

    def delivers(self, domains: Sequence[str]) -> Mapping[str, Optional[str]]:
        """Return the mode of the transport to which Exim's own routing leads; None if it leads to none over SMTP.

        C(exim -bt) routes as for mail that arrived in plaintext. What the table says of mail over TLS is asked with C(exim -be).
        """
        asked = [one for one in domains if is_domain(one)]
        if not asked:
            return {}
        _status, out, _err = self._run(["exim4", "-bt", *(f"postmaster@{one}" for one in asked)])
        found = re.findall(r"^postmaster@(\S+)\n  router = (\w+), transport = (\S+)$", out, re.MULTILINE)
        routed = {domain: transport for domain, router, transport in found if router == ROUTER}
        over_tls = self._over_tls(list(routed))
        unsure = self._unsure([domain for domain, router, _transport in found if router.startswith(_OURS)])
        modes: dict[str, Optional[str]] = {}
        for domain, router, transport in found:
            if domain in unsure:
                continue
            word = transport.removeprefix("mailfleet_")
            level = self._exim.level_of(transport)
            if router != ROUTER:
                modes[domain] = _MODE_OF_LEVEL.get(level)
            elif level == _LEVEL_OF_WORD.get(word):
                modes[domain] = _MODE_OF_WORDS.get((word, over_tls.get(domain, "")))
        return {one: modes.get(one) for one in domains}

    def _routers(self) -> dict[str, dict[str, str]]:
        parts = _ROUTER_HEADS.split(self._run(["exim4", "-bP", "routers"])[1])
        return {name: parse_settings(text) for name, text in zip(parts[1::2], parts[2::2])}

    def _unsure(
        self, domains: Sequence[str], ours: Collection[str] = (ROUTER,), options: Mapping[str, str] = _AS_WRITTEN
    ) -> set[str]:
        """Return the domains of our routers whose mail may take another way than C(exim -bt) shows.

        It routes one message without a sender. A router of the administrator that comes first may look at the sender, at TLS or at
        headers, and our own may have been edited. options: those of our routers that are looked at, as they are written.
        """
        if not domains:
            return set()
        routers = self._routers()
        if any(
            name not in routers or any(routers[name].get(option, "") != value for option, value in options.items())
            for name in ours
        ):
            return set(domains)
        names = list(routers)
        before = names[: max(map(names.index, ours))]
        lists = [routers[name].get("domains", "") for name in before if not name.startswith(_OURS)]
        if any(not text or _OF_A_MESSAGE.search(text) for text in lists):
            return set(domains)
        asked = [(domain, text) for text in lists for domain in domains]
        questions = [f"${{if match_domain{{{domain}}}{{{text}}}{{yes}}{{no}}}}" for domain, text in asked]
        answers = self._run(["exim4", "-be", *questions])[1].splitlines() if questions else []
        if len(answers) != len(asked):
            return set(domains)
        return {domain for (domain, _text), answer in zip(asked, answers) if answer.strip() != "no"}

    def in_force(self, state: GatewayState) -> Answers:
        """Return what Exim prints of its lists, routers and transports, and what our tables hold."""
        printed = parse_settings(self._run(["exim4", "-bP", "acl_smtp_mail", "tls_advertise_hosts"])[1])
        asked = self._asks(state, printed.get("acl_smtp_mail"), SENDER_ACL, _SENDER_ACL_TEXT)
        table = FileImage.read(SENDERS).content
        found: dict[str, Mapping[str, Optional[bool]]] = {
            "inbound": {
                one.domain: every(
                    asked, as_written(table, senders(state), [f"{name}:" for name in spellings(one.domain)])
                )
                for one in state.enforced
                if one.direction == "inbound"
            },
            "outbound": self._recipients_in_force(state),
        }
        accept = state.outbound.accept if state.outbound else None
        if accept == "tls_only":
            answer = self._asks(state, printed.get("acl_smtp_mail"), TLS_ONLY_ACL, _TLS_ONLY_ACL_TEXT)
            found["accept"] = {accept: answer}
        elif accept == "plaintext":
            answers = {_hidden_from(state): True, "*": False}
            found["accept"] = {accept: answers.get(printed.get("tls_advertise_hosts", ""))}
        elif accept:
            found["accept"] = {accept: True}
        if state.outbound and state.outbound.send:
            found["send"] = {state.outbound.send: self._sends(state)}
        return found

    @staticmethod
    def _asks(state: GatewayState, printed: Optional[str], acl: str, text: str) -> Optional[bool]:
        """Whether a list of ours is asked before any other list for MAIL, and says what it should."""
        if printed is None:
            return None
        if acl not in printed:
            return False
        first = printed.startswith("".join(_acl_heads(state).values()))
        return every(first or None, as_written(FileImage.read(acl).content, _HEADER + text, [text]))

    def _recipients_in_force(self, state: GatewayState) -> dict[str, Optional[bool]]:
        """Return for each enforced recipient domain whether Exim routes it to the transport of its check."""
        enforced = state.recipients_enforced
        if not enforced:
            return {}
        out = self._run(["exim4", "-bt", *(f"postmaster@{one}" for one in enforced)])[1]
        ways = re.findall(r"^postmaster@(\S+)\n  router = (\w+), transport = (\S+)$", out, re.MULTILINE)
        right = [
            (domain, router)
            for domain, router, transport in ways
            if domain in enforced and self._checks(state, domain, transport)
        ]
        unsure = self._unsure([one for one, _router in right], {router for _one, router in right}, _FOR_ALL_MAIL)
        found: dict[str, Optional[bool]] = dict.fromkeys(enforced)
        found.update({domain: False for domain, _router, _transport in ways})
        found.update({domain: None if domain in unsure else True for domain, _router in right})
        return found

    def _checks(self, state: GatewayState, domain: str, transport: str) -> bool:
        """Whether a transport is the one for an enforced recipient domain, and insists on TLS. A smart host has one of its own."""
        one = state.recipients_enforced[domain]
        wanted = f"mailfleet_{one.certificate_check}"
        names = (wanted,) if self._servers_of(one, state) else (wanted, f"{wanted}_smarthost")
        if transport not in names or self._exim.level_of(transport) != "required":
            return False
        options = self._exim.options_of(transport)
        needed = {
            "trusted_chain": ("tls_verify_hosts",),
            "hostname": ("tls_verify_hosts", "tls_verify_cert_hostnames"),
        }
        return all(options.get(option) == "*" for option in needed.get(one.certificate_check, ()))

    def _sends(self, state: GatewayState) -> Optional[bool]:
        """Whether mail leaves with the wanted levels."""
        plain, over_tls = state.levels
        suffix = "_smarthost" if self._exim.has_smarthost else ""
        answers = [self._sends_with(f"remote_smtp{suffix}", plain)]
        if plain != over_tls:
            answers.append(any(name.startswith("mailfleet_over_tls_") for name in self._routers()))
            answers.append(self._sends_with(f"mailfleet_over_tls{suffix}", over_tls))
        return every(*answers)

    def _sends_with(self, transport: str, level: str) -> Optional[bool]:
        found = self._exim.level_of(transport)
        return found == level if found in _WORDS else None  # a level by host cannot be told

    def _over_tls(self, domains: Sequence[str]) -> dict[str, str]:
        """Return domain -> the word of the routes for mail that arrived over TLS."""
        if not domains:
            return {}
        questions = [f"${{extract{{over_tls}}{{${{lookup{{{one}}}lsearch{{{ROUTES}}}}}}}}}" for one in domains]
        answers = self._run(["exim4", "-be", *questions])[1].splitlines()
        return dict(zip(domains, map(str.strip, answers))) if len(answers) == len(domains) else {}

    def faults(self, state: GatewayState) -> Sequence[Fault]:
        """Return where a router, a transport, a table or a list does not do what the state says; see truth.py."""
        if state == GatewayState():
            return ()
        plain, over_tls = state.levels
        suffix = "_smarthost" if self._exim.has_smarthost else ""
        leaves = {f"remote_smtp{suffix}": plain, **({f"{_OVER_TLS}{suffix}": over_tls} if plain != over_tls else {})}
        wanted = EximWanted(
            state,
            ROUTER,
            _AS_WRITTEN,
            (ROUTES, _entries(routes(state.email_configs.values()))),
            (RECIPIENTS, _entries(recipients(state))),
            {mode: tuple(f"{_OURS}{_WORDS[one]}" for one in levels) for mode, levels in LEVELS.items()},  # type: ignore[misc]
            _ENFORCED,
            leaves if plain else {},
            _OVER_TLS if plain != over_tls else "",
        )
        reader = EximReads(
            self._exim.level_of,
            self._routers,
            self._unsure,
            lambda domain, transport: self._checks(state, domain, transport),
            lambda domain: self._of_sender(state, domain),
            lambda: self._accept_flaws(state),
            lambda: self._lets_pass(state),
        )
        below = self._below_the_floor(state) if state.min_tls else ()
        return [*EximTruth(self._run, self._wiring(), wanted, reader).faults(), *below]

    def _below_the_floor(self, state: GatewayState) -> Iterator[Fault]:
        """Yield that transports permit older TLS versions than was set, where each has a setting of its own."""
        library = Library.of(self._run(["exim4", "-bV"])[1])
        names = ["may", "encrypt", *(CERTIFICATE_CHECKS if state.recipients_enforced else ())]
        options = {f"{_OURS}{name}": self._exim.options_of(f"{_OURS}{name}") for name in names}
        held = {name: library.oldest(one.get(library.setting, "")) for name, one in options.items() if one}
        if library.is_of_transports and (
            low := [name for name, at in held.items() if at is None or at in older_than(state.min_tls)]
        ):
            said = f"the floor {state.min_tls} was set, and {', '.join(low)} may use older TLS versions"
            yield Fault(WHOLE, DIFFERS, said)

    def _wiring(self) -> Wiring:
        unsplit = {name: f"{DIRECTORY}/{name}" for name in SPLIT_FILES}
        here, elsewhere = (SPLIT_FILES, unsplit) if self._exim.split else (unsplit, SPLIT_FILES)
        edited = [str(one) for one in self._exim.edited()]
        return Wiring(self._exim.split, SETTINGS, TEMPLATE, here, elsewhere, edited)

    def _printed_now(self) -> dict[str, str]:
        return parse_settings(self._run(["exim4", "-bP", "acl_smtp_mail", "tls_advertise_hosts"])[1])

    def _of_sender(self, state: GatewayState, domain: str) -> Iterator[Flaw]:
        begin = "".join(_acl_heads(state).values())
        printed = self._printed_now().get("acl_smtp_mail")
        yield from of_list(printed, begin, SENDER_ACL, _HEADER + _SENDER_ACL_TEXT, [_SENDER_ACL_TEXT])
        lines = [f"{name}:" for name in spellings(domain)]
        yield from of_file(SENDERS, senders(state), lines, f"look for {domain} there")

    def _accept_flaws(self, state: GatewayState) -> Iterator[Flaw]:
        accept, printed = state.outbound.accept if state.outbound else None, self._printed_now()
        if accept == "tls_only":
            begin = "".join(_acl_heads(state).values())
            yield from of_list(
                printed.get("acl_smtp_mail"), begin, TLS_ONLY_ACL, _HEADER + _TLS_ONLY_ACL_TEXT, [_TLS_ONLY_ACL_TEXT]
            )
        elif accept == "plaintext" and (found := printed.get("tls_advertise_hosts", "")) != _hidden_from(state):
            yield Flaw(
                DIFFERS if found == "*" else NOT_TOLD,
                f"Exim offers STARTTLS to other hosts (tls_advertise_hosts: {found})",
            )

    def _lets_pass(self, state: GatewayState) -> str:
        """Return what the running daemon answers to plaintext mail of an enforced sender; empty if it defers it, or cannot be asked."""
        sender = next(one.domain for one in state.enforced if one.direction == "inbound")
        try:
            code, text = ask(self.own_port, self._settings, f"postmaster@{sender}", "postmaster")
        except EngineError:  # the test of the own port says why
            return ""
        return "" if 400 <= code < 500 else f"{code} {text}"

    def queued(self, domains: Collection[str]) -> Sequence[Waiting]:
        """Return the messages for recipients in these domains. There is one queue."""
        return queue.waiting(self._run, names_of(domains))

    def in_others(self) -> Sequence[Waiting]:
        """Return none: there is one daemon."""
        return ()

    def generated(self) -> Sequence[FileImage]:
        """Return the configuration that Exim reads."""
        return (FileImage.read(GENERATED),)

    def own_files(self) -> Sequence[FileImage]:
        """Return the tables, the record and the sections, as far as they exist."""
        ours = (REGISTRY, ROUTES, SENDERS, RECIPIENTS, SENDER_ACL, TLS_ONLY_ACL, REQUIRE_ACL)
        paths = (*ours, *SPLIT_FILES.values(), *(f"{DIRECTORY}/{name}" for name in SPLIT_FILES))
        return [image for image in map(FileImage.read, paths) if image.content is not None]

    def stripped(self, images: Mapping[str, FileImage]) -> Sequence[FileImage]:
        """Return the macros without those for the collection's access control lists, and the template without its include lines."""
        macros, template = (images.get(path) or FileImage.read(path) for path in (self._exim.macros_path, TEMPLATE))
        text = (macros.content or b"").decode("utf-8", "surrogateescape")
        found = [replace(macros, content=without_lists(text).encode("utf-8", "surrogateescape"))]
        if template.content is not None:
            text = template.content.decode("utf-8", "surrogateescape")
            lines = rf"(?m)^\.include {re.escape(DIRECTORY)}/\w+\n"
            found.append(replace(template, content=re.sub(lines, "", text).encode("utf-8", "surrogateescape")))
        return [one for one in found if one.content != FileImage.read(one.path).content or one.path in images]

    def remains(self) -> Sequence[str]:
        """Return none: all of it is files."""
        return ()

    def clear(self) -> None:
        """Remove the directory of the tables, if it is empty: without a record nobody else does."""
        remove_empty(DIRECTORY)

    def check(self) -> None:
        """Test the configuration with a trial daemon, unless only the tables have changed. Raises EngineError."""
        if not self._only_tables_differ():
            self._exim.check()

    def reload(self) -> None:
        """Reload Exim if its configuration has changed. Exim reads the tables without a reload."""
        if not self._only_tables_differ() and self._exim.is_stale():
            self._exim.reload()

    def resume(self) -> None:
        """Have Exim read the former configuration again, without generating it anew."""
        self._exim.resume()

    def service(self) -> str:
        """Return the unit of systemd that the daemon runs in; empty if that cannot be told."""
        return self._exim.service()

    def has_ended(self) -> bool:
        """Whether the daemon does not run."""
        return self._exim.has_ended()

    def start(self, service: str) -> None:
        """Start the daemon, unless somebody has stopped it. Raises NotRunningError and EngineError."""
        self._exim.start(service)

    def _only_tables_differ(self) -> bool:
        """Return whether, of the files that this object has planned, a table differs from what was there before, and nothing else."""
        differing = {path for path, content in self._known.items() if FileImage.read(path).content != content}
        return bool(differing) and differing <= {ROUTES, SENDERS, RECIPIENTS}

    def serves(self) -> bool:
        """Return whether the own port answers. Tests once, without waiting."""
        return handshake_one(self.own_port, self._settings).stage >= Stage.EHLO

    def prove(self) -> None:
        """Raise EngineError unless the own port answers and Exim's own routing of each domain is the wanted one."""
        prove_answer(self.own_port, self._settings, self.has_ended)
        state = self.read()
        enforced = state.recipients_enforced
        wanted = {
            f"postmaster@{domain}": f"mailfleet_{_WORDS[LEVELS[config.delivery_mode][0]]}"
            for config in state.email_configs.values()
            for domain in config.domains
        }
        wanted.update({f"postmaster@{one.domain}": f"mailfleet_{one.certificate_check}" for one in enforced.values()})
        # Exim may fail to look up their hosts at the moment, or may use a smart host.
        looked_up = {f"postmaster@{one.domain}" for one in enforced.values() if not self._servers_of(one, state)}
        if wanted:
            _status, out, err = self._run(["exim4", "-bt", *wanted])
            found = dict(re.findall(r"^(\S+)\n  router = \w+, transport = (\S+)$", out, re.MULTILINE))
            for address, transport in wanted.items():
                right = (transport, f"{transport}_smarthost", None) if address in looked_up else (transport,)
                if found.get(address) not in right:
                    raise EngineError(
                        f"Exim does not route {address} with the transport {transport}: "
                        f"{found.get(address) or err.strip() or out.strip()[:300]}"
                    )
        prove_refusal(self.own_port, self._settings, state, "postmaster")

    def _macros(self, state: GatewayState, exim: Exim) -> dict[str, Optional[str]]:
        """Return Debian's macros for the access control lists of senders, for offering STARTTLS, and for outbound TLS."""
        present = exim.macros()
        lists = _acl_heads(state)
        ours = NEXT_MAIL_ACL in present
        following = present.get(NEXT_MAIL_ACL if ours else MAIL_ACL)
        wanted: dict[str, Optional[str]] = {}
        if lists:
            value = "".join(lists.values()) + NEXT_MAIL_ACL + "}}" * len(lists)
            wanted = {NEXT_MAIL_ACL: following or DEFAULT_MAIL_ACL, MAIL_ACL: value}
        elif ours:
            wanted = {NEXT_MAIL_ACL: None, MAIL_ACL: None if following == DEFAULT_MAIL_ACL else following}
        wanted.update(self._advertise(state, present))
        if state.levels[0]:
            wanted.update(exim.outbound_macros(state.levels[0]))
        if state.levels[1] not in ("", "disabled"):
            wanted.update(exim.unverified_smarthost())
        return wanted

    @staticmethod
    def _advertise(state: GatewayState, present: Mapping[str, str]) -> dict[str, Optional[str]]:
        name = "MAIN_TLS_ADVERTISE_HOSTS"
        accept = state.outbound.accept if state.outbound else None
        held = present.get(name, "*")
        offered = ByPort.of(held).here  # it may be off for the mail port alone
        if accept is None or not offered:  # offered to nobody: only the role's option accept changes that
            return {}
        ours = held.startswith(_HIDDEN_FROM) and held.endswith(" ; *")
        if held != "*" and not ours:
            raise EngineError(
                f"{name} holds a list of yours ({held}); accept '{accept}' would replace it. Take it out first"
            )
        if accept == "plaintext":
            return {name: _hidden_from(state)}
        return {name: "*"} if ours else {}

    def _sections(self, state: GatewayState) -> dict[str, str]:
        """Return the text for each section of Exim's configuration: section -> text."""
        floor = self._floor(state)
        transports = "".join(
            _TRANSPORT.format(level=level, options=_ONE_MESSAGE + options + (floor if level != "none" else ""))
            for level, options in _LEVEL_OPTIONS.items()
        )
        outbound = ""
        routers = _EXPIRED
        smart = self._exim.has_smarthost
        if state.recipients_enforced:
            routers += _ENFORCED_SERVERS
            names = ("hubbed_hosts", *(("smarthost",) if smart else ("dnslookup_relay_to_domains", "dnslookup")))
            outbound += "".join(self._router_copies(names, "mailfleet_enforced", _TO_ENFORCED, f"mailfleet_{_CHECK}"))
            roots = self.roots(state) or "system"
            for check in CERTIFICATE_CHECKS:
                options = _INSIST + "  hosts_try_dane =\n" + _CHECK_OPTIONS[check].format(roots=roots) + floor
                transports += self._transport_copies(f"mailfleet_{check}", options, verify=False)
        if state.outbound and state.outbound.depends_on_arrival:
            condition = "${if def:tls_in_cipher{${if match_domain{$domain}{+relay_to_domains}{no}{yes}}}{no}}"
            names = ("hubbed_hosts", "smarthost" if smart else "dnslookup")
            outbound += "".join(self._router_copies(names, "mailfleet_over_tls", condition, "mailfleet_over_tls"))
            transports += self._transport_copies(
                "mailfleet_over_tls", _LEVEL_OPTIONS[_WORDS[state.levels[1]]], verify=True
            )
        return {"routers": routers + _INBOUND, "outbound": outbound, "transports": transports, "retry": _RETRY}

    def _floor(self, state: GatewayState) -> str:
        """Return the line that holds the floor for TLS versions; empty with OpenSSL, whose setting is that of the whole Exim."""
        library = Library.of(self._run(["exim4", "-bV"])[1]) if state.min_tls else None
        if library is None or not library.is_of_transports:
            return ""
        value = library.with_floor("", state.min_tls, "the gateway's own transports")
        return f"  {library.setting} = {value}\n"

    def _router_copies(self, names: Sequence[str], prefix: str, condition: str, transport: str) -> Iterator[str]:
        """Yield copies of Debian's routers to other hosts, each with a further condition and another transport."""
        text = self._debian("router")
        ignored = re.search(r"(?ms)^\.ifndef ROUTER_DNSLOOKUP_IGNORE_TARGET_HOSTS$.*?^\.endif$\n", text)
        yield ignored.group() if ignored else ""
        for name in names:
            stanza = sections.stanza(text, name, "router")
            stanza = re.sub(rf"\A{name}:", f"{prefix}_{name}:", stanza)
            suffix = "_smarthost" if name == "smarthost" else ""
            stanza = re.sub(r"(?m)^([ \t]*transport[ \t]*=).*$", rf"\1 {transport}{suffix}", stanza)
            yield f"{stanza.rstrip()}\n  condition = {condition}\n\n"

    def _transport_copies(self, name: str, options: str, verify: bool) -> str:
        """Return copies of Debian's transports with other TLS options. verify: keep their options about certificates."""
        text = self._debian("transport")
        copies = ""
        for original, copy in (("remote_smtp", name), ("remote_smtp_smarthost", f"{name}_smarthost")):
            stanza = sections.stanza(text, original, "transport")
            stanza = re.sub(rf"\A{original}:", f"{copy}:", stanza)
            taken = r"HOSTS_(?:AVOID|REQUIRE)_TLS" + ("" if verify else r"|TLS_VERIFY_(?:HOSTS|CERTIFICATES)")
            stanza = re.sub(rf"(?ms)^\.ifdef REMOTE_SMTP_(?:SMARTHOST_)?(?:{taken})$.*?^\.endif$\n", "", stanza)
            set_here = "|".join(re.findall(r"(?m)^ +(\w+)", options + _ONE_MESSAGE))
            stanza = re.sub(rf"(?m)^[ \t]*(?:{set_here})[ \t]*=.*\n", "", stanza)
            copies += f"{stanza.rstrip()}\n{_ONE_MESSAGE}{options}\n"
        return copies

    def _most_private(self) -> FileImage:
        return sections.most_private(CONFIG_DIR, self._exim.split)

    def _debian(self, kind: str) -> str:
        return sections.debian_text(CONFIG_DIR, self._exim.split, kind)


def routes(configs: Iterable[EmailConfig]) -> str:
    """Return the lsearch file of the recipient domains: TLS levels for mail that arrived in plaintext and over TLS, servers."""
    lines = []
    for config in sorted(configs, key=lambda one: one.name):
        plain, over_tls = (_WORDS[level] for level in LEVELS[config.delivery_mode])
        servers = ";".join(map(str, config.servers))
        lines += [
            f"{domain}: in_plaintext={plain} over_tls={over_tls} servers=<;{servers}\n" for domain in config.domains
        ]
    return _HEADER + "".join(lines)


def senders(state: GatewayState) -> str:
    """Return the lsearch file of the inbound enforced domains."""
    return _HEADER + "".join(f"{one}:\n" for one in inbound_senders(state.enforced))


def recipients(state: GatewayState) -> str:
    """Return the lsearch file of the outbound enforced domains: the certificate check, and the servers if they are configured."""
    lines = []
    for domain, one in sorted(state.recipients_enforced.items()):
        owner = state.owner_of(domain)
        servers = ";".join(map(str, one.servers or (owner.servers if owner else ())))
        lines.append(f"{domain}: check={one.certificate_check}{f' servers=<;{servers}' if servers else ''}\n")
    return _HEADER + "".join(lines)


def _entries(table: str) -> dict[str, str]:
    """Return domain -> its entry in the text of a table."""
    pairs = (line.partition(": ") for line in table.splitlines() if not line.startswith("#"))
    return {domain: entry for domain, _, entry in pairs}


def _acl_heads(state: GatewayState) -> dict[str, str]:
    """Return our lists for MAIL, in their order: list -> the text before that of the next one, which C(}}) ends.

    Mail that is submitted on this host without a network connection has no host address and no TLS.
    """
    conditions = {}
    if state.senders_enforced:
        conditions[SENDER_ACL] = f"{{bool{{{_FROM_ENFORCED}}}}}"
    if state.outbound and state.outbound.accept == "tls_only":
        conditions[TLS_ONLY_ACL] = (
            f"{{match_ip{{$sender_host_address}}{{<; {' ; '.join(state.outbound.mail_servers)}}}}}"
        )
    return {
        acl: f"${{if and{{{{!def:tls_in_cipher}}{{def:sender_host_address}}{condition}}}{{{acl}}}{{"
        for acl, condition in conditions.items()
    }


def _hidden_from(state: GatewayState) -> str:
    """Return the list of hosts to which STARTTLS is offered, if the mail servers are to send in plaintext."""
    servers = state.outbound.mail_servers if state.outbound else ()
    return f"{_HIDDEN_FROM}{f' ; {_HIDDEN_FROM[3:]}'.join(servers)} ; *"


def without_lists(macros: str) -> str:
    """Return the macros without those of the collection; the administrator's access control list for MAIL is back."""
    present = read_macros(macros)
    following = present.get(NEXT_MAIL_ACL)
    wanted: dict[str, Optional[str]] = {
        name: None for name in present if DIRECTORY in present[name] or REQUIRE_ACL in present[name]
    }
    if following is not None:
        ours = following in (DEFAULT_MAIL_ACL, "") or REQUIRE_ACL in following
        wanted = {**wanted, NEXT_MAIL_ACL: None, MAIL_ACL: None if ours else following}
    held = present.get("MAIN_TLS_ADVERTISE_HOSTS", "")
    if held.startswith(_HIDDEN_FROM):
        wanted["MAIN_TLS_ADVERTISE_HOSTS"] = "*"
    return set_macros(macros, wanted) if wanted else macros
