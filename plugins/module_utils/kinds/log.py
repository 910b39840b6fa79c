# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The logs that can be counted, one entry for each product. A function loads its product when it is called."""

# ruff: noqa: PLC0415  (a product is loaded when it is used)

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import layout_of

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Adapter, Tally
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner

LogMaker = Callable[["Tally", float, float, "Runner"], "Adapter"]


def _postfix(tally: Tally, since: float, until: float, run: Runner) -> Adapter:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log import (
        PostfixLog,
        settings_of,
        visibility,
    )
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log_places import log_places
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.own_paths import with_programs

    layout = layout_of("postfix")
    run = with_programs(run, layout)
    settings = settings_of(run, layout.config_dir)
    places = log_places(settings, layout.logs, since)
    return PostfixLog(tally, since, until, visibility(run, settings), places, socket.gethostname())


def _exim(tally: Tally, since: float, until: float, run: Runner) -> Adapter:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.layout import with_program
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log import EximLog, settings_of, shows_tls
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log_places import log_places

    layout = layout_of("exim")
    settings = settings_of(with_program(run, layout))
    return EximLog(tally, since, until, shows_tls(settings), log_places(settings or {}, layout.logs))


LOGS: dict[str, LogMaker] = {"postfix": _postfix, "exim": _exim, "proxmox": _postfix}
"""Kind -> the function that makes the adapter: (tally, begin and end of the window in seconds since 1970, runner)."""
