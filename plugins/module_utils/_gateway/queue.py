# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mail that waits on a gateway. A route is taken out only when nothing waits for it any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import spellings
from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Waiting, domain_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import QUEUE_NAMED_MESSAGES

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState

PAUSE_SECONDS = 1.0
"""Between two looks at a queue."""


def names_of(domains: Iterable[str]) -> frozenset[str]:
    """Return every spelling of the domains, to compare the domain of a recipient with."""
    return frozenset(name for domain in domains for name in spellings(domain))


def lost_domains(before: GatewayState, after: GatewayState) -> tuple[str, ...]:
    """Return the recipient domains that were in an email config and are in none any more."""
    kept = {domain for one in after.email_configs.values() for domain in one.domains}
    return tuple(domain for one in before.email_configs.values() for domain in one.domains if domain not in kept)


def told(found: Sequence[Waiting]) -> str:
    """Return the messages in words, some of them by name."""
    more = len(found) - QUEUE_NAMED_MESSAGES
    listed = "; ".join(map(str, found[:QUEUE_NAMED_MESSAGES]))
    return f"{listed}{f'; and {more} more' if more > 0 else ''}"


def look_twice(look: Callable[[], Sequence[Waiting]]) -> Sequence[Waiting]:
    """Return what waits. A daemon moves a message while its queue is listed, so only two empty lists mean that it is empty."""
    return look() or look()


def wait_until_empty(look: Callable[[], Sequence[Waiting]], what: str, seconds: float) -> None:
    """Wait until nothing waits. Raises EngineError, which names the messages, if something still waits after these seconds.

    what: names what would be taken out, as the subject of a sentence.
    """
    deadline = time.monotonic() + seconds
    while found := look_twice(look):
        if time.monotonic() >= deadline:
            raise EngineError(
                f"{what} is not taken out, because mail still waits for it after {seconds:g} s: {told(found)}. Repair the mail server "
                "and have the gateway try again, or remove these messages; then run again. queue_timeout (starttls_queue_timeout in an "
                "inventory) says how long a run waits"
            )
        time.sleep(min(PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))


def refuse_earlier(look: Callable[[], Sequence[Waiting]], moment: float) -> None:
    """Raise EngineError if a message waits that arrived before this moment (seconds since the epoch), or nobody knows when."""
    if found := [one for one in look() if one.arrived is None or one.arrived < moment]:
        raise EngineError(f"mail came in while its route was taken out: {told(found)}. Run again")


class MailOfARoute:
    """Mail for domains that lose their way in a change. It would take another way. what: names the way."""

    def __init__(self, look: Callable[[], Sequence[Waiting]], what: str) -> None:
        self._look, self._what = look, what

    def wait(self, seconds: float) -> None:
        """Wait until nothing waits. Raises EngineError."""
        wait_until_empty(self._look, self._what, seconds)

    def warnings(self, seconds: float) -> list[str]:
        """Return what a real run would wait for now."""
        found = look_twice(self._look)
        return [f"{self._what}: mail waits for it, and a run waits up to {seconds:g} s: {told(found)}"] if found else []

    def refuse_earlier(self, moment: float) -> None:
        """See refuse_earlier()."""
        refuse_earlier(self._look, moment)


def of_domains(found: Iterable[Waiting], domains: Collection[str]) -> list[Waiting]:
    """Return the messages for recipients in these domains."""
    names = names_of(domains)
    return [one for one in found if domain_of(one.recipient) in names]
