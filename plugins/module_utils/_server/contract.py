# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract between the engine and the adapters of the mail server products."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Protocol, runtime_checkable

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.log_places import LogPlaces
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import Permits
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.reach import Sides
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target


@runtime_checkable
class TellsOfTls(Protocol):
    """A daemon whose log tells why it could not set up TLS."""

    def tls_words(self) -> str:
        """Return its own words on the last failure, one line; empty if the end of the log has none. Never raises."""


@runtime_checkable
class TellsReach(Protocol):
    """A server that tells how far a change reaches. Of another one, only the own port and the next hops are proved."""

    def sides(self, change: Any = None) -> Sides:
        """Return all listeners and the ways of outgoing mail: as they are, or as this change of plan() leaves them.

        Computed from the edited files, before anything is written. The collection's own ways, of a gateway or to a peer, are left out:
        they have levels and proofs of their own. Raises EngineError.
        """


@runtime_checkable
class HoldsFloor(Protocol):
    """A server that can hold a floor for TLS versions: its plan() sets Desired.min_tls."""

    plaintext_at_once: bool
    """Whether opportunistic mail goes on in plaintext at once when a handshake fails, instead of waiting in the queue first."""

    def permits(self, floor: str, change: Any = None) -> Permits:
        """Return which versions its listeners and transports permit: as they are, or as this change of plan() leaves them.

        floor: the wanted one, for advice. Raises EngineError.
        """

    def log_of_versions(self) -> tuple[LogPlaces, Mapping[str, re.Pattern[bytes]]]:
        """Return the places of its log; and for C(inbound) and C(outbound) a pattern of a session's line: C(peer) and C(version)."""


@runtime_checkable
class ServesByPort(Protocol):
    """A server that can serve other certificates on some ports: its plan() sets Desired.of_ports, or refuses it by name."""

    serves_by_port: bool
    """Always true."""


@runtime_checkable
class LeadsToPeers(Protocol):
    """A server whose transports of peers have the TLS versions of all other mail, so that a floor holds for them as well."""

    def peer_hops(self) -> Sequence[tuple[Target, bool]]:
        """Return the next hops of these transports that use TLS, and whether TLS is required there. Raises EngineError."""


@runtime_checkable
class NoticesCertificates(Protocol):
    """A server that serves a replaced certificate file without being told, and that refuses connections for a moment while it is told."""

    certificate_seconds: float
    """How long it may take to notice."""

    def reload(self) -> None:
        """Tell it to use the files on disk, as Daemon in _change.files. Raises EngineError."""

    def resume(self) -> None:
        """Tell it to read again what it has. Raises EngineError."""


@runtime_checkable
class TellsByHand(Protocol):
    """A server whose settings stand at several places of a file, so that the changed lines alone do not tell where they belong."""

    def by_hand(self, desired: Desired) -> str:
        """Return the settings of a wanted state as lines to write by hand, with their places. Raises EngineError."""


class ServerChange(Protocol):
    """A change of a mail server. Example: _change.files.Change."""

    def __bool__(self) -> bool:
        """Whether the change changes anything."""

    def diff(self) -> list[dict[str, str]]:
        """Return the changed lines in Ansible's diff format."""

    def lines(self) -> list[tuple[str, str]]:
        """Return path and changed lines of each changed file that is not secret."""

    def mentioned_before(self, text: str) -> bool:
        """Whether the former state of the changed files contains this text; true if no file changes."""


class ServerTransaction(Protocol):
    """Makes a change or undoes it. Example: _change.files.Transaction."""

    def opened(
        self, check_mode: bool, prove: Optional[Callable[[], None]] = None
    ) -> contextlib.AbstractContextManager[tuple[bool, list[str]]]:
        """Lock the mail server and undo the change of a killed run, which prove then proves.

        Yields whether there was one, and warnings.
        """

    def journal_facts(self) -> Optional[dict[str, Any]]:
        """Return C(path) of the journal of a killed run and C(files) that it would restore; None without a journal."""

    def unasked_files(self) -> list[str]:
        """Return the files of a killed run's change, if the daemon takes them up without being told. Raises EngineError."""

    def apply(self, change: Any, prove: Callable[[], None], prove_old: Callable[[], None], hold: bool = False) -> None:
        """Make the change, or undo it and raise TransactionError. hold: a later change of the call may have to undo it, too."""


class Server(Protocol):
    """An adapter: one mail server product on this host."""

    name: str
    """Names the lock, the journal and the record of the product's daemon."""

    def transaction(self, store: str) -> ServerTransaction:
        """Return the transaction for changes. store: the directory of locks and journals."""

    def require_running(self) -> None:
        """Raise EngineError unless the daemon is installed, runs, and uses the configuration that the adapter changes.

        NotRunningError if it does not run, BrokenConfigurationError if it cannot read its files, PortInUseError if a reload
        would end it or keep it from listening.
        """

    def main_process(self) -> Optional[int]:
        """Return the process that owns the daemon's listening sockets; None if it does not run, or if that cannot be told."""

    def version(self) -> str:
        """Return the version of the product, for example C(3.7.11); empty if it does not say. Raises EngineError."""

    def sessions_an_hour(self) -> Optional[float]:
        """Return how many sessions an hour the log tells, on average; None if it does not tell it."""

    def files(self) -> tuple[str, ...]:
        """Return the absolute paths of the configuration files that plan() depends on; some may not exist."""

    def left(self) -> list[str]:
        """Return the absolute paths of the files and directories that the collection left on this host for this product."""

    def observe(self) -> Mapping[str, Any]:
        """Return C(listeners) and C(transports) as plain data (see _host.observed); None for what cannot be told.

        C(other_places), if there, has addresses and ports that the configuration has for something else than mail.
        C(not_read_yet), if there, has the files that changed since the daemon read them.
        Raises EngineError if the configuration cannot be read.
        """

    def plan(self, desired: Desired) -> ServerChange:
        """Return the change that makes the wanted state; empty if the server has it already. Raises EngineError."""

    def has_peers(self) -> bool:
        """Return whether the daemon's configuration has a transport of a peer. Starts no program that observe() has not started."""

    def stripped(self, images: Mapping[str, FileImage], certificate: str) -> list[FileImage]:
        """Return the administrator's files without the settings that name this certificate or another file of the collection.

        For a host that a version without records has changed. images: path -> the file as far as the record puts it back. Files
        that are the collection's alone are among the returned ones, as removed.
        """

    def generated(self) -> Sequence[FileImage]:
        """Return the files that the product's own tools write during the reload, as they are now."""

    def state(self) -> dict[str, str]:
        """Return the configured state: C(inbound) and C(outbound) with the values of Desired, or C(custom)."""

    def next_hops(self) -> Sequence[Target]:
        """Return the hosts that receive all outgoing mail; empty if the daemon looks up the MX of each domain.

        Raises EngineError if mail leaves by other routes as well.
        """
