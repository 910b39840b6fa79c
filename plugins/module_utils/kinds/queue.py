# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queues that can be read, one entry for each product. A function loads its product when it is called."""

# ruff: noqa: PLC0415  (a product is loaded when it is used)

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import (
    AUTO,
    PRODUCTS,
    known_product,
    layout_of,
    resolve,
)

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner
    from ansible_collections.mailfleet.starttls.plugins.module_utils._host.waiting import Queue

QueueMaker = Callable[["Runner"], "Queue"]


def _postfix(run: Runner) -> Queue:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.queue import PostfixQueue

    return PostfixQueue(run, layout_of("postfix"))


def _exim(run: Runner) -> Queue:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.layout import with_program
    from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.queue import EximQueue

    return EximQueue(with_program(run, layout_of("exim")))


QUEUES: dict[str, QueueMaker] = {"postfix": _postfix, "exim": _exim}
"""Kind -> the function that makes the reader of its queues."""


def queue_of(kind: str, run: Runner) -> Queue:
    """Return the queues of this host's product; C(auto) detects it. Raises EngineError for a kind whose queue is not read."""
    if kind == AUTO:
        kind = resolve(kind, "server", "kind")
    title = known_product(kind, PRODUCTS, "kind").title
    if kind not in QUEUES:
        raise EngineError(
            f"the queue of {title} is not read by the collection; look at it with the product's own tools"
        )
    return QUEUES[kind](run)
