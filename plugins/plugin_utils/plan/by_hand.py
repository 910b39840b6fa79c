# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps that people make by hand: the gateway is somebody else's service, so nothing of it is in the inventory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import DEFAULT_MODE, LEVELS
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.variables import listed

CONFIRMED = "starttls_confirmed"
QUESTION = "Made by hand"
"""What the surveys of AWX call it."""

OFF = "_off"
STEPS_BY_HAND = ("modes", f"modes{OFF}")
"""The steps that somebody may have to make by hand. On the way back a step has a word of its own: C(modes) may stay in an inventory,
and must not say that the gateway delivers in plaintext again."""


def confirmed_by(facts: Mapping[str, Any]) -> frozenset[str]:
    """Return the steps that were made by hand, as the variables of a host say. Raises EngineError."""
    given = frozenset(map(str, listed(facts.get(CONFIRMED))))
    for one in sorted(given - set(STEPS_BY_HAND)):
        raise EngineError(f"{CONFIRMED}: {one!r} is no step that is made by hand; there is: {', '.join(STEPS_BY_HAND)}")
    return given


def step_of(word: str) -> str:
    """Return the step of a run that a word of C(STEPS_BY_HAND) confirms."""
    return word.removesuffix(OFF)


def what_by_hand(steps: Mapping[str, Any]) -> str:
    """Return what is to be done by hand now, and how the run goes on then. steps: C(by_hand) of a plan."""
    lines = [str(line) for some in steps.values() for line in some]
    return (
        f"Now {'; '.join(lines)}, at the gateway that is not in the inventory. Then run this again with {go_on(steps)}"
    )


def go_on(steps: Iterable[str]) -> str:
    """Return the option with which a run goes on after steps that were made by hand, and the answer in AWX, which takes no option."""
    return f"-e '{json.dumps({CONFIRMED: list(steps)})}' (in AWX: choose it at '{QUESTION}')"


def by_hand(estate: Estate, action: str) -> dict[str, tuple[str, ...]]:
    """Return what has to be set at a gateway that is not in the inventory, a line each. estate: with the modes that it wants.

    The keys are the words that confirm it, see C(STEPS_BY_HAND).
    Only a mode that insists on TLS has to go before TLS is switched off: with the others, mail goes on in plaintext.
    """
    if action not in ("enable", "disable"):
        return {}
    lines = []
    for one in estate.deliveries:
        mode = one.config.delivery_mode
        if not one.names_mode or mode == DEFAULT_MODE or (action == "disable" and "required" not in LEVELS[mode]):
            continue
        wanted = mode if action == "enable" else DEFAULT_MODE
        lines.append(
            f"set the delivery mode of the email config {one.config.name} ({', '.join(one.config.domains)}) to '{wanted}'"
        )
    return {"modes" if action == "enable" else f"modes{OFF}": tuple(lines)} if lines else {}
