# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers of the default Postfix instance. Each has a smtp transport of its own in master.cf.

An own table, named in transport_maps, leads the peer's domains there. A peer that takes all mail is default_transport. No setting
of main.cf changes for other mail. Sources: postconf(5), transport(5), TLS_README. Needs Postfix 3.5 for a peer with several hosts.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Was
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import spellings
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import of_domains
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import load_file
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import Layout
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting, domain_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import former, queue
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Edits, Postconf, Service
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.delivered import Routes
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.domains import AcceptedDomains
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import OwnPaths, with_programs
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.server import (
    Postfix,
    at_least_one,
    peer_routes,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.top_level_domains import TOP_LEVEL_DOMAINS
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import EVERYTHING, PEER_TRANSPORT, Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, is_address
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_HEADER = "# Written by mailfleet.starttls; a change made here is lost.\n"
_LEVELS = {"none": "disabled", "may": "opportunistic"}
_MANY_HOSTS = (3, 5)
_BY_SENDER = ("sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps")
# Settings of main.cf that would choose the TLS level, the certificate or the next hop in the transport's place.
_NEUTRAL = {"smtp_tls_policy_maps": "", "smtp_tls_wrappermode": "no", "smtp_fallback_relay": ""}
# The same, but written only where main.cf sets them: newer versions warn of them, or older ones do not know them.
_NEUTRAL_IF_SET = {
    "smtp_tls_per_site": "",
    **{f"smtp_tls_{kind}{what}_file": "" for kind in ("", "d", "ec") for what in ("cert", "key")},
    "smtp_tls_trust_anchor_file": "",
}
# A resumed session has the client certificate of the session before it, so it may have a former one, or none.
_NO_FORMER_SESSION = {"smtp_tls_session_cache_database": "", "smtp_tls_connection_reuse": "no"}


class PostfixPeers:
    """Adapter for the peers of the default Postfix instance of this host."""

    name = "postfix"
    reads_files_unasked = True

    def __init__(self, run: Runner, port: int = 25, layout: Layout = DEBIAN) -> None:
        """Prepare only. port: the own listener."""
        self._run = with_programs(run, layout)
        self._layout = layout
        self._at = OwnPaths(layout.config_dir)
        self._postfix = Postfix(run, port, layout)
        self._postconf: Postconf = self._postfix.postconf

    def transaction(self, store: str) -> Transaction:
        """Return the transaction on the files of the default instance."""
        return Transaction(self._postfix, store)

    def require_running(self) -> None:
        """Raise EngineError unless Postfix 3.4 or newer is installed and its default instance runs."""
        self._postfix.require_running()

    def has_ended(self) -> bool:
        """Whether the default instance does not run. Raises EngineError."""
        return self._postfix.has_ended()

    def files(self) -> tuple[str, ...]:
        """Return main.cf, master.cf, the table of the routes, and the policy table that allows every name."""
        return (*self._postfix.files(), self._at.peer_table, self._at.any_name)

    def peers(self) -> list[dict[str, Any]]:
        """Return the peers, from the entries of master.cf and the routes that are in effect."""
        routes, found = self._routes(), []
        for one in self._postconf.services():
            if one.name.startswith(PEER_TRANSPORT) and one.name.endswith("/unix"):
                name = one.fields[0][len(PEER_TRANSPORT) :]
                hosts, domains = routes.get(one.fields[0], ((), ()))
                found.append({"name": name, "hosts": list(hosts), "domains": list(domains), **_settings_of(one)})
        return sorted(found, key=lambda one: str(one["name"]))

    def _routes(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Return transport -> next hops and domains, as far as main.cf uses them."""
        main = self._postconf.values("transport_maps", "default_transport", "relayhost")
        found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        lines = (
            peer_routes(self._at.peer_table)
            if f"texthash:{self._at.peer_table}" in main.get("transport_maps", "")
            else {}
        )
        for domain, value in sorted(lines.items()):
            if not domain.isascii():  # the other spelling of a domain
                continue
            transport, _, hops = value.partition(":")
            hosts, domains = found.get(transport, ((), ()))
            found[transport] = (hosts or _shown(hops), (*domains, domain))
        transport, _, hops = main.get("default_transport", "").partition(":")
        if transport.startswith(PEER_TRANSPORT):
            found[transport] = (_shown(hops or main.get("relayhost", "")), (EVERYTHING,))
        return found

    def roots(self) -> str:
        """Return smtp_tls_CAfile; empty if it is not set, for the system's roots."""
        return self._postconf.value_expanded("smtp_tls_CAfile")

    def faults(self, peers: Sequence[Peer]) -> list[str]:
        """Return why these peers cannot be set: what is local, routed by hand, or a gateway's, and what this version cannot do."""
        found = []
        version = tuple(int(one) for one in re.findall(r"\d+", self._postfix.version())[:2])
        domains = [domain for one in peers for domain in one.domains if domain != EVERYTHING]
        local = AcceptedDomains(self._run, self._postconf).local(domains)
        for one in peers:
            where = f"peer {one.name}"
            if len(one.hosts) > 1 and version < _MANY_HOSTS:
                found.append(f"{where} has several hosts, and this Postfix is older than 3.5; name one host")
            found += [
                f"{where}: the domain {domain} is delivered on this host, and would not be any more; take it out of the peer's domains"
                for domain in one.domains
                if local.get(domain)
            ]
            found += [f"{where}: {fault}" for fault in self._with_gateway(one)]
            found += [f"{where}: {fault}" for fault in self._by_hand(one)]
            keywords = self._postconf.value_expanded("smtp_discard_ehlo_keywords").lower()
            if one.level != "disabled" and "starttls" in re.split(r"[\s,]+", keywords):
                found.append(
                    f"{where}: smtp_discard_ehlo_keywords = {keywords} hides STARTTLS from this host; take starttls out of it first"
                )
        return found

    def _with_gateway(self, peer: Peer) -> Iterator[str]:
        """Yield what collides with the settings of a gateway on the same host."""
        state = load_file(self._at.registry)
        for domain in peer.domains:
            if (owner := state.owner_of(domain)) or domain in state.recipients_enforced:
                what = f"of the email config {owner.name}" if owner else "an enforced domain"
                yield f"this host is a gateway too, and {domain} is {what}; keep it in one of both"
        if state.outbound and state.outbound.depends_on_arrival:
            yield (
                f"this host is a gateway too, whose mail to the internet depends on how it arrived (send: {state.outbound.send}), so it "
                "leaves by another instance of Postfix; choose another starttls_send, or keep the peer on another host"
            )

    def _by_hand(self, peer: Peer) -> Iterator[str]:
        """Yield the routes of the administrator that lead elsewhere. One that leads to the same hosts is no fault."""
        routes = Routes(self._run, self._postconf)
        keys = [EVERYTHING if one == EVERYTHING else one for one in peer.domains]
        for table in routes.tables():
            if table == f"texthash:{self._at.peer_table}" or not keys:
                continue
            answers = routes.ask(table, keys)
            if answers is None:
                yield f"{table} of transport_maps cannot be asked, so its routes are not known; repair it first"
                continue
            for key, value in answers.items():
                transport, _, hops = value.partition(":")
                if transport not in ("", "smtp", "relay") or hosts_of(hops) != list(peer.hosts):
                    yield (
                        f"{table} of transport_maps leads {'all mail' if key == EVERYTHING else key} to {value}; take that entry out, or "
                        f"name the same hosts there"
                    )
        if EVERYTHING in peer.domains:
            yield from self._other_ways(peer)

    def _other_ways(self, peer: Peer) -> Iterator[str]:
        """Yield the settings that lead all mail elsewhere."""
        now = self._postconf.values("default_transport", "relayhost", *_BY_SENDER)
        for name in _BY_SENDER:
            if now.get(name):
                yield f"{name} = {now[name]} chooses other ways by sender; take it out first, or name domains in place of '*'"
        default = now.get("default_transport", "smtp")
        if default != "smtp" and not default.startswith(PEER_TRANSPORT):
            yield f"default_transport = {default} leads all mail elsewhere; take it out first: postconf -X default_transport"
        relayhost = now.get("relayhost", "")
        if relayhost and hosts_of(relayhost) != list(peer.hosts):
            yield (
                f"relayhost = {relayhost} leads all mail elsewhere; name the same hosts, in brackets, in relayhost and in the peer's hosts"
            )

    def plan(self, wanted: Sequence[Peer], gone: Collection[str], was: Mapping[str, Was]) -> Change:
        """Return the edits of master.cf, main.cf and the tables. What is not a peer's stays as it is, byte by byte."""
        services: dict[str, Optional[str]] = {f"{transport_of(one.name)}/unix": self._entry(one) for one in wanted}
        services.update({f"{transport_of(name)}/unix": None for name in gone})
        lines = self._lines(wanted, gone)
        main = self._main(wanted, gone, bool(lines), was)
        images = self._postconf.images(Edits(main, services=services))
        if main or any(one.content != FileImage.read(one.path).content for one in images):
            images = former.alike(self._postconf, images, was)
        master = next(one for one in images if one.path.endswith("master.cf"))
        needs_names = self._at.any_name.encode() in (master.content or b"")
        text = _HEADER + "".join(f"{domain} {value}\n" for domain, value in sorted(lines.items()))
        tables = [
            _table(self._at.peer_table, text if lines else None),
            _table(self._at.any_name, _any_name() if needs_names else None),
        ]
        # What refers to a table comes after it, and goes before it.
        ordered = [*(one for one in tables if one.content is not None), *reversed(images)]
        return Change.of([*ordered, *(one for one in tables if one.content is None)])

    def _lines(self, wanted: Sequence[Peer], gone: Collection[str]) -> dict[str, str]:
        """Return the lines of the table: domain -> transport and next hops."""
        ours = {transport_of(name) for name in (*gone, *(one.name for one in wanted))}
        lines = {
            domain: value
            for domain, value in peer_routes(self._at.peer_table).items()
            if value.partition(":")[0] not in ours
        }
        for one in wanted:
            value = f"{transport_of(one.name)}:{','.join(map(_next_hop, one.hosts))}"
            lines.update({name: value for domain in one.domains if domain != EVERYTHING for name in spellings(domain)})
        return lines

    def _main(
        self, wanted: Sequence[Peer], gone: Collection[str], table: bool, was: Mapping[str, Was]
    ) -> dict[str, Optional[str]]:
        """Return the edits of main.cf. table: whether there is a table of routes."""
        now = self._postconf.values("transport_maps", "default_transport", "relay_transport", "relayhost")
        edits: dict[str, Optional[str]] = {"transport_maps": placed(now["transport_maps"], table, self._at)}
        default = now["default_transport"].partition(":")[0]
        everything = next((one for one in wanted if EVERYTHING in one.domains), None)
        if everything:
            hops = "" if now["relayhost"] else f":{','.join(map(_next_hop, everything.hosts))}"
            edits["default_transport"] = f"{transport_of(everything.name)}{hops}"
            if now["relayhost"]:  # mail for relay_domains goes there, too
                edits["relay_transport"] = transport_of(everything.name)
        elif default in {transport_of(name) for name in (*gone, *(one.name for one in wanted))}:
            edits["default_transport"] = None
            if now["relay_transport"].partition(":")[0] == default:
                edits["relay_transport"] = None
        edits = {name: value for name, value in edits.items() if (value or "") != now[name]}
        back = [name for name, value in edits.items() if not value]
        if back:
            before = self._explicit_before(was)
            edits.update({name: before.get(name) for name in back})
        return edits

    def _explicit_before(self, was: Mapping[str, Was]) -> Mapping[str, str]:
        """Return the parameters that main.cf would set without the collection."""
        main = self._postfix.files()[0]
        if main not in was:
            return {}
        with self._postconf.staged({main: was[main].without}) as before:
            return before.explicit()

    def _entry(self, peer: Peer) -> str:
        """Return the entry of master.cf."""
        chroot = next((one.fields[4] for one in self._postconf.services() if one.name == "smtp/unix"), "n")
        options = {**self._tls(peer), **self._neutral()}
        if "tls_required_enable" in self._postconf.values("tls_required_enable"):
            options["tls_required_enable"] = "no"  # else a sender's header "TLS-Required: no" switches TLS off
        if peer.client_certificate:
            options.update(_NO_FORMER_SESSION)
        options["smtp_tls_chain_files"] = ",".join(one for one in (peer.client_key, peer.client_certificate) if one)
        options["smtp_tls_loglevel"] = at_least_one(self._postconf.values("smtp_tls_loglevel")["smtp_tls_loglevel"])
        words = " ".join(f"-o {name}={value}" for name, value in {**_NEUTRAL, **options}.items())
        return f"{transport_of(peer.name)} unix - - {chroot} - - smtp {words}"

    def _neutral(self) -> dict[str, str]:
        explicit = self._postconf.explicit()
        return {name: value for name, value in _NEUTRAL_IF_SET.items() if explicit.get(name)}

    def _tls(self, peer: Peer) -> dict[str, str]:
        """Return the options of the level and of the check."""
        if peer.level == "disabled":
            return {"smtp_tls_security_level": "none"}
        named = peer.servername or ("" if any(is_address(one.host) for one in peer.hosts) else "hostname")
        options = {"smtp_tls_security_level": "may", "smtp_tls_servername": named}
        if peer.level != "required":
            return options
        own = any(self._postconf.values("smtp_tls_CAfile", "smtp_tls_CApath").values())
        roots = {} if own else {"smtp_tls_CAfile": self._layout.ca_bundle}
        # Postfix has no level that verifies the chain without the name, so a policy table allows every name.
        chain = {"smtp_tls_security_level": "verify", "smtp_tls_policy_maps": f"regexp:{self._at.any_name}"}
        if peer.check == "trusted_chain":
            return {**options, **chain, **roots}
        if peer.check == "hostname":
            names = ":".join(peer.names) or "hostname"
            return {**options, "smtp_tls_security_level": "secure", "smtp_tls_secure_cert_match": names, **roots}
        if peer.pin_issuer_file:
            only = {"smtp_tls_CAfile": peer.pin_issuer_file, "smtp_tls_CApath": "", "tls_append_default_CA": "no"}
            return {**options, **chain, **only}
        if peer.pin_fingerprints:
            pairs = [":".join(re.findall("..", one)).upper() for one in peer.pin_fingerprints]
            return {
                **options,
                "smtp_tls_security_level": "fingerprint",
                "smtp_tls_fingerprint_digest": "sha256",
                "smtp_tls_fingerprint_cert_match": ",".join(pairs),
            }
        return {**options, "smtp_tls_security_level": "encrypt"}

    def waiting(self, domains: Collection[str], others: Collection[str]) -> Sequence[Waiting]:
        """Return the messages for these domains; EVERYTHING: all but what stays on the host, or goes to the others."""
        listed = queue.waiting(self._run, self._postconf.config_dir)
        if EVERYTHING not in domains:
            return of_domains(listed, domains)
        elsewhere = of_domains(listed, others)
        local = AcceptedDomains(self._run, self._postconf).local(sorted({domain_of(one.recipient) for one in listed}))
        return [one for one in listed if one not in elsewhere and not local.get(domain_of(one.recipient))]

    def prove(self, wanted: Sequence[Peer]) -> None:
        """Raise EngineError unless Postfix's own tables lead the domains to the transports."""
        routes = Routes(self._run, self._postconf)
        for one in wanted:
            domains = [domain for domain in one.domains if domain != EVERYTHING]
            for domain, transport in routes.transports(domains).items():
                if transport != transport_of(one.name):
                    raise EngineError(
                        f"Postfix leads mail for {domain} to {transport or 'its usual way'}, not to {transport_of(one.name)}"
                    )


def transport_of(name: str) -> str:
    """Return the transport of a peer, as master.cf and the log show it."""
    return f"{PEER_TRANSPORT}{name}"


def placed(present: str, wanted: bool, at: OwnPaths) -> str:
    """Return transport_maps with the table of the peers, or without it: first, but behind the table of a gateway's email configs.

    The administrator's tables keep their order behind it.
    """
    ours = f"texthash:{at.peer_table}"
    there = re.search(rf"(?<![^\s,]){re.escape(ours)}(?![^\s,])", present)
    if wanted == bool(there):
        return present
    if not wanted:
        return re.sub(rf"(?<![^\s,]){re.escape(ours)}(?:[\s,]+|\Z)", "", present).rstrip(", ")
    table = f"texthash:{at.transport_map}"
    gateway = re.match(rf"{re.escape(table)}(?:[\s,]+|\Z)", present)
    first, rest = (table, present[gateway.end() :]) if gateway else ("", present)
    return ", ".join(one for one in (first, ours, rest) if one)


def hosts_of(hops: str) -> Optional[list[Target]]:
    """Read next hops in brackets, as transport_maps and relayhost have them; None if one of them names a domain, or is not understood."""
    found = []
    for hop in re.split(r"[\s,]+", hops.strip()):
        match = re.fullmatch(r"\[(?:ipv6:)?([^\]]+)\](?::(\w+))?", hop, re.IGNORECASE)
        if not match:
            return None
        try:
            port = match[2] or "25"
            number = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
            found.append(Target.parse(f"[{match[1]}]:{number}".lower()))
        except (ValueError, OSError):
            return None
    return found


def _shown(hops: str) -> tuple[str, ...]:
    hosts = hosts_of(hops)
    return tuple(map(str, hosts)) if hosts is not None else tuple(re.split(r"[\s,]+", hops))


def _next_hop(host: Target) -> str:
    return f"[{host.host}]:{host.port}"


def _table(path: str, text: Optional[str]) -> FileImage:
    return FileImage(path, None if text is None else text.encode())


def _any_name() -> str:
    return f"{_HEADER}/./ verify match={':'.join(f'.{name}' for name in TOP_LEVEL_DOMAINS)}\n"


def _settings_of(service: Service) -> dict[str, Any]:
    """Return what the entry of a peer says, in the words of a peer."""
    held = service.settings
    level = held.get("smtp_tls_security_level", "")
    files = [one for one in held.get("smtp_tls_chain_files", "").split(",") if one]
    names = held.get("smtp_tls_secure_cert_match", "").split(":")
    servername = held.get("smtp_tls_servername", "")
    pins = held.get("smtp_tls_fingerprint_cert_match", "").replace(":", "").lower().split(",")
    issuer = held.get("smtp_tls_CAfile", "") if "tls_append_default_CA" in held else ""
    checks = {"verify": "pin" if issuer else "trusted_chain", "secure": "hostname", "fingerprint": "pin"}
    return {
        "level": _LEVELS.get(level, "required"),
        "check": checks.get(level, "encryption_only"),
        "names": [one for one in names if one not in ("", "hostname")],
        "servername": "" if servername == "hostname" else servername,
        "client_certificate": files[-1] if files else "",
        "client_key": files[0] if len(files) > 1 else "",
        "pin_fingerprints": [one for one in pins if one],
        "pin_issuer_file": issuer,
    }
