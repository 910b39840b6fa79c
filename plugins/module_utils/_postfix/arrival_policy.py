# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Postfix policy service: by how a message arrives, and from whom, it picks the instance that sends it on.

Installed on a gateway and started by spawn(8), which gives it the connection as standard input and
output. How a message arrived is known from the session alone; no header has a say.
Source: SMTPD_POLICY_README.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator

MAX_LINE = 8192
REFUSAL = "451 4.7.0 STARTTLS is required for this sender"


def answers(lines: Iterable[str], over_tls: str, enforced: str, senders: Collection[str]) -> Iterator[str]:
    """One answer for each request: attributes as C(name=value) lines, ended by an empty line.

    over_tls and enforced are FILTER destinations for mail that arrived over TLS, the latter for mail of the
    enforced sender domains. Those are exact: Postfix asks for their subdomains, too.
    """
    protocol = domain = ""
    whole = True
    for line in lines:
        beginning, whole = whole, line.endswith("\n")
        if not beginning:
            continue
        name, _, value = line.rstrip("\n").partition("=")
        if name == "encryption_protocol":
            protocol = value
        elif name == "sender":
            domain = value.rpartition("@")[2].rstrip(".").lower()
        elif not name and not value:
            if domain in senders:
                yield f"action=FILTER {enforced}\n\n" if protocol else f"action={REFUSAL}\n\n"
            else:
                yield f"action=FILTER {over_tls}\n\n" if protocol else "action=DUNNO\n\n"
            protocol = domain = ""


def sender_domains(path: str) -> frozenset[str]:
    """The keys of the access(5) table of enforced sender domains; none if there is no such file."""
    try:
        with open(path, encoding="utf-8") as table:  # noqa: PTH123
            return frozenset(line.split()[0] for line in table if line.strip() and not line.startswith("#"))
    except FileNotFoundError:
        return frozenset()


def main() -> None:
    """Serve the connection on standard input until it closes; the arguments are those of answers, a file as the last."""
    over_tls, enforced, path = sys.argv[1:4]
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    requests = iter(lambda: sys.stdin.readline(MAX_LINE), "")
    for answer in answers(requests, over_tls, enforced, sender_domains(path)):
        sys.stdout.write(answer)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
