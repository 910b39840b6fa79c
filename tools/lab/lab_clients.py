"""Clients of mail servers, beside a renewal: lab_clients.py FILE HOST=ADDRESS... runs until FILE is gone, and prints what they saw as JSON.

It makes the file once each client has seen each port, so what was served before the renewal is known however busy the machine is.

It runs on a host of the lab, with Python's own library. Each mail server has a client that makes handshakes, on each port in turn, and
takes only ECDSA or only RSA; and a client that hands over messages, each over TLS.
"""

from __future__ import annotations

import hashlib
import json
import smtplib
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

CIPHERS = {"ECDSA": "ECDHE-ECDSA-AES256-GCM-SHA384", "RSA": "ECDHE-RSA-AES256-GCM-SHA384"}
DOMAINS = {"pf12": "alpha.test", "pf13": "bravo.test", "ex12": "charlie.test", "ex13": "delta.test"}
FACES = [(port, algorithm) for port in (25, 587, 465) for algorithm in CIPHERS]
PAUSE = 0.2
NAME, SENDER = "client.partner.test", "client@partner.test"


def context(algorithm: str = "") -> ssl.SSLContext:
    """What a client offers. In TLS 1.2 the cipher says which kind of key the certificate has."""
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if algorithm:
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.set_ciphers(CIPHERS[algorithm])
    return made


def handshake(address: str, port: int, algorithm: str) -> str:
    """Return the SHA-256 of the certificate that is served to a client of one algorithm."""
    offer: Any = context(algorithm)
    if port == 465:
        session: Any = smtplib.SMTP_SSL(address, port, NAME, timeout=20, context=offer)
    else:
        session = smtplib.SMTP(address, port, NAME, timeout=20)
    with session:
        if port != 465:
            session.starttls(context=offer)
        session.ehlo()
        return hashlib.sha256(session.sock.getpeercert(binary_form=True)).hexdigest()


def message(address: str, host: str, number: int) -> None:
    """Hand over a message over TLS."""
    with smtplib.SMTP(address, 25, NAME, timeout=20) as session:
        session.starttls(context=context())
        recipient = f"trace@{DOMAINS[host]}"
        text = f"From: {SENDER}\r\nTo: {recipient}\r\nSubject: beside-{number}\r\n\r\nx\r\n"
        session.sendmail(SENDER, [recipient], text)


class Seen:
    """What the clients of one mail server saw."""

    def __init__(self, host: str, address: str) -> None:
        self.host, self.address = host, address
        self.served: dict[str, list[str]] = {f"{port} {algorithm}": [] for port, algorithm in FACES}
        self.counts = {"handshakes": 0, "messages": 0}
        self.failures: list[str] = []

    def look(self, port: int, algorithm: str) -> None:
        """Make a handshake."""
        with self.counted("handshakes", f"port {port}, {algorithm}"):
            found = handshake(self.address, port, algorithm)
            known = self.served[f"{port} {algorithm}"]
            if found not in known[-1:]:
                known.append(found)

    def counted(self, what: str, where: str) -> Counted:
        """Count what succeeds, and keep the reason of what does not."""
        return Counted(self, what, where)

    def shake(self, file: Path, first: threading.Barrier) -> None:
        """Make a handshake on each port, then more until the file is gone, and then once more on each port."""
        for face in FACES:
            self.look(*face)
        first.wait()
        number = 0
        while file.exists():
            self.look(*FACES[number % len(FACES)])
            number += 1
            time.sleep(PAUSE)
        for face in FACES:
            self.look(*face)

    def send(self, file: Path, first: threading.Barrier) -> None:
        """Hand over messages until the file is gone."""
        first.wait()
        number = 0
        while file.exists():
            number += 1
            with self.counted("messages", f"message {number}"):
                message(self.address, self.host, number)
            time.sleep(PAUSE)


class Counted:
    """One attempt."""

    def __init__(self, seen: Seen, what: str, where: str) -> None:
        self._seen, self._what, self._where = seen, what, where

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Note how it ended."""
        if error is None:
            self._seen.counts[self._what] += 1
        else:
            self._seen.failures.append(f"{self._where}: {type(error).__name__}: {error}")
        return isinstance(error, Exception)


def main(file: Path, servers: dict[str, str]) -> None:
    """Run the clients of all mail servers."""
    every = [Seen(host, address) for host, address in servers.items()]
    works = [work for seen in every for work in (seen.shake, seen.send)]
    first = threading.Barrier(len(works), file.touch)
    threads = [threading.Thread(target=work, args=(file, first)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({one.host: {**one.counts, "served": one.served, "failures": one.failures} for one in every}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:]))
