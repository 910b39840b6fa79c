# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate that is on the host already, and is used from there. The controller judges it; the private key stays here.

Only public parts leave the host: the certificates, and the public key that C(openssl) computes from the private one.
"""

from __future__ import annotations

import base64
import errno
import os
import stat
from typing import Any, BinaryIO, Union

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.openssl import ask
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.paths import LOOK, place_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import ROOTS_BYTES


def seen_on_host(certificate: str, private_key: str, certificates: bool = True) -> dict[str, Any]:
    """Return what the controller needs to judge a certificate on this host. Nothing is raised.

    private_key: its own file; empty if it is in that of the certificate. The result has C(certificate) and C(private_key), the paths,
    C(pem), the certificates of the file, C(public_key), that of the private key as DER in base64, and C(message), why one of them
    could not be looked at; else empty. certificates: whether to look for them; false for a key alone.
    """
    seen = {
        "certificate": certificate,
        "private_key": private_key or certificate,
        "pem": "",
        "public_key": "",
        "message": "",
    }
    try:
        if certificates:
            with _opened(certificate) as file:
                blocks = pem.certificates(pem.split(file.read(pem.MAX_BYTES + 1)))
            seen["pem"] = pem.join(blocks)
        with _opened(seen["private_key"]) as file:
            seen["public_key"] = base64.b64encode(public_key_of(file, seen["private_key"])).decode("ascii")
    except (EngineError, pem.PemError) as error:
        seen["message"] = str(error)
    return seen


def opened(path: str) -> BinaryIO:
    """Return a file, open. It is a regular one, so nothing that reads it waits, also by its descriptor's path.

    No link of somebody else is followed on the way. Raises UntrustedPathError, and OSError with the path.
    """
    try:
        with place_of(path, LOOK) as place:
            fd = place.open()
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, path) from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, os.strerror(number) if number == errno.EISDIR else "it is no regular file", path)
    return os.fdopen(fd, "rb")


def private_key_of(path: str) -> str:
    """Return the private key in a file as PEM. Raises EngineError."""
    try:
        with opened(path) as file:
            keys = [one for one in pem.split(file.read(pem.MAX_BYTES + 1)) if one.is_private_key]
    except (OSError, pem.PemError) as error:
        raise EngineError(
            f"the private key {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if len(keys) != 1:
        raise EngineError(f"{path} holds {len(keys)} private keys, and one is needed")
    return keys[0].text


def roots_of(path: str) -> str:
    """Return the text of a file with roots. Raises UntrustedPathError, EngineError for one that is too long, and OSError."""
    with opened(path) as file:
        text = file.read(ROOTS_BYTES + 1)
    if len(text) > ROOTS_BYTES:
        raise EngineError(f"{path} is longer than {ROOTS_BYTES:,} bytes; name a file with the roots alone")
    return text.decode("ascii", "ignore")


def _opened(path: str) -> BinaryIO:
    """Return a file, open. Raises EngineError."""
    try:
        return opened(path)
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from error


def public_key_of(key: Union[BinaryIO, bytes], path: str) -> bytes:
    """Return the public key of a private one, as DER. Raises NoOpensslError, and EngineError if it is no key without a passphrase.

    key: a file, open, or its content. path: names it in messages.
    """
    # An empty passphrase: so it asks nobody for one.
    made = ask(["pkey", "-pubout", "-outform", "DER", "-passin", "pass:"], key, f"the private key of {path}")
    if not made:
        raise EngineError(f"openssl finds no private key without a passphrase in {path}")
    return made
