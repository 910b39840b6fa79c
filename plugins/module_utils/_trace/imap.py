# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds marked messages in a mailbox through IMAP, without changing the mailbox.

The folder is opened with EXAMINE, not SELECT. Only two headers of the matching messages are fetched, with PEEK. The
server's answers are limited in size and in time, because any host may answer on the port.
"""

from __future__ import annotations

import base64
import contextlib
import imaplib
import re
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import MARKER_HEADER, received_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

IMPLICIT, STARTTLS, NONE = "implicit", "starttls", "none"
TLS = (IMPLICIT, STARTTLS, NONE)
IMAP_PORTS = {IMPLICIT: 993, STARTTLS: 143, NONE: 143}
# Only the newest messages are searched, because a server without an index of headers reads every message in a search.
NEWEST = 10_000
# The limit of a server's answers in one look: much more than the headers of all wanted messages.
MAX_IMAP_BYTES = 8 * 1024 * 1024
_LINE_COST = 64
_MARKERS_AT_ONCE = 25
_MESSAGES_AT_ONCE = 50
_MAX_MATCHES = 1000
_SHOWN = 300
# imaplib does not check the form of answers. A malformed answer can raise any of these exceptions.
_FAILURES = (imaplib.IMAP4.error, OSError, ValueError, LookupError, AttributeError, TypeError)
_FETCH = f"(UID BODY.PEEK[HEADER.FIELDS ({MARKER_HEADER} Received)])"


@dataclass(frozen=True)
class ImapPlace:
    """A folder on an IMAP server.

    ca_pem, ca_file: roots to trust instead of the host's own ones. port: 0 means the default port. seconds: the time limit
    of each look.
    """

    host: str
    user: str
    password: str = field(repr=False)
    port: int = 0
    tls: str = IMPLICIT
    validate_certs: bool = True
    ca_pem: str = ""
    ca_file: str = ""
    folder: str = "INBOX"
    seconds: float = 20.0

    def check(self) -> None:
        """Raise EngineError or TargetError if an option is wrong, or if the password would cross a network in plaintext."""
        Target(self.host, self.port or IMAP_PORTS[self.tls]).check()
        for what, text in (("user", self.user), ("password", self.password), ("folder", self.folder)):
            if not text or re.search(r"[\x00-\x1f\x7f]", text):
                raise EngineError(f"imap: the {what} is empty or holds a control character")
        if self.tls == NONE and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise EngineError(
                f"imap: without TLS the password would cross the network to {self.host} in plaintext; choose "
                "'implicit' or 'starttls'"
            )

    @property
    def target(self) -> Target:
        """Host and port of the server."""
        return Target(self.host, self.port or IMAP_PORTS[self.tls])


class _Limited(imaplib.IMAP4):
    """An IMAP4 connection with a limit of bytes and of time for each look.

    A timer ends the connection, because the timeout of a socket starts again with each byte that a slow server sends.
    """

    _bytes_left = MAX_IMAP_BYTES
    _timer: Optional[threading.Timer] = None
    _seconds = 20.0

    def open(self, *arguments: Any, **options: Any) -> None:
        """Connect. The limits apply from here on, also to the greeting."""
        super().open(*arguments, **options)
        self._seconds = self.sock.gettimeout() or self._seconds
        self.allow()

    def allow(self) -> None:
        """Start the limits of bytes and time for the next look."""
        self.rest()
        self._bytes_left = MAX_IMAP_BYTES
        self._timer = threading.Timer(self._seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def rest(self) -> None:
        """Stop the timer between two looks."""
        if self._timer:
            self._timer.cancel()

    def _end(self) -> None:
        with contextlib.suppress(OSError):  # the method of the socket class: SSLSocket's own would drop its TLS object
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def read(self, size: int) -> bytes:
        """Read a literal. The server chooses its size."""
        self._spend(size)
        return super().read(size)

    def readline(self) -> bytes:
        """Read a line. imaplib limits its length."""
        line = super().readline()
        self._spend(len(line) + _LINE_COST)
        return line

    def _spend(self, amount: int) -> None:
        self._bytes_left -= amount
        if self._bytes_left < 0:
            raise self.abort("it sent more than the headers that were asked for")


class _LimitedTls(_Limited, imaplib.IMAP4_SSL):
    """A limited connection over implicit TLS."""


class ImapMailbox:
    """A mailbox (mailbox.Mailbox) that is a folder on an IMAP server. The connection stays open until close()."""

    interval = 1.0
    unread = ""

    def __init__(self, place: ImapPlace) -> None:
        """Prepare only; the first look connects. Raises EngineError or TargetError if the place cannot be used."""
        place.check()
        self._place = place
        self._connection: Optional[_Limited] = None
        self._uids: dict[str, tuple[str, str]] = {}
        """Marker -> UID validity and UID of its message."""

    def look(self, markers: Collection[str]) -> dict[str, list[str]]:
        """Return marker -> Received headers. Raises EngineError."""
        reconnect = (
            self._connection is not None
        )  # a server may close an idle connection, so one new connection is tried
        try:
            return self._look(markers)
        except _LostError:
            if not reconnect:
                raise
            return self._look(markers)

    def delete(self, marker: str) -> None:
        """Delete the message by its UID. Raises EngineError, also if the server cannot expunge a single message."""
        validity, uid = self._uids[marker]
        with self._connected() as connection:
            # Many servers list all their capabilities only after the login.
            if "UIDPLUS" not in self._text(connection.capability()[1]).upper().split():
                raise self._error("cannot remove one message alone (no UIDPLUS), so it stays")
            if self._open(connection, readonly=False) != validity:
                raise self._error("gave its messages new numbers, so the message stays")
            if self._fetch(connection, [uid]).get(marker, ("", []))[0] != uid:
                raise self._error("shows another message under its number, so the message stays")
            self._done(connection.uid("STORE", uid, "+FLAGS.SILENT", r"(\Deleted)"), "mark the message as deleted")
            self._done(connection.uid("EXPUNGE", uid), "remove the message")

    def close(self) -> None:
        """Log out and close the connection. Never raises."""
        if self._connection is None:
            return
        with contextlib.suppress(*_FAILURES):
            self._connection.allow()
            self._connection.logout()
        self._drop()

    def _drop(self) -> None:
        """Close the connection without LOGOUT, because it failed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.rest()
            with contextlib.suppress(OSError):
                connection.shutdown()

    def _look(self, markers: Collection[str]) -> dict[str, list[str]]:
        with self._connected() as connection:
            validity = self._open(connection, readonly=True)
            found: dict[str, list[str]] = {}
            uids = self._search(connection, sorted(markers))
            for chunk in _chunks(uids, _MESSAGES_AT_ONCE):
                for marker, (uid, received) in self._fetch(connection, chunk).items():
                    if marker in markers:
                        found[marker] = received
                        self._uids[marker] = (validity, uid)
            return found

    @contextlib.contextmanager
    def _connected(self) -> Iterator[_Limited]:
        """Yield the connection with its limits running. Every failure becomes an EngineError."""
        started = time.monotonic()
        try:
            if self._connection is None:
                self._connection = self._connect()
            connection = self._connection
            connection.allow()
            yield connection
            connection.rest()
        except EngineError:
            self.close()
            raise
        except ssl.SSLCertVerificationError as error:
            self._drop()
            raise self._error(
                f"shows a certificate that cannot be trusted ({error.verify_message}); name its authority in ca_content "
                "or ca_file, and use a host name that is in it"
            ) from None
        except _FAILURES as error:
            late = isinstance(error, socket.timeout) or time.monotonic() - started >= self._place.seconds
            self._drop()
            raise self._lost(
                f"did not answer within {self._place.seconds:g} s" if late else f"failed: {self._said(error)}"
            ) from None

    def _connect(self) -> _Limited:
        place = self._place
        target = place.target
        context = None if place.tls == NONE else self._context()
        if place.tls == IMPLICIT:
            connection: _Limited = _LimitedTls(target.host, target.port, ssl_context=context, timeout=place.seconds)
        else:
            connection = _Limited(target.host, target.port, timeout=place.seconds)
        self._connection = connection  # from here on, close() ends it
        if place.tls == STARTTLS:
            if "STARTTLS" not in connection.capabilities:
                raise self._error("does not offer STARTTLS; choose tls 'implicit', or let it offer STARTTLS")
            connection.starttls(context)
        self._log_in(connection)
        return connection

    def _context(self) -> ssl.SSLContext:
        place = self._place
        try:
            context = ssl.create_default_context(cafile=place.ca_file or None, cadata=place.ca_pem or None)
        except (ssl.SSLError, ValueError):
            what = place.ca_file or "ca_content"
            raise EngineError(f"imap: {what} holds no certificate in PEM format") from None
        except OSError as error:
            raise EngineError(f"imap: ca_file {place.ca_file}: {error.strerror or error}") from None
        if not place.validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _log_in(self, connection: _Limited) -> None:
        """Log in with AUTHENTICATE PLAIN, which accepts any text, or else with LOGIN. Raises EngineError.

        A refused login has a message of its own.
        """
        user, password = self._place.user, self._place.password
        if connection.state == "AUTH":  # the server greeted with PREAUTH
            return
        try:
            if "AUTH=PLAIN" in connection.capabilities:
                answer = f"\0{user}\0{password}".encode("utf-8", "surrogateescape")
                connection.authenticate("PLAIN", lambda _challenge: answer)
            elif not (user + password).isascii():
                raise self._error("accepts no user or password outside of ASCII (no AUTH=PLAIN)")
            else:
                connection.login(user if re.fullmatch(r"[A-Za-z0-9._@+-]+", user) else _quoted(user), password)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as error:
            raise self._error(
                f"did not let {_printable(user)} log in ({self._said(error)}); see user and password"
            ) from None

    def _open(self, connection: _Limited, readonly: bool) -> str:
        """Open the folder and return its UID validity. Raises EngineError."""
        status, data = connection.select(_quoted(_modified_utf7(self._place.folder)), readonly)
        if status != "OK":
            raise self._error(f"has no folder {_printable(self._place.folder)!r} for this user ({self._said(data)})")
        return self._text(connection.response("UIDVALIDITY")[1])

    def _search(self, connection: _Limited, markers: Sequence[str]) -> list[str]:
        """Return the UIDs of messages that may have one of the markers. A search also finds parts of words."""
        exists = self._text(connection.untagged_responses.get("EXISTS"))
        first = max(1, int(exists) - NEWEST + 1) if re.fullmatch(r"\d{1,10}", exists) else 1
        if exists == "0":
            return []
        uids: set[int] = set()
        for chunk in _chunks(markers, _MARKERS_AT_ONCE):
            wanted = [f'HEADER {MARKER_HEADER} "{marker}"' for marker in chunk]
            query = " ".join(["OR"] * (len(wanted) - 1) + wanted)
            status, data = connection.uid("SEARCH", f"{first}:*", query)
            self._done((status, data), "search the folder")
            for text in self._text(data[-1:]).split():
                if re.fullmatch(r"\d{1,10}", text):
                    uids.add(int(text))
        return [str(uid) for uid in sorted(uids)[-_MAX_MATCHES:]]

    def _fetch(self, connection: _Limited, uids: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
        """Fetch these messages: marker -> UID and Received headers."""
        status, data = connection.uid("FETCH", ",".join(uids), _FETCH)
        self._done((status, data), "fetch headers")
        found: dict[str, tuple[str, list[str]]] = {}
        for item, after in zip(data, [*data[1:], b""]):
            if not isinstance(item, tuple):
                continue
            marker, received = received_of(item[1])
            # The UID comes before or after the headers.
            match = re.search(rb"\bUID (\d{1,10})\b", item[0] + b" " + (after if isinstance(after, bytes) else b""))
            if marker and match and match[1].decode() in uids:
                found[marker] = (match[1].decode(), received)
        return found

    def _done(self, answer: tuple[str, list[Any]], what: str) -> None:
        status, data = answer
        if status != "OK":
            raise self._error(f"did not {what} ({self._said(data)})")

    @staticmethod
    def _text(data: Any) -> str:
        """Return the last answer of a kind as text."""
        last = data[-1] if data else None
        return last.decode("ascii", "replace") if isinstance(last, bytes) else ""

    def _said(self, what: Any) -> str:
        """Return the text of a server's answer or of an exception: short, printable, without the password in any form."""
        if isinstance(what, Exception):
            what = getattr(what, "strerror", None) or (what.args[0] if what.args else type(what).__name__)
        if isinstance(what, list):
            what = what[-1] if what else b""
        text = what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)
        user, password = self._place.user, self._place.password
        plain = base64.b64encode(f"\0{user}\0{password}".encode("utf-8", "surrogateescape")).decode()
        alone = base64.b64encode(password.encode("utf-8", "surrogateescape")).decode()
        for secret in (plain, alone, _quoted(password)[1:-1], repr(password)[1:-1], password):
            text = text.replace(secret, "***")
        return _printable(text)[:_SHOWN]

    def _error(self, what: str) -> EngineError:
        return EngineError(f"imap: {self._place.target} {what}")

    def _lost(self, what: str) -> EngineError:
        return _LostError(f"imap: {self._place.target} {what}")


class _LostError(EngineError):
    """The connection failed. A new connection may work."""


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _modified_utf7(name: str) -> str:
    """Return a folder's name in IMAP's encoding (RFC 3501 section 5.1.3)."""

    def coded(match: re.Match[str]) -> str:
        data = base64.b64encode(match[0].encode("utf-16-be", "surrogatepass")).decode().rstrip("=")
        return f"&{data.replace('/', ',')}-"

    return re.sub(r"[^ -~]+", coded, name.replace("&", "&-"))


def _printable(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
