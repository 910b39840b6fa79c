# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives many sessions over sockets at once: name resolution, connections and time limits. Contains no TLS and no SMTP.

A session is the sans-IO half of one connection. A task is a generator for one target: it yields one session
after the other and receives an Ended value for each. The driver uses epoll directly: a full handshake test
has about eight events, and asyncio's transports, futures and tasks would take a quarter of its time.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import heapq
import os
import queue
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol, TypeVar

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Dialogue, DialogueError, Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target, is_address

_CHUNK = 32768
MAX_ADDRESSES = 8
MAX_STARTS = 32
"""Connections to start before the driver handles the events of the open ones."""
MAX_HANDSHAKES = 64
MAX_WAIT = 1.0
"""TLS needs most of the memory. So while MAX_HANDSHAKES handshakes run, further connections wait before their handshake,
for at most MAX_WAIT seconds: slow servers must not delay the other ones."""
MAX_RESOLVERS = 128
SPARE_FILES = 64
"""File descriptors that a process needs besides its connections."""

_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)
_AGAIN = (BlockingIOError, InterruptedError)
# The packets do not leave the testing host, or no router knows the way.
_NO_ROUTE = frozenset(
    {
        errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM,
    }
)  # fmt: skip

# Stage -> the key in Handshake.timings for the time until that stage.
_TIMINGS = {
    Stage.GREETING: "greeting",
    Stage.EHLO: "ehlo",
    Stage.STARTTLS_ADVERTISED: "ehlo",
    Stage.STARTTLS_ANSWERED: "starttls",
    Stage.TLS: "tls",
    Stage.EHLO_TLS: "ehlo_tls",
}
NAME_SECONDS = 2.0
"""How long the name service may take for the own name."""


def own_name() -> str:
    """Return the full name of this host for EHLO; empty if it has none. Many servers refuse a name without a dot (504)."""
    name = socket.gethostname()
    name = name if "." in name else _looked_up(name)
    return name if "." in name.strip(".") and not name.startswith("localhost.") else ""


@functools.lru_cache(maxsize=8)
def _looked_up(name: str) -> str:
    """Return the full name that the name service has for a short one. A name service that does not answer is not waited for."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(socket.getfqdn(name)), daemon=True)
    thread.start()
    thread.join(NAME_SECONDS)
    return found[0] if found else ""


def address_literal(sock: socket.socket) -> str:
    """Return the own address of a connection in the form that EHLO takes in place of a name (RFC 5321, 4.1.3)."""
    try:
        address = str(sock.getsockname()[0]).partition("%")[0]
    except (OSError, IndexError):
        return ""
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


class Session(Protocol):
    """The protocol side of one connection: bytes in, bytes out, until finished is true or a DialogueError is raised."""

    dialogue: Dialogue
    finished: bool

    def receive(self, data: bytes) -> bytes:
        """Process received bytes and return the bytes to send."""


@dataclass(frozen=True)
class Ended:
    """The end of a connection. error: None if its session finished. timings: seconds by stage."""

    seconds: float
    error: Optional[DialogueError] = None
    timings: dict[str, float] = field(default_factory=dict)


T = TypeVar("T")
Task = Generator[Session, Ended, T]
Address = tuple[int, Any]  # family, socket address


@dataclass(frozen=True)
class Limits:
    """The limits of a call.

    timeout: seconds for each stage. total_timeout: seconds for all connections to one target together.
    concurrency: the number of targets at the same time.
    """

    timeout: float = 15.0
    total_timeout: float = 60.0
    concurrency: int = 200


@dataclass(eq=False)
class _Job:
    """A target whose task is running."""

    index: int
    target: Target
    task: Task[Any]
    deadline: float
    addresses: Sequence[Address] = ()


class _Connection:
    """The socket of one session, and the data for its time limits."""

    __slots__ = (
        "counted", "due", "job", "left", "marks", "output", "session", "socket", "stage", "stage_since", "started",
    )  # fmt: skip

    def __init__(self, job: _Job, session: Session, now: float) -> None:
        self.job = job
        self.session = session
        self.started = self.stage_since = now
        self.due = 0.0
        self.left: list[Address] = []
        self.socket: Optional[socket.socket] = None
        self.stage: Optional[Stage] = None
        self.marks: dict[str, float] = {}
        self.output = b""
        self.counted = False


def drive(
    tasks: Iterable[tuple[Target, Task[T]]],
    limits: Limits,
    deliver: Callable[[int, T], None],
) -> None:
    """Run every task to its end, at most limits.concurrency at a time.

    deliver: called with the index and the result of each task, in the order in which the tasks end.
    A fault of a peer never raises; the session of the task receives it as Ended.error.
    """
    driver = _Driver(limits, deliver)
    try:
        driver.run(tasks)
    finally:
        driver.close()


class _Driver:
    def __init__(self, limits: Limits, deliver: Callable[[int, Any], None]) -> None:
        self._limits = limits
        self._deliver = deliver
        self._poller = _poller()
        self._resolver: Optional[_Resolver] = None
        self._open: dict[int, _Connection] = {}
        self._resolving: set[_Connection] = set()
        self._timers: list[tuple[float, int, _Connection]] = []
        self._parked: deque[tuple[float, _Connection]] = deque()
        self._handshakes = 0
        self._chunk = memoryview(bytearray(_CHUNK))  # shared: many large buffers would fragment the heap
        self._ticket = 0
        self._busy = 0

    def close(self) -> None:
        for connection in self._open.values():
            if connection.socket:
                connection.socket.close()
        if self._resolver:
            self._resolver.close()
        if hasattr(self._poller, "close"):
            self._poller.close()

    def run(self, tasks: Iterable[tuple[Target, Task[Any]]]) -> None:
        waiting = iter(enumerate(tasks))
        more = True
        while more or self._busy:
            for _ in range(min(self._room(), MAX_STARTS)):
                following = next(waiting, None)
                if following is None:
                    more = False
                    break
                index, (target, task) = following
                self._busy += 1
                self._advance(_Job(index, target, task, time.monotonic() + self._limits.total_timeout), None)
            if self._busy:
                self._wait(0.0 if more and self._room() > 0 else 60.0)

    def _room(self) -> int:
        """Return how many more targets may start now. A look-up that waits for a thread would use up its time limit."""
        if self._parked:
            return 0
        return min(max(1, self._limits.concurrency) - self._busy, MAX_RESOLVERS - len(self._resolving))

    def _wait(self, pause: float) -> None:
        if pause and self._timers:
            pause = max(0.0, self._timers[0][0] - time.monotonic())
        if self._parked:
            pause = min(pause, MAX_WAIT)
        events = self._poller.poll(pause)
        now = time.monotonic()  # taken once: the time for handling the events must not count against a server
        for number, event in events:
            connection = self._open.get(number)
            if connection is not None:
                self._on_event(connection, event)
            elif self._resolver and number == self._resolver.fileno():
                for resolved, found in self._resolver.answers():
                    self._on_resolved(resolved, found)
        while self._parked and (self._handshakes < MAX_HANDSHAKES or self._parked[0][0] + MAX_WAIT <= now):
            since, parked = self._parked.popleft()
            if parked.socket and not parked.counted:
                parked.stage_since += now - since  # the server did not cause this wait
                parked.due = min(now + self._limits.timeout, parked.job.deadline)
                parked.counted = True  # counted here, because this loop may start several handshakes
                self._handshakes += 1
                self._poller.modify(parked.socket.fileno(), select.POLLIN)
        while self._timers and self._timers[0][0] <= now:
            _due, _ticket, late = heapq.heappop(self._timers)
            if late.due > now:  # its deadline has moved since the timer was set
                self._set_timer(late)
            elif late.due:
                self._too_late(late, now)

    # Tasks

    def _advance(self, job: _Job, ended: Optional[Ended]) -> None:
        """Continue the task, then connect for its next session or deliver its result."""
        while True:
            try:
                session = next(job.task) if ended is None else job.task.send(ended)
            except StopIteration as stopped:
                self._busy -= 1
                self._deliver(job.index, stopped.value)
                return
            now = time.monotonic()
            if now < job.deadline:
                self._connect(_Connection(job, session, now))
                return
            ended = Ended(0.0, self._no_end())

    def _end(self, connection: _Connection, error: Optional[DialogueError]) -> None:
        if connection.socket:
            self._release(connection.socket)
        connection.socket = None
        connection.due = 0.0
        if connection.counted:
            self._handshakes -= 1
        self._resolving.discard(connection)
        job = connection.job
        seconds = time.monotonic() - connection.started
        ended = Ended(seconds, error.with_traceback(None) if error else None, connection.marks)
        del connection.job, connection.session  # free them now: a timer may still hold the connection
        self._advance(job, ended)

    def _release(self, sock: socket.socket) -> None:
        self._open.pop(sock.fileno(), None)
        self._poller.unregister(sock.fileno())
        sock.close()

    # Time

    def _set_timer(self, connection: _Connection) -> None:
        if len(self._timers) > 2 * self._busy + 64:  # most of them belong to closed connections
            self._timers = [timer for timer in self._timers if timer[2].due]
            heapq.heapify(self._timers)
        self._ticket += 1
        heapq.heappush(self._timers, (connection.due, self._ticket, connection))

    def _too_late(self, connection: _Connection, now: float) -> None:
        looks_up = connection in self._resolving
        if now >= connection.job.deadline and not looks_up:
            self._end(connection, self._no_end())
        elif connection.stage is not None:
            where = connection.stage.label
            self._end(connection, DialogueError("timeout", f"no progress for {self._limits.timeout:g} s after {where}"))
        elif connection.left and connection.socket:
            self._release(connection.socket)
            connection.socket = None
            connection.due = 0.0  # its timer has expired, the next address needs a new one
            self._try_next_address(connection)
        elif looks_up:  # whichever limit ended it
            waited = round(connection.due - connection.started, 1)
            self._end(connection, DialogueError("name_not_resolved", f"no address found within {waited:g} s"))
        else:
            self._end(connection, DialogueError("timeout", f"no connection within {self._limits.timeout:g} s"))

    def _no_end(self) -> DialogueError:
        return DialogueError("timeout", f"no end within {self._limits.total_timeout:g} s")

    # Connecting

    def _connect(self, connection: _Connection) -> None:
        job = connection.job
        job.addresses = job.addresses or _literal(job.target)
        if job.addresses:
            connection.left = list(job.addresses)
            self._try_next_address(connection)
            return
        if self._resolver is None:
            self._resolver = _Resolver()
            self._poller.register(self._resolver.fileno(), select.POLLIN)
        connection.due = min(connection.started + self._limits.timeout, job.deadline)
        self._set_timer(connection)
        self._resolving.add(connection)
        self._resolver.ask(connection, job.target.host.rstrip("."), job.target.port)

    def _on_resolved(self, connection: _Connection, found: Sequence[Address] | Exception) -> None:
        if connection not in self._resolving:
            return  # the answer came too late
        self._resolving.discard(connection)
        if isinstance(found, Exception):
            self._fail(connection, found)
            return
        connection.job.addresses = found
        connection.left = list(found)
        self._try_next_address(connection)

    def _try_next_address(self, connection: _Connection) -> None:
        """Connect to the next address. The remaining time is shared among the remaining addresses."""
        error: Exception = socket.gaierror(socket.EAI_NONAME, "it has no address")
        limit = connection.started + self._limits.timeout
        while connection.left:
            family, address = connection.left.pop(0)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0))
            except OSError as caught:
                error = caught
                continue
            sock.setblocking(False)
            code = sock.connect_ex(address)
            if code not in _IN_PROGRESS:
                sock.close()
                error = OSError(code, os.strerror(code))
                continue
            now = time.monotonic()
            earlier = now + (limit - now) / (len(connection.left) + 1)
            due = min(earlier, connection.job.deadline)
            if not connection.due or due < connection.due:
                connection.due = due
                self._set_timer(connection)
            connection.due = due
            connection.socket = sock
            connection.job.addresses = ((family, address), *connection.left)
            self._open[sock.fileno()] = connection
            self._poller.register(sock.fileno(), select.POLLOUT)
            return
        self._fail(connection, error)

    def _fail(self, connection: _Connection, error: Exception) -> None:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        self._end(connection, DialogueError(_code_of(error), f"cannot connect to {connection.job.target}: {reason}"))

    # Connections

    def _on_event(self, connection: _Connection, event: int) -> None:
        sock = connection.socket
        if sock is None:
            return
        if connection.stage is None:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._release(sock)
                connection.socket = None
                if connection.left:
                    self._try_next_address(connection)
                else:
                    self._fail(connection, OSError(code, os.strerror(code)))
                return
            self._poller.modify(sock.fileno(), select.POLLIN)
            dialogue = connection.session.dialogue
            dialogue.helo_name = dialogue.helo_name or address_literal(sock)
            self._reached(connection, Stage.CONNECT, "connect")
            if dialogue.wants_tls:  # with TLS from the start, the client speaks first
                self._feed(connection, sock, b"")
            return
        if event & select.POLLOUT and connection.output:
            self._send(connection, sock, b"")
        if event & ~select.POLLOUT:
            if connection.stage is Stage.STARTTLS_ADVERTISED and not connection.counted:
                if self._handshakes >= MAX_HANDSHAKES and not event & (select.POLLHUP | select.POLLERR):
                    self._poller.modify(sock.fileno(), 0)
                    self._parked.append((time.monotonic(), connection))
                    return
                connection.counted = True
                self._handshakes += 1
            try:
                size = sock.recv_into(self._chunk)
            except _AGAIN:
                return
            except OSError as error:
                self._closed(connection, f": {error.strerror or error}")
                return
            if size:
                self._feed(connection, sock, bytes(self._chunk[:size]))
            else:
                self._closed(connection, "")

    def _feed(self, connection: _Connection, sock: socket.socket, data: bytes) -> None:
        session = connection.session
        try:
            output = session.receive(data)
        except DialogueError as error:
            if error.code in ("starttls_not_offered", "starttls_refused"):
                self._send(connection, sock, b"QUIT\r\n")
            self._reached(connection, session.dialogue.stage)
            self._end(connection, error)
            return
        if output:
            self._send(connection, sock, output)
        if second := getattr(session, "second_segment", b""):
            session.second_segment = b""  # type: ignore[attr-defined]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._send(connection, sock, second)
        if session.dialogue.stage is not connection.stage:
            self._reached(connection, session.dialogue.stage)
        if session.finished:
            self._end(connection, None)

    def _closed(self, connection: _Connection, why: str) -> None:
        where = connection.session.dialogue.stage.label
        self._end(
            connection, DialogueError("connection_closed", f"the server closed the connection after {where}{why}")
        )

    def _send(self, connection: _Connection, sock: socket.socket, data: bytes) -> None:
        data = connection.output + data
        try:
            sent = sock.send(data)
        except _AGAIN:
            sent = 0
        except OSError:
            sent = len(data)  # drop the output: bytes that the server sent before it closed are still read
        had, connection.output = connection.output, data[sent:]
        if bool(had) != bool(connection.output):
            self._poller.modify(sock.fileno(), select.POLLIN | (select.POLLOUT if connection.output else 0))

    def _reached(self, connection: _Connection, stage: Stage, name: str = "") -> None:
        now = time.monotonic()
        name = name or _TIMINGS.get(stage, "")
        if stage is not connection.stage and name and name not in connection.marks:
            connection.marks[name] = now - connection.stage_since
            connection.stage_since = now
        connection.stage = stage
        # The deadline never becomes earlier, so the existing timer is enough: it compares with due when it expires.
        connection.due = min(now + self._limits.timeout, connection.job.deadline)


def _literal(target: Target) -> Sequence[Address]:
    """Return the address if the target's host is an IP address, nothing for a host name or an IPv6 zone."""
    if not is_address(target.host) or "%" in target.host:
        return ()
    if ":" in target.host:
        return ((socket.AF_INET6, (target.host, target.port, 0, 0)),)
    return ((socket.AF_INET, (target.host, target.port)),)


class _Resolver:
    """Looks names up in threads: one thread for each open question, up to MAX_RESOLVERS.

    The threads are daemon threads: a look-up cannot be cancelled, and a late answer is ignored.
    """

    def __init__(self) -> None:
        self._questions: queue.SimpleQueue[Optional[tuple[Any, str, int]]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, Sequence[Address] | Exception]] = queue.SimpleQueue()
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._threads = 0
        self._asked = 0

    def fileno(self) -> int:
        """Return a file descriptor that becomes readable when there are answers."""
        return self._bell.fileno()

    def ask(self, what: object, host: str, port: int) -> None:
        """Look the host up. answers() returns the object C(what) together with the answer."""
        self._questions.put((what, host, port))
        self._asked += 1
        if self._asked > self._threads and self._threads < MAX_RESOLVERS:
            try:
                threading.Thread(target=self._work, daemon=True).start()
                self._threads += 1
            except RuntimeError:  # no more threads: an existing thread answers, or this one if there is none
                if not self._threads and (question := self._questions.get()):
                    self._answer(*question)

    def answers(self) -> list[tuple[Any, Sequence[Address] | Exception]]:
        """Return the answers since the last call."""
        try:
            self._bell.recv(4096)
        except _AGAIN:
            return []
        found = []
        while not self._answers.empty():
            found.append(self._answers.get())
        self._asked -= len(found)
        return found

    def close(self) -> None:
        """Tell the threads to end after their current look-up."""
        for _ in range(self._threads):
            self._questions.put(None)
        self._bell.close()
        self._rope.close()

    def _work(self) -> None:
        while True:
            question = self._questions.get()
            if question is None:
                return
            self._answer(*question)

    def _answer(self, what: object, host: str, port: int) -> None:
        found: Sequence[Address] | Exception
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = tuple(dict.fromkeys((family, address) for family, _, _, _, address in rows))[:MAX_ADDRESSES]
        except (OSError, UnicodeError) as error:
            found = error
        self._answers.put((what, found))
        with contextlib.suppress(OSError):  # the socket is closed, or full and therefore readable already
            self._rope.send(b"!")


def _code_of(error: Exception) -> str:
    """Return the code of a test that made no connection: its name was not found, there is no route, or the server does not take it."""
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "name_not_resolved"
    return "no_route" if isinstance(error, OSError) and error.errno in _NO_ROUTE else "connect_failed"


class _Poll:
    """poll(2) with the interface of epoll(7), for systems without epoll."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register, self.modify, self.unregister = self._poll.register, self._poll.modify, self._poll.unregister

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """Return the ready file descriptors and their events."""
        return self._poll.poll(seconds * 1000 + 1)


def _poller() -> Any:
    return select.epoll() if hasattr(select, "epoll") else _Poll()  # their event bits are the same
