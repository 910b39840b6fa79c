# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of some TLS versions servers agree on, asked by hand-made hellos: no TLS library has to know the old ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Settings, Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.raw_session import VersionSession
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.wire import Task, drive

TESTED = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
"""The versions that a hello can offer."""


def versions_of(
    targets: Sequence[Target], versions: Sequence[str], settings: Settings
) -> list[dict[str, Optional[bool]]]:
    """Return for each target which versions it agrees on; None where the test could not tell."""
    found: list[dict[str, Optional[bool]]] = [{} for _one in targets]

    def deliver(place: int, result: dict[str, Optional[bool]]) -> None:
        found[place] = result

    drive(((one, _asked(one, versions, settings)) for one in targets), settings.limits, deliver)
    return found


def _asked(target: Target, versions: Sequence[str], settings: Settings) -> Task[dict[str, Optional[bool]]]:
    """Ask one server, one connection after the other."""
    found: dict[str, Optional[bool]] = {}
    for version in versions:
        session = VersionSession(target, settings, version)
        ended = yield session
        found[version] = session.result(ended.seconds, ended.error).offered
    return found
