# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The targets that lead to the certificates of the bench's server. As a program, a line "ADDRESS PORT NAME" for each:

targets.py --count 1000 --port 25
"""

from __future__ import annotations

import argparse
import ipaddress
from dataclasses import dataclass

CERTIFICATES = 1000  # the server picks one by the address, so a cache of certificates helps nobody
FIRST_ADDRESS = int(ipaddress.IPv4Address("127.1.0.0"))


@dataclass(frozen=True)
class Address:
    """One target: an address of 127.0.0.0/8, the port, and the name on the certificate that is served there."""

    host: str
    port: int
    name: str

    def __str__(self) -> str:
        return f"{self.host} {self.port} {self.name}"


def certificate_name(number: int) -> str:
    """The DNS name on the certificate that the server takes for this address, as a number, or with this index."""
    return f"mx{number % CERTIFICATES:04d}.bench.test"


def make_targets(count: int, port: int) -> list[Address]:
    """Targets at consecutive addresses, each with the name that the server's choice of certificate goes by."""
    numbers = range(FIRST_ADDRESS, FIRST_ADDRESS + count)
    return [Address(str(ipaddress.IPv4Address(number)), port, certificate_name(number)) for number in numbers]


def main() -> None:
    """Print targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--port", type=int, default=25)
    arguments = parser.parse_args()
    print(*make_targets(arguments.count, arguments.port), sep="\n")


if __name__ == "__main__":
    main()
