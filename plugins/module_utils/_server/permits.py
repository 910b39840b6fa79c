# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which TLS versions the listeners and transports of a mail server permit, by its configuration. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

TLS_ORDER = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
"""All versions, from the oldest on, with the names that OpenSSL and Postfix have for them."""


_SHOWN = 5


def older_than(floor: str) -> tuple[str, ...]:
    """Return the versions below a floor, from the oldest on."""
    return TLS_ORDER[: TLS_ORDER.index(floor)]


@dataclass(frozen=True)
class Permit:
    """What one listener or transport permits.

    oldest: the oldest version; None if it cannot be told, empty if it permits none. advice: how an administrator changes that.
    """

    name: str
    oldest: Optional[str]
    advice: str = ""

    def is_below(self, floor: str) -> bool:
        """Whether it permits an older version than the floor, as far as that can be told."""
        return self.oldest in older_than(floor)


@dataclass(frozen=True)
class Permits:
    """Both sides of a mail server. notes: sentences on what cannot be told, such as a table that cannot be listed."""

    inbound: tuple[Permit, ...] = ()
    outbound: tuple[Permit, ...] = ()
    notes: tuple[str, ...] = ()


def raised(before: Sequence[Permit], after: Sequence[Permit], floor: str) -> bool:
    """Whether a change takes older versions than the floor from one of the listeners or transports."""
    low = {one.name for one in before if one.is_below(floor)}
    return any(one.name in low and not one.is_below(floor) for one in after)


def below(after: Sequence[Permit], floor: str) -> list[str]:
    """Return a sentence on the listeners and transports that the floor does not hold for, or for which that cannot be told.

    Those with one advice have one sentence.
    """
    alike: dict[tuple[Optional[str], str], list[str]] = {}
    for one in after:
        if one.is_below(floor) or one.oldest is None:
            alike.setdefault((one.oldest, one.advice), []).append(one.name)
    found = []
    for (oldest, advice), names in alike.items():
        said = f"{', '.join(names[:_SHOWN])}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}"
        if oldest is None:
            said = f"it cannot be told which TLS versions are permitted by {said}"
        else:
            said = f"{said} {'goes' if len(names) == 1 else 'go'} on to permit {oldest}, which is older than {floor}"
        found.append(f"{said}; {advice}" if advice else said)
    return found
