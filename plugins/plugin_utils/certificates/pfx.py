# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate with its key as PKCS#12 (PFX), made in memory for Exchange. It is never written to a file."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import WantedCertificate


@dataclass(frozen=True)
class Pfx:
    """secrets: C(FileData) in base64 and C(Password), for the option secrets of exchange_cmdlets. certificate: what it holds."""

    certificate: WantedCertificate
    secrets: dict[str, str] = field(repr=False)


def make_pfx(bundle: str, encryption: str = "aes256", allow_ecc: bool = False) -> Pfx:
    """Return the PFX of a checked bundle (CheckedInputs.content: PEM with key, leaf and chain), with a random password.

    encryption: C(aes256), or C(tripledes) for Windows Server 2016. Raises EngineError for a key that Exchange does not take.
    """
    raise NotImplementedError


def encryption_for(windows: str) -> str:
    """Return the encryption that this version of Windows (C(10.0.17763)) reads. Raises EngineError if the version is not known."""
    raise NotImplementedError
