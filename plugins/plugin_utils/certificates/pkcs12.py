# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a PKCS#12 (PFX) file: a key and its certificates, as one file with a password.

Private to this collection. Runs on the controller only. No message contains key material or the password.
"""

from __future__ import annotations

import base64
import binascii

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import pem
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.serialization import pkcs12
except ImportError:
    pass  # check_inputs has said so already


def decoded(text: bytes) -> bytes:
    """Return the bytes of a text in base64, in which blanks and line ends do not count; empty if it is none."""
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def unpacked(data: bytes, password: str) -> tuple[bytes, bytes]:
    """Return the private key, and the certificates with the leaf first, as PEM. Raises EngineError without the library's reason."""
    if len(data) > pem.MAX_BYTES:
        raise EngineError(f"it is longer than {pem.MAX_BYTES} bytes")
    if b"-----BEGIN " in data:
        raise EngineError("it is PEM, not PKCS#12; set starttls_certificate_source to files or content")
    if data[:1] != b"\x30":
        raise EngineError(
            "it is not PKCS#12 (a .p12 or .pfx file); as text, it has to be the file in base64 ('base64 -w0 FILE')"
        )
    try:
        found = pkcs12.load_pkcs12(data, password.encode("utf-8") if password else None)
    except ValueError:
        raise EngineError(
            "it cannot be read with this password; correct starttls_pkcs12_password. A file whose encryption the controller's OpenSSL "
            "does not know any more (RC2, 3DES) is written anew with 'openssl pkcs12 -legacy -nodes | openssl pkcs12 -export'"
        ) from None
    except Exception as error:
        raise EngineError(f"it cannot be read ({type(error).__name__})") from None
    if found.key is None or found.cert is None:
        missing = "private key" if found.key is None else "certificate of its private key"
        raise EngineError(f"it holds no {missing}; export the certificate with its key")
    try:
        key = found.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = [found.cert.certificate, *(one.certificate for one in found.additional_certs)]
        return key, b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
    except Exception as error:
        raise EngineError(f"its key or certificates cannot be read ({type(error).__name__})") from None
