# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of the renewal hook on a host, and what starts it: certbot's deploy hooks, and a timer of systemd.

A file of the same name that is not the collection's is left alone. The removal needs nothing of the hook itself.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import PathTrust
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.programs import run as start_program
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

PROGRAM = "/usr/local/sbin/mailfleet-starttls"
CONFIGURATION = "/etc/mailfleet/renewal.json"
CERTBOT_DIRECTORY = "/etc/letsencrypt/renewal-hooks/deploy"
CERTBOT_HOOK = f"{CERTBOT_DIRECTORY}/mailfleet-starttls"
RENEWAL_UNIT = "mailfleet-starttls-renew"
SERVICE_FILE = f"/etc/systemd/system/{RENEWAL_UNIT}.service"
TIMER_FILE = f"/etc/systemd/system/{RENEWAL_UNIT}.timer"
CERTBOT_UNITS = ("certbot.service", "certbot-renew.service")
"""What renews by certbot: Debian's, and that of EPEL."""
DROP_INS: Mapping[str, str] = {unit: f"/etc/systemd/system/{unit}.d/mailfleet-starttls.conf" for unit in CERTBOT_UNITS}
"""Unit -> our addition to it: the roots of an ACME authority whose web server has a certificate of its own."""
UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
TIMER_LINK = f"/etc/systemd/system/timers.target.wants/{RENEWAL_UNIT}.timer"
SYSTEMD = "/run/systemd/system"
"""It is there if systemd runs the host. Source: sd_booted(3)."""

_MARK = "mailfleet.starttls"
_OURS = b"ansible_collections/mailfleet/starttls/plugins/module_utils/_hook/"
_TEXTFILE_MARK = b"# HELP mailfleet_starttls_renewal_status "
_TEXTFILE_BYTES = 4 << 20
_NOTE = f"# Made by the module {_MARK}.renewal_hook; a change by hand is lost.\n"

HOOK_TEXT = f"""#!/bin/sh
{_NOTE}# certbot calls it after each renewal. A run of Ansible that has certbot issue installs the certificate itself.
[ -z "${{MAILFLEET_ISSUING:-}}" ] || exit 0
exec {PROGRAM} renew
"""
SERVICE_TEXT = f"""{_NOTE}[Unit]
Description=Install renewed certificates of the mail server, and prove that they are served
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart={PROGRAM} renew
"""
TIMER_TEXT = f"""{_NOTE}[Unit]
Description=Look every hour whether a certificate of the mail server was renewed

[Timer]
OnCalendar=hourly
RandomizedDelaySec=15min
Persistent=true

[Install]
WantedBy=timers.target
"""
_ACME_ROOTS = "mailfleet-starttls/acme-roots.pem"


def drop_in_text(roots: Sequence[str]) -> str:
    """Return the addition to certbot's unit. roots: files in PEM, the host's own store among them, for other authorities.

    They are joined at each start, so what an update of the host brings into its store counts.
    """
    files = " ".join(_word(one) for one in roots)
    return f"""{_NOTE}[Service]
RuntimeDirectory=mailfleet-starttls
Environment=REQUESTS_CA_BUNDLE=/run/{_ACME_ROOTS}
ExecStartPre=/bin/sh -c 'cat -- "$$@" >/run/{_ACME_ROOTS}' sh {files}
"""


def _word(path: str) -> str:
    """Return a path as one word of a command in a unit file. Source: systemd.service(5), systemd.unit(5)."""
    for character, written in (("\\", "\\\\"), ('"', '\\"'), ("$", "$$"), ("%", "%%")):
        path = path.replace(character, written)
    return f'"{path}"'


def certbot_units() -> tuple[str, ...]:
    """Return the units of this host that renew by certbot."""
    return tuple(one for one in CERTBOT_UNITS if any(Path(place, one).exists() for place in UNIT_DIRECTORIES))


def _is_text_of_ours(content: bytes) -> bool:
    return _MARK.encode() in content


def _is_program(content: bytes) -> bool:
    return content.startswith(b"#!") and _OURS in content


def _is_configuration(content: bytes) -> bool:
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and "format" in found and isinstance(found.get("certificates"), list)


RECOGNISED: Mapping[str, Callable[[bytes], bool]] = {
    PROGRAM: _is_program,
    CONFIGURATION: _is_configuration,
    SERVICE_FILE: _is_text_of_ours,
    TIMER_FILE: _is_text_of_ours,
    **dict.fromkeys(DROP_INS.values(), _is_text_of_ours),
    CERTBOT_HOOK: _is_text_of_ours,
}
"""Path -> whether a file there is the collection's. In the order in which they are written: what starts the program comes last."""


class HookFile(NamedTuple):
    """One file of the hook as it is on the host. foreign: it is somebody else's."""

    image: FileImage
    foreign: bool


def look() -> dict[str, HookFile]:
    """Return every file of the hook. Raises OSError and UntrustedPathError."""
    return {path: _read(path) for path in RECOGNISED}


def _read(path: str) -> HookFile:
    image = FileImage.read(path)
    return HookFile(image, image.content is not None and not RECOGNISED[path](image.content))


def _looked() -> tuple[list[str], list[str]]:
    """Return the paths of the hook's files, and sentences on those at which nobody could look."""
    found, unread = [], []
    for path in RECOGNISED:
        try:
            one = _read(path)
        except (OSError, EngineError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            unread.append(
                f"could not look at {path}, so it stays if it is there; look at it, and remove it by hand: {why}"
            )
        else:
            found += [path] if one.image.content is not None and not one.foreign else []
    return found, unread


def textfile_trust(path: str) -> PathTrust:
    """Return whom the path of the file for node-exporter may trust: root, and who owns the directories above it.

    On Debian that is the user prometheus. Nothing is gained by that: no link is followed in such a directory, and the file is no secret.
    """
    owners = set()
    for above in Path(path).parents:
        with contextlib.suppress(OSError):
            owners.add(above.stat().st_uid)
    return PathTrust(owners=frozenset(owners - {0}), option="textfile")


def textfile(configuration: FileImage) -> Optional[FileImage]:
    """Return the file for node-exporter that this configuration names; None if it is not there, or not of a renewal."""
    with contextlib.suppress(OSError, EngineError, ValueError):
        content = configuration.content or b""
        path = json.loads(content).get("textfile") if _is_configuration(content) else None
        if isinstance(path, str) and path.startswith("/"):
            image = FileImage.read(path, max_bytes=_TEXTFILE_BYTES, trust=textfile_trust(path))
            return image if _TEXTFILE_MARK in (image.content or b"") else None
    return None


def there() -> tuple[str, ...]:
    """Return the paths of the hook's files on this host; nothing is raised."""
    return tuple(_looked()[0])


def not_read() -> tuple[str, ...]:
    """Return what a removal says of the files at which it cannot look."""
    return tuple(_looked()[1])


def remove(run: Runner = start_program) -> tuple[str, ...]:
    """Remove every file of the hook, first what starts it, and return their paths. Raises EngineError and OSError.

    One at which it cannot look stays, see not_read(); it keeps no other one there.
    """
    paths = there()
    shown = textfile(FileImage.read(CONFIGURATION)) if CONFIGURATION in paths else None
    if TIMER_FILE in paths and Path(SYSTEMD).is_dir():
        run(["systemctl", "disable", "--now", f"{RENEWAL_UNIT}.timer"])
    for path in reversed(paths):
        FileImage(path, None).write()
    if shown:
        remove_textfile(shown)
    for path in {*DROP_INS.values()} & {*paths}:
        with contextlib.suppress(OSError):
            Path(path).parent.rmdir()
    if {SERVICE_FILE, TIMER_FILE, *DROP_INS.values()} & {*paths} and Path(SYSTEMD).is_dir():
        run(["systemctl", "daemon-reload"])
    if CONFIGURATION in paths:
        with contextlib.suppress(OSError):
            Path(CONFIGURATION).parent.rmdir()  # if nothing else is in it
    return paths


def remove_textfile(image: FileImage) -> None:
    """Remove the file for node-exporter, if that is possible: it holds nothing that lasts."""
    with contextlib.suppress(OSError, EngineError):
        replace(image, content=None).write()


def timer_runs(run: Runner) -> bool:
    """Whether systemd has the timer: it runs, and starts with the host."""
    status, out, _err = run(["systemctl", "show", "--property=ActiveState,NeedDaemonReload", f"{RENEWAL_UNIT}.timer"])
    state = dict(line.partition("=")[::2] for line in out.splitlines()) if status == 0 else {}
    is_read = state.get("NeedDaemonReload") == "no"
    return state.get("ActiveState") == "active" and is_read and os.path.lexists(TIMER_LINK)


def reload_units(run: Runner) -> None:
    """Have systemd read its units. Raises EngineError."""
    _ask(run, ["systemctl", "daemon-reload"])


def start_timer(run: Runner) -> None:
    """Have systemd start the timer, now and with the host. Raises EngineError."""
    reload_units(run)
    _ask(run, ["systemctl", "enable", f"{RENEWAL_UNIT}.timer"])
    _ask(run, ["systemctl", "restart", f"{RENEWAL_UNIT}.timer"])


def _ask(run: Runner, words: list[str]) -> None:
    status, out, err = run(words)
    if status != 0:
        raise EngineError(f"{' '.join(words)} failed: {(err or out).strip()}")
