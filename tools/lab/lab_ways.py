"""The ways of mail through the fleet of the scenario relay, to both stand-ins for Exchange and from them."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from email import message_from_string

import pytest
from lab_exchange import Exchange
from lab_testinfra import Fleet, wait_for

INWARD = {"echo.test": "exch", "foxtrot.test": "exch", "golf.test": "exo", "hotel.test": "exo"}
"""Recipient domain -> its Exchange. rp13 relays for the first of each, rx12 for the second."""
OUTWARD = {"exch": "anna@echo.test", "exo": "anna@golf.test"}
"""Exchange -> a mailbox on it. The smart host of exch is rp13, that of exo is rx12."""
PARTNER = "trace@partner.test"
RELAYS = ("rp13", "rx12")


class Ways:
    """Sends messages, and knows where each of them has to arrive."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.exchanges = {name: Exchange(fleet, name) for name in OUTWARD}
        self.sent: dict[str, str] = {}  # mark -> the host of its mailbox

    def inward(self, *domains: str) -> list[str]:
        """The partner sends a message to each domain: partner, gateway, relay, Exchange. Their marks."""
        made = {uuid.uuid4().hex: domain for domain in domains}
        for mark, domain in made.items():
            self.submit("outside", PARTNER, f"anna@{domain}", mark)
            self.sent[mark] = INWARD[domain]
        return list(made)

    def outward(self, *names: str) -> list[str]:
        """Mailboxes of Exchange send a message to the partner: Exchange, relay, gateway, partner. Their marks."""
        marks = [self.exchanges[name].submit([PARTNER], OUTWARD[name]) for name in names]
        self.sent |= dict.fromkeys(marks, "outside")
        return marks

    def submit(self, host: str, sender: str, recipient: str, mark: str = "") -> str:
        """Hand a message to the mail server of a host; its mark."""
        mark = mark or uuid.uuid4().hex
        self.fleet.run(
            host, f"sendmail -f {sender} {recipient}", f"From: {sender}\nTo: {recipient}\nSubject: {mark}\n\nx\n"
        )
        return mark

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Mail flows on every way, as long as the block lasts."""
        over, problems = threading.Event(), []

        def send() -> None:
            try:
                while True:
                    self.inward(*INWARD)
                    self.outward(*OUTWARD)
                    if over.wait(3):
                        return
            except Exception as error:
                problems.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(120)
        assert not problems, problems

    def flush(self) -> None:
        """Have everything tried again that waits."""
        for host in ("outside", "gw1", "branch", "rp13"):
            self.fleet.run(
                host, "for one in $(postmulti -l | awk '{print $4}'); do postqueue -c $one -f; done", check=False
            )
        self.fleet.run("rx12", "exim4 -qff", check=False)
        for one in self.exchanges.values():
            one.flush()

    def arrived(self) -> Counter[tuple[str, str]]:
        """(mark, host of the mailbox) -> copies, of all messages there are."""
        texts = [(host, row["Message"]) for host, one in self.exchanges.items() for row in one.received()]
        found = Counter((str(message_from_string(text)["Subject"]), host) for host, text in texts)
        box = self.fleet.run("outside", "grep -h '^Subject: ' /var/mail/trace", check=False)
        return found + Counter((line.split()[1], "outside") for line in box.splitlines() if line.split()[1:])

    def lost(self) -> dict[str, str]:
        """The messages that did not arrive yet: mark -> host."""
        found = self.arrived()
        return {mark: host for mark, host in self.sent.items() if not found[mark, host]}

    def once(self, seconds: float = 60) -> None:
        """Every message that was sent so far arrives, once, and nothing was refused."""
        if not wait_for(lambda: not self.lost(), 5):
            self.flush()
        assert wait_for(lambda: not self.lost(), seconds), (self.lost(), self.queues())
        found = self.arrived()
        assert {mark: found[mark, host] for mark, host in self.sent.items() if found[mark, host] != 1} == {}
        assert [one.failed() for one in self.exchanges.values()] == [[], []]

    def queues(self) -> str:
        """What waits, as the daemons show it."""
        relays = [
            self.fleet.run(host, "postqueue -p; tail -5 /var/log/mail.log", check=False)
            for host in ("outside", "gw1", "branch", "rp13")
        ]
        exim = self.fleet.run("rx12", "exim4 -bp; tail -5 /var/log/exim4/mainlog", check=False)
        return "\n".join([*relays, exim, *(str(one.queue()) for one in self.exchanges.values())])


@pytest.fixture(scope="session")
def ways(fleet: Fleet) -> Ways:
    """The ways through this fleet."""
    return Ways(fleet)
