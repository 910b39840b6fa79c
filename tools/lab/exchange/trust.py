"""TLS: the contexts, the chain that a client sent, and what it is worth."""

from __future__ import annotations

import _ssl
import ctypes
import datetime as dt
import ssl
from pathlib import Path
from typing import Any, Optional

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

TRUSTED, INCOMPLETE, UNTRUSTED, EXPIRED, PURPOSE = "trusted", "incomplete", "untrusted", "expired", "purpose"

_Verify = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_accept = _Verify(lambda _good, _store: 1)
_libssl = ctypes.CDLL(_ssl.__file__)
_libssl.SSL_CTX_set_verify.argtypes = [ctypes.c_void_p, ctypes.c_int, _Verify]
_libssl.SSL_CTX_set_verify.restype = None

_contexts: dict[tuple[Any, ...], ssl.SSLContext] = {}


def server_context(file: Path, online: bool) -> ssl.SSLContext:
    """The context that serves a certificate. It is the same for each connection, or no session would ever be resumed.

    Exchange Online asks everybody for a certificate, takes any, and decides at RCPT. Python's ssl cannot do that: it ends the handshake
    for a certificate that does not verify, also for want of the purpose clientAuth, which public authorities no longer give. So the
    library that is below is told to go on, whatever it finds.
    """
    key = (file, file.stat().st_mtime_ns, online)
    if key not in _contexts:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not online:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(file)
        if online:
            context.verify_mode = ssl.CERT_OPTIONAL
            pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)  # PySSLContext.ctx
            _libssl.SSL_CTX_set_verify(pointer, 1, _accept)  # SSL_VERIFY_PEER
        _contexts[key] = context
    return _contexts[key]


def client_context(
    route_level: Optional[str], roots: list[Path], certificate: Optional[Path], online: bool
) -> ssl.SSLContext:
    """The context of the way out: the chain counts from CertificateValidation on; names are compared by covers()."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if not online:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if route_level in ("CertificateValidation", "DomainValidation"):
        for root in roots:
            context.load_verify_locations(root)
    else:
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate)
    return context


def chain_of(ssl_object: Any) -> list[x509.Certificate]:
    """What the other side sent, its own certificate first. A resumed session has that one at most."""
    # Not by the public call of Python 3.13: that one fails if the client sent nothing.
    sent = [one.public_bytes(_ssl.ENCODING_DER) for one in ssl_object._sslobj.get_unverified_chain() or () if one]
    own = ssl_object.getpeercert(binary_form=True)
    return [x509.load_der_x509_certificate(one) for one in sent or ([own] if own else [])]


def judge(chain: list[x509.Certificate], roots: list[Path], purpose: bool) -> str:
    """What a client's chain is worth: one of the constants above.

    The order of what was sent does not count. A leaf alone whose issuer is no root is INCOMPLETE: nobody can tell whether its root is
    a public one. purpose: it needs clientAuth.
    """
    known = [one for root in roots for one in x509.load_pem_x509_certificates(root.read_bytes())]
    leaf, now = chain[0], dt.datetime.now(dt.timezone.utc)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        return EXPIRED
    at, rest = leaf, list(chain[1:])
    while not any(_issued(at, root) for root in known):
        issuer = next((one for one in rest if _issued(at, one)), None)
        if issuer is None:
            return INCOMPLETE if at is leaf and not _issued(leaf, leaf) else UNTRUSTED
        rest.remove(issuer)
        at = issuer
    return PURPOSE if purpose and not _for_clients(leaf) else TRUSTED


def _issued(one: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _for_clients(leaf: x509.Certificate) -> bool:
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in purposes
