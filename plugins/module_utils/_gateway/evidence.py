# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The handshakes of one call. Every part of a change asks here, so the same target is tested once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    Target,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import handshake_all


class Handshakes:
    """The handshakes that were made so far, with the settings of each."""

    def __init__(self, settings: Settings) -> None:
        """Prepare only. settings: those of every handshake, without the verification of certificates."""
        self._settings = replace(settings, verify_trust=False, verify_name=False)
        self._made: list[tuple[Settings, Handshake]] = []

    def of(self, targets: Iterable[Target], **wanted: Any) -> list[Handshake]:
        """Return a handshake with each target, in their order. wanted: fields of Settings that differ from the call's.

        An earlier handshake of the call is used if it shows all that is wanted. The others are made at the same time.
        """
        settings = replace(self._settings, **wanted)
        targets = list(targets)
        known = {seen.target: seen for made, seen in self._made if _shows(made, settings)}
        if missing := [one for one in dict.fromkeys(targets) if one not in known]:
            for seen in handshake_all(missing, settings):
                known[seen.target] = seen
                self._made.append((settings, seen))
        return [known[one] for one in targets]


def _shows(made: Settings, wanted: Settings) -> bool:
    """Whether a handshake with the first settings also answers what one with the second settings would."""
    if wanted.ask_plaintext and not made.ask_plaintext:
        return False
    if not wanted.verify_trust:
        return True
    return (made.verify_trust, made.verify_name, made.ca_pem) == (True, wanted.verify_name, wanted.ca_pem)
