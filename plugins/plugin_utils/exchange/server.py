# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Exchange server as the controller talks to it: by exchange_cmdlets, which reads, and makes calls of cmdlets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import CONTROLLERS, Room
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.shapes import understood

MODULE = "mailfleet.starttls.exchange_cmdlets"

Execute = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Runs a module on the host: (name of the module, its options) -> its result."""


class ReadFailed(EngineError):
    """The server could not be read. result: that of the module."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        message = str(result.get("msg") or "exchange_cmdlets gave no reason")
        super().__init__(message)
        self.result = {**result, "failed": True, "msg": message}


@dataclass(frozen=True)
class Applied:
    """How a list of calls ended. failed: empty if all were made. undone: whether nothing of it is left on the server."""

    failed: str = ""
    undone: bool = True


class CmdletServer:
    """One server. access: the options of exchange_cmdlets that say how the cmdlets are reached."""

    def __init__(self, execute: Execute, access: Mapping[str, Any]) -> None:
        self._execute, self._access = execute, {name: value for name, value in access.items() if value}
        self.room: Room = CONTROLLERS["exchange"]()
        self.raw: Mapping[str, Any] = {}
        self.organisation: Any = None

    def read(self) -> Any:
        """Return what is there, as a value of the room (Organisation). Raises ReadFailed, EngineError.

        It is in organisation as well, and the plain data are in raw, as of the last read or change.
        """
        result = self._execute(MODULE, {"operation": "read", **self._access})
        if result.get("failed") or "observed" not in result:
            raise ReadFailed(result)
        self._seen(result)
        return self.organisation

    def _seen(self, result: Mapping[str, Any]) -> None:
        with understood("what exchange_cmdlets returned"):
            self.raw = dict(result["observed"])
            self.organisation = self.room.model.observe(self.raw)

    def digest(self) -> str:
        """Return the digest of what was read last: of what belongs to this server, and not of what the organisation shares."""
        own = self.room.model.observe({**self.raw, "SendConnectors": None})
        return str(self.room.observed.digest(own))

    def apply(self, calls: Iterable[Any], secrets: Optional[Mapping[str, str]] = None) -> Applied:
        """Make calls in their order; the module undoes them if one fails. secrets: what they refer to.

        calls: values of the room (Call), or the same as plain data.
        """
        plain = [one if isinstance(one, Mapping) else one.to_json() for one in calls]
        if not plain:
            return Applied()
        arguments: dict[str, Any] = {"operation": "apply", **self._access, "calls": plain}
        if secrets and _refer_to_secrets(plain):
            arguments["secrets"] = dict(secrets)
        result = self._execute(MODULE, arguments)
        if not result.get("failed"):
            self._seen(result)
            return Applied()
        return Applied(str(result.get("msg") or "exchange_cmdlets gave no reason"), _was_undone(result))

    def restore(self, calls: Iterable[Mapping[str, Any]]) -> str:
        """Make all calls that undo a change, whatever fails. Return what failed; empty if nothing did."""
        plain = list(self._needed(calls))
        if not plain:
            return ""
        result = self._execute(MODULE, {"operation": "restore", **self._access, "calls": plain})
        return str(result.get("msg") or "exchange_cmdlets gave no reason") if result.get("failed") else ""

    def _needed(self, calls: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield the calls that have something to undo: a run may have been killed before or after any of those that they undo."""
        there = {listed: _names(self.raw.get(listed), names) for listed, names in _NAMES.items()}
        for call in calls:
            verb, _, noun = str(call["Cmdlet"]).partition("-")
            listed = _LISTS.get(noun)
            names = there.get(listed or "")
            mine = _name_in(call["Parameters"])
            if names is None or listed is None:
                yield call
            elif verb == "New":
                if mine not in names:
                    names.add(mine)
                    yield call
            elif mine in names:
                if verb == "Remove":
                    names.remove(mine)
                yield call


_LISTS = {
    "ReceiveConnector": "ReceiveConnectors",
    "SendConnector": "SendConnectors",
    "ExchangeCertificate": "ExchangeCertificates",
}
"""What a cmdlet is about -> the list in which it is."""
_NAMES = {"ReceiveConnectors": "Identity", "SendConnectors": "Identity", "ExchangeCertificates": "Thumbprint"}
"""List -> the property that names its objects."""


def _names(listed: Any, name: str) -> Optional[set[str]]:
    """Return the names of the objects of a list, in lower case; None if it could not be read."""
    return None if listed is None else {str(one.get(name)).lower() for one in listed}


def _name_in(parameters: Mapping[str, Any]) -> str:
    """Return the name of the object that a call is about, in lower case. A new receive connector is known by that of its server, too."""
    if "Name" in parameters and "Server" in parameters:
        return f"{parameters['Server']}\\{parameters['Name']}".lower()
    found = (parameters.get(name) for name in ("Identity", "Thumbprint", "Name"))
    return str(next((one for one in found if one), "")).lower()


def _refer_to_secrets(calls: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        isinstance(value, Mapping) and "Secret" in value for one in calls for value in one["Parameters"].values()
    )


def _was_undone(result: Mapping[str, Any]) -> bool:
    """Return whether nothing is left of calls of which one failed. A result without the module's own words says nothing."""
    if "failure" in result:
        return not any(one.get("message") for one in result.get("undo") or ())
    return "Nothing was run." in str(result.get("msg"))
