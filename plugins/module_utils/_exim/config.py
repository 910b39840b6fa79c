# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Exim itself says of its configuration: one C(exim4 -bP) for everything that the collection asks.

Source: the Exim specification, chapter on the command line, -bP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log_places import LOG_OPTIONS
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import parse_settings
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import BrokenConfigurationError

_OPTIONS = (
    "exim_version", "local_interfaces", "daemon_smtp_ports", "tls_on_connect_ports", "tls_advertise_hosts", "tls_certificate",
    *LOG_OPTIONS,
)  # fmt: skip
_BY_PORT = re.compile(r"\$\{if eq\{\$received_port\}\{(\d+)\}\{(\*?)\}\{(.*)\}\}\Z", re.DOTALL)
_TRANSPORT = re.compile(r"^(\S+) transport:$", re.MULTILINE)
_ROUTER = re.compile(r"^(\S+) router:$", re.MULTILINE)


class ByPort(NamedTuple):
    """A host list that is another one for one port. here: the list for the port. elsewhere: that for every other port."""

    port: int
    here: str
    elsewhere: str

    @classmethod
    def of(cls, text: str, port: int = 0) -> ByPort:
        """Read the text of a list. One that does not depend on a port is the same for the given port and every other."""
        match = _BY_PORT.match(text.strip())
        return cls(int(match[1]), match[2], match[3]) if match else cls(port, text, text)

    def at(self, port: Optional[int]) -> str:
        """Return the list for a port."""
        return self.here if port == self.port else self.elsewhere

    @property
    def condition(self) -> str:
        """How the text of a list begins that depends on the port."""
        return f"${{if eq{{$received_port}}{{{self.port}}}{{"

    def __str__(self) -> str:
        """Return the text of the list, for the configuration of Exim."""
        same = self.here == self.elsewhere
        return self.here if same else f"{self.condition}{self.here}}}{{{self.elsewhere}}}}}"


class Printed:
    """The configuration on disk as Exim prints it. It is read once, when it is needed; call forget() when it may have changed."""

    def __init__(self, run: Runner, file: str = "", program: str = DEBIAN.program, more: tuple[str, ...] = ()) -> None:
        """Prepare only; nothing is read. file: a configuration to print instead of the one that Exim uses. more: further options."""
        self._run = run
        self._command = [program, *(["-C", file] if file else []), "-bP"]
        self._wanted = (*_OPTIONS, *more)
        self._parts: Optional[list[str]] = None
        self._routers: Optional[dict[str, dict[str, str]]] = None

    def forget(self) -> None:
        """Read everything again when it is needed the next time."""
        self._parts = self._routers = None

    def _read(self) -> list[str]:
        """Return the options, then the name and the options of each transport in turn. Raises BrokenConfigurationError."""
        if self._parts is None:
            self._parts = _TRANSPORT.split(self._ask("configure_file", *self._wanted, "transports"))
        return self._parts

    def _ask(self, *words: str) -> str:
        status, out, err = self._run([*self._command, *words])
        if status != 0:
            raise BrokenConfigurationError(f"Exim does not read its configuration: {(err or out).strip()}")
        return out

    @property
    def file(self) -> str:
        """The path of the file that Exim reads."""
        return next((line for line in self._read()[0].splitlines() if line.startswith("/")), "")

    @property
    def options(self) -> Mapping[str, str]:
        """Options of the main part: name -> value, empty for one that this Exim does not know."""
        found = parse_settings(self._read()[0])
        return {name: found.get(name, "") for name in self._wanted}

    @property
    def version(self) -> str:
        """The version, for example C(4.98.2); empty if Exim does not say."""
        return self.options["exim_version"]

    @property
    def transports(self) -> dict[str, dict[str, str]]:
        """Transport -> its options, without those that are only switched on or off."""
        parts = self._read()
        return {name: parse_settings(text) for name, text in zip(parts[1::2], parts[2::2])}

    @property
    def routers(self) -> dict[str, dict[str, str]]:
        """Router -> its options, in their order, without those that are only switched on or off."""
        if self._routers is None:
            parts = _ROUTER.split(self._ask("routers"))
            self._routers = {name: parse_settings(text) for name, text in zip(parts[1::2], parts[2::2])}
        return self._routers

    @property
    def everything(self) -> dict[str, dict[str, str]]:
        """Place -> option -> value, of all options with a value: the main part's place is empty, others are names of transports."""
        return {"": parse_settings(self._ask()), **self.transports}

    @property
    def text(self) -> str:
        """The configuration as it was read: without comments, macros and what conditions leave out."""
        return self._ask("config")
