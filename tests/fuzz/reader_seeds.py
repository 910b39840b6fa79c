"""Good input for each target of readers.py to begin with."""

# ruff: noqa: E501  (lines of logs are long)

from __future__ import annotations

import gzip
import json

import dns.message
import dns.rrset
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Handshake, Target, plain_results
from cryptography.hazmat.primitives import serialization

from tests.fuzz.readers import CUT, TAG
from tests.support.fake_mailcow import FakeMailcow
from tests.support.fake_postfix import DEFAULTS
from tests.support.fake_proxmox import TICKET, TOKEN
from tests.support.pki import self_signed
from tests.support.report_rows import tls_report

_ISSUED = self_signed(["mx.example.com"])
_DER = _ISSUED.certificate.public_bytes(serialization.Encoding.DER)
_DAY = "2026-01-01T00:0"
_POSTFIX = (
    "{d}0:01.1+00:00 gw1 postfix/smtpd[10]: connect from mx.example.net[192.0.2.15]",
    "{d}0:01.2+00:00 gw1 postfix/smtpd[10]: Anonymous TLS connection established from mx.example.net[192.0.2.15]: TLSv1.3 with cipher "
    "TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature ECDSA (prime256v1) server-digest SHA256",
    "{d}0:01.3+00:00 gw1 postfix/smtpd[10]: B9DF51C409D: client=mx.example.net[192.0.2.15]",
    "{d}0:01.4+00:00 gw1 postfix/smtpd[10]: disconnect from mx.example.net[192.0.2.15] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1",
    "{d}0:02+00:00 gw1 postfix/smtp[20]: Trusted TLS connection established to mx.example.net[192.0.2.15]:25: TLSv1.2 with cipher X (1/1 bits)",
    "{d}0:02+00:00 gw1 postfix/smtp[20]: B9DF51C409D: to=<a@example.net>, relay=mx.example.net[192.0.2.15]:25, delay=0.06, "
    "delays=0.01/0.01/0.04/0.01, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 49E6B1C26F6)",
    "{d}0:03+00:00 gw1 postfix/smtp[20]: B9DF51C409D: to=<a@example.net>, relay=none, delay=1, delays=0/0/1/0, dsn=4.7.5, "
    "status=deferred (TLS is required, but was not offered by host mx.example.net[192.0.2.15])",
    "{d}0:04+00:00 gw1 postfix/smtpd[10]: NOQUEUE: reject: MAIL from mx.example.net[192.0.2.15]: 530 5.7.0 Must issue a STARTTLS "
    "command first; from=<a@example.net> proto=ESMTP helo=<mx.example.net>",
    "{d}0:05+00:00 gw1 postfix/smtpd[10]: SSL_accept error from mx.example.net[192.0.2.15]: -1",
    "Jan  1 00:00:06 gw1 postfix/smtpd[10]: lost connection after STARTTLS from unknown[2001:db8::1]",
)
_EXIM = (
    "2026-01-01 00:00:01 +0000 1tSmXA-00000001234-1abc <= a@example.net H=mx.example.net [192.0.2.15] P=esmtps "
    "X=TLS1.3:ECDHE_X25519__RSA_PSS_RSAE_SHA256__AES_256_GCM:256 CV=no S=900 id=x@example.net",
    "2026-01-01 00:00:02 +0000 1tSmXA-00000001234-1abc => b@example.org R=dnslookup T=remote_smtp H=mx.example.org [192.0.2.16] "
    'X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=yes C="250 OK id=1"',
    "2026-01-01 00:00:03 +0000 1tSmXA-00000001234-1abc == b@example.org R=smarthost T=remote_smtp_smarthost defer (-38) H=mx.example.org "
    "[192.0.2.16]: a TLS session is required, but the server did not offer TLS support",
    "2026-01-01 00:00:04 +0000 TLS error on connection from mx.example.net [192.0.2.15] (gnutls_handshake): A TLS fatal alert has been received",
    "2026-01-01 00:00:05 +0000 H=mx.example.net [192.0.2.15] rejected MAIL <a@example.net>: Must issue a STARTTLS command first",
)  # fmt: skip
_REPORT = json.dumps(tls_report()).encode()
_MAIL = (
    b"From: a@example.net\r\nSubject: Report Domain: example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; "
    b'report-type="tlsrpt"; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b\r\nContent-Type: application/tlsrpt+json\r\n'
    b'Content-Disposition: attachment; filename="a.json"\r\n\r\n' + _REPORT + b"\r\n--b--\r\n"
)
_HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
_STS = b"version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n"


def _wire(name: str, *records: tuple[str, str, str], code: int = 0) -> bytes:
    """The answer of a name server: records as name, type and value."""
    response = dns.message.make_response(dns.message.make_query(name, "A"))
    response.set_rcode(code)
    for owner, kind, value in records:
        response.answer.append(dns.rrset.from_text(owner, 300, "IN", kind, value))
    return response.to_wire()


_TLSA = _wire("_25._tcp.mx.example.com", ("_25._tcp.mx.example.com.", "TLSA", "3 1 1 " + "ab" * 32))
_ALIAS = _wire("mx.example.com", ("mx.example.com.", "CNAME", "a.example.net."), ("a.example.net.", "A", "192.0.2.1"))
_TXT = _wire("_mta-sts.example.com", ("_mta-sts.example.com.", "TXT", '"v=STSv1; id=1;"'))
_IMAP = (
    "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN UIDPLUS] ready\r\n"
    f"+ \r\n{TAG}0 OK in\r\n* 2 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{TAG}1 OK [READ-ONLY] x\r\n* SEARCH 5 6\r\n{TAG}2 OK x\r\n"
    "* 1 FETCH (UID 5 BODY[HEADER.FIELDS (X-MAILFLEET-TRACE RECEIVED)] {60}\r\nX-Mailfleet-Trace: in-1\r\nReceived: by mx.example.com; x\r\n"
    f"\r\n)\r\n{TAG}3 OK x\r\n"
)
_PROXMOX = [
    {"data": {"ticket": TICKET, "CSRFPreventionToken": TOKEN, "role": "admin"}},
    {"data": {"tls": 1, "relay": "mail.example.com", "relaynomx": 1}},
    {"data": [{"domain": "example.com"}]},
    {"data": [{"domain": "example.com", "host": "mail.example.com", "port": 25, "use_mx": 0, "protocol": "smtp"}]},
    {"data": [{"destination": "[mail.example.com]:25", "policy": "encrypt"}]},
]
_MAILCOW = FakeMailcow(
    transports=[("example.com", "[mx.example.com]:25")], policies=[("[mx.example.com]:25", "encrypt")]
)
_API_MAILCOW = [
    {"version": "2026"},
    *(_MAILCOW._get(what, "all") for what in ("domain", "transport", "relayhost", "tls-policy-map")),
]
_SETTINGS = "".join(f"{name} = {value}\n" for name, value in DEFAULTS.items())
_MASTER = "smtp inet n - y - - smtpd\nsmtps inet n - y - - smtpd -o smtpd_tls_wrappermode=yes\nsmtp unix - - y - - smtp -o {{ a = b }}\n"
_EXIM_LISTED = " 3h  1.1K 1rHZxA-0000Cq-2b <me@a.example> *** frozen ***\n          you@b.example\n"
_EXIM_MESSAGE_LOG = "2026-11-29 19:30:22 you@b.example R=smarthost T=x defer (-54): retry time not reached for any host for 'b.example'\n"
_EXIM_DUMPED = (
    "  T:a.example:192.0.2.1:2525 -38 65 H=a.example [192.0.2.1]: a TLS session is required, but the server did not offer TLS support\n"
    "29-Nov-2026 19:30:21  29-Nov-2026 19:30:21  29-Nov-2026 19:45:21 *\n"
)
_POSTFIX_LISTED = {
    "queue_name": "deferred", "queue_id": "4Z1AAA2bbbz9", "arrival_time": 1700000000, "message_size": 400, "sender": "me@a.example",
    "recipients": [{"address": "you@b.example", "delay_reason": "host a.example[192.0.2.1] said: 451 5.7.3 STARTTLS is required"}],
}  # fmt: skip
_EXIM_PRINTED = """\
/var/lib/exim4/config.autogenerated
exim_version = 4.96
local_interfaces = <; 127.0.0.1 ; ::1.587
daemon_smtp_ports = smtp : 587
tls_on_connect_ports = 465
tls_advertise_hosts = *
tls_certificate = /etc/exim4/exim.crt
remote_smtp transport:
driver = smtp
hosts_require_tls = *
port = smtp
"""
_TCP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0 100 0 0 10 0\n"
    "   1: 00000000:01D1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1235 1 0 100 0 0 10 0\n"
)
_REQUEST = "request=smtpd_access_policy\nprotocol_name=ESMTP\nsender={}\nencryption_protocol={}\n\n"
_PROBES = plain_results(
    [Handshake(Target("mx.example.com"), Stage.EHLO_TLS, tls_version="TLSv1.3", cipher="X", chain=(_DER,))]
)
_PROBE = _PROBES["results"][0]
_EXPECTED = {
    "fingerprint": "", "require_trusted": True, "min_tls_version": "TLSv1.2", "min_days_left": 0, "warn_days_left": 21, "fail_on": "error",
}  # fmt: skip
_OBSERVED = {
    "kind": "postfix", "title": "Postfix", "version": "3.7.11", "health": {"state": "running", "message": ""}, "before": {"inbound": "offered"},
    "after": {"inbound": "required", "outbound": "opportunistic"}, "changes": [{"path": "/etc/x", "lines": "+a"}], "digests": {"/etc/x": "ab"},
    "obstacles": [{"code": "port_in_use", "message": "25"}], "notes": [], "next_hops": [{"host": "a", "port": 25, "completed": True, "message": ""}],
    "transports": [{"next_hop": "a", "loopback": False}], "probe": {"results": [_PROBE], "certificates": {}}, "activity": {"sessions_an_hour": 3},
    "gateway": {"title": "x", "email_configs": [{"name": "main", "servers": ["a:25"], "delivery_mode": "required"}], "accepted_domains": {"a": True}},
}  # fmt: skip
_JOURNAL = {
    "format": 1, "directories": ["/etc/x"],
    "files": [{"path": "/etc/x/a", "content": "eA==", "mode": 420, "uid": 0, "gid": 0, "after_sha256": "ab", "between_sha256": []}],
}  # fmt: skip
_RECORD = {
    "format": 1, "email_configs": [{"name": "main", "domains": ["a.example"], "servers": ["mx.example"], "delivery_mode": "required"}],
    "enforced_domains": [{"domain": "b.example", "direction": "inbound"}], "outbound": None, "ca_file": "",
}  # fmt: skip


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_EXIM_PLAIN = """\
PORT = 25
hide tls_certificate = /a.pem \\
  # in between
  : /b.pem
tls_advertise_hosts =
.ifdef _HAVE_TLS
tls_advertise_hosts = *
.endif
# mailfleet.starttls keeps: x = 1
# mailfleet.starttls: begin
tls_certificate = /x.pem
# mailfleet.starttls: end
begin acl
check:
  accept
begin transports
.include /etc/exim/more
out:
  driver = smtp
  hosts_avoid_tls = *
  no_multi_domain
"""

READER_SEEDS: dict[str, list[bytes]] = {
    "issued_result": [
        b'{"path": "/etc/x.pem", "due": "", "anew": false, "pem": "", "public_key": "", "pending": "", "message": ""}',
        b'{"path": "/etc/x.pem", "due": "old", "pem": "-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----", "public_key": "AA==", '
        b'"pending": "", "message": "no openssl"}',
        b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n",
        b"\x30\x82\x01\x00",
    ],
    "postfix_log": ["\n".join(_POSTFIX).format(d=_DAY).encode(), *(one.format(d=_DAY).encode() for one in _POSTFIX)],
    "exim_log": ["\n".join(_EXIM).encode(), *(one.encode() for one in _EXIM)],
    "log_rate": ["\n".join(_POSTFIX).format(d=_DAY).encode(), b"Jan  1 00:00:06 gw1 x\nJan  1 09:00:06 gw1 postfix/smtpd[1]: connect from x\n"],
    "tls_report": [_REPORT, gzip.compress(_REPORT, mtime=0), _MAIL],
    "policy_answer": [
        _HTTP + b"Content-Length: 63\r\n\r\n" + _STS,
        _HTTP + b"Transfer-Encoding: chunked\r\n\r\n3f\r\n" + _STS + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n",
    ],
    "dns_answer": [CUT.join([_ALIAS, _TLSA, _TLSA, _TXT, _ALIAS]), _TXT, _wire("x.example", code=3), _wire("x.example", code=2)],
    "imap": [_IMAP.encode(), b"* PREAUTH hello\r\n", b"* BYE\r\n"],
    "mailbox": [b"From a Thu Jan  1 00:00:00 2026\nX-Mailfleet-Trace: in-1\nReceived: by a; x\n\ntext\n\nFrom b\nX: y\n\n"],
    "api": [CUT.join(map(_json, _PROXMOX)), CUT.join(map(_json, _API_MAILCOW)), b'{"type": "error", "msg": "no"}', b"[]"],
    "postconf": [(_SETTINGS + CUT.decode() + _SETTINGS + CUT.decode() + _MASTER).encode()],
    "exim_printed": [_EXIM_PRINTED.encode()],
    "exim_plain": [_EXIM_PLAIN.encode(), _EXIM_PLAIN.replace("\n", "\r\n").encode()],
    "exim_queue": [CUT.join(one.encode() for one in (_EXIM_LISTED, _EXIM_MESSAGE_LOG, _EXIM_DUMPED, "  host a.example [192.0.2.1] port=2525\n"))],
    "postfix_queue": [_json(_POSTFIX_LISTED)],
    "haraka_ini": [b"[outbound]\nforce_tls_hosts[]=a.example\nno_tls_hosts[]=b.example\nx=1\\\ny\n[main]\nrejectUnauthorized=true\n"],
    "sockets": [_TCP.encode()],
    "policy_request": [_REQUEST.format("a@bank.example", "TLSv1.3").encode() + _REQUEST.format("a%bank.example", "").encode()],
    "pem": [_ISSUED.key_pem + _ISSUED.fullchain_pem],
    "journal": [_json(_JOURNAL), _json(_RECORD)],
    "observation": [_json(_OBSERVED), _json({"failed": True, "msg": "MODULE FAILURE", "module_stderr": "sudo: a password is required"})],
    "probe_result": [_json({**_PROBES, "expectations": [_EXPECTED]})],
    "former_report": [_json({"version": 1, "hosts": [{"host": "a", "tests": []}], "alerts": []})],
}  # fmt: skip
