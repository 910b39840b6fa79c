# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue of an Exim, read with C(exim4 -bp), the logs of its messages, and its retry records.

Source: the Exim specification, the command line and exim_dumpdb.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.layout import DEBIAN
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log_places import LOG_OPTIONS, log_places
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.recent_log import recent_log
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.settings import parse_settings
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Returned, Waiting, domain_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    QUEUE_LOGS,
    QUEUE_MESSAGES,
    QUEUE_RETRY_RECORDS,
    QUEUE_ROUTES,
)

SPOOL = "/var/spool/exim4"
MESSAGE_LOGS = f"{SPOOL}/msglog"
_ID = r"[0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4}"
# A recipient's line begins with more blanks. Its quoted local part may hold the rest of such a line.
_MESSAGE = re.compile(rf" {{0,4}}\S+\s+(\S+)\s+({_ID})\s+<(.*)")
_PLAIN = r"[^\s<>\"@|/:][^\s<>\"@]{0,319}@[^\s<>\"@]{1,320}"
_ABOUT = re.compile(rf"{_PLAIN}(?: <({_PLAIN})>)?:? (.*)")
_UNCLEAR = "an address in the log of this message looks like words of the log, so the reason is not read"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DELIVERED = " transport succeeded"
_TIME = re.compile(r"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?: [+-]\d{4})? ")
_CAME = re.compile(rf"({_ID}) <= .{{1,1000}} id=(\S{{1,320}})")
_GIVEN_UP = re.compile(rf"({_ID}) \*\* (\S{{1,320}})(?: <[^<>]*>)? (.*)")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_FROZEN = "*** frozen ***"
_HOST = re.compile(r"(?<!\S)H=([A-Za-z0-9_.-]{1,255}) \[([0-9A-Fa-f.:]{2,45})\](?::(\d{1,5}))?")
_ROUTED = re.compile(r"\s+host (\S{1,255})\s+\[([0-9A-Fa-f.:]{2,45})\](?:.*?\bport=(\d{1,5}))?")
_NOT_YET = "retry time not reached"
_HELD = "domain is held"
_RECORD = re.compile(r"  T:(\S{1,600}) -?\d{1,6} -?\d{1,9} (.*)")
_WHEN = re.compile(
    r"\d\d-\w{3}-\d{4} \d\d:\d\d:\d\d  \d\d-\w{3}-\d{4} \d\d:\d\d:\d\d  (\d\d)-(\w{3})-(\d{4}) (\d\d):(\d\d):(\d\d)"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class _Message:
    """A message of the list, and its recipients that are not delivered yet."""

    queue_id: str
    recipients: tuple[str, ...]
    sender: str = ""
    size: Optional[int] = None
    frozen: bool = False


@dataclass(frozen=True)
class _Hop:
    """A host that mail goes to. port: None if it was not said."""

    name: str
    address: str
    port: Optional[int] = None


class EximQueue:
    """The queue of the daemon (_host.waiting.Queue)."""

    def __init__(self, run: Runner) -> None:
        """Prepare only."""
        self._run = run

    def waiting(self) -> Sequence[Waiting]:
        """Return every message that waits, an entry for each recipient. Raises EngineError if the queue cannot be read."""
        status, out, err = self._run(["exim4", "-bpc"])
        if status != 0 or not out.strip().isdigit():
            raise EngineError(f"exim4 -bpc cannot count the queue: {(err or out).strip()}")
        if len(out.strip()) > 9 or int(out) > QUEUE_MESSAGES:
            raise EngineError(
                f"the queue holds more than {QUEUE_MESSAGES:,} messages, too many to list; look with exim4 -bp"
            )
        messages = _listed(self._run)
        records = _records(self._run) if messages else {}
        routes = _Routes(self._run)
        found = []
        for number, message in enumerate(messages):
            log = _log(self._run, message.queue_id) if number < QUEUE_LOGS else None
            for recipient in message.recipients:
                found.append(_entry(message, recipient, log, records, routes))
        return found

    def returned(self, message_ids: Sequence[str]) -> Sequence[Returned]:
        """Return which of these messages were returned to their senders, as far as the recent log tells it."""
        status, out, _err = self._run(["exim4", "-bP", *LOG_OPTIONS])
        places = log_places(parse_settings(out) if status == 0 else {}, DEBIAN.logs)
        lines = [_TIME.sub("", line) for line in recent_log(self._run, places)]
        wanted = set(message_ids)
        ids = {match[1]: match[2] for line in lines if (match := _CAME.match(line)) and match[2] in wanted}
        found = (match for line in lines if (match := _GIVEN_UP.match(line)) and match[1] in ids)
        return [Returned(ids[one[1]], one[2], one[3]) for one in found]

    def try_again(self, messages: Sequence[Waiting]) -> None:
        """Have the daemon try these messages now, and no others. Raises EngineError if it refuses."""
        names = list(dict.fromkeys(one.queue_id for one in messages))
        if odd := next((one for one in names if not re.fullmatch(_ID, one)), ""):
            raise EngineError(f"{odd!r} is no message of an Exim queue; run again")
        for name in names:
            status, out, err = self._run(["exim4", "-M", name])
            if status != 0:
                raise EngineError(f"exim4 -M {name} failed: {(err or out).strip()}")


class _Routes:
    """Where the daemon sends the mail of a domain, as C(exim4 -bt) says it for the first recipient there."""

    def __init__(self, run: Runner) -> None:
        self._run = run
        self._known: dict[str, list[_Hop]] = {}

    def of(self, recipient: str) -> list[_Hop]:
        """Return the hosts, in order; none if it was not asked, or if the mail stays here."""
        domain = domain_of(recipient)
        if domain not in self._known:
            if len(self._known) >= QUEUE_ROUTES or not domain or not recipient.isprintable():
                return []
            lines = self._run(["exim4", "-bt", "--", recipient])[1].split("\n")
            hosts = [match for match in map(_ROUTED.match, lines) if match]
            self._known[domain] = [_Hop(one[1], one[2], int(one[3]) if one[3] else None) for one in hosts]
        return self._known[domain]


def _entry(
    message: _Message,
    recipient: str,
    log: Optional[list[str]],
    records: Mapping[str, tuple[str, float]],
    routes: _Routes,
) -> Waiting:
    """Return what is known of one recipient. log: None if it was not read."""
    reason = _words([one for one in log or () if not one.startswith("Received from ")], recipient)
    own, _colon, text = reason.partition(": ")  # the text may quote a server
    match = _HOST.search(own)
    hops = [_Hop(match[1], match[2], int(match[3]) if match[3] else None)] if match else []
    if reason and not hops:
        hops = routes.of(recipient)
    key, record = next(((hop, one) for hop in hops if (one := _record_of(records, hop))), (None, None))
    hop = key or (hops[0] if hops else _Hop("", ""))
    if record and _NOT_YET in reason:  # the record has the failure that the daemon remembers
        reason = record[0]
    return Waiting(
        message.queue_id,
        recipient,
        reason if log is not None else "the log of this message was not read",
        arrived=_arrived(message.queue_id),
        sender=message.sender,
        size=message.size,
        queue="frozen" if message.frozen else "spool",
        next_hop=hop.name,
        next_hop_address=hop.address,
        next_hop_port=hop.port or 25,
        next_try=record[1] if record and not message.frozen else None,
        held=message.frozen or _HELD in (own, text),
    )


def _record_of(records: Mapping[str, tuple[str, float]], hop: _Hop) -> Optional[tuple[str, float]]:
    """Return the text and the next try of a host's record. Its key has the address, the port if it is not 25, or the name alone."""
    port = f":{hop.port}" if hop.port not in (None, 25) else ""
    names = (f"{hop.name}:{hop.address}{port}", f"{hop.name}{port}")
    return next((records[name] for name in names if name in records), None)


def _records(run: Runner) -> dict[str, tuple[str, float]]:
    """Return the retry records of hosts: key -> the daemon's words, and the next try. Nothing if they cannot be read."""
    lines = run(["exim_dumpdb", "-z", SPOOL, "retry"])[1].split("\n")[: 2 * QUEUE_RETRY_RECORDS]
    found: dict[str, tuple[str, float]] = {}
    for line, following in zip(lines, lines[1:]):
        record, when = _RECORD.match(line), _WHEN.match(following)
        moment = _moment(when) if record and when else None
        if record and moment is not None:
            found[record[1]] = (record[2].strip(), moment)
    return found


def _moment(when: re.Match[str]) -> Optional[float]:
    day, month, year, hour, minute, second = when.groups()
    try:
        moment = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=timezone.utc
        )
    except ValueError:
        return None
    return moment.timestamp()


def waiting(run: Runner, names: Optional[Collection[str]]) -> list[Waiting]:
    """Return the messages for recipients in domains of these names, None for all. Raises EngineError if the queue cannot be read.

    The list has the original recipients. An alias may have led to one of the domains: the log of a message shows that.
    """
    messages = _listed(run)
    mentioned = _mentioned(run, names) if messages and names else frozenset()
    found = []
    for message in messages:
        own = [one for one in message.recipients if names is None or domain_of(one) in names]
        log = _log(run, message.queue_id) if own or message.queue_id in mentioned else []
        tried = [] if own else [one for one in _tried(log) if domain_of(one) in (names or ())]
        others = [one for one in tried if not _reason(log, one).endswith(_DELIVERED)]
        for one in dict.fromkeys((*own, *others)):
            found.append(Waiting(message.queue_id, one, _reason(log, one), arrived=_arrived(message.queue_id)))
    return found


def _listed(run: Runner) -> list[_Message]:
    """Return the messages of the queue. Raises EngineError if it cannot be read."""
    status, out, err = run(["exim4", "-bp"])
    if status != 0:
        raise EngineError(f"exim4 -bp cannot read the queue: {(err or out).strip()}")
    return list(_messages(out))


def _messages(listed: str) -> Iterator[_Message]:
    """Yield the messages of C(exim4 -bp): a line with size and ID, then one for each recipient; D marks a delivered one."""
    begins: Optional[re.Match[str]] = None
    recipients: list[str] = []
    for line in [*listed.split("\n"), " 0m 0 000000-000000-00 <>"]:
        if match := _MESSAGE.match(line):
            if begins:
                sender = begins[3].rpartition(">")[0]
                frozen = begins[3].rstrip().endswith(_FROZEN)
                yield _Message(begins[2], tuple(recipients), sender, _size(begins[1]), frozen)
            begins = match
            recipients = []
        elif begins and line.strip() and not re.match(r"\s+D ", line):
            recipients.append(line.strip())


def _size(text: str) -> Optional[int]:
    """Return the bytes of a size such as C(2.9K); None if it is none."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d)?)([KMG]?)", text)
    return round(float(match[1]) * _UNITS.get(match[2], 1)) if match else None


def _arrived(queue_id: str) -> float:
    """Return when a message arrived: its ID begins with that second, in base 62."""
    seconds = 0
    for digit in queue_id.partition("-")[0]:
        seconds = seconds * len(_DIGITS) + _DIGITS.index(digit)
    return float(seconds)


def _mentioned(run: Runner, names: Collection[str]) -> frozenset[str]:
    """Return the messages whose logs mention one of the domains."""
    patterns = [word for name in names for word in ("-e", f"@{name}")]
    _status, out, _err = run(["grep", "-rliF", *patterns, MESSAGE_LOGS])
    return frozenset(path.rpartition("/")[2] for path in out.split("\n"))


def _log(run: Runner, queue_id: str) -> list[str]:
    """Return what Exim has logged of the attempts to deliver a message; nothing before the first one."""
    return [_TIME.sub("", line) for line in run(["exim4", "-Mvl", queue_id])[1].split("\n") if line.strip()]


def _tried(log: list[str]) -> Iterator[str]:
    """Yield the recipients of attempts: C(address R=...), C(address <original> R=...)."""
    for line in log:
        if match := re.match(r"(\S+@\S+)(?: <[^>]*>)? (?:R=|\S+ R=)", line):
            yield match[1]


def _words(log: list[str], recipient: str) -> str:
    """Return the daemon's words in the last line about a recipient, else in the last line at all; empty without a line.

    The address before the words is left out: the sender chose it, and its quoted local part may look like words of the daemon.
    """
    found = [words for line in log if (words := _after_address(line, recipient)) is not None]
    if found or not log:
        return found[-1] if found else ""
    if match := _ABOUT.fullmatch(log[-1]):  # where an alias led to
        return match[2]
    return _UNCLEAR if "@" in log[-1] else log[-1]


def _after_address(line: str, recipient: str) -> Optional[str]:
    """Return what stands in a line after this recipient; None if the line is not about it, _UNCLEAR if the address has no clear end.

    Exim writes C(address R=...), C(address: ...) or C(address <original> R=...). A changed address stands there without its quotes.
    """
    local, _at, domain = recipient.rpartition("@")
    bare = re.sub(r"\\(.)", r"\1", local[1:-1]) if re.fullmatch(r'".*"', local) else local
    original = f" <{recipient}>"
    for address in (f"{recipient}{original}", f"{bare}@{domain}{original}", recipient):
        rest = line[len(address) :]
        if line[: len(address)].lower() == address.lower() and rest[:1] in (" ", ":") and not rest.startswith(" <"):
            break
    else:
        match = _ABOUT.fullmatch(line)
        if not match or (match[1] or "").lower() != recipient.lower():
            return None
        rest = match[2]
    # An address of an alias or of a user's file may repeat the recipient; then the words are behind the last one.
    return _UNCLEAR if f"{original} R=".lower() in rest.lower() else rest.lstrip(": ")


def _reason(log: list[str], recipient: str) -> str:
    """Return the last line about a recipient, else the last line at all."""
    about = [line for line in log if line.lower().startswith(recipient.lower())]
    return (about or log or [""])[-1]
