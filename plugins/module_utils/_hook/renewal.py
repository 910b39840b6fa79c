# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs what was renewed on a host: judge, write, reload, prove that it is served; or put the old one back, and prove that.

The transaction and its lock are those of every change of the daemon. So two renewals, or a renewal and a run of Ansible, wait for each
other, and whoever comes next undoes what a killed one has left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.fitness import HostRoots
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.x509 import X509
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.files import Change, Transaction
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.lock import SECONDS, STORE
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import reason_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.configuration import Renewable, RenewalPlan
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.parts import (
    Parts,
    ends,
    look,
    mended,
    rights,
    unpublished,
    wanted_image,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.served import Question, ask
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.contract import NoticesCertificates
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    NOT_TESTED,
    Handshake,
    Settings,
    Target,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError

DONE, PUT_OFF, NOT_SERVED, NOT_SEEN = 0, 1, 2, 3
"""Exit statuses."""
_PAUSE = 0.2

AdapterAt = Callable[[Target], Any]
"""Makes the adapter of the host's mail server (_server.contract.Server) for one of its listeners."""


@dataclass(frozen=True)
class Renewed:
    """What became of one certificate.

    state: current, installed, mended, reloaded, kept, refused, put_back, failed or unknown. status: one of the exit statuses.
    leaves: what is installed now, where that is known.
    """

    name: str
    state: str
    message: str
    status: int = DONE
    leaves: tuple[X509, ...] = field(default=(), repr=False)

    @property
    def is_change(self) -> bool:
        """Whether it is worth a line in the system's log."""
        return self.state not in ("current", "kept")


class Reloading:
    """A mail server in a transaction that changes certificates alone: its configuration stays as the running daemon has it.

    So it only reads again what it has, and an edit that somebody has not activated yet is not activated.
    """

    reads_files_unasked = True

    def __init__(self, server: Any) -> None:
        """Take over the adapter. notices: seconds in which it serves a replaced certificate without being told; 0 if it does not."""
        self._server = server
        self.name: str = server.name
        self.notices = server.certificate_seconds if isinstance(server, NoticesCertificates) else 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def check(self) -> None:
        """Raise EngineError if the reload would end the daemon, or the daemon could not read its configuration."""
        self._server.require_running()

    def reload(self) -> None:
        """Have the daemon read its files again. Raises EngineError."""
        self._server.resume()

    resume = reload


def renew(
    configuration: RenewalPlan,
    adapter: AdapterAt,
    names: Sequence[str] = (),
    store: str = STORE,
    lock_seconds: float = SECONDS,
    is_wanted: Callable[[], bool] = lambda: True,
) -> list[Renewed]:
    """Renew every certificate, or those of these names. Nothing is raised but what ends the process.

    is_wanted: whether the configuration still says so, asked when the lock is held: an uninstallation may have had it before.
    """
    entries = [one for one in configuration.certificates if not names or one.name in names]
    if missing := sorted(set(names) - {one.name for one in entries}):
        known = ", ".join(one.name for one in configuration.certificates)
        return [
            Renewed(one, "unknown", f"there is no such certificate; there are: {known}", NOT_SEEN) for one in missing
        ]
    if not entries:
        return []
    settings = Settings(timeout=float(configuration.timeout), verify_trust=False)
    server = Reloading(adapter(entries[0].listeners[0]))
    transaction = Transaction(server, store)
    try:
        with transaction.locked(lock_seconds):
            if not is_wanted():
                raise EngineError(
                    "the configuration was changed or removed while another run was waited for; run again"
                )
            warnings: list[str] = []
            recovered = transaction.recover(lambda: _answers(entries, settings), warnings)
            done = [_one(entry, server, transaction, settings) for entry in entries]
    except (EngineError, OSError) as error:
        return [Renewed(one.name, "unknown", _text(error), NOT_SEEN) for one in entries]
    notes = ["a change that was interrupted is undone"] if recovered else []
    return [replace(one, message="; ".join([one.message, *notes, *warnings])) for one in done]


def _text(error: Exception) -> str:
    place = getattr(error, "filename", None)
    return f"{place}: {error.strerror}" if isinstance(error, OSError) and place else str(error)


def _answers(entries: Sequence[Renewable], settings: Settings) -> None:
    """Raise EngineError unless a mail server answers on one of the listeners."""
    questions = [Question(at) for at in dict.fromkeys(at for one in entries for at in one.listeners)]
    deadline = time.monotonic() + settings.timeout
    while not any(seen.stage >= Stage.EHLO for seen in ask(questions, settings).values()):
        if time.monotonic() >= deadline:
            raise EngineError(f"no mail server answers on {', '.join(map(str, questions))}")
        time.sleep(_PAUSE)


def _one(entry: Renewable, server: Reloading, transaction: Transaction, settings: Settings) -> Renewed:
    renewal = None
    try:
        roots = HostRoots(entry.roots)
        found = [look(entry, pair, roots) for pair in entry.pairs]
        renewal = _Renewal(entry, found, settings)
        return renewal.make(server, transaction)
    except TransactionError as error:
        if error.restored and renewal and renewal.unserved:
            why = f"{reason_of(error.__cause__ or error)}. The former files are back, and nothing was served before either"
            return Renewed(entry.name, "failed", f"{why} on {'; '.join(renewal.unserved)}", NOT_SERVED)
        state, status = ("put_back", PUT_OFF) if error.restored else ("failed", NOT_SERVED)
        return Renewed(entry.name, state, str(error), status)
    except pem.PemError as error:
        return Renewed(entry.name, "unknown", f"the roots cannot be read: {error}", NOT_SEEN)
    except (EngineError, OSError) as error:
        said = _text(error)
        before = "" if "nothing was changed" in said else "nothing was changed: "
        return Renewed(entry.name, "unknown", f"{before}{said}", NOT_SEEN)


class _Wanted(NamedTuple):
    """What a listener has to serve. answer: the fingerprint of the certificate."""

    question: Question
    answer: str


class _Renewal:
    """The renewal of one certificate, in all its algorithms."""

    def __init__(self, entry: Renewable, found: Sequence[Parts], settings: Settings) -> None:
        self._entry, self._found, self._settings = entry, found, settings
        self._refusals: list[str] = []
        self._notes: list[str] = []
        self._installs: list[Parts] = []
        self._unpublished: list[Parts] = []
        self._mended: list[FileImage] = []
        self.unserved: list[str] = []
        """Sentences on the listeners that did not serve a certificate before a change that was undone."""
        for parts in found:
            self._sort(parts)
            if parts not in self._installs:
                self._mend(parts)

    def _sort(self, parts: Parts) -> None:
        """Decide what becomes of one pair."""
        renewed, where = parts.renewed, parts.pair.certificate
        self._notes += [f"{where}: {one.what}" for one in renewed.cautions]
        if renewed.faults:
            is_used = "is unfit, and is in use" if parts.is_current else f"is unfit; {_what_stays(parts)}"
            self._refusals.append(f"{where} {is_used}: {renewed.said}")
        elif parts.present is None and (records := unpublished(self._entry, renewed)):
            self._unpublished.append(parts)
            self._refusals.append(
                f"{where} fits none of the TLSA records that are published, and the mail server reads it itself, so it may be in use. "
                f"The mail server is not reloaded. {_publish(records)}"
            )
        elif parts.is_current and (parts.present is None or parts.present.content == renewed.bundle.encode("ascii")):
            return
        elif parts.keeps and parts.installed:
            self._notes.append(f"{parts.pair.path} ends later than {where} ({ends(parts.installed)}), so it stays")
        elif records := unpublished(self._entry, renewed):
            self._refusals.append(
                f"{where} fits none of the TLSA records that are published; {_what_stays(parts)}. {_publish(records)}"
            )
        else:
            self._installs.append(parts)

    def _mend(self, parts: Parts) -> None:
        """Have an installed file that stays get its mode and owner back, which others may have changed: it holds the key."""
        if parts.present is not None and parts.present.content is not None:
            wanted = mended(self._entry, parts.present)
            if wanted != parts.present:
                self._mended.append(wanted)
                self._notes.append(f"{wanted.path} had {rights(parts.present)}, and has {rights(wanted)} again")

    def make(self, server: Reloading, transaction: Transaction) -> Renewed:
        """Make the change that is needed. Raises EngineError, TransactionError and OSError."""
        images = [*(wanted_image(self._entry, parts) for parts in self._installs), *self._mended]
        change = Change.of(images)
        wanted = list(self._wanted())
        server.require_running()
        before = ask([one.question for one in wanted], self._settings)
        provable, silent = self._provable(wanted, before)
        if wanted and not provable:
            raise EngineError(f"nothing can be proved: {'; '.join(silent)}")
        stale = [one for one in provable if before[one.question].fingerprint != one.answer]
        if stale and not change:
            change = replace(change, reload=True)
        if change:
            transaction.apply(
                replace(change, unasked=server.notices > 0),
                lambda: self._prove(provable, server),
                lambda: self._prove_old(provable, before, server),
            )
        return self._said(bool(change.after), bool(change), len(provable), silent)

    def _wanted(self) -> Any:
        """Yield what each listener has to serve, once for each algorithm."""
        several = len(self._found) > 1
        for parts in self._found:
            leaf = parts.renewed.leaf if parts in self._installs else parts.served
            if leaf is None or parts in self._unpublished or (parts.present is None and parts.renewed.faults):
                continue
            for target in self._entry.listeners:
                yield _Wanted(Question(target, leaf.key_type if several else ""), leaf.fingerprint_sha256)

    def _provable(
        self, wanted: Sequence[_Wanted], before: Mapping[Question, Handshake]
    ) -> tuple[list[_Wanted], list[str]]:
        """Return what can be proved, and sentences on the rest: nobody answers there, or TLS is not offered."""
        found, silent = [], []
        for one in wanted:
            seen = before[one.question]
            offers = seen.stage >= Stage.STARTTLS_ADVERTISED or one.question.target.protocol == "smtps"
            if seen.code in ("connect_failed", "timeout", "no_route", "name_not_resolved", NOT_TESTED) or not offers:
                silent.append(f"{one.question}: {seen.message or 'STARTTLS is not offered'}")
            else:
                found.append(one)
        return found, list(dict.fromkeys(silent))

    def _prove(self, wanted: Sequence[_Wanted], server: Reloading) -> None:
        """Wait until every listener serves what it has to. Raises EngineError with those that do not."""
        self._wait_or_tell([(one.question, {one.answer}) for one in wanted], server)

    def _prove_old(self, wanted: Sequence[_Wanted], before: Mapping[Question, Handshake], server: Reloading) -> None:
        installed = {parts.served.fingerprint_sha256 for parts in self._found if parts.served}
        questions = [(one.question, {before[one.question].fingerprint, *installed}) for one in wanted]
        silent = [question for question, _prints in questions if not before[question].completed]
        self.unserved = [f"{question}: {_instead(before[question])}" for question in silent]
        self._wait_or_tell([(question, prints) for question, prints in questions if before[question].completed], server)

    def _wait_or_tell(self, wanted: Sequence[tuple[Question, set[str]]], server: Reloading) -> None:
        if server.notices:
            left, _said = self._wait(wanted, server.notices)
            if not left:
                return
            server.resume()
            wanted = left
        _left, said = self._wait(wanted, self._settings.timeout)
        if said:
            raise EngineError(said)

    def _wait(
        self, wanted: Sequence[tuple[Question, set[str]]], seconds: float
    ) -> tuple[Sequence[tuple[Question, set[str]]], str]:
        """Wait until each listener serves one of these certificates. Return those that do not, and a sentence on them."""
        deadline = time.monotonic() + seconds
        left = list(wanted)
        while left:
            seen = ask([question for question, _prints in left], self._settings)
            left = [
                (question, prints)
                for question, prints in left
                if not (seen[question].completed and seen[question].fingerprint in prints)
            ]
            if left and time.monotonic() >= deadline:
                return left, "; ".join(f"{question}: {_instead(seen[question])}" for question, _prints in left)
            if left:
                time.sleep(_PAUSE)
        return [], ""

    def _said(self, installed: bool, changed: bool, proved: int, silent: Sequence[str]) -> Renewed:
        leaves = tuple(
            leaf
            for parts in self._found
            for leaf in [parts.renewed.leaf if parts in self._installs else parts.served]
            if leaf is not None
        )
        state = "mended" if installed else "reloaded" if changed else "current"
        state = "installed" if self._installs else state
        said = []
        if installed:
            said += [ends(parts.renewed) for parts in self._installs]
        elif changed:
            said.append("what is installed was not served; the mail server was reloaded")
        if changed or not self._refusals:
            said.append(f"served on {proved} of {len(self._found) * len(self._entry.listeners)} listeners")
        if self._refusals:
            state = "refused" if not self._installs else state
            said += self._refusals
        elif any(parts.keeps for parts in self._found) and state == "current":
            state = "kept"
        said += [f"not proved: {one}" for one in silent]
        status = PUT_OFF if self._refusals else NOT_SEEN if silent else DONE
        if any(parts.served is None and parts not in self._installs for parts in self._found):
            status = NOT_SERVED
        return Renewed(self._entry.name, state, "; ".join([*said, *self._notes]), status, leaves)


def _publish(records: Sequence[str]) -> str:
    """Return what to do before a certificate with a new key may be served."""
    return (
        f"Publish first, beside the present ones, and wait until they are known everywhere: {'; '.join(records)}; then let the playbook "
        "rotate_certificate run. So that the next renewal keeps the key, and with it such a 3 1 1 record, set 'reuse_key = True' "
        "below [renewalparams] in certbot's /etc/letsencrypt/renewal/NAME.conf"
    )


def _what_stays(parts: Parts) -> str:
    return "the old one stays" if parts.served else "nothing is installed"


def _instead(seen: Handshake) -> str:
    if not seen.completed:
        return seen.message or f"the handshake ends at {seen.stage.label}"
    return f"it serves another certificate (SHA-256 {seen.fingerprint[:16]}...)"


def worst(done: Sequence[Renewed]) -> int:
    """Return the exit status of a whole call: not served is worse than unknown, that is worse than refused."""
    order = (DONE, PUT_OFF, NOT_SEEN, NOT_SERVED)
    return max((one.status for one in done), key=order.index, default=DONE)


def said_of(done: Optional[Renewed]) -> str:
    """Return the line of one certificate."""
    return f"{done.name}: {done.state}: {done.message}" if done else ""
