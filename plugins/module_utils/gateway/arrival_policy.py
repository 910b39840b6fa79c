# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Postfix policy service that sends mail that arrived over TLS to the gateway's second instance.

Installed on a gateway and started by spawn(8), which gives it the connection as standard input and
output. How a message arrived is known from the session alone; no header has a say.
Source: SMTPD_POLICY_README.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

MAX_LINE = 8192


def answers(lines: Iterable[str], destination: str) -> Iterator[str]:
    """One answer for each request: attributes as C(name=value) lines, ended by an empty line."""
    protocol = ""
    whole = True
    for line in lines:
        beginning, whole = whole, line.endswith("\n")
        if not beginning:
            continue
        name, _, value = line.rstrip("\n").partition("=")
        if name == "encryption_protocol":
            protocol = value
        elif not name and not value:
            yield f"action=FILTER {destination}\n\n" if protocol else "action=DUNNO\n\n"
            protocol = ""


def main() -> None:
    """Serve the connection on standard input until it closes; the argument is the FILTER destination."""
    requests = iter(lambda: sys.stdin.readline(MAX_LINE), "")
    for answer in answers(requests, sys.argv[1]):
        sys.stdout.write(answer)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
