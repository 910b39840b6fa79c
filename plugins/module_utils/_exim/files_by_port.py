# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of tls_certificate and tls_privatekey, where some ports have others. Values only.

All ports of Exim share these options. A text with a dollar sign is expanded for each connection, so it can choose by $received_port.
Source: the Exim specification, chapters on TLS and on string expansions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired

_CHOICE = re.compile(r"\$\{if eq\{\$received_port\}\{(\d{1,5})\}\{([^${}]*)\}\{(.*)\}\}\Z", re.DOTALL)
_MOST = 64  # ports in one text; nobody has more, and a hostile text ends there


class FilesByPort(NamedTuple):
    """A list of files for all ports but some. of_port: port -> its list."""

    elsewhere: str
    of_port: Mapping[int, str]

    @classmethod
    def of(cls, text: str) -> FilesByPort:
        """Read an option. One that Exim expands in another way is the same, and unknown, for every port."""
        found: dict[int, str] = {}
        rest = text.strip()
        for _choice in range(_MOST):
            match = _CHOICE.match(rest)
            if not match:
                break
            found.setdefault(int(match[1]), match[2])
            rest = match[3]
        return cls(text, {}) if "$" in rest else cls(rest, found)

    def at(self, port: Optional[int]) -> str:
        """Return the list for a port."""
        return self.elsewhere if port is None else self.of_port.get(port, self.elsewhere)

    def __str__(self) -> str:
        """Return the text of the option."""
        text = self.elsewhere
        for port, files in sorted(self.of_port.items(), reverse=True):
            text = f"${{if eq{{$received_port}}{{{port}}}{{{files}}}{{{text}}}}}"
        return text


def certificates_of(desired: Desired) -> str:
    """Return the text of tls_certificate for a wanted state."""
    own = " : ".join(certificate for certificate, _key in desired.own_pairs)
    return str(FilesByPort(own, {at: " : ".join(one.certificate for one in of) for at, of in desired.by_port.items()}))


def keys_of(desired: Desired) -> str:
    """Return the text of tls_privatekey for a wanted state."""
    own = " : ".join(key or certificate for certificate, key in desired.own_pairs)
    ports = {at: " : ".join(one.private_key or one.certificate for one in of) for at, of in desired.by_port.items()}
    return str(FilesByPort(own, ports))


def what_is_lost(text: str, desired: Desired) -> str:
    """Return why a change would take certificates away that other ports or names have; empty if it does not.

    text: tls_certificate without the collection.
    """
    if "$" not in text or not desired.names_certificates:
        return ""
    ports = FilesByPort.of(text).of_port
    if ports and {*ports} <= {*desired.by_port}:
        return ""
    return (
        f"tls_certificate is {text}, which chooses the certificate by port or name, and the change would replace it by "
        f"{desired.certificate} for every client; take that out first, and choose one certificate for all, or name those ports in an "
        "entry of starttls_more_certificates"
    )


def port_problem(desired: Desired, modes: Mapping[Optional[int], str]) -> str:
    """Return why a port cannot serve a certificate of its own; empty if each can.

    modes: port on which Exim listens -> its TLS mode after the change.
    """
    for port in desired.by_port:
        named = f"starttls_more_certificates names port {port}"
        if port not in modes:
            return (
                f"{named}, and Exim does not listen on it; add it to daemon_smtp_ports, or take the port out of ports"
            )
        if modes[port] == "none":
            return (
                f"{named}, and Exim offers no STARTTLS there; let tls_advertise_hosts (MAIN_TLS_ADVERTISE_HOSTS) have that port, add it "
                "to tls_on_connect_ports, or take the port out of ports"
            )
    return ""
