import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import Clock, Tally
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix import log as activity_postfix
from ansible_collections.mailfleet.starttls.plugins.module_utils._postfix.log import (
    PostfixLog,
    Visibility,
    visibility,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.counts import counted, short
from tests.support.mail_log import postfix_log

BEGIN = 1767225600.0  # 2026-01-01T00:00:00Z
VISIBLE = {"postfix": Visibility(1), "postfix-mailfleet": Visibility(1)}
PARTNER = "mx.partner.test[192.0.2.15]"
TLS_FROM = (
    f"Anonymous TLS connection established from {PARTNER}: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) "
    "key-exchange X25519 server-signature ECDSA (prime256v1) server-digest SHA256"
)
QUIT = f"disconnect from {PARTNER} ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7"
PLAIN_QUIT = f"disconnect from {PARTNER} ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5"
RELAY = "mx.partner.test[192.0.2.15]:25"


def tls_to(relay=RELAY, how="Trusted TLS connection established"):
    return f"{how} to {relay}: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519"


def to(
    recipient="you@partner.test",
    status="sent (250 2.0.0 Ok: queued as 49E6B1C26F6)",
    relay=RELAY,
    qid="B9DF51C409D",
    use="",
):
    return f"{qid}: to=<{recipient}>, relay={relay}, {use}delay=0.06, delays=0.01/0.01/0.04/0.01, dsn=2.0.0, status={status}"


def read(*lines, seen=VISIBLE, since=0.0, until=2e9, max_peers=100, program=None, host=""):
    """What is counted from lines, each the text behind the header, in front of which the program may stand."""
    tally = Tally(max_peers)
    log = PostfixLog(tally, since, until, seen, host=host)
    whole = []
    for number, line in enumerate(lines):
        text = line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")
        head = f"2026-01-01T00:00:{number % 60:02d}.000000+00:00 gw1 {program or ''}".encode()
        whole.append(head + text)
    log.feed(whole, Clock(BEGIN))
    log.finish()
    return counted(tally, log)


def smtpd(*texts, pid=10, name="postfix/smtpd"):
    return [f"{name}[{pid}]: {text}" for text in texts]


def smtp(*texts, pid=20, name="postfix/smtp"):
    return [f"{name}[{pid}]: {text}" for text in texts]


QUEUED = "postfix/qmgr[5]: 491AA1C40A5: from=<trace@alpha.test>, size=1050, nrcpt=1 (queue active)"
TLS_SESSION = {
    "sessions_tls": 1,
    "versions": {"TLSv1.3": 1},
    "ciphers": {"TLS_AES_256_GCM_SHA384": 1},
}


# Inbound


def test_a_message_over_tls():
    seen = read(
        *smtpd(f"connect from {PARTNER}", TLS_FROM, f"491AA1C40A5: client={PARTNER}"),
        "postfix/cleanup[6]: 491AA1C40A5: message-id=<x@alpha.test>",
        QUEUED,
        *smtpd(QUIT),
    )
    assert short(seen["inbound"]) == {**TLS_SESSION, "messages_tls": 1}
    assert short(seen["peers"]["partner.test", "inbound"]) == TLS_SESSION
    assert short(seen["peers"]["alpha.test", "inbound"]) == {"messages_tls": 1}
    assert short(seen["outbound"]) == {}


@pytest.mark.parametrize("late", [True, False])
def test_a_message_in_plaintext_whether_it_is_queued_before_or_after_the_session_ends(late):
    end = [QUEUED, *smtpd(PLAIN_QUIT)]
    seen = read(*smtpd(f"connect from {PARTNER}", f"491AA1C40A5: client={PARTNER}"), *(end[::-1] if late else end))
    assert short(seen["inbound"]) == {"sessions_plaintext": 1, "messages_plaintext": 1}


def test_without_a_log_level_the_summary_tells_of_tls_but_not_the_version():
    seen = read(*smtpd(f"connect from {PARTNER}", f"491AA1C40A5: client={PARTNER}", QUIT), QUEUED)
    assert short(seen["inbound"]) == {"sessions_tls": 1, "messages_tls": 1}
    (note,) = seen["log"].notes()
    assert (note.code, note.direction) == ("versions_not_logged", "inbound")
    assert "postconf -e smtpd_tls_loglevel=1" in note.message


def test_tls_from_the_first_byte_has_no_starttls_in_its_summary():
    lines = smtpd(f"491AA1C40A5: client={PARTNER}", PLAIN_QUIT, name="postfix/submissions/smtpd")
    assert short(read(*lines, QUEUED)["inbound"]) == {"sessions_tls": 1, "messages_tls": 1}


def test_a_message_is_counted_once_however_often_it_is_tried():
    lines = smtpd(TLS_FROM, f"491AA1C40A5: client={PARTNER}")
    assert read(*lines, QUEUED, QUEUED, *smtpd(QUIT), QUEUED)["inbound"]["messages_tls"] == 1


def test_a_bounce_belongs_to_the_client():
    lines = smtpd(TLS_FROM, f"491AA1C40A5: client={PARTNER}", QUIT)
    seen = read(*lines, "postfix/qmgr[5]: 491AA1C40A5: from=<>, size=1, nrcpt=1 (queue active)")
    assert short(seen["peers"]["partner.test", "inbound"]) == {**TLS_SESSION, "messages_tls": 1}


def test_the_same_queue_id_in_two_instances_is_two_messages():
    seen = read(
        *smtpd(TLS_FROM, f"491AA1C40A5: client={PARTNER}"),
        *smtpd(f"491AA1C40A5: client={PARTNER}", pid=11, name="postfix-two/smtpd"),
        QUEUED,
        QUEUED.replace("postfix/", "postfix-two/"),
        *smtpd(QUIT),
        *smtpd(PLAIN_QUIT, pid=11, name="postfix-two/smtpd"),
    )
    assert (seen["inbound"]["messages_tls"], seen["inbound"]["messages_plaintext"]) == (1, 1)


def test_what_the_host_sends_to_itself_is_not_counted():
    local = "localhost[127.0.0.1]"
    seen = read(
        *smtpd(TLS_FROM.replace(PARTNER, local), f"491AA1C40A5: client={local}", QUIT.replace(PARTNER, local)),
        QUEUED,
        *smtpd(f"NOQUEUE: reject: RCPT from {local}: 451 4.7.0 <a@partner.test>: Sender address rejected: STARTTLS is required "
               "for this sender; from=<a@partner.test> to=<x@alpha.test> proto=ESMTP helo=<gw1>"),
        *smtp(to(relay="127.0.0.1[127.0.0.1]:10125"), to(relay="host[private/lmtp]"), to(relay="local")),
    )  # fmt: skip
    assert (short(seen["inbound"]), short(seen["outbound"])) == ({}, {})


def test_who_says_nothing_has_no_session():
    seen = read(*smtpd(f"connect from {PARTNER}", f"disconnect from {PARTNER} commands=0/0"))
    assert short(seen["inbound"]) == {}


FAILED = f"disconnect from {PARTNER} ehlo=1 starttls=0/1 commands=1/2"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([f"SSL_accept error from {PARTNER}: lost connection"], "lost_connection"),
        ([f"SSL_accept error from {PARTNER}: Connection timed out"], "timeout"),
        (
            [
                f"SSL_accept error from {PARTNER}: -1",
                "warning: TLS library problem: error:0A0000C1:SSL routines::no shared cipher:../ssl/statem/statem_srvr.c:2226:",
            ],
            "no_shared_cipher",
        ),
        (
            [
                f"SSL_accept error from {PARTNER}: -1",
                "warning: TLS library problem: error:0A00010B:SSL routines::wrong version number:../ssl/record/ssl3_record.c:350:",
                f"lost connection after STARTTLS from {PARTNER}",
            ],
            "not_tls",
        ),
        (
            [
                f"SSL_accept error from {PARTNER}: -1",
                "warning: TLS library problem: error:0A000418:SSL routines::tlsv1 alert unknown ca:../ssl/record/rec_layer_s3.c:1602:"
                "SSL alert number 48:",
                f"NOQUEUE: lost connection after STARTTLS from {PARTNER}",
            ],
            "certificate_untrusted",
        ),
        ([], "tls_unavailable"),
    ],
)
def test_a_handshake_that_fails(lines, reason):
    seen = read(*smtpd(f"connect from {PARTNER}", *lines, FAILED))
    assert short(seen["peers"]["partner.test", "inbound"]) == {"failures": {reason: 1}}


def test_a_key_that_cannot_be_used_is_said_once_for_many_sessions():
    seen = read(
        *smtpd(
            "warning: cannot get RSA certificate from file \"/etc/x.pem\": disabling TLS support",
            f"connect from {PARTNER}", FAILED, f"connect from {PARTNER}", FAILED,
        )
    )  # fmt: skip
    assert short(seen["inbound"]) == {"failures": {"key_unusable": 2}}


def test_a_client_that_goes_on_in_plaintext_after_a_failure():
    end = f"disconnect from {PARTNER} ehlo=1 starttls=0/1 mail=1 rcpt=1 data=1 quit=1 commands=5/6"
    seen = read(*smtpd(f"491AA1C40A5: client={PARTNER}"), QUEUED, *smtpd(end))
    assert short(seen["inbound"]) == {
        "failures": {"tls_unavailable": 1}, "sessions_plaintext": 1, "messages_plaintext": 1,
    }  # fmt: skip


def test_a_client_that_does_not_take_the_certificate_of_tls_1_3():
    """The server has ended its handshake by then."""
    alert = (
        "warning: TLS library problem: error:0A000412:SSL routines::ssl/tls alert bad certificate:../ssl/record/rec_layer_s3.c:918:"
        "SSL alert number 42:"
    )
    seen = read(*smtpd(TLS_FROM, alert, f"disconnect from {PARTNER} ehlo=1 starttls=1 commands=2"))
    assert short(seen["inbound"]) == {"failures": {"certificate_unknown": 1}}


def test_what_goes_wrong_when_a_session_ends_is_no_failed_handshake():
    end = "warning: TLS library problem: error:0A000126:SSL routines::unexpected eof while reading:../ssl/x.c:320:"
    seen = read(*smtpd(TLS_FROM, f"491AA1C40A5: client={PARTNER}", end, QUIT), QUEUED)
    assert short(seen["inbound"]) == {**TLS_SESSION, "messages_tls": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("451 4.7.0 <a@partner.test>: Sender address rejected: STARTTLS is required for this sender", "enforced_sender"),
        ("450 4.7.1 Session encryption is required", "mail_server_in_plaintext"),
        ("450 4.7.1 <mx.partner.test[192.0.2.15]>: Client host rejected: Session encryption is required", "mail_server_in_plaintext"),
    ],
)  # fmt: skip
def test_a_refusal_for_want_of_tls(text, reason):
    line = (
        f"NOQUEUE: reject: RCPT from {PARTNER}: {text}; from=<a@partner.test> to=<x@alpha.test> proto=ESMTP helo=<mx>"
    )
    seen = read(*smtpd(line))
    assert short(seen["peers"]["partner.test", "inbound"]) == {"refusals": {reason: 1}}
    (event,) = seen["inbound"]["refusals"]
    assert event["detail"].startswith("NOQUEUE: reject: RCPT from")
    assert (event["first"], event["last"]) == ("2026-01-01T00:00:00Z",) * 2


def test_other_refusals_are_not_counted():
    line = f"NOQUEUE: reject: RCPT from {PARTNER}: 554 5.7.1 <x@y.test>: Relay access denied; from=<a@b.test> to=<x@y.test> proto=ESMTP"
    greylisted = line.replace("554 5.7.1", "451 4.7.1").replace(
        "Relay access denied", "Greylisted: STARTTLS is required for this sender not"
    )
    assert short(read(*smtpd(line, greylisted))["inbound"]) == {}


def test_a_session_that_goes_on_at_the_end_of_the_log():
    seen = read(*smtpd(f"491AA1C40A5: client={PARTNER}"), QUEUED)
    assert short(seen["inbound"]) == {"sessions_unknown": 1, "messages_unknown": 1}
    assert short(read(*smtpd(TLS_FROM))["inbound"]) == TLS_SESSION


def test_a_session_whose_end_was_lost_does_not_mark_the_next_one():
    seen = read(*smtpd(TLS_FROM, f"connect from {PARTNER}", f"491AA1C40A5: client={PARTNER}", PLAIN_QUIT), QUEUED)
    assert seen["inbound"]["messages_plaintext"] == 1
    assert seen["inbound"]["messages_tls"] == 0


# Outbound


def test_a_delivery_over_tls_and_its_recipients():
    seen = read(*smtp(tls_to(), to(), to("other@partner.test"), to("third@sub.partner.test")))
    assert short(seen["outbound"]) == {**TLS_SESSION, "messages_tls": 2}
    assert short(seen["peers"]["partner.test", "outbound"]) == {**TLS_SESSION, "messages_tls": 1}


def test_a_delivery_in_plaintext_after_one_over_tls():
    seen = read(*smtp(tls_to(), to(), to(qid="3B9DF51C409")))
    assert short(seen["outbound"]) == {
        **TLS_SESSION, "messages_tls": 1, "sessions_plaintext": 1, "messages_plaintext": 1,
    }  # fmt: skip


def test_tls_to_another_host_does_not_count_for_the_one_that_took_the_message():
    seen = read(*smtp(tls_to("mx1.partner.test[192.0.2.16]:25"), to()))
    assert short(seen["outbound"]) == {**TLS_SESSION, "sessions_plaintext": 1, "messages_plaintext": 1}


def test_processes_do_not_mix():
    seen = read(*smtp(tls_to(), pid=1), *smtp(to(qid="AAAAAAAA1"), pid=2), *smtp(to(qid="AAAAAAAA2"), pid=1))
    assert (seen["outbound"]["messages_tls"], seen["outbound"]["messages_plaintext"]) == (1, 1)


def test_connections_that_are_used_again_are_no_new_sessions():
    again = tls_to(how="Trusted TLS connection reused")
    seen = read(
        *smtp(tls_to(), to(), again, to(qid="AAAAAAAA1", use="conn_use=2, ")),
        *smtp(to(qid="AAAAAAAA2", use="conn_use=3, ")),
    )
    assert short(seen["outbound"]) == {**TLS_SESSION, "messages_tls": 2, "messages_plaintext": 1}


@pytest.mark.parametrize(
    ("lines", "counted"),
    [
        ([to(status="deferred (TLS is required, but was not offered by host mx.partner.test[192.0.2.15])")],
         {"deferrals": {"no_starttls_offered": 1}}),
        ([to(status="deferred (TLS is required, but host mx.partner.test[192.0.2.15] refused to start TLS: 454 4.7.0 TLS not "
                    "available due to local problem)")], {"deferrals": {"starttls_refused": 1}}),
        (["SSL_connect error to mx.partner.test[192.0.2.15]:25: -1",
          "warning: TLS library problem: error:0A00010B:SSL routines::wrong version number:../ssl/record/ssl3_record.c:350:",
          to(status="deferred (Cannot start TLS: handshake failure)")], {"failures": {"not_tls": 1}, "deferrals": {"not_tls": 1}}),
        (["SSL_connect error to mx.partner.test[192.0.2.15]:25: lost connection",
          to(status="deferred (Cannot start TLS: handshake failure)")],
         {"failures": {"lost_connection": 1}, "deferrals": {"lost_connection": 1}}),
        ([to(status="deferred (Cannot start TLS: handshake failure)")], {"deferrals": {"handshake_failed": 1}}),
        (["certificate verification failed for mx.partner.test[192.0.2.15]:25: self-signed certificate", tls_to(),
          to(status="deferred (Server certificate not verified)")], {**TLS_SESSION, "deferrals": {"certificate_untrusted": 1}}),
        (["server certificate verification failed for mx.partner.test[192.0.2.15]:25: num=62:hostname mismatch", tls_to(),
          to(status="deferred (Server certificate not verified)")], {**TLS_SESSION, "deferrals": {"certificate_name_mismatch": 1}}),
        (["server certificate verification failed for mx.partner.test[192.0.2.15]:25: certificate has expired", tls_to(),
          to(status="deferred (Server certificate not verified)")], {**TLS_SESSION, "deferrals": {"certificate_expired": 1}}),
        ([tls_to(), to(status="deferred (Server certificate not verified)")],
         {**TLS_SESSION, "deferrals": {"certificate_not_verified": 1}}),
        ([to(status="bounced (host mx.partner.test[192.0.2.15] said: 530 5.7.0 Must issue a STARTTLS command first (in reply to "
                    "MAIL FROM command))")], {"sessions_plaintext": 1, "failures": {"peer_requires_tls": 1}}),
        ([to(status="deferred (host mx.partner.test[192.0.2.15] said: 451 4.7.0 <a@b.test>: Sender address rejected: STARTTLS is "
                    "required for this sender (in reply to RCPT TO command))")],
         {"sessions_plaintext": 1, "deferrals": {"peer_requires_tls": 1}}),
        ([to(status="deferred (connect to mx.partner.test[192.0.2.15]:25: Connection refused)", relay="none")], {}),
    ],
)  # fmt: skip
def test_deliveries_that_did_not_come_about(lines, counted):
    assert short(read(*smtp(*lines))["peers"]["partner.test", "outbound"]) == counted


def test_mail_that_waits_because_another_delivery_has_failed():
    status = "deferred (delivery temporarily suspended: TLS is required, but was not offered by host mx.partner.test[192.0.2.15])"
    seen = read(f"postfix/error[7]: {to(status=status, relay='none')}")
    assert short(seen["outbound"]) == {"deferrals": {"no_starttls_offered": 1}}


def test_a_server_cannot_say_that_this_host_wanted_tls():
    status = "deferred (host mx.partner.test[192.0.2.15] said: 451 TLS is required, but was not offered by host x)"
    assert short(read(*smtp(to(status=status)))["outbound"]) == {"sessions_plaintext": 1}


def test_every_instance_and_transport_is_read():
    seen = read(
        *smtp(tls_to(), to(), name="postfix-mailfleet/smtp-match/smtp"),
        *smtp(tls_to(), to(), name="postfix/lmtp-remote/lmtp", pid=21),
    )
    assert seen["outbound"]["messages_tls"] == 2


# What the log cannot tell


def test_nothing_is_said_of_outbound_sessions_that_are_not_logged():
    seen = read(*smtp(to()), seen={"postfix": Visibility(0)})
    assert short(seen["outbound"]) == {"sessions_unknown": 1, "messages_unknown": 1}
    (note,) = seen["log"].notes()
    assert (note.code, note.direction) == ("outbound_not_logged", "outbound")
    assert "postconf -e smtp_tls_loglevel=1 && postfix reload" in note.message


def test_where_no_session_may_use_tls_all_are_plaintext():
    seen = read(*smtp(to()), seen={"postfix": Visibility(0, sends_tls=False)})
    assert short(seen["outbound"]) == {"sessions_plaintext": 1, "messages_plaintext": 1}


def test_before_the_configuration_changed_only_the_log_speaks():
    changed = {"postfix": Visibility(1, since=BEGIN + 30)}
    assert short(read(*smtp(to()), seen=changed)["outbound"]) == {"sessions_unknown": 1, "messages_unknown": 1}
    later = read(*smtp(*["-"] * 40, to()), seen=changed)
    assert short(later["outbound"]) == {"sessions_plaintext": 1, "messages_plaintext": 1}
    proved = read(*smtp(tls_to(), to(), to(qid="AAAAAAAA1")), seen=changed)
    assert proved["outbound"]["messages_plaintext"] == 1


def test_an_instance_that_is_not_there_any_more_is_unknown():
    assert read(*smtp(to(), name="mail/smtp"), seen=VISIBLE)["outbound"]["messages_unknown"] == 1


def test_a_server_name_in_the_line_about_tls():
    session = smtpd(TLS_FROM.replace(f"{PARTNER}:", f"{PARTNER} to mail.gw.test:"), PLAIN_QUIT)
    assert short(read(*session)["inbound"]) == TLS_SESSION


def test_a_line_about_tls_that_cannot_be_read_is_no_sign_of_plaintext():
    odd = TLS_FROM.replace(" with cipher ", " group X25519 with cipher ")
    seen = read(*smtpd(odd, f"491AA1C40A5: client={PARTNER}", PLAIN_QUIT), QUEUED)
    assert short(seen["inbound"]) == {"sessions_tls": 1, "messages_tls": 1}
    assert (seen["log"].skipped_lines, [note.code for note in seen["log"].notes()]) == (1, ["versions_not_logged"])
    seen = read(*smtp(tls_to().replace(" with cipher ", " group X25519 with cipher "), to(), to(qid="AAAAAAAA1")))
    assert short(seen["outbound"]) == {
        "sessions_unknown": 1, "messages_unknown": 1, "sessions_plaintext": 1, "messages_plaintext": 1,
    }  # fmt: skip


def test_more_handshakes_than_are_kept_are_no_sign_of_plaintext():
    others = [tls_to(f"mx{number}.partner.test[192.0.2.{number}]:25") for number in range(30, 46)]
    assert read(*smtp(*others, tls_to(), to()))["outbound"]["messages_unknown"] == 1


def test_the_settings_of_one_host_say_nothing_of_the_log_of_another():
    off = {"postfix": Visibility(0, sends_tls=False)}
    for host in ("gw1", "gw1.example", "GW1"):
        assert read(*smtp(to()), seen=off, host=host)["outbound"]["messages_plaintext"] == 1
    seen = read(*smtp(to()), seen=off, host="controller")
    assert short(seen["outbound"]) == {"sessions_unknown": 1, "messages_unknown": 1}
    assert "the log is of another host (gw1 postfix)" in seen["log"].notes()[0].message
    proved = read(*smtp(tls_to(), to(), to(qid="AAAAAAAA1")), seen=off, host="controller")
    assert short(proved["outbound"]) == {
        **TLS_SESSION,
        "messages_tls": 1,
        "sessions_plaintext": 1,
        "messages_plaintext": 1,
    }


def test_what_waits_for_a_service_on_the_own_host_is_a_deferral_and_no_session():
    said = "TLS is required, but was not offered by host 127.0.0.1[127.0.0.1]"
    line = to(relay="127.0.0.1[127.0.0.1]:10026", status=f"deferred ({said})")
    seen = short(read(*smtp(line))["outbound"])
    assert list(seen) == ["deferrals"] and "no_starttls_offered" in str(seen)


def test_the_loopback_as_ipv4_in_ipv6_is_no_network():
    assert short(read(*smtp(to(relay="localhost[::ffff:127.0.0.1]:25")))["outbound"]) == {}


# The window, and lines of others


def test_lines_outside_of_the_window_do_not_count():
    lines = smtpd(*[PLAIN_QUIT] * 10)
    seen = read(*lines, since=BEGIN + 3, until=BEGIN + 5)
    assert seen["inbound"]["sessions_plaintext"] == 3
    assert seen["log"].first == BEGIN


@pytest.mark.parametrize(
    "head",
    [
        b"2026-01-01T00:00:00.123456+00:00 gw1 ", b"2026-01-01T00:00:00Z gw1 ", b"Jan  1 00:00:00 gw1 ",
        b"1767225600.123456 gw1.fleet.test ",
    ],
)  # fmt: skip
def test_every_kind_of_header(head):
    tally = Tally(10)
    log = PostfixLog(tally, 0, 2e9, VISIBLE)
    assert log.feed([head + f"postfix/smtpd[1]: {QUIT}".encode()], Clock(BEGIN)) is not None
    assert tally.result()["totals"]["inbound"]["sessions_tls"] == 1


def test_other_programs_cannot_speak_for_postfix():
    forged = f"postfix/smtpd[1]: {QUIT}"
    seen = read(
        f"dovecot: {forged}", f"dovecot[4]: {forged}", f"x/y: {forged}", f"postfix/local[3]: {forged}", f"x {forged}",
    )  # fmt: skip
    assert short(seen["inbound"]) == {}


def test_a_large_log_is_counted_to_the_message(tmp_path):
    path = tmp_path / "mail.log"
    truth = postfix_log(path, 3 << 20)
    tally = Tally(1000)
    log = PostfixLog(tally, 0, 2e9, VISIBLE)
    log.feed(path.read_bytes().split(b"\n"), Clock(BEGIN))
    log.finish()
    totals = tally.result()["totals"]
    for name, count in truth.items():
        direction, what = name.split()
        value = totals[direction][what]
        assert (value if isinstance(value, int) else sum(one["count"] for one in value)) == count, name
    assert log.skipped_lines == 0


def test_tables_are_bounded(monkeypatch):
    for name in ("_MOST_SESSIONS", "_MOST_MESSAGES", "_MOST_WAITING"):
        monkeypatch.setattr(activity_postfix, name, 10)
    lines = []
    for number in range(500):
        lines += smtpd(f"{number:010d}: client={PARTNER}", pid=number)
        lines += smtp(tls_to(), pid=10000 + number)
    lines += [QUEUED.replace("491AA1C40A5", f"{number:010d}") for number in range(500)]
    log = read(*lines)["log"]
    for table in (log._sessions, log._messages, log._deliveries):
        assert len(table._items) <= 10


# Hostile text

FORGED = [
    f"], {TLS_FROM}", f">, relay={RELAY}, delay=1, delays=1/1/1/1, dsn=2.0.0, status=sent (", f"\n{TLS_FROM}", tls_to(), QUIT,
    " starttls=1 ", "postfix/smtpd[10]: ", "2026-01-01T00:00:00Z gw1 postfix/smtp[20]: ", "\x00\x1b[31m", "\udcff\udcfe", '"', "\\",
]  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(FORGED), st.text(max_size=20)), max_size=5).map("".join)


def logged(text):
    """As Postfix writes what is not printable, and syslog a line."""
    return "".join(char if char.isprintable() else "?" for char in text.encode("utf-8", "replace").decode()).replace(
        "\n", "?"
    )


def quoted(text):
    """A local part as Postfix writes it."""
    return '"' + logged(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


@settings(max_examples=300, deadline=None)
@given(hostile, hostile, hostile)
def test_what_a_peer_says_is_never_taken_for_tls(local, said, helo):
    seen = read(
        *smtpd(f"connect from {PARTNER}", f"491AA1C40A5: client={PARTNER}"),
        QUEUED.replace("trace@", f"{quoted(local)}@"),
        *smtpd(
            f"warning: non-SMTP command from {PARTNER}: {logged(helo)}",
            f"NOQUEUE: reject: RCPT from {PARTNER}: 451 4.7.1 <{quoted(local)}@x.test>: no; from=<{quoted(local)}@x.test> "
            f"to=<{quoted(said)}@alpha.test> proto=ESMTP helo=<{logged(helo)}>",
            PLAIN_QUIT,
        ),
        *smtp(
            f"AAAAAAAA1: host mx.partner.test[192.0.2.15] said: 451 {logged(said)}",
            to(f"{quoted(local)}@partner.test", f"sent (250 {logged(said)})"),
            to(f"{quoted(said)}@partner.test", f"deferred (host mx said: 451 {logged(local)})", qid="AAAAAAAA1"),
            to(f"{logged(local)}@partner.test", f"deferred (host mx said: 451 {logged(local)})", qid="AAAAAAAA2"),
        ),
    )
    for direction in ("inbound", "outbound"):
        counts = seen[direction]
        assert (counts["sessions_tls"], counts["messages_tls"], counts["versions"], counts["failures"]) == (
            0,
            0,
            {},
            [],
        )
    assert seen["inbound"]["messages_plaintext"] == 1
    assert seen["outbound"]["messages_plaintext"] >= 1


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=200), hostile.map(lambda text: text.encode("utf-8", "replace")))),
    st.binary(max_size=8),
)
def test_no_line_raises(texts, junk):
    tally = Tally(10)
    log = PostfixLog(tally, 0, 2e9, VISIBLE)
    head = b"2026-01-01T00:00:00Z gw1 "
    for program in (b"postfix/smtpd[10]: ", b"postfix/smtp[20]: ", b"postfix/qmgr[1]: ", b"postfix/error[1]: ", b""):
        log.feed([head + program + text for text in texts], Clock(BEGIN))
        log.feed([head[:20] + junk + program + text for text in texts], Clock(BEGIN))
        log.feed(texts, Clock(BEGIN))
    log.finish()
    tally.result()


# What the configuration makes the log tell


class Host:
    """The answers of postconf on a host with two instances."""

    def __init__(self, values, overrides=""):
        self.values = values
        self.overrides = overrides

    def __call__(self, arguments):
        directory = arguments[2]
        if "-P" in arguments:
            return 0, self.overrides, ""
        values = self.values.get(directory, {})
        return 0, "".join(f"{name} = {value}\n" for name, value in values.items()), ""


def test_the_settings_of_every_instance():
    run = Host(
        {
            "/etc/postfix": {
                "syslog_name": "postfix", "smtpd_tls_loglevel": "1", "smtp_tls_loglevel": "0", "smtp_tls_security_level": "may",
                "multi_instance_directories": "/etc/postfix-two, /etc/postfix-gone",
            },
            "/etc/postfix-two": {
                "syslog_name": "postfix-two", "smtpd_tls_loglevel": "0", "smtp_tls_loglevel": "1", "smtp_tls_security_level": "",
            },
        }
    )  # fmt: skip
    found = visibility(run)
    assert set(found) == {"postfix", "postfix-two"}
    assert (found["postfix"].outbound_level, found["postfix"].sends_tls) == (0, True)
    assert (found["postfix-two"].outbound_level, found["postfix-two"].sends_tls) == (1, False)


@pytest.mark.parametrize(
    ("settings_", "overrides", "level", "sends_tls"),
    [
        ({"smtp_tls_loglevel": "1", "smtp_tls_security_level": "none"}, "", 1, False),
        (
            {"smtp_tls_loglevel": "1", "smtp_tls_security_level": "none"},
            "relay/unix/smtp_tls_security_level = may\n",
            1,
            True,
        ),
        ({"smtp_tls_loglevel": "1", "smtp_tls_security_level": "may"}, "relay/unix/smtp_tls_loglevel = 0\n", 0, True),
        (
            {"smtp_tls_loglevel": "1", "smtp_tls_security_level": "may"},
            "mailfleet-arrived/unix/smtp_tls_loglevel = 0\n",
            1,
            True,
        ),
        ({"smtp_tls_loglevel": "2", "smtp_tls_policy_maps": "hash:/x"}, "", 2, True),
        ({}, "", 0, False),
    ],
)
def test_what_master_cf_and_policies_change(settings_, overrides, level, sends_tls):
    run = Host({"/etc/postfix": {"syslog_name": "postfix", **settings_}}, overrides)
    seen = visibility(run)["postfix"]
    assert (seen.outbound_level, seen.sends_tls) == (level, sends_tls)


WRAPPED = "smtps/inet/smtpd_tls_wrappermode = yes\n"


@pytest.mark.parametrize(
    ("level", "overrides", "hidden"),
    [
        ("0", WRAPPED, True),
        ("1", WRAPPED, False),
        ("0", WRAPPED + "smtps/inet/syslog_name = postfix/smtps\n", False),
        ("0", WRAPPED + "smtps/inet/smtpd_tls_loglevel = 1\n", False),
        ("0", WRAPPED.replace("yes", "no"), False),
        ("0", "", False),
    ],
)
def test_a_service_whose_tls_nothing_tells(level, overrides, hidden):
    run = Host({"/etc/postfix": {"syslog_name": "postfix", "smtpd_tls_loglevel": level}}, overrides)
    assert visibility(run)["postfix"].hides_inbound is hidden


def test_sessions_that_may_have_been_such_are_unknown():
    hidden = {"postfix": Visibility(1, hides_inbound=True)}
    seen = read(*smtpd(f"491AA1C40A5: client={PARTNER}", PLAIN_QUIT), QUEUED, *smtpd(QUIT), seen=hidden)
    assert short(seen["inbound"]) == {"sessions_unknown": 1, "messages_unknown": 1, "sessions_tls": 1}
    assert "inbound_not_logged" in [note.code for note in seen["log"].notes()]


@pytest.mark.parametrize(
    "summary", [b"ehlo=" + b"9" * 5000, b"ehlo=1/" + b"9" * 5000, b"mail=9999999999", b"a=" * 9000]
)
def test_a_number_of_thousands_of_digits_ends_nothing(summary):
    """Anybody with a syslog socket can write it; int() raises ValueError for it, or takes quadratic time."""
    bad = smtpd(f"disconnect from mx.example.com[192.0.2.7] {summary.decode()}", pid=9)
    good = smtpd(
        "connect from mx.example.com[192.0.2.7]",
        "disconnect from mx.example.com[192.0.2.7] ehlo=1 quit=1 commands=2",
    )
    result = read(*bad, *good)
    assert (result["log"].skipped_lines, result["inbound"]["sessions_plaintext"]) == (1, 1)


# Other words and other processes

SENT = "sent (250 2.0.0 Ok)"


@pytest.mark.parametrize(
    ("field", "counted"),
    [
        ("tls=dane", "tls"), ("tls=may", "tls"), ("tls=secure:encrypt", "tls"), ("tls=may:none", "plaintext"), ("tls=none", "plaintext"),
        ("tls=may?", "unknown"), ("tls=new-word", "unknown"), ("tls=encrypt/requiretls", "tls"), ("new=a/b:c, tls=verify", "tls"),
        ("new=x", "plaintext"),
    ],
)  # fmt: skip
def test_the_field_of_postfix_3_11_and_fields_to_come(field, counted):
    line = to(status=SENT).replace(", dsn=", f", {field}, dsn=")
    assert read(*smtp(line))["outbound"][f"messages_{counted}"] == 1


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("non DNSSEC destination", "dane_failed"), ("no TLSA records found", "dane_failed"), ("TLSA records unusable", "dane_failed"),
        ("TLSA lookup error for mx.partner.test:25", "dane_failed"), ("client TLS configuration problem", "tls_unavailable"),
        ("TLS policy lookup error for partner.test/mx.partner.test: x", "tls_unavailable"),
        ("lost connection with mx.partner.test[192.0.2.15] while receiving the STARTTLS response", "lost_connection"),
        ("conversation with mx.partner.test[192.0.2.15] timed out while receiving the STARTTLS response", "timeout"),
        *(
            (f"host mx.partner.test[192.0.2.15] said: {reply} (in reply to MAIL FROM command)", "peer_requires_tls")
            for reply in (
                "530 5.7.1 TLS required", "530 5.7.0 Must issue a STARTTLS command first", "451 5.7.3 STARTTLS is required to send mail",
                "550 5.7.10 Encryption needed", "530 Must issue a STARTTLS command first (#5.7.0)", "554 5.7.1 Encryption required",
                "421-4.7.29 not sent over a secure channel", "550 This server requires TLS", "503 5.5.1 must use TLS",
                "550 you need encryption",
            )
        ),
    ],
)  # fmt: skip
def test_other_words_for_a_deferral(said, reason):
    seen = read(*smtp(to(relay="none", status=f"deferred ({said})")))["outbound"]
    assert short({"deferrals": seen["deferrals"]}) == {"deferrals": {reason: 1}}


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.1.1 no TLS user",
        "454 4.7.0 TLS not available",
        "550 5.7.1 TLS reports are required, read them",
        "451 greylisted",
    ],
)
def test_replies_that_do_not_ask_for_tls(reply):
    seen = read(*smtp(to(status=f"deferred (host mx.partner.test[192.0.2.15] said: {reply})")))["outbound"]
    assert seen["deferrals"] == []


@pytest.mark.parametrize("head", ["NOQUEUE", "4XyZ0123456"])
@pytest.mark.parametrize("known", ["", " from=<a@partner.test>", " from=<a@partner.test> to=<x@alpha.test>"])
def test_a_refusal_before_mail_and_one_of_a_message_that_has_its_queue_id(head, known):
    said = "450 4.7.1 Session encryption is required"
    seen = read(*smtpd(f"{head}: reject: EHLO from {PARTNER}: {said};{known} proto=SMTP helo=<mx>"))
    assert short({"refusals": seen["inbound"]["refusals"]}) == {"refusals": {"mail_server_in_plaintext": 1}}
    assert seen["log"].skipped_lines == 0


def test_a_filter_on_this_host_is_no_peer_but_its_fault_is_one_of_this_host():
    relay = "127.0.0.1[127.0.0.1]:10026"
    waits = "deferred (TLS is required, but was not offered by host 127.0.0.1[127.0.0.1])"
    seen = read(*smtp(to(relay=relay), to(relay=relay, status=waits), to(status=waits)))["outbound"]
    assert [(one["reason"], one.get("side"), one["count"]) for one in seen["deferrals"]] == [
        ("no_starttls_offered", None, 1), ("no_starttls_offered", "local", 1),
    ]  # fmt: skip
    assert seen["messages_tls"] + seen["messages_plaintext"] + seen["messages_unknown"] == 0


def test_a_refusal_is_one_whatever_its_code():
    said = "530 5.7.0 Must issue a STARTTLS command first; from=<a@partner.test> proto=ESMTP helo=<mx>"
    line = f"NOQUEUE: reject: MAIL from {PARTNER}: {said}"
    assert short(read(*smtpd(line))["inbound"]) == {"refusals": {"inbound_required": 1}}


@pytest.mark.parametrize(
    ("said", "reason"),
    [("No client certificate", "certificate_required"), ("Client certificate not trusted", "certificate_untrusted")],
)
def test_a_client_that_had_to_show_a_certificate(said, reason):
    seen = read(
        *smtpd(
            TLS_FROM,
            f"NOQUEUE: abort: TLS from {PARTNER}: {said}",
            f"disconnect from {PARTNER} ehlo=1 starttls=1 commands=2",
        )
    )
    assert short(seen["inbound"]) == {"failures": {reason: 1}}


def test_tlsproxy_serves_many_clients_at_a_time():
    proxy = "postfix/tlsproxy[7]"
    good = "Anonymous TLS connection established from [192.0.2.11]:7300: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
    seen = read(
        f"{proxy}: CONNECT from [192.0.2.10]:7212", f"{proxy}: CONNECT from [2001:db8::1]:7300",
        f"{proxy}: {good}", f"{proxy}: {good.replace('192.0.2.11', '2001:db8::1')}",
        f"{proxy}: SSL_accept error from [192.0.2.10]:7212: -1",
        f"{proxy}: warning: TLS library problem: error:0A0000C1:SSL routines::no shared cipher:../x.c:1:",
        f"{proxy}: DISCONNECT [192.0.2.10]:7212", f"{proxy}: DISCONNECT [192.0.2.11]:7300",
        f"{proxy}: {good.replace('192.0.2.11', '127.0.0.1')}",
    )  # fmt: skip
    assert short(seen["peers"]["[192.0.2.10]", "inbound"]) == {"failures": {"no_shared_cipher": 1}}
    assert short(seen["inbound"]) == {
        "failures": {"no_shared_cipher": 1}, "sessions_tls": 2, "versions": {"TLSv1.3": 2}, "ciphers": {"TLS_AES_256_GCM_SHA384": 2},
    }  # fmt: skip


def test_a_connection_that_tlsproxy_makes_for_deliveries():
    """With smtp_tls_connection_reuse, the process that delivers does not say that the connection is over TLS."""
    seen = read(
        f"postfix/tlsproxy[7]: {tls_to()}",
        *smtp(to()),
        *smtp(tls_to(how="Trusted TLS connection reused"), to(qid="AAAAAAAA1")),
    )
    assert (short(seen["outbound"])["sessions_tls"], short(seen["outbound"])["messages_tls"]) == (1, 2)
    failed = read(
        "postfix/tlsproxy[7]: SSL_connect error to mx.partner.test[192.0.2.15]:25: -1",
        "postfix/tlsproxy[7]: warning: TLS library problem: error:0A00010B:SSL routines::wrong version number:../x.c:1:",
        *smtp(to(status="deferred (Cannot start TLS: handshake failure)")),
    )
    assert short(failed["outbound"]) == {"failures": {"not_tls": 1}, "deferrals": {"not_tls": 1}}


@pytest.mark.parametrize("port", ["", ":41234"])
def test_the_port_of_the_client_is_logged_or_not(port):
    client = f"{PARTNER}{port}"
    seen = read(
        *smtpd(TLS_FROM.replace(PARTNER, client), f"491AA1C40A5: client={client}"), QUEUED, *smtpd(QUIT.replace(PARTNER, client)),
        *smtpd(f"NOQUEUE: reject: RCPT from {client}: 450 4.7.1 Session encryption is required; from=<a@b.test> to=<x@y.test> proto=SMTP"),
    )  # fmt: skip
    assert short(seen["inbound"]) == {**TLS_SESSION, "messages_tls": 1, "refusals": {"mail_server_in_plaintext": 1}}


def test_a_log_is_read_without_the_daemon():
    def nothing(arguments):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

    assert visibility(nothing) == {}
