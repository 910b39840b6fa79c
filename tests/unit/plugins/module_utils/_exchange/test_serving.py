"""Which receive connector serves a client, who else uses it, and what it serves."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import NotReadError, observe
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.ranges import (
    Interval,
    parse_binding,
    parse_range,
    without,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.serving import (
    served,
    serving,
    strangers,
    tls_mode,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.exchange_organisation import EVERYBODY, INTERNAL, PUBLIC, certificate, organisation, receive

PAIR = "<I>CN=Authority 1, O=Example<S>CN=mail.example.com"


def of(*connectors, **parts):
    return observe(organisation(ReceiveConnectors=list(connectors), **parts))


def names(found, client, port=25):
    connectors, whole = serving(found, parse_range(client), port)
    return [one.name for one in connectors], whole


EVERY = receive("Default Frontend EX1")
NET = receive("net", RemoteIPRanges=["192.0.2.0/24"])
ONE = receive("one", RemoteIPRanges=["192.0.2.7"])


def test_the_most_specific_range_wins():
    found = of(EVERY, NET, ONE)
    assert names(found, "192.0.2.7") == (["one"], True)
    assert names(found, "192.0.2.8") == (["net"], True)
    assert names(found, "198.51.100.1") == (["Default Frontend EX1"], True)
    assert names(found, "2001:db8::1") == (["Default Frontend EX1"], True)


def test_a_range_of_clients_may_be_served_by_several():
    assert names(of(EVERY, NET, ONE), "192.0.2.7-192.0.2.9") == (["net", "one"], True)
    assert names(of(NET), "192.0.2.0/23") == (["net"], False)


def test_a_disabled_connector_and_one_on_another_port_do_not_serve():
    assert names(of(EVERY, {**ONE, "Enabled": False}), "192.0.2.7") == (["Default Frontend EX1"], True)
    assert names(of(EVERY, {**ONE, "Bindings": ["0.0.0.0:2525"]}), "192.0.2.7") == (["Default Frontend EX1"], True)
    assert names(of(EVERY), "192.0.2.7", 26) == ([], False)


def test_a_connector_of_one_address_of_the_server_leaves_the_other_addresses_to_others():
    here = receive("here", Bindings=["203.0.113.5:25"], RemoteIPRanges=["192.0.2.7"])
    assert names(of(EVERY, here), "192.0.2.7") == (["Default Frontend EX1", "here"], True)


def test_the_same_binding_of_one_address_is_one_place():
    here = [{**one, "Bindings": ["203.0.113.5:25"]} for one in (EVERY, ONE)]
    assert names(of(*here), "192.0.2.7") == (["one"], True)


def test_nobody_from_elsewhere_reaches_the_loopback():
    inner = receive("inner", Bindings=["127.0.0.1:25"])
    assert names(of(inner), "192.0.2.7") == ([], False)
    assert names(of(inner), "127.0.0.1") == (["inner"], True)


@pytest.mark.parametrize("part", [{"RemoteIPRanges": ["192.0.2.0(255.255.255.0)"]}, {"Bindings": ["everywhere"]}])
def test_what_is_not_understood_is_unknown(part):
    with pytest.raises(NotReadError, match="not understood"):
        names(of(EVERY, {**ONE, **part}), "192.0.2.7")


def test_a_range_that_was_not_read_makes_the_answer_unknown():
    dark = dict(ONE)
    del dark["RemoteIPRanges"]
    with pytest.raises(NotReadError, match="RemoteIPRanges of receive connector"):
        names(of(EVERY, dark), "192.0.2.1")


def test_strangers_are_those_whom_no_narrower_connector_takes():
    found = of(EVERY, NET, ONE)
    by_name = {one.name: one for one in found.receive_connectors}
    named = [parse_range("192.0.2.7")]
    assert strangers(found, by_name["one"], named) == []
    assert strangers(found, by_name["net"], named) == [
        parse_range("192.0.2.0-192.0.2.6"),
        parse_range("192.0.2.8-192.0.2.255"),
    ]
    assert strangers(found, by_name["net"], [parse_range("192.0.2.0/24")]) == []
    assert any(one.version == 6 for one in strangers(found, by_name["Default Frontend EX1"], named))


def test_who_is_taken_elsewhere_is_no_stranger_only_if_that_is_so_at_every_place():
    pair = receive("pair", RemoteIPRanges=["192.0.2.7-192.0.2.8"])
    second = receive("second", RemoteIPRanges=["192.0.2.8"])
    at_one = {**second, "Bindings": ["0.0.0.0:25"]}
    for other, left in ((second, []), (at_one, [parse_range("192.0.2.8")])):
        found = of(pair, other)
        assert strangers(found, found.receive_connectors[0], [parse_range("192.0.2.7")]) == left


def test_which_certificate_is_served():
    found = of(
        receive("named", TlsCertificateName=PAIR.upper()), receive("by name", Fqdn="MAIL.example.com"), receive("own")
    )
    named, by_name, own = found.receive_connectors
    assert [one.thumbprint for one in served(found, named)] == [PUBLIC]
    assert [one.thumbprint for one in served(found, by_name)] == [PUBLIC]
    assert [one.thumbprint for one in served(found, own)] == [INTERNAL, PUBLIC]


@pytest.mark.parametrize(
    "change",
    [{"Services": "IIS"}, {"Status": "RevocationCheckFailure"}, {"Status": "Invalid"}, {"HasPrivateKey": False}, {"Issuer": "CN=other"}],
)  # fmt: skip
def test_a_named_certificate_that_does_not_do_means_no_starttls(change):
    one = {**certificate(PUBLIC, "CN=mail.example.com", "CN=Authority 1, O=Example", ["mail.example.com"]), **change}
    found = of(receive("named", TlsCertificateName=PAIR), ExchangeCertificates=[one])
    assert tls_mode(found, found.receive_connectors[0]) == "none"


def test_services_that_a_remote_session_lost_make_it_unknown():
    one = {
        **certificate(PUBLIC, "CN=mail.example.com", "CN=Authority 1, O=Example", ["mail.example.com"]),
        "Unknown": ["Services"],
    }
    found = of(receive("named", TlsCertificateName=PAIR), ExchangeCertificates=[one])
    with pytest.raises(NotReadError, match="Services"):
        tls_mode(found, found.receive_connectors[0])


@pytest.mark.parametrize(
    ("change", "mode"),
    [({}, "offered"), ({"RequireTLS": True}, "required"), ({"AuthMechanism": "Integrated"}, "none"), ({"Enabled": False}, "none"),
     ({"Fqdn": "other.example.net"}, "none"), ({"Fqdn": None}, "offered")],
)  # fmt: skip
def test_modes(change, mode):
    found = of(receive("a", **change))
    assert tls_mode(found, found.receive_connectors[0]) == mode


def test_texts_of_ranges_and_bindings():
    assert str(parse_range("192.0.2.0/31")) == "192.0.2.0-192.0.2.1"
    assert str(parse_range(" 2001:db8::1 ")) == "2001:db8::1"
    assert parse_range("192.0.2.1/255.255.255.0") == parse_range("192.0.2.0/24")
    assert parse_binding("[::]:25").everywhere and parse_binding("0.0.0.0:25").everywhere
    for wrong in ("", "x", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1"):
        with pytest.raises(ValueError):
            parse_range(wrong)
    for wrong in ("", "25", "192.0.2.1", "host:25", "192.0.2.1:x"):
        with pytest.raises(ValueError):
            parse_binding(wrong)


SMALL = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda ends: Interval(4, min(ends), max(ends)))


@given(st.lists(SMALL, max_size=4), st.lists(SMALL, max_size=4))
def test_what_is_left_is_what_sets_say(intervals, taken):
    def members(many):
        return {number for one in many for number in range(one.low, one.high + 1)}

    assert members(without(intervals, taken)) == members(intervals) - members(taken)


@given(st.lists(st.sampled_from([32, 31, 30, 29, 28, 24]), min_size=1, max_size=4, unique=True), st.integers(0, 255))
def test_of_nested_ranges_the_narrowest_that_holds_the_client_serves_it(prefixes, last):
    connectors = [receive(str(bits), RemoteIPRanges=[f"192.0.2.0/{bits}"]) for bits in prefixes]
    client = ipaddress.ip_address(f"192.0.2.{last}")
    holding = [bits for bits in prefixes if client in ipaddress.ip_network(f"192.0.2.0/{bits}")]
    expected = str(max(holding)) if holding else "everybody"
    assert names(of(receive("everybody", RemoteIPRanges=EVERYBODY), *connectors), str(client)) == ([expected], True)
