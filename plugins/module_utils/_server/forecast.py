# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan shows of a floor for TLS versions: by the log, who would be shut out; and what the floor does not hold for."""

from __future__ import annotations

from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.old_versions import Heard, Seen, old_peers
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import HoldsFloor, Server
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.floor import (
    FLOOR_DIRECTIONS,
    Floors,
    not_reached,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import older_than
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    FORECAST_BYTES,
    FORECAST_LINES,
    FORECAST_SECONDS,
)

_SHOWN = 5
_UNREAD_SHOWN = 3
_WHO = {"inbound": ("client", "clients"), "outbound": ("server", "servers")}
SHUTS_OUT, VERSIONS_NOT_TOLD, NOBODY, NOT_REACHED = (
    "tls_floor_shuts_out",
    "tls_floor_not_told",
    "tls_floor_nobody",
    "tls_floor_not_reached",
)


def notes(server: Server, desired: Desired, found: Optional[Floors]) -> list[dict[str, str]]:
    """Return code and message of what a plan has to show of a floor."""
    if found is None or not isinstance(server, HoldsFloor):
        return []
    said = [{"code": NOT_REACHED, "message": one} for one in not_reached(desired, found)]
    sides = [one for one in FLOOR_DIRECTIONS if found.raised(desired, one)]
    if not sides:
        return said
    places, lines = server.log_of_versions()
    heard = old_peers(places, {one: lines[one] for one in sides}, older_than(desired.min_tls))
    return [*(_forecast(one, heard.sides[one], heard, desired.min_tls) for one in sides), *said]


def _forecast(direction: str, seen: Seen, heard: Heard, floor: str) -> dict[str, str]:
    one, many = _WHO[direction]
    when = f"log from {heard.began} to {heard.ended}" if heard.began and heard.ended else "the log"
    left_out = _left_out(heard)
    if not seen.sessions:
        return {
            "code": VERSIONS_NOT_TOLD,
            "message": f"the log tells no TLS version of {many}, so it is not known which of them the floor {floor} would shut out"
            f"{left_out}",
        }
    if not seen.peers:
        return {
            "code": NOBODY,
            "message": f"the floor {floor} would shut out no {one} ({when}, {seen.sessions} sessions){left_out}",
        }
    used = " or ".join(sorted(set(seen.peers.values())))
    names = [*seen.peers][-_SHOWN:]
    more = f" and {len(seen.peers) - len(names)} more" if len(seen.peers) > len(names) else ""
    what = f"{len(seen.peers)} {one if len(seen.peers) == 1 else many}"
    return {
        "code": SHUTS_OUT,
        "message": f"the floor {floor} would shut out {what} that used {used} ({', '.join(names)}{more}); {when}{left_out}",
    }


def _left_out(heard: Heard) -> str:
    """Return what was not read, as the end of a sentence; empty if everything was."""
    older = (
        f"; of the log, only the newest {FORECAST_BYTES >> 20} MiB, {FORECAST_LINES} entries or {FORECAST_SECONDS:g} s were read"
        if heard.is_cut
        else ""
    )
    if not heard.unread:
        return older
    more = f" and {len(heard.unread) - _UNREAD_SHOWN} more" if len(heard.unread) > _UNREAD_SHOWN else ""
    return f"{older}; not read: {', '.join(heard.unread[:_UNREAD_SHOWN])}{more}"
