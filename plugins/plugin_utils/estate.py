# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted state of a fleet, read from the inventory: the hosts of the run, and the delivery of their mail."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    DEFAULT_MODE,
    LEVELS,
    MODES,
    EmailConfig,
    is_absent,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import merge
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import SEND_ONLY
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import (
    AUTO,
    DEFAULT_GATEWAY,
    PRODUCTS,
    product_of,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import require_cryptography
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import require_dnspython
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.faults import fault_in
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peers import (
    WantedPeer,
    host_at_target,
    read_peers,
    refuse_plaintext,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import check_variables

HostVars = Mapping[str, Mapping[str, Any]]
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SLICE = "a slice of an AWX job lacks hosts: set job_slice_count of its template to 1"
NEED_DNS = {"dane", "mta_sts"}
"""The checks for which the controller asks the DNS."""


@dataclass(frozen=True)
class Delivery:
    """An email config, and the inventory names of its mail servers.

    names_mode: whether the inventory sets its delivery mode. If it does not, the gateway keeps its current mode.
    gateways: the gateways that are themselves among its mail servers. A route to itself would be a loop.
    """

    config: EmailConfig
    hosts: tuple[str, ...]
    names_mode: bool = True
    gateways: tuple[str, ...] = ()

    @property
    def is_routed(self) -> bool:
        """Whether the gateways get its route. Without a mode, a gateway that is its mail server keeps its own delivery."""
        return self.names_mode or not self.gateways

    def to_json(self) -> dict[str, Any]:
        """Return plain data. C(email_config) is one entry of the option C(email_configs) of inbound_tls_mode."""
        config = self.config.to_dict()
        if not self.names_mode:
            del config["delivery_mode"]
        return {"email_config": config, "hosts": list(self.hosts), "gateways": list(self.gateways)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Delivery:
        """Read the result of to_json. Raises EngineError."""
        config = data["email_config"]
        named = "delivery_mode" in config
        return cls(EmailConfig.from_dict(config), tuple(data["hosts"]), named, tuple(data.get("gateways") or ()))


@dataclass(frozen=True)
class RemovedConfig:
    """An email config that the inventory wants to be gone (C(state: absent)). domains: none if the inventory names none."""

    name: str
    domains: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data: one entry of the option C(email_configs) of inbound_tls_mode."""
        return {"name": self.name, "domains": list(self.domains), "state": "absent"}

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> RemovedConfig:
        """Read an entry of email_configs, or the result of to_json. Servers and mode do not matter any more. Raises EngineError."""
        domains = item.get("domains") or ()
        stand_in = {"name": item.get("name"), "domains": domains or ["removed.invalid"], "servers": ["removed.invalid"]}
        config = EmailConfig.from_dict(stand_in)
        return cls(config.name, config.domains if domains else ())


@dataclass(frozen=True)
class Estate:
    """hosts: the inventory names of the hosts of this run. deliveries: the email configs, in the inventory's order.

    removals: the email configs that are to be removed. peers: mail server of this run -> its peers; one without peers is left out.
    missing: the mail servers that the email configs name and this run's inventory lacks.
    """

    hosts: tuple[str, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    removals: tuple[RemovedConfig, ...] = ()
    peers: Mapping[str, tuple[WantedPeer, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls,
        email_configs: Sequence[Mapping[str, Any]],
        hostvars: HostVars,
        hosts: Sequence[str] = (),
        others: Sequence[str] = (),
        check_required: bool = False,
        undo: bool = False,
        whole: bool = True,
    ) -> Estate:
        """Read the inventory. Raises EngineError that names the user's variable, and MissingLibraryError.

        others: hosts outside the run whose variables are checked as well. undo: the delivery modes are those before a workflow, so a
        server that is to require TLS may be behind any of them. whole: whether the inventory has to have every host that it names. One
        that has only a part of them, such as that of a slice, is good for tests, and for nothing that changes a host.

        These are refused: an unknown C(starttls_) variable of a host of the run; a host whose address, landing of messages or
        outside host is none; a mail server that is not in the inventory; an unknown mode; an invalid domain; a domain in
        two email configs; a server that is to require TLS (C(starttls_inbound)) behind a mode, or a peer, that may deliver in
        plaintext; peers that cannot be (see read_peers).
        With check_required, a host that is to require TLS, is in no email config and no peer of another one, is also refused.
        """
        with_peers: dict[str, Mapping[str, Any]] = {}
        for host in (*hosts, *others):
            facts = hostvars[host]  # once a host: Ansible computes its variables anew each time
            if facts.get("starttls_peers") and host in hosts:
                with_peers[host] = facts
            check_variables(host, facts)
            if whole:
                _refuse_missing_gateways(facts)
                _refuse_settings_only(host, facts)
            target_of(host, {host: facts})
            landing_of(host, facts)
            check_outside_host(facts.get("starttls_outside_host"), hostvars)
            if NEED_DNS & set(checks_of(facts)):
                require_dnspython()
        for config in email_configs:
            _check_state(config)
        gateways = _gateways(hostvars) if email_configs else {}
        deliveries = tuple(
            _delivery(config, hostvars, gateways, whole, undo) for config in email_configs if not is_absent(config)
        )
        removals = tuple(RemovedConfig.parse(config) for config in email_configs if is_absent(config))
        merge({}, [*(one.to_json()["email_config"] for one in deliveries), *(one.to_json() for one in removals)])
        peers = _peers(with_peers, hostvars) if with_peers else {}
        served = {host for one in deliveries for host in one.hosts}
        for host in hosts:
            _refuse_mail_to_send_only(host, hostvars[host], deliveries, peers)
        served |= {host for some in peers.values() for one in some for host in one.acceptors}
        served |= {host for host, some in peers.items() if any(one.peer.receives_from_it for one in some)}
        for host in hosts if check_required else ():
            if hostvars[host].get("starttls_inbound") == "required" and host not in served:
                raise EngineError(
                    f"{host} is to require TLS (starttls_inbound), but no email config delivers its mail over TLS only; "
                    "add it to one with the delivery mode 'required', or let it offer TLS"
                )
        named = (server for config in email_configs if not is_absent(config) for server in _names(config))
        missing = tuple(dict.fromkeys(str(server) for server in named if server not in hostvars))
        return cls(tuple(hosts), deliveries, removals, peers, missing)

    def in_plaintext(self) -> Estate:
        """Return the estate with every email config delivered in plaintext: the state with TLS switched off."""
        return replace(
            self,
            deliveries=tuple(
                replace(one, config=replace(one.config, delivery_mode=DEFAULT_MODE), names_mode=one.is_routed)
                for one in self.deliveries
            ),
        )

    def without_modes(self) -> Estate:
        """Return the estate with no wish for a delivery mode: the gateways deliver as before the collection came."""
        return replace(self, deliveries=tuple(replace(one, names_mode=False) for one in self.deliveries))

    def modes_of(self, host: str) -> list[str]:
        """Return the delivery modes that the inventory names for the email configs of a host, each once."""
        mine = (one for one in self.deliveries if one.names_mode and host in one.hosts)
        return list(dict.fromkeys(one.config.delivery_mode for one in mine))

    @property
    def domains(self) -> dict[str, str]:
        """Recipient domain -> delivery mode, where the inventory names it. Elsewhere the gateway keeps the mode that it has."""
        named = (one for one in self.deliveries if one.names_mode)
        return {domain: one.config.delivery_mode for one in named for domain in one.config.domains}

    def to_json(self) -> dict[str, Any]:
        """Return plain data that tasks can pass on.

        C(email_configs) is the option of inbound_tls_mode: what the gateways have to route. C(domains) has all recipient domains.
        """
        deliveries = [one.to_json() for one in self.deliveries]
        routed = [one.to_json()["email_config"] for one in self.deliveries if one.is_routed]
        return {
            "hosts": list(self.hosts),
            "deliveries": deliveries,
            "removals": [one.to_json() for one in self.removals],
            "peers": {host: [one.to_json() for one in some] for host, some in self.peers.items()},
            "email_configs": [*routed, *(one.to_json() for one in self.removals)],
            "domains": [
                *(domain for one in self.deliveries for domain in one.config.domains),
                *(domain for one in self.removals for domain in one.domains),
            ],
            "missing": list(self.missing),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Estate:
        """Read the result of to_json. Raises EngineError."""
        return cls(
            tuple(data["hosts"]),
            tuple(Delivery.from_json(one) for one in data["deliveries"]),
            tuple(RemovedConfig.parse(one) for one in data.get("removals") or ()),
            {host: tuple(map(WantedPeer.from_json, some)) for host, some in (data.get("peers") or {}).items()},
            tuple(data.get("missing") or ()),
        )


def peers_of_host(host: str, hostvars: HostVars) -> tuple[WantedPeer, ...]:
    """Return C(starttls_peers) of a mail server. Raises EngineError."""
    facts = hostvars[host]
    return _peers({host: facts}, hostvars)[host] if facts.get("starttls_peers") else ()


def _peers(with_peers: Mapping[str, Mapping[str, Any]], hostvars: HostVars) -> dict[str, tuple[WantedPeer, ...]]:
    """Read the peers of these mail servers. with_peers: mail server -> its variables. Raises EngineError."""
    groups = next(iter(with_peers.values())).get("groups") or {}  # the same for every host
    gateways, servers = (tuple(groups.get(name) or ()) for name in ("mail_gateways", "mail_servers"))
    targets = {}
    for host in dict.fromkeys((*gateways, *servers, *with_peers)):
        with contextlib.suppress(EngineError, KeyError):  # said where the host is in the run
            targets[host] = target_of(host, hostvars)
    host_at = host_at_target(targets)

    def named(text: str) -> Optional[Target]:
        return target_of(text, hostvars) if text in hostvars else None

    found = {host: read_peers(host, facts, host in gateways, named, host_at) for host, facts in with_peers.items()}
    acceptors = {one for some in found.values() for peer in some for one in peer.acceptors}
    refuse_plaintext(found, {one for one in acceptors if hostvars[one].get("starttls_inbound") == "required"})
    return found


def is_left_unchanged(facts: Mapping[str, Any]) -> bool:
    """Whether a host is not to be changed (starttls_settings_only)."""
    given = facts.get("starttls_settings_only")
    return given not in (None, "", False) and str(given).lower() not in ("false", "no", "off", "0")


def _refuse_settings_only(host: str, facts: Mapping[str, Any]) -> None:
    """Raise EngineError if a host is to be left unchanged whose changes are not those of files of settings."""
    if not is_left_unchanged(facts):
        return
    if host in ((facts.get("groups") or {}).get("mail_gateways") or ()):
        what = f"{host} is a gateway"
    elif str(facts.get("starttls_kind") or AUTO) == "exchange":
        what = f"{host} is an Exchange server"
    else:
        return
    raise EngineError(
        f"{what}, and starttls_settings_only is for mail servers with Postfix or Exim; take it away there, or run with --limit without it"
    )


def _refuse_mail_to_send_only(
    host: str,
    facts: Mapping[str, Any],
    deliveries: Sequence[Delivery],
    peers: Mapping[str, Sequence[WantedPeer]],
) -> None:
    """Raise EngineError if a host that is to take no mail is one that mail is delivered to."""
    if facts.get("starttls_inbound") != SEND_ONLY:
        return
    advice = "correct starttls_inbound, or"
    if host in ((facts.get("groups") or {}).get("mail_gateways") or ()):
        raise EngineError(f"{host} is a gateway and takes mail, and its starttls_inbound is 'none'; take that away")
    if str(facts.get("starttls_kind") or AUTO) == "exchange":
        raise EngineError(
            f"{host} is an Exchange server and takes mail, and its starttls_inbound is 'none'; take that away"
        )
    for one in deliveries:
        if host in one.hosts:
            raise EngineError(
                f"{host} takes no mail (starttls_inbound: none), and the email config {one.config.name} is delivered to it; {advice} take "
                "the host out of its servers"
            )
    for sender, some in peers.items():
        for peer in some:
            if host in peer.acceptors or (sender == host and peer.peer.receives_from_it):
                raise EngineError(
                    f"{host} takes no mail (starttls_inbound: none), and gets some by the peer {peer.peer.name} of {sender}; {advice} "
                    "take the peer out of starttls_peers"
                )


def send_only(host: str, hostvars: HostVars, email_configs: Any = ()) -> str:
    """Return how a mail server is read: C(always) as a send-only host, C(never), or C(find), as what it shows itself to be.

    What the inventory says decides. A host that an email config names takes mail, whatever it listens on.
    """
    facts = hostvars[host]
    if inbound := facts.get("starttls_inbound"):
        return "always" if inbound == SEND_ONLY else "never"
    local = hostvars["localhost"] if "localhost" in hostvars else {}  # noqa: SIM401  (Ansible's hostvars have no such default)
    run = local.get("tls_estate") or {}
    named = {name for one in run.get("deliveries") or () for name in one.get("hosts") or ()}
    given = email_configs if isinstance(email_configs, (list, tuple)) else ()
    named |= {str(name) for one in given if isinstance(one, Mapping) and not is_absent(one) for name in _names(one)}
    gateways = (facts.get("groups") or {}).get("mail_gateways") or ()
    return "never" if host in named or host in gateways or facts.get("starttls_peers") else "find"


def is_send_only(facts: Mapping[str, Any]) -> bool:
    """Return whether a host takes no mail from the network, by the inventory or by what it was read as."""
    if facts.get("starttls_inbound") == SEND_ONLY:
        return True
    observed = facts.get("mail_server_observed")
    return bool(observed.get("send_only")) if isinstance(observed, Mapping) else False


def _check_state(config: Any) -> None:
    if not isinstance(config, Mapping):
        raise EngineError(f"an email config has to be a mapping with name, domains and servers, not {config!r}")
    if config.get("state") not in (None, "present", "absent"):
        raise EngineError(
            f"email config {config.get('name')}: the state {config['state']!r} is not one of present, absent; correct email_configs"
        )


_Place = tuple[int, frozenset[str]]


def _place(host: str, hostvars: HostVars) -> _Place:
    """Return the port of a host's mail server, and the names and addresses by which the inventory knows it."""
    facts = hostvars[host]
    target = target_of(host, {host: facts})
    found = {host, target.host, str(facts.get("starttls_address") or "")}
    address = str(facts.get("ansible_host") or "")
    if facts.get("ansible_connection") != "local" and address not in _LOOPBACK:
        # One address may lead to several hosts, by port.
        found.add(address if str(facts.get("ansible_port") or 22) == "22" else f"{address}:{facts['ansible_port']}")
    return target.port, frozenset(one.lower().rstrip(".") for one in found if one)


def _gateways(hostvars: HostVars) -> dict[str, _Place]:
    """Return the gateways of the inventory, each with its place."""
    anyone = next(iter(hostvars), None)
    groups = (hostvars[anyone].get("groups") if anyone is not None else None) or {}  # the same for every host
    found: dict[str, _Place] = {}
    for gateway in groups.get("mail_gateways") or ():
        with contextlib.suppress(EngineError, KeyError):  # said where the host is in the run
            found[gateway] = _place(gateway, hostvars)
    return found


def _names(config: Mapping[str, Any]) -> Sequence[str]:
    """Return the inventory names of the mail servers of an email config. Text is a fault, which is said elsewhere."""
    given = config.get("servers") or ()
    return () if isinstance(given, str) else given


def _refuse_missing_gateways(facts: Mapping[str, Any]) -> None:
    """Raise EngineError if the inventory lacks a gateway of C(starttls_gateways). facts: the variables of a host."""
    given = facts.get("starttls_gateways") or ()
    names = re.split(r"[,\s]+", given) if isinstance(given, str) else [str(one) for one in given]
    there = (facts.get("groups") or {}).get("mail_gateways") or () if names else ()
    if missing := [one for one in names if one and one not in there]:
        raise EngineError(
            f"starttls_gateways names {missing[0]!r}, and the group mail_gateways lacks it; add the gateway, or correct "
            f"starttls_gateways; {_SLICE}"
        )


def _delivery(
    config: Mapping[str, Any], hostvars: HostVars, gateways: Mapping[str, _Place], whole: bool, undo: bool
) -> Delivery:
    given = config.get("servers") or ()
    names = [server for server in _names(config) if whole or server in hostvars]
    for server in names:
        if server not in hostvars:
            raise EngineError(
                f"email config {config.get('name')}: the mail server {server!r} is not in the inventory; add the host "
                f"or correct the name; {_SLICE}"
            )
    reached_at = {server: str(target_of(server, hostvars)) for server in names}
    servers = given if isinstance(given, str) else [reached_at.get(server, str(server)) for server in given]
    read = EmailConfig.from_dict({**config, "servers": servers})
    places = [_place(server, hostvars) for server in names] if gateways else []
    themselves = tuple(
        name for name, (port, known) in gateways.items() if any(port == one and known & other for one, other in places)
    )
    made = Delivery(read, tuple(names), config.get("delivery_mode") is not None, themselves)
    for server in names if made.is_routed and not undo else ():
        if hostvars[server].get("starttls_inbound") == "required" and LEVELS[read.delivery_mode][0] != "required":
            raise EngineError(
                f"email config {read.name}: {server} is to require TLS (starttls_inbound), and '{read.delivery_mode}' may "
                "deliver to it in plaintext, so mail would bounce; choose 'required' or let the server offer TLS"
            )
    return made


def estate(
    email_configs: Sequence[Mapping[str, Any]],
    hostvars: HostVars,
    hosts: Sequence[str] = (),
    others: Sequence[str] = (),
    check_required: bool = False,
    undo: bool = False,
    whole: bool = True,
) -> dict[str, Any]:
    """Return the result of Estate.parse as plain data, for playbooks. Raises EngineError, and MissingLibraryError.

    So a library that the hosts of the run need on the controller is missed once, and not by each host.
    """
    require_cryptography()
    if fault := fault_in(email_configs):
        raise EngineError(fault)
    return Estate.parse(email_configs, hostvars, hosts, others, check_required, undo, whole).to_json()


def checks_of(facts: Mapping[str, Any]) -> list[str]:
    """Return C(starttls_checks) of a host, which is a list or, from a survey, text with commas."""
    given = facts.get("starttls_checks") or ()
    return [one.strip() for one in given.split(",")] if isinstance(given, str) else [str(one) for one in given]


def landing_of(host: str, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return where test messages land on a host: C(starttls_landing) or C(starttls_mailbox) of it. Raises EngineError."""
    place = facts.get("starttls_landing") or {"mailbox": str(facts.get("starttls_mailbox", "/var/mail/trace"))}
    if not isinstance(place, Mapping):
        raise EngineError(f"starttls_landing of {host} has to be a mapping with mailbox, imap or command")
    return place


def check_outside_host(outside: Any, hostvars: HostVars) -> None:
    """Raise EngineError if the host outside the fleet is given and is not in the inventory."""
    if outside and outside not in hostvars:
        raise EngineError(
            f"starttls_outside_host {outside!r} is not in the inventory; add the host or correct the name"
        )


def target_of(host: str, hostvars: HostVars) -> Target:
    """Return the address and port at which other hosts reach this host's mail server. Raises EngineError."""
    facts = hostvars[host]
    try:
        target = Target(str(facts.get("starttls_hostname", host)).rstrip("."), int(facts.get("starttls_port", 25)))
        target.check()
    except (TypeError, ValueError) as error:  # a TargetError is a ValueError
        raise EngineError(f"starttls_hostname or starttls_port of {host}: {error}") from error
    return target


def reachable_at(hosts: Iterable[str], hostvars: HostVars) -> list[dict[str, Any]]:
    """Return C(host) and C(port) at which other hosts reach each of these hosts. No one reaches a send-only host. Raises EngineError."""
    targets = (target_of(host, hostvars) for host in hosts if hostvars[host].get("starttls_inbound") != SEND_ONLY)
    return [{"host": one.host, "port": one.port} for one in targets]


def with_delivery_mode(
    email_configs: Sequence[Mapping[str, Any]], email_config: Any, delivery_mode: Any
) -> list[dict[str, Any]]:
    """Return a list of only the email config with this name, with another delivery mode.

    The two answers may come from a person or a survey. Blanks around them are ignored. An empty or unknown answer
    raises EngineError, and the message lists the possible values.
    """
    name, mode = (str("" if answer is None else answer).strip() for answer in (email_config, delivery_mode))
    names = [str(one.get("name")) for one in email_configs if isinstance(one, Mapping) and not is_absent(one)]
    if name not in names:
        what = f": there is no email config {name!r} in the inventory" if name else " has to be given"
        raise EngineError(
            f"starttls_email_config{what}; choose one of: {', '.join(names) or 'none, email_configs is empty'}"
        )
    if mode not in MODES:
        what = f": {mode!r} is not a delivery mode" if mode else " has to be given"
        raise EngineError(f"starttls_delivery_mode{what}; choose one of: {', '.join(MODES)}")
    return [{**one, "delivery_mode": mode} for one in email_configs if one.get("name") == name]


def handshake_targets(hosts: Iterable[str], hostvars: HostVars, from_controller: bool = False) -> list[dict[str, Any]]:
    """Return the targets of starttls_probe for these hosts. The served certificate must be the installed one.

    from_controller: connect to C(starttls_address), for a controller that does not resolve the names that the hosts use
    for each other. A send-only host is no target. Raises EngineError.
    """
    return [_target(host, hostvars, from_controller) for host in hosts if not is_send_only(hostvars[host])]


def _target(host: str, hostvars: HostVars, from_controller: bool = False) -> dict[str, Any]:
    target = target_of(host, hostvars)
    return {
        "host": str(hostvars[host].get("starttls_address") or target.host) if from_controller else target.host,
        "port": target.port,
        "name": target.host,
        "fingerprint_sha256": installed_fingerprint(hostvars[host]),
    }


def installed_fingerprint(facts: Mapping[str, Any]) -> str:
    """Return the fingerprint of the certificate that a host has to serve, from the newest result; empty if none tells it.

    A host with certificates of several algorithms serves one of them: their fingerprints have commas between them.
    """
    results = (
        facts.get(name) or {}
        for name in (
            "mail_server_result",
            "gateway_accept_result",
            "certificate_result",
            "mail_server_observed",
            "gateway_observed",
        )
    )
    return next(
        (
            ",".join(map(str, one.get("fingerprints_sha256") or [one["fingerprint_sha256"]]))
            for one in results
            if isinstance(one, Mapping) and one.get("fingerprint_sha256")
        ),
        "",
    )


def own_target(host: str, hostvars: HostVars, address: str = "127.0.0.1") -> list[dict[str, Any]]:
    """Return the target of starttls_probe for a host that tests its own mail server at this address.

    If C(starttls_domain) of the host is set, it becomes the target's recipient domain for the check C(mta_sts). The targets of a
    send-only host are the next hops that were tested when it was read.
    """
    if is_send_only(hostvars[host]):
        return [
            {
                "host": str(one["host"]),
                "port": int(one.get("port") or 25),
                "name": str(one.get("name") or one["host"]),
                **({"protocol": "smtps"} if one.get("protocol") == "smtps" else {}),
            }
            for one in relay_tests(hostvars[host])
        ]
    domain = str(hostvars[host].get("starttls_domain") or "")
    return [{**_target(host, hostvars), "host": address, **({"domain": domain} if domain else {})}]


_READS = ("mail_server_observed", "verify_read")


def relay_tests(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tests that a send-only host made with its next hops: those of its change, or else of its read."""
    for name in ("mail_server_result", *_READS):
        result = facts.get(name)
        if isinstance(result, Mapping) and result.get("send_only") and (name in _READS or result.get("changed")):
            results = (result.get("probe") or {}).get("results")
            return [one for one in results or () if isinstance(one, Mapping) and one.get("host")]
    return []


def localhost_of(hosts: Sequence[str]) -> str:
    """Return the inventory name behind C(hostvars.localhost): an inventory's host 127.0.0.1 or ::1 takes the place of localhost."""
    local = [host for host in hosts if host in ("127.0.0.1", "::1")]
    return "localhost" if "localhost" in hosts or not local else local[0]


def kind_on(kind: Any, group_names: Sequence[str]) -> str:
    """Return the given kind of a host; without one the default kind of a gateway, or C(auto) on other hosts."""
    return str(kind or "") or (DEFAULT_GATEWAY if "mail_gateways" in group_names else AUTO)


def has_log(kind: str) -> bool:
    """Return whether the log of this kind can be read. C(auto) is a mail server, whose log can."""
    return kind == AUTO or "log" in PRODUCTS.get(kind, PRODUCTS[DEFAULT_GATEWAY]).facets


def capabilities(kind: str) -> list[str]:
    """Return the capabilities of a kind of gateway. Raises EngineError if the kind is unknown or not a gateway."""
    return list(product_of(str(kind), "gateway", "gateway_kind").capabilities)
