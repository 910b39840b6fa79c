# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listeners and transports of Exim, as C(exim -bP) gives them. Nothing is changed.

Sources: the Exim specification, chapters on the command line, on how the daemon listens, on TLS and on the smtp transport.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.config import ByPort, Printed
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.files_by_port import FilesByPort
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.binding import Wish
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import (
    UNKNOWN,
    Listener,
    Transport,
    port_number,
)

_EVERYWHERE = ("0.0.0.0", "::0", "::")  # noqa: S104  (what Exim writes for all addresses)
_BRACKETS = re.compile(r"\[([0-9a-fA-F.:]+)\](?::(\d+))?\Z")
_IS_ADDRESS = re.compile(r"[.:\[]")
_DOTTED = re.compile(r"(\d+\.\d+\.\d+\.\d+)\.(\d+)\Z")


def listeners(printed: Printed, command_line: str = "", requires: bool = False) -> list[Listener]:
    """Return the addresses and ports on which the daemon listens. Raises EngineError if Exim cannot read its configuration.

    command_line: of the running daemon, its words separated by NUL characters. Its option C(-oX) overrides the configuration.
    requires: whether the access control lists refuse mail in plaintext.
    """
    values = printed.options
    implicit = {port_number(port) for port in _list(values["tls_on_connect_ports"])}
    found: dict[tuple[str, Optional[int]], Listener] = {}
    for interface, written in _places(values, command_line):
        host, port = _interface(interface)[0], port_number(written)
        offered = _offered(ByPort.of(values["tls_advertise_hosts"]).at(port), requires)
        tls = "implicit" if port in implicit else offered
        certificates = _files(FilesByPort.of(values["tls_certificate"]).at(port)) if tls != "none" else ()
        found[host, port] = Listener(f"{host or '*'}:{port}", host, port, tls, certificates)
    return list(found.values())


def wishes(printed: Printed, command_line: str = "") -> list[Wish]:
    """Return where the daemon wants to listen at its next start or reload. Parameters and errors as for listeners()."""
    found = []
    for interface, port in _places(printed.options, command_line):
        host, _own = _interface(interface)
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        title = f"local_interfaces and daemon_smtp_ports ({host or 'all addresses'}, port {port})"
        found.append(Wish(title, host, port_number(port), port, (family,)))
    return found


def _places(values: Mapping[str, str], command_line: str) -> list[tuple[str, str]]:
    """Return each interface and port, as they are written. A daemon that was started without C(-bd) runs its queue, and listens nowhere."""
    interfaces, ports = _list(values["local_interfaces"]), _list(values["daemon_smtp_ports"])
    words = command_line.rstrip("\0").split("\0")
    if command_line and not any(word.startswith("-bd") for word in words):
        return []
    if "-oX" in words[:-1]:
        items = _list(words[words.index("-oX") + 1])
        ports = [item for item in items if not _IS_ADDRESS.search(item)] or ports
        interfaces = [item for item in items if _IS_ADDRESS.search(item)] or interfaces
    pairs = []
    for interface in interfaces:
        own = _interface(interface)[1]
        pairs += [(interface, port) for port in ([str(own)] if own else ports)]
    return pairs


def transports(printed: Printed, next_hops: Mapping[str, Sequence[tuple[str, int]]]) -> list[Transport]:
    """Return the transports whose driver is smtp. Raises EngineError if Exim cannot read its configuration.

    next_hops: transport -> hosts and ports, for a transport whose router has a fixed list of hosts.
    """
    found: list[Transport] = []
    for name, options in printed.transports.items():
        if options.get("driver") != "smtp":
            continue
        hops: Sequence[tuple[Optional[str], Optional[int]]] = next_hops.get(name) or [(None, None)]
        for host, port in hops:
            implicit = options.get("protocol") == "smtps"
            found.append(Transport(f"transport {name}", name, host, port, level(options), implicit))
    return found


def observe(
    printed: Printed,
    daemon: Optional[int],
    next_hops: Mapping[str, Sequence[tuple[str, int]]],
    requires: bool = False,
) -> dict[str, Any]:
    """Return C(listeners) and C(transports) as plain data. Raises EngineError if Exim cannot read its configuration.

    daemon: the process of the daemon; None if it does not run.
    """
    command_line = command_line_of(daemon)
    return {
        "listeners": [one.to_json() for one in listeners(printed, command_line, requires)],
        "transports": [one.to_json() for one in transports(printed, next_hops)],
    }


def command_line_of(daemon: Optional[int]) -> str:
    """Return the words with which the daemon was started, separated by NUL characters; empty if it does not run."""
    with contextlib.suppress(OSError):
        if daemon is not None:
            return Path(f"/proc/{daemon}/cmdline").read_text(errors="replace")
    return ""


def _offered(hosts: str, requires: bool) -> str:
    """Return the TLS mode of a port without implicit TLS. A list of hosts makes the mode depend on the client."""
    return {"": "none", "*": "required" if requires else "offered"}.get(hosts.strip(), UNKNOWN)


def _files(text: str) -> tuple[str, ...]:
    """Return the files of tls_certificate. A text that Exim expands for each connection stays whole."""
    return (text,) if "${" in text else tuple(_list(text))


def level(options: Mapping[str, str]) -> str:
    """Return the level towards all hosts, in the words of a mail server's outbound side; C(unknown) if it depends on the host."""
    avoid, require = options.get("hosts_avoid_tls", ""), options.get("hosts_require_tls", "")
    if avoid == "*":
        return "disabled"
    if require == "*":
        return "required"
    return UNKNOWN if avoid or require else "opportunistic"


def _interface(text: str) -> tuple[str, Optional[int]]:
    """Return address and port of an item of local_interfaces; the address is empty for all addresses."""
    match = _BRACKETS.match(text) or _DOTTED.match(text)
    host, port = (match[1], match[2]) if match else (text, None)
    return "" if host in _EVERYWHERE else host, int(port) if port else None


def _list(text: str) -> list[str]:
    """Return the items of an Exim list, whose separator is a colon unless C(<) names another. A doubled separator stands for itself."""
    text = text.strip()
    separator = ":"
    if text.startswith("<") and len(text) > 1:
        separator, text = text[1], text[2:]
    items = [item.replace("\0", separator).strip() for item in text.replace(separator * 2, "\0").split(separator)]
    return [item for item in items if item]
