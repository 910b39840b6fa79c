"""The entries of starttls_peers: what is read, and what is refused by name."""

from __future__ import annotations

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import Peer, peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

ONLINE = {
    "name": "online",
    "kind": "exchange_online",
    "hosts": ["TENANT.mail.exchange.example"],
    "domains": ["*"],
    "check": "hostname",
    "names": [".mail.exchange.example"],
    "client_certificate": "/etc/mailfleet/starttls.pem",
    "proof_sender": "proof@example.com",
    "proof_recipient": "proof@example.net",
}


def test_what_is_read_comes_back():
    peer = Peer.from_dict(ONLINE)
    assert peer.hosts == (Target("tenant.mail.exchange.example", 25),)
    assert (peer.level, peer.direction, peer.sends_to_it, peer.receives_from_it) == (
        "required",
        "outbound",
        True,
        False,
    )
    assert Peer.from_dict(peer.to_dict()) == peer


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "On line"}, "the name 'On line'"),
        ({"name": ""}, "the name ''"),
        ({"kind": "gmail"}, "kind 'gmail' is not one of exchange"),
        ({"hosts": []}, "no hosts"),
        ({"hosts": "mx.example.com"}, "hosts has to be a list"),
        ({"hosts": ["mx.example.com\nx"]}, "hosts: the host"),
        ({"domains": []}, "no domains"),
        ({"domains": ["*", "example.com"]}, "stands alone"),
        ({"domains": ["exa mple.com"]}, "not a domain name"),
        ({"direction": "out"}, "direction 'out'"),
        ({"level": "must"}, "level 'must'"),
        ({"check": "dane"}, "check 'dane'"),
        ({"check": "pin"}, "pin goes with"),
        ({"check": "trusted_chain"}, "names are compared"),
        ({"level": "opportunistic"}, "needs level: required"),
        ({"client_certificate": "a.pem"}, "absolute path"),
        ({"client_certificate": "", "client_key": "/etc/key.pem"}, "goes with client_certificate"),
        ({"proof_sender": "nobody"}, "not an e-mail address"),
        ({"proof_sender": "a@example.com>\n"}, "not an e-mail address"),
        ({"servername": "-"}, "not a host name"),
        ({"servername": "."}, "not a host name"),
        ({"servername": "hostname"}, "'hostname' is not a host name"),
        ({"names": ["."]}, "not a host name"),  # without a name, that of the next hop counts
        ({"names": [""]}, "not a host name"),
        ({"names": ["mx.example.com", "nexthop"]}, "'nexthop' is not a host name"),
        ({"names": ["dot-nexthop."]}, "'dot-nexthop' is not a host name"),
        ({"domains": ["."]}, "not a domain name"),
        ({"tls_domain": "."}, "not a domain name"),
        ({"tls_domain": "a..b"}, "not a domain name"),
        ({"names": [".example.com", ".example.com"]}, "twice"),
        ({"colour": "red"}, "'colour', which does not exist"),
    ],
)
def test_what_is_refused_names_the_variable_and_the_fault(change, words):
    with pytest.raises(EngineError, match="starttls_peers") as caught:
        Peer.from_dict({**ONLINE, **change})
    assert words in str(caught.value)


def test_two_peers_share_no_name_and_no_domain():
    with pytest.raises(EngineError, match="two peers have the name online"):
        peers_of([ONLINE, ONLINE])
    with pytest.raises(EngineError, match="goes to online and to other"):
        peers_of([ONLINE, {**ONLINE, "name": "other"}])
    assert len(peers_of([ONLINE, {"name": "in", "direction": "inbound"}])) == 2
