# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the next reload of a Postfix instance activates beside a change: edits that it has not read yet, and new listeners.

The master ends if it cannot listen where master.cf says so, or does not know a name there, and no check of Postfix looks for
that. It starts a new queue manager at each reload, whose age tells when the files were read last. Sources: master(5), master(8).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._host.binding import BOTH, Wish, obstacles
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import port_number
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import children, started
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import PortInUseError

QUEUE_MANAGERS = ("qmgr", "nqmgr")
_FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
TOLERANCE = 1.0
"""Seconds by which the clock of files and the age of a process may differ."""


def blocked(postconf: Postconf, master: Optional[int], programs: Sequence[str] = ("master",)) -> list[str]:
    """Return why the master would end at its next reload or start, a text for each listener.

    master: its process; None if it does not run. Raises EngineError if postconf cannot read the files.
    """
    interfaces = postconf.values("inet_interfaces").get("inet_interfaces", "all")
    if "$" in interfaces:
        interfaces = postconf.value_expanded("inet_interfaces")
    protocols = postconf.values("inet_protocols").get("inet_protocols", "all")
    families = [family for name, family in _FAMILIES.items() if name in protocols or "all" in protocols] or BOTH
    wishes = []
    for one in postconf.services():
        name, kind = one.fields[:2]
        if kind == "inet":
            host, _, port = name.rpartition(":")
            everywhere = "" if interfaces == "all" else interfaces
            title = f"{postconf.config_dir}/master.cf, service {one.name}"
            wishes.append(Wish(title, host.strip("[]") or everywhere, port_number(port), port, families))
    return obstacles(wishes, master, programs)


def would_end(found: Sequence[str]) -> str:
    """Return the message for what blocked() has found."""
    return (
        f"{'; '.join(found)}. Postfix would end at its next reload; correct that service in master.cf, or free the address, "
        "then run again"
    )


def refuse_blocked(postconf: Postconf, master: Optional[int]) -> None:
    """Raise PortInUseError if the master would end at its next reload or start."""
    if found := blocked(postconf, master):
        raise PortInUseError(would_end(found))


def not_read_yet(config_dir: str, master: Optional[int]) -> list[str]:
    """Return the files that were changed after the master has read them last; empty also if that cannot be told."""
    read = _read_at(master)
    if read is None:
        return []
    found = []
    for name in ("main.cf", "master.cf"):
        path = Path(config_dir, name)
        with contextlib.suppress(OSError):
            if path.stat().st_ctime > read + TOLERANCE:
                found.append(str(path))
    return found


def _read_at(master: Optional[int]) -> Optional[float]:
    """Return when the master has read its files last, in seconds since the epoch; None if that cannot be told."""
    if not master:
        return None
    for process in children(master):
        if process.name in QUEUE_MANAGERS:
            with contextlib.suppress(OSError):
                return started(process.pid)
    return None
