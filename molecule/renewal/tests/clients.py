"""Clients of mail servers, beside a renewal: python3 clients.py FILE HOST=ADDRESS... until FILE is gone; prints what they saw as JSON.

Runs on a host of the lab, with Python's own library. Each mail server has a client that makes handshakes, in turn one that only takes
ECDSA and one that only takes RSA, and a client that hands over messages, each over TLS.
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
PAUSE = 0.25


def context(algorithm: str = "") -> ssl.SSLContext:
    """What a client offers. In TLS 1.2 the cipher says which kind of key the certificate has."""
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if algorithm:
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.set_ciphers(CIPHERS[algorithm])
    return made


def handshake(address: str, algorithm: str) -> str:
    """Return the fingerprint of what is served to a client that takes one algorithm only."""
    with smtplib.SMTP(address, 25, "client.partner.test", timeout=20) as session:
        session.starttls(context=context(algorithm))
        session.ehlo()
        certificate = session.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]
    return hashlib.sha256(certificate or b"").hexdigest()


def message(address: str, host: str, number: int) -> None:
    """Hand over a message over TLS."""
    with smtplib.SMTP(address, 25, "client.partner.test", timeout=20) as session:
        session.starttls(context=context())
        text = f"From: client@partner.test\r\nTo: trace@{DOMAINS[host]}\r\nSubject: beside-{number}\r\n\r\nx\r\n"
        session.sendmail("client@partner.test", [f"trace@{DOMAINS[host]}"], text)


def client(file: Path, host: str, address: str, seen: dict[str, Any], sends: bool) -> None:
    """One client: a loop, until the file is gone."""
    number = 0
    while file.exists():
        number += 1
        algorithm = list(CIPHERS)[number % 2]
        try:
            if sends:
                message(address, host, number)
            elif (found := handshake(address, algorithm)) not in seen["served"][algorithm]:
                seen["served"][algorithm].append(found)
        except Exception as error:
            seen["failures"].append(f"{'message' if sends else algorithm} {number}: {type(error).__name__}: {error}")
        else:
            seen["messages" if sends else "handshakes"] += 1
        time.sleep(PAUSE)


def main(file: Path, servers: dict[str, str]) -> None:
    """Run the clients of all mail servers."""
    file.touch()
    seen: dict[str, Any] = {
        host: {"served": {name: [] for name in CIPHERS}, "handshakes": 0, "messages": 0, "failures": []}
        for host in servers
    }
    threads = [
        threading.Thread(target=client, args=(file, host, address, seen[host], sends))
        for host, address in servers.items()
        for sends in (False, True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:]))
