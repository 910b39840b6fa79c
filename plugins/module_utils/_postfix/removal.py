# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes when a Postfix gateway gives up its other instances: their units, queues and data, and the policy service's user."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.processes import process_of, send_signal
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.config import Postconf, age, edit_copy
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

SLICE = "system-postfix.slice"
"""What systemd makes for the instances of postfix@.service, and leaves behind."""
END_SECONDS = 10.0
"""How long a process of the policy service may take to end."""
MARK = "mailfleet"
"""Our services, restriction classes, tables and instances have it in their name or in their path."""
_UNLISTED = ("corrupt", "saved")
"""The directories of a queue that postqueue(1) does not list."""
_LISTS = (
    "transport_maps",
    "smtpd_recipient_restrictions",
    "smtpd_restriction_classes",
    "smtpd_discard_ehlo_keyword_address_maps",
)
_KEYS = ("check_client_access", "check_recipient_access", "check_sender_access", "check_policy_service")


def stripped(run: Runner, config_dir: str, images: Mapping[str, FileImage]) -> list[FileImage]:
    """Return main.cf and master.cf without the collection's entries: its services, classes, tables and instances.

    images: path -> the file to begin with; without one, the file on the disk. Other settings stay, whoever has set them.
    """
    given = [images.get(path) or FileImage.read(path) for path in (f"{config_dir}/main.cf", f"{config_dir}/master.cf")]
    with tempfile.TemporaryDirectory(prefix="mailfleet-") as stage:
        for image in given:
            replace(image, path=f"{stage}/{Path(image.path).name}").write()
        age(stage)
        postconf = Postconf(run, stage)
        explicit = postconf.explicit()
        edits = {name: without_ours(explicit[name]) for name in _LISTS if name in explicit}
        rest = without_ours(explicit.get("multi_instance_directories", ""))
        gone = [name for name in explicit if name.startswith(f"{MARK}_")]
        if "multi_instance_directories" in explicit:
            gone += [] if rest else [name for name in explicit if name.startswith("multi_instance_")]
            edits.update({"multi_instance_directories": rest} if rest else {})
        services = [one.name for one in postconf.services() if MARK in one.text]
        for flag, words in (
            ("-e", [f"{name} = {value}" for name, value in edits.items() if value not in ("", explicit[name])]),
            ("-X", [*gone, *(name for name, value in edits.items() if explicit[name] and not value)]),
            ("-MX", services),
        ):
            edit_copy(run, stage, flag, *words)
        found = [replace(image, content=(Path(stage) / Path(image.path).name).read_bytes()) for image in given]
    return [image for image in found if FileImage.read(image.path).content != image.content or image.path in images]


def without_ours(value: str) -> str:
    """Return a list setting without the entries that name something of the collection."""
    kept: list[str] = []
    words = [word for word in re.split(r"[\s,]+", value) if word]
    while words:
        entry = [words.pop(0)]
        if entry[0] in _KEYS and words:
            entry.append(words.pop(0))
        if MARK not in entry[-1]:
            kept.append(" ".join(entry))
    return value if MARK not in value else ", ".join(kept)


def unlisted(queue: str, place: str) -> Iterator[Waiting]:
    """Yield the messages of a queue that postqueue(1) does not list: those that Postfix could not read, or has put aside."""
    for name in _UNLISTED:
        for path in sorted(Path(queue, name).glob("**/*")):
            if path.is_file():
                yield Waiting(path.name, "an unknown recipient", f"it is in the directory {name} of the queue", place)


def remaining(directories: Collection[str], user: str) -> Iterator[str]:
    """Yield those of the directories that exist, and the user in words if it is there and not root."""
    yield from (path for path in directories if Path(path).is_dir())
    if _uid(user):
        yield f"user {user}"


def clear(run: Runner, had_units: bool, directories: Collection[str], user: str) -> None:
    """Remove the directories and the user of instances whose units are gone. What is not there is left out. Raises EngineError.

    directories: those of the instances, with all that is in them.
    """
    if had_units:
        listed = run(["systemctl", "list-units", "--plain", "--no-legend", "--full", "postfix@*"])[1]
        if not listed.strip():  # or another instance, which may be the default one, would stop with it
            run(["systemctl", "--quiet", "stop", SLICE])
    for path in directories:
        if Path(path).is_dir():
            shutil.rmtree(path)  # follows no link
    uid = _uid(user)
    if uid:
        _end_processes(uid)
        status, out, err = run(["userdel", user])
        if status != 0:
            raise EngineError(f"the user {user} cannot be removed: {(err or out).strip()}; remove it, then run again")


def _uid(user: str) -> int:
    """Return the number of a user; 0 if there is none."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return 0


def _end_processes(uid: int) -> None:
    """End the processes of the policy service: smtpd(8) keeps a connection to it for a while. Raises EngineError."""
    deadline = time.monotonic() + END_SECONDS
    while left := [pid for pid in _processes() if (one := process_of(pid)) and one.uids == {uid}]:
        for pid in left:
            try:
                send_signal(pid, signal.SIGTERM, lambda process: process.uids == {uid})
            except ProcessLookupError:
                continue
        if time.monotonic() >= deadline:
            raise EngineError(f"the policy service does not end (process {left[0]}); end it, then run again")
        time.sleep(0.1)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
