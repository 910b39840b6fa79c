# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine of tls_activity_info: reads the options, then counts TLS in the log of a daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Adapter, Note, Tally, moment
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.sources import count, find
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

MakeLog = Callable[[Tally, float, float], Adapter]
"""Creates a daemon's log reader: (tally, begin and end of the window in seconds since 1970) -> log reader."""


def read_activity(options: Mapping[str, Any], make_log: MakeLog) -> dict[str, Any]:
    """Count TLS in the log of the wanted time. Returns C(activity) of the module's return values.

    options: the module's C(logs), C(journal), C(since), C(until) and C(max_peers). Raises EngineError if one of them
    cannot be used, before the log reader is created.
    """
    if options["max_peers"] < 1:
        raise EngineError("max_peers has to be at least 1")
    now = time.time()
    since, until = (_moment(options, name, now) for name in ("since", "until"))
    if since >= until:
        raise EngineError(f"since {options['since']} is not before until {options['until']}")
    tally = Tally(options["max_peers"])
    adapter = make_log(tally, since, until)
    found = find(options["logs"] or adapter.globs, options["journal"], adapter, since, until)
    if not options["logs"]:
        found = replace(found, notes=[*found.notes, *(Note("not_read", "", text) for text in adapter.unread)])
    return count(adapter, tally, found, since, until)


def _moment(options: Mapping[str, Any], name: str, now: float) -> float:
    try:
        return moment(options[name], now)
    except EngineError as error:
        raise EngineError(f"{name}: {error}") from None
