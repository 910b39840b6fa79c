"""What the inventory says of the hosts around an Exchange server, and who tests it."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange import wanted
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.wanted import Around, proof_host

GATEWAYS = {
    "gw1": {"starttls_hostname": "gw1.example.com", "starttls_address": "192.0.2.1", "ansible_host": "192.0.2.9"}
}
EX1 = {"starttls_kind": "exchange", "starttls_hostname": "ex1.example.com"}
RELAY = {"starttls_peers": [{"name": "exchange", "hosts": ["ex1"], "domains": ["example.com"]}]}


def test_gateways_are_clients_by_their_addresses_and_next_hops_by_their_names():
    around = Around.of("ex1", {"ex1": EX1, **GATEWAYS}, {"mail_gateways": ["gw1"]})
    assert around.clients == {"gw1": ("192.0.2.1", "192.0.2.9")}
    assert around.next_hops == ("gw1.example.com", "192.0.2.1", "192.0.2.9") and around.unknown == []


def test_a_gateway_that_is_known_by_names_alone():
    hosts = {"ex1": EX1, "gw1": {"ansible_host": "gw1.example.com", "starttls_address": "127.0.0.1"}}
    assert Around.of("ex1", hosts, {"mail_gateways": ["gw1"]}).unknown == ["gw1"]


@pytest.mark.parametrize(
    ("hosts", "groups", "found"),
    [
        ({"ex1": EX1, **GATEWAYS}, {"mail_gateways": ["gw1"]}, "gw1"),
        ({"ex1": {**EX1, "starttls_exchange_proof_host": "r"}, "r": {}, **GATEWAYS}, {"mail_gateways": ["gw1"]}, "r"),
        ({"ex1": EX1, "r": RELAY, "other": {}}, {"mail_servers": ["ex1", "other", "r"]}, "r"),
        ({"ex1": EX1}, {"mail_servers": ["ex1"]}, "localhost"),
    ],
)
def test_who_tests_it(hosts, groups, found):
    assert proof_host("ex1", hosts, groups) == found
    assert wanted.tester_of("ex1", hosts, groups) == found


def test_a_proof_host_that_is_not_there_is_said():
    with pytest.raises(EngineError, match="starttls_exchange_proof_host 'gw9' is not in the inventory"):
        proof_host("ex1", {"ex1": {**EX1, "starttls_exchange_proof_host": "gw9"}}, {})


@pytest.mark.parametrize("facts", [{}, {"starttls_kind": "postfix"}, {"ansible_connection": "ssh"}])
def test_other_hosts_make_their_tests_themselves(facts):
    assert wanted.tester_of("pf1", {"pf1": facts}, {"mail_gateways": ["gw1"]}) == ""
