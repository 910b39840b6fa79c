# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A transaction on a gateway that has an API. Each call has an opposite that undoes it.

Guarantees are the same as with files, but nothing is stored on this host. A call changes one entry. So a run that is
killed between two calls leaves only complete entries, and the next run reads them and continues from there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Callable, Optional
from urllib.parse import quote, quote_plus, urlsplit

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Stopped, reason_of, stoppable
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import API_ANSWER_BYTES, whole_number

_SHOWN = 300
_HOST = re.compile(r"[A-Za-z0-9._:%-]+\Z")


@dataclass(frozen=True)
class Response:
    """An answer of the API: HTTP status, headers in lower case, body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Http = Callable[[str, str, Mapping[str, str], Optional[bytes]], Response]
"""Makes one request: method, URL, headers, body. Raises OSError if there is no answer. Returns every HTTP status."""


def answered_within(seconds: float, ask: Callable[[], Response]) -> Response:
    """Make a request and return its answer. Raises TimeoutError if it is not whole in time, and what ask raises.

    A socket's own time limit is for each read only: a server that sends a byte a second would never reach it. The request
    runs in a thread, which is left behind then: the module's end also ends it.
    """
    done: list[Response] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(ask())
        except BaseException as error:  # handed to the caller
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"no whole answer within {seconds:g} s")
    return done[0]


class Api:
    """The client of one API. Its error messages contain no secrets."""

    def __init__(self, http: Http, title: str, url: str, base: str, advice: Mapping[int, str]) -> None:
        """Prepare the client. base: the path below the URL. advice: HTTP status -> the next thing to do, for messages."""
        self._http = http
        self._title = title
        self._url = url.strip().rstrip("/")
        self._base = base
        self._advice = advice
        self._secrets: set[str] = set()
        self._headers: dict[str, str] = {}

    def check(self) -> None:
        """Raise EngineError unless the URL is valid and safe for secrets: https, or http to the loopback."""
        try:
            parts = urlsplit(self._url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        example = "write it like https://gateway.example.com:8006"
        if not (host and _HOST.match(host) and re.fullmatch(r"[!-~]+", self._url)):
            raise EngineError(f"{self._title}: api_url is not the URL of an API; {example}")
        if port == 0 or parts.scheme not in ("http", "https"):
            raise EngineError(f"{self._title}: api_url is not the URL of an API; {example}")
        if parts.username is not None or parts.query or parts.fragment:
            raise EngineError(f"{self._title}: api_url may hold neither a user, a password nor a query; {example}")
        if parts.scheme == "http" and not _is_loopback(host):
            raise EngineError(
                f"{self._title}: api_url has to be https, because the password or key would cross the network in "
                f"plaintext; {example}"
            )

    def hide(self, *secrets: str) -> None:
        """Remove these secrets from every error message, in plain and in escaped form."""
        for secret in filter(None, secrets):
            raw = secret.encode("utf-8", "surrogateescape")
            self._secrets |= {secret, quote(raw), quote(raw, safe=""), quote_plus(raw)}
            self._secrets |= {json.dumps(secret)[1:-1], repr(secret)[1:-1]}

    def carry(self, **headers: str) -> None:
        """Send these headers with every later request. An underscore in a name stands for a hyphen."""
        self._headers.update({name.replace("_", "-"): value for name, value in headers.items()})

    def error(self, method: str, path: str, what: str) -> EngineError:
        """Return the error of one request, for the caller to raise."""
        return EngineError(f"{self._title}: {method} {self._base}/{path.partition('?')[0]} {self._clean(what)}")

    def request(
        self, method: str, path: str, body: Optional[bytes] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Any:
        """Make one request and return the JSON of its answer. Raises EngineError unless the status is 200 with JSON."""
        wanted = {"Accept": "application/json", **self._headers, **(headers or {})}
        try:
            answer = self._http(method, f"{self._url}{self._base}/{path}", wanted, body)
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            advice = "see whether the API runs and api_url is right"
            if "CERTIFICATE_VERIFY_FAILED" in str(reason):
                advice = "name the authority of its certificate in ca_path"
            raise self.error(method, path, f"got no answer ({str(reason) or type(error).__name__}); {advice}") from None
        if len(answer.body) > API_ANSWER_BYTES:
            raise self.error(
                method, path, f"was answered by {len(answer.body)} bytes, more than any answer it should give"
            )
        try:
            data = json.loads(answer.body, parse_int=whole_number)
        except (ValueError, RecursionError):
            data = None
        if answer.status != 200:
            said = self.said(data)
            advice = self._advice.get(answer.status) or _ADVICE.get(answer.status // 100, "see its log")
            raise self.error(method, path, f"was answered {answer.status}{f' ({said})' if said else ''}; {advice}")
        if data is None:
            raise self.error(
                method,
                path,
                "was answered by something that is not JSON; see whether api_url is that of the API itself",
            )
        return data

    def said(self, data: Any) -> str:
        """Return the error text of an answer, shortened. Other parts are left out, because they may contain secrets."""
        if not isinstance(data, dict):
            return ""
        words = [data.get("message"), data.get("msg")]
        errors = data.get("errors")
        if isinstance(errors, dict):
            words += [f"{name}: {text}" for name, text in errors.items()]
        return "; ".join(self._clean(str(word)) for word in words if word)[:_SHOWN]

    def _clean(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return " ".join(re.sub(r"[^ -~]", " ", text).split())


_ADVICE = {
    3: "it redirects, so give the URL of the API itself in api_url",
    4: "see whether api_url is that of the API itself",
    5: "see the log of the gateway, then run again",
}


def rows(api: Api, path: str, data: Any, *names: str) -> list[dict[str, Any]]:
    """Return the entries of a list. Raises EngineError unless each entry has a text under each of the names."""
    listed = data if isinstance(data, list) else None
    if listed is None or not all(
        isinstance(row, dict) and all(_is_text(row.get(name)) for name in names) for row in listed
    ):
        raise api.error(
            "GET", path, f"gave no list of entries with {' and '.join(names)}; see whether its version is supported"
        )
    return listed


def is_set(value: Any) -> bool:
    """Whether a switch is on. The value may be a number, a text or a boolean."""
    return str(value) in ("1", "True", "true")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[ -~]+", value))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Call:
    """The change of one entry on a gateway.

    what: names the entry. before, after: the entry as text. do: makes the change. undo: reverts the change; it reads the
    entry first, because a call that failed may have changed the entry anyway.
    """

    what: str
    before: str
    after: str
    do: Callable[[], None] = field(repr=False, compare=False)
    undo: Callable[[], None] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Calls:
    """A gateway change (contract.GatewayChange): calls in the order in which they are made."""

    title: str
    calls: tuple[Call, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.calls)

    def diff(self) -> list[dict[str, str]]:
        """Return the changed entries in Ansible's diff format."""
        return [{"prepared": lines} for _title, lines in self.lines()]

    def lines(self) -> list[tuple[str, str]]:
        """Return the title and the changed entries; nothing if no entry changes."""
        if not self.calls:
            return []
        lines = [f"--- before: {self.title}", f"+++ after: {self.title}"]
        for call in self.calls:
            lines += [f"-{call.what} {call.before}", f"+{call.what} {call.after}"]
        return [(self.title, "\n".join(lines) + "\n")]


class CallTransaction:
    """A transaction of API calls, with the guarantees of _change.files.Transaction, but without lock and journal."""

    interrupted = False

    def take_back(self, prove_old: Callable[[], None], error: Exception) -> None:
        """Do nothing: no change of an API is held."""

    def release(self) -> None:
        """Do nothing: no change of an API is held."""

    @contextlib.contextmanager
    def opened(self, check_mode: bool, prove: Optional[Callable[[], None]] = None) -> Iterator[tuple[bool, list[str]]]:
        """Yield false and no warnings. A killed run leaves nothing to undo, and the API itself makes one change at a time."""
        yield False, []

    def apply(self, change: Calls, prove: Callable[[], None], prove_old: Callable[[], None]) -> None:
        """Make the calls and prove the result, or undo them and prove the former state.

        Raises TransactionError with the reason if the change failed; restored says whether it was undone.
        """
        begun: list[Call] = []
        with stoppable() as stop:
            try:
                for call in change.calls:
                    stop.look()  # only between two calls: an interrupted call could still take effect later
                    begun.append(call)
                    call.do()
                with stop.obeyed():
                    prove()
            except BaseException as error:
                reason = reason_of(error)
                failures = []
                for call in reversed(begun):
                    try:
                        call.undo()
                    except (EngineError, OSError) as second:  # undo the other calls anyway
                        failures.append(f"{call.what}, which was {call.before}: {second}")
                try:
                    if not failures:
                        prove_old()
                except (EngineError, OSError) as second:
                    failures.append(str(second))
                if failures:
                    raise TransactionError(
                        f"{reason}. The rollback failed as well: {'; '.join(failures)}. "
                        "Look at these entries on the gateway",
                        restored=False,
                    ) from error
                if not isinstance(error, (Exception, Stopped)):
                    raise
                raise TransactionError(f"{reason}. The former state is restored and proved", True) from error
