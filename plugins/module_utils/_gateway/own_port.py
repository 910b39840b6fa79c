# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proofs at a gateway's own port, for every gateway that listens on this host."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage, printable_bytes
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Settings,
    Target,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.patience import (
    PAUSE,
    bytes_of,
    handshake_one,
    says_busy,
    told,
    wait_until,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

if TYPE_CHECKING:
    from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import GatewayState


def require_answer(own_port: Target, settings: Settings) -> None:
    """Raise EngineError unless the gateway answers EHLO now."""
    seen = handshake_one(own_port, settings)
    if seen.stage < Stage.EHLO:
        raise EngineError(
            f"the gateway does not answer on {own_port} ({seen.message}); name the address and port it "
            "listens on, because a change that cannot be proved is not made"
        )


def prove_answer(port: Target, settings: Settings, ended: Callable[[], bool] = lambda: False) -> None:
    """Raise EngineError unless the gateway answers EHLO within the timeout. ended: see wait_until."""
    seen = wait_until(lambda now: now.stage >= Stage.EHLO, port, settings, settings.timeout, ended)
    if seen.stage < Stage.EHLO:
        raise EngineError(f"the gateway does not answer on {port} after the change: {seen.message}")


def prove_refusal(own_port: Target, settings: Settings, state: GatewayState, recipient: str) -> str:
    """Return the words with which the gateway defers plaintext mail of an enforced sender domain; empty without such a domain.

    Raises EngineError unless it defers that mail within the timeout.
    """
    domain = next((one.domain for one in state.enforced if one.direction == "inbound"), None)
    if domain is None:
        return ""
    deadline = time.monotonic() + settings.timeout
    while True:  # a process from before the reload may still answer
        try:
            code, text = ask(own_port, settings, f"postmaster@{domain}", recipient)
        except EngineError:  # while Exim starts itself anew, nobody listens
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)
            continue
        if 400 <= code < 500:  # another restriction may defer the mail first
            return f"{code} {text}"
        if time.monotonic() >= deadline:
            raise EngineError(
                f"the gateway answers mail from {domain} in plaintext with {code} {text}; see which restriction comes "
                "before the collection's"
            )
        time.sleep(0.1)


def ask(own_port: Target, settings: Settings, sender: str, recipient: str) -> tuple[int, str]:
    """Return the answer to RCPT in a session without TLS, or the answer to MAIL if that is refused.

    Raises EngineError if the session fails. A gateway that is busy is asked once more.
    """
    try:
        return _ask(own_port, settings, sender, recipient)
    except EngineError as error:
        if not says_busy(str(error)):
            raise
        first = str(error)
    time.sleep(PAUSE)
    answer = _ask(own_port, settings, sender, recipient)
    settings.told.append(told(own_port, first, ""))
    return answer


def _ask(own_port: Target, settings: Settings, sender: str, recipient: str) -> tuple[int, str]:
    try:
        with smtplib.SMTP(own_port.host, own_port.port, settings.helo_name or None, settings.timeout) as session:
            session.ehlo()
            code, text = session.mail(sender)
            if code < 400:
                code, text = session.rcpt(recipient)
    except smtplib.SMTPConnectError as error:
        said = f"{error.smtp_code} {printable_bytes(bytes_of(error.smtp_error))}"
        raise EngineError(f"the gateway does not take {recipient}: {said}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise EngineError(f"the gateway does not take {recipient}: {error}") from error
    return code, printable_bytes(text)
