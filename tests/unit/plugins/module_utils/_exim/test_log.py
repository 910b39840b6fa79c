import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Clock, Tally
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import log as activity_exim
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.log import EximLog, settings_of, shows_tls
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.counts import counted, short
from tests.support.mail_log import exim_log

BEGIN = 1767225600.0  # 2026-01-01T00:00:00Z
OLD, NEW = "1xVuM6-0000i7-2X", "1xVuMA-000000000wR-3qwg"
X = "X=TLS1.3:ECDHE_X25519__ECDSA_SECP256R1_SHA256__AES_256_GCM:256 CV=no"
FROM = "trace@alpha.test H=mx.partner.test (mx) [192.0.2.15]"
ROUTE = "R=dnslookup T=remote_smtp"
HOST = "H=mx.partner.test [192.0.2.15]"
CIPHER = "ECDHE_X25519__ECDSA_SECP256R1_SHA256__AES_256_GCM"
TLS_SESSION = {"sessions_tls": 1, "versions": {"TLSv1.3": 1}, "ciphers": {CIPHER: 1}}


def read(*lines, since=0.0, until=2e9, head="2026-01-01 00:00:00 +0000 ", visible=True):
    tally = Tally(100)
    log = EximLog(tally, since, until, visible)
    whole = [
        head.encode() + (line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")) for line in lines
    ]
    log.feed(whole, Clock(BEGIN))
    log.finish()
    return counted(tally, log)


# Inbound


@pytest.mark.parametrize("message", [OLD, NEW])
def test_a_message_over_tls(message):
    seen = read(f"{message} <= {FROM} P=esmtps {X} S=432 id=x@alpha.test")
    assert short(seen["peers"]["alpha.test", "inbound"]) == {"messages_tls": 1}
    assert short(seen["peers"]["partner.test", "inbound"]) == TLS_SESSION


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        (f"<= {FROM} P=esmtp S=378", {"sessions_plaintext": 1, "messages_plaintext": 1}),
        (f"<= {FROM} P=smtp K S=378 T=\"a subject\"", {"sessions_plaintext": 1, "messages_plaintext": 1}),
        (f"<= {FROM} P=esmtps S=378", {"sessions_tls": 1, "messages_tls": 1}),
        (f"<= {FROM}:40112 I=[198.51.100.1]:25 P=esmtpsa {X} DN=\"CN=x\" A=plain:me S=1 id=x@y", {**TLS_SESSION, "messages_tls": 1}),
        ("<= a@b.test H=(helo) [2001:db8::1] P=esmtp S=1", {"sessions_plaintext": 1, "messages_plaintext": 1}),
        ("<= a@b.test H=[192.0.2.9] U=me P=smtp S=1", {"sessions_plaintext": 1, "messages_plaintext": 1}),
        ("<= trace@charlie.test U=root P=local S=648 id=x@charlie.test", {}),
        (f"<= <> R={OLD} U=Debian-exim P=local S=2014", {}),
        ("<= a@b.test H=localhost [127.0.0.1] P=esmtp S=1", {}),
    ],
)  # fmt: skip
def test_messages(line, counted):
    assert short(read(f"{NEW} {line}")["inbound"]) == counted


def test_a_bounce_belongs_to_the_client():
    seen = read(f"{NEW} <= <> H=mx.partner.test [192.0.2.15] P=esmtps {X} S=1")
    assert short(seen["peers"]["partner.test", "inbound"]) == {**TLS_SESSION, "messages_tls": 1}


def test_messages_of_one_session_are_told_apart_by_port_or_process():
    message = f"{NEW} <= a@b.test H=mx.partner.test [192.0.2.15]:4711 P=esmtps {X} S=1"
    by_port = read(message, message, message.replace(":4711", ":4712"))
    assert (by_port["inbound"]["sessions_tls"], by_port["inbound"]["messages_tls"]) == (2, 3)
    assert by_port["log"].notes() == []
    message = message.replace(":4711", "")
    by_process = read(f"[41] {message}", f"[41] {message}", f"[42] {message}")
    assert (by_process["inbound"]["sessions_tls"], by_process["inbound"]["messages_tls"]) == (2, 3)


def test_without_either_it_is_said_that_each_message_counts_as_a_session():
    seen = read(*[f"{NEW} <= {FROM} P=esmtps {X} S=1"] * 2)
    assert seen["inbound"]["sessions_tls"] == 2
    (note,) = seen["log"].notes()
    assert (note.code, note.direction) == ("sessions_by_message", "inbound")
    assert "+incoming_port" in note.message


def test_sessions_without_mail_if_they_are_logged():
    seen = read(
        f"no MAIL in SMTP connection from mx.partner.test (mx) [192.0.2.15] D=0.1s {X} C=EHLO,STARTTLS,EHLO,QUIT",
        "no MAIL in SMTP connection from (mx) [192.0.2.16] D=0.1s C=EHLO,QUIT",
    )
    assert short(seen["peers"]["partner.test", "inbound"]) == TLS_SESSION
    assert short(seen["peers"]["[192.0.2.16]", "inbound"]) == {"sessions_plaintext": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(gnutls_handshake): No supported cipher suites have been found.", "no_shared_cipher"),
        ("(gnutls_handshake): An unexpected TLS packet was received.", "not_tls"),
        ("(gnutls_handshake): The TLS connection was non-properly terminated.", "lost_connection"),
        ("(gnutls_handshake): Decryption has failed.", "handshake_failed"),
        ("(gnutls_handshake): timed out", "timeout"),
        ("(cert/key setup: cert=/etc/x.pem key=/etc/x.pem): Error while reading file.", "key_unusable"),
        ("(SSL_accept): error:0A0000C1:SSL routines::no shared cipher", "no_shared_cipher"),
    ],
)
def test_a_handshake_that_fails(text, reason):
    seen = read(
        f"TLS error on connection from mx.partner.test (mx) [192.0.2.15] {text}",
        f"TLS error on connection from (mx) [192.0.2.16] {text}",
    )
    assert short(seen["peers"]["partner.test", "inbound"]) == {"failures": {reason: 1}}
    assert short(seen["peers"]["[192.0.2.16]", "inbound"]) == {"failures": {reason: 1}}


def test_how_a_session_ends_is_no_failed_handshake():
    seen = read(
        "TLS error on connection from mx.partner.test (mx) [192.0.2.15] (recv): The TLS connection was non-properly terminated.",
        "TLS error on connection from (mx) [127.0.0.1] (gnutls_handshake): timed out",
    )
    assert short(seen["inbound"]) == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "temporarily rejected MAIL <a@partner.test>: 451 4.7.0 STARTTLS is required for this sender",
            "enforced_sender",
        ),
        ("temporarily rejected MAIL <a@partner.test>: STARTTLS is required for this sender", "enforced_sender"),
        (
            "temporarily rejected MAIL <a@partner.test> SIZE=10: 430 4.7.0 Must issue a STARTTLS command first",
            "inbound_required",
        ),
        (
            "temporarily rejected MAIL <a@partner.test>: 450 4.7.0 Session encryption is required of this mail server",
            "mail_server_in_plaintext",
        ),
        (
            "F=<a@partner.test> temporarily rejected RCPT <x@alpha.test>: STARTTLS is required for this sender",
            "enforced_sender",
        ),
    ],
)
def test_a_refusal_for_want_of_tls(line, reason):
    seen = read(f"H=mx.partner.test [192.0.2.15] {line}", f"H=(gx12.fleet.test) [127.0.0.1] {line}")
    assert short(seen["peers"]["partner.test", "inbound"]) == {"refusals": {reason: 1}}


def test_other_refusals_are_not_counted():
    assert (
        short(
            read("H=mx.partner.test [192.0.2.15] temporarily rejected MAIL <a@b.test>: 451 greylisted, no TLS")[
                "inbound"
            ]
        )
        == {}
    )


# Outbound


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        (f'=> you@partner.test {ROUTE} {HOST} {X} DN="CN=mx.partner.test" K C="250 2.0.0 Ok"', {**TLS_SESSION, "messages_tls": 1}),
        (f'=> you@partner.test <me@alpha.test> F=<a@b> P=<a@b> {ROUTE} S=12 {HOST}:25 I=[192.0.2.1]:400 L {X} K C="250"',
         {**TLS_SESSION, "messages_tls": 1}),
        (f'=> you@partner.test {ROUTE} {HOST}* {X} C="250 Ok"', {"messages_tls": 1}),
        (f'=> you@partner.test {ROUTE} {HOST} K C="250 Ok"', {"sessions_plaintext": 1, "messages_plaintext": 1}),
        (f'>> you@partner.test {ROUTE} {HOST} C="250 Ok"', {"sessions_plaintext": 1, "messages_plaintext": 1}),
        ("=> trace <trace@charlie.test> R=local_user T=mail_spool", {}),
        (f'=> you@partner.test {ROUTE} H=127.0.0.1 [127.0.0.1] C="250 Ok"', {}),
    ],
)  # fmt: skip
def test_deliveries(line, counted):
    assert short(read(f"{NEW} {line}")["outbound"]) == counted


def test_more_recipients_of_a_delivery():
    sent = [
        f'{NEW} {mark} {to} {ROUTE} {HOST} {X} C="250 Ok"'
        for mark, to in (
            ("=>", "a@one.test"),
            ("->", "b@one.test"),
            ("->", "c@two.test"),
            ("->", "d@two.test"),
            ("=>", "e@one.test"),
        )
    ]
    seen = read(*sent)
    assert short(seen["peers"]["one.test", "outbound"])["messages_tls"] == 2
    assert short(seen["peers"]["two.test", "outbound"])["messages_tls"] == 1
    assert seen["outbound"]["sessions_tls"] == 2


@pytest.mark.parametrize(
    ("lines", "counted"),
    [
        ([f"{HOST}: a TLS session is required, but the server did not offer TLS support",
          f"== you@partner.test {ROUTE} defer (-38) {HOST}: a TLS session is required, but the server did not offer TLS support"],
         {"deferrals": {"no_starttls_offered": 1}}),
        ([f"== you@partner.test {ROUTE} {HOST} defer (-38): a TLS session is required, but the server did not offer TLS support"],
         {"deferrals": {"no_starttls_offered": 1}}),
        ([f"== you@partner.test {ROUTE} defer (-37) {HOST}: TLS session: (certificate verification failed): certificate invalid"],
         {"failures": {"certificate_untrusted": 1}, "deferrals": {"certificate_untrusted": 1}}),
        ([f"== you@partner.test {ROUTE} defer (-37) {HOST}: TLS session: (certificate verification failed)"],
         {"failures": {"certificate_not_verified": 1}, "deferrals": {"certificate_not_verified": 1}}),
        ([f"== you@partner.test {ROUTE} defer (-37) {HOST}: TLS session: (gnutls_handshake): An unexpected TLS packet was received."],
         {"failures": {"not_tls": 1}, "deferrals": {"not_tls": 1}}),
        ([f"== you@partner.test {ROUTE} defer (0) {HOST}: SMTP error from remote mail server after STARTTLS: 454 4.7.0 TLS not "
          "available due to local problem"], {"deferrals": {"starttls_refused": 1}}),
        ([f"TLS session: (gnutls_handshake): timed out: delivering unencrypted to {HOST} (not in hosts_require_tls)",
          f'=> you@partner.test {ROUTE} {HOST} C="250 Ok"'],
         {"failures": {"timeout": 1}, "sessions_plaintext": 1, "messages_plaintext": 1}),
        ([f"** you@partner.test {ROUTE} {HOST}: SMTP error from remote mail server after MAIL FROM:<a@b.test>: 530 5.7.0 Must issue a "
          "STARTTLS command first"], {"failures": {"peer_requires_tls": 1}}),
        ([f"== you@partner.test {ROUTE} defer (-44) {HOST}: SMTP error from remote mail server after MAIL FROM:<a@b.test> SIZE=1: "
          "451 4.7.0 STARTTLS is required for this sender"], {"deferrals": {"peer_requires_tls": 1}}),
    ],
)  # fmt: skip
def test_deliveries_that_failed(lines, counted):
    seen = read(*[f"{NEW} {line}" for line in lines])
    assert short(seen["peers"]["partner.test", "outbound"]) == counted


@pytest.mark.parametrize(
    "line",
    [
        f"== you@partner.test {ROUTE} defer (-54): retry time not reached for any host for 'partner.test'",
        f"== you@partner.test {ROUTE} defer (111): Connection refused",
        f"** you@partner.test {ROUTE} {HOST}: SMTP error from remote mail server after RCPT TO:<x@y>: 550 5.1.1 no TLS user",
    ],
)
def test_what_has_nothing_to_do_with_tls(line):
    assert short(read(f"{NEW} {line}")["outbound"]) == {}


def test_without_tls_cipher_nothing_is_said_of_outbound_sessions():
    seen = read(f'{NEW} => you@partner.test {ROUTE} {HOST} C="250 Ok"', visible=False)
    assert short(seen["outbound"]) == {"sessions_unknown": 1, "messages_unknown": 1}
    (note,) = seen["log"].notes()
    assert (note.code, note.direction) == ("outbound_not_logged", "outbound")


def test_an_unknown_field_before_the_cipher_is_no_sign_of_plaintext():
    seen = read(f'{NEW} => you@partner.test {ROUTE} {HOST} NEW=1 {X} C="250 Ok"')
    assert short(seen["outbound"]) == {"sessions_unknown": 1, "messages_unknown": 1}
    seen = read(f'{NEW} => you@partner.test {ROUTE} {HOST} C="250 X=TLS1.3:A:256 Ok"')
    assert short(seen["outbound"]) == {"sessions_plaintext": 1, "messages_plaintext": 1}


def test_a_protocol_that_is_not_exims_own_is_unknown():
    seen = read(f"{NEW} <= {FROM} P=spam-scanned S=378", f"{OLD} <= {FROM} P=spam-scanned {X} S=378")
    assert short(seen["inbound"]) == {**TLS_SESSION, "sessions_unknown": 1, "messages_unknown": 1, "messages_tls": 1}
    assert [(note.code, note.direction) for note in seen["log"].notes()][-1] == ("inbound_not_logged", "inbound")
    assert "(spam-scanned)" in seen["log"].notes()[-1].message


@pytest.mark.parametrize(
    ("lines", "visible", "transport"),
    [
        # The log itself shows whether it has the cipher, whatever the settings are now.
        ([f"{OLD} <= {FROM} P=esmtps S=378"], True, "unknown"),
        ([f"{OLD} <= {FROM} P=esmtps {X} S=378"], True, "plaintext"),
        ([f"{OLD} <= {FROM} P=esmtps {X} S=378"], False, "unknown"),
        ([], None, "unknown"),
        ([f"{OLD} <= {FROM} P=esmtps {X} S=378"], None, "plaintext"),
        ([f"{OLD} => me@other.test {ROUTE} {HOST} {X}"], None, "plaintext"),
    ],
)
def test_where_the_log_does_not_have_the_cipher_nothing_is_said_of_deliveries(lines, visible, transport):
    seen = read(*lines, f"{NEW} => you@partner.test {ROUTE} {HOST}", visible=visible)
    assert seen["peers"]["partner.test", "outbound"][f"messages_{transport}"] == 1


def test_a_session_without_mail_is_unknown_where_the_log_does_not_have_the_cipher():
    line = "no MAIL in SMTP connection from mx.partner.test [192.0.2.15] D=0s C=EHLO,QUIT"
    assert short(read(line)["inbound"]) == {"sessions_plaintext": 1}
    assert short(read(line, visible=False)["inbound"]) == {"sessions_unknown": 1}


def test_an_exim_that_is_not_there_tells_no_settings():
    assert shows_tls(settings_of(lambda _arguments: (127, "", "exim4: not found"))) is None


@pytest.mark.parametrize(
    ("selector", "shown"),
    [
        ("+smtp_protocol_error +tls_certificate_verified", True), ("", True), ("-tls_cipher", False), ("-all +tls_cipher", True),
        ("+tls_cipher -all", False),
    ],
)  # fmt: skip
def test_what_log_selector_shows(selector, shown):
    assert shows_tls(settings_of(lambda _arguments: (0, f"log_selector = {selector}\n", ""))) is shown


# Headers and the window


@pytest.mark.parametrize(
    "head",
    [
        "2026-01-01 00:00:00 ", "2026-01-01 00:00:00.123 +0000 ", "2026-01-01 00:00:00 [4711] ",
        "2026-01-01T00:00:00.5+00:00 mx exim[9]: 2026-01-01 00:00:00 ", "Jan  1 00:00:00 mx exim4[9]: ", "1767225600.1 mx exim4[9]: ",
    ],
)  # fmt: skip
def test_every_kind_of_header(head):
    assert read(f"{NEW} <= {FROM} P=esmtps {X} S=1", head=head)["inbound"]["messages_tls"] == 1


def test_lines_outside_of_the_window_do_not_count():
    line = f"{NEW} <= {FROM} P=esmtps {X} S=1"
    assert short(read(line, since=BEGIN + 1)["inbound"]) == short(read(line, until=BEGIN - 1)["inbound"]) == {}


def test_a_large_log_is_counted_to_the_message(tmp_path):
    path = tmp_path / "mainlog"
    truth = exim_log(path, 3 << 20)
    tally = Tally(1000)
    log = EximLog(tally, 0, 2e9)
    log.feed(path.read_bytes().split(b"\n"), Clock(BEGIN))
    totals = tally.result()["totals"]
    for name, count in truth.items():
        direction, what = name.split()
        value = totals[direction][what]
        assert (value if isinstance(value, int) else sum(one["count"] for one in value)) == count, name
    assert log.skipped_lines == 0


def test_tables_are_bounded(monkeypatch):
    for name in ("_MOST_SESSIONS", "_MOST_MESSAGES"):
        monkeypatch.setattr(activity_exim, name, 10)
    lines = [f"1xVuMA-{number:011d}-0000 => a@b.test {ROUTE} {HOST} {X}" for number in range(100)]
    lines += [f"[{number}] {NEW} <= {FROM} P=esmtps {X} S=1" for number in range(100)]
    lines += [f"1xVuMA-{number:011d}-0000 TLS session: x: delivering unencrypted to {HOST}" for number in range(100)]
    log = read(*lines)["log"]
    for table in (log._sessions, log._delivered, log._failures):
        assert 0 < len(table._items) <= 10


# Hostile text

FORGED = [
    f" P=esmtps {X} S=1", f") [192.0.2.1] P=esmtps {X} S=1 ", f"[192.0.2.1] D=0s {X} ", f'" {ROUTE} {HOST} {X} ', f"> {ROUTE} {HOST} {X}",
    f"\n2026-01-01 00:00:00 +0000 {NEW} <= {FROM} P=esmtps {X}", "\udcff", '"', "\\", "\x00",
]  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(FORGED), st.text(max_size=20)), max_size=5).map("".join)


def logged(text):
    """As Exim writes what is not printable."""
    return "".join(char if char.isprintable() else "?" for char in text.encode("utf-8", "replace").decode())


def quoted(text):
    return '"' + logged(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


@settings(max_examples=300, deadline=None)
@given(hostile, hostile)
def test_what_a_peer_says_is_never_taken_for_tls(one, two):
    said, helo, local = logged(one), logged(two), quoted(one)
    seen = read(
        f"{NEW} <= {local}@alpha.test H=mx.partner.test ({helo}) [192.0.2.15] P=esmtp S=1 id={said}@x T=\"{helo}\"",
        f"{NEW} <= {local}@alpha.test H=({helo}) [192.0.2.15] U={said} P=smtp S=1 id={said}@x",
        f"no MAIL in SMTP connection from ({helo}) [192.0.2.15] D=0s C=EHLO,QUIT",
        f"{NEW} => {local}@partner.test {ROUTE} {HOST} C=\"250 {said}\"",
        f"{NEW} => {local}@partner.test <{quoted(two)}@alpha.test> {ROUTE} {HOST} C=\"250 {said}\"",
        f"{NEW} == {local}@partner.test {ROUTE} defer (-44) {HOST}: SMTP error from remote mail server: 451 {said}",
        f"H=({helo}) [192.0.2.15] temporarily rejected MAIL <{local}@alpha.test>: {said}",
    )  # fmt: skip
    for direction in ("inbound", "outbound"):
        counts = seen[direction]
        assert (counts["sessions_tls"], counts["messages_tls"], counts["versions"]) == (0, 0, {})
    assert seen["outbound"]["messages_plaintext"] == 2


def test_text_that_looks_like_fields_is_counted_as_what_it_is():
    seen = read(f'{NEW} <= "a H=x [192.0.2.1] P=esmtps {X}"@alpha.test H=mx.partner.test [192.0.2.15] P=esmtp S=1')
    assert seen["inbound"]["messages_tls"] == 0
    seen = read(f"{NEW} <= a@alpha.test H=(x) [192.0.2.1] P=esmtps {X} S=1) [192.0.2.15] P=esmtp S=1")
    assert short(seen["inbound"]) == {}
    assert seen["log"].skipped_lines == 1


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=200), hostile.map(lambda text: text.encode("utf-8", "replace")))),
    st.binary(max_size=8),
)
def test_no_line_raises(texts, junk):
    tally = Tally(10)
    log = EximLog(tally, 0, 2e9)
    head = b"2026-01-01 00:00:00 "
    for mark in (b"<= ", b"=> ", b"-> ", b"== ", b"** ", b"TLS session: ", b"H=a [192.0.2.1] "):
        log.feed([head + NEW.encode() + b" " + mark + text + b" TLS H=" + text for text in texts], Clock(BEGIN))
        log.feed([head + mark + junk + b" TLS " + text for text in texts], Clock(BEGIN))
    for start in (b"TLS error on connection from ", b"no MAIL in SMTP connection from TLS ", b""):
        log.feed([head + start + text for text in texts], Clock(BEGIN))
    tally.result()


# Other words


@pytest.mark.parametrize("step", ["recv", "recv_tls_read", "send", "SSL_read", "SSL_write", "shutdown", "gnutls_bye"])
def test_how_a_session_to_a_server_ends_is_no_failed_handshake(step):
    lines = [
        f"{NEW} H=mx.partner.test [192.0.2.15] TLS error on connection ({step}): The TLS connection was non-properly terminated.",
        f"{NEW} => you@partner.test {ROUTE} {HOST} {X}",
    ]
    assert short(read(*lines)["outbound"]) == {**TLS_SESSION, "messages_tls": 1}


@pytest.mark.parametrize(
    "text",
    [
        "(recv): A TLS fatal alert has been received: Certificate is bad",
        "(SSL_read): error:0A000412:SSL routines::sslv3 alert bad certificate",
    ],
)
def test_an_alert_behind_the_handshake_of_tls_1_3_refuses_the_certificate(text):
    seen = read(f"TLS error on connection from mx.partner.test [192.0.2.15] {text}")
    assert short(seen["inbound"]) == {"failures": {"certificate_unknown": 1}}


@pytest.mark.parametrize("colon", [":", " :"])
@pytest.mark.parametrize(
    ("said", "counted"),
    [
        (
            "SMTP error from remote mail server after MAIL FROM:<a@b.test>: 530 5.7.1 TLS required",
            {"peer_requires_tls": 1},
        ),
        (
            "SMTP error from remote mail server after pipelined MAIL FROM:<a@b.test>: 550 5.7.10 Encryption needed",
            {"peer_requires_tls": 1},
        ),
        ("SMTP error from remote mail server after EHLO x: 550 5.1.1 no TLS user", {}),
        ("DANE error: tlsa lookup DEFER", {"dane_failed": 1}),
    ],
)
def test_the_words_of_exim_4_99_and_of_other_servers(colon, said, counted):
    seen = read(f"{NEW} == you@partner.test {ROUTE} defer (-45) {HOST}{colon} {said}")["outbound"]
    assert short({"deferrals": seen["deferrals"]}) == ({"deferrals": counted} if counted else {})


@pytest.mark.parametrize(
    "line",
    [
        "rejected MAIL <a@partner.test>: 550 5.7.0 STARTTLS is required for this sender",
        "F=<a@partner.test> rejected RCPT <x@alpha.test>: STARTTLS is required for this sender",
    ],
)
def test_a_refusal_is_one_whatever_its_code(line):
    seen = read(f"H=mx.partner.test [192.0.2.15] {line}")
    assert short(seen["peers"]["partner.test", "inbound"]) == {"refusals": {"enforced_sender": 1}}


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ("TLS required", 1), ("550 5.7.1 encryption required for this domain", 1), ("you must use STARTTLS", 1),
        ("relay not permitted", 0), ("550 no such user: TLS", 0),
    ],
)  # fmt: skip
def test_an_acl_of_the_administrator_refuses_in_words_of_its_own(said, counted):
    seen = read(f"H=mx.partner.test [192.0.2.15] F=<a@partner.test> rejected RCPT <x@alpha.test>: {said}")
    refusals = sum(one["count"] for one in seen["inbound"]["refusals"])
    assert (refusals, seen["log"].skipped_lines) == (counted, 0)


def test_who_used_tls_was_not_refused_for_want_of_it():
    tls = "X=TLS1.2:ECDHE_RSA_AES_256_GCM_SHA384:256 CV=no"
    line = f"H=mx.partner.test [192.0.2.15] {tls} F=<a@partner.test> rejected RCPT <x@alpha.test>: you must use TLS 1.3"
    assert read(line)["inbound"]["refusals"] == []


@pytest.mark.parametrize("word", ["SMTP", "TFO SMTP", "TFO* SMTP"])
def test_a_session_without_a_message_that_was_opened_fast(word):
    seen = read(
        f"no MAIL in {word} connection from mx.partner.test (mx) [192.0.2.15] D=0.1s X=TLS1.3:TLS_AES_256_GCM_SHA384:256 C=EHLO"
    )
    assert seen["inbound"]["sessions_tls"] == 1


def test_a_log_is_read_without_the_daemon():
    def nothing(arguments):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

    assert settings_of(nothing) is None


@pytest.mark.parametrize("head", ["2026-01-01 00:00:00 ", "2026-01-01 00:00:00 +0000 "])
def test_what_the_daemon_says_of_itself_is_no_line_that_is_not_understood(head):
    """On a quiet host most lines are such ones."""
    seen = read(
        "Start queue run: pid=2413",
        "End queue run: pid=2413",
        "pid 836: SIGHUP received: re-exec daemon",
        "exim 4.96 daemon started: pid=836, -q30m, listening for SMTP on port 25 (IPv4)",
        "exim 4.98.2 daemon started: pid=1102, no queue runs, listening for SMTP on [127.0.0.1]:51233",
        f"{NEW} <= {FROM} P=esmtp S=378",
        head=head,
    )
    assert (seen["log"].skipped_lines, seen["log"].mail_lines) == (0, 1)
