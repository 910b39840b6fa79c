"""The send connectors, and those of peers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.engine import plan
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import observe
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.sending import space_domain
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import (
    ExchangePeer,
    WantedCertificate,
    WantedExchange,
)

from tests.support.exchange_organisation import NEW, StrictExchange, organisation, send
from tests.unit.plugins.module_utils._exchange.test_engine import codes, done

CERTIFICATE = WantedCertificate(NEW, "CN=Authority 2", "CN=mail.example.com", ("mail.example.com",))
RELAY = ExchangePeer("relay2", ("relay2.example.com", "192.0.2.9"), ("example.org",), port=2525)


def tls(one):
    return [one[name] for name in ("IgnoreSTARTTLS", "RequireTLS", "TlsAuthLevel", "TlsDomain")]


@pytest.mark.parametrize(
    ("wanted", "after"),
    [
        (WantedExchange(outbound="disabled"), [True, False, None, None]),
        (WantedExchange(outbound="opportunistic"), [False, False, None, None]),
        (WantedExchange(outbound="required"), [False, True, "EncryptionOnly", None]),
        (WantedExchange(outbound="required", check="trusted_chain"), [False, True, "CertificateValidation", None]),
        (WantedExchange(outbound="required", check="hostname"), [False, True, "DomainValidation", "gw1.example.com"]),
        (
            WantedExchange(outbound="required", check="hostname", tls_domain="x.example"),
            [False, True, "DomainValidation", "x.example"],
        ),
    ],
)
@pytest.mark.parametrize(
    "before",
    [{}, {"IgnoreSTARTTLS": True}, {"RequireTLS": True, "TlsAuthLevel": "EncryptionOnly"}, {"RequireTLS": True},
     {"RequireTLS": True, "TlsAuthLevel": "DomainValidation", "TlsDomain": "old.example"}],
)  # fmt: skip
def test_every_way_is_legal(wanted, after, before):
    assert tls(done(organisation(SendConnectors=[send(**before)]), wanted)["SendConnectors"][0]) == after


def test_only_what_leads_to_the_next_hops_is_changed():
    found = organisation(
        SendConnectors=[send("a", SmartHosts=["[192.0.2.10]"]), send("b", SmartHosts=["gw2.example.com"])]
    )
    state = done(found, WantedExchange(outbound="required", next_hops=("192.0.2.10",)))
    assert [one["RequireTLS"] for one in state["SendConnectors"]] == [True, False]


def test_no_connector_leads_there():
    planned = plan(observe(organisation()), WantedExchange(outbound="opportunistic", next_hops=("gw9.example.com",)))
    assert codes(planned) == ["connector_refused"] and "gw9.example.com" in planned.obstacles[0].message
    assert codes(plan(observe(organisation(SendConnectors=[])), WantedExchange(outbound="required"))) == [
        "connector_refused"
    ]
    assert codes(plan(observe(organisation(SendConnectors=[])), WantedExchange(outbound="opportunistic"))) == []


def test_mail_to_every_domains_own_host_cannot_require_tls():
    dns = send(SmartHosts=[], DNSRoutingEnabled=True)
    planned = plan(observe(organisation(SendConnectors=[dns])), WantedExchange(outbound="required"))
    assert codes(planned) == ["connector_refused"] and "MX" in planned.obstacles[0].message
    state = done(
        organisation(SendConnectors=[{**dns, "IgnoreSTARTTLS": True}]), WantedExchange(outbound="opportunistic")
    )
    assert state["SendConnectors"][0]["IgnoreSTARTTLS"] is False


@pytest.mark.parametrize("hosts", [["[192.0.2.10]"], ["a.example.com", "b.example.com"]])
def test_a_name_to_compare_is_needed(hosts):
    found = observe(organisation(SendConnectors=[send(SmartHosts=hosts)]))
    assert codes(plan(found, WantedExchange(outbound="required", check="hostname"))) == ["connector_refused"]


def test_the_hybrid_wizards_connector_is_left_alone():
    hybrid = send("hybrid", CloudServicesMailEnabled=True, SmartHosts=["tenant.example.net"])
    found = organisation(SendConnectors=[send(), hybrid])
    state = done(found, WantedExchange(outbound="required"))
    assert state["SendConnectors"][1] == hybrid
    planned = plan(observe(found), WantedExchange(outbound="required", next_hops=("tenant.example.net",)))
    assert codes(planned) == ["connector_refused"] and "hybrid wizard" in planned.obstacles[0].message


def test_mutual_tls_is_not_switched_off_by_the_way():
    dns = send(SmartHosts=[], DNSRoutingEnabled=True, DomainSecureEnabled=True)
    planned = plan(observe(organisation(SendConnectors=[dns])), WantedExchange(outbound="disabled"))
    assert codes(planned) == ["connector_refused"] and "DomainSecureEnabled" in planned.obstacles[0].message


def test_connectors_of_other_servers_and_disabled_ones_are_not_in_question():
    found = organisation(
        SendConnectors=[send("a", SourceTransportServers=["EX2"]), send("b", Enabled=False), send("c")]
    )
    state = done(found, WantedExchange(outbound="required"))
    assert [one["RequireTLS"] for one in state["SendConnectors"]] == [False, False, True]


def test_another_server_that_sends_by_it_is_said():
    found = organisation(SendConnectors=[send(SourceTransportServers=["EX1", "EX2"])])
    planned = plan(observe(found), WantedExchange(outbound="required"))
    assert "ex2" in planned.warnings[0]


def test_the_certificate_is_named_where_that_was_asked():
    wanted = WantedExchange(outbound="opportunistic", certificate=CERTIFICATE, send_certificate=True)
    pair = "<I>CN=Authority 2<S>CN=mail.example.com"
    assert done(organisation(), wanted)["SendConnectors"][0]["TlsCertificateName"] == pair
    shared = organisation(SendConnectors=[send(SourceTransportServers=["EX1", "EX2"])])
    assert codes(plan(observe(shared), wanted)) == ["certificate_missing"]
    assert (
        done(shared, replace(wanted, others_with_certificate=("EX2",)))["SendConnectors"][0]["TlsCertificateName"]
        == pair
    )


def test_a_peer_gets_a_connector_of_its_own():
    state = done(
        organisation(), WantedExchange(peers=(replace(RELAY, check="hostname", tls_domain="relay2.example.com"),))
    )
    mine = state["SendConnectors"][1]
    assert mine["Name"] == "mailfleet_peer_relay2" and mine["AddressSpaces"] == ["SMTP:example.org;1"]
    assert mine["SmartHosts"] == ["relay2.example.com", "[192.0.2.9]"] and mine["Port"] == 2525
    assert mine["SourceTransportServers"] == ["EX1"]
    assert tls(mine) == [False, True, "DomainValidation", "relay2.example.com"]


def test_a_peers_connector_follows_the_inventory():
    first = done(organisation(), WantedExchange(peers=(RELAY,)))
    moved = ExchangePeer("relay2", ("relay3.example.com",), ("example.org", "example.net"), level="opportunistic")
    first["SendConnectors"][1]["SourceTransportServers"] = ["EX2"]
    mine = done(first, WantedExchange(peers=(moved,)))["SendConnectors"][1]
    assert mine["SmartHosts"] == ["relay3.example.com"] and mine["Port"] == 25
    assert mine["AddressSpaces"] == ["SMTP:example.org;1", "SMTP:example.net;1"]
    assert mine["SourceTransportServers"] == ["EX2", "EX1"] and tls(mine) == [False, False, None, None]


def test_a_peer_that_is_to_be_absent_is_removed():
    first = done(organisation(), WantedExchange(peers=(RELAY,)))
    first["Queues"] = []
    assert done(first, WantedExchange(absent=("relay2", "never")))["SendConnectors"] == organisation()["SendConnectors"]


def test_mail_that_goes_elsewhere_already_is_not_divided():
    everything = ExchangePeer("relay2", ("relay2.example.com",), ("*",))
    planned = plan(observe(organisation()), WantedExchange(peers=(everything,)))
    assert codes(planned) == ["connector_conflict"] and "To the internet" in planned.obstacles[0].message
    off = organisation(SendConnectors=[send(Enabled=False)])
    strict = StrictExchange(off)
    strict.run(one.to_json() for one in plan(observe(off), WantedExchange(peers=(everything,))).calls)
    assert strict.state["SendConnectors"][1]["AddressSpaces"] == ["SMTP:*;1"]


def test_a_peers_connector_is_not_a_way_out_of_the_server_itself():
    first = done(organisation(), WantedExchange(peers=(RELAY,)))
    planned = plan(observe(first), WantedExchange(outbound="disabled"))
    assert {one.parameters["Identity"] for one in planned.calls} == {"To the internet"}


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("SMTP:*;1", "*"),
        ("smtp:Example.com;10", "example.com"),
        ("example.com", "example.com"),
        ("X400:c=de;1", "x400:c=de"),
    ],
)
def test_address_spaces(text, domain):
    assert space_domain(text) == domain
