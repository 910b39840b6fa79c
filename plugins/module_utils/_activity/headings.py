# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The headings of log lines: time, host and program, in front of what a daemon wrote.

Syslog daemons, journalctl, containers and collectors write headings of many shapes. A shape is learned from the first line that
has it: the words in front of the daemon's program are recognized from the left, and one regular expression is made of them, for
the lines that follow. A line whose heading is not understood is kept as a sample of its shape.
Sources: rsyslog.conf(5), syslogd(8) of the BSDs, RFC 3164, RFC 5424, journalctl(1), postlogd(8), Docker and Kubernetes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Note, detail_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import LOG_LINE_BYTES

_DATE = rb"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_ZONE = rb"(?: ?[+-]\d\d:?\d\d|Z| UTC| GMT)"
_DAY = rb"[A-Z][a-z][a-z] [ \d]?\d"
_CLOCK = rb"\d\d:\d\d:\d\d"
_WEEKDAY = rb"(?:[A-Z][a-z][a-z] )"
_FACILITY = rb"(?:kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local[0-7])"
_SEVERITY = rb"(?:debug|info|notice|warn|warning|err|error|crit|alert|emerg|panic)"
_COLOUR = rb"(?:\x1b\[[\d;]{0,20}m)?"

# What stands before, around and behind a time; whether the time says its zone. The first that fits is taken.
_TIMES: Sequence[tuple[bytes, bytes, bytes, bool]] = (
    (_WEEKDAY + rb"?", _DATE + _ZONE, rb" ", True),
    (_WEEKDAY, _DATE, rb"(?: [A-Z]{2,5}| [+-]\d\d)? ", False),
    (rb"", _DATE, rb" ", False),
    (rb"", rb"\d{4} " + _DAY + b" " + _CLOCK, rb"(?:\.\d{1,9})? ", False),
    (_WEEKDAY + rb"?", _DAY + b" " + _CLOCK + rb" \d{4}", rb" ", False),
    (_WEEKDAY + rb"?", _DAY + rb" \d{4} " + _CLOCK, rb"(?:\.\d{1,9})? ", False),
    (_WEEKDAY + rb"?", _DAY + b" " + _CLOCK, rb"(?:\.\d{1,9})? ", False),
    (rb"", rb"\d{9,11}\.\d{1,9}", rb" ", True),
    (rb"", rb"@[0-9a-f]{24}", rb" ", True),
)
# Words that say nothing of mail: priority, facility, level, the names and streams of containers.
_WORDS = (
    rb"<\d{1,3}>(?:1 )?",
    rb"<[a-z0-9]{1,10}\.[a-z0-9]{1,10}> ",
    _FACILITY + rb"[.:]" + _SEVERITY + rb" ",
    rb"(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERR|ERROR|CRIT|CRITICAL|ALERT|EMERG|FATAL) {1,8}",
    rb"std(?:out|err) [FP] ",
    _COLOUR + rb"[A-Za-z0-9_.-]{1,128} {0,64}\| {0,4}" + _COLOUR + rb" {0,4}",
    rb"\[[^\[\] ]{1,255}\] ",
)
_HOST = rb'[^ <>\[\]{}"|]{0,254}[^ <>\[\]{}"|:]'
_MOST_HOSTS = 2
_TOKENS = (
    *((re.compile(b"".join(one[:3])), number) for number, one in enumerate(_TIMES)),
    *((re.compile(one), one) for one in _WORDS),
)
# The usual times once more, in a form that is matched faster; a line that has no time there is found out when it is read.
_FAST = (
    (re.compile(rb"\d{4}-\d\d-\d\dT" + _CLOCK + rb"(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d) "), rb"\d{4}-[\dT:.+-]{14,34}Z?"),
    (re.compile(rb"\d{4}-\d\d-\d\d " + _CLOCK + rb"(?:\.\d{1,9})? "), rb"\d{4}-[\d-]{5} [\d:.]{8,18}"),
    (re.compile(rb"[A-Z][a-z][a-z] [ \d]\d " + _CLOCK + b" "), rb"[A-Z][a-z][a-z] [ \d]\d [\d:]{8}"),
)
_HOST_TOKEN = re.compile(_HOST + rb" ")

STAMP = re.compile(
    rb"(?:<\d{1,3}>(?:1 )?|" + _COLOUR + rb"[A-Za-z0-9_.-]{1,128} {0,64}\| {0,4}" + _COLOUR + rb" {0,4})?" + _WEEKDAY + rb"?("
    + _DATE + _ZONE + rb"?|\d{4} " + _DAY + b" " + _CLOCK + b"|" + _DAY + b" " + _CLOCK + rb" \d{4}|"
    + _DAY + rb" \d{4} " + _CLOCK + b"|" + _DAY + b" " + _CLOCK + rb"|\d{9,11}\.\d{1,9}|@[0-9a-f]{24})"
)  # fmt: skip
"""A time at the beginning of a line of any shape."""

REPEATED = re.compile(rb"message repeated (\d{1,9}) times?: \[ ?")
"""What rsyslog and journald write in place of equal lines: behind it stands the line, and a bracket."""
_LAST_REPEATED = re.compile(rb"last message (?:buffered|repeated) (\d{1,9}) times?\Z")
MOST_REPEATED = 1000
_MOST_SHAPES = 16
_MOST_TOKENS = 12
_MOST_JSON = 8192
_MOST_AROUND = 500
_ANY_PROGRAM = rb"[^ \[:]{1,128}(?:\[\d{1,10}\])?:"

_JSON_TIME = (
    "time", "timestamp", "@timestamp", "ts", "date", "timereported", "__REALTIME_TIMESTAMP", "_SOURCE_REALTIME_TIMESTAMP",
)  # fmt: skip
_JSON_HOST = ("host", "hostname", "_HOSTNAME", "HOST", "sysloghost", "source", "fromhost")
_JSON_PROGRAM = (
    "program",
    "SYSLOG_IDENTIFIER",
    "syslogtag",
    "syslog-tag",
    "PROGRAM",
    "app-name",
    "appname",
    "ident",
    "programname",
)
_JSON_PROCESS = ("pid", "SYSLOG_PID", "_PID", "procid", "PID")
_JSON_TEXT = ("message", "MESSAGE", "msg", "log")


@dataclass(frozen=True)
class Ending:
    """Where a heading ends: a product's own pattern, with its groups. needs_time: whether a time has to stand right before it.

    ahead: what the pattern and the text behind it have to look like, if the pattern alone does not show that the line is the product's.
    """

    pattern: bytes
    needs_time: bool = False
    ahead: bytes = b""


@dataclass(frozen=True)
class Shape:
    """A shape of headings. The first groups are the time and the host, each empty where the lines have none; then the ending's."""

    pattern: re.Pattern[bytes]
    has_time: bool


class Headings:
    """The shapes of headings that were seen so far; current is the one of the line before."""

    def __init__(self, endings: Sequence[Ending], ours: re.Pattern[bytes]) -> None:
        """ours: finds whether a line whose heading is not the current one may be the product's at all."""
        self._endings = [
            (re.compile((rb"(?=" + one.ahead + rb")" if one.ahead else b"") + one.pattern), one) for one in endings
        ]
        self.ours = ours.search
        self._known: list[Shape] = []
        self._tries = 0
        self.current = Shape(re.compile(rb"(?!)"), True)

    def other(self, line: bytes, around: Sequence[bytes]) -> tuple[bytes, re.Match[bytes]]:
        """Return a line that may be the product's and has another heading than the current one, and its match.

        around: the lines around it. A line in JSON is returned as text. Raises ValueError if its heading is not understood.
        """
        if line.startswith(b"{"):
            line = _text_of(line)
        for shape in self._known:
            match = shape.pattern.match(line)
            if match:
                self.current = shape
                return line, match
        learned = self._learn(line, around)
        match = learned.pattern.match(line) if learned else None
        if learned is None or match is None:
            raise ValueError
        self._known.append(learned)
        self.current = learned
        return line, match

    def _learn(self, line: bytes, around: Sequence[bytes]) -> Optional[Shape]:
        if len(self._known) >= _MOST_SHAPES or self._tries >= 2 * _MOST_SHAPES:
            return None
        self._tries += 1
        at, hosts = 0, 0
        found: list[tuple[bytes, Any]] = []
        while len(found) <= _MOST_TOKENS:
            timed = bool(found) and isinstance(found[-1][1], int)
            for pattern, ending in self._endings:
                if (timed or not ending.needs_time) and pattern.match(line, at):
                    shape = _shape(found, ending)
                    return shape if _is_plain(found) or _is_usual(found, around) else None
            match, what = next(
                ((match, what) for pattern, what in _TOKENS if (match := pattern.match(line, at))), (None, None)
            )
            if not match:
                match = _HOST_TOKEN.match(line, at)
                hosts += 1
            if not match or hosts > _MOST_HOSTS:
                return None
            found.append((match.group(), what))
            at = match.end()
        return None


def _is_plain(tokens: Sequence[tuple[bytes, Any]]) -> bool:
    """Whether a program follows the first word that may be a host's name."""
    hosts = [at for at, (_text, what) in enumerate(tokens) if what is None]
    return not hosts or hosts == [len(tokens) - 1]


def _is_usual(tokens: Sequence[tuple[bytes, Any]], around: Sequence[bytes]) -> bool:
    """Whether half of the lines, of any program, begin like this. Else the last word is a program that speaks of another one."""
    pattern = _shape(tokens, Ending(_ANY_PROGRAM), _HOST).pattern
    looked = around[:_MOST_AROUND]
    return 2 * sum(bool(pattern.match(line)) for line in looked) >= len(looked)


def _shape(tokens: Sequence[tuple[bytes, Any]], ending: Ending, host: bytes = rb"[^ ]{1,255}") -> Shape:
    """Return the shape of these words. The last time counts, or the last that says its zone. The host is the last one."""
    times = [at for at, (_text, what) in enumerate(tokens) if isinstance(what, int)]
    zoned = [at for at in times if _TIMES[tokens[at][1]][3]]
    time_at = (zoned or times or [-1])[-1]
    host_at = max((at for at, (_text, what) in enumerate(tokens) if what is None), default=-1)
    if time_at > host_at:
        host_at = -1
    parts = [] if time_at >= 0 else [b"()"]
    for at, (text, what) in enumerate(tokens):
        if isinstance(what, int):
            before, core, behind, _zoned = _TIMES[what]
            fast = next((fast for usual, fast in _FAST if usual.fullmatch(text)), None)
            before, core = (before, core) if fast is None else (b"", fast)
            parts.append(before + (b"(" + core + b")" if at == time_at else core) + behind)
            if at == time_at and host_at < 0:
                parts.append(b"()")
        elif what is None:
            parts.append(b"(" + host + b") " if at == host_at else host + b" ")
        else:
            parts.append(what)
    if time_at < 0 and host_at < 0:
        parts.append(b"()")
    return Shape(re.compile(b"".join(parts) + ending.pattern), time_at >= 0)


def times_repeated(line: bytes) -> int:
    """How often a line says that the one before it was repeated; 0 if it does not."""
    match = _LAST_REPEATED.search(line[-64:])
    return min(int(match.group(1)), MOST_REPEATED) if match else 0


def unpacked(line: bytes, begin: int) -> list[bytes]:
    """Return the lines that C(message repeated) stands for, if it is that. begin: where the daemon's text begins."""
    match = REPEATED.match(line, begin)
    if not match or not line.endswith(b"]"):
        return []
    text = line[match.end() : -1]
    if REPEATED.match(text):
        return []
    return [line[:begin] + text] * min(int(match.group(1)), MOST_REPEATED)


def _text_of(line: bytes) -> bytes:
    """Return an entry in JSON as a line with time, host, program and text. Raises ValueError if it is none."""
    if len(line) > _MOST_JSON:
        raise ValueError
    try:
        entry = json.loads(line)
    except RecursionError:
        raise ValueError from None
    if not isinstance(entry, dict):
        raise ValueError
    stamp, host, program, process, text = (
        _first(entry, names) for names in (_JSON_TIME, _JSON_HOST, _JSON_PROGRAM, _JSON_PROCESS, _JSON_TEXT)
    )
    if stamp.isdigit() and len(stamp) > 13:  # the journal's microseconds
        stamp = f"{stamp[:-6]}.{stamp[-6:]}"
    elif stamp.isdigit():
        stamp = f"{stamp[:-3]}.{stamp[-3:]}" if len(stamp) > 11 else f"{stamp}.0"
    if program and "[" not in program:
        program = f"{program}[{process or 0}]"
    words = [stamp, host.partition(" ")[0], program and program.rstrip(": ") + ":", text.lstrip(" ").rstrip("\r\n")]
    return " ".join(filter(None, words)).replace("\n", " ").encode("utf-8", "replace")[:LOG_LINE_BYTES]


def _first(entry: Mapping[str, Any], names: Iterable[str]) -> str:
    for name in names:
        value = entry.get(name)
        if isinstance(value, (str, int, float)) and value != "":
            return str(value)
    return ""


_SKELETON = bytes.maketrans(
    b"bcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ123456789", b"a" * 51 + b"0" * 9
)  # fmt: skip
_RUN = re.compile(rb"([a0])\1+")


class Skipped:
    """Lines that were not understood: their number, and the most frequent shapes with a sample of each."""

    def __init__(self) -> None:
        self.count = 0
        self._shapes: dict[bytes, tuple[int, bytes]] = {}

    def add(self, text: bytes, times: int = 1) -> None:
        """Count a line."""
        self.count += times
        shape = _RUN.sub(rb"\1", text[:100].translate(_SKELETON))[:40]
        if shape not in self._shapes and len(self._shapes) >= _MOST_SHAPES:
            shape = b""
        count, sample = self._shapes.get(shape, (0, text[:300]))
        self._shapes[shape] = (count + times, sample)

    def notes(self, lines: int) -> list[Note]:
        """Return a note if they are more than one in a hundred of these lines."""
        if self.count * 100 <= lines or not self.count:
            return []
        share = round(self.count * 100 / max(lines, self.count))
        ranked = sorted(self._shapes.values(), key=lambda one: -one[0])[:3]
        samples = "; ".join(f"{count} like: {detail_of(sample)}" for count, sample in ranked)
        return [
            Note(
                "lines_not_read",
                "",
                f"{self.count} of {max(lines, self.count)} lines of mail ({share} %) are not understood, so the counts are not "
                f"whole: {samples}",
            )
        ]
