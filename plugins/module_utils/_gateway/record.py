# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record: the state of a gateway as JSON, in a file on the gateway next to the files that are generated from it.

The record's format also covers the generated files, because one change writes them all. A version of the collection
that does not know the format changes none of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.formats import (
    KEY,
    NewerFormatError,
    format_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import ROOT_AND_ME, PathTrust
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    TRANSPORT_FLOORS,
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

FORMAT = 1
"""The format that this version writes. Format 0 had the same keys, without the number."""


def dump(state: GatewayState) -> str:
    """Return the state as JSON text in a fixed order, for load."""
    data = {
        KEY: FORMAT,
        "email_configs": [state.email_configs[name].to_dict() for name in sorted(state.email_configs)],
        "enforced_domains": [one.to_dict() for one in sorted(state.enforced, key=lambda one: one.key)],
        "outbound": state.outbound.to_dict() if state.outbound else None,
        "ca_file": state.ca_file,
        **({"min_tls": state.min_tls} if state.min_tls else {}),
    }
    return json.dumps(data, indent=2) + "\n"


def load(text: str, where: str) -> GatewayState:
    """Read the state from JSON text of this format or an older one. An empty text is an empty state.

    Raises EngineError, which names the place, if the text cannot be read or has a newer format.
    """
    return _parse(text, where)[1] if text else GatewayState()


def load_file(path: str, trust: PathTrust = ROOT_AND_ME) -> GatewayState:
    """Read the state from a file. Without a file, the state is empty. Raises EngineError like load."""
    return load(_text(FileImage.read(path, trust=trust)), path)


def change_with_record(images: Sequence[FileImage], place: Union[str, FileImage], state: GatewayState) -> Change:
    """Return the change of these files and of the record of the state. The record is written last.

    place: the path of the record; an image for the owner and mode of a new one, and whom its path may trust.

    A record of an older format that holds this state already is rewritten only together with other files.
    So a run after an update of the collection reports a change only if the gateway changes.
    """
    form = FileImage(place, None) if isinstance(place, str) else place
    present = FileImage.read(form.path, trust=form.trust)
    record = replace(form, content=dump(state).encode())
    if _holds_in_older_format(present, state) and not Change.of([*images, replace(record, content=present.content)]):
        return Change((), ())
    return Change.of([*images, record])


def _holds_in_older_format(record: FileImage, state: GatewayState) -> bool:
    if not record.content:
        return False
    found, held = _parse(_text(record), record.path)
    return found < FORMAT and dump(held) == dump(state)


def _text(record: FileImage) -> str:
    return (record.content or b"").decode("utf-8", "replace")


def _parse(text: str, where: str) -> tuple[int, GatewayState]:
    """Return the format of a text, and its state."""
    try:
        data = json.loads(text)
        return format_of(data, FORMAT, where), _state_of(data)
    except NewerFormatError:
        raise
    except (ValueError, AttributeError, LookupError, TypeError, EngineError) as error:
        raise EngineError(f"{where} cannot be read ({error}); it is written by this collection only") from error


def _state_of(data: Any) -> GatewayState:
    configs = [EmailConfig.from_dict(entry) for entry in data["email_configs"]]
    enforced = tuple(EnforcedDomain.from_dict(entry) for entry in data["enforced_domains"])
    outbound = OutboundTls.from_dict(data["outbound"]) if data["outbound"] else None
    floor = data.get("min_tls") or ""
    if floor and floor not in TRANSPORT_FLOORS:
        raise EngineError(f"min_tls {floor!a} is not one of {', '.join(TRANSPORT_FLOORS)}")
    return GatewayState({one.name: one for one in configs}, enforced, outbound, str(data["ca_file"]), floor)
