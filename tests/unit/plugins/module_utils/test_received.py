import json

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.received import Hop, Path, parse_received, path_of
from hypothesis import example, given
from hypothesis import strategies as st

POSTFIX_TLS = """from gw1.fleet.test (gw1.fleet.test [192.0.2.10])
\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)
\t key-exchange X25519 server-signature ECDSA (prime256v1) server-digest SHA256)
\t(No client certificate requested)
\tby pf12.fleet.test (Postfix) with ESMTPS id 4F1A22034B
\tfor <trace@alpha.test>; Mon, 23 Nov 2026 17:00:00 +0000 (UTC)"""
POSTFIX_310_TLS = """from gw1.fleet.test (gw1.fleet.test [IPv6:2001:db8::10])
\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)
\t key-exchange X25519MLKEM768 server-signature RSA-PSS (2048 bits) server-digest SHA256)
\t(Client did not present a certificate)
\tby pf13.fleet.test (Postfix) with ESMTPS id 4dFq1x0Vz7z1
\tfor <trace@beta.test>; Mon, 23 Nov 2026 17:00:00 +0000 (UTC)"""
POSTFIX_TLS12 = """from a.example (a.example [192.0.2.1])
 (using TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits))
 (Client CN "a.example (internal)", Issuer "Example (CA)" (verified OK))
 by b.example (Postfix) with ESMTPSA id 1; Mon, 23 Nov 2026 17:00:00 +0000 (UTC)"""
POSTFIX_PLAIN = """from outside.fleet.test (unknown [192.0.2.99])
\tby gw1.fleet.test (Postfix) with ESMTP id 9C2B12034A
\tfor <trace@alpha.test>; Mon, 23 Nov 2026 17:00:00 +0000 (UTC)"""
POSTFIX_LOCAL = """by outside.fleet.test (Postfix, from userid 0)
\tid 21B5F2034A; Mon, 23 Nov 2026 17:00:00 +0000 (UTC)"""
POSTFIX_LOOPBACK = """from gw1.fleet.test (localhost [127.0.0.1])
\tby gw1.fleet.test (Postfix) with ESMTP id 9C2B12034B; Mon, 23 Nov 2026 17:00:00 +0000 (UTC)"""
POSTFIX_LOOPBACK6 = POSTFIX_LOOPBACK.replace("[127.0.0.1]", "[IPv6:::1]")
POSTFIX_LMTP = POSTFIX_PLAIN.replace("ESMTP", "LMTP")
EXIM_TLS = """from gw1.fleet.test ([192.0.2.10])
\tby ex12.fleet.test with esmtps  (TLS1.3) tls TLS_AES_256_GCM_SHA384
\t(Exim 4.96)
\t(envelope-from <trace@partner.test>)
\tid 1sABCD-0001-AB
\tfor trace@gamma.test;
\tMon, 23 Nov 2026 17:00:00 +0000"""
EXIM_498_TLS = """from [2001:db8::10] (helo=gw1.fleet.test)
\tby ex13.fleet.test with esmtpsa  (TLS1.2) tls ECDHE-ECDSA-AES256-GCM-SHA384
\t(Exim 4.98.2)
\t(envelope-from <trace@partner.test>)
\tid 1sABCD-00000000001-ABCD
\tfor trace@delta.test;
\tMon, 23 Nov 2026 17:00:00 +0000"""
EXIM_PLAIN = """from outside.fleet.test ([192.0.2.99] helo=outside)
\tby ex12.fleet.test with esmtp (Exim 4.96)
\t(envelope-from <a@b.test>) id 1sABCD-0002-CD for trace@gamma.test; Mon, 23 Nov 2026 17:00:00 +0000"""
EXIM_LOCAL = """from root by ex12.fleet.test with local (Exim 4.96)
\t(envelope-from <root@ex12.fleet.test>)
\tid 1sABCD-0003-EF
\tfor a@b.test;
\tMon, 23 Nov 2026 17:00:00 +0000"""
EXIM_LOOPBACK = EXIM_PLAIN.replace("192.0.2.99", "127.0.0.1")
EXCHANGE = """from EX1.corp.example.com (10.0.0.1) by EX2.corp.example.com
 (10.0.0.2) with Microsoft SMTP Server (version=TLS1_2,
 cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) id 15.1.2507.39; Mon, 23 Nov
 2026 17:00:00 +0000"""
EXCHANGE_PLAIN = """from relay.example.com (10.0.0.9) by EX1.corp.example.com (10.0.0.1) with Microsoft SMTP
 Server id 15.1.2507.39 via Frontend Transport; Mon, 23 Nov 2026 17:00:00 +0000"""
EXCHANGE_MAPI = """from EX1.corp.example.com ([fe80::1%3]) by EX1.corp.example.com ([fe80::1%3]) with mapi id
 15.01.2507.039; Mon, 23 Nov 2026 17:00:00 +0000"""


@pytest.mark.parametrize(
    ("header", "hop"),
    [
        (
            POSTFIX_TLS,
            Hop("pf12.fleet.test", "gw1.fleet.test", "ESMTPS", True, "TLSv1.3", "TLS_AES_256_GCM_SHA384", True),
        ),
        (
            POSTFIX_310_TLS,
            Hop("pf13.fleet.test", "gw1.fleet.test", "ESMTPS", True, "TLSv1.3", "TLS_AES_256_GCM_SHA384", True),
        ),
        (POSTFIX_TLS12, Hop("b.example", "a.example", "ESMTPSA", True, "TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", True)),
        (POSTFIX_PLAIN, Hop("gw1.fleet.test", "outside.fleet.test", "ESMTP", False, "", "", True)),
        (POSTFIX_LOCAL, Hop("outside.fleet.test", "", "", False, "", "", False)),
        (POSTFIX_LOOPBACK, Hop("gw1.fleet.test", "gw1.fleet.test", "ESMTP", False, "", "", False)),
        (POSTFIX_LOOPBACK6, Hop("gw1.fleet.test", "gw1.fleet.test", "ESMTP", False, "", "", False)),
        (POSTFIX_LMTP, Hop("gw1.fleet.test", "outside.fleet.test", "LMTP", False, "", "", True)),
        (
            EXIM_TLS,
            Hop("ex12.fleet.test", "gw1.fleet.test", "ESMTPS", True, "TLSv1.3", "TLS_AES_256_GCM_SHA384", True),
        ),
        (
            EXIM_498_TLS,
            Hop("ex13.fleet.test", "[2001:db8::10]", "ESMTPSA", True, "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", True),
        ),
        (EXIM_PLAIN, Hop("ex12.fleet.test", "outside.fleet.test", "ESMTP", False, "", "", True)),
        (EXIM_LOCAL, Hop("ex12.fleet.test", "root", "LOCAL", False, "", "", False)),
        (EXIM_LOOPBACK, Hop("ex12.fleet.test", "outside.fleet.test", "ESMTP", False, "", "", False)),
    ],
)
def test_headers_of_the_mail_servers(header, hop):
    assert parse_received(header) == hop
    for fold in ("\r\n\t", "\n        ", " "):
        assert parse_received(fold.join(header.split())) == hop


@pytest.mark.parametrize(
    ("protocol", "tls"),
    [
        ("SMTP", False), ("ESMTP", False), ("ESMTPA", False), ("ESMTPS", True), ("ESMTPSA", True), ("SMTPS", True),
        ("LMTP", False), ("LMTPA", False), ("LMTPS", True), ("LMTPSA", True), ("UTF8SMTP", False),
        ("UTF8SMTPS", True), ("UTF8SMTPSA", True), ("UTF8LMTPS", True), ("HTTP", False), ("HTTPS", False),
        ("esmtps", True), ("esmtpsa", True), ("local", False), ("XESMTPS", False), ("ESMTPSX", False),
    ],
)  # fmt: skip
def test_the_protocols_of_rfc_3848(protocol, tls):
    header = f"from a.example ([192.0.2.1]) by b.example with {protocol} id 1; Mon, 23 Nov 2026 17:00:00 +0000"
    assert parse_received(header).tls is tls


def test_a_version_without_a_tls_protocol_is_not_believed():
    hop = parse_received("from a ([192.0.2.1]) (using TLSv1.3 with cipher X) by b (Postfix) with ESMTP id 1; date")
    assert (hop.tls, hop.tls_version, hop.cipher) == (False, "", "")


def test_tls_without_a_version_is_tls():
    hop = parse_received("from a ([192.0.2.1]) by b with ESMTPS id 1; date")
    assert (hop.tls, hop.tls_version, hop.cipher) == (True, "", "")


def test_what_stands_in_comments_is_not_taken_for_the_header():
    hop = parse_received(
        "from a.example (forged by evil.example with ESMTPS (and by worse with ESMTPS)) by b.example with SMTP id 1"
    )
    assert (hop.by, hop.protocol, hop.tls) == ("b.example", "SMTP", False)


def test_the_loopback_of_the_receiving_side_does_not_hide_a_hop():
    assert parse_received("from a.example ([192.0.2.1]) by b.example ([127.0.0.1]) with ESMTP id 1").network


def test_an_address_that_is_none_counts_as_a_network():
    assert parse_received("from a.example (a [999.1.1.1]) by b with ESMTP id 1").network
    assert parse_received("from a.example (a [::::]) by b with ESMTP id 1").network


def test_exchange_with_tls():
    hop = parse_received(EXCHANGE)
    assert (hop.by, hop.from_host) == ("EX2.corp.example.com", "EX1.corp.example.com")
    assert (hop.tls, hop.tls_version) == (True, "TLSv1.2")
    assert (hop.cipher, hop.network) == ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", True)


def test_exchange_without_tls():
    hop = parse_received(EXCHANGE_PLAIN)
    assert (hop.by, hop.from_host) == ("EX1.corp.example.com", "relay.example.com")
    assert (hop.tls, hop.network) == (False, True)


def test_the_mailbox_of_exchange_is_not_a_hop_without_tls():
    assert not parse_received(EXCHANGE_MAPI).network


@pytest.mark.parametrize(
    "header",
    [
        POSTFIX_PLAIN.replace("from outside.fleet.test", "from [127.0.0.1]"),
        POSTFIX_PLAIN.replace("from outside.fleet.test", "from [IPv6:::1]"),
    ],
)
def test_a_client_cannot_hide_its_hop_by_its_helo(header):
    hop = parse_received(header)
    assert hop.network
    assert not path_of([POSTFIX_TLS, header]).tls


@pytest.mark.parametrize(
    "comment", ["(fe80::1%3)", "([fe80::1%3])", "(HELO x) (192.0.2.10)", "(unknown [999.1.1.1])", "()"]
)
def test_nor_can_it_where_its_address_cannot_be_read(comment):
    assert parse_received(f"from [127.0.0.1] {comment} by me.example with ESMTP id 1; date").network


def test_nor_can_it_with_exim():
    assert parse_received(EXIM_PLAIN.replace("helo=outside", "helo=[127.0.0.1]")).network
    assert parse_received(EXIM_498_TLS.replace("helo=gw1.fleet.test", "helo=[127.0.0.1]")).network
    for claim in (
        "(port=4711 helo=[127.0.0.1])", "(helo=gw1.fleet.test ident=[127.0.0.1])", "(ident=[127.0.0.1])",
        "(helo=(127.0.0.1))", "(helo=x[127.0.0.1])",
    ):  # fmt: skip
        assert parse_received(EXIM_498_TLS.replace("(helo=gw1.fleet.test)", claim)).network, claim
    assert parse_received(EXIM_PLAIN.replace("helo=outside", "ident=[127.0.0.1]")).network


FORMS = [
    "from gw1.example (gw1.example [{}])",  # Postfix
    "from [192.0.2.1] (localhost [{}])",  # Postfix, whatever the client calls itself
    "from gw1.example ([{}])",  # Dovecot, and Exim where the client gave its own name
    "from gw1.example ([{}] helo=[192.0.2.1])",  # Exim
    "from gw1.example ([{}]:4711 helo=gw1 ident=mail)",  # Exim
    "from [{}] (helo=[192.0.2.1])",  # Exim, for want of a name
    "from [{}] (port=4711 helo=gw1.example)",  # Exim
    "from [{}]",  # Exim
    "from gw1.example ({})",  # Exchange
    "from gw1.example (mail@gw1.example [{}] (may be forged))",  # Sendmail
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("address", "network"),
    [("127.0.0.1", False), ("127.0.1.1", False), ("::1", False), ("192.0.2.10", True), ("2001:db8::127", True)],
)
def test_the_address_of_the_client_is_found(form, address, network):
    assert (
        parse_received(f"{form.format(address)} by me.example ([127.0.0.1]) with ESMTP id 1; date").network is network
    )


@pytest.mark.parametrize(
    ("sender", "network"),
    [
        ("from me.example", False),  # a socket: LMTP to the mailbox on the host itself
        ("from me.example ([127.0.0.1])", False),
        ("from gw1.example ([192.0.2.10])", True),
        ("from gw1.example (gw1.example [IPv6:2001:db8::10])", True),
    ],
)
@pytest.mark.parametrize("protocol", ["LMTP", "LMTPA", "UTF8LMTP"])
def test_lmtp_is_a_hop_where_it_crossed_a_network(sender, network, protocol):
    assert parse_received(f"{sender} by me.example with {protocol} id 1; date").network is network


def test_without_an_address_any_other_protocol_counts_as_a_network():
    assert parse_received("from gw1.example by me.example with ESMTP id 1; date").network
    assert parse_received("from unknown (HELO gw1.example) (192.0.2.10) by me.example with SMTP; date").network


# The way


def test_the_first_hop_comes_first():
    path = path_of([EXIM_TLS, POSTFIX_TLS, POSTFIX_LOCAL])
    assert [hop.by for hop in path.hops] == ["outside.fleet.test", "pf12.fleet.test", "ex12.fleet.test"]
    assert [hop.by for hop in path.network_hops] == ["pf12.fleet.test", "ex12.fleet.test"]
    assert path.tls is True


@pytest.mark.parametrize(
    ("headers", "tls"),
    [
        ([POSTFIX_TLS], True),
        ([POSTFIX_TLS, POSTFIX_LOOPBACK, EXIM_LOCAL], True),
        ([POSTFIX_TLS, POSTFIX_PLAIN], False),
        ([POSTFIX_PLAIN, POSTFIX_TLS], False),
        ([POSTFIX_LOCAL, POSTFIX_LOOPBACK], False),  # nothing crossed a network, so nothing is proved
        ([], False),
        (["garbage"], False),
    ],
)
def test_a_path_is_tls_if_every_hop_over_a_network_is(headers, tls):
    assert path_of(headers).tls is tls


def test_a_path_as_data():
    data = path_of(iter([POSTFIX_TLS])).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data == {
        "tls": True,
        "hops": [
            {
                "by": "pf12.fleet.test",
                "from_host": "gw1.fleet.test",
                "protocol": "ESMTPS",
                "tls": True,
                "tls_version": "TLSv1.3",
                "cipher": "TLS_AES_256_GCM_SHA384",
                "network": True,
            }
        ],
    }
    assert Path(()).to_dict() == {"tls": False, "hops": []}


WORDS = st.sampled_from(
    ["from", "by", "with", "ESMTPS", "SMTP", "(", ")", "((", "[127.0.0.1]", "[IPv6:::1]", "[::::]", "[1]", "TLSv1.3",
     "TLS1_2", "cipher", "cipher=", "tls", "local", ";", "id", "\r\n\t", "a.example", "(by x with ESMTPS)", "\0"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.one_of(WORDS, st.text(max_size=5))).map(" ".join)))
@example("(" * 100000)
@example("from " + "a" * 100000 + " by b with ESMTPS")
@example("\udcff\udc80 by \udcff with \udcff")
def test_any_header_gives_a_hop(header):
    hop = parse_received(header)
    assert hop.tls or not (hop.tls_version or hop.cipher)
    assert not hop.network or hop.from_host
    assert all(len(value) <= 2000 for value in (hop.by, hop.from_host, hop.protocol))
    assert isinstance(path_of([header]).tls, bool)
