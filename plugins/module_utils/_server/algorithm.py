# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate that a listener serves to a client of one algorithm, where it speaks TLS 1.3 alone.

In TLS 1.2 the cipher suite says which kind of key the certificate has. In TLS 1.3 only the signature algorithms of the client do, and
Python's ssl cannot set them. The host's program openssl can. Without it the result is "not tested", which is neither good nor bad.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.openssl import PROGRAM_PATH
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    NOT_TESTED,
    Handshake,
    Settings,
    Target,
)

_RSA = ":".join(f"RSA-PSS+SHA{bits}" for bits in (256, 384, 512))
_ECDSA = ":".join(f"ECDSA+SHA{bits}" for bits in (256, 384, 512))
_SIGNATURES = {"rsa": _RSA, "ecdsa": _ECDSA, "ec": _ECDSA, "ed25519": "ed25519", "ed448": "ed448"}
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\r?\n[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----\r?\n")
_SECONDS = 10.0  # on a busy machine a program needs longer than a handshake
_ONLY_NEWER = "protocol version"


def or_in_tls13(seen: Handshake, kind: str, settings: Settings, usual: Callable[[], Handshake]) -> Handshake:
    """Return a test that takes one algorithm in TLS 1.2; if TLS failed there, that in TLS 1.3, if it does not fail as well.

    kind: rsa, ecdsa (also EC), Ed25519 or Ed448. usual: makes the test of a client that takes all.
    """
    if seen.completed or seen.code != "tls_failed" or kind.lower() not in _SIGNATURES:
        return seen
    program = shutil.which("openssl", path=PROGRAM_PATH)
    if not program:
        return _untested(seen, "the program openssl is not there to ask for one")
    try:
        chain = _asked(program, seen.target, _SIGNATURES[kind.lower()], max(settings.timeout, _SECONDS))
    except (OSError, subprocess.TimeoutExpired) as error:
        return _untested(seen, f"openssl could not ask for one ({type(error).__name__})")
    if not chain:
        return seen
    other = usual()
    return replace(other, chain=chain) if other.completed else other


def _untested(seen: Handshake, why: str) -> Handshake:
    if _ONLY_NEWER not in seen.message:
        return seen
    said = f"not tested: it speaks TLS 1.3 alone, where the cipher does not choose the algorithm, and {why}"
    return replace(seen, code=NOT_TESTED, message=said)


def _asked(program: str, target: Target, signatures: str, seconds: float) -> tuple[bytes, ...]:
    """Return the chain that is served to a client with these signature algorithms, as DER; none if the handshake fails."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    words = ["s_client", "-connect", f"{host}:{target.port}", "-tls1_3", "-sigalgs", signatures, "-showcerts"]
    words += ["-servername", target.name] if target.name else ["-noservername"]
    words += [] if target.protocol == "smtps" else ["-starttls", "smtp"]
    made: subprocess.CompletedProcess[bytes] = subprocess.run(  # noqa: S603  (a target is checked: no word begins with a dash)
        [program, *words], input=b"QUIT\r\n", capture_output=True, timeout=seconds, check=False
    )
    blocks = _BLOCK.findall(made.stdout[: pem.MAX_BYTES]) if made.returncode == 0 else []
    try:
        return tuple(one.der for one in pem.certificates(pem.split(b"".join(blocks)))) if blocks else ()
    except pem.PemError:
        return ()
