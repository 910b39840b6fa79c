# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trial of a new configuration of Exim beside the one in use. The daemon that runs is not touched, and no port is opened.

A daemon ends if it is told to read a file that it cannot use, and C(-bV) misses most of what is wrong with one. So Exim prints what
the new file means, which may differ from the present one in the wanted options only. Then it plays a session on its standard input
(C(-bh)), as its own user, up to STARTTLS: that finds keys that cannot be read, wrong ciphers and wrong expansions.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import plain_text
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.config import Printed
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain_text import ByHandError, Edit
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import is_address
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import BrokenConfigurationError, EngineError

_DIALOGUE = "EHLO trial.invalid\\r\\nMAIL FROM:<>\\r\\nRSET\\r\\nSTARTTLS\\r\\n"
_FEED = 'printf %b "$0" | "$@"'
_REPLY = re.compile(r"(?m)^(\d{3})([ -])(.*?)\r?$")
_DENIED = re.compile(r"[Pp]ermission denied")
_FILE_MARK = re.compile(r"(?m)^# .*\n?")


class Trial:
    """Judges new versions of the file. own_port: the port at which sessions are played."""

    def __init__(self, run: Runner, program: str, own_port: Target) -> None:
        """Prepare only."""
        self._run = run
        self._program = program
        self._own = own_port
        self._desired: Optional[Desired] = None
        self._edits: Mapping[str, Edit] = {}

    def expect(self, desired: Desired, edits: Mapping[str, Edit]) -> None:
        """Say what the new version is for."""
        self._desired, self._edits = desired, edits

    def of_text(self, text: str, path: str) -> None:
        """Raise ByHandError if Exim would not read the text as it is meant. path: of the present file. Nothing on the host is changed.

        What depends on the place of the file, or on files that do not exist yet, is not looked at.
        """
        if depends_on_its_place(text):
            return
        with tempfile.TemporaryDirectory(prefix="mailfleet-") as stage:
            candidate = f"{stage}/exim.conf"
            Path(candidate).write_bytes(text.encode("utf-8", "surrogateescape"))
            status, out, err = self._run([self._program, "-C", candidate, "-bV"])
            if status != 0 and _DENIED.search(err or out):  # it may read files of its own directory only
                return
            try:
                self.readable(candidate, path)
                self._compare(candidate, path)
            except EngineError as error:
                raise ByHandError(str(error)) from error

    @contextlib.contextmanager
    def printed(self, text: bytes, more: tuple[str, ...] = ()) -> Iterator[Optional[Printed]]:
        """In this context, what Exim prints of a text that is no file yet; None if it reads files of its own directory only.

        more: as for Printed.
        """
        if depends_on_its_place(text.decode("utf-8", "surrogateescape")):
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="mailfleet-") as stage:
            candidate = Path(stage, "exim.conf")
            candidate.write_bytes(text)
            status, out, err = self._run([self._program, "-C", str(candidate), "-bV"])
            denied = status != 0 and _DENIED.search(err or out)
            yield None if denied else Printed(self._run, str(candidate), self._program, more)

    def of_file(self, candidate: str, path: str) -> None:
        """Raise EngineError if Exim could not use the new version. candidate: its path, beside the present one."""
        self.readable(candidate, path)
        if self._desired is not None:
            self._compare(candidate, path)
            self._play(candidate)

    def readable(self, candidate: str, path: str = "") -> None:
        """Raise EngineError if Exim cannot read a file. path: the name for the message."""
        status, out, err = self._run([self._program, "-C", candidate, "-bV"])
        if status != 0:
            said = " ".join((err or out).replace(candidate, path or candidate).split())
            raise EngineError(f"Exim refuses the change: {said}")

    def _compare(self, candidate: str, path: str) -> None:
        try:
            old, new = (Printed(self._run, one, self._program) for one in (path, candidate))
            before, after = old.everything, new.everything
            rest = [self._rest(one.text) for one in (old, new)]
        except BrokenConfigurationError as error:
            raise EngineError(f"the change cannot be compared with {path}: {error}") from error
        for place in {*before, *after}:
            names = self._edits[place].names if place in self._edits else set()
            was, now = before.get(place, {}), after.get(place, {})
            changed = {name for name in {*was, *now} if was.get(name) != now.get(name)}
            # A change takes back what it does not want any more.
            if stray := changed - names - self._ours(path, place):
                raise EngineError(
                    f"{', '.join(sorted(stray))} would change as well{f' in the transport {place}' if place else ''}"
                )
        if rest[0] != rest[1]:
            raise EngineError("Exim would read other parts of the file differently, too")
        for place, edit in self._edits.items():
            for name in {"tls_certificate", "tls_privatekey"} & {*edit.settings}:
                if after[place].get(name) != edit.settings[name]:
                    raise EngineError(
                        f"a macro in the file would make {after[place].get(name)} of the path {edit.settings[name]}; choose "
                        "another path"
                    )

    def _ours(self, path: str, place: str) -> set[str]:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
        former = plain_text.marked(text).get(place)
        return set() if former is None else {*former, "tls_ocsp_file", "hosts_avoid_tls", "hosts_require_tls"}

    def _rest(self, text: str) -> str:
        """Return what Exim has read, without the options that may change: those of the main part and of transports are compared."""
        kept = [one.text for one in plain_text.read(text) if not one.setting[0]]
        return _FILE_MARK.sub("", "".join(kept))

    def _play(self, candidate: str) -> None:
        """Raise EngineError unless a session gets the answers that the wanted state gives."""
        desired = self._desired
        if desired is None or desired.inbound is None:
            return
        host = self._own.host if is_address(self._own.host) else "127.0.0.1"
        words = [self._program, "-C", candidate, "-oMi", f"[{host}]:{self._own.port}", "-bh", host]
        # The words are arguments of the shell, which does not read them as its own language.
        said = self._run(["sh", "-c", _FEED, _DIALOGUE, *words])[1]
        replies = [(code, text) for code, more, text in _REPLY.findall(said) if more == " "]
        if len(replies) < 5 or replies[1][0] != "250":
            raise EngineError(f"Exim does not take a session with the change: {_last(said)}")
        offered = bool(re.search(r"(?m)^250[ -]STARTTLS\r?$", said))
        mail, starttls = replies[2], replies[4]
        if desired.offers and (not offered or starttls[0] != "220"):
            raise EngineError(
                f"Exim would not start TLS with the change: {' '.join(starttls) if offered else 'STARTTLS is not offered'}"
            )
        if not desired.offers and offered:
            raise EngineError("Exim would still offer STARTTLS with the change")
        if desired.inbound == "required" and not mail[0].startswith(("4", "5")):
            raise EngineError("Exim would still take mail without TLS with the change")


def depends_on_its_place(text: str) -> bool:
    """Whether a text means something else in another directory: it includes a file by a relative path."""
    return any(not one.startswith("/") for one in plain_text.includes(text))


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
