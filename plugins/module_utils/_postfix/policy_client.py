# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a policy service of Postfix, as smtpd(8) does. What answers is what is installed, whoever has written it.

Source: SMTPD_POLICY_README.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import printable_bytes
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

ANSWER_SECONDS = 5.0
"""How long all answers together may take."""
MAX_ANSWER = 4096
_COMMON = {"request": "smtpd_access_policy", "protocol_state": "RCPT"}


def ask(path: str, questions: Sequence[Mapping[str, str]], seconds: float = ANSWER_SECONDS) -> list[str]:
    """Return the action that the service on a socket answers to each question. questions: attributes, in ASCII.

    Raises EngineError if it does not answer, or not as a policy service.
    """
    deadline = time.monotonic() + seconds
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as session:
            session.settimeout(seconds)
            session.connect(path)
            return [_answer(session, one, deadline) for one in questions]
    except socket.timeout as error:  # no OSError with a reason in Python 3.9
        raise EngineError(f"it does not answer within {seconds:g} seconds") from error
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror or error}") from error


def _answer(session: socket.socket, question: Mapping[str, str], deadline: float) -> str:
    lines = "".join(f"{name}={value}\n" for name, value in {**_COMMON, **question}.items())
    session.sendall(f"{lines}\n".encode("ascii"))
    answer = b""
    while not answer.endswith(b"\n\n"):
        session.settimeout(max(0.01, deadline - time.monotonic()))
        part = session.recv(MAX_ANSWER)
        answer += part
        if not part or len(answer) > MAX_ANSWER:
            said = printable_bytes(answer[:200])
            raise EngineError(f"it answers {said!r}" if said else "it ends the session without an answer")
    first = answer.split(b"\n", 1)[0]
    if not first.startswith(b"action="):
        raise EngineError(f"it answers {printable_bytes(first[:200])!r}")
    return printable_bytes(first[len(b"action=") :][:200])
