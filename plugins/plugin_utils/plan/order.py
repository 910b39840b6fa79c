# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a step: sizes of the batches, and which host is in which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import PlanStep

DEFAULT_BATCHES = (1, "25%", "100%")


def one_by_one(hosts: Sequence[str]) -> PlanStep:
    """Return a step in which one host changes at a time."""
    return PlanStep(tuple(hosts), (1,) * len(hosts))


def in_batches(hosts: Sequence[str], batches: Sequence[Any], together: Sequence[Collection[str]]) -> PlanStep:
    """Return a step with a canary and growing batches.

    hosts: in the order of the inventory. batches: the value of starttls_batches. together: the mail servers of each email config. A
    host that would be the last one of an email config in a batch waits for a later one, so that no batch holds all of them; an email
    config with one mail server cannot be spared. A batch may be smaller than its size for that reason. Raises EngineError.
    """
    every = set(hosts)
    configs_of: dict[str, list[int]] = {host: [] for host in hosts}
    sizes = {number: len(one) for number, one in enumerate(map(set, together)) if len(one) > 1 and one <= every}
    for number in sizes:
        for host in set(together[number]):
            configs_of[host].append(number)
    left, order, counts = list(hosts), [], []
    for size in _sizes(batches, len(hosts)):
        if not left:
            break
        batch: list[str] = []
        waiting: list[str] = []
        held: Counter[int] = Counter()
        for place, host in enumerate(left):
            if len(batch) == size:
                waiting += left[place:]
                break
            if any(held[number] + 1 == sizes[number] for number in configs_of[host]):
                waiting.append(host)
                continue
            held.update(configs_of[host])
            batch.append(host)
        order += batch
        counts.append(len(batch))
        left = waiting
    return PlanStep(tuple(order), tuple(counts))


def _sizes(batches: Sequence[Any], hosts: int) -> Iterator[int]:
    """Yield the sizes of the batches for this many hosts. The last one is repeated without end."""
    given = [_size(one, hosts) for one in batches]
    if not given:
        raise EngineError("starttls_batches is empty; name the size of at least one batch, as in [1, '25%', '100%']")
    yield from given
    while True:
        yield given[-1]


def _size(given: Any, hosts: int) -> int:
    text = "" if isinstance(given, bool) else str(given).strip()
    match = re.fullmatch(r"([0-9]{1,6})(%?)", text)
    number = int(match[1]) if match else 0
    if match is None or number < 1:
        raise EngineError(
            f"starttls_batches: {given!r} is not the size of a batch; give a number of hosts from 1 on, or a share such as '25%'"
        )
    return max(1, hosts * number // 100) if match[2] else number
