"""MTA-STS: records of a real DNS server, policies of a real HTTPS server on the loopback."""

import ssl
import time

import dns.rcode
import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import mta_sts
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import Resolver, run_all
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.mta_sts import (
    FetchError,
    PolicyError,
    PolicyLookup,
    StsPolicy,
    Web,
    compare_policy,
    parse_policy,
    parse_record,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support import dns_server
from tests.support.web_server import WebServer, answer, server_context

DOMAIN = "example.com"
HOST = f"mta-sts.{DOMAIN}"
TEXT = b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"
POLICY = StsPolicy("enforce", 604800, ("mx.example.com", "*.example.net"))


@pytest.fixture(scope="module")
def good_context(authority, tmp_path_factory):
    return server_context(tmp_path_factory.mktemp("web"), authority.issue([HOST]))


@pytest.fixture
def web(good_context):
    server = WebServer(good_context)
    server.reply = answer(TEXT)
    yield server
    server.close()


@pytest.fixture(scope="module")
def client_context(authority):
    return ssl.create_default_context(cadata=authority.root_pem.decode())


@pytest.fixture
def zone():
    with dns_server.serve() as running:
        running.add(f"_mta-sts.{DOMAIN}", "TXT", '"v=STSv1; id=20260101T000000;"')
        running.add(HOST, "A", "127.0.0.1")
        yield running


@pytest.fixture
def find(zone, web, client_context):
    def look_up(domain=DOMAIN, timeout=5.0):
        resolver = Resolver([zone.address], lifetime=2)
        client = Web(client_context, web.port, timeout)
        return run_all({1: lambda: mta_sts.look_up(resolver, client, domain)}, 1)[1]

    return look_up


class TestRecord:
    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ("v=STSv1; id=20160831085700Z;", "20160831085700Z"), ("v=STSv1;id=1", "1"), ("v=STSv1 ; id=a ; x=y;", "a"),
            ("v=STSv1; a=b; id=Z", "Z"), ("v=STSv1; id=first; id=second", "first"), ("v=STSv1;\tid=1;\t", "1"),
        ],
    )  # fmt: skip
    def test_good(self, text, read):
        assert parse_record(text) == read

    @pytest.mark.parametrize(
        "text",
        [
            "v=STSv1;", "v=STSv1; id=", "v=STSv1; id=a-b", f"v=STSv1; id={'a' * 33}", "v=STSv1; ID=1", "v=STSv1; id",
            "v=STSv1; id=1; junk", "v=STSv1; id=1\n", "v=STSv1; id=1 2", "v=STSv1; id=\u00e9",
        ],
    )  # fmt: skip
    def test_bad(self, text):
        with pytest.raises(PolicyError) as caught:
            parse_record(text)
        assert str(caught.value).isprintable()

    @given(st.text(max_size=100))
    def test_any_text(self, text):
        try:
            assert parse_record("v=STSv1;" + text).isalnum()
        except PolicyError as error:
            assert str(error).isprintable()


class TestPolicy:
    @pytest.mark.parametrize(
        ("text", "policy"),
        [
            (TEXT, POLICY),
            (TEXT.replace(b"\r\n", b"\n"), POLICY),
            (TEXT.rstrip(), POLICY),
            (TEXT + b"\r\n", POLICY),
            (TEXT.replace(b"MX.", b"mx."), POLICY),
            (TEXT.replace(b": ", b":"), POLICY),
            (TEXT.replace(b"\r\n", b" \t\r\n"), POLICY),
            (TEXT + b"new_field: whatever \xc3\xa9\r\n", POLICY),
            (TEXT + b"mode: none\r\nmax_age: 1\r\nversion: STSv2\r\n", POLICY),
            (TEXT + b"mx: mx.example.com\r\n", POLICY),
            (b"mode: none\nmax_age: 0\nversion: STSv1\n", StsPolicy("none", 0)),
            (b"version: STSv1\nmode: testing\nmx: a.example.com\nmax_age: 31557600\n",
             StsPolicy("testing", 31557600, ("a.example.com",))),
        ],
    )  # fmt: skip
    def test_good(self, text, policy):
        assert parse_policy(text) == policy

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (b"", "no line 'version: STSv1'"),
            (TEXT.replace(b"STSv1", b"STSv2"), "no line 'version: STSv1'"),
            (TEXT.replace(b"enforce", b"Enforce"), "the mode of the policy is 'Enforce'"),
            (TEXT.replace(b"mode: enforce\r\n", b""), "the mode of the policy is ''"),
            (TEXT.replace(b"604800", b"31557601"), "max_age of the policy is '31557601'"),
            (TEXT.replace(b"604800", b"-1"), "max_age of the policy is '-1'"),
            (TEXT.replace(b"604800", "\u0661".encode()), "max_age of the policy is"),
            (TEXT.replace(b"604800", b"9" * 4000), "max_age of the policy is"),
            (b"version: STSv1\nmode: enforce\nmax_age: 1\n", "names no mx"),
            (TEXT.replace(b"mx.example.com", b"*"), "neither a name nor"),
            (TEXT.replace(b"mx.example.com", b"*.*.example.com"), "neither a name nor"),
            (TEXT.replace(b"mx.example.com", b"mx.*.com"), "neither a name nor"),
            (TEXT.replace(b"mx.example.com", b".example.com"), "neither a name nor"),
            (TEXT.replace(b"mx.example.com", b"192.0.2.1"), "neither a name nor"),
            (TEXT.replace(b"mx.example.com", b"mx.example.com."), "neither a name nor"),
            (TEXT.replace(b"mx.example.com", b"mx\x1b[31m.example.com"), "neither a name nor"),
            (TEXT + b"<html>\n", "line 6 of the policy is not 'name: value': '<html>'"),
            (TEXT + b"\xff\n", "not UTF-8"),
            (TEXT.replace(b"\r\n", b"\r"), "no line 'version: STSv1'"),
        ],
    )
    def test_bad(self, text, reason):
        with pytest.raises(PolicyError) as caught:
            parse_policy(text)
        assert reason in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 300

    @given(st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(
        [b"version: STSv1", b"mode: enforce", b"mode: none", b"mx: a.example.com", b"mx: *.b.example", b"max_age: 5",
         b"\r", b"\n", b"\r\n", b":", b"x: \xc3\xa9", b"\x00"])).map(b"\n".join)))  # fmt: skip
    def test_any_bytes(self, body):
        try:
            policy = parse_policy(body)
        except PolicyError as error:
            assert str(error).isprintable()
        else:
            assert policy.mode in mta_sts.POLICY_MODES and 0 <= policy.max_age <= mta_sts.MAX_AGE

    @pytest.mark.parametrize(
        ("host", "allowed"),
        [
            ("mx.example.com", True), ("MX.example.com.", True), ("a.mx.example.com", False), ("example.com", False),
            ("a.example.net", True), ("a.b.example.net", False), ("example.net", False), ("", False), (".example.net", True),
        ],
    )  # fmt: skip
    def test_patterns(self, host, allowed):
        assert POLICY.allows(host) is allowed


class TestLookup:
    def test_good(self, find, web):
        assert find() == PolicyLookup("found", "", "20260101T000000", POLICY)
        [request] = web.requests
        assert request.startswith(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: mta-sts.example.com\r\n")

    def test_the_end_of_the_answer_is_not_waited_for(self, find, web):
        web.stay = True
        assert find().status == "found"

    @pytest.mark.parametrize("stay", [False, True])
    def test_chunked(self, find, web, stay):
        web.stay = stay
        chunks = (
            b"10\r\n" + TEXT[:16] + b"\r\n" + f"{len(TEXT) - 16:x}".encode() + b"\r\n" + TEXT[16:] + b"\r\n0\r\n\r\n"
        )
        web.reply = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        )
        assert find().policy == POLICY

    def test_an_answer_that_ends_with_the_connection(self, find, web):
        web.reply = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + TEXT
        assert find().policy == POLICY

    def test_no_record(self, find, web, zone):
        zone.records.clear()
        assert find() == PolicyLookup("none", "example.com has no MTA-STS record")
        assert web.requests == []

    def test_other_records_do_not_count(self, find, zone):
        zone.add(f"_mta-sts.{DOMAIN}", "TXT", '"v=spf1 -all"', '"V=STSV1; id=2"', '"v=STSv11; id=3"')
        assert find().id == "20260101T000000"

    def test_a_record_in_several_parts(self, find, zone):
        zone.records[f"_mta-sts.{DOMAIN}", "TXT"] = ['"v=STS" "v1; id=abc"']
        assert find().id == "abc"

    def test_two_records(self, find, zone, web):
        zone.add(f"_mta-sts.{DOMAIN}", "TXT", '"v=STSv1; id=2"')
        assert find().status == "invalid" and "2 MTA-STS records" in find().message
        assert web.requests == []

    def test_a_record_without_an_id(self, find, zone):
        zone.records[f"_mta-sts.{DOMAIN}", "TXT"] = ['"v=STSv1;"']
        assert (
            find().message
            == "the MTA-STS of example.com is invalid: the record has no id of 1 to 32 letters and digits"
        )

    def test_dns_fails(self, find, zone):
        zone.failing[f"_mta-sts.{DOMAIN}"] = dns.rcode.SERVFAIL
        assert (find().status, find().message) == (
            "failed", "the TXT record _mta-sts.example.com cannot be looked up: the resolver answered: SERVFAIL",
        )  # fmt: skip

    def test_a_host_without_an_address(self, find, zone):
        zone.records.pop((HOST, "A"))
        assert find().message == (
            "the policy of example.com cannot be fetched from https://mta-sts.example.com: the name has no address"
        )

    def test_a_host_whose_address_cannot_be_looked_up(self, find, zone):
        zone.failing[HOST] = dns.rcode.SERVFAIL
        assert find().message.endswith("mta-sts.example.com: the resolver answered: SERVFAIL")

    def test_another_address_helps_out(self, find, zone):
        zone.records[HOST, "AAAA"] = ["::1"]
        zone.records[HOST, "A"] = ["127.0.0.2", "127.0.0.1"]
        assert find().status == "found"

    def test_nobody_listens(self, find, zone, web):
        web.close()
        assert find().status == "failed"

    @pytest.mark.parametrize(
        ("reply", "said"),
        [
            (answer(TEXT, status="404 Not Found"), "the host answers with the status 404"),
            (answer(TEXT, status="301 Moved", head="Location: https://www.example.com/\r\n"), "a redirection (301)"),
            (answer(TEXT, kind="text/html"), "its content type is text/html, not text/plain"),
            (answer(TEXT, kind=""), "content type"),
            (answer(b"x" * 65537), "longer than 65536 bytes"),
            (answer(TEXT, length=5000), "the answer ends too early"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nversion",
                "the answer is not HTTP",
            ),
            (b"220 mx.example.com ESMTP\r\n", "the answer is not HTTP"),
            (b"", "the answer is not HTTP"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "the answer is not HTTP"),
            (answer(b"x" * 200000), "the answer is longer than 65536 bytes"),
        ],
    )
    def test_a_bad_answer(self, find, web, reply, said):
        web.reply = reply
        found = find()
        assert (found.status, found.policy, found.id) == ("failed", None, "20260101T000000")
        assert said in found.message and found.message.isprintable()

    def test_a_bad_policy(self, find, web):
        web.reply = answer(b"<html>")
        assert find().status == "invalid"

    def test_an_endless_answer(self, find, web):
        web.endless = b"a" * 1000
        web.reply = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
        assert "longer than" in find().message

    def test_a_silent_server_does_not_hold_the_run_up(self, find, web):
        web.reply, web.stay = b"HTTP/1.1 200 OK\r\n", True
        started = time.monotonic()
        assert find(timeout=0.5).message.endswith("no complete answer within 0.5 s")
        assert time.monotonic() - started < 5

    @pytest.mark.parametrize("names", [["other.example.com"], [DOMAIN]])
    def test_a_certificate_for_another_name(self, authority, tmp_path, find, web, names):
        web.context = server_context(tmp_path, authority.issue(names))
        assert "its certificate is not accepted: Hostname mismatch" in find().message

    def test_an_expired_certificate(self, authority, tmp_path, find, web):
        web.context = server_context(tmp_path, authority.expired([HOST]))
        assert "its certificate is not accepted: certificate has expired" in find().message

    def test_a_certificate_of_another_authority(self, zone, web):
        client = Web(ssl.create_default_context(), web.port, 5)
        resolver = Resolver([zone.address])
        found = run_all({1: lambda: mta_sts.look_up(resolver, client, DOMAIN)}, 1)[1]
        assert "its certificate is not accepted" in found.message and web.requests == []


@given(st.one_of(st.binary(max_size=400), st.binary(max_size=200).map(
    lambda rest: b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" + rest)))  # fmt: skip
def test_any_answer(data):
    try:
        body = mta_sts._body(data)
    except FetchError as error:
        assert str(error).isprintable()
    else:
        assert len(body) <= mta_sts.POLICY_BYTES


def test_a_chunk_of_an_absurd_size():
    with pytest.raises(FetchError):
        mta_sts._body(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nx"
        )


class TestComparison:
    FOUND = PolicyLookup("found", "", "id1", POLICY)
    TESTING = PolicyLookup("found", "", "id1", StsPolicy("testing", 5, ("mx.example.com",)))

    def test_match(self):
        assert compare_policy(self.FOUND, "mx.example.com", "") == {
            "status": "match", "mode": "enforce", "id": "id1", "mx": ["mx.example.com", "*.example.net"],
            "max_age": 604800, "message": "the policy (mode enforce) and the server agree",
        }  # fmt: skip

    @pytest.mark.parametrize(("found", "status"), [(FOUND, "mismatch"), (TESTING, "testing_mismatch")])
    def test_mismatch(self, found, status):
        result = compare_policy(found, "mx.example.org", "")
        assert result["status"] == status
        assert result["message"].startswith("mx.example.org is not among the mx of the policy (mx.example.com")
        result = compare_policy(found, "mx.example.com", "its certificate is not trusted")
        assert result["status"] == status
        assert result["message"] == "mx.example.com is among the mx of the policy, but its certificate is not trusted"

    def test_nothing_was_seen(self):
        assert compare_policy(self.FOUND, "mx.example.com", None)["status"] == "failed"

    def test_the_mode_none(self):
        result = compare_policy(PolicyLookup("found", "", "1", StsPolicy("none", 5)), "mx.example.com", "whatever")
        assert (result["status"], result["mode"]) == ("none", "none")

    @pytest.mark.parametrize("status", ["none", "invalid", "failed"])
    def test_no_policy(self, status):
        assert compare_policy(PolicyLookup(status, "why", "1"), "mx.example.com", "") == {
            "status": status, "mode": "", "id": "1", "mx": [], "max_age": None, "message": "why",
        }  # fmt: skip

    def test_a_long_list_is_cut_in_the_message(self):
        policy = StsPolicy("enforce", 5, tuple(f"mx{number}.example.net" for number in range(50)))
        assert "40 more" in compare_policy(PolicyLookup("found", "", "1", policy), "mx.example.com", "")["message"]


def test_a_policy_of_blanks_does_not_hold_up_the_others():
    """Nothing ends this work: it is done between two look-ups of one thread."""
    started = time.process_time()
    with pytest.raises(PolicyError, match="neither a name"):
        parse_policy(b"version: STSv1\nmx: a" + b" " * 65_000 + b"b\n")
    assert time.process_time() - started < 0.5
