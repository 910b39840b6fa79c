# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The oldest TLS version that a Postfix instance permits. Sources: postconf(5), TLS_README, tls_proto_mask_lims() of Postfix 3.6."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.delivered import table_names
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.observe import Configuration
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.reach import OURS
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import (
    TLS_ORDER,
    Permit,
    Permits,
    older_than,
)

RECEIVING_LISTS = ("smtpd_tls_protocols", "smtpd_tls_mandatory_protocols")
SENDING_LISTS = ("smtp_tls_protocols", "smtp_tls_mandatory_protocols")
_NAMES = {
    **{one.lower(): one for one in TLS_ORDER},
    **{f"{place:04x}": one for place, one in enumerate(TLS_ORDER[1:], 0x0300)},
}
_WORD = re.compile(r"(>=|<=|!)?(?:0x)?([A-Za-z0-9.]+)\Z")
_PROXY = "tlsproxy/unix"
"""The service that does the TLS of postscreen."""
_OF_A_GATEWAY = "mailfleet-"
"""How the names of a gateway's own transports begin: the gateway sets their versions, not main.cf."""
_ATTRIBUTE = re.compile(r"(?:^|\s)protocols\s*=\s*(\S+)")


def oldest(value: str) -> Optional[str]:
    """Return the oldest version that a list of protocols permits; None if that cannot be told, empty if it permits none."""
    included, permitted = set(), set(TLS_ORDER)
    for word in filter(None, re.split(r"[,:\s]+", value)):
        match = _WORD.match(word)
        name = _NAMES.get(match[2].lower()) if match else None
        if match is None or name is None:
            return None
        at = TLS_ORDER.index(name)
        if match[1] == "!":
            permitted.discard(name)
        elif match[1] == ">=":
            permitted -= set(TLS_ORDER[:at])
        elif match[1] == "<=":
            permitted -= set(TLS_ORDER[at + 1 :])
        else:
            included.add(name)
    found = permitted & included if included else permitted
    return next((one for one in TLS_ORDER if one in found), "")


def spelled(mail_version: str, floor: str) -> str:
    """Return the floor as a list of protocols. Postfix knows ranges since 3.6."""
    found = re.match(r"(\d+)\.(\d+)", mail_version)
    if found and (int(found[1]), int(found[2])) >= (3, 6):
        return f">={floor}"
    return ", ".join(f"!{one}" for one in older_than(floor))


def permits(
    configuration: Configuration, entries: Callable[[str], Optional[list[tuple[str, str]]]], wanted: str
) -> Permits:
    """Return what each listener and client permits. entries: lists a table, see Reach. wanted: the list that holds the floor."""
    inbound, outbound, notes = [], [], []
    for service, command in configuration.commands.items():
        kind = service.rpartition("/")[2]
        if command in ("smtpd", "postscreen") and kind in ("inet", "pass"):
            where = _PROXY if command == "postscreen" else service
            used = _used(configuration, service, command)
            names = [f"{'tlsproxy' if command == 'postscreen' else 'smtpd'}_tls_{one}" for one in used]
            inbound += [_permit(configuration, service, where, names, wanted)] if names else []
        elif command == "smtp" and kind == "unix" and not service.startswith(_OF_A_GATEWAY):
            names = [f"smtp_tls_{one}" for one in _used(configuration, service, "smtp")]
            outbound += [_permit(configuration, service, service, names, wanted)] if names else []
    tables = {
        table: setting
        for service in ("", *configuration.commands)
        for setting in ("smtp_tls_policy_maps",)
        for table in table_names(configuration.value(service, setting))
        if OURS not in table
    }
    for table, setting in tables.items():
        rows = entries(table)
        if rows is None:
            notes.append(
                f"{setting} = {table} cannot be listed, so it is not known whether it permits older TLS versions"
            )
        outbound += _of_table(setting, table, rows or ())
    return Permits(tuple(inbound), tuple(outbound), tuple(notes))


def looser(configuration: Configuration, transports: Collection[str], floor: str) -> list[str]:
    """Return which of these transports permit an older version than a floor, or do not let it be told."""
    found = []
    for name in transports:
        service = f"{name}/unix"
        names = [f"smtp_tls_{one}" for one in _used(configuration, service, "smtp")]
        if service in configuration.commands and names:
            one = _permit(configuration, service, service, names, "")
            found += [name] if one.oldest is None or one.is_below(floor) else []
    return found


def _used(configuration: Configuration, service: str, prefix: str) -> tuple[str, ...]:
    """Return which of the two lists count for a service. prefix: smtpd, postscreen or smtp."""
    settings = "smtpd" if prefix == "postscreen" else prefix
    level = configuration.level(service, prefix)
    if configuration.value(service, f"{settings}_tls_wrappermode") == "yes":
        return ("mandatory_protocols",)
    if level == "none":
        return ()
    if level == "dane":  # which of them depends on the domain
        return ("protocols", "mandatory_protocols")
    return ("protocols",) if level == "may" else ("mandatory_protocols",)


def _permit(configuration: Configuration, service: str, where: str, names: Collection[str], wanted: str) -> Permit:
    """Return the looser of some settings. where: the service of master.cf that has them. wanted: the list that holds the floor."""
    values = {name: configuration.value(where, name) for name in names if configuration.knows(where, name)}
    found = {name: oldest(value) for name, value in values.items()}
    unknown = [name for name in names if found.get(name) is None]
    name = unknown[0] if unknown else min(found, key=lambda one: TLS_ORDER.index(found[one] or TLS_ORDER[-1]))
    advice = ""
    if name in configuration.overrides.get(where, {}):
        advice = f"master.cf sets {name} for {where}: take it out (postconf -PX '{where}/{name}')"
    elif name in values:
        advice = f"main.cf decides that: postconf -e '{name}={wanted}'"
    return Permit(service, found.get(name), advice)


def _of_table(setting: str, table: str, rows: Collection[tuple[str, str]]) -> Iterator[Permit]:
    """Yield what the entries of a table of policies permit, where they say that themselves."""
    for key, value in rows:
        if match := _ATTRIBUTE.search(value):
            yield Permit(
                f"the entry {key[:100]!a} of {setting} = {table}",
                oldest(match[1]),
                f"take protocols={match[1][:100]} out of that entry",
            )
