# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The handshake test for evidence and proofs: a server that has too much to do is asked once more, and that is told.

Its answer says nothing about TLS. Postfix says "421 4.7.0 ... too many connections", or does not greet while all its processes
are busy; postscreen says "421 4.3.2 All server ports are busy"; Exim says "421 Too many concurrent SMTP connections".
Sources: smtpd(8), postscreen(8), the Exim specification (smtp_accept_max).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import handshake
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Settings, Target

PAUSE = 5.0
"""Seconds before a busy server is asked again."""

_BUSY = re.compile(
    r"(?<![0-9.])4[25][0-9][ ,].*(?:too many|busy|overload|load average|system load|try again later)",
    re.IGNORECASE | re.DOTALL,
)
_REFUSALS = ("greeting_rejected", "ehlo_rejected", "starttls_refused", "ehlo_tls_rejected")


def says_busy(text: str) -> bool:
    """Whether a server's refusal says that it has too much to do: a temporary one, with such words."""
    return bool(_BUSY.search(text))


def is_busy(code: str, stage: str, message: str) -> bool:
    """Whether a test failed because the server was busy. The arguments are those of the result of a test as plain data."""
    if code == "timeout":  # it took the connection, and did not greet
        return stage == Stage.CONNECT.label and message.endswith(f"after {Stage.CONNECT.label}")
    return code in _REFUSALS and says_busy(message)


def told(target: object, first: str, second: str) -> str:
    """Return the sentence about a server that was asked twice. first: its answer; second: the one after that, empty for success."""
    end = f"was answered with: {second}" if second else "went well"
    return f"{target} was busy ({first}), so the test was made again after {PAUSE:g} s, which {end}"


def handshake_all(targets: Sequence[Target], settings: Settings) -> list[Handshake]:
    """Test every target as handshake.handshake_all does, those that are busy twice. settings.told gets a sentence for each."""
    seen = handshake.handshake_all(targets, settings)
    busy = [number for number, one in enumerate(seen) if _is_busy(one)]
    if busy:
        time.sleep(PAUSE)
        again = handshake.handshake_all([targets[number] for number in busy], settings)
        for number, second in zip(busy, again):
            settings.told.append(
                told(targets[number], seen[number].message, second.message if _is_busy(second) else "")
            )
            seen[number] = second
    return seen


def handshake_one(target: Target, settings: Settings) -> Handshake:
    """Test a single target as handshake_all does."""
    return handshake_all([target], settings)[0]


def wait_until(
    condition: Callable[[Handshake], bool],
    target: Target,
    settings: Settings,
    seconds: float,
    ended: Callable[[], bool] = lambda: False,
) -> Handshake:
    """Repeat the test as handshake.wait_until does. If the server is busy at the end, wait once more, and tell."""
    seen = handshake.wait_until(condition, target, settings, seconds, ended)
    if condition(seen) or not _is_busy(seen):
        return seen
    time.sleep(PAUSE)
    again = handshake.wait_until(condition, target, settings, seconds, ended)
    settings.told.append(told(target, seen.message, again.message if _is_busy(again) else ""))
    return again


def bytes_of(answer: object) -> bytes:
    """Return the text of an answer as smtplib gives it, which is bytes or a string."""
    return answer if isinstance(answer, bytes) else str(answer).encode("utf-8", "replace")


def _is_busy(seen: Handshake) -> bool:
    return is_busy(seen.code, seen.stage.label, seen.message)
