"""Writes mail logs as a busy server would, and knows what has to be counted from them.

    mail_log.py postfix|exim MEGABYTES FILE

The lines are those of Postfix 3.10 and Exim 4.98 with Debian's settings, many sessions at a time between each other, and those
of other programs, for which nothing has to be counted.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

BEGIN = 1767225600  # 2026-01-01T00:00:00Z
CIPHERS = (("TLSv1.3", "TLS_AES_256_GCM_SHA384"), ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"))
GNUTLS = (
    ("TLSv1.3", "ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM"),
    ("TLSv1.2", "ECDHE_SECP256R1__RSA_SHA256__AES_256_GCM"),
)
DOMAINS = 400


class Writer:
    """A log that is written line by line; truth counts what its lines mean."""

    def __init__(self, path: Path, seed: int, head: Callable[[float], str]) -> None:
        self.random = random.Random(seed)
        self.truth: Counter[str] = Counter()
        self.now = float(BEGIN)
        self.size = 0
        self._head = head
        self._file = path.open("w", encoding="ascii", buffering=1 << 20)
        self._pid = 1000
        self._id = 0

    def line(self, text: str) -> None:
        self.now += self.random.random() * 0.02
        whole = f"{self._head(self.now)} {text}\n"
        self._file.write(whole)
        self.size += len(whole)

    def pid(self) -> int:
        self._pid = self._pid % (1 << 22) + 1
        return self._pid

    def identity(self) -> int:
        self._id += 1
        return self._id

    def domain(self) -> str:
        """Few domains have most of the mail."""
        return f"d{min(int(self.random.paretovariate(0.6)), DOMAINS)}.example.com"

    def address(self) -> str:
        return f"198.51.{self.random.randrange(100, 200)}.{self.random.randrange(1, 255)}"

    def run(self, size: int, tasks: Callable[[], Iterator[None]], at_once: int = 20) -> None:
        """Work on many tasks in turn until the log has its size; then end those that have begun."""
        open_tasks: list[Iterator[None]] = []
        while self.size < size or open_tasks:
            if self.size < size and len(open_tasks) < at_once:
                open_tasks.append(tasks())
            at = self.random.randrange(len(open_tasks))
            if next(open_tasks[at], self) is self:
                del open_tasks[at]
        self._file.close()


def postfix_log(path: Path, size: int, seed: int = 1) -> Counter[str]:
    """Write a log of Postfix of about size bytes and return what its messages and sessions are."""

    def head(now: float) -> str:
        return datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="microseconds") + " mx1"

    log = Writer(path, seed, head)
    chance = log.random.random

    def arrival() -> Iterator[None]:
        domain, address, pid, qid = log.domain(), log.address(), log.pid(), f"4{log.identity():09X}"
        client = f"mail.{domain}[{address}]"
        smtpd = f"postfix/smtpd[{pid}]"
        log.line(f"{smtpd}: connect from {client}")
        yield
        kind = chance()
        if kind < 0.03:
            log.line(f"{smtpd}: SSL_accept error from {client}: -1")
            log.line(
                f"{smtpd}: warning: TLS library problem: error:0A0000C1:SSL routines::no shared cipher:"
                "../ssl/statem/statem_srvr.c:2361:"
            )
            log.line(f"{smtpd}: NOQUEUE: lost connection after STARTTLS from {client}")
            log.line(f"{smtpd}: disconnect from {client} ehlo=1 starttls=0/1 commands=1/2")
            log.truth["inbound failures"] += 1
            return
        if kind < 0.05:
            log.line(
                f"{smtpd}: NOQUEUE: reject: RCPT from {client}: 451 4.7.0 <a@{domain}>: Sender address rejected: STARTTLS is required "
                f"for this sender; from=<a@{domain}> to=<you@example.net> proto=ESMTP helo=<mail.{domain}>"
            )
            log.line(f"{smtpd}: disconnect from {client} ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4")
            log.truth["inbound refusals"] += 1
            log.truth["inbound sessions_plaintext"] += 1
            return
        tls = kind < 0.85
        if tls:
            version, cipher = CIPHERS[chance() < 0.2]
            log.line(
                f"{smtpd}: Anonymous TLS connection established from {client}: {version} with cipher {cipher} (256/256 bits) "
                "key-exchange x25519 server-signature ECDSA (prime256v1) server-digest SHA256"
            )
        yield
        log.line(f"{smtpd}: {qid}: client={client}")
        yield
        log.line(f"postfix/cleanup[{pid + 40000}]: {qid}: message-id=<{qid}.{pid}@{domain}>")
        log.line(f"opendkim[712]: {qid}: DKIM-Signature field added (s=mail, d={domain})")
        yield
        log.line(f"postfix/qmgr[700]: {qid}: from=<sender{pid}@{domain}>, size=4821, nrcpt=1 (queue active)")
        yield
        log.line(
            f"{smtpd}: disconnect from {client} ehlo={1 + tls}{' starttls=1' * tls} mail=1 rcpt=1 data=1 quit=1 commands={5 + 2 * tls}"
        )
        log.truth["inbound messages_tls" if tls else "inbound messages_plaintext"] += 1
        log.truth["inbound sessions_tls" if tls else "inbound sessions_plaintext"] += 1
        yield
        yield from sending(qid)

    def sending(qid: str) -> Iterator[None]:
        domain, address, pid = log.domain(), log.address(), log.pid()
        relay = f"mx.{domain}[{address}]:25"
        smtp = f"postfix/smtp[{pid}]"
        kind = chance()
        rest = "delay=0.51, delays=0.1/0.01/0.2/0.2, dsn="
        if kind < 0.04:
            log.line(
                f"{smtp}: {qid}: to=<you@{domain}>, relay={relay}, {rest}4.7.4, status=deferred (TLS is required, but was not "
                f"offered by host mx.{domain}[{address}])"
            )
            log.truth["outbound deferrals"] += 1
            return
        if tls := kind < 0.9:
            version, cipher = CIPHERS[chance() < 0.2]
            log.line(
                f"{smtp}: Trusted TLS connection established to {relay}: {version} with cipher {cipher} (256/256 bits) "
                "key-exchange x25519 server-signature RSA-PSS (2048 bits) server-digest SHA256"
            )
            yield
        log.line(
            f"{smtp}: {qid}: to=<you@{domain}>, relay={relay}, {rest}2.0.0, status=sent (250 2.0.0 Ok: queued as {pid:X}1C26F7)"
        )
        log.truth["outbound messages_tls" if tls else "outbound messages_plaintext"] += 1
        log.truth["outbound sessions_tls" if tls else "outbound sessions_plaintext"] += 1
        yield
        log.line(f"postfix/qmgr[700]: {qid}: removed")

    log.run(size, arrival)
    return log.truth


def exim_log(path: Path, size: int, seed: int = 1) -> Counter[str]:
    """Write a log of Exim of about size bytes and return what its messages and sessions are."""

    def head(now: float) -> str:
        return datetime.fromtimestamp(now).strftime("%Y-%m-%d %H:%M:%S")

    log = Writer(path, seed, head)
    chance = log.random.random

    def arrival() -> Iterator[None]:
        domain, address, number = log.domain(), log.address(), log.identity()
        client = f"mail.{domain} [{address}]"
        kind = chance()
        if kind < 0.03:
            log.line(
                f"TLS error on connection from {client} (gnutls_handshake): No supported cipher suites have been found."
            )
            log.truth["inbound failures"] += 1
            return
        if kind < 0.05:
            log.line(
                f"H={client} temporarily rejected MAIL <a@{domain}>: 451 4.7.0 STARTTLS is required for this sender"
            )
            log.truth["inbound refusals"] += 1
            return
        tls = kind < 0.85
        version, cipher = GNUTLS[chance() < 0.2]
        used = f"esmtps X={version.replace('v', '')}:{cipher}:256 CV=no" if tls else "esmtp"
        message = f"1xVuMA-{number:011d}-{number % 10000:04d}"
        log.line(f"{message} <= sender{number}@{domain} H={client} P={used} S=4821 id={number}.x@{domain}")
        log.truth["inbound messages_tls" if tls else "inbound messages_plaintext"] += 1
        log.truth["inbound sessions_tls" if tls else "inbound sessions_plaintext"] += 1
        yield
        domain, address = log.domain(), log.address()
        route = f"you@{domain} R=dnslookup T=remote_smtp"
        kind = chance()
        if kind < 0.04:
            reason = "a TLS session is required, but the server did not offer TLS support"
            log.line(f"{message} H=mx.{domain} [{address}]: {reason}")
            log.line(f"{message} == {route} defer (-38) H=mx.{domain} [{address}]: {reason}")
            log.truth["outbound deferrals"] += 1
            return
        used = f' X={version.replace("v", "")}:{cipher}:256 CV=yes DN="CN=mx.{domain}"' if kind < 0.9 else ""
        log.line(
            f'{message} => {route} H=mx.{domain} [{address}]{used} K C="250 2.0.0 Ok: 4821 bytes queued as {number:X}C200C"'
        )
        log.truth["outbound messages_tls" if used else "outbound messages_plaintext"] += 1
        log.truth["outbound sessions_tls" if used else "outbound sessions_plaintext"] += 1
        log.line(f"{message} Completed")

    log.run(size, arrival)
    return log.truth


WRITERS = {"postfix": postfix_log, "exim": exim_log}

if __name__ == "__main__":
    for counted, times in sorted(WRITERS[sys.argv[1]](Path(sys.argv[3]), int(sys.argv[2]) << 20).items()):
        print(f"{counted}: {times}")
