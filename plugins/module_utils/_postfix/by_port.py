# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that the listeners on some ports of Postfix serve in the place of those of main.cf: options of master.cf.

Source: master(5), "-o name=value"; postconf(5), smtpd_tls_chain_files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import port_number
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Service
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.former import (
    CHAIN,
    SUPERSEDED,
    certificates_of_their_own,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_LEVEL = "smtpd_tls_security_level"


def set_by_port(services: Sequence[Service], desired: Desired) -> dict[str, str]:
    """Return the options with which the listeners serve the certificates of their ports. Raises EngineError for a port that cannot."""
    found: dict[str, str] = {}
    for port, certificates in desired.by_port.items():
        named = f"starttls_more_certificates names port {port}"
        there = [one for one in services if _port_of(one) == port]
        if not there:
            raise EngineError(
                f"{named}, and no service of master.cf listens on it; switch that service on in master.cf, or take the port out of ports"
            )
        for one in there:
            if one.command != "smtpd":
                raise EngineError(
                    f"{named}, and {one.command} listens there ({one.name}); only smtpd can have certificates of its own, so take the "
                    "port out of ports"
                )
            if one.settings.get(_LEVEL) == "none" and not _is_wrapped(one):
                raise EngineError(
                    f"{named}, and master.cf sets {_LEVEL}=none for {one.name}, so it serves no certificate; remove it "
                    f"first: postconf -PX '{one.name}/{_LEVEL}'"
                )
            # Without blanks: an option of master.cf ends at one.
            found[f"{one.name}/{CHAIN}"] = ",".join(file for each in certificates for file in each.files)
            # Postfix ignores these beside the other one, and warns at each connection.
            found.update({f"{one.name}/{name}": "" for name in SUPERSEDED if one.settings.get(name)})
    return found


def services_of(options: Mapping[str, str]) -> set[str]:
    """Return the services that these options of set_by_port() concern."""
    return {key.rpartition("/")[0] for key in options}


def no_longer_set(services: Sequence[Service], wanted: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the options, each with its service, that an earlier change may have set for a port which no entry names any more.

    An empty chain is none of them: with that a listener keeps its own certificates.
    """
    still = services_of(wanted)
    return [
        (one.name, name)
        for one in services
        if one.command == "smtpd" and one.settings.get(CHAIN) and one.name not in still
        for name in (CHAIN, *(each for each in SUPERSEDED if one.settings.get(each) == ""))
    ]


def kept_again(
    services: Sequence[Service], back: Mapping[str, Optional[str]], main: Mapping[str, str]
) -> dict[str, str]:
    """Return the options with which listeners go by their own older settings again, once the certificates of their port are gone.

    back: the options that go back to what they were. main: the settings of main.cf without the collection.
    """
    if main.get(CHAIN):
        return {}
    after = []
    for one in services:
        changed = {name: back[key] for name in (CHAIN, *SUPERSEDED) if (key := f"{one.name}/{name}") in back}
        if CHAIN in changed:
            settings = {**one.settings, **changed}
            after.append(replace(one, settings={name: value for name, value in settings.items() if value is not None}))
    return certificates_of_their_own(after, main, lambda _service: False)


def names_only(service: Service, paths: Collection[str]) -> bool:
    """Whether a service has certificates of its own, and all are among these files."""
    files = [one for one in service.settings.get(CHAIN, "").replace(",", " ").split() if one]
    return bool(files) and set(files) <= set(paths)


def _port_of(service: Service) -> Optional[int]:
    name, _, kind = service.name.rpartition("/")
    return port_number(name.rpartition(":")[2]) if kind == "inet" else None


def _is_wrapped(service: Service) -> bool:
    return service.settings.get("smtpd_tls_wrappermode") == "yes"
