"""DNS look-ups by a real server on the loopback."""

import dns.rcode
import pytest
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.certificate import MissingLibraryError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns import lookups
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.dns.lookups import (
    Resolver,
    ResolverError,
    is_dns_domain,
    parse_server,
    require_dnspython,
    run_all,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support import dns_server

assert lookups.has_dnspython()  # it is loaded when it is needed


@pytest.fixture
def server():
    with dns_server.serve() as running:
        running.add("a.example.com", "TXT", '"one"', '"two" "parts"')
        running.add("alias.example.com", "CNAME", "A.example.com")
        running.add("big.example.com", "TXT", *(f'"{"x" * 200}{number}"' for number in range(20)))
        yield running


def ask(server, name, kind="TXT", lifetime=5.0):
    resolver = Resolver([server.address], lifetime=lifetime)
    return run_all({name: lambda: resolver.look_up(name, kind)}, 1)[name]


class TestAnswers:
    def test_records_come_sorted(self, server):
        answer = ask(server, "a.example.com")
        assert [one.strings for one in answer.records] == [(b"one",), (b"two", b"parts")]
        assert (answer.secure, answer.name, answer.failure) == (False, "a.example.com", "")

    def test_an_alias_is_followed(self, server):
        answer = ask(server, "alias.example.com")
        assert (len(answer.records), answer.name) == (2, "a.example.com")

    def test_a_long_answer_comes_over_tcp(self, server):
        assert len(ask(server, "big.example.com").records) == 20
        assert [one[0] for one in server.questions] == ["udp", "tcp"]

    @pytest.mark.parametrize("name", ["a.example.com", "alias.example.com", "big.example.com", "nowhere.example.com"])
    @pytest.mark.parametrize("secure", [True, False])
    def test_dnssec(self, server, name, secure):
        server.secure = secure
        assert ask(server, name).secure is secure

    @pytest.mark.parametrize(("name", "kind"), [("nowhere.example.com", "TXT"), ("a.example.com", "TLSA")])
    def test_there_is_none(self, server, name, kind):
        answer = ask(server, name, kind)
        assert (answer.records, answer.failure) == ((), "")

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            (dns.rcode.SERVFAIL, "the resolver answered: SERVFAIL"),
            (dns.rcode.REFUSED, "the resolver answered: REFUSED"),
        ],
    )
    def test_a_refusal(self, server, code, said):
        server.failing["a.example.com"] = code
        assert ask(server, "a.example.com").failure == said

    def test_a_silent_server_does_not_hold_the_run_up(self, server):
        server.silent.add("a.example.com")
        assert ask(server, "a.example.com", lifetime=0.6).failure == "no resolver answered in time"

    def test_garbage_is_no_answer(self, server):
        server.garbled.add("a.example.com")
        answer = ask(server, "a.example.com", lifetime=0.6)
        assert (answer.records, bool(answer.failure)) == ((), True)

    def test_another_server_helps_out(self, server):
        server.failing["b.example.com"] = dns.rcode.SERVFAIL
        with dns_server.serve() as second:
            second.add("b.example.com", "TXT", '"here"')
            resolver = Resolver([server.address, second.address])
            found = run_all({1: lambda: resolver.look_up("b.example.com", "TXT")}, 1)
        assert len(found[1].records) == 1

    @pytest.mark.parametrize("name", ["", "a..example.com", "x" * 64 + ".example.com", ".".join(["abcdefgh"] * 40)])
    def test_a_name_that_is_none(self, server, name):
        answer = ask(server, name)
        assert answer.records == () and "\n" not in answer.failure

    def test_many_at_a_time(self, server):
        for number in range(300):
            server.add(f"h{number}.example.com", "A", "192.0.2.1")
        resolver = Resolver([server.address])
        names = [f"h{number}.example.com" for number in range(300)]
        found = run_all({one: (lambda one=one: resolver.look_up(one, "A")) for one in names}, 50)
        assert {len(one.records) for one in found.values()} == {1}
        assert set(found) == set(names)

    def test_nothing_to_do(self):
        assert run_all({}, 10) == {}


class TestResolvers:
    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ("192.0.2.1", ("192.0.2.1", 53)), ("192.0.2.1:5353", ("192.0.2.1", 5353)), ("2001:db8::1", ("2001:db8::1", 53)),
            ("[2001:db8::1]", ("2001:db8::1", 53)), ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
        ],
    )  # fmt: skip
    def test_address(self, text, read):
        assert parse_server(text) == read

    @pytest.mark.parametrize(
        "text", ["", "ns.example.com", "192.0.2.1:", "192.0.2.1:x", "[192.0.2.1", "192.0.2.1:99999", "a\nb"]
    )
    def test_no_address(self, text):
        with pytest.raises(ResolverError) as caught:
            Resolver([text])
        assert "\n" not in str(caught.value)

    def test_the_system_names_none(self, monkeypatch):
        def fail(*_args, **_options):
            raise lookups.dns.resolver.NoResolverConfiguration("nothing in /etc/resolv.conf")

        monkeypatch.setattr(lookups.dns.asyncresolver, "Resolver", fail)
        with pytest.raises(ResolverError, match="set 'resolver'"):
            Resolver()

    def test_a_missing_library_says_how_to_get_it(self, monkeypatch):
        require_dnspython()
        monkeypatch.setattr(lookups, "has_dnspython", lambda: False)
        with pytest.raises(MissingLibraryError, match=r'pip install "dnspython>=2\.6\.1"'):
            require_dnspython()


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("example.com", True), ("mta-sts.example.com", True), ("_x.example.com", True), ("xn--strae-oqa.example", True),
        ("example", False), ("", False), ("a..b", False), ("-a.example.com", False), ("192.0.2.1", False),
        ("a b.example.com", False), ("x" * 64 + ".com", False), (".".join(["abcdefgh"] * 40), False), ("a.example.com\n", False),
    ],
)  # fmt: skip
def test_domains(name, good):
    assert is_dns_domain(name) is good


@given(st.text(max_size=80))
def test_any_text_as_an_address(text):
    try:
        address, port = parse_server(text)
    except ResolverError as error:
        assert str(error).isprintable()
    else:
        assert address and 0 < port < 65536
