# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the program openssl of this host about a key or a certificate. OpenSSL 1.1.1 and newer have all options that are used."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import BinaryIO, Optional, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

_SECONDS = 10.0
PROGRAM_PATH = "/usr/bin:/usr/local/bin:/bin:/usr/sbin:/sbin"
"""Where programs of the host are looked for."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DATES = re.compile(r"notBefore=(.*)\nnotAfter=(.*)\n")


class NoOpensslError(EngineError):
    """The program openssl is not there, or cannot be asked: nothing is known of the key or certificate."""


def ask(words: Sequence[str], given: Union[BinaryIO, bytes], what: str) -> Optional[bytes]:
    """Return what openssl prints; None if it ends with an error. Raises NoOpensslError.

    given: its standard input, an open file or the bytes. what: names that in messages.
    """
    program = shutil.which("openssl", path=PROGRAM_PATH)
    if not program:
        raise NoOpensslError("the program openssl is not on the host; install the package openssl")
    try:
        done = subprocess.run(  # noqa: S603  (the words are fixed; what strangers made is its standard input)
            [program, *words],
            input=given if isinstance(given, bytes) else None,
            stdin=None if isinstance(given, bytes) else given,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoOpensslError(f"openssl cannot read {what}: {type(error).__name__}") from error
    return None if done.returncode else done.stdout


def moment(text: str) -> datetime:
    """Return a time as openssl prints it. Raises ValueError."""
    return _EPOCH + timedelta(seconds=ssl.cert_time_to_seconds(text))


def validity_of(der: bytes) -> Optional[tuple[datetime, datetime]]:
    """Return when a certificate begins and ends; None if that cannot be read. Raises NoOpensslError."""
    said = ask(["x509", "-inform", "DER", "-noout", "-dates"], der, "the certificate")
    found = _DATES.fullmatch((said or b"").decode("ascii", "replace"))
    try:
        return (moment(found[1]), moment(found[2])) if found else None
    except (ValueError, OverflowError):
        return None
