import itertools
import ssl
import struct
import tracemalloc
from dataclasses import dataclass, field

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp import hello
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import (
    MAX_CERTIFICATES,
    MAX_FLIGHT,
    VERSIONS,
    HelloError,
    KeyExchange,
    ServerFlight,
    client_hello,
    random_of,
)
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.flight import group_of
from tests.support.pki import pem
from tests.support.smtp_server import set_curve

NAME = "mail.example.com"
MODERN = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
SNI, GROUPS, POINTS, SIGNATURES, PADDING, MASTER_SECRET, SUPPORTED, SHARE, RENEGOTIATION = (
    0, 10, 11, 13, 21, 23, 43, 51, 0xFF01,
)  # fmt: skip


# A reader of client hellos


@dataclass
class Offer:
    """What a ClientHello offers, read by the book."""

    record_version: int
    version: int
    random: bytes
    session_id: bytes
    suites: list
    extensions: dict = field(default_factory=dict)

    @property
    def names(self):
        return {hello._CIPHER_NAMES[code] for code in self.suites}

    @property
    def server_name(self):
        if SNI not in self.extensions:
            return None
        total, kind, length = struct.unpack(">HBH", self.extensions[SNI][:5])
        assert (total, kind) == (length + 3, 0)
        assert len(self.extensions[SNI]) == length + 5
        return self.extensions[SNI][5:].decode()

    def codes(self, extension, length_bytes=2):
        content = self.extensions[extension]
        assert int.from_bytes(content[:length_bytes], "big") == len(content) - length_bytes
        return codes_of(content[length_bytes:])


def codes_of(data):
    return list(struct.unpack(f">{len(data) // 2}H", data))


def read_hello(data):
    kind, record_version, length = struct.unpack(">BHH", data[:5])
    assert (kind, length) == (22, len(data) - 5)
    assert data[5] == 1 and int.from_bytes(data[6:9], "big") == len(data) - 9
    body, at = data[9:], 35 + data[9 + 34]
    length = struct.unpack_from(">H", body, at)[0]
    offer = Offer(
        record_version,
        struct.unpack(">H", body[:2])[0],
        body[2:34],
        body[35:at],
        codes_of(body[at + 2 : at + 2 + length]),
    )
    at += 2 + length
    assert body[at : at + 2] == b"\x01\x00"
    if len(body) > at + 2:
        assert struct.unpack_from(">H", body, at + 2)[0] == len(body) - at - 4
        at += 4
        while at < len(body):
            kind, length = struct.unpack_from(">HH", body, at)
            assert kind not in offer.extensions and at + 4 + length <= len(body)
            offer.extensions[kind] = body[at + 4 : at + 4 + length]
            at += 4 + length
    return offer


# A writer of server flights


def record(content, kind=22, version=0x0303):
    return struct.pack(">BHH", kind, version, len(content)) + content


def message(kind, body):
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def server_hello(version=0x0303, cipher=0xC02F, extensions=b"", random=b"r" * 32, session_id=b"s" * 32):
    body = struct.pack(">H", version) + random + bytes([len(session_id)]) + session_id + struct.pack(">HB", cipher, 0)
    return message(2, body + (struct.pack(">H", len(extensions)) + extensions if extensions else b""))


def extension(kind, content):
    return struct.pack(">HH", kind, len(content)) + content


def hello_13(group=29, random=b"r" * 32, cipher=0x1301):
    share = struct.pack(">HH", group, 4) + b"abcd"
    return server_hello(0x0303, cipher, extension(43, b"\x03\x04") + extension(51, share), random)


def certificates(*ders):
    return message(11, vector(b"".join(vector(der, 3) for der in ders), 3))


def vector(data, length_bytes=2):
    return len(data).to_bytes(length_bytes, "big") + data


def key_exchange(group=23, algorithm=0x0403, signature=b"sig", point=b"p" * 65):
    signed = vector(signature) if algorithm is None else struct.pack(">H", algorithm) + vector(signature)
    return message(12, struct.pack(">BH", 3, group) + vector(point, 1) + signed)


DONE = message(14, b"")
REQUEST = message(13, b"\x01\x40\x00\x00\x00\x00")
FLIGHT = record(server_hello(cipher=0xC02B) + certificates(b"leaf", b"issuer") + key_exchange() + DONE)


def fed(data, client_random=b"c" * 32):
    flight = ServerFlight(client_random)
    flight.feed(data)
    return flight


def refusal(data):
    with pytest.raises(HelloError) as caught:
        fed(data)
    return caught.value.code, str(caught.value)


def facts(flight):
    return {key: value for key, value in vars(flight).items() if not key.startswith("_")}


# What a client hello offers


@pytest.mark.parametrize("version", MODERN)
def test_a_hello_of_one_version(version):
    data = client_hello((version,), NAME)
    offer = read_hello(data)
    assert offer.record_version == 0x0301
    assert offer.version == min(VERSIONS[version], 0x0303)
    assert offer.server_name == NAME
    assert offer.random == random_of(data) and len(offer.session_id) == 32
    assert {MASTER_SECRET, RENEGOTIATION, GROUPS, POINTS} <= set(offer.extensions)
    assert offer.extensions[MASTER_SECRET] == b"" and offer.extensions[RENEGOTIATION] == b"\x00"
    assert len(data) < 1200
    assert {23, 24, 25, 29} <= set(offer.codes(GROUPS))
    assert (SIGNATURES in offer.extensions) == (version in ("TLSv1.2", "TLSv1.3"))
    assert (SUPPORTED in offer.extensions) == (SHARE in offer.extensions) == (version == "TLSv1.3")


def test_a_hello_of_tls_13_alone_offers_nothing_else():
    offer = read_hello(client_hello(("TLSv1.3",), NAME))
    assert offer.codes(SUPPORTED, 1) == [0x0304]
    assert all(name.startswith("TLS_") for name in offer.names)
    assert {0x0403, 0x0804, 0x0401, 0x0807} <= set(offer.codes(SIGNATURES))
    share = offer.extensions[SHARE]
    assert struct.unpack(">HHH", share[:6]) == (36, 29, 32)
    assert share[6:] == b"\x09" + bytes(31)
    assert 4588 in offer.codes(GROUPS)


def test_a_hello_of_an_old_version_offers_what_old_servers_have():
    names = read_hello(client_hello(("TLSv1",), NAME)).names
    assert {"AES128-SHA", "DES-CBC3-SHA", "ECDHE-ECDSA-AES256-SHA", "DHE-RSA-AES128-SHA", "RC4-SHA"} <= names
    assert not any("GCM" in name or name.startswith("TLS_") or "SHA256" in name for name in names)


def test_versions_together_in_any_order():
    offer = read_hello(client_hello(("TLSv1.2", "TLSv1.3"), NAME))
    assert offer.codes(SUPPORTED, 1) == [0x0304, 0x0303]
    assert {"TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"} <= offer.names
    assert read_hello(client_hello(("TLSv1.3", "TLSv1.2"), NAME)).codes(SUPPORTED, 1) == [0x0304, 0x0303]


def test_a_hello_of_ssl_3_has_no_extensions():
    offer = read_hello(client_hello(("SSLv3",), NAME))
    assert (offer.record_version, offer.version, offer.extensions) == (0x0300, 0x0300, {})


@pytest.mark.parametrize("version", [*MODERN, "SSLv3"])
def test_nothing_is_offered_that_protects_nobody(version):
    for name in read_hello(client_hello((version,))).names:
        assert not any(word in name for word in ("ADH", "AECDH", "NULL", "EXP", "anon", "PSK"))


def test_the_kind_of_certificate_is_chosen_by_the_suites():
    rsa = read_hello(client_hello(("TLSv1.2",), NAME, "rsa"))
    ecdsa = read_hello(client_hello(("TLSv1.2",), NAME, "ecdsa"))
    assert not any("ECDSA" in name or "DSS" in name for name in rsa.names)
    assert all("ECDSA" in name for name in ecdsa.names)
    assert {"ECDHE-RSA-AES128-GCM-SHA256", "AES128-SHA"} <= rsa.names
    assert rsa.codes(SIGNATURES) == ecdsa.codes(SIGNATURES)  # an ECDSA leaf may be signed with RSA


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.1", "::", "2001:db8::a", ""]
)
def test_no_address_is_asked_for_by_name(address):
    assert read_hello(client_hello(("TLSv1.2",), address)).server_name is None


@pytest.mark.parametrize(
    "name, asked",
    [("mail.example.com.", NAME), ("mx1", "mx1"), ("mx_1.example.com", "mx_1.example.com"), ("1.2.3", "1.2.3")],
)
def test_names_that_are_asked_for(name, asked):
    assert read_hello(client_hello(("TLSv1.2",), name)).server_name == asked


@pytest.mark.parametrize(
    "name", ["a..example.com", ".example.com", "a" * 64 + ".test", "a." * 127 + "test", "münchen.example"]
)
def test_a_name_that_cannot_be_asked_for(name):
    with pytest.raises(HelloError) as caught:
        client_hello(("TLSv1.2",), name)
    assert caught.value.code == "bad_name" and "cannot be asked for by SNI" in str(caught.value)
    assert str(caught.value).isascii()


@pytest.mark.parametrize("versions", [(), ("TLSv1.4",), ("TLSv1.2", "tlsv1.3")])
def test_versions_that_do_not_exist(versions):
    with pytest.raises(ValueError, match=r"versions are out of SSLv3, TLSv1"):
        client_hello(versions)


def test_a_kind_of_certificate_that_does_not_exist():
    with pytest.raises(ValueError, match="rsa or ecdsa"):
        client_hello(("TLSv1.2",), NAME, "dsa")


def test_no_two_hellos_are_alike():
    first, second = (client_hello(("TLSv1.2",), NAME) for _ in range(2))
    assert random_of(first) != random_of(second)
    assert read_hello(first).session_id != read_hello(second).session_id


labels = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63).map(lambda label: "x" + label[:62])


@given(
    st.lists(st.sampled_from(MODERN), min_size=1, max_size=4, unique=True),
    st.lists(labels, min_size=1, max_size=4).map(".".join).filter(lambda name: len(name) < 254),
    st.sampled_from(["", "rsa", "ecdsa"]),
)
def test_a_hello_can_be_read_back(versions, name, want):
    data = client_hello(versions, name, want)
    offer = read_hello(data)
    assert offer.server_name == name
    assert offer.version == min(max(VERSIONS[version] for version in versions), 0x0303)
    if "TLSv1.3" in versions:
        assert offer.codes(SUPPORTED, 1) == sorted((VERSIONS[version] for version in versions), reverse=True)
    assert not 255 < len(data) - 5 < 512  # the length that some load balancers choke on
    assert len(data) < 1200
    assert random_of(data) == offer.random


# What a server answers


def test_a_flight_of_tls_12():
    flight = fed(FLIGHT)
    assert (flight.version, flight.cipher, flight.group) == ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", "secp256r1")
    assert flight.chain == (b"leaf", b"issuer")
    assert flight.signature_algorithm == "ecdsa_sha256"
    assert flight.client_certificate_requested is False
    assert (flight.complete, flight.ended, flight.alert, flight.retry, flight.knows_tls13) == (
        True,
        True,
        "",
        False,
        False,
    )
    assert flight.key_exchange == KeyExchange(
        "ecdsa_sha256", b"c" * 32 + b"r" * 32 + b"\x03\x00\x17\x41" + b"p" * 65, b"sig"
    )


def test_a_flight_over_many_records_and_in_many_pieces():
    content = FLIGHT[5:]
    data = b"".join(record(content[at : at + 7]) for at in range(0, len(content), 7))
    flight = ServerFlight(b"c" * 32)
    for at in range(len(data)):
        assert not flight.ended
        flight.feed(data[at : at + 1])
    assert facts(flight) == facts(fed(FLIGHT))


def test_a_certificate_is_requested():
    flight = fed(record(server_hello() + certificates(b"leaf") + key_exchange() + REQUEST))
    assert flight.client_certificate_requested is True and not flight.complete
    flight.feed(record(DONE))
    assert flight.client_certificate_requested is True and flight.complete


def test_it_is_not_known_whether_one_is_requested_before_the_flight_ends():
    flight = fed(record(server_hello() + certificates(b"leaf") + key_exchange()))
    assert (flight.client_certificate_requested, flight.complete, flight.ended) == (None, False, False)


def test_a_staple_is_passed_over():
    flight = fed(record(server_hello() + certificates(b"leaf") + message(22, b"\x01staple") + key_exchange() + DONE))
    assert flight.complete and flight.group == "secp256r1"


@pytest.mark.parametrize(
    "version, cipher, algorithm, shown",
    [
        (0x0301, 0xC013, None, "rsa_pkcs1_md5_sha1"),
        (0x0302, 0xC00A, None, "ecdsa_sha1"),
        (0x0303, 0xC030, 0x0804, "rsa_pss_rsae_sha256"),
        (0x0303, 0xC02B, 0x0807, "ed25519"),
        (0x0303, 0xC02B, 0x0999, "0x0999"),
    ],
)
def test_what_the_key_exchange_is_signed_with(version, cipher, algorithm, shown):
    flight = fed(record(server_hello(version, cipher) + certificates(b"leaf") + key_exchange(29, algorithm) + DONE))
    assert (flight.signature_algorithm, flight.group) == (shown, "x25519")
    assert flight.key_exchange.signature == b"sig"
    assert flight.version == {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2"}[version]


@pytest.mark.parametrize("version, cipher, shown", [(0x0303, 0x009E, "rsa_pkcs1_sha256"), (0x0301, 0x0032, "dsa_sha1")])
def test_a_finite_field_key_exchange_tells_its_size(version, cipher, shown):
    params = vector(b"\x80" + bytes(255)) + vector(b"\x02") + vector(bytes(256))
    signed = (b"\x04\x01" if version == 0x0303 else b"") + vector(b"sig")
    flight = fed(record(server_hello(version, cipher) + message(12, params + signed)))
    assert (flight.group, flight.signature_algorithm) == ("dhe2048", shown)
    assert flight.key_exchange.signed.endswith(params)


def test_an_rsa_key_exchange_has_no_group_and_proves_no_key():
    flight = fed(record(server_hello(cipher=0x002F) + certificates(b"leaf") + DONE))
    assert (flight.cipher, flight.group, flight.key_exchange, flight.complete) == ("AES128-SHA", "", None, True)


@pytest.mark.parametrize("cipher", [0x008B, 0xC02F])
def test_a_key_exchange_of_another_kind_is_passed_over(cipher):
    flight = fed(record(server_hello(cipher=cipher) + message(12, b"\x01anything") + DONE))
    assert (flight.group, flight.key_exchange, flight.complete) == ("", None, True)


@pytest.mark.parametrize(
    "code, group", [(29, "x25519"), (23, "secp256r1"), (4588, "x25519mlkem768"), (0x7777, "0x7777")]
)
def test_a_server_hello_of_tls_13(code, group):
    flight = fed(record(hello_13(code)) + b"\x14\x03\x03\x00\x01\x01" + record(b"encrypted", 23))
    assert (flight.version, flight.cipher, flight.group) == ("TLSv1.3", "TLS_AES_128_GCM_SHA256", group)
    assert (flight.complete, flight.retry) == (True, False)
    assert (flight.chain, flight.client_certificate_requested, flight.key_exchange) == ((), None, None)


def test_a_server_that_asks_for_another_group():
    flight = fed(
        record(
            server_hello(0x0303, 0x1301, extension(51, b"\x00\x18") + extension(43, b"\x03\x04"), hello._RETRY_RANDOM)
        )
    )
    assert (flight.version, flight.group, flight.retry, flight.complete) == ("TLSv1.3", "secp384r1", True, True)


def test_versions_and_suites_without_a_name():
    flight = fed(record(server_hello(0x0303, 0x9999, extension(43, b"\x7f\x1c"))))
    assert (flight.version, flight.cipher) == ("0x7f1c", "0x9999")


@pytest.mark.parametrize("end, knows", [(b"DOWNGRD\x01", True), (b"DOWNGRD\x00", False), (b"r" * 8, False)])
def test_a_server_that_had_to_go_down_to_tls_12_says_so(end, knows):
    assert fed(record(server_hello(random=b"r" * 24 + end))).knows_tls13 is knows


@pytest.mark.parametrize(
    "code, name", [(70, "protocol_version"), (40, "handshake_failure"), (0, "close_notify"), (255, "alert_255")]
)
@pytest.mark.parametrize("before", [b"", record(server_hello())])
def test_an_alert_ends_the_flight(code, name, before):
    flight = fed(before + record(bytes([2, code]), 21))
    assert (flight.alert, flight.ended, flight.complete) == (name, True, False)


def test_a_warning_ends_nothing():
    flight = fed(record(b"\x01\x70", 21) + FLIGHT)
    assert flight.complete and flight.alert == ""
    assert fed(record(b"\x01\x00", 21)).alert == "close_notify"


@pytest.mark.parametrize("what", [record(message(4, b"ticket")), record(b"\x01", 20)])
def test_a_session_that_is_taken_up_again(what):
    flight = fed(record(server_hello()) + what)
    assert (flight.complete, flight.chain, flight.group, flight.client_certificate_requested) == (True, (), "", None)


def test_nothing_counts_behind_the_end():
    flight = fed(FLIGHT + b"220 anything at all\r\n" * 100_000)
    flight.feed(b"\x00" * 1_000_000)
    assert flight.complete and facts(flight) == facts(fed(FLIGHT))


@pytest.mark.parametrize(
    "data, shown",
    [
        (b"421 4.3.2 too busy\r\n", "421 4.3.2 too busy"),
        (b"\x15\x02\x00\x00\x02\x02\x28", "x15"),
        (b"\x80\x2e\x01\x00\x02", "x80"),
        (b"\x18\x03\x03\x00\x02hi", "x18"),
        (b"\x1b[2J\x07oops", "x1b[2J"),
        (record(server_hello()) + b"500 what?\r\n", "500 what?"),
    ],
)
def test_what_is_not_tls_is_shown(data, shown):
    code, text = refusal(data)
    assert code == "not_tls"
    assert shown in text and text.isprintable()


def test_what_is_not_tls_is_shown_in_part():
    assert len(refusal(b"5" * 10_000)[1]) < 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x03\x40\x01",
        record(b"\x02", 21),
        record(b"\x02\x28\x00", 21),
        record(b"\x01", 20),
        record(b"data", 23),
        record(DONE),
        record(certificates(b"leaf")),
        record(message(4, b"ticket")),
        record(message(1, b"client hello")),
        record(server_hello() + server_hello()),
        record(server_hello() + key_exchange() + certificates(b"leaf")),
        record(server_hello() + message(99, b"")),
        record(server_hello() + certificates(b"leaf") + message(4, b"ticket")),
        record(message(2, b"")),
        record(message(2, b"\x03\x03" + b"r" * 32)),
        record(message(2, b"\x03\x03" + b"r" * 32 + b"\xff")),
        record(message(2, b"\x03\x03" + b"r" * 32 + b"\x00\xc0\x2f\x00\x00")),
        record(message(2, b"\x03\x03" + b"r" * 32 + b"\x00\xc0\x2f\x00\x00\x05" + b"\x00\x2b\x00\x01")),
        record(server_hello(extensions=b"\x00\x2b\x00\x03\x03\x04")),
        record(server_hello(extensions=b"\x00\x2b\x00\x00")),
        record(server_hello(extensions=b"\x00\x2b")),
        record(server_hello() + message(11, b"")),
        record(server_hello() + message(11, b"\x00\x00\x05\x00\x00\x01a")),
        record(server_hello() + message(11, vector(b"\x00\x00\x05a", 3))),
        record(server_hello() + message(11, vector(b"\x00\x00\x00", 3))),
        record(server_hello() + message(11, vector(b"\x00", 3))),
        record(server_hello() + message(12, b"")),
        record(server_hello() + message(12, b"\x03\x00\x17\x41")),
        record(server_hello() + message(12, key_exchange()[4:] + b"more")),
        record(server_hello() + message(12, key_exchange()[4:-1])),
        record(server_hello(cipher=0x009E) + message(12, b"\x00\x05abc")),
    ],
)
def test_a_flight_that_is_malformed(data):
    code, text = refusal(data)
    assert code == "malformed" and text.isprintable()


def test_a_flight_that_does_not_end():
    code, text = refusal(record(server_hello()) + record(b"\x01\x70", 21) * 20_000)
    assert (code, text) == ("too_large", f"the server's flight is longer than {MAX_FLIGHT} bytes")
    assert refusal(record(server_hello()) + record(b"") * 30_000)[0] == "too_large"


def test_a_message_that_would_not_fit():
    assert refusal(record(server_hello() + b"\x0b\xff\xff\xff"))[0] == "too_large"


def test_a_chain_that_does_not_end():
    assert fed(record(server_hello() + certificates(*[b"c"] * MAX_CERTIFICATES))).chain == (b"c",) * MAX_CERTIFICATES
    code, text = refusal(record(server_hello() + certificates(*[b"c"] * (MAX_CERTIFICATES + 1))))
    assert code == "too_large" and "64 certificates" in text


@pytest.mark.parametrize(
    "chunk",
    [
        record(server_hello() + b"\x0b\x01\xff\x00") + record(b"x" * 16384) * 4,  # one message for ever
        record(b"\x01\x70", 21) * 1000,
        b"\x16\x03\x03\x40\x00" + b"\x02\x01\xff\xf0" + b"x" * 16380,
        record(b"\x01\x70", 21),
    ],
)
def test_memory_is_bounded(chunk):
    flight = ServerFlight()
    tracemalloc.start()
    try:
        with pytest.raises(HelloError) as caught:
            for _ in range(100_000):
                flight.feed(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == "too_large"
    assert peak < 3 * MAX_FLIGHT + len(chunk)


# Whatever comes


def changed(data, at, byte):
    at %= len(data)
    return data[:at] + bytes([byte]) + data[at + 1 :]


STARTS = st.sampled_from([FLIGHT, record(hello_13()), b"\x16\x03\x03\x00\x20"])
WHOLE = st.sampled_from([FLIGHT, record(hello_13()), record(server_hello(cipher=0x9E) + key_exchange())])
KINDS = st.sampled_from([2, 4, 11, 12, 13, 14, 22, 99])
flights = st.one_of(
    st.binary(max_size=400),
    st.builds(lambda head, tail: head + tail, STARTS, st.binary(max_size=60)),
    st.builds(changed, WHOLE, st.integers(0, 400), st.integers(0, 255)),
    st.lists(st.builds(message, KINDS, st.binary(max_size=90)).map(record), max_size=6).map(b"".join),
)


def outcome(chunks):
    flight = ServerFlight(b"c" * 32)
    try:
        for chunk in chunks:
            flight.feed(chunk)
    except HelloError as error:
        assert str(error).isprintable() and len(str(error)) < 700
        return error.code, facts(flight)
    return "", facts(flight)


@given(flights, st.lists(st.integers(1, 50), max_size=30))
@example(FLIGHT, [1] * 30)
@example(b"421 no\r\n", [1, 1, 1])
def test_whatever_comes_is_read_the_same_in_any_pieces(data, sizes):
    cuts = [0, *(cut for cut in itertools.accumulate(sizes) if cut < len(data)), len(data)]
    pieces = [data[start:end] for start, end in zip(cuts, cuts[1:])]
    assert outcome(pieces) == outcome([data]) == outcome(bytes([byte]) for byte in data)
    assert isinstance(group_of(data), str)


@given(
    st.sampled_from([0x0301, 0x0302, 0x0303]),
    st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5),
    st.sampled_from(sorted(hello._GROUP_NAMES)),
    st.binary(min_size=1, max_size=100),
    st.binary(max_size=255),
    st.booleans(),
)
def test_what_a_server_says_is_what_is_read(version, chain, group, signature, point, request):
    signed = key_exchange(group, 0x0401 if version == 0x0303 else None, signature, point)
    flight = fed(
        record(server_hello(version, 0xC014))
        + record(certificates(*chain) + signed + (REQUEST if request else b"") + DONE)
    )
    assert flight.chain == tuple(chain) and flight.complete
    assert flight.group == hello._GROUP_NAMES[group]
    assert flight.client_certificate_requested is request
    assert flight.key_exchange.signature == signature
    assert flight.key_exchange.signed == b"c" * 32 + b"r" * 32 + bytes([3]) + group.to_bytes(2, "big") + vector(
        point, 1
    )


# The data for the controller


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_a_key_exchange_survives_the_way_to_the_controller(algorithm, signed, signature):
    exchange = KeyExchange(algorithm, signed, signature)
    assert KeyExchange.from_dict(exchange.to_dict()) == exchange


@pytest.mark.parametrize("data", [{}, {"algorithm": "ed25519"}, {"algorithm": "x", "signed": "!", "signature": ""}, None,
                                  {"algorithm": "x", "signed": 5, "signature": ""}])  # fmt: skip
def test_what_is_no_key_exchange(data):
    with pytest.raises(ValueError):
        KeyExchange.from_dict(data)


# Other clients' handshakes, in memory, with the real library


def first_bytes(client, server):
    """What the server of a real handshake sends first."""
    to_server, to_client, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=NAME)
    there = server.wrap_bio(to_server, outgoing, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        here.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        there.do_handshake()
    return outgoing.read()


@pytest.fixture(scope="module")
def server(authority, tmp_path_factory):
    issued = authority.issue([NAME])
    bundle = tmp_path_factory.mktemp("hello") / "bundle.pem"
    bundle.write_bytes(issued.key_pem + pem(issued.certificate, *issued.chain))

    def make(curve=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(bundle)
        if curve:
            set_curve(context, curve)
        return context

    return make


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "curve, group", [("X25519", "x25519"), ("prime256v1", "secp256r1"), ("secp521r1", "secp521r1")]
)
def test_the_group_of_another_clients_handshake(server, version, curve, group):
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.minimum_version = client.maximum_version = version
    data = first_bytes(client, server(curve))
    assert group_of(data) == group
    assert group_of(data[:40]) == ""


@pytest.mark.parametrize("data", [b"", b"\x16", b"421 no\r\n", record(b"\x02\x28", 21), record(message(2, b""))])
def test_the_group_of_what_is_no_handshake(data):
    assert group_of(data) == ""


@pytest.mark.parametrize(
    "versions, version", [(("TLSv1.2",), "TLSv1.2"), (("TLSv1.3",), "TLSv1.3"), (("TLSv1.2", "TLSv1.3"), "TLSv1.3")]
)
def test_the_real_library_understands_the_hello(server, versions, version):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    names = []
    context = server()
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    there = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(client_hello(versions, NAME))
    with pytest.raises(ssl.SSLWantReadError):
        there.do_handshake()
    flight = fed(outgoing.read())
    assert (flight.version, flight.group, flight.complete, names) == (version, "x25519", True, [NAME])
    assert len(flight.chain) == (2 if version == "TLSv1.2" else 0)
    assert flight.knows_tls13 is (version == "TLSv1.2")
