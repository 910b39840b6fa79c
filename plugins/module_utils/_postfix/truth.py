# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a Postfix gateway does not do what its record says, read from all its instances and from the policy service.

A promise holds if each part of its way does: the tables and the transport of the first instance, the question, the answer to it, and
the instance that mail that arrived over TLS takes, with its own tables and transports. Each part that does not is a cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import (
    DIFFERS,
    NOT_TOLD,
    WHOLE,
    Fault,
    Flaw,
    of_config,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS, EmailConfig, GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import arrival_policy, policy_client
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.delivered import Routes, TableRoute
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.instances import Instance
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.pending import not_read_yet
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

MOST = 5
"""How many domains are named."""
INSTANCE_DIFFERS = "instance_differs"
# Settings that decide where mail of an instance goes, and who it says it is: another value is no matter of taste.
_MATTERS = re.compile(
    r"smtp_(sasl_|tls_(?!loglevel)|bind_address)|relayhost|default_transport|sender_dependent_|transport_maps"
)


@dataclass(frozen=True)
class Wanted:
    """What the record makes of the gateway.

    table: the path of our transport table. hops: email config's domain -> next hops, as transport(5) has them. checks: enforced
    recipient domain -> its transport. transport: mode -> its transport. destinations: arrival (1, 2) -> what the policy service
    answers. socket: that of the policy service. copied: the settings that the instances copy.
    """

    state: GatewayState
    table: str
    hops: Mapping[str, str]
    checks: Mapping[str, str]
    transport: Callable[[str], str]
    destinations: Mapping[int, str]
    socket: str
    copied: Mapping[str, str]


@dataclass(frozen=True)
class AdapterReads:
    """What the adapter reads in its own way.

    kind_of: configuration, transport -> kind of its TLS level, or None. fault: why an instance does not answer on its port, or nothing.
    lets_ask: flaws why what the policy service answers does not count. asked: flaws why mail for these domains, or all mail from
    enforced senders (None), is not asked about.
    """

    kind_of: Callable[[Postconf, str], Optional[str]]
    fault: Callable[[Instance], str]
    lets_ask: Callable[[], Iterable[Flaw]]
    asked: Callable[[Optional[Sequence[str]]], Iterable[Flaw]]
    is_shared: Callable[[str], bool]


class Truth:
    """The differences of one gateway. instances: those that exist, with their masters."""

    def __init__(
        self,
        run: Runner,
        first: Postconf,
        masters: Mapping[str, Optional[int]],
        instances: Sequence[Instance],
        wanted: Wanted,
        reader: AdapterReads,
    ) -> None:
        """Prepare only. masters: configuration directory -> process of its master, if it runs."""
        self._run, self._first, self._masters = run, first, masters
        self._instances, self._wanted, self._reader = instances, wanted, reader
        self._others = {one.arrival: Postconf(run, one.directory) for one in instances}
        self._known: dict[object, list[Flaw]] = {}
        self._tables = {one.config_dir: Routes(run, one) for one in (first, *self._others.values())}
        self._leads: dict[str, dict[str, Optional[TableRoute]]] = {}

    def faults(self) -> Iterator[Fault]:
        """Yield where the gateway does not do what was set, each with its flaws. Raises EngineError if main.cf cannot be read."""
        state = self._wanted.state
        for name, config in sorted(state.email_configs.items()):
            yield from _fault(of_config(name), self._of_config(config))
        for one in state.enforced:
            flaws = self._of_sender() if one.direction == "inbound" else self._of_recipient(one.domain)
            yield from _fault(f"{one.direction} {one.domain}", flaws)
        if state.outbound and state.outbound.depends_on_arrival:
            yield from _fault("send", [*self._by_arrival(None), *self._instance(1)])
        yield from self._not_read()
        for instance in self._instances:
            yield from self._copies(instance)

    def takes(self, arrival: int, domains: Sequence[str], transport: str) -> bool:
        """Return whether the policy service answers as it should, and the instance takes such mail and leads it to the transport."""
        context = arrival_policy.ENFORCED if arrival == 2 else arrival_policy.ARRIVAL
        return not [*self._answers(context), *self._through(arrival, domains, transport, None)]

    def _of_config(self, config: EmailConfig) -> Iterator[Flaw]:
        domains = [one for one in config.domains if one not in self._wanted.checks]
        transport, levels = self._wanted.transport(config.delivery_mode), LEVELS[config.delivery_mode]
        if not domains:
            return
        yield from self._routes("", self._first, domains, transport, levels[0])
        if config.depends_on_arrival:
            yield from self._by_arrival(domains)
            yield from self._through(1, domains, transport, levels[1])
        if self._wanted.state.senders_enforced:
            yield from self._through(2, domains, transport, "required")

    def _of_sender(self) -> Iterator[Flaw]:
        yield from self._reader.lets_ask()
        yield from self._reader.asked(None)
        yield from self._answers(arrival_policy.ENFORCED)
        yield from self._instance(2)

    def _of_recipient(self, domain: str) -> Iterator[Flaw]:
        transport = self._wanted.checks[domain]
        yield from self._routes("", self._first, [domain], transport, None)
        for arrival in (1, 2):
            if any(one.arrival == arrival for one in self._instances):
                yield from self._through(arrival, [domain], transport, None, whole=False)

    def _by_arrival(self, domains: Optional[Sequence[str]]) -> Iterator[Flaw]:
        yield from self._reader.lets_ask()
        yield from self._reader.asked(domains or [])
        yield from self._answers(arrival_policy.ARRIVAL)

    def _through(
        self, arrival: int, domains: Sequence[str], transport: str, level: Optional[str], whole: bool = True
    ) -> Iterator[Flaw]:
        """Yield why mail for these domains does not leave another instance as wanted. whole: also why the instance does nothing."""
        broken = self._instance(arrival)
        if whole:
            yield from broken
        instance = next((one for one in self._instances if one.arrival == arrival), None)
        if instance:
            where = f" of the instance {instance.name}"
            yield from self._routes(where, self._others[arrival], domains, transport, level)

    def _routes(
        self, where: str, postconf: Postconf, domains: Sequence[str], transport: str, level: Optional[str]
    ) -> Iterator[Flaw]:
        """Yield why the tables of an instance do not lead there, or why that transport has another level. level: its kind."""
        routes = self._tables[postconf.config_dir]
        ours, tables = f"texthash:{self._wanted.table}", routes.tables()
        named = ours in tables
        if not named:
            yield Flaw(DIFFERS, f"transport_maps{where} does not name {self._wanted.table}")
        said: dict[tuple[str, str, str], list[str]] = {}  # code, text before the domains, and behind them
        for domain, found in self._found(postconf.config_dir, domains).items():
            hops = self._wanted.hops.get(domain)
            what: Optional[tuple[str, str, str]] = None
            if found is None:
                what = (NOT_TOLD, f"a table of transport_maps{where} cannot be asked for", f": {routes.refusal}")
            elif not found.table:
                what = (DIFFERS, f"{self._wanted.table} has no entry for", "") if named else None
            elif found.transport != transport and named and tables.index(ours) < tables.index(found.table):
                what = (
                    DIFFERS,
                    f"{self._wanted.table} has no entry for",
                    f", so {found.table} leads to the transport '{found.transport}'{where}",
                )
            elif found.transport != transport:
                what = (DIFFERS, f"{found.table} leads mail for", f" to the transport '{found.transport}'{where}")
            elif hops is not None and _words(found.hop) != _words(hops):
                what = (DIFFERS, f"{found.table} leads mail for", f" to {found.hop}, not to its mail servers")
            if what:
                said.setdefault(what, []).append(domain)
        for (code, begin, end), some in said.items():
            yield Flaw(code, f"{begin} {', '.join(some[:MOST])}{' and others' if len(some) > MOST else ''}{end}")
        kind = self._reader.kind_of(postconf, transport) if level is not None else None
        if level is not None and kind != level:
            why = (
                f"has the TLS level of '{kind}'"
                if kind
                else "has a TLS level that cannot be told, or is no transport over SMTP"
            )
            yield Flaw(DIFFERS if kind else NOT_TOLD, f"the transport {transport} in master.cf{where} {why}")

    def _found(self, directory: str, domains: Sequence[str]) -> dict[str, Optional[TableRoute]]:
        """Return where the tables of an instance lead these domains. All domains of the record are looked up at once."""
        state, known = self._wanted.state, self._leads.setdefault(directory, {})
        missing = [one for one in domains if one not in known]
        if missing:
            every = () if known else (domain for one in state.email_configs.values() for domain in one.domains)
            known.update(self._tables[directory].found(list(dict.fromkeys([*missing, *every]))))
        return {one: known[one] for one in domains}

    def _instance(self, arrival: int) -> list[Flaw]:
        """Return why an instance takes no mail."""
        if ("instance", arrival) not in self._known:
            found = next((one for one in self._instances if one.arrival == arrival), None)
            self._known["instance", arrival] = [*self._stopped(found)]
        return self._known["instance", arrival]

    def _stopped(self, instance: Optional[Instance]) -> Iterator[Flaw]:
        if instance is None:
            yield Flaw(DIFFERS, "a further Postfix instance is missing: its directory in /etc has no main.cf")
        elif not instance.runs:
            why = f": the unit {instance.unit} is masked" if instance.is_masked else ""
            yield Flaw(DIFFERS, f"the instance {instance.name} does not run{why}")
        elif reason := self._reader.fault(instance):
            yield Flaw(DIFFERS, f"the instance {instance.name} does not answer on {instance.port}: {reason}")
        if instance and instance.runs and instance.has_unit and not instance.is_enabled:
            yield Flaw(
                DIFFERS, f"the instance {instance.name} would not start at the next boot: {instance.unit} is disabled"
            )

    def _answers(self, context: str) -> list[Flaw]:
        """Return why the answers of the policy service are not ours. It is asked once for a question."""
        if context not in self._known:
            self._known[context] = [*self._wrong_answers(context)]
        return self._known[context]

    def _wrong_answers(self, context: str) -> Iterator[Flaw]:
        enforced = context == arrival_policy.ENFORCED
        sender = next((one.domain for one in self._wanted.state.enforced if one.direction == "inbound"), "example.com")
        common = {"policy_context": context, "sender": f"postmaster@{sender}", "recipient": "postmaster@example.com"}
        filtered = f"FILTER {self._wanted.destinations[2 if enforced else 1]}"
        wanted = {"TLSv1.3": filtered, "": arrival_policy.REFUSAL if enforced else "DUNNO"}
        questions = [{**common, "encryption_protocol": one} for one in wanted]
        try:
            answers = policy_client.ask(self._wanted.socket, questions)
        except EngineError as error:
            yield Flaw(DIFFERS, f"the policy service does not work: {error}")
            return
        for (protocol, right), answer in zip(wanted.items(), answers):
            if answer != right:
                how = "over TLS" if protocol else "in plaintext"
                yield Flaw(DIFFERS, f"the policy service answers '{answer}' for mail {how}, not '{right}'")

    def _not_read(self) -> Iterator[Fault]:
        """Yield the files that were edited, and that the running instance has not read since."""
        for directory, master in self._masters.items():
            if files := not_read_yet(directory, master):
                yield Fault(WHOLE, "edits_not_read", f"{', '.join(files)} changed after Postfix has read it last")

    def _copies(self, instance: Instance) -> Iterator[Fault]:
        """Yield the settings that an instance copied, and that the first one has changed since."""
        present = self._others[instance.arrival].explicit()
        wanted = self._wanted.copied
        names = {*wanted, *(one for one in present if self._reader.is_shared(one))}
        differing = sorted(one for one in names if wanted.get(one) != present.get(one))
        for code, some in (
            (DIFFERS, [one for one in differing if _MATTERS.match(one)]),
            (INSTANCE_DIFFERS, [one for one in differing if not _MATTERS.match(one)]),
        ):
            if some:
                said = f"the instance {instance.name} has other values than the first one in {', '.join(some)}"
                yield Fault(WHOLE, code, said)


def _fault(what: str, flaws: Iterable[Flaw]) -> Iterator[Fault]:
    """Yield the fault of several flaws: it differs if one of them says so."""
    found = list(dict.fromkeys(flaws))
    certain = [one for one in found if one.code == DIFFERS]
    if found:
        yield Fault(what, DIFFERS if certain else NOT_TOLD, "; ".join(one.text for one in certain or found))


def _words(hops: str) -> list[str]:
    return [one for one in re.split(r"[,\s]+", hops.lower()) if one]
