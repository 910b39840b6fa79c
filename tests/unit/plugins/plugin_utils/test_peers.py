"""starttls_peers of an inventory: what is read, whose hosts they are, and what is refused before anything changes."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.estate import Estate, estate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.peers import wanted_peers

GROUPS = {"mail_gateways": ["gw"], "mail_servers": ["relay", "inner"], "all": ["gw", "relay", "inner", "exch"]}
EXCHANGE = {"name": "exchange", "kind": "exchange", "hosts": ["exch"], "domains": ["example.com"]}
ONLINE = {
    "name": "online", "kind": "exchange_online", "hosts": ["mx.example.net"], "domains": ["*"], "client_certificate": "/etc/c.pem",
    "proof_sender": "a@example.org", "proof_recipient": "b@example.net",
}  # fmt: skip
INNER = {"name": "inner", "hosts": ["inner"], "domains": ["inner.example"]}


def inventory(*peers, **facts):
    hosts = {
        "gw": {}, "inner": {"starttls_hostname": "inner.example", "starttls_port": 2525}, "exch": {"starttls_hostname": "exch.example"},
        "relay": {"starttls_peers": list(peers)},
    }  # fmt: skip
    return {host: {"groups": GROUPS, **own, **facts.get(host, {})} for host, own in hosts.items()}


def read(*peers, hosts=("gw", "relay", "inner"), **facts):
    return Estate.parse([], inventory(*peers, **facts), list(hosts))


def said(*peers, **facts):
    with pytest.raises(EngineError) as caught:
        read(*peers, **facts)
    return str(caught.value)


def test_names_of_the_inventory_are_addresses_and_hosts_of_the_fleet_are_known():
    peers = read(EXCHANGE, {**INNER, "direction": "both"}).peers
    [exchange, inner] = peers["relay"]
    assert [str(one) for one in exchange.peer.hosts] == ["exch.example:25"]
    assert (exchange.managed, exchange.acceptors, exchange.senders) == (("",), (), ())  # in no group of the fleet
    assert [str(one) for one in inner.peer.hosts] == ["inner.example:2525"]
    assert (inner.acceptors, inner.senders) == (("inner",), ("inner",))


def test_a_host_of_the_fleet_is_known_by_its_address():
    [one] = read({**INNER, "hosts": ["Inner.example:2525", "inner.example"]}).peers["relay"]
    assert one.managed == ("inner", "")  # the port counts


def test_the_estate_comes_back_as_it_was():
    found = read(EXCHANGE, INNER)
    assert Estate.from_json(found.to_json()) == found
    assert set(found.to_json()["peers"]) == {"relay"}


def test_hosts_without_peers_cost_nothing():
    assert read().peers == {}
    assert read(hosts=["gw"]).peers == {}


@pytest.mark.parametrize(
    ("peers", "words"),
    [
        ([{**EXCHANGE, "level": "always"}], "relay: starttls_peers: peer exchange: level 'always' is not one of"),
        ([{**EXCHANGE, "hosts": ["a b"]}], "relay: starttls_peers: peer exchange: hosts: "),
        ([EXCHANGE, EXCHANGE], "relay: starttls_peers: two peers have the name exchange"),
        (["exchange"], "relay: starttls_peers: an entry has to be a mapping"),
        ([{**EXCHANGE, "hosts": "exch"}], "relay: starttls_peers: peer exchange: hosts has to be a list"),
        ([{**EXCHANGE, "hosts": ["relay"]}], "peer exchange is relay itself, so mail would loop; correct its hosts"),
    ],
)  # fmt: skip
def test_a_fault_names_host_variable_and_peer(peers, words):
    assert words in said(*peers)


def test_what_is_no_list():
    assert said(relay={"starttls_peers": EXCHANGE}) == "relay: starttls_peers has to be a list"


def test_a_gateway_has_no_peers():
    text = said(gw={"starttls_peers": [EXCHANGE]})
    assert text.startswith("gw is a gateway and has starttls_peers, which is for mail servers; ")


def test_a_kind_without_peers():
    assert said(EXCHANGE, relay={"starttls_kind": "haraka", "starttls_peers": [EXCHANGE]}).startswith(
        "relay: starttls_peers is for the kinds postfix, exim, exchange, and starttls_kind is haraka"
    )


class TestHybrid:
    @pytest.mark.parametrize(
        ("exchange", "online"),
        [
            ({}, {"direction": "inbound", "domains": ["example.com"], "hosts": []}),
            ({"direction": "inbound", "domains": ["example.com"]}, {"domains": ["example.com"]}),
            ({}, {"proof_sender": "postmaster@Example.com"}),
            ({"direction": "both"}, {}),
            ({"direction": "inbound", "hosts": [], "domains": []}, {}),
        ],
    )
    def test_refused_with_the_reason_of_microsoft(self, exchange, online):
        text = said({**EXCHANGE, **exchange}, {**ONLINE, **online})
        assert text.startswith("relay: starttls_peers: the peers exchange (Exchange) and online (Exchange Online) ")
        assert "hybrid organisation" in text and "an Edge server apart" in text and "headers" in text

    @pytest.mark.parametrize(
        ("exchange", "online"),
        [
            ({}, {}), ({"direction": "both"}, {"domains": ["example.org"]}), ({"kind": "smtp", "direction": "both"}, {}),
            ({"direction": "both"}, {"direction": "inbound", "hosts": [], "domains": []}),
        ],
    )  # fmt: skip
    def test_two_organisations_on_one_relay(self, exchange, online):
        assert len(read({**EXCHANGE, **exchange}, {**ONLINE, **online}).peers["relay"]) == 2


STRICT = {"inner": {"starttls_hostname": "inner.example", "starttls_port": 2525, "starttls_inbound": "required"}}


class TestRequired:
    def test_a_peer_that_may_be_plaintext_does_not_lead_to_a_server_that_requires_tls(self):
        text = said({**INNER, "level": "opportunistic"}, **STRICT)
        assert text.startswith(
            "relay: starttls_peers: peer inner: inner is to require TLS (starttls_inbound), and level: opportunistic may "
        )

    def test_a_server_may_require_tls_behind_a_peer(self):
        hostvars = inventory(INNER, **STRICT)
        assert Estate.parse([], hostvars, ["relay", "inner"], check_required=True).peers
        with pytest.raises(EngineError, match="inner is to require TLS"):
            Estate.parse([], inventory(**STRICT), ["relay", "inner"], check_required=True)


@pytest.mark.parametrize(
    ("action", "names"),
    [
        ("enable", ["exchange", "online", "inner", "sends"]), ("verify", ["exchange", "online", "inner", "sends"]),
        ("disable", ["exchange", "inner"]), ("uninstall", ["inner"]), ("set_delivery_mode", []),
    ],
)  # fmt: skip
def test_what_a_playbook_sets(action, names):
    """Exchange Online keeps TLS: without, it refuses for good. An uninstallation relaxes what leads to hosts of the fleet only."""
    plain = estate([], inventory(EXCHANGE, ONLINE, INNER, {"name": "sends", "direction": "inbound"}), ["relay"])
    assert [one["name"] for one in wanted_peers(plain, "relay", action)] == names
    assert wanted_peers(plain, "gw", action) == []
