"""A lab host that stands in for Exchange, as tests drive it and look at it. What it is: tools/lab/exchange."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from lab_testinfra import Fleet, wait_for

from tests.support.pki import Authority, Issued

DIRECTORY = "/var/lib/exchange"

SUBMIT = """
import smtplib, sys
with smtplib.SMTP("127.0.0.1", 2525, timeout=30) as client:
    client.sendmail(sys.argv[1], sys.argv[2:], sys.stdin.read())
"""

CERTIFICATE = """
import json, pathlib, sys
sys.path.insert(0, "/usr/local/lib/lab")
from exchange.state import certificate, certificate_name
one = certificate(pathlib.Path(sys.argv[1]))
print(json.dumps([one, certificate_name(one)]))
"""


class Exchange:
    """One such host: exch is on premises, exo is online."""

    def __init__(self, fleet: Fleet, host: str) -> None:
        self.fleet, self.host = fleet, host

    def state(self) -> dict[str, Any]:
        """The state that the stand-in has."""
        return dict(json.loads(self.fleet.run(self.host, f"cat {DIRECTORY}/state.json")))

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state, in one step. It holds for the next connection and the next attempt to send."""
        new = f"{DIRECTORY}/.state.{uuid.uuid4().hex}"
        self.fleet.run(
            self.host, f"umask 077; cat >{new} && mv {new} {DIRECTORY}/state.json", json.dumps(state, indent=2)
        )

    def change(self, work: Callable[[dict[str, Any]], Any]) -> None:
        """Let work change the state."""
        state = self.state()
        work(state)
        self.write(state)

    def set(self, kind: str, name: str = "", **properties: Any) -> None:
        """Set properties of an object, as a Set- cmdlet does; without a name, of the first of its kind.

        C(set("SendConnectors", RequireTLS=True)), C(set("ReceiveConnectors", TlsCertificateName=None)).
        """

        def work(state: dict[str, Any]) -> None:
            one = next(one for one in state[kind] if name in ("", one["Name"]))
            one.update(properties)

        self.change(work)

    def reply(self, at: str, reply: str = "", **more: Any) -> None:
        """Have it answer with a reply of the test's own from now on; see State.reply. Nothing but the moment: as usual again."""
        entry = [{"At": at, **({"Reply": reply} if reply else {}), **more}] if reply or more else []
        self.change(
            lambda state: state.update(Replies=[one for one in state.get("Replies", []) if one["At"] != at] + entry)
        )

    def install(self, name: str, issued: Issued, first: bool = True) -> str:
        """Put a certificate into its store; what a connector's TlsCertificateName has for it."""
        file = f"{DIRECTORY}/certificates/{name}.pem"
        self.fleet.run(self.host, f"umask 077; cat >{file}", (issued.key_pem + issued.fullchain_pem).decode())
        shown = self.fleet.run(self.host, f"python3 -c '{CERTIFICATE}' {file}")
        one, called = json.loads(shown)

        def work(state: dict[str, Any]) -> None:
            others = [old for old in state["Certificates"] if old["File"] != file]
            state["Certificates"] = [one, *others] if first else [*others, one]

        self.change(work)
        return str(called)

    def trust(self, authority: Authority) -> None:
        """Make an authority one of those that it knows."""
        file = f"{DIRECTORY}/roots/{uuid.uuid4().hex}.pem"
        self.fleet.run(self.host, f"cat >{file}", authority.root_pem.decode())
        self.change(lambda state: state["TrustedRoots"].append(file))

    def received(self, mark: str = "") -> list[dict[str, Any]]:
        """What reached its mailboxes, or left for the internet: Message, Recipients, Tls, ClientCertificate, Resumed, AttributedTo ..."""
        return [one for one in self._lines("received.jsonl") if f"Subject: {mark}" in one["Message"]]

    def sent(self, mark: str = "") -> list[dict[str, Any]]:
        """What another host took from it: Recipients, NextHop, Tls ..."""
        return [one for one in self._lines("sent.jsonl") if mark in one["Subject"]]

    def queue(self) -> list[dict[str, Any]]:
        """Its queues that hold something: Status, LastError, RetryCount, NextRetryTime, MessageCount, Messages ..."""
        return list(json.loads(self.fleet.run(self.host, f"cat {DIRECTORY}/queue.json"))["Queues"])

    def failed(self) -> list[dict[str, Any]]:
        """What was refused for good."""
        return list(json.loads(self.fleet.run(self.host, f"cat {DIRECTORY}/queue.json"))["Failed"])

    def flush(self) -> None:
        """Have the queues tried again at once, as Retry-Queue does."""
        self.change(lambda state: state.update(RetryQueue=time.time_ns()))

    def submit(self, recipients: list[str], sender: str = "") -> str:
        """A mailbox sends a message; its mark, which is the subject."""
        mark = uuid.uuid4().hex
        sender = sender or f"anna@{self.state()['AcceptedDomains'][0]['DomainName']}"
        text = f"From: {sender}\nTo: you@example.test\nSubject: {mark}\nMessage-ID: <{mark}@exchange.test>\n\nx\n"
        self.fleet.run(self.host, f"python3 -c '{SUBMIT}' {sender} {' '.join(recipients)}", text)
        return mark

    def arrival(self, mark: str, seconds: float = 40) -> dict[str, Any]:
        """Wait for a message, of which there has to be one copy."""
        found = wait_for(lambda: self.received(mark), seconds)
        assert len(found) == 1, f"{mark}: {len(found)} copies on {self.host}"
        return dict(found[0])

    def waits(self, seconds: float = 40) -> dict[str, Any]:
        """Wait until a queue is in retry; the queue."""
        found = wait_for(lambda: [one for one in self.queue() if one["Status"] == "Retry"], seconds)
        assert found, f"nothing is in retry on {self.host}: {self.queue()}"
        return dict(found[0])

    def _lines(self, name: str) -> list[dict[str, Any]]:
        text = self.fleet.run(self.host, f"cat {DIRECTORY}/{name} 2>/dev/null", check=False)
        return [json.loads(line) for line in text.splitlines()]
