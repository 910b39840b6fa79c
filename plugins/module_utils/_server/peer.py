# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A peer of a mail server: a host beside the gateway that it talks to, as a value. One entry of C(starttls_peers)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import is_path
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, TargetError, is_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

PEER_KINDS = ("exchange", "exchange_online", "smtp")
PEER_DIRECTIONS = ("outbound", "inbound", "both")
"""As the mail server sees it. outbound: it sends to the peer. inbound: the peer sends to it."""
PEER_LEVELS = ("opportunistic", "required")
PEER_STATES = ("present", "disabled", "absent")
PEER_CHECKS = ("encryption_only", "trusted_chain", "hostname", "pin")
PEER_TRANSPORT = "mailfleet_peer_"
"""How the names of the transports begin that belong to peers."""
EVERYTHING = "*"
"""Instead of domains: all mail that leaves the mail server, as a relay host takes it."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z")
_WORDS_OF_POSTFIX = ("hostname", "nexthop", "dot-nexthop")
"""Where Postfix reads names, these stand for others."""
_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@")
_KEYS = frozenset(
    {
        "name", "kind", "hosts", "domains", "direction", "level", "check", "names", "servername", "client_certificate",
        "client_key", "pin_fingerprints", "pin_issuer_file", "proof_sender", "proof_recipient", "tls_domain",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """One peer.

    hosts: the next hops, in order of preference; none if the peer only sends. domains: the recipient domains whose mail goes to
    the peer, or EVERYTHING alone. level and check: of the way out. names: names that the peer's certificate may have, with the
    check C(hostname); C(.example.com) stands for every name below it; none means the next hop's own name. servername: the SNI;
    empty for the next hop's name. client_certificate: absolute path, on the host, of the PEM file that is presented to this peer
    alone; empty for none. client_key: of its private key, if that has a file of its own. pin_fingerprints: SHA-256 of
    certificates in lower-case hexadecimal. pin_issuer_file: absolute path, on the host, of the only issuers that count.
    proof_sender, proof_recipient: the addresses of the proof that reaches to RCPT. tls_domain: the name that the certificate which
    the mail server serves has to cover, for a peer that checks it.
    """

    name: str
    kind: str
    hosts: tuple[Target, ...] = ()
    domains: tuple[str, ...] = ()
    direction: str = "outbound"
    level: str = "required"
    check: str = "encryption_only"
    names: tuple[str, ...] = ()
    servername: str = ""
    client_certificate: str = ""
    client_key: str = ""
    pin_fingerprints: tuple[str, ...] = ()
    pin_issuer_file: str = ""
    proof_sender: str = ""
    proof_recipient: str = ""
    tls_domain: str = ""

    @property
    def sends_to_it(self) -> bool:
        """Whether mail goes from the mail server to the peer."""
        return self.direction in ("outbound", "both")

    @property
    def receives_from_it(self) -> bool:
        """Whether mail comes from the peer to the mail server."""
        return self.direction in ("inbound", "both")

    def to_dict(self) -> dict[str, Any]:
        """Return the peer as plain data for from_dict."""
        return {
            "name": self.name,
            "kind": self.kind,
            "hosts": [str(one) for one in self.hosts],
            "domains": list(self.domains),
            "direction": self.direction,
            "level": self.level,
            "check": self.check,
            "names": list(self.names),
            "servername": self.servername,
            "client_certificate": self.client_certificate,
            "client_key": self.client_key,
            "pin_fingerprints": list(self.pin_fingerprints),
            "pin_issuer_file": self.pin_issuer_file,
            "proof_sender": self.proof_sender,
            "proof_recipient": self.proof_recipient,
            "tls_domain": self.tls_domain,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Peer:
        """Read and check an entry of C(starttls_peers); its hosts are addresses. Raises EngineError, which names the peer and the fault."""
        if not isinstance(data, Mapping):
            raise EngineError(f"starttls_peers: an entry has to be a mapping with name, kind and hosts, not {data!r}")
        name = str(data.get("name") or "")
        if not _NAME.match(name):
            raise EngineError(
                f"starttls_peers: the name {name!r} has to be 1 to 32 lower-case letters, digits or hyphens, a letter or digit first"
            )
        where = f"starttls_peers: peer {name}"
        if unknown := sorted(str(key) for key in data if key not in _KEYS):
            raise EngineError(
                f"{where} has {unknown[0]!r}, which does not exist; it can have: {', '.join(sorted(_KEYS))}"
            )
        peer = cls(
            name,
            _one_of(where, data, "kind", PEER_KINDS, "smtp"),
            _hosts(where, _list(where, data, "hosts")),
            tuple(_dotless(one) for one in _list(where, data, "domains")),
            _one_of(where, data, "direction", PEER_DIRECTIONS, "outbound"),
            _one_of(where, data, "level", PEER_LEVELS, "required"),
            _one_of(where, data, "check", PEER_CHECKS, "encryption_only"),
            tuple(_dotless(one) for one in _list(where, data, "names")),
            _dotless(data.get("servername") or ""),
            _path(where, data, "client_certificate"),
            _path(where, data, "client_key"),
            tuple(one.replace(":", "").lower() for one in _list(where, data, "pin_fingerprints")),
            _path(where, data, "pin_issuer_file"),
            _address(where, data, "proof_sender"),
            _address(where, data, "proof_recipient"),
            _dotless(data.get("tls_domain") or ""),
        )
        peer._check(where)
        return peer

    def _check(self, where: str) -> None:
        if self.sends_to_it and not self.hosts:
            raise EngineError(f"{where} has no hosts; name its next hops, or set direction: inbound")
        if self.sends_to_it and not self.domains:
            raise EngineError(
                f"{where} has no domains; name the recipient domains, or '*' for all mail that leaves the host"
            )
        if EVERYTHING in self.domains and len(self.domains) > 1:
            raise EngineError(f"{where}: domains has '*' beside others; '*' stands alone")
        for what, values in (
            ("domains", [one for one in self.domains if one != EVERYTHING]),
            ("tls_domain", [self.tls_domain] if self.tls_domain else []),
        ):
            for wrong in (one for one in values if not is_domain(one)):
                raise EngineError(f"{where}: {what}: {wrong!r} is not a domain name (write it in ASCII)")
        for what, names in (
            ("names", [one.removeprefix(".") for one in self.names]),
            ("servername", [self.servername] if self.servername else []),
        ):
            for wrong in (one for one in names if not is_domain(one) or one in _WORDS_OF_POSTFIX):
                raise EngineError(f"{where}: {what}: {wrong!r} is not a host name (write it in ASCII, with its domain)")
        if wrong := next((one for one in self.pin_fingerprints if not _FINGERPRINT.match(one)), ""):
            raise EngineError(f"{where}: pin_fingerprints: {wrong[:80]!r} is not a SHA-256 fingerprint in hexadecimal")
        if (self.check == "pin") != bool(self.pin_fingerprints or self.pin_issuer_file):
            raise EngineError(f"{where}: check: pin goes with pin_fingerprints or pin_issuer_file, and only with it")
        if self.pin_fingerprints and self.pin_issuer_file:
            raise EngineError(f"{where}: pin_fingerprints and pin_issuer_file exclude each other")
        if self.names and self.check != "hostname":
            raise EngineError(f"{where}: names are compared with check: hostname only")
        if self.level != "required" and self.check != "encryption_only":
            raise EngineError(f"{where}: check: {self.check} needs level: required")
        if self.client_key and not self.client_certificate:
            raise EngineError(f"{where}: client_key goes with client_certificate")
        for what, count in (("hosts", self.hosts), ("domains", self.domains), ("names", self.names)):
            if len(set(count)) != len(count):
                raise EngineError(f"{where} names one of its {what} twice")


def _dotless(name: Any) -> str:
    """Return a name in lower case without the dot at its end. A dot alone stays, and is no name."""
    text = str(name).lower()
    return text.rstrip(".") or text


def peers_of(entries: Iterable[Any]) -> tuple[Peer, ...]:
    """Read C(starttls_peers) of a host. Raises EngineError, also if two peers share a name or a domain."""
    found = tuple(Peer.from_dict(one) for one in entries)
    owner: dict[str, str] = {}
    names: set[str] = set()
    for one in found:
        if one.name in names:
            raise EngineError(f"starttls_peers: two peers have the name {one.name}")
        names.add(one.name)
        for domain in one.domains if one.sends_to_it else ():
            if domain in owner:
                raise EngineError(f"starttls_peers: the domain {domain} goes to {owner[domain]} and to {one.name}")
            owner[domain] = one.name
    return found


def _list(where: str, data: Mapping[str, Any], key: str) -> list[str]:
    given = data.get(key)
    if given is None:
        return []
    if isinstance(given, str) or not isinstance(given, (list, tuple)):
        raise EngineError(f"{where}: {key} has to be a list")
    return [str(one) for one in given]


def _one_of(where: str, data: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: str) -> str:
    given = data.get(key)
    value = default if given is None else str(given)
    if value not in allowed:
        raise EngineError(f"{where}: {key} {value!r} is not one of {', '.join(allowed)}")
    return value


def _hosts(where: str, given: list[str]) -> tuple[Target, ...]:
    try:
        return tuple(Target.parse(one.lower()) for one in given)
    except TargetError as error:
        raise EngineError(f"{where}: hosts: {error}") from error


def _path(where: str, data: Mapping[str, Any], key: str) -> str:
    value = str(data.get(key) or "")
    if value and not is_path(value):
        raise EngineError(f"{where}: {key} {value!r} has to be an absolute path made of letters, digits and _./+@-")
    return value


def _address(where: str, data: Mapping[str, Any], key: str) -> str:
    value = str(data.get(key) or "")
    begins = _ADDRESS.match(value)
    if value and not (begins and is_domain(value[begins.end() :].lower())):
        raise EngineError(f"{where}: {key} {value!r} is not an e-mail address (write it in ASCII)")
    return value
