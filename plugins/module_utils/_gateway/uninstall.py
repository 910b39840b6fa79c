# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The removal of everything that the collection has put on a gateway.

The record of what was there puts the administrator's files back. Nothing goes that holds mail: the queues of the other
instances have to be empty first, and so has the queue of domains whose mail insists on TLS.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional, Protocol, runtime_checkable

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import installed_at, waiting_keys
from ansible_collections.mailfleet.starttls.plugins.module_utils._change import before as record
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import STORE, leave_store
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.contract import Gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import prove_patiently
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import LEVELS, GatewayState
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.modes import summary
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.parts import parts_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.queue import (
    look_twice,
    told,
    wait_until_empty,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._host import renewal_files
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.facts import refuse_changed
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_SECONDS

UNDER_WAY_SECONDS = 30.0
"""How long mail may be under way to another instance after the last message was sent there."""


@runtime_checkable
class Installed(Gateway, Protocol):
    """A gateway on whose host the collection has put files. A gateway with an API is none."""

    name: str

    def own_files(self) -> Sequence[FileImage]:
        """Return the existing files that are the collection's alone, as they are now."""

    def stripped(self, images: Mapping[str, FileImage]) -> Sequence[FileImage]:
        """Return the files of the administrator without the collection's entries. images: path -> how far the record puts it back.

        For a host that a version without records has changed: the files of its record still have these entries.
        """

    def generated(self) -> Sequence[FileImage]:
        """Return the files that the product's own tools write during the reload, as they are now."""

    def in_others(self) -> Sequence[Waiting]:
        """Return every message in the queues of the instances that are removed. Raises EngineError."""

    def remains(self) -> Sequence[str]:
        """Return what is there besides files: directories, units, users, in words or as paths."""

    def clear(self) -> None:
        """Remove what remains() names, after the files are back. Raises EngineError."""


@dataclass(frozen=True)
class Undoing:
    """What an uninstallation does. obstacles: why it cannot. notes: what it leaves, and what is not known."""

    change: Change
    remains: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.change) or bool(self.remains)

    def lines(self) -> list[tuple[str, str]]:
        """Return path and changed lines, as Change.lines does; also of secret files, without their content, and of what is no file."""
        secret = [(image.path, "(removed, or put back)\n") for image in self.change.after if image.secret]
        return [*self.change.lines(), *secret, *((one, "(removed)\n") for one in self.remains)]


def undoing(gateway: Installed, store: str, certificate: str, keep: Collection[str] = ()) -> Undoing:
    """Return what removes everything from the host of a gateway. Changes nothing. Raises EngineError and OSError.

    certificate: path of the gateway's certificate. keep: paths that stay as they are.
    """
    removal = record.removal(store, gateway.name, leave=keep, certificates=installed_at(certificate))
    images = {image.path: image for image in removal.images}
    own = {image.path: replace(image, content=None) for image in gateway.own_files() if image.path not in keep}
    notes = [*(f"{path} keeps what was edited by hand" for path in removal.kept), *renewal_files.not_read()]
    if removal.incomplete:
        stripped = {image.path: image for image in gateway.stripped(images) if image.path not in keep}
        images.update(stripped)
        if own or stripped:
            notes.append(
                "a version of the collection without records has changed this host first, so what it found there is not known: the "
                f"collection's own files and entries go, and other settings in {', '.join(stripped) or 'your files'} stay as they are. "
                "Compare them with a backup"
            )
    images = {**own, **{path: image for path, image in images.items() if path not in own}}
    # What refers to a file goes before the file does.
    change = Change.of(sorted(images.values(), key=lambda image: image.content is None))
    change = replace(change, kept=tuple(gateway.generated())) if change else change
    remains = (*gateway.remains(), *waiting_keys(certificate, store), *renewal_files.there())
    return Undoing(change, remains, removal.obstacles, tuple(notes))


def waiting(gateway: Installed, state: GatewayState) -> Sequence[Waiting]:
    """Return the mail that would be lost with an instance, or would take another way although it insists on TLS.

    Raises EngineError if a queue cannot be read.
    """
    insisting = [
        domain
        for one in state.email_configs.values()
        if "required" in LEVELS[one.delivery_mode]
        for domain in one.domains
    ]
    insisting += [domain for domain in state.recipients_enforced if domain not in insisting]
    found = [*gateway.in_others(), *(gateway.queued(insisting) if insisting else ())]
    return list(dict.fromkeys(found))


def uninstall(
    gateway: Installed,
    certificate: str,
    check_mode: bool = False,
    store: str = STORE,
    queue_seconds: float = QUEUE_SECONDS,
    keep: Collection[str] = (),
    digests: Optional[Mapping[str, str]] = None,
) -> dict[str, Any]:
    """Remove everything that the collection has put on the host, and put back what was there. Return the result of gateway_tls.

    queue_seconds: how long to wait until no mail waits. digests: as the plan saw the files. Raises EngineError (nothing was
    changed), or TransactionError (the change failed and was rolled back; see restored).
    """
    transaction = Transaction(gateway, store)  # type: ignore[arg-type]
    with transaction.opened(check_mode) as (recovered, warnings):
        refuse_changed(digests or {})
        state = gateway.read()
        todo = undoing(gateway, store, certificate, keep)
        warnings.extend(todo.notes)
        result = {
            "changed": bool(todo) or recovered,
            "recovered": recovered,
            "before": summary(state.email_configs),
            "after": {},
            "diff": [{"prepared": lines} for _path, lines in todo.lines()],
            "warnings": warnings,
        }
        if todo:
            gateway.require_running()
            _refuse(todo, check_mode, warnings)
        if check_mode:
            if found := look_twice(lambda: waiting(gateway, state)) if todo else ():
                warnings.append(f"a run waits up to {queue_seconds:g} s for this mail: {told(found)}")
            return result
        if todo:
            what = "what the collection has put on this gateway"
            wait_until_empty(lambda: waiting(gateway, state), what, queue_seconds)
            _undo(transaction, gateway, state, lambda: undoing(gateway, store, certificate, keep))
            gateway.clear()
            renewal_files.remove()
            for key in waiting_keys(certificate, store):
                FileImage(key, None).write()
        record.forget(store, gateway.name, installed_at(certificate))
    leave_store(gateway.name, store)
    return result


def _refuse(todo: Undoing, check_mode: bool, warnings: list[str]) -> None:
    if todo.obstacles and not check_mode:
        raise EngineError("; ".join(todo.obstacles))
    warnings += [f"a real run would refuse this: {one}" for one in todo.obstacles]


def _undo(transaction: Transaction, gateway: Installed, state: GatewayState, plan: Any) -> None:
    """First send no more mail to the other instances, and wait for what is under way; then put the files back. All or nothing."""
    first = _relaxing(gateway, state)
    if first:
        transaction.apply(first, gateway.prove, lambda: prove_patiently(gateway), hold=True)
    try:
        if first:
            wait_until_empty(gateway.in_others, "another instance", UNDER_WAY_SECONDS)
        change = plan().change
        if change:
            made = change.following(first) if first else change
            transaction.apply(made, gateway.prove, lambda: prove_patiently(gateway))
        elif first:
            transaction.release()
    except TransactionError:  # it has undone both
        raise
    except (EngineError, OSError) as error:
        if not first:
            raise
        transaction.take_back(lambda: prove_patiently(gateway), error)
        raise TransactionError(f"{error}. The former state is restored and proved", restored=True) from error


def _relaxing(gateway: Installed, state: GatewayState) -> Change:
    """Return the change after which no mail goes to another instance; an empty one if there is none."""
    if not (state.depends_on_arrival or state.senders_enforced):
        return Change((), ())
    options: dict[str, Any] = {"state": "plaintext", "email_configs": [{"name": name} for name in state.email_configs]}
    if state.outbound and state.outbound.send:
        options["send"] = "plaintext"
    for part in parts_of(gateway, options):
        state = part.compute(gateway, state)
    change: Change = gateway.plan(state)  # type: ignore[assignment]
    return change


def removed_configs(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the given email configs as such that are to be removed: the uninstallation of a gateway with an API."""
    return [{**item, "state": "absent"} for item in options.get("email_configs") or ()]
