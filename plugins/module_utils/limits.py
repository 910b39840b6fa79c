# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every limit for what strangers send, each with one name and a reason, and the values that loops ask.

A limit's last word is its unit: BYTES, SECONDS, DEPTH, or what is counted. An input needs a limit of its own, and the
whole call needs one too: many small inputs are as bad as a large one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Callable, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

Seconds = Callable[[], float]
"""Returns seconds that never go back."""


class ExhaustedError(EngineError):
    """An input needs more than its limit allows.

    what: names the input. unit: C(bytes), C(seconds) or what is counted. limit: the most that is allowed. budget: the
    Budget or Deadline that is exhausted, so that a caller can tell one input from the whole call.
    """

    def __init__(self, what: str, unit: str, limit: float, budget: object = None) -> None:
        super().__init__(
            f"{what} needs more than {limit:g} {unit}" if limit < 1e6 else f"{what} needs more than {limit:,.0f} {unit}"
        )
        self.what = what
        self.unit = unit
        self.limit = limit
        self.budget = budget


class Deadline:
    """A moment by which a whole action has to end. Loops ask it in each round."""

    def __init__(self, what: str, seconds: float, clock: Seconds = time.monotonic) -> None:
        """Begin now. what: names the action in the error."""
        self._what = what
        self._seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """The seconds that are left, 0 or more."""
        return max(0.0, self._end - self._clock())

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._clock() >= self._end

    def look(self) -> None:
        """Raise ExhaustedError if the time is up."""
        if self.is_over:
            raise ExhaustedError(self._what, "seconds", self._seconds, self)


class Budget:
    """What one input or one call may use: counted units, and seconds. It may be a part of a larger budget."""

    def __init__(
        self,
        what: str,
        most: Mapping[str, int],
        seconds: Optional[float] = None,
        within: Optional[Budget] = None,
        clock: Seconds = time.monotonic,
    ) -> None:
        """Begin now. what: names the input in the error. most: unit -> how many. within: pays for everything as well."""
        self._what = what
        self._most = dict(most)
        self._spent = dict.fromkeys(self._most, 0)
        self._within = within
        self._seconds = seconds
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds

    def spend(self, count: int = 1, unit: str = "bytes") -> None:
        """Use that many units, and look at the time. Raises ExhaustedError. A unit without a limit is free."""
        if unit in self._most:
            self._spent[unit] += count
            if self._spent[unit] > self._most[unit]:
                raise ExhaustedError(self._what, unit, self._most[unit], self)
        if self._within is not None:
            self._within.spend(count, unit)
        self._look()

    def look(self) -> None:
        """Raise ExhaustedError if the time is up."""
        if self._within is not None:
            self._within.look()
        self._look()

    def left(self, unit: str = "bytes") -> int:
        """Return how many units are left, here and in the budgets around it. Raises KeyError if nobody limits the unit."""
        here = [self._most[unit] - self._spent[unit]] if unit in self._most else []
        around = [self._within.left(unit)] if self._within is not None and self._within.limits(unit) else []
        if not here and not around:
            raise KeyError(unit)
        return max(0, min(here + around))

    def limits(self, unit: str) -> bool:
        """Whether this budget, or one around it, limits the unit."""
        return unit in self._most or (self._within is not None and self._within.limits(unit))

    def _look(self) -> None:
        if self._end is not None and self._clock() >= self._end:
            raise ExhaustedError(self._what, "seconds", self._seconds or 0, self)


# --- numbers in texts of strangers ---------------------------------------------------------------------------------------

NUMBER_DIGITS = 18
"""Digits of a whole number. All counts and times fit; int() of thousands of digits is quadratic, or raises ValueError."""


def whole_number(digits: str) -> int:
    """Return the number, for C(json.loads(parse_int=...)) and readers of texts. Raises ValueError if it is too long or none."""
    if len(digits) > NUMBER_DIGITS + 1:  # a sign
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


MAX_COUNT = 2**53 - 1
"""The largest number of a report. Every reader of JSON knows it exactly."""

# --- certificates on a host -------------------------------------------------------------------------------------------------

ROOTS_BYTES = 8 << 20
"""A file with roots. That of a system has a quarter of a megabyte."""

# --- mailboxes that are searched for a marked message ----------------------------------------------------------------------

MAILBOX_HEADER_BYTES = 256 << 10
"""The headers of one message. Mail servers take 100 KiB or less; a message with more is not one of ours."""
MAILBOX_LOOK_BYTES = 64 << 20
"""One look: the headers in a Maildir, or the end of an mbox. The next look into a Maildir goes on where this one ended."""
MAILBOX_FILES = 5_000
"""The newest files of one folder of a Maildir. A marked message is new."""
MAILBOX_FOLDERS = 200
"""Folders of a Maildir."""
MAILBOX_MESSAGES = 100_000
"""Files of all folders together. Their names are kept, so that no file is read twice."""
MAILBOX_LOCK_SECONDS = 10.0
"""How long to wait for the locks of an mbox."""

# --- files with the number of a process ------------------------------------------------------------------------------------

PID_FILE_BYTES = 64
"""A number and a line end; Postfix fills it up with blanks."""
# --- the session with a server -------------------------------------------------------------------------------------------

MAX_REPLY_LINE = 4096
"""Bytes of one line of a reply. RFC 5321 allows 512."""
MAX_LINES = 256
"""Lines of one reply. A long EHLO has 20."""
MAX_REPLY = 65536
"""Bytes of one reply."""
MAX_ANSWERS = 8
"""Answers after which the check for injected commands gives up. There are two commands."""
MAX_FLIGHT = 131072
"""Bytes of records of a server's first flight. OpenSSL allows 100 KiB of certificates."""
MAX_CERTIFICATES = 64
"""Certificates of one chain. Real ones have up to five."""
MAX_FLEET_LOCK_BYTES = 4096
"""Of the note in the lock of the fleet: a few short texts."""

MAX_TLS_BYTES = 1 << 19
"""Bytes of TLS of one connection: the flight, and what follows."""
ENVELOPE_REPLY_CHARS = 500
"""One answer that a proof shows, with all its lines. Those of Exchange have some 200."""
MAX_FIRST_FLIGHT = 1 << 17
"""Bytes of the first flight that are kept to find the group of the key exchange."""

# --- MTA-STS policies ------------------------------------------------------------------------------------------------------

POLICY_BYTES = 65536
"""One policy. RFC 8461, section 3.3, suggests this limit."""
POLICY_HEAD_BYTES = 16384
"""The head of the HTTP answer."""
POLICY_ADDRESSES = 4
"""Addresses of a policy host that are tried. All share the seconds of the module's option timeout."""

# --- a former report of our own --------------------------------------------------------------------------------------------

PREVIOUS_REPORT_BYTES = 256 << 20
"""Its JSON. 400 hosts with 2,000 peers each are 200 MiB."""

# --- received TLS reports (RFC 8460) ---------------------------------------------------------------------------------------

TLS_REPORT_FILE_BYTES = 8 << 20
"""One file: a report or a mail. The largest real reports have some hundred kilobytes before they are compressed."""
TLS_REPORT_BYTES = 8 << 20
"""One report, inflated."""
TLS_REPORT_FILE_TOTAL_BYTES = TLS_REPORT_FILE_BYTES + TLS_REPORT_BYTES
"""One file and all that is inflated from it."""
TLS_REPORT_MEMBERS = 16
"""Members of one gzip file. A real one has one. Each copies the rest of the file, so many small ones take quadratic time."""
TLS_REPORT_RUN_BYTES = 128 << 20
"""All files of a call, as stored and inflated. A year of daily reports of 50 senders has some 20 MiB."""
TLS_REPORT_HEADER_BYTES = 2 << 10
"""One header field with the type or name of a part. Python needs quadratic time for its parameters; 2 KiB take 2 ms."""
TLS_REPORT_LINES = 200_000
"""Lines of one mail. Python's parser keeps each, or makes a message of it; 8 MiB in base64 have 110,000."""
TLS_REPORT_PARTS = 100
"""Parts of one mail. A real one has two or three. The parser compares each line with the boundaries of all parts around it."""
TLS_REPORT_POLICIES = 1_000
"""Policies in one report: one for each domain and kind of policy."""
TLS_REPORT_RUN_POLICIES = 50_000
"""Policies in all files of a call. Each is an entry of the report document."""
TLS_REPORT_DETAILS = 20_000
"""Failure details in one report. They are added up by result type, so this limits only the work."""
TLS_REPORT_RUN_DETAILS = 200_000
"""Failure details in all files of a call."""
TLS_REPORT_FILE_SECONDS = 10.0
"""One file. The largest that the other limits allow takes a second."""
TLS_REPORT_RUN_SECONDS = 120.0
"""All files of a call: longer than any honest directory needs, short enough for a report every quarter of an hour."""
TLS_REPORT_PROBLEMS = 50
"""Faults of reports that are told as warnings. Of the others only the number is told."""
TLS_REPORT_ALERTS = 100
"""Alerts from reports, one for each own domain and kind of failure. Beyond that, there is one for each own domain."""

# --- logs ------------------------------------------------------------------------------------------------------------------

LOG_LINE_BYTES = 16 << 10
"""One line; of a longer one only the beginning is read. Syslog daemons cut lines at 8 KiB or less."""
LOG_XZ_BYTES = 68 << 20
"""Memory for the reading of an xz file. xz -9 needs 65 MiB; a header may ask for 4 GiB. gzip needs 32 KiB, bzip2 4 MiB."""

LOG_DIRECTORY_FILES = 10_000
"""Files below one directory of logs: a year of daily files of 27 hosts."""
LOG_PIPE_SECONDS = 60.0
"""The wait for a pipe's next data."""
FORECAST_BYTES = 32 << 20
"""The newest part of a log, in which a plan looks for old TLS versions: some 200,000 lines."""
FORECAST_LINES = 200_000
"""The same of the journal."""
FORECAST_SECONDS = 5.0
"""The same in time: each host of a plan waits for it."""
LOG_RUN_SECONDS = 1800.0
"""All sources of a count. Some 40 MB are read a second, so 70 GB; a compressed file of 1 MB may hold 1 GB and more."""

# --- what a host returns ---------------------------------------------------------------------------------------------------

PACKED_TARGET_BYTES = 64 << 10
"""Packed results, inflated, for each target on average. One with a chain of three certificates has some 8 KiB."""
PACKED_BYTES = 256 << 20
"""Packed results, inflated, of all targets of a call: some 30,000 targets."""

# --- answers of gateways that have an API ----------------------------------------------------------------------------------

API_ANSWER_BYTES = 16 << 20
"""One answer. A list of 50,000 domains has some 5 MiB. The seconds for a request are the module's option timeout."""

# --- the queues of mail servers and gateways -------------------------------------------------------------------------------

QUEUE_SECONDS = 300
"""How long a route that is taken out waits for its queue: the default of queue_timeout. Postfix tries again after 300 s."""
QUEUE_NAMED_MESSAGES = 10
"""Messages that a refusal names. Of the others only the number is told."""
QUEUE_REASON_CHARS = 400
"""One message in a refusal, with the words of the daemon."""
QUEUE_FILE_HEAD_BYTES = 1 << 20
"""The envelope at the beginning of a queue file of Haraka. Each recipient has some 200 bytes."""
QUEUE_PAGE_MESSAGES = 5_000
"""Recipients in one answer of an API. With their reasons they have some 2 MiB."""
QUEUE_MESSAGES = 20_000
"""Messages of one queue that is listed. With their reasons they have some 10 MiB; a longer queue is "could not look"."""
QUEUE_LISTED_MESSAGES = 1_000
"""Messages that a module returns, those that wait for want of TLS first. Of the others only the number is told."""
QUEUE_LOGS = 2_000
"""Message logs of an Exim that are read, each by a program of its own. Some 100 are read a second."""
QUEUE_ROUTES = 50
"""Recipient domains whose next hop a daemon is asked for."""
QUEUE_CAUSE_CHARS = 2_000
"""The beginning of a reason in which its cause is looked for. Python needs quadratic time for some replies; 2,000 take 5 ms."""
QUEUE_ADDRESS_CHARS = 320
"""An address or a host name, as it is shown. RFC 5321 allows 64 and 255 characters beside the @."""
QUEUE_RETRY_RECORDS = 10_000
"""Retry records of an Exim: one for each host, address or message that failed."""
QUEUE_SHOWN_MESSAGES = 20
"""Rows of a host in a table of mail that waits. Of the others only the number is told."""
DOMAIN_LIST_BYTES = 16 << 20
"""Of a file of recipient domains that a setting of Postfix names."""
RECENT_LOG_BYTES = 4 << 20
"""The end of a log in which a message of this run is looked for: some 20,000 lines."""
RECENT_LOG_LINES = 20_000
"""The same of the journal."""
