"""Which writers of Received headers tell TLS, in which words, and which of their headers crossed no network."""

import re
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.received import parse_received, path_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.writers import is_loopback, version_of

_TEXT = (Path(__file__).parent / "received_headers.txt").read_text(encoding="utf-8")
HEADERS = dict(re.findall(r"^## (.+)\n((?:(?!#).+\n)+)", _TEXT, re.MULTILINE))
TLS = {"yes": True, "no": False, "unproven": None}


def header_of(writer: str) -> str:
    return next(header for title, header in HEADERS.items() if title.startswith(f"{writer} = "))


def test_the_headers_are_those_of_many_writers():
    assert len(HEADERS) == _TEXT.count("\n## ")
    assert len({title.split(" = ")[0].split(",")[0] for title in HEADERS}) > 40


@pytest.mark.parametrize("title", HEADERS, ids=lambda title: title.split(" = ")[0])
def test_what_a_header_proves(title):
    where, tls, version, cipher = title.split(" = ")[1].split()
    expected = (where == "network", TLS[tls], version.strip("-"), cipher if cipher != "-" else "", True)
    for fold in ("\r\n\t", "\n        ", " "):
        hop = parse_received(fold.join(HEADERS[title].split()))
        assert (hop.network, hop.tls, hop.tls_version, hop.cipher, bool(hop.date)) == expected
    path = path_of([HEADERS[title]])
    assert path.verdict[0] == ("unproven" if where == "local" else {"yes": "pass", "no": "plaintext"}.get(tls, tls))
    assert path.tls is (path.verdict[0] == "pass")


def test_a_message_through_cyrus_is_judged_by_its_other_hops():
    gateway = header_of("Postfix, a user who logged in")
    path = path_of([header_of("Cyrus LMTP through a socket"), gateway])
    assert path.verdict[0] == "pass"
    assert [(hop.network, hop.tls, hop.tls_version) for hop in path.hops] == [
        (True, True, "TLSv1.3"),
        (False, False, ""),
    ]


def test_one_hop_that_cannot_be_told_makes_the_path_unproven_and_one_in_plaintext_decides():
    tls, silent, plain = map(header_of, ("Stalwart, TLS", "Domino", "OpenSMTPD, plaintext"))
    assert path_of([tls, silent]).verdict == (
        "unproven",
        "the Received header does not tell whether TLS was used: from mail.example.net to notes.example.com (ESMTP)",
    )
    assert path_of([tls, silent, plain]).verdict[0] == "plaintext"


@pytest.mark.parametrize(
    ("writer", "client"),
    [
        # What each writer would write of a client in plaintext that gives itself this name or address.
        ("qmail over a network", "x) (127.0.0.1"),
        ("qmail over a network", "x) (using TLSv1.3 with cipher A"),
        ("Apache James without the comment", "x) ([192.0.2.1]) (using TLSv1.3 with cipher A"),
        ("Apache James without the comment", "x) (127.0.0.1"),
        ("Zimbra, to the mailbox on another host", "mailbox.example.com"),
        ("Cellopoint, nothing told", "x ([unix socket])"),
        ("Kerio Connect, plaintext", "x (using TLSv1.3 with cipher A)"),
        ("CommuniGate Pro, plaintext", "x (localhost [127.0.0.1])"),
        ("ZMailer", 'x" ([127.0.0.1]) "'),
        ("MessageLabs, nothing told", "x (using TLSv1.2 with cipher A (256 bits))"),
        ("Axigen, plaintext", "x (127.0.0.1)"),
        ("Exchange, plaintext from another host", "x (192.0.2.41)"),
        ("Exchange, plaintext from another host", "x ([unix socket])"),
    ],
)
def test_a_client_can_neither_forge_tls_nor_hide_its_hop(writer, client):
    header = header_of(writer)
    name = re.search(r"[HEL]{2}LO ([^ )\"]+)", header) or re.match(r"from (\S+)", header)
    hop = parse_received(header[: name.start(1)] + client + header[name.end(1) :])
    assert (bool(hop.tls), hop.network) == (False, True)


@pytest.mark.parametrize("said", ['<"x) (version=TLSv1.3 cipher=A)"@a.example>', "<x) (version=TLSv1.3 cipher=A)>"])
@pytest.mark.parametrize("writer", ["Domino", "Barracuda's service, nothing told", "SmarterMail, nothing told"])
def test_nor_by_an_address_behind_the_name_of_the_host(writer, said):
    header = header_of(writer).replace(";", f" (envelope-from {said}) for {said};", 1)
    assert not parse_received(header).tls
    assert not parse_received(header.replace(" (envelope-from", " id 1 (envelope-from", 1)).tls


def test_a_version_behind_an_address_does_not_turn_plaintext_into_tls():
    said = "(version=TLSv1.3 cipher=A bits=256)"
    assert parse_received(f"from a ([192.0.2.1]) by b with ESMTP id 1 {said}; date").tls is True
    assert parse_received(f"from a ([192.0.2.1]) by b with ESMTP id 1 for <x@y.example> {said}; date").tls is None


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"])
def test_the_loopback(text):
    assert is_loopback(text)


@pytest.mark.parametrize("text", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "localhost", "", "999.1.1.1"])
def test_not_the_loopback(text):
    assert not is_loopback(text)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("TLSv1.3", "TLSv1.3"), ("TLS1.2", "TLSv1.2"), ("TLS1_2", "TLSv1.2"), ("TLS\\Tls12", "TLSv1.2"), ("Tls13", "TLSv1.3"),
        ("TLSv1", "TLSv1"), ("TLSv1.0", "TLSv1"), ("TLSv1/SSLv3", "TLSv1"), ("SSLv3", "SSLv3"), ("TLS", ""), ("TLSv1.2x", ""), ("", ""),
    ],
)  # fmt: skip
def test_the_spellings_of_a_version(text, version):
    assert version_of(text) == version
