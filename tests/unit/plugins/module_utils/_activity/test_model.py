import time
from datetime import datetime, timezone

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.model import (
    INBOUND_MAIL,
    OTHER,
    OUTBOUND_MAIL,
    REASONS,
    Clock,
    Counts,
    Recent,
    Tally,
    detail_of,
    domain_of_address,
    domain_of_host,
    iso,
    moment,
    reason_of,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from hypothesis import given
from hypothesis import strategies as st

NOW = 1767225600.0  # 2026-01-01T00:00:00Z


@pytest.fixture
def zone(monkeypatch):
    """The host's time zone."""

    def choose(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield choose
    monkeypatch.undo()
    time.tzset()


# Moments


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("7d", 604800), ("2w", 1209600), ("90m", 5400), (" 30 s ", 30), ("now", 0)],
)
def test_a_moment_before_now(text, seconds):
    assert moment(text, NOW) == NOW - seconds


def test_a_moment_by_date(zone):
    zone("UTC-2")
    assert moment("2026-01-01T00:00:00Z", 0) == moment("2026-01-01T01:00:00+01:00", 0) == NOW
    assert moment("2026-01-01T02:00:00", 0) == moment("2026-01-01 02:00", 0) == NOW
    assert moment("2026-01-01", 0) == NOW - 7200


@pytest.mark.parametrize("text", ["", "yesterday", "7y", "2026-13-01", "-1h", "24h\n1", "0001-01-01T00:00:00+14:00x"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(EngineError, match="is not a time; give one like 24h"):
        moment(text, NOW)


# Time stamps


@pytest.mark.parametrize(
    ("stamp", "wanted"),
    [
        (b"2026-01-01T00:00:00.123456+00:00", NOW),
        (b"2026-01-01T00:00:00Z", NOW),
        (b"2026-01-01T02:30:00.5+02:30", NOW),
        (b"2025-12-31T19:00:00-05:00", NOW),
        (b"2025-12-31T23:59:60Z", NOW),
        (b"2026-01-01 00:00:00 +0000", NOW),
        (b"2026-01-01 01:00:00.123 +0100", NOW),
        (b"1767225600.999999", NOW),
        (b"2026-02-30T00:00:00Z", None),
        (b"2026-01-01T25:00:00Z", None),
        (b"Xyz  1 00:00:00", None),
    ],
)
def test_time_stamps(stamp, wanted):
    assert Clock(NOW).at(stamp) == wanted


def test_a_time_without_a_zone_is_the_hosts_own(zone):
    zone("Europe/Berlin")
    assert Clock(NOW).at(b"2026-01-01 01:00:00") == NOW
    assert Clock(NOW).at(b"2026-07-01 02:00:00") == datetime(2026, 7, 1, tzinfo=timezone.utc).timestamp()
    assert Clock(NOW + 3600).at(b"Jan  1 01:00:00") == NOW


def test_a_date_without_a_year_is_the_latest_one_before_the_log_was_written(zone):
    zone("UTC")
    clock = Clock(NOW + 86400 * 2)  # 3 January 2026
    assert iso(clock.at(b"Dec 31 23:59:59")) == "2025-12-31T23:59:59Z"
    assert iso(clock.at(b"Jan  1 00:00:00")) == "2026-01-01T00:00:00Z"
    assert iso(clock.at(b"Jan  3 20:00:00")) == "2026-01-03T20:00:00Z"
    assert iso(clock.at(b"Mar  1 00:00:00")) == "2025-03-01T00:00:00Z"
    assert iso(clock.at(b"Feb 29 00:00:00")) == "2024-02-29T00:00:00Z"


@given(st.binary(max_size=40))
def test_a_clock_never_raises(stamp):
    Clock(NOW).at(stamp)
    Clock(NOW).at(b"2026-" + stamp)


# Names


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        (b"a@Example.COM", "example.com"),
        (b"a@example.com.", "example.com"),
        (b'"a@b c"@example.com', "example.com"),
        (b"a@[192.0.2.1]", "[192.0.2.1]"),
        (b"a@[IPv6:2001:DB8::1]", "[2001:db8::1]"),
        ("a@bücher.example".encode(), "xn--bcher-kva.example"),
        (b"postmaster", ""),
        (b"a@", ""),
        (b"a@[x]", ""),
        (b"a@b\x00c", ""),
        (b"a@" + b"x" * 300, ""),
        (b"a@ex ample.com", ""),
        (b"a@\xff\xfe", ""),
    ],
)
def test_the_domain_of_an_address(address, domain):
    assert domain_of_address(address) == domain


@pytest.mark.parametrize(
    ("host", "address", "domain"),
    [
        (b"mx.partner.test", b"192.0.2.1", "partner.test"),
        (b"a.b.partner.test", b"192.0.2.1", "b.partner.test"),
        (b"partner.test", b"192.0.2.1", "partner.test"),
        (b"unknown", b"192.0.2.1", "[192.0.2.1]"),
        (b"", b"2001:db8::1", "[2001:db8::1]"),
        (b"host", b"192.0.2.1", "[192.0.2.1]"),
    ],
)
def test_the_domain_of_a_host(host, address, domain):
    assert domain_of_host(host, address) == domain


@given(st.binary(max_size=600))
def test_names_and_samples_are_printable_and_bounded(data):
    for text in (domain_of_address(data), domain_of_host(data, data), detail_of(data)):
        assert text.isascii()
        assert not text or text.isprintable()
        assert len(text) <= 300


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"error:0A0000C1:SSL routines::no shared cipher:../ssl/statem/statem_srvr.c:2226:", "no_shared_cipher"),
        (b"gnutls_handshake: No supported cipher suites have been found.", "no_shared_cipher"),
        (b"error:0A000102:SSL routines::unsupported protocol:../x.c:1:", "protocol_version"),
        (
            b"error:0A00042E:SSL routines::tlsv1 alert protocol version:../x.c:1:SSL alert number 70:",
            "protocol_version",
        ),
        (b"gnutls_handshake: A packet with illegal or unsupported version was received.", "protocol_version"),
        (
            b"error:0A000418:SSL routines::tlsv1 alert unknown ca:../x.c:1602:SSL alert number 48:",
            "certificate_untrusted",
        ),
        (b"self-signed certificate", "certificate_untrusted"),
        (b"untrusted issuer /CN=x", "certificate_untrusted"),
        (b"certificate has expired", "certificate_expired"),
        (b"num=62:hostname mismatch", "certificate_name_mismatch"),
        (
            b"error:0A000412:SSL routines::ssl/tls alert bad certificate:../x.c:918:SSL alert number 42:",
            "certificate_unknown",
        ),
        (b"error:0A000416:SSL routines::sslv3 alert certificate unknown:../x.c:1:", "certificate_unknown"),
        (b"error:0A0000C7:SSL routines::peer did not return a certificate:../x.c:1:", "certificate_required"),
        (b"error:0A00010B:SSL routines::wrong version number:../x.c:350:", "not_tls"),
        (b"gnutls_handshake: An unexpected TLS packet was received.", "not_tls"),
        (b"lost connection", "lost_connection"),
        (b"gnutls_handshake: The TLS connection was non-properly terminated.", "lost_connection"),
        (b"Connection timed out", "timeout"),
        (b"cert/key setup: cert=/x key=/x: Error while reading file.", "key_unusable"),
        (b"error:0A0000F4:SSL routines::unexpected message:../x.c:1:", "handshake_failed"),
        (b"ALPN required but not negotiated", "alpn_mismatch"),
        (b"error:0A000460:SSL routines::reason(1120) no application protocol", "alpn_mismatch"),
        (b"gnutls_handshake: No common application protocol could be negotiated.", "alpn_mismatch"),
        (b"gnutls_handshake: Key usage violation in certificate has been detected.", "certificate_purpose"),
        (
            b"certificate verification failed for x: not designated for use as a client certificate",
            "certificate_purpose",
        ),
        (
            b"error:0A000086:SSL routines::certificate verify failed: unsuitable certificate purpose",
            "certificate_purpose",
        ),
        (b"error:0A000076:SSL routines::no suitable signature algorithm", "no_shared_signature"),
        (b"error:0A000178:SSL routines::no shared signature algorithms", "no_shared_signature"),
        (b"error:0A00018A:SSL routines::dh key too small", "too_weak"),
        (b"error:0A000152:SSL routines::unsafe legacy renegotiation disabled", "too_weak"),
        (b"The Diffie-Hellman prime sent by the server is not acceptable (not long enough).", "too_weak"),
        (b"error:0A000065:SSL routines::no suitable key share", "no_shared_cipher"),
        (b"gnutls_handshake: No common key share with peer.", "no_shared_cipher"),
        (b"gnutls_handshake: The SNI host name not recognised.", "server_name_unknown"),
        (b"error:0A000458:SSL routines::tlsv1 unrecognized name", "server_name_unknown"),
        (b"gnutls_handshake: A TLS fatal alert has been received.: Certificate is bad", "certificate_unknown"),
        (b"gnutls_handshake: A TLS fatal alert has been received.: CA is unknown", "certificate_untrusted"),
        (b"gnutls_handshake: A TLS fatal alert has been received.: Certificate was revoked", "certificate_unknown"),
        (b"gnutls_handshake: The peer did not send any certificate.", "certificate_required"),
        (b"gnutls_handshake: Certificate is required.", "certificate_required"),
        (b"gnutls_handshake: Error in the push function.", "lost_connection"),
        (b"gnutls_handshake: Error in the pull function.", "lost_connection"),
        (b"SSL_accept: TLS client disconnected cleanly (rejected our certificate?)", "lost_connection"),
        (b"error:0A000175:SSL routines::inappropriate fallback", "protocol_version"),
        (b"error:0A00009B:SSL routines::https proxy request", "not_tls"),
        (b"The certificate and the given key do not match.", "key_unusable"),
        (b"gnutls_handshake: A disallowed SNI server name has been received.", "server_name_unknown"),
        (b"gnutls_handshake: The curve is unsupported", "no_shared_cipher"),
        (b"gnutls_handshake: No supported ECC curves were found", "no_shared_cipher"),
        (b"gnutls_handshake: Unsafe renegotiation denied.", "too_weak"),
        (b"gnutls_handshake: The certificate is not yet activated.", "certificate_not_yet_valid"),
        (b"certificate verification failed for x: certificate is not yet valid", "certificate_not_yet_valid"),
        (b"error:0A00010A:SSL routines::wrong ssl version:../x.c:1:", "protocol_version"),
        (b"error:0A000103:SSL routines::unsupported ssl version:../x.c:1:", "protocol_version"),
        (b"error:0A0000FE:SSL routines::unknown ssl version:../x.c:1:", "protocol_version"),
        (b"error:0A0000C6:SSL routines::packet length too long:../x.c:1:", "not_tls"),
        (b"error:0A0001BB:SSL routines::bad record type:../x.c:1:", "not_tls"),
        (b"error:0A00017A:SSL routines::wrong curve:../x.c:1:", "no_shared_cipher"),
        (b"error:0A00013E:SSL routines::ecc cert not for signing:../x.c:1:", "certificate_purpose"),
        (b"error:0A0000DC:SSL routines::signature for non signing certificate:../x.c:1:", "certificate_purpose"),
        (b"certificate verification failed for x: CA signature digest algorithm too weak", "too_weak"),
        (b"error:0A000438:SSL routines::tlsv1 alert internal error:../x.c:1:SSL alert number 80:", "internal_error"),
        (b"error:0A000419:SSL routines::tlsv1 alert access denied:../x.c:1:SSL alert number 49:", "access_denied"),
        (b"error:0A00041B:SSL routines::tlsv1 alert decrypt error:../x.c:1:SSL alert number 51:", "signature_refused"),
    ],
)
def test_the_word_for_what_a_library_says(text, reason):
    assert reason_of(text) == reason
    assert reason in REASONS


# Counting


def test_counts_add_up():
    one, two = Counts(), Counts()
    one.session(True, b"TLSv1.3", b"A")
    one.session(None)
    one.event("deferrals", "timeout", b"first", NOW)
    two.session(True, b"TLSv1.2", b"B")
    two.session(False)
    two.message(True, 3)
    two.event("deferrals", "timeout", b"then", NOW + 5)
    two.event("refusals", "enforced_sender", b"no", NOW)
    one.add(two)
    assert one.to_dict() == {
        "sessions_tls": 2, "sessions_plaintext": 1, "sessions_unknown": 1,
        "messages_tls": 3, "messages_plaintext": 0, "messages_unknown": 0,
        "versions": {"TLSv1.2": 1, "TLSv1.3": 1}, "ciphers": {"A": 1, "B": 1},
        "failures": [],
        "refusals": [
            {"reason": "enforced_sender", "detail": "no", "count": 1, "first": iso(NOW), "last": iso(NOW)},
        ],
        "deferrals": [{"reason": "timeout", "detail": "then", "count": 2, "first": iso(NOW), "last": iso(NOW + 5)}],
    }  # fmt: skip
    assert two.to_dict()["deferrals"][0]["count"] == 1


def test_ciphers_are_bounded():
    counts = Counts()
    for number in range(1000):
        counts.session(True, b"TLSv1.3", b"C%d" % number)
    assert len(counts.ciphers) == 65
    assert counts.ciphers[OTHER] == 1000 - 64


def test_the_biggest_peers_keep_their_names_and_nothing_is_lost():
    tally = Tally(3)
    for number in range(20000):
        tally.peer(INBOUND_MAIL, f"small{number}.test").message(False)
        if number % 10 == 0:
            tally.peer(INBOUND_MAIL, "big.test").message(True)
        if number == 5:
            tally.peer(OUTBOUND_MAIL, "blocked.test").event("deferrals", "no_starttls_offered", b"x", NOW)
    result = tally.result()
    assert result["truncated"]
    named = {(one["domain"], one["direction"]) for one in result["peers"]}
    assert {("big.test", INBOUND_MAIL), ("blocked.test", OUTBOUND_MAIL), (OTHER, INBOUND_MAIL)} <= named
    assert len(result["peers"]) == 3 + 1
    assert result["totals"][INBOUND_MAIL]["messages_plaintext"] == 20000
    assert result["totals"][INBOUND_MAIL]["messages_tls"] == 2000
    assert result["totals"][OUTBOUND_MAIL]["deferrals"][0]["count"] == 1
    assert sum(one["messages_plaintext"] for one in result["peers"]) == 20000


def test_peers_are_sorted_by_messages():
    tally = Tally(10)
    for number in range(5):
        tally.peer(OUTBOUND_MAIL, f"d{number}.test").message(None, number)
    result = tally.result()
    assert [one["domain"] for one in result["peers"]] == [f"d{number}.test" for number in (4, 3, 2, 1, 0)]
    assert not result["truncated"]


def test_a_full_table_gives_up_its_oldest_entry():
    table = Recent(2)
    assert [table.put(key, key.upper()) for key in "abc"] == [None, None, "A"]
    assert (table.get("a"), table.pop("b"), table.pop("b"), list(table.drain())) == (None, "B", None, ["C"])
