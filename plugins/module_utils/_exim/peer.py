# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers of Debian's Exim 4, split or unsplit configuration. Each has a router and a smtp transport of its own.

The transport is a copy of Debian's own one with other TLS options, so credentials, signatures and rewriting stay those of the
administrator. Sources: the Exim specification (manualroute, the smtp transport, TLS, events, retry configuration).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Was
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import queue, scheme, sections
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.observe import level
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.server import (
    CONFIG_DIR,
    DIRECTORY,
    GENERATED,
    SETTINGS,
    Exim,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import names_of, of_domains
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import load_file
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import parse_settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting, domain_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import EVERYTHING, PEER_TRANSPORT, Peer
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import is_address
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import BrokenConfigurationError, EngineError

_TEMPLATE = f"{CONFIG_DIR}/exim4.conf.template"
_GATEWAY_RECORD = f"{DIRECTORY}/gateway.json"

_SPLIT = sections.PEER_FILES
_PLACES: sections.Places = {
    "transports": (r"^begin transports[ \t]*$", True),
    "retry": (r"^begin retry[ \t]*$", True),
    "routers": (r"^begin routers[ \t]*$", True),
    "last routers": (r"^\.ifdef DCconfig_internet[ \t]*$", False),
}
_HEADER = sections.HEADER
_PEER_LINE = re.compile(r"(?m)^# peer ([a-z0-9-]+)\n")
_LIFETIME = 5 * 24 * 3600
_ROUTER_OF_DEBIAN = ("dnslookup", "dnslookup_relay_to_domains", "smarthost")
# Options of Debian's transport that the peer's own ones replace, also where they say nothing.
_WITHOUT = (
    "hosts_avoid_tls", "hosts_require_tls", "hosts_verify_avoid_tls", "hosts_try_dane", "hosts_require_dane", "tls_certificate",
    "tls_privatekey", "tls_sni", "tls_verify_hosts", "tls_try_verify_hosts", "tls_verify_certificates",
    "tls_verify_cert_hostnames", "tls_tempfail_tryclear", "tls_resumption_hosts", "protocol", "port", "event_action",
)  # fmt: skip
# One message for each connection: Exim lists waiting messages by host name only, and would send them over an open connection of
# another transport. Without retry_include_ip_address=false, a peer without STARTTLS would also delay other mail to that host.
_ALWAYS = {"hosts_try_dane": "", "connection_max_messages": "1"}
_REQUIRED = {"hosts_require_tls": "*", "tls_tempfail_tryclear": "false", "retry_include_ip_address": "false"}
_PINNED = re.compile(r"inlisti\{\$\{sha256:\$tls_out_peercert\}\}\{([0-9A-Fa-f:]+)\}")


class EximPeers:
    """Adapter for the peers of Debian's Exim 4 on this host."""

    name = "exim"

    def __init__(self, run: Runner, exim: Exim, may_split: bool = False) -> None:
        """Prepare only. exim: the adapter of the mail server. may_split: whether an unsplit configuration may be moved."""
        self._run = run
        self._exim = exim
        self._may_split = may_split

    def transaction(self, store: str) -> Transaction:
        """Return the transaction on the files of Exim."""
        return self._exim.transaction(store)

    def require_running(self) -> None:
        """Raise EngineError unless Debian's Exim 4 is installed, reads the configuration that Debian generates, and runs."""
        self._exim.require_running()

    def has_ended(self) -> bool:
        """Whether the daemon does not run."""
        return self._exim.has_ended()

    def files(self) -> tuple[str, ...]:
        """Return the files that plan() depends on; some may not exist."""
        own = (f"{CONFIG_DIR}/conf.d/{name}" for name in _SPLIT.values())
        return (*self._exim.files(), *(own if self._exim.split else (_TEMPLATE,)))

    def peers(self) -> list[dict[str, Any]]:
        """Return the peers, from Exim's own print of its transports and routers."""
        transports = {name: one for name, one in self._exim.transports().items() if name.startswith(PEER_TRANSPORT)}
        routers = self._routers() if transports else {}
        found = []
        for name, options in transports.items():
            router = routers.get(name, {})
            domains = [one.strip() for one in router.get("domains", "").split(":") if one.strip()]
            hosts = [one.strip() for one in router.get("route_data", "").removeprefix("<;").split(";") if one.strip()]
            found.append(
                {
                    "name": name[len(PEER_TRANSPORT) :].replace("_", "-"),
                    "hosts": hosts,
                    "domains": [EVERYTHING] if any(one.startswith("!") for one in domains) else domains,
                    **self._settings_of(options),
                }
            )
        return sorted(found, key=lambda one: str(one["name"]))

    def _routers(self) -> dict[str, dict[str, str]]:
        status, out, err = self._run(["exim4", "-bP", "routers"])
        if status != 0:
            raise BrokenConfigurationError(f"Exim does not read its configuration: {(err or out).strip()}")
        parts = re.split(r"(?m)^(\S+) router:$", out)
        return {name: parse_settings(text) for name, text in zip(parts[1::2], parts[2::2])}

    def _settings_of(self, options: Mapping[str, str]) -> dict[str, Any]:
        """Return what a transport says, in the words of a peer."""
        pinned = _PINNED.search(options.get("event_action", ""))
        verifies = options.get("tls_verify_hosts", "") == "*"
        roots = options.get("tls_verify_certificates", "")
        issuer = roots if verifies and roots not in (self._roots(), "system") else ""
        check = "pin" if pinned or issuer else "trusted_chain" if verifies else "encryption_only"
        if check == "trusted_chain" and options.get("tls_verify_cert_hostnames", "") == "*":
            check = "hostname"
        certificate, key = options.get("tls_certificate", ""), options.get("tls_privatekey", "")
        servername = options.get("tls_sni", "")
        return {
            "level": level(options),
            "check": check,
            "names": [],
            "servername": "" if servername == "$host" else servername,
            "client_certificate": certificate,
            "client_key": "" if key == certificate else key,
            "pin_fingerprints": [one.lower() for one in pinned[1].split(":")] if pinned else [],
            "pin_issuer_file": issuer,
        }

    def _roots(self) -> str:
        """Return where the roots are: a file of the administrator's macro, else C(system)."""
        return self._exim.macros().get("REMOTE_SMTP_TLS_VERIFY_CERTIFICATES") or "system"

    def roots(self) -> str:
        """Return the file of the roots that the administrator's macro names; empty for the system's."""
        return self._roots() if self._roots().startswith("/") else ""

    def faults(self, peers: Sequence[Peer]) -> list[str]:
        """Return why these peers cannot be set: what is local, routed by hand, or a gateway's; unreadable files; what Exim cannot do."""
        found = []
        domains = [domain for one in peers for domain in one.domains if domain != EVERYTHING]
        local = self._local(domains)
        for one in peers:
            where = f"peer {one.name}"
            found += [
                f"{where}: the domain {domain} is delivered on this host, and would not be any more; take it out of the peer's domains"
                for domain in one.domains
                if local.get(domain)
            ]
            for path in filter(None, (one.client_certificate, one.client_key, one.pin_issuer_file)):
                try:
                    self._exim.require_readable(path, f"no mail would reach the peer {one.name}")
                except EngineError as error:
                    found.append(f"{where}: {error}")
            uncovered = [host.host for host in one.hosts if one.names and not covers(one.names, host.host)]
            if uncovered and one.level == "required":
                found.append(
                    f"{where}: Exim compares the certificate with the next hop's own name only, and names has none for "
                    f"{', '.join(uncovered)}; name a host whose certificate has its name, or choose the check trusted_chain or pin"
                )
            found += [f"{where}: {fault}" for fault in self._with_gateway(one)]
        return [*found, *self._by_hand(peers)]

    def _with_gateway(self, peer: Peer) -> list[str]:
        """Return what collides with the settings of a gateway on the same host."""
        state, found = load_file(_GATEWAY_RECORD), []
        for domain in peer.domains:
            if (owner := state.owner_of(domain)) or domain in state.recipients_enforced:
                what = f"of the email config {owner.name}" if owner else "an enforced domain"
                found.append(f"this host is a gateway too, and {domain} is {what}; keep it in one of both")
        if EVERYTHING in peer.domains and state.outbound and state.outbound.depends_on_arrival:
            found.append(
                f"this host is a gateway too, whose mail to the internet depends on how it arrived (send: {state.outbound.send}); choose "
                "another starttls_send, or keep the peer on another host"
            )
        return found

    def _by_hand(self, peers: Sequence[Peer]) -> list[str]:
        """Return the routes of the administrator that lead elsewhere. One that leads to the same hosts is no fault."""
        found = []
        addresses = [f"postmaster@{domain}" for one in peers for domain in one.domains]
        for address, (router, hosts) in self._tested(addresses).items():
            one = next(peer for peer in peers if domain_of(address) in peer.domains)
            ours = router.startswith(PEER_TRANSPORT) or router in _ROUTER_OF_DEBIAN
            if not ours and hosts != [host.host for host in one.hosts]:
                found.append(
                    f"peer {one.name}: the router {router} leads {domain_of(address)} to {', '.join(hosts) or 'another place'}; take that "
                    "route out, or name the same hosts there"
                )
        for one in peers:
            if (
                EVERYTHING in one.domains
                and self._exim.has_smarthost
                and list(self._exim.next_hops()) != list(one.hosts)
            ):
                hops = ", ".join(map(str, self._exim.next_hops()))
                found.append(
                    f"peer {one.name}: dc_smarthost leads all mail to {hops}; name the same hosts there and in the peer's hosts"
                )
        return found

    def _tested(self, addresses: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
        """Return address -> router and hosts, as Exim's own test of addresses says. One that is not routed is not there."""
        asked = [one for one in addresses if not one.endswith(EVERYTHING)]
        if not asked:
            return {}
        out = self._run(["exim4", "-bt", *asked])[1]
        found = {}
        for address, router, hosts in re.findall(
            r"(?m)^(\S+)\n  router = (\w+), transport = \S+\n((?:  host .*\n)*)", out
        ):
            found[address] = router, re.findall(r"(?m)^  host (\S+)", hosts)
        return found

    def _local(self, domains: Sequence[str]) -> dict[str, bool]:
        """Return which of the domains are delivered on this host."""
        if not domains:
            return {}
        asked = [f"${{if match_domain{{{one}}}{{+local_domains}}{{yes}}{{no}}}}" for one in domains]
        answers = self._run(["exim4", "-be", *asked])[1].splitlines()
        return {one: answer.strip() == "yes" for one, answer in zip(domains, answers)}

    def plan(self, wanted: Sequence[Peer], gone: Collection[str], was: Mapping[str, Was]) -> Change:
        """Return the sections with the routers, transports and retry rules. What is not a peer's stays as it is, byte by byte."""
        del was  # without marks and files of ours, Debian's files are as before
        ours = {*gone, *(one.name for one in wanted)}
        texts = {}
        for title in _SPLIT:
            blocks = {name: text for name, text in _blocks(self._present(title)).items() if name not in ours}
            blocks.update({one.name: text for one in wanted if (text := self._block(title, one))})
            texts[title] = "".join(f"# peer {name}\n{text}" for name, text in sorted(blocks.items()))
        return replace(Change.of(self._images(texts)), kept=(FileImage.read(GENERATED),))

    def _present(self, title: str) -> str:
        """Return the text of a section now."""
        if self._exim.split:
            content = FileImage.read(f"{CONFIG_DIR}/conf.d/{_SPLIT[title]}").content or b""
            return content.decode("utf-8", "surrogateescape").removeprefix(_HEADER)
        return sections.block_in(self._template(), title)

    def _template(self) -> str:
        return (FileImage.read(_TEMPLATE).content or b"").decode("utf-8", "surrogateescape")

    def _images(self, texts: Mapping[str, str]) -> list[FileImage]:
        if self._exim.split:
            return self._files(texts, sections.most_private(CONFIG_DIR, True))
        template = FileImage.read(_TEMPLATE)
        if self._may_split and (
            any(texts.values()) or sections.without_ours(self._template(), DIRECTORY) != self._template()
        ):
            return self._moved(texts, template)
        text = self._template()
        if any(block not in ("", sections.block_in(text, title)) for title, block in texts.items()):
            raise scheme.refusal(_TEMPLATE)
        for title, block in texts.items():  # what an older version has put there may stay, or go
            text = sections.with_block(text, title, _PLACES[title], block, _TEMPLATE)
        return [replace(template, content=text.encode("utf-8", "surrogateescape"))]

    def _moved(self, texts: Mapping[str, str], source: FileImage) -> list[FileImage]:
        paths = scheme.Paths(CONFIG_DIR, SETTINGS, DIRECTORY)
        images = [*scheme.move(self._run, paths), *self._files(texts, source)]
        return list({one.path: one for one in images}.values())

    @staticmethod
    def _files(texts: Mapping[str, str], source: FileImage) -> list[FileImage]:
        """Return the files of the sections. source: who may read them."""
        return [
            replace(
                source,
                path=f"{CONFIG_DIR}/conf.d/{_SPLIT[title]}",
                content=(_HEADER + text).encode("utf-8", "surrogateescape") if text else None,
                seen="",  # that of another path
            )
            for title, text in texts.items()
        ]

    def _block(self, title: str, peer: Peer) -> str:
        """Return the part of a section that is about this peer; empty if there is none."""
        if title == "transports":
            return self._transport(peer)
        if title == "retry":
            names = [one.host for one in peer.hosts if ":" not in one.host] if peer.level == "required" else []
            return "".join(f"{name}  *  F,2h,2m; F,365d,15m\n" for name in dict.fromkeys(names))
        return self._router(peer) if (title == "last routers") == (EVERYTHING in peer.domains) else ""

    def _router(self, peer: Peer) -> str:
        domains = " : ".join(peer.domains)
        if EVERYTHING in peer.domains:  # as the smart host takes it, if there is one
            domains = "! +local_domains" if self._exim.has_smarthost else "! +local_domains : ! +relay_to_domains"
        # After the end of a retry rule, Exim bounces new mail at once. So the rule is long, and the age of the message decides.
        expired = (
            f"mailfleet_expired_{_word(peer.name)}:\n  driver = redirect\n  domains = {domains}\n"
            f"  condition = ${{if >{{$message_age}}{{{_LIFETIME}}}}}\n  allow_fail\n"
            f"  data = :fail: the server could not be reached as required within {_LIFETIME // 86400} days\n\n"
        )
        hosts = ";".join(map(str, peer.hosts))
        return (
            f"{expired if peer.level == 'required' else ''}{transport_of(peer.name)}:\n  driver = manualroute\n"
            f"  domains = {domains}\n  route_data = <;{hosts}\n  host_find_failed = defer\n"
            f"  transport = {transport_of(peer.name)}\n  no_more\n\n"
        )

    def _transport(self, peer: Peer) -> str:
        everything = EVERYTHING in peer.domains and self._exim.has_smarthost
        original = "remote_smtp_smarthost" if everything else "remote_smtp"
        options = "".join(f"  {name} = {value}".rstrip() + "\n" for name, value in self._options(peer).items())
        text = sections.debian_text(CONFIG_DIR, self._exim.split, "transport")
        return sections.transport_copy(text, original, transport_of(peer.name), options, _WITHOUT)

    def _options(self, peer: Peer) -> dict[str, str]:
        """Return the options of the level, the check and the client certificate."""
        if peer.level == "disabled":
            return {**_ALWAYS, "hosts_avoid_tls": "*"}
        options = dict(_ALWAYS)
        if peer.servername or not any(is_address(one.host) for one in peer.hosts):
            options["tls_sni"] = peer.servername or "$host"
        if peer.client_certificate:
            options["tls_certificate"] = peer.client_certificate
            options["tls_privatekey"] = peer.client_key or peer.client_certificate
        if peer.level != "required":
            return options
        options.update(_REQUIRED)
        if peer.check in ("trusted_chain", "hostname") or peer.pin_issuer_file:
            options["tls_verify_hosts"] = "*"
            options["tls_verify_certificates"] = peer.pin_issuer_file or self._roots()
            options["tls_verify_cert_hostnames"] = "*" if peer.check == "hostname" else ""
        elif peer.pin_fingerprints:
            known = f"inlisti{{${{sha256:$tls_out_peercert}}}}{{{':'.join(peer.pin_fingerprints)}}}"
            leaf = "and{{eq{$event_name}{tls:cert}}{eq{$event_data}{0}}}"
            options["event_action"] = f"${{if {leaf}{{${{if {known}{{}}{{not a pinned certificate}}}}}}{{}}}}"
        return options

    def waiting(self, domains: Collection[str], others: Collection[str]) -> Sequence[Waiting]:
        """Return the messages for these domains; EVERYTHING: all but what stays on the host, or goes to the others."""
        if EVERYTHING not in domains:
            return queue.waiting(self._run, names_of(domains)) if domains else ()
        listed = queue.waiting(self._run, None)
        elsewhere = of_domains(listed, others)
        local = self._local(sorted({domain_of(one.recipient) for one in listed}))
        return [one for one in listed if one not in elsewhere and not local.get(domain_of(one.recipient))]

    def prove(self, wanted: Sequence[Peer]) -> None:
        """Raise EngineError unless Exim's own test of addresses leads the domains to the transports."""
        for one in wanted:
            addresses = [f"postmaster@{domain}" for domain in one.domains if domain != EVERYTHING]
            found = self._tested(addresses)
            for address in addresses:
                router = found.get(address, ("",))[0]
                if router != transport_of(one.name):
                    raise EngineError(
                        f"Exim leads mail for {domain_of(address)} to the router {router or '(none)'}, not to {transport_of(one.name)}"
                    )


def _word(name: str) -> str:
    return name.replace("-", "_")


def transport_of(name: str) -> str:
    """Return the router and transport of a peer, as the log shows it."""
    return f"{PEER_TRANSPORT}{_word(name)}"


def covers(names: Collection[str], host: str) -> bool:
    """Whether one of the names, C(.example.com) for every name below it, is that of the host."""
    return any(host.endswith(name) if name.startswith(".") else host == name for name in names)


def _blocks(text: str) -> dict[str, str]:
    """Return peer -> its part of a section."""
    parts = _PEER_LINE.split(text)
    return dict(zip(parts[1::2], parts[2::2]))
