# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server that was surveyed has the private key of the certificate it showed.

Up to TLS 1.2 a server signs its key exchange together with the client's random number, so that a survey,
which never finishes a handshake, still proves the key. Private to this collection, and for the controller
only: it needs the Python package ``cryptography``. Source: RFC 5246, 4.7 and 7.4.3; RFC 8446, 4.2.3.
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
    """Whether the signature over the key exchange was made with the key of the certificate.

    leaf: DER. None if that cannot be told: nothing was signed (RSA key exchange), or the certificate or the
    algorithm is one that cannot be read here. A signature that the kind of key cannot have made is False.
    """
    if exchange is None or not exchange.signature:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = x509.load_der_x509_certificate(leaf).public_key()
    except Exception:  # of many kinds, for what is in hostile certificates
        return None
    try:
        return _verify(key, exchange)
    except InvalidSignature:
        return False
    except Exception:  # an algorithm that this build of OpenSSL does not have
        return None


def _verify(key: Any, exchange: KeyExchange) -> Optional[bool]:
    """True or None; raises InvalidSignature for False."""
    kind, _underscore, digest = exchange.algorithm.rpartition("_")
    signature, signed = exchange.signature, exchange.signed
    if exchange.algorithm in ("ed25519", "ed448"):
        _expect(key, ed25519.Ed25519PublicKey if exchange.algorithm == "ed25519" else ed448.Ed448PublicKey)
        key.verify(signature, signed)
        return True
    if kind == "rsa_pkcs1_md5":  # before TLS 1.2: two hashes in a row, without saying which
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
