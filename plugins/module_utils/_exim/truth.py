# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an Exim gateway does not do what its record says, read from Exim's own tools.

C(exim -bt) routes an address of each domain, C(exim -be) looks the tables up, C(exim -bP) prints routers and transports. A promise
holds if each part of its way does. Each part that does not is a cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import (
    DIFFERS,
    NOT_TOLD,
    WHOLE,
    Fault,
    Flaw,
    as_written,
    of_config,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS, EmailConfig, GatewayState

_LEVEL_WORDS = ("disabled", "opportunistic", "required")
_MOST = 5
"""How many domains are named."""
_WAY = re.compile(r"^postmaster@(\S+)\n  router = (\w+), transport = (\S+)$", re.MULTILINE)
_NO_WAY = re.compile(r"^postmaster@(\S+) (.*)$", re.MULTILINE)


class Way(NamedTuple):
    """What C(exim -bt) shows for a domain."""

    router: str
    transport: str


@dataclass(frozen=True)
class Wiring:
    """Where Exim reads what the collection has put in front of Debian's routers.

    split: whether Debian's configuration is split. settings: the file that says so. template: that of the unsplit one. here: section -> the
    file that Exim reads in this scheme. elsewhere: that of the other scheme. edited: the sources that are newer than what Exim reads.
    """

    split: bool
    settings: str
    template: str
    here: Mapping[str, str]
    elsewhere: Mapping[str, str]
    edited: Sequence[str]

    def broken(self, section: str, name: str) -> str:
        """Return why Exim does not read the router of this name from its section; empty if its files have it."""
        here, there = (FileImage.read(one[section]).content for one in (self.here, self.elsewhere))
        if here is None and there is not None:
            scheme = "split" if self.split else "unsplit"
            return (
                f"{self.settings} has Exim read the {scheme} configuration now (dc_use_split_config), and the collection's routers are in "
                f"{self.elsewhere[section]}"
            )
        if here is None:
            return f"{self.here[section]} is missing"
        if not re.search(rf"(?m)^{name}\w*:", here.decode("utf-8", "replace")):
            return f"{self.here[section]} has no router {name}"
        if not self.split and f".include {self.here[section]}\n" not in self._template():
            return f"{self.template} does not include {self.here[section]}: it was replaced or edited"
        return ""

    @property
    def edits_template(self) -> bool:
        """Whether the template has include lines of the collection."""
        return any(f".include {path}\n" in self._template() for path in (*self.here.values(), *self.elsewhere.values()))

    def _template(self) -> str:
        return (FileImage.read(self.template).content or b"").decode("utf-8", "replace") + "\n"


@dataclass(frozen=True)
class EximWanted:
    """What the record makes of the gateway.

    router: that of the email configs. options: its options, as they are written. routes, recipients: a table, and domain -> its entry.
    transports: mode -> those for mail that arrived in plaintext and over TLS. enforced: how the routers of enforced recipient domains
    begin. leaves: transport -> TLS level of mail to the internet. by_arrival: how the routers begin that choose it; empty if none do.
    """

    state: GatewayState
    router: str
    options: Mapping[str, str]
    routes: tuple[str, Mapping[str, str]]
    recipients: tuple[str, Mapping[str, str]]
    transports: Mapping[str, tuple[str, str]]
    enforced: str
    leaves: Mapping[str, str]
    by_arrival: str


@dataclass(frozen=True)
class EximReads:
    """What the adapter reads in its own way.

    level: transport -> its TLS level. routers: router -> its options, in Exim's order. unsure: domains, routers, options -> those
    whose mail may take another way than shown. checks: whether a transport keeps what was set for an enforced recipient domain.
    of_sender: why an enforced sender is not asked for TLS. accepts: why the mail servers are received in another way.
    refuses: why the running daemon does not refuse enforced senders; empty if it does.
    """

    level: Callable[[str], str]
    routers: Callable[[], Mapping[str, Mapping[str, str]]]
    unsure: Callable[[Sequence[str], Sequence[str], Mapping[str, str]], Iterable[str]]
    checks: Callable[[str, str], bool]
    of_sender: Callable[[str], Iterable[Flaw]]
    accepts: Callable[[], Iterable[Flaw]]
    refuses: Callable[[], str]


class EximTruth:
    """The differences of one gateway."""

    def __init__(self, run: Runner, wiring: Wiring, wanted: EximWanted, reader: EximReads) -> None:
        """Prepare only."""
        self._run, self._wiring, self._wanted, self._reader = run, wiring, wanted, reader
        self._routers: Mapping[str, Mapping[str, str]] = {}
        self._ways: dict[str, Way] = {}
        self._said: dict[str, str] = {}
        self._entries: dict[tuple[str, str], Optional[str]] = {}

    def faults(self) -> Iterator[Fault]:
        """Yield where the gateway does not do what was set, each with its flaws. Raises EngineError if Exim cannot read its files."""
        state = self._wanted.state
        self._routers = self._reader.routers()
        self._read([*self._wanted.routes[1], *(one for one in state.recipients_enforced)])
        for name, config in sorted(state.email_configs.items()):
            yield from _fault(of_config(name), self._of_config(config))
        refusal = self._reader.refuses() if state.senders_enforced else ""
        for one in state.enforced:
            inbound = one.direction == "inbound"
            flaws = [*(self._reader.of_sender(one.domain) if inbound else self._of_recipient(one.domain))]
            if inbound and refusal and not flaws:
                flaws = [
                    Flaw(
                        DIFFERS, f"Exim does not refuse such mail, so it may not have read its configuration: {refusal}"
                    )
                ]
            yield from _fault(f"{one.direction} {one.domain}", flaws)
        if state.outbound and state.outbound.accept:
            yield from _fault("accept", self._reader.accepts())
        if state.outbound and state.outbound.send:
            yield from _fault("send", self._leaves())
        yield from self._pending()

    def _pending(self) -> Iterator[Fault]:
        """Yield what the next reload would activate: edits that Exim has not read yet."""
        missing = self._wiring.broken("routers", self._wanted.router) if self._wanted.state.email_configs else ""
        if missing and self._wanted.router in self._routers:
            yield Fault(WHOLE, DIFFERS, f"at its next start Exim does not do what was set any more: {missing}")
        if self._wiring.edits_template:
            said = f"{self._wiring.template} has lines of an older version of the collection, and is a conffile of exim4-config"
            yield Fault(WHOLE, "conffile_edited", said)
        if not missing and self._wiring.edited:
            files = self._wiring.edited
            yield Fault(
                WHOLE, "edits_not_read", f"{_some(files)} changed after Exim's configuration was generated last"
            )

    def _read(self, domains: Sequence[str]) -> None:
        """Route an address of each domain, and look each domain up in the tables. A program for each of both."""
        if not domains:
            return
        asked = list(dict.fromkeys(domains))
        out = self._run(["exim4", "-bt", *(f"postmaster@{one}" for one in asked)])[1]
        self._ways = {domain: Way(router, transport) for domain, router, transport in _WAY.findall(out)}
        self._said = {domain: text.strip() for domain, text in _NO_WAY.findall(out)}
        keys = [(path, one) for path, entries in (self._wanted.routes, self._wanted.recipients) for one in entries]
        questions = [f"${{lookup{{{one}}}lsearch{{{path}}}{{$value}}{{}}}}" for path, one in keys]
        answers = self._run(["exim4", "-be", *questions])[1].splitlines() if questions else []
        told = answers if len(answers) == len(keys) else [None] * len(keys)
        self._entries = {key: answer if answer is None else answer.strip() for key, answer in zip(keys, told)}

    def _of_config(self, config: EmailConfig) -> Iterator[Flaw]:
        wanted = self._wanted
        domains = [one for one in config.domains if one not in wanted.state.recipients_enforced]
        if not domains:
            return
        plain, over_tls = wanted.transports[config.delivery_mode]
        right = [one for one in domains if self._ways.get(one) == Way(wanted.router, plain)]
        yield from self._wired("routers", wanted.router)
        yield from self._entry(*wanted.routes, domains)
        yield from self._elsewhere([one for one in domains if one not in right], wanted.router)
        if wanted.router not in self._routers:
            return
        router = self._routers[wanted.router]
        for option, value in wanted.options.items():
            if router.get(option, "") != value:
                yield Flaw(DIFFERS, f"the router {wanted.router} has another option {option}")
        yield from self._levels(dict(zip((plain, over_tls), LEVELS[config.delivery_mode])))
        yield from self._unsure(right, [wanted.router], {})

    def _of_recipient(self, domain: str) -> Iterator[Flaw]:
        wanted = self._wanted
        yield from self._wired("routers", wanted.enforced)
        yield from self._entry(*wanted.recipients, [domain])
        way = self._ways.get(domain)
        if way is None or not way.router.startswith(wanted.enforced):
            yield from self._elsewhere([domain], wanted.enforced)
        elif not self._reader.checks(domain, way.transport):
            yield Flaw(DIFFERS, f"the transport {way.transport} does not insist on what was set")
        else:
            yield from self._unsure([domain], [way.router], {"senders": "", "local_parts": ""})

    def _leaves(self) -> Iterator[Flaw]:
        if self._wanted.by_arrival:
            yield from self._wired("outbound", self._wanted.by_arrival)
        for transport, level in self._wanted.leaves.items():
            found = self._reader.level(transport)
            if found in _LEVEL_WORDS and found != level:
                yield Flaw(DIFFERS, f"the transport {transport} has the TLS level '{found}'")
            elif found != level:
                yield Flaw(
                    NOT_TOLD, f"the TLS level of the transport {transport} depends on the host, or cannot be told"
                )

    def _wired(self, section: str, name: str) -> Iterator[Flaw]:
        """Yield why Exim has no router of this name."""
        if any(one.startswith(name) for one in self._routers):
            return
        why = self._wiring.broken(section, name)
        yield Flaw(
            DIFFERS, why or f"Exim has no router {name}: its configuration was not generated from the present files"
        )

    def _entry(self, path: str, entries: Mapping[str, str], domains: Iterable[str]) -> Iterator[Flaw]:
        """Yield the domains that have no entry in a table, or another one."""
        held = {one: self._entries.get((path, one)) for one in domains}
        if gone := [one for one, entry in held.items() if entry == ""]:
            yield Flaw(DIFFERS, f"{path} has no entry for {_some(gone)}")
        broken = [one for one, entry in held.items() if entry and entry.startswith("Failed:")]
        if broken:
            yield Flaw(DIFFERS, f"{path} cannot be looked up: {held[broken[0]]}")
        if other := [one for one, entry in held.items() if entry and one not in broken and entry != entries[one]]:
            yield Flaw(DIFFERS, f"{path} has another entry for {_some(other)}")
        if unknown := [one for one, entry in held.items() if entry is None]:
            yield Flaw(NOT_TOLD, f"{path} cannot be asked for {_some(unknown)}")

    def _elsewhere(self, domains: Sequence[str], ours: str) -> Iterator[Flaw]:
        """Yield where mail for these domains goes instead."""
        names = list(self._routers)
        first = next((names.index(one) for one in names if one.startswith(ours)), None)
        found: dict[str, list[str]] = {}
        for one in domains:
            way, said = self._ways.get(one), self._said.get(one, "")
            if way is None:
                found.setdefault(f"\0{said or 'no answer'}", []).append(one)
            else:
                before = first is not None and way.router in names and names.index(way.router) < first
                place = ", which comes before the collection's," if before else ""
                found.setdefault(
                    f"the router {way.router}{place} leads mail for \0 to the transport {way.transport}", []
                ).append(one)
        for text, some in found.items():
            begin, end = text.split("\0")
            if begin:
                yield Flaw(DIFFERS, f"{begin}{_some(some)}{end}")
            else:
                yield Flaw(NOT_TOLD, f"Exim leads mail for {_some(some)} nowhere: {end}")

    def _levels(self, levels: Mapping[str, str]) -> Iterator[Flaw]:
        for transport, level in levels.items():
            found = self._reader.level(transport)
            if found != level:
                why = f"has the TLS level '{found}'" if found else "is missing, or no transport over SMTP"
                yield Flaw(DIFFERS, f"the transport {transport} {why}")

    def _unsure(self, domains: Sequence[str], ours: Sequence[str], options: Mapping[str, str]) -> Iterator[Flaw]:
        if some := sorted(self._reader.unsure(domains, ours, options)):
            yield Flaw(NOT_TOLD, f"a router before the collection's may lead some mail for {_some(some)} elsewhere")


def _fault(what: str, flaws: Iterable[Flaw]) -> Iterator[Fault]:
    """Yield the fault of several flaws: it differs if one of them says so."""
    found = list(dict.fromkeys(flaws))
    certain = [one for one in found if one.code == DIFFERS]
    if found:
        yield Fault(what, DIFFERS if certain else NOT_TOLD, "; ".join(one.text for one in certain or found))


def of_list(printed: Optional[str], begin: str, acl: str, text: str, lines: Sequence[str]) -> Iterator[Flaw]:
    """Yield why a list of ours is not asked first about mail, or does not say what it should.

    printed: Exim's setting acl_smtp_mail. begin: how it begins. acl: the file of the list, text: its content, lines: those that count.
    """
    if printed is None:
        yield Flaw(NOT_TOLD, "Exim does not print its access control list for MAIL")
    elif acl not in printed:
        yield Flaw(DIFFERS, f"Exim's access control list for MAIL is another one: acl_smtp_mail does not name {acl}")
    elif not printed.startswith(begin):
        yield Flaw(NOT_TOLD, f"another list for MAIL is asked before {acl}")
    yield from of_file(acl, text, lines)


def of_file(path: str, text: str, lines: Sequence[str], missing: str = "it was edited") -> Iterator[Flaw]:
    """Yield why a file does not have these lines. text: the file as the collection writes it. missing: what that means."""
    held = as_written(FileImage.read(path).content, text, lines)
    if held is not True:
        yield Flaw(NOT_TOLD if held is None else DIFFERS, f"{path} is not as it was written: {missing}")


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_MOST])}{' and others' if len(names) > _MOST else ''}"
