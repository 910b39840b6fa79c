"""Good and bad input for each target to begin with; what a fuzzer finds is added here."""

from __future__ import annotations

import contextlib
import ssl
import tempfile

from cryptography.hazmat.primitives import serialization

from tests.fuzz.reader_seeds import READER_SEEDS
from tests.fuzz.readers import CUT
from tests.fuzz.targets import EHLO, GREETING, READY
from tests.support.pki import self_signed

ISSUED = self_signed(["mx.example.com", "*.example.com", "192.0.2.1"])
CERTIFICATE = ISSUED.certificate.public_bytes(serialization.Encoding.DER)
INSIDE = b"250-mx.example.com\r\n250 AUTH PLAIN\r\n"


def flights() -> list[bytes]:
    """What a server of each version answers to a ClientHello, made by OpenSSL."""
    made = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        client.maximum_version = version
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.append(_answer(client, server, ISSUED.key_pem + ISSUED.fullchain_pem))
    return made


def _answer(client: ssl.SSLContext, server: ssl.SSLContext, pem: bytes) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        server.load_cert_chain(file.name)
    wire, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
    for side in (client.wrap_bio(ssl.MemoryBIO(), wire), server.wrap_bio(wire, answer, server_side=True)):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return answer.read()


FLIGHTS = flights()
ALERT = bytes.fromhex("15 0301 0002 02 46")

SEEDS: dict[str, list[bytes]] = {
    "replies": [b"\x05" + GREETING + EHLO + READY, b"\x00250-a\n250-b\n250\n", b"\x01554 no\r\n", b"\x3fSSH-2.0\r\n"],
    "dialogue": [
        head + GREETING + EHLO + READY + INSIDE
        for head in (b"\x00\x00\xff", b"\x00\x01\x10", b"\x00\x02\x40", b"\x02\x00\x80", b"\x01\x00\x20")
    ],
    "envelope": [
        size + GREETING + EHLO + READY + EHLO + answers
        for size in (b"\x00", b"\x07", b"\xf0")
        for answers in (
            b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 Ok\r\n",
            b"250 Ok\r\n550 5.7.64 no\r\n",
            b"451 5.7.3 no\r\n",
            b"250 a\r\n421 b\r\n",
        )
    ],
    "flight": [*(b"\x1f" + flight for flight in FLIGHTS), b"\x03" + ALERT],
    "tls": [
        bytes([protocol, kind, 1, 200]) + flight
        for flight in (*FLIGHTS, ALERT, b"454 no\r\n")
        for protocol in (0, 1)
        for kind in range(4)
    ],
    "received": [
        one.encode()
        for one in (
            "from mx.example.com (mx.example.com [192.0.2.1]) (using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 "
            "bits)) (No client certificate requested) by mail.example.net (Postfix) with ESMTPS id 4F for <a@example.net>; "
            "Tue, 24 Nov 2026 17:00:00 +0000 (UTC)",
            "from [192.0.2.1] (helo=mx.example.com) by mail.example.net with esmtps (TLS1.3) tls TLS_AES_256_GCM_SHA384 "
            "(Exim 4.96) (envelope-from <a@example.com>) id 1u-0-00 for b@example.net; Tue, 24 Nov 2026 17:00:00 +0000",
            "from a.example (192.0.2.1) by b.example (192.0.2.2) with Microsoft SMTP Server (version=TLS1_2, "
            "cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) id 15.1; Tue, 24 Nov 2026 17:00:00 +0000",
            "by mail.example.net (Postfix, from userid 0) id 4F; Tue, 24 Nov 2026 17:00:00 +0000 (UTC)",
        )
    ],
    "certificate": [CERTIFICATE],
    "openssl_answer": [
        b"64c500c8\n64c500c8\nsubject=CN=\\ #a\\0Ab\\, DNS:e\nissuer=O=b+CN=a\nnotBefore=Nov 29 18:16:26 2026 GMT\n"
        b"notAfter=Jun 18 18:16:26 2027 GMT\nCertificate purposes:\nSSL server : Yes\n-----BEGIN PUBLIC KEY-----\nAAAA\n"
        b"-----END PUBLIC KEY-----\nX509v3 Basic Constraints: critical\n    CA:TRUE, pathlen:0\nX509v3 Key Usage: \n"
        b"    Digital Signature, CRL Sign\nTLS Feature: \n    status_request\n"
        + CUT
        + b"        Version: 3 (0x2)\n        Signature Algorithm: ecdsa-with-SHA256\n            Public Key Algorithm: id-ecPublicKey\n"
        b"                Public-Key: (256 bit)\n                ASN1 OID: prime256v1\n        X509v3 extensions:\n"
        b"            X509v3 Subject Alternative Name: \n                DNS:a.example, IP Address:2001:DB8:0:0:0:0:0:1\n"
        b"            Authority Information Access: \n                CA Issuers - URI:http://a.example/\n"
    ],
    "policy": [
        b"version: STSv1\nmode: enforce\nmx: mx.example.com\nmx: *.example.net\nmax_age: 86400\n",
        b"v=STSv1; id=20261124T1;",
    ],
    **READER_SEEDS,
    "target": [b"mx.example.com", b"mx.example.com:25", b"[2001:db8::1]:465", b"192.0.2.1", b"fe80::1%eth0", b"-x\n"],
}
