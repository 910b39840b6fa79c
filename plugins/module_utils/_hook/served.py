# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which certificate a listener serves, also by algorithm: with several on a listener, what the client can do decides."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ansible_collections.mailfleet.starttls.plugins.module_utils._server.algorithm import or_in_tls13
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import patience
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Settings,
    Target,
    Trust,
    full_test,
    make_context,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.wire import drive

_CIPHERS = {"RSA": "aRSA:!kRSA", "EC": "aECDSA", "Ed25519": "aECDSA", "Ed448": "aECDSA"}
"""Kind of key -> cipher suites of TLS 1.2 that need a certificate with one. In TLS 1.3 a suite does not say it."""


class Question(NamedTuple):
    """A listener, and the kind of key of the certificate that is asked for; empty to take what the listener chooses."""

    target: Target
    algorithm: str = ""

    def __str__(self) -> str:
        """Return it for a message."""
        kind = f" ({self.algorithm})" if self.algorithm else ""
        return f"{'implicit TLS on ' if self.target.protocol == 'smtps' else ''}{self.target}{kind}"


class _Asking(Trust):
    """Offers only what one kind of key can sign."""

    def __init__(self, settings: Settings, ciphers: str) -> None:
        super().__init__(settings)
        self._ciphers = ciphers

    @functools.cached_property
    def lax(self) -> ssl.SSLContext:
        context = make_context(None, verify=False)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(self._ciphers)
        return context


def _usual(target: Target, settings: Settings) -> Handshake:
    return patience.handshake_one(target, settings)


def ask(questions: Sequence[Question], settings: Settings) -> Mapping[Question, Handshake]:
    """Make a handshake for each question. A fault of a listener is in its result."""
    settings = replace(settings, verify_trust=False)
    plain = [one for one in questions if not one.algorithm]
    seen = dict(zip(plain, patience.handshake_all([one.target for one in plain], settings))) if plain else {}
    for algorithm in dict.fromkeys(one.algorithm for one in questions if one.algorithm):
        asked = [one for one in questions if one.algorithm == algorithm]
        trust = _Asking(settings, _CIPHERS.get(algorithm, "DEFAULT"))
        found: dict[int, Handshake] = {}

        def deliver(index: int, result: tuple[Handshake, object], found: dict[int, Handshake] = found) -> None:
            found[index] = result[0]

        tasks = ((one.target, full_test(one.target, settings, trust)) for one in asked)
        drive(tasks, settings.limits, deliver)
        for number, one in enumerate(asked):
            usual = functools.partial(_usual, one.target, settings)
            seen[one] = or_in_tls13(found[number], algorithm, settings, usual)
    return seen
