# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks whether a surveyed server has the private key of the certificate that it sent.

Up to TLS 1.2 a server signs its key exchange together with the client's random number. So a survey proves the key
although it never finishes a handshake. Private to this collection. Runs on the controller only, because it needs the
Python package ``cryptography``. Source: RFC 5246, 4.7 and 7.4.3; RFC 8446, 4.2.3.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import Any, Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import KeyExchange

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
except ImportError:
    pass


def has_key(leaf: bytes, exchange: Optional[KeyExchange]) -> Optional[bool]:
    """Return whether the certificate's key made the signature over the key exchange.

    leaf: DER. Return None if this is unknown: the server signed nothing (RSA key exchange), or the certificate or the
    algorithm is not supported here. Return False if the kind of key cannot make such a signature.
    """
    if exchange is None or not exchange.signature:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = x509.load_der_x509_certificate(leaf).public_key()
    except Exception:  # hostile certificates raise many types
        return None
    try:
        return _verify(key, exchange)
    except InvalidSignature:
        return False
    except Exception:  # this build of OpenSSL lacks the algorithm
        return None


def _verify(key: Any, exchange: KeyExchange) -> Optional[bool]:
    """Return True or None. Raises InvalidSignature if the signature is wrong."""
    kind, _underscore, digest = exchange.algorithm.rpartition("_")
    signature, signed = exchange.signature, exchange.signed
    if exchange.algorithm in ("ed25519", "ed448"):
        _expect(key, ed25519.Ed25519PublicKey if exchange.algorithm == "ed25519" else ed448.Ed448PublicKey)
        key.verify(signature, signed)
        return True
    if kind == "rsa_pkcs1_md5":  # before TLS 1.2: MD5 and SHA-1 together, without a hash identifier
        _expect(key, rsa.RSAPublicKey)
        both = (
            hashlib.md5(signed, usedforsecurity=False).digest() + hashlib.sha1(signed, usedforsecurity=False).digest()
        )
        if key.recover_data_from_signature(signature, padding.PKCS1v15(), None) != both:
            raise InvalidSignature
        return True
    algorithm = getattr(hashes, digest.upper(), None)
    if algorithm is None:
        return None
    algorithm = algorithm()
    if kind == "rsa_pkcs1":
        _expect(key, rsa.RSAPublicKey)
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    elif kind in ("rsa_pss_rsae", "rsa_pss_pss"):
        _expect(key, rsa.RSAPublicKey)
        key.verify(signature, signed, padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), algorithm)
    elif kind.startswith("ecdsa"):
        _expect(key, ec.EllipticCurvePublicKey)
        key.verify(signature, signed, ec.ECDSA(algorithm))
    elif kind == "dsa":
        _expect(key, dsa.DSAPublicKey)
        key.verify(signature, signed, algorithm)
    else:
        return None
    return True


def _expect(key: Any, kind: type) -> None:
    if not isinstance(key, kind):
        raise InvalidSignature
