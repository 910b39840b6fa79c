# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds marked messages in the output of a command: one message, its headers, or several of them."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Collection, Sequence

from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import received_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

MARKER = "{marker}"
MAX_OUTPUT = 4 * 1024 * 1024
_SHOWN = 300
# Between two messages: an mbox's separator line, or the form feed of doveadm.
_NEXT_MESSAGE = re.compile(rb"(?:^|\n\r?\n)From [^\n]*\n|\f\r?\n?")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")


class CommandMailbox:
    """A mailbox (mailbox.Mailbox) that a command prints.

    The command runs without a shell; once for each marker if its arguments have a place for the marker.
    """

    interval = 1.0
    unread = ""

    def __init__(self, arguments: Sequence[str], seconds: float) -> None:
        """Prepare only. seconds: the time limit of each run. Raises EngineError if the command is empty."""
        if not arguments or not arguments[0]:
            raise EngineError("command is empty; give the program and its arguments as a list")
        self._arguments = list(arguments)
        self._seconds = seconds

    def look(self, markers: Collection[str]) -> dict[str, list[str]]:
        """Return marker -> Received headers. No output means that no message has arrived yet. Raises EngineError if it fails."""
        if not any(MARKER in argument for argument in self._arguments):
            return self._wanted(self._arguments, markers)
        found: dict[str, list[str]] = {}
        for marker in sorted(markers):
            found.update(self._wanted([one.replace(MARKER, marker) for one in self._arguments], [marker]))
        return found

    def delete(self, marker: str) -> None:
        """Not implemented: only the author of the command knows how. Raises EngineError."""
        raise EngineError("delete cannot be used with command; let the command itself remove the message")

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _wanted(self, arguments: Sequence[str], markers: Collection[str]) -> dict[str, list[str]]:
        status, out, err = run_bounded(arguments, self._seconds)
        if status != 0:
            how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
            raise EngineError(f"{arguments[0]} {how}: {_shown(err or out) or 'it said nothing'}")
        messages = (_HEADERS_END.split(text.lstrip(b"\r\n"), maxsplit=1)[0] for text in _NEXT_MESSAGE.split(out))
        return {marker: received for marker, received in map(received_of, messages) if marker in markers}


def run_bounded(arguments: Sequence[str], seconds: float) -> tuple[int, bytes, bytes]:
    """Run a program and return its exit status, standard output and standard error. The program gets no input.

    Raises EngineError if the program cannot be started, prints more than MAX_OUTPUT bytes to one of them, or does not end
    within these seconds. At the end, the program and all programs of its process group are killed.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  (no shell; to run the user's own program is what the option is for)
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{arguments[0]} cannot be started: {getattr(error, 'strerror', None) or 'it holds a NUL character'}"
        ) from None
    deadline = time.monotonic() + seconds
    try:
        out, err = _outputs(process, arguments[0], deadline, seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(max(0.0, deadline - time.monotonic())), out, err
        raise EngineError(f"{arguments[0]} did not end within {seconds:g} s")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def _outputs(process: subprocess.Popen[bytes], name: str, deadline: float, seconds: float) -> tuple[bytes, bytes]:
    """Read both streams to their ends. Raises EngineError if the output is too long or the time is over."""
    outputs: dict[object, bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            if stream:
                selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise EngineError(f"{name} did not end within {seconds:g} s")
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                output = outputs[key.fileobj]
                output += data
                if len(output) > MAX_OUTPUT:
                    raise EngineError(f"{name} prints more than {MAX_OUTPUT} bytes")
            if time.monotonic() >= deadline and selector.get_map():
                raise EngineError(f"{name} did not end within {seconds:g} s")
    return bytes(outputs[process.stdout]), bytes(outputs[process.stderr])


def _shown(output: bytes) -> str:
    text = output[-4096:].decode("utf-8", "replace")
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[-_SHOWN:]
