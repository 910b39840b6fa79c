# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of the lock of the fleet: who this run is, whether another run is over, where the lock is, what people read.

A run is known by its process, because every task of it has that as its parent. So nothing has to be handed from task to task.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.fleet_lock import UNREADABLE_LOCK
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.controller import controlled_kind
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import AUTO, PRODUCTS
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import HostVars
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.findings import Finding
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.verdict import one_line

DEFAULT_HOURS = 6.0
"""How long a lock counts."""
LOCK_FACT = "tls_lock"
"""The variable of localhost with the host that holds the lock for this run."""
BREAK = "starttls_lock_break"
HOURS = "starttls_lock_hours"
_TRUE = ("true", "yes", "on", "1")


def this_run(variables: Mapping[str, Any], playbook: str) -> dict[str, str]:
    """Return who holds the lock if this run takes it. variables: those of a task. playbook: what the run does."""
    process = process_of(os.getppid())
    controller = socket.gethostname()
    run = hashlib.sha256(f"{controller} {process}".encode()).hexdigest()[:12]
    job = str(variables.get("awx_job_id") or variables.get("tower_job_id") or "")
    user = str(variables.get("awx_user_name") or variables.get("tower_user_name") or _user())
    who = f"{user} (job {job} of AWX)" if job else user
    return {"user": who, "controller": controller, "playbook": playbook, "run": run, "process": process}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def process_of(pid: int, proc: Path = Path("/proc")) -> str:
    """Return what names a process among all of all times: start of the machine, space of process numbers, number, time of its start.

    Where the kernel does not tell, the number alone.
    """
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = str((proc / "self/ns/pid").readlink())
        started = (
            (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, IndexError, ValueError):
        return str(pid)
    return f"{boot}/{space}/{pid}/{started}"


def is_over(process: str, proc: Path = Path("/proc")) -> bool:
    """Return whether a process has surely ended. One of another machine or container cannot be told, so it may still run."""
    parts = process.split("/")
    mine = process_of(os.getpid(), proc).split("/")
    if len(parts) != 4 or len(mine) != 4 or parts[:2] != mine[:2] or not parts[2].isascii() or not parts[2].isdigit():
        return False
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is another user's, and may be hidden in /proc
        pass
    present = process_of(int(parts[2]), proc)
    return "/" in present and present != process  # the number belongs to a newer process


def hours_of(given: Any) -> float:
    """Return starttls_lock_hours as a number. Raises EngineError."""
    if given in (None, ""):
        return DEFAULT_HOURS
    try:
        hours = float(str(given))
    except ValueError:
        hours = 0.0
    if isinstance(given, bool) or not 0 < hours <= 24 * 365:
        raise EngineError(
            f"{HOURS} {one_line(str(given))[:80]!r} is no number of hours; set it to a number above 0, for example {DEFAULT_HOURS:g}"
        )
    return hours


def is_true(given: Any) -> bool:
    """Return whether a variable from the inventory or the command line says yes."""
    return str(given).strip().lower() in _TRUE


def who(lock: Mapping[str, Any]) -> str:
    """Return in words who holds a lock, and since when. lock: as a host returned it."""
    age = _ago(lock.get("age"))
    if UNREADABLE_LOCK in lock:
        return f"a run of which its note does not tell ({_text(lock, UNREADABLE_LOCK)}), {age} ago"
    since = lock.get("since")
    stamp = ""
    if isinstance(since, (int, float)) and 0 <= since < 1e11:
        stamp = time.strftime("since %Y-%m-%d %H:%M UTC, ", time.gmtime(since))
    return (
        f"{_text(lock, 'playbook')}, run by {_text(lock, 'user')} on {_text(lock, 'controller')}, {stamp}{age} ago "
        f"(run {_text(lock, 'run')})"
    )


def refusal(host: str, lock: Mapping[str, Any], hours: float) -> str:
    """Return why this run stops, and what to do."""
    return (
        f"another run changes the fleet, and holds its lock on {host}: {who(lock)}. This run changed nothing. Wait until the other one "
        f"has ended, then run again. If it was killed, run once with -e {BREAK}=true. After {hours:g} hours its lock does not count any "
        "more"
    )


def taken_over(host: str, lock: Mapping[str, Any], hours: float, broken: bool) -> str:
    """Return the warning that a lock of another run does not count."""
    if lock.get("age", 0) >= hours * 3600:
        why = f"it is older than {hours:g} hours ({HOURS})"
    elif is_over(str(lock.get("process") or "")):
        why = "that run has ended without releasing it"
    else:
        why = f"{BREAK} is set" if broken else "it was released or replaced"
    return f"the lock of the fleet on {host} does not count, because {why}: {who(lock)}"


def seen_lock(host: str, lock: Any, own_run: str, hours: float, breaks: bool) -> Optional[tuple[Finding, bool]]:
    """Return the finding on a lock that a host showed, and whether it stops a run that changes; None if there is none, or our own."""
    if not isinstance(lock, Mapping) or not lock or lock.get("run") == own_run:
        return None
    known = {**lock, "age": _number(lock.get("age"))}
    counts = known["age"] < hours * 3600 and not breaks and not is_over(str(lock.get("process") or ""))
    if counts:
        return Finding("another_run", refusal(host, known, hours)), True
    return Finding("lock_left", taken_over(host, known, hours, breaks)), False


def lock_places(hostvars: HostVars, groups: Mapping[str, Sequence[str]], run: Sequence[str]) -> list[str]:
    """Return the hosts on which the lock may be, in the order in which they are asked. The first that can be reached holds it.

    Every run, whatever its --limit, asks the same host first: the first gateway by name on which modules run, or the first mail server
    where there is no such gateway. If that is outside the run it may be down for long, and the first such host of the run comes next.
    run: the hosts of the run.
    """
    gateways = groups.get("mail_gateways") or ()
    able = [
        *sorted(one for one in gateways if _can_hold(hostvars, one, True)),
        *sorted(one for one in groups.get("mail_servers") or () if one not in gateways and _can_hold(hostvars, one)),
    ]
    return list(dict.fromkeys([*able[:1], *[one for one in able if one in set(run)][:1]]))


def _can_hold(hostvars: HostVars, host: str, is_gateway: bool = False) -> bool:
    """Return whether modules run on a host itself. A product with an API is reached from somewhere else."""
    try:
        facts = hostvars[host]
        kind = str(facts.get("starttls_kind") or AUTO)
        connection = str(facts.get("ansible_connection") or "")
    except Exception:  # a host outside the run, whose variables cannot be templated
        return False
    product = PRODUCTS.get(kind)
    if is_gateway and product and product.api_options:
        return False
    return not controlled_kind(kind if product and "server" in product.facets else AUTO, connection)


def _text(lock: Mapping[str, Any], name: str) -> str:
    return one_line(str(lock.get(name) or "?"))[:120]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else 0.0


def _ago(age: Any) -> str:
    seconds = _number(age)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
