"""An Exchange server as the plan and the report see it."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.model import observe
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.observed import (
    certificates,
    digest,
    listeners,
    state,
    transports,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._exchange.wanted import NamedClient, WantedExchange

from tests.support.exchange_organisation import INTERNAL, organisation, queue, receive, send


def test_each_binding_is_a_listener():
    found = listeners(observe(organisation()))
    assert [(one.service, one.host, one.port, one.tls) for one in found[:3]] == [
        ("Default Frontend EX1", "", 25, "offered"),
        ("Default Frontend EX1", "", 25, "offered"),
        ("Client Frontend EX1", "", 587, "offered"),
    ]
    assert {one.port for one in found} == {25, 587, 717, 2525, 465}
    assert found[0].overrides["RemoteIPRanges"].endswith("0.0.0.0-255.255.255.255")


def test_the_mode_of_a_listener_may_be_unknown():
    dark = [{**one, "Unknown": ["Services"]} for one in organisation()["ExchangeCertificates"]]
    found = listeners(
        observe(
            organisation(ExchangeCertificates=dark, ReceiveConnectors=[receive("a"), receive("b", RequireTLS=True)])
        )
    )
    assert {(one.service, one.tls) for one in found} == {("a", "unknown"), ("b", "required")}


def test_a_disabled_connector_is_no_listener():
    assert listeners(observe(organisation(ReceiveConnectors=[receive("a", Enabled=False)]))) == []


@pytest.mark.parametrize("part", [{"ReceiveConnectors": None}, {"ReceiveConnectors": [receive("a", Bindings=["x"])]}])
def test_listeners_that_could_not_be_read_are_unknown(part):
    assert listeners(observe(organisation(**part))) is None


@pytest.mark.parametrize(
    ("change", "level"),
    [({}, "opportunistic"), ({"IgnoreSTARTTLS": True}, "none"), ({"RequireTLS": True}, "EncryptionOnly"),
     ({"RequireTLS": True, "TlsAuthLevel": "DomainValidation", "TlsDomain": "x.example"}, "DomainValidation")],
)  # fmt: skip
def test_each_smart_host_is_a_transport(change, level):
    found = transports(
        observe(organisation(SendConnectors=[send(SmartHosts=["[192.0.2.9]", "GW.example.com."], Port=2525, **change)]))
    )
    assert [(one.setting, one.transport, one.next_hop, one.port, one.level) for one in found] == [
        ("SMTP:*;1", "To the internet", host, 2525, level) for host in ("192.0.2.9", "gw.example.com")
    ]


def test_mail_that_looks_up_the_mx_has_no_next_hop():
    found = transports(observe(organisation(SendConnectors=[send(SmartHosts=[], DNSRoutingEnabled=True)])))
    assert [(one.next_hop, one.port) for one in found] == [(None, None)]


def test_transports_of_other_servers_and_unread_ones():
    assert transports(observe(organisation(SendConnectors=[send(SourceTransportServers=["EX2"])]))) == []
    assert transports(observe(organisation(SendConnectors=None))) is None
    bare = send()
    del bare["IgnoreSTARTTLS"]
    assert transports(observe(organisation(SendConnectors=[bare])))[0].level == "unknown"


@pytest.mark.parametrize(
    ("connectors", "word"),
    [
        ([receive("a")], "offered"),
        ([receive("a", RequireTLS=True)], "required"),
        ([receive("a", AuthMechanism="Integrated")], "disabled"),
        ([receive("a"), receive("b", RemoteIPRanges=["192.0.2.1"], RequireTLS=True)], "custom"),
        ([receive("a"), receive("c", 587, RequireTLS=True)], "offered"),
        ([], "disabled"),
        (None, "unknown"),
    ],
)
def test_inbound_is_that_of_the_connectors_in_question(connectors, word):
    assert state(observe(organisation(ReceiveConnectors=connectors)), WantedExchange())["inbound"] == word


def test_with_clients_only_what_serves_them_counts():
    found = observe(
        organisation(ReceiveConnectors=[receive("a"), receive("b", RemoteIPRanges=["192.0.2.1"], RequireTLS=True)])
    )
    assert state(found, WantedExchange(clients=(NamedClient("gw1", ("192.0.2.1",)),)))["inbound"] == "required"
    assert state(found, WantedExchange(clients=(NamedClient("gw2", ("192.0.2.2",)),)))["inbound"] == "offered"


@pytest.mark.parametrize(
    ("connectors", "word"),
    [
        ([send()], "opportunistic"),
        ([send(IgnoreSTARTTLS=True)], "disabled"),
        ([send(RequireTLS=True, TlsAuthLevel="CertificateValidation")], "required"),
        ([send(), send("b", IgnoreSTARTTLS=True)], "custom"),
        ([send(), send("mailfleet_peer_a", IgnoreSTARTTLS=True)], "opportunistic"),
        (None, "unknown"),
    ],
)
def test_outbound(connectors, word):
    assert state(observe(organisation(SendConnectors=connectors)), WantedExchange())["outbound"] == word


def test_the_facts_of_certificates():
    found = certificates(observe(organisation()))
    assert found[0] == {
        "thumbprint": INTERNAL, "subject": "CN=EX1", "issuer": "CN=EX1", "names": ["EX1", "ex1.example.com"],
        "not_after": "2027-01-01T00:00:00Z", "services": "IIS, SMTP", "status": "Valid",
    }  # fmt: skip
    dark = certificates(observe(organisation(ExchangeCertificates=[{"Thumbprint": INTERNAL, "Unknown": ["Services"]}])))
    assert dark[0]["services"] is None and dark[0]["thumbprint"] == INTERNAL
    assert certificates(observe(organisation(ExchangeCertificates=None))) is None


def test_a_digest_changes_with_what_a_plan_depends_on():
    first = digest(observe(organisation()))
    assert first == digest(observe(organisation(Queues=[queue()])))
    shuffled = copy.deepcopy(organisation())
    shuffled["ReceiveConnectors"].reverse()
    assert first == digest(observe(shuffled))
    for change in (
        {"SendConnectors": [send(Port=26)]},
        {"SendConnectors": None},
        {"TransportService": {"InternalTransportCertificateThumbprint": None}},
        {"ReceiveConnectors": organisation()["ReceiveConnectors"][:-1]},
        {"ExchangeCertificates": []},
    ):
        assert first != digest(observe(organisation(**change)))
