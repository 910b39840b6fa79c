# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How TLS is switched off on Postfix for one port and one client, while every other service is as it was before.

The settings of main.cf go back to what they were. If the port or the client would use TLS with them, as main.cf gives it to all
services, the service in master.cf gets an exception of its own. Source: master(5), "-o name=value".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Was
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf, Service
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.observe import Configuration

CLIENT = "smtp/unix"
"""The service by which mail leaves for the relay host."""

PASSED = "smtpd/pass"
"""The service to which postscreen hands its connections."""


CHAIN = "smtpd_tls_chain_files"
# If smtpd_tls_chain_files is set, Postfix ignores these parameters and warns about them.
SUPERSEDED = tuple(f"smtpd_tls_{kind}{what}_file" for kind in ("", "d", "ec") for what in ("cert", "key"))


class Former(NamedTuple):
    """What goes back to what it was. main and options: as in Edits."""

    main: dict[str, Optional[str]]
    options: dict[str, Optional[str]]


def places(services: Sequence[Service], is_listener: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Return the services that receive mail at the port, each with the setting of its level."""
    found = []
    for one in services:
        if is_listener(one.name) and one.command == "smtpd":
            found.append((one.name, "smtpd_tls_security_level"))
        elif is_listener(one.name) and one.command == "postscreen":
            found += [(one.name, "postscreen_tls_security_level"), (PASSED, "smtpd_tls_security_level")]
    return found


def exempted(services: Sequence[Service], inbound: bool, outbound: bool) -> list[tuple[str, str]]:
    """Return the options by which a change may have left other services as they were, each with its service."""
    found: list[tuple[str, str]] = []
    for one in services:
        if inbound and one.command == "smtpd":
            found += [(one.name, name) for name in (CHAIN, *SUPERSEDED, "smtpd_tls_security_level")]
        elif outbound and one.command == "smtp" and one.name != CLIENT:
            found.append((one.name, "smtp_tls_security_level"))
    return found


def certificates_of_their_own(
    services: Sequence[Service], main: Mapping[str, str], is_listener: Callable[[str], bool]
) -> dict[str, str]:
    """Return the options of master.cf with which listeners keep their own certificates although main.cf gets a chain.

    main: the settings of main.cf now, without a chain. With an empty chain of its own, a listener goes by the older settings again;
    those that it takes from main.cf go from there, so it gets them itself.
    """
    options = {}
    for one in services:
        own = [name for name in SUPERSEDED if one.settings.get(name)]
        if one.command != "smtpd" or is_listener(one.name) or not own or CHAIN in one.settings:
            continue
        inherited = {name: main[name] for name in SUPERSEDED if main.get(name) and name not in one.settings}
        options.update({f"{one.name}/{name}": value for name, value in {CHAIN: "", **inherited}.items()})
    return options


def former(
    postconf: Postconf, was: Mapping[str, Was], names: Collection[str], options: Sequence[tuple[str, str]]
) -> Former:
    """Return what goes back: the settings and options that are as the last change left them, and were different before.

    A setting that somebody has changed since stays, and so do the options of a service that is new: a transport of a peer or a gateway.
    names: parameters of main.cf. options: services, each with a parameter.
    """
    if not was:
        return Former({}, {})
    before, last = (
        _read(postconf, {path: getattr(one, side) for path, one in was.items()}, names, options)
        for side in ("without", "last")
    )
    now = _values(postconf, names, options)
    back = {key: before[key] for key in now if key in before and key in last and now[key] == last[key] != before[key]}
    main = {name: back["", name] for name in names if ("", name) in back}
    return Former(main, {"/".join(key): value for key, value in back.items() if key[0]})


def _read(postconf: Postconf, texts: Mapping[str, bytes], *what: Any) -> dict[tuple[str, str], Optional[str]]:
    with postconf.staged(texts) as staged:
        return _values(staged, *what)


def _values(
    postconf: Postconf, names: Collection[str], options: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Optional[str]]:
    explicit = postconf.explicit() if names else {}
    services = {one.name: one.settings for one in postconf.services()} if options else {}
    found: dict[tuple[str, str], Optional[str]] = {("", name): explicit.get(name) for name in names}
    there = [(service, name) for service, name in options if service in services]
    return {**found, **{(service, name): services[service].get(name) for service, name in there}}


def exceptions(
    postconf: Postconf, images: Sequence[FileImage], is_listener: Callable[[str], bool], inbound: bool, outbound: bool
) -> dict[str, Optional[str]]:
    """Return the options of master.cf without which the port (inbound) or the client (outbound) would use TLS.

    images: main.cf and master.cf after the other edits.
    """
    with postconf.staged({image.path: image.content or b"" for image in images}) as staged:
        configuration = Configuration(staged)
        concerned = places(staged.services(), is_listener) if inbound else []
        concerned += [(CLIENT, "smtp_tls_security_level")] if outbound and CLIENT in configuration.commands else []
        return {
            f"{service}/{name}": "none"
            for service, name in concerned
            if configuration.level(service, name.partition("_")[0]) != "none"
        }


def alike(postconf: Postconf, images: Sequence[FileImage], was: Mapping[str, Was]) -> list[FileImage]:
    """Return the files; one that now says the same as it would without the collection is that file, byte by byte.

    Postfix's own tools lay out anew what they edit.
    """
    if not was:
        return list(images)
    without = {path: one.without for path, one in was.items()}
    with (
        postconf.staged({image.path: image.content or b"" for image in images}) as after,
        postconf.staged(without) as before,
    ):
        same = {
            f"{postconf.config_dir}/main.cf": after.explicit() == before.explicit(),
            f"{postconf.config_dir}/master.cf": after.services() == before.services(),
        }
    return [
        replace(image, content=without[image.path]) if image.path in without and same.get(image.path) else image
        for image in images
    ]
