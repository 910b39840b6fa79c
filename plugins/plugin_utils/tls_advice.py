# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The advice for a handshake test that failed, by the alert, by what OpenSSL says of it, or by what came in the place of a reply."""

from __future__ import annotations

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import BLANK_LINE

_VERSION = "the two have no TLS version in common: switch TLS 1.2 or newer on at the server, or update it"
_CIPHER = (
    "the two have no cipher suite, curve or kind of certificate in common: read the server's log, and compare its settings for ciphers "
    "and its certificate with what clients offer"
)
_PLAINTEXT = (
    "the server answers the TLS handshake with something else than TLS: read its log, and look for a proxy or a firewall on the path "
    "that takes part in SMTP"
)
_ALTERED = "the bytes are not those that were sent: look for a device on the path that changes them, and update the server's TLS library"
_KEY = "check that the private key of the server belongs to its certificate"

_ADVICE = (
    (
        (BLANK_LINE,),
        "the server speaks SMTP and sends a line break too many: look for one at the end of a banner, or in what writes replies",
    ),
    (
        ("unrecognized name",),
        "the server has no certificate for the name that was asked for (SNI): correct starttls_hostname (of the module "
        "starttls_probe: name of the target), or let the server serve that name",
    ),
    (
        (
            "protocol version",
            "unsupported protocol",
            "wrong ssl version",
            "unsupported ssl version",
            "unknown ssl version",
            "version too low",
            "no protocols available",
        ),
        _VERSION,
    ),
    (("inappropriate fallback",), _VERSION),
    (
        ("no application protocol",),
        "the server insists on an application protocol (ALPN), which SMTP has not: take that setting out",
    ),
    (
        (
            "no shared cipher",
            "no cipher match",
            "insufficient security",
            "handshake failure",
            "no suitable",
            "wrong curve",
        ),
        _CIPHER,
    ),
    (("wrong signature type", "no common signature", "missing extension"), _CIPHER),
    (("wrong version number", "http request", "packet length too long", "unknown protocol", "not tls"), _PLAINTEXT),
    (("record layer failure", "unexpected message", "invalid alert", "bad record type"), _PLAINTEXT),
    (
        (
            "bad record mac",
            "decryption failed",
            "digest check failed",
            "decode error",
            "illegal parameter",
            "length mismatch",
        ),
        _ALTERED,
    ),
    (("decrypt error", "bad signature", "key values mismatch", "bad ecpoint"), _KEY),
    (
        ("dh key too small",),
        "the server uses Diffie-Hellman parameters that OpenSSL refuses: give it 2048 bits (Postfix: smtpd_tls_dh1024_param_file = auto), "
        "or switch these ciphers off",
    ),
    (
        ("unsafe legacy renegotiation",),
        "the TLS library of the server is too old for secure renegotiation (RFC 5746): update it",
    ),
    (
        ("key too small", "md too weak"),
        "the key or the signature of a certificate of the server is too weak for OpenSSL: have it issued again",
    ),
    (
        (
            "bad certificate",
            "certificate unknown",
            "unknown ca",
            "access denied",
            "certificate required",
            "no certificate",
            "unsupported certificate",
            "certificate revoked",
            "certificate expired",
        ),
        "the server wants a certificate of the client that it trusts; let it request one at most, not require it",
    ),
    (
        ("internal error",),
        "the server has a fault of its own: read its log; a private key that it cannot read is the usual reason",
    ),
    (
        ("unexpected eof", "eof occurred", "user canceled", "user cancelled"),
        "the server, or a device on the path, ends the connection during the handshake: read the server's log",
    ),
)
"""Words of the alert or of OpenSSL -> the advice. The first that fits counts."""


def advice_for(message: str) -> str:
    """Return the advice for a test that failed with this message; empty if the message names no cause."""
    said = message.lower().replace("_", " ")
    return next((advice for words, advice in _ADVICE if any(one in said for one in words)), "")
