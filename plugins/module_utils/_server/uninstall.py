# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The removal of everything that the collection has put on a mail server: its files are as before the first change."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import installed_at, waiting_keys
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before as record
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE, leave_store
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import facts, renewal_files
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.layout import CERTIFICATE
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.observed import Listener
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import Server
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.engine import (
    require_alive,
    require_greeting,
    state_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired, Outcome
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import same_face
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    handshake_one,
    wait_until,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_SECONDS

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_contract import PeerServer
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_engine import Leaving

_OFFERED = {"none": False, "offered": True, "required": True}


@dataclass(frozen=True)
class PuttingBack:
    """What a removal does. remains: what goes besides the files. obstacles: why it cannot. notes: what stays, or is not known."""

    change: Change
    remains: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.change) or bool(self.remains)

    def lines(self) -> list[tuple[str, str]]:
        """Return path and changed lines, as Change.lines does; also of the certificate, without its content, and of the record."""
        gone = [image.path for image in self.change.after if image.secret]
        return [*self.change.lines(), *((path, "(removed, or put back)\n") for path in (*gone, *self.remains))]


def putting_back(server: Server, desired: Desired, store: str, keep: Collection[str] = ()) -> PuttingBack:
    """Return what removes everything from the host of a mail server. Changes nothing. Raises EngineError and OSError.

    desired: for the path of the certificate. keep: paths that stay as they are.
    """
    remains = _remains(store, server.name, desired.certificate)
    known = record.removal(store, server.name, leave=keep, certificates=installed_at(desired.certificate))
    images = {image.path: image for image in known.images}
    notes = [*(f"{path} keeps what was edited by hand" for path in known.kept), *renewal_files.not_read()]
    if known.incomplete and os.path.lexists(f"{store}/{server.name}.lock"):  # else nobody has changed this daemon
        more = server.stripped(images, desired.certificate)
        more += [FileImage(CERTIFICATE, None)] if os.path.lexists(CERTIFICATE) and CERTIFICATE not in images else []
        stripped = {image.path: image for image in more if image.path not in keep}
        images.update(stripped)
        if stripped:
            notes.append(
                "a version of the collection without records has changed this host first, so what it found there is not known: the "
                "collection's own files go, and the settings that name them. Other TLS settings stay as they are; compare "
                f"{', '.join(path for path in server.files() if os.path.lexists(path))} with a backup"
            )
    # What refers to a file goes before the file does.
    change = Change.of(sorted(images.values(), key=lambda image: image.content is None))
    if change:
        change = replace(change, kept=tuple(server.generated()))
    return PuttingBack(change, (*remains, *renewal_files.there()), known.obstacles, tuple(notes))


def _remains(store: str, name: str, certificate: str) -> tuple[str, ...]:
    own = [f"{store}/{name}{suffix}" for suffix in (record.SUFFIX, ".lock")]
    found = [path for path in own if os.path.lexists(path)]
    if {*installed_at(certificate)} & {*record.load(store, record.CERTIFICATES).files}:
        found.append(record.path_of(store, record.CERTIFICATES))
    return (*found, *waiting_keys(certificate, store))


def put_back(
    server: Server,
    desired: Desired,
    settings: Settings,
    check_mode: bool = False,
    store: str = STORE,
    keep: Collection[str] = (),
    digests: Optional[Mapping[str, str]] = None,
    peers: Optional[PeerServer] = None,
    queue_seconds: float = QUEUE_SECONDS,
) -> Outcome:
    """Remove everything that the collection has put on the host, and prove that its own port is as the files say.

    digests: path -> SHA-256 or C(absent), as the plan saw the files. peers: they lose their transports, so nothing may wait for
    them; queue_seconds: how long to wait for that. Raises EngineError (nothing was changed) or TransactionError (the change
    failed and was rolled back; see restored).
    """
    settings = replace(settings, ask_plaintext=True, verify_trust=False)
    if not putting_back(server, desired, store, keep) and not server.transaction(store).journal_facts():
        seen = handshake_one(desired.own_port, settings)
        return Outcome(False, state_of(server, desired), {}, seen, [])
    transaction = server.transaction(store)
    with transaction.opened(check_mode) as (recovered, warnings):
        facts.refuse_changed(digests or {})
        server.require_running()
        todo = putting_back(server, desired, store, keep)
        warnings.extend(todo.notes)
        if todo.obstacles and not check_mode:
            raise EngineError("; ".join(todo.obstacles))
        warnings.extend(f"a real run would refuse this: {one}" for one in todo.obstacles)
        state = state_of(server, desired)
        leaving = _leaving(peers if todo.change else None)
        if leaving and check_mode:
            warnings.extend(leaving.warnings(queue_seconds))
        elif leaving:
            leaving.wait(queue_seconds)
        seen = handshake_one(desired.own_port, settings)
        if todo.change and not check_mode:
            if desired.listens:
                require_greeting(desired.own_port, seen)
            seen = _apply(transaction, server, desired, settings, todo.change, seen, leaving)
        if not check_mode:
            renewal_files.remove()
            record.forget(store, server.name, installed_at(desired.certificate))
            for key in waiting_keys(desired.certificate, store):
                FileImage(key, None).write()
    if not check_mode:
        leave_store(server.name, store)
    diff = [{"prepared": lines} for _path, lines in todo.lines()]
    made = {} if check_mode else facts.known_digests([*server.files(), *desired.certificates])
    return Outcome(bool(todo) or recovered, state, {}, seen, diff, recovered, tuple(warnings), digests=made)


def _leaving(peers: Optional[PeerServer]) -> Optional[Leaving]:
    there = peers.peers() if peers else []
    if not (peers and there):
        return None
    from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer_engine import Leaving  # noqa: PLC0415  (a read needs nothing of it)

    return Leaving(peers, there)


def _apply(
    transaction: Any,
    server: Server,
    desired: Desired,
    settings: Settings,
    change: Change,
    old: Handshake,
    leaving: Optional[Leaving] = None,
) -> Handshake:
    """Make the change. Return the test of the own port after it."""
    seen = old
    silent = not desired.listens and old.stage < Stage.GREETING
    gone = {image.path for image in change.after if image.content is None}

    def prove() -> None:
        nonlocal seen
        moment = time.time()
        listeners = [Listener.from_json(one) for one in server.observe()["listeners"] or ()]
        for one in listeners:
            if missing := gone & {*one.certificates}:
                raise EngineError(
                    f"{one.service} serves {', '.join(missing)}, which would be removed; give it another certificate first, or name "
                    "the file in starttls_uninstall_keep"
                )
        if silent:
            require_alive(server)
            return leaving.refuse_earlier(moment) if leaving else None
        offers = {_OFFERED.get(one.tls) for one in listeners if one.port == desired.own_port.port}
        wanted = offers.pop() if len(offers) == 1 else None

        def as_written(now: Handshake) -> bool:
            return now.stage >= Stage.EHLO and wanted in (None, bool(now.advertised))

        seen = wait_until(as_written, desired.own_port, settings, settings.timeout)
        if not as_written(seen):
            what = seen.message if seen.stage < Stage.EHLO else f"STARTTLS is {'not ' if wanted else ''}offered"
            raise EngineError(f"{desired.own_port} is not as it was before the first change: {what}")
        if leaving:
            leaving.refuse_earlier(moment)
        return None

    def prove_old() -> None:
        if silent:
            return require_alive(server)
        now = wait_until(lambda look: same_face(old, look), desired.own_port, settings, settings.timeout)
        if not same_face(old, now):
            raise EngineError(f"{desired.own_port} does not show its former state: {now.message or now.stage.label}")
        return None

    transaction.apply(change, prove, prove_old)
    return seen
