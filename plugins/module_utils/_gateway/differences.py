# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a gateway's daemon does something else than the record says, with the cause as far as it is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage, UnsafeFileError
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.in_force import (
    DIFFERS,
    EDITED,
    NOT_TOLD,
    REPLACED,
    UNPROVED,
    WHOLE,
    Answers,
    Fault,
    of_config,
    promises,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError


def differences(
    gateway: Gateway, held: GatewayState, delivered: Mapping[str, Optional[str]], answers: Answers, store: str
) -> list[dict[str, str]]:
    """Return C(what), C(code), C(severity) and C(message) of each difference: see in_force.Fault.

    held: what the record says. delivered, answers: what the daemon showed. store: the directory of the record of what was there.
    """
    found = [*_of_gateway(gateway, held), *_edited(gateway, store)]
    named = {one.what for one in found}
    return _told(held, [*found, *(one for one in _shown(held, delivered, answers) if one.what not in named)])


def unreadable(held: GatewayState, error: Exception) -> list[dict[str, str]]:
    """Return the difference of a gateway whose configuration cannot be read."""
    return _told(held, [_unread(error)]) if held != GatewayState() else []


def _told(held: GatewayState, found: Sequence[Fault]) -> list[dict[str, str]]:
    """Return the faults as plain data, each once. What cannot be told is an error where TLS was promised."""
    promised = [
        replace(one, code=UNPROVED) if one.code == NOT_TOLD and promises(held, one.what) else one for one in found
    ]
    return [one.to_dict() for one in dict.fromkeys(promised)]


def _unread(error: Exception) -> Fault:
    return Fault(WHOLE, NOT_TOLD, f"its configuration cannot be read: {error}")


def _of_gateway(gateway: Gateway, held: GatewayState) -> list[Fault]:
    try:
        return list(gateway.faults(held))
    except (EngineError, OSError) as error:
        return [_unread(error)]


def _shown(held: GatewayState, delivered: Mapping[str, Optional[str]], answers: Answers) -> Iterator[Fault]:
    """Yield what differs without a known cause."""
    for name, config in held.email_configs.items():
        for mode in dict.fromkeys(delivered.get(one) for one in config.domains):
            domains = [one for one in config.domains if delivered.get(one) == mode]
            outside = [one for one in domains if one not in held.recipients_enforced]
            if mode and mode != config.delivery_mode and outside:
                said = f"the mode '{config.delivery_mode}' was set, and {', '.join(outside)} is delivered in the mode '{mode}'"
                yield Fault(of_config(name), DIFFERS, said)
    for what, values in answers.items():
        for one, answer in values.items():
            if answer is False:
                where = f"{what} {one}" if what in ("inbound", "outbound") else what
                yield Fault(where, DIFFERS, f"{one} was set, and the configuration of the daemon lacks it")


def _edited(gateway: Gateway, store: str) -> list[Fault]:
    """Return the files of the collection's own that are not as its last change left them: another hand, or a backup.

    A record that is another one says nothing of what was set last, so whatever agrees with it proves nothing.
    """
    try:
        made = before.load(store, getattr(gateway, "name", "")).files if gateway.files() else {}
        others = [path for path in gateway.files() if _is_other(made.get(path))]
    except (EngineError, OSError) as error:
        return [Fault(WHOLE, NOT_TOLD, f"its files cannot be compared with what the last run left: {error}")]
    records = [one for one in others if one.endswith(".json")]
    rest = [one for one in others if one not in records]
    return [*_fault(REPLACED, records), *_fault(EDITED, rest)]


def _is_other(entry: Optional[before.Origin]) -> bool:
    """Whether a file that the collection made is another one now, or gone. Those of the administrator may be edited."""
    if entry is None or entry.without.content is not None:
        return False
    try:
        return not entry.is_last(FileImage.read(entry.without.path, trust=entry.without.trust))
    except UnsafeFileError:  # a link or a device has taken its place
        return True


def _fault(code: str, paths: Sequence[str]) -> list[Fault]:
    if not paths:
        return []
    are = "is" if len(paths) == 1 else "are"
    return [Fault(WHOLE, code, f"{', '.join(paths)} {are} not as the last run left {'it' if are == 'is' else 'them'}")]
