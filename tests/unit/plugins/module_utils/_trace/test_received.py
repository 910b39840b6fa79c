import json
import time
from dataclasses import asdict, replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.received import (
    Hop,
    Path,
    parse_received,
    path_of,
)
from hypothesis import example, given, settings
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
        (POSTFIX_LOCAL, Hop("outside.fleet.test", "", "", None, "", "", False)),
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
        (EXIM_LOCAL, Hop("ex12.fleet.test", "root", "LOCAL", None, "", "", False)),
        (EXIM_LOOPBACK, Hop("ex12.fleet.test", "outside.fleet.test", "ESMTP", False, "", "", False)),
    ],
)
def test_headers_of_the_mail_servers(header, hop):
    hop = replace(hop, date="2026-11-23T17:00:00Z", writer="exim" if "Exim" in header else "postfix")
    assert parse_received(header) == hop
    for fold in ("\r\n\t", "\n        ", " "):
        assert parse_received(fold.join(header.split())) == hop


@pytest.mark.parametrize(
    ("protocol", "tls"),
    [
        ("SMTP", False), ("ESMTP", False), ("ESMTPA", False), ("ESMTPS", True), ("ESMTPSA", True), ("SMTPS", True),
        ("LMTP", False), ("LMTPA", False), ("LMTPS", True), ("LMTPSA", True), ("UTF8SMTP", False),
        ("UTF8SMTPS", True), ("UTF8SMTPSA", True), ("UTF8LMTPS", True), ("HTTP", None), ("HTTPS", True),
        ("esmtps", True), ("esmtpsa", True), ("local", None), ("XESMTPS", None), ("ESMTPSX", None),
    ],
)  # fmt: skip
def test_the_protocols_of_rfc_3848(protocol, tls):
    """Only a writer that is known to tell TLS proves plaintext by a protocol without it."""
    header = (
        f"from a.example ([192.0.2.1]) by b.example (Postfix) with {protocol} id 1; Mon, 23 Nov 2026 17:00:00 +0000"
    )
    assert parse_received(header).tls is tls
    assert parse_received(header.replace(" (Postfix)", "")).tls is (tls or None)


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
    assert (hop.by, hop.protocol, hop.tls) == ("b.example", "SMTP", None)


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
    ("from gw1.example (gw1.example [{}])", "with ESMTP id 1"),  # Postfix
    ("from [192.0.2.1] (localhost [{}])", "with ESMTP id 1"),  # Postfix, whatever the client calls itself
    ("from gw1.example ([{}])", "with ESMTP id 1"),  # Dovecot
    ("from gw1.example ({})", "with Microsoft SMTP Server id 15.1"),
    ("from gw1.example (mail@gw1.example [{}] (may be forged))", "with ESMTP id 1"),  # Sendmail
    *(
        (form, "with esmtp (Exim 4.96) id 1")
        for form in (
            "from gw1.example ([{}])",  # where the client gave its own name
            "from gw1.example ([{}] helo=[192.0.2.1])",
            "from gw1.example ([{}]:4711 helo=gw1 ident=mail)",
            "from [{}] (helo=[192.0.2.1])",  # for want of a name
            "from [{}] (port=4711 helo=gw1.example)",
            "from [{}]",
        )
    ),
]


@pytest.mark.parametrize(("form", "protocol"), FORMS)
@pytest.mark.parametrize(
    ("address", "network"),
    [("127.0.0.1", False), ("127.0.1.1", False), ("::1", False), ("192.0.2.10", True), ("2001:db8::127", True)],
)
def test_the_address_of_the_client_is_found(form, protocol, address, network):
    header = f"{form.format(address)} by me.example ([127.0.0.1]) {protocol}; date"
    assert parse_received(header).network is network


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
        "verdict": "pass",
        "message": "over TLS on every hop over a network, 1 of 1",
        "hops": [
            {
                "by": "pf12.fleet.test",
                "from_host": "gw1.fleet.test",
                "protocol": "ESMTPS",
                "tls": True,
                "tls_version": "TLSv1.3",
                "cipher": "TLS_AES_256_GCM_SHA384",
                "network": True,
                "date": "2026-11-23T17:00:00Z",
                "writer": "postfix",
                "clear": True,
                "delay": None,
            }
        ],
    }
    assert Path(()).to_dict() == {
        "tls": False,
        "verdict": "unproven",
        "message": "it arrived without crossing a network, so it proves nothing",
        "hops": [],
    }


FORGED = POSTFIX_PLAIN.replace("from outside.fleet.test", "from x by evil.example with ESMTPS id 1 (y)")


@pytest.mark.parametrize(
    ("headers", "verdict", "message"),
    [
        ([POSTFIX_TLS, POSTFIX_LOOPBACK, POSTFIX_TLS12], "pass", "over TLS on every hop over a network, 2 of 2"),
        (
            [POSTFIX_TLS, POSTFIX_PLAIN],
            "plaintext",
            "in plaintext from outside.fleet.test to gw1.fleet.test (ESMTP)",
        ),
        (
            [EXIM_PLAIN, POSTFIX_TLS, POSTFIX_PLAIN],
            "plaintext",
            "in plaintext from outside.fleet.test to gw1.fleet.test (ESMTP); from outside.fleet.test to ex12.fleet.test "
            "(ESMTP)",
        ),
        ([POSTFIX_LOCAL], "unproven", "it arrived without crossing a network, so it proves nothing"),
        (
            [POSTFIX_TLS, FORGED],
            "unproven",
            "the Received header can be read in more than one way, so it does not prove TLS: from x to gw1.fleet.test",
        ),
        (
            [POSTFIX_PLAIN, FORGED],
            "plaintext",
            "in plaintext from outside.fleet.test to gw1.fleet.test (ESMTP)",
        ),
    ],
)
def test_the_verdict_names_the_hop(headers, verdict, message):
    path = path_of(headers)
    assert path.verdict == (verdict, message)
    assert path.tls is (verdict == "pass")


@pytest.mark.parametrize(
    ("dates", "delays"),
    [
        (["17:00:00 +0000", "17:00:09 +0000", "18:01:00 +0100 (CET)"], [None, 9, 51]),
        (["17:00:00 +0000", "16:59:58 +0000"], [None, -2]),  # the clocks differ
        (["17:00:00 +0000", "whenever", "17:00:03 +0000"], [None, None, None]),
        (["09:00:00 PST", "17:00:01 -0000"], [None, 1]),
        (["17:00:00 +9999", "17:00:03 +0000"], [None, None]),
    ],
)
def test_the_time_between_two_hops(dates, delays):
    headers = [f"from a by b with ESMTPS id 1; Mon, 23 Nov 2026 {date}" for date in dates]
    assert [hop["delay"] for hop in path_of(reversed(headers)).to_dict()["hops"]] == delays


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("; Mon, 23 Nov 2026 17:00:00 +0000 (UTC)", "2026-11-23T17:00:00Z"),
        ("; 23 Nov 2026 17:00:00 -0000", "2026-11-23T17:00:00Z"),
        ("; Wed, 08 Jan 2007 14:39:55 PST", "2007-01-08T22:39:55Z"),
        ("; x; Mon, 23 Nov 2026 23:30:00 -0130", "2026-11-24T01:00:00Z"),
        ("; Mon, 23 Nov 2026 17:00:00 +9999", ""),
        ("; Fri, 31 Dec 9999 23:59:59 -2300", ""),
        ("; Mon, 41 Nov 2026 17:00:00 +0000", ""),
        ("; Mon, 23 Nov 0300 17:00:00 +0000", "0300-11-23T17:00:00Z"),
        ("; yesterday", ""),
        (";", ""),
        ("", ""),
        ("; " + "9" * 5000, ""),
    ],
)
def test_the_date_of_a_hop(text, date):
    assert parse_received(f"from a ([192.0.2.1]) by b with ESMTPS id 1{text}").date == date


# Writers

SERVICE_TLS = """from source ([12.158.40.254]) (using TLSv1) by
\texprod5mx21.example.com; Wed, 08 Jan 2007 14:39:55 PST"""
SERVICE_TLS_LONG = """from smtp.example.org ([192.0.2.33]) (using TLSv1) by exprod6ob107.example.com ([198.51.100.12]) with SMTP
\tID DSNKUDvBMqO5kkg1XrLTJRNCgkTgJID6fWrY@example.com; Mon, 27 Aug 2012 11:49:26 PDT"""
SERVICE_PLAIN = """from source ([12.158.40.254]) by exprod5mx21.example.com
\t([198.51.100.12]) with SMTP; Wed, 08 Jan 2007 12:47:24 PST"""
SENDMAIL_TLS = """from gw1.example.net (gw1.example.net [192.0.2.10])
\tby mx.example.com (8.17.1.9/8.17.1.9/Debian-2) with ESMTPS id 4ANH0abc012345
\t(version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 bits=256 verify=NOT)
\tfor <trace@example.com>; Mon, 23 Nov 2026 17:00:00 GMT"""
SENDMAIL_PLAIN = """from gw1.example.net (gw1.example.net [192.0.2.10] (may be forged))
\tby mx.example.com (8.17.1.9/8.17.1.9/Debian-2) with ESMTP id 4ANH0abc012345
\tfor <trace@example.com>; Mon, 23 Nov 2026 17:00:00 GMT"""
HARAKA_TLS = """from mx.example.net (mx.example.net [192.0.2.99])
\tby hk.example.com (Haraka/3.3.4) with ESMTPS id 0B0A4DA9-7A4C-4D6A-8C9F-1D0F1E1B2C3D.1
\tenvelope-from <trace@example.net>
\ttls TLS_AES_256_GCM_SHA384;
\tMon, 23 Nov 2026 17:00:00 +0000"""
HARAKA_OLD_TLS = """from mx.example.net (NXDOMAIN [192.0.2.99])
\tby hk.example.com (Haraka/2.8.20) with ESMTPSA id 0B0A4DA9-7A4C-4D6A-8C9F-1D0F1E1B2C3D.1
\tenvelope-from <trace@example.net> (authenticated bits=0)
\t(cipher=ECDHE-RSA-AES256-GCM-SHA384 verify=OK); Mon, 23 Nov 2026 17:00:00 +0000"""
HARAKA_OLDER_TLS = """from mx.example.net (mx.example.net [192.0.2.99])
\tby hk.example.com (Haraka/2.1.4) with ESMTPS id 7B470838-3340-40DB-A8FE-0C227796FEF3.1
\tenvelope-from <a@example.net>
\t(version=TLSv1/SSLv3 cipher=RC4-SHA verify=OK); Mon, 23 Nov 2026 17:00:00 +0000"""
HARAKA_PLAIN = """from mx.example.net ([192.0.2.99])
\tby hk.example.com (Haraka) with ESMTP id 0B0A4DA9-7A4C-4D6A-8C9F-1D0F1E1B2C3D.1
\tenvelope-from <trace@example.net>; Mon, 23 Nov 2026 17:00:00 +0000"""
EXCHANGE_2010 = """from transit.example.com (198.51.100.53) by EX3.corp.example.com
 (198.51.100.25) with Microsoft SMTP Server (TLS) id 14.2.318.1; Mon, 23 Nov
 2026 11:00:00 -0600"""
EXCHANGE_ONLINE = """from AA0PR04MB0001.namprd04.example.com (2001:db8:208:2a::17)
 by BB0PR04MB0002.namprd04.example.com (2001:db8:208:1f1::22) with
 Microsoft SMTP Server (version=TLS1_2,
 cipher=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384_P384) id 15.20.9999.21; Mon, 23 Nov 2026 17:00:00 +0000"""
EXCHANGE_FRONTEND = """from mx.example.net (192.0.2.99) by CC0EUR05FT001.mail.example.com
 (198.51.100.57) with Microsoft SMTP Server (version=TLS1_3, cipher=TLS_AES_256_GCM_SHA384) id
 15.20.9999.22 via Frontend Transport; Mon, 23 Nov 2026 17:00:00 +0000"""
EXCHANGE_FRONTEND_PLAIN = EXCHANGE_FRONTEND.replace(" (version=TLS1_3, cipher=TLS_AES_256_GCM_SHA384)", "")
EXCHANGE_HTTPS = """from AA0PR04MB0001.namprd04.example.com (2001:db8:208:2a::17) by
 BB0PR04MB0002.namprd04.example.com with HTTPS; Mon, 23 Nov 2026 17:00:00 +0000"""
EXIM_OLD_TLS = """from mx.example.net ([192.0.2.99])
\tby ex.example.com with esmtps (TLS1.2:ECDHE_RSA_AES_256_GCM_SHA384:256)
\t(Exim 4.89)
\t(envelope-from <a@example.net>)
\tid 1sABCD-0001-AB; Mon, 23 Nov 2026 17:00:00 +0000"""
ESA_TLS = """from unknown (HELO mx.example.net) ([192.0.2.99])
  by esa.example.com with ESMTP/TLS/TLS_AES_256_GCM_SHA384; 23 Nov 2026 17:00:00 +0000"""
GOOGLE_TLS = """from mx.example.net (mx.example.net. [192.0.2.99])
        by mx.example.com with ESMTPS id a1b2c3-20020a05600c0d1.2026.11.23
        for <trace@example.com>
        (version=TLS1_3 cipher=TLS_AES_256_GCM_SHA384 bits=256/256);
        Mon, 23 Nov 2026 09:00:00 -0800 (PST)"""


@pytest.mark.parametrize(
    ("header", "writer", "tls", "version", "cipher"),
    [
        (SERVICE_TLS, "service", True, "TLSv1", ""),
        (SERVICE_TLS.replace("TLSv1", "SSLv3"), "service", True, "SSLv3", ""),
        (SERVICE_TLS_LONG, "service", True, "TLSv1", ""),
        (SERVICE_PLAIN, "service", False, "", ""),
        (SENDMAIL_TLS, "sendmail", True, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        (SENDMAIL_PLAIN, "sendmail", False, "", ""),
        (HARAKA_TLS, "haraka", True, "", "TLS_AES_256_GCM_SHA384"),
        (HARAKA_OLD_TLS, "haraka", True, "", "ECDHE-RSA-AES256-GCM-SHA384"),
        (HARAKA_OLDER_TLS, "haraka", True, "TLSv1", "RC4-SHA"),
        (HARAKA_PLAIN, "haraka", False, "", ""),
        (EXCHANGE_2010, "exchange", True, "", ""),
        (EXCHANGE, "exchange", True, "TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        (EXCHANGE_ONLINE, "exchange", True, "TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384_P384"),
        (EXCHANGE_FRONTEND, "exchange", True, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        (EXCHANGE_FRONTEND_PLAIN, "exchange", False, "", ""),
        (EXCHANGE_PLAIN, "exchange", False, "", ""),
        (EXCHANGE_HTTPS, "exchange", True, "", ""),
        (EXIM_OLD_TLS, "exim", True, "TLSv1.2", "ECDHE_RSA_AES_256_GCM_SHA384"),
        (ESA_TLS, "unknown", True, "", "TLS_AES_256_GCM_SHA384"),
        (GOOGLE_TLS, "unknown", True, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    ],
)
def test_every_writer_and_what_it_says_of_tls(header, writer, tls, version, cipher):
    for fold in ("\r\n\t", "\n        ", " "):
        hop = parse_received(fold.join(header.split()))
        assert (hop.writer, hop.tls, hop.tls_version, hop.cipher) == (writer, tls, version, cipher)
        assert hop.network and hop.clear and hop.date
        assert "example" in hop.by


def test_exchange_hands_over_to_its_mailbox_with_mapi():
    hop = parse_received(EXCHANGE_MAPI)
    assert (hop.writer, hop.protocol, hop.network) == ("exchange", "MAPI", False)


# What a client can say

PLAIN = {
    "postfix": "from {helo} (unknown [192.0.2.99])\n\tby gw.example (Postfix) with ESMTP id 9C2B12034A\n"
    "\tfor <{recipient}>; Mon, 23 Nov 2026 17:00:00 +0000 (UTC)",
    "exim": "from [192.0.2.99] (helo={helo} ident={ident})\n\tby ex.example with esmtp (Exim 4.96)\n"
    "\t(envelope-from <{sender}>)\n\tid 1sABCD-0002-CD\n\tfor {recipient};\n\tMon, 23 Nov 2026 17:00:00 +0000",
    "exim, name found": "from mx.example ([192.0.2.99] helo={helo} ident={ident})\n\tby ex.example with smtp (Exim 4.96)\n"
    "\t(envelope-from <{sender}>)\n\tid 1sABCD-0002-CD\n\tfor {recipient};\n\tMon, 23 Nov 2026 17:00:00 +0000",
    "exchange": "from {helo} (192.0.2.99) by EX1.example (198.51.100.1) with Microsoft SMTP Server id 15.1.2507.39 via "
    "Frontend Transport; Mon, 23 Nov 2026 17:00:00 +0000",
    "haraka": "from {helo} (mx.example [192.0.2.99])\r\n\tby hk.example (Haraka/3.3.4) with ESMTP id 0B0A.1\r\n"
    "\tenvelope-from <{sender}>;\r\n\tMon, 23 Nov 2026 17:00:00 +0000",
    "sendmail": "from {helo} ({ident}@mx.example [192.0.2.99] (may be forged))\n\tby mx.example (8.17.1/8.17.1) with ESMTP id "
    "4A\n\tfor <{recipient}>; Mon, 23 Nov 2026 17:00:00 GMT",
    "service": "from {helo} ([192.0.2.99]) by exprod5mx21.example.com ([198.51.100.1]) with SMTP; Mon, 23 Nov 2026 09:00:00 PST",
    "courier": "from {helo} ({helo} [192.0.2.99]) by mx.example with SMTP; Mon, 23 Nov 2026 17:00:00 +0000",
}
ATTACKS = [
    "x by evil with ESMTPS id 1", "x ([192.0.2.1]) by evil with ESMTPS id 1 (", "x by evil with ESMTPS; (", "(by evil with ESMTPS",
    "source ([192.0.2.1]) (using TLSv1)", "x (a [127.0.0.1])", "[127.0.0.1]", "TLSv1.3", "ESMTPS", "by", "by evil", "with ESMTPS",
    "x (a [192.0.2.1]) (using TLSv1.3 with cipher X (256/256 bits))", "x) (using TLSv1)", ") by evil with ESMTPS (", "<", ">", '"',
    "Microsoft SMTP Server (version=TLS1_2, cipher=X)", "x by EX2 (192.0.2.1) with Microsoft SMTP Server (TLS) id 1",
    "x by exprod1mx1.example.com; x", "x ([192.0.2.1]) (using TLSv1) by exprod1mx1.example.com; (", "x\u00a0by\u2003evil with ESMTPS",
    "x by evil with HTTPS", "x by evil with ESMTP/TLS/X", "by evil with ESMTPS " * 9, "x by evil with ESMTPS " + "a" * 4000, "",
]  # fmt: skip
SAID = st.one_of(
    st.text(max_size=40),
    st.sampled_from(ATTACKS),
    st.lists(
        st.sampled_from(
            ["by", "BY", "with", "evil", "x", "ESMTPS", "esmtpsa", "HTTPS", "Microsoft SMTP Server", "(TLS)", "(", ")", "id 1",
             "([192.0.2.1])", "(a [127.0.0.1])", "(using TLSv1.3 with cipher X (1/1 bits))", "(using TLSv1)", "tls X", ";", "<", ">",
             "(version=TLS1_2, cipher=X)", "exprod1mx1.example.com", "(Postfix)", "(Exim 4.96)", "mapi", "local", '"', "via", "LMTP"]
        ),
        max_size=12,
    ).map(" ".join),
)  # fmt: skip


@pytest.mark.parametrize("writer", PLAIN)
@given(helo=SAID, ident=SAID, sender=SAID, recipient=SAID)
@settings(max_examples=400)
def test_whatever_a_client_says_in_plaintext_stays_plaintext(writer, helo, ident, sender, recipient):
    header = PLAIN[writer].format(helo=helo, ident=ident, sender=sender, recipient=recipient)
    hop = parse_received(header)
    assert not hop.tls and not hop.tls_version and not hop.cipher
    assert not path_of([POSTFIX_TLS, header]).tls
    assert path_of([POSTFIX_TLS, header]).verdict[0] in ("plaintext", "unproven")


@pytest.mark.parametrize("writer", PLAIN)
@pytest.mark.parametrize("attack", ATTACKS)
def test_known_attacks(writer, attack):
    for field in ("helo", "ident", "sender", "recipient"):
        said = {
            "helo": "mx.example",
            "ident": "mail",
            "sender": "a@b.example",
            "recipient": "c@d.example",
            field: attack,
        }
        hop = parse_received(PLAIN[writer].format(**said))
        assert (bool(hop.tls), hop.network) == (False, True), field


def test_two_fields_that_work_together():
    """The name opens a comment, and the envelope sender closes it behind the words of the server."""
    header = PLAIN["exim, name found"].format(
        helo="x]) by evil with esmtps (TLS1.3) tls X (Exim 4.96) (",
        ident="",
        sender='")"@x.example',
        recipient="c@d.example",
    )
    hop = parse_received(header)
    assert (hop.tls, hop.clear, hop.network) == (None, False, True)


@given(helo=SAID, recipient=SAID)
@example(helo="", recipient="by (using TLSv1.3 with cipher X (1/1 bits)) by")
@example(helo="a", recipient="> (using TLSv1.3 with cipher X (1/1 bits)) by")
def test_a_client_cannot_choose_the_version_that_postfix_writes(helo, recipient):
    header = POSTFIX_TLS12.replace("from a.example", f"from {helo}").replace("id 1;", f"id 1 for <{recipient}>;")
    assert parse_received(header).tls_version in ("", "TLSv1.2")


def test_an_honest_name_is_clear():
    for writer, template in PLAIN.items():
        hop = parse_received(
            template.format(helo="by.example", ident="mail", sender="by@with.example", recipient="with+by@by.example")
        )
        assert (hop.clear, hop.from_host in ("by.example", "mx.example", "[192.0.2.99]")) == (True, True), writer


def test_what_is_shown_is_printable_and_short():
    hop = parse_received(f"from a\x1b[31m\udcff by {'b' * 3000} with ESMTPS id 1; x")
    assert hop.from_host == "a?[31m?"
    assert len(hop.by) == 255
    assert all(value.isprintable() for value in asdict(hop).values() if isinstance(value, str))


def test_no_header_takes_long():
    for header in (
        "by a " * 100000,
        "from " + "(" * 50000,
        "from a " + "(a) " * 50000,
        "from a (" + "[" * 50000 + " by b",
    ):
        started = time.process_time()
        parse_received(header)
        assert time.process_time() - started < 0.5


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
    assert not hop.network or header.lstrip()[:4].lower() == "from"
    assert all(len(value) <= 2000 for value in (hop.by, hop.from_host, hop.protocol))
    assert isinstance(path_of([header]).tls, bool)
