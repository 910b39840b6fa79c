"""The zoo: mail servers that misbehave, and what the handshake test has to say of each.

One row is one animal: its name, how it behaves, the last stage that is reached and the code of what ended the
test there (none: it was completed), and then every finding by severity, no more and no fewer. Where no errors
are given, there is one if there is a code, and it is that code.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from tests.zoo.certificates import IDN, NAME, V1_0, V1_1, V1_2, V1_3, Tls
from tests.zoo.servers import (
    GREETING,
    OFFER,
    PLAIN,
    READY,
    Behaviour,
    Middlebox,
    Mta,
    answers_once,
    closes,
    half_a_handshake,
    in_pieces,
    nobody,
    plaintext_in_tls,
    repeats,
    resets,
    says,
    says_and_closes,
    silent,
    waits_then_says,
    without_close_notify,
)

TIMEOUT, TOTAL_TIMEOUT = 2, 6
"""Seconds that a stage, and a connection, may take in the zoo."""
SOON = 1.0
"""Seconds for an animal that gives no reason to wait."""
ONE_TIMEOUT = TIMEOUT + 0.5
"""For one that runs into a time-out, after which it is not asked for more."""
EACH_CHECK = TOTAL_TIMEOUT + 0.5
"""For one that makes each check wait: all of them together end with the total time-out."""


@dataclass(frozen=True)
class Animal:
    """A server and its verdict.

    target: options of the target. also: more of the result, by key. seconds: the time that the test may take, with all
    its checks, on top of what a busy machine takes. surveyed: the errors that a survey finds, where they are not the
    same: it sees nothing of what goes on inside TLS.
    """

    name: str
    behave: Behaviour
    stage: str = "ehlo_tls"
    code: str = ""
    errors: Optional[str] = None
    warnings: str = ""
    notices: str = ""
    target: Mapping[str, Any] = field(default_factory=dict)
    also: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = SOON
    surveyed: Optional[str] = None

    @property
    def findings(self) -> dict[str, set[str]]:
        """Severity -> codes."""
        errors = self.code if self.errors is None else self.errors
        return {
            "error": set(errors.split()),
            "warning": set(self.warnings.split()),
            "notice": set(self.notices.split()),
        }


def shows(*certificates: str, **options: Any) -> Mta:
    """A good server with these certificates; options are those of Tls."""
    return Mta(tls=Tls(certificates, **options))


ENDLESS = b"x" * 1000
LMTP = {"protocol": "lmtp"}
SMTPS = {"protocol": "smtps"}
BINARY = bytes(range(256)) * 4 + b"\r\n"
HUGE_LINE = b"220 " + b"x" * 1_000_000 + b"\r\n"
MANY_LINES = b"".join(b"220-line %d\r\n" % at for at in range(20)) + GREETING
TLS_ALERT = bytes.fromhex("15 0303 0002 02 28")  # fatal, handshake_failure
INJECTED, NOT_INJECTED = {"injection": True}, {"injection": False}
REQUESTED, REQUIRED = {"client_certificate": "requested"}, {"client_certificate": "required"}
REQUEST, REQUIRE = {"clients": ssl.CERT_OPTIONAL}, {"clients": ssl.CERT_REQUIRED}
ONLY_1_0, ONLY_1_1 = {"oldest": V1_0, "newest": V1_0}, {"oldest": V1_1, "newest": V1_1}
STRUCK_OUT = ((b"STARTTLS", b"XXXXXXXX"),)
FAULT_LATER = in_pieces(b"", b"454 4.3.0 TLS failed\r\n", pause=0.5, then=closes)

# fmt: off
GOOD = (
    Animal("good", Mta(), also={"injection": False, "resumption": True, "client_certificate": "not_requested"}),
    Animal("RSA", shows("good rsa")),
    Animal("Ed25519", shows("ed25519"), warnings="not_everywhere"),
    Animal("P-521", shows("p-521"), warnings="not_everywhere"),
    Animal("RSA and ECDSA", shows("good rsa", "good")),
    Animal("900 names in the certificate", shows("many names")),
    Animal("root in the chain", shows("root in the chain")),
    Animal("name with a dot at its end", Mta(), target={"name": NAME + "."}),
    Animal("name in capitals", Mta(), target={"name": NAME.upper()}),
    Animal("slow greeting", Mta(delay=0.8), seconds=EACH_CHECK),
    Animal("greeting of many lines", Mta(greeting=MANY_LINES)),
    Animal("greeting line by line", Mta(greeting=b"220-one\r\n220-two\r\n220 three\r\n", pause=0.3), seconds=EACH_CHECK),
    Animal("bare line feeds", Mta(greeting=b"220 hello\n", ehlo=b"250-hello\n250-STARTTLS\n250 HELP\n", starttls=b"220 go\n")),
    Animal("capabilities in small letters", Mta(offers=("pipelining", "starttls"))),
    Animal("answer to STARTTLS of two lines", Mta(starttls=b"220-Ready\r\n220 steady\r\n")),
    Animal("code alone as the greeting", Mta(greeting=b"220\r\n")),
    Animal("binary text behind a good code", Mta(greeting=b"220 \x00\x1b[2J\xff\xfe ESMTP\r\n")),
    Animal("no close_notify", Mta(inside=without_close_notify)),
    Animal("hangs up on an injected command", Mta(leftover="refused"), also=NOT_INJECTED),
    Animal("takes an injected command for TLS", Mta(leftover="tls"), also=NOT_INJECTED),
    Animal("answers 250 to everything", Mta(unknown=b"250 Ok\r\n"), also=NOT_INJECTED),
    Animal("answers 250 to QUIT", Mta(bye=b"250 Bye\r\n"), also=NOT_INJECTED),
    Animal("answers nothing to QUIT", Mta(bye=b""), also=NOT_INJECTED),
    Animal("LMTP", Mta(verb=b"LHLO"), target=LMTP),
    Animal("implicit TLS", Mta(implicit=True, offers_inside=("AUTH PLAIN",)), target=SMTPS),
)

GREETINGS = (
    Animal("silence", silent, "connect", "timeout", seconds=ONE_TIMEOUT),
    Animal("closes at once", closes, "connect", "connection_closed"),
    Animal("resets in place of a greeting", in_pieces(b"", then=resets), "connect", "connection_closed"),
    Animal("greeting that never ends its line", repeats(b"x", 0.05), "connect", "timeout", seconds=ONE_TIMEOUT),
    Animal("greeting that never ends", repeats(b"220-still here\r\n"), "connect", "not_smtp"),
    Animal("greeting that never ends, slowly", repeats(b"220-still here\r\n", 0.1), "connect", "timeout", seconds=ONE_TIMEOUT),
    Animal("line of a megabyte", says(HUGE_LINE), "connect", "not_smtp"),
    Animal("bytes without a line", repeats(ENDLESS), "connect", "not_smtp"),
    Animal("binary", says(BINARY), "connect", "not_smtp"),
    Animal("zeros", says(bytes(100) + b"\r\n"), "connect", "not_smtp"),
    Animal("code differs between lines", says(b"220-hello\r\n250 you\r\n"), "connect", "not_smtp"),
    Animal("digits of another script", says(b"\xef\xbc\x92\xef\xbc\x92\xef\xbc\x90 hello\r\n"), "connect", "not_smtp"),
    Animal("closes in its greeting", says_and_closes(b"220-wait\r\n220 a m"), "connect", "connection_closed"),
    Animal("greets with 421", says_and_closes(b"421 4.3.2 Too many connections\r\n"), "connect", "greeting_rejected"),
    Animal("greets with 554", says_and_closes(b"554 5.7.1 Go away\r\n"), "connect", "greeting_rejected"),
    Animal("SSH", says(b"SSH-2.0-OpenSSH_9.2\r\n"), "connect", "not_smtp"),
    Animal("IMAP", says(b"* OK IMAP4rev1 ready\r\n"), "connect", "not_smtp"),
    Animal("HTTP", waits_then_says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "connect", "timeout", seconds=ONE_TIMEOUT),
    Animal("implicit TLS where SMTP is expected", Mta(implicit=True), "connect", "timeout", seconds=ONE_TIMEOUT),
    Animal("SMTP where implicit TLS is expected", Mta(), "connect", "tls_failed", target=SMTPS),
    Animal("nobody listens", nobody, "connect", "connect_failed"),
)

HELLOS = (
    Animal("EHLO answered with 502", Mta(ehlo=b"502 5.5.1 What?\r\n"), "greeting", "ehlo_rejected"),
    Animal("EHLO answered with 421", Mta(on_ehlo=says_and_closes(b"421 4.3.2 Later\r\n")), "greeting", "ehlo_rejected"),
    Animal("LMTP where SMTP is expected", Mta(verb=b"LHLO"), "greeting", "ehlo_rejected"),
    Animal("SMTP where LMTP is expected", Mta(), "greeting", "ehlo_rejected", target=LMTP),
    Animal("closes at EHLO", Mta(on_ehlo=closes), "greeting", "connection_closed"),
    Animal("silent at EHLO", Mta(on_ehlo=silent), "greeting", "timeout", seconds=ONE_TIMEOUT),
    Animal("capabilities without end", Mta(on_ehlo=repeats(b"250-SIZE 10000\r\n")), "greeting", "not_smtp"),
    Animal("garbage for capabilities", Mta(on_ehlo=says(BINARY)), "greeting", "not_smtp"),
    Animal("no STARTTLS", Mta(offers=PLAIN), "ehlo", "starttls_not_offered"),
    Animal("a word like STARTTLS", Mta(offers=("XSTARTTLS", "STARTTLS-NOT", "HELP STARTTLS")), "ehlo", "starttls_not_offered"),
    Animal("STARTTLS in the greeting of EHLO", Mta(ehlo=b"250-STARTTLS\r\n250 HELP\r\n"), "ehlo", "starttls_not_offered"),
    Animal("AUTH before TLS", Mta(offers=(*OFFER, "AUTH PLAIN LOGIN")), warnings="auth_in_plaintext"),
    Animal("AUTH before TLS as old clients know it", Mta(offers=(*OFFER, "AUTH=LOGIN")), warnings="auth_in_plaintext"),
    Animal("middlebox that strips STARTTLS", Middlebox(Mta(), replies=((b"250 STARTTLS", b"250 HELP"),)), "ehlo", "starttls_not_offered"),
    Animal("middlebox that strikes STARTTLS out", Middlebox(Mta(), replies=STRUCK_OUT), "ehlo", "starttls_not_offered"),
    Animal("middlebox that strikes EHLO out", Middlebox(Mta(), commands=((b"EHLO", b"XXXX"),)), "greeting", "ehlo_rejected"),
    Animal("middlebox that strikes the command out", Middlebox(Mta(), commands=STRUCK_OUT), "starttls_advertised", "starttls_refused"),
)

STARTTLS = (
    Animal("454", Mta(starttls=b"454 4.7.0 TLS not available\r\n"), "starttls_advertised", "starttls_refused"),
    Animal("502", Mta(starttls=b"502 5.5.1 Not implemented\r\n"), "starttls_advertised", "starttls_refused"),
    Animal("250 in place of 220", Mta(starttls=b"250 Ok\r\n"), "starttls_advertised", "starttls_refused"),
    Animal("silent at STARTTLS", Mta(starttls=b"", on_starttls=silent), "starttls_advertised", "timeout", seconds=ONE_TIMEOUT),
    Animal("closes at STARTTLS", Mta(starttls=b"", on_starttls=closes), "starttls_advertised", "connection_closed"),
    Animal("plaintext behind the 220", Mta(starttls=READY + b"250 AUTH PLAIN\r\n"), "starttls_advertised", "plaintext_after_220"),
    Animal("two answers", Mta(starttls=READY + b"454 4.7.0 No\r\n"), "starttls_advertised", "plaintext_after_220"),
    Animal("220, then silence", Mta(on_starttls=silent), "starttls_answered", "timeout", seconds=EACH_CHECK),
    Animal("220, then silence, then plaintext, then it closes", Mta(on_starttls=FAULT_LATER),
           "starttls_answered", "tls_failed", seconds=EACH_CHECK),
    Animal("220, then plaintext in answer to TLS", Mta(on_starttls=waits_then_says(b"500 5.5.1 What?\r\n")),
           "starttls_answered", "tls_failed"),
    Animal("220, then garbage", Mta(on_starttls=waits_then_says(BINARY)), "starttls_answered", "tls_failed"),
    Animal("220, then it closes", Mta(on_starttls=closes), "starttls_answered", "connection_closed"),
    Animal("220, then it resets", Mta(on_starttls=resets), "starttls_answered", "connection_closed"),
    Animal("220, then an alert", Mta(on_starttls=waits_then_says(TLS_ALERT)), "starttls_answered", "tls_failed"),
    Animal("half a handshake, then silence", Mta(on_starttls=half_a_handshake(silent)), "starttls_answered", "timeout", seconds=EACH_CHECK),
    Animal("half a handshake, then it closes", Mta(on_starttls=half_a_handshake(closes)), "starttls_answered", "connection_closed"),
    Animal("half a handshake, then garbage", Mta(on_starttls=half_a_handshake(says(BINARY * 40))), "starttls_answered", "tls_failed"),
)

INSIDE = (
    Animal("silent inside TLS", Mta(inside=silent), "tls", "timeout", seconds=EACH_CHECK, surveyed=""),
    Animal("closes inside TLS", Mta(inside=closes), "tls", "connection_closed", surveyed=""),
    Animal("resets inside TLS", Mta(inside=resets), "tls", "connection_closed", surveyed=""),
    Animal("garbage inside TLS", Mta(inside=answers_once(BINARY, silent)), "tls", "not_smtp", surveyed=""),
    Animal("endless inside TLS", Mta(inside=repeats(b"250-still here\r\n")), "tls", "not_smtp", surveyed=""),
    Animal("falls out of TLS", Mta(inside=plaintext_in_tls), "tls", "tls_failed", surveyed=""),
    Animal("EHLO refused inside TLS", Mta(ehlo_inside=b"503 5.5.1 No\r\n"), "tls", "ehlo_tls_rejected", surveyed=""),
    Animal("greets again inside TLS", Mta(greeting_inside=GREETING), "tls", "ehlo_tls_rejected", surveyed=""),
    Animal("closes behind the last EHLO", Mta(inside=answers_once(b"250 mx.example.com\r\n"))),
    Animal("offers STARTTLS again", Mta(offers_inside=OFFER), warnings="starttls_offered_in_tls"),
    Animal("obeys injected commands", Mta(leftover="kept"), errors="command_injection", also=INJECTED, surveyed=""),
    Animal("obeys any injected command", Mta(leftover="kept", unknown=b"250 Ok\r\n"),
           errors="command_injection", also=INJECTED, surveyed=""),
    Animal("obeys injected commands, answers nothing to QUIT", Mta(leftover="kept", bye=b""),
           errors="command_injection", also=INJECTED, surveyed=""),
)

CERTIFICATES = (
    Animal("expired", shows("expired"), errors="expired"),
    Animal("expired, another name", shows("expired, another name"), errors="expired name_mismatch"),
    Animal("not yet valid", shows("not yet valid"), errors="not_yet_valid"),
    Animal("five days left", shows("five days left"), errors="expiring"),
    Animal("fifteen days left", shows("fifteen days left"), warnings="expires_soon"),
    Animal("self-signed", shows("self-signed"), errors="untrusted"),
    Animal("another authority", shows("another authority"), errors="untrusted"),
    Animal("no intermediate", shows("no intermediate"), errors="untrusted"),
    Animal("another intermediate", shows("another intermediate"), errors="untrusted"),
    Animal("expired intermediate", shows("expired intermediate"), errors="untrusted"),
    Animal("another name", shows("another name"), errors="name_mismatch"),
    Animal("a hostile name", shows("a hostile name"), errors="name_mismatch"),
    Animal("wildcard", shows("wildcard")),
    Animal("wildcard of the parent", shows("wildcard of the parent"), errors="name_mismatch"),
    Animal("wildcard one label short", shows("wildcard"), errors="name_mismatch", target={"name": "a.mx.example.com"}),
    Animal("address", shows("address"), target={"name": None}),
    Animal("address asked of a name", Mta(), errors="name_mismatch", target={"name": None}),
    Animal("address in the common name", shows("address as a name"), errors="name_mismatch", target={"name": None}),
    Animal("IDN", shows("idn"), target={"name": IDN}),
    Animal("IDN as people write it", shows("idn"), target={"name": "bücher.example.com"}),
    Animal("IDN, another", shows("idn"), errors="name_mismatch", target={"name": "xn--bcher-kva.example.net"}),
    Animal("common name only", shows("common name only"), warnings="name_in_common_name_only"),
    Animal("common name beside other names", shows("common name beside other names"), errors="name_mismatch"),
    Animal("for clients only", shows("for clients only"), errors="untrusted"),
    Animal("another certificate than the one installed", Mta(), errors="wrong_certificate", target={"fingerprint_sha256": "0" * 64}),
    Animal("another key", shows("another key"), "starttls_answered", "tls_failed"),
    Animal("another key, TLS 1.2", shows("another key", newest=V1_2), "starttls_answered", "tls_failed"),
    Animal("RSA of 1024 bits", shows("rsa-1024"), errors="weak_key"),
    Animal("SHA-1", shows("sha-1"), errors="weak_signature"),
    Animal("MD5", shows("md5"), errors="weak_signature"),
)

PROTOCOLS = (
    Animal("LMTP, expired", Mta(tls=Tls(("expired",)), verb=b"LHLO"), errors="expired", target=LMTP),
    Animal("LMTP, obeys injected commands", Mta(verb=b"LHLO", leftover="kept"),
           errors="command_injection", target=LMTP, also=INJECTED, surveyed=""),
    Animal("implicit TLS, expired", Mta(tls=Tls(("expired",)), implicit=True), errors="expired", target=SMTPS),
    Animal("implicit TLS, another key", Mta(tls=Tls(("another key",)), implicit=True), "connect", "tls_failed", target=SMTPS),
    Animal("implicit TLS, TLS 1.2 to 1.0", Mta(tls=Tls(oldest=V1_0, newest=V1_2), implicit=True),
           warnings="old_tls_offered", notices="no_tls13", target=SMTPS),
    Animal("implicit TLS, silent", Mta(implicit=True, inside=silent), "tls", "timeout", target=SMTPS, seconds=EACH_CHECK, surveyed=""),
    Animal("implicit TLS, no SMTP in it", Mta(implicit=True, greeting=b"HTTP/1.1 400 Bad Request\r\n"),
           "tls", "not_smtp", target=SMTPS, surveyed=""),
    Animal("implicit TLS, greets with 554", Mta(implicit=True, greeting=b"554 5.7.1 Go away\r\n"),
           "tls", "greeting_rejected", target=SMTPS, surveyed=""),
    Animal("implicit TLS, closes", Mta(implicit=True, inside=closes), "tls", "connection_closed", target=SMTPS, surveyed=""),
)

VERSIONS = (
    Animal("TLS 1.0 only", shows("good", **ONLY_1_0),
           "starttls_answered", "tls_failed", warnings="old_tls_offered", surveyed="old_tls"),
    Animal("TLS 1.1 only", shows("good", **ONLY_1_1),
           "starttls_answered", "tls_failed", warnings="old_tls_offered", surveyed="old_tls"),
    Animal("TLS 1.2 only", shows("good", newest=V1_2), notices="no_tls13"),
    Animal("TLS 1.3 only", shows("good", oldest=V1_3)),
    Animal("TLS 1.0 to 1.3", shows("good", oldest=V1_0), warnings="old_tls_offered"),
    Animal("TLS 1.1 to 1.2", shows("good", oldest=V1_1, newest=V1_2), warnings="old_tls_offered", notices="no_tls13"),
    Animal("ciphers without authentication", shows("good", newest=V1_2, ciphers="aNULL"), "starttls_answered", "tls_failed"),
    Animal("resumes nothing", shows("good", resumes=False), notices="no_resumption", also={"resumption": False}),
    Animal("resumes, TLS 1.2", shows("good", newest=V1_2), notices="no_tls13", also={"resumption": True}),
    Animal("asks for a client certificate", shows("good", **REQUEST), notices="client_certificate_requested", also=REQUESTED),
    Animal("asks for a client certificate, TLS 1.2", shows("good", **REQUEST, newest=V1_2),
           notices="client_certificate_requested no_tls13", also=REQUESTED),
    Animal("insists on a client certificate", shows("good", **REQUIRE), "tls", "client_certificate_required", also=REQUIRED, surveyed=""),
    Animal("insists on a client certificate, TLS 1.2", shows("good", **REQUIRE, newest=V1_2),
           "starttls_answered", "client_certificate_required", notices="no_tls13", also=REQUIRED, surveyed=""),
)
# fmt: on

ZOO = (*GOOD, *GREETINGS, *HELLOS, *STARTTLS, *INSIDE, *CERTIFICATES, *PROTOCOLS, *VERSIONS)
