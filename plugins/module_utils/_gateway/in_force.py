# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a gateway's daemon still does what the collection noted: somebody may have edited its configuration since.

An answer is true, false (what it takes is gone), or None (it cannot be told). A fault says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState

Answers = Mapping[str, Mapping[str, Optional[bool]]]
DIFFERS = "gateway_differs"
NOT_TOLD = "gateway_not_told"
UNPROVED = "gateway_unproved"
"""Codes of faults: the daemon does something else; it cannot be told what it does; the same where TLS was promised."""
REPLACED = "gateway_record_replaced"
EDITED = "gateway_files_edited"
"""The record, or other files of the collection's own, are not as its last change left them."""
_ERRORS = (DIFFERS, UNPROVED, REPLACED)
WHOLE = "gateway"
"""In C(what): the gateway as a whole."""


@dataclass(frozen=True)
class Fault:
    """Where the daemon of a gateway does not do what the record says, or where that cannot be told.

    what: C(email config NAME), C(inbound DOMAIN), C(outbound DOMAIN), C(accept), C(send) or WHOLE. code: DIFFERS, NOT_TOLD, or another
    code of the catalogue of findings. message: the cause, without the advice.
    """

    what: str
    code: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Return plain data, with the severity of the code."""
        return {**asdict(self), "severity": "error" if self.code in _ERRORS else "warning"}


@dataclass(frozen=True)
class Flaw:
    """Why a part of a way is not as it was set. code: DIFFERS or NOT_TOLD."""

    code: str
    text: str


def of_config(name: str) -> str:
    """Return how an email config is named in C(what)."""
    return f"email config {name}"


def promises(state: GatewayState, what: str) -> bool:
    """Return whether TLS was promised there, so that what cannot be told is an error: mail may leave in plaintext unseen."""
    modes = {of_config(name): one.delivery_mode for name, one in state.email_configs.items()}
    if state.outbound and state.outbound.send:
        modes["send"] = state.outbound.send
    promised = {name for name, mode in modes.items() if mode not in ("plaintext", "opportunistic")}
    if state.outbound and state.outbound.accept == "tls_only":
        promised.add("accept")
    promised |= {f"{one.direction} {one.domain}" for one in state.enforced}
    return bool(promised) if what == WHOLE else what in promised


def every(*answers: Optional[bool]) -> Optional[bool]:
    """Return false if one of them is, else None if one of them is, else true."""
    return False if False in answers else None if None in answers else True


def as_written(content: Optional[bytes], wanted: str, lines: Iterable[str]) -> Optional[bool]:
    """Return whether a file has these lines: true if it is as the collection writes it, None if there is other text as well."""
    text = (content or b"").decode("utf-8", "replace")
    if text == wanted:
        return True
    held = text.splitlines()
    return None if all(one.rstrip("\n") in held for one in lines) else False
