"""The listeners, and what happens when state.json is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from functools import partial
from pathlib import Path
from typing import Any, Optional

from .sending import Sender, append
from .session import NOT_AVAILABLE, Accepted, Session
from .state import State, StateError

log = logging.getLogger("exchange")

LOOK_EVERY = 0.1
"""Seconds between two looks at the file's time."""


class _Unavailable(asyncio.Protocol):
    """For a state that cannot be read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(f"{NOT_AVAILABLE}\r\n".encode())
        transport.close()


class StandIn:
    """Listens where the receive connectors say, from start() to stop()."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "state.json"
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._listeners: dict[tuple[str, int], asyncio.Server] = {}
        self._sender: Optional[Sender] = None
        self._watch: Optional[asyncio.Task[None]] = None
        self._token: Any = None

    def load(self) -> State:
        """The state as it is now. Raises StateError."""
        return State.load(self.file)

    async def start(self) -> None:
        """Begin to listen and to send. Raises StateError."""
        self._token = self.load().data.get("RetryQueue")
        self._sender = Sender(self.directory, self.load)
        await self._listen()
        self._watch = asyncio.get_running_loop().create_task(self._look())

    async def stop(self) -> None:
        """End; connections are cut."""
        if self._watch:
            self._watch.cancel()
        for listener in self._listeners.values():
            listener.close()
        for session in list(self._sessions):
            # Python 3.11.2 cannot abort what was closed twice, as aiosmtpd does.
            if session.transport and not session.transport.is_closing():
                session.transport.abort()
        if self._sender:
            await asyncio.get_running_loop().run_in_executor(None, self._sender.end)

    async def _listen(self) -> None:
        wanted = self.load().bindings()
        for binding in set(self._listeners) - wanted:
            self._listeners.pop(binding).close()
        loop = asyncio.get_running_loop()
        for host, port in wanted - set(self._listeners):
            self._listeners[host, port] = await loop.create_server(partial(self._session, port), host, port)

    def _session(self, port: int) -> asyncio.BaseProtocol:
        try:
            session = Session(self.load(), port, self._take, asyncio.get_running_loop())
        except StateError as error:
            log.error("%s", error)
            return _Unavailable()
        self._sessions.add(session)
        return session

    def _take(self, accepted: Accepted) -> None:
        """Deliver to mailboxes, queue the rest. What no connector of the online one takes leaves for the internet: that ends here."""
        state = self.load()
        left = [one for one in accepted.elsewhere if state.online and not state.route(one.rpartition("@")[2].lower())]
        for recipients, relayed in ((accepted.mailboxes, False), (left, True)):
            if recipients:
                record = {
                    **accepted.facts,
                    "From": accepted.sender,
                    "Recipients": recipients,
                    "Relayed": relayed,
                    "Message": accepted.content.decode("latin-1"),
                }
                append(self.directory / "received.jsonl", record)
        accepted.elsewhere = [one for one in accepted.elsewhere if one not in left]
        if accepted.elsewhere and self._sender:
            self._sender.submit(accepted)

    async def _look(self) -> None:
        """Follow the file: other bindings, a new value of RetryQueue."""
        seen = self._stamp()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            stamp = self._stamp()
            if stamp == seen:
                continue
            seen = stamp
            try:
                await self._listen()
                token = self.load().data.get("RetryQueue")
            except (StateError, OSError) as error:
                log.error("%s", error)
                continue
            if token != self._token and self._sender:
                self._token = token
                self._sender.retry()

    def _stamp(self) -> Any:
        with contextlib.suppress(OSError):
            status = self.file.stat()
            return status.st_ino, status.st_mtime_ns
        return None
