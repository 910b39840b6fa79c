# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listeners and transports of a Postfix instance, as postconf(1) gives them. Nothing is changed.

Sources: master(5), postconf(5), TLS_README. The settings use_tls, enforce_tls and enforce_peername are the older spellings of
the security level. They count where the level is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import (
    UNKNOWN,
    Listener,
    Transport,
    port_number,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_TLS = {"none": "none", "may": "offered", "encrypt": "required"}
_CERTIFICATES = ("smtpd_tls_cert_file", "smtpd_tls_dcert_file", "smtpd_tls_eccert_file")
_SERVER_SETTINGS = (
    "smtpd_tls_security_level", "smtpd_use_tls", "smtpd_enforce_tls", "smtpd_tls_wrappermode", "smtpd_tls_chain_files",
    "postscreen_tls_security_level", "postscreen_use_tls", "postscreen_enforce_tls", *_CERTIFICATES,
)  # fmt: skip
_TLS_SETTING = re.compile(r"(?:smtpd|smtp|lmtp|postscreen|tlsproxy)_(?:tls_|use_tls|enforce_tls)")
_RECEIVING = ("smtpd", "postscreen")
_CLIENTS = ("smtp", "lmtp")
_CLIENT_SETTINGS = tuple(
    f"{client}_{name}"
    for client in _CLIENTS
    for name in ("tls_security_level", "use_tls", "enforce_tls", "tls_enforce_peername", "tls_wrappermode", "tcp_port")
)
_BY_HOP = ("tls_policy_maps", "tls_per_site")
_HIDES = ("discard_ehlo_keywords", "discard_ehlo_keyword_address_maps")
_EXCEPTIONS = tuple(f"{client}_{name}" for client in _CLIENTS for name in (*_BY_HOP, *_HIDES))
_PROTOCOLS = tuple(
    f"{program}_tls_{name}"
    for program in ("smtpd", "smtp", "tlsproxy")
    for name in ("protocols", "mandatory_protocols")
)
_WAYS = (
    "content_filter",
    "virtual_transport",
    "local_transport",
    "mailbox_transport",
    "fallback_transport",
    "relay_transport",
)
"""Settings that name a transport and, behind a colon, its next hop. The default values name no relay of their own."""

BY_SENDER = ("sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps")
CONTENT_CHECKS = ("header_checks", "mime_header_checks", "nested_header_checks", "body_checks", "milter_header_checks")
RESTRICTIONS = tuple(
    f"smtpd_{stage}_restrictions"
    for stage in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data", "etrn")
)
PROXIED = {"smtpd": "smtpd_upstream_proxy_protocol", "postscreen": "postscreen_upstream_proxy_protocol"}
"""Receiving program -> the setting with which it expects a proxy's header in front of every session."""
_TABLES = (
    "transport_maps",
    "tls_server_sni_maps",
    "relay_domains",
    *BY_SENDER,
    *CONTENT_CHECKS,
    *RESTRICTIONS,
    *PROXIED.values(),
)

_HOP = re.compile(r"(?:\[(?P<literal>[^\]]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>\w+))?\Z")


class Configuration:
    """The settings of one instance: those of main.cf, and those of each service of master.cf."""

    def __init__(self, postconf: Postconf) -> None:
        """Read main.cf and master.cf. Raises EngineError if postconf cannot."""
        names = (
            *_SERVER_SETTINGS,
            *_CLIENT_SETTINGS,
            *_EXCEPTIONS,
            *_PROTOCOLS,
            *_WAYS,
            "relayhost",
            "default_transport",
            "smtp_fallback_relay",
            "inet_interfaces",
            *_TABLES,
        )
        self.main = postconf.expanded(*names)
        self.explicit = postconf.explicit()
        services = postconf.services()
        self.commands = {one.name: one.command for one in services}
        self.overrides = {one.name: one.settings for one in services if one.settings}

    def stands_for(self, copy: str, real: str) -> None:
        """Give the settings the paths that they have in the real configuration directory. copy: the directory that was read."""
        self.main = {name: value.replace(copy, real) for name, value in self.main.items()}

    def value(self, service: str, parameter: str) -> str:
        """Return the value of a parameter for a service: its own, else the one of main.cf; empty if Postfix does not know it."""
        return self.overrides.get(service, {}).get(parameter, self.main.get(parameter, ""))

    def knows(self, service: str, parameter: str) -> bool:
        """Whether Postfix knows a parameter, or a service sets it."""
        return parameter in self.main or parameter in self.overrides.get(service, {})

    def own_tls(self, service: str) -> dict[str, str]:
        """Return the TLS settings that a service has of its own. Other settings may hold passwords."""
        return {name: value for name, value in self.overrides.get(service, {}).items() if _TLS_SETTING.match(name)}

    def level(self, service: str, prefix: str) -> str:
        """Return the security level of a service, C(none) if there is none. prefix: smtpd, postscreen, smtp or lmtp."""
        level = self.value(service, f"{prefix}_tls_security_level")
        if level:
            return level
        if self.value(service, f"{prefix}_enforce_tls") == "yes":
            verifies = prefix in _CLIENTS and self.value(service, f"{prefix}_tls_enforce_peername") == "yes"
            return "verify" if verifies else "encrypt"
        return "may" if self.value(service, f"{prefix}_use_tls") == "yes" else "none"

    def level_for_all(self, service: str, prefix: str, ours: str = "") -> str:
        """Return the level of a client that has one for every next hop; empty if tables may make it another one.

        ours: the table of policies by next hop that is no such exception.
        """
        level = self.level(service, prefix)
        if any(self.value(service, f"{prefix}_{name}") not in ("", ours) for name in _BY_HOP):
            return ""
        words = re.split(r"[,\s]+", self.value(service, f"{prefix}_{_HIDES[0]}").lower())
        hides = "starttls" in words or self.value(service, f"{prefix}_{_HIDES[1]}")
        return "" if hides and level in ("may", "dane") else level  # the others send in plaintext anyway, or not at all


def listeners(configuration: Configuration) -> list[Listener]:
    """Return the services of master.cf that take mail from the network."""
    return [
        _listener(configuration, service, command)
        for service, command in configuration.commands.items()
        if service.endswith("/inet") and command in _RECEIVING
    ]


def _listener(configuration: Configuration, service: str, command: str) -> Listener:
    host, _, name = service.rpartition("/")[0].rpartition(":")
    interfaces = configuration.main.get("inet_interfaces", "all")
    certificates = _certificates(configuration, service)
    if configuration.value(service, "smtpd_tls_wrappermode") == "yes":
        tls = "implicit"
    elif not certificates:
        tls = "none"  # without a certificate Postfix does not offer STARTTLS, whatever the level
    else:
        tls = _TLS.get(configuration.level(service, command), UNKNOWN)
    return Listener(
        service,
        host.strip("[]") or ("" if interfaces == "all" else interfaces),
        port_number(name),
        tls,
        certificates if tls != "none" else (),
        configuration.own_tls(service),
    )


def _certificates(configuration: Configuration, service: str) -> tuple[str, ...]:
    """Return the files with certificates that a service serves: those of chain_files, which override the older settings."""
    chain = re.split(r"[,\s]+", configuration.value(service, "smtpd_tls_chain_files").strip())
    if any(chain):
        return tuple(path for path in chain if path and _has_certificate(path))
    older = (configuration.value(service, name) for name in _CERTIFICATES)
    return tuple(dict.fromkeys(path for path in older if path not in ("", "none")))


def _has_certificate(path: str) -> bool:
    """Return whether a file of chain_files holds more than a key; its name decides if the file cannot be read."""
    try:
        image = FileImage.read(path, max_bytes=pem.MAX_BYTES, trust=LOOK)
    except (EngineError, OSError, ValueError):  # a NUL character in a path is a ValueError
        return not path.endswith(".key")
    if image.content is None:
        return not path.endswith(".key")
    return b"-----BEGIN CERTIFICATE-----" in image.content


def transports(configuration: Configuration) -> list[Transport]:
    """Return the ways by which mail leaves over SMTP or LMTP, as main.cf and the listeners' own content filters name them.

    Tables (transport_maps and others) are not read: their entries are not listed.
    """
    return [transport for _written, transport in named_ways(configuration)]


def named_ways(configuration: Configuration) -> list[tuple[str, Transport]]:
    """Return the same, each with its next hop as it is written; empty for the MX of each domain."""
    main = configuration.main
    default, _, own = main.get("default_transport", "smtp").partition(":")
    relayhost = main.get("relayhost", "")
    setting = "default_transport" if own or not relayhost else "relayhost"
    found = [*ways_by(configuration, setting, default or "smtp", own or relayhost)]
    for setting in _WAYS:
        if setting in configuration.explicit:
            name, _, hop = main.get(setting, "").partition(":")
            # Only relay_transport falls back to relayhost. The others use the recipient's domain.
            found += ways_by(configuration, setting, name, hop or (relayhost if setting == "relay_transport" else ""))
    for service, settings in configuration.overrides.items():
        name, _, hop = settings.get("content_filter", "").partition(":")
        found += ways_by(configuration, f"content_filter of {service}", name, hop)
    for hop in re.split(r"[,\s]+", main.get("smtp_fallback_relay", "")):
        if hop:
            found += ways_by(configuration, "smtp_fallback_relay", default or "smtp", hop)
    return found


def client_of(configuration: Configuration, name: str) -> str:
    """Return the client program of a transport, smtp or lmtp; empty if it is another program."""
    command = configuration.commands.get(f"{name}/unix", name)
    return command if command in _CLIENTS else ""


def ways_by(configuration: Configuration, setting: str, name: str, hops: str) -> Iterable[tuple[str, Transport]]:
    """Yield the next hops of a transport over SMTP or LMTP, each as it is written and as a value. setting: what names them."""
    client = client_of(configuration, name)
    if not client:
        return
    service = f"{name}/unix"
    for hop in [one for one in re.split(r"[,\s]+", hops) if one] or [""]:
        host, port = _hop(configuration, service, client, hop)
        yield (
            hop,
            Transport(
                setting,
                name,
                host,
                port,
                configuration.level(service, client),
                configuration.value(service, f"{client}_tls_wrappermode") == "yes",
                configuration.own_tls(service),
            ),
        )


def _hop(configuration: Configuration, service: str, client: str, hop: str) -> tuple[Optional[str], Optional[int]]:
    """Return host and port of a next hop; None and None for the MX of each domain, the whole text if it is not understood."""
    if not hop:
        return None, None
    hop = re.sub(r"\A(?:inet:)?(\[)?(?:ipv6:)?", r"\1", hop, flags=re.IGNORECASE)
    match = None if hop.startswith("unix:") else _HOP.match(hop)
    if not match:
        return hop, None
    default = configuration.value(service, f"{client}_tcp_port") or client
    return match["literal"] or match["name"], port_number(match["port"] or default)


def other_places(configuration: Configuration) -> list[tuple[str, Optional[int]]]:
    """Return address and port of the services of master.cf that listen for something else than mail, such as a policy service."""
    found = []
    for service, command in configuration.commands.items():
        if service.endswith("/inet") and command not in _RECEIVING:
            host, _, name = service.rpartition("/")[0].rpartition(":")
            found.append((host.strip("[]"), port_number(name)))
    return found


def observe(postconf: Postconf) -> Mapping[str, list[Any]]:
    """Return C(listeners), C(transports) and C(other_places) as plain data. Raises EngineError if the configuration cannot be read."""
    configuration = Configuration(postconf)
    return {
        "listeners": [one.to_json() for one in listeners(configuration)],
        "transports": [one.to_json() for one in transports(configuration)],
        "other_places": [list(one) for one in other_places(configuration)],
    }
