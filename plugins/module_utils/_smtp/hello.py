# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plaintext beginning of a TLS handshake: builds a ClientHello and reads the server's answer.

This module does not use the local TLS library. So a test can offer TLS 1.0 although the local OpenSSL refuses it,
and can read a server's certificate without a full handshake. No input or output, no cryptography.
Sources: RFC 8446 (TLS 1.3; sections 4.1 to 4.3 also for the older versions), RFC 5246 (TLS 1.2), RFC 8422 (elliptic
curves), RFC 6066 (SNI), RFC 5746 (renegotiation), RFC 7627 (extended master secret), RFC 7685 (padding), and
IANA's TLS registries.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Optional

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import printable_bytes
from ansible_collections.mailfleet.starttls.plugins.module_utils.limits import (
    MAX_CERTIFICATES,
    MAX_FLIGHT,
)

VERSIONS = {"SSLv3": 0x0300, "TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
"""The protocol versions, oldest first: the ssl module's name -> the number in TLS messages."""

_VERSION_NAMES = {code: name for name, code in VERSIONS.items()}
_MAX_RECORD = 16384
_TLS12, _TLS13 = VERSIONS["TLSv1.2"], VERSIONS["TLSv1.3"]

# The offered cipher suites in the order of preference. Anonymous, unencrypted and export suites are left out, because
# a server that has only those gives no protection. The old suites are offered to test whether the server refuses them.
_CIPHERS_13 = (
    (0x1301, "TLS_AES_128_GCM_SHA256"),
    (0x1302, "TLS_AES_256_GCM_SHA384"),
    (0x1303, "TLS_CHACHA20_POLY1305_SHA256"),
    (0x1304, "TLS_AES_128_CCM_SHA256"),
    (0x1305, "TLS_AES_128_CCM_8_SHA256"),
)
_CIPHERS_12 = (
    (0xC02B, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (0xC02F, "ECDHE-RSA-AES128-GCM-SHA256"),
    (0xC02C, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (0xC030, "ECDHE-RSA-AES256-GCM-SHA384"),
    (0xCCA9, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    (0xCCA8, "ECDHE-RSA-CHACHA20-POLY1305"),
    (0xC0AC, "ECDHE-ECDSA-AES128-CCM"),
    (0xC0AD, "ECDHE-ECDSA-AES256-CCM"),
    (0xC023, "ECDHE-ECDSA-AES128-SHA256"),
    (0xC027, "ECDHE-RSA-AES128-SHA256"),
    (0xC024, "ECDHE-ECDSA-AES256-SHA384"),
    (0xC028, "ECDHE-RSA-AES256-SHA384"),
    (0x009E, "DHE-RSA-AES128-GCM-SHA256"),
    (0x009F, "DHE-RSA-AES256-GCM-SHA384"),
    (0xCCAA, "DHE-RSA-CHACHA20-POLY1305"),
    (0x0067, "DHE-RSA-AES128-SHA256"),
    (0x006B, "DHE-RSA-AES256-SHA256"),
    (0x009C, "AES128-GCM-SHA256"),
    (0x009D, "AES256-GCM-SHA384"),
    (0x003C, "AES128-SHA256"),
    (0x003D, "AES256-SHA256"),
)
_CIPHERS_10 = (
    (0xC009, "ECDHE-ECDSA-AES128-SHA"),
    (0xC013, "ECDHE-RSA-AES128-SHA"),
    (0xC00A, "ECDHE-ECDSA-AES256-SHA"),
    (0xC014, "ECDHE-RSA-AES256-SHA"),
    (0x0033, "DHE-RSA-AES128-SHA"),
    (0x0039, "DHE-RSA-AES256-SHA"),
    (0x0045, "DHE-RSA-CAMELLIA128-SHA"),
    (0x0088, "DHE-RSA-CAMELLIA256-SHA"),
    (0x002F, "AES128-SHA"),
    (0x0035, "AES256-SHA"),
    (0x0041, "CAMELLIA128-SHA"),
    (0x0084, "CAMELLIA256-SHA"),
    (0x0032, "DHE-DSS-AES128-SHA"),
    (0x0038, "DHE-DSS-AES256-SHA"),
    (0xC008, "ECDHE-ECDSA-DES-CBC3-SHA"),
    (0xC012, "ECDHE-RSA-DES-CBC3-SHA"),
    (0x0016, "DHE-RSA-DES-CBC3-SHA"),
    (0x0013, "DHE-DSS-DES-CBC3-SHA"),
    (0x000A, "DES-CBC3-SHA"),
    (0xC007, "ECDHE-ECDSA-RC4-SHA"),
    (0xC011, "ECDHE-RSA-RC4-SHA"),
    (0x0005, "RC4-SHA"),
    (0x0004, "RC4-MD5"),
)
# Never offered here. The names are for flights of handshakes that another client made.
_CIPHERS_SEEN = (
    (0xC0AE, "ECDHE-ECDSA-AES128-CCM8"),
    (0xC0AF, "ECDHE-ECDSA-AES256-CCM8"),
    (0xC09E, "DHE-RSA-AES128-CCM"),
    (0xC09F, "DHE-RSA-AES256-CCM"),
    (0xC05C, "ECDHE-ECDSA-ARIA128-GCM-SHA256"),
    (0xC05D, "ECDHE-ECDSA-ARIA256-GCM-SHA384"),
    (0xC060, "ECDHE-ARIA128-GCM-SHA256"),
    (0xC061, "ECDHE-ARIA256-GCM-SHA384"),
    (0xC072, "ECDHE-ECDSA-CAMELLIA128-SHA256"),
    (0xC073, "ECDHE-ECDSA-CAMELLIA256-SHA384"),
    (0xC076, "ECDHE-RSA-CAMELLIA128-SHA256"),
    (0xC077, "ECDHE-RSA-CAMELLIA256-SHA384"),
)
_CIPHER_NAMES = dict(_CIPHERS_13 + _CIPHERS_12 + _CIPHERS_10 + _CIPHERS_SEEN)

_GROUP_NAMES = {
    18: "secp192k1", 19: "secp192r1", 20: "secp224k1", 21: "secp224r1", 22: "secp256k1", 23: "secp256r1",
    24: "secp384r1", 25: "secp521r1", 26: "brainpoolP256r1", 27: "brainpoolP384r1", 28: "brainpoolP512r1",
    29: "x25519", 30: "x448", 31: "brainpoolP256r1tls13", 32: "brainpoolP384r1tls13",
    33: "brainpoolP512r1tls13", 41: "curvesm2", 256: "ffdhe2048", 257: "ffdhe3072", 258: "ffdhe4096",
    259: "ffdhe6144", 260: "ffdhe8192", 512: "mlkem512", 513: "mlkem768", 514: "mlkem1024",
    4587: "secp256r1mlkem768", 4588: "x25519mlkem768", 4589: "secp384r1mlkem1024",
    25497: "x25519kyber768draft00",
}  # fmt: skip
_GROUPS_12 = (29, 23, 24, 25, 30, 26, 27, 28, 22)
# The hybrid groups are offered without a key share. A server that requires one sends HelloRetryRequest, which is an answer too.
_GROUPS_13 = (29, 23, 24, 25, 30, 31, 32, 33, 256, 257, 258, 4588, 4587, 4589)

# In TLS 1.2 a code names a hash and a kind of key. TLS 1.3 ties the ECDSA codes to a curve as well, but its signatures
# are encrypted, so this module never reads them.
_SIGNATURE_NAMES = {
    0x0403: "ecdsa_sha256", 0x0503: "ecdsa_sha384", 0x0603: "ecdsa_sha512", 0x0303: "ecdsa_sha224",
    0x0203: "ecdsa_sha1", 0x0807: "ed25519", 0x0808: "ed448", 0x0804: "rsa_pss_rsae_sha256",
    0x0805: "rsa_pss_rsae_sha384", 0x0806: "rsa_pss_rsae_sha512", 0x0809: "rsa_pss_pss_sha256",
    0x080A: "rsa_pss_pss_sha384", 0x080B: "rsa_pss_pss_sha512", 0x0401: "rsa_pkcs1_sha256",
    0x0501: "rsa_pkcs1_sha384", 0x0601: "rsa_pkcs1_sha512", 0x0301: "rsa_pkcs1_sha224",
    0x0201: "rsa_pkcs1_sha1", 0x0402: "dsa_sha256", 0x0202: "dsa_sha1", 0x0101: "rsa_pkcs1_md5",
    0x081A: "ecdsa_brainpoolP256r1tls13_sha256", 0x081B: "ecdsa_brainpoolP384r1tls13_sha384",
    0x081C: "ecdsa_brainpoolP512r1tls13_sha512",
}  # fmt: skip
_SIGNATURES = tuple(code for code in _SIGNATURE_NAMES if code != 0x0101)

_ALERT_NAMES = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed",
    22: "record_overflow", 30: "decompression_failure", 40: "handshake_failure", 41: "no_certificate",
    42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked",
    45: "certificate_expired", 46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca",
    49: "access_denied", 50: "decode_error", 51: "decrypt_error", 60: "export_restriction",
    70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
    86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension",
    110: "unsupported_extension", 111: "certificate_unobtainable", 112: "unrecognized_name",
    113: "bad_certificate_status_response", 115: "unknown_psk_identity", 116: "certificate_required",
    120: "no_application_protocol",
}  # fmt: skip

# The messages of a server's first flight up to TLS 1.2, in order. Only the first and the last are always sent.
_SERVER_HELLO, _CERTIFICATE, _STATUS, _KEY_EXCHANGE, _REQUEST, _DONE = 2, 11, 22, 12, 13, 14
_ORDER = {kind: at for at, kind in enumerate((_SERVER_HELLO, _CERTIFICATE, _STATUS, _KEY_EXCHANGE, _REQUEST, _DONE))}
_TICKET = 4  # the server resumes a session: it sends nothing else in plaintext

_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_KNOWS_TLS13 = b"DOWNGRD\x01"  # RFC 8446, 4.1.3: ends the random of a TLS 1.3 server that agrees on TLS 1.2


class HelloError(Exception):
    """The server's answer cannot be read, or the ClientHello cannot be built.

    C(code) is not_tls, malformed, too_large or bad_name. The text is printable.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# The client's side


def _vector(data: bytes, length_bytes: int = 2) -> bytes:
    return len(data).to_bytes(length_bytes, "big") + data


def _codes(codes: Iterable[int]) -> bytes:
    return b"".join(code.to_bytes(2, "big") for code in codes)


def _extension(kind: int, content: bytes = b"") -> bytes:
    return kind.to_bytes(2, "big") + _vector(content)


@dataclass(frozen=True)
class _Template:
    """The bytes that all hellos with the same offer share: everything except random, session ID and SNI."""

    version: bytes
    suites: bytes
    extensions: bytes


def _is_wanted(name: str, want: str) -> bool:
    if not want:
        return True
    return ("-ECDSA-" in name) == (want == "ecdsa") and "-DSS-" not in name


@lru_cache(maxsize=64)
def _template(versions: tuple[str, ...], want: str) -> _Template:
    if not versions or not set(versions) <= set(VERSIONS):
        raise ValueError(f"versions are out of {', '.join(VERSIONS)}, not {versions!r}")
    if want not in ("", "rsa", "ecdsa"):
        raise ValueError(f"a kind of certificate is rsa or ecdsa, not {want!r}")
    offered = sorted((VERSIONS[version] for version in versions), reverse=True)
    newest, oldest = offered[0], offered[-1]
    suites = list(_CIPHERS_13) if newest == _TLS13 else []
    if oldest < _TLS13:
        # The suite selects the kind of certificate. The signature algorithms are not restricted, because they apply
        # to the whole chain, and an ECDSA leaf may be signed with RSA.
        old = (_CIPHERS_12 if newest >= _TLS12 else ()) + _CIPHERS_10
        suites += [suite for suite in old if _is_wanted(suite[1], want)]
    extensions = b""
    if newest > VERSIONS["SSLv3"]:
        groups = dict.fromkeys((_GROUPS_13 if newest == _TLS13 else ()) + (_GROUPS_12 if oldest < _TLS13 else ()))
        extensions = (
            _extension(23)  # extended_master_secret
            + _extension(0xFF01, b"\x00")  # renegotiation_info
            + _extension(10, _vector(_codes(groups)))  # supported_groups
            + _extension(11, b"\x01\x00")  # ec_point_formats: uncompressed
        )
    if newest >= _TLS12:
        extensions += _extension(13, _vector(_codes(_SIGNATURES)))  # signature_algorithms
    if newest == _TLS13:
        # The key share is the base point (RFC 7748, 4.1). It is valid, and no secret is ever derived from it.
        share = _codes((29,)) + _vector(b"\x09" + bytes(31))
        extensions += _extension(51, _vector(share)) + _extension(43, _vector(_codes(offered), 1))
    return _Template(
        min(newest, _TLS12).to_bytes(2, "big"),
        _vector(_codes(code for code, _name in suites)) + b"\x01\x00",
        extensions,
    )


def _server_name(name: str) -> bytes:
    """Return the server_name extension, empty for an IP address (RFC 6066, 3). Raises HelloError(bad_name)."""
    name = name.rstrip(".")
    if not name:
        return b""
    if name[-1].isdigit() or ":" in name:
        try:
            ipaddress.ip_address(name.partition("%")[0])
            return b""
        except ValueError:
            pass
    if not (name.isascii() and len(name) < 254 and all(0 < len(label) < 64 for label in name.split("."))):
        raise HelloError("bad_name", f"{printable_bytes(name.encode('utf-8', 'replace'))!r} cannot be asked for by SNI")
    host = name.encode("ascii")
    return struct.pack(">HHHBH", 0, len(host) + 5, len(host) + 3, 0, len(host)) + host


def client_hello(versions: Sequence[str], server_name: str = "", want: str = "", size: int = 0) -> bytes:
    """Return one complete ClientHello, in one record, that offers exactly these versions.

    versions: keys of VERSIONS in any order. Servers older than TLS 1.3 read the highest version only and may choose
    any lower one, so a test of one version offers that version alone. want: C(rsa) or C(ecdsa) offers only
    suites of that kind of certificate (up to TLS 1.2); empty offers all. So two hellos read both certificates of a
    server that has two. size: the least bytes of the record.
    Raises HelloError(bad_name), and ValueError for an unknown version or kind.
    """
    template = _template(tuple(versions), want)
    random = os.urandom(64)
    body = template.version + random[:32] + b"\x20" + random[32:] + template.suites
    record_version = b"\x03\x00"
    if template.extensions:
        record_version = b"\x03\x01"
        extensions = _server_name(server_name) + template.extensions
        # Some old load balancers misread a hello of 256 to 511 bytes (RFC 7685).
        length = len(body) + len(extensions) + 6
        wanted = max(512 if 255 < length < 512 else 0, size - 5)  # 5: the header of the record
        if length < wanted:
            extensions += _extension(21, bytes(max(wanted - 4 - length, 1)))
        body += _vector(extensions)
    return b"\x16" + record_version + _vector(b"\x01" + _vector(body, 3))


def random_of(hello: bytes) -> bytes:
    """Return the client random of a hello from client_hello()."""
    return hello[11:43]


# The server's side


@dataclass(frozen=True)
class KeyExchange:
    """A server's signed key exchange. Its signature proves that the server has the key of its certificate.

    signed: the signed bytes: client random, server random and the parameters (RFC 5246, 7.4.3).
    algorithm: a name such as C(ecdsa_sha256), C(rsa_pss_rsae_sha256), C(ed25519); before TLS 1.2
    C(rsa_pkcs1_md5_sha1), C(ecdsa_sha1) or C(dsa_sha1).
    """

    algorithm: str
    signed: bytes
    signature: bytes

    def to_dict(self) -> dict[str, str]:
        """Return plain data; the bytes are base64."""
        return {
            "algorithm": self.algorithm,
            "signed": base64.b64encode(self.signed).decode(),
            "signature": base64.b64encode(self.signature).decode(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> KeyExchange:
        """Read the data of to_dict(). Raises ValueError for other data."""
        try:
            signed, signature = (base64.b64decode(data[key], validate=True) for key in ("signed", "signature"))
            return cls(str(data["algorithm"]), signed, signature)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a key exchange: {error}") from error


class ServerFlight:
    """The plaintext part of a server's answer to a ClientHello. feed() takes the bytes as they arrive.

    feed() raises HelloError for bytes that are not TLS. It ignores bytes after the end of the flight or after an alert.

    version: C(TLSv1.2), or C(0x7f1c) for a version without a name. cipher: the ssl module's name of it.
    group: C(x25519), C(secp256r1), ...; C(dhe2048) for a finite field; empty for RSA key exchange.
    chain: DER, leaf first. key_exchange: the signed parameters. TLS 1.3 encrypts the chain, the key exchange and
    the certificate request, so chain, key_exchange, signature_algorithm and client_certificate_requested stay empty or None.
    alert: the name of the alert that ended the handshake. retry: the server asked for a key share of another group.
    knows_tls13: the server agreed on TLS 1.2, but also supports TLS 1.3.
    complete: the server waits for the client, or continues encrypted.
    """

    def __init__(self, client_random: bytes = b"") -> None:
        """Prepare to read one flight. client_random is a part of key_exchange.signed, so verifying the signature needs it."""
        self.version = ""
        self.cipher = ""
        self.group = ""
        self.chain: tuple[bytes, ...] = ()
        self.signature_algorithm = ""
        self.key_exchange: Optional[KeyExchange] = None
        self.client_certificate_requested: Optional[bool] = None
        self.alert = ""
        self.retry = False
        self.knows_tls13 = False
        self.complete = False
        self._client_random = client_random
        self._server_random = b""
        self._version = 0
        self._last = -1
        self._records = bytearray()
        self._messages = bytearray()
        self._taken = 0

    @property
    def ended(self) -> bool:
        """Whether the plaintext part of the flight has ended."""
        return self.complete or bool(self.alert)

    def feed(self, data: bytes) -> None:
        """Process the received bytes. Raises HelloError: not_tls, malformed, too_large."""
        if self.ended:
            return
        records = self._records
        records += data
        at, size = 0, len(records)
        while size - at >= 5 and not self.ended:
            kind = records[at]
            if not 20 <= kind <= 23 or records[at + 1] != 3:
                raise HelloError(
                    "not_tls", f"the server does not speak TLS: {printable_bytes(bytes(records[at:]), 120)!r}"
                )
            end = at + 5 + (records[at + 3] << 8 | records[at + 4])
            if end - at > 5 + _MAX_RECORD:
                raise HelloError("malformed", f"a TLS record is longer than {_MAX_RECORD} bytes")
            if self._taken + end - at > MAX_FLIGHT:
                raise HelloError("too_large", f"the server's flight is longer than {MAX_FLIGHT} bytes")
            if size < end:
                break
            self._taken += end - at
            self._take_record(kind, records[at + 5 : end])
            at = end
        if self.ended:
            records.clear()
        else:
            del records[:at]

    def _take_record(self, kind: int, content: bytearray) -> None:
        if kind == 21:
            self._take_alert(content)
        elif kind == 22:
            self._messages += content
            self._take_messages()
        elif kind == 20 and self.version:  # the server resumes a session, the rest is encrypted
            self.complete = True
        else:
            raise HelloError("malformed", f"a TLS record of type {kind} comes too early")

    def _take_alert(self, content: bytearray) -> None:
        if len(content) != 2:
            raise HelloError("malformed", "a TLS alert has the wrong length")
        level, code = content
        if level != 1 or code == 0:  # a warning, for instance about the name, does not end the handshake
            self.alert = _ALERT_NAMES.get(code, f"alert_{code}")

    def _take_messages(self) -> None:
        messages = self._messages
        at, size = 0, len(messages)
        while size - at >= 4 and not self.complete:
            end = at + 4 + int.from_bytes(messages[at + 1 : at + 4], "big")
            if end - at > MAX_FLIGHT:
                raise HelloError("too_large", f"a TLS message is longer than {MAX_FLIGHT} bytes")
            if size < end:
                break
            try:
                self._take_message(messages[at], bytes(messages[at + 4 : end]))
            except (struct.error, IndexError) as error:
                raise HelloError("malformed", f"a TLS message of type {messages[at]} is cut short") from error
            at = end
        del messages[:at]

    def _take_message(self, kind: int, body: bytes) -> None:
        if kind == _TICKET and self._last == 0:
            self.complete = True
            return
        order = _ORDER.get(kind, -1)
        if order <= self._last or (self._last < 0) != (kind == _SERVER_HELLO):
            raise HelloError("malformed", f"a TLS message of type {kind} comes in the wrong order")
        self._last = order
        if kind == _SERVER_HELLO:
            self._take_hello(body)
        elif kind == _CERTIFICATE:
            self._take_certificates(body)
        elif kind == _KEY_EXCHANGE:
            self._take_key_exchange(body)
        elif kind == _REQUEST:
            self.client_certificate_requested = True
        elif kind == _DONE:
            self.client_certificate_requested = bool(self.client_certificate_requested)
            self.complete = True

    def _take_hello(self, body: bytes) -> None:
        self._server_random = body[2:34]
        at = 35 + body[34]
        version, cipher = int.from_bytes(body[:2], "big"), struct.unpack_from(">HB", body, at)[0]
        at += 3
        if len(body) > at:
            end = at + 2 + struct.unpack_from(">H", body, at)[0]
            if end != len(body):
                raise HelloError("malformed", "the extensions of the ServerHello have the wrong length")
            at += 2
            while at < end:
                kind, length = struct.unpack_from(">HH", body, at)
                at += 4
                if at + length > end:
                    raise HelloError("malformed", "an extension of the ServerHello has the wrong length")
                if kind == 43:
                    version = struct.unpack_from(">H", body, at)[0]
                elif kind == 51:
                    group = struct.unpack_from(">H", body, at)[0]
                    self.group = _GROUP_NAMES.get(group, f"0x{group:04x}")
                at += length
        self._version = version
        self.version = _VERSION_NAMES.get(version, f"0x{version:04x}")
        self.cipher = _CIPHER_NAMES.get(cipher, f"0x{cipher:04X}")
        if version > _TLS12:
            self.retry = self._server_random == _RETRY_RANDOM
            self.complete = True
        else:
            self.group = ""
            self.knows_tls13 = self._server_random[24:] == _KNOWS_TLS13

    def _take_certificates(self, body: bytes) -> None:
        at, end = 3, len(body)
        if int.from_bytes(body[:3], "big") + 3 != end:
            raise HelloError("malformed", "the list of certificates has the wrong length")
        chain = []
        while at < end:
            start = at + 3
            at = start + int.from_bytes(body[at:start], "big")
            if not start < at <= end:
                raise HelloError("malformed", "a certificate has the wrong length")
            chain.append(body[start:at])
            if len(chain) > MAX_CERTIFICATES:
                raise HelloError("too_large", f"the server sends more than {MAX_CERTIFICATES} certificates")
        self.chain = tuple(chain)

    def _take_key_exchange(self, body: bytes) -> None:
        if self.cipher.startswith("ECDHE-"):
            curve_type, group, length = struct.unpack_from(">BHB", body)
            if curve_type != 3:  # RFC 8422 removed curves that the server describes itself
                return
            self.group = _GROUP_NAMES.get(group, f"0x{group:04x}")
            end = 4 + length
        elif self.cipher.startswith("DHE-"):
            length = struct.unpack_from(">H", body)[0]
            self.group = f"dhe{int.from_bytes(body[2 : 2 + length], 'big').bit_length()}"
            end = 0
            for _number in ("p", "g", "Ys"):
                end += 2 + struct.unpack_from(">H", body, end)[0]
        else:
            return
        if self._version == _TLS12:
            code, length = struct.unpack_from(">HH", body, end)
            name, start = _SIGNATURE_NAMES.get(code, f"0x{code:04x}"), end + 4
        else:
            length = struct.unpack_from(">H", body, end)[0]
            kind = "ecdsa" if "-ECDSA-" in self.cipher else "dsa" if "-DSS-" in self.cipher else "rsa_pkcs1_md5"
            name, start = f"{kind}_sha1", end + 2
        if start + length != len(body):
            raise HelloError("malformed", "the signature of the key exchange has the wrong length")
        self.signature_algorithm = name
        self.key_exchange = KeyExchange(name, self._client_random + self._server_random + body[:end], body[start:])
