# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine of message_trace: send marked messages, wait until they arrive, and read the path of each message.

A message to send is a mapping with C(marker), C(sender) and C(recipient). A message to receive has C(marker), C(delete), and
exactly one of C(mailbox), C(imap) and C(command) that is not None. The options of the module have this shape.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.command import CommandMailbox
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.imap import ImapMailbox, ImapPlace
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import (
    MARKER_HEADER,
    LocalMailbox,
    Mailbox,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.received import LOST, path_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_MARKER = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9._+=-]+@[A-Za-z0-9.-]+\Z")

Submit = Callable[[Sequence[str], bytes], "tuple[int, str, str]"]
"""Runs a program from an argument list, with this standard input; returns exit status, standard output and error."""


@dataclass(frozen=True)
class Trace:
    """The options of one call. timeout: seconds until all messages have to arrive. look_timeout: seconds for one look."""

    send: Sequence[Mapping[str, Any]] = ()
    receive: Sequence[Mapping[str, Any]] = ()
    timeout: float = 60
    look_timeout: int = 20
    sendmail: str = "/usr/sbin/sendmail"

    def check(self) -> None:
        """Raise EngineError if a marker, an address or a time cannot be used."""
        for item in (*self.send, *self.receive):
            if not _MARKER.match(item["marker"]):
                raise EngineError(f"the marker {item['marker']!r} has to be 1 to 64 letters, digits or _.-")
        if self.look_timeout < 1:
            raise EngineError("look_timeout has to be 1 second or more")


def run_trace(trace: Trace, submit: Submit, check_mode: bool = False) -> dict[str, Any]:
    """Send the messages, wait for them, and return the values of message_trace. Check mode checks the options only.

    Raises EngineError, TargetError, OSError. If an option is wrong, nothing is sent.
    """
    trace.check()
    places = places_of(trace.receive, trace.look_timeout, trace.timeout)
    if check_mode:
        return {"changed": False, "sent": [], "received": []}
    for item in trace.send:
        send(item, trace.sendmail, submit)
    received, warnings = wait(trace.receive, places, trace.timeout)
    return {
        "changed": any(one["deleted"] for one in received),
        "sent": [item["marker"] for item in trace.send],
        "received": received,
        "warnings": warnings,
    }


def compose(marker: str, sender: str, recipient: str) -> bytes:
    """Return the marked message as bytes for sendmail."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = f"TLS path test {marker}"
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{marker}@{sender.partition('@')[2]}>"
    message[MARKER_HEADER] = marker
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("This message was sent to see whether each hop of its way uses TLS.\n")
    return message.as_bytes()


def send(item: Mapping[str, Any], sendmail: str, submit: Submit) -> None:
    """Hand one message to the mail server. Raises EngineError."""
    for what in ("sender", "recipient"):
        if not _ADDRESS.match(item[what]):
            raise EngineError(f"the {what} {item[what]!r} is not a plain address like name@example.com")
    command = [sendmail, "-i", "-f", item["sender"], "--", item["recipient"]]
    status, out, err = submit(command, compose(item["marker"], item["sender"], item["recipient"]))
    if status != 0:
        raise EngineError(f"{sendmail} did not accept the message for {item['recipient']}: {(err or out).strip()}")


def mailbox_of(item: Mapping[str, Any], look_timeout: int, timeout: float) -> Mailbox:
    """Return the mailbox of an item of C(receive), without opening it. Raises EngineError, TargetError."""
    if item["imap"]:
        imap = item["imap"]
        return ImapMailbox(
            ImapPlace(
                host=imap["host"],
                user=imap["user"],
                password=imap["password"],
                port=imap["port"] or 0,
                tls=imap["tls"],
                validate_certs=imap["validate_certs"],
                ca_pem=imap["ca_content"] or "",
                ca_file=imap["ca_file"] or "",
                folder=imap["folder"],
                seconds=float(look_timeout),
            )
        )
    if item["command"] is not None:
        return CommandMailbox(item["command"], float(look_timeout))
    return LocalMailbox(item["mailbox"], min(float(look_timeout), max(1.0, timeout)))


def places_of(items: Sequence[Mapping[str, Any]], look_timeout: int, timeout: float) -> list[Mailbox]:
    """Return the mailbox of each item. Items with the same mailbox share one object. Raises EngineError, TargetError."""
    places: dict[str, Mailbox] = {}
    for item in items:
        if item["command"] is not None and item["delete"]:
            raise EngineError("delete cannot be used with command; let the command itself remove the message")
        places.setdefault(_key(item), mailbox_of(item, look_timeout, timeout))
    return [places[_key(item)] for item in items]


def _key(item: Mapping[str, Any]) -> str:
    return repr([item[kind] for kind in ("mailbox", "imap", "command")])


def wait(
    items: Sequence[Mapping[str, Any]], places: Sequence[Mailbox], seconds: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Wait until every message has arrived or the seconds are over. Return results and warnings. Raises EngineError, OSError."""
    deadline = time.monotonic() + seconds
    wanted: dict[Mailbox, set[str]] = {}
    for item, place in zip(items, places):
        wanted.setdefault(place, set()).add(item["marker"])
    found: dict[Mailbox, dict[str, list[str]]] = {place: {} for place in wanted}
    try:
        while True:
            for place, markers in wanted.items():
                if missing := markers - found[place].keys():
                    found[place].update(place.look(missing))
            pauses = [place.interval for place, markers in wanted.items() if markers - found[place].keys()]
            left = deadline - time.monotonic()
            if not pauses or left <= 0:
                break
            time.sleep(min(left, max(pauses)))
        deleted, warnings = _delete(items, places, found)
    finally:
        for place in wanted:
            place.close()
    results = [
        _result(item, found[place].get(item["marker"]), (place, item["marker"]) in deleted, seconds, place.unread)
        for item, place in zip(items, places)
    ]
    return results, warnings


def _delete(
    items: Sequence[Mapping[str, Any]], places: Sequence[Mailbox], found: Mapping[Mailbox, Mapping[str, list[str]]]
) -> tuple[set[tuple[Mailbox, str]], list[str]]:
    """Delete the messages that have arrived and have C(delete).

    Return mailbox and marker of each deleted message, and a warning for each message that could not be deleted.
    """
    gone: set[tuple[Mailbox, str]] = set()
    warnings = []
    unwanted = {(place, item["marker"]) for item, place in zip(items, places) if item["delete"]}
    for place, marker in ((place, marker) for place, marker in unwanted if marker in found[place]):
        try:
            place.delete(marker)
            gone.add((place, marker))
        except (EngineError, OSError) as error:
            reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            warnings.append(f"the message {marker} was not removed: {reason}")
    return gone, warnings


def _result(
    item: Mapping[str, Any], headers: Optional[list[str]], deleted: bool, seconds: float, unread: str
) -> dict[str, Any]:
    path = path_of(headers or []).to_dict()
    if headers is None:
        path["verdict"] = LOST
        path["message"] = (
            f"it did not arrive within {seconds:g} s; deferred_mail_info shows the queues of the gateways and the servers"
        )
        if unread:
            path["message"] = f"it was not found within {seconds:g} s, but not all was read: {unread}"
    return {"marker": item["marker"], "arrived": headers is not None, "deleted": deleted, **path}
