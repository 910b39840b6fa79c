"""The way out: a queue for each next hop, in retry as Exchange keeps it. queue.json shows them as Get-Queue and Get-Message do."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import smtplib
import ssl
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from email import message_from_bytes
from pathlib import Path
from typing import Any, Callable, Optional

from cryptography import x509

from .session import STARTTLS_REQUIRED, Accepted
from .state import Object, Route, State, StateError, covers, names_of, write
from .trust import client_context

log = logging.getLogger("exchange")

PATIENCE = 30.0
NO_ROUTE = "no connector"


class Deferred(Exception):
    """The next hop does not take mail now: led is the error, msg what lies behind it."""

    def __init__(self, led: str, msg: str = "", host: str = "", address: str = "") -> None:
        super().__init__(led)
        self.led, self.msg, self.host, self.address = led, msg, host, address

    def text(self) -> str:
        """LastError, as a queue shows it."""
        when = dt.datetime.now(dt.timezone.utc)
        time_of_day = f"{when.hour % 12 or 12}:{when:%M:%S} {'PM' if when.hour > 11 else 'AM'}"
        return (
            f"[{{LED={self.led}}};{{MSG={self.msg}}};{{FQDN={self.host}}};{{IP={self.address}}};"
            f"{{LRT={when.month}/{when.day}/{when.year} {time_of_day}}}]"
        )


@dataclass
class Waiting:
    """A message that waits, with the recipients it still has to reach."""

    number: str
    sender: str
    recipients: list[str]
    content: str  # octets as Latin-1
    last_error: str = ""


@dataclass
class Queue:
    """What waits for one next hop."""

    route: str
    messages: list[Waiting] = field(default_factory=list)
    failures: int = 0
    next_retry: float = 0.0
    last_error: str = ""


class Sender:
    """Sends what is submitted, one thread for all queues; what waits survives a restart in the directory spool."""

    def __init__(self, directory: Path, load: Callable[[], State]) -> None:
        self._directory, self._load = directory, load
        self._spool = directory / "spool"
        self._spool.mkdir(exist_ok=True)
        self._changed = threading.Condition()
        self._queues: dict[str, Queue] = {}
        self._failed: list[Object] = []
        self._ended = False
        for file in sorted(self._spool.glob("*.json")):
            self._enqueue(Waiting(**json.loads(file.read_text())))
        self._show()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, accepted: Accepted) -> None:
        """Take a message for its recipients elsewhere; each next hop gets a copy of its own."""
        by_route: dict[str, list[str]] = {}
        for recipient in accepted.elsewhere:
            by_route.setdefault(self._route_of(recipient)[0], []).append(recipient)
        with self._changed:
            for recipients in by_route.values():
                number = f"{time.time_ns()}-{uuid.uuid4().hex[:6]}"
                one = Waiting(number, accepted.sender, recipients, accepted.content.decode("latin-1"))
                self._keep(one)
                self._enqueue(one)
            self._show()
            self._changed.notify()

    def retry(self) -> None:
        """Have all queues tried again at once."""
        with self._changed:
            for queue in self._queues.values():
                queue.next_retry = 0.0
            self._changed.notify()

    def end(self) -> None:
        """Stop; what waits stays in the spool."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(PATIENCE)

    def _route_of(self, recipient: str) -> tuple[str, Optional[Route]]:
        with contextlib.suppress(StateError):
            route = self._load().route(recipient.rpartition("@")[2].lower())
            if route:
                return route.connector, route
        return NO_ROUTE, None

    def _keep(self, one: Waiting) -> None:
        write(self._spool / f"{one.number}.json", asdict(one))

    def _enqueue(self, one: Waiting) -> None:
        name = self._route_of(one.recipients[0])[0]
        self._queues.setdefault(name, Queue(name)).messages.append(one)

    def _run(self) -> None:
        while True:
            with self._changed:
                due = [queue for queue in self._queues.values() if queue.messages and queue.next_retry <= time.time()]
                if not due and not self._ended:
                    waits = [queue.next_retry - time.time() for queue in self._queues.values() if queue.messages]
                    self._changed.wait(max(0.05, min(waits)) if waits else None)
                if self._ended:
                    return
            for queue in due:
                try:
                    self._attempt(queue)
                except Exception:
                    log.exception("the queue %s", queue.route)
                    queue.next_retry = time.time() + 60

    def _attempt(self, queue: Queue) -> None:
        """Try to deliver all that waits in a queue."""
        with self._changed:
            messages = list(queue.messages)
        state = self._load()
        # A connector that was changed or removed meanwhile counts as it is now, as with Retry-Queue -Resubmit.
        route = state.route(messages[0].recipients[0].rpartition("@")[2].lower())
        problem: Optional[Deferred] = None
        if route is None:
            problem = Deferred("451 4.4.0 DNS query failed", "no send connector has this address space")
        else:
            for host in route.hosts:
                try:
                    self._deliver(state, route, host, messages)
                    problem = None
                except Deferred as error:
                    problem = error
                    continue
                break
        with self._changed:
            queue.messages = [one for one in queue.messages if one.recipients]
            deferred = [one.last_error for one in queue.messages if one.last_error]
            queue.last_error = problem.text() if problem else next(iter(deferred), "")
            queue.failures = queue.failures + 1 if problem or deferred else 0
            queue.next_retry = time.time() + state.retry_after(queue.failures) if queue.failures else 0.0
            self._show()
        if queue.last_error:
            log.info("queue %s: %s", queue.route, queue.last_error)

    def _deliver(self, state: State, route: Route, host: str, messages: list[Waiting]) -> None:
        """One connection to a smart host. Raises Deferred if it takes nothing."""
        address = ""
        try:
            client, address = self._connect(state, route, host)
            with client:
                for one in messages:
                    self._hand_over(client, route, host, one)
        except smtplib.SMTPResponseException as error:
            raise Deferred(
                "451 4.4.395 Target host responded with error.", _line(error.smtp_code, error.smtp_error), host, address
            ) from error
        except (OSError, smtplib.SMTPException) as error:
            raise Deferred(
                "451 4.4.397 Error communicating with target host. -> 421 4.2.1 Unable to connect",
                str(error),
                host,
                address,
            ) from error

    def _connect(self, state: State, route: Route, host: str) -> tuple[smtplib.SMTP, str]:
        """A connection that may carry mail, and the host's address. Raises Deferred where the connector forbids it."""
        certificate = self._client_certificate(state, route, host)
        client = smtplib.SMTP(host, route.port, route.fqdn, PATIENCE)
        address = client.sock.getpeername()[0]
        client.ehlo()
        if route.ignore_tls:
            return client, address
        if not client.has_extn("starttls"):
            if not route.require_tls:
                return client, address
            client.close()
            raise self._no_tls(state, route, host, address, STARTTLS_REQUIRED)
        roots = [Path(one) for one in state.data.get("TrustedRoots") or []]
        try:
            client.starttls(context=client_context(route.level, roots, certificate, state.online))
        except (ssl.SSLError, smtplib.SMTPResponseException) as error:
            client.close()
            if route.require_tls:
                reason = "UntrustedRoot" if isinstance(error, ssl.SSLCertVerificationError) else "TlsNegotiationFailed"
                raise self._no_tls(state, route, host, address, reason) from error
            # Opportunistic: the same host once more in plaintext.
            client = smtplib.SMTP(host, route.port, route.fqdn, PATIENCE)
            client.ehlo()
            return client, address
        if route.level == "DomainValidation":
            served = x509.load_der_x509_certificate(client.sock.getpeercert(True))
            if not any(
                covers(name, route.domain or "") or covers(route.domain or "", name) for name in names_of(served)
            ):
                client.close()
                raise self._no_tls(state, route, host, address, "SubjectMismatch")
        client.ehlo()
        return client, address

    def _client_certificate(self, state: State, route: Route, host: str) -> Optional[Path]:
        if route.certificate is None:
            return None
        found = state.certificate(route.certificate, route.fqdn)
        if found is None:
            led = "454 4.7.5 The certificate specified in TlsCertificateName of the SendConnector could not be found"
            raise Deferred(led, host=host)
        return Path(found["File"])

    def _no_tls(self, state: State, route: Route, host: str, address: str, reason: str) -> Deferred:
        if state.online:
            led = (
                f"450 4.4.317 Cannot connect to remote server [Message={reason}] [LastAttemptedServerName={host}] "
                f"[LastAttemptedIP={address}:{route.port}] [{state.fqdn}]"
            )
        elif reason == STARTTLS_REQUIRED:
            led = STARTTLS_REQUIRED
        elif reason == "TlsNegotiationFailed":
            led = "454 4.7.5 TLS negotiation failed"
        else:
            led = f"454 4.7.5 Certificate validation failure, Reason:{reason}"
        return Deferred(led, reason if reason != STARTTLS_REQUIRED else "", host, address)

    def _hand_over(self, client: smtplib.SMTP, route: Route, host: str, one: Waiting) -> None:
        """Send one message; what a recipient's refusal means is written into it."""
        options = (
            ["smtputf8"] if client.has_extn("smtputf8") and not "".join([one.sender, *one.recipients]).isascii() else []
        )
        refused: dict[str, tuple[int, bytes]] = {}
        content = one.content.encode("latin-1")
        try:
            refused = client.sendmail(one.sender, one.recipients, content, options)
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            refused = dict.fromkeys(one.recipients, (error.smtp_code, error.smtp_error))
        delivered = [name for name in one.recipients if name not in refused]
        later = [name for name, (code, _text) in refused.items() if code < 500]
        if delivered:
            self._sent(client, route, host, one, delivered)
        with self._changed:
            for name, (code, text) in refused.items():
                if code >= 500:
                    self._failed.append({**_shown(one), "Recipients": [name], "LastError": _line(code, text)})
            one.last_error = _line(*refused[later[0]]) if later else ""
            one.recipients = later
            if later:
                self._keep(one)
            else:
                (self._spool / f"{one.number}.json").unlink()

    def _sent(self, client: smtplib.SMTP, route: Route, host: str, one: Waiting, recipients: list[str]) -> None:
        secure = client.sock if isinstance(client.sock, ssl.SSLSocket) else None
        record = {
            **_shown(one),
            "Recipients": recipients,
            "SentAt": dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds"),
            "Connector": route.connector,
            "NextHop": host,
            "Tls": secure.version() if secure else None,
            "Cipher": secure.cipher()[0] if secure else None,
        }
        append(self._directory / "sent.jsonl", record)

    def _show(self) -> None:
        """Write queue.json; the caller holds the lock."""
        try:
            state = self._load()
        except StateError:
            return
        shown = []
        for number, queue in enumerate(self._queues.values(), 1):
            messages = [
                one for one in queue.messages if one.recipients
            ]  # the others were delivered in the attempt that is under way
            if not messages:
                continue
            route = state.route(messages[0].recipients[0].rpartition("@")[2].lower())
            kind = "SmartHostConnectorDelivery" if route and route.hosts else "DnsConnectorDelivery"
            shown.append(
                {
                    "Identity": f"{state.name}\\{number}",
                    "DeliveryType": kind if route else "Unreachable",
                    "NextHopDomain": ",".join(f"[{host}]" for host in route.hosts) if route else "",
                    "NextHopConnector": route.guid if route else "",
                    "Status": "Retry" if queue.failures else "Active",
                    "MessageCount": len(messages),
                    "RetryCount": queue.failures,
                    "NextRetryTime": _time(queue.next_retry) if queue.failures else None,
                    "LastError": queue.last_error,
                    "Messages": [_shown(one) for one in messages],
                }
            )
        write(self._directory / "queue.json", {"Queues": shown, "Failed": self._failed})


def append(file: Path, record: Any) -> None:
    """Add a line to a file of records."""
    with file.open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def _shown(one: Waiting) -> Object:
    head = message_from_bytes(one.content.encode("latin-1"))
    return {
        "Identity": one.number,
        "FromAddress": one.sender,
        "Recipients": one.recipients,
        "Subject": str(head.get("Subject", "")),
        "InternetMessageId": str(head.get("Message-ID", "")),
        "LastError": one.last_error,
    }


def _line(code: int, text: Any) -> str:
    said = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return f"{code} {' '.join(said.split())}"


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).isoformat(timespec="seconds")
